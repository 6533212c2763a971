"""The papers' numbers beside ours.  in: paper_numbers.csv, finished runs of a Store   out: a row per number

A number of ours is always computed from finished runs that the store holds.  Runs on the paper's data and network come
first; where there are none, a rank correlation is shown from other data, and never said to agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, t

from study.errors import StoreError, StudyError
from study.experiments.baldock_difficulty import probes_by_difficulty
from study.experiments.baldock_single import margin_cloud
from study.experiments.compare import agreement, group_scores, last_epochs
from study.experiments.findings import FinishedRuns, correct_of
from study.experiments.paper_numbers import (
    alike_pairs,
    conditions_of,
    data_of,
    fits,
    mismatches,
    network_of,
    networks_fit,
    paper_numbers,
)
from study.experiments.select import Group, group_runs
from study.experiments.zhang import histogram_pearson, online_agreement_of
from study.tracking import Run, Store

TOLERANCES = {"accuracy": 0.01, "mean_absolute_error": 0.25, "best_ratio": 0.0}  # by the end of a statistic's name
TOLERANCE = 0.05  # of correlations and shares
BALDOCK_WIDTHS = ", ".join(7 * ["2048"])  # of the MLP in B-tab2 (B-models), the only MLP whose accuracy is in a paper
FACTOR = {"mean_output_margin": 2.0}  # margins span five orders of magnitude: within half and twice the paper's


@dataclass(frozen=True)
class Measured:
    """A number of ours.

    value, low, high: the number, and its 95 % interval; NaN where one run tells nothing of it.
    data, network: that it is of.
    scale: how much was trained for it.
    device, date, run: of the newest run behind it.
    limit: training examples of each class where the run has a part of the data, else "none".
    """

    value: float
    low: float
    high: float
    data: str
    network: str
    scale: str
    device: str
    date: str
    run: str
    limit: str = "none"


def reproduce(store: Store, numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Set each number of the papers beside that of finished runs.

    Args:
        store: whose reports and single runs on data without noise are read.
        numbers: of `paper_numbers`; all unless given.

    Returns:
        The columns of `paper_numbers` | value low high | ours_data ours_network scale device date run ours_limit |
        verdict: "agrees" (same data and network, and the paper's value lies in our interval, or as near to our value as
        `TOLERANCES` and `FACTOR` say), "differs", "other scale" (other data, a part of the data where the paper has
        all, or another network), "no run".
    """
    numbers = paper_numbers() if numbers is None else numbers
    evidence = Evidence(store)
    rows = []
    for number in numbers.to_dict("records"):
        measured = evidence.measure(number)
        ours = asdict(measured) if measured else dict.fromkeys(Measured.__annotations__)
        renamed = {f"ours_{key}" if key in ("data", "network", "limit") else key: value for key, value in ours.items()}
        rows.append({**number, **renamed, "verdict": verdict(number, measured)})
    return pd.DataFrame(rows).astype(dict.fromkeys(("value", "low", "high"), float))


def verdict(number: dict, ours: Measured | None) -> str:
    """Whether a number of ours agrees with the paper's; the rule is in `reproduce`."""
    if ours is None or not np.isfinite(ours.value):
        return "no run"
    a_part = ours.limit != "none" and "data.limit" not in number["condition"]
    if a_part or ours.data != number["data"] or not networks_fit(number["network"], ours.network):
        return "other scale"
    paper, statistic = number["paper"], number["statistic"]
    if statistic in FACTOR:
        near = paper / FACTOR[statistic] <= ours.value <= paper * FACTOR[statistic]
    else:
        size = next((size for end, size in TOLERANCES.items() if statistic.endswith(end)), TOLERANCE)
        near = abs(ours.value - paper) <= size
    return "agrees" if near or ours.low <= paper <= ours.high else "differs"


class Evidence:
    """Finished runs on data without noise, the newest first, read once."""

    def __init__(self, store: Store) -> None:
        """Read the list of runs."""
        self.reports = [run for run in store.find("report", status="FINISHED") if _clean(run)]
        singles = [run for run in store.find("single", status="FINISHED") if _clean(run)]
        ensembles = [run for run in store.find("ensemble", status="FINISHED") if _clean(run)]
        trained = [*singles, *ensembles]
        self.store, self.ensembles = store, group_runs(ensembles) if ensembles else []
        self.devices = {run.tags["study.data"]: run.tags.get("study.device", "") for run in trained}
        self.groups = group_runs(singles) if singles else []
        self.measures: dict[str, Callable[[dict, str], Measured | None]] = {
            "spearman": self.rank_correlation,
            "kendall": self.rank_correlation,
            "best_ratio": self.best_ratio,
            "test_accuracy": self.accuracy,
            "last_epochs_accuracy": self.accuracy,
            "online": self.online_agreement,
            "pearson": self.pearson_between_groups,
            "repeats": self.pearson_between_repeats,
            "histogram": self.pearson_of_histograms,
            "depth_margin": self.depth_and_margin,
            "mean_output_margin": self.output_margin,
            "accuracy_at_corner": self.accuracy_at_corner,
        }

    def measure(self, number: dict) -> Measured | None:
        """Our value of a number of a paper; None where no finished run tells it."""
        kind, _, rest = number["statistic"].partition("/")
        return self.measures[kind](number, rest)

    def rank_correlation(self, number: dict, proxy: str) -> Measured | None:
        """A proxy's correlation with the C-score, all examples, mean over the repeats (J-tab1, J-cbtl)."""
        kind = number["statistic"].partition("/")[0]
        columns = ["spearman", "low", "high"] if kind == "spearman" else ["kendall", "kendall_low", "kendall_high"]
        for report in _by_data(self.reports, number):
            table = _table(report, "correlations.parquet")
            if table is not None and len(table):
                rows = table.query("proxy == @proxy and part == 'all' and on == 'train'")
                rows = rows.query("reference in ['cscore', 'published']")
                if len(rows):
                    first = rows[rows["reference"] == rows.iloc[0]["reference"]]
                    return self._of_report(report, *np.mean(np.asarray(first[columns], dtype=float), axis=0).tolist())
        return None

    def best_ratio(self, number: dict, _: str) -> Measured | None:
        """The subset ratio, in percent, whose C-score ranks most like the integral one (J-fig5)."""
        for report in _by_data(self.reports, number):
            table = _table(report, "points.parquet")
            if table is None or "spearman" not in table:
                continue
            percent, spearman, low, high = (
                np.asarray(table[name], dtype=float) for name in ("percent", "spearman", "low", "high")
            )
            if np.isfinite(spearman).any():
                best = np.nanargmax(spearman)
                near = percent[high >= low[best]]
                return self._of_report(report, float(percent[best]), float(near.min()), float(near.max()))
        return None

    def accuracy(self, number: dict, _: str) -> Measured | None:
        """Test accuracy, mean over the repeats: at the end, or over the last ten epochs (J-tab3, B-tab2).

        On the paper's data alone; another network is shown where the number is one of several optimizers.
        """
        for group in self._fitting(conditions_of(number["condition"]), number["network"], number):
            network, widths = network_of(group), group.runs[0].params.get("model.settings.widths", "")
            fitting = networks_fit(number["network"], network) and (network != "mlp" or widths == BALDOCK_WIDTHS)
            if data_of(group.runs[0]) == number["data"] and (fitting or number["condition"]):
                last = number["statistic"] == "last_epochs_accuracy"
                values = [last_epochs(run) if last else run.metrics.get("test/accuracy", np.nan) for run in group.runs]
                return _of_group(group, values)
        return None

    def online_agreement(self, number: dict, name: str) -> Measured | None:
        """How counts at epoch ends agree with online ones, mean over the repeats (Z-online)."""
        statistic, _, part = name.rpartition("/")
        for group in self._fitting({}, number["network"], number):
            if all(f"online/{statistic}_pearson" in run.metrics for run in group.runs):
                values = [online_agreement_of(run)[statistic][part == "mean_absolute_error"] for run in group.runs]
                return _of_group(group, values)
        return None

    def pearson_between_groups(self, number: dict, name: str) -> Measured | None:
        """Pearson of scores averaged over repeats, between two networks or optimizers (Z-tab2, Z-fig11)."""
        score, _, split = name.rpartition("/")
        sides = [conditions_of(side) for side in number["condition"].split(" / ")]
        network = "any" if "model.name" in sides[0] else number["network"]
        lists = [self._fitting(side, network, number) for side in sides]
        for first, second in alike_pairs(lists[0], lists[1], number["data"], network):
            table = agreement([first, second], only=[score])
            rows = table[table["split"] == split]
            if len(rows):
                row = rows.iloc[0]
                values = row["pearson"], row["pearson_low"], row["pearson_high"]
                scale = f"{_group_scale(first)} and {_group_scale(second)}"
                return _measured(first.runs[0], *values, scale, ", ".join(map(network_of, (first, second))))
        return None

    def pearson_between_repeats(self, number: dict, name: str) -> Measured | None:
        """Mean Pearson over all pairs of repeats of one training (Z-fig6)."""
        score, _, split = name.rpartition("/")
        for group in self._fitting({}, number["network"], number):
            if len(group.runs) < 2:
                continue
            each = [group_scores(Group("", "single", group.data, (run,), {}), [score]) for run in group.runs]
            if all((score, split) in scores for scores in each):
                columns = np.stack([scores[score, split].to_numpy(dtype=float) for scores in each])
                pairs = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
                return _measured(group.runs[0], pairs.mean(), np.nan, np.nan, _group_scale(group))
        return None

    def pearson_of_histograms(self, number: dict, _: str) -> Measured | None:
        """Pearson between the histograms of forgetting and mal-generalizing events, mean over the repeats (Z-fig7)."""
        for group in self._fitting({}, number["network"], number):
            correct = [correct_of(run)[1] for run in group.runs]
            if all(len(of_splits) == 2 for of_splits in correct):
                values = [histogram_pearson(of_splits) for of_splits in correct]
                if np.isfinite(values).all():
                    return _of_group(group, values)
        return None

    def depth_and_margin(self, number: dict, column: str) -> Measured | None:
        """Pearson of mean prediction depths with logarithms of mean margins of test examples (B-fig6)."""
        for group in self._fitting({}, number["network"], number):
            if all("probes.npz" in run.files for run in group.runs):
                cloud = margin_cloud(group, "test", column)
                if cloud is not None and np.isfinite(cloud[2]):
                    interval: Any = pearsonr(cloud[0], np.log(cloud[1])).confidence_interval(0.95)
                    return _measured(group.runs[0], cloud[2], interval.low, interval.high, _group_scale(group))
        return None

    def output_margin(self, number: dict, _: str) -> Measured | None:
        """Mean output margin of the test examples, mean over the repeats (B-hinge)."""
        for group in self._fitting(conditions_of(number["condition"]), number["network"], number):
            tables = [run.read_table("scores.parquet") for run in group.runs]
            if all("output_margin_test" in table for table in tables):
                return _of_group(group, [float(np.nanmean(table["output_margin_test"])) for table in tables])
        return None

    def accuracy_at_corner(self, number: dict, which: str) -> Measured | None:
        """How often network or middle layer are right of examples ambiguous unless the label is given (B-fig8)."""
        for group in sorted(self.ensembles, key=lambda group: not _same_training(group, number)):
            try:
                (finding,) = probes_by_difficulty(FinishedRuns([group], self.store))
            except StudyError:  # no depths, no probes, or data that are not here
                continue
            value = finding.numbers.get(f"B-fig8/{which}")
            if value is not None:
                return _measured(group.runs[0], value, np.nan, np.nan, _report_scale(group.runs[0]))
        return None

    def _of_report(self, report: Run, value: float, low: float, high: float) -> Measured:
        """A number of a report; the device is that of the ensemble, or the single run, on the same data."""
        measured = _measured(report, value, low, high, _report_scale(report))
        return replace(measured, device=self.devices.get(report.tags["study.data"], ""))

    def _fitting(self, wanted: dict[str, str], network: str, number: dict) -> list[Group]:
        """Groups under some conditions: the paper's data and network first, then any other's."""
        fitting = [group for group in self.groups if fits(group, wanted)]
        if "data.limit" not in wanted:  # the margin intervention tells two classes apart, which is another task
            fitting = [group for group in fitting if group.runs[0].params.get("data.classes", "none") == "none"]
        return sorted(fitting, key=lambda group: mismatches(group, number["data"], network))


def _same_training(group: Group, number: dict) -> bool:
    """Whether a group has the paper's data and network."""
    return data_of(group.runs[0]) == number["data"] and networks_fit(number["network"], network_of(group))


def _clean(run: Run) -> bool:
    return run.params.get("noise.labels", "none") == run.params.get("noise.inputs", "none") == "none"


def _by_data(runs: Sequence[Run], number: dict) -> list[Run]:
    return sorted(runs, key=lambda run: data_of(run) != number["data"])


def _table(run: Run, name: str) -> pd.DataFrame | None:
    try:
        return run.read_table(name) if name in run.files else None
    except StoreError:
        return None


def _of_group(group: Group, values: Sequence[float]) -> Measured:
    """Mean over the repeats with its t interval."""
    mean, count = float(np.mean(values)), len(values)
    half = t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return _measured(group.runs[0], mean, mean - half, mean + half, _group_scale(group))


def _group_scale(group: Group) -> str:
    params = group.runs[0].params
    return f"{len(group.runs)} x {params.get('model.name', '?')}, {params.get('train.epochs', '?')} epochs"


def _report_scale(report: Run) -> str:
    params = report.params
    ratios = len(params.get("subset.ratios", "").split(", ")) if "subset.ratios" in params else 0
    most = "at most " if "subset.until.score" in params else ""
    members = f"{most}{int(params['subset.members']) * ratios} networks" if ratios else "published C-scores"
    return f"{members}, {params.get('model.name', '?')}, {params.get('train.epochs', '?')} epochs"


def _measured(run: Run, value: float, low: float, high: float, scale: str, network: str | None = None) -> Measured:
    date = datetime.fromtimestamp(run.started / 1000, UTC).date().isoformat()
    name = run.params.get("model.name", "") if network is None else network
    device = run.tags.get("study.device", "")
    limit = run.params.get("data.limit", "none")
    data = data_of(run)
    scale = scale if limit == "none" else f"{scale}, {limit} training images of each class"
    return Measured(float(value), float(low), float(high), data, name, scale, device, date, run.id, limit)
