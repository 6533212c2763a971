"""Label noise and random inputs: what changes, what does not, and that nested shares are nested."""

import itertools

import numpy as np
import pytest
from toys import blobs, toy_recipe

from study import data
from study.data.noise import human_labels, noisy_images, noisy_labels
from study.errors import DataError
from study.recipe import Noise, Recipe
from study.training.placement import Placement

STREAM = toy_recipe().stream
N, CLASSES = 2000, 10
LABELS = np.arange(N + 500) % CLASSES
IDS = np.array([f"train/{row:04}" for row in range(N)] + [f"test/{row:03}" for row in range(500)])


def labelled(kind: str, share: float, stream=STREAM) -> np.ndarray:
    """Noisy labels of 2,000 training and 500 test examples in ten classes."""
    return noisy_labels(LABELS, IDS, N, CLASSES, Noise(labels=kind, share=share), stream)


def pictured(kind: str, share: float = 1.0, *, floats: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images of unequal channels before and after, 300 training rows and 40 test rows."""
    rng = np.random.default_rng(0)
    images = np.stack([rng.normal(mean, 20, (340, 6, 6)) for mean in (90, 128, 160)], axis=1).clip(0, 255)
    images = images.astype(np.float32) if floats else images.round().astype(np.uint8)
    return images, noisy_images(images, 300, 255.0, Noise(inputs=kind, input_share=share), STREAM)


def opened(recipe: Recipe) -> data.Dataset:
    """The data set that a recipe trains on."""
    return data.open_data(recipe.data, recipe.noise, seed=recipe.seed)


def digits(**noise) -> Recipe:
    """A recipe of the digits with this [noise]."""
    return toy_recipe("study", noise=noise)


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_test_labels_and_the_array_that_came_stay(kind):
    """What is measured on test examples must not depend on the noise."""
    before = LABELS.copy()
    noisy = labelled(kind, 1.0)
    np.testing.assert_array_equal(LABELS, before)
    np.testing.assert_array_equal(noisy[N:], LABELS[N:])
    assert (noisy[:N] != LABELS[:N]).any()


def test_symmetric_labels_are_uniform_over_all_classes():
    """B-fig5's 40 %: a random label may be the true one, so 36 % are wrong, and they go to all other classes alike."""
    noisy = labelled("symmetric", 0.4)[:N]
    wrong = noisy != LABELS[:N]
    assert wrong.mean() == pytest.approx(0.36, abs=0.03)
    shifts = np.bincount((noisy - LABELS[:N])[wrong] % CLASSES, minlength=CLASSES)[1:]
    assert shifts.min() > 0.6 * shifts.mean()
    whole = labelled("symmetric", 1.0)[:N]
    assert (whole == LABELS[:N]).mean() == pytest.approx(1 / CLASSES, abs=0.03)


def test_asymmetric_labels_are_the_next_class():
    """The last class becomes the first; exactly the share changes."""
    noisy = labelled("asymmetric", 0.3)[:N]
    wrong = noisy != LABELS[:N]
    assert wrong.sum() == 0.3 * N
    np.testing.assert_array_equal(noisy[wrong], (LABELS[:N][wrong] + 1) % CLASSES)
    assert (LABELS[:N][wrong] == CLASSES - 1).any()


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_a_larger_share_holds_the_smaller_one(kind):
    """A series of shares adds wrong labels and takes none back, so that runs differ by the added ones alone."""
    shares = [labelled(kind, share) for share in (0.1, 0.2, 0.4, 0.8)]
    for fewer, more in itertools.pairwise(shares):
        wrong = fewer != LABELS
        np.testing.assert_array_equal(fewer[wrong], more[wrong])
        assert (more != LABELS).sum() > wrong.sum()


def test_the_seed_fixes_the_noise():
    """B-fig5: "randomized (and fixed)"; another seed is another draw."""
    np.testing.assert_array_equal(labelled("symmetric", 0.4), labelled("symmetric", 0.4))
    other = toy_recipe(seed=1).stream
    assert (labelled("symmetric", 0.4) != labelled("symmetric", 0.4, other)).any()


@pytest.mark.parametrize("floats", [False, True])
def test_gaussian_inputs_have_the_data_s_mean_and_deviation(floats):
    """Per channel, over the training rows; independent of the image that was there and of their neighbours."""
    images, noisy = pictured("gaussian", floats=floats)
    assert noisy.dtype == images.dtype
    np.testing.assert_array_equal(noisy[300:], images[300:])
    for channel in range(3):
        clean, drawn = images[:300, channel].astype(float), noisy[:300, channel].astype(float)
        assert drawn.mean() == pytest.approx(clean.mean(), abs=1)
        assert drawn.std() == pytest.approx(clean.std(), rel=0.03)
        assert abs(np.corrcoef(clean.ravel(), drawn.ravel())[0, 1]) < 0.05
    assert 0 <= noisy.min() <= noisy.max() <= 255


def test_shuffled_inputs_keep_their_pixels_in_an_order_of_their_own():
    """The colours of a pixel stay together; each image has another order."""
    images, noisy = pictured("shuffled")
    np.testing.assert_array_equal(noisy[300:], images[300:])
    for before, after in zip(images[:300].reshape(300, 3, -1), noisy[:300].reshape(300, 3, -1), strict=True):
        assert sorted(map(tuple, before.T.tolist())) == sorted(map(tuple, after.T.tolist()))
    same = np.tile(np.arange(108, dtype=np.uint8).reshape(1, 3, 6, 6), (50, 1, 1, 1))
    orders = noisy_images(same, 50, 255.0, Noise(inputs="shuffled"), STREAM)
    assert len(np.unique(orders.reshape(50, -1), axis=0)) == 50


@pytest.mark.parametrize("kind", ["gaussian", "shuffled"])
def test_a_larger_share_of_noisy_inputs_holds_the_smaller_one(kind):
    """Pixel by pixel, across the blocks in which they are drawn."""
    images, fewer = pictured(kind, 0.2)
    _, more = pictured(kind, 0.5)
    changed = (fewer != images).any(axis=(1, 2, 3))
    assert changed.sum() == 60
    np.testing.assert_array_equal(fewer[changed], more[changed])
    assert (more != images).any(axis=(1, 2, 3)).sum() == 150


def test_a_data_set_remembers_its_clean_labels():
    """Detection is judged by them; every table of examples holds both."""
    plain, noisy = opened(digits()), opened(digits(labels="asymmetric", share=0.2))
    np.testing.assert_array_equal(plain.clean_labels, plain.labels)
    np.testing.assert_array_equal(noisy.clean_labels, plain.labels)
    assert (noisy.labels != plain.labels).sum() == round(0.2 * plain.n_train)
    assert list(plain.label_columns) == ["label"]
    assert list(noisy.label_columns) == ["label", "clean_label"]


def test_the_digest_tells_noisy_data_from_clean():
    """Shards of 20 % noise must never be folded with those of 40 %."""
    noises = [{}, {"labels": "symmetric", "share": 0.2}, {"labels": "symmetric", "share": 0.4}, {"inputs": "gaussian"}]
    digests = [opened(digits(**noise)).digest for noise in noises]
    assert len(set(digests)) == len(noises)
    assert digests[0] == data.load(digits().data).digest
    assert opened(digits(**noises[1])).digest == digests[1]


def test_both_parts_of_a_study_see_the_same_noise():
    """Proxies of the single run are held against C-scores of the same wrong labels."""
    recipe = digits(labels="symmetric", share=0.3)
    parts = [opened(recipe.part(kind)) for kind in ("ensemble", "single")]
    np.testing.assert_array_equal(parts[0].labels, parts[1].labels)


@pytest.fixture
def label_file(tmp_path):
    """Write a file of human labels, three of them wrong."""

    def write(labels: np.ndarray = LABELS[:N], **arrays) -> dict:
        noisy = labels.copy()
        noisy[[3, 5, 8]] = (noisy[[3, 5, 8]] + 1) % CLASSES
        path = tmp_path / f"people{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, worse=noisy.astype(np.uint8), **arrays)
        return {"path": path, "column": "worse"}

    return write


def test_human_labels_come_from_the_file(label_file):
    """In the data set's order; uint8 as CIFAR-10N has them."""
    result = human_labels(**label_file(), labels=LABELS[:N], ids=IDS[:N], n_classes=CLASSES)
    assert np.flatnonzero(result != LABELS[:N]).tolist() == [3, 5, 8]
    assert result.dtype == np.int64


def test_a_part_of_the_data_set_finds_its_own_rows(label_file):
    """`data.limit` leaves gaps in the numbers of the ids."""
    rows = np.array([1, 5, 8, 700])
    result = human_labels(**label_file(), labels=LABELS[rows], ids=IDS[rows], n_classes=CLASSES)
    np.testing.assert_array_equal(result, [1, 6, 9, 0])


def test_what_is_wrong_with_a_file_is_said_in_one_line(label_file, tmp_path):
    """Length, range, order, column, form."""
    rows = {"labels": LABELS[:N], "ids": IDS[:N], "n_classes": CLASSES}
    short = {"path": tmp_path / "short.npz", "column": "x"}
    np.savez(short["path"], x=LABELS[:100], text=np.array(["a", "b"]), pickled=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("no")
    faults = [
        (short | rows, "holds 100 labels for 2000 training examples"),
        (label_file() | rows | {"labels": LABELS[:1000], "ids": IDS[:1000]}, "holds 2000 labels for 1000"),
        (label_file() | rows | {"n_classes": 5}, r"label 5 at index 5|label 6 at index 5"),
        (label_file(np.roll(LABELS[:N], 1)) | rows, "only 0% of worse agree .* order"),
        (label_file() | rows | {"column": "wors"}, "no array 'wors'; noise.column may be worse"),
        (short | rows | {"column": "text"}, "write whole numbers"),
        (short | rows | {"column": "pickled"}, "cannot be read as .npz"),
        (short | rows | {"path": tmp_path / "text.npz"}, "cannot be read as .npz"),
        (short | rows | {"path": tmp_path / "gone.npz"}, "cannot be read as .npz .*No such file"),
    ]
    for arguments, line in faults:
        with pytest.raises(DataError, match=line) as caught:
            human_labels(**arguments)
        assert "\n" not in str(caught.value)


def test_human_labels_do_not_go_with_renumbered_classes(label_file):
    """`data.classes` numbers the classes anew; the file does not know."""
    path = str(label_file()["path"])
    recipe = toy_recipe(
        "study", data={"classes": ["3", "1"]}, noise={"labels": "human", "file": path, "column": "worse"}
    )
    with pytest.raises(DataError, match=r"leave data\.classes out"):
        opened(recipe)


@pytest.mark.parametrize(("column", "rate"), [("worse_label", 0.4021), ("aggre_label", 0.0903)])
def test_cifar10n_has_its_published_noise_rates(real_data, column, rate):
    """Wei et al. 2022: 40.21 % of the worst labels are wrong, 9.03 % of the aggregate, in the original order."""
    with np.load(real_data / "cscores" / "cifar10-cscores-orig-order.npz") as published:
        labels = published["labels"].astype(np.int64)
    ids = np.array([f"train/{row:05}" for row in range(len(labels))])
    result = human_labels(real_data / "cifar10n" / "cifar10n-human-labels.npz", column, labels, ids, 10)
    assert (result != labels).mean() == pytest.approx(rate, abs=1e-3)


def test_a_network_trains_on_the_noisy_labels():
    """All the way through: what is learned by heart is the label that was given."""
    from dataclasses import replace

    from loops import Member, fit

    clean = blobs()
    labels = noisy_labels(
        clean.labels, clean.ids, clean.n_train, 3, Noise(labels="asymmetric", share=1.0), toy_recipe().stream
    )
    noisy = replace(clean, labels=labels, labels_before_noise=clean.labels)
    member = Member(("one",), np.arange(noisy.n_train))
    placement = Placement("cpu", "float32", "highest", threads=1, cores=1, stack=1)
    outcome = next(fit([member], noisy, toy_recipe(train={"epochs": 20}), placement))
    assert (outcome.prediction == noisy.labels)[: noisy.n_train].mean() > 0.9
    assert (outcome.prediction == noisy.labels)[noisy.n_train :].mean() < 0.2


def test_published_scores_go_by_the_clean_labels():
    """Their file holds the labels as published; noise on purpose is not another order."""
    from pathlib import Path

    from study.runs.reference import Scores, match

    dataset = opened(digits(labels="symmetric", share=0.6))
    numbers = np.array([int(name.rpartition("/")[2]) for name in dataset.ids[: dataset.n_train]])
    labels, scores = np.zeros(numbers.max() + 1, dtype=int), np.linspace(0, 1, numbers.max() + 1)
    labels[numbers] = dataset.clean_labels[: dataset.n_train]
    np.testing.assert_array_equal(match(Path("x.npz"), Scores(labels, scores), dataset), scores[numbers])


def test_the_table_of_a_data_set_tells_how_many_labels_differ(capsys):
    """`study data RECIPE` is where one looks whether the noise is there."""
    from study.cli.tables import dataset_table

    dataset_table(opened(digits(labels="asymmetric", share=0.25)))
    assert "label noise: 360 of 1438 train labels (25.0%) are not as found" in " ".join(capsys.readouterr().out.split())
    dataset_table(opened(digits()))
    assert "label noise" not in capsys.readouterr().out


def test_each_example_can_be_a_class_of_its_own():
    """The task of pure memorization in the notes on Arpit et al. (A-sensitivity); no test example has such a class."""
    real = opened(digits())
    unique = opened(digits(labels="unique"))
    assert (unique.n, unique.n_train, unique.n_classes) == (real.n_train, real.n_train, real.n_train)
    assert unique.labels.tolist() == list(range(real.n_train))
    assert (unique.images == real.images[: real.n_train]).all()
    assert unique.digest != real.digest
