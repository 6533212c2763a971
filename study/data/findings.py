"""What a person should know of the images before networks train on them.  in: a Dataset   out: a Finding per image

Images count as the networks see them: resized, with the channels that the recipe asks for.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from study.data.near_duplicates import near_pairs
from study.data.raw import shown

if TYPE_CHECKING:
    from study.data.dataset import Dataset

BLOCK = 2048  # images at a time
FEW_LEVELS = 20  # grey levels; fewer are drawings, masks, or images whose bit depth was taken for another one
NEARLY_BLANK = 0.02  # standard deviation of the pixels, as a share of white; the faintest digit of MNIST has .08
KINDS = {  # of findings, in this order, and what each means
    "leak": "test images with the pixels of a training image, so that no network holds them out",
    "conflict": "images with the pixels of an image of another class",
    "duplicate": "images with the pixels of another image of their class",
    "near leak": "test images that are nearly a training image",
    "near conflict": "images that are nearly an image of another class",
    "near duplicate": "images that are nearly another image of their class",
    "blank": "images of one colour",
    "nearly blank": f"images that are nearly blank, whose pixels deviate by less than {NEARLY_BLANK:.0%} of white",
    "few levels": f"images with fewer than {FEW_LEVELS} grey levels",
}


KINDS_OF_ROWS = {  # of features, which have no pixels
    "leak": "test rows with the features of a training row, so that no network holds them out",
    "conflict": "rows with the features of a row of another class",
    "duplicate": "rows with the features of another row of their class",
    "near leak": "test rows that are nearly a training row",
    "near conflict": "rows that are nearly a row of another class",
    "near duplicate": "rows that are nearly another row of their class",
}


class Finding(NamedTuple):
    """An image to look at: its row, what it is (of `KINDS`), and the row of the image that it repeats, else None."""

    row: int
    kind: str
    same_as: int | None = None


def find(dataset: "Dataset", *, near: bool = False) -> list[Finding]:
    """Every finding, kind by kind: repeated images, blank and nearly blank ones, those of few grey levels.

    Of features only the repeated rows.

    Args:
        dataset: n examples.
        near: whether to look for near duplicates too, which compares all pairs: see `near_duplicates.near_pairs`.
    """
    findings = [*repeated(dataset), *(() if dataset.is_features else _odd(dataset.images, dataset.maximum))]
    findings += nearly_repeated(dataset) if near else []
    return sorted(findings, key=lambda finding: (list(KINDS).index(finding.kind), finding.row))


def sentences(dataset: "Dataset", *, near: bool = False) -> list[tuple[str, list[str]]]:
    """Each kind of finding with its count, and a line for each of its images; no lines for what most images are."""
    kinds: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in find(dataset, near=near):
        kinds[finding.kind].append(finding)
    names = KINDS_OF_ROWS if dataset.is_features else KINDS
    return [
        (f"{names[kind]}: {len(some)}", [_line(dataset, one) for one in some] if len(some) <= dataset.n / 2 else [])
        for kind, some in kinds.items()
    ]


def copies(dataset: "Dataset") -> str:
    """A clause about images whose copies are in the other split or another class; "" without any."""
    counts = Counter(finding.kind for finding in repeated(dataset))
    some = "rows" if dataset.is_features else "images"
    words = {"leak": f"test {some} that are training {some} too", "conflict": f"{some} with a copy in another class"}
    return ", ".join(f"{text}: {counts[kind]}" for kind, text in words.items() if counts[kind])


def _line(dataset: "Dataset", finding: Finding) -> str:
    """`train/cat/1.jpg (cat)`, and of a repeated image ` = train/dog/7.jpg (dog)`."""
    rows = [finding.row] if finding.same_as is None else [finding.row, finding.same_as]
    return " = ".join(f"{shown(dataset.ids[row])} ({shown(dataset.classes[dataset.labels[row]])})" for row in rows)


def repeated(dataset: "Dataset") -> list[Finding]:
    """Images with the pixels of another one: in both splits, in two classes, or twice in one class.

    An image may be both a conflict and a duplicate.  Images of one colour are left out; they are `blank`.

    >>> import numpy as np
    >>> from study.data import Dataset
    >>> same = Dataset.from_arrays(np.tile(np.eye(4, dtype=np.uint8), (3, 1, 1)), [0, 0, 1])
    >>> [(finding.row, finding.kind, finding.same_as) for finding in repeated(same)]
    [(0, 'conflict', 2), (1, 'conflict', 2), (1, 'duplicate', 0), (2, 'conflict', 0)]
    """
    findings = []
    for rows in same_pixels(dataset.images):
        if not dataset.is_features and not np.ptp(dataset.images[rows[0]], axis=(1, 2)).any():
            continue
        labels = dataset.labels[rows]
        for row, label in zip(rows.tolist(), labels, strict=True):
            others, first = rows[labels != label], rows[labels == label][0]
            if row >= dataset.n_train > rows[0]:
                findings.append(Finding(row, "leak", int(rows[0])))
                continue
            if len(others):
                findings.append(Finding(row, "conflict", int(others[0])))
            if row != first:
                findings.append(Finding(row, "duplicate", int(first)))
    return findings


def nearly_repeated(dataset: "Dataset") -> list[Finding]:
    """Images that are nearly another one: across the splits, of another class, or of the same; a pair comes once.

    Images of next to one colour are left out, they are `blank` or `nearly blank`.

    >>> import numpy as np
    >>> from study.data import Dataset
    >>> images = np.random.default_rng(0).random((20, 6, 6))
    >>> images[7] = images[3] + 0.001
    >>> nearly_repeated(Dataset.from_arrays(images.clip(0, 1), np.arange(20) % 2, name="toy"))
    [Finding(row=7, kind='near duplicate', same_as=3)]
    """
    rows, others, _ = near_pairs(dataset.images)
    blank = set() if dataset.is_features else {finding.row for finding in _odd(dataset.images, dataset.maximum)}
    pairs = dict(zip(rows.tolist(), others.tolist(), strict=True))
    findings = []
    for row, other in pairs.items():
        split = dataset.n_train
        again = pairs.get(other) == row and (other >= split or row < split) and row < other
        if again or row in blank or row < split <= other:
            continue
        kind = "leak" if row >= split > other else "duplicate"
        kind = "conflict" if kind != "leak" and dataset.labels[row] != dataset.labels[other] else kind
        findings.append(Finding(row, f"near {kind}", other))
    return findings


def same_pixels(images: np.ndarray) -> list[np.ndarray]:
    """Groups of rows whose images have the same pixels, by a digest of each; groups of one are left out.

    Args:
        images: (n, channels, height, width).

    Returns:
        (size of the group,) int64 rows each, rising; groups in the order of their first rows.

    >>> same_pixels(np.array([3, 1, 3, 2, 1])[:, None, None, None])
    [array([0, 2]), array([1, 4])]
    """
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        groups[blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()].append(row)
    return [np.array(rows) for rows in groups.values() if len(rows) > 1]


def _odd(images: np.ndarray, maximum: float) -> Iterator[Finding]:
    """Images of one colour, of next to one colour, of few grey levels; each is the first of these that it is."""
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        planes = block.reshape(*block.shape[:2], -1)
        deviation = planes.std(axis=2, dtype=np.float32).max(axis=1) / maximum
        levels = 1 + (np.diff(np.sort(planes.reshape(len(block), -1), axis=1), axis=1) != 0).sum(axis=1)
        kinds = np.select(
            [deviation == 0, deviation < NEARLY_BLANK, levels < FEW_LEVELS], ["blank", "nearly blank", "few levels"], ""
        )
        yield from (Finding(start + int(row), str(kinds[row])) for row in np.flatnonzero(kinds != ""))
