"""What several verbs share: how a verb is added, a detector chosen, and progress shown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tellframe.errors import UsageError

if TYPE_CHECKING:
    from tellframe.detector import Detector
    from tellframe.recipe import Recipe

Item = TypeVar("Item")

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
    parser.add_argument("--frames", type=int, metavar="N", help="frames sampled from a video")
    parser.add_argument("--face-detector", choices=("mtcnn", "yunet"), help="face detector")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads; default: one a core"
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


def load_detector(options: argparse.Namespace, *, keep_evidence: bool = False) -> Detector:
    """Load the detector that the options ask for.

    Raises:
        TellframeError: an option is out of range, or the model cannot be loaded.
    """
    from tellframe.detector import load

    if options.threads < 0:
        raise UsageError(f"--threads {options.threads}: give 0 or more")
    overrides = {"num_frames": options.frames, "face_detector": options.face_detector}
    return load(
        options.model,
        threads=options.threads,
        keep_evidence=keep_evidence,
        **{k: v for k, v in overrides.items() if v is not None},
    )


def num_workers(options: argparse.Namespace) -> int:
    """Return the worker processes that --workers asks for; by itself one a core."""
    from tellframe.runtime import usable_cores

    asked: int = options.workers
    return asked if asked > 0 else usable_cores()


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
