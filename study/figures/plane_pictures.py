"""Examples pictured where they lie in the plane of regularity.  in: images, points   out: Figure"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures.images import rgb_image
from study.figures.regularity_plane import AXES
from study.figures.style import FAINT, ORANGE, class_names, legible, new_figure, sentence_figure, styled

ACROSS, DOWN = 9, 6  # parts of the plane, each with one picture at most


def nearest_to_centres(right: np.ndarray, events: np.ndarray) -> dict[tuple[int, int], int]:
    """Divide the plane into 9 by 6 equal parts; {(column, row): number of the example nearest to that part's centre}.

    Args:
        right, events: (n,) coordinates.

    Parts without an example are left out.

    >>> nearest_to_centres(np.array([0.0, 0.4, 9.0]), np.array([0.0, 0.5, 6.0]))
    {(0, 0): 1, (8, 5): 2}
    """
    points = np.column_stack([right, events]).astype(float)
    low, spread = points.min(axis=0), np.ptp(points, axis=0)
    places = (points - low) / np.where(spread > 0, spread, 1) * (ACROSS, DOWN)
    parts = np.minimum(places.astype(int), (ACROSS - 1, DOWN - 1))
    distances = ((places - parts - 0.5) ** 2).sum(axis=1)
    chosen: dict[tuple[int, int], int] = {}
    for number in np.argsort(distances, kind="stable"):
        chosen.setdefault((int(parts[number, 0]), int(parts[number, 1])), int(number))
    return dict(sorted(chosen.items()))


@styled
def pictures_in_plane(
    images: np.ndarray, planes: Mapping[str, pd.DataFrame], classes: Sequence[str], *, maximum: float = 255.0
) -> Figure:
    """Pictures of examples where they lie in the plane of regularity, a panel per split (Z-fig2, c).

    Args:
        images: (n, channels, h, w).
        planes: by split `row` (of the images), `right`, `events`, `label`; a row per example.
        classes: (c,) names.
        maximum: the pixel value that is white.

    Of each part of the plane the example nearest to its centre is shown, with its label; the paper chose by eye.
    """
    title = "Examples where they lie in the plane: regular ones at the lower right"
    if not planes:
        return sentence_figure(title, "All examples lie at one point in the runs read.")
    figure = new_figure(6.2 * len(planes), 5.0, title)
    panels = np.atleast_1d(figure.subplots(1, len(planes)))
    for axes, (split, points) in zip(panels, planes.items(), strict=True):
        right, events = points["right"].to_numpy(dtype=float), points["events"].to_numpy(dtype=float)
        sides = max(np.ptp(right), 1e-9) / ACROSS, max(np.ptp(events), 1e-9) / DOWN
        for (column, row), number in nearest_to_centres(right, events).items():
            corner = right.min() + column * sides[0], events.min() + row * sides[1]
            example = points.iloc[number]
            image = rgb_image(images[int(example["row"])], maximum)
            _pin(axes, image, corner, sides, legible(class_names(classes)[int(example["label"])], 9))
        axes.set(xlabel=AXES[split][0], ylabel=AXES[split][1], title=split)
        axes.set(
            xlim=(right.min(), right.min() + ACROSS * sides[0]), ylim=(events.min(), events.min() + DOWN * sides[1])
        )
        axes.grid(visible=False)
    return figure


def _pin(axes: Axes, image: np.ndarray, corner: tuple[float, float], sides: tuple[float, float], label: str) -> None:
    """Draw an image over nine tenths of its part of the plane, its label in the upper left corner."""
    (x, y), (wide, high) = corner, sides
    extent = (x + 0.05 * wide, x + 0.95 * wide, y + 0.05 * high, y + 0.95 * high)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="nearest")
    box = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": FAINT, "lw": 0.3, "alpha": 0.85}
    axes.text(
        extent[0] + 0.04 * wide, extent[3] - 0.04 * high, label, fontsize=6, va="top", ha="left", color=ORANGE, bbox=box
    )
