"""Pictures of examples, ordered by C-score.  in: images, cscore table   out: Figure"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures.classes import class_table
from study.figures.style import (
    FAINT,
    INK,
    ORANGE,
    class_names,
    digits,
    legible,
    new_figure,
    plain,
    sentence_figure,
    short_number,
    styled,
)

BLOCKS = 10  # classes on one sheet
ACROSS = 5  # blocks in a row
TILE, GAP, CAPTION = 0.575, 0.06, 0.235  # inches
FRAME = (201, 206, 216, 255)  # RGBA


def rgb_image(image: np.ndarray, maximum: float) -> np.ndarray:
    """Turn one image (channels, h, w) into (h, w, 3) uint8; other than 1 or 3 channels are averaged to grey."""
    image = np.clip(np.nan_to_num(image.astype(np.float32)) / maximum, 0, 1)
    if len(image) != 3:
        image = image.mean(axis=0, keepdims=True).repeat(3, axis=0)
    return (image.transpose(1, 2, 0) * 255).round().astype(np.uint8)


def _check(images: np.ndarray, cscores: pd.DataFrame) -> None:
    if images.ndim != 4 or len(images) != len(cscores):
        raise ValueError(f"images {images.shape} are not (n, channels, h, w) with n = {len(cscores)} rows of the table")


def _order(cscores: pd.DataFrame, by: Sequence[str] = ("cscore", "cscore_soft")) -> pd.DataFrame:
    """Sort from low to high; among equal scores the second one decides where there is one, then the place."""
    numbered = cscores.reset_index(drop=True)
    keys = [name for name in dict.fromkeys(by) if name in numbered]
    return numbered[numbered[keys[0]].notna()].sort_values(keys, kind="stable")


def choose_examples(cscores: pd.DataFrame, label: int, per: int = 8) -> dict[str, np.ndarray]:
    """Choose row numbers of one class: {"high", "middle", "low"}, at most `per` each, none twice.

    Middle: the scores nearest to halfway between the class's lowest and highest. The median would not do: in a
    saturated data set it is as high as the highest.
    """
    rows = _order(cscores)
    rows = rows[rows["label"] == label]
    per = min(per, max(len(rows) // 3, 1))
    low, high = rows.index[:per], rows.index[max(len(rows) - per, per) :][::-1]
    between = rows.loc[~rows.index.isin(low.union(high)), "cscore"]
    halfway = (rows["cscore"].min() + rows["cscore"].max()) / 2
    middle = (between - halfway).abs().sort_values(kind="stable").index[:per]
    return {"high": high.to_numpy(), "middle": middle.to_numpy(), "low": low.to_numpy()}


def _resized(pixels: np.ndarray, size: float) -> np.ndarray:
    """(h, w, 3) pixels with a longer side of `size`: repeated where there are fewer, blocks averaged where more."""
    block = max(int(max(pixels.shape) // size), 1)
    if block > 1:
        high, wide = (min(block, side) for side in pixels.shape[:2])
        h, w = pixels.shape[0] // high, pixels.shape[1] // wide
        tiles = pixels[: h * high, : w * wide].reshape(h, high, w, wide, 3)
        pixels = tiles.mean(axis=(1, 3)).round().astype(np.uint8)
    h, w, _ = pixels.shape
    high, wide = (max(round(size * side / max(h, w)), 1) for side in (h, w))
    return pixels[np.arange(high) * h // high][:, np.arange(wide) * w // wide]


class _Pictures(Artist):
    """Pictures placed in inches, drawn pixel by pixel: an AxesImage each takes ten times as long."""

    def __init__(self, height: float):
        super().__init__()
        self.height = height
        self.placed: list[tuple[np.ndarray, float, float, float]] = []  # (h, w, 3) pixels, x, y, size; y from the top
        self.set_zorder(0)

    def draw(self, renderer: Any) -> None:
        """Draw each in a frame, at the dots per inch of the figure."""
        dots, gc = 72 * renderer.points_to_pixels(1.0), renderer.new_gc()
        for pixels, x, y, size in self.placed:
            resized = _resized(pixels, dots * size)
            high, wide, _ = resized.shape
            framed = np.full((high + 2, wide + 2, 4), FRAME, np.uint8)
            framed[1:-1, 1:-1, :3] = resized
            left, top = round(dots * (x + size / 2) - wide / 2) - 1, round(dots * (y + size / 2) - high / 2) - 1
            renderer.draw_image(gc, left, round(dots * self.height) - top - high - 2, framed[::-1])
        gc.restore()


class _Sheet:
    """A figure with one axis in inches, origin top left, on which pictures and captions are placed."""

    def __init__(self, width: float, height: float, title: str, maximum: float):
        self.figure = new_figure(width, height, title, layout=None)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self.axes.set_axis_off()
        self.maximum = maximum
        self.pictures = _Pictures(height)
        self.figure.add_artist(self.pictures)

    def place(self, image: np.ndarray, x: float, y: float, size: float) -> None:
        """Place an image in a square of that size, keeping its shape; enlarged pixels stay squares."""
        self.pictures.placed.append((rgb_image(image, self.maximum), x, y, size))

    def write(self, text: str, x: float, y: float, size: float = 6, **options: Any) -> None:
        """Write a line of text whose top is at y."""
        self.axes.text(x, y, text, fontsize=size, va="top", **options)


def _change(label: str, consensus: str, width: int) -> str:
    """Write the label and the predicted class: `6 → 0`, or `→ automobile` where both names do not fit."""
    both = f"{label} → {consensus}"
    return both if len(both) <= width else "→ " + legible(consensus, width - 2)


@styled
def example_grid(
    images: np.ndarray, cscores: pd.DataFrame, classes: Sequence[str], *, maximum: float = 255.0, per: int = 8
) -> Figure:
    """Per class a block of pictures: columns of high, intermediate and low C-score (J-fig4, J-fig13 to 15).

    Args:
        images: (n, channels, h, w), uint8 or float, in the order of the table's rows.
        cscores: columns `label`, `cscore`, `consensus`; `cscore_soft` decides between equal scores.
        classes: (c,) names.
        maximum: the pixel value that is white.
        per: pictures per column.

    Of more than ten classes, those ten with the largest standard deviation. Captions are C-scores; a low one is
    followed by the class that most networks trained without the example predict. The paper does not say how it selects
    "intermediate" examples; see `choose_examples`.
    """
    _check(images, cscores)
    title = "High, middle and low C-scores, class by class"
    table = class_table(cscores, len(classes)).dropna()
    if table.empty:
        return sentence_figure(title, "No example has a C-score.")
    if len(table) > BLOCKS:
        title += f": the {BLOCKS} of {len(table)} classes whose scores spread most"
        table = table.sort_values("sd", ascending=False, kind="stable")[:BLOCKS].sort_index()
    chosen = {label: choose_examples(cscores, label, per) for label in table.index}
    tall = max(max(map(len, columns.values())) for columns in chosen.values())
    across = min(ACROSS, len(chosen))
    wide, high = 3 * (TILE + GAP) + 0.14, tall * (TILE + CAPTION) + 0.62
    sheet = _Sheet(max(across * wide + 0.12, 6.2), 0.45 + -(-len(chosen) // across) * high, title, maximum)
    for block, (label, columns) in enumerate(chosen.items()):
        corner = (0.14 + block % across * wide, 0.45 + block // across * high)
        _block(sheet, corner, images, cscores, class_names(classes), label, columns)
    return sheet.figure


def _block(
    sheet: _Sheet,
    corner: tuple[float, float],
    images: np.ndarray,
    cscores: pd.DataFrame,
    names: list[str],
    label: int,
    columns: dict[str, np.ndarray],
) -> None:
    x0, y0 = corner
    sheet.write(legible(names[label], 26), x0, y0, 8.5, fontweight="bold")
    for column, (name, rows) in enumerate(columns.items()):
        x = x0 + column * (TILE + GAP)
        sheet.write(name, x + TILE / 2, y0 + 0.19, 6.5, ha="center", color=FAINT)
        for place, row in enumerate(rows):
            y = y0 + 0.32 + place * (TILE + CAPTION)
            sheet.place(images[row], x, y, TILE)
            text, consensus = short_number(cscores["cscore"].iloc[row]), int(cscores["consensus"].iloc[row])
            sheet.write(text, x + TILE / 2, y + TILE + 0.022, 5.8, ha="center", color=FAINT)
            if name == "low" and consensus != label and 0 <= consensus < len(names):
                change = _change(names[label], names[consensus], 13)
                sheet.write(change, x + TILE / 2, y + TILE + 0.115, 5.8, ha="center", color=ORANGE)


@styled
def suspect_grid(
    images: np.ndarray, cscores: pd.DataFrame, classes: Sequence[str], *, maximum: float = 255.0, count: int = 60
) -> Figure:
    """The examples with the lowest soft C-scores of all classes: where to search for label errors first (J-uses).

    Args:
        images: (n, channels, h, w), uint8 or float, in the order of the table's rows.
        cscores: columns `example`, `label`, `cscore`, `consensus`, and `cscore_soft`, which then ranks.
        classes: (c,) names.
        maximum: the pixel value that is white.
        count: pictures on the sheet.

    Each with its id, its label → the class that most networks trained without it predict, and its score.  The paper
    shows such examples class by class.
    """
    _check(images, cscores)
    by = "cscore_soft" if "cscore_soft" in cscores else "cscore"
    rows = _order(cscores, (by, "cscore")).index[:count]
    kind = "soft C-scores" if by == "cscore_soft" else "C-scores"
    title = f"The {len(rows)} lowest {kind} of {plain(len(cscores))} examples, lowest first"
    if rows.empty:
        return sentence_figure(title, "No example has a C-score.")
    across, size, step, names = 10, 0.86, (1.01, 1.36), class_names(classes)
    sheet = _Sheet(10.2, 0.55 + -(-len(rows) // across) * step[1], title, maximum)
    for place, row in enumerate(rows):
        x, y = 0.12 + place % across * step[0], 0.42 + place // across * step[1]
        entry = cscores.iloc[row]
        label, consensus = int(entry["label"]), int(entry["consensus"])
        other = consensus != label and 0 <= consensus < len(names)
        sheet.place(images[row], x, y, size)
        sheet.write(legible(names[label], 15), x, y + size + 0.04, 6.8, color=INK, fontweight="bold")
        agreed = "predicted too" if consensus == label else ""  # -1: there is no prediction
        change = "→ " + legible(names[consensus], 14) if other else agreed
        sheet.write(change, x, y + size + 0.155, 6.8, color=ORANGE if other else FAINT)
        sheet.write(legible(str(entry["example"]), 14), x, y + size + 0.275, 5.8, color=FAINT)
        sheet.write(digits(entry[by]), x + size, y + size + 0.27, 6.2, ha="right", color=INK)
    return sheet.figure
