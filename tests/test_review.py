"""The list of suspects is edited, in the browser too, and the next study says what that has brought."""

import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from study.analysis import Correction, Review, editable, review
from study.data import Dataset
from study.recipe import Recipe
from study.report import build
from study.report.gallery import suspect_entries
from study.report.html import write_report
from study.scores.detection import Estimate
from study.workflows.study import run_study
from tests.toys import blobs_with_errors, toy_recipe, two_figures

pytest_plugins = ["tests.tracking_fixtures"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    """Two of each of four images, one of the copies under another class, and one that resembles the first."""
    images = np.repeat(np.eye(4, dtype=np.uint8)[:, None].repeat(4, axis=1) * 200, 2, axis=0)
    images[1] += 1
    labels = [0, 0, 0, 0, 1, 1, 1, 0]
    return Dataset.from_arrays(images, labels, classes=["cat", "=dog"], name="pairs")


def test_suspects_have_the_columns_that_a_person_edits(pairs):
    """And what helps to decide: a suggestion, neighbours, copies; the digest says to which data the list belongs."""
    table = pd.DataFrame({"example": ["train/7", "train/0"], "label": ["cat", "cat"], "predicted": ["=dog", "cat"]})
    edited = editable(table, review(table, pairs), pairs)
    assert list(edited)[1:5] == ["label", "decision", "new_label", "suggested"]
    assert edited["suggested"].tolist() == ["=dog", ""]
    assert edited["duplicates"].tolist() == ["train/6", ""]
    assert [cell.split(" | ")[0] for cell in edited["neighbours"]] == ["train/6", "train/1"]
    assert set(edited["data_digest"]) == {f"sha256:{pairs.digest}"}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_keys_mark_suspects_in_a_browser_and_the_marks_become_a_file_of_decisions(pairs, tmp_path):
    """The page works from the one file, without a server or a network; the data take the list that it writes."""
    table = pd.DataFrame({"example": pairs.ids[[7, 0, 3]], "label": "cat", "predicted": "=dog", "cscore": 0.1})
    entries = suspect_entries(table, pairs, "cscore", review(table, pairs))
    page = write_report(
        tmp_path / "report.html",
        title="t",
        facts={},
        correlations=pd.DataFrame(columns=["reference", "part"]),
        figures=[],
        suspects=entries,
        classes=pairs.classes,
        data_digest=f"sha256:{pairs.digest}",
    )
    pressed = "['r', 'k', 'd', 'ArrowLeft', 'u'].forEach(function (key) {"
    script = f"<script>{pressed} document.dispatchEvent(new KeyboardEvent('keydown', {{key: key}})); }});"
    script += "document.title = document.querySelector('#review textarea').value;</script>"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run([CHROMIUM, *options, page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    written = re.search(r"<title>(.*?)</title>", shown.stdout, re.DOTALL)[1].replace("&amp;", "&")
    decisions = pd.read_csv(io.StringIO(written), keep_default_na=False)
    assert decisions[["example", "decision", "new_label"]].to_numpy().tolist() == [
        ["train/7", "relabel", "'=dog"],
        ["train/3", "drop", ""],
    ]
    path = tmp_path / "decisions.csv"
    path.write_text(written)
    assert pairs.with_decisions(path).labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_the_report_after_decisions_says_what_they_have_brought(stores, tmp_path, monkeypatch):
    """Found by the digest of the data before; the test examples are the same ones, the interval is over the repeats."""
    monkeypatch.setattr(build, "figure_sections", two_figures)
    recipe: Recipe = toy_recipe("single", single={"repeats": 2}, proxies={"target_confidence": {}}, train={"epochs": 6})
    dataset, store = blobs_with_errors(), stores()
    report = run_study(recipe, dataset, store)[-1]
    suspects = pd.read_csv(io.StringIO(report.read_text("suspects.csv")), keep_default_na=False)
    wrong = dataset.ids[dataset.labels != dataset.clean_labels]
    suspects.loc[suspects["example"].isin(wrong), "decision"] = "drop"
    path = tmp_path / "suspects.csv"
    suspects.to_csv(path, index=False)
    corrected = dataset.with_decisions(path)
    *singles, report = run_study(recipe, corrected, store)
    assert report.metrics["correction/gain"] == pytest.approx(
        report.metrics["correction/after"] - report.metrics["correction/before"]
    )
    assert "Decisions (0 keep, 0 relabel, 12 drop): test accuracy" in report.read_text("report.html")
    assert singles[0].read_text("data/1_decisions.csv") == path.read_text()
    assert isinstance(review(suspects.head(3), dataset), Review)


def test_the_sentence_names_test_examples_that_are_left_out():
    """Leaving out test examples that the first networks got wrong flatters these; a reader must see how many."""
    accuracy = Estimate(0.9, 0.8, 1.0)
    changed = Correction(accuracy, accuracy, Estimate(0.0, -0.1, 0.1), (3, 3), 349, 10, {"relabel": 10})
    assert changed.sentence().endswith("349 test examples, without 10 that were relabelled or dropped.")
