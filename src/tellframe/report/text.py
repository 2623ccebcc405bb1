"""The verdicts as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tellframe.report.files import as_verdicts
from tellframe.report.page import is_never_calibrated
from tellframe.report.words import damage, number_of, percent, printable, reason_texts, seconds
from tellframe.types import FaceVerdict, Label, Verdict

_COLORS: Final = {Label.FAKE: "31", Label.REAL: "32", Label.INCONCLUSIVE: "33"}
"""ANSI colours; the word itself always says the same, so that nothing hangs on colour."""

_NEVER_CALIBRATED: Final = (
    "not calibrated: P(FAKE) is a score, no frequency; see tellframe calibrate"
)

_LABEL_WIDTH: Final = 14
_PERCENT_WIDTH: Final = 8
_WIDEST_NAME: Final = 48
"""Names up to this length set the column; a longer one moves only its own reasons."""


def format_table(verdicts: Verdict | Iterable[Verdict], *, color: bool = False) -> str:
    """Return a table: one line a video, below it one line a person; at the end what holds for all.

    Control characters in names and messages are made visible, so that a hostile file name cannot
    act on the terminal. Wide (CJK) characters are counted as one column.

    Args:
        verdicts: One verdict, or any iterable of them.
        color: Whether the labels are coloured with ANSI escape sequences.

    Returns:
        The lines of the table, with a line break after each.
    """
    rows = list(as_verdicts(verdicts))
    names = [printable(verdict.video) for verdict in rows]
    width = max((len(name) for name in names if len(name) <= _WIDEST_NAME), default=0)
    lines = [f"{'VERDICT':<{_LABEL_WIDTH}}  {'P(FAKE)':>{_PERCENT_WIDTH}}  VIDEO"]
    for verdict, name in zip(rows, names, strict=True):
        lines += _video_lines(verdict, name, width, color)
    scored = (verdict.model for verdict in rows if verdict.probability is not None)
    if any(model is not None and is_never_calibrated(model) for model in scored):
        lines.append(_NEVER_CALIBRATED)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _video_lines(verdict: Verdict, name: str, width: int, color: bool) -> list[str]:
    head = _head(verdict.label, verdict.probability, 0, color)
    reasons = "; ".join(reason_texts(verdict.reasons))
    lines = [f"{head}  {name:<{width}}  {reasons}"]
    if verdict.error is not None:
        lines.append(f"  error: {printable(verdict.error)}")
    if verdict.media is not None and (missing := damage(verdict.media)):
        lines.append(f"  partial: {missing}")
    return lines + [_person_line(person, color) for person in verdict.people]


def _person_line(person: FaceVerdict, color: bool) -> str:
    parts = [
        f"person {person.person:<3}",
        f"{f'{seconds(person.start)}-{seconds(person.end)} s':<13}",
        f"{number_of(person.frames, 'frame'):<11}",
    ]
    if person.reasons:
        parts.append("; ".join(reason_texts(person.reasons)))
    if person.moments:
        moments = (
            f"{seconds(m.time)} s ({percent(m.probability)})" for m in person.most_suspicious()
        )
        parts.append("most suspicious: " + ", ".join(moments))
    head = _head(person.label, person.probability, 2, color)
    return f"{head}    {'  '.join(parts)}"


def _head(label: Label, probability: float | None, indent: int, color: bool) -> str:
    word = f"{label:<{_LABEL_WIDTH - indent}}"
    if color:
        word = f"\x1b[{_COLORS[label]}m{word}\x1b[0m"
    return f"{' ' * indent}{word}  {percent(probability):>{_PERCENT_WIDTH}}"
