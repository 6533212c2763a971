"""Image folders: layout, order, modes of images, and files that mean no good."""

import io
import itertools
import os
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from study.data import load
from study.data.readers.decode import decode
from study.errors import DataError

RNG = np.random.default_rng(0)


def refusal(section) -> str:
    with pytest.raises(DataError) as caught:
        load(section)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(*shape):
    return RNG.integers(0, 256, shape or (6, 6, 3), dtype=np.uint8)


def encoded(image, form="PNG", **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def put(root, *paths, content=None):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(pixels()) if content is None else content)


@pytest.fixture
def pets(tmp_path):
    """Thirty cats and thirty dogs, and a test split of two each: one broken file is below five percent."""
    put(tmp_path, *(f"train/{name}/{i:02d}.png" for name in ("cat", "dog") for i in range(30)))
    put(tmp_path, *(f"test/{name}/{i}.png" for name in ("cat", "dog") for i in range(2)))
    return tmp_path


def test_two_splits_below_one_root(pets, section):
    data = load(section("folder", root=pets))
    assert (data.n_train, data.n_test, data.classes, data.shape) == (60, 4, ("cat", "dog"), (3, 6, 6))
    assert [data.ids[0], data.ids[-1]] == ["train/cat/00.png", "test/dog/1.png"]
    assert data.labels.tolist() == [0] * 30 + [1] * 30 + [0, 0, 1, 1]


def test_pixels_belong_to_their_ids(pets, section):
    """Threads finish in any order; rows must not."""
    data = load(section("folder", root=pets))
    for name, image in zip(data.ids, data.images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(pets / name)).transpose(2, 0, 1))


def test_val_stands_in_for_test(pets, section):
    (pets / "test").rename(pets / "val")
    assert load(section("folder", root=pets)).ids[-1] == "val/dog/1.png"


def test_root_itself_may_be_the_train_split(pets, section):
    data = load(section("folder", root=pets / "train"))
    assert (data.n_train, data.n_test, data.ids[0]) == (60, 0, "cat/00.png")


def test_splits_may_lie_apart(pets, section):
    data = load(section("folder", train=pets / "train", test=pets / "test"))
    assert (data.n_train, data.n_test, data.ids[-1]) == (60, 4, "test/dog/1.png")
    assert data.digest == load(section("folder", root=pets)).digest


def test_names_with_umlauts_spaces_and_folders_below_keep_their_order(tmp_path, section):
    put(tmp_path, "grüne Äpfel/img 2.png", "grüne Äpfel/img 10.PNG", "grüne Äpfel/b/ü.png", "zebra/1.png")
    data = load(section("folder", root=tmp_path))
    assert data.classes == ("grüne Äpfel", "zebra")
    ids = ["grüne Äpfel/b/ü.png", "grüne Äpfel/img 10.PNG", "grüne Äpfel/img 2.png", "zebra/1.png"]
    assert data.ids.tolist() == ids


def test_hidden_files_are_passed_over(pets, section):
    put(pets, "train/cat/.DS_Store", "train/.cache/x", "train/cat/._01.png", content=b"?")
    assert load(section("folder", root=pets)).unusable == ()


def test_files_that_are_no_images_are_listed(pets, section):
    put(pets, "train/cat/notes.txt", "train/README", content=b"?")
    first, second = load(section("folder", root=pets)).unusable
    assert first.endswith("README: not in a class folder")
    assert second.endswith("cat/notes.txt: not an image file, by its ending and its first bytes")


def test_gray_images_have_one_channel(tmp_path, section):
    for name in ("a/1.png", "b/1.png"):
        put(tmp_path, name, content=encoded(pixels(5, 7)))
    assert load(section("folder", root=tmp_path)).shape == (1, 5, 7)


@pytest.mark.parametrize("coloured", [0, 3, 5])
def test_one_coloured_image_makes_three_channels(tmp_path, section, coloured):
    images = [pixels(5, 7, 3) if i == coloured else pixels(5, 7) for i in range(6)]
    for i, image in enumerate(images):
        put(tmp_path, f"{'ab'[i > 2]}/{i}.png", content=encoded(image))
    data = load(section("folder", root=tmp_path))
    for image, read in zip(images, data.images, strict=True):
        three = image if image.ndim == 3 else np.stack([image] * 3, -1)
        np.testing.assert_array_equal(read, three.transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_can_be_forced(pets, section, channels):
    assert load(section("folder", root=pets, channels=channels)).shape == (channels, 6, 6)


def test_sizes_that_differ_name_the_first_file_and_the_cure(pets, section):
    put(pets, "train/dog/07.png", content=encoded(pixels(8, 9, 3)))
    message = refusal(section("folder", root=pets))
    assert re.search(r"dog/07\.png: 9x8 pixels, but .*cat/00\.png has 6x6; .*--set data\.size=32", message)


def test_size_makes_them_equal(pets, section):
    put(pets, "train/dog/07.png", content=encoded(pixels(8, 9, 3)))
    assert load(section("folder", root=pets, size=4)).shape == (3, 4, 4)


def test_broken_image_is_listed_and_left_out(pets, section):
    whole = load(section("folder", root=pets))
    put(pets, "train/dog/07.png", content=b"")
    data = load(section("folder", root=pets))
    assert data.unusable == (f"{pets}/train/dog/07.png: an empty file",)
    assert data.ids.tolist() == [name for name in whole.ids if name != "train/dog/07.png"]


def test_more_than_five_percent_broken_is_refused(pets, section):
    put(pets, *(f"train/dog/0{i}.png" for i in range(4)), content=b"no")
    message = refusal(section("folder", root=pets))
    assert re.search(r"4 of 60 images cannot be read, first .*dog/00\.png: not an image", message)


def test_whole_class_broken_is_refused(tmp_path, section):
    put(tmp_path, *(f"cat/{i:02d}.png" for i in range(60)))
    put(tmp_path, "dog/x.png", content=b"no")
    assert "1 of 1 images of class 'dog' cannot be read" in refusal(section("folder", root=tmp_path))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: (root / "train" / "eel").mkdir(), r"train/eel: no images in this class folder"),
        (lambda root: put(root, "test/eel/1.png"), r"test/eel: class 'eel' is not in the train split"),
    ],
)
def test_class_folders_that_do_not_fit_are_refused(pets, section, change, expected):
    change(pets)
    assert re.search(expected, refusal(section("folder", root=pets)))


def test_folder_without_class_folders_is_refused(tmp_path, section):
    put(tmp_path, "1.png")
    assert "no class folders; put the images of each class" in refusal(section("folder", root=tmp_path))


def test_test_folder_without_class_folders_is_refused(pets, section):
    (pets / "empty").mkdir()
    message = refusal(section("folder", train=pets / "train", test=pets / "empty"))
    assert "empty: the test split is empty" in message


def test_missing_root_is_named(tmp_path, section):
    assert "gone: no such folder" in refusal(section("folder", root=tmp_path / "gone"))


def test_classes_left_out_are_not_decoded(pets, section):
    put(pets, *(f"train/eel/{i}.png" for i in range(9)), content=b"broken")
    put(pets, "test/eel/1.png", content=b"broken")
    data = load(section("folder", root=pets, classes=["dog", "cat"]))
    assert (data.n, data.unusable) == (64, ())


# ---- images of every kind


def decoded(content: bytes, **options):
    result = decode(content, **options)
    assert not isinstance(result, str), result
    return result


def test_transparent_parts_lie_over_white():
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0] = (10, 20, 30, 255)
    assert decoded(encoded(image)).tolist() == [[[10, 20, 30], [255] * 3], [[255] * 3, [255] * 3]]


def test_transparent_gray_stays_gray():
    image = np.array([[[40, 255], [40, 0]]], np.uint8)
    gray, alpha = (Image.fromarray(np.ascontiguousarray(image[..., i])) for i in range(2))
    assert decoded(encoded(Image.merge("LA", (gray, alpha)))).tolist() == [[40, 255]]


@pytest.mark.parametrize(("white", "bits"), [(1023, 10), (4080, 12), (65535, 16)])
def test_bit_depth_goes_by_the_largest_value_of_the_whole_set(tmp_path, section, white, bits):
    """12 bits in 16-bit files became nearly black; scaled image by image, dark and bright ones would look alike."""
    dark, bright = np.full((4, 4), white // 4, np.uint16), np.full((4, 4), white, np.uint16)
    for name, image in {
        "a/0.png": dark,
        "a/1.png": bright,
        "b/0.png": bright,
        "b/1.png": np.uint8(dark // 256),
    }.items():
        put(tmp_path, name, content=encoded(image))
    data = load(section("folder", root=tmp_path))
    full = (1 << bits) - 1
    expected = [round(white // 4 * 255 / full), round(white * 255 / full), round(white * 255 / full), white // 4 // 256]
    assert data.images[:, 0, 0, 0].tolist() == expected
    assert f"3 images hold 16 bits with values up to {white}: read as {bits}-bit images" in data.notes


def test_sixteen_bit_images_are_resized_before_they_are_scaled(tmp_path, section):
    for name in ("a/0.tif", "b/0.tif"):
        put(tmp_path, name, content=encoded(np.full((9, 7), 4095, np.uint16), "TIFF"))
    assert np.all(load(section("folder", root=tmp_path, size=4, channels=3)).images == 255)


def test_palette_of_grays_is_gray_and_of_colours_is_not():
    gray = Image.fromarray(pixels(6, 6)).convert("P")
    assert decoded(encoded(gray, "GIF")).ndim == 2
    assert decoded(encoded(Image.fromarray(pixels()).quantize(8), "GIF")).ndim == 3


def test_cmyk_becomes_rgb():
    image = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)).convert("CMYK")
    result = decoded(encoded(image, "JPEG", quality=95))
    np.testing.assert_allclose(result[4, 4], (200, 100, 50), atol=4)


def test_black_and_white_becomes_gray():
    assert decoded(encoded(Image.fromarray(np.array([[True, False]])))).tolist() == [[255, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation):
    """Phones store the picture as the sensor lies and the direction beside it."""
    upright = np.zeros((2, 3), np.uint8)
    upright[0, 0], upright[0, 2] = 200, 100
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decoded(encoded(np.ascontiguousarray(stored), form, exif=exif)), upright)


@pytest.mark.parametrize("form", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_usual_formats_are_read(form):
    assert decoded(encoded(pixels(16, 16, 3), form)).shape[:2] == (16, 16)


def test_floating_point_tiff_has_no_known_white():
    assert "no known white" in decode(encoded(np.ones((3, 3), np.float32), "TIFF"))


# ---- files that mean no good


def png_of(width, height) -> bytes:
    """A PNG that says it is this large and holds next to nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


PNG = encoded(pixels(16, 16, 3))
JPEG = encoded(pixels(64, 64, 3), "JPEG")
EXIF = encoded(pixels(16, 16, 3), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff\xff\x7f\x06\0")
HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "bomb below Pillow's error": png_of(12_000, 12_000),
    "bomb": png_of(60_000, 60_000),
    "widest": png_of(2**31 - 1, 2**31 - 1),
    "truncated jpeg": JPEG[: len(JPEG) // 2],
    "header only": JPEG[:30],
    "truncated png": PNG[: len(PNG) // 2],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (w) file\n",
    "png text bomb": PNG[:33] + struct.pack(">I", 2**31 - 1) + b"zTXt" + b"\0" * 50,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_one_line_of_the_list(pets, section, kind):
    """One bad download among thousands must neither end nor hang a launch, nor pass unseen."""
    put(pets, "train/dog/07.png", content=HOSTILE[kind])
    (line,) = load(section("folder", root=pets, size=6)).unusable
    assert "\n" not in line
    assert re.search(r"dog/07\.png: \w.{5,}", line)
    assert " at 0x" not in line  # no address: the list is the same in every run


def test_jpeg_cut_anywhere_never_raises():
    for length in range(0, len(JPEG), 61):
        assert isinstance(decode(JPEG[:length]), str | np.ndarray)


def test_flipped_bytes_never_raise():
    tiff = encoded(pixels(16, 16, 3), "TIFF", compression="tiff_lzw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as decode_all does around its threads
        for content in (PNG, JPEG, tiff, encoded(pixels(16, 16, 3), "GIF"), encoded(pixels(16, 16, 3), "WEBP")):
            for position in RNG.integers(0, len(content), 60):
                broken = bytearray(content)
                broken[position] ^= 0xFF
                assert isinstance(decode(bytes(broken)), str | np.ndarray)


def test_warnings_of_pillow_do_not_become_errors(pets, section):
    """Corrupt EXIF is common; under `-W error` it must not cost the image."""
    put(pets, "train/dog/07.jpg", content=EXIF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(section("folder", root=pets, size=6))
    assert data.unusable == ()
    assert "train/dog/07.jpg" in data.ids


def test_filters_of_warnings_are_given_back_after_a_refusal(pets, section):
    """They belong to the process: the launch's own warnings would be lost."""
    put(pets, "train/dog/07.png", content=encoded(pixels(8, 9, 3)))
    before = list(warnings.filters)
    with pytest.raises(DataError) as caught:
        load(section("folder", root=pets))
    assert list(warnings.filters) == before
    assert caught


def test_links_are_followed_but_not_in_circles(pets, section, tmp_path_factory):
    """Class folders made of links are common; a link to a folder above would never end."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    put(elsewhere, "1.png")
    (pets / "train" / "cat" / "linked").symlink_to(elsewhere)
    (pets / "train" / "cat" / "loop").symlink_to(pets / "train")
    (pets / "train" / "cat" / "self.png").symlink_to("self.png")
    (pets / "train" / "cat" / "dead.png").symlink_to("nowhere.png")
    data = load(section("folder", root=pets))
    assert "train/cat/linked/1.png" in data.ids
    assert data.n_train == 61
    assert [line.split(": ")[1] for line in data.unusable] == [
        "not a regular file",
        "a link to a folder that is read already",
        "not a regular file",
    ]


def test_a_fan_of_links_is_read_once(pets, section, tmp_path_factory):
    """Two links in each of 21 folders are two million paths to one image."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folders = [elsewhere / str(level) for level in range(22)]
    for folder in folders:
        folder.mkdir()
    for above, below in itertools.pairwise(folders):
        (above / "a").symlink_to(below)
        (above / "b").symlink_to(below)
    put(folders[-1], "1.png")
    (pets / "train" / "cat" / "linked").symlink_to(folders[0])
    data = load(section("folder", root=pets))
    assert data.n_train == 61
    assert len(data.unusable) == 21


def test_pipes_are_not_opened(pets, section):
    """Opening a pipe waits for a writer, for ever."""
    os.mkfifo(pets / "train" / "cat" / "pipe.png")
    (line,) = load(section("folder", root=pets)).unusable
    assert line.endswith("pipe.png: not a regular file")


def test_names_that_are_not_utf8_are_listed(pets, section):
    """Such a name has no place in a parquet column."""
    (pets / "train" / "cat" / os.fsdecode(b"b\xff.png")).write_bytes(PNG)
    (line,) = load(section("folder", root=pets)).unusable
    line.encode("utf-8")
    assert line.endswith("its name is not UTF-8")


def test_line_breaks_in_names_stay_on_one_line(pets, section):
    put(pets, "train/cat/a\nb.png", content=b"")
    (line,) = load(section("folder", root=pets)).unusable
    assert line.endswith(r"a\nb.png: an empty file")
