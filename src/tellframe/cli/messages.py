"""What `detect`, and others that search folders, say on the way, on stderr."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tellframe.types import Verdict

if TYPE_CHECKING:
    from tellframe.cli.tally import Tally

_ADVICE: Final = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, or name another place"
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "check your rights there, or name another place"
    ),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP),
        "check the path, or name another",
    ),
    errno.ENAMETOOLONG: "name a shorter one",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise `ulimit -n`, or ask for fewer --workers"),
    errno.ENOMEM: "free some memory, or ask for fewer --workers",
    errno.EIO: "check the disk",
}
"""What to do about errors of the system that nothing else explains."""


def explain(error: OSError) -> str:
    """Return what went wrong in words, with the file that it went wrong with, and what to do."""
    text = error.strerror or str(error) or type(error).__name__
    where = next((f"{name}: " for name in (error.filename2, error.filename) if name), "")
    advice = _ADVICE.get(error.errno or 0)
    return f"{where}{text}{f'; {advice}' if advice else ''}"


def say_verdict(number: str, verdict: Verdict) -> None:
    """Write a line of progress to stderr; of what could not be analysed, why."""
    from tellframe.report.words import printable  # loaded late: `--help` needs none of it

    what = f"{verdict.label} ({verdict.seconds:.1f} s)"
    if verdict.error is not None:
        what = f"{verdict.label}, {printable(verdict.error.removeprefix(f'{verdict.video}: '))}"
    print(f"{number} {printable(verdict.video)}: {what}", file=sys.stderr, flush=True)


def say_tally(tally: Tally) -> None:
    """Write to stderr what all verdicts add up to."""
    print(tally, file=sys.stderr, flush=True)


def say_interrupted(done: int, total: int, *, resumable: bool) -> None:
    """Write to stderr how many of all videos were judged before Ctrl-C."""
    rest = "--resume goes on" if resumable else "what is written holds no more than these"
    print(
        f"tellframe: interrupted after {done:,} of {total:,} videos; {rest}",
        file=sys.stderr,
        flush=True,
    )


def say_passed_over(place: str, count: int) -> None:
    """Write to stderr that files in a folder or prefix may be videos, but are not taken."""
    from tellframe.report.words import number_of, printable
    from tellframe.store import is_remote

    whose = "whose name does" if count == 1 else "whose names do"
    advice = f"{'fetch and ' if is_remote(place) else ''}give {'it' if count == 1 else 'them'}"
    print(
        f"{printable(place)}: {number_of(count, 'file')} passed over, {whose} not end as a "
        f"video's {'does' if count == 1 else 'do'}; {advice} by name",
        file=sys.stderr,
        flush=True,
    )


def say_all_done(name: str, earlier: Sequence[Verdict]) -> None:
    """Write to stderr that a file of lines has all videos, and why the status may not be 0."""
    from tellframe.report.words import number_of

    failed = sum(verdict.error is not None for verdict in earlier)
    have = "has" if len(earlier) == 1 else "have"
    print(
        f"{name}: {number_of(len(earlier), 'video')} {have} a line"
        f"{f' ({failed} could not be analysed)' if failed else ''}; nothing is left to judge",
        file=sys.stderr,
        flush=True,
    )
