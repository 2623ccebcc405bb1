"""A look at a data set: what its manifest says, and what a sample of its videos shows.

`describe` returns every number as one dictionary of JSON values; the page draws nothing else:

    format, tellframe, recipe, recipe_digest
    manifest   from all rows: videos, bytes, without_size, labels, divided_by ("part" or "source"),
               divisions, sources, methods (fakes only), splits, groups, originals, sizes
    sample     from the opened videos: seed, asked, videos, labels, outcomes, failures, no_face,
               several_people, partial, rotated, frames, dark, orientations, resolutions, codecs,
               containers; distributions of duration, num_frames, frame_rate, level, luma,
               faces_per_frame, people, face_size, confidence; rows, one an opened video, by name

Counts by class are {"REAL", "FAKE", "unknown"}. A table is a list of such counts with a "name",
the largest first. A distribution has n, min, median, max, scale ("linear", "log" or "steps"), the
edges of its bins and counts by class. Adding a key does not change the format; changing one does.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from tellframe.data.cut import Outcome, VideoRecord
from tellframe.data.eda_look import CLASSES, Look, class_of
from tellframe.data.manifest import Video
from tellframe.errors import DataError
from tellframe.recipe import Recipe
from tellframe.report.files import open_replacing

FORMAT: Final = 1
"""Version of the JSON; raised when a key changes meaning."""
MAX_BINS: Final = 30
"""Most bins of a distribution."""


def describe(
    videos: Sequence[Video],
    looks: Iterable[Look],
    recipe: Recipe,
    *,
    asked: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return all numbers as JSON values; the head of this module says which.

    Args:
        videos: the whole manifest.
        looks: at the sample.
        recipe: that was used.
        asked: how many videos were asked for; None for all.
        seed: of the sample.

    Raises:
        DataError: the manifest is empty.
    """
    if not videos:
        raise DataError("the manifest holds no video; make one with: tellframe index")
    return {
        "format": FORMAT,
        "tellframe": version("tellframe"),
        "recipe": recipe.to_dict(),
        "recipe_digest": recipe.digest,
        "manifest": _describe_manifest(videos),
        "sample": {
            "seed": seed,
            "asked": "all" if asked is None else asked,
            **_describe_sample(sorted(looks, key=lambda k: k.record.video), recipe),
        },
    }


def write_facts(facts: Mapping[str, Any], path: str | Path) -> None:
    """Write the facts as JSON; replaced only when complete.

    Raises:
        OSError: the file cannot be written.
    """
    with open_replacing(path) as stream:
        stream.write(json.dumps(facts, indent=1, allow_nan=False) + "\n")


def _describe_manifest(videos: Sequence[Video]) -> dict[str, Any]:
    def table(field: str, rows: Iterable[Video] = videos) -> list[dict[str, Any]]:
        return count_by((getattr(v, field), v.label) for v in rows)

    divided_by = "part" if len({v.part for v in videos}) > 1 else "source"
    return {
        "videos": len(videos),
        "bytes": sum(v.bytes for v in videos),
        "without_size": sum(not v.bytes for v in videos),
        "labels": _count_labels(v.label for v in videos),
        "divided_by": divided_by,
        "divisions": table(divided_by),
        "sources": table("source"),
        "methods": table("method", [v for v in videos if v.fake]),
        "splits": table("split"),
        "groups": _describe_groups(videos),
        "originals": _describe_originals(videos),
        "sizes": distribution(((v.label, v.bytes) for v in videos if v.bytes), scale="log"),
    }


def _describe_groups(videos: Sequence[Video]) -> dict[str, Any]:
    sizes = Counter(v.group for v in videos if v.group)
    splits = {(v.group, v.split) for v in videos if v.group and v.split}
    return {
        "groups": len(sizes),
        "videos_without": sum(not v.group for v in videos),
        "on_two_sides": sum(n > 1 for n in Counter(group for group, _ in splits).values()),
        "by_split": dict(sorted(Counter(split for _, split in splits).items())),
        "sizes": distribution((("", n) for n in sizes.values()), whole=True),
    }


def _describe_originals(videos: Sequence[Video]) -> dict[str, Any]:
    """Count the fakes of every original, named or present; only where any original is named."""
    fakes = Counter(v.original for v in videos if v.fake and v.original)
    names = {v.video for v in videos}
    unused = sum(v.fake is False and v.video not in fakes for v in videos)
    counts = [*fakes.values(), *([0] * unused)] if fakes else []
    return {
        "named": len(fakes),
        "not_in_manifest": len(fakes.keys() - names),
        "fakes_without": sum(v.fake is True and not v.original for v in videos),
        "real_without_fake": unused,
        "fakes_per_original": distribution((("", n) for n in counts), whole=True),
    }


def _describe_sample(looks: Sequence[Look], recipe: Recipe) -> dict[str, Any]:
    read = [k for k in looks if k.readable]
    below = recipe.brighten_below

    def table(name: Any, of: Sequence[Look] = read) -> list[dict[str, Any]]:
        return count_by((str(name(k)), k.label) for k in of)

    def spread(values: Any, **options: Any) -> dict[str, Any]:
        return distribution(((k.label, v) for k in read for v in values(k)), **options)

    grey = np.arange(0, 261, 10).tolist()
    return {
        "videos": len(looks),
        "labels": _count_labels(k.label for k in looks),
        "outcomes": table(lambda k: k.record.outcome, looks),
        "failures": [
            {"video": k.record.video, "outcome": str(k.record.outcome), "message": k.record.message}
            for k in looks
            if not k.readable
        ],
        "no_face": sum(k.record.outcome == Outcome.NO_FACE for k in looks),
        "several_people": sum(k.record.people > 1 for k in read),
        "partial": sum(k.record.partial for k in read),
        "rotated": sum(bool(k.record.rotation) for k in read),
        "frames": _count_frames(n for k in read for n in k.faces),
        "dark": {
            "below": below,
            "videos": sum(k.level < below for k in read),
            "frames": _count_frames(
                n for k in read for n, level in zip(k.faces, k.levels, strict=True) if level < below
            ),
        },
        "orientations": table(lambda k: _orientation(*_upright(k.record))),
        "resolutions": table(lambda k: "{}x{}".format(*_upright(k.record))),
        "codecs": table(lambda k: k.record.codec),
        "containers": table(lambda k: k.record.container),
        "duration": spread(lambda k: [k.record.duration], scale="auto"),
        "num_frames": spread(lambda k: [k.record.num_frames], scale="auto", whole=True),
        "frame_rate": spread(lambda k: [round(k.record.frame_rate, 3)] * (k.record.num_frames > 1)),
        "level": spread(lambda k: [k.level], edges=grey),
        "luma": spread(lambda k: [median(k.lumas)], edges=grey),
        "faces_per_frame": spread(lambda k: k.faces, whole=True),
        "people": spread(lambda k: [k.record.people], whole=True),
        "face_size": spread(lambda k: k.sizes, scale="log"),
        "confidence": spread(
            lambda k: k.confidence, scale="steps", edges=_confidence_edges(recipe)
        ),
        "rows": [_row(k, below) for k in looks],
    }


def _count_frames(faces: Iterable[int]) -> dict[str, int]:
    """Count frames by their numbers of faces."""
    counts = list(faces)
    return {"sampled": len(counts), "with_face": sum(n > 0 for n in counts)}


def _confidence_edges(recipe: Recipe) -> list[float]:
    """Return bins from the lowest confidence that passes, ever narrower: most lie close to 1."""
    thresholds = {"mtcnn": recipe.detector_thresholds[2], "yunet": recipe.yunet_threshold}
    doubt = 1 - thresholds[recipe.face_detector]
    return [
        round(1 - doubt * s, 6) for s in (1, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0)
    ]


def _row(look: Look, below: float) -> dict[str, Any]:
    """Return the facts of one opened video; None where there are none."""
    record = look.record
    facts = ("duration", "num_frames", "frame_rate", "rotation", "container", "codec", "partial")
    row = {
        "video": record.video,
        "label": look.label,
        "outcome": str(record.outcome),
        "bytes": record.bytes,
        "width": _upright(record)[0],
        "height": _upright(record)[1],
        **{name: getattr(record, name) for name in facts},
        "level": round(look.level, 2) if look.levels else None,
        "luma": round(median(look.lumas), 2) if look.lumas else None,
        "dark": look.level < below,
        "frames_sampled": len(look.faces),
        "frames_with_face": sum(n > 0 for n in look.faces),
        "faces": sum(look.faces),
        "people": record.people,
    }
    for name, values in (("face_size", look.sizes), ("confidence", look.confidence)):
        row[name] = round(median(values), 3) if values else None
    return row


def _upright(record: VideoRecord) -> tuple[int, int]:
    """Return width and height as a person sees them."""
    turned = record.rotation % 180 != 0
    return (record.height, record.width) if turned else (record.width, record.height)


def _orientation(width: int, height: int) -> str:
    if width == height:
        return "square"
    return "landscape" if width > height else "portrait"


def _count_labels(labels: Iterable[str]) -> dict[str, int]:
    counts = Counter(class_of(label) for label in labels)
    return {c: counts[c] for c in CLASSES}


def count_by(pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Count (name, label) pairs into a table: a row a name, the largest first."""
    names: dict[str, list[str]] = {}
    for name, label in pairs:
        names.setdefault(name, []).append(label)
    ordered = sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"name": name, **_count_labels(labels)} for name, labels in ordered]


def distribution(
    pairs: Iterable[tuple[str, float]],
    *,
    scale: str = "linear",
    whole: bool = False,
    edges: Sequence[float] = (),
) -> dict[str, Any]:
    """Count (label, value) pairs in bins.

    Args:
        pairs: values that are finite.
        scale: "linear", "log", "auto" (log where the largest is 50 times the smallest), or
            "steps": given edges at equal distances.
        whole: the values are whole numbers, which lie in the middle of bins.
        edges: of the bins, where they do not depend on the values; the outer ones take the rest.
    """
    found = list(pairs)
    values = np.array([value for _, value in found], dtype=np.float64)
    if not len(values):
        return {"n": 0, "scale": "linear", "edges": [], "counts": {}}
    low, high = float(values.min()), float(values.max())
    if scale == "auto":
        scale = "log" if low > 0 and high / low >= 50 else "linear"
    if not edges:
        edges = _log_edges(low, high) if scale == "log" else _linear_edges(low, high, whole)
    classes = np.array([CLASSES.index(class_of(label)) for label, _ in found])
    return {
        "n": len(values),
        "min": round(low, 4),
        "median": round(float(np.median(values)), 4),
        "max": round(high, 4),
        "scale": scale,
        "edges": list(edges),
        "counts": {
            c: np.histogram(values[classes == n].clip(edges[0], edges[-1]), edges)[0].tolist()
            for n, c in enumerate(CLASSES)
            if (classes == n).any()
        },
    }


def _linear_edges(low: float, high: float, whole: bool) -> list[float]:
    """Return the edges of at most `MAX_BINS` + 1 bins of a round width around the values."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / MAX_BINS))
    width = next(f * magnitude for f in (1, 2, 5, 10) if f * magnitude * MAX_BINS >= span)
    width = max(width, 1.0) if whole else width
    # The least bit more, because 0.7 / 0.05 is a bit less than 14.
    first, last = (math.floor(value / width + 1e-9) for value in (low, high))
    shift = 0.5 if whole else 0.0
    return [round(k * width - shift, 9) for k in range(first, last + 2)]


def _log_edges(low: float, high: float) -> list[float]:
    """Return edges that divide every power of ten evenly, at most `MAX_BINS` bins or one a ten."""
    tens = math.log10(high / low)
    per_ten = next((p for p in (16, 8, 4, 2) if tens * p + 2 <= MAX_BINS), 1)
    first = math.floor(math.log10(low) * per_ten) - 1
    edges = [float(f"{10 ** (k / per_ten):.3g}") for k in range(first, first + 99)]
    start = max(k for k, edge in enumerate(edges) if edge <= low)
    end = next(k for k, edge in enumerate(edges) if edge > high)
    return edges[start : end + 1]
