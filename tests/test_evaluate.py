"""Metrics, intervals and calibration on labelled videos."""

import math

import numpy as np
import pytest

from tellframe.cli import run
from tellframe.errors import ConfigError, UsageError
from tellframe.evaluate import (
    Row,
    auc,
    balanced_log_loss,
    calibrate,
    in_calibration_half,
    interval,
    markdown,
    pair_ranking,
    read_labels,
    summarise,
    tables,
)
from tellframe.types import Label


def row(fake, logit, group="g", pair="", source="s"):
    probability = None if logit is None else 1 / (1 + math.exp(-logit))
    label = Label.INCONCLUSIVE if logit is None else Label.FAKE if logit > 0 else Label.REAL
    return Row("p", fake, source, "m", group, pair, logit, probability, label)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 1], [0.1, 0.9], 1.0),
        ([0, 1], [0.9, 0.1], 0.0),
        ([0, 1], [0.5, 0.5], 0.5),
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([0, 0, 1], [0.2, 0.6, 0.6], 0.75),
    ],
)
def test_auc(labels, scores, expected):
    assert auc(np.array(labels), np.array(scores)) == pytest.approx(expected)


def test_auc_needs_both_classes():
    assert math.isnan(auc(np.array([1, 1]), np.array([0.1, 0.2])))
    assert math.isnan(balanced_log_loss(np.array([0, 0]), np.array([0.1, 0.2])))


def test_balanced_log_loss():
    # Nine fakes at 0.5 and one real at 0.25: half of each class's mean.
    labels = np.array([1] * 9 + [0])
    p = np.array([0.5] * 9 + [0.25])
    assert balanced_log_loss(labels, p) == pytest.approx((-math.log(0.5) - math.log(0.75)) / 2)
    assert math.isfinite(balanced_log_loss(np.array([1, 0]), np.array([0.0, 1.0])))


def test_pair_ranking_compares_a_fake_with_its_own_real():
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
    assert pair_ranking(rows) == (pytest.approx(0.5), 3)
    assert pair_ranking([row(True, 1.0)])[1] == 0


def test_the_interval_resamples_groups_not_videos():
    # Two groups that disagree wholly: resampled by group the mean is 0, 0.5 or 1.
    rows = [row(True, 1.0, "a")] * 50 + [row(True, 0.0, "b")] * 50
    low, high = interval(rows, lambda some: float(np.mean([r.logit for r in some])))
    assert (low, high) == (0.0, 1.0)


def test_one_group_has_no_interval():
    rows = [row(False, -1.0), row(True, 1.0)]
    assert all(map(math.isnan, interval(rows, lambda some: float(len(some)))))


def test_summary_counts_what_was_not_scored():
    rows = [row(False, -1.0, "a"), row(True, 1.0, "b"), row(True, None, "c")]
    figures = summarise(rows)
    assert figures["n"] == 3
    assert figures["coverage"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["auc"] == 1.0
    assert figures["verdicts"]["fake_INCONCLUSIVE"] == 1
    only_fake = summarise([row(True, 1.0)])
    assert only_fake["auc"] is None
    text = markdown(tables(rows))
    assert "| s | 3 (2) | 0.667 | 1.000" in text


def test_calibration_sees_its_half_of_the_groups_only():
    groups = [f"group{i}" for i in range(200)]
    assert 60 < sum(map(in_calibration_half, groups)) < 140
    used = [g for g in groups if in_calibration_half(g)]
    unused = [g for g in groups if not in_calibration_half(g)]
    rng = np.random.default_rng(0)
    rows = [row(bool(i % 2), float(rng.normal(1.5 * (i % 2), 1)), g) for i, g in enumerate(used)]
    nonsense = [row(True, -50.0, g) for g in unused]
    nonsense += [row(True, -50.0, g, source="fakes only") for g in used]
    assert calibrate(rows, "x") == calibrate(rows + nonsense, "x")
    with pytest.raises(UsageError, match="needs a source"):
        calibrate(nonsense, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("path,label\n", "lacks the columns source"),
        ("path,label,source,method,group,pair,split\n", "no video of the split 'dev'"),
    ],
)
def test_bad_label_files(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_labels(path, "dev")


def test_evaluate_and_calibrate_end_to_end(samples, tmp_path, capsys):
    lines = ["path,label,source,method,group,pair,split"]
    used = [g for g in (f"group{i}" for i in range(50)) if in_calibration_half(g)][:3]
    for group in used:
        lines += [
            f"{samples / 'real.mp4'},REAL,samples,none,{group},p-{group},dev",
            f"{samples / 'fake.mp4'},FAKE,samples,swap,{group},p-{group},dev",
        ]
    lines += [f"{tmp_path / 'missing.mp4'},FAKE,samples,swap,x,,dev", "no.mp4,REAL,s,n,y,,train"]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    assert run(["evaluate", str(labels), "-o", str(tmp_path / "out"), "--frames", "4"]) == 0
    out = capsys.readouterr().out
    assert "| samples | 7 (4) | 0.857 | 1.000" in out
    assert (tmp_path / "out" / "table.md").read_text() == out

    from shutil import copytree

    from tellframe.bundle import SHIPPED, load_bundle

    bundle = copytree(SHIPPED / "frame_lite0", tmp_path / "bundle")
    assert run(["calibrate", str(labels), "--model", str(bundle), "--frames", "4"]) == 0
    fitted = load_bundle(bundle).calibration
    assert fitted.fitted_on == "half of the groups of labels.csv dev: samples (6)"
    assert fitted.slope > 0
    assert load_bundle(bundle).metrics["samples"]["auc"] == 1.0
