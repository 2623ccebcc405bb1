"""Put measured timings into docs/performance.md: tables, and a plot.

python scripts/plot_performance.py out/bench/*.json out/peers/peers.json out/peers-folder/peers.json
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from measuring import table
from tellframe.bench.plot import name_video, save
from tellframe.report.drawing import load_matplotlib

ROOT: Final = Path(__file__).resolve().parents[1]
BASE: Final[dict[str, Any]] = {
    "duration": 10,
    "height": 1080,
    "people": 1,
    "frames": 10,
    "codec": "h264",
    "face_detector": "mtcnn",
}
"""What the videos of the plot have in common, but for what a panel varies."""
STAGES: Final = ("list", "decode", "convert", "detect", "align", "track", "judge", "report", "rest")

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of the four."""

    key: str
    """Field of a result that is along."""
    label: str
    """What it is, with its unit."""
    log: bool = False
    """Whether both axes are logarithmic."""


PANELS: Final = (
    Panel("duration", "length of the video in seconds", log=True),
    Panel("height", "height of the pictures in pixels"),
    Panel("people", "faces in the video"),
    Panel("frames", "frames that are judged"),
)


def load_results(paths: Iterable[Path]) -> list[Result]:
    """Return the results of all files, in order.

    Raises:
        ValueError: a file holds something else.
        OSError: it cannot be read.
    """
    results: list[Result] = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: is no JSON ({error})") from error
        found = content if isinstance(content, list) else [content]
        if not all(isinstance(one, dict) and "kind" in one for one in found):
            raise ValueError(f"{path}: not what `tellframe bench` prints")
        results += found
    return results


def select(results: Sequence[Result], key: str) -> list[Result]:
    """Return the results of `bench_detect` that differ from `BASE` in one field at most.

    Args:
        results: of any kind; of several alike the last one counts.
        key: the field.

    Returns:
        In order of that field.
    """
    chosen = {}
    for one in results:
        if one["kind"] == "detect":
            facts = {name: _fact(one, name) for name in BASE}
            if all(facts[name] == value for name, value in BASE.items() if name != key):
                chosen[facts[key]] = one
    return [chosen[value] for value in sorted(chosen)]


def _fact(result: Result, name: str) -> Any:
    return round(result[name]) if name == "duration" else result[name]


def draw(results: Sequence[Result], target: Path) -> bool:
    """Draw seconds a video against length, resolution, faces and frames; say whether any can be.

    Points are medians, bars reach from the fastest round to the slowest.
    """
    if not (panels := [(p, c) for p in PANELS if len(c := select(results, p.key)) > 1]):
        return False
    mpl = load_matplotlib()
    style = {"svg.hashsalt": "performance", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(style):
        rows = (len(panels) + 1) // 2
        figure = mpl.figure.Figure(figsize=(7.2, 0.4 + 2.5 * rows), layout="constrained")
        places = figure.subplots(rows, 2, squeeze=False).ravel()
        for axes, (panel, chosen) in zip(places, panels, strict=False):
            _draw_panel(axes, panel, chosen)
        for axes in places[len(panels) :]:
            axes.set_visible(False)
        handles = places[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=2, frameon=False)
        save(figure, target)
    return True


def _draw_panel(axes: Any, panel: Panel, chosen: Sequence[Result]) -> None:
    along = [_fact(one, panel.key) for one in chosen]
    styles = (
        ("detect", "tellframe detect", {"color": "#a93a06", "marker": "o"}),
        ("bare_decode", "bare decode", {"color": "#0a559b", "marker": "s", "linestyle": "--"}),
    )
    for what, label, style in styles:
        timings = [one["seconds"][what] for one in chosen]
        medians = [t["median"] for t in timings]
        reach = [
            [t["median"] - t["min"] for t in timings],
            [t["max"] - t["median"] for t in timings],
        ]
        axes.errorbar(along, medians, reach, label=label, capsize=2, markersize=4, **style)
    if panel.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(along, [f"{value:g}" for value in along], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(panel.label)
    axes.set_ylabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def of_kind(results: Sequence[Result], kind: str) -> list[Result]:
    """Return the results of a kind; of several of the same videos and settings the last."""
    facts = ("video", "names", "videos", "frames", "face_detector")
    chosen = {str([one.get(f) for f in facts]): one for one in results if one["kind"] == kind}
    return list(chosen.values())


def _seconds(timing: Result) -> str:
    return f"{timing['median']:.2f} s ({timing['min']:.2f}-{timing['max']:.2f})"


def table_detect(results: Sequence[Result]) -> str:
    """Return `detect` beside a bare decode, a row a video."""
    rows = [
        (
            name_video(one),
            _seconds(one["seconds"]["bare_decode"]),
            _seconds(one["seconds"]["detect"]),
            f"**{one['detect_to_bare_decode']:.2f}**",
            f"{one['detect_to_bare_decode_computed']:.2f}",
            _seconds(one["seconds"]["detect_in_process"]),
            str(one["rounds"]),
        )
        for one in of_kind(results, "detect")
    ]
    head = ("video", "bare decode", "`detect`", "ratio", "ratio of computed seconds")
    return table((*head, "`detect` without a worker", "rounds"), rows) if rows else ""


def table_stages(results: Sequence[Result]) -> str:
    """Return the share of every stage, a row a video."""
    rows = [
        (
            name_video(one),
            *(f"{100 * one['stages'][stage]['share']:.1f} %" for stage in STAGES),
            f"{one['stages_total']:.2f} s",
        )
        for one in of_kind(results, "detect")
    ]
    return table(("video", *STAGES, "sum"), rows) if rows else ""


def table_fresh(results: Sequence[Result]) -> str:
    """Return fresh processes and their memory, a row a video."""
    rows = []
    for one in of_kind(results, "detect"):
        if fresh := one.get("fresh"):
            parts, peaks = fresh["detect_parts"], fresh["peak_rss_mb"]
            rows.append(
                (
                    name_video(one),
                    f"{fresh['seconds']['detect']['median']:.2f} s",
                    " + ".join(f"{parts[p]['median']:.2f}" for p in ("imports", "load", "verdict")),
                    f"{fresh['seconds']['bare_decode']['median']:.2f} s",
                    f"{fresh['detect_to_bare_decode']:.2f}",
                    f"{fresh['detect_to_warm_bare_decode']:.2f}",
                    f"{peaks['detect']:.0f} + {peaks['detect_workers']:.0f} MB",
                    f"{peaks['bare_decode']:.0f} MB",
                )
            )
    head = ("video", "process that judges", "imports + load + verdict", "process that decodes")
    more = ("ratio", "to a warm decode", "peak memory", "that of the decode")
    return table((*head, *more), rows) if rows else ""


def table_folder(results: Sequence[Result]) -> str:
    """Return many videos in one go, a row a run."""
    rows = [
        (
            f"{one['videos']} of {', '.join(one['names'])}; {one['frames']} frames",
            _seconds(one["seconds"]["bare_decode"]),
            _seconds(one["seconds"]["detect"]),
            f"**{one['detect_to_bare_decode']:.2f}**",
            f"{one['videos_per_minute']:.1f}",
            str(one["rounds"]),
        )
        for one in of_kind(results, "folder")
    ]
    head = ("videos", "bare decode", "`detect_many`", "ratio", "videos a minute", "rounds")
    return table(head, rows) if rows else ""


def table_peers(results: Sequence[Result], folder: bool = False) -> str:
    """Return the peers' seconds, and how many times tellframe's they are.

    Args:
        results: the last of the peers' that fits is taken.
        folder: whether many copies of each video were judged at once.
    """
    text = ""
    peers = [one for one in results if one["kind"] == "peers"]
    for one in [one for one in peers if (one.get("copies", 1) > 1) == folder][-1:]:
        names = list(dict.fromkeys(name for row in one["videos"].values() for name in row))
        rows = []
        for video, row in one["videos"].items():
            rows.append((video, *(_beside_tellframe(row[n]) for n in names)))
        peaks = [max(row[n]["peak_rss_mb"] for row in one["videos"].values()) for n in names]
        rows.append(("peak memory", *(f"{peak:.0f} MB" for peak in peaks)))
        copies = f", {one['copies']} copies of each video" if folder else ""
        text = table(("video", *names), rows) + f"\nMedians of {one['rounds']} rounds{copies}.\n"
    return text


def _beside_tellframe(timing: Result) -> str:
    ratio = timing.get("to_tellframe")  # nothing where tellframe did not take part
    return f"{timing['median']:.2f} s" + (f" ({ratio:.2f})" if ratio is not None else "")


def describe_machine(results: Sequence[Result]) -> str:
    """Return what was measured on, as the last result says."""
    text = ""
    for m in (one["machine"] for one in results if "machine" in one):
        text = (
            f"Measured on {m['cores']} cores of: {m['processor']}; Python {m['python']}, PyAV "
            f"{m['av']} (FFmpeg {m['ffmpeg']}), ONNX Runtime {m['onnxruntime']}.\n"
        )
    return text


BLOCKS: Final[dict[str, Callable[[Sequence[Result]], str]]] = {
    "machine": describe_machine,
    "detect": table_detect,
    "stages": table_stages,
    "fresh": table_fresh,
    "folder": table_folder,
    "peers": table_peers,
    "peers_folder": partial(table_peers, folder=True),
}
"""What stands between "<!-- measured: NAME -->" and "<!-- end -->"."""


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between two marks.

    Raises:
        ValueError: the marks are not there.
    """
    pattern = rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)"
    filled, count = re.subn(pattern, lambda m: m[1] + content + m[2], text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"no place for {name!r}: give '<!-- measured: {name} -->' and an end")
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--doc", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    try:
        results = load_results(options.results)
        text = options.doc.read_text(encoding="utf-8")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for name, make in BLOCKS.items():
        if content := make(results):
            text = fill(text, name, content)
    plot = options.doc.with_suffix(".svg")
    if draw(results, plot):
        text = fill(text, "plot", f"![Seconds a video]({plot.name})\n")
    options.doc.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
