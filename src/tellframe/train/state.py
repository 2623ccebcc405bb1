"""All that a training run changes, and a checkpoint keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from tellframe.errors import ConfigError
from tellframe.train.config import TrainConfig
from tellframe.train.models import ClipModel, build_model
from tellframe.train.optimizer import build_optimizer
from tellframe.train.processes import device


@dataclass(slots=True)
class Progress:
    """What training remembers of its validations."""

    best: float = math.inf
    """The lowest log loss."""
    stale: int = 0
    """Validations since then, or since the rate was last reduced."""
    reductions: int = 0
    """How often the rate was reduced."""

    def note(self, log_loss: float, patience: int) -> bool:
        """Take a validation in; return whether it is the best so far."""
        if log_loss < self.best:
            self.best, self.stale = log_loss, 0
            return True
        self.stale += 1
        if self.stale > patience:
            self.stale, self.reductions = 0, self.reductions + 1
        return False


@dataclass(slots=True)
class TrainState:
    """A run between two steps; the same in all processes."""

    model: ClipModel
    mean_model: ClipModel
    """The running mean of the weights, which is what is evaluated and exported."""
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype = torch.float32
    """What the network computes in; weights, losses and the running mean are float32 always."""
    scaler: torch.amp.GradScaler = field(default_factory=lambda: new_scaler(torch.float32))
    """Keeps small gradients above float16's zero (Micikevicius et al. 2018); idle in others."""
    progress: Progress = field(default_factory=Progress)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def autocast(self) -> torch.autocast:
        """Return what the forward pass runs in."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )


def build_state(config: TrainConfig) -> TrainState:
    """Build what a run begins with, on this process's device; decided by the seed.

    Raises:
        ConfigError: the backbone or its weights do not fit, or the device cannot compute in
            the precision.
    """
    place = device()
    dtype = choose_dtype(config.optim.precision, place)
    torch.manual_seed(config.optim.seed)
    model = build_model(config.model, config.recipe).to(memory_format=torch.channels_last)
    model = model.to(place)
    mean_model = build_model(config.model, config.recipe).to(place)
    mean_model.load_state_dict(model.state_dict())
    optimizer = build_optimizer(model, config.optim)
    return TrainState(model, mean_model, optimizer, dtype, new_scaler(dtype, place))


def new_scaler(dtype: torch.dtype, place: torch.device | None = None) -> torch.amp.GradScaler:
    """Return a scaler of the loss for float16, and one that does nothing for other types."""
    kind = place.type if place else "cpu"
    return torch.amp.GradScaler(kind, enabled=dtype == torch.float16)


def choose_dtype(precision: str, place: torch.device) -> torch.dtype:
    """Return what the network computes in. Nothing of it has been run on a GPU.

    Args:
        precision: "fp32", "bf16", "fp16", or "auto": bf16 on a GPU that has it, otherwise fp32.
        place: the device.

    Raises:
        ConfigError: the device cannot, or not at any useful speed.
    """
    on_gpu = place.type == "cuda"
    # In emulation, older GPUs are slower in bf16 than in fp32.
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return torch.bfloat16 if has_bf16 else torch.float32
    if precision == "fp16" and not on_gpu:
        raise ConfigError(
            "[optim] precision = 'fp16' needs a GPU, and torch finds none; set 'auto' or 'fp32'"
        )
    if precision == "bf16" and on_gpu and not has_bf16:
        raise ConfigError(
            "[optim] precision = 'bf16': this GPU has no bf16; set 'auto', 'fp16' or 'fp32'"
        )
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
