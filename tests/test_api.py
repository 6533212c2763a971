"""What `import study` offers: arrays in, DataFrames out; the same numbers as the commands."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import study
from study.errors import AnalysisError, DataError, RecipeError, StoreError, StudyError
from study.recipe import parse
from study.runs.ensemble import run_ensemble
from study.runs.single import run_singles
from study.tracking import open_store

SMALL = {"ratios": (0.5, 0.75), "members": 4, "epochs": 2}
TABLES = {"subset": {"ratios": [0.5, 0.75], "members": 4}, "train": {"epochs": 2}, "data": {"name": "digits"}}


class Net(nn.Module):
    """A user's network: plain, without timm's methods."""

    def __init__(self, image_shape, n_classes, width=12):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image_shape)), width), nn.ReLU())
        self.head = nn.Linear(width, n_classes)

    def forward(self, images):
        return self.head(self.layers(images))


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """120 digits (n, 8, 8) float64 and their labels, two classes."""
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=2)
    return digits.images[:120] / 16, digits.target[:120]


def script(code: str) -> list[str]:
    """The words that a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout.split()


def test_importing_the_package_imports_nothing_else():
    """`import study` in somebody's program must cost nothing."""
    assert script(
        "import sys, study; heavy = {'torch', 'numpy', 'pandas', 'mlflow', 'pydantic'}; dir(study);"
        "print(*heavy & set(sys.modules) or ['none'], 'cscores' in dir(study))"
    ) == ["none", "True"]


def test_every_public_name_is_there():
    """A name of `__all__` that fails is a promise broken."""
    assert len(study.__all__) >= 12
    assert all(getattr(study, name) is not None for name in study.__all__)
    assert study.__version__
    with pytest.raises(AttributeError, match="no attribute 'cscore'"):
        study.cscore  # noqa: B018


def test_packages_are_still_modules():
    """A function of the name of a package would break its imports."""
    from study import data, proxies

    assert proxies.PROXIES
    assert data.Dataset is study.Dataset


def test_scores_without_a_store_need_no_mlflow(tmp_path):
    """Its import takes three seconds, and a notebook wants no database."""
    code = (
        "import sys, numpy as np, study; rng = np.random.default_rng(0);"
        "scores = study.cscores(rng.random((40, 6, 6)), np.arange(40) % 2, ratios=(.5,), members=2, epochs=1);"
        "run = study.single_run(rng.random((40, 6, 6)), np.arange(40) % 2, epochs=1, proxies=['aum']);"
        "print(len(scores), len(run.scores), 'mlflow' in sys.modules)"
    )
    assert script(code) == ["40", "40", "False"]


def test_scores_are_those_of_the_launcher(tmp_path):
    """One recipe, two doors: the numbers are the same bits."""
    recipe = parse({"kind": "ensemble", **TABLES}, "test")
    dataset = study.Dataset.from_name("digits")
    launched = run_ensemble(recipe, dataset, open_store(tmp_path / "launched")).read_table("cscore.parquet")
    pd.testing.assert_frame_equal(study.cscores("digits", **SMALL), launched)


def test_a_store_gets_the_runs_of_the_launcher_and_finds_them_again(tmp_path):
    """`store=` is `study run` from Python: a call finds the launcher's run, and trains nothing a second time."""
    store = open_store(tmp_path)
    recipe = parse({"kind": "ensemble", **TABLES}, "test")
    launched = run_ensemble(recipe, study.Dataset.from_name("digits"), store)
    scores = study.cscores("digits", **SMALL, store=tmp_path)
    pd.testing.assert_frame_equal(scores, launched.read_table("cscore.parquet"))
    runs = study.open(tmp_path)
    assert [run.id for run in runs.ensembles("digits")] == [launched.id]
    assert runs.ensembles("mnist") == runs.singles() == []
    assert runs.table()["kind"].tolist() == ["ensemble"]
    assert len(runs.runs("shard")) == 2
    pd.testing.assert_frame_equal(runs.ensembles()[0].cscores(), scores)
    assert runs.ensembles()[0].params["train.epochs"] == "2"
    assert "cscore/mean" in runs.ensembles()[0].metrics


def test_arrays_with_a_store_are_resumed_by_their_digest(tmp_path, images):
    """Data without a reader's name: their digest tells other data from the same."""
    first = study.cscores(*images, **SMALL, store=tmp_path)
    again = study.cscores(*images, **SMALL, store=tmp_path)
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first, study.cscores(*images, **SMALL))
    assert len(study.open(tmp_path).runs("shard")) == 2
    study.cscores(images[0][::-1].copy(), images[1][::-1].copy(), **SMALL, store=tmp_path)
    assert len(study.open(tmp_path).runs("shard")) == 4


@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_users_network_gives_scores(kind, images, tmp_path):
    """Any nn.Module class or builder, in memory and in a store, to the same scores."""
    model = {"class": Net, "function": lambda image_shape, n_classes: Net(image_shape, n_classes, width=12)}[kind]
    scores = study.cscores(*images, model=model, **SMALL)
    assert scores["cscore"].between(0, 1).all()
    assert scores["cscore"].mean() > 0.6
    pd.testing.assert_frame_equal(scores, study.cscores(*images, model=model, **SMALL, store=tmp_path))
    assert study.open(tmp_path).ensembles()[0].params["model.name"] == {"class": "Net", "function": "network"}[kind]


def test_settings_of_a_users_network_count(images):
    """Settings are keyword arguments of its constructor."""
    narrow = study.cscores(*images, model=Net, settings={"width": 2}, **SMALL)
    assert not narrow["cscore_soft"].equals(study.cscores(*images, model=Net, **SMALL)["cscore_soft"])


def test_noise_of_the_data_set_is_the_recipes(tmp_path):
    """Noisy data from Python and a noisy recipe are one run; another seed would not be reproducible."""
    noise = {"labels": "symmetric", "share": 0.2}
    noisy = study.Dataset.from_name("digits").with_noise(study.NoiseSpec(**noise), seed=1)
    scores = study.cscores(noisy, **SMALL, seed=1, store=tmp_path)
    assert "clean_label" in scores
    digest = parse({"kind": "ensemble", "seed": 1, "noise": noise, **TABLES}, "test").digest()
    assert study.open(tmp_path).ensembles()[0].run.tags["study.digest"] == digest
    with pytest.raises(RecipeError, match="use one seed"):
        study.cscores(noisy, **SMALL)


@pytest.fixture(scope="module")
def single() -> study.SingleRun:
    """A single run on the digits, three epochs."""
    return study.single_run("digits", epochs=3, proxies=["cbtl", "aum", "prediction_depth"])


def test_a_single_run_says_what_was_promised(single):
    """Scores, trajectory, network, costs."""
    assert single.scores.columns.tolist() == ["example", "label", "split", "cbtl", "aum", "prediction_depth"]
    assert single.trajectory["epochs"].tolist() == [1, 2, 3]
    assert single.trajectory["correct"].shape == single.trajectory["confidence"].shape == (3, 1797)
    assert single.costs["proxy"].tolist() == ["cbtl", "aum", "prediction_depth"]
    pixels = torch.from_numpy(single.dataset.images).float() / single.dataset.maximum
    with torch.no_grad():
        predicted = single.network(pixels).argmax(dim=1).numpy()
    right = predicted == single.dataset.labels
    assert (right == single.trajectory["correct"][-1]).mean() > 0.99


def test_a_single_run_is_that_of_the_launcher(single, tmp_path):
    """The launcher's scores and trajectory are the same bits, read back or not."""
    names = ("cbtl", "aum", "prediction_depth")
    recipe = parse(
        {
            "kind": "single",
            "data": {"name": "digits"},
            "train": {"epochs": 3},
            "proxies": {name: {} for name in names},
        },
        "test",
    )
    (run,) = run_singles(recipe, single.dataset, open_store(tmp_path))
    pd.testing.assert_frame_equal(run.read_table("scores.parquet"), single.scores)
    stored = study.single_run("digits", epochs=3, proxies=names, store=tmp_path)
    pd.testing.assert_frame_equal(stored.scores, single.scores)
    assert len(study.open(tmp_path).singles()) == 1
    assert stored.trajectory.keys() <= single.trajectory.keys()
    for name, array in stored.trajectory.items():
        np.testing.assert_array_equal(array, single.trajectory[name])


def test_proxies_are_correlated_with_cscores(single):
    """The whole way of a paper: C-scores, proxies, their agreement."""
    scores = study.cscores("digits", ratios=(0.5,), members=8, epochs=3)
    table = study.correlate(scores, single.scores)
    pd.testing.assert_frame_equal(study.correlate(scores, single), table)
    train = table[(table["split"] == "train") & (table["reference"] == "cscore")].set_index("proxy")
    assert train.loc["aum", "spearman"] > 0.3
    assert train.loc["cbtl", "spearman"] > 0.3
    assert (table["low"] <= table["spearman"]).all()
    assert (table["spearman"] <= table["high"]).all()
    assert train["n"].tolist() == [1438] * 3
    assert train["ceiling"].between(0, 1).all()


def frames(**changes) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Four examples with scores and one proxy."""
    scores = pd.DataFrame({"example": list("abcd"), "label": 0, "cscore": [0.1, 0.4, 0.6, 0.9]})
    return scores, pd.DataFrame({"example": list("abcd"), "label": 0, "forgetting_events": [4, 3, 2, 1]} | changes)


def test_directions_are_turned():
    """Forgetting is hard: a proxy that falls while scores rise agrees."""
    assert study.correlate(*frames())["spearman"].tolist() == [1.0]
    assert study.correlate(*frames(mine=[4, 3, 2, 1]))["spearman"].tolist() == [1.0, -1.0]


@pytest.mark.parametrize("of_scores", [True, False])
def test_published_scores_are_not_paired_with_changed_labels(of_scores):
    """They are of the clean labels; the two kinds mixed made a correlation of neither."""
    scores, proxies = (
        pd.DataFrame({"example": list("abcdef"), "label": [0, 0, 0, 1, 1, 1], name: values})
        for name, values in (("published", [0.1, 0.4, 0.9] * 2), ("mine", [1, 2, 3, 3, 2, 1]))
    )
    (scores if of_scores else proxies)["clean_label"] = 0
    table = study.correlate(scores.assign(cscore=scores["published"]), proxies).set_index("reference")
    assert table["n"].to_dict() == {"cscore": 6, "published": 3, "published, changed labels": 3}
    assert table["spearman"].to_dict() == {"cscore": 0.0, "published": 1.0, "published, changed labels": -1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": [0, 0, 1, 0]}, "1 labels differ between scores and proxies, first at c"),
        ({"example": list("abce")}, "1 of 4 examples have no proxies"),
        ({"example": list("abcc")}, "an example twice"),
        ({"forgetting_events": list("abcd")}, "no column of numbers"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(changes, message):
    """A correlation between strangers is a number too."""
    with pytest.raises(AnalysisError, match=message):
        study.correlate(*frames(**changes))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: study.cscores("digist"), DataError, "did you mean 'digits'"),
        (lambda: study.cscores(np.zeros((4, 3, 3))), DataError, "pass labels"),
        (lambda: study.cscores(4), DataError, "no data set"),
        (lambda: study.cscores("digits", labels=[1]), DataError, "arrays alone"),
        (lambda: study.cscores("digits", optimizer="sdg"), RecipeError, "optimizer.name"),
        (lambda: study.cscores("digits", optimizer={"lrr": 1.0}), RecipeError, "did you mean 'lr'"),
        (lambda: study.cscores("digits", epochs=0), RecipeError, "train.epochs"),
        (lambda: study.cscores("digits", ratios=(0.9, 0.1)), RecipeError, "must rise"),
        (lambda: study.cscores("digits", model="mpl", **SMALL), RecipeError, "did you mean 'mlp'"),
        (lambda: study.cscores("digits", model=nn.Linear(2, 2)), RecipeError, "pass the class"),
        (lambda: study.cscores("digits", device="tpu"), RecipeError, "runtime.device"),
        (lambda: study.single_run("digits", proxies=["cbtll"]), RecipeError, "cbtll"),
        (lambda: study.open("no/such/folder"), StoreError, "no runs here"),
    ],
)
def test_wrong_input_is_one_line(call, error, message):
    """What is wrong, and what to write instead; never a traceback from inside."""
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, StudyError)
    assert "\n" not in str(caught.value)


def test_lists_say_what_there_is():
    """Names for `proxies=`, `model=` and `Dataset.from_name`."""
    proxies, models = study.list_proxies(), study.list_models()
    assert {"cbtl", "aum", "prediction_depth"} <= set(proxies["proxy"])
    assert set(proxies["easy"]) == {"high", "low"}
    assert {"mlp", "resnet20"} & set(models["model"])
    assert {"digits", "mnist", "folder"} <= set(study.list_datasets())
