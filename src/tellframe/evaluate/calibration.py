"""Fit what turns a bundle's logits into probabilities, and probabilities into verdicts.

Only half of the groups is looked at; `tables` measures the other half apart.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tellframe.errors import UsageError
from tellframe.evaluate.metrics import THRESHOLD, Array
from tellframe.evaluate.rows import Row, in_calibration_half
from tellframe.scoring import Calibration, Decision, fit_calibration
from tellframe.types import Label, Reason

MIN_OF_CLASS: Final = 3
"""Reals and fakes that a source must have at least to take part in calibration."""


def choose_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the scored videos of the calibration groups that take part.

    Only sources with at least `MIN_OF_CLASS` reals and as many fakes count: where a source has one
    class, its quirks would pass for the label.

    Raises:
        UsageError: there is no such source.
    """
    seen = [r for r in rows if r.logit is not None and in_calibration_half(r.group)]
    counts = Counter((r.source, r.fake) for r in seen)
    sources = {s for s, _ in counts if min(counts[s, False], counts[s, True]) >= MIN_OF_CLASS}
    used = [r for r in seen if r.source in sources]
    if not used:
        raise UsageError(
            f"calibration needs a source with at least {MIN_OF_CLASS} scored real and as many fake "
            "videos in its half of the groups; label more videos"
        )
    return used


def calibrate(
    rows: Sequence[Row],
    description: str,
    *,
    method: str = "platt",
    prior_train: float = 0.5,
    prior_use: float = 0.5,
) -> Calibration:
    """Fit the calibration on the scored videos of the calibration groups.

    Every source weighs the same, however large, and in it both classes do.

    Args:
        rows: scored.
        description: names the data in the bundle.
        method: see `fit_calibration`.
        prior_train: see `Calibration`.
        prior_use: see `Calibration`.

    Raises:
        UsageError: no source has both classes, or the model tells them apart the wrong way round.
    """
    used = choose_rows(rows)
    counts = Counter((r.source, r.fake) for r in used)
    fitted = fit_calibration(
        np.array([r.logit for r in used], dtype=np.float64),
        np.array([int(r.fake) for r in used]),
        f"{description}: {_list_sources(counts)}",
        weights=np.array([1 / counts[r.source, r.fake] for r in used]),
        method=method,
    )
    if fitted.slope <= 0:
        raise UsageError(
            f"the fitted slope is {fitted.slope:.3f}: on these videos reals score no lower than "
            "fakes, which no calibration mends"
        )
    return dataclasses.replace(fitted, prior_train=prior_train, prior_use=prior_use)


def _list_sources(counts: Counter[tuple[str, bool]]) -> str:
    sources = sorted({source for source, _ in counts})
    return ", ".join(f"{s} ({counts[s, False] + counts[s, True]})" for s in sources)


def describe_data(source: str, split: str) -> str:
    """Return what `calibrate` is told that it fits to; `sources_of` finds it again."""
    return f"half of the groups of {source} {split}".rstrip()


def sources_of(fitted_on: str, source: str, split: str) -> set[str]:
    """Return the sources of labelled videos half of whose groups a calibration was fitted to.

    Args:
        fitted_on: of the calibration.
        source: name of the labelled videos.
        split: of these.

    Returns:
        Their names; none where it was fitted to others, to another split of them, or not at all.
    """
    begin = f"{describe_data(source, split)}: "
    if not fitted_on.startswith(begin):
        return set()
    listed = fitted_on.removeprefix(begin)
    return set(re.findall(r"(.*?) \(\d+\)(?:, |$)", listed, re.DOTALL))


def recalibrated(rows: Sequence[Row], calibration: Calibration, decision: Decision) -> list[Row]:
    """Return scored rows with the probabilities and verdicts of another calibration.

    The same as scoring the videos again: a calibration keeps the order of people, so that the most
    suspicious one stays who decides.
    """
    return [_recalibrated(row, calibration, decision) for row in rows]


_NOT_JUDGED: Final = frozenset(
    (
        Reason.NO_FACE,
        Reason.UNREADABLE,
        Reason.TOO_FEW_FRAMES,
        Reason.TOO_SMALL,
        Reason.DEGRADED,
    )
)
"""Reasons of a video of which nobody could be judged."""


def _recalibrated(row: Row, calibration: Calibration, decision: Decision) -> Row:
    if row.logit is None:
        return row
    probability = float(calibration.probability(row.logit))
    verdict = decision.label(probability)
    reasons = tuple(r for r in row.reasons if r != Reason.UNCERTAIN)
    # Judged and certain, it was inconclusive for a face that could not be judged and looks fake.
    shadowed = (
        row.verdict is Label.INCONCLUSIVE
        and Reason.UNCERTAIN not in row.reasons
        and Reason.PERSON_NOT_JUDGED in row.reasons
    )
    if _NOT_JUDGED & set(reasons) or (shadowed and verdict is Label.REAL):
        verdict = Label.INCONCLUSIVE
    elif verdict is Label.INCONCLUSIVE and not row.still:
        reasons = (Reason.UNCERTAIN.value, *reasons)
    return dataclasses.replace(row, probability=probability, verdict=verdict, reasons=reasons)


@dataclass(frozen=True, slots=True)
class Errors:
    """How many videos a pair of limits gets wrong."""

    reals: int
    false_alarms: int
    """Reals called FAKE."""
    fakes: int
    missed: int
    """Fakes called REAL."""
    undecided: int
    """Videos of both classes called INCONCLUSIVE."""


def choose_limits(
    rows: Sequence[Row], false_alarm_rate: float, miss_rate: float, decision: Decision
) -> Decision:
    """Choose the inconclusive zone so that few videos are called wrongly.

    The zone reaches from 0.5 upwards as far as needed for at most `false_alarm_rate` of the reals
    to be called FAKE, and downwards for at most `miss_rate` of the fakes REAL. The limit lies
    half-way between the highest real that must not be called FAKE and the next one that may be (or
    1); so below. What holds on these videos holds on others only as far as they are alike.

    Args:
        rows: those of `choose_rows`, with the probabilities of the new calibration.
        false_alarm_rate: from 0 to below 0.5.
        miss_rate: likewise.
        decision: whose other numbers stay.
    """
    real = np.array([r.probability for r in rows if not r.fake], dtype=np.float64)
    fake = np.array([r.probability for r in rows if r.fake], dtype=np.float64)
    return dataclasses.replace(
        decision,
        fake_from=_limit(real, false_alarm_rate, 1.0),
        real_to=_limit(fake, miss_rate, 0.0),
    )


def _limit(values: Array, rate: float, end: float) -> float:
    """Return a limit, from `THRESHOLD` towards an end, beyond which lie at most `rate` of values.

    Args:
        values: probabilities strictly between 0 and 1.
        rate: share of them.
        end: 1 or 0.
    """
    outward = np.sort(values)[::-1] if end else np.sort(values)
    kept_in = outward[math.floor(rate * len(outward))]
    if (kept_in < THRESHOLD) if end else (kept_in > THRESHOLD):
        return THRESHOLD
    beyond = outward[outward > kept_in] if end else outward[outward < kept_in]
    nearest = float(beyond[-1]) if len(beyond) else end
    middle = (float(kept_in) + nearest) / 2
    for limit in (round(middle, 4), middle):
        if min(kept_in, nearest) < limit < max(kept_in, nearest):
            return limit
    return nearest


def count_errors(rows: Sequence[Row], decision: Decision) -> Errors:
    """Count what limits call wrongly, by the probability alone."""
    scored = [r for r in rows if r.probability is not None]
    calls = Counter((r.fake, decision.label(r.probability or 0.0).value) for r in scored)
    return Errors(
        reals=sum(not r.fake for r in scored),
        false_alarms=calls[False, "FAKE"],
        fakes=sum(r.fake for r in scored),
        missed=calls[True, "REAL"],
        undecided=calls[True, "INCONCLUSIVE"] + calls[False, "INCONCLUSIVE"],
    )
