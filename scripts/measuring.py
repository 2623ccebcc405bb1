"""What the measuring scripts share: options, kept scores, videos and tables.

`compare_peers.py`, `measure_robustness.py` and `measure_people.py` measure a model on labelled
videos that lie beside the repository. Where they are absent there is nothing to measure: the
scripts say so and end without an error.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from tellframe.cli.status import DONE, SOME_FAILED
from tellframe.detector import Detector, load
from tellframe.errors import DataError, TellframeError, UsageError
from tellframe.evaluate import compare, read_scores, summarise, write_scores
from tellframe.evaluate.rows import Row
from tellframe.evaluate.sources import COLUMNS, Videos, open_source
from tellframe.report.files import open_replacing

ROOT: Final = Path(__file__).resolve().parents[1]
BESIDE: Final = ROOT.parent / "shared"
"""Where data that cannot be passed on is looked for, beside the repository."""
ALL_VIDEOS: Final = "all videos"
PRESET: Final = "medium"
"""Of libx264: its own default."""
CLEAN: Final = 18
"""CRF where something else than compression is measured: what x264's makers call visually all but
lossless."""
REPORT_SECONDS: Final = 5.0
"""Between two lines of progress."""

Item = TypeVar("Item")
Picture = NDArray[np.uint8]
"""RGB, (H, W, 3)."""
Labels = list[dict[str, str]]
"""Rows of a CSV of labelled videos, by column."""
Figures = dict[str, Any]
"""What `tellframe.evaluate.summarise` returns."""


def make_parser(doc: str, out: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts have.

    Args:
        doc: of the script; its first line is the description.
        out: default of --out.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    labels = BESIDE / "data" / "labels.csv"
    parser.add_argument(
        "--model", metavar="BUNDLE", help="a shipped bundle or a folder; default: the shipped one"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        default=labels,
        metavar="CSV",
        help="labelled videos; default: ../shared/data/labels.csv beside the repository",
    )
    parser.add_argument("--split", default="dev", help="default: dev")
    parser.add_argument(
        "--out", type=Path, default=Path(out), metavar="DIR", help=f"default: {out}"
    )
    parser.add_argument("--limit", type=int, help="only so many videos, to try it out")
    parser.add_argument("--workers", type=int, default=2, help="that decode; default: 2")
    return parser


def open_labels(options: argparse.Namespace) -> Videos | None:
    """Return the labelled videos; None, having said so, where there are none.

    Raises:
        TellframeError: the CSV cannot be read, or has no such split.
    """
    if not options.labels.is_file():
        say(f"{options.labels}: no labelled videos there; nothing was measured")
        return None
    source, _ = open_source(str(options.labels), options.split, limit=options.limit)
    if not isinstance(source, Videos):
        raise DataError(f"{options.labels}: give a CSV of videos, not cut clips")
    return source


def read_labels(path: Path) -> Labels:
    """Return the rows of a CSV of labelled videos, all columns, with whole paths.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            if missing := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
                raise DataError(f"{path}: lacks the columns {', '.join(missing)}")
            return [{**row, "path": str(path.resolve().parent / row["path"])} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as labelled videos ({error})") from error


def write_labels(rows: Labels, path: Path) -> None:
    """Write rows of `read_labels`; the folder is made.

    Raises:
        DataError: there is none, as where a split is empty.
    """
    if not rows:
        raise DataError(f"{path}: no labelled video is left to be written to it; see the splits")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run_script(main: Callable[[], None]) -> None:
    """Run a script; end with a plain sentence and status 2 where something cannot be measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no video is left behind
    try:
        main()
    except TellframeError as error:
        say(str(error))
        sys.exit(2)


def run_tellframe(*words: str) -> None:
    """Run a command of tellframe as a user does; its messages are shown, its results are not.

    Raises:
        UsageError: it fails; not where it leaves out some inputs that cannot be analysed.
    """
    command = [sys.executable, "-m", "tellframe", *words]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if status not in (DONE, SOME_FAILED):
        raise UsageError(f"tellframe {' '.join(words)}: ended with {status}; see its message")


def load_model(options: argparse.Namespace) -> Detector:
    """Load the bundle to measure, without keeping pictures."""
    return load(options.model, keep_evidence=False)


def name_model(detector: Detector) -> str:
    """Return a name that tells a model from others, of its calibration and limits too."""
    bundle = detector.bundle
    parts = [dataclasses.asdict(bundle.calibration), dataclasses.asdict(bundle.decision)]
    digest = digest_of([detector.recipe.to_dict(), *parts])
    return f"{bundle.name} {bundle.version} {bundle.sha256[:12]} {digest}"


def digest_of(values: object) -> str:
    """Return 8 hex digits that tell JSON-ready values from others."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def slug(name: str) -> str:
    """Return a name as one for a file.

    >>> slug("frame_lite0 0.1.0 ab/cd")
    'frame_lite0-0.1.0-ab-cd'
    """
    return "".join(c if c.isalnum() or c in "._" else "-" for c in name)


def folder_of(options: argparse.Namespace, model: str) -> Path:
    """Return where the scores of a model are kept; those of a try are kept apart."""
    tried = "" if options.limit is None else f"-limit-{options.limit}"
    folder: Path = options.out / f"{slug(model)}{tried}"
    return folder


def keep_rows(
    path: Path, expected: Sequence[Row], model: str, make: Callable[[], Iterable[Row]]
) -> list[Row]:
    """Read scores that are there already, or make and write them; see `read_kept`."""
    rows = read_kept(path, expected, model)
    if rows is None:
        rows = list(make())
        write_kept(rows, path, model)
    return rows


def read_kept(path: Path, expected: Sequence[Row], model: str) -> list[Row] | None:
    """Return the scores in a file; None where there are none, or of other videos or models.

    Args:
        path: of the CSV.
        expected: the labelled rows, scored or not.
        model: what is to have scored them.
    """
    if not path.exists():
        return None
    try:
        rows, scored_by = read_scores(path)
    except DataError as error:
        say(f"measured again: {error}")
        return None
    if scored_by != model or list(map(_key, rows)) != list(map(_key, expected)):
        say(f"{path}: is of other videos, or of {scored_by}; measured again")
        return None
    return rows


def write_kept(rows: Iterable[Row], path: Path, model: str) -> None:
    """Write scores for `read_kept`; replaced only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scores(rows, path, model)


def _key(row: Row) -> tuple[str, bool, bool, str, str, str]:
    return row.path, row.still, row.fake, row.source, row.group, row.pair


def encode(pictures: Iterable[Picture], target: Path, rate: float, crf: int = CLEAN) -> None:
    """Encode pictures as H.264 in MP4, without sound.

    The last row or column is cut off where their number is odd: H.264 halves the colours.

    Args:
        pictures: at least one; all of one size.
        target: the file; its folder is made.
        rate: pictures a second; 25 where it is 0.
        crf: of libx264.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate or 25).limit_denominator(1001))
        stream.options = {"crf": str(crf), "preset": PRESET}
        stream.codec_context.thread_count = 1  # with more, the result now and then differs
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(pictures):
            height, width = (max(side // 2 * 2, 2) for side in image.shape[:2])
            if not number:
                stream.height, stream.width = height, width
            even = np.ascontiguousarray(image[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())


def follow(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Pass items on; say every few seconds on stderr how far the work is."""
    begin = shown = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= REPORT_SECONDS or done == total:
            left = (now - begin) / done * (total - done)
            say(f"{what}: [{done}/{total}] {left:.0f} s left")
            shown = now


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def keep_settings(folder: Path, what: str, settings: Mapping[str, Any]) -> None:
    """Write into a folder what its results are made with, so that a later call can go on.

    Args:
        folder: of all results; it is made.
        what: they are of, in words.
        settings: ready for JSON.

    Raises:
        UsageError: the folder holds what was made with others.
    """
    path = folder / "settings.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        names = [name for name, value in settings.items() if kept.get(name) != value]
        if names:
            shown = ", ".join(f"{name} {kept.get(name)} and not {settings[name]}" for name in names)
            raise UsageError(f"{folder}: holds another {what} ({shown}); choose another --out")
    elif folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: holds something without settings.json; choose another --out")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with open_replacing(path) as stream:
            stream.write(json.dumps(settings, indent=2) + "\n")


def parts_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of every source that has reals and fakes, and of all videos together.

    Where a source has one kind alone, its videos count among all videos only.
    """
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row.source, []).append(row)
    parts = {name: some for name, some in parts.items() if len({r.fake for r in some}) == 2}
    videos = [row for row in rows if not row.still]
    return parts | ({ALL_VIDEOS: videos} if videos else {})


def figures_of(rows: Sequence[Row]) -> dict[str, Figures]:
    """Return the figures of each of `parts_of`."""
    return {name: summarise(part) for name, part in parts_of(rows).items()}


def compare_auc(rows: Sequence[Row], others: Sequence[Row]) -> Figures | None:
    """Compare AUCs by `tellframe.evaluate.compare`; None where both scored no video in common.

    Returns:
        The first less the second as "difference" and "difference_95", "p", and "n" videos.
    """
    try:
        found = compare(rows, others)
    except DataError:
        return None
    return {**found["figures"]["auc"], "n": found["n"]}


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a binomial share (Clopper and Pearson 1934).

    Args:
        successes: at most as many as trials.
        trials: at least one.
    """
    from scipy.stats import beta

    low = beta.ppf(0.025, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def cell(value: float | None, bounds: Sequence[float] | None = None, sign: str = "") -> str:
    """Return a figure with its interval, or a dash where it is not defined.

    >>> cell(0.8604, (0.75, 0.98)), cell(None), cell(-0.05, sign="+")
    ('0.860 (0.75-0.98)', '-', '-0.050')
    """
    if value is None:
        return "-"
    # A range of signed numbers needs a comma: a hyphen would be read as a minus.
    mark = ", " if sign else "-"
    interval = mark.join(f"{b:{sign}.2f}" for b in bounds) if bounds else ""
    return f"{value:{sign}.3f}" + (f" ({interval})" if interval else "")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(c.replace("|", "/") for c in line) + " |\n" for line in lines)


def write_results(folder: Path, markdown: str, facts: Mapping[str, Any]) -> None:
    """Write table.md and table.json into a folder, and print the former."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_replacing(folder / "table.md") as stream:
        stream.write(markdown)
    with open_replacing(folder / "table.json") as stream:
        stream.write(json.dumps(facts, indent=2, allow_nan=False) + "\n")
    print(markdown, end="")
    say(f"written: table.md and table.json in {folder}")
