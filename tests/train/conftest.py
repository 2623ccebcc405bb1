"""Fixtures of the training tests; without the training extra the whole folder is skipped.

Faces are drawn: a smooth background, an ellipse of skin, eyes, nose and mouth at known places. A
fake is the same picture with another colour in the inner face.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tellframe.recipe import Recipe

EXTRA = ("torch", "timm", "cv2", "onnx", "onnxscript", "safetensors", "sklearn")
MISSING = [name for name in EXTRA if find_spec(name) is None]
BACKBONE = "test_efficientnet"  # timm's own test network: 0.1 million weights, stride 32
SIZE = 64


class NeedsExtra(pytest.Module):
    """A test module that is skipped before it is imported, since it imports torch."""

    def collect(self) -> Any:
        extra = "pip install 'tellframe[train]'"
        pytest.skip(f"needs the training extra ({', '.join(MISSING)} missing): {extra}")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    return NeedsExtra.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums split over threads come out differently by machine, and small networks gain nothing."""
    import cv2
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before)


class Faces:
    """Draws faces, and scenes of them for training."""

    side = 112
    box = np.array([26, 20, 86, 96], dtype=np.float32)
    landmarks = np.array([[43, 47], [69, 47], [56, 60], [46, 75], [66, 75]], dtype=np.float32)

    def picture(self, seed: int) -> NDArray[np.uint8]:
        """Draw a face on a smooth background; colours and waves by the seed."""
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0 : self.side, 0 : self.side].astype(np.float64)
        waves = np.sin(
            x * rng.uniform(0.03, 0.08) + y * rng.uniform(0.03, 0.08) + rng.uniform(0, 6)
        )
        image = rng.uniform(70, 150, 3) + 30 * waves[..., None]
        shapes = [((56, 58), (27, 36), rng.uniform([150, 100, 80], [220, 160, 140]))]
        shapes += [((x, y), (5, 3), rng.uniform(10, 60, 3)) for x, y in self.landmarks[:2]]
        shapes += [((56, 57), (3, 7), rng.uniform([140, 90, 70], [170, 110, 90]))]
        shapes += [((56, 75), (11, 3), rng.uniform([130, 20, 30], [190, 70, 80]))]
        for (cx, cy), (rx, ry), colour in shapes:
            distance = np.hypot((x - cx) / rx, (y - cy) / ry)
            alpha = np.clip((1.2 - distance) / 0.4, 0, 1)[..., None]
            image = image * (1 - alpha) + colour * alpha
        return image.clip(0, 255).astype(np.uint8)

    def swap(
        self, real: NDArray[np.uint8], tint: tuple[int, int, int] = (-45, 35, 45)
    ) -> NDArray[np.uint8]:
        """Return a fake: the inner face of a picture in another colour."""
        y, x = np.mgrid[0 : self.side, 0 : self.side]
        inside = np.hypot((x - 56) / 18, (y - 60) / 24)[..., None] < 1
        return np.where(inside, real.astype(int) + tint, real).clip(0, 255).astype(np.uint8)

    def sample(self, seed: int, frames: int = 1, still: bool = False) -> Any:
        """Make a pair; a face in a clip moves by a pixel or two from frame to frame."""
        from tellframe.train.augment import Sample

        shifts = [(0, 0) if still else (t % 5, 2 * t % 3) for t in range(frames)]
        real = self.picture(seed)
        halves = [
            np.stack([np.roll(half, (y, x), axis=(0, 1)) for x, y in shifts])
            for half in (real, self.swap(real))
        ]
        return Sample(
            *halves,
            np.stack([self.box + np.tile(np.float32(way), 2) for way in shifts]),
            np.stack([self.landmarks + np.float32(way) for way in shifts]),
        )

    def video(
        self,
        seed: int,
        methods: tuple[str, ...] = ("swap",),
        frames: int = 3,
        swapped: tuple[int, ...] | None = None,
        tint: tuple[int, int, int] = (-45, 35, 45),
    ) -> Any:
        """Make a video scene; its fakes differ from the real at the frames `swapped`, or at all."""
        from tellframe.train.videos import VideoScene

        real = np.stack([self.picture(100 * seed + f) for f in range(frames)])
        which = np.zeros((len(methods), frames), dtype=np.bool_)
        which[:, range(frames) if swapped is None else swapped] = True
        fakes = np.empty((len(methods), *real.shape), dtype=np.uint8)
        for k, f in np.ndindex(which.shape):
            fakes[k, f] = self.swap(real[f], tint) if which[k, f] else real[f]
        return VideoScene(
            group=f"group{seed}",
            real=real,
            fakes=fakes,
            methods=methods,
            swapped=which,
            boxes=np.tile(self.box, (frames, 1)),
            landmarks=np.tile(self.landmarks, (frames, 1, 1)),
        )

    def still(self, seed: int, fakes: int = 1) -> Any:
        """Make a scene of single pictures, encoded without loss."""
        from tellframe.train.data import StillScene

        real = self.picture(seed)
        fake = encode(self.swap(real))
        return StillScene(encode(real), (fake,) * fakes, self.box, self.landmarks)

    def data(self, **without: tuple[()]) -> Any:
        """Make training data of every kind; `videos=()` and the like leave a kind out."""
        from tellframe.train.data import TrainingData

        kinds = {
            "videos": (self.video(1), self.video(2, ("swap", "lips"))),
            "reals": (self.video(3, ()),),
            "stills": (self.still(40), self.still(41, 2)),
            "portraits": (self.still(50, 0), self.still(51, 0)),
        }
        return TrainingData(**{**kinds, **without})


def encode(image: NDArray[np.uint8], suffix: str = ".png") -> bytes:
    """Encode an RGB picture."""
    import cv2

    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


@pytest.fixture(scope="session")
def faces() -> Faces:
    """Drawn faces."""
    return Faces()


@pytest.fixture(scope="session")
def config() -> Any:
    """A configuration of the smallest network, with two pairs of each kind in a batch."""
    from tellframe.train.config import BatchConfig, ModelConfig, OptimConfig, TrainConfig

    return TrainConfig(
        name="tiny",
        recipe=Recipe(crop_size=SIZE),
        model=ModelConfig(backbone=BACKBONE),
        batch=BatchConfig(video_pairs=1, still_pairs=1, part_blends=1, self_blends=1),
        optim=OptimConfig(steps=6, warmup=2, threads=1, validate_every=100, checkpoint_every=3),
    )
