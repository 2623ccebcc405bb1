"""A pipeline like that of the DFDC's winner, with one of its networks.

32 pictures spread evenly; MTCNN of facenet-pytorch on pictures of half the size; crops with a third
of the box around it, 380 px, through EfficientNet-B7. The weights are random: only its time is
looked at. The winner averages several such networks.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from facenet_pytorch import MTCNN
from frames import read_evenly

FRAMES = 32
CROP = 380
THRESHOLDS = [0.7, 0.8, 0.8]
PADDING = 3
"""A crop reaches beyond the box by one part in so many, on every side."""
BATCH = 8
"""Crops that go through the network at once; more are no faster on a CPU."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pipeline:
    """The models, loaded."""

    def __init__(self, _threads: int) -> None:
        torch.manual_seed(0)
        self.detector = MTCNN(margin=0, keep_all=True, thresholds=THRESHOLDS).eval()
        self.network = timm.create_model("tf_efficientnet_b7", pretrained=False, num_classes=1)
        self.network.eval()

    @torch.inference_mode()
    def judge(self, path: Path) -> dict[str, float]:
        """Judge a video; return what was seen, and a score."""
        pictures = read_evenly(path, FRAMES, retrieve_all=False)
        crops = [crop for picture in pictures for crop in self._crop(picture)]
        scores = [
            torch.sigmoid(self.network(_to_tensor(crops[i : i + BATCH]))[:, 0])
            for i in range(0, len(crops), BATCH)
        ]
        score = float(torch.cat(scores).mean()) if scores else 0.5
        return {"frames": len(pictures), "faces": len(crops), "score": score}

    def _crop(self, picture: np.ndarray) -> list[np.ndarray]:
        height, width = picture.shape[:2]
        half = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        boxes, _ = self.detector.detect(half)
        crops = []
        for box in [] if boxes is None else boxes:
            x0, y0, x1, y1 = (round(2 * float(value)) for value in box)
            pad_x, pad_y = (x1 - x0) // PADDING, (y1 - y0) // PADDING
            cut = picture[max(y0 - pad_y, 0) : y1 + pad_y, max(x0 - pad_x, 0) : x1 + pad_x]
            crops.append(_fit(cut))
        return crops


def _fit(cut: np.ndarray) -> np.ndarray:
    """Scale the longer side to `CROP`, and put the picture into the middle of a square."""
    scale = CROP / max(cut.shape[:2])
    size = (max(round(cut.shape[1] * scale), 1), max(round(cut.shape[0] * scale), 1))
    small = cv2.resize(cut, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.zeros((CROP, CROP, 3), np.uint8)
    top, left = (CROP - small.shape[0]) // 2, (CROP - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square


def _to_tensor(crops: list[np.ndarray]) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
