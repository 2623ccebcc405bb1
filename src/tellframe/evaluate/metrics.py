"""Figures of scored videos: by scikit-learn where it has them, by plain definitions elsewhere.

FAKE = 1 is the positive class throughout. A figure that is not defined, for want of a class or of
a positive call, is NaN here and None in a report.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tellframe.errors import MissingExtraError

CLIP: Final = 1e-15
"""Probabilities are clipped to [CLIP, 1 - CLIP] before a logarithm, as Kaggle does."""
THRESHOLD: Final = 0.5
"""Called FAKE at this probability or above."""
BINS: Final = 15
"""Bins of equal width of calibration error and reliability curve (Guo et al. 2017)."""
EDGES: Final = np.arange(BINS + 1) / BINS
RATES: Final = {"tpr_at_fpr_1": 0.01, "tpr_at_fpr_5": 0.05}
"""Shares of false alarms at which the share of found fakes is stated."""

Array = NDArray[np.float64]


def load_sklearn() -> Any:
    """Return the module sklearn.metrics.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        import sklearn.metrics
    except ImportError as error:
        raise MissingExtraError(
            "metrics need an extra; run: pip install 'tellframe[data]'"
        ) from error
    return sklearn.metrics


@dataclass(frozen=True, slots=True)
class Sample:
    """Scored videos as arrays of shape (N,)."""

    fake: NDArray[np.int64]
    """1 = FAKE."""
    score: Array
    """What ranks them, higher for fake."""
    probability: Array
    """P(fake)."""

    @property
    def classes(self) -> int:
        """How many of the two classes are there."""
        return len(np.unique(self.fake))


def sample_of(fake: ArrayLike, score: ArrayLike, probability: ArrayLike) -> Sample:
    """Return arrays of the types that all figures take."""
    return Sample(
        np.asarray(fake, np.int64),
        np.asarray(score, np.float64),
        np.asarray(probability, np.float64),
    )


def clip(probability: ArrayLike) -> Array:
    """Return probabilities of which a logarithm can be taken."""
    return np.clip(np.asarray(probability, np.float64), CLIP, 1 - CLIP)


def roc_auc(fake: ArrayLike, score: ArrayLike) -> float:
    """Return the area under the ROC curve; NaN where a class is missing."""
    if len(np.unique(fake)) < 2:
        return math.nan
    return float(load_sklearn().roc_auc_score(fake, score))


def log_loss(fake: ArrayLike, probability: ArrayLike) -> float:
    """Return the mean log loss; NaN of nothing."""
    if not len(np.asarray(fake)):
        return math.nan
    return float(load_sklearn().log_loss(fake, clip(probability), labels=[0, 1]))


def prior_log_loss(fake: ArrayLike) -> float:
    """Return the log loss of the best constant: the share of fakes, said of every video."""
    labels = np.asarray(fake)
    return log_loss(labels, np.full(len(labels), labels.mean() if len(labels) else math.nan))


def balanced_log_loss(fake: ArrayLike, probability: ArrayLike) -> float:
    """Return the mean of the classes' mean log losses; 0.6931 is what a constant 0.5 reaches.

    Returns:
        NaN where a class is missing.
    """
    labels, p = np.asarray(fake), np.asarray(probability)
    parts = [log_loss(labels[labels == c], p[labels == c]) for c in (0, 1)]
    return sum(parts) / 2


def rank_pairs(reals: ArrayLike, fakes: ArrayLike) -> Array:
    """Return 1 where a fake scores above its own real, 0.5 where they are equal, 0 below."""
    real, fake = np.asarray(reals, np.float64), np.asarray(fakes, np.float64)
    return np.asarray((fake > real) + 0.5 * (fake == real), np.float64)


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often which class was called what."""

    tp: int
    """Fakes called FAKE."""
    fn: int
    """Fakes called REAL."""
    fp: int
    """Reals called FAKE."""
    tn: int
    """Reals called REAL."""

    def rates(self) -> dict[str, float]:
        """Return accuracy, precision, recall, F1, and fpr, the share of reals called FAKE."""
        fakes, called = self.tp + self.fn, self.tp + self.fp
        return {
            "accuracy": _ratio(self.tp + self.tn, fakes + self.fp + self.tn),
            "precision": _ratio(self.tp, called),
            "recall": _ratio(self.tp, fakes),
            "f1": _ratio(2 * self.tp, fakes + called) if fakes else math.nan,
            "fpr": _ratio(self.fp, self.fp + self.tn),
        }


def _ratio(count: int, total: int) -> float:
    return count / total if total else math.nan


def confusion(sample: Sample) -> Confusion:
    """Count what the threshold calls the videos."""
    if not len(sample.fake):
        return Confusion(0, 0, 0, 0)
    matrix = load_sklearn().confusion_matrix(
        sample.fake, sample.probability >= THRESHOLD, labels=[0, 1]
    )
    (tn, fp), (fn, tp) = matrix.tolist()
    return Confusion(tp=tp, fn=fn, fp=fp, tn=tn)


def roc_curve(sample: Sample) -> tuple[Array, Array]:
    """Return the shares of reals and of fakes above every threshold, from (0, 0) to (1, 1)."""
    fpr, tpr, _ = load_sklearn().roc_curve(sample.fake, sample.score, drop_intermediate=False)
    return fpr, tpr


def pr_curve(sample: Sample) -> tuple[Array, Array]:
    """Return recall, ascending, and precision at every threshold."""
    precision, recall, _ = load_sklearn().precision_recall_curve(sample.fake, sample.score)
    return recall[::-1], precision[::-1]


def measure(sample: Sample) -> dict[str, float]:
    """Return all figures of scored videos; `tellframe.evaluate.definitions` says what they mean."""
    fake, p = sample.fake, sample.probability
    figures = {
        "log_loss": log_loss(fake, p),
        "log_loss_prior": prior_log_loss(fake),
        "balanced_log_loss": balanced_log_loss(fake, p),
        "ece": _ece(sample),
        **confusion(sample).rates(),
    }
    ranked = dict.fromkeys(("auc", "pr_auc", "eer", *RATES), math.nan)
    if sample.classes == 2:
        fpr, tpr = roc_curve(sample)
        ranked = {
            "auc": roc_auc(fake, sample.score),
            "pr_auc": float(load_sklearn().average_precision_score(fake, sample.score)),
            "eer": float(_eer(fpr[None], tpr[None])[0]),
            **{name: float(tpr[fpr <= rate].max()) for name, rate in RATES.items()},
        }
    return {**ranked, **figures}


def _eer(fpr: Array, tpr: Array) -> Array:
    """Return where ROC curves, (B, K), have as many false alarms as missed fakes, (B,).

    Between two thresholds the curve is taken for a straight line.
    """
    gap = fpr + tpr - 1  # false alarms less missed fakes: grows from -1 to 1
    after = np.argmax(gap >= 0, axis=1)
    row = np.arange(len(gap))
    before = after - 1
    step = -gap[row, before] / (gap[row, after] - gap[row, before])
    eer: Array = fpr[row, before] + step * (fpr[row, after] - fpr[row, before])
    return eer


def bin_of(probability: Array) -> NDArray[np.intp]:
    """Return the bin of each probability, 0 to `BINS` - 1; a bin holds its lower edge."""
    return np.digitize(probability, EDGES[1:-1])


def _ece(sample: Sample) -> float:
    """Return the expected calibration error (Naeini et al. 2015) over `BINS` equal bins.

    The mean of |share of fakes - mean P(fake)| of the bins, weighted by how many are in them.
    """
    if not len(sample.fake):
        return math.nan
    excess = np.bincount(bin_of(sample.probability), sample.probability - sample.fake, BINS)
    return float(np.abs(excess).sum() / len(sample.fake))


def prepare(sample: Sample) -> Callable[[Array], dict[str, Array]]:
    """Return a function from weights of the videos, (B, N), to their figures, (B,) each.

    The same figures as `measure` gives where a video is repeated as often as its weight says, a
    thousand times as fast: the bootstrap asks for them that often. Tests hold the two together.
    """
    p = sample.probability
    fake, called = sample.fake == 1, p >= THRESHOLD
    loss = -np.log(np.where(fake, clip(p), 1 - clip(p)))
    in_bin = (bin_of(p)[:, None] == np.arange(BINS)) * (p - sample.fake)[:, None]
    sums = np.stack([fake, ~fake, fake & called, ~fake & called, loss * fake, loss * ~fake], axis=1)
    order = np.argsort(-sample.score, kind="stable")
    # Where the score changes: videos of one score are on the same side of every threshold.
    ends = np.flatnonzero(np.diff(sample.score[order], append=math.nan) != 0)

    def figures(weights: Array) -> dict[str, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            fakes, reals, tp, fp, fake_loss, real_loss = (weights @ sums).T
            total = fakes + reals
            share = fakes / total
            entropy = -(share * np.log(clip(share)) + (1 - share) * np.log(clip(1 - share)))
            return {
                **_ranked(weights[:, order], fake[order], ends),
                "log_loss": (fake_loss + real_loss) / total,
                "log_loss_prior": entropy,
                "balanced_log_loss": (fake_loss / fakes + real_loss / reals) / 2,
                "ece": np.abs(weights @ in_bin).sum(axis=1) / total,
                "accuracy": (tp + reals - fp) / total,
                "precision": tp / (tp + fp),
                "recall": tp / fakes,
                "f1": np.where(fakes > 0, 2 * tp / (fakes + tp + fp), math.nan),
                "fpr": fp / reals,
            }

    return figures


def _ranked(weights: Array, fake: NDArray[np.bool_], ends: NDArray[np.intp]) -> dict[str, Array]:
    """Return the figures that depend on the order alone; weights by falling score, (B, N)."""
    start = np.zeros((len(weights), 1))
    tp = np.hstack([start, np.cumsum(weights * fake, axis=1)[:, ends]])
    fp = np.hstack([start, np.cumsum(weights * ~fake, axis=1)[:, ends]])
    tpr, fpr = tp / tp[:, -1:], fp / fp[:, -1:]
    precision = np.where(tp + fp > 0, tp / (tp + fp), 0)
    both = (tp[:, -1] > 0) & (fp[:, -1] > 0)
    steps = np.diff(fpr, axis=1)
    values = {
        "auc": (steps * (tpr[:, 1:] + tpr[:, :-1])).sum(axis=1) / 2,
        "pr_auc": (np.diff(tpr, axis=1) * precision[:, 1:]).sum(axis=1),
        "eer": _eer(fpr, tpr),
        **{name: np.where(fpr <= rate, tpr, 0).max(axis=1) for name, rate in RATES.items()},
    }
    return {name: np.where(both, value, math.nan) for name, value in values.items()}
