"""Plots for the pages as inline SVG, drawn by matplotlib in the colours of the page.

Letters stay letters, in the page's own font, and colours become its variables, so that a plot
follows the reader's dark mode. All are drawn at one width, which fits a phone.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tellframe.errors import MissingExtraError
from tellframe.report.words import escaped

WIDTH: Final = 330
"""Width of every plot in its own units; letters are 10 of these high, so that on a phone they are
about 10 pixels."""

INK, SOFT, LINE, CARD = "#16191d", "#565e69", "#d8dad6", "#ffffff"
COLORS: Final = {"REAL": "#0a559b", "FAKE": "#a93a06", "unknown": "#9aa1ab"}
NEUTRAL: Final = "#3d4754"
_VARIABLES: Final = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
    CARD: "--card",
    COLORS["REAL"]: "--real",
    COLORS["FAKE"]: "--fake",
    NEUTRAL: "--seen",
}
_STYLE: Final = {
    "font.family": "DejaVu Sans",  # wider than the page's fonts, so that what fits it fits them
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a name with two $ is no formula
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "xtick.major.size": 0,
    "xtick.major.pad": 8,  # clear of the lowest label of the other axis
    "ytick.color": SOFT,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0.1,
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",
}

DRAWING_RULES: Final = """
h1{font-size:34px;overflow-wrap:anywhere}
.plots{columns:2;column-gap:16px}
.plots .card{margin:0 0 16px;break-inside:avoid}
.drawing{display:block;width:100%;max-width:480px;height:auto}
.drawing *{stroke-linejoin:round;stroke-linecap:butt}
.drawing text{font-family:inherit!important}
.plots figcaption{font-size:14px;color:var(--soft);margin-top:8px}
.plots h3{font-size:17px}
.found{margin:18px 0 0;padding-left:1.2em;font-size:17px;overflow-wrap:anywhere}
.found li{margin:0 0 .4em}
@media screen and (max-width:760px){
h1{font-size:27px}
.plots{columns:1}
.plots .card{padding:14px 12px}
}
"""
"""CSS of pages with plots, for `page_shell`."""


def load_matplotlib() -> Any:
    """Return the module matplotlib, with those that draw SVG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        import matplotlib.backends.backend_svg
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError as error:
        raise MissingExtraError(
            "plots need an extra; run: pip install 'tellframe[data]'"
        ) from error
    return matplotlib


class Sheet:
    """One plot while it is drawn: its axes, and at the end its SVG."""

    def __init__(self, mpl: Any, height: float, panels: int) -> None:
        self.figure = mpl.figure.Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        self.figure.patch.set_visible(False)
        self.axes = self.figure.subplots(panels, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        self.svg = ""


@contextmanager
def sheet(title: str, height: float, panels: int = 1) -> Iterator[Sheet]:
    """Yield empty axes; what is drawn on them is in `svg` afterwards."""
    mpl = load_matplotlib()
    # The salt keeps apart the clip paths of two plots of one page.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has more fonts
        drawn = Sheet(mpl, height, panels)
        for axes in drawn.axes:
            axes.patch.set_visible(False)
        yield drawn
        buffer = io.StringIO()
        canvas = mpl.backends.backend_svg.FigureCanvasSVG(drawn.figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(buffer, metadata=nothing)
        drawn.svg = _inline(buffer.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """Return matplotlib's SVG fit for the inside of a page."""
    view = re.search(r'viewBox="[^"]*"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    # Its style sheet and its names would hold for the whole page.
    body = re.sub(r"<(style|metadata)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    body = re.sub(r"\n\s*", "\n", body)
    return (
        f'<svg class="drawing" role="img" aria-label="{escaped(title)}" '
        f"{view.group() if view else ''}>{body}"
    )


def ticks(most: int, *, whole: bool) -> Any:
    """Return what chooses at most so many round ticks, and one more."""
    locator = load_matplotlib().ticker.MaxNLocator
    return locator(most, steps=[1, 2, 5, 10], integer=whole, min_n_ticks=2)
