"""The files that verbs write, and the table of `detect`, when they are done."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tellframe.errors import UsageError
from tellframe.types import Verdict

CSV: Final = (".csv",)
JSON: Final = (".json",)
PAGES: Final = (".html", ".htm")
PARQUET: Final = (".parquet",)
_OURS: Final = b"Made by tellframe"
"""Stands at the end of every report."""


def check_output(
    option: str,
    target: str | Path,
    *,
    folder: bool | None = None,
    kinds: Sequence[str] = (),
    inputs: Iterable[str | Path] = (),
) -> None:
    """Refuse an output that cannot be written, or would replace what it should not.

    To find out before the work; it leaves no trace.

    Args:
        option: that asks for it.
        target: where it is written; what is missing of the way there can be made.
        folder: whether that is a folder of files; None where it may be either.
        kinds: ends of the names of such files; any other one that holds something is not replaced.
        inputs: of the verb, none of which is replaced.

    Raises:
        UsageError: it is such.
    """
    path = Path(target).absolute() if folder else Path(os.path.realpath(target))
    place = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if not place.is_dir() and (folder or place != path):
        raise UsageError(f"{option} {target}: {place} is no folder; name another")
    if place == path and place.is_dir() and folder is False:
        raise UsageError(f"{option} {target}: is a folder; name a file in it")
    if place.is_file():
        _check_replaced(option, target, place, kinds, inputs)
        place = place.parent  # whose rights alone it takes to replace a file; pipes are written
    if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
        raise UsageError(f"{option} {target}: cannot be written; check your rights in {place}")


def _check_replaced(
    option: str,
    target: str | Path,
    path: Path,
    kinds: Sequence[str],
    inputs: Iterable[str | Path],
) -> None:
    """Refuse to replace a file that somebody may want to keep, such as the first of `--csv *.mp4`.

    Raises:
        UsageError: it is such.
    """
    if any(Path(name).exists() and path.samefile(name) for name in inputs):
        raise UsageError(f"{option} {target}: is one of the inputs; name another file")
    suffix = path.suffix.lower()
    if kinds and suffix not in kinds and (path.stat().st_size or _is_video(suffix)):
        raise UsageError(
            f"{option} {target}: exists, and does not end in {' or '.join(kinds)}; name another "
            "file, or remove this one"
        )


def _is_video(suffix: str) -> bool:
    from tellframe.video import VIDEO_SUFFIXES  # loaded late: an empty file of another name is rare

    return suffix in VIDEO_SUFFIXES


def check_pages(option: str, target: str | Path, videos: Sequence[str]) -> None:
    """Refuse a folder for reports that would hold others beside them, or lose what is no report.

    Args:
        option: that asks for it.
        target: the folder; nothing is checked where there is none.
        videos: that it gets a page of, in order.

    Raises:
        UsageError: it is such.
    """
    from tellframe.report.html import page_name

    if not Path(target).is_dir():
        return
    replaced = {"index.html", *(page_name(v, number) for number, v in enumerate(videos, 1))}
    for page in sorted(Path(target).glob("*.html")):
        if page.name not in replaced:
            what = "is no report of these videos, and would stay beside them"
        elif not _is_report(page):
            what = "is no report, and would be replaced"
        else:
            continue
        raise UsageError(
            f"{option} {target}: holds {page.name}, which {what}; name another folder, or remove it"
        )


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1000))
        return _OURS in file.read()


def make_parent(target: str | Path) -> None:
    """Make the folder of an output that was checked."""
    Path(os.path.realpath(target)).parent.mkdir(parents=True, exist_ok=True)


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
