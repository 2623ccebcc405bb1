"""Faces cut out of matched videos: a real and its fakes at the same frames and places.

They are cut once, at their own resolution, into a cache folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tellframe.errors import MediaError
from tellframe.evaluate import Row, read_labels
from tellframe.faces import FaceDetector
from tellframe.recipe import Recipe
from tellframe.report.words import printable
from tellframe.train.augment import CHANGED, SHARE, Image, Points, Sample, find_swapped
from tellframe.train.config import DataConfig
from tellframe.train.processes import rank
from tellframe.train.shift import MAX_SPREAD, MIN_RESPONSE, MIN_SHIFT, measure_shift, move
from tellframe.types import Face
from tellframe.video import list_frames, read_frames, sample_uniform

CONTEXT: Final = 0.7
"""Share of the box side that the cached crops show around the face, room for augmentation."""
MAX_SIDE: Final = 448
"""Cached crops of larger faces are shrunk to this side in pixels."""


@dataclass(frozen=True, slots=True)
class VideoScene:
    """Crops of one face out of a real video and, at the same frames and boxes, out of its fakes."""

    group: str
    real: NDArray[np.uint8]
    """Shape (F, P, P, 3)."""
    fakes: NDArray[np.uint8]
    """Shape (K, F, P, P, 3)."""
    methods: tuple[str, ...]
    """Shape (K,), how each fake was made."""
    swapped: NDArray[np.bool_]
    """Shape (K, F), whether the fake differs from the real there."""
    boxes: Points
    """Shape (F, 4), in the crops."""
    landmarks: NDArray[np.float32]
    """Shape (F, 5, 2), in the crops."""

    def sample(self, frame: int, fake: int | None) -> Sample:
        """Return one frame of one pair, or of the real twice."""
        return self.clip(np.array([frame]), fake)

    def clip(self, at: NDArray[np.int64], fake: int | None) -> Sample:
        """Return some frames of one pair, or of the real twice."""
        real = self.real[at]
        other = real if fake is None else self.fakes[fake, at]
        return Sample(real, other, self.boxes[at], self.landmarks[at])


def cut_videos(config: DataConfig, recipe: Recipe, detector: FaceDetector) -> Iterator[VideoScene]:
    """Cut, or load from the cache, every scene of the training split.

    Videos that cannot be read are left out, and named on stderr.
    """
    root = Path(config.labels).parent
    scenes: dict[str, list[Row]] = defaultdict(list)
    for row in read_labels(config.labels, "train"):
        if row.pair or not row.fake:
            scenes[row.pair or row.path].append(row)
    for name, members in sorted(scenes.items()):
        reals = [r for r in members if not r.fake]
        if not reals:
            continue
        fakes = [r for r in members if r.fake]
        content = (
            [(r.path, r.method, _size(root / r.path)) for r in [reals[0], *fakes]],
            ("moved back", MIN_SHIFT, MAX_SPREAD, MIN_RESPONSE),
        )
        key = cache_key(name, content, config, recipe)
        cached = Path(config.cache) / f"{key}.npz"
        if cached.exists():
            with np.load(cached) as stored:
                arrays = dict(stored)
        else:
            arrays, unread = _cut_scene(root, reals[0], fakes, config.frames_per_video, detector)
            if not unread:  # otherwise it is cut again, and may by then be whole
                _write_scene(arrays, cached)
            for error in unread if rank() == 0 else ():
                print(printable(f"left out: {error}"), file=sys.stderr, flush=True)
        if arrays and len(arrays["real"]):
            methods = tuple(arrays.pop("methods").tolist())
            yield VideoScene(group=reals[0].group, methods=methods, **arrays)


def _size(path: Path) -> int:
    """Return the bytes of a file; -1 where it is missing."""
    return path.stat().st_size if path.is_file() else -1


def cache_key(name: str, content: object, config: DataConfig, recipe: Recipe) -> str:
    """Name a cached scene by all that decides its content."""
    detector = (
        *(recipe.face_detector, recipe.detector_thresholds, recipe.yunet_threshold),
        *(recipe.min_face_size, recipe.pyramid_factor),
    )
    parts = {
        "content": content,
        "frames": config.frames_per_video,
        "detector": detector,
        "cut": (CONTEXT, MAX_SIDE, CHANGED, SHARE),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{''.join(c if c.isalnum() else '_' for c in name)[-60:]}-{digest}"


def _read(path: Path, positions: NDArray[np.int64] | None, count: int) -> dict[int, Image]:
    """Read frames at given positions, or spread evenly."""
    listing = list_frames(path)
    wanted = sample_uniform(listing.times, count) if positions is None else positions
    wanted = wanted[wanted < len(listing.times)]
    return {f.index: f.image for f in read_frames(path, listing, wanted)}


def _cut_scene(
    root: Path,
    real: Row,
    fakes: list[Row],
    count: int,
    detector: FaceDetector,
) -> tuple[dict[str, Any], list[MediaError]]:
    """Cut the largest face of a real video, and the same squares out of its fakes.

    Returns:
        The fields of a `VideoScene` but its group, none where the real cannot be read; and why any
        of the videos could not.
    """
    try:
        pictures = _read(root / real.path, None, count)
    except MediaError as error:
        return {}, [error]
    found = {i: faces[0] for i, p in pictures.items() if (faces := detector.detect(p))}
    positions = np.array(sorted(found), dtype=np.int64)
    others, methods, unread = [], [], []
    for fake in fakes:
        try:
            other = _read(root / fake.path, positions, count)
        except MediaError as error:
            unread.append(error)
            continue
        # A fake may end early: keep the frames that all members have, unless too few are left.
        shared = [i for i in found if i in other and other[i].shape == pictures[i].shape]
        if shared and len(shared) >= len(found) // 2:
            found = {i: found[i] for i in shared}
            shift = measure_shift((pictures[i], other[i]) for i in shared)
            others.append({i: move(other[i][None], shift)[0] for i in shared})
            methods.append(fake.method)
    sides = [f.size * (1 + CONTEXT) for f in found.values()]
    side = round(float(np.median(sides))) if sides else 1
    scale = min(1.0, MAX_SIDE / side)
    out = round(side * scale)
    cut = [_cut_square(pictures[i], f, side, out) for i, f in sorted(found.items())]
    real_crops = np.array([c[0] for c in cut], dtype=np.uint8).reshape(len(found), out, out, 3)
    fake_crops = np.array(
        [[_cut_square(o[i], f, side, out)[0] for i, f in sorted(found.items())] for o in others],
        dtype=np.uint8,
    ).reshape(len(others), len(found), out, out, 3)
    boxes = np.array([c[1] for c in cut], dtype=np.float32).reshape(-1, 4)
    arrays = {
        "real": real_crops,
        "fakes": fake_crops,
        "methods": np.array(methods, dtype=np.str_),
        "swapped": find_swapped(real_crops, fake_crops, boxes),
        "boxes": boxes,
        "landmarks": np.array([c[2] for c in cut], dtype=np.float32).reshape(-1, 5, 2),
    }
    return arrays, unread


def _write_scene(arrays: dict[str, Any], target: Path) -> None:
    """Write what was cut; it is there only when complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.stem + ".part.npz")
    np.savez(temporary, **arrays)
    temporary.replace(target)


def _cut_square(image: Image, face: Face, side: int, out: int) -> tuple[Image, Points, Points]:
    """Cut a square of whole pixels around a face; return it with box and landmarks inside it."""
    corner = np.round((face.box[:2] + face.box[2:]) / 2 - side / 2).astype(int)
    matrix = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]], dtype=np.float64)
    crop = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT
    )
    if out != side:
        crop = cv2.resize(crop, (out, out), interpolation=cv2.INTER_AREA)
    scale = out / side
    box = (face.box - np.tile(corner, 2)) * scale
    landmarks = (face.landmarks - corner) * scale
    return np.asarray(crop), box.astype(np.float32), landmarks.astype(np.float32)
