"""The verdicts as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Final

from tellframe.report.files import as_verdicts
from tellframe.report.page import is_never_calibrated
from tellframe.report.words import (
    damage,
    number_of,
    percent,
    printable,
    reason_texts,
    remarks,
    seconds,
)
from tellframe.types import FaceVerdict, Label, ModelInfo, Reason, Verdict

_COLORS: Final = {Label.FAKE: "31", Label.REAL: "32", Label.INCONCLUSIVE: "33"}
"""ANSI colours; the word itself always says the same, so that nothing hangs on colour."""

_NEVER_CALIBRATED: Final = (
    "not calibrated: P(FAKE) is a score, no frequency; see tellframe calibrate"
)
_CHANGED: Final = "not calibrated: P(FAKE) is no longer a frequency, as the recipe was changed: "

_LABEL_WIDTH: Final = 14
_PERCENT_WIDTH: Final = 8
_HEAD_WIDTH: Final = _LABEL_WIDTH + 2 + _PERCENT_WIDTH
_LEAST_WIDTH: Final = 40
"""Columns below which lines are not broken any further."""
_WIDEST_NAME: Final = 48
"""Names up to this length set the column; a longer one moves only its own reasons."""


def format_table(
    verdicts: Verdict | Iterable[Verdict], *, color: bool = False, width: int | None = None
) -> str:
    """Return a table: one line a video, below it one line a person; at the end what holds for all.

    Control characters in names and messages are made visible, so that a hostile file name cannot
    act on the terminal. Wide (CJK) characters are counted as one column.

    Args:
        verdicts: One verdict, or any iterable of them.
        color: Whether the labels are coloured with ANSI escape sequences.
        width: Columns of the terminal; in lines that are longer, reasons and moments go below.
            None for no limit.

    Returns:
        The lines of the table, with a line break after each.
    """
    rows = list(as_verdicts(verdicts))
    names = [printable(verdict.video) for verdict in rows]
    column = max((len(name) for name in names if len(name) <= _WIDEST_NAME), default=0)
    lines = [f"{'VERDICT':<{_LABEL_WIDTH}}  {'P(FAKE)':>{_PERCENT_WIDTH}}  VIDEO"]
    for verdict, name in zip(rows, names, strict=True):
        lines += _video_lines(verdict, f"{name:<{column}}", color, width)
    models = [v.model for v in rows if v.model and v.probability is not None]
    for text in _closing_texts(models):
        lines += _wrapped(text, 0, width)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _closing_texts(models: Sequence[ModelInfo]) -> list[str]:
    """Return what holds for all probabilities, of the models that gave them."""
    if any(map(is_never_calibrated, models)):
        return [_NEVER_CALIBRATED]
    changed = {name: None for model in models for name in model.recipe_overrides}
    return [_CHANGED + ", ".join(map(printable, changed))] if changed else []


def _video_lines(verdict: Verdict, name: str, color: bool, width: int | None) -> list[str]:
    head = _head(verdict.label, verdict.probability, 0, color)
    texts = reason_texts(verdict.reasons, verdict.model)
    reasons = ["; ".join(texts)] if texts else []
    lines = _fit(head, f"  {name}", reasons, 4, width)
    if verdict.error is not None:
        lines.append(f"  error: {printable(verdict.error)}")
    if verdict.media is not None and (missing := damage(verdict.media)):
        lines.append(f"  partial: {missing}")
    for remark in remarks(verdict):
        lines += _wrapped(f"note: {remark}", 2, width)
    said = verdict.reasons if len(verdict.people) == 1 else ()
    for person in verdict.people:
        lines += _person_lines(person, verdict.model, said, color, width)
    return lines


def _person_lines(
    person: FaceVerdict,
    model: ModelInfo | None,
    said: Sequence[Reason],
    color: bool,
    width: int | None,
) -> list[str]:
    """Return the lines of a person, without reasons that were said of the video already."""
    facts = (
        f"person {person.person:<3}",
        f"{f'{seconds(person.start)}-{seconds(person.end)} s':<13}",
        f"{number_of(person.frames, 'frame'):<11}",
    )
    notes = []
    if reasons := [reason for reason in person.reasons if reason not in said]:
        notes.append("; ".join(reason_texts(reasons, model)))
    if person.moments:
        moments = (
            f"{seconds(m.time)} s ({percent(m.probability)})" for m in person.most_suspicious()
        )
        notes.append("most suspicious: " + ", ".join(moments))
    head = _head(person.label, person.probability, 2, color)
    return _fit(head, f"    {'  '.join(facts)}", notes, 6, width)


def _fit(head: str, facts: str, notes: list[str], indent: int, width: int | None) -> list[str]:
    """Return one line, or where it is too long, the notes on lines of their own below.

    Args:
        head: as `_head` returns it.
        facts: what stands behind it in any case.
        notes: what may go below.
        indent: of the lines below.
        width: columns of the terminal, if they matter.
    """
    line = "  ".join((facts, *notes))
    if width is None or _HEAD_WIDTH + len(line.rstrip()) <= width:
        return [f"{head}{line}"]
    return [f"{head}{facts}", *(line for note in notes for line in _wrapped(note, indent, width))]


def _wrapped(text: str, indent: int, width: int | None) -> list[str]:
    space = " " * indent
    if width is None:
        return [f"{space}{text}"]
    return wrap(
        text,
        max(width, _LEAST_WIDTH),
        initial_indent=space,
        subsequent_indent=space,
        break_on_hyphens=False,  # an option stays whole
    )


def _head(label: Label, probability: float | None, indent: int, color: bool) -> str:
    word = f"{label:<{_LABEL_WIDTH - indent}}"
    if color:
        word = f"\x1b[{_COLORS[label]}m{word}\x1b[0m"
    return f"{' ' * indent}{word}  {percent(probability):>{_PERCENT_WIDTH}}"
