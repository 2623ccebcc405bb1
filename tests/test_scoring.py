"""Pooling, calibration and the rule."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellframe.scoring import (
    Calibration,
    Decision,
    fit_calibration,
    judge_person,
    judge_video,
    level_scales,
    pool_frames,
)
from tellframe.types import Clip, FaceVerdict, Label, Reason

DECISION = Decision(fake_from=0.6, real_to=0.4, min_frames=3, min_face_size=40)


def clip(num_valid=10, size=100.0, num_frames=10, person=1):
    valid = np.arange(num_frames) < num_valid
    boxes = np.where(valid[:, None], np.array([0, 0, size * 0.8, size]), 0).astype(np.float32)
    return Clip(
        person=person,
        pixels=np.zeros((num_frames, 4, 4, 3), np.uint8),
        times=np.arange(num_frames, dtype=np.float64),
        valid=valid,
        boxes=boxes,
        landmarks=np.zeros((num_frames, 5, 2), np.float32),
        confidence=valid.astype(np.float32),
        recipe_digest="x",
    )


def person(label, probability, *reasons, number=1):
    return FaceVerdict(number, label, probability, 0.0, 1.0, 10, tuple(reasons))


@pytest.mark.parametrize(
    ("num_valid", "size", "logit", "label", "reasons"),
    [
        (10, 100, 3.0, Label.FAKE, ()),
        (10, 100, -3.0, Label.REAL, ()),
        (10, 100, 0.0, Label.INCONCLUSIVE, (Reason.UNCERTAIN,)),
        (2, 100, 3.0, Label.INCONCLUSIVE, (Reason.TOO_FEW_FRAMES,)),
        (3, 100, 3.0, Label.FAKE, ()),
        (10, 39, 3.0, Label.INCONCLUSIVE, (Reason.TOO_SMALL,)),
        (1, 39, 0.0, Label.INCONCLUSIVE, (Reason.TOO_FEW_FRAMES, Reason.TOO_SMALL)),
    ],
)
def test_person(num_valid, size, logit, label, reasons):
    verdict = judge_person(
        clip(num_valid, size), np.full(num_valid, logit), None, Calibration(), DECISION
    )
    assert (verdict.label, verdict.reasons) == (label, reasons)
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(-logit)))
    assert (verdict.frames, verdict.start, verdict.end) == (num_valid, 0.0, num_valid - 1.0)
    assert len(verdict.moments) == num_valid
    assert verdict.evidence is None


@pytest.mark.parametrize(
    ("degraded", "size", "reasons"),
    [
        (None, 100, ()),
        ([0.0, 0.79, 0.9], 100, ()),
        ([0.0, 0.81, 0.9], 100, (Reason.DEGRADED,)),
        ([1.0, 1.0, 1.0], 30, (Reason.TOO_SMALL, Reason.DEGRADED)),
    ],
)
def test_a_person_whose_pictures_are_degraded_is_not_judged(degraded, size, reasons):
    values = None if degraded is None else np.array(degraded)
    decision = Decision(max_degraded=0.8)
    verdict = judge_person(
        clip(3, size), np.full(3, 5.0), None, Calibration(), decision, degraded=values
    )
    assert verdict.reasons == reasons
    assert verdict.label is (Label.INCONCLUSIVE if reasons else Label.FAKE)
    assert verdict.degraded == (None if values is None else np.median(values))
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(-5)))


def test_the_logit_of_the_clip_goes_before_the_mean_of_its_frames():
    frames = np.array([-4.0, -2.0, 3.0])
    verdict = judge_person(clip(3), frames, None, Calibration(2.0, 1.0), DECISION, clip_logit=1.5)
    assert verdict.label is Label.FAKE
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(-4)))
    shown = [m.probability for m in verdict.moments]
    assert shown == pytest.approx([1 / (1 + math.exp(-(2 * f + 1))) for f in frames])
    assert verdict.most_suspicious(1) == (verdict.moments[2],)


@pytest.mark.parametrize("whole", [False, True], ids=["frames", "clips"])
@pytest.mark.parametrize("fake", [0, 1, 2])
def test_one_fake_among_three_people_wins(fake, whole):
    people = []
    for k in range(3):
        logit = 3.0 if k == fake else -6.0  # the mean over the people says REAL
        frames, pooled = (np.zeros(10), logit) if whole else (np.full(10, logit), None)
        own = clip(person=k + 1)
        people.append(judge_person(own, frames, None, Calibration(), DECISION, clip_logit=pooled))
    label, probability, reasons = judge_video(people, DECISION)
    assert (label, reasons) == (Label.FAKE, ())
    assert probability == people[fake].probability == pytest.approx(1 / (1 + math.exp(-3)))


def test_a_person_without_a_frame_is_inconclusive():
    verdict = judge_person(clip(0), np.zeros(0), None, Calibration(), DECISION)
    assert verdict.label is Label.INCONCLUSIVE
    assert verdict.probability is None


def test_evidence_belongs_to_the_moments():
    heat = np.arange(4 * 3 * 3, dtype=np.float32).reshape(4, 3, 3)
    verdict = judge_person(clip(4), np.arange(4.0), heat, Calibration(), DECISION)
    assert len(verdict.evidence.crops) == len(verdict.evidence.heat) == len(verdict.moments) == 4


FAKE = (Label.FAKE, 0.9)
REAL = (Label.REAL, 0.1)
UNSURE = (Label.INCONCLUSIVE, 0.5, Reason.UNCERTAIN)
SMALL = (Label.INCONCLUSIVE, 0.95, Reason.TOO_SMALL)
BRIEF = (Label.INCONCLUSIVE, 0.2, Reason.TOO_FEW_FRAMES)
AT_THE_LIMIT = (Label.INCONCLUSIVE, DECISION.fake_from, Reason.DEGRADED)
BELOW_IT = (Label.INCONCLUSIVE, math.nextafter(DECISION.fake_from, 0), Reason.DEGRADED)
UNSEEN = (Label.INCONCLUSIVE, None, Reason.TOO_FEW_FRAMES)


@pytest.mark.parametrize(
    ("people", "label", "probability", "reasons"),
    [
        ([], Label.INCONCLUSIVE, None, (Reason.NO_FACE,)),
        ([REAL], Label.REAL, 0.1, ()),
        ([FAKE], Label.FAKE, 0.9, ()),
        # One fake face among three, wherever it stands, makes the video fake.
        ([FAKE, REAL, REAL], Label.FAKE, 0.9, ()),
        ([REAL, FAKE, REAL], Label.FAKE, 0.9, ()),
        ([REAL, REAL, FAKE], Label.FAKE, 0.9, ()),
        ([REAL, UNSURE], Label.INCONCLUSIVE, 0.5, (Reason.UNCERTAIN,)),
        ([FAKE, UNSURE], Label.FAKE, 0.9, ()),
        # Who cannot be judged is named, and does not convict the video.
        ([REAL, BRIEF], Label.REAL, 0.1, (Reason.PERSON_NOT_JUDGED,)),
        ([REAL, UNSEEN], Label.REAL, 0.1, (Reason.PERSON_NOT_JUDGED,)),
        ([FAKE, SMALL], Label.FAKE, 0.9, (Reason.PERSON_NOT_JUDGED,)),
        # Nor is it acquitted where such a person scores as a fake.
        ([REAL, SMALL], Label.INCONCLUSIVE, 0.1, (Reason.PERSON_NOT_JUDGED,)),
        ([SMALL, REAL, BRIEF], Label.INCONCLUSIVE, 0.1, (Reason.PERSON_NOT_JUDGED,)),
        ([REAL, AT_THE_LIMIT], Label.INCONCLUSIVE, 0.1, (Reason.PERSON_NOT_JUDGED,)),
        ([REAL, BELOW_IT], Label.REAL, 0.1, (Reason.PERSON_NOT_JUDGED,)),
        (
            [UNSURE, SMALL],
            Label.INCONCLUSIVE,
            0.5,
            (Reason.UNCERTAIN, Reason.PERSON_NOT_JUDGED),
        ),
        ([SMALL], Label.INCONCLUSIVE, 0.95, (Reason.TOO_SMALL,)),
        ([BRIEF, SMALL], Label.INCONCLUSIVE, 0.95, (Reason.TOO_FEW_FRAMES, Reason.TOO_SMALL)),
    ],
)
def test_any_person_rule(people, label, probability, reasons):
    verdicts = [person(*p, number=n) for n, p in enumerate(people, 1)]
    assert judge_video(verdicts, DECISION) == (label, probability, reasons)
    with_partial = judge_video(verdicts, DECISION, partial=True)
    assert with_partial == (label, probability, (*reasons, Reason.PARTIAL))
    with_others = judge_video(verdicts, DECISION, left_out=True)
    named = [r for r in reasons if r is not Reason.PERSON_NOT_JUDGED]
    assert with_others == (label, probability, (*named, Reason.PERSON_NOT_JUDGED))


@given(st.permutations([FAKE, REAL, REAL, UNSURE, SMALL]))
def test_the_order_of_people_never_matters(people):
    assert judge_video([person(*p) for p in people], DECISION)[:2] == (Label.FAKE, 0.9)


def test_pooling_is_the_mean_over_frames():
    assert pool_frames(np.array([1.0, 2.0, 6.0])) == pytest.approx(3.0)


@given(st.floats(-20, 20), st.floats(0.2, 3), st.floats(-2, 2))
def test_logit_inverts_probability(logit, slope, intercept):
    calibration = Calibration(slope, intercept)
    probability = float(calibration.probability(logit))
    if 1e-9 < probability < 1 - 1e-9:
        assert calibration.logit(probability) == pytest.approx(logit, abs=1e-4)


def test_calibration_recovers_what_made_the_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits)))).astype(int)
    fitted = fit_calibration(logits, labels, "made data")
    assert fitted.slope == pytest.approx(0.5, abs=0.03)
    assert fitted.intercept == pytest.approx(0.0, abs=0.05)


@given(st.integers(0, 1000), st.floats(1, 12), st.floats(-3, 3))
def test_calibration_is_no_worse_than_its_neighbours(seed, spread, gap):
    # Large, overlapping logits of an overconfident model: plain Newton steps diverge on them.
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [60, 30])
    logits = rng.normal(0, spread, 90) + gap * labels
    fitted = fit_calibration(logits, labels, "made data")
    target = np.where(labels == 1, 31 / 32, 1 / 62)
    weight = np.where(labels == 1, 1 / 30, 1 / 60)

    def loss(slope, intercept):
        scaled = slope * logits + intercept
        return (weight * (np.logaddexp(0, scaled) - target * scaled)).sum()

    best = loss(fitted.slope, fitted.intercept)
    for slope, intercept in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert best <= loss(fitted.slope + slope, fitted.intercept + intercept)
    assert best <= loss(1, 0)


def test_calibration_is_balanced_and_finite():
    # Ninety fakes, ten reals, told apart without error.
    logits = np.concatenate([np.full(90, 2.0), np.full(10, -2.0)])
    labels = np.repeat([1, 0], [90, 10])
    fitted = fit_calibration(logits, labels, "made data")
    assert math.isfinite(fitted.slope)
    assert 0.9 < float(fitted.probability(2.0)) < 1
    assert 0 < float(fitted.probability(-2.0)) < 0.1
    with pytest.raises(ValueError, match="real and fake"):
        fit_calibration(logits[:90], labels[:90], "made data")


@given(
    st.lists(st.tuples(st.floats(-20, 20), st.integers(0, 2)), min_size=1, max_size=30),
)
def test_levelling_scales_keeps_the_mean_and_the_order_within_a_scale(frames):
    logits, scales = (np.array(column) for column in zip(*frames, strict=True))
    levelled = level_scales(logits, scales)
    assert levelled.mean() == pytest.approx(logits.mean(), abs=1e-9)
    for scale in set(scales.tolist()):
        own = scales == scale
        np.testing.assert_allclose(np.diff(levelled[own]), np.diff(logits[own]), atol=1e-9)


def test_the_offset_of_a_scale_is_shrunk_by_how_little_its_frames_tell():
    # The mean is 2. Of three frames at 1, 3/4 of the offset of -1 is taken out: 1.75; of one at 5,
    # 1/2 of 3: 3.5. Both are then moved so that the mean stays.
    levelled = level_scales(np.array([1.0, 1.0, 1.0, 5.0]), np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(levelled, np.array([1.75, 1.75, 1.75, 3.5]) - 0.1875)


def test_a_probability_at_a_limit_is_on_its_far_side():
    decision = Decision(fake_from=0.6, real_to=0.4)
    for probability, label in (
        (0.6, Label.FAKE),
        (math.nextafter(0.6, 0), Label.INCONCLUSIVE),
        (math.nextafter(0.4, 1), Label.INCONCLUSIVE),
        (0.4, Label.REAL),
    ):
        assert decision.label(probability) is label


def test_moments_are_compared_with_those_of_their_scale():
    # Every third frame is cut closer, which adds 3; the fifth is the one that stands out.
    logits = np.tile([0.0, 0.0, 3.0], 4)
    logits[4] += 2
    verdict = judge_person(
        clip(12, num_frames=12), logits, None, Calibration(), DECISION, num_scales=3
    )
    assert verdict.moments[4].probability == max(m.probability for m in verdict.moments)
    assert verdict.probability == pytest.approx(Calibration().probability(logits.mean()))
