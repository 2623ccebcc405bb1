"""Networks that judge the clip of one person: a backbone on every frame, a head over the frames.

=========== ===================================== ============================= ==================
head        logit of the clip                     score of a frame              order of frames
=========== ===================================== ============================= ==================
mean        mean over the frames                  of the frame alone            ignored
attention   weighted mean, the weights learnt     of the frame alone            ignored
gru         mean over the frames                  of the frame among the others seen, both ways
dfdcnet     LSTM, then two layers                 of a clip of the frame alone  seen, forwards
=========== ===================================== ============================= ==================

All but the last start as the mean, so that each can go on from a trained frame classifier. Frames
that are not valid have no influence, batches share nothing, and nothing is kept between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from tellframe.recipe import Recipe
from tellframe.train.backbone import PatchReader, build_backbone, frozen_modules
from tellframe.train.config import ModelConfig


class ClipModel(nn.Module, ABC):
    """What all heads share: the backbone, and the map that marks where a fake was changed.

    That map, the difference map, is trained to tell a fake from its own real place by place. It
    shapes the features and is left out of the bundle.

    Args:
        config: the network.
        recipe: how its crops are made.

    Raises:
        ConfigError: the backbone or its weights do not fit.
    """

    kind: ClassVar[str] = "clip"
    """What its graph takes: "frame" for single crops, "clip" for the frames of a person."""
    probe: nn.Linear | None
    """Tells degraded pictures from features averaged over places, see `tellframe.train.quality`;
    None in training."""

    def __init__(self, config: ModelConfig, recipe: Recipe) -> None:
        super().__init__()
        self.backbone, width = build_backbone(config, recipe.crop_size)
        self.frozen = frozen_modules(self.backbone, config)
        for module in self.frozen:
            module.requires_grad_(False)
        self.reader: nn.Module = nn.Identity()
        if config.stages:
            self.reader, width = PatchReader(width), PatchReader.features
        self.dropout = nn.Dropout(config.dropout)
        self.head = self._new_head(width, config)
        self.difference = nn.Conv2d(width, 1, 1)
        self.probe = None
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(recipe.std).view(1, 3, 1, 1) * 255)
        self.train()

    def train(self, mode: bool = True) -> ClipModel:
        """Set the mode; what is frozen stays in that of judging, its statistics fixed."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def features(self, crops: Tensor) -> Tensor:
        """Return the feature map, (N, C, h, w), of uint8 crops, (N, S, S, 3)."""
        pixels = crops.permute(0, 3, 1, 2).float()
        return self.reader(self.backbone((pixels - self.mean) / self.std))  # type: ignore[no-any-return, operator]

    def degradation(self, features: Tensor) -> Tensor:
        """Return P(the picture is badly degraded), (N,), of feature maps, (N, C, h, w).

        To be called where there is a `probe`.
        """
        assert self.probe is not None
        return self.probe(features.mean(dim=(2, 3)))[:, 0].sigmoid()  # type: ignore[no-any-return]

    def forward(self, crops: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """Judge clips.

        Args:
            crops: uint8, (N, T, S, S, 3), RGB.
            valid: bool, (N, T): whether the person was seen in the frame. What `crops` holds
                elsewhere has no influence.

        Returns:
            The logit of being fake, (N,); the score of every frame in logits, (N, T); its class
            activation map, (N, T, h, w); and, where there is a `probe`, its P(the picture is badly
            degraded), (N, T). All but the first are 0 where not valid, the logit is finite but says
            nothing where no frame is valid.
        """
        features = _split(self.features(crops.flatten(0, 1)), valid.shape)
        logit, frame_logit, heat = self._judge(features, valid)
        frame_logit = torch.where(valid, frame_logit, 0.0)
        judged = logit, frame_logit, torch.where(valid[..., None, None], heat, 0.0)
        if self.probe is None:
            return judged
        degraded = _split(self.degradation(features.flatten(0, 1)), valid.shape)
        return *judged, torch.where(valid, degraded, 0.0)

    def forward_train(self, crops: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Judge clips with dropout.

        Args:
            crops: as for `forward`.
            valid: bool, (N, T), at least one frame of each clip.

        Returns:
            The logit of being fake, (N,), and the difference map in logits, (N, T, h, w), 0 where
            not valid.
        """
        # Nothing but valid frames may enter the statistics of batch normalisation.
        features = self.features(crops[valid])
        marked = self.difference(features)[:, 0]
        pooled = features.mean(dim=(2, 3))
        return self._pool_train(_spread(pooled, valid), valid), _spread(marked, valid)

    @abstractmethod
    def _new_head(self, width: int, config: ModelConfig) -> nn.Module:
        """Return the module called `head`, for features of that width."""

    @abstractmethod
    def _judge(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, from features, (N, T, C, h, w)."""

    @abstractmethod
    def _pool_train(self, pooled: Tensor, valid: Tensor) -> Tensor:
        """Return the logits, (N,), from features averaged over places, (N, T, C)."""


class LinearModel(ClipModel):
    """A clip's logit is a weighted mean of the scores of its frames; by itself the plain mean.

    The score of a frame is the mean over places of a linear map of the features, so that the same
    map before the mean is the class activation map (Zhou et al., CVPR 2016).
    """

    head: nn.Linear

    def _new_head(self, width: int, _config: ModelConfig) -> nn.Module:
        return nn.Linear(width, 1)

    def heat(self, features: Tensor) -> Tensor:
        """Return the class activation map, (N, h, w), of features, (N, C, h, w)."""
        return torch.einsum("nchw,c->nhw", features, self.head.weight[0]) + self.head.bias

    def _judge(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heat = _split(self.heat(features.flatten(0, 1)), valid.shape)
        pooled = features.mean(dim=(3, 4))
        context = self._context(pooled, valid)
        frame_logit = heat.mean(dim=(2, 3)) + context
        logit = _weighted(frame_logit, self._weights(pooled, valid))
        return logit, frame_logit, heat + context[..., None, None]

    def _pool_train(self, pooled: Tensor, valid: Tensor) -> Tensor:
        pooled = self.dropout(pooled)
        frame_logit = self.head(pooled)[..., 0] + self._context(pooled, valid)
        return _weighted(frame_logit, self._weights(pooled, valid))

    def _weights(self, pooled: Tensor, valid: Tensor) -> Tensor:
        """Return the share of every frame in the clip's logit, (N, T), 0 where not valid."""
        # Finite, in half precision too, so that a clip without a valid frame gives no NaN.
        ranks = torch.where(valid, self._ranks(pooled), -3e4)
        return torch.where(valid, ranks.softmax(dim=1), 0.0)

    def _ranks(self, pooled: Tensor) -> Tensor:
        """Return the logarithm of the weight of every frame, up to a constant, (N, T)."""
        return pooled.new_zeros(pooled.shape[:2])

    def _context(self, pooled: Tensor, valid: Tensor) -> Tensor:
        """Return what the other frames add to the score of each, (N, T)."""
        return pooled.new_zeros(valid.shape)


class MeanModel(LinearModel):
    """The frame classifier: it needs no clip, and the mean over frames can be taken elsewhere."""

    kind: ClassVar[str] = "frame"

    def judge_frames(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Score crops, uint8 (N, S, S, 3).

        Returns:
            Logits, (N,), heat, (N, h, w), and, where there is a `probe`, P(the picture is badly
            degraded), (N,).
        """
        features = self.features(crops)
        heat = self.heat(features)
        judged = heat.mean(dim=(1, 2)), heat
        return judged if self.probe is None else (*judged, self.degradation(features))


class FrameEnsemble(nn.Module):
    """Frame classifiers that judge together: the mean of their logits counts.

    Args:
        members: judge the same crops, each with its own weights.
    """

    kind: ClassVar[str] = "frame"

    def __init__(self, members: Sequence[MeanModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def judge_frames(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Score crops, uint8 (N, S, S, 3); as `MeanModel.judge_frames`.

        The heat is as coarse as that of the coarsest member; P(the picture is badly degraded) is
        the mean over the members that have a `probe`.
        """
        judged = [member.judge_frames(crops) for member in self.members]  # type: ignore[operator]
        logit = torch.stack([j[0] for j in judged]).mean(dim=0)
        size = min(tuple(j[1].shape[1:]) for j in judged)
        heat = torch.stack([adaptive_avg_pool2d(j[1], size) for j in judged]).mean(dim=0)
        degraded = [j[2] for j in judged if len(j) > 2]
        return (logit, heat, torch.stack(degraded).mean(dim=0)) if degraded else (logit, heat)


class AttentionModel(LinearModel):
    """Gated attention pooling (Ilse, Tomczak and Welling, ICML 2018), the head being linear.

    Pooling features and then mapping them linearly is the same as pooling the linear map, so that
    the clip's logit is exactly a weighted mean of the scores of its frames, with their heat. Of
    the ways to attend, this one needs no order, no fixed number of frames and few weights; a
    transformer layer would mix the frames, and no frame's score would be its own any more.
    """

    def __init__(self, config: ModelConfig, recipe: Recipe) -> None:
        super().__init__(config, recipe)
        width = self.difference.in_channels
        self.attend = nn.Linear(width, config.hidden)
        self.gate = nn.Linear(width, config.hidden)
        self.rank = nn.Linear(config.hidden, 1, bias=False)
        nn.init.zeros_(self.rank.weight)  # all frames alike: it starts as the mean

    def _ranks(self, pooled: Tensor) -> Tensor:
        gated = torch.tanh(self.attend(pooled)) * torch.sigmoid(self.gate(pooled))
        return self.rank(gated)[..., 0]  # type: ignore[no-any-return]


class GruModel(LinearModel):
    """A GRU in both directions adds to each frame's score what its neighbours tell of it.

    In both, since a clip is judged when it is over, and the first frame deserves as much context
    as the last. The added score has no place in the picture and is spread evenly over the heat.
    """

    def __init__(self, config: ModelConfig, recipe: Recipe) -> None:
        super().__init__(config, recipe)
        widths = [self.difference.in_channels, *[2 * config.hidden] * (config.layers - 1)]
        self.forwards = nn.ModuleList(nn.GRU(w, config.hidden, batch_first=True) for w in widths)
        self.backwards = nn.ModuleList(nn.GRU(w, config.hidden, batch_first=True) for w in widths)
        self.add = nn.Linear(2 * config.hidden, 1)
        nn.init.zeros_(self.add.weight)  # nothing to add: it starts as the mean
        nn.init.zeros_(self.add.bias)

    def _context(self, pooled: Tensor, valid: Tensor) -> Tensor:
        count = valid.sum(dim=1, keepdim=True)
        steps = torch.arange(valid.shape[1], device=valid.device)
        # PyTorch's own second direction would begin with the frames that are not valid.
        mirror = torch.where(steps < count, count - 1 - steps, steps)
        states = _compact(pooled, valid)
        for onward, back in zip(self.forwards, self.backwards, strict=True):
            later = _take(back(_take(states, mirror))[0], mirror)
            states = torch.cat([onward(states)[0], later], dim=2)
        rank = (valid.cumsum(dim=1) - 1).clamp(min=0)
        return self.add(states)[..., 0].gather(1, rank)  # type: ignore[no-any-return]


class DfdcModel(ClipModel):
    """The network of the DFDC project, without its slips: state kept, `eval()` never called.

    A frame's score is that of a clip of this frame alone, and its heat that of clips which look
    everywhere as the frame does in one place. So the network that decides is the one that
    explains, with no weights besides; but a score is not a share in the clip's logit, and the
    heat's mean is not the score. Train on clips of some and of many frames to have both.
    """

    def _new_head(self, width: int, config: ModelConfig) -> nn.Module:
        return _DfdcHead(width, config)

    def _judge(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pooled = features.mean(dim=(3, 4))
        # The average of the places, and each of them, as clips of one frame: (N, T, 1 + h * w, C).
        places = features.flatten(3).transpose(2, 3)
        single = torch.cat([pooled[:, :, None], places], dim=2)
        one = single.flatten(0, 2)[:, None]
        alone = self.head(one, torch.ones_like(one[..., 0], dtype=torch.bool))
        alone = _split(alone, single.shape[:3])
        heat = alone[..., 1:].reshape(*valid.shape, *features.shape[3:])
        return self.head(pooled, valid), alone[..., 0], heat

    def _pool_train(self, pooled: Tensor, valid: Tensor) -> Tensor:
        return self.head(pooled, valid)  # type: ignore[no-any-return]


class _DfdcHead(nn.Module):
    """LSTM, dropout, batch norm, ELU between two linear layers (its README: 64 to 32 to 1)."""

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, config.hidden, config.layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.BatchNorm1d(config.hidden)
        self.first = nn.Linear(config.hidden, 32)
        self.last = nn.Linear(32, 1)

    def forward(self, pooled: Tensor, valid: Tensor) -> Tensor:
        """Return logits, (N,), of clips of features, (N, T, C)."""
        # No state is given, so that every clip starts from zeros.
        states, _ = self.lstm(_compact(pooled, valid))
        end = (valid.sum(dim=1, keepdim=True) - 1).clamp(min=0)
        state = self.norm(self.dropout(_take(states, end)[:, 0]))
        return self.last(nn.functional.elu(self.first(state)))[:, 0]  # type: ignore[no-any-return]


_MODELS: Final[dict[str, type[ClipModel]]] = {
    "mean": MeanModel,
    "attention": AttentionModel,
    "gru": GruModel,
    "dfdcnet": DfdcModel,
}


def build_model(config: ModelConfig, recipe: Recipe) -> ClipModel:
    """Build the network of a configuration, in training mode.

    Raises:
        ConfigError: the backbone or its weights do not fit.
    """
    return _MODELS[config.head](config, recipe)


def _weighted(frame_logit: Tensor, weights: Tensor) -> Tensor:
    return (torch.where(weights > 0, frame_logit, 0.0) * weights).sum(dim=1)


def _split(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Turn the first axis into several."""
    return values.reshape(*shape, *values.shape[1:])


def _spread(values: Tensor, valid: Tensor) -> Tensor:
    """Put rows, one a valid frame, to their places in (N, T, ...), with zeros elsewhere."""
    spread = values.new_zeros(*valid.shape, *values.shape[1:])
    spread[valid] = values
    return spread


def _compact(sequence: Tensor, valid: Tensor) -> Tensor:
    """Move the valid frames of (N, T, C) to the front, in order, followed by zeros."""
    steps = torch.arange(valid.shape[1], device=valid.device)
    order = torch.where(valid, steps, steps + valid.shape[1]).argsort(dim=1)
    return _take(torch.where(valid[..., None], sequence, 0.0), order)


def _take(sequence: Tensor, index: Tensor) -> Tensor:
    """Return the frames, (N, K, C), at the places `index`, (N, K), of (N, T, C)."""
    return sequence.gather(1, index[..., None].expand(-1, -1, sequence.shape[2]))
