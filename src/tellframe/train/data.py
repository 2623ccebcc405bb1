"""Training data: matched videos, single crops and portraits, all as `Sample` pairs.

Crops are cut out of the videos once, at their own resolution, into a cache folder. Videos of one
group, and the pictures of one scene, never fall on both sides of training and validation.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tellframe.errors import ConfigError, LeakError, MediaError
from tellframe.evaluate import Row, read_labels, read_stills
from tellframe.faces import FaceDetector, load_face_detector
from tellframe.recipe import Recipe
from tellframe.train.augment import UNSWAPPED, Image, Points, Sample, find_swapped
from tellframe.train.clips import ClipScene, load_scenes
from tellframe.train.config import DataConfig
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


@dataclass(frozen=True, slots=True)
class StillScene:
    """One real face crop and its fakes, still encoded as JPEG."""

    real: bytes
    fakes: tuple[bytes, ...]
    box: Points
    """Shape (4,), in the crop."""
    landmarks: Points
    """Shape (5, 2), in the crop."""

    def sample(self, fake: int | None) -> Sample:
        """Decode one pair, or the real twice."""
        real = _decode(self.real)[None]
        other = real if fake is None else _decode(self.fakes[fake])[None]
        return Sample(real, other, self.box[None], self.landmarks[None])


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All scenes of one side of the split."""

    videos: tuple[VideoScene, ...]
    """With at least one fake each."""
    reals: tuple[VideoScene, ...]
    """Without fakes: material for blends."""
    stills: tuple[StillScene, ...]
    portraits: tuple[StillScene, ...]
    """Without fakes: material for blends."""
    clips: tuple[ClipScene, ...] = ()
    """Out of shards."""


def held_out(group: str, share: float) -> bool:
    """Say whether a group belongs to validation; depends on its name alone."""
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def load_data(config: DataConfig, recipe: Recipe) -> tuple[TrainingData, TrainingData]:
    """Load training and validation data, cutting the crops on first use.

    Raises:
        ConfigError: a source is missing.
        LeakError: a group is on both sides.
        RecipeMismatchError: shards were made in a way that the model cannot be fed from.
    """
    detector = load_face_detector(recipe)
    with _naming("labels"):
        scenes = list(_video_scenes(config, recipe, detector)) if config.labels else []
    with _naming("stills"):
        stills = [
            s for z in config.stills for s in _still_scenes(Path(z), config, recipe, detector)
        ]
    with _naming("portraits"):
        portraits = [
            p for d in config.portraits for p in _portraits(Path(d), config, recipe, detector)
        ]
    with _naming("shards"):
        clips = _split_clips(config, recipe) if config.shards else ([], [])
    sides: list[TrainingData] = []
    for validation in (False, True):
        videos = [s for s in scenes if held_out(s.group, config.validation) is validation]
        sides.append(
            TrainingData(
                videos=tuple(s for s in videos if len(s.fakes) and s.swapped.any()),
                reals=tuple(s for s in videos if not len(s.fakes)),
                stills=tuple(s for g, s in stills if held_out(g, config.validation) is validation),
                portraits=tuple(
                    p for g, p in portraits if held_out(g, config.validation) is validation
                ),
                clips=tuple(clips[validation]),
            )
        )
    train, val = sides
    if leaked := _groups(train) & _groups(val):
        raise LeakError(f"groups on both sides of training and validation: {sorted(leaked)}")
    return train, val


def _groups(data: TrainingData) -> set[str]:
    return {s.group for s in data.videos + data.reals} | {s.group for s in data.clips}


def _split_clips(config: DataConfig, recipe: Recipe) -> tuple[list[ClipScene], list[ClipScene]]:
    """Return the scenes of the shards for training and for validation."""

    def load(split: str) -> list[ClipScene]:
        return load_scenes(config.shards, recipe, endpoint=config.endpoint, split=split)

    found = load(config.split)
    if config.validation_split:
        return found, load(config.validation_split)
    held = [held_out(scene.group, config.validation) for scene in found]
    return (
        [s for s, out in zip(found, held, strict=True) if not out],
        [s for s, out in zip(found, held, strict=True) if out],
    )


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Name the key of the configuration that leads to a bad source."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"[data] {key}: {error}") from error


def _video_scenes(
    config: DataConfig, recipe: Recipe, detector: FaceDetector
) -> Iterator[VideoScene]:
    """Cut, or load from the cache, every scene of the training split."""
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
        key = _cache_key(name, content, config, recipe)
        cached = Path(config.cache) / f"{key}.npz"
        if not cached.exists():
            _cut_scene(root, reals[0], fakes, config.frames_per_video, detector, cached)
        with np.load(cached) as arrays:
            if len(arrays["real"]):
                yield VideoScene(
                    group=reals[0].group,
                    real=arrays["real"],
                    fakes=arrays["fakes"],
                    methods=tuple(arrays["methods"].tolist()),
                    swapped=arrays["swapped"],
                    boxes=arrays["boxes"],
                    landmarks=arrays["landmarks"],
                )


def _size(path: Path) -> int:
    """Return the bytes of a file; -1 where it is missing."""
    return path.stat().st_size if path.is_file() else -1


def _cache_key(name: str, content: object, config: DataConfig, recipe: Recipe) -> str:
    """Name a cached scene by all that decides its content."""
    detector = (
        *(recipe.face_detector, recipe.detector_thresholds, recipe.yunet_threshold),
        *(recipe.min_face_size, recipe.pyramid_factor),
    )
    parts = {
        "content": content,
        "frames": config.frames_per_video,
        "detector": detector,
        "cut": (CONTEXT, MAX_SIDE, UNSWAPPED),
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
    target: Path,
) -> None:
    """Cut the largest face of a real video, and the same squares out of its fakes."""
    pictures = _read(root / real.path, None, count)
    found = {i: faces[0] for i, p in pictures.items() if (faces := detector.detect(p))}
    positions = np.array(sorted(found), dtype=np.int64)
    others, methods = [], []
    for fake in fakes:
        try:
            other = _read(root / fake.path, positions, count)
        except MediaError:
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
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.stem + ".part.npz")
    np.savez(
        temporary,
        real=real_crops,
        fakes=fake_crops,
        methods=np.array(methods, dtype=np.str_),
        swapped=find_swapped(real_crops, fake_crops, boxes),
        boxes=boxes,
        landmarks=np.array([c[2] for c in cut], dtype=np.float32).reshape(-1, 5, 2),
    )
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


def _decode(data: bytes) -> Image:
    picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(picture, dtype=np.uint8)


def _decode_square(data: bytes, name: str) -> Image:
    """Decode a picture that all augmentation takes for square, or say which one is not."""
    picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None or picture.shape[0] != picture.shape[1]:
        found = "no picture" if picture is None else f"{picture.shape[1]} x {picture.shape[0]}"
        raise ConfigError(f"{name}: expected a square picture, found {found}; crop or remove it")
    return np.asarray(picture, dtype=np.uint8)


def _still_scenes(
    path: Path, config: DataConfig, recipe: Recipe, detector: FaceDetector
) -> list[tuple[str, StillScene]]:
    """Read a zip of crops; return (group, scene) for every original with a face found in it."""
    reals: dict[str, bytes] = {}
    fakes: dict[str, list[bytes]] = defaultdict(list)
    for still in read_stills(path):
        if still.fake:
            fakes[still.original].append(still.data)
        else:
            reals[still.original] = still.data
    faces = _face_cache(path, reals, config, recipe, detector)
    return [
        (name, StillScene(real, tuple(fakes[name]), *faces[name]))
        for name, real in reals.items()
        if name in faces and fakes[name]
    ]


def _portraits(
    path: Path, config: DataConfig, recipe: Recipe, detector: FaceDetector
) -> list[tuple[str, StillScene]]:
    """Read a folder of real faces; pictures of one film, named film_frame, are one group."""
    if not path.is_dir():
        raise ConfigError(f"{path}: no such folder")
    data = {p.name: p.read_bytes() for p in sorted(path.iterdir()) if p.suffix in {".jpg", ".png"}}
    faces = _face_cache(path, data, config, recipe, detector)
    return [
        (name.split("_")[0], StillScene(data[name], (), *faces[name]))
        for name in data
        if name in faces
    ]


def _face_cache(
    path: Path,
    pictures: dict[str, bytes],
    config: DataConfig,
    recipe: Recipe,
    detector: FaceDetector,
) -> dict[str, tuple[Points, Points]]:
    """Find the largest face of each picture once; return {name: (box, landmarks)}."""
    content = [(n, hashlib.sha256(d).hexdigest()) for n, d in sorted(pictures.items())]
    key = _cache_key(path.stem, content, config, recipe)
    cached = Path(config.cache) / f"{key}.faces.npz"
    if not cached.exists():
        found = {
            n: faces[0]
            for n, d in pictures.items()
            if (faces := detector.detect(_decode_square(d, f"{path}: {n}")))
        }
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_name(f"{key}.part.npz")
        np.savez(
            temporary,
            names=np.array(list(found), dtype=np.str_),
            boxes=np.array([f.box for f in found.values()], dtype=np.float32),
            landmarks=np.array([f.landmarks for f in found.values()], dtype=np.float32),
        )
        temporary.replace(cached)
    with np.load(cached) as arrays:
        names: Iterable[str] = arrays["names"].tolist()
        return dict(zip(names, zip(arrays["boxes"], arrays["landmarks"], strict=True), strict=True))
