"""The verdicts as a CSV file for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from tellframe.report.files import PathLike, as_verdicts, open_target
from tellframe.types import FaceVerdict, Reason, Verdict

COLUMNS: Final = (
    "video",
    "video_label",
    "video_probability",
    "reasons",
    "person",
    "person_label",
    "person_probability",
    "start",
    "end",
    "frames",
    "face_size",
    "error",
    "model",
    "recipe_digest",
    "sha256",
    "person_reasons",
)
"""Header of the file: seconds in start and end, pixels in face_size, reason codes joined by ;"""

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection"), with the full-width
forms that some language versions accept too."""


def write_csv(verdicts: Verdict | Iterable[Verdict], target: PathLike | TextIO) -> None:
    r"""Write one row a person, and one row for a video without people; `COLUMNS` is the header.

    Text that starts with `=`, `+`, `-`, `@`, a tab or a line break gets a leading apostrophe, so
    that a spreadsheet does not run a hostile file name as a formula. Whoever needs the exact
    path takes the JSON. A byte of a path that is not UTF-8 is written as `\udcXX`. Quoting and
    line ends follow RFC 4180.

    Args:
        verdicts: One verdict, or any iterable of them.
        target: Path of the file, replaced only when all is written, or an open text stream
            (opened with `newline=""`).

    Raises:
        OSError: the file cannot be written.
    """
    with open_target(target) as stream:
        # With "\n" alone Python before 3.13 leaves a lone "\r" in a file name unquoted.
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for verdict in as_verdicts(verdicts):
            writer.writerows(_rows(verdict))


def _rows(verdict: Verdict) -> Iterator[list[str]]:
    before = [
        _text(verdict.video),
        verdict.label.value,
        _number(verdict.probability, 6),
        _codes(verdict.reasons),
    ]
    model = verdict.model
    after = [
        _text(verdict.error or ""),
        _text(f"{model.name} {model.version}".strip()) if model else "",
        model.recipe_digest if model else "",
        verdict.media.sha256 if verdict.media else "",
    ]
    if not verdict.people:
        yield [*before, *[""] * 7, *after, ""]
    for person in verdict.people:
        yield [*before, *_person_cells(person), *after, _codes(person.reasons)]


def _person_cells(person: FaceVerdict) -> list[str]:
    return [
        str(person.person),
        person.label.value,
        _number(person.probability, 6),
        _number(person.start, 3),
        _number(person.end, 3),
        str(person.frames),
        _number(person.face_size, 1),
    ]


def _codes(reasons: tuple[Reason, ...]) -> str:
    return ";".join(reason.value for reason in reasons)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _text(text: str) -> str:
    if text.startswith(FORMULA_STARTS):
        text = "'" + text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
