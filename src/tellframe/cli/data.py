"""Data sets: `index` and `eda`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tellframe.cli import status
from tellframe.cli.options import (
    add_archive_options,
    add_recipe_options,
    add_verb,
    archive_limits,
    check_apart,
    follow,
    load_recipe,
    num_workers,
)
from tellframe.cli.outputs import JSON, PAGES, PARQUET, check_output, make_parent
from tellframe.errors import DataError

if TYPE_CHECKING:
    from tellframe.data.eda_look import Look
    from tellframe.data.index import Index
    from tellframe.data.sources import Problem

SHOWN = 3
"""Problems of each kind that are shown."""


def add_index(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_index,
        "index",
        "list the videos of data sets where they lie: labels, originals, groups, splits",
        "tellframe index s3://bucket/dfdc/ -o dfdc.parquet --split train=0.9,validation=0.1",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder, zip, CSV with path and label, or s3://bucket/prefix of files or zips",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.parquet")
    parser.add_argument(
        "--layout",
        choices=("dfdc", "csv", "faceforensics", "celebdf", "plain"),
        default="",
        help="default: recognised",
    )
    add_split_options(parser)
    parser.add_argument(
        "--problems", type=Path, metavar="FILE.json", help="also write every problem"
    )
    parser.add_argument(
        "--strict", action="store_true", help="write no manifest where there is any problem"
    )
    parser.add_argument("--endpoint", default="", metavar="URL", help="server, for S3 elsewhere")
    add_archive_options(parser, all_of_them=True)


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which videos belong together, and which split they are in."""
    parser.add_argument(
        "--split",
        metavar="NAME=SHARE,...",
        help="split the groups whose source gives no split (DFDC's train counts as none) by a "
        "hash of their name, such as train=0.8,validation=0.1,test=0.1",
    )
    parser.add_argument(
        "--hold-out",
        action="append",
        default=[],
        metavar="NAME=PART,...",
        help="put whole parts, and all that is connected with them, in one split",
    )
    parser.add_argument(
        "--ignore-splits", action="store_true", help="forget the splits that sources give"
    )
    parser.add_argument(
        "--people",
        type=Path,
        metavar="FILE.csv",
        help="columns video and person; videos that share a person stay together",
    )
    parser.add_argument(
        "--by-person",
        action="store_true",
        help="keep all clips of a filmed person together, where names tell (Celeb-DF, "
        "DeepFakeDetection)",
    )


def run_index(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.data.index import write_problems
    from tellframe.data.manifest import load_pyarrow, write_manifest

    inputs = [*options.sources, *filter(None, [options.people])]
    check_output("-o", options.output, folder=False, kinds=PARQUET, inputs=inputs)
    if options.problems:
        check_output("--problems", options.problems, folder=False, kinds=JSON, inputs=inputs)
    check_apart({"-o": options.output, "--problems": options.problems})
    load_pyarrow()  # to find out now that it is missing
    start = time.perf_counter()
    problems: list[Problem] = []
    try:
        index = _index(options, problems)
    finally:
        _show_problems(problems)
        if options.problems:
            write_problems(problems, options.problems)
    if problems and options.strict:
        raise DataError(f"{len(problems)} problems; no manifest was written (--strict)")
    write_manifest(index.videos, options.output)
    print(f"{options.output}: {_totals(index)}")
    print(f"problems: {_counts([p.code for p in problems])}")
    print(
        f"{time.perf_counter() - start:.1f} s, {index.requests} requests, "
        f"{index.bytes_read} bytes read"
    )
    return status.DONE


def _index(options: argparse.Namespace, problems: list[Problem]) -> Index:
    from tellframe.data.index import index_sources
    from tellframe.data.splits import Policy, parse_held_out, parse_shares
    from tellframe.data.tables import read_people

    policy = Policy(
        shares=parse_shares(options.split) if options.split else (),
        held_out=parse_held_out(options.hold_out),
        ignore_given=options.ignore_splits,
    )
    return index_sources(
        options.sources,
        problems,
        layout=options.layout,
        endpoint=options.endpoint,
        people=read_people(options.people) if options.people else {},
        by_person=options.by_person,
        policy=policy,
        limits=archive_limits(options),
        say=_say,
    )


def _say(line: str) -> None:
    from tellframe.report.words import printable

    print(printable(line), file=sys.stderr, flush=True)


def _show_problems(problems: Sequence[Problem]) -> None:
    """Write the first problems of each kind to stderr."""
    from tellframe.data.index import CODES

    for code in sorted({p.code for p in problems}):
        same = [p for p in problems if p.code == code]
        _say(f"{code}: {len(same)} ({CODES[code]})")
        for problem in same[:SHOWN]:
            _say(f"  {problem.where}: {problem.what}")
        if len(same) > SHOWN:
            _say(f"  and {len(same) - SHOWN} more")


def _totals(index: Index) -> str:
    videos = index.videos
    labels = Counter(v.label for v in videos)
    return (
        f"{len(videos)} videos ({labels['REAL']} REAL, {labels['FAKE']} FAKE, "
        f"{labels['']} unlabelled) in {len({v.group for v in videos})} groups and "
        f"{len({v.part for v in videos})} parts, {sum(v.bytes for v in videos)} bytes\n"
        f"splits: {_counts([v.split or 'none' for v in videos])}"
    )


def _counts(words: Sequence[str]) -> str:
    return ", ".join(f"{w} {n}" for w, n in sorted(Counter(words).items())) or "none"


def add_eda(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_eda,
        "eda",
        "look at a data set: its classes, a sample of its videos, and the faces in them",
        "tellframe eda manifest.parquet -o eda.html --json eda.json --sample 400",
    )
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="from tellframe index")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.html")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers")
    parser.add_argument(
        "--sample",
        type=_parse_sample,
        default=400,
        metavar="N|all",
        help="how many videos are opened; default: 400",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another draws others")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes here; 0, the default, for one a core",
    )
    parser.add_argument("--endpoint", default="", metavar="URL", help="of S3 outside of Amazon")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_recipe_options(parser)
    add_archive_options(parser)


def _parse_sample(text: str) -> int | None:
    """Return a number of videos, None for all."""
    if text == "all":
        return None
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: give a number of videos from 1, or all")
    return int(text)


def run_eda(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.data.eda import describe, write_facts
    from tellframe.data.eda_look import draw_sample, look_at
    from tellframe.data.eda_page import Album, write_page
    from tellframe.data.manifest import read_manifest
    from tellframe.report.drawing import load_matplotlib

    for option, target, kinds in (("-o", options.output, PAGES), ("--json", options.json, JSON)):
        if target:
            check_output(option, target, folder=False, kinds=kinds, inputs=[options.manifest])
    check_apart({"-o": options.output, "--json": options.json})
    load_matplotlib()  # to find out now, and not after hours of work, that it is missing
    videos, recipe = read_manifest(options.manifest), load_recipe(options)
    sample = draw_sample(videos, options.sample, options.seed)
    workers = num_workers(options)
    archives = archive_limits(options)
    looks = look_at(sample, recipe, workers=workers, endpoint=options.endpoint, archives=archives)
    album = Album()
    complaining = _complaining(looks, options.quiet)
    kept = [album.add(look) for look in follow(complaining, len(sample), options.quiet)]
    facts = describe(videos, kept, recipe, asked=options.sample, seed=options.seed)
    make_parent(options.output)
    write_page(facts, album, options.output, name=options.manifest.name)
    if options.json:
        make_parent(options.json)
        write_facts(facts, options.json)
    read = sum(look.readable for look in kept)
    print(f"{options.output}: {len(videos)} videos, {len(kept)} opened, {read} of them read")
    return status.DONE if read else status.NONE_ANALYSED


def _complaining(looks: Iterator[Look], quiet: bool) -> Iterator[Look]:
    """Say what goes wrong."""
    for look in looks:
        if look.record.message and not quiet:
            _say(f"{look.record.outcome}: {look.record.message}")
        yield look
