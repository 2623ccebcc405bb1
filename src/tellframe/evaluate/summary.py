"""All figures of a set of scored videos with their intervals: overall, by source, by stratum.

Intervals are bootstrapped over groups, because videos of one group are no independent witnesses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import numpy as np

from tellframe.evaluate.metrics import (
    Array,
    Sample,
    clip,
    confusion,
    measure,
    prepare,
    rank_pairs,
    sample_of,
)
from tellframe.evaluate.rows import Row, in_calibration_half
from tellframe.report.words import printable
from tellframe.types import Label

RESAMPLES: Final = 1000
"""Bootstrap resamples for an interval."""
SEED: Final = 0
NOT_SCORED: Final = 0.5
"""What a video without a score is taken to be said of, where it counts: it claims nothing, and
needs no knowledge of how common fakes are. `tellframe submit` says the same by default."""
ALL: Final = "all videos"
CROPS: Final = "all single crops"
UNSEEN: Final = "{} of the groups that calibration did not see"
_CHUNK: Final = 2**22
"""Weights that are held at a time."""

Figures = dict[str, Any]
"""What `summarise` returns."""


def is_scored(row: Row) -> bool:
    """Say whether anything in the video was scored."""
    return row.logit is not None and row.probability is not None


def sample_rows(rows: Sequence[Row]) -> Sample:
    """Return scored rows as arrays."""
    return sample_of(
        [r.fake for r in rows],
        np.array([r.logit for r in rows], np.float64),
        np.array([r.probability for r in rows], np.float64),
    )


def draw_weights(groups: Sequence[str], seed: int = SEED) -> Iterator[Array]:
    """Draw whole groups with replacement, `RESAMPLES` times.

    Args:
        groups: of the videos, (N,).
        seed: of the generator.

    Yields:
        How often each video was drawn, (B, N), some resamples at a time.
    """
    numbers: dict[str, int] = {}
    member = np.array([numbers.setdefault(g, len(numbers)) for g in groups], np.intp)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(len(groups), 1))
    for first in range(0, RESAMPLES, step):
        drawn = [
            np.bincount(rng.integers(len(numbers), size=len(numbers)), minlength=len(numbers))
            for _ in range(min(step, RESAMPLES - first))
        ]
        yield np.stack(drawn)[:, member].astype(np.float64)


def resample(
    groups: Sequence[str], statistic: Callable[[Array], dict[str, Array]], seed: int = SEED
) -> dict[str, Array]:
    """Return statistics of resampled groups, (RESAMPLES,) each; of nothing where one is all.

    Args:
        groups: of the videos, (N,).
        statistic: from weights, (B, N), to figures, (B,) each.
        seed: of the generator.
    """
    if len(set(groups)) < 2:
        return {}
    parts = [statistic(weights) for weights in draw_weights(groups, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval_of(values: Array) -> tuple[float, float] | None:
    """Return the 95 % percentile interval; None where most resamples have no such figure."""
    finite = values[np.isfinite(values)]
    if len(finite) < RESAMPLES / 2:
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def _shares(rows: Sequence[Row]) -> dict[str, tuple[Array, Array]]:
    """Return figures that are means: the values of the videos, and which of them count."""
    fake = np.array([r.fake for r in rows])
    scored = np.array([is_scored(r) for r in rows])
    verdict = {label: np.array([r.verdict is label for r in rows]) for label in Label}
    everyone = np.ones(len(rows))
    p = np.array([NOT_SCORED if r.probability is None else r.probability for r in rows])
    loss = -np.log(np.where(fake, clip(p), 1 - clip(p)))
    reals = {r.pair: r.logit for r in rows if r.pair and not r.fake and r.logit is not None}
    paired = np.array([r.fake and r.logit is not None and r.pair in reals for r in rows])
    wins = np.zeros(len(rows))
    some = [r for r, one in zip(rows, paired, strict=True) if one]
    wins[paired] = rank_pairs([reals[r.pair] for r in some], [r.logit for r in some])  # type: ignore[arg-type]
    return {
        "coverage": (scored, everyone),
        "log_loss_all": (loss, everyone),
        "pair_ranking": (wins, paired),
        "false_alarm_rate": (verdict[Label.FAKE], ~fake),
        "miss_rate": (verdict[Label.REAL], fake),
        "inconclusive_rate": (verdict[Label.INCONCLUSIVE], everyone),
    }


def summarise(rows: Sequence[Row]) -> Figures:
    """Return the figures of one set of scored videos.

    Args:
        rows: at least one.

    Returns:
        Counts, and every figure NAME with its 95 % interval NAME_95; None where it is undefined.
    """
    scored = np.array([is_scored(r) for r in rows])
    sample = sample_rows([r for r in rows if is_scored(r)])
    shares = _shares(rows)
    values = measure(sample) | {
        name: float(of[counted > 0].mean()) if counted.any() else math.nan
        for name, (of, counted) in shares.items()
    }
    ranked = prepare(sample)

    def statistic(weights: Array) -> dict[str, Array]:
        with np.errstate(invalid="ignore"):
            means = {
                name: (weights @ (of * counted)) / (weights @ counted)
                for name, (of, counted) in shares.items()
            }
        return ranked(weights[:, scored]) | means

    resampled = resample([r.group for r in rows], statistic)
    result = _count(rows, sample) | {"n_pairs": int(shares["pair_ranking"][1].sum())}
    for name, value in values.items():
        result[name] = _rounded(value)
        bounds = interval_of(resampled[name]) if resampled and math.isfinite(value) else None
        result[f"{name}_95"] = bounds and [_rounded(b) for b in bounds]
    return result


def _count(rows: Sequence[Row], sample: Sample) -> Figures:
    found = confusion(sample)
    return {
        "n": len(rows),
        "n_fake": sum(r.fake for r in rows),
        "n_scored": len(sample.fake),
        "groups": len({r.group for r in rows}),
        "verdicts": {
            f"{kind}_{label}": sum(r.verdict is label for r in rows if r.fake is fake)
            for kind, fake in (("real", False), ("fake", True))
            for label in Label
        },
        "confusion": {name: getattr(found, name) for name in ("tp", "fn", "fp", "tn")},
    }


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def tables(rows: Sequence[Row], calibrated: Collection[str] = ()) -> dict[str, Figures]:
    """Return the figures overall, by source, and of the groups that calibration did not see.

    Args:
        rows: scored; those without a source are among all alone.
        calibrated: sources half of whose groups the calibration has seen; see
            `tellframe.evaluate.calibration.sources_of`.
    """
    crops = [r for r in rows if r.still]
    sets: dict[str, list[Row]] = {ALL: [r for r in rows if not r.still]}
    for row in rows:
        if row.source:
            sets.setdefault(row.source, []).append(row)
    if len({r.source for r in crops}) > 1 or not all(r.source for r in crops):
        sets[CROPS] = crops
    for name in (ALL, *sorted({r.source for r in crops if r.source})):
        if {r.source for r in sets[name]} & set(calibrated):
            sets[UNSEEN.format(name)] = [r for r in sets[name] if not in_calibration_half(r.group)]
    return {name: summarise(members) for name, members in sets.items() if members}


def markdown(figures: dict[str, Figures]) -> str:
    """Return the figures as a Markdown table."""

    def cell(value: float | None, bounds: list[float] | None = None) -> str:
        if value is None:
            return "-"
        return f"{value:.3f}" + (f" ({bounds[0]:.2f}-{bounds[1]:.2f})" if bounds else "")

    lines = [
        "| source | videos (fake) | coverage | AUC | balanced log loss | fake above its own real |"
        " REAL called FAKE | FAKE called REAL | inconclusive |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, f in figures.items():
        v = f["verdicts"]
        lines.append(
            f"| {printable(name)} | {f['n']} ({f['n_fake']}) | {f['coverage']:.3f} "
            f"| {cell(f['auc'], f['auc_95'])} "
            f"| {cell(f['balanced_log_loss'], f['balanced_log_loss_95'])} "
            f"| {cell(f['pair_ranking'], f['pair_ranking_95'])} of {f['n_pairs']} "
            f"| {v['real_FAKE']} of {f['n'] - f['n_fake']} | {v['fake_REAL']} of {f['n_fake']} "
            f"| {v['real_INCONCLUSIVE'] + v['fake_INCONCLUSIVE']} |"
        )
    return "\n".join(lines) + "\n"
