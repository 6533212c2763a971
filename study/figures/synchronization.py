"""Training and test examples that become wrong together.  in: table of counts, images   out: Figure"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from study.figures.images import rgb_image
from study.figures.style import GREEN, INK, ORANGE, legible, new_figure, sentence_figure, sequential, styled

ACROSS = 14  # pictures in a row at most, the test example among them


@styled
def synchronized_by_events(table: pd.DataFrame) -> Figure:
    """Synchronized training examples by the mal-generalizing events of the test example, a line per number of runs.

    Args:
        table: runs | events | synchronized | n (Z-sync; Zhang, Fig. 8).
    """
    title = "Training examples that are forgotten whenever a test example becomes wrong again"
    if table.empty:
        return sentence_figure(title, "No test example becomes wrong again in the runs read.")
    figure = new_figure(6.6, 3.7, title)
    axes = figure.subplots()
    numbers = list(dict.fromkeys(table["runs"]))
    for place, (runs, rows) in enumerate(table.groupby("runs")):
        colour = sequential()(0.1 + 0.75 * place / max(1, len(numbers) - 1))
        label = "in 1 run" if runs == 1 else f"in each of {runs} runs"
        axes.plot(rows["events"], rows["synchronized"], "o-", ms=3, color=colour, label=label)
    axes.set(xlabel="mal-generalizing events of the test example in the first run")
    axes.set(ylabel="synchronized training examples, mean", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


@styled
def synchronized_pictures(
    images: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    examples: Sequence[tuple[int, np.ndarray]],
    runs: int,
    *,
    maximum: float = 255.0,
) -> Figure:
    """Test examples and the training examples that are synchronized with them in all runs (Z-sync; Zhang, Fig. 9).

    Args:
        images: (n, channels, h, w).
        labels, ids: (n,).
        examples: row number of a test example, row numbers of its training examples; a row of pictures each.
        runs: number of runs.
        maximum: the pixel value that is white.

    Green boxes have the test example's label, orange ones another; of each as many as fit.
    """
    title = f"Test examples (left) and the training examples synchronized with them in each of {runs} runs"
    if not examples:
        return sentence_figure(title, "There are none.")
    figure = new_figure(0.72 * ACROSS, 1.0 * len(examples) + 0.5, title)
    panels = figure.subplots(len(examples), ACROSS, squeeze=False)
    for row, (example, together) in zip(panels, examples, strict=True):
        same = labels[together] == labels[example]
        half = (ACROSS - 1) // 2
        shown = [*together[same][: max(half, ACROSS - 1 - (~same).sum())], *together[~same]][: ACROSS - 1]
        for axes in row:
            axes.set_axis_off()
        for axes, number in zip(row, [example, *shown], strict=False):
            axes.imshow(rgb_image(images[number], maximum), interpolation="nearest")
            colour = INK if number == example else GREEN if labels[number] == labels[example] else ORANGE
            axes.add_patch(
                Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=colour, lw=2.5, clip_on=False)
            )
        row[0].set_title(f"{legible(str(ids[example]), 16)}: {len(together)}", fontsize=7)
    return figure
