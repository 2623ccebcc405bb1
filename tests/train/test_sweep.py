"""The search for settings: spaces, trials, resuming, pruning, and what is left in the folder.

Most trials here train nothing: `played` stands for the training and says what it would measure.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

pytest.importorskip("optuna")

import optuna
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tellframe.cli import run
from tellframe.errors import ConfigError, DataError, UsageError
from tellframe.recipe import Recipe
from tellframe.train import loop, quality
from tellframe.train import sweep as sweep_module
from tellframe.train.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    config_from_dict,
)
from tellframe.train.models import build_model
from tellframe.train.space import OBJECTIVES, load_space, space_from_dict
from tellframe.train.sweep import sweep
from tellframe.train.trials import find_best, to_toml
from tellframe.train.validation import validate

pytestmark = pytest.mark.train

CONFIGS = Path(__file__).parents[2] / "configs"
LR = {"low": 1e-5, "high": 1e-1, "log": True}
SPACE = {
    "optim.lr": LR,
    "model.dropout": {"low": 0.0, "high": 0.6, "step": 0.1},
    "batch.self_blends": {"low": 1, "high": 4},
    "optim.optimizer": {"choices": ["adam", "adamw"]},
    "trials": 4,
}
SMALL = TrainConfig(optim=OptimConfig(steps=6))


# Spaces.


@pytest.mark.parametrize(
    ("key", "table", "expected"),
    [
        ("optim.lr", LR, FloatDistribution(1e-5, 1e-1, log=True)),
        ("optim.lr", {"low": 0.1, "high": 0.2}, FloatDistribution(0.1, 0.2)),
        (
            "model.dropout",
            {"low": 0, "high": 0.6, "step": 0.1},
            FloatDistribution(0, 0.6, step=0.1),
        ),
        # The setting decides: two whole numbers are a range of fractions where it is one.
        ("optim.ema", {"low": 0, "high": 1}, FloatDistribution(0.0, 1.0)),
        ("optim.steps", {"low": 10, "high": 90}, IntDistribution(10, 90)),
        ("optim.steps", {"low": 10, "high": 90, "step": 40}, IntDistribution(10, 90, step=40)),
        ("model.hidden", {"low": 8, "high": 512, "log": True}, IntDistribution(8, 512, log=True)),
        ("model.head", {"choices": ["mean", "gru"]}, CategoricalDistribution(["mean", "gru"])),
        ("model.frozen", {"choices": [True, False]}, CategoricalDistribution([True, False])),
        ("model.layers", {"choices": [1, 3]}, CategoricalDistribution([1, 3])),
        ("optim.ema", {"choices": [0, 0.9]}, CategoricalDistribution([0.0, 0.9])),
    ],
)
def test_a_table_a_setting(key, table, expected):
    space = space_from_dict({key: table})
    assert space.parameters == {key: expected}
    assert type(getattr(space.parameters[key], "low", 0)) is type(getattr(expected, "low", 0))
    table_name, name = key.split(".")
    assert space_from_dict({table_name: {name: table}}) == space  # [optim.lr] without quotes


def test_what_a_space_has_by_itself():
    space = space_from_dict({"optim.lr": LR})
    assert (space.objective, space.minimised, space.trials) == ("log_loss", True, 20)
    assert (space.prune.enabled, space.prune.startup_trials) == (True, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no setting to search"),
        ({"objective": "log_loss"}, "no setting to search"),
        ({"optim.rl": LR}, "unknown key 'optim.rl'; did you mean 'optim.lr'?"),
        ({"optim": {"rl": LR}}, "unknown key 'optim.rl'; did you mean 'optim.lr'?"),
        ({"optm.lr": LR}, "unknown key 'optm.lr'; did you mean 'optim.lr'?"),
        ({"lr": LR}, "unknown key 'lr'; did you mean"),
        ({"quality.crops": {"low": 0, "high": 9}}, "[quality.crops] cannot be searched: the probe"),
        ({"objectiv": "log_loss"}, "unknown key 'objectiv'; did you mean 'objective'?"),
        ({"trails": 3}, "unknown key 'trails'; did you mean 'trials'?"),
        ({"prun": {}}, "unknown key 'prun'; did you mean 'prune'?"),
        ({"name": {"choices": ["a", "b"]}}, "unknown key 'name'; did you mean"),
        ({"optim.lr": {"lo": 1, "high": 2}}, "[optim.lr]: unknown key 'lo'; did you mean 'low'?"),
        ({"optim.lr": {"low": 1, "hihg": 2}}, "unknown key 'hihg'; did you mean 'high'?"),
        ({"optim.lr": 1e-3}, "[optim.lr] must be a table, not 0.001"),
        ({"optim": 3}, "[optim] must be a table, not 3"),
        ({"prune": 3, "optim.lr": LR}, "[prune] must be a table"),
        ({"optim.lr": {"low": 1e-3}}, "give low and high, or choices"),
        ({"optim.lr": {}}, "give low and high, or choices"),
        ({"optim.lr": {"low": 1e-2, "high": 1e-3}}, "low = 0.01 must lie below high = 0.001"),
        ({"optim.lr": {"low": 1e-2, "high": 1e-2}}, "low = 0.01 must lie below high = 0.01"),
        ({"optim.lr": {"low": 0.0, "high": 1.0, "log": True}}, "with log, low must be above 0"),
        ({"optim.lr": {**LR, "step": 0.1}}, "there is no step"),
        ({"optim.lr": {"low": 0.1, "high": 0.2, "log": 1}}, "log = 1 must be true or false"),
        ({"optim.lr": {"low": 0.1, "high": math.inf}}, "high = inf must be a number"),
        ({"optim.lr": {"low": math.nan, "high": 1.0}}, "low = nan must be a number"),
        ({"optim.lr": {"low": "a", "high": 1.0}}, "low = 'a' must be a number"),
        ({"optim.lr": {"low": False, "high": True}}, "low = False must be a number"),
        ({"optim.steps": {"low": 1.0, "high": 9}}, "low = 1.0 must be a whole number"),
        (
            {"optim.steps": {"low": 1, "high": 9, "step": 3}},
            "steps of 3 from low = 1 miss high = 9",
        ),
        ({"model.dropout": {"low": 0.0, "high": 0.5, "step": 0.2}}, "miss high = 0.5"),
        ({"model.dropout": {"low": 0.0, "high": 0.5, "step": -0.1}}, "step = -0.1 must be above 0"),
        ({"model.dropout": {"low": 0.0, "high": 0.5, "step": 0}}, "step = 0 must be above 0"),
        ({"model.head": {"low": 1, "high": 2}}, "[model.head] is not a number, such as 'mean'"),
        ({"model.frozen": {"low": 0, "high": 1}}, "[model.frozen] is not a number, such as False"),
        ({"model.head": {"choices": []}}, "choices = []: give a list of two or more"),
        ({"model.head": {"choices": ["mean"]}}, "give a list of two or more"),
        ({"model.head": {"choices": "mean"}}, "give a list of two or more"),
        ({"model.head": {"choices": ["mean", "mean"]}}, "one of them is there twice"),
        ({"optim.ema": {"choices": [1, 1.0]}}, "one of them is there twice"),
        ({"model.head": {"choices": ["mean", ["gru"]]}}, "['gru'] is no text, number"),
        ({"model.head": {"choices": ["mean", "gru"], "log": True}}, "choices stand alone"),
        ({"recipe.mean": {"choices": [0, 1]}}, "cannot be searched: it is a list"),
        ({"data.validation": {"low": 0.1, "high": 0.5}}, "measured on the same data"),
        (
            {"optim.lr": LR, "objective": "logloss"},
            "objective = 'logloss': did you mean 'log_loss'?",
        ),
        ({"optim.lr": LR, "objective": "video_acu"}, "did you mean 'video_auc'?"),
        ({"optim.lr": LR, "objective": 3}, "objective = 3: did you mean"),
        ({"optim.lr": LR, "trials": 0}, "trials = 0: give a whole number of 1 or more"),
        ({"optim.lr": LR, "trials": 2.5}, "trials = 2.5: give a whole number"),
        ({"optim.lr": LR, "prune": {"startup": 1}}, "did you mean 'startup_trials'?"),
        ({"optim.lr": LR, "prune": {"startup_trials": -1}}, "startup_trials = -1: give 0 or more"),
        ({"optim.lr": LR, "prune": {"enabled": 1}}, "enabled = 1 must be of type bool"),
    ],
)
def test_a_space_that_makes_no_sense_is_an_error(values, message):
    with pytest.raises(ConfigError) as raised:
        space_from_dict(values)
    assert message in str(raised.value)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[optim.rl]\nlow = 1\nhigh = 2\n")
    with pytest.raises(ConfigError, match=r"space\.toml: unknown key 'optim\.rl'"):
        load_space(path)
    with pytest.raises(ConfigError, match=r"^\S*absent\.toml: cannot be read as TOML"):
        load_space(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model.head": {"choices": ["mean", "grru"]}}, "[model.head] 'grru' is refused"),
        ({"model.dropout": {"low": 0, "high": 1}}, "[model.dropout] 1.0 is refused"),
        ({"model.hidden": {"low": 0, "high": 9}}, "[model.hidden] 0 is refused"),
        ({"optim.lr": {"choices": [0.1, "fast"]}}, "[optim.lr] 'fast' is refused"),
        ({"optim.steps": {"choices": [1, True]}}, "[optim.steps] True is refused"),
        ({"recipe.crop_size": {"low": 64, "high": 4096}}, "[recipe.crop_size] 4096 is refused"),
        ({"optim.lr": LR, "objective": "video_auc"}, "measured on [data] labels"),
        ({"optim.lr": LR, "objective": "clip_log_loss"}, "measured on [data] shards"),
    ],
)
def test_what_the_configuration_refuses_is_known_before_the_first_trial(
    config, tmp_path, played, table, message
):
    with pytest.raises(ConfigError) as raised:
        sweep(config, space_from_dict(table), tmp_path / "sweep")
    assert message in str(raised.value)
    assert played == []
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("objective", "minimised"),
    [("log_loss", True), ("still_log_loss", True), ("video_auc", False), ("clip_ranked", False)],
)
def test_the_direction_follows_from_the_name(objective, minimised):
    assert space_from_dict({"optim.lr": LR, "objective": objective}).minimised is minimised


def test_every_figure_of_a_validation_can_be_the_objective(config, faces):
    measured = validate(build_model(config.model, config.recipe), faces.data(), config)
    assert len(measured) == 7
    assert set(measured) <= set(OBJECTIVES)


@given(
    low=st.integers(1, 40),
    count=st.integers(1, 12),
    step=st.sampled_from(["0.1", "0.05", "0.3", "2.5", "1e-3"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_a_step_leads_to_the_decimals_that_a_person_would_write(low, count, step, seed):
    start, width = Decimal(low) * Decimal(step), Decimal(step)
    table = {"low": float(start), "high": float(start + count * width), "step": float(step)}
    space = space_from_dict({"optim.clip": table})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        drawn = study.ask(dict(space.parameters)).params
        clip = space.apply(TrainConfig(), drawn).optim.clip
        assert clip in {float(start + k * width) for k in range(count + 1)}


@given(
    low=st.integers(1, 500), width=st.integers(1, 500), log=st.booleans(), seed=st.integers(0, 99)
)
@settings(max_examples=50)
def test_whole_numbers_stay_whole_and_within_their_range(low, width, log, seed):
    table = {"low": low, "high": low + width, "log": log}
    space = space_from_dict({"optim.steps": table, "optim.lr": table})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    chosen = space.apply(TrainConfig(), study.ask(dict(space.parameters)).params).optim
    assert (type(chosen.steps), type(chosen.lr)) == (int, float)
    assert low <= chosen.steps <= low + width
    assert low <= chosen.lr <= low + width


def test_the_shipped_space_fits_the_shipped_configuration():
    space = load_space(CONFIGS / "sweep_frame_lite0.toml")
    values = tomllib.loads((CONFIGS / "frame_lite0.toml").read_text())
    config = config_from_dict(values)
    space.check(config)
    chosen = space.apply(config, {"optim.lr": 1e-3, "batch.self_blends": 5})
    assert (chosen.optim.lr, chosen.batch.self_blends) == (1e-3, 5)
    assert dataclasses.replace(chosen, optim=config.optim, batch=config.batch) == config


# The configuration as TOML.


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    many=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_configuration_reads_back_as_the_same(text, many, number):
    config = TrainConfig(
        name=text,
        model=ModelConfig(start=text, frozen=bool(text)),
        data=DataConfig(labels=text, stills=tuple(many)),
        recipe=Recipe(mean=(number, 0.5, 0.5)),
    )
    assert config_from_dict(tomllib.loads(to_toml(config))) == config


# Sweeps of trainings that are played.


def loss_of(config, share=1.0):
    """Measure what a training would: best at a rate of 1e-3 and a dropout of 0.2."""
    distance = abs(math.log10(config.optim.lr) + 3) + abs(config.model.dropout - 0.2)
    return 0.3 + distance + (1 - share)


def play(config, folder, *, workers, observe):
    """Stand for the training: validate every second step, leave weights and a log."""
    (folder / "log.jsonl").write_text("{}\n")
    (folder / "checkpoint.safetensors").write_text("weights")
    print("step 1/6", file=sys.stderr)
    for step in range(1, config.optim.steps, 2):
        loss = loss_of(config, (step + 1) / config.optim.steps)
        observe(step, {"log_loss": loss, "still_auc": 1 / loss})


@pytest.fixture
def played(monkeypatch):
    """Play all trainings; return the configurations of those that were begun."""
    begun = []

    def note(config, folder, **options):
        begun.append(config)
        play(config, folder, **options)

    monkeypatch.setattr(sweep_module, "train", note)
    return begun


@pytest.fixture
def space():
    return space_from_dict(SPACE)


def raising(monkeypatch, *errors, then=play):
    """Let the first trainings raise, one error each, None for one that does not."""
    waiting = list(errors)

    def train(config, folder, **options):
        if waiting and (error := waiting.pop(0)) is not None:
            (folder / "checkpoint.safetensors").write_text("half")
            raise error
        then(config, folder, **options)

    monkeypatch.setattr(sweep_module, "train", train)


def told(outcomes):
    """Return what must not depend on interruptions: settings and values of the finished trials."""
    return [(o.state, o.settings, o.value) for o in outcomes if o.finished]


def rows_of(folder):
    with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_a_sweep_leaves(config, space, played, tmp_path, capsys):
    outcomes = sweep(config, space, tmp_path)
    assert [o.state for o in outcomes] == ["done"] * 4
    best = min(outcomes, key=lambda o: o.value)
    assert find_best(outcomes, space) is best
    chosen = config_from_dict(tomllib.loads((tmp_path / "best.toml").read_text()))
    assert chosen == played[best.number]
    assert loss_of(chosen) == best.value == min(loss_of(c) for c in played)
    assert {c.optim.seed for c in played} == {config.optim.seed}
    rows = rows_of(tmp_path)
    assert [int(row["trial"]) for row in rows] == [0, 1, 2, 3]
    for row, config_of_trial in zip(rows, played, strict=True):
        assert float(row["optim.lr"]) == config_of_trial.optim.lr
        assert float(row["model.dropout"]) == config_of_trial.model.dropout
        assert row["optim.optimizer"] == config_of_trial.optim.optimizer
        assert float(row["value"]) == float(row["log_loss"]) == loss_of(config_of_trial)
        assert float(row["still_auc"]) == 1 / loss_of(config_of_trial)
        assert (row["steps"], row["error"]) == ("6", "")
        assert float(row["seconds"]) >= 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # one a trial; what the training says is in its folder
    assert lines[0].startswith("trial 0 (1/4)  optim.lr ")
    assert f"best {best.value:.4f} (trial {best.number})  0 min left" in lines[-1]
    assert (tmp_path / "trial-0002" / "stderr.txt").read_text() == "step 1/6\n"


@pytest.mark.parametrize("keep_all", [False, True])
def test_only_the_best_trial_keeps_its_weights(config, space, played, tmp_path, keep_all):
    best = find_best(sweep(config, space, tmp_path, keep_all=keep_all), space).number
    kept = [int(p.parent.name[-4:]) for p in sorted(tmp_path.glob("*/checkpoint.safetensors"))]
    assert kept == (list(range(4)) if keep_all else [best])
    assert len(list(tmp_path.glob("trial-*/log.jsonl"))) == 4


def test_a_figure_that_is_better_when_higher(config, played, tmp_path):
    config = dataclasses.replace(config, data=DataConfig(stills=("faces.zip",)))
    space = space_from_dict({**SPACE, "objective": "still_auc"})
    outcomes = sweep(config, space, tmp_path)
    best = find_best(outcomes, space)
    assert best.value == max(o.value for o in outcomes) == max(1 / loss_of(c) for c in played)
    assert best.value > min(o.value for o in outcomes)


@pytest.mark.parametrize(("keep", "expected"), [("last", 0.9), ("best", 0.4)])
def test_the_value_is_that_of_the_weights_that_are_kept(
    config, monkeypatch, tmp_path, keep, expected
):
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, keep=keep))
    config = dataclasses.replace(config, data=DataConfig(labels="labels.csv"))

    def train(config, folder, *, workers, observe):
        for step, (loss, auc) in enumerate([(0.7, 0.95), (0.5, 0.4), (0.6, 0.9)]):
            observe(step, {"log_loss": loss, "video_auc": auc})

    monkeypatch.setattr(sweep_module, "train", train)
    space = space_from_dict({"optim.lr": LR, "objective": "video_auc", "trials": 1})
    (outcome,) = sweep(config, space, tmp_path)
    assert outcome.value == outcome.measured["video_auc"] == expected


def test_the_seed_decides_the_settings(config, space, played, tmp_path):
    first, again, other = (
        told(sweep(config, space, tmp_path / name, seed=seed, trials=13))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert not {str(s) for _, s, _ in first} & {str(s) for _, s, _ in other}


def test_a_search_in_pieces_is_the_search_in_one_go(config, space, played, tmp_path):
    """Across the first ten trials, which are random, into those that TPE chooses."""
    straight = sweep(config, space, tmp_path / "straight", trials=14)
    for trials in (1, 5, 5, 3, 14):
        pieces = sweep(config, space, tmp_path / "pieces", trials=trials)
    assert told(pieces) == told(straight)
    assert len({str(o.settings) for o in straight}) == 14
    assert len(played) == 28  # what was finished is not done again


def test_what_was_measured_decides_what_is_tried_next(config, monkeypatch, tmp_path):
    """After the ten trials with which TPE begins, which are random; and in pieces as well."""

    def likes(rate):
        def train(config, folder, *, workers, observe):
            observe(0, {"log_loss": abs(math.log10(config.optim.lr / rate))})

        return train

    found = {}
    for rate in (1e-4, 1e-2):
        monkeypatch.setattr(sweep_module, "train", likes(rate))
        for trials in (12, 25):
            outcomes = sweep(
                config, space_from_dict({"optim.lr": LR}), tmp_path / str(rate), trials=trials
            )
        found[rate] = [math.log10(o.settings["optim.lr"]) for o in outcomes]
    low, high = found.values()
    assert low[:10] == high[:10]
    assert sum(low[10:]) / 15 < -3.5 < -2.5 < sum(high[10:]) / 15


class Killed(BaseException):
    """Stands for a lost machine: nobody handles it."""


def test_settings_that_were_cut_off_are_tried_again(config, space, monkeypatch, played, tmp_path):
    """Also those that TPE chose, which looks at trials that seem to be running.

    That it was cut off three times in all is held against none of them.
    """
    lost = tmp_path / "lost"
    straight = sweep(config, space, tmp_path / "straight", trials=14)
    raising(monkeypatch, None, Killed(), *[None] * 3, Killed(), *[None] * 8, Killed())
    for _ in range(3):
        with pytest.raises(Killed):
            sweep(config, space, lost, trials=14)
    outcomes = sweep(config, space, lost, trials=14)
    assert [o.number for o in outcomes if not o.finished] == [1, 5, 14]
    for number in (1, 5, 14):
        assert outcomes[number].settings == outcomes[number + 1].settings
        assert rows_of(lost)[number]["state"] == "cut off"
        assert not (lost / f"trial-{number:04}" / "checkpoint.safetensors").exists()
    assert told(outcomes) == told(straight)
    with contextlib.closing(sqlite3.connect(lost / "study.db")) as study:
        states = study.execute("SELECT number, state FROM trials").fetchall()
    assert [number for number, state in states if state == "FAIL"] == [1, 5, 14]
    assert "RUNNING" not in dict(states).values()


def test_settings_that_are_cut_off_time_and_again_are_given_up(
    config, space, monkeypatch, played, tmp_path
):
    straight = sweep(config, space, tmp_path / "straight")
    raising(monkeypatch, *[Killed() for _ in range(3)])
    for _ in range(3):
        with pytest.raises(Killed):
            sweep(config, space, tmp_path / "lost")
    outcomes = sweep(config, space, tmp_path / "lost")
    assert [o.state for o in outcomes] == ["cut off", "cut off", "failed", "done", "done", "done"]
    assert outcomes[2].error == "cut off 3 times"
    assert {str(o.settings) for o in outcomes[:3]} == {str(straight[0].settings)}
    assert told(outcomes)[1:] == told(straight)[1:]


def test_an_interruption_by_hand_is_not_held_against_the_settings(
    config, space, monkeypatch, played, tmp_path
):
    straight = sweep(config, space, tmp_path / "straight")
    raising(monkeypatch, *[KeyboardInterrupt() for _ in range(4)])
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            sweep(config, space, tmp_path / "lost")
    outcomes = sweep(config, space, tmp_path / "lost")
    assert [o.state for o in outcomes] == [*["cut off"] * 4, *["done"] * 4]
    assert told(outcomes) == told(straight)


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_sweep
from tellframe.train import sweep as module

def train(config, folder, **options):
    if folder.name == "trial-0002":
        print("waiting", flush=True)
        time.sleep(600)
    test_sweep.play(config, folder, **options)

module.train = train
module.sweep(test_sweep.SMALL, test_sweep.space_from_dict(test_sweep.SPACE), Path({folder!r}))
"""


def test_a_killed_process(played, space, tmp_path):
    config, folder = SMALL, tmp_path / "killed"
    straight = sweep(config, space, tmp_path / "straight")
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(folder))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "waiting\n"
        with pytest.raises(UsageError, match="another sweep is at work in it"):
            sweep(config, space, folder)
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.communicate()
    outcomes = sweep(config, space, folder)
    assert [o.state for o in outcomes] == ["done", "done", "cut off", "done", "done"]
    assert told(outcomes) == told(straight)


# Pruning.


def validations(losses):
    """Return a training that measures a list of losses by the number of its trial."""

    def train(config, folder, *, workers, observe):
        for step, loss in enumerate(losses[int(folder.name[-4:])]):
            observe(step, {"log_loss": loss})

    return train


GOOD, BAD = [0.9, 0.6, 0.5, 0.4], [2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("prune", "steps"),
    [
        ({"startup_trials": 2, "warmup_validations": 0}, 1),
        ({"startup_trials": 2, "warmup_validations": 1}, 2),
        ({"startup_trials": 2, "warmup_validations": 2}, 3),
        # After the last validation nothing is saved by stopping.
        ({"startup_trials": 2, "warmup_validations": 3}, 4),
        ({"startup_trials": 3, "warmup_validations": 0}, 4),
        ({"startup_trials": 0, "warmup_validations": 0, "enabled": False}, 4),
    ],
)
def test_a_trial_that_falls_behind_is_stopped(config, monkeypatch, tmp_path, capsys, prune, steps):
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, steps=4))
    monkeypatch.setattr(sweep_module, "train", validations([GOOD, GOOD, BAD, GOOD]))
    space = space_from_dict({"optim.lr": LR, "trials": 4, "prune": prune})
    outcomes = sweep(config, space, tmp_path)
    state = "done" if steps == 4 else "pruned"
    assert [o.state for o in outcomes] == ["done", "done", state, "done"]
    assert outcomes[2].steps == steps
    assert (f"log_loss 2.0000 pruned after {steps} steps" in capsys.readouterr().err) is (steps < 4)
    assert rows_of(tmp_path)[2]["value"] == "2.0"


def test_higher_is_better_for_the_pruner_too(config, monkeypatch, tmp_path):
    def train(config, folder, *, workers, observe):
        for step in range(4):
            observe(step, {"log_loss": 0.5, "video_auc": 0.9 - 0.3 * (folder.name[-1] == "2")})

    monkeypatch.setattr(sweep_module, "train", train)
    config = dataclasses.replace(config, data=DataConfig(labels="labels.csv"))
    space = {"optim.lr": LR, "trials": 4, "objective": "video_auc", "prune": {"startup_trials": 2}}
    outcomes = sweep(config, space_from_dict(space), tmp_path)
    assert [o.state for o in outcomes] == ["done", "done", "pruned", "done"]


def test_an_objective_that_is_no_number_ends_its_trial(config, monkeypatch, tmp_path, capsys):
    losses = [[0.9, math.nan, 0.1], [0.8, 0.7, 0.6]]
    monkeypatch.setattr(sweep_module, "train", validations(losses))
    space = space_from_dict({"optim.lr": LR, "trials": 2})
    outcomes = sweep(config, space, tmp_path)
    assert [(o.state, o.value, o.steps) for o in outcomes] == [
        ("pruned", None, 2),
        ("done", 0.6, 3),
    ]
    assert "log_loss nan pruned after 2 steps" in capsys.readouterr().err


# What goes wrong.


def test_a_trial_that_fails_leaves_the_others_alone(config, space, monkeypatch, tmp_path, capsys):
    errors = (ConfigError("no such backbone"), None, RuntimeError("out of memory\nat address 0"))
    raising(monkeypatch, *errors)
    outcomes = sweep(config, space, tmp_path)
    assert [o.state for o in outcomes] == ["failed", "done", "failed", "done"]
    assert outcomes[0].error == "no such backbone"
    assert outcomes[2].error == "RuntimeError: out of memory\nat address 0"
    err = capsys.readouterr().err
    assert "failed: no such backbone" in err
    assert len(err.splitlines()) == 4
    assert rows_of(tmp_path)[2]["error"] == outcomes[2].error
    assert not (tmp_path / "trial-0000" / "checkpoint.safetensors").exists()
    assert told(sweep(config, space, tmp_path)) == told(outcomes)  # they are not done again


def test_settings_that_the_configuration_refuses_together(config, played, tmp_path):
    """Each is fine on its own, which is all that is known beforehand."""
    either = {"choices": [0.0, 1.0]}
    space = space_from_dict({"augment.self_blend": either, "augment.swap_blend": either})
    outcomes = sweep(config, space, tmp_path, trials=12)
    refused = [
        o.settings["augment.self_blend"] + o.settings["augment.swap_blend"] == 0 for o in outcomes
    ]
    assert any(refused)
    assert not all(refused)
    assert [o.state == "failed" for o in outcomes] == refused
    assert {o.error for o in outcomes if o.error} == {
        "[augment]: one of self_blend, swap_blend, painted_blend, local_blend must be above 0"
    }


def test_a_fault_that_is_not_of_the_settings_ends_the_search(
    config, space, monkeypatch, played, tmp_path
):
    straight = sweep(config, space, tmp_path / "straight")
    raising(monkeypatch, None, OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        sweep(config, space, tmp_path / "full")
    assert told(sweep(config, space, tmp_path / "full")) == told(straight)


def test_where_every_trial_fails_the_search_stops(config, space, monkeypatch, tmp_path, capsys):
    raising(monkeypatch, *[DataError("labels.csv is missing") for _ in range(9)])
    outcomes = sweep(config, space, tmp_path, trials=20)
    assert [o.state for o in outcomes] == ["failed"] * 5
    assert capsys.readouterr().err.endswith("stopped: all 5 trials failed\n")
    raising(monkeypatch)
    assert len(sweep(config, space, tmp_path, trials=8)) == 8  # once the cause is mended


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ([{"log_loss": 0.5, "still_auc": 0.8}], "nothing held out gives it, only log_loss, still"),
        ([], "nothing is held out to measure on"),
    ],
)
def test_an_objective_that_is_not_measured_ends_the_search(
    config, monkeypatch, tmp_path, measured, message
):
    def train(config, folder, *, workers, observe):
        for step, figures in enumerate(measured):
            observe(step, figures)

    monkeypatch.setattr(sweep_module, "train", train)
    config = dataclasses.replace(config, data=DataConfig(labels="labels.csv"))
    space = space_from_dict({"optim.lr": LR, "objective": "video_auc"})
    with pytest.raises(ConfigError, match=message):
        sweep(config, space, tmp_path)
    assert len(list(tmp_path.glob("trial-*"))) == 1


@pytest.mark.parametrize(
    ("tables", "changes", "seed", "message"),
    [
        ({"optim": {"warmup": 3}}, {}, 0, "optim.warmup: 2 there, 3 here"),
        ({"recipe": {"margin": 0.5}}, {}, 0, "recipe.margin: 0.1 there, 0.5 here"),
        (
            {},
            {"optim.lr": {**LR, "high": 1.0}},
            0,
            "'1e-05 to 0.1, log' there, '1e-05 to 1.0, log'",
        ),
        ({}, {"model.dropout": {"low": 0, "high": 0.6}}, 0, "'0.0 to 0.6, step 0.1' there"),
        (
            {},
            {"optim.ema": {"choices": [0.9, 0.99]}},
            0,
            "optim.ema: None there, '0.9 | 0.99' here",
        ),
        ({}, {"prune": {"startup_trials": 9}}, 0, "prune.startup_trials: '5' there, '9' here"),
        ({}, {"objective": "still_auc"}, 0, "objective: 'log_loss' there, 'still_auc' here"),
        ({}, {}, 7, "--seed: 0 there, 7 here"),
    ],
)
def test_a_study_of_something_else_is_refused(
    config, space, played, tmp_path, tables, changes, seed, message
):
    config = dataclasses.replace(config, data=DataConfig(stills=("faces.zip",)))
    sweep(config, space, tmp_path, trials=1)
    for table, fields in tables.items():
        changed = dataclasses.replace(getattr(config, table), **fields)
        config = dataclasses.replace(config, **{table: changed})
    before = (tmp_path / "trials.csv").read_bytes()
    with pytest.raises(ConfigError, match="its study differs") as raised:
        sweep(config, space_from_dict({**SPACE, **changes}), tmp_path, seed=seed)
    assert message in str(raised.value)
    assert str(raised.value).count(" there, ") == 1  # that alone
    assert (tmp_path / "trials.csv").read_bytes() == before
    assert len(played) == 1


def test_the_order_of_the_file_decides_nothing(config, played, tmp_path):
    turned = dict(reversed(SPACE.items()))
    first, second = (
        told(sweep(config, space_from_dict(values), tmp_path / name))
        for name, values in (("first", SPACE), ("second", turned))
    )
    assert first == second
    sweep(config, space_from_dict(turned), tmp_path / "first", trials=5)


def test_what_is_no_study_is_refused(config, space, played, tmp_path):
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"study\.db: cannot be read as a study"):
        sweep(config, space, tmp_path / "garbage")
    sweep(config, space, tmp_path / "lost", trials=1)
    (tmp_path / "lost" / "study.db").unlink()
    with pytest.raises(ConfigError, match="holds trials without a study"):
        sweep(config, space, tmp_path / "lost")


@pytest.mark.parametrize(("trials", "seed"), [(0, 0), (-1, 0), (None, -1)])
def test_numbers_out_of_range(config, space, played, tmp_path, trials, seed):
    with pytest.raises(UsageError, match="give 1 or more"):
        sweep(config, space, tmp_path, trials=trials, seed=seed)


def test_one_process_searches(config, space, played, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="without torchrun"):
        sweep(config, space, tmp_path)


def test_any_name_of_a_folder(config, space, played, tmp_path):
    folder = tmp_path / "a b?{c}%20#d"
    sweep(config, space, folder, trials=1)
    assert len(sweep(config, space, folder, trials=2)) == 2
    assert (folder / "study.db").exists()
    assert list(tmp_path.iterdir()) == [folder]


# By the command line, with trainings that are real.


@pytest.fixture
def command(config, faces, monkeypatch, tmp_path):
    """Sweep over drawn faces by the command line; return the exit status."""
    monkeypatch.setattr(loop, "load_data", lambda *_: (faces.data(), faces.data()))
    monkeypatch.setattr(loop, "keep_memory", lambda: None)  # changes the whole process
    optim = dataclasses.replace(config.optim, steps=4, validate_every=2)
    (tmp_path / "config.toml").write_text(to_toml(dataclasses.replace(config, optim=optim)))
    (tmp_path / "space.toml").write_text(
        "trials = 3\n[optim.lr]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n"
        "[model.dropout]\nlow = 0.0\nhigh = 0.4\nstep = 0.2\n"
    )

    def start(*options, output="sweep"):
        files = [str(tmp_path / name) for name in ("config.toml", "space.toml")]
        return run(["sweep", *files, "-o", str(tmp_path / output), "--workers", "0", *options])

    return start


def test_a_sweep_from_the_command_line(command, tmp_path, capsys):
    assert command() == 0
    out, err = capsys.readouterr()
    assert [line.partition("  ")[0] for line in err.splitlines()] == [
        f"trial {k} ({k + 1}/3)" for k in range(3)
    ]
    table = out.splitlines()
    assert table[0].split() == [
        "TRIAL",
        "LOG_LOSS",
        "optim.lr",
        "model.dropout",
        "STEPS",
        "SECONDS",
    ]
    values = [float(line.split()[1]) for line in table[1:4]]
    assert values == sorted(values)
    best = int(table[1].split()[0])
    folder = tmp_path / "sweep"
    assert table[-1] == f"next: tellframe export {folder}/trial-{best:04} -o BUNDLE"
    # What best.toml asks for gives what the best trial gave, and its weights can be exported.
    status = run(
        ["train", str(folder / "best.toml"), "-o", str(tmp_path / "again"), "--workers", "0"]
    )
    assert status == 0
    logs = [
        json.loads((path / "log.jsonl").read_text().splitlines()[-1])["log_loss"]
        for path in (tmp_path / "again", folder / f"trial-{best:04}")
    ]
    assert logs[0] == logs[1] == pytest.approx(values[0], abs=1e-4)
    assert (folder / f"trial-{best:04}" / "checkpoint.safetensors").exists()
    capsys.readouterr()
    assert command() == 0  # nothing is left to do
    out_again, err_again = capsys.readouterr()
    assert (out_again, err_again) == (out, "")
    assert command(output="other") == 0
    rows, others = rows_of(folder), rows_of(tmp_path / "other")
    for row, other in itertools.zip_longest(rows, others):
        assert {**row, "seconds": ""} == {**other, "seconds": ""}


def test_the_best_trial_gets_its_probe(command, faces, monkeypatch, tmp_path):
    monkeypatch.setattr(quality, "load_data", lambda *_: (faces.data(), faces.data()))
    assert command("--set", "quality.crops=20") == 0
    probes = [path.parent.name for path in tmp_path.rglob("quality.safetensors")]
    with (tmp_path / "sweep" / "trials.csv").open(newline="") as file:
        best = min(csv.DictReader(file), key=lambda row: float(row["value"]))
    assert probes == [f"trial-{int(best['trial']):04}"]


@pytest.mark.parametrize(("failures", "status"), [(1, 3), (3, 4)])
def test_the_exit_status_tells_of_failures(command, monkeypatch, capsys, failures, status):
    raising(monkeypatch, *[ConfigError("no such file") for _ in range(failures)])
    assert command() == status
    assert f"{failures} failed" in capsys.readouterr().out


def test_a_stop_by_hand_from_the_command_line(command, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        raising(patched, None, KeyboardInterrupt())
        assert command() == 130
    assert "tellframe: interrupted" in capsys.readouterr().err
    assert command() == 0
    assert "1 cut off, 3 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "optim.lr=1e-3"], "--set optim.lr: "),
        (["--set", "optim.rl=1e-3"], "did you mean 'lr'?"),
        (["--trials", "0"], "0 trials, seed 0: give 1 or more"),
        (["--workers", "-1"], "--workers -1: give 0 or more"),
    ],
)
def test_usage_errors_come_before_the_first_trial(command, tmp_path, capsys, options, message):
    assert command(*options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_missing_package_is_named_with_the_extra(command, monkeypatch, capsys):
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "optuna" else found(name))
    assert command() == 2
    assert "sweep needs optuna; install it with: pip install 'tellframe[train]'" in (
        capsys.readouterr().err
    )
