"""The papers' numbers are data, and ours come from finished runs alone."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from study.cli.tables import reproduction_table
from study.experiments.reproduce import Evidence, Measured, paper_numbers, reproduce, verdict
from study.experiments.reproduction_page import reproduction_markdown, write_reproduction

NUMBER = {"id": "J-cbtl", "statistic": "spearman/cbtl", "data": "cifar10", "network": "any", "condition": ""}
NUMBER |= {"paper": 0.864, "place": "Jiang, Sec. 4.3"}


def run(kind, params, metrics=None, series=None, tables=None, ident="a1b2c3d4e5"):
    """A finished run as the store gives it."""
    tables = tables or {}
    return SimpleNamespace(
        id=ident,
        experiment=params.get("data.name", "cifar10") + "/" + kind,
        params={"data.name": "cifar10", "model.name": "resnet20", "train.epochs": "2", **params},
        tags={"study.kind": kind, "study.data": params.get("data.name", "cifar10"), "study.device": "cpu"},
        metrics=metrics or {},
        files=list(tables),
        started=1_700_000_000_000,
        read_table=tables.__getitem__,
        read_series=lambda name: (series or {})[name],
    )


def store_of(*runs):
    return SimpleNamespace(find=lambda kind, status: [each for each in runs if each.tags["study.kind"] == kind])


def report(data, value):
    row = {"proxy": "cbtl", "part": "all", "on": "train", "reference": "cscore", "spearman": value}
    row |= {"low": value - 0.02, "high": value + 0.02}
    return run("report", {"data.name": data}, tables={"correlations.parquet": pd.DataFrame([row, row])})


def test_there_are_sixty_numbers_with_their_place():
    """Each names the paper's id, and where it stands."""
    numbers = paper_numbers()
    assert len(numbers) >= 60
    assert numbers["place"].str.contains(r"^(?:Jiang|Zhang|Baldock|Arpit), ").all()
    assert numbers["paper"].notna().all()
    assert not numbers.duplicated(["statistic", "data", "network", "condition"]).any()
    assert {statistic.partition("/")[0] for statistic in numbers["statistic"]} <= set(Evidence(store_of()).measures)


@pytest.mark.parametrize(
    ("value", "low", "high", "data", "expected"),
    [
        (0.9, 0.85, 0.95, "cifar10", "agrees"),  # in the interval
        (0.82, 0.81, 0.83, "cifar10", "agrees"),  # within .05
        (0.7, 0.69, 0.71, "cifar10", "differs"),
        (0.864, 0.85, 0.87, "digits", "other scale"),
        (np.nan, np.nan, np.nan, "cifar10", "no run"),
    ],
)
def test_the_rule_of_agreement_by_hand(value, low, high, data, expected):
    """Never by eye."""
    assert verdict(NUMBER, Measured(value, low, high, data, "resnet20", "", "", "", "")) == expected


def test_a_part_of_the_papers_data_is_another_scale():
    """Unless the paper has that part itself, as the margin intervention does."""
    ours = Measured(0.86, 0.85, 0.87, "cifar10", "resnet20", "", "", "", "", limit="20")
    assert verdict(NUMBER, ours) == "other scale"
    assert verdict(NUMBER | {"condition": "data.limit=20"}, ours) == "agrees"


def test_the_papers_data_come_before_newer_runs_on_other_data():
    """Digits are shown only where nothing better is there."""
    both = store_of(report("digits", 0.5), report("cifar10", 0.85))
    (row,) = reproduce(both, pd.DataFrame([NUMBER])).to_dict("records")
    assert (row["value"], row["ours_data"], row["verdict"], row["run"]) == (0.85, "cifar10", "agrees", "a1b2c3d4e5")
    (row,) = reproduce(store_of(report("digits", 0.5)), pd.DataFrame([NUMBER])).to_dict("records")
    assert (row["value"], row["verdict"]) == (0.5, "other scale")
    (row,) = reproduce(store_of(), pd.DataFrame([NUMBER])).to_dict("records")
    assert row["verdict"] == "no run"


def test_accuracies_are_means_over_repeats_with_their_interval():
    """J-tab3 takes the last ten epochs; t with one degree of freedom is 12.706."""
    number = NUMBER | {"statistic": "last_epochs_accuracy", "condition": "optimizer.name=sgd optimizer.lr=0.1"}
    params = {"optimizer.name": "sgd", "optimizer.lr": "0.1"}
    repeats = [
        run(
            "single",
            {**params, "repeat": str(index)},
            {"test/accuracy": 0.0},
            {"test/accuracy": [(0, 0.0), *((epoch, accuracy) for epoch in range(1, 11))]},
            ident=f"run{index}",
        )
        for index, accuracy in enumerate((0.8, 0.82))
    ]
    other = run("single", {**params, "optimizer.lr": "0.02"}, {"test/accuracy": 0.1}, ident="other")
    noisy = run("single", {**params, "noise.labels": "symmetric"}, {"test/accuracy": 0.1}, ident="noisy")
    (row,) = reproduce(store_of(*repeats, other, noisy), pd.DataFrame([number])).to_dict("records")
    assert row["value"] == pytest.approx(0.81)
    assert row["high"] - row["value"] == pytest.approx(12.706 * 0.0141421 / np.sqrt(2), rel=1e-4)
    assert row["scale"] == "2 x resnet20, 2 epochs"


def test_the_page_is_made_of_the_json(tmp_path):
    """docs/reproduction.md follows from docs/reproduction.json alone."""
    table = reproduce(store_of(report("cifar10", 0.85)))
    written = write_reproduction(table, tmp_path)
    assert [file.name for file in written] == ["reproduction.json", "reproduction.md"]
    page = written[1].read_text()
    assert page == reproduction_markdown(table.replace({np.nan: None}).to_dict("records"))
    assert page.count("\n| ") > 60
    assert "`a1b2c3d4`" in page
    assert "nan" not in page


def test_the_table_fits_a_terminal_of_80_columns(monkeypatch, capsys):
    """Scale and run are on the page; the terminal has the numbers and the verdict."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to rich
    reproduction_table(reproduce(store_of(report("cifar10", 0.85))))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("0.850" in line and "J-cbtl" in line for line in lines)
