"""Data sets of face clips: `tellframe build` and `tellframe data verify`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from tellframe.cli import status
from tellframe.cli.options import (
    add_archive_options,
    add_recipe_options,
    add_verb,
    archive_limits,
    load_recipe,
    num_workers,
)
from tellframe.cli.outputs import check_output
from tellframe.errors import UsageError

if TYPE_CHECKING:
    from tellframe.data.build import Summary
    from tellframe.data.cut import VideoRecord

_REPORT_SECONDS = 5.0


def add_build(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_build,
        "build",
        "cut the faces of every video of a manifest into shards; started again, it goes on",
        "tellframe build manifest.parquet -o s3://bucket/faces --endpoint http://host:9000",
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="from tellframe index; also s3://...")
    parser.add_argument(
        "-o", "--output", required=True, metavar="DEST", help="folder, or s3://bucket/prefix"
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument(
        "--worker",
        metavar="i/N",
        default="0/1",
        help="do every N-th shard from the i-th on (0 to N-1): one such command a machine",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes here; 0, the default, for one a core",
    )
    parser.add_argument(
        "--videos-per-shard", type=int, default=64, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--endpoint", default="", metavar="URL", help="of S3 outside of Amazon")
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="for one video; default: %(default)s",
    )
    parser.add_argument(
        "--attempts",
        type=int,
        default=3,
        metavar="N",
        help="for a video that ends its process; default: %(default)s",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_recipe_options(parser)
    add_archive_options(parser)


def run_build(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.data.build import Workplace, build, build_units
    from tellframe.data.manifest import read_manifest
    from tellframe.data.plan import plan_build
    from tellframe.isolation import Limits
    from tellframe.store import is_remote

    share, workers = _parse_share(options.worker), num_workers(options)
    for name in ("videos_per_shard", "attempts", "timeout"):
        if not 0 < getattr(options, name) < math.inf:
            raise UsageError(f"--{name.replace('_', '-')}: give more than 0")
    if not is_remote(options.output):
        check_output("-o", options.output, folder=True)
    plan = plan_build(
        read_manifest(options.manifest, options.endpoint),
        load_recipe(options),
        options.videos_per_shard,
    )
    place = Workplace(
        destination=options.output,
        endpoint=options.endpoint,
        workers=workers,
        limits=Limits(seconds=options.timeout, attempts=options.attempts),
        archives=archive_limits(options),
    )
    engine = build_units
    if options.engine == "ray":
        from tellframe.data import ray_engine

        engine = ray_engine.build_units
    progress = _Progress(plan.description["videos"], options.quiet)
    summary = build(plan, place, share=share, engine=engine, progress=progress)
    _print_summary(summary, options.output)
    return status.SOME_FAILED if summary.failed else status.DONE


def _parse_share(text: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        index, count = -1, 0
    if not 0 <= index < count:
        raise UsageError(f"--worker {text}: give i/N with i from 0 to N-1, such as 0/4")
    return index, count


class _Progress:
    """Say what happens: failures at once, the rest every few seconds."""

    def __init__(self, total: int, quiet: bool) -> None:
        self.total, self.quiet = total, quiet
        self.done = 0
        self.begin = self.shown = time.monotonic()

    def __call__(self, record: VideoRecord) -> None:
        from tellframe.report.words import printable

        self.done += 1
        if self.quiet:
            return
        if record.message:
            print(f"{record.outcome}: {printable(record.message)}", file=sys.stderr)
        now = time.monotonic()
        if now - self.shown >= _REPORT_SECONDS:
            rate = 60 * self.done / (now - self.begin)
            print(
                f"{self.done} videos done, of {self.total} in the manifest; {rate:.0f} a minute",
                file=sys.stderr,
                flush=True,
            )
            self.shown = now


def _print_summary(summary: Summary, destination: str) -> None:
    if summary.units_open:
        print(
            f"{destination}: {summary.units_open} of {summary.units} shards are left to other "
            "workers; whoever ends last writes the index"
        )
        return
    outcomes = ", ".join(f"{count} {name}" for name, count in summary.outcomes.items())
    print(f"{destination}: {summary.clips} clips in {summary.units} shards; videos: {outcomes}")


def add_data(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_verify,
        "data",
        "check a data set: checksums, counts, recipe, and what is missing",
        "tellframe data verify s3://bucket/faces --manifest manifest.parquet",
    )
    parser.add_argument("action", choices=("verify",))
    parser.add_argument("destination", metavar="DEST", help="folder, or s3://bucket/prefix")
    parser.add_argument("--manifest", metavar="FILE", help="that it was built from; also s3://...")
    parser.add_argument("--endpoint", default="", metavar="URL", help="of S3 outside of Amazon")


def run_verify(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.data.manifest import read_manifest
    from tellframe.data.verify import verify_dataset
    from tellframe.report.words import printable
    from tellframe.store import open_store

    videos = read_manifest(options.manifest, options.endpoint) if options.manifest else None
    shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= _REPORT_SECONDS:
            shown = time.monotonic()
            print(f"{done} of {total} shards read", file=sys.stderr, flush=True)

    report = verify_dataset(open_store(options.destination, options.endpoint), videos, progress)
    outcomes = ", ".join(f"{count} {name}" for name, count in report.outcomes.items())
    print(f"{report.videos} videos ({outcomes}), {report.clips} clips")
    print(f"{report.shards} shards read, {report.bytes / 1e6:.1f} MB")
    for key in report.unused:
        print(f"unused: {key} (left by a worker that was overtaken; may be deleted)")
    for problem in report.problems:
        print(f"problem: {printable(problem)}", file=sys.stderr)
    print("sound" if not report.problems else f"{len(report.problems)} problems")
    return status.SOME_FAILED if report.problems else status.DONE
