"""A file of JSON lines that outlives the process that writes it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, TextIO

from tellframe.errors import UsageError
from tellframe.report import verdict_from_dict
from tellframe.types import Verdict

SUFFIXES: Final = (".jsonl", ".ndjson")
_BEGINNING: Final = b'{"video": '
"""Of a line; only such a one is taken for a line that was cut off."""


def check_target(path: Path) -> None:
    """Refuse a name that is not one of a file of JSON lines: it may well be a video.

    Raises:
        UsageError: it has another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--jsonl {path}: give a name that ends in .jsonl; to print the lines instead, put "
            "--jsonl behind the videos"
        )


@contextmanager
def open_lines(path: Path, *, resume: bool) -> Iterator[tuple[TextIO, list[Verdict]]]:
    """Open a file to append lines to; yield it, and the verdicts that it holds already.

    A last line that was cut off is removed. One process at a time has the file.

    Args:
        path: made where it is missing, with its folder.
        resume: whether there may be verdicts in it.

    Raises:
        UsageError: it holds something already, or no verdicts, or another process writes it.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{path}: another process writes it; wait, or end that") from error
        if file.tell() and not resume:
            raise UsageError(f"{path}: exists; go on with --resume, remove it, or name another")
        verdicts = list(_read(path, file))
        with os.fdopen(os.dup(file.fileno()), "a", encoding="utf-8", newline="") as stream:
            yield stream, verdicts


def _read(path: Path, file: IO[bytes]) -> Iterator[Verdict]:
    """Yield the verdicts of all whole lines, and cut off what comes after the last one."""
    file.seek(0)
    whole = 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n") and line[: len(_BEGINNING)] == _BEGINNING[: len(line)]:
            break
        try:
            yield verdict_from_dict(json.loads(line))
        except (ValueError, AttributeError, UsageError) as error:
            raise UsageError(
                f"{path}: line {number} is no verdict ({error}); is it the right file?"
            ) from error
        whole += len(line)
    file.truncate(whole)
