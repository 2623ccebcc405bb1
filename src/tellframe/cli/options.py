"""What several verbs share: how a verb is added, a detector chosen, and progress shown."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tellframe.errors import UsageError
from tellframe.limits import ArchiveLimits, FileLimits

if TYPE_CHECKING:
    from tellframe.detector import Detector
    from tellframe.recipe import Recipe

Item = TypeVar("Item")

_FILE_LIMITS: Final = {
    "bytes": "size of a file",
    "pixels": "of a picture",
    "pictures": "in a video",
    "seconds": "from its first picture to the last",
    "decoded": "pictures decoded of a video; the rest is left, and the verdict says partial",
    "people": "judged in a video; those seen most often are kept",
}
"""What `FileLimits` says, in a few words."""
_ZIP_LIMITS: Final = {
    "zip_ratio": "times its size that a file in a zip may unpack to",
    "zip_bytes": "that a file in a zip may unpack to, in memory",
}
_INDEX_LIMITS: Final = {
    "zip_directory": "bytes of the directory of a zip",
    "zip_entries": "in a zip",
    **_ZIP_LIMITS,
    "metadata_bytes": "size of a file of labels",
    "metadata_depth": "objects and lists within each other in a metadata.json",
    "metadata_entries": "of one object in a metadata.json",
}
"""What `ArchiveLimits` says, in a few words."""
REPORT_SECONDS: Final = 5.0
"""How often long work says how far it is."""


def add_verb(
    verbs: Any,
    run: Callable[[argparse.Namespace], int],
    name: str,
    help_text: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a verb whose help shows an example.

    Args:
        verbs: what `ArgumentParser.add_subparsers` returned.
        run: takes the parsed options and returns the exit status.
        name: of the verb.
        help_text: what it does, beginning in lower case.
        example: a command line.

    Returns:
        The verb's parser, for its own options.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and what it sees."""
    parser.add_argument(
        "--model", metavar="BUNDLE", help="shipped name, folder or hf://owner/repository"
    )
    parser.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="frames sampled from a video; up to six times as many where its shots are short",
    )
    parser.add_argument("--face-detector", choices=("mtcnn", "yunet"), help="face detector")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads; 0, the default, for one a core",
    )


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how videos become clips."""
    parser.add_argument(
        "--recipe",
        metavar="BUNDLE|FILE.toml",
        help="a model's recipe, or a file with a table [recipe]; default: the shipped model's",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as num_frames=32"
    )


def load_recipe(options: argparse.Namespace) -> Recipe:
    """Load the recipe that the options ask for.

    Raises:
        TellframeError: there is none, a key is unknown or a value is out of range.
    """
    from tellframe.bundle import load_bundle
    from tellframe.config import apply_overrides, load_toml
    from tellframe.recipe import Recipe

    overrides = [f"recipe.{text}" for text in options.set]
    if str(options.recipe).endswith(".toml"):
        values = load_toml(options.recipe, overrides)
        return Recipe.from_dict(values.get("recipe", {}))
    base = load_bundle(options.recipe).recipe.to_dict()
    given = apply_overrides({}, overrides).get("recipe", {})
    return Recipe.from_dict({**base, **given})


def add_isolation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a file may cost, and whether it is decoded apart."""
    group = parser.add_argument_group("limits and isolation")
    group.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="wall time for one file; default: %(default)g",
    )
    group.add_argument(
        "--memory",
        type=float,
        default=4.0,
        metavar="GIB",
        help="address space of the process that decodes; default: %(default)g",
    )
    group.add_argument(
        "--no-isolation",
        action="store_true",
        help="decode in this process, without these two limits: for files that you made yourself",
    )
    for field in dataclasses.fields(FileLimits):
        group.add_argument(
            f"--max-{field.name}",
            type=float if field.name == "seconds" else int,
            default=field.default,
            metavar="N",
            help=f"{_FILE_LIMITS[field.name]}; default: %(default)s",
        )


def add_archive_options(parser: argparse.ArgumentParser, *, all_of_them: bool = False) -> None:
    """Add the options that say what a zip may ask for.

    Args:
        parser: of a verb that reads files out of zips.
        all_of_them: whether the verb reads directories of zips and files of labels as well.
    """
    group = parser.add_argument_group("limits of zips" + " and labels" * all_of_them)
    for name, text in (_INDEX_LIMITS if all_of_them else _ZIP_LIMITS).items():
        default = getattr(ArchiveLimits(), name)
        group.add_argument(
            f"--max-{name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="N",
            help=f"{text}; default: %(default)s",
        )


def archive_limits(options: argparse.Namespace) -> ArchiveLimits:
    """Return the limits that the options of `add_archive_options` ask for.

    Raises:
        UsageError: one is not above 0.
    """
    given = {name: f"max_{name}" for name in _INDEX_LIMITS if f"max_{name}" in options}
    return ArchiveLimits(**{name: getattr(options, option) for name, option in given.items()})


def load_detector(
    options: argparse.Namespace,
    *,
    keep_evidence: bool = False,
    judge_only: bool = False,
    workers: int = 1,
) -> Detector:
    """Load the detector that the options ask for.

    Args:
        options: of `add_model_options`, and of `add_isolation_options` where a verb has them.
        keep_evidence: whether verdicts carry pictures.
        judge_only: whether others read the videos, so that no worker process is needed.
        workers: processes that read videos, side by side.

    Raises:
        TellframeError: an option is out of range, or the model cannot be loaded.
    """
    from tellframe.detector import load
    from tellframe.isolated import LIMITS

    if options.threads < 0:
        raise UsageError(f"--threads {options.threads}: give 0 or more")
    overrides = {"num_frames": options.frames, "face_detector": options.face_detector}
    limits, file_limits = LIMITS, FileLimits()
    if "timeout" in options:
        if not (options.timeout > 0 and options.memory > 0):
            raise UsageError("--timeout and --memory: give more than 0")
        memory = round(min(options.memory, 2**32) * 2**30)  # "inf" cannot be rounded
        limits = dataclasses.replace(limits, seconds=options.timeout, memory=memory)
        given = {f.name: getattr(options, f"max_{f.name}") for f in dataclasses.fields(FileLimits)}
        file_limits = FileLimits(**given)
    return load(
        options.model,
        threads=options.threads,
        workers=workers,
        keep_evidence=keep_evidence,
        isolate=not (judge_only or getattr(options, "no_isolation", False)),
        limits=limits,
        file_limits=file_limits,
        **{k: v for k, v in overrides.items() if v is not None},
    )


def num_workers(options: argparse.Namespace) -> int:
    """Return the worker processes that --workers asks for; 0 asks for one a core.

    Raises:
        UsageError: a negative number was asked for.
    """
    from tellframe.runtime import usable_cores

    return asked_workers(options) or usable_cores()


def asked_workers(options: argparse.Namespace) -> int:
    """Return the number given by --workers.

    Raises:
        UsageError: it is negative.
    """
    asked: int = options.workers
    if asked < 0:
        raise UsageError(f"--workers {asked}: give 0 or more")
    return asked


def check_apart(outputs: Mapping[str, str | Path | None]) -> None:
    """Refuse two outputs of a verb in one place, where the second would replace the first.

    Args:
        outputs: by the option that asks for it; None where none is asked for.

    Raises:
        UsageError: two are such.
    """
    seen: dict[Path, str] = {}
    for option, target in outputs.items():
        if not target:
            continue
        place = Path(os.path.realpath(target))
        if place in seen:
            raise UsageError(f"{option} {target}: is the place of {seen[place]}; name another")
        if not place.exists() or place.is_file() or place.is_dir():  # pipes and devices take both
            seen[place] = option


def follow(rows: Iterator[Item], total: int, quiet: bool) -> Iterator[Item]:
    """Pass rows on; say every few seconds how far the work is."""
    begin = shown = time.monotonic()
    with closing(rows):  # type: ignore[type-var]
        for done, row in enumerate(rows, 1):
            yield row
            now = time.monotonic()
            if not quiet and (now - shown >= REPORT_SECONDS or done == total):
                left = (now - begin) / done * (total - done)
                print(f"[{done}/{total}] {left:.0f} s left", file=sys.stderr, flush=True)
                shown = now
