"""Two models on the same videos: is one better, or is it chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.errors import DataError
from tellframe.evaluate.metrics import THRESHOLD, Array, measure, prepare
from tellframe.evaluate.rows import Row
from tellframe.evaluate.summary import (
    ALL,
    CROPS,
    interval_of,
    is_scored,
    resample,
    sample_rows,
)

COMPARED: Final = ("auc", "pr_auc", "log_loss", "balanced_log_loss", "accuracy")
LOWER_IS_BETTER: Final = ("log_loss", "balanced_log_loss")
_NOTHING: Final = "the two sets of scores have no scored video in common"


def compare_sets(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, dict[str, Any] | None]:
    """Compare two models on all videos and on all single crops, each by themselves.

    Pooled they would be one figure of neither, and of whichever are more.

    Args:
        rows: scored by the first model.
        others: scored by the second.

    Returns:
        What `compare` says by set, `ALL` and `CROPS`; None where both have scored nothing of it.

    Raises:
        DataError: they share nothing that is scored, or disagree about a label.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for name, still in ((ALL, False), (CROPS, True)):
        mine, yours = ([r for r in side if r.still is still] for side in (rows, others))
        if mine or yours:
            found[name] = _compare(mine, yours)
    if not any(found.values()):
        raise DataError(_NOTHING)
    return found


def compare(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, Any]:
    """Compare two models on the videos, or on the single crops, that both have scored.

    Differences are those of the first less the second, with a 95 % interval and a two-sided p from
    the same bootstrap: groups are drawn once for both models, so that what is hard for both
    cancels. p is twice the smaller share of resamples on either side of 0, and never below
    2 / (resamples + 1).

    Args:
        rows: scored by the first model.
        others: scored by the second.

    Returns:
        Numbers of videos, {figure: {first, second, difference, difference_95, p}}, and McNemar's
        test on the calls at 0.5.

    Raises:
        DataError: they share no scored video, or disagree about a label.
    """
    found = _compare(rows, others)
    if found is None:
        raise DataError(_NOTHING)
    return found


def require_common(rows: Sequence[Row], others: Sequence[Row]) -> None:
    """Raise unless two models can be compared, as far as that is known before they have scored.

    Raises:
        DataError: they share no video and no single crop, or disagree about a label.
    """
    if not _pair(rows, others):
        raise DataError(
            f"no video in common: the first model's are named as {rows[0].path}, the second's as "
            f"{others[0].path}"
        )


def _pair(rows: Sequence[Row], others: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return the rows that both have, scored or not."""
    theirs = {(r.path, r.still): r for r in others}
    both = [(r, theirs[r.path, r.still]) for r in rows if (r.path, r.still) in theirs]
    for one, other in both:
        if one.fake is not other.fake:
            raise DataError(f"{one.path}: the two sets of scores give it different labels")
    return both


def _compare(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, Any] | None:
    """Return what `compare` does; None where both have scored nothing in common."""
    both = _pair(rows, others)
    pairs = [(a, b) for a, b in both if is_scored(a) and is_scored(b)]
    if not pairs:
        return None
    first, second = (sample_rows(side) for side in zip(*pairs, strict=True))
    of_first, of_second = prepare(first), prepare(second)

    def differences(weights: Array) -> dict[str, Array]:
        mine, yours = of_first(weights), of_second(weights)
        return {name: mine[name] - yours[name] for name in COMPARED}

    resampled = resample([a.group for a, _ in pairs], differences)
    values = measure(first), measure(second)
    return {
        "n": len(pairs),
        "n_first_only": len(rows) - len(both),
        "n_second_only": len(others) - len(both),
        "n_not_scored": len(both) - len(pairs),
        "figures": {
            name: _difference(values[0][name], values[1][name], resampled.get(name))
            for name in COMPARED
        },
        "mcnemar": _mcnemar(
            (first.probability >= THRESHOLD) == first.fake,
            (second.probability >= THRESHOLD) == second.fake,
        ),
    }


def _difference(first: float, second: float, resampled: Array | None) -> dict[str, Any]:
    def rounded(value: float) -> float | None:
        return round(value, 6) if math.isfinite(value) else None

    bounds = p = None
    if resampled is not None and math.isfinite(first - second):
        bounds = interval_of(resampled)
        finite = resampled[np.isfinite(resampled)]
        smaller = min((finite <= 0).sum(), (finite >= 0).sum())
        p = min(1.0, 2 * (int(smaller) + 1) / (len(finite) + 1)) if bounds else None
    return {
        "first": rounded(first),
        "second": rounded(second),
        "difference": rounded(first - second),
        "difference_95": bounds and [rounded(b) for b in bounds],
        "p": p and rounded(p),
    }


def _mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return McNemar's exact test (McNemar 1947): the calls on which only one model is right.

    It takes videos for independent, so that it is too sure of itself where groups are large.
    """
    first_only = int((first_right & ~second_right).sum())
    second_only = int((second_right & ~first_right).sum())
    n, k = first_only + second_only, min(first_only, second_only)
    terms = [_log_binomial(n, i) - n * math.log(2) for i in range(k + 1)]
    p = min(1.0, 2 * float(np.exp(np.logaddexp.reduce(terms))))
    return {"only_first_right": first_only, "only_second_right": second_only, "p": round(p, 6)}


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
