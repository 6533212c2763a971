"""How sensitive the loss is to the inputs.  in: matrix (c, c), series by epoch   out: Figure"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from study.figures.style import (
    AMBER,
    BLUE,
    FAINT,
    ORANGE,
    PURPLE,
    class_names,
    legible,
    new_figure,
    plain,
    sentence_figure,
    sequential,
    styled,
)

NAMED = 30  # classes up to which rows and columns carry names
SERIES = {
    "sensitivity/gini": ("Gini coefficient of the loss sensitivity", AMBER),
    "sensitivity/critical_ratio_train": ("critical sample ratio, train", BLUE),
    "sensitivity/critical_ratio_test": ("critical sample ratio, test", PURPLE),
}


@styled
def class_sensitivity(matrix: ArrayLike, classes: Sequence[str]) -> Figure:
    """Loss sensitivity from class to class (A-class): of the loss towards the row's class, at inputs of the column's.

    Args:
        matrix: (c, c) mean L1 norms, of one epoch or averaged over training; NaN for a class without examples.
        classes: (c,) names.

    Colours span the values off the diagonal, logarithmic where they span more than a power of ten: the loss of the
    example's label is flat where the network is confident, many powers of ten below.  The paper finds values off the
    diagonal on real data, where classes share features, and hardly any on random labels.
    """
    title = "Sensitivity of each class's loss to inputs of each class"
    matrix = np.ma.masked_invalid(np.asarray(matrix, dtype=np.float64))
    matrix = np.ma.masked_less_equal(matrix, 0)
    if matrix.mask.all():
        return sentence_figure(title, "No loss sensitivity above 0 was taken in this run.")
    figure = new_figure(6.4, 5.4, title)
    axes = figure.subplots()
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)].compressed()
    low, high = (off_diagonal.min(), off_diagonal.max()) if len(off_diagonal) else (matrix.min(), matrix.max())
    log = high > 10 * low
    norm = (LogNorm if log else Normalize)(low, max(high, low * 1.01))
    ends = {(True, False): "min", (False, True): "max", (True, True): "both"}
    image = axes.imshow(matrix, cmap=sequential(), norm=norm, interpolation="nearest")
    axes.grid(visible=False)
    axes.set(xlabel="inputs of class", ylabel="loss towards class")
    if len(classes) <= NAMED:
        names = [legible(name, 14) for name in class_names(classes)]
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
    label = "mean L1 norm of the gradient" + (", log scale" if log else "")
    extend = ends.get((bool(matrix.min() < low), bool(matrix.max() > high)), "neither")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label=label, extend=extend)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(plain))
    bar.outline.set_visible(False)
    return figure


@styled
def sensitivity_by_epoch(epochs: ArrayLike, series: Mapping[str, ArrayLike]) -> Figure:
    """Gini coefficient of the loss sensitivity and critical sample ratios, epoch by epoch (A-sensitivity, A-csr).

    Args:
        epochs: (w,) at which they were taken.
        series: (w,) each, by the metric's name; those not in SERIES are labelled with that name.
    """
    title = "Gini coefficient of the loss sensitivity, and critical sample ratio, epoch by epoch"
    if not np.size(epochs) or not series:
        return sentence_figure(title, "Neither was taken in the runs read.")
    figure = new_figure(8.2, 3.7, title)
    axes = figure.subplots()
    for name, values in series.items():
        label, colour = SERIES.get(name, (name, ORANGE))
        axes.plot(epochs, np.asarray(values, dtype=np.float64), color=colour, label=label, marker="o", ms=3)
    axes.set(xlabel="epoch", ylabel="coefficient, ratio", ylim=(-0.02, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best", labelcolor=FAINT)
    return figure
