"""Checkpoints: weights, running mean and optimiser state as safetensors, described in JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tellframe.errors import ConfigError
from tellframe.train.config import ModelConfig, QualityConfig, TrainConfig, config_from_dict
from tellframe.train.differences import list_differences
from tellframe.train.models import ClipModel, build_model
from tellframe.train.state import Progress, TrainState
from tellframe.train.tensorfile import read_tensors, write_tensors


def save_best(folder: Path, config: TrainConfig, mean_model: nn.Module, step: int) -> None:
    """Write the running mean as best.safetensors; replaced only when complete."""
    tensors = {f"mean.{k}": v for k, v in mean_model.state_dict().items()}
    write_tensors(folder / "best.safetensors", tensors, _describe(config, step))


def save_checkpoint(folder: Path, config: TrainConfig, state: TrainState, step: int) -> None:
    """Write everything that a run needs to go on; replaced only when complete."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"mean.{k}": v for k, v in state.mean_model.state_dict().items()}
    for i, kept in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in kept.items()}
    meta = {
        **_describe(config, step),
        "progress": dataclasses.asdict(state.progress),
        "scaler": state.scaler.state_dict(),
    }
    write_tensors(folder / "checkpoint.safetensors", tensors, meta)
    text = folder / "checkpoint.json.part"
    text.write_text(json.dumps(meta, indent=2), encoding="utf-8")
    text.replace(folder / "checkpoint.json")


def save_average(folder: Path, config: TrainConfig, runs: Sequence[Path]) -> None:
    """Write the mean of the running means of several runs, to be exported or started from.

    Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time".

    Args:
        folder: made where it is missing.
        config: of the result; its recipe goes into what is exported.
        runs: training folders that share their start; each counts the same.

    Raises:
        ConfigError: a run has no checkpoint, another network, or other units of pixels.
    """
    model = build_model(_bare(config.model), config.recipe)
    sums: dict[str, Tensor] = {}
    for run in runs:
        own = config_from_dict(read_checkpoint(run)[0]["config"]).model
        for name in ("head", "stages", "hidden", "layers"):
            theirs, ours = getattr(own, name), getattr(config.model, name)
            if theirs != ours:
                raise ConfigError(f"{run}: its [model] {name} is {theirs!r}, not {ours!r}")
        load_start(run, config, model)
        for name, tensor in model.state_dict().items():
            sums[name] = sums.get(name, 0) + tensor.double() / len(runs)
    model.load_state_dict({k: sums[k].to(v.dtype) for k, v in model.state_dict().items()})
    save_start(folder, config, model)


def save_start(folder: Path, config: TrainConfig, model: nn.Module) -> None:
    """Write a model that no run of its own made, to be exported or started from."""
    tensors = {f"mean.{k}": v for k, v in model.state_dict().items()}
    write_tensors(folder / "checkpoint.safetensors", tensors, _describe(config, 0))


def _describe(config: TrainConfig, step: int) -> dict[str, Any]:
    return {
        "format": 1,
        "step": step,
        "recipe_digest": config.recipe.digest,
        "config": config.to_dict(),
    }


def read_checkpoint(
    folder: Path, name: str = "checkpoint"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a checkpoint says of itself, and its tensors.

    Raises:
        ConfigError: there is none, or it is damaged or none of ours.
    """
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise ConfigError(f"{folder}: holds no {path.name}; train first")
    # The tensor file carries its own description: the JSON beside it is for people.
    meta, tensors = read_tensors(path, "checkpoint")
    if not isinstance(meta.get("config"), dict):
        raise ConfigError(f"{path}: does not describe a training; train again")
    return meta, tensors


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def load_checkpoint(folder: Path, config: TrainConfig, state: TrainState) -> int:
    """Restore everything; return the step to go on with.

    Raises:
        ConfigError: there is no checkpoint, or one whose configuration makes other weights.
    """
    meta, tensors = read_checkpoint(folder)
    # Built anew, so that a key that came with a later version counts as its default.
    made, asked = (_decisive(c) for c in (config_from_dict(meta["config"]), config))
    if made != asked:
        listed = list_differences(made.to_dict(), asked.to_dict())
        raise ConfigError(
            f"{folder}: its checkpoint was made with another configuration; go on with that one, "
            f"or choose another folder ({listed})"
        )
    state.model.load_state_dict(_part(tensors, "model."))
    state.mean_model.load_state_dict(_part(tensors, "mean."))
    kept = state.optimizer.state_dict()
    kept["state"] = {}
    for key, tensor in _part(tensors, "optimizer.").items():
        index, name = key.split(".")
        kept["state"].setdefault(int(index), {})[name] = tensor
    state.optimizer.load_state_dict(kept)
    state.scaler.load_state_dict(meta.get("scaler", {}))
    state.progress = Progress(**meta.get("progress", {}))
    return int(meta["step"])


def _decisive(config: TrainConfig) -> TrainConfig:
    """Return a configuration without what changes no weight of any step, but for rounding.

    A run may go on with fewer threads, elsewhere, or to a later stop.
    """
    return replace(
        config,
        name="",
        data=replace(config.data, cache="", endpoint="", keep_shards=False),
        optim=replace(config.optim, threads=0, checkpoint_every=1, stop=0),
        quality=QualityConfig(),
    )


def load_start(folder: Path, config: TrainConfig, model: nn.Module) -> None:
    """Start a model from the running mean of another run.

    With the head, but where the two keep other stages of the backbone.

    Raises:
        ConfigError: there is no checkpoint, or one of another backbone.
        RecipeMismatchError: that run has another normalisation, which its weights hold.
    """
    if not (folder / "checkpoint.safetensors").is_file():
        raise ConfigError(
            f"[model] start = {str(folder)!r}: holds no checkpoint.safetensors; train it first, or "
            "start from ImageNet weights: --set model.start= --set model.pretrained=FILE"
        )
    meta, tensors = read_checkpoint(folder)
    other = config_from_dict(meta["config"])
    if other.model.backbone != config.model.backbone:
        raise ConfigError(
            f"[model] start = {str(folder)!r}: has the backbone {other.model.backbone}, "
            f"not {config.model.backbone}"
        )
    # Weights can go on with crops of another size or margin, but not in other units.
    normalisation = replace(config.recipe, mean=other.recipe.mean, std=other.recipe.std)
    normalisation.require_same(config.recipe, f"{folder} and this configuration")
    kept = _part(tensors, "mean.")
    same = other.model.head == config.model.head
    if other.model.stages != config.model.stages:
        # Cut off elsewhere, its features are others, and so is all that reads them.
        kept = {k: v for k, v in kept.items() if k.startswith("backbone.")}
        same = False
    # What the other network lacks keeps its start, and what it alone has is left out.
    try:
        model.load_state_dict(kept, strict=same)
    except RuntimeError as error:
        raise ConfigError(
            f"[model] start = {str(folder)!r}: its {other.model.head} head has other sizes "
            f"(hidden {other.model.hidden}, layers {other.model.layers})"
        ) from error


def load_trained(
    folder: Path, *, backbone: str = ""
) -> tuple[ClipModel, TrainConfig, dict[str, Any]]:
    """Load the running mean that `[optim] keep` names, with its configuration, for export.

    Args:
        folder: of the training; may come from anybody.
        backbone: the one that timm may fetch or read elsewhere, where the training has such.

    Raises:
        ConfigError: there is no checkpoint, or its backbone lies elsewhere and was not named.
    """
    meta, tensors = read_checkpoint(folder)
    config = config_from_dict(meta["config"])
    name = config.model.backbone
    if ":" in name and name != backbone:  # hf-hub:, local-dir:
        raise ConfigError(
            f"{folder}: its backbone, {name!r:.200}, would be fetched or read from elsewhere; if "
            "that is what you trained with, name it with --backbone"
        )
    if config.optim.keep == "best":
        meta, tensors = read_checkpoint(folder, "best")
    model = build_model(_bare(config.model), config.recipe)
    model.load_state_dict(_part(tensors, "mean."))
    return model.eval(), config, meta


def _bare(config: ModelConfig) -> ModelConfig:
    """Return a network that asks for no weights to start from: it trains no more."""
    return replace(config, pretrained="", start="", frozen=False, frozen_stages=0)
