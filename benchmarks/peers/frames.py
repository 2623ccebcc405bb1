"""How both peers read a video: with OpenCV, every picture in turn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def read_evenly(path: Path, count: int, *, retrieve_all: bool) -> list[np.ndarray]:
    """Return so many pictures, spread evenly over a video.

    Args:
        path: the video.
        count: how many.
        retrieve_all: whether every picture is converted to BGR, or the wanted ones alone; all are
            decoded.

    Returns:
        Each (H, W, 3), RGB, uint8; fewer where the video ends early.
    """
    capture = cv2.VideoCapture(str(path))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(np.linspace(0, total - 1, count).astype(int).tolist())
    pictures = []
    try:
        for number in range(total):
            if not capture.grab():
                break
            if retrieve_all or number in wanted:
                read, picture = capture.retrieve()
                if read and number in wanted:
                    pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    return pictures
