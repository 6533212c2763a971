"""The common style of all figures.  in: nothing   out: a Figure that keeps the style, colours, axes, text"""

import io
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font, get_font_names
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, NullLocator

INK, FAINT, GRID = "#1f2430", "#6b7280", "#e5e7eb"
# Okabe and Ito's palette, safe for the common kinds of colour blindness; its yellow is left out, it vanishes on white
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, GREY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b5558a",
    "#3d9bd6",
    "#c98700",
    "#5f6673",
)
FAMILY_COLOURS = {
    "density": BLUE,
    "learning speed": ORANGE,
    "confidence": GREEN,
    "depth": PURPLE,
    "margin": SKY,
    "sensitivity": AMBER,
    "gradient": GREY,
}
SATURATED = 40.0  # percent in one bin, and 20 times the median bin: then bars get a logarithmic axis, else a flat line
INCH = 96  # CSS pixels

FONTS = (  # the first is matplotlib's own; the others, where installed, have the characters that it lacks
    "DejaVu Sans",
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAGothic", "NanumGothic", "Arial Unicode MS", "Unifont"),
    *("Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai"),
)
TITLE = 10.5  # points

STYLE: dict[str, Any] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # class names and paths may hold a $
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b6bcc8",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": "#b6bcc8",
    "ytick.color": "#b6bcc8",
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": INCH,
    "figure.facecolor": "white",
    "savefig.dpi": 2 * INCH,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "study",  # the same figure gives the same bytes
}
_LOCK = threading.RLock()


@contextmanager
def style_context() -> Iterator[None]:
    """Draw under STYLE; rcParams belong to the process, so a lock admits one thread at a time."""
    with _LOCK, matplotlib.rc_context({**STYLE, "font.family": list(_installed_fonts())}):
        yield


class StyledFigure(Figure):
    """A Figure that is also saved under STYLE: ticks are created while drawing, with the settings of that time.

    The layout is computed by the first save and kept, and so is the PNG: draw everything before saving.
    """

    _png: bytes | None = None

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save as matplotlib does, in the style of `STYLE`."""
        if options == {"format": "png"} and isinstance(fname, str | Path):
            Path(fname).write_bytes(self.png())
            return
        with style_context():
            super().savefig(fname, **options)
            self.set_layout_engine("none")

    def png(self) -> bytes:
        """The figure as PNG at two pixels per CSS pixel, rendered once."""
        if self._png is None:
            with io.BytesIO() as drawing:
                self.savefig(drawing, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})
                self._png = drawing.getvalue()
        return self._png


def png_bytes(figure: Figure) -> bytes:
    """Any figure as PNG at two pixels per CSS pixel; one of this package is rendered once."""
    if isinstance(figure, StyledFigure):
        return figure.png()
    with io.BytesIO() as drawing:
        figure.savefig(drawing, format="png", dpi=2 * INCH, metadata={"Software": None})
        return drawing.getvalue()


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under `style_context`."""

    @wraps(draw)
    def drawn(*arguments: Any, **options: Any) -> Figure:
        with style_context():
            return draw(*arguments, **options)

    return drawn


def new_figure(width: float, height: float, title: str, *, layout: str | None = "constrained") -> StyledFigure:
    """Make an empty figure of that many inches; one inch is 96 pixels of the report."""
    figure = StyledFigure(figsize=(width, height), layout=layout)
    size = _title_size(title, width)
    if layout == "constrained":
        cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(w_pad=0.08, h_pad=0.08)
        figure.suptitle(title, x=0.01, ha="left", fontsize=size, fontweight="bold")
    else:
        figure.text(0.12 / width, 1 - 0.12 / height, title, ha="left", va="top", fontsize=size, fontweight="bold")
    return figure


def _title_size(title: str, width: float) -> float:
    """Points at which a title fits a figure of that many inches; `TITLE` unless it is too long."""
    inches = text_width(title, TITLE, FontProperties(family="DejaVu Sans", weight="bold"))
    return TITLE * min(1.0, (width - 0.3) / max(inches, 0.1))


def text_width(text: str, size: float, font: FontProperties | None = None) -> float:
    """Inches of a line of text of that many points, at most a hundredth too wide: control points bound the glyphs."""
    points = TextPath((0, 0), text, size=size, prop=font, usetex=False).vertices[:, 0] if text.strip() else np.zeros(1)
    return float(points.max() - points.min()) / 72


def sentence_figure(title: str, sentence: str) -> StyledFigure:
    """Make a figure that says why there is nothing to draw."""
    figure = new_figure(8.0, 1.3, title, layout=None)
    figure.text(0.12 / 8, 0.35, sentence, ha="left", va="center", color=FAINT)
    return figure


@cache
def sequential() -> Colormap:
    """Colours from low (dark blue) to high (orange); plasma without its last tenth, whose yellow vanishes on white."""
    return ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.0, 0.86, 256)))


def shade(values: Any) -> np.ndarray:
    """Give the RGBA colours of C-scores in [0, 1]."""
    return sequential()(np.asarray(values, float))


def family_colour(family: str) -> str:
    """Give the colour of a proxy family, the same in every report."""
    return FAMILY_COLOURS.get(family, GREY)


def plain(number: float, _position: int | None = None) -> str:
    """Write a tick as people do: 0.01, 5, 100 000 (never a power in mathtext, which is switched off)."""
    text = f"{number:,.0f}".replace(",", " ") if abs(number) >= 1000 else f"{number:g}"
    return text.replace("-", "−")


def log_axis(axis: Axis) -> None:
    """Turn an axis logarithmic, with plain numbers at the powers of ten."""
    scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    scale("log", nonpositive="clip")
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_locator(NullLocator())


def saturated(shares: np.ndarray) -> bool:
    """Tell whether one bin holds so many percent that the others would be invisible."""
    return bool(shares.max(initial=0) > max(SATURATED, 20 * np.median(shares)))


def percent_axis(axes: Axes, shares: np.ndarray) -> str:
    """Scale a vertical axis of percentages, logarithmic where a bin is saturated, and write its label."""
    if saturated(shares):
        log_axis(axes.yaxis)
        lowest = max(shares[shares > 0].min() * 0.4, 1e-6)
        axes.set_ylim(lowest, 300)
        axes.set_yticks([t for t in 10.0 ** np.arange(-6, 3) if t >= lowest])
        label = "% of examples, log axis"
    else:
        axes.set_ylim(0, max(shares.max(initial=0) * 1.15, 1.0))
        label = "% of examples"
    axes.set_ylabel(label)
    return label


def score_axis(axis: Axis, label: str = "C-score") -> None:
    """Scale an axis to scores in [0, 1]."""
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axis.set_label_text(label)


def short_number(value: float) -> str:
    """Write a score or correlation without its leading zero: .86, −.06, 1."""
    if not np.isfinite(value):
        return "–"
    text = f"{abs(value):.2f}"
    return ("−" if value < 0 and text != "0.00" else "") + (
        text[1:] if text.startswith("0") else text.removesuffix(".00")
    )


def digits(value: float) -> str:
    """Write a score as `short_number` does, a small one with one digit that is not 0: .0002."""
    if not 0 < abs(value) < 0.005:
        return short_number(value)
    text = f"{abs(value):.{-math.floor(math.log10(abs(value)))}f}"
    return ("−" if value < 0 else "") + text[1:]


@cache
def _installed_fonts() -> tuple[str, ...]:
    """The fonts of FONTS that this machine has."""
    installed = set(get_font_names())
    return tuple(name for name in FONTS if name in installed)


@cache
def _glyphs() -> frozenset[int]:
    """Characters that the installed fonts have."""
    fonts = (get_font(findfont(FontProperties(family=name))) for name in _installed_fonts())
    return frozenset().union(*(font.get_charmap() for font in fonts))


def legible(text: str, width: int | None = None) -> str:
    """Make a string drawable: what the fonts lack becomes ?, a long one loses its middle."""
    text = "".join(c if ord(c) in _glyphs() and c.isprintable() else "?" for c in text)
    if width is None or len(text) <= width:
        return text
    head = max((width - 1) // 3, 1)
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def class_names(classes: Sequence[str]) -> list[str]:
    """Make class names drawable; one with characters that the fonts lack is drawn as its number."""
    return [str(c) if legible(str(c)) == str(c) else f"class {i}" for i, c in enumerate(classes)]


def one_reference(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Keep the rows of one reference; a table without that column is about one reference already."""
    return table[table["reference"] == reference] if "reference" in table else table
