"""Who trains on what.  in: a subset ratio, a member's number, named random streams   out: masks of training rows

A member's subset depends on the seed, the ratio and the member alone, so members can be trained in any order and more
of them later.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from study.errors import RecipeError

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
Streams = Callable[..., np.random.Generator]

DESIGNS = ("uniform", "balanced")


def block_length(ratio: float) -> int:
    """Members in a balanced block: the denominator of the ratio as it is written.

    Raises:
        RecipeError: a ratio outside (0, 1), or one whose block would be longer than 100.

    >>> block_length(0.3), block_length(0.25)
    (10, 4)
    """
    length = _exact(ratio).denominator
    if length > 100:
        raise RecipeError(
            f"subset ratio {ratio} needs balanced blocks of {length} members; "
            "take at most two decimals or subset.design = 'uniform'"
        )
    return length


def subset_mask(
    rng_for: Streams,
    ratio: float,
    member: int,
    n_train: int,
    design: str = "balanced",
    groups: Sequence[IntArray] = (),
) -> BoolArray:
    """Draw the training subset of one member; it depends on the seed behind `rng_for`, the ratio and the member alone.

    uniform: round(ratio * n_train) examples without replacement, each member by itself (J-alg1).
    balanced: members come in blocks of b = `block_length(ratio)`.  A block cuts one random permutation in b parts, and
    its member j trains on ratio * b parts in a row, from part j on, around the circle.  Each example is then held out
    by exactly (1 - ratio) * b members of a block, and each subset by itself is uniform given its size; the paper draws
    independently.

    Args:
        rng_for: `rng_for(*name)` gives the generator of that name; see `study.random_streams.random_stream`.
        ratio: subset ratio, between 0 and 1.
        member: 0, 1, ... within this ratio.
        n_train: number of training rows.
        design: "uniform" or "balanced".
        groups: rows that are trained on together or held out together, such as copies of one image; sizes stay.

    Returns:
        (n_train,) bool, True where the member trains.

    Raises:
        RecipeError: unknown design, or too few examples for this ratio.

    Source: J-alg1; the balanced design is this package's.

    >>> from functools import partial
    >>> from study.random_streams import random_stream
    >>> block = np.stack([subset_mask(partial(random_stream, 0), 0.25, member, 8) for member in range(4)])
    >>> block.sum(axis=1), block.sum(axis=0)
    (array([2, 2, 2, 2]), array([1, 1, 1, 1, 1, 1, 1, 1]))
    """
    if design not in DESIGNS:
        raise RecipeError(f"unknown subset.design {design!r}; take one of {', '.join(map(repr, DESIGNS))}")
    share, text = _exact(ratio), str(float(ratio))
    mask = np.zeros(n_train, dtype=bool)
    if design == "uniform":
        size = round(share * n_train)
        if not 0 < size < n_train:
            raise RecipeError(
                f"subset ratio {text} of {n_train} training examples leaves nothing to train on or to hold out"
            )
        parts = np.split(rng_for("subset", text, member).permutation(n_train), [size])
        mask[keep_together(parts, groups)[0]] = True
        return mask
    length = block_length(ratio)
    if n_train < length:
        raise RecipeError(
            f"subset ratio {text} cuts the training examples in {length} parts, but there are only {n_train}"
        )
    block, place = divmod(member, length)
    parts = np.array_split(rng_for("subset", text, "block", block).permutation(n_train), length)
    parts = keep_together(parts, groups)
    for step in range(int(share * length)):
        mask[parts[(place + step) % length]] = True
    return mask


def keep_together(parts: Sequence[IntArray], groups: Sequence[IntArray]) -> list[IntArray]:
    """Move rows between the parts of a permutation until each group is in one part; the parts keep their sizes.

    A group goes to the part of its first row; rows of no group change places with the others.

    Args:
        parts: rows, each in one part.
        groups: rows; no row is in two groups.

    Raises:
        RecipeError: a group does not fit in a part.

    >>> keep_together([np.array([0, 3]), np.array([1, 2])], [np.array([0, 1])])
    [array([0, 1]), array([3, 2])]
    """
    moved = [part.copy() for part in parts]
    if not len(groups):
        return moved
    grouped = set(np.concatenate(groups).tolist())
    place = {row: (number, index) for number, part in enumerate(parts) for index, row in enumerate(part.tolist())}
    free = [[row for row in part.tolist() if row not in grouped] for part in parts]
    for group in groups:
        target = place[int(group[0])][0]
        for row in group.tolist():
            number, index = place[row]
            if number == target:
                continue
            if not free[target]:
                raise RecipeError(
                    f"{len(group)} copies of one example do not fit in one part of a subset; remove copies, or leave "
                    "subset.group_duplicates false"
                )
            other = free[target].pop()
            moved[number][index], moved[target][place[other][1]] = other, row
    return moved


def subset_size(ratio: float, member: int, n_train: int, design: str = "balanced") -> int:
    """How many examples `subset_mask` gives a member, without drawing them.

    >>> [subset_size(0.25, member, 10) for member in range(4)]
    [3, 3, 2, 2]
    """
    share = _exact(ratio)
    if design == "uniform":
        return round(share * n_train)
    length = block_length(ratio)
    part, longer = divmod(n_train, length)  # as np.array_split: the first parts are longer by one
    taken = ((member + step) % length for step in range(int(share * length)))
    return sum(part + (place < longer) for place in taken)


def half_of(member: int, ratio: float, design: str = "uniform") -> int:
    """Half of the ensemble that a member belongs to in split-half reliability, 0 or 1.

    uniform: the parity of the member.  balanced: the parity of its block, so that both halves hold whole blocks: each
    example is held out equally often in both, and the halves share no permutation.

    >>> [half_of(member, 0.5, "balanced") for member in range(6)]
    [0, 0, 1, 1, 0, 0]
    """
    return (member // block_length(ratio) if design == "balanced" else member) % 2


def percent(ratio: float) -> str:
    """Name of a subset ratio in column names and figures.

    >>> percent(0.1), percent(0.125)
    ('10', '12.5')
    """
    return f"{float(_exact(ratio) * 100):g}"


def _exact(ratio: float) -> Fraction:
    share = Fraction(str(float(ratio)))
    if not 0 < share < 1:
        raise RecipeError(f"a subset ratio lies between 0 and 1, not {ratio}")
    return share
