"""The papers' numbers as data, and which runs they are of.  in: paper_numbers.csv, groups of runs   out: tables"""

import itertools
from collections.abc import Callable, Sequence
from importlib.resources import files
from io import StringIO

import numpy as np
import pandas as pd

from study.data.readers.published import PUBLISHED
from study.experiments.select import REPEATED, Group
from study.tracking import Run

COLUMNS = ["id", "statistic", "data", "network", "condition", "paper", "place"]


def paper_numbers() -> pd.DataFrame:
    """Numbers of the papers: id | statistic | data | network | condition | paper (the value) | place in the paper."""
    text = files("study.experiments").joinpath("paper_numbers.csv").read_text(encoding="utf-8")
    table = pd.read_csv(StringIO(text), keep_default_na=False)
    return pd.DataFrame(table.rename(columns={"value": "paper"}).astype({"paper": float}), columns=COLUMNS)


def beside_paper(groups: Sequence[Group], id: str, statistic: str, of_run: Callable[[Run], float]) -> pd.DataFrame:
    """A statistic of groups of runs beside the paper's value for the same data, network and conditions.

    Args:
        groups: of single runs.
        id: of `paper_numbers`.
        statistic: of `paper_numbers`, and the column's name.
        of_run: the statistic of one run.

    Returns:
        A column per parameter that differs | runs, their number | the statistic, mean over the runs | SD (n - 1), NaN
        of one | paper, NaN where it has no such number; the paper's data and network stand in `paper_numbers`.
    """
    numbers = [number for number in paper_numbers().to_dict("records") if number["id"] == id]
    rows = []
    for group in groups:
        values = [of_run(run) for run in group.runs]
        paper = [number["paper"] for number in numbers if _is_of(group, number)]
        rows.append(
            {
                **group.differing,
                "runs": len(values),
                statistic: float(np.mean(values)),
                "SD": float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
                "paper": paper[0] if paper else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _is_of(group: Group, number: dict) -> bool:
    """Whether a group has the conditions of a number; where there are none, its data and network."""
    if number["condition"]:
        return fits(group, conditions_of(number["condition"]))
    same_data = data_of(group.runs[0]) == number["data"]
    return same_data and networks_fit(number["network"], network_of(group))


def conditions_of(text: str) -> dict[str, str]:
    """Names and values of a condition such as `optimizer.lr=0.1 schedule.name=step`."""
    return dict(part.split("=", 1) for part in text.split())


def fits(group: Group, wanted: dict[str, str]) -> bool:
    """Whether a group of runs has these parameters."""
    return all(_same(group, name, value) for name, value in wanted.items())


def _same(group: Group, name: str, wanted: str) -> bool:
    """Whether a parameter has this value, as a number where both are."""
    value = group.runs[0].params.get(name, "")
    try:
        return float(value) == float(wanted)
    except ValueError:
        return value == wanted


def networks_fit(wanted: str, network: str) -> bool:
    """Whether a network is the paper's, or any will do."""
    return wanted == "any" or wanted == network


def data_of(run: Run) -> str:
    """The name of a run's data: of a published data set its own, of other files the label they are filed under."""
    name = run.params.get("data.name", "")
    return name if name in PUBLISHED else run.experiment.rpartition("/")[0] or name


def network_of(group: Group) -> str:
    """The name of a group's network."""
    return group.runs[0].params.get("model.name", "")


def mismatches(group: Group, data: str, network: str) -> tuple[bool, bool]:
    """Whether data and network are other ones than the paper's."""
    return data_of(group.runs[0]) != data, not networks_fit(network, network_of(group))


def alike_pairs(
    firsts: Sequence[Group], seconds: Sequence[Group], data: str, network: str
) -> list[tuple[Group, Group]]:
    """Pairs of trainings on the same data, those first that are of the paper's data and network.

    Among these come first the pairs that differ in the fewest parameters: two optimizers of one network, not of two.
    """
    pairs = [pair for pair in itertools.product(firsts, seconds) if pair[0].data == pair[1].data]
    return sorted(
        pairs, key=lambda pair: (*(mismatches(group, data, network) for group in pair), _differing_parameters(*pair))
    )


def _differing_parameters(first: Group, second: Group) -> int:
    left, right = (group.runs[0].params for group in (first, second))
    return sum(left.get(name) != right.get(name) for name in {*left, *right} - {*REPEATED})
