"""A search for better settings: trials of the ordinary training, chosen and pruned by Optuna.

The sampler is TPE (Bergstra et al. 2011), the pruner the median rule of Vizier (Golovin et al.
2017). The study lies in SQLite, and one process at a time works on it.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from tellframe.errors import ConfigError, TellframeError, UsageError
from tellframe.train.config import TrainConfig, config_from_dict
from tellframe.train.differences import list_differences
from tellframe.train.loop import train
from tellframe.train.space import Space
from tellframe.train.trials import Outcome, progress, read_outcomes, record, trial_folder

FAILURES: Final = 5
"""Failures after which a run stops where no trial of the study has come further."""


class UnmeasuredError(ConfigError):
    """The objective is not among what the held-out data gives: no trial will do better."""


def sweep(
    config: TrainConfig,
    space: Space,
    folder: Path,
    *,
    trials: int | None = None,
    seed: int = 0,
    workers: int = 1,
    keep_all: bool = False,
) -> list[Outcome]:
    """Search, or go on with a search, until so many trials are finished in all.

    The settings of a trial are decided by the seed and by the finished trials before it, so that a
    search repeats exactly, also one that was cut off and taken up again, as far as training does:
    on one kind of machine with the same packages.

    Args:
        config: what all trials share.
        space: what differs.
        folder: gets study.db, trials.csv, best.toml, and a folder trial-NNNN for every trial.
        trials: how many; None for the number of the space.
        seed: of the choice of settings; that of training is the configuration's, in every trial.
        workers: processes that prepare batches.
        keep_all: keep the weights of all trials, not those of the best alone.

    Returns:
        All trials of the study in order.

    Raises:
        ConfigError: the configuration refuses a value of the space, or the study in the folder is
            another one.
        UsageError: another process works on the study, or a number is out of range.
    """
    total, failures = space.trials if trials is None else trials, 0
    if total < 1 or seed < 0:
        raise UsageError(f"{total} trials, seed {seed}: give 1 or more, and 0 or more")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("a sweep is one process: start it without torchrun")
    space.check(config)
    # Optuna would say every trial a second time; its warnings stay.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched: dict[str, BaseDistribution] = dict(sorted(space.parameters.items()))
    with open_study(folder, config, space, seed) as study:
        outcomes = read_outcomes(study, space)
        while (done := sum(o.finished for o in outcomes)) < total:
            study.sampler = optuna.samplers.TPESampler(seed=_seed_of(seed, done))
            trial = study.ask(searched)
            run_trial(study, trial, config, space, folder, workers)
            outcomes = read_outcomes(study, space)
            record(outcomes, config, space, folder, keep_all)
            print(progress(outcomes, space, total), file=sys.stderr, flush=True)
            failures += outcomes[-1].state == "failed"
            if failures >= FAILURES and all(o.state in ("failed", "cut off") for o in outcomes):
                print(f"stopped: all {len(outcomes)} trials failed", file=sys.stderr, flush=True)
                break
        record(outcomes, config, space, folder, keep_all)
    return outcomes


def _seed_of(seed: int, done: int) -> int:
    """Return the seed of one trial.

    One generator for the whole search would begin anew when the search is taken up again, and
    try the first settings a second time.
    """
    return int(np.random.SeedSequence([seed, done]).generate_state(1)[0])


# The study.


@contextmanager
def open_study(
    folder: Path, config: TrainConfig, space: Space, seed: int
) -> Iterator[optuna.Study]:
    """Make or take up the study of a folder; no other process may until this is left.

    Trials that a killed process left running are marked as failed.

    Raises:
        ConfigError: the study is of another configuration, space or seed, or cannot be read.
        UsageError: another process works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not on the database itself, whose locks are SQLite's. A lock by `lockf` goes with this very
    # process: the workers that prepare batches, which may outlive it, do not hold it.
    with (folder / "sweep.lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{folder}: another sweep is at work in it ({error})") from error
        path = folder.resolve() / "study.db"
        if not path.exists() and any(folder.glob("trial-*")):
            raise ConfigError(f"{folder}: holds trials without a study; choose another folder")
        storage, study = _load_study(path, space)
        try:
            _check_same(study, config, space, seed, folder)
            for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.tell(stale.number, state=TrialState.FAIL)
            yield study
        finally:
            storage.remove_session()


def _load_study(path: Path, space: Space) -> tuple[optuna.storages.RDBStorage, optuna.Study]:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False)

    try:
        storage = optuna.storages.RDBStorage(
            # Only named here: a URL cannot hold every path. No connection stays open, since a
            # worker process would inherit it.
            "sqlite:///study.db",
            engine_kwargs={"creator": connect, "poolclass": NullPool},
        )
        study = optuna.create_study(
            storage=storage,
            study_name="sweep",
            load_if_exists=True,
            direction="minimize" if space.minimised else "maximize",
            pruner=_build_pruner(space),
        )
    except (SQLAlchemyError, RuntimeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a study ({error}); choose another folder"
        ) from error
    return storage, study


def _build_pruner(space: Space) -> optuna.pruners.BasePruner:
    if not space.prune.enabled:
        return optuna.pruners.NopPruner()
    # Its own warm-up counts steps, not validations: `run_trial` sees to that.
    return optuna.pruners.MedianPruner(n_startup_trials=space.prune.startup_trials)


def _check_same(
    study: optuna.Study, config: TrainConfig, space: Space, seed: int, folder: Path
) -> None:
    """Note in a new study what it is of; raise where an old one is of something else."""
    made = study.user_attrs.get("made_with")
    if made is None:
        study.set_user_attr(
            "made_with",
            {
                "tellframe": version("tellframe"),
                "config": config.to_dict(),
                "space": space.describe(),
                "seed": seed,
            },
        )
        return
    # Built anew, so that a key that came with a later version counts as its default.
    before = config_from_dict(made["config"])
    old = {**before.to_dict(), "space": made["space"], "--seed": made["seed"]}
    own = {**config.to_dict(), "space": space.describe(), "--seed": seed}
    if listed := list_differences(old, own):
        raise ConfigError(f"{folder}: its study differs; choose another folder ({listed})")


# One trial.


def run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    config: TrainConfig,
    space: Space,
    folder: Path,
    workers: int,
) -> None:
    """Train with the settings of one trial, and tell the study what came of it.

    What is wrong with the settings (a refused combination, too little memory, logits that are no
    numbers) fails this trial alone. Anything else ends the search, which can be taken up again.

    Raises:
        UnmeasuredError: the held-out data does not give the objective.
    """
    target = trial_folder(folder, trial.number)
    try:
        measured = measure(trial, space.apply(config, trial.params), space, target, workers)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    # torch's errors are RuntimeErrors, and the metrics' of what is no number ValueErrors.
    except (TellframeError, RuntimeError, ValueError) as error:
        kind = "" if isinstance(error, TellframeError) else f"{type(error).__name__}: "
        trial.set_user_attr("error", f"{kind}{error}")
        study.tell(trial, state=TrialState.FAIL)
        if isinstance(error, UnmeasuredError):
            raise
    except KeyboardInterrupt:
        trial.set_user_attr("interrupted", True)
        study.tell(trial, state=TrialState.FAIL)
        raise
    else:
        trial.set_user_attr("measured", measured)
        study.tell(trial, measured[space.objective])


def measure(
    trial: optuna.Trial, config: TrainConfig, space: Space, folder: Path, workers: int
) -> dict[str, float]:
    """Train, reporting every validation.

    Args:
        trial: gets the reports.
        config: with the settings of the trial.
        space: names the objective.
        folder: of the training.
        workers: processes that prepare batches.

    Returns:
        What was measured of the weights that the configuration keeps.

    Raises:
        TrialPruned: the trial falls behind, or its objective is no number any more.
        UnmeasuredError: the held-out data does not give the objective.
    """
    seen: list[dict[str, float]] = []
    last = min(config.optim.stop or config.optim.steps, config.optim.steps)

    def observe(step: int, measured: Mapping[str, float]) -> None:
        if space.objective not in measured:
            given = ", ".join(measured)
            raise UnmeasuredError(
                f"objective = {space.objective!r}: nothing held out gives it, only {given}"
            )
        value = measured[space.objective]
        seen.append(dict(measured))
        trial.set_user_attr("measured", seen[-1])
        trial.report(value, step)
        warm = len(seen) > space.prune.warmup_validations
        # After the last step there is nothing left to save.
        if math.isnan(value) or (warm and step + 1 < last and trial.should_prune()):
            raise optuna.TrialPruned

    folder.mkdir(exist_ok=True)
    # Training says much about its steps; a sweep says one line about every trial.
    stream = (folder / "stderr.txt").open("w", buffering=1, encoding="utf-8")
    with stream, redirect_stderr(stream):
        train(config, folder, workers=workers, observe=observe)
    if not seen:
        raise UnmeasuredError(
            "nothing is held out to measure on: raise [data] validation, or name a validation_split"
        )
    best = config.optim.keep == "best"
    return min(seen, key=lambda m: m["log_loss"]) if best else seen[-1]
