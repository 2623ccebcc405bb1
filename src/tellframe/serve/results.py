"""What is kept of an analysis: the verdict as JSON, and the pictures that are shown."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import PurePath
from typing import Any

import numpy as np

from tellframe.bundle import Bundle
from tellframe.isolated import counts_are_possible
from tellframe.recipe import Recipe
from tellframe.report import verdict_from_dict, verdict_to_dict
from tellframe.report.pictures import choose_moments
from tellframe.report.rows import tellframe_version
from tellframe.serve.worker import Finding
from tellframe.types import Evidence, FaceVerdict, Verdict


def result_key(sha256: str, bundle: Bundle, recipe: Recipe) -> str:
    """Return what a result depends on, as a hex digest.

    Args:
        sha256: hex digest of the file.
        bundle: weights, calibration and limits.
        recipe: as applied, overrides included.
    """
    settings = [dataclasses.asdict(bundle.calibration), dataclasses.asdict(bundle.decision)]
    parts = [sha256, bundle.sha256, recipe.digest, tellframe_version(), json.dumps(settings)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def pack(verdict: Verdict) -> tuple[str, bytes]:
    """Return a verdict as JSON without names, and its pictures as an npz file.

    Only the pictures that a report shows are kept; the others are black, which takes no room.
    """
    arrays: dict[str, Any] = {}
    for i, person in enumerate(verdict.people):
        if person.evidence is not None:
            most, least = choose_moments(person.moments)
            shown = [*most, *least]
            crops = np.zeros_like(person.evidence.crops)
            crops[shown] = person.evidence.crops[shown]
            arrays |= {f"crops{i}": crops, f"heat{i}": person.evidence.heat}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return json.dumps(verdict_to_dict(_named(verdict, ""))), buffer.getvalue()


def unpack(text: str, name: str, evidence: bytes | None = None) -> Verdict:
    """Return the verdict that `pack` packed.

    Args:
        text: the JSON.
        name: of the video.
        evidence: the pictures, where they are needed.
    """
    verdict = _named(verdict_from_dict(json.loads(text)), name)
    if evidence is None:
        return verdict
    with np.load(io.BytesIO(evidence), allow_pickle=False) as arrays:
        people = tuple(
            dataclasses.replace(p, evidence=Evidence(arrays[f"crops{i}"], arrays[f"heat{i}"]))
            if f"crops{i}" in arrays
            else p
            for i, p in enumerate(verdict.people)
        )
    return dataclasses.replace(verdict, people=people)


def clean_name(name: str) -> str:
    """Return the last part of a file name that a client gave, of a bearable length."""
    last = PurePath(name.replace("\\", "/")).name.encode("utf-8", "replace").decode("utf-8")
    return last[-200:] or "video"


def _named(verdict: Verdict, name: str) -> Verdict:
    media = verdict.media and dataclasses.replace(verdict.media, path=name)
    return dataclasses.replace(verdict, video=name, media=media)


def is_possible(found: Finding, sha256: str, recipe: Recipe) -> bool:
    """Tell whether an honest worker could have found this in a file.

    A worker that a file has taken over may still lie about the file's faces; it must not be able
    to break the server, or to answer for another file.

    Args:
        found: of the file.
        sha256: hex digest of the file.
        recipe: as applied.
    """
    return (
        found.media.sha256 == sha256
        and counts_are_possible(found.media, recipe)
        and all(
            person.person == number
            and 0 < len(person.moments) <= recipe.most_frames
            and _fits(person, recipe)
            for number, person in enumerate(found.people, 1)
        )
    )


def _fits(person: FaceVerdict, recipe: Recipe) -> bool:
    evidence, count = person.evidence, len(person.moments)
    probabilities = [m.probability for m in person.moments]
    if person.probability is not None:
        probabilities.append(person.probability)
    return (
        evidence is not None
        and evidence.crops.shape == (count, recipe.crop_size, recipe.crop_size, 3)
        and evidence.heat.ndim == 3
        and len(evidence.heat) == count
        and max(evidence.heat.shape[1:]) <= recipe.crop_size
        and min(evidence.heat.shape[1:]) > 0
        and all(0 <= p <= 1 for p in probabilities)
    )
