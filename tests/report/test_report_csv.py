from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from tellframe.report import write_csv
from tellframe.report.tables import COLUMNS
from tellframe.types import Label, Reason


def read(verdicts) -> list[dict[str, str]]:
    buffer = io.StringIO(newline="")
    write_csv(verdicts, buffer)
    buffer.seek(0)
    return list(csv.DictReader(buffer, strict=True))


def test_one_row_a_person(make, unreadable):
    people = (make.person(1), make.person(2, Label.REAL, (0.1,)))
    rows = read([make.verdict(people=people), make.verdict(people=()), unreadable])
    assert [row["person"] for row in rows] == ["1", "2", "", ""]
    assert all(tuple(row) == COLUMNS for row in rows)
    assert rows[0] == {
        "video": "folder/interview.mp4",
        "video_label": "FAKE",
        "video_probability": "0.973123",
        "reasons": "",
        "person": "1",
        "person_label": "FAKE",
        "person_probability": "0.667500",
        "start": "0.500",
        "end": "9.500",
        "frames": "4",
        "face_size": "90.0",
        "error": "",
        "model": "baseline 1.0",
        "recipe_digest": "0123456789abcdef",
        "sha256": "ab" * 32,
        "person_reasons": "",
    }
    assert rows[2]["reasons"] == "no_face"
    assert rows[3]["error"] == "broken.mp4 is no video: convert it"
    assert rows[3]["video_probability"] == ""


def test_reasons_are_joined(make):
    verdict = dataclasses.replace(make.verdict(), reasons=(Reason.UNCERTAIN, Reason.PARTIAL))
    assert read(verdict)[0]["reasons"] == "uncertain;partial"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_formulas_are_disarmed(make, start):
    name = f"{start}HYPERLINK(A1)"
    row = read(dataclasses.replace(make.unreadable(name), error=name))[0]
    assert row["video"] == row["error"] == "'" + name


def test_hostile_names_keep_the_table_whole(tmp_path, hostile_name, make):
    write_csv([make.verdict(hostile_name), make.verdict()], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    assert len(rows) == 2
    assert rows[1]["video"] == "folder/interview.mp4"


def test_bytes_that_are_not_utf8(make):
    assert read(make.verdict("\udcff.mp4"))[0]["video"] == "\\udcff.mp4"


def test_replaces_only_when_complete(tmp_path, make):
    target = tmp_path / "out.csv"
    target.write_text("old")

    def broken():
        yield make.verdict()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_csv(broken(), target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
