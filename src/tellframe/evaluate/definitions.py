"""What every figure means, in one sentence each: for the page, the JSON and the reader."""

from __future__ import annotations

from typing import Final

from tellframe.evaluate.metrics import BINS, CLIP, THRESHOLD
from tellframe.evaluate.summary import NOT_SCORED, RESAMPLES, SEED

CONVENTIONS: Final = (
    "FAKE is the positive class (1), REAL the negative (0), in every figure.",
    "The score of a video is the logit of its most suspicious person; P(fake) is that, calibrated.",
    "Figures are of the videos that have a score, unless they say otherwise. Where a figure is not "
    "defined, for want of a class or of a positive call, there is a dash (null in the JSON).",
    f"Intervals hold 95 %: percentiles of {RESAMPLES:,} bootstrap resamples (seed {SEED}) that "
    "draw whole groups, an original with all its fakes, because videos of one group are no "
    "independent witnesses. They say nothing about other data sets, which differ more than that; "
    "and where all resamples agree, the interval has no width, which is no certainty.",
    f"Before a logarithm, P(fake) is clipped to [{CLIP:g}, 1 - {CLIP:g}]; logarithms are natural.",
    f"A video without a score (no face found, or unreadable) counts as P(fake) = {NOT_SCORED:g} "
    "where all videos count: that claims nothing, needs no knowledge of the share of fakes, and "
    "costs 0.693. It has no part in the other figures.",
)
"""What holds for all figures."""

FIGURES: Final[dict[str, tuple[str, str]]] = {
    "auc": ("ROC-AUC", "Chance that a fake scores above a real; ties count half."),
    "pr_auc": (
        "PR-AUC",
        "Average precision: the precision at every threshold, weighted by the recall that it adds. "
        "A constant reaches the share of fakes.",
    ),
    "eer": (
        "Equal error rate",
        "Where the share of reals above the threshold equals the share of fakes below it, on the "
        "ROC curve drawn with straight lines.",
    ),
    "tpr_at_fpr_1": (
        "TPR at 1 % FPR",
        "Share of fakes found at the threshold that finds most while at most 1 % of the reals are "
        "above it; no interpolation. With fewer than 100 reals, none may be.",
    ),
    "tpr_at_fpr_5": ("TPR at 5 % FPR", "The same at 5 % of the reals."),
    "log_loss": ("Log loss", "Mean of -log of the probability given to the true class."),
    "log_loss_prior": (
        "Log loss of the best constant",
        "What the share of fakes in these videos, said of each of them, would reach.",
    ),
    "balanced_log_loss": (
        "Balanced log loss",
        "Mean of the log losses of reals and of fakes; a constant 0.5 reaches 0.693.",
    ),
    "log_loss_all": (
        "Log loss, all videos",
        f"With those that have no score, each at P(fake) = {NOT_SCORED:g}.",
    ),
    "ece": (
        "Calibration error (ECE)",
        f"Expected calibration error (Naeini et al. 2015) of P(fake) over {BINS} bins of equal "
        "width (Guo et al. 2017): mean distance of the share of fakes from the mean P(fake) in a "
        "bin, weighted by its videos. Few videos make it, and its interval, large by chance.",
    ),
    "accuracy": ("Accuracy", f"Share of right calls, FAKE from P(fake) = {THRESHOLD:g} on."),
    "precision": ("Precision", f"Share of fakes among the videos called FAKE at {THRESHOLD:g}."),
    "recall": ("Recall", f"Share of the fakes that are called FAKE at {THRESHOLD:g}."),
    "f1": ("F1", "Harmonic mean of precision and recall."),
    "fpr": ("False alarms at 0.5", f"Share of the reals that are called FAKE at {THRESHOLD:g}."),
    "false_alarm_rate": ("Verdict: REAL called FAKE", "Share of all reals with the verdict FAKE."),
    "miss_rate": ("Verdict: FAKE called REAL", "Share of all fakes with the verdict REAL."),
    "inconclusive_rate": (
        "Verdict: inconclusive",
        "Share of all videos with that verdict, those without a score among them.",
    ),
    "pair_ranking": (
        "Fake above its own real",
        "Share of fakes that score above the real video they were made from, where both are here.",
    ),
    "coverage": ("Coverage", "Share of the videos that have a score."),
}
"""Title and meaning by name, in the order of the page."""
