"""What the measuring scripts share: kept scores, parts, tables and exact intervals."""

from __future__ import annotations

import argparse
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import measuring
from tellframe.errors import DataError, UsageError
from tellframe.video import list_frames


def test_parts_are_sources_with_both_kinds_and_all_videos(row):
    rows = [
        row(True, 1.0, source="pairs"),
        row(False, -1.0, source="pairs"),
        row(True, 2.0, source="fakes alone"),
        row(True, 2.0, source="crops", still=True),
        row(False, 0.0, source="crops", still=True),
    ]
    parts = measuring.parts_of(rows)
    assert {name: len(some) for name, some in parts.items()} == {
        "pairs": 2,
        "crops": 2,
        measuring.ALL_VIDEOS: 3,
    }


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # From the tables of Clopper and Pearson; at the ends they have a closed form.
    [(0, 10, 0, 1 - 0.025**0.1), (10, 10, 0.025**0.1, 1), (5, 10, 0.187, 0.813)],
)
def test_exact_interval(successes, trials, low, high):
    assert measuring.exact_interval(successes, trials) == pytest.approx((low, high), abs=5e-4)


def test_kept_scores_are_read_only_where_they_are_the_same_videos_and_model(tmp_path, row):
    rows = [row(n % 2 > 0, float(n), path=f"{n}.mp4") for n in range(4)]
    calls = []

    def make():
        calls.append(1)
        return rows

    def keep(expected, model):
        return measuring.keep_rows(tmp_path / "new" / "scores.csv", expected, model, make)

    assert keep(rows, "model 1") == keep(rows, "model 1")
    assert len(calls) == 1
    keep(rows, "model 2")
    assert len(calls) == 2
    keep(rows[:3], "model 2")
    assert len(calls) == 3


def test_a_damaged_file_of_scores_is_measured_again(tmp_path, row):
    (tmp_path / "scores.csv").write_text("nothing\n")
    rows = [row(True, 1.0)]
    assert measuring.keep_rows(tmp_path / "scores.csv", rows, "m", lambda: rows) == rows


def test_a_try_does_not_replace_what_was_measured(tmp_path):
    whole = argparse.Namespace(out=tmp_path, limit=None)
    tried = argparse.Namespace(out=tmp_path, limit=5)
    assert measuring.folder_of(whole, "m") != measuring.folder_of(tried, "m")


def test_without_labelled_videos_nothing_is_measured(tmp_path, capsys):
    options = argparse.Namespace(labels=tmp_path / "labels.csv", split="dev", limit=None)
    assert measuring.open_labels(options) is None
    assert "no labelled videos there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"label,split\n", "lacks the columns path, source"),
        (b"\xff", "cannot be read"),
        (None, "No"),
    ],
)
def test_what_holds_no_labels_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        measuring.read_labels(tmp_path / "labels.csv")


def test_without_a_common_score_there_is_no_comparison(row, few_resamples):
    rows, others = [row(True, 1.0), row(False, 0.0, path="q")], [row(True, None)]
    assert measuring.compare_auc(rows, others) is None
    assert measuring.compare_auc(rows, rows)["difference"] == 0


def test_a_folder_is_for_results_of_one_kind(tmp_path):
    settings = {"folds": 3, "set": ["a=1"], "beside": None}
    for _ in range(2):
        measuring.keep_settings(tmp_path / "new", "try", settings)
    with pytest.raises(
        UsageError, match=r"another try \(folds 3 and not 5\); choose another --out"
    ):
        measuring.keep_settings(tmp_path / "new", "try", settings | {"folds": 5})
    (tmp_path / "old" / "report").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"without settings\.json"):
        measuring.keep_settings(tmp_path / "old", "try", settings)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["report"]


def test_encoded_videos_have_even_sides_and_the_rate(tmp_path):
    pictures = (np.full((37, 51, 3), 9 * n, np.uint8) for n in range(6))
    measuring.encode(pictures, tmp_path / "new" / "a.mp4", 29.97)
    media = list_frames(tmp_path / "new" / "a.mp4").media
    assert (media.width, media.height, media.num_frames) == (50, 36, 6)
    assert media.frame_rate == pytest.approx(float(Fraction(30000, 1001)), rel=1e-3)


def test_results_are_a_table_and_json(tmp_path, capsys):
    measuring.write_results(tmp_path / "new", measuring.table(["a|b"], [["c"]]), {"x": 1})
    assert (tmp_path / "new" / "table.md").read_text() == "| a/b |\n| --- |\n| c |\n"
    assert json.loads((tmp_path / "new" / "table.json").read_text()) == {"x": 1}
    assert capsys.readouterr().out.startswith("| a/b |")
