"""One row a video: what is known of it, and what a model made of it; kept as a CSV."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tellframe.data.cut import Outcome
from tellframe.errors import DataError
from tellframe.report.files import open_replacing
from tellframe.report.tables import FORMULA_STARTS
from tellframe.types import Label

COLUMNS: Final = (
    *("video", "label", "score", "probability", "verdict", "reasons", "outcome", "people"),
    *("brightness", "face_size", "codec", "source", "method", "part", "split", "group", "pair"),
    *("original", "still", "model"),
)
"""Of scores.csv. Score: the model's logit of the most suspicious person. Reasons are joined by ;"""
NEEDED: Final = ("video", "label", "probability")
"""Columns without which scores cannot be read; so those of any other detector can be."""
_GUARDED: Final = (*FORMULA_STARTS, "'")
"""Written after a ', which is taken off again when it is read; so a ' itself is, too."""
_TINY: Final = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a model made of one video."""

    outcome: str = ""
    """An `Outcome`: whether it was read and had a face; empty where nobody tried."""
    codec: str = ""
    people: int = 0
    """Number of people found."""
    logit: float | None = None
    """The model's logit of the most suspicious person; None where nothing was scored."""
    probability: float | None = None
    """Calibrated P(fake) of the video; None where nothing was scored."""
    verdict: Label = Label.INCONCLUSIVE
    reasons: tuple[str, ...] = ()
    """Reason codes of the verdict."""
    brightness: float | None = None
    """Mean luma, 0 to 255, of the crops of the most suspicious person."""
    face_size: float | None = None
    """Median length in pixels of the longer box side of that person's face."""


@dataclass(frozen=True, slots=True)
class Row(Judgement):
    """One labelled video."""

    path: str
    """Its name in the data set; relative to the CSV where it comes from one."""
    fake: bool
    source: str
    method: str
    group: str
    """Videos of one group are no independent witnesses: an original and all its fakes."""
    pair: str
    """The same for a real video and its fakes; empty where the video belongs to no pair."""
    part: str = ""
    split: str = ""
    original: str = ""
    still: bool = False
    """Whether it is a single face crop and no video."""

    def judged(self, judgement: Judgement) -> Row:
        """Return the row with what a model made of it."""
        values = {f.name: getattr(judgement, f.name) for f in dataclasses.fields(Judgement)}
        return dataclasses.replace(self, **values)


def in_calibration_half(group: str) -> bool:
    """Say whether a group is one that calibration may see; depends on its name alone."""
    return hashlib.sha256(f"calibration:{group}".encode()).digest()[0] < 128


def write_scores(rows: Iterable[Row], path: str | Path, model: str) -> None:
    """Write scored rows as a CSV from which `read_scores` reads the same rows.

    Args:
        rows: scored.
        path: of the file; replaced only when complete.
        model: names what scored them.
    """
    with open_replacing(path) as stream:
        # With "\n" alone Python before 3.13 leaves a lone "\r" in a name unquoted.
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for row in rows:
            values = {
                **dataclasses.asdict(row),
                "video": row.path,
                "label": "FAKE" if row.fake else "REAL",
                "score": row.logit,
                "reasons": ";".join(row.reasons),
                "still": int(row.still),
                "model": model,
            }
            writer.writerow([_to_cell(values[column]) for column in COLUMNS])


def _to_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)  # all digits: what is read is what was written
    text = str(value)
    return f"'{text}" if text.startswith(_GUARDED) else text


def read_scores(path: str | Path) -> tuple[list[Row], str]:
    """Read scored rows, also those of another detector: see `NEEDED`.

    Where there is no score, the log-odds of the probability take its place; where there is no
    verdict, 0.5 decides; where there is no group, every video is one of its own.

    Returns:
        The rows, and the name of the model; empty where the file does not say.

    Raises:
        DataError: the file cannot be read as such; the message names the line.
    """
    rows: list[Row] = []
    models: set[str] = set()
    seen: set[tuple[str, bool]] = set()
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            if missing := [c for c in NEEDED if c not in (reader.fieldnames or ())]:
                raise DataError(f"{path}: no scores: lacks the columns {', '.join(missing)}")
            for record in reader:
                try:
                    row = _to_row(record)
                    if (row.path, row.still) in seen:
                        raise ValueError(f"{row.path} is there twice")
                except (ValueError, TypeError, AttributeError) as error:
                    raise DataError(f"{path}: line {reader.line_num}: {error}") from error
                seen.add((row.path, row.still))
                models.add(_from_cell(record.get("model", "")))
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as scores ({error})") from error
    if not rows:
        raise DataError(f"{path}: holds no scores")
    if len(models) > 1:
        raise DataError(f"{path}: holds scores of several models: {', '.join(sorted(models))}")
    return rows, models.pop()


def _to_row(record: dict[str, str]) -> Row:
    cells = {column: _from_cell(record.get(column, "")) for column in COLUMNS}
    if cells["label"] not in ("REAL", "FAKE"):
        raise ValueError(f"label {cells['label']!r}: expected REAL or FAKE")
    probability = _number(cells, "probability", 0, 1)
    logit = _number(cells, "score", -math.inf, math.inf)
    if logit is None and probability is not None:
        p = min(max(probability, _TINY), 1 - _TINY)
        logit = math.log(p / (1 - p))
    if (logit is None) != (probability is None):
        raise ValueError("a score without a probability")
    called = Label.FAKE if (probability or 0) >= 0.5 else Label.REAL
    verdict = Label.INCONCLUSIVE if probability is None else called
    return Row(
        path=cells["video"],
        fake=cells["label"] == "FAKE",
        group=cells["group"] or cells["video"],
        **{name: cells[name] for name in ("source", "method", "pair", "part", "split", "original")},
        still=cells["still"] == "1",
        outcome=Outcome(cells["outcome"]) if cells["outcome"] else "",
        codec=cells["codec"],
        people=int(_number(cells, "people", 0, 1e9) or 0),
        logit=logit,
        probability=probability,
        verdict=Label(cells["verdict"]) if cells["verdict"] else verdict,
        reasons=tuple(cells["reasons"].split(";")) if cells["reasons"] else (),
        brightness=_number(cells, "brightness", 0, 255),
        face_size=_number(cells, "face_size", 0, math.inf),
    )


def _from_cell(text: str) -> str:
    return text[1:] if text.startswith("'") else text


def _number(cells: dict[str, str], name: str, low: float, high: float) -> float | None:
    if not cells[name]:
        return None
    value = float(cells[name])
    if not low <= value <= high or math.isinf(value):
        raise ValueError(f"{name} {cells[name]}: out of range")
    return value
