"""Calibration, prior shift and the inconclusive zone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellframe.errors import ConfigError, UsageError
from tellframe.evaluate.calibration import (
    calibrate,
    choose_limits,
    choose_rows,
    count_errors,
    recalibrated,
)
from tellframe.evaluate.rows import in_calibration_half
from tellframe.scoring import Calibration, Decision, fit_calibration
from tellframe.types import Label

PRIORS = st.floats(0.01, 0.99)


def log_odds(p):
    return math.log(p / (1 - p))


@pytest.fixture
def groups():
    return [f"group{i}" for i in range(200)]


@pytest.fixture
def fitted_rows(row, groups):
    rng = np.random.default_rng(0)
    used = [g for g in groups if in_calibration_half(g)]
    return [row(bool(i % 2), float(rng.normal(1.5 * (i % 2), 1)), g) for i, g in enumerate(used)]


# --- the fit ----------------------------------------------------------------------------------


def test_calibration_sees_its_half_of_the_groups_only(row, groups, fitted_rows):
    assert 60 < sum(map(in_calibration_half, groups)) < 140
    unused = [g for g in groups if not in_calibration_half(g)]
    used = [g for g in groups if in_calibration_half(g)]
    nonsense = [row(True, -50.0, g) for g in unused]
    nonsense += [row(True, -50.0, g, source="fakes only") for g in used]
    nonsense += [row(True, None, g) for g in used]
    assert calibrate(fitted_rows, "x") == calibrate(fitted_rows + nonsense, "x")
    with pytest.raises(UsageError, match="needs a source"):
        calibrate(nonsense, "x")


def test_sources_weigh_the_same_however_large(row, groups, fitted_rows):
    other = [dataclasses.replace(r, source="t", logit=r.logit + 2) for r in fitted_rows]
    even = calibrate(fitted_rows + other, "x")
    uneven = calibrate(fitted_rows * 5 + other, "x")
    # Only the smoothing of the targets knows how many there are.
    assert even.slope == pytest.approx(uneven.slope, abs=0.05)
    assert even.intercept == pytest.approx(uneven.intercept, abs=0.05)


def test_scores_the_wrong_way_round_are_refused(fitted_rows):
    turned = [dataclasses.replace(r, logit=-r.logit) for r in fitted_rows]
    with pytest.raises(UsageError, match="no calibration mends"):
        calibrate(turned, "x")


def test_temperature_finds_the_slope_and_leaves_the_half():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits)))).astype(int)
    fitted = fit_calibration(logits, labels, "made data", method="temperature")
    assert (fitted.method, fitted.intercept) == ("temperature", 0.0)
    assert fitted.slope == pytest.approx(0.5, abs=0.03)
    assert float(fitted.probability(0.0)) == 0.5


@given(st.integers(0, 1000), st.floats(1, 12))
def test_temperature_is_no_worse_than_its_neighbours(seed, spread):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [60, 30])
    logits = rng.normal(0, spread, 90) + 2 * labels
    fitted = fit_calibration(logits, labels, "made data", method="temperature")
    target = np.where(labels == 1, 31 / 32, 1 / 62)
    weight = np.where(labels == 1, 1 / 30, 1 / 60)

    def loss(slope):
        return (weight * (np.logaddexp(0, slope * logits) - target * slope * logits)).sum()

    assert loss(fitted.slope) <= min(loss(fitted.slope + 0.01), loss(fitted.slope - 0.01), loss(1))


# --- another share of fakes -------------------------------------------------------------------


@given(st.floats(-8, 8), st.floats(0.2, 3), st.floats(-2, 2), PRIORS, PRIORS)
def test_a_prior_shifts_the_log_odds(logit, slope, intercept, train, use):
    plain = Calibration(slope, intercept)
    shifted = dataclasses.replace(plain, prior_train=train, prior_use=use)
    p, q = float(plain.probability(logit)), float(shifted.probability(logit))
    if 1e-9 < p < 1 - 1e-9 and 1e-9 < q < 1 - 1e-9:
        assert log_odds(q) - log_odds(p) == pytest.approx(log_odds(use) - log_odds(train), abs=1e-4)
        assert shifted.logit(q) == pytest.approx(logit, abs=1e-3)


@given(st.floats(0.01, 0.99), PRIORS, PRIORS)
def test_the_shift_is_bayes_rule(p, train, use):
    """Saerens et al. 2002: weigh each class by its new prior over its old one."""
    fake, real = p * use / train, (1 - p) * (1 - use) / (1 - train)
    shifted = Calibration(prior_train=train, prior_use=use)
    assert float(shifted.probability(log_odds(p))) == pytest.approx(fake / (fake + real))


def test_the_same_prior_changes_nothing():
    assert Calibration(0.4, -0.3).shift == 0.0
    same = Calibration(0.4, -0.3, prior_train=0.8, prior_use=0.8)
    assert float(same.probability(1.0)) == float(Calibration(0.4, -0.3).probability(1.0))


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0, math.nan])
def test_a_prior_is_no_certainty(prior):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Calibration(prior_use=prior)


def test_recalibrated(row):
    rare = Calibration(prior_use=0.1)
    unsure = row(True, 2.0, verdict=Label.INCONCLUSIVE, reasons=("uncertain", "partial"))
    rows = [row(True, 6.0), row(True, 2.0), unsure, row(False, None)]
    rows += [row(True, 6.0, reasons=("too_small",)), row(True, 2.0, still=True)]
    found = recalibrated(rows, rare, Decision(fake_from=0.6, real_to=0.3))
    assert [r.verdict for r in found] == [
        *(Label.FAKE, Label.INCONCLUSIVE, Label.INCONCLUSIVE, Label.INCONCLUSIVE),
        *(Label.INCONCLUSIVE, Label.INCONCLUSIVE),
    ]
    assert [r.reasons for r in found] == [
        *((), ("uncertain",), ("uncertain", "partial"), ()),
        *(("too_small",), ()),
    ]
    assert found[1].probability == pytest.approx(float(rare.probability(2.0)))
    assert found[3] == rows[3]
    sure = recalibrated(found, rare, Decision(fake_from=0.4, real_to=0.3))
    assert [r.reasons for r in sure[:3]] == [(), (), ("partial",)]


def test_an_unjudged_face_that_looks_fake_still_forbids_real(row):
    shadowed = row(False, -2.0, verdict=Label.INCONCLUSIVE, reasons=("person_not_judged",))
    plain = row(False, -2.0, reasons=("person_not_judged",))
    unsure = row(False, -2.0, verdict=Label.INCONCLUSIVE, reasons=("uncertain",))
    found = recalibrated([shadowed, plain, unsure], Calibration(), Decision())
    assert [r.verdict for r in found] == [Label.INCONCLUSIVE, Label.REAL, Label.REAL]
    assert found[0].reasons == ("person_not_judged",)
    (fake,) = recalibrated([shadowed], Calibration(intercept=9.0), Decision())
    assert fake.verdict is Label.FAKE


# --- the inconclusive zone --------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.5, 0.9]) | st.floats(0.001, 0.999)))
    .filter(lambda rows: {fake for fake, _ in rows} == {True, False}),
    st.floats(0, 0.49),
    st.floats(0, 0.49),
)  # fmt: skip
def test_limits_keep_the_rates(values, false_alarm_rate, miss_rate):
    from tellframe.evaluate.rows import Row

    rows = [Row("p", fake, "s", "m", "g", "", probability=p, logit=0.0) for fake, p in values]
    decision = choose_limits(rows, false_alarm_rate, miss_rate, Decision(min_frames=7))
    assert decision.real_to <= 0.5 <= decision.fake_from
    assert decision.min_frames == 7
    errors = count_errors(rows, decision)
    assert errors.false_alarms <= false_alarm_rate * errors.reals
    assert errors.missed <= miss_rate * errors.fakes


def test_limits_are_no_wider_than_needed(row):
    reals = [row(False, log_odds(p)) for p in (0.1, 0.2, 0.3, 0.6, 0.8)]
    fakes = [row(True, log_odds(p)) for p in (0.3, 0.55, 0.7, 0.9, 0.95)]
    exact = choose_limits(reals + fakes, 0.0, 0.0, Decision())
    # No real may be called FAKE: half-way from 0.8 to 1. No fake may be called REAL: from 0.3 to 0.
    assert (exact.fake_from, exact.real_to) == (0.9, 0.15)
    one = choose_limits(reals + fakes, 0.2, 0.2, Decision())
    # The one at 0.8 may be, the one at 0.6 not; no other fake lies below 0.5.
    assert (one.fake_from, one.real_to) == (0.7, 0.5)
    errors = count_errors(reals + fakes, one)
    assert (errors.false_alarms, errors.reals, errors.missed, errors.fakes) == (1, 5, 1, 5)
    assert errors.undecided == 2


def test_limits_come_from_the_rows_of_the_fit(fitted_rows, row):
    assert choose_rows([*fitted_rows, row(True, 9.0, source="fakes only")]) == fitted_rows
