"""Every figure is scikit-learn's, or that of a plain definition; FAKE is 1 everywhere."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

import sklearn.metrics as sk

from tellframe.errors import MissingExtraError
from tellframe.evaluate.metrics import (
    BINS,
    CLIP,
    EDGES,
    RATES,
    Confusion,
    balanced_log_loss,
    confusion,
    load_sklearn,
    log_loss,
    measure,
    prepare,
    prior_log_loss,
    rank_pairs,
    roc_auc,
    sample_of,
)

DFDC = Confusion(tp=65673, fn=21369, fp=4247, tn=13054)
"""Of the DFDC project, whose report calls REAL the positive class in places."""
# Few values, so that there are ties; those at the ends are certain and wrong at times.
SCORES = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 0.5, 3.0]) | st.floats(-5, 5)
SATURATED = st.sampled_from([0.0, 1e-20, 1 - 1e-16, 1.0])
PROBABILITIES = SATURATED | st.sampled_from([0.2, 1 / 3, 0.5, 0.8]) | st.floats(0, 1)
ROWS = st.lists(st.tuples(st.integers(0, 1), SCORES, PROBABILITIES), min_size=1, max_size=40)
BOTH = ROWS.filter(lambda rows: len({fake for fake, _, _ in rows}) == 2)


def sample(rows):
    return sample_of(*(list(column) for column in zip(*rows, strict=True)))


def curve(rows):
    """Return (false alarms, found fakes) of every threshold, as shares, from none to all."""
    scores = sorted({score for _, score, _ in rows}, reverse=True)
    reals = [s for fake, s, _ in rows if not fake]
    fakes = [s for fake, s, _ in rows if fake]
    return [
        (np.mean([s >= t for s in reals]), np.mean([s >= t for s in fakes]))
        for t in (math.inf, *scores)
    ]


def loss(fake, p):
    p = min(max(p, CLIP), 1 - CLIP)
    return -math.log(p if fake else 1 - p)


# --- against scikit-learn and plain definitions -----------------------------------------------


@settings(max_examples=40)
@given(BOTH)
def test_every_figure_of_two_classes(rows):
    s, found = sample(rows), measure(sample(rows))
    called = [p >= 0.5 for _, _, p in rows]
    points = curve(rows)
    expected = {
        "auc": sk.roc_auc_score(s.fake, s.score),
        "pr_auc": sk.average_precision_score(s.fake, s.score),
        "accuracy": sk.accuracy_score(s.fake, called),
        "precision": sk.precision_score(s.fake, called, zero_division=math.nan),
        "recall": sk.recall_score(s.fake, called),
        "f1": sk.f1_score(s.fake, called),
        "fpr": sk.confusion_matrix(s.fake, called, normalize="true")[0, 1],
        "log_loss": np.mean([loss(fake, p) for fake, _, p in rows]),
        "log_loss_prior": np.mean([loss(fake, s.fake.mean()) for fake, _, _ in rows]),
        "balanced_log_loss": np.mean(
            [np.mean([loss(f, p) for f, _, p in rows if f == c]) for c in (0, 1)]
        ),
        # On the way from none to all, false alarms less missed fakes grows from -1 to 1.
        "eer": np.interp(0, [f + t - 1 for f, t in points], [f for f, _ in points]),
        **{name: max(t for f, t in points if f <= rate) for name, rate in RATES.items()},
        "ece": plain_ece(rows),
    }
    assert found == pytest.approx(expected, nan_ok=True)


def plain_ece(rows):
    total = 0.0
    for low, high in itertools.pairwise(EDGES):
        inside = [(f, p) for f, _, p in rows if low <= p < high or (p == 1.0 == high)]
        if inside:
            gap = np.mean([f for f, _ in inside]) - np.mean([p for _, p in inside])
            total += len(inside) / len(rows) * abs(gap)
    return total


@settings(max_examples=40)
@given(ROWS, st.integers(0, 1))
def test_one_class_has_no_ranking_and_no_crash(rows, only):
    found = measure(sample([(only, s, p) for _, s, p in rows]))
    ranked = ("auc", "pr_auc", "eer", *RATES, "balanced_log_loss")
    assert all(math.isnan(found[name]) for name in ranked)
    assert math.isfinite(found["log_loss"])
    assert found["log_loss_prior"] == pytest.approx(0, abs=1e-12)
    assert math.isnan(found["recall"]) == math.isnan(found["f1"]) == (only == 0)
    assert math.isnan(found["fpr"]) == (only == 1)


def test_nothing_has_no_figures():
    found = measure(sample_of([], [], []))
    assert all(math.isnan(value) for value in found.values())
    weighted = prepare(sample_of([], [], []))(np.ones((2, 0)))
    assert all(np.isnan(value).all() for value in weighted.values())


@settings(max_examples=40)
@given(BOTH, st.data())
def test_weights_are_repetitions(rows, data):
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    repeated = [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]
    found = prepare(sample(rows))(np.array([weights, [1] * len(rows)], float))
    assert {k: v[1] for k, v in found.items()} == pytest.approx(measure(sample(rows)), nan_ok=True)
    if repeated:
        expected = measure(sample(repeated))
        mine = {k: v[0] for k, v in found.items()}
        assert mine == pytest.approx(expected, nan_ok=True, abs=1e-9)


@pytest.mark.parametrize(
    ("fake", "score", "expected"),
    [
        ([0, 1], [0.1, 0.9], 1.0),
        ([0, 1], [0.9, 0.1], 0.0),
        ([0, 1], [0.5, 0.5], 0.5),
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([0, 0, 1], [0.2, 0.6, 0.6], 0.75),
    ],
)
def test_auc_by_hand(fake, score, expected):
    assert roc_auc(fake, score) == pytest.approx(expected)


def test_balanced_log_loss_by_hand():
    # Nine fakes at 0.5 and one real at 0.25: half of each class's mean.
    fake, p = np.array([1] * 9 + [0]), np.array([0.5] * 9 + [0.25])
    assert balanced_log_loss(fake, p) == pytest.approx((-math.log(0.5) - math.log(0.75)) / 2)


def test_a_certain_error_costs_what_it_costs_at_kaggle():
    assert log_loss([1, 0], [0.0, 1.0]) == pytest.approx(-math.log(1e-15), rel=1e-3)
    assert log_loss([1, 0], [1.0, 0.0]) == pytest.approx(0, abs=1e-12)


def test_the_best_constant_is_the_share_of_fakes():
    fake = [1, 1, 1, 0]
    assert prior_log_loss(fake) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert all(prior_log_loss(fake) <= log_loss(fake, np.full(4, p)) for p in (0.5, 0.7, 0.8))


def test_pairs():
    assert rank_pairs([1, 1, 1], [2, 0, 1]).tolist() == [1.0, 0.0, 0.5]


def test_bins_hold_their_lower_edge():
    # A bin each: all its probabilities lie at its lower edge, one of them at the end of the last.
    found = measure(sample_of([1] * (BINS + 1), [0.0] * (BINS + 1), EDGES))
    assert found["ece"] == pytest.approx(np.mean(1 - EDGES))


# --- polarity ---------------------------------------------------------------------------------


def test_the_matrix_of_the_dfdc_project():
    """65,673 fakes found, 21,369 missed, 4,247 false alarms, 13,054 reals left alone."""
    rates = DFDC.rates()
    assert rates["precision"] == pytest.approx(0.939, abs=5e-4)
    assert rates["recall"] == pytest.approx(0.7545, abs=5e-5)
    assert rates["fpr"] == pytest.approx(4247 / 17301)
    counts = [DFDC.tp, DFDC.fn, DFDC.fp, DFDC.tn]
    p = np.repeat([0.9, 0.1, 0.9, 0.1], counts)
    s = sample_of(np.repeat([1, 1, 0, 0], counts), p, p)
    assert confusion(s) == DFDC
    found = measure(s)
    assert found == pytest.approx(found | rates)
    called = p >= 0.5
    assert rates["precision"] == pytest.approx(sk.precision_score(s.fake, called, pos_label=1))
    # The figures of REAL as the positive class are others: nobody must mistake one for the other.
    assert sk.precision_score(s.fake, called, pos_label=0) == pytest.approx(0.379, abs=5e-4)


def test_fake_is_the_positive_class():
    # One fake of two found, no real called FAKE.
    s = sample_of([1, 1, 0, 0, 0], [2.0, -1.0, -2.0, -3.0, -4.0], [0.9, 0.4, 0.3, 0.2, 0.1])
    assert confusion(s) == Confusion(tp=1, fn=1, fp=0, tn=3)
    found = measure(s)
    assert (found["precision"], found["recall"], found["fpr"]) == (1.0, 0.5, 0.0)
    assert found["auc"] == 1.0


@settings(max_examples=40)
@given(BOTH)
def test_the_other_way_round_the_auc_is_mirrored(rows):
    mirrored = [(1 - fake, score, p) for fake, score, p in rows]
    assert measure(sample(rows))["auc"] == pytest.approx(1 - measure(sample(mirrored))["auc"])
    turned = [(1 - fake, -score, 1 - p) for fake, score, p in rows]
    for name in ("auc", "eer"):
        assert measure(sample(rows))[name] == pytest.approx(measure(sample(turned))[name])


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingExtraError, match=r"tellframe\[data\]"):
        load_sklearn()
