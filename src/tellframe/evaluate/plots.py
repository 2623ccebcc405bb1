"""The curves of the page, drawn in its look: one line a model, solid and dashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tellframe.data.eda_plots import draw_histogram
from tellframe.report.drawing import INK, NEUTRAL, SOFT, sheet, ticks

_STYLES: Final[tuple[dict[str, Any], ...]] = (
    {"color": INK, "linestyle": "-"},
    {"color": NEUTRAL, "linestyle": (0, (4, 2))},
)
_HEIGHT: Final = 300


def draw_curves(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    title: str,
    *,
    axes: tuple[str, str],
    constant: Sequence[tuple[float, float]] | None = None,
) -> str:
    """Draw curves in the unit square.

    Args:
        curves: (name of the model, values along, values up); one or two.
        title: what they show, for those who cannot see it.
        axes: what is along and what is up.
        constant: two points of the line of a model that knows nothing.
    """
    with sheet(title, _HEIGHT) as drawn:
        plane = drawn.axes[0]
        if constant:
            plane.plot(*zip(*constant, strict=True), color=SOFT, linewidth=1, linestyle=(0, (1, 2)))
        for style, (name, x, y) in zip(_STYLES, curves, strict=False):
            plane.plot(x, y, linewidth=1.8, label=name, **style)
        _frame(drawn, axes, len(curves))
    return drawn.svg


def draw_reliability(curves: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], title: str) -> str:
    """Draw the share of fakes over P(fake), with intervals.

    Args:
        curves: (name of the model, bins of the report); one or two.
        title: what they show, for those who cannot see it.
    """
    with sheet(title, _HEIGHT) as drawn:
        plane = drawn.axes[0]
        plane.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (1, 2)))
        for number, (style, (name, bins)) in enumerate(zip(_STYLES, curves, strict=False)):
            x = [b["mean_probability"] for b in bins]
            y = [b["share_fake"] for b in bins]
            plane.plot(
                x, y, linewidth=1.6, marker="os"[number], markersize=4.5, label=name, **style
            )
            for place, one in zip(x, bins, strict=True):
                if one["share_fake_95"] and len(curves) == 1:  # those of two would hide each other
                    plane.plot([place] * 2, one["share_fake_95"], color=INK, linewidth=0.8)
        _frame(drawn, ("mean P(fake) of the bin", "share of fakes"), len(curves))
    return drawn.svg


def _frame(drawn: Any, names: tuple[str, str], count: int) -> None:
    plane = drawn.axes[0]
    plane.set_xlim(-0.015, 1.015)
    plane.set_ylim(-0.015, 1.015)
    for axis in (plane.xaxis, plane.yaxis):
        axis.set_major_locator(ticks(6, whole=False))
        axis.set_major_formatter("{x:g}")
    plane.set_xlabel(names[0])
    plane.set_ylabel(names[1])
    if count > 1:
        drawn.figure.legend(loc="outside upper left", ncols=1)


def draw_scores(histogram: Mapping[str, Any], title: str, fake_from: float | None) -> str:
    """Draw how P(fake) is spread over the reals and over the fakes.

    Args:
        histogram: of the report.
        title: what it shows, for those who cannot see it.
        fake_from: the verdict's limit, where it is known.
    """
    counts = {name: histogram[name] for name in ("REAL", "FAKE") if any(histogram[name])}
    return draw_histogram(
        {"edges": histogram["edges"], "counts": counts, "scale": "linear"},
        title,
        axis="P(fake)",
        limit=None if fake_from is None else (fake_from, f"FAKE from {fake_from:g} on"),
    )
