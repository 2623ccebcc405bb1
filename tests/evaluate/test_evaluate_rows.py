"""Rows, the CSV that keeps them, and where labelled videos come from."""

from __future__ import annotations

import csv
import dataclasses
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe.errors import ConfigError, DataError, UsageError
from tellframe.evaluate.rows import COLUMNS, Judgement, Row, read_scores, write_scores
from tellframe.evaluate.sources import draw, list_stills, open_source, read_labels, read_stills
from tellframe.report.tables import FORMULA_STARTS
from tellframe.types import Label

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=12)
NUMBER = st.none() | st.floats(0, 255)
HEADER = "path,label,source,method,group,pair,split\n"


@st.composite
def any_row(draw):
    probability = draw(st.none() | st.floats(0, 1))
    return Row(
        path=draw(TEXT),
        fake=draw(st.booleans()),
        source=draw(TEXT),
        method=draw(TEXT),
        group=draw(TEXT.filter(bool)),
        pair=draw(TEXT),
        part=draw(TEXT),
        split=draw(TEXT),
        original=draw(TEXT),
        still=draw(st.booleans()),
        outcome=draw(st.sampled_from(["", "ok", "no_face", "unreadable", "crash"])),
        codec=draw(TEXT),
        people=draw(st.integers(0, 20)),
        logit=None if probability is None else draw(st.floats(-1e3, 1e3)),
        probability=probability,
        verdict=draw(st.sampled_from(Label)),
        reasons=draw(st.sampled_from([(), ("no_face",), ("uncertain", "partial")])),
        brightness=draw(NUMBER),
        face_size=draw(NUMBER),
    )


@settings(max_examples=60)
@given(st.lists(any_row(), min_size=1, max_size=5, unique_by=lambda r: (r.path, r.still)), TEXT)
def test_what_is_written_is_read(tmp_path_factory, rows, model):
    path = tmp_path_factory.getbasetemp() / "scores.csv"
    write_scores(rows, path, model)
    assert read_scores(path) == (rows, model)


def test_a_spreadsheet_runs_no_name_as_a_formula(row, tmp_path):
    write_scores([row(True, -1.5, path="=1+1", method="'quoted'")], tmp_path / "s.csv", "-m")
    with (tmp_path / "s.csv").open(newline="") as file:
        header, cells = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert not [c for c in cells if c.startswith(("=", "+", "@"))]
    assert cells[COLUMNS.index("score")] == "-1.5"
    found, model = read_scores(tmp_path / "s.csv")
    assert (found[0].path, found[0].method, model) == ("=1+1", "'quoted'", "-m")


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_no_start_of_a_formula_is_forgotten(row, tmp_path, start):
    write_scores([row(True, 1.0, path=f"{start}cmd")], tmp_path / "s.csv", "m")
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        _, cells = csv.reader(file)
    assert cells[0] == f"'{start}cmd"
    assert read_scores(tmp_path / "s.csv")[0][0].path == f"{start}cmd"


def test_scores_of_another_detector(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("label,video,probability,x\nFAKE,a.mp4,0.9,\nREAL,b.mp4,0.1,\nREAL,c.mp4,,\n")
    rows, model = read_scores(path)
    assert model == ""
    assert [r.verdict for r in rows] == [Label.FAKE, Label.REAL, Label.INCONCLUSIVE]
    assert rows[0].logit == pytest.approx(2.1972, abs=1e-4)
    assert [r.group for r in rows] == ["a.mp4", "b.mp4", "c.mp4"]
    assert rows[2].logit is rows[2].probability is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as scores"),
        ("", "lacks the columns video"),
        ("video,label\n", "lacks the columns probability"),
        ("video,label,probability\n", "holds no scores"),
        ("video,label,probability\na,FAKE,2\n", "line 2: probability 2: out of range"),
        ("video,label,probability\na,FAKE,nan\n", "line 2: probability nan"),
        ("video,label,probability\na,FAKE,x\n", "line 2: could not convert"),
        ("video,label,probability\na,1,0.5\n", "expected REAL or FAKE"),
        ("video,label,probability\na,REAL,0\na,REAL,0\n", "line 3: a is there twice"),
        ("video,label,probability,score\na,REAL,,1\n", "a score without a probability"),
        ("video,label,probability,score\na,REAL,1,inf\n", "score inf: out of range"),
        ("video,label,probability,model\na,REAL,0,x\nb,REAL,0,y\n", "several models: x, y"),
        ("video,label,probability,outcome\na,REAL,0,lost\n", "'lost' is not a valid Outcome"),
        ("video,label,probability,verdict\na,REAL,0,MAYBE\n", "'MAYBE' is not a valid Label"),
    ],
)
def test_bad_scores(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_scores(path)


def test_a_row_takes_its_judgement(row):
    blank = dataclasses.replace(row(True, None), outcome="", people=0)
    judged = blank.judged(Judgement(outcome="ok", people=2, logit=1.0, probability=0.7))
    assert (judged.path, judged.fake, judged.people, judged.probability) == ("p", True, 2, 0.7)


# --- labelled videos --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("path,label\n", "lacks the columns source"),
        (HEADER, "no video of the split 'dev'"),
        (f"{HEADER}a.mp4\n", "no video of the split 'dev'"),
        (f"{HEADER}a.mp4,,s,m,g,p,dev\n", "a.mp4: label '', expected REAL or FAKE"),
        (f"{HEADER}a.mp4,fake,s,m,g,p,dev\n", "a.mp4: label 'fake', expected REAL or FAKE"),
    ],
)
def test_bad_label_files(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_labels(path, "dev")


def test_a_label_file_as_a_spreadsheet_writes_it(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(HEADER + "a.mp4,REAL,s,m,g,p,dev\nb.mp4,REAL\n", encoding="utf-8-sig")
    assert [(r.path, r.source, r.split) for r in read_labels(path)] == [
        ("a.mp4", "s", "dev"),
        ("b.mp4", "", ""),
    ]
    path.write_text(HEADER)
    with pytest.raises(ConfigError, match=r"labels.csv: holds no video$"):
        read_labels(path)


def test_without_a_group_a_pair_is_one_or_every_video(tmp_path):
    path = tmp_path / "labels.csv"
    rows = ["a,REAL,s,m,,p,dev", "b,FAKE,s,m,,p,dev", "c,REAL,s,m,,,dev", "d,REAL,s,m,,,dev"]
    path.write_text(HEADER + "\n".join(rows))
    assert [r.group for r in read_labels(path)] == ["p", "p", "c", "d"]


def write_labels(path, splits):
    lines = [f"v/{n}.mp4,{'FAKE' if n % 2 else 'REAL'},s,m,g{n // 2},p{n // 2},{split}"
             for n, split in enumerate(splits)]  # fmt: skip
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return str(path)


def test_the_split_is_never_guessed(tmp_path):
    several = write_labels(tmp_path / "labels.csv", ["train", "train", "test"])
    with pytest.raises(UsageError, match=r"has test \(1\), train \(2\); choose with --split"):
        open_source(several)
    with pytest.raises(ConfigError, match="no video of the split 'dev'; there is: test, train"):
        open_source(several, "dev")
    for asked, count, taken in (("train", 2, "train"), ("all", 3, "all"), ("", 3, "all")):
        source, split = open_source(several, asked)
        assert (len(source.rows), split) == (count, taken)
    only = write_labels(tmp_path / "only.csv", ["test", "test"])
    assert open_source(only)[1] == "all"
    house = write_labels(tmp_path / "house.csv", ["train", "dev"])
    source, split = open_source(house)
    assert ([r.split for r in source.rows], split) == (["dev"], "dev")
    assert source.videos[0].location == str(tmp_path / "v/1.mp4")


def test_a_video_counts_once(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(HEADER + "a.mp4,REAL,s,m,g,p,dev\na.mp4,FAKE,s,m,h,p,dev\n")
    with pytest.raises(ConfigError, match=r"a.mp4 is there twice"):
        open_source(str(path))


def test_a_limit_keeps_groups_together_and_repeats_itself(rows):
    some = rows(90)
    taken = draw(some, 30)
    assert taken == draw(list(reversed(some)), 30)[::-1]
    assert len(taken) == 30
    sizes = [sum(r.group == g for r in taken) for g in {r.group for r in taken}]
    assert sizes == [3] * 10
    assert taken != some[:30]
    assert set(taken) < set(draw(some, 60))
    assert draw(some, None) == draw(some, 1000) == some


def test_a_manifest_belongs_to_a_built_data_set(tmp_path):
    path = write_labels(tmp_path / "labels.csv", ["dev"])
    with pytest.raises(UsageError, match="--manifest"):
        open_source(path, manifest="m.parquet")


# --- single crops -----------------------------------------------------------------------------


def test_stills(write_stills, tmp_path):
    path = write_stills(tmp_path / "s.zip", [("a.png", "REAL", "a"), ("b.png", "FAKE", "a")])
    assert [(s.file, s.fake, s.original) for s in read_stills(path)] == [
        ("a.png", False, "a"),
        ("b.png", True, "a"),
    ]
    with pytest.raises(ConfigError, match="zip of face crops"):
        list(read_stills(tmp_path / "none.zip"))


def test_labels_of_stills_alone(write_stills, tmp_path):
    path = write_stills(tmp_path / "s.zip", [("a.png", "REAL", "a"), ("b.png", "FAKE", "a")])
    assert [(s.file, s.fake, s.data) for s in list_stills(path)] == [
        ("a.png", False, b""),
        ("b.png", True, b""),
    ]


def test_a_lost_still_is_an_error_but_for_whoever_keeps_it(write_stills, tmp_path):
    path = write_stills(tmp_path / "s.zip", [("a.png", "REAL", "a")])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("labels.csv", "file,label,original\nb.png,REAL,b\na.png,REAL,a\n")
    with pytest.raises(ConfigError, match=r"b.png cannot be read"):
        list(read_stills(path))
    assert [(s.file, s.outcome, bool(s.data)) for s in read_stills(path, keep_lost=True)] == [
        ("b.png", "missing", False),
        ("a.png", "ok", True),
    ]


@pytest.mark.parametrize(
    ("label", "message"),
    [("fake", "a.png: label 'fake', expected REAL or FAKE"), ("1", "a.png: label '1'")],
)
def test_a_label_of_a_still_is_never_guessed(write_stills, tmp_path, label, message):
    path = write_stills(tmp_path / "s.zip", [("a.png", label, "a")])
    with pytest.raises(ConfigError, match=message):
        list(read_stills(path))


def test_labels_of_stills_in_another_encoding(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("labels.csv", "file,label,original\nä.png,REAL,ä\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"s.zip: cannot be read as a zip of face crops"):
        list(read_stills(tmp_path / "s.zip"))


def test_damaged_labels_of_stills(write_stills, tmp_path):
    path = write_stills(tmp_path / "s.zip", [("a.png", "REAL", "a")])
    path.write_bytes(path.read_bytes().replace(b"a.png,REAL", b"a.png,FAKE"))
    with pytest.raises(ConfigError, match=r"s.zip: cannot be read as a zip of face crops"):
        list_stills(path)
