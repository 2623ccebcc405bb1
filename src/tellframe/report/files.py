"""Writing of files so that a reader never sees half of one; JSON and JSON Lines."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from tellframe.report.rows import verdict_to_dict
from tellframe.types import Verdict

PathLike = str | os.PathLike[str]
"""What is accepted as the path of a file."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def write_json(verdicts: Verdict | Iterable[Verdict], target: PathLike | TextIO) -> None:
    r"""Write one verdict as a JSON object, or several as a JSON array.

    The text is strict JSON in UTF-8 (no NaN). A path that is not valid UTF-8 keeps its surrogate
    escapes as `\udcXX`, from which Python reads the same path again.

    Args:
        verdicts: One verdict, or any iterable of them.
        target: Path of the file, replaced only when all is written, or an open text stream.

    Raises:
        ValueError: a number in a verdict is not finite.
        OSError: the file cannot be written.
    """
    if isinstance(verdicts, Verdict):
        content: Any = verdict_to_dict(verdicts)
    else:
        content = [verdict_to_dict(verdict) for verdict in verdicts]
    with open_target(target) as stream:
        stream.write(_dumps(content, stream, indent=2) + "\n")


def write_jsonl(verdicts: Verdict | Iterable[Verdict], target: PathLike | TextIO) -> None:
    """Write one line of JSON a verdict, in the order in which they come.

    The verdicts are taken one by one, and an open stream is flushed after each, so that a long
    batch can be followed while it runs. Strictness and odd paths are as in `write_json`.

    Args:
        verdicts: One verdict, or any iterable of them.
        target: Path of the file, replaced only when all is written, or an open text stream.

    Raises:
        ValueError: a number in a verdict is not finite.
        OSError: the file cannot be written.
    """
    with open_target(target) as stream:
        for verdict in as_verdicts(verdicts):
            stream.write(_dumps(verdict_to_dict(verdict), stream) + "\n")
            stream.flush()


def as_verdicts(verdicts: Verdict | Iterable[Verdict]) -> Iterable[Verdict]:
    """Return `verdicts` as an iterable, one verdict alone included."""
    return (verdicts,) if isinstance(verdicts, Verdict) else verdicts


@contextmanager
def open_target(target: PathLike | TextIO) -> Iterator[TextIO]:
    """Yield `target` itself where it is a stream, else a new file that replaces it at the end."""
    if isinstance(target, (str, os.PathLike)):
        with open_replacing(target) as stream:
            yield stream
    else:
        yield target
        target.flush()


@contextmanager
def open_replacing(path: PathLike) -> Iterator[TextIO]:
    """Open a UTF-8 text file under a temporary name and rename it to `path` at the end.

    When the body raises, the temporary file is removed and an existing `path` is left as it was.
    Devices and pipes are written directly, since a rename would replace them. Symbolic links are
    followed.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    final = Path(os.path.realpath(path))
    if final.exists() and not final.is_file():
        with final.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        return
    # Not derived from the final name, which may already be as long as the file system allows.
    temporary = final.with_name(f".tellframe-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as stream:
            yield stream
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def _dumps(content: Any, stream: TextIO, indent: int | None = None) -> str:
    """Return `content` as JSON that the encoding of `stream` can hold."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    text = json.dumps(
        content, allow_nan=False, ensure_ascii=not encoding.startswith("utf"), indent=indent
    )
    # Outside of strings JSON is ASCII, so every match lies inside a string, where the escape is
    # legal.
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
