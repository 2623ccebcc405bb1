"""The training loop, readable from top to bottom."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final

import torch
from torch import nn

from tellframe.errors import ConfigError
from tellframe.train.batches import Batch, PairBatches, open_batches
from tellframe.train.checkpoint import load_checkpoint, load_start, save_best, save_checkpoint
from tellframe.train.clips import has_both
from tellframe.train.config import OptimConfig, TrainConfig
from tellframe.train.data import TrainingData, load_data
from tellframe.train.log import open_log, require_tensorboard
from tellframe.train.losses import pair_losses
from tellframe.train.models import ClipModel
from tellframe.train.norms import shared_norms
from tellframe.train.optimizer import learning_rate, update_mean
from tellframe.train.processes import (
    by_first,
    in_turn,
    joined,
    own_places,
    rank,
    require_same,
    sum_gradients,
    total,
)
from tellframe.train.state import TrainState, build_state
from tellframe.train.validation import validate

RANK_SEEDS: Final = 2**52
"""Distance of the seeds of two processes: more than any step of any likely seed."""


def train(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    workers: int = 1,
    tensorboard: bool = False,
    observe: Callable[[int, Mapping[str, float]], None] | None = None,
) -> ClipModel:
    """Train a model and leave checkpoints and a log in a folder.

    Started by `torchrun`, several processes train one model: the first writes and validates, and
    all need the same data and folder. Losses, weights and batch statistics are those of one
    process, up to rounding, but for dropout, which every process draws for itself.

    Args:
        config: everything that decides the result.
        folder: gets checkpoint.safetensors, checkpoint.json and log.jsonl.
        resume: go on from the folder's checkpoint; otherwise the folder must hold none.
        workers: processes that prepare batches, for each process that trains.
        tensorboard: also log to FOLDER/tensorboard.
        observe: called after every validation with its step, from 0, and what it measured; of
            several processes in each, with the same. What it raises ends the run and comes out of
            this function; the checkpoint that the folder holds by then can be resumed.

    Returns:
        The running mean of the weights, which is what is exported.

    Raises:
        ConfigError: a source is missing, the checkpoint is of another configuration, the device
            lacks the precision, or the processes cannot share the batch evenly.
        MissingExtraError: TensorBoard is asked for and not installed.
        RecipeMismatchError: the run to start from has another recipe.
        WorkerError: another process has ended, or hangs.
    """
    if tensorboard:
        require_tensorboard()
    if not resume and (folder / "checkpoint.safetensors").exists():
        raise ConfigError(f"{folder}: holds a checkpoint; add --resume, or choose another folder")
    keep_memory()
    optim = config.optim
    use_threads(optim)
    with joined():
        places = own_places(config.batch.num_pairs)
        state, first = start_or_resume(config, folder, resume)
        train_data, val_data = in_turn(load_data, config.data, config.recipe)
        require_held_out(optim, val_data)
        found = [len(getattr(train_data, kind.name)) for kind in fields(train_data)]
        require_same({"configuration": config, "checkpoint": first, "data": found})
        batches = build_batches(train_data, state.model, config, places)
        last = min(optim.stop or optim.steps, optim.steps)
        state.model.train()
        folder.mkdir(parents=True, exist_ok=True)  # not before: an error leaves no empty one
        with open_log(folder, first, last, 2 * config.batch.num_pairs, tensorboard) as log:
            for step, batch in enumerate(open_batches(batches, first, last, workers), start=first):
                log(step, train_step(state, batch, step, optim))
                done = step + 1
                measured: dict[str, float] = {}
                if done % optim.validate_every == 0 or done == last:
                    measured = by_first(validate, state.mean_model, val_data, config)
                    require_measured(optim, bool(measured))
                if measured:
                    log(step, measured)
                    if state.progress.note(measured["log_loss"], optim.patience):
                        by_first(save_best, folder, config, state.mean_model, done)
                if done % optim.checkpoint_every == 0 or done == last:
                    by_first(save_checkpoint, folder, config, state, done)
                if observe and measured:
                    observe(step, measured)
        if first >= last:  # nothing is left to do, but a probe may be asked for, or another cache
            by_first(save_checkpoint, folder, config, state, first)
    return state.mean_model


def start_or_resume(config: TrainConfig, folder: Path, resume: bool) -> tuple[TrainState, int]:
    """Return what a run begins or goes on with, and the step.

    Raises:
        ConfigError: the model cannot be built, or there is nothing to resume or to start from.
        RecipeMismatchError: the run to start from has another recipe.
    """
    state = build_state(config)
    if resume:
        return state, load_checkpoint(folder, config, state)
    if config.model.start:
        load_start(Path(config.model.start), config, state.model)
        state.mean_model.load_state_dict(state.model.state_dict())
    return state, 0


def require_held_out(config: OptimConfig, held_out: TrainingData) -> None:
    """Raise if a run depends on validation and there is nothing to measure on.

    Raises:
        ConfigError: that is so.
    """
    if held_out.videos or held_out.stills or has_both(held_out.clips):
        return
    if rank() == 0:
        print("no real and fake is held out: nothing will be measured", file=sys.stderr, flush=True)
    require_measured(config, False)


def require_measured(config: OptimConfig, measured: bool) -> None:
    """Raise if a run depends on validation and nothing is measured, rather than at its end.

    Raises:
        ConfigError: that is so.
    """
    if measured:
        return
    for name, value, instead in (("keep", "best", "last"), ("schedule", "plateau", "cosine")):
        if getattr(config, name) == value:
            raise ConfigError(
                f"[optim] {name} = {value!r}: no real and fake is held out to measure on; raise "
                f"[data] validation, name a validation_split, or set {name} = {instead!r}"
            )


def build_batches(
    data: TrainingData, model: ClipModel, config: TrainConfig, places: range | None = None
) -> PairBatches:
    """Return the batches that a configuration asks for.

    Args:
        data: what is drawn from.
        model: says how large its feature map is.
        config: what is drawn.
        places: of the pairs of each batch to prepare; all by default.

    Raises:
        ConfigError: the data has nothing that it asks for.
    """
    cells, seed = num_cells(model, config), config.optim.seed
    recipe = config.training_recipe
    return PairBatches(data, config.batch, recipe, cells, seed, config.augment, places)


def train_step(state: TrainState, batch: Batch, step: int, config: OptimConfig) -> dict[str, float]:
    """Take one step; return the losses of the batch of all processes.

    Args:
        state: is changed.
        batch: or this process's share of it.
        step: from 0; decides learning rate and dropout.
        config: the optimisation.
    """
    # Dropout draws from a generator set by the step, so that a resumed run repeats it exactly.
    torch.manual_seed(config.seed * 1_000_003 + step + rank() * RANK_SEEDS)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(step, config, state.progress.reductions)
    with shared_norms(), state.autocast():
        logits, maps = state.model.forward_train(
            batch.crops.to(state.device), batch.valid.to(state.device)
        )
    losses = pair_losses(logits, maps, batch, config.label_smoothing)
    loss = losses["loss"] + config.pair_weight * losses["pair"] + config.map_weight * losses["map"]
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    sum_gradients(state.model)
    state.scaler.unscale_(state.optimizer)
    nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    # Early on the mean would be dominated by the random head: let it follow faster.
    update_mean(state.mean_model, state.model, min(config.ema, (1 + step) / (10 + step)))
    return dict(zip(losses, total(torch.stack(list(losses.values()))).tolist(), strict=True))


def num_cells(model: ClipModel, config: TrainConfig) -> int:
    """Return the side of the feature map in training."""
    size = config.training_recipe.crop_size
    device = next(model.parameters()).device
    with torch.no_grad():
        training = model.training
        model.eval()
        cells = model.features(torch.zeros(1, size, size, 3, device=device)).shape[-1]
        model.train(training)
    return int(cells)


def use_threads(config: OptimConfig) -> None:
    """Set the number of torch's threads, where one is asked for."""
    if config.threads:
        torch.set_num_threads(config.threads)


def keep_memory() -> None:
    """Tell glibc to keep freed memory: a third of a training step on a CPU went to the kernel.

    Has no effect with other C libraries.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # glibc's malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 256 * 2**20)
