"""Find the faces of one video: everywhere every so often, near their last place in between."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tellframe.faces import FaceDetector
from tellframe.types import Face


class FaceFinder:
    """Calls a face detector on the frames of one video, in order of time.

    Args:
        detector: looks at whole pictures, and near known faces.
        search_every: seconds after which a whole picture is searched again, for those who came.
        until: seconds from which on this is no longer done.
        most: faces of one frame that are kept, the largest; None for all.
    """

    def __init__(
        self,
        detector: FaceDetector,
        search_every: float,
        until: float = math.inf,
        most: int | None = None,
    ) -> None:
        self._detector, self._most = detector, most
        self._search_every, self._until = search_every, until
        self.num_cut = 0
        """Faces that were found in all frames so far beyond `most`, and left out."""
        self._searched = -math.inf
        self._shape: tuple[int, ...] = ()
        self._faces: list[Face] = []

    def find(self, image: NDArray[np.uint8], time: float, new_scene: bool = False) -> list[Face]:
        """Return the faces of the next frame, the largest first.

        A whole frame is searched, too, where a scene begins, no face is known or one was lost.

        Args:
            image: shape (H, W, 3), RGB, uint8.
            time: seconds.
            new_scene: whether the frame comes after a scene cut.
        """
        due = time < self._until and time - self._searched >= self._search_every
        if self._faces and not (due or new_scene) and image.shape == self._shape:
            faces = self._detector.follow(image, self._faces)
            if len(faces[: self._most]) == len(self._faces):
                return self._keep(faces)
        self._searched, self._shape = time, image.shape
        return self._keep(self._detector.detect(image))

    def _keep(self, faces: list[Face]) -> list[Face]:
        self._faces = faces[: self._most]
        self.num_cut += len(faces) - len(self._faces)
        return self._faces
