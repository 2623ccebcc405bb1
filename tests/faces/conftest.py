"""Fixtures for the face tests: a real picture, and every detector ready to use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tellframe.faces import FaceDetector, load_face_detector
from tellframe.recipe import Recipe

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "real.mp4"
SHARED_YUNET = ROOT.parent / "shared" / "weights" / "face_detection_yunet_2023mar.onnx"

DetectorFactory = Callable[..., FaceDetector]


def find_yunet() -> Path | None:
    """Where YuNet's graph lies on this machine; it is not part of the repository."""
    named = os.environ.get("TELLFRAME_YUNET")
    places = [Path(named)] if named else [SHARED_YUNET]
    return next((place for place in places if place.is_file()), None)


@pytest.fixture(scope="session")
def yunet_graph() -> Path:
    """YuNet's graph; skips where it is missing."""
    path = find_yunet()
    if path is None:
        pytest.skip("YuNet's graph is not here; set TELLFRAME_YUNET to its path")
    return path


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """The first frame of the real sample: one person, facing the camera."""
    if not SAMPLE.is_file():
        pytest.skip(f"{SAMPLE.relative_to(ROOT)} is missing; run scripts/make_samples.py")
    with av.open(str(SAMPLE)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.fixture(scope="session")
def make_detector(request: pytest.FixtureRequest) -> DetectorFactory:
    """Load a detector by name, with recipe fields as keywords; skips where weights are missing."""

    def make(name: str, **fields: object) -> FaceDetector:
        path = request.getfixturevalue("yunet_graph") if name == "yunet" else None
        recipe = Recipe.from_dict({"face_detector": name, **fields})
        return load_face_detector(recipe, num_threads=1, yunet_path=path)

    return make
