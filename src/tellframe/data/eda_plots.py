"""The plots of the page on a data set: bars by class, and distributions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.data.eda_look import CLASSES
from tellframe.report.drawing import CARD, COLORS, INK, NEUTRAL, load_matplotlib, sheet, ticks
from tellframe.report.words import printable

MOST_LETTERS: Final = 24
"""Longest name beside a bar."""


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
    style = {"edgecolor": CARD, "linewidth": 0.7}
    with sheet(title, 48 + 18 * len(shown)) as drawn:
        axes = drawn.axes[0]
        places, left = np.arange(len(shown)), np.zeros(len(shown))
        for c in present:
            counts = np.array([row[c] for row in shown])
            # Hatched, so that a print in grey tells them apart.
            hatch = "//" if c == "FAKE" and len(present) > 1 else None
            axes.barh(places, counts, 0.72, left, color=COLORS[c], label=c, hatch=hatch, **style)
            left += counts
        for place, total in zip(places, totals, strict=True):
            axes.annotate(
                f"{total:,}", (total, place), (3, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(places, [_name(row["name"]) for row in shown], color=INK)
        axes.set_xlim(0, 1.17 * max(totals))
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(ticks(4, whole=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines["bottom"].set_visible(False)
        drawn.figure.legend(loc="outside upper left", ncols=3)
    return drawn.svg


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
    with sheet(title, 54 + 84 * len(panels), len(panels)) as drawn:
        for axes, (name, counts) in zip(drawn.axes, panels, strict=True):
            total = int(counts.sum())
            heights = counts if alone else 100 * counts / total
            color = NEUTRAL if alone else COLORS[name]
            style = {"edgecolor": CARD, "linewidth": 0.6, "align": "edge"}
            axes.bar(slots[:-1], heights, np.diff(slots), color=color, **style)
            axes.set_title(unit if alone else f"{name}: % of {total:,} {unit}")
            if limit is not None:
                axes.axvline(limit[0], color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.grid(axis="x", visible=False)
            axes.yaxis.set_major_locator(ticks(3, whole=alone))
            axes.yaxis.set_major_formatter("{x:,.0f}" if alone else "{x:g} %")
        last = drawn.axes[-1]
        if steps:
            last.set_xticks(slots[::2], [f"{e:g}" for e in edges[::2]])
            last.set_xlim(slots[0], slots[-1])
        else:
            _set_scale(last, edges, facts["scale"] == "log")
        last.set_xlabel(axis if limit is None else f"{axis}; dashed: {limit[1]}")
    return drawn.svg


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
        axes.xaxis.set_major_locator(ticks(6, whole=whole))
        if len(edges) < 7:  # a lone bar would fill the plot
            padding = (7 - len(edges)) * (high - low) / (len(edges) - 1)
            low, high = low if whole else max(low - padding / 2, 0.0), high + padding
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1000 else f"{x:g}")
    axes.set_xlim(low, high)
