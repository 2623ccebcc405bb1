"""Compose batches: every batch is a function of seed and step alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from tellframe.errors import ConfigError, DataError
from tellframe.recipe import Recipe
from tellframe.train.augment import (
    FROM_PAIRS,
    FROM_REALS,
    Frames,
    Sample,
    arrange,
    choose,
    crop_sample,
    degrade,
    difference_target,
)
from tellframe.train.autoencoder import all_makers
from tellframe.train.config import AugmentConfig, BatchConfig
from tellframe.train.data import TrainingData
from tellframe.train.videos import VideoScene

MAX_DRAWS: Final = 200
"""Pairs in a row that may turn out to be alike, as a fake is whose sound alone was changed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs of clips of T frames, the real of each directly before its fake."""

    crops: torch.Tensor
    """uint8, (2 * pairs, T, S, S, 3)."""
    valid: torch.Tensor
    """bool, (2 * pairs, T); False where a clip has fewer frames."""
    labels: torch.Tensor
    """float32, (2 * pairs,), 1 = fake."""
    weights: torch.Tensor
    """float32, (2 * pairs,), in the loss."""
    paired: torch.Tensor
    """bool, (pairs,), whether a pair is a real and its own fake; otherwise any two clips."""
    differences: torch.Tensor
    """float32, (2 * pairs, T, cells, cells): 1 where a fake differs from its real, -1 unknown."""


@dataclass(frozen=True, slots=True)
class _Half:
    """One clip of a batch."""

    frames: Frames
    label: int
    difference: NDArray[np.float32]
    weight: float = 1.0
    """In the loss."""


class PairBatches(Dataset[Batch]):
    """Item `step` is the batch of that step.

    Every pair has a random generator of its own, so that one prepared alone, by one of several
    processes that train together, is the same as in the whole batch.

    Args:
        data: what is drawn from.
        batch: what is drawn, how often.
        recipe: size and margin of the crops.
        cells: side of the feature map.
        seed: decides the batches.
        augment: how often each augmentation comes.
        places: of the pairs to prepare, out of a whole batch; all by default.

    Raises:
        ConfigError: the data has nothing that the batch asks for.
    """

    def __init__(
        self,
        data: TrainingData,
        batch: BatchConfig,
        recipe: Recipe,
        cells: int,
        seed: int,
        augment: AugmentConfig | None = None,
        places: range | None = None,
    ) -> None:
        self.data, self.batch, self.recipe = data, batch, recipe
        self.augment = augment or AugmentConfig()
        self.makers = all_makers(data.coders)
        self.cells, self.seed = cells, seed
        self.places = range(batch.num_pairs) if places is None else places
        self.by_method: dict[str, list[tuple[VideoScene, int]]] = defaultdict(list)
        for scene in data.videos:
            for k, method in enumerate(scene.methods):
                if scene.swapped[k].any():
                    self.by_method[method].append((scene, k))
        self.clip_reals = [s for s in data.clips if s.real]
        self.clip_fakes = [(s, k) for s in data.clips for k in range(len(s.fakes))]
        self.clip_scenes = [s for s in data.clips if s.real and s.fakes]
        self._require_data()
        # A method with four times the scenes is drawn twice as often.
        sizes = np.sqrt([len({id(s) for s, _ in v}) for v in self.by_method.values()])
        if unknown := set(batch.favoured) - set(self.by_method):
            raise ConfigError(f"[batch] favoured: no video of the methods {sorted(unknown)}")
        sizes *= [batch.favour if m in batch.favoured else 1.0 for m in self.by_method]
        self.method_share = sizes / sizes.sum() if len(sizes) else sizes
        self._list_draws()

    def _require_data(self) -> None:
        data, batch = self.data, self.batch
        if not (data.videos or data.reals or data.stills or data.portraits or data.clips):
            raise ConfigError("no face to train on; set [data] shards, labels, stills or portraits")
        apart = batch.clip_pairs if batch.balance != "paired" else 0
        if apart and not (self.clip_reals and self.clip_fakes):
            raise ConfigError("[batch] clip_pairs: the shards have no real clip, or no fake one")
        if batch.clip_pairs and not apart and not self.clip_scenes:
            raise ConfigError("[batch] clip_pairs: the shards have no fake with its original")
        if batch.self_blends and self.augment.painted_blend and not data.coders:
            raise ConfigError("[augment] painted_blend: set [data] autoencoders to their weights")
        if batch.num_pairs - apart > batch.self_blends and not (
            self.by_method or data.stills or self.clip_scenes
        ):
            raise ConfigError(
                "no pair of a real and a fake to train on; set [data] shards, labels or stills"
            )

    def _list_draws(self) -> None:
        """List how each pair of a batch is made, first those of a real and its own fake."""
        batch, balance = self.batch, self.batch.balance
        matched = [self._video_pair] * batch.video_pairs + [self._still_pair] * batch.still_pairs
        blends = [self._weaker_pair] * batch.part_blends + [self._blend] * batch.self_blends
        clips = batch.clip_pairs
        paired = blends if balance == "apart" else matched + blends
        paired += [self._clip_pair] * clips if balance == "paired" else []
        self.num_paired = len(paired)
        self.draws: list[Callable[[np.random.Generator], tuple[_Half, _Half]]]
        self.draws = [partial(self._keep_together, draw) for draw in paired]
        if balance == "apart":
            self.draws += [partial(self._part_company, draw) for draw in matched]
        self.draws += [self._two_clips] * (0 if balance == "paired" else clips)

    def __getitem__(self, step: int) -> Batch:
        pairs = [
            self.draws[place](np.random.default_rng([self.seed, step, place]))
            for place in self.places
        ]
        halves = [half for pair in pairs for half in pair]
        crops, valid = _pad([h.frames for h in halves], self.batch.frames)
        differences, _ = _pad([h.difference for h in halves], self.batch.frames)
        return Batch(
            crops=torch.from_numpy(crops),
            valid=torch.from_numpy(valid),
            labels=torch.tensor([h.label for h in halves], dtype=torch.float32),
            weights=torch.tensor([h.weight for h in halves], dtype=torch.float32),
            paired=torch.tensor([place < self.num_paired for place in self.places]),
            differences=torch.from_numpy(differences),
        )

    def _prepare_pair(self, sample: Sample, rng: np.random.Generator) -> tuple[_Half, _Half]:
        """Cut and degrade a real and its fake alike."""
        cropped = crop_sample(sample, self.recipe.crop_size, self.recipe.margin, rng)
        arranged = arrange(cropped, self.augment, rng)
        target = difference_target(arranged.real, arranged.fake, self.cells)
        degraded = degrade(arranged, self.augment, rng)
        return _Half(degraded.real, 0, np.zeros_like(target)), _Half(degraded.fake, 1, target)

    def _prepare_alone(self, sample: Sample, label: int, rng: np.random.Generator) -> _Half:
        """Cut and degrade one clip; where a fake was changed is not known without its real."""
        real, fake = self._prepare_pair(sample, rng)
        unknown = real.difference - label
        return _Half(fake.frames if label else real.frames, label, unknown)

    def _keep_together(
        self, draw: Callable[[np.random.Generator], Sample], rng: np.random.Generator
    ) -> tuple[_Half, _Half]:
        """Take a pair as it was drawn."""
        return self._prepare_pair(draw(rng), rng)

    def _part_company(
        self, draw: Callable[[np.random.Generator], Sample], rng: np.random.Generator
    ) -> tuple[_Half, _Half]:
        """Take the real of one pair and the fake of another, each degraded in its own way."""
        real, _ = self._prepare_pair(draw(rng), rng)
        _, fake = self._prepare_pair(draw(rng), rng)
        return real, replace(fake, difference=np.full_like(fake.difference, -1))

    def _two_clips(self, rng: np.random.Generator) -> tuple[_Half, _Half]:
        """Draw a real and a fake of different scenes, or any two clips."""
        labels, weights = [0, 1], np.ones(2)
        if self.batch.balance == "weighted":
            counts = np.array([len(self.clip_reals), len(self.clip_fakes)])
            labels = [int(rng.random() < counts[1] / counts.sum()) for _ in range(2)]
            weights = counts.sum() / (2 * counts)  # both classes weigh the same in the end
        first, second = (
            replace(
                self._prepare_alone(self._clip(label, rng), label, rng),
                weight=float(weights[label]),
            )
            for label in labels
        )
        return first, second

    def _clip(self, label: int, rng: np.random.Generator) -> Sample:
        """Draw a clip of a class."""
        if label:
            scene, fake = self.clip_fakes[rng.integers(len(self.clip_fakes))]
            return scene.alone(fake, rng, self.batch.frames)
        scene = self.clip_reals[rng.integers(len(self.clip_reals))]
        return scene.alone(None, rng, self.batch.frames)

    def _clip_pair(self, rng: np.random.Generator) -> Sample:
        """Draw a scene, then its real and one of its fakes that differs from it."""
        for _ in range(MAX_DRAWS):
            scene = self.clip_scenes[rng.integers(len(self.clip_scenes))]
            fake = int(rng.integers(len(scene.fakes)))
            if sample := scene.pair(fake, rng, self.batch.frames):
                return sample
        raise DataError(
            f"[batch] clip_pairs: {MAX_DRAWS} fakes in a row do not differ from their originals"
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
            return self._video_pair(rng) if self.by_method else self._clip_pair(rng)
        scene = self.data.stills[rng.integers(len(self.data.stills))]
        return scene.sample(int(rng.integers(len(scene.fakes))))

    def _weaker_pair(self, rng: np.random.Generator) -> Sample:
        pair = self._video_pair(rng) if rng.random() < 0.6 else self._still_pair(rng)
        return self.makers[choose(FROM_PAIRS, self.augment, rng)](pair, pair, rng)

    def draw_real(self, rng: np.random.Generator) -> Sample:
        """Draw a real face: two of five from videos and clips of shards, as often from either.

        Of the others, which are pictures, one is of a portrait and two are of single crops. What
        there is takes the place of what there is not.
        """
        scenes = self.data.videos + self.data.reals
        pictures = self.data.stills or self.data.portraits
        choice = rng.random()
        if (scenes or self.clip_reals) and (choice < 0.4 or not pictures):
            if self.clip_reals and (not scenes or rng.random() < 0.5):
                return self._clip(0, rng)
            scene = scenes[rng.integers(len(scenes))]
            return scene.sample(int(rng.integers(len(scene.real))), None)
        if choice < 0.6 and self.data.portraits:
            pictures = self.data.portraits
        return pictures[rng.integers(len(pictures))].sample(None)

    def _blend(self, rng: np.random.Generator) -> Sample:
        sample = self.draw_real(rng)
        name = choose(FROM_REALS, self.augment, rng)
        other = sample if name == "self_blend" else self.draw_real(rng)  # to draw one takes time
        return self.makers[name](sample, other, rng)


def _pad(parts: list[NDArray[Any]], length: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Stack arrays (T, ...) of at most `length` frames; return them with what is no padding."""
    stacked = np.zeros((len(parts), length, *parts[0].shape[1:]), parts[0].dtype)
    valid = np.zeros((len(parts), length), dtype=np.bool_)
    for row, part in enumerate(parts):
        stacked[row, : len(part)] = part
        valid[row, : len(part)] = True
    return stacked, valid


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
