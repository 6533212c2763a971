"""Images of the forms of difficulty.  in: images, chosen examples   out: Figure"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.figures.images import rgb_image
from study.figures.style import class_names, legible, new_figure, sentence_figure, styled


@styled
def corner_images(
    images: np.ndarray, chosen: pd.DataFrame, classes: Sequence[str], *, maximum: float = 255.0
) -> Figure:
    """Examples of each form of difficulty, those nearest to its corner first (B-fig7 below).

    Args:
        images: (n, channels, height, width).
        chosen: a row per image in order: `type`, `row` (of images), `label`, `consensus` (class, -1 where unknown).
        classes: (c,) names.
        maximum: brightest value of a pixel.

    Above each image the label, and the consensus class after an arrow where it is another.
    """
    title = "Examples nearest to the corners: label, and consensus class where it is another"
    if not len(chosen):
        return sentence_figure(title, "No example was in both splits with a defined depth.")
    groups = list(chosen.groupby("type", sort=False))
    across = max(len(part) for _, part in groups)
    names = class_names(classes)
    figure = new_figure(1.05 * across + 1.6, 1.25 * len(groups) + 0.5, title)
    grid = figure.subplots(len(groups), across, squeeze=False)
    for panels, (kind, part) in zip(grid, groups, strict=True):
        for axes in panels:
            axes.set_axis_off()
        rows = zip(part["row"].to_list(), part["label"].to_list(), part["consensus"].to_list(), strict=True)
        for axes, (row, label, consensus) in zip(panels, rows, strict=False):
            axes.imshow(rgb_image(images[row], maximum))
            other = consensus >= 0 and consensus != label
            text = f"{names[label]} \N{RIGHTWARDS ARROW} {names[consensus]}" if other else names[label]
            axes.set_title(legible(text, 22), fontsize=7, loc="center")
        text = str(kind).replace(" a ", " a\n").replace(" unless ", "\nunless ")
        panels[0].text(-0.12, 0.5, text, transform=panels[0].transAxes, ha="right", va="center", fontsize=8)
    return figure
