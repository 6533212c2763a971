"""Regularity in two dimensions.  in: tables of points with densities   out: Figure"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from study.figures.style import new_figure, plain, sentence_figure, sequential, styled

AXES = {  # the paper's words
    "train": ("CBTL: epochs in which the example is correct", "forgetting events"),
    "test": ("CBGL: epochs in which the example is correct", "mal-generalizing events"),
}


@styled
def regularity_planes(planes: Mapping[str, pd.DataFrame]) -> Figure:
    """Epochs right against events, coloured by density: training examples left, test examples right (Z-fig2).

    Args:
        planes: by split, "train" and "test"; `right`, `events`, `density`, `radius`, a row per example.

    Examples at one point have one density, so each point is drawn once, the densest last.  Colours are logarithmic and
    the same for both panels, where the paper's are linear: most examples are at the easy corner.
    """
    title = "Regularity in two dimensions: epochs correct, and how often an example becomes wrong again"
    shown = {split: planes[split].drop_duplicates(["right", "events"]) for split in AXES if split in planes}
    shown = {split: points.sort_values("density") for split, points in shown.items() if len(points)}
    if not shown:
        return sentence_figure(title, "All examples lie at one point in the runs read.")
    figure = new_figure(10.2 if len(shown) > 1 else 6.0, 3.9, title)
    panels = np.atleast_1d(figure.subplots(1, len(shown)))
    densities = np.concatenate([points["density"] for points in shown.values()])
    norm = LogNorm(densities.min(), max(densities.max(), densities.min() * 1.01))
    for axes, (split, points) in zip(panels, shown.items(), strict=True):
        axes.scatter(points["right"], points["events"], c=points["density"], cmap=sequential(), norm=norm, s=16, lw=0)
        count = f"{len(planes[split]):,}".replace(",", " ")
        axes.set(xlabel=AXES[split][0], ylabel=AXES[split][1], title=f"{split}: {count} examples\n{_radius(points)}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    colours = ScalarMappable(norm, sequential())
    bar = figure.colorbar(colours, ax=panels, label="examples per unit area, log scale", fraction=0.04, pad=0.01)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(plain))
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    return figure


def _radius(points: pd.DataFrame) -> str:
    """The radius of the circles in which examples are counted, and what it means where it is small."""
    radius = points["radius"].iloc[0]
    return f"radius {radius:.2g}" + (": only examples at one point count together" if radius < 1 else "")
