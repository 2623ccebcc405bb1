"""The main job: `tellframe detect`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tellframe.cli import status
from tellframe.cli.messages import (
    say_all_done,
    say_interrupted,
    say_passed_over,
    say_tally,
    say_verdict,
)
from tellframe.cli.options import (
    add_isolation_options,
    add_model_options,
    add_verb,
    asked_workers,
    check_apart,
    load_detector,
)
from tellframe.cli.outputs import (
    CSV,
    PAGES,
    check_output,
    check_pages,
    make_parent,
    noting,
    print_table,
)
from tellframe.cli.tally import Tally
from tellframe.errors import StoreError, UsageError
from tellframe.runtime import usable_cores
from tellframe.types import Verdict

if TYPE_CHECKING:
    from tellframe.detector import Detector


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
        "inputs",
        nargs="+",
        metavar="VIDEO",
        help="file, folder, direct link (https://...), or place in an object store (s3://...)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON array")
    form.add_argument(
        "--jsonl",
        nargs="?",
        const="-",
        metavar="FILE.jsonl",
        help="print one JSON line a video, at once; or append it to a file",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a CSV, a row a person")
    parser.add_argument(
        "--html", metavar="FILE|DIR", help="also write a report: one page, or a folder of pages"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the file of --jsonl, after whatever ended"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="videos read side by side; 0, the default, for one a core where there are several",
    )
    parser.add_argument(
        "--watch",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="with --jsonl: look for new videos so often, until Ctrl-C",
    )
    parser.add_argument(
        "--fail-on", choices=("fake",), help="exit with 10 when a fake was found", metavar="fake"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_model_options(parser)
    _add_fetch_options(parser)
    add_isolation_options(parser)


def _add_fetch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("videos elsewhere")
    group.add_argument("--endpoint", default="", metavar="URL", help="of S3 outside of Amazon")
    group.add_argument(
        "--fetch-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="wall time to fetch a web link; default: %(default)g",
    )
    group.add_argument(
        "--allow-private-addresses",
        action="store_true",
        help="also fetch links that lead to this machine or a private network",
    )


def run_detect(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.cli.lines import open_lines

    _check(options)
    with ExitStack() as stack:
        lines: TextIO | None = sys.stdout if options.jsonl else None
        earlier: list[Verdict] = []
        if options.jsonl not in (None, "-"):
            lines, earlier = stack.enter_context(
                open_lines(Path(options.jsonl), resume=options.resume)
            )
        detector = load_detector(
            options, keep_evidence=bool(options.html), workers=_count_workers(options)
        )
        stack.callback(detector.close)
        _check_model(options.jsonl, earlier, detector)
        for target in filter(None, (options.csv, options.html)):
            make_parent(target)
        return _detect(options, detector, lines, earlier)


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: these are such.
    """
    from tellframe.cli.lines import check_target

    into_file = options.jsonl not in (None, "-")
    if into_file:
        check_target(Path(options.jsonl))
        check_output("--jsonl", options.jsonl, folder=False, inputs=options.inputs)
    if options.csv:
        check_output("--csv", options.csv, folder=False, kinds=CSV, inputs=options.inputs)
    if options.html:
        check_output("--html", options.html, kinds=PAGES, inputs=options.inputs)
    lines = options.jsonl if into_file else None
    check_apart({"--jsonl": lines, "--csv": options.csv, "--html": options.html})
    asked_workers(options)  # refuses a negative number
    if options.resume and not into_file:
        raise UsageError("--resume: goes on with a file of lines; name it with --jsonl FILE.jsonl")
    if options.watch and not options.jsonl:
        raise UsageError("--watch: never comes to an end; give --jsonl, or --jsonl FILE.jsonl")
    if options.watch and (options.csv or options.html):
        raise UsageError("--watch: writes no --csv and no --html, which are written at the end")
    if options.resume and options.html:
        raise UsageError("--resume: makes no --html; the pictures of earlier videos are not kept")
    if not (0 <= options.watch < float("inf") and 0 < options.fetch_timeout < float("inf")):
        raise UsageError("--watch and --fetch-timeout: give a number of seconds above 0")


def _detect(
    options: argparse.Namespace, detector: Detector, lines: TextIO | None, earlier: list[Verdict]
) -> int:
    """Judge all inputs, and write what was asked for; return the exit status.

    Args:
        options: of the verb.
        detector: with its models loaded.
        lines: where a JSON line a video goes, if anywhere.
        earlier: verdicts that are there already.

    Raises:
        StoreError: the report or the CSV cannot be written; whatever else was asked for is.
    """
    from tellframe import report
    from tellframe.cli.interrupt import interruptible

    tally = Tally()
    for verdict in earlier:
        tally.add(verdict)
    before = tally.total
    interrupted: list[int] = []
    verdicts = earlier if options.csv else []  # all of them, and none where nobody asks for them
    keep = bool(options.csv or options.json or not lines)
    broken: list[OSError] = []  # of judging and of the lines, and thus not of the report

    def follow() -> Iterator[Verdict]:
        """Pass the verdicts on, one by one; keep them without their pictures."""
        try:
            for verdict in _judge(options, detector, earlier, interrupted):
                if lines:
                    report.write_jsonl(verdict, lines)
                tally.add(verdict)
                if keep:
                    people = tuple(dataclasses.replace(p, evidence=None) for p in verdict.people)
                    verdicts.append(dataclasses.replace(verdict, people=people))
                yield verdict
        except OSError as error:
            broken.append(error)
            raise

    failures: list[str] = []
    judged = follow()
    if options.html:
        with noting("--html", options.html, failures):
            page = report.write_html(judged, options.html)
            print(f"report: {page}", file=sys.stderr)
        if broken:
            raise broken[0]
    with interruptible(interrupted) if options.watch else nullcontext():
        for _ in judged:  # all, or those that are left when the report cannot be written
            pass
    if options.json:
        report.write_json(verdicts, sys.stdout)
    elif not lines:
        print_table(verdicts)
    if options.csv:  # last: the disk may be full by now
        with noting("--csv", options.csv, failures):
            report.write_csv(verdicts, options.csv)
    if tally.total > max(before, 1) and not options.quiet:
        say_tally(tally)
    if failures:
        raise StoreError("; ".join(failures))
    if interrupted and not options.watch:
        return status.INTERRUPTED
    return tally.status(fail_on_fake=options.fail_on == "fake", watched=bool(options.watch))


def _count_workers(options: argparse.Namespace) -> int:
    """Return how many videos are read side by side; several or one, all cores are busy."""
    from tellframe.cli.sources import is_folder
    from tellframe.store import is_remote

    first = options.inputs[0]
    single = len(options.inputs) == 1 and not (is_folder(first) or is_remote(first))
    workers: int = options.workers or (1 if single else options.threads or usable_cores())
    return workers


def _check_model(name: str, earlier: list[Verdict], detector: Detector) -> None:
    """Refuse to go on with a file that another model began: its scores cannot be compared.

    Raises:
        UsageError: one did.
    """
    info = detector.model_info
    older = dataclasses.replace(info, calibrated_on="")  # rows of earlier versions do not tell
    for verdict in earlier:
        if verdict.model not in (info, older):
            raise UsageError(
                f"{name}: was begun with another model, or other settings of it (see "
                f"{verdict.video}); give the same, or another file"
            )


def _judge(
    options: argparse.Namespace,
    detector: Detector,
    earlier: list[Verdict],
    interrupted: list[int],
) -> Iterator[Verdict]:
    """Yield the verdicts on all inputs but those of earlier ones."""
    from tellframe.cli.interrupt import until_interrupted
    from tellframe.cli.sources import find_sources, judge_sources
    from tellframe.cli.watch import Lookout, watch
    from tellframe.webfetch import FetchLimits

    limits = FetchLimits(options.max_bytes, options.fetch_timeout, options.allow_private_addresses)
    told: set[str] = set()

    def tell(place: str, count: int) -> None:
        if place not in told:  # once, however often it is looked at
            told.add(place)
            say_passed_over(place, count)

    lookout = Lookout(
        lambda: find_sources(options.inputs, limits, options.endpoint, tell),
        options.watch,
        (verdict.video for verdict in earlier),
    )
    if options.watch:
        verdicts, total = watch(detector, lookout, interrupted), ""
    else:
        sources = lookout.look()
        if earlier and not sources and not options.quiet:
            say_all_done(options.jsonl, earlier)
        if options.html:
            check_pages("--html", options.html, [source.name for source in sources])
        verdicts = until_interrupted(judge_sources(detector, sources), interrupted)
        total = f"/{len(sources)}"
    number = 0
    for number, verdict in enumerate(verdicts, 1):
        if not options.quiet:
            say_verdict(f"[{number}{total}]", verdict)
        yield verdict
    if interrupted and not options.watch:
        say_interrupted(number, len(sources), resumable=options.jsonl not in (None, "-"))
