"""Kaggle's log loss, and what it is computed from."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.cli import run
from tellframe.errors import DataError, UsageError
from tellframe.evaluate.submission import (
    name_files,
    read_submission,
    read_truth,
    score_submission,
    write_submission,
)

TRUTH = {"a.mp4": 1, "b.mp4": 0}


def test_by_hand():
    found = score_submission({"a.mp4": 0.8, "b.mp4": 0.4}, TRUTH)
    assert found["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert found["log_loss_unclipped"] == pytest.approx(found["log_loss"])
    assert found["log_loss_prior"] == pytest.approx(math.log(2))
    assert found["auc"] == 1.0


def test_a_certain_error_is_clipped_and_shown():
    found = score_submission({"a.mp4": 0.0, "b.mp4": 0.0}, TRUTH)
    assert found["log_loss"] == pytest.approx(-math.log(1e-15) / 2)
    assert found["log_loss_unclipped"] == math.inf


def test_files_that_do_not_match_are_named():
    with pytest.raises(DataError, match=r"1 files are missing: b.mp4; 1 files have no label: c"):
        score_submission({"a.mp4": 0.5, "c.mp4": 0.5}, TRUTH)
    many = {f"{n}.mp4": 0.5 for n in range(9)}
    with pytest.raises(DataError, match=r"9 files have no label: 0.mp4, .*4.mp4, \.\.\."):
        score_submission(many | {"a.mp4": 0.5, "b.mp4": 0.5}, TRUTH)


def test_what_is_written_is_read(tmp_path):
    answers = {"a, b.mp4": 1 / 3, 'q"uote.mp4': 0.0, "=1.mp4": 1.0}
    write_submission(answers, tmp_path / "s.csv")
    assert read_submission(tmp_path / "s.csv") == answers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("name,label\n", "lacks the columns filename and label"),
        ("filename,label\na,2\n", "line 2: a: '2' is no probability"),
        ("filename,label\na,nan\n", "is no probability"),
        ("filename,label\na,\n", "'' is no probability"),
        ("filename,label\na,0\na,1\n", "line 3: a is there twice"),
    ],
)
def test_bad_submissions(tmp_path, text, message):
    if text is not None:
        (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_submission(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.json", json.dumps({"a.mp4": {"label": "FAKE"}, "b.mp4": {"label": "REAL"}})),
        ("t.csv", "filename,label\na.mp4,1\nb.mp4,0\n"),
        ("t.csv", "label,path\nFAKE,deep/a.mp4\nREAL,b.mp4\n"),
    ],
)
def test_truth_in_any_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_truth(tmp_path / name) == TRUTH


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.json", "[1]", "cannot be read as metadata.json"),
        ("m.json", '{"a.mp4": {}}', "cannot be read as metadata.json"),
        ("m.json", '{"a.mp4": {"label": 2}}', "a.mp4: label 2, expected"),
        ("m.json", "{}", "holds no labels"),
        ("t.csv", "filename,label\na.mp4,maybe\n", "label 'maybe'"),
    ],
)
def test_bad_truth(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_truth(tmp_path / name)


def test_names():
    assert name_files(["x/a.mp4", "b\u3000c.mp4"]) == ["a.mp4", "b\u3000c.mp4"]
    with pytest.raises(UsageError, match=r"such as x/a\.mp4 and y/a\.mp4"):
        name_files(["x/a.mp4", "y/a.mp4"])
    for bad in ("a\n.mp4", "a\r.mp4", "\udcff.mp4", ""):
        with pytest.raises(UsageError, match="rename it"):
            name_files([bad])


def test_the_command(tmp_path, capsys):
    (tmp_path / "metadata.json").write_text(
        json.dumps({"a.mp4": {"label": "FAKE"}, "b.mp4": {"label": "REAL"}})
    )
    write_submission({"a.mp4": 0.0, "b.mp4": 0.5}, tmp_path / "s.csv")
    assert run(["score", str(tmp_path / "s.csv"), str(tmp_path / "metadata.json")]) == 0
    out = capsys.readouterr().out
    assert "log loss: 17.61596 (clipped at 1e-15)" in out
    assert "log loss, not clipped: inf" in out
    assert "log loss of the best constant: 0.69315" in out


def test_a_video_without_a_label_does_not_count():
    found = score_submission({"a.mp4": 0.8, "b.mp4": 0.4, "c.mp4": 0.9}, TRUTH | {"c.mp4": None})
    assert found == score_submission({"a.mp4": 0.8, "b.mp4": 0.4}, TRUTH) | {"unlabelled": 1}
    with pytest.raises(DataError, match="all empty"):
        score_submission({"c.mp4": 0.5}, {"c.mp4": None})
