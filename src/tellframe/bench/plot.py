"""What was measured, as a plot: where the time of each video goes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tellframe.errors import UsageError
from tellframe.report.drawing import load_matplotlib

SUFFIXES: Final = (".svg", ".png")
_COLORS: Final = {
    "list": "#c3c9d1",
    "decode": "#0a559b",
    "convert": "#6fa8dc",
    "detect": "#a93a06",
    "align": "#e29a6c",
    "track": "#7a4b94",
    "judge": "#2c7a4b",
    "report": "#9dc183",
    "rest": "#e8e8e4",
}
_LABELS: Final = {"detect": "face search"}
_MARKS: Final = {"detect": "tellframe, all", "bare_decode": "bare decode"}
_MARK_STYLE: Final = {"color": "black", "markeredgecolor": "white", "markersize": 8}
_WIDTH: Final = 7.2
_DPI: Final = 150


def check_target(target: Path) -> None:
    """Raise where a plot cannot be written, before hours of work.

    Raises:
        UsageError: the suffix is not one of `SUFFIXES`, or the folder is not there.
        MissingExtraError: matplotlib is not installed.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {target}: give a file named .svg or .png")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"--plot {target}: there is no such folder")
    load_matplotlib()


def name_video(result: Mapping[str, Any]) -> str:
    """Return a video in a few words, from a result of `bench_detect`."""
    people = result["people"]
    return (
        f"{result['height']}p {result['codec']}, {result['duration']:g} s, "
        f"{people} {'person' if people == 1 else 'people'}, {result['frames']} frames"
    )


def plot_stages(results: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw a bar a video: its stages one after the other; beside it, `detect` and a bare decode.

    Args:
        results: of `bench_detect`; not empty.
        target: an SVG or PNG file.

    Raises:
        UsageError: as `check_target`.
        MissingExtraError: matplotlib is not installed.
    """
    check_target(target)
    mpl = load_matplotlib()
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}):
        height = 1.2 + 0.42 * len(results)
        figure = mpl.figure.Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        for place, result in enumerate(results):
            left = 0.0
            for stage, timing in result["stages"].items():
                label = _LABELS.get(stage, stage) if place == 0 else None
                axes.barh(place, timing["median"], 0.6, left, color=_COLORS.get(stage), label=label)
                left += timing["median"]
            for what, mark in (("detect", "D"), ("bare_decode", "X")):
                label = _MARKS[what] if place == 0 else None
                median = result["seconds"][what]["median"]
                axes.plot([median], [place], mark, label=label, **_MARK_STYLE)
        axes.set_yticks(range(len(results)), [name_video(r) for r in results])
        axes.invert_yaxis()
        axes.set_xlabel("seconds; bars: stages one after the other")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=6, frameon=False)
        save(figure, target)


def save(figure: Any, target: Path) -> None:
    """Write a figure, the same bytes for the same figure."""
    metadata = {"Date": None} if target.suffix.lower() == ".svg" else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(target, metadata=metadata, dpi=_DPI)
