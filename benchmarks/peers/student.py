"""The pipeline of the DFDC student project, written afresh from its description.

Ten pictures spread evenly, dark ones brightened; MTCNN of facenet-pytorch on whole pictures, with
the project's settings; MixNet-M features of crops of 160 px into an LSTM. The weights are random:
only its time is looked at.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from facenet_pytorch import MTCNN
from frames import read_evenly
from torch import Tensor, nn

FRAMES = 10
CROP = 160
MARGIN = 14
THRESHOLDS = [0.9, 0.9, 0.9]
DARK = 60.0
"""Mean grey level below which a picture is brightened."""


class Network(nn.Module):
    """MixNet-M, LSTM of two layers with 512 units, dropout, batch norm, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = timm.create_model("mixnet_m", pretrained=False, num_classes=0)
        self.lstm = nn.LSTM(self.features.num_features, 512, 2, batch_first=True)
        self.dropout = nn.Dropout(0.75)
        self.norm = nn.BatchNorm1d(512)
        self.first = nn.Linear(512, 32)
        self.last = nn.Linear(32, 1)

    def forward(self, crops: Tensor) -> Tensor:
        """Return P(fake), (N,), of clips of crops, (N, T, 3, 160, 160)."""
        people, frames = crops.shape[:2]
        features = self.features(crops.flatten(0, 1)).unflatten(0, (people, frames))
        states, _ = self.lstm(features)
        state = self.norm(self.dropout(states[:, -1]))
        return torch.sigmoid(self.last(nn.functional.elu(self.first(state))))[:, 0]


class Pipeline:
    """The models, loaded."""

    def __init__(self, _threads: int) -> None:
        torch.manual_seed(0)
        self.detector = MTCNN(
            image_size=CROP, margin=MARGIN, keep_all=True, thresholds=THRESHOLDS
        ).eval()
        self.network = Network().eval()

    @torch.inference_mode()
    def judge(self, path: Path) -> dict[str, float]:
        """Judge a video; return what was seen, and a score."""
        pictures = [_brighten(picture) for picture in read_evenly(path, FRAMES, retrieve_all=True)]
        found = [faces for faces in self.detector(np.stack(pictures)) if faces is not None]
        people = max((len(faces) for faces in found), default=0)
        scores = []
        for person in range(people):  # by place in the list, as the project does
            clip = torch.stack([faces[person] for faces in found if len(faces) > person])
            scores.append(float(self.network(clip[None])[0]))
        faces = sum(len(faces) for faces in found)
        return {"frames": len(pictures), "faces": faces, "score": min(scores, default=0.5)}


def _brighten(picture: np.ndarray) -> np.ndarray:
    if cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).mean() >= DARK:
        return picture
    return cv2.convertScaleAbs(picture, alpha=1.5, beta=20)
