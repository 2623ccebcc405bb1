"""Find faces in one picture: the detector contract and the one place that builds detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tellframe.errors import ConfigError, UsageError
from tellframe.recipe import FACE_DETECTORS, Recipe
from tellframe.types import Face

__all__ = ["FaceDetector", "fetch_weights", "load_face_detector"]


class FaceDetector(Protocol):
    """Anything that finds faces in a picture."""

    name: str
    """Name of the detector, as in `Recipe.face_detector`."""

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find the faces of one picture.

        Args:
            image: shape (H, W, 3), RGB, uint8, of any size.

        Returns:
            The faces sorted by size, largest first; empty where there is none.

        Raises:
            UsageError: the array is no such picture.
        """
        ...

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face]:
        """Find known faces again in a later picture, at less cost where that can be had.

        Args:
            image: as for `detect`.
            faces: of a picture of the same size, up to `Recipe.search_every` seconds before.

        Returns:
            Those found near their places, or all faces; fewer than `faces` where one is lost.

        Raises:
            UsageError: the array is no such picture.
        """
        ...


def load_face_detector(
    recipe: Recipe, *, num_threads: int = 0, yunet_path: Path | None = None
) -> FaceDetector:
    """Load the face detector that the recipe names, which leaves out faces that are too small.

    How many of one frame are kept is up to `FaceFinder`, which counts the others.

    Args:
        recipe: names the detector and gives thresholds and smallest size.
        num_threads: threads that one run uses; 0 takes all cores that this process may use.
        yunet_path: YuNet's graph where it does not come from the environment or the cache.

    Raises:
        ConfigError: the recipe names no known detector.
        BundleError: the weights are missing or altered.
        DownloadError: the weights have to be fetched and cannot be.
    """
    loaders: dict[str, Callable[[], FaceDetector]] = {
        "mtcnn": lambda: _load_mtcnn(recipe, num_threads),
        "yunet": lambda: _load_yunet(recipe, num_threads, yunet_path),
    }
    if recipe.face_detector not in loaders:
        raise ConfigError(
            f"unknown face detector {recipe.face_detector!r}; known are {', '.join(FACE_DETECTORS)}"
        )
    return _CheckedDetector(loaders[recipe.face_detector](), recipe.min_face_size)


def fetch_weights(recipe: Recipe) -> None:
    """Fetch the weights of the recipe's detector, unless they are here, so that loading is local.

    Raises:
        BundleError: the weights are missing or altered.
        DownloadError: they have to be fetched and cannot be.
    """
    if recipe.face_detector == "yunet":
        from tellframe.faces.yunet import find_weights

        find_weights(None)


def _load_mtcnn(recipe: Recipe, num_threads: int) -> FaceDetector:
    from tellframe.faces.mtcnn import MtcnnDetector

    return MtcnnDetector(
        thresholds=recipe.detector_thresholds,
        min_face_size=recipe.min_face_size,
        pyramid_factor=recipe.pyramid_factor,
        num_threads=num_threads,
    )


def _load_yunet(recipe: Recipe, num_threads: int, path: Path | None) -> FaceDetector:
    from tellframe.faces.yunet import YunetDetector, find_weights

    return YunetDetector(
        find_weights(path), threshold=recipe.yunet_threshold, num_threads=num_threads
    )


class _CheckedDetector:
    """A detector whose pictures are checked, and whose faces are large enough and in order."""

    def __init__(self, inner: FaceDetector, min_size: float) -> None:
        self.name: str = inner.name
        self._inner = inner
        self._min_size = min_size

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        _require_picture(image)
        return self._sorted(self._inner.detect(image))

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face]:
        _require_picture(image)
        return self._sorted(self._inner.follow(image, faces))

    def _sorted(self, faces: list[Face]) -> list[Face]:
        faces = [face for face in faces if face.size >= self._min_size]
        # Ties are broken by place, so that the order never depends on how a detector works inside.
        faces.sort(key=lambda face: (-face.size, float(face.box[0]), float(face.box[1])))
        return faces


def _require_picture(image: Any) -> None:
    if not isinstance(image, np.ndarray):
        raise UsageError(f"a picture must be a numpy array, not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(
            "a picture must be uint8 of shape (H, W, 3) in RGB, not "
            f"{image.dtype} of shape {image.shape}"
        )
