"""All that is known of one evaluation, as JSON-ready facts; the page says nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from tellframe.evaluate.calibration import sources_of
from tellframe.evaluate.compare import compare_sets
from tellframe.evaluate.definitions import CONVENTIONS, FIGURES
from tellframe.evaluate.metrics import (
    BINS,
    CLIP,
    EDGES,
    THRESHOLD,
    Array,
    Sample,
    bin_of,
    pr_curve,
    roc_curve,
)
from tellframe.evaluate.rows import Row, write_scores
from tellframe.evaluate.strata import find_strata
from tellframe.evaluate.summary import (
    ALL,
    CROPS,
    NOT_SCORED,
    RESAMPLES,
    SEED,
    interval_of,
    is_scored,
    markdown,
    resample,
    sample_rows,
    tables,
)
from tellframe.report.files import open_replacing

FORMAT: Final = 2
"""Version of report.json; raised when a key changes meaning. Version 1 compared videos and single
crops as one."""
_RUN_KEPT: Final = (1, FORMAT)
"""Versions whose `Run` is the same."""
SCORES: Final = ("scores.csv", "scores_against.csv")
"""Files of the rows: of the model, and of the one that it is compared with."""
FILES: Final = (*SCORES, "report.json", "table.md", "index.html")
"""All that a report may consist of."""
_POINTS: Final = 400
"""Most points of a curve."""
_BARS: Final = 20
"""Bars of the histogram of P(fake)."""

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured, and on what."""

    model: str
    """Name, version and digest; or the file of scores."""
    source: str
    """The labelled videos."""
    split: str = ""
    """Empty where it is not known."""
    unlabelled: int = 0
    """Videos left out because nobody says what they are."""
    recipe_digest: str = ""
    fake_from: float | None = None
    """Verdict FAKE from this P(fake) on; None where it is not known."""
    real_to: float | None = None
    """Verdict REAL up to this."""
    calibration: str = ""
    """What it was fitted on."""


@dataclass(frozen=True, slots=True)
class Result:
    """Scored rows of one model."""

    run: Run
    rows: tuple[Row, ...]


def build_report(results: Sequence[Result]) -> dict[str, Any]:
    """Return the facts of an evaluation.

    Args:
        results: of one model, or of two that are compared.

    Returns:
        format, tellframe; method: all constants; conventions and definitions in words; results: a
        list with, for each model, run (as `Run`), outcomes (videos by `Outcome` and class), sets
        ({name: figures}), strata ({kind: [{name, figures}]}, see `find_strata`) and curves;
        comparison: as `compare_sets` returns, or None. Figures are those of `summarise`: a number
        NAME and its interval NAME_95, [low, high], both None where they are undefined.
    """
    return {
        "format": FORMAT,
        "tellframe": version("tellframe"),
        "method": {
            "threshold": THRESHOLD,
            "clip": CLIP,
            "calibration_bins": BINS,
            "not_scored": NOT_SCORED,
            "resamples": RESAMPLES,
            "seed": SEED,
        },
        "conventions": list(CONVENTIONS),
        "definitions": {name: meaning for name, (_, meaning) in FIGURES.items()},
        "results": [_describe(result) for result in results],
        "comparison": compare_sets(*(r.rows for r in results)) if len(results) > 1 else None,
    }


def _describe(result: Result) -> dict[str, Any]:
    videos = [r for r in result.rows if not r.still] or list(result.rows)
    run = {name: getattr(result.run, name) for name in Run.__dataclass_fields__}
    seen = sources_of(result.run.calibration, result.run.source, result.run.split)
    return {
        "run": run,
        "outcomes": _count_outcomes(videos),
        "sets": tables(result.rows, seen),
        "strata": find_strata(result.rows),
        "curves": _draw_curves([r for r in videos if is_scored(r)]),
    }


def _count_outcomes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    counts = Counter((r.outcome or "unknown", "FAKE" if r.fake else "REAL") for r in rows)
    return [
        {"name": name, "REAL": counts[name, "REAL"], "FAKE": counts[name, "FAKE"]}
        for name in sorted({name for name, _ in counts})
    ]


def _draw_curves(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the curves of scored rows; None where a class is missing."""
    sample = sample_rows(rows)
    roc = pr = None
    if sample.classes == 2:
        fpr, tpr = roc_curve(sample)
        roc = _thin({"fpr": fpr, "tpr": tpr}, fpr + tpr)
        recall, precision = pr_curve(sample)
        pr = _thin({"recall": recall, "precision": precision}, recall)
    edges = np.arange(_BARS + 1) / _BARS
    return {
        "roc": roc,
        "precision_recall": pr,
        "reliability": _draw_reliability(sample, [r.group for r in rows]),
        "histogram": {
            "edges": edges.tolist(),
            **{
                name: np.histogram(sample.probability[sample.fake == c], edges)[0].tolist()
                for c, name in enumerate(("REAL", "FAKE"))
            },
        },
    }


def _thin(curve: Mapping[str, Array], along: Array) -> dict[str, list[float]]:
    """Return a curve by at most `_POINTS` of its points, evenly spaced along an ascending value."""
    wanted = np.linspace(along[0], along[-1], _POINTS - 1)
    kept = np.unique([0, *np.searchsorted(along, wanted).clip(max=len(along) - 1)])
    return {name: values[kept].round(6).tolist() for name, values in curve.items()}


def _draw_reliability(sample: Sample, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Return the bins that hold a video: its mean P(fake) beside the share of fakes."""
    member = bin_of(sample.probability)[:, None] == np.arange(BINS)

    def share(weights: Array) -> dict[str, Array]:
        with np.errstate(invalid="ignore"):
            shares = (weights @ (member * sample.fake[:, None])) / (weights @ member)
        return {str(b): shares[:, b] for b in range(BINS)}

    resampled = resample(groups, share)
    bins = []
    for b in np.flatnonzero(member.any(axis=0)).tolist():
        inside = member[:, b]
        bounds = interval_of(resampled[str(b)]) if resampled else None
        bins.append(
            {
                "low": round(float(EDGES[b]), 6),
                "high": round(float(EDGES[b + 1]), 6),
                "n": int(inside.sum()),
                "mean_probability": round(float(sample.probability[inside].mean()), 6),
                "share_fake": round(float(sample.fake[inside].mean()), 6),
                "share_fake_95": bounds and [round(x, 6) for x in bounds],
            }
        )
    return bins


def write_report(results: Sequence[Result], folder: Path) -> dict[str, Any]:
    """Write index.html, report.json, table.md and the scores; return the facts.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: two models cannot be compared; their scores are written all the same.
        OSError: a file cannot be written.
    """
    from tellframe.evaluate.page import draw_page

    folder.mkdir(parents=True, exist_ok=True)
    for result, name in zip(results, SCORES, strict=False):
        write_scores(result.rows, folder / name, result.run.model)
    facts = build_report(results)
    texts = {
        "report.json": json.dumps(facts, indent=1, allow_nan=False) + "\n",
        "table.md": markdown(facts["results"][0]["sets"]),
        "index.html": draw_page(facts),
    }
    for name, text in texts.items():
        with open_replacing(folder / name) as stream:
            stream.write(text)
    return facts


def find_overall(result: Facts) -> dict[str, Any]:
    """Return the figures of all videos, or of all single crops where there is no video."""
    sets: dict[str, dict[str, Any]] = result["sets"]
    first = next(iter(sets))  # of single crops of one source alone, which are all
    return sets[next((name for name in (ALL, CROPS) if name in sets), first)]


def read_run(scores: Path) -> Run | None:
    """Return what a file of scores was measured on, by the report beside it; None without one."""
    path = scores.with_name("report.json")
    if scores.name not in SCORES or not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] not in _RUN_KEPT:
            return None
        return Run(**facts["results"][SCORES.index(scores.name)]["run"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None  # the scores alone are enough
