"""The main job: `tellframe detect`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tellframe.cli import status
from tellframe.cli.options import (
    add_isolation_options,
    add_model_options,
    add_verb,
    load_detector,
)
from tellframe.types import Label, Verdict


def add_detect(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_detect,
        "detect",
        "judge videos: real, fake or inconclusive, for every person",
        f"tellframe detect a.mp4 b.mov folder/ --csv verdicts.csv\n\n{status.TEXT}",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="VIDEO", help="video file, or a folder of them"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON array")
    form.add_argument("--jsonl", action="store_true", help="print one JSON line a video, at once")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a CSV, a row a person")
    parser.add_argument(
        "--html", metavar="FILE|DIR", help="also write a report: one page, or a folder of pages"
    )
    parser.add_argument(
        "--fail-on", choices=("fake",), help="exit with 10 when a fake was found", metavar="fake"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_model_options(parser)
    add_isolation_options(parser)


def run_detect(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe import report

    for target in (options.csv, options.html):
        if target:  # to find out now, and not after hours of work, that it cannot be written
            Path(target).absolute().parent.mkdir(parents=True, exist_ok=True)
    detector = load_detector(options, keep_evidence=bool(options.html))
    paths = find_videos(options.inputs)
    verdicts: list[Verdict] = []

    def follow() -> Iterator[Verdict]:
        """Pass the verdicts on, one by one; keep them without their pictures."""
        for verdict in _with_progress(detector.detect_many(paths), paths, options.quiet):
            if options.jsonl:
                report.write_jsonl(verdict, sys.stdout)
            people = tuple(dataclasses.replace(p, evidence=None) for p in verdict.people)
            verdicts.append(dataclasses.replace(verdict, people=people))
            yield verdict

    if options.html:
        page = report.write_html(follow(), options.html)
        print(f"report: {page}", file=sys.stderr)
    else:
        for _ in follow():
            pass
    if options.csv:
        report.write_csv(verdicts, options.csv)
    if options.json:
        report.write_json(verdicts, sys.stdout)
    elif not options.jsonl:
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        sys.stdout.write(report.format_table(verdicts, color=color))
    return exit_status(verdicts, fail_on_fake=options.fail_on == "fake")


def find_videos(inputs: Iterable[str]) -> list[str]:
    """Expand folders to the videos below them, by suffix, sorted; keep other names as given.

    A folder without a video stays in the list, so that it is reported as one that failed.
    """
    from tellframe.video import VIDEO_SUFFIXES

    paths: list[str] = []
    for name in inputs:
        if Path(name).is_dir():
            found = sorted(
                str(p) for p in Path(name).rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES
            )
            paths += found or [name]
        else:
            paths.append(name)
    return paths


def _with_progress(
    verdicts: Iterable[Verdict], paths: Sequence[str], quiet: bool
) -> Iterator[Verdict]:
    """Pass verdicts on, writing a line for each to stderr."""
    from tellframe.report.words import printable

    for number, verdict in enumerate(verdicts, 1):
        if not quiet:
            print(
                f"[{number}/{len(paths)}] {printable(verdict.video)}: {verdict.label} "
                f"({verdict.seconds:.1f} s)",
                file=sys.stderr,
                flush=True,
            )
        yield verdict


def exit_status(verdicts: Sequence[Verdict], *, fail_on_fake: bool) -> int:
    """Return the exit status; a fake that was asked for goes before inputs that failed."""
    if fail_on_fake and any(v.label is Label.FAKE for v in verdicts):
        return status.FAKE_FOUND
    failed = sum(v.error is not None for v in verdicts)
    if failed == len(verdicts):
        return status.NONE_ANALYSED
    return status.SOME_FAILED if failed else status.DONE
