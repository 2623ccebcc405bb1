"""Figures of sets of videos, their intervals, and the strata."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.evaluate.metrics import measure
from tellframe.evaluate.rows import in_calibration_half
from tellframe.evaluate.strata import find_strata
from tellframe.evaluate.summary import (
    draw_weights,
    interval_of,
    markdown,
    resample,
    sample_rows,
    summarise,
    tables,
)


def test_pair_ranking_compares_a_fake_with_its_own_real(row):
    rows = [
        row(False, 1.0, pair="a"),
        row(True, 2.0, pair="a"),
        row(True, 0.0, pair="a"),
        row(False, -1.0, pair="b"),
        row(True, -1.0, pair="b"),
        row(True, 9.0, pair="no real"),
        row(True, None, pair="a"),
        row(True, 9.0),
    ]
    found = summarise(rows)
    assert (found["pair_ranking"], found["n_pairs"]) == (pytest.approx(0.5), 3)
    found = summarise([row(True, 1.0)])
    assert (found["pair_ranking"], found["n_pairs"]) == (None, 0)


def test_the_interval_resamples_groups_not_videos(row):
    # Two groups that disagree wholly: resampled by group the recall is 0, 0.5 or 1.
    rows = [row(True, 1.0, "a")] * 50 + [row(True, -1.0, "b")] * 50
    assert summarise(rows)["recall_95"] == [0.0, 1.0]


def test_groups_are_drawn_whole_and_the_same_every_time():
    groups = ["a", "b", "a", "c"]
    drawn = np.concatenate(list(draw_weights(groups)))
    assert drawn.shape == (1000, 4)
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (drawn == np.concatenate(list(draw_weights(groups)))).all()
    assert (drawn != np.concatenate(list(draw_weights(groups, seed=1)))).any()
    mean = resample(groups, lambda weights: {"mean": weights.mean(axis=1)})["mean"]
    assert len(mean) == 1000


def test_drawing_does_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    groups = [f"g{n}" for n in range(30)]
    whole = np.concatenate(list(draw_weights(groups)))
    monkeypatch.setattr("tellframe.evaluate.summary._CHUNK", 1000)
    assert (whole == np.concatenate(list(draw_weights(groups)))).all()


def test_one_group_has_no_interval(row):
    figures = summarise([row(False, -1.0), row(True, 1.0)])
    assert figures["auc"] == 1.0
    assert figures["auc_95"] is None


def test_what_most_resamples_lack_has_no_interval():
    assert interval_of(np.array([1.0] * 400 + [math.nan] * 600)) is None
    assert interval_of(np.array([1.0] * 600 + [math.nan] * 400)) == (1.0, 1.0)


def test_an_interval_leaves_two_and_a_half_percent_at_either_end():
    assert interval_of(np.arange(1001.0)) == (25.0, 975.0)


def test_summary_counts_what_was_not_scored(row):
    rows = [row(False, -1.0, "a"), row(True, 1.0, "b"), row(True, None, "c")]
    figures = summarise(rows)
    assert (figures["n"], figures["n_scored"], figures["n_fake"]) == (3, 2, 2)
    assert figures["coverage"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["auc"] == 1.0
    assert figures["verdicts"]["fake_INCONCLUSIVE"] == 1
    assert figures["confusion"] == {"tp": 1, "fn": 0, "fp": 0, "tn": 1}
    assert figures["inconclusive_rate"] == pytest.approx(1 / 3, abs=1e-4)
    # The video without a score counts as 0.5.
    expected = (2 * math.log(1 + math.exp(-1)) + math.log(2)) / 3
    assert figures["log_loss_all"] == pytest.approx(expected, abs=1e-6)
    assert figures["log_loss"] == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)


def test_one_class_and_nothing_scored(row, few_resamples):
    only_fake = summarise([row(True, 1.0, "a"), row(True, 2.0, "b")])
    assert only_fake["auc"] is only_fake["auc_95"] is only_fake["false_alarm_rate"] is None
    assert only_fake["recall"] == 1.0
    nothing = summarise([row(True, None, "a"), row(False, None, "b")])
    assert nothing["log_loss"] is None
    assert nothing["log_loss_all"] == pytest.approx(math.log(2), abs=1e-6)
    assert nothing["coverage"] == 0.0


def test_figures_are_those_of_the_scored_videos(rows, few_resamples):
    some = rows()
    expected = measure(sample_rows([r for r in some if r.logit is not None]))
    found = summarise(some)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
        low, high = found[f"{name}_95"]
        assert low <= high


def test_tables_have_videos_sources_and_crops(row, few_resamples):
    rows = [row(f, 1.0 if f else -1.0, f"g{n}{f}") for n in range(9) for f in (False, True)]
    crops = [dataclasses.replace(r, still=True, source="crops") for r in rows]
    assert list(tables([*rows, *crops])) == ["all videos", "s", "crops"]
    found = tables([*rows, *crops], {"s", "crops", "elsewhere"})
    assert list(found) == [
        "all videos",
        "s",
        "crops",
        "all videos of the groups that calibration did not see",
        "crops of the groups that calibration did not see",
    ]
    unseen = found["crops of the groups that calibration did not see"]["n"]
    assert unseen == sum(not in_calibration_half(r.group) for r in crops)
    assert 0 < unseen < 18
    assert found["all videos"]["n"] == found["crops"]["n"] == 18
    text = markdown(found)
    assert "| s | 18 (9) | 1.000 | 1.000 (1.00-1.00)" in text


def test_only_what_calibration_has_half_seen_has_a_half_that_it_did_not_see(row, few_resamples):
    rows = [row(f, 1.0 if f else -1.0, f"g{n}{f}") for n in range(9) for f in (False, True)]
    crops = [dataclasses.replace(r, still=True, source="crops") for r in rows]
    of_videos = "all videos of the groups that calibration did not see"
    assert list(tables([*rows, *crops], {"s"})) == ["all videos", "s", "crops", of_videos]


def test_rows_without_a_source_are_among_all_alone(row, few_resamples):
    rows = [row(True, 1.0, "a", source=""), row(False, -1.0, "b", source="")]
    assert list(tables(rows)) == ["all videos"]
    crops = [dataclasses.replace(r, still=True) for r in rows]
    assert list(tables([*rows, *crops])) == ["all videos", "all single crops"]
    named = [dataclasses.replace(crops[0], source="t"), dataclasses.replace(crops[1], source="u")]
    found = tables([*rows, *named])
    assert list(found) == ["all videos", "t", "u", "all single crops"]
    assert found["all single crops"]["n"] == 2


# --- strata -----------------------------------------------------------------------------------


def test_strata(rows, few_resamples):
    some = rows(120)
    crops = [dataclasses.replace(some[0], still=True, brightness=b) for b in (10.0, 50.0, 55.0)]
    found = find_strata([*some, *crops])
    assert [(s["name"], s["n"]) for s in found["crops_brightness"]] == [
        ("below 40", 1),
        ("40 to 60", 2),
    ]
    names = {kind: [s["name"] for s in strata] for kind, strata in found.items()}
    assert names["people"] == ["1", "2", "3", "4 or more"]
    assert names["brightness"] == [
        *("below 40", "40 to 60", "60 to 90", "90 to 120", "120 and above"),
    ]
    assert names["face_size"][0] == "below 48"
    assert names["face_size"][-1] == "224 and above"
    assert names["codec"] == ["h264", "hevc"]
    assert names["source"] == ["source 0", "source 1"]
    assert names["part"] == ["part_0", "part_1"]
    scored = sum(r.logit is not None for r in some)
    assert sum(s["n"] for s in found["people"]) == scored
    assert sum(s["n"] for s in found["part"]) == len(some)


def test_a_method_is_measured_with_the_reals_of_its_source(rows, few_resamples):
    some = rows(120)
    found = {s["name"]: s for s in find_strata(some)["method"]}
    assert list(found) == [f"method {m} (source {s})" for s in (0, 1) for m in (1, 2)]
    for name, stratum in found.items():
        method, source = name[:8], name[10:18]
        reals = [r for r in some if not r.fake and r.source == source]
        fakes = [r for r in some if r.method == method and r.source == source]
        assert (stratum["n"], stratum["n_fake"]) == (len(reals) + len(fakes), len(fakes))
        assert stratum["auc"] is not None


def test_what_divides_nothing_is_no_stratum(row, few_resamples):
    rows = [row(f, 0.5 * f, f"g{n}", codec="h264", method="") for n in range(3) for f in (0, 1)]
    assert find_strata(rows) == {}


@pytest.mark.parametrize(
    ("brightness", "name"),
    [(0.0, "below 40"), (59.99, "40 to 60"), (60.0, "60 to 90"), (255.0, "120 and above")],
)
def test_edges_of_strata(row, few_resamples, brightness, name):
    rows = [row(True, 1.0, brightness=brightness), row(True, 1.0, brightness=100.0)]
    assert name in [s["name"] for s in find_strata(rows)["brightness"]]
