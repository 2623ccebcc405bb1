"""The files and the table that `detect` writes when it is done."""

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


def check_output(option: str, target: str | Path) -> None:
    """Make the folder of an output, and refuse an output that cannot be written.

    Raises:
        UsageError: it is such.
        OSError: its folder cannot be made.
    """
    path = Path(os.path.realpath(target))
    path.parent.mkdir(parents=True, exist_ok=True)
    if option == "--csv" and path.is_dir():
        raise UsageError(f"{option} {target}: is a folder; name a file in it")
    # A file is replaced, which asks for rights of its folder alone; devices and pipes are written.
    place = path if path.exists() and not path.is_file() else path.parent
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
