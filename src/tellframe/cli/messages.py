"""What `detect`, and others that search folders, say on the way, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tellframe.types import Verdict


def say_verdict(number: str, verdict: Verdict) -> None:
    """Write a line of progress to stderr."""
    from tellframe.report.words import printable  # loaded late: `--help` needs none of it

    print(
        f"{number} {printable(verdict.video)}: {verdict.label} ({verdict.seconds:.1f} s)",
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
