"""Data sets from Python: arrays, torch, Hugging Face, folders, CSV files."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from study.data import Dataset, DataSpec, NoiseSpec, load
from study.errors import DataError

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Six train and four test images (n, 9, 7, 3) uint8, two classes."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 0, 1, 1, 0])
    return (
        rng.integers(0, 256, (6, 9, 7, 3), dtype=np.uint8),
        labels,
        rng.integers(0, 256, (4, 9, 7, 3), dtype=np.uint8),
        labels[:4],
    )


class Items(torch.utils.data.Dataset):
    """A map-style data set with class names, as torchvision's."""

    classes = CLASSES

    def __init__(self, images: list, labels: np.ndarray) -> None:
        self.images, self.targets = images, labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple:
        return self.images[row], self.targets[row]


def as_numpy(arrays) -> Dataset:
    images, labels, test, test_labels = arrays
    return Dataset.from_arrays(images, labels, test_images=test, test_labels=test_labels, classes=CLASSES)


def as_tensors(arrays) -> Dataset:
    images, labels, test, test_labels = (torch.from_numpy(array) for array in arrays)
    return Dataset.from_arrays(
        images.permute(0, 3, 1, 2), labels, test_images=test, test_labels=test_labels, classes=CLASSES
    )


def as_text_labels(arrays) -> Dataset:
    images, labels, test, test_labels = arrays
    names = np.array(CLASSES)
    return Dataset.from_arrays(
        images.astype(np.int64), names[labels], test_images=test, test_labels=names[test_labels].tolist()
    )


def as_torch(arrays, kind) -> Dataset:
    images, labels, test, test_labels = arrays
    make = {
        "arrays": lambda image: image,
        "tensors": lambda image: torch.from_numpy(image.transpose(2, 0, 1)),
        "pillow": Image.fromarray,
    }[kind]
    return Dataset.from_torch(Items([*map(make, images)], labels), Items([*map(make, test)], test_labels))


def as_subset(arrays) -> Dataset:
    images, labels, test, test_labels = arrays
    both = Items([*images, *test], np.concatenate([labels, test_labels]))
    return Dataset.from_torch(torch.utils.data.Subset(both, range(6)), torch.utils.data.Subset(both, range(6, 10)))


def as_huggingface(arrays, column) -> Dataset:
    import datasets

    images, labels, test, test_labels = arrays
    kinds = datasets.Features({column: datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    splits = {"train": (images, labels), "test": (test, test_labels)}
    return Dataset.from_huggingface(
        datasets.DatasetDict(
            {
                name: datasets.Dataset.from_dict(
                    {column: [Image.fromarray(pixels) for pixels in images], "label": labels.tolist()}, features=kinds
                )
                for name, (images, labels) in splits.items()
            }
        )
    )


def as_huggingface_arrays(arrays) -> Dataset:
    import datasets

    images, labels, test, test_labels = arrays
    kinds = datasets.Features(
        {"image": datasets.Array3D((9, 7, 3), "uint8"), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    train, held_out = (
        datasets.Dataset.from_dict({"image": pixels, "label": rows.tolist()}, features=kinds)
        for pixels, rows in ((images, labels), (test, test_labels))
    )
    return Dataset.from_huggingface(train, held_out)


FORMS = {
    "tensors": as_tensors,
    "text labels": as_text_labels,
    "torch arrays": lambda arrays: as_torch(arrays, "arrays"),
    "torch tensors": lambda arrays: as_torch(arrays, "tensors"),
    "torch pillow": lambda arrays: as_torch(arrays, "pillow"),
    "torch subset": as_subset,
    "hugging face": lambda arrays: as_huggingface(arrays, "image"),
    "hugging face img": lambda arrays: as_huggingface(arrays, "img"),
    "hugging face arrays": as_huggingface_arrays,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_examples_has_one_digest(form, arrays):
    """The digest decides which finished runs count; it must not depend on the library the examples came through."""
    dataset = FORMS[form](arrays)
    assert dataset.digest == as_numpy(arrays).digest
    assert dataset.classes == CLASSES
    assert (dataset.n_train, dataset.n_test, dataset.shape) == (6, 4, (3, 9, 7))


def test_arrays_are_the_data_set_of_an_npz_file(arrays, tmp_path):
    """Runs from Python and runs of a recipe on the same arrays find each other's results."""
    images, labels, test, test_labels = arrays
    np.savez(tmp_path / "train.npz", images=images, labels=labels)
    np.savez(tmp_path / "test.npz", images=test, labels=test_labels)
    assert load(DataSpec("npz", root=str(tmp_path))).digest == as_numpy(arrays).digest


def write_images(folder, arrays) -> list[dict[str, str]]:
    """PNG files as train/cat/0.png, and the rows of a table of them in the order of a folder."""
    images, labels, test, test_labels = arrays
    rows = []
    for split, pixels, numbers in (("train", images, labels), ("test", test, test_labels)):
        for number in np.argsort(numbers, kind="stable"):
            name = f"{split}/{CLASSES[numbers[number]]}/{number}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[number]).save(folder / name)
            rows.append({"file": name, "kind": CLASSES[numbers[number]], "split": split})
    return rows


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_folder_and_a_table_of_its_files_are_one_data_set(arrays, tmp_path):
    """The same files under the same names in the same order; the table lies elsewhere than the images."""
    rows = write_images(tmp_path / "images", arrays)
    (tmp_path / "tables").mkdir()
    table = write_table(tmp_path / "tables" / "animals.csv", rows)
    folder = Dataset.from_folder(tmp_path / "images")
    dataset = Dataset.from_csv(table, image="file", label="kind", root=tmp_path / "images")
    assert dataset.digest == folder.digest == load(DataSpec("folder", root=str(tmp_path / "images"))).digest
    assert (dataset.classes, dataset.name) == (CLASSES, "animals")
    assert Dataset.from_csv(table, image="file", label="kind", root=tmp_path / "images", size=5).shape == (3, 5, 5)


def test_numbers_in_a_table_are_sorted_as_numbers(arrays, tmp_path):
    """Class 10 comes after class 9."""
    rows = write_images(tmp_path, arrays)
    labelled = [row | {"kind": {"cat": "10", "dog": "9"}[row["kind"]]} for row in rows]
    table = write_table(tmp_path / "table.csv", labelled)
    assert Dataset.from_csv(table, image="file", label="kind").classes == ("9", "10")


def test_every_feature_of_a_matrix_is_a_channel_of_one_pixel():
    """Networks and proxies take images; as channels, features are standardized one by one."""
    matrix = np.random.default_rng(0).normal(size=(8, 5))
    dataset = Dataset.from_arrays(matrix, [0, 1] * 4)
    assert dataset.images.shape == (8, 5, 1, 1)
    np.testing.assert_array_equal(dataset.images[:, :, 0, 0], matrix.astype(np.float32))


def test_ids_and_names_are_the_users(arrays):
    """Tables are joined by id, so the ids of a user's own tables must survive."""
    images, labels, *_ = arrays
    dataset = Dataset.from_arrays(images, labels, ids=np.arange(100, 106), name="mine")
    assert dataset.ids.tolist() == ["100", "101", "102", "103", "104", "105"]
    assert dataset.name == "mine"


def test_noise_is_that_of_a_recipe():
    """The same seed draws the same noise for a call from Python and for `study run`; noise does not come twice."""
    noise = NoiseSpec(labels="symmetric", share=0.2)
    noisy = Dataset.from_name("digits").with_noise(noise, seed=3)
    assert (noisy.noise, noisy.noise_seed) == (noise, 3)
    assert noisy.digest != Dataset.from_name("digits").with_noise(noise, seed=4).digest
    with pytest.raises(DataError, match="noisy already"):
        noisy.with_noise(noise)


IMAGES = np.zeros((4, 6, 6), np.uint8)
LABELS = [0, 1, 0, 1]


class Stream:
    """Has items, but no length."""

    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset.from_arrays(IMAGES, [0, 1, 0]), "4 images, but 3 labels"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS, test_images=IMAGES), "go together"),
        (lambda: Dataset.from_arrays(IMAGES, [0, 2, 0, 2]), "without gaps"),
        (lambda: Dataset.from_arrays(IMAGES, [0, 1, 0, None]), "neither whole numbers nor text"),
        (lambda: Dataset.from_arrays(IMAGES, ["a", "b", "c", "d"], classes=["a", "b"]), "'c' is not among"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS, ids=[1, 2, 3]), "3 ids for 4 train"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS, ids=[1, 2, 3, 3]), "stands for 2 examples"),
        (lambda: Dataset.from_arrays(np.zeros((4, 6, 6, 2)), LABELS), "1 or 3 channels"),
        (lambda: Dataset.from_arrays(np.zeros(4), LABELS), "images are"),
        (lambda: Dataset.from_arrays(3, LABELS), "images are"),
        (lambda: Dataset.from_arrays([[1, 2], [3]], [0, 1]), "do not form an array"),
        (lambda: Dataset.from_arrays(IMAGES, 3), "4 images, but 1 labels"),
        (lambda: Dataset.from_arrays(np.full((4, 6, 6), np.nan), LABELS), "NaN"),
        (
            lambda: Dataset.from_arrays(IMAGES, LABELS, test_images=np.zeros((2, 5, 5)), test_labels=[0, 1]),
            "bring both to one form",
        ),
        (lambda: Dataset.from_torch(Stream(), name="stream"), "no length"),
        (lambda: Dataset.from_torch([IMAGES[0]], name="bare"), "not \\(image, label\\)"),
        (lambda: Dataset.from_torch([(IMAGES[0], [0, 1])], name="vectors"), "not one number"),
        (lambda: Dataset.from_torch([(IMAGES[0], 0), (IMAGES[0, :3], 1)], name="odd"), "transform that resizes"),
        (lambda: Dataset.from_torch([], name="none"), "empty"),
        (lambda: Dataset.from_huggingface({"test": 1}), "split 'train'"),
        (lambda: Dataset.from_huggingface(Stream()), "streaming=False"),
        (lambda: Dataset.from_name("digist"), "did you mean 'digits'"),
        (lambda: Dataset.from_name("digits", sice=3), "sice"),
        (lambda: Dataset.from_csv("/no/such.csv"), "cannot be read as CSV"),
        (lambda: NoiseSpec(labels="wrong"), "noise.labels is 'wrong'"),
        (lambda: NoiseSpec(labels="symmetric", share=2), "between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_one_line(make, message):
    """A user of the API sees a line that names the cure, never numpy's or torch's own complaint."""
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": ""}, "line 2 has no label"),
        ({"file": ""}, "line 2 has no image"),
        ({"split": "later"}, "split is 'later'"),
        ({"file": "nowhere.png"}, "nowhere.png"),
    ],
)
def test_a_wrong_row_of_a_table_is_named(change, message, arrays, tmp_path):
    """The line number finds it in an editor."""
    rows = write_images(tmp_path, arrays)
    rows[0] |= change
    with pytest.raises(DataError, match=message):
        Dataset.from_csv(write_table(tmp_path / "table.csv", rows), image="file", label="kind")


def test_a_missing_column_says_which_there_are(arrays, tmp_path):
    """The usual mistake: other names than image and label."""
    table = write_table(tmp_path / "table.csv", write_images(tmp_path, arrays))
    with pytest.raises(DataError, match=r"no label column .* there are file, kind, split"):
        Dataset.from_csv(table)


def test_wrong_targets_are_refused_before_any_image_is_read():
    """Decoding may take an hour."""

    class Unread(Items):
        def __getitem__(self, row):
            raise AssertionError("read")

    with pytest.raises(DataError, match="is negative"):
        Dataset.from_torch(Unread([1, 2], np.array([0, -1])))
