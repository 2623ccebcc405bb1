"""From logits to verdicts: pooling over frames and people, calibration, and the rule.

The rule, `any_person`: a video is as fake as its most suspicious person. One fake face among
three makes the video fake, however real the other two are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tellframe.errors import ConfigError
from tellframe.types import Clip, Evidence, FaceVerdict, Label, Moment, Reason


@dataclass(frozen=True, slots=True)
class Calibration:
    """From logit to probability: sigmoid(slope * logit + intercept + shift).

    Raises:
        ConfigError: slope or intercept is no finite number, or a share of fakes not between 0 and
            1.
    """

    slope: float = 1.0
    intercept: float = 0.0
    fitted_on: str = "nothing"
    """In plain words, the data that the two numbers were fitted on."""
    method: str = "platt"
    """How they were fitted: "platt", or "temperature", which leaves the intercept 0."""
    prior_train: float = 0.5
    """Share of fakes for which slope and intercept hold; both fits weigh the classes alike."""
    prior_use: float = 0.5
    """Share of fakes where the model is used; changes every probability by `shift`."""

    def __post_init__(self) -> None:
        for name in ("slope", "intercept"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(
                    f"calibration: {name} = {getattr(self, name)!r}: give a finite number"
                )
        for name in ("prior_train", "prior_use"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    f"calibration: {name} = {getattr(self, name)!r}: give a share of fakes "
                    "between 0 and 1"
                )

    @property
    def shift(self) -> float:
        """Difference of the log-odds of the two shares of fakes.

        What Bayes' rule makes of the same evidence under another prior (Saerens et al. 2002,
        Neural Computation 14, 21-41), for two classes and in log-odds.
        """
        return _log_odds(self.prior_use) - _log_odds(self.prior_train)

    def probability(self, logit: float | NDArray[np.floating]) -> NDArray[np.float64]:
        """Return calibrated P(fake), of the shape of `logit`."""
        scaled = self.slope * np.asarray(logit, dtype=np.float64) + self.intercept + self.shift
        return 1 / (1 + np.exp(-np.clip(scaled, -30, 30)))  # beyond 30 a double shows no change

    def logit(self, probability: float) -> float:
        """Return the model's logit behind a probability; the inverse of `probability`."""
        p = min(max(probability, 1e-13), 1 - 1e-13)
        return (_log_odds(p) - self.shift - self.intercept) / self.slope


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


@dataclass(frozen=True, slots=True)
class Decision:
    """When a probability is a verdict, and when a person cannot be judged.

    Raises:
        ConfigError: a value is out of range.
    """

    fake_from: float = 0.65
    """FAKE at this calibrated probability or above."""
    real_to: float = 0.35
    """REAL at this calibrated probability or below; INCONCLUSIVE in between."""
    min_frames: int = 3
    """Fewer judged frames than this give INCONCLUSIVE."""
    min_face_size: float = 48.0
    """Smaller faces (median of the longer box side, pixels) give INCONCLUSIVE."""
    max_degraded: float = 0.8
    """Above this P(the picture is badly degraded), the median of a person's frames, INCONCLUSIVE;
    1 to judge whatever the pictures are like."""

    def __post_init__(self) -> None:
        checks = {
            "fake_from": (0 <= self.fake_from <= 1, "from 0 to 1"),
            "real_to": (0 <= self.real_to <= self.fake_from, "from 0 to fake_from"),
            "min_frames": (self.min_frames >= 1, "1 or more"),
            "min_face_size": (0 <= self.min_face_size < math.inf, "a finite number, 0 or more"),
            "max_degraded": (0 <= self.max_degraded <= 1, "from 0 to 1"),
        }
        for name, (good, words) in checks.items():
            if not good:
                raise ConfigError(f"decision: {name} = {getattr(self, name)!r}: give {words}")

    def label(self, probability: float) -> Label:
        """Return the verdict on a calibrated probability, all else being well."""
        if probability >= self.fake_from:
            return Label.FAKE
        return Label.REAL if probability <= self.real_to else Label.INCONCLUSIVE


def pool_frames(logits: NDArray[np.floating]) -> float:
    """Return the logit of a person: the mean over the judged frames.

    Args:
        logits: shape (N,), at least one.
    """
    return float(np.mean(logits))


def judge_person(
    clip: Clip,
    logits: NDArray[np.floating],
    heat: NDArray[np.float32] | None,
    calibration: Calibration,
    decision: Decision,
    *,
    clip_logit: float | None = None,
    degraded: NDArray[np.floating] | None = None,
    num_scales: int = 1,
) -> FaceVerdict:
    """Judge one person.

    Args:
        clip: the person's crops, N of them valid.
        logits: shape (N,), one for every valid frame.
        heat: shape (N, h, w), class activation maps to keep as evidence; None keeps no pictures.
        calibration: from logit to probability.
        decision: from probability to label.
        clip_logit: of a model that judges the clip as a whole; the frames are pooled where None.
        degraded: shape (N,), P(the picture is badly degraded); None where the model does not tell.
        num_scales: of the crops, at which the frames take turns.
    """
    times, boxes = clip.times[clip.valid], clip.boxes[clip.valid]
    if not len(times):
        return FaceVerdict(
            clip.person, Label.INCONCLUSIVE, None, 0.0, 0.0, 0, (Reason.TOO_FEW_FRAMES,)
        )
    pooled = pool_frames(logits) if clip_logit is None else clip_logit
    probability = float(calibration.probability(pooled))
    degradation = None if degraded is None else float(np.median(degraded))
    label, reasons = _decide_person(clip, probability, degradation, decision)
    levelled = level_scales(logits, np.flatnonzero(clip.valid) % num_scales)
    moments = tuple(
        Moment(float(t), float(p), (float(b[0]), float(b[1]), float(b[2]), float(b[3])))
        for t, p, b in zip(times, calibration.probability(levelled), boxes, strict=True)
    )
    return FaceVerdict(
        person=clip.person,
        label=label,
        probability=probability,
        start=float(times[0]),
        end=float(times[-1]),
        frames=len(times),
        reasons=reasons,
        face_size=clip.face_size,
        degraded=degradation,
        moments=moments,
        evidence=None if heat is None else Evidence(clip.pixels[clip.valid], heat),
    )


def level_scales(logits: NDArray[np.floating], scales: NDArray[np.int64]) -> NDArray[np.float64]:
    """Take out what the scale of the crop adds to all frames of one person that are cut at it.

    Without it, the most suspicious moments would be those at which the crop was cut so. The offset
    of a scale is that of its frames' mean, shrunk by n / (n + 1) for n frames, of which few tell
    little.

    Args:
        logits: shape (N,).
        scales: shape (N,), the number of each frame's scale.

    Returns:
        Shape (N,), with the same mean.
    """
    levelled: NDArray[np.float64] = np.array(logits, dtype=np.float64)
    mean = levelled.mean()
    for scale in np.unique(scales):
        own = scales == scale
        levelled[own] -= (levelled[own] - mean).sum() / (own.sum() + 1)
    levelled += mean - levelled.mean()
    return levelled


def _decide_person(
    clip: Clip, probability: float, degraded: float | None, decision: Decision
) -> tuple[Label, tuple[Reason, ...]]:
    label = decision.label(probability)
    reasons = []
    if clip.num_valid < decision.min_frames:
        reasons.append(Reason.TOO_FEW_FRAMES)
    if clip.face_size < decision.min_face_size:
        reasons.append(Reason.TOO_SMALL)
    if degraded is not None and degraded > decision.max_degraded:
        reasons.append(Reason.DEGRADED)
    if not reasons and label is Label.INCONCLUSIVE:
        reasons.append(Reason.UNCERTAIN)
    return (Label.INCONCLUSIVE if reasons else label), tuple(reasons)


def judge_video(
    people: Sequence[FaceVerdict],
    decision: Decision,
    *,
    partial: bool = False,
    left_out: bool = False,
) -> tuple[Label, float | None, tuple[Reason, ...]]:
    """Apply the rule `any_person`.

    FAKE if one person is FAKE. Otherwise INCONCLUSIVE if one person is uncertain, if nobody could
    be judged, or if one who could not scores as a fake: too little to call the video FAKE, and too
    much to call it REAL. Otherwise REAL; others who could not be judged for the quality of their
    pictures are named as a reason beside it, because nothing is known of them.

    Args:
        people: the verdicts of all persons.
        decision: from which probability on a face is FAKE.
        partial: whether a part of the video is missing; adds a reason, changes no label.
        left_out: whether there were more people or faces than are looked at; likewise.

    Returns:
        The label; P(fake), the highest among the people who could be judged, or among all where
        nobody could, or None where nobody was scored; and the reasons.
    """
    extra = (Reason.PARTIAL,) if partial else ()
    judged = [p for p in people if p.judged]
    if left_out or 0 < len(judged) < len(people):
        extra = (Reason.PERSON_NOT_JUDGED, *extra)
    if not people:
        return Label.INCONCLUSIVE, None, (Reason.NO_FACE, *extra)
    scored = [p.probability for p in judged or people if p.probability is not None]
    probability = max(scored, default=None)
    if any(p.label is Label.FAKE for p in people):
        return Label.FAKE, probability, extra
    if any(p.label is Label.INCONCLUSIVE for p in judged):
        return Label.INCONCLUSIVE, probability, (Reason.UNCERTAIN, *extra)
    if not judged:
        causes = dict.fromkeys(r for p in people for r in p.reasons)
        return Label.INCONCLUSIVE, probability, (*causes, *extra)
    if any(p.probability is not None and p.probability >= decision.fake_from for p in people):
        return Label.INCONCLUSIVE, probability, extra  # it is one who could not be judged
    return Label.REAL, probability, extra


def fit_calibration(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    fitted_on: str,
    *,
    weights: NDArray[np.floating] | None = None,
    method: str = "platt",
) -> Calibration:
    """Fit a slope, and an intercept, by Newton's method on the balanced log loss.

    Both classes weigh the same whatever their numbers, so that 0.5 means "as likely as not" where
    fakes are as common as reals. The targets are smoothed as Platt (1999) does, which keeps the
    fit finite where the classes can be told apart without error.

    Args:
        logits: shape (N,).
        labels: shape (N,), 1 = fake.
        fitted_on: the data, in plain words.
        weights: shape (N,), importance of each example within its class; equal where None.
        method: "platt" (Platt 1999), or "temperature" (Guo et al. 2017), which fits the slope
            alone, the inverse of the temperature: 0.5 stays where the model has it.

    Raises:
        ValueError: a class is missing.
    """
    num_fake, num_real = int((labels == 1).sum()), int((labels == 0).sum())
    if not num_fake or not num_real:
        raise ValueError("calibration needs real and fake examples")
    target = np.where(labels == 1, (num_fake + 1) / (num_fake + 2), 1 / (num_real + 2))
    weight = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    for value in (0, 1):
        weight = np.where(labels == value, weight / weight[labels == value].sum(), weight)
    design = np.stack([np.asarray(logits, dtype=np.float64), np.ones(len(labels))], axis=1)
    if method == "temperature":
        design = design[:, :1]
    theta = _minimise(design, target, weight)
    intercept = 0.0 if method == "temperature" else float(theta[1])
    return Calibration(float(theta[0]), intercept, fitted_on, method)


def _minimise(
    design: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the minimum of the weighted log loss of a linear model, from slope 1."""

    def loss(candidate: NDArray[np.float64]) -> float:
        scaled = design @ candidate
        return float((weight * (np.logaddexp(0, scaled) - target * scaled)).sum())

    theta: NDArray[np.float64] = np.eye(design.shape[1])[0]
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -30, 30)))
        gradient = design.T @ (weight * (p - target))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(theta)), gradient)
        # Far from the optimum the curvature says nothing, and a whole step may lead away from it.
        while loss(theta - step) > loss(theta) and np.abs(step).max() > 1e-12:
            step /= 2
        theta = theta - step
        if np.abs(step).max() < 1e-10:
            break
    return theta
