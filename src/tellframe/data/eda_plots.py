"""The plots of the page as inline SVG, drawn by matplotlib in the colours of the page.

Letters stay letters, in the page's own font, and colours become its variables, so that a plot
follows the reader's dark mode. All are drawn at one width, which fits a phone.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.data.eda_look import CLASSES
from tellframe.errors import MissingExtraError
from tellframe.report.words import escaped, printable

WIDTH: Final = 330
"""Width of every plot in its own units; letters are 10 of these high, so that on a phone they are
about 10 pixels."""
MOST_LETTERS: Final = 24
"""Longest name beside a bar."""

_INK, _SOFT, _LINE, _CARD = "#16191d", "#565e69", "#d8dad6", "#ffffff"
_COLORS: Final = {"REAL": "#0a559b", "FAKE": "#a93a06", "unknown": "#9aa1ab"}
_NEUTRAL: Final = "#3d4754"
_VARIABLES: Final = {
    _INK: "--ink",
    _SOFT: "--soft",
    _LINE: "--line",
    _CARD: "--card",
    _COLORS["REAL"]: "--real",
    _COLORS["FAKE"]: "--fake",
    _NEUTRAL: "--seen",
}
_STYLE: Final = {
    "font.family": "DejaVu Sans",  # wider than the page's fonts, so that what fits it fits them
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "text.parse_math": False,  # a name with two $ is no formula
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "xtick.color": _SOFT,
    "xtick.major.size": 0,
    "xtick.major.pad": 8,  # clear of the lowest label of the other axis
    "ytick.color": _SOFT,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0.1,
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",
}


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


class _Sheet:
    """One plot while it is drawn: its axes, and at the end its SVG."""

    def __init__(self, mpl: Any, height: float, panels: int) -> None:
        self.figure = mpl.figure.Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        self.figure.patch.set_visible(False)
        self.axes = self.figure.subplots(panels, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        self.svg = ""


@contextmanager
def _sheet(title: str, height: float, panels: int = 1) -> Iterator[_Sheet]:
    """Yield empty axes; what is drawn on them is in `svg` afterwards."""
    mpl = load_matplotlib()
    # The salt keeps apart the clip paths of two plots of one page.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has more fonts
        sheet = _Sheet(mpl, height, panels)
        for axes in sheet.axes:
            axes.patch.set_visible(False)
        yield sheet
        buffer = io.StringIO()
        canvas = mpl.backends.backend_svg.FigureCanvasSVG(sheet.figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(buffer, metadata=nothing)
        sheet.svg = _inline(buffer.getvalue(), title)


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


def draw_bars(
    rows: Sequence[Mapping[str, Any]], title: str, *, most: int = 24, natural: bool = False
) -> str:
    """Draw a table as one bar a row, divided by class.

    Args:
        rows: a table of the facts; not empty.
        title: what it shows, for those who cannot see it.
        most: bars; the smaller rows are added up.
        natural: in order of the names, part_2 before part_10, and not of the counts.
    """
    shown = _shorten(rows, most, natural)
    totals = [sum(row[c] for c in CLASSES) for row in shown]
    present = [c for c in CLASSES if any(row[c] for row in shown)]
    style = {"edgecolor": _CARD, "linewidth": 0.7}
    with _sheet(title, 48 + 18 * len(shown)) as sheet:
        axes = sheet.axes[0]
        places, left = np.arange(len(shown)), np.zeros(len(shown))
        for c in present:
            counts = np.array([row[c] for row in shown])
            # Hatched, so that a print in grey tells them apart.
            hatch = "//" if c == "FAKE" and len(present) > 1 else None
            axes.barh(places, counts, 0.72, left, color=_COLORS[c], label=c, hatch=hatch, **style)
            left += counts
        for place, total in zip(places, totals, strict=True):
            axes.annotate(
                f"{total:,}", (total, place), (3, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(places, [_name(row["name"]) for row in shown], color=_INK)
        axes.set_xlim(0, 1.17 * max(totals))
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(_ticks(4, whole=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines["bottom"].set_visible(False)
        sheet.figure.legend(loc="outside upper left", ncols=3)
    return sheet.svg


def _shorten(
    rows: Sequence[Mapping[str, Any]], most: int, natural: bool
) -> list[Mapping[str, Any]]:
    """Keep the largest rows; add up the others."""
    kept = list(rows) if len(rows) <= most else list(rows[: most - 1])
    rest = rows[len(kept) :]
    if natural:
        kept.sort(key=lambda row: _natural(row["name"]))
    if rest:
        sums = {c: sum(row[c] for row in rest) for c in CLASSES}
        kept.append({"name": f"{len(rest)} others", **sums})
    return kept


def _natural(name: str) -> list[tuple[int, str]]:
    """Order by which part_2 comes before part_10."""
    return [(len(t) if t.isdigit() else 0, t) for t in re.split(r"(\d+)", name)]


def _name(text: str) -> str:
    """Return a name that is short and harmless; the end says more than the middle, or all."""
    clean = printable(text) or "(none)"
    if len(clean) <= MOST_LETTERS:
        return clean
    if "/" in clean:
        return f"…{clean[1 - MOST_LETTERS :]}"
    return f"{clean[: MOST_LETTERS - 8]}…{clean[-7:]}"


def draw_histogram(
    facts: Mapping[str, Any],
    title: str,
    *,
    axis: str,
    unit: str = "videos",
    factor: float = 1.0,
    limit: tuple[float, str] | None = None,
) -> str:
    """Draw a distribution: one panel a class in percent of it, or one in counts.

    Args:
        facts: a distribution of the facts; not empty.
        title: what it shows, for those who cannot see it.
        axis: what the values are, with their unit.
        unit: what is counted.
        factor: the axis shows values times this.
        limit: a value, already times the factor, and what it means.
    """
    edges, steps = np.array(facts["edges"]) * factor, facts["scale"] == "steps"
    slots = np.arange(len(edges)) if steps else edges
    panels = [(c, np.array(facts["counts"][c])) for c in CLASSES if c in facts["counts"]]
    alone = len(panels) == 1 and panels[0][0] == "unknown"
    with _sheet(title, 54 + 84 * len(panels), len(panels)) as sheet:
        for axes, (name, counts) in zip(sheet.axes, panels, strict=True):
            total = int(counts.sum())
            heights = counts if alone else 100 * counts / total
            color = _NEUTRAL if alone else _COLORS[name]
            style = {"edgecolor": _CARD, "linewidth": 0.6, "align": "edge"}
            axes.bar(slots[:-1], heights, np.diff(slots), color=color, **style)
            axes.set_title(unit if alone else f"{name}: % of {total:,} {unit}")
            if limit is not None:
                axes.axvline(limit[0], color=_INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.grid(axis="x", visible=False)
            axes.yaxis.set_major_locator(_ticks(3, whole=alone))
            axes.yaxis.set_major_formatter("{x:,.0f}" if alone else "{x:g} %")
        last = sheet.axes[-1]
        if steps:
            last.set_xticks(slots[::2], [f"{e:g}" for e in edges[::2]])
            last.set_xlim(slots[0], slots[-1])
        else:
            _set_scale(last, edges, facts["scale"] == "log")
        last.set_xlabel(axis if limit is None else f"{axis}; dashed: {limit[1]}")
    return sheet.svg


def _set_scale(axes: Any, edges: NDArray[np.float64], log: bool) -> None:
    """Choose limits and ticks along the values so that they do not crowd."""
    low, high = float(edges[0]), float(edges[-1])
    whole = bool(np.allclose(edges % 1, 0.5))
    if log:
        ticker = load_matplotlib().ticker
        few = (1, 2, 5) if high < 300 * low else (1,)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=few, numticks=12))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    else:
        axes.xaxis.set_major_locator(_ticks(6, whole=whole))
        if len(edges) < 7:  # a lone bar would fill the plot
            padding = (7 - len(edges)) * (high - low) / (len(edges) - 1)
            low, high = low if whole else max(low - padding / 2, 0.0), high + padding
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1000 else f"{x:g}")
    axes.set_xlim(low, high)


def _ticks(most: int, *, whole: bool) -> Any:
    """Return what chooses at most so many round ticks, and one more."""
    locator = load_matplotlib().ticker.MaxNLocator
    return locator(most, steps=[1, 2, 5, 10], integer=whole, min_n_ticks=2)
