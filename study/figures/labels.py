"""Labels next to points.  in: axes, points, names   out: text and leader lines that cover no other label or point"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from study.figures.style import legible, text_width

POINTS = 72  # in an inch
SIZE = 7.5  # points, of a label
LINE = 1.2 * SIZE / POINTS  # inches, of a label's height
CROSSING = 0.01  # square inches: what a leader line through a label counts, as an overlap of that area
SAMPLES = np.linspace(0.05, 0.95, 19)[:, None]  # places on a leader line at which it is tested


def place_labels(
    axes: Axes, x: pd.Series, y: pd.Series, texts: pd.Series, colours: pd.Series, column: np.ndarray
) -> None:
    """Write a label next to each point where no other label or point lies, with a line where it is far from its point.

    Args:
        axes: with its final limits and position.
        x, y, texts, colours: (p,), the most important first: it gets the best place.
        column: (p,) bool, points above each other, highest first, whose labels form a column right of them.
    """
    size = axes.get_figure(root=True).get_size_inches() * axes.get_position().size
    points = axes.transLimits.transform(axes.transScale.transform(np.column_stack([x, y]))) * size
    names = [legible(str(text), 48) for text in texts]
    widths = [_width(name) for name in names]
    rows = np.flatnonzero(column).tolist()
    boxes = dict(zip(rows, _column_boxes(points[column], np.array(widths)[column], size), strict=True))
    taken = [np.array([*(point - 0.05), *(point + 0.05)]) for point in points] + list(boxes.values())
    lines = [_leader(points[row], box) for row, box in boxes.items()]
    for number, (point, text, colour) in enumerate(zip(points, names, colours, strict=True)):
        if number in boxes:
            box = boxes[number]
        else:
            box = _free_box(point, widths[number], LINE, taken, lines, size)
            taken.append(box)
            lines.append(_leader(point, box))
        right, (start, end) = box[0] > point[0], _leader(point, box)
        if abs(end[1] - start[1]) > LINE / 4:
            axes.plot(*(np.stack([start, end]) / size).T, transform=axes.transAxes, color=colour, lw=0.5, zorder=2)
        axes.text(
            *(end / size),
            text,
            transform=axes.transAxes,
            fontsize=SIZE,
            color=colour,
            zorder=4,
            ha="left" if right else "right",
            va="center_baseline",
            bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.4},
        )


def _width(name: str) -> float:
    """Inches of a label."""
    return 0.03 + text_width(name, SIZE)


def _leader(point: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(2, 2) the line from a point to the near end of its label."""
    return np.array([point, [box[0] if box[0] > point[0] else box[2], (box[1] + box[3]) / 2]])


def _column_boxes(points: np.ndarray, widths: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(q, 4) boxes in one column right of points that are highest first: as near to them as a line's height allows."""
    if not len(points):
        return np.empty((0, 4))
    steps = LINE * np.arange(len(points))
    spread = isotonic_regression(points[:, 1] + steps, increasing=False).x
    middle = np.clip(spread, steps[-1] + LINE / 2, size[1] - LINE / 2) - steps
    left = points[:, 0].max() + (0.28 if len(points) > 1 else 0.08)
    return np.column_stack([np.full(len(points), left), middle - LINE / 2, left + widths, middle + LINE / 2])


def _free_box(
    point: np.ndarray,
    width: float,
    height: float,
    taken: list[np.ndarray],
    lines: list[np.ndarray],
    size: np.ndarray,
) -> np.ndarray:
    """The nearest box (left, bottom, right, top) next to a point that overlaps nothing, or the one overlapping least.

    A leader line through another label counts as an overlap, and so does a label on another's leader line.
    """
    shifts = sorted(np.arange(-40, 41) * height / 2, key=abs)
    best, least = np.zeros(4), np.inf
    others = np.stack(taken)
    samples = np.concatenate([start + SAMPLES * (end - start) for start, end in lines]) if lines else np.empty((0, 2))
    for shift in shifts:
        aside = 0.08 + min(abs(shift) / 2, 0.2)
        for left in (point[0] + aside, point[0] - aside - width):
            box = np.array([left, point[1] + shift - height / 2, left + width, point[1] + shift + height / 2])
            sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
            overlap = np.clip(sides, 0, None).prod(axis=1).sum()
            overlap += float((box[:2] < 0).any() or (box[2:] > size).any())
            overlap += CROSSING * (_inside(samples, box[None]).any() + _crossed(point, box, others))
            if overlap < least:
                best, least = box, overlap
            if not least:
                return best
    return best


def _crossed(point: np.ndarray, box: np.ndarray, others: np.ndarray) -> int:
    """How many boxes the leader line to `box` passes through, those that hold the point itself left out."""
    start, end = _leader(point, box)
    if abs(end[1] - start[1]) <= LINE / 4:
        return 0  # no line is drawn
    around = _inside(point[None], others)[0]
    return int((_inside(start + SAMPLES * (end - start), others).any(axis=0) & ~around).sum())


def _inside(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(s, b) whether each place lies in each box."""
    return ((places[:, None] > boxes[:, :2]) & (places[:, None] < boxes[:, 2:])).all(axis=2)
