"""Folders and files as people have them: names of splits, junk, endings that lie, losses, absent classes."""

import io

import numpy as np
import pytest
from PIL import Image

from study.data import load
from study.data.adapters import huggingface_splits
from study.data.readers.decode import HEIC
from study.errors import DataError, LostImagesError

RNG = np.random.default_rng(0)


def picture(form="PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


def put(root, *paths, content=None):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(picture() if content is None else content)


def refusal(section) -> str:
    with pytest.raises(DataError) as caught:
        load(section)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pets(*splits: str) -> list[str]:
    return [f"{split}/{name}/{i}.png" for split in splits for name in ("cat", "dog") for i in range(2)]


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("Training", "Testing"), ("TRAIN", "VAL"), ("train", "valid"), ("training", "validation")],
)
def test_splits_go_by_the_usual_names_in_any_case(tmp_path, section, train, test):
    """`Train/ Test/` were two classes of these names."""
    put(tmp_path, *pets(train, test))
    data = load(section("folder", root=tmp_path))
    assert (data.n_train, data.n_test, data.classes, data.ids[-1]) == (4, 4, ("cat", "dog"), f"{test}/dog/1.png")


@pytest.mark.parametrize("name", ["valid", "validation", "val", "extra"])
def test_what_lies_beside_the_splits_is_named(tmp_path, section, name):
    put(tmp_path, *pets("train", "test", name))
    (line,) = load(section("folder", root=tmp_path)).unusable
    assert line.startswith(f"{tmp_path}/{name}: not used")


def test_a_test_folder_beside_classes_is_no_class(tmp_path, section):
    put(tmp_path, "cat/1.png", "dog/1.png", *pets("Test"))
    assert "Test is named like a split, but there is no train folder" in refusal(section("folder", root=tmp_path))


def test_classes_may_be_named_like_a_split(tmp_path, section):
    put(tmp_path, "resting/1.png", "training/1.png")
    put(tmp_path, "running/1.png", "val/1.png")
    (tmp_path / "training").rename(tmp_path / "dev")
    with pytest.raises(DataError, match="both name the validation split"):
        load(section("folder", root=tmp_path))
    (tmp_path / "dev").rename(tmp_path / "sitting")
    assert load(section("folder", root=tmp_path)).classes == ("resting", "running", "sitting", "val")


def test_only_splits_without_train_are_refused(tmp_path, section):
    put(tmp_path, *pets("test", "val"))
    assert "named like a split, but there is no train folder" in refusal(section("folder", root=tmp_path))


def test_two_names_of_one_split_are_refused(tmp_path, section):
    put(tmp_path, *pets("train", "Training"))
    assert "both name the train split" in refusal(section("folder", root=tmp_path))


def test_one_single_folder_names_the_folder_to_set(tmp_path, section):
    put(tmp_path, *pets("images"))
    assert f"only one folder, images: set data.root={tmp_path}/images" in refusal(section("folder", root=tmp_path))


def test_flat_test_folder_names_the_setting(tmp_path, section):
    put(tmp_path, *pets("train"), "test/1.png")
    assert f"set data.train={tmp_path}/train" in refusal(section("folder", root=tmp_path))


@pytest.mark.parametrize("split", ["", "train/"])
def test_junk_of_operating_systems_is_passed_over(tmp_path, section, split):
    put(tmp_path, *pets("train", "test"))
    junk = ("__MACOSX/._cat/1.png", ".DS_Store", "Thumbs.db", "desktop.ini", "cat/__MACOSX/1.png", "cat/Thumbs.db")
    put(tmp_path, *(split + path for path in junk if split or not path.startswith("cat")), content=b"?")
    assert load(section("folder", root=tmp_path)).unusable == ()


def test_a_class_that_the_test_split_lacks_is_said_and_harmless(tmp_path, section):
    put(tmp_path, *pets("train", "test"), *(f"train/eel/{i}.png" for i in range(9)))
    data = load(section("folder", root=tmp_path))
    assert (data.classes, data.n_test) == (("cat", "dog", "eel"), 4)
    assert any(line.startswith("class 'eel': no test image") for line in data.notes)


def test_classes_of_one_image_are_said_to_get_no_score(tmp_path, section):
    put(tmp_path, *(f"cat/{i}.png" for i in range(5)), "dog/1.png", "eel/1.png", "eel/2.png")
    first, second = load(section("folder", root=tmp_path)).notes
    assert first.startswith("class 'dog': one train image, which gets no C-score")
    assert second.startswith("class 'eel': fewer than 5 train images")


def test_images_go_by_their_content_not_by_their_ending(tmp_path, section):
    """40 of 60 images of a class were named .HEIC and left out without a hint."""
    put(tmp_path, *(f"cat/{i}.png" for i in range(20)), *(f"dog/{i}.png" for i in range(60)))
    put(tmp_path, *(f"cat/{i}.HEIC" for i in range(20, 60)), "cat/plain", content=picture("JPEG"))
    put(tmp_path, "cat/notes.heic", content=b"no image")
    data = load(section("folder", root=tmp_path))
    assert np.bincount(data.labels).tolist() == [61, 60]
    assert [line.split("/")[-1].split(":")[0] for line in data.unusable] == ["notes.heic"]


def test_heic_without_its_library_names_it(tmp_path, section, monkeypatch):
    monkeypatch.setattr("study.data.readers.decode.find_spec", lambda name: None)
    put(tmp_path, *(f"cat/{i}.png" for i in range(30)), "dog/1.png")
    put(tmp_path, "cat/x.heic", content=b"\0\0\0\x18" + HEIC[0] + b"\0" * 40)
    (line,) = load(section("folder", root=tmp_path)).unusable
    assert "a HEIC image; install pillow-heif to read it, or convert it to JPEG" in line


def test_a_class_that_lost_much_is_refused_though_the_set_has_lost_little(tmp_path, section):
    put(tmp_path, *(f"cat/{i:03}.png" for i in range(190)), *(f"dog/{i}.png" for i in range(10)))
    put(tmp_path, *(f"dog/{i}.png" for i in range(3)), content=b"broken")
    with pytest.raises(LostImagesError, match="3 of 10 images of class 'dog' cannot be read") as caught:
        load(section("folder", root=tmp_path))
    assert len(caught.value.lines) == 3


@pytest.mark.parametrize(("test_label", "held_out"), [(1, 2), (-1, 1)])
def test_splits_of_a_dataset_dict_go_by_name_and_need_labels(test_label, held_out):
    """Names in any case; a validation split stands in for a test split whose labels are kept back."""

    class Part:
        column_names = ("image", "label")

        def __init__(self, label):
            self.label = label

        def __len__(self):
            return 1

        def __getitem__(self, column):
            return [self.label]

    parts = [Part(0), Part(0), Part(test_label)]
    splits = dict(zip(("Training", "validation", "TEST"), parts, strict=True))
    assert huggingface_splits(splits, None, None, "x") == (parts[0], parts[held_out], "x")


@pytest.mark.parametrize(("size", "said"), [(2, True), (3, False), (None, False)])
def test_images_that_lose_most_of_their_pixels_are_said(tmp_path, section, size, said):
    """A photo of 200 pixels at a size of 32 has lost what tells one breed from another."""
    put(tmp_path, *pets("train"))
    notes = load(section("folder", root=tmp_path, size=size)).notes
    assert any("images of about 6 x 6 pixels are resized to 2 x 2; --set data.size=4" in line for line in notes) == said
