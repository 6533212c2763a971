"""Image files to arrays, many at a time.  in: paths or bytes   out: (n, channels, height, width) uint8

Files come from strangers: whatever Pillow makes of one, the result is pixels or one line that says why not.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from study.data.raw import first_line, shown
from study.errors import DataError

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # none that starts a program (EPS)
ENDINGS = "avif|bmp|gif|jpg|jpeg|jpe|jfif|jp2|png|pbm|pgm|pnm|ppm|tif|tiff|webp"
IMAGE_NAME = re.compile(rf"\.({ENDINGS})$", re.IGNORECASE)
PIXELS_ALLOWED = 89_478_485  # a quarter of a GiB as RGB, Pillow's own line for a decompression bomb
GRAY_MODES = frozenset(("1", "L", "LA", "La"))
TURNS = {  # EXIF orientation, 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAGIC = (  # the first bytes of the formats that are read, and of HEIC, from the given place on
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF8"),
    (0, b"BM"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (8, b"WEBP"),
    (4, b"jP  "),
    (4, b"ftypavif"),
)
HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")
BLOCK = 32  # images per task of the pool: a task per image costs more than a small image
Source = Path | bytes | str  # a str is the reason why there is nothing to decode


class Stack:
    """Images of one size in one array, filled as they come; three channels from the first coloured one on.

    Images of more than 8 bits are kept as they are until all are in: how many bits they have is decided for the whole
    set by its largest value.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity, self._count, self._first = capacity, 0, ""
        self._array: np.ndarray | None = None
        self._deep = np.zeros(capacity, bool)

    def images(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """(n, channels, height, width) uint8, (0, 1, 0, 0) before the first image; and a line about bit depths."""
        if self._array is None:
            return np.empty((0, 1, 0, 0), np.uint8), ()
        images, deep = self._array[: self._count], self._deep[: self._count]
        if not deep.any():
            return images, ()
        largest = max(int(image.max()) for image in images[deep])
        bits = bit_depth(largest)
        for row in np.flatnonzero(deep):
            images[row] = eight_bits(images[row], bits)
        line = f"{int(deep.sum())} images hold 16 bits with values up to {largest}: read as {bits}-bit images"
        return images.astype(np.uint8), (line,)

    def add(self, pixels: np.ndarray, name: str) -> None:
        """Append (height, width) or (height, width, 3); another size than the first one's is a DataError."""
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if self._array is None:
            self._first, self._array = name, self._room(planes.shape, planes.dtype)
        height, width = self._array.shape[2:]
        if planes.shape[1:] != (height, width):
            raise DataError(
                f"{shown(name)}: {planes.shape[2]}x{planes.shape[1]} pixels, but {shown(self._first)} has "
                f"{width}x{height}; resize all with --set data.size=32"
            )
        channels, dtype = max(len(planes), self._array.shape[1]), np.promote_types(planes.dtype, self._array.dtype)
        if (channels, dtype) != (self._array.shape[1], self._array.dtype):
            wider = self._room((channels, height, width), dtype)
            wider[: self._count] = self._array[: self._count]
            self._array = wider
        self._array[self._count] = planes
        self._deep[self._count] = planes.dtype == np.uint16
        self._count += 1

    def _room(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        try:
            return np.empty((self._capacity, *shape), dtype)
        except MemoryError:
            need = self._capacity * np.prod(shape, dtype=float) * dtype.itemsize / 2**30
            raise DataError(f"{shown(self._first)}: all images need {need:.0f} GiB; set a smaller data.size") from None


def bit_depth(largest: int) -> int:
    """How many bits images have whose largest value this is: 8, 10, 12, 14 or 16, as cameras and scanners give.

    >>> bit_depth(4080), bit_depth(65535)
    (12, 16)
    """
    return next(bits for bits in (8, 10, 12, 14, 16) if largest < 1 << bits)


def eight_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """0..2**bits - 1 to 0..255, rounded.

    >>> eight_bits(np.array([0, 2048, 4095], np.uint16), 12)
    array([  0, 128, 255], dtype=uint8)
    """
    white = (1 << bits) - 1
    return ((pixels.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def is_image(path: Path) -> bool:
    """Whether a file begins as an image does, whatever its name ends in."""
    try:
        with path.open("rb") as file:
            return _sniffed(file.read(16))
    except OSError:
        return False


def _sniffed(head: bytes) -> bool:
    return any(head[at:].startswith(magic) for at, magic in MAGIC) or head[4:].startswith(HEIC)


def decode_all(
    batches: Iterable[Sequence[Source]], size: int | None, channels: int | None, advance: Callable[[int], None]
) -> Generator[np.ndarray | str, None, None]:
    """Decode in a pool of threads, in order.

    Args:
        batches: lists of files, of encoded images, or of reasons why there is none.
        size: resize each image to size x size.
        channels: 1 or 3 to force gray or colour.
        advance: told the number of images done.

    Yields:
        (height, width) for a gray image, (height, width, 3) for a coloured one, or the reason why it cannot be read.
    """
    Image.init()
    _register_heic()
    workers = min(16, os.cpu_count() or 1)
    with _pillow_is_quiet(), ThreadPoolExecutor(workers, "decode") as pool:
        for batch in batches:
            blocks = [batch[start : start + BLOCK] for start in range(0, len(batch), BLOCK)]
            for done in pool.map(lambda block: [decode(source, size, channels) for source in block], blocks):
                yield from done
                advance(len(done))


@contextmanager
def _pillow_is_quiet() -> Iterator[None]:
    """Pillow warns of odd files; under `-W error` a warning would be an error in the middle of a good image.

    Opened by the main thread around the pool, as the list of filters belongs to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(source: Source, size: int | None = None, channels: int | None = None) -> np.ndarray | str:
    """One image as (height, width) or (height, width, 3), or the reason why it cannot be read.

    Upright as its EXIF says; transparent parts over white; palettes, CMYK and the like as RGB, or gray where the
    palette is; the first frame of a film.  uint8, or uint16 where the file holds 16 bits.
    """
    if isinstance(source, str):
        return source
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as image:
            if image.width * image.height > PIXELS_ALLOWED:
                return f"{image.width}x{image.height} pixels, more than {PIXELS_ALLOWED} are refused"
            plain = _plain(image, channels)
            if size is not None and plain.size != (size, size):
                plain = plain.resize((size, size), Image.Resampling.BILINEAR)
            return _pixels(plain, image)
    except UnidentifiedImageError:
        return _unknown(source)
    except Exception as error:  # on broken files Pillow's plug-ins raise almost anything
        return first_line(error)


def size_of(source: Source) -> tuple[int, int] | None:
    """(width, height) by the header of an image, before any turn; None where it cannot be read."""
    try:
        with (
            _pillow_is_quiet(),
            Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as image,
        ):
            return image.size
    except Exception:  # on broken files Pillow's plug-ins raise almost anything
        return None


def plain_pixels(image: Image.Image) -> np.ndarray:
    """An image that is open already as (height, width) or (height, width, 3) uint8 or uint16; see `decode`."""
    return _pixels(_plain(image, None), image)


def _pixels(plain: Image.Image, image: Image.Image) -> np.ndarray:
    """The array of `plain`, which was made of `image`; 16 bits as uint16, the same in three channels if wanted."""
    pixels = np.asarray(plain)
    return pixels.round().clip(0, 65535).astype(np.uint16) if _is_deep(image) else pixels


def _unknown(source: Path | bytes) -> str:
    """Why Pillow knows no format for a file."""
    try:
        if isinstance(source, bytes):
            head = source[:16]
        else:
            with source.open("rb") as file:
                head = file.read(16)
    except OSError as error:  # gone since it was opened
        return first_line(error)
    if head[4:].startswith(HEIC):
        return "a HEIC image; install pillow-heif to read it, or convert it to JPEG"
    return "not an image of a known format" if head else "an empty file"


def _register_heic() -> None:
    """Pillow reads HEIC where the package pillow-heif is installed."""
    if find_spec("pillow_heif") is not None:
        import_module("pillow_heif").register_heif_opener()


def _formats() -> list[str]:
    return [name for name in (*FORMATS, "HEIF") if name in Image.OPEN]


def _plain(image: Image.Image, channels: int | None) -> Image.Image:
    """Mode L or RGB, upright; mode F, which can be resized, where the file holds 16 bits of gray."""
    image.load()  # before the EXIF is asked for: TIFF turns itself and PNG may keep its EXIF behind the pixels
    if _is_deep(image):
        return _upright(Image.fromarray(np.asarray(image).astype(np.float32)), image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"{image.mode} pixels have no known white; save as 8 or 16 bits")
    plain = _opaque(image)
    if channels is not None:
        plain = plain.convert("L" if channels == 1 else "RGB")
    return _upright(plain, image)


def _upright(plain: Image.Image, image: Image.Image) -> Image.Image:
    """Turned as the file's EXIF says; damaged EXIF says nothing about the direction."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return plain
    return plain if turn is None else plain.transpose(turn)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _opaque(image: Image.Image) -> Image.Image:
    gray = image.mode in GRAY_MODES
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode in ("L", "RGB"):
        return image
    elif image.mode == "P":
        image = image.convert("RGB")
        red, green, blue = np.moveaxis(np.asarray(image), -1, 0)
        gray = np.array_equal(red, green) and np.array_equal(green, blue)
    return image.convert("L" if gray else "RGB")
