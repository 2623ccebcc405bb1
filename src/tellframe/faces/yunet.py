"""YuNet, a one-shot face detector of 75,000 weights, on ONNX Runtime.

Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector". The graph is not part of this
package: it is given as a path, named by the environment variable `TELLFRAME_YUNET`, or fetched
once from the OpenCV model zoo. The decoding follows the layout of the graph's twelve outputs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellframe.download import fetch
from tellframe.errors import BundleError
from tellframe.faces.boxes import suppress_overlaps
from tellframe.runtime import Session
from tellframe.types import Face

URL: Final = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/"
    "models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
)
SHA256: Final = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
"""Hex digest of face_detection_yunet_2023mar.onnx as the OpenCV model zoo publishes it."""
VARIABLE: Final = "TELLFRAME_YUNET"
"""Environment variable with the path of the graph."""

_SIDE: Final = 640
"""Height and width in pixels of the graph's fixed input."""
_STRIDES: Final = (8, 16, 32)
"""Pixels of the input between two anchors of each of the three output maps."""
_OVERLAP: Final = 0.3
"""Intersection over union above which the weaker box goes, as in OpenCV's FaceDetectorYN."""
_OUTPUTS: Final = ("cls", "obj", "bbox", "kps")


class YunetDetector:
    """Face detector of one network that sees the whole picture at 640 pixels.

    Args:
        path: the graph, face_detection_yunet_2023mar.onnx.
        threshold: confidence asked for, 0 to 1.
        num_threads: threads that one run uses; 0 takes all cores that this process may use.

    Raises:
        BundleError: the file is missing or is not this graph.
    """

    name = "yunet"

    def __init__(self, path: Path, threshold: float = 0.9, num_threads: int = 0) -> None:
        self._threshold = threshold
        self._session = Session(path, num_threads)
        wanted = {f"{kind}_{stride}" for kind in _OUTPUTS for stride in _STRIDES}
        if missing := wanted - set(self._session.output_names):
            raise BundleError(
                f"{path}: not YuNet's 2023mar graph, the outputs {sorted(missing)} are missing; "
                f"fetch it from {URL}"
            )

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find the faces of one picture of shape (H, W, 3), RGB, uint8; largest face first."""
        pixels, scale = letterbox(image)
        outputs = self._session.run({self._session.input_names[0]: pixels})
        parts = [
            decode(
                outputs[f"cls_{stride}"][0],
                outputs[f"obj_{stride}"][0],
                outputs[f"bbox_{stride}"][0],
                outputs[f"kps_{stride}"][0],
                stride,
                self._threshold,
            )
            for stride in _STRIDES
        ]
        boxes, landmarks, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        keep = suppress_overlaps(boxes, scores, _OVERLAP)
        faces = [Face(boxes[i] / scale, landmarks[i] / scale, float(scores[i])) for i in keep]
        return sorted(faces, key=lambda face: -face.size)

    def follow(self, image: NDArray[np.uint8], _faces: Sequence[Face]) -> list[Face]:
        """Find all faces: a whole picture takes this network no longer than MTCNN's last two."""
        return self.detect(image)


def find_weights(path: Path | None = None) -> Path:
    """Return where YuNet's graph lies, fetching it into the user's cache if need be.

    Args:
        path: taken as it is; otherwise the environment variable `TELLFRAME_YUNET` decides.

    Raises:
        DownloadError: it has to be fetched and cannot be.
    """
    if path is not None:
        return path
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return fetch(URL, SHA256, cache_name="face_detection_yunet_2023mar.onnx")


def letterbox(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], np.float32]:
    """Scale the longer side of a picture to 640 pixels and fill up with black below or right.

    Args:
        image: shape (H, W, 3), RGB.

    Returns:
        Network input of shape (1, 3, 640, 640), BGR, 0 to 255; and its scale against the picture.
    """
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(np.ascontiguousarray(image))
    # Halving large pictures first is several times faster; the gap keeps the result as smooth.
    scaled = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.zeros((1, 3, _SIDE, _SIDE), np.float32)
    pixels[0, :, : size[1], : size[0]] = np.asarray(scaled).transpose(2, 0, 1)[::-1]
    return pixels, np.float32(scale)


def decode(
    face: NDArray[np.float32],
    object_: NDArray[np.float32],
    offsets: NDArray[np.float32],
    points: NDArray[np.float32],
    stride: int,
    threshold: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Turn the output maps of one stride into boxes, landmarks and scores.

    Args:
        face: shape (N, 1), that the anchor's object is a face; N anchors in rows of 640 / stride.
        object_: shape (N, 1), how well the anchor fits an object.
        offsets: shape (N, 4): centre x and y from the anchor, logarithm of width and height, all
            in strides.
        points: shape (N, 10): x and y of the five landmarks from the anchor, in strides.
        stride: pixels between two anchors.
        threshold: lowest score kept.

    Returns:
        Boxes (M, 4) xyxy and landmarks (M, 5, 2) in pixels of the input, scores (M,).
    """
    scores = np.sqrt(np.clip(face[:, 0], 0, 1) * np.clip(object_[:, 0], 0, 1))
    found = np.flatnonzero(scores >= threshold)
    rows, columns = np.divmod(found, _SIDE // stride)
    anchors = np.stack([columns, rows], axis=1).astype(np.float32)
    centres = (anchors + offsets[found, :2]) * stride
    halves = np.exp(offsets[found, 2:]) * (stride / 2)
    # Stored as the person's right eye, left eye, nose, right and left mouth corner. The person's
    # right is left in the picture, so that this is already the order of `Face.landmarks`.
    landmarks = (points[found].reshape(-1, 5, 2) + anchors[:, None]) * stride
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return boxes.astype(np.float32), landmarks.astype(np.float32), scores[found]
