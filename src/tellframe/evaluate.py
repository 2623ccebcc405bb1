"""Measure a detector on labelled videos, and fit its calibration.

A set of labelled videos is a CSV with the columns path, label (REAL or FAKE), source, method,
group, pair and split; paths are relative to it. Intervals are bootstrapped over groups, because
clips of one group are no independent witnesses.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellframe.detector import Detector
from tellframe.errors import ConfigError, MediaError, UsageError
from tellframe.scoring import Calibration, fit_calibration
from tellframe.types import Label, Verdict

COLUMNS: Final = ("path", "label", "source", "method", "group", "pair", "split")
MIN_OF_CLASS: Final = 3
"""Reals and fakes that a source must have at least to take part in calibration."""
RESAMPLES: Final = 1000
"""Bootstrap resamples for an interval."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled video."""

    path: str
    """Relative to the CSV."""
    fake: bool
    source: str
    method: str
    group: str
    pair: str
    """Empty where the video belongs to no pair."""
    logit: float | None = None
    """The model's logit of the most suspicious person; None where nothing was scored."""
    probability: float | None = None
    """Calibrated P(fake) of the video."""
    label: Label = Label.INCONCLUSIVE
    """The verdict."""
    reasons: tuple[str, ...] = ()
    """Its reason codes."""
    people: int = 0
    """Number of people found."""
    still: bool = False
    """Whether it is a single face crop and no video."""


def read_labels(path: str | Path, split: str) -> list[Row]:
    """Read the labelled videos of one split.

    Raises:
        ConfigError: the file cannot be read, lacks a column, or has no row of the split.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"{path}: lacks the columns {', '.join(missing)}")
            records = [r for r in reader if not split or r["split"] == split]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as labelled videos ({error})") from error
    if not records:
        raise ConfigError(f"{path}: holds no video of the split {split!r}")
    return [
        Row(r["path"], r["label"] == "FAKE", r["source"], r["method"], r["group"], r["pair"])
        for r in records
    ]


def score_rows(detector: Detector, rows: Sequence[Row], root: Path) -> Iterator[Row]:
    """Judge labelled videos; yields the rows with their scores."""
    for row in rows:
        try:
            verdict = detector.detect(root / row.path)
        except MediaError:
            yield dataclasses.replace(row, reasons=("unreadable",))
            continue
        yield _scored(row, verdict, detector.bundle.calibration)


@dataclass(frozen=True, slots=True)
class Still:
    """One labelled face crop."""

    file: str
    fake: bool
    original: str
    """The real crop's name without suffix; an original and its fakes are one group and one pair."""
    data: bytes
    """The encoded picture."""


def read_stills(path: str | Path) -> Iterator[Still]:
    """Read a zip of face crops with a labels.csv: file, label (REAL or FAKE), original.

    Raises:
        ConfigError: the zip cannot be read as such.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("labels.csv") as raw:
                records = list(csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")))
            for r in records:
                yield Still(r["file"], r["label"] == "FAKE", r["original"], archive.read(r["file"]))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read as a zip of face crops ({error})") from error


def score_stills(detector: Detector, path: str | Path) -> Iterator[Row]:
    """Score single face crops, each seen whole at the recipe's size; yields one row a crop.

    Raises:
        ConfigError: the zip cannot be read as one of labelled crops, see `read_stills`.
    """
    size = detector.recipe.crop_size
    for still in read_stills(path):
        try:
            picture = Image.open(io.BytesIO(still.data)).convert("RGB").resize((size, size))
        except OSError as error:
            raise ConfigError(f"{path}: {still.file} is no picture ({error})") from error
        logit = float(detector.score(np.asarray(picture)[None])[0][0])
        probability = float(detector.bundle.calibration.probability(logit))
        yield Row(
            path=still.file,
            fake=still.fake,
            source=f"{Path(path).stem} (single crops)",
            method="",
            group=still.original,
            pair=still.original,
            logit=logit,
            probability=probability,
            label=detector.bundle.decision.label(probability),
            people=1,
            still=True,
        )


def _scored(row: Row, verdict: Verdict, calibration: Calibration) -> Row:
    logit = None
    if verdict.probability is not None:
        logit = calibration.logit(verdict.probability)
    return dataclasses.replace(
        row,
        logit=logit,
        probability=verdict.probability,
        label=verdict.label,
        reasons=tuple(str(r) for r in verdict.reasons),
        people=len(verdict.people),
    )


def in_calibration_half(group: str) -> bool:
    """Say whether a group is one that calibration may see; depends on its name alone."""
    return hashlib.sha256(f"calibration:{group}".encode()).digest()[0] < 128


def calibrate(rows: Sequence[Row], description: str) -> Calibration:
    """Fit the calibration on the scored videos of the calibration groups.

    Only sources with at least `MIN_OF_CLASS` reals and as many fakes count: where a source has one
    class, its quirks would pass for the label. Each of them weighs the same, however large.

    Args:
        rows: scored.
        description: names the data in the bundle.

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
    labels = np.array([int(r.fake) for r in used])
    weights = np.array([1 / counts[r.source, r.fake] for r in used])
    logits = np.array([r.logit for r in used], dtype=np.float64)
    listed = ", ".join(f"{s} ({counts[s, False] + counts[s, True]})" for s in sorted(sources))
    return fit_calibration(logits, labels, f"{description}: {listed}", weights=weights)


def recalibrated(rows: Sequence[Row], calibration: Calibration) -> list[Row]:
    """Return scored rows with the probabilities of another calibration; verdicts stay as given."""
    return [
        row
        if row.logit is None
        else dataclasses.replace(row, probability=float(calibration.probability(row.logit)))
        for row in rows
    ]


def auc(labels: Array, scores: Array) -> float:
    """Return the area under the ROC curve: the chance that a fake scores above a real.

    Args:
        labels: shape (N,), 1 = fake.
        scores: shape (N,).

    Returns:
        0 to 1, ties counted half; NaN where a class is missing.
    """
    fake, real = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(fake) or not len(real):
        return math.nan
    below = np.searchsorted(real, fake, "left")
    upto = np.searchsorted(real, fake, "right")
    return float((below + upto).mean() / 2 / len(real))


def balanced_log_loss(labels: Array, probabilities: Array) -> float:
    """Return the mean of the classes' mean log losses; 0.6931 is what a constant 0.5 reaches.

    Args:
        labels: shape (N,), 1 = fake.
        probabilities: shape (N,), P(fake); clipped to [1e-6, 1 - 1e-6].

    Returns:
        NaN where a class is missing.
    """
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    fake, real = p[labels == 1], p[labels == 0]
    if not len(fake) or not len(real):
        return math.nan
    return float((-np.log(fake).mean() - np.log(1 - real).mean()) / 2)


def pair_ranking(rows: Sequence[Row]) -> tuple[float, int]:
    """Return the share of pairs whose fake scores above its own real, and their number."""
    reals = {r.pair: r.logit for r in rows if r.pair and not r.fake and r.logit is not None}
    wins = [
        float(r.logit > reals[r.pair]) + 0.5 * float(r.logit == reals[r.pair])
        for r in rows
        if r.fake and r.logit is not None and r.pair in reals
    ]
    return (float(np.mean(wins)), len(wins)) if wins else (math.nan, 0)


def interval(
    rows: Sequence[Row], statistic: Callable[[Sequence[Row]], float], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a statistic, resampling whole groups.

    Returns:
        (low, high); NaN where there is one group only, or the statistic is undefined in most
        resamples.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    members = list(groups.values())
    if len(members) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(members), size=len(members))
        # A group drawn twice is two groups, also to the pair ranking.
        sample = [
            dataclasses.replace(r, pair=f"{i}:{r.pair}" if r.pair else "")
            for i, d in enumerate(drawn)
            for r in members[d]
        ]
        values.append(statistic(sample))
    finite = [v for v in values if not math.isnan(v)]
    if len(finite) < RESAMPLES / 2:
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def _auc_of(rows: Sequence[Row]) -> float:
    scored = [r for r in rows if r.logit is not None]
    return auc(
        np.array([float(r.fake) for r in scored]),
        np.array([r.logit for r in scored], dtype=np.float64),
    )


def _log_loss_of(rows: Sequence[Row]) -> float:
    scored = [r for r in rows if r.probability is not None]
    return balanced_log_loss(
        np.array([float(r.fake) for r in scored]),
        np.array([r.probability for r in scored], dtype=np.float64),
    )


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of one set of scored videos.

    AUC, balanced log loss and pair ranking have 95 % intervals; NaN becomes None.
    """

    def finite(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 4)

    _, num_pairs = pair_ranking(rows)
    statistics: dict[str, Callable[[Sequence[Row]], float]] = {
        "auc": _auc_of,
        "log_loss": _log_loss_of,
        "pair_ranking": lambda some: pair_ranking(some)[0],
    }
    result: dict[str, Any] = {
        "n": len(rows),
        "n_fake": sum(r.fake for r in rows),
        "n_pairs": num_pairs,
        "groups": len({r.group for r in rows}),
        "coverage": finite(sum(r.logit is not None for r in rows) / len(rows)),
        "verdicts": {
            f"{kind}_{label}": sum(r.label is label for r in rows if r.fake is fake)
            for kind, fake in (("real", False), ("fake", True))
            for label in Label
        },
    }
    for name, statistic in statistics.items():
        result[name] = finite(statistic(rows))
        low, high = interval(rows, statistic) if result[name] is not None else (math.nan, math.nan)
        result[f"{name}_95"] = None if math.isnan(low) else [finite(low), finite(high)]
    return result


def tables(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return the figures overall, by source, and of the groups that calibration did not see."""
    videos = [r for r in rows if not r.still]
    sets: dict[str, list[Row]] = {"all videos": videos}
    sets["all videos of the groups that calibration did not see"] = [
        r for r in videos if not in_calibration_half(r.group)
    ]
    for row in rows:
        sets.setdefault(row.source, []).append(row)
    return {name: summarise(members) for name, members in sets.items() if members}


def markdown(figures: dict[str, dict[str, Any]]) -> str:
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
            f"| {name} | {f['n']} ({f['n_fake']}) | {f['coverage']:.3f} "
            f"| {cell(f['auc'], f['auc_95'])} | {cell(f['log_loss'], f['log_loss_95'])} "
            f"| {cell(f['pair_ranking'], f['pair_ranking_95'])} of {f['n_pairs']} "
            f"| {v['real_FAKE']} of {f['n'] - f['n_fake']} | {v['fake_REAL']} of {f['n_fake']} "
            f"| {v['real_INCONCLUSIVE'] + v['fake_INCONCLUSIVE']} |"
        )
    return "\n".join(lines) + "\n"
