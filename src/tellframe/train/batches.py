"""Compose batches: every batch is a function of seed and step alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train.augment import (
    Image,
    Sample,
    cut,
    degrade,
    difference_target,
    part_blend,
    self_blend,
    swap_blend,
)
from tellframe.train.config import BatchConfig
from tellframe.train.data import TrainingData, VideoScene


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs, the real of each directly before its fake."""

    crops: torch.Tensor
    """uint8, (2 * pairs, S, S, 3)."""
    labels: torch.Tensor
    """float32, (2 * pairs,), 1 = fake."""
    differences: torch.Tensor
    """float32, (2 * pairs, cells, cells): 1 where a fake differs from its real, -1 unknown."""


class PairBatches(Dataset[Batch]):
    """Item `step` is the batch of that step.

    Raises:
        ConfigError: the data has nothing that the batch asks for.
    """

    def __init__(
        self, data: TrainingData, batch: BatchConfig, recipe: Recipe, cells: int, seed: int
    ) -> None:
        self.data, self.batch, self.recipe = data, batch, recipe
        self.cells, self.seed = cells, seed
        self.by_method: dict[str, list[tuple[VideoScene, int]]] = defaultdict(list)
        for scene in data.videos:
            for k, method in enumerate(scene.methods):
                if scene.swapped[k].any():
                    self.by_method[method].append((scene, k))
        if batch.num_pairs > batch.self_blends and not (self.by_method or data.stills):
            raise ConfigError("no pair of a real and a fake to train on; set [data] labels, stills")
        if not (data.videos or data.reals or data.stills or data.portraits):
            raise ConfigError("no face to train on; set [data] labels, stills or portraits")
        # A method with four times the scenes is drawn twice as often.
        sizes = np.sqrt([len({id(s) for s, _ in v}) for v in self.by_method.values()])
        if unknown := set(batch.favoured) - set(self.by_method):
            raise ConfigError(f"[batch] favoured: no video of the methods {sorted(unknown)}")
        sizes *= [batch.favour if m in batch.favoured else 1.0 for m in self.by_method]
        self.method_share = sizes / sizes.sum() if len(sizes) else sizes

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        samples = [self._video_pair(rng) for _ in range(self.batch.video_pairs)]
        samples += [self._still_pair(rng) for _ in range(self.batch.still_pairs)]
        samples += [
            part_blend(self._video_pair(rng) if rng.random() < 0.6 else self._still_pair(rng), rng)
            for _ in range(self.batch.part_blends)
        ]
        samples += [self._blend(rng) for _ in range(self.batch.self_blends)]
        crops: list[Image] = []
        differences: list[NDArray[np.float32]] = []
        for sample in samples:
            real, fake = cut(sample, self.recipe.crop_size, self.recipe.margin, rng)
            differences += [
                np.zeros((self.cells, self.cells), dtype=np.float32),
                difference_target(real, fake, self.cells),
            ]
            crops += degrade([real, fake], rng)
        labels = np.tile(np.array([0, 1], dtype=np.float32), len(samples))
        return Batch(
            torch.from_numpy(np.stack(crops)),
            torch.from_numpy(labels),
            torch.from_numpy(np.stack(differences)),
        )

    def _video_pair(self, rng: np.random.Generator) -> Sample:
        if not self.by_method:
            return self._still_pair(rng)
        method = rng.choice(len(self.method_share), p=self.method_share)
        candidates = list(self.by_method.values())[method]
        scene, fake = candidates[rng.integers(len(candidates))]
        return scene.sample(int(rng.choice(np.flatnonzero(scene.swapped[fake]))), fake)

    def _still_pair(self, rng: np.random.Generator) -> Sample:
        if not self.data.stills:
            return self._video_pair(rng)
        scene = self.data.stills[rng.integers(len(self.data.stills))]
        return scene.sample(int(rng.integers(len(scene.fakes))))

    def _real(self, rng: np.random.Generator) -> Sample:
        """Draw a real face: videos, stills and portraits alike, or from what there is of them."""
        scenes = self.data.videos + self.data.reals
        pictures = self.data.stills or self.data.portraits
        choice = rng.random()
        if scenes and (choice < 0.4 or not pictures):
            scene = scenes[rng.integers(len(scenes))]
            return scene.sample(int(rng.integers(len(scene.real))), None)
        if choice < 0.6 and self.data.portraits:
            pictures = self.data.portraits
        return pictures[rng.integers(len(pictures))].sample(None)

    def _blend(self, rng: np.random.Generator) -> Sample:
        sample = self._real(rng)
        if rng.random() < 0.5:
            return self_blend(sample, rng)
        return swap_blend(sample, self._real(rng), rng)


def open_batches(batches: PairBatches, first: int, last: int, workers: int) -> DataLoader[Batch]:
    """Load batches first <= step < last in order, in worker processes."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_use_one_thread,
    )


def _use_one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)  # the cores belong to the training step
