"""Training data: matched videos, single crops and portraits, all as `Sample` pairs.

Videos of one group, and the pictures of one scene, never fall on both sides of training and
validation.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tellframe.errors import ConfigError, LeakError
from tellframe.evaluate import read_stills
from tellframe.faces import FaceDetector, load_face_detector
from tellframe.recipe import Recipe
from tellframe.train.augment import Image, Points, Sample
from tellframe.train.autoencoder import Autoencoder, load_autoencoders
from tellframe.train.clips import ClipScene, load_scenes
from tellframe.train.config import DataConfig
from tellframe.train.videos import VideoScene, cache_key, cut_videos

PICTURES: Final = (".jpg", ".jpeg", ".png")
"""How the names of portraits end, in lower or upper case."""


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
    coders: tuple[Autoencoder, ...] = ()
    """Paint faces for blends."""


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
        scenes = list(cut_videos(config, recipe, detector)) if config.labels else []
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
    with _naming("autoencoders"):
        coders = load_autoencoders(config.autoencoders)
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
                coders=coders,
            )
        )
    train, val = sides
    if not _holds_faces(train) and _holds_faces(val):
        raise ConfigError(
            f"[data] validation = {config.validation:g}: holds out every group that there is; "
            "lower it, or name a validation_split"
        )
    if leaked := _groups(train) & _groups(val):
        raise LeakError(f"groups on both sides of training and validation: {sorted(leaked)}")
    return train, val


def _holds_faces(data: TrainingData) -> bool:
    return any((data.videos, data.reals, data.stills, data.portraits, data.clips))


def _groups(data: TrainingData) -> set[str]:
    return {s.group for s in data.videos + data.reals} | {s.group for s in data.clips}


def _split_clips(config: DataConfig, recipe: Recipe) -> tuple[list[ClipScene], list[ClipScene]]:
    """Return the scenes of the shards for training and for validation."""

    def load(split: str) -> list[ClipScene]:
        keep = str(Path(config.cache) / "shards") if config.keep_shards else ""
        where = {"endpoint": config.endpoint, "keep": keep}
        return load_scenes(config.shards, recipe, split=split, **where)

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
    found = (p for p in sorted(path.iterdir()) if p.suffix.lower() in PICTURES)
    data = {p.name: p.read_bytes() for p in found}
    if not data:
        raise ConfigError(f"{path}: holds no picture ({', '.join(PICTURES)})")
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
    key = cache_key(path.stem, content, config, recipe)
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
