"""The files that verbs write, and the table of `detect`, when they are done."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tellframe.errors import UsageError
from tellframe.types import Verdict


def check_output(option: str, target: str | Path, *, folder: bool | None = None) -> None:
    """Refuse an output that cannot be written, to find out before the work; leave no trace of it.

    Args:
        option: that asks for it.
        target: where it is written; what is missing of the way there can be made.
        folder: whether that is a folder of files; None where it may be either.

    Raises:
        UsageError: it is such.
    """
    path = Path(target).absolute() if folder else Path(os.path.realpath(target))
    place = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if not place.is_dir() and (folder or place != path):
        raise UsageError(f"{option} {target}: {place} is no folder; name another")
    if place == path and place.is_dir() and folder is False:
        raise UsageError(f"{option} {target}: is a folder; name a file in it")
    if place.is_file():  # replaced, which asks for rights of its folder alone; pipes are written
        place = place.parent
    if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
        raise UsageError(f"{option} {target}: cannot be written; check your rights in {place}")


@contextmanager
def noting(option: str, target: str | Path, failures: list[str]) -> Iterator[None]:
    """Note that an output cannot be written, so that the others still are."""
    try:
        yield
    except BrokenPipeError:  # its reader has seen enough
        raise
    except OSError as error:
        failures.append(f"{option} {target}: cannot be written ({error.strerror or error})")


def print_table(verdicts: Sequence[Verdict]) -> None:
    """Write the table to stdout, in colour and in its width where that is a terminal."""
    from tellframe import report

    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have letters that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    terminal = sys.stdout.isatty()
    color = terminal and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if terminal else None
    sys.stdout.write(report.format_table(verdicts, color=color, width=width))
    sys.stdout.flush()
