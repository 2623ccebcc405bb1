"""A few samples to look at: from a configuration's own data, or from the clips in samples/."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tellframe.errors import ConfigError
from tellframe.faces import FaceDetector, load_face_detector
from tellframe.train.augment import Frames, Image, Sample
from tellframe.train.clips import ClipScene
from tellframe.train.config import TrainConfig
from tellframe.train.data import TrainingData, load_data
from tellframe.train.videos import CONTEXT, VideoScene
from tellframe.types import Face
from tellframe.video import list_frames, read_frames

FRAMES: Final = 6
"""Length of the clips."""
STEP: Final = 5
"""Every which frame of the clips in samples/ is taken."""


def load_examples(config: TrainConfig, rng: np.random.Generator) -> list[Sample]:
    """Load a few clips and stills of different people, or what there is of them.

    Args:
        config: where its data names no source, the clips in samples/ are taken; they are synthetic
            and no training uses them.
        rng: chooses.

    Raises:
        ConfigError: there is no data, or no face in it.
    """
    data = config.data
    if data.labels or data.stills or data.portraits or data.shards:
        found = _of_data(load_data(data, config.recipe)[0], rng)
    else:
        found = _of_samples(load_face_detector(config.recipe))
    if not found:
        raise ConfigError("no face to show in the sources that [data] names")
    return found


def _of_data(data: TrainingData, rng: np.random.Generator) -> list[Sample]:
    samples = [_clip(data.videos[i], rng) for i in rng.permutation(len(data.videos))[:2]]
    samples += [data.stills[i].sample(0) for i in rng.permutation(len(data.stills))[:1]]
    samples += [data.portraits[i].sample(None) for i in rng.permutation(len(data.portraits))[:1]]
    samples += [_clip_of_shards(data.clips[i], rng) for i in rng.permutation(len(data.clips))[:2]]
    return samples or [_clip(scene, rng) for scene in data.reals[:2]]


def _clip(scene: VideoScene, rng: np.random.Generator) -> Sample:
    """Take frames spread over a scene, with one of its fakes where it differs from the real."""
    usable = [k for k, swapped in enumerate(scene.swapped) if swapped.any()]
    fake = int(rng.choice(usable)) if usable else None
    places = np.arange(len(scene.real)) if fake is None else np.flatnonzero(scene.swapped[fake])
    at = places[np.linspace(0, len(places) - 1, min(FRAMES, len(places))).round().astype(int)]
    real = scene.real[at]
    other = real if fake is None else scene.fakes[fake, at]
    return Sample(real, other, scene.boxes[at], scene.landmarks[at])


def _clip_of_shards(scene: ClipScene, rng: np.random.Generator) -> Sample:
    """Take a real with one of its fakes where they differ, or what there is of them alone."""
    pair = scene.pair(0, rng, FRAMES) if scene.real and scene.fakes else None
    return pair or scene.alone(None if scene.real else 0, rng, FRAMES)


def _of_samples(detector: FaceDetector) -> list[Sample]:
    """Cut the pair of real.mp4 and fake.mp4, and the right person of two_people.mp4.

    The latter is shown as a real, though it is a fake: the clips have no second real person.
    """
    here = Path(__file__).parents[3] / "samples"
    folder = next((f for f in (Path("samples"), here) if (f / "real.mp4").is_file()), None)
    if folder is None:
        raise ConfigError("[data] names no source, and there is no folder samples/ to show instead")
    pair = _cut(_read(folder / "real.mp4"), _read(folder / "fake.mp4"), detector)
    crowd = _read(folder / "two_people.mp4")
    right = crowd[:, :, crowd.shape[2] // 2 :]
    single = _cut(right, right, detector)
    return [pair, single, *(_still(sample) for sample in (pair, single))]


def _still(sample: Sample) -> Sample:
    real = sample.real[:1]
    fake = real if sample.fake is sample.real else sample.fake[:1]
    return Sample(real, fake, sample.boxes[:1], sample.landmarks[:1])


def _read(path: Path) -> Frames:
    listing = list_frames(path)
    return np.stack([f.image for f in read_frames(path, listing, range(0, FRAMES * STEP, STEP))])


def _cut(real: Frames, fake: Frames, detector: FaceDetector) -> Sample:
    """Cut one square through time around the largest face of the real."""
    found: list[Face] = [detector.detect(np.ascontiguousarray(frame))[0] for frame in real]
    boxes = np.stack([face.box for face in found])
    middle = (boxes[:, :2] + boxes[:, 2:]).mean(axis=0) / 2
    side = round(float(np.median([face.size for face in found])) * (1 + CONTEXT))
    corner = np.round(middle - side / 2)
    matrix = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]], dtype=np.float64)

    def square(frame: Image) -> Image:
        warped = cv2.warpAffine(
            frame, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(warped, dtype=np.uint8)

    first = np.stack([square(frame) for frame in real])
    return Sample(
        real=first,
        fake=first if fake is real else np.stack([square(frame) for frame in fake]),
        boxes=(boxes - np.tile(corner, 2)).astype(np.float32),
        landmarks=np.stack([f.landmarks - corner for f in found]).astype(np.float32),
    )
