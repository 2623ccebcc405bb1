"""What a sweep looks for, and where: a TOML file with a table for every setting that is searched.

    objective = "log_loss"
    trials = 20

    [prune]
    startup_trials = 5

    [optim.lr]
    low = 1e-5
    high = 1e-3
    log = true

    [model.head]
    choices = ["mean", "attention"]

The type of a setting decides that of its values: a setting that is a whole number stays one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tellframe.config import build, load_toml
from tellframe.errors import ConfigError
from tellframe.train.config import TrainConfig, config_from_dict

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution
"""The values of one setting, as Optuna calls them."""

SOURCES: Final = {"video": "labels", "still": "stills", "clip": "shards"}
"""What a validation measures, and the key of [data] that it comes from."""
MEASURES: Final = ("log_loss", "auc", "ranked")
OBJECTIVES: Final = ("log_loss", *(f"{s}_{m}" for s in SOURCES for m in MEASURES))
"""The mean log loss, and the figures of every source, by the names of `train.validation`."""

UNSEARCHED: Final = {
    "data": "all trials must be measured on the same data",
    "quality": "the probe is fitted to the best trial, and changes no figure",
}
"""Tables of a configuration that are the same in all trials, and why."""
_KEYS: Final = ("low", "high", "log", "step", "choices")


@dataclass(frozen=True, slots=True)
class PruneConfig:
    """When a trial is stopped early: its best value so far is worse than the median at that step.

    Raises:
        ConfigError: a number is negative.
    """

    enabled: bool = True
    startup_trials: int = 5
    """Trials that run to their end before any is stopped (Optuna's own default)."""
    warmup_validations: int = 1
    """First validations of a trial after which it is never stopped."""

    def __post_init__(self) -> None:
        for name in ("startup_trials", "warmup_validations"):
            if getattr(self, name) < 0:
                raise ConfigError(f"[prune] {name} = {getattr(self, name)}: give 0 or more")


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched."""

    parameters: Mapping[str, Distribution]
    """By the key of a configuration, such as "optim.lr"."""
    objective: str = "log_loss"
    """One of `OBJECTIVES`."""
    trials: int = 20
    """Finished trials in all."""
    prune: PruneConfig = field(default_factory=PruneConfig)

    @property
    def minimised(self) -> bool:
        """Whether the lowest value of the objective is the best."""
        return self.objective.endswith("log_loss")

    def tidy(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings in the order of the file, with steps free of binary noise (0.3)."""
        return {k: _tidy(d, settings[k]) for k, d in self.parameters.items() if k in settings}

    def apply(self, config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
        """Return a configuration with some of its settings replaced.

        Raises:
            ConfigError: it does not take them.
        """
        values = config.to_dict()
        for key, value in self.tidy(settings).items():
            table, name = key.split(".")
            values[table][name] = value
        return config_from_dict(values)

    def check(self, config: TrainConfig) -> None:
        """Raise unless a configuration takes every choice and both ends of every range.

        Each is tried on its own, with the other settings as the configuration has them.

        Raises:
            ConfigError: it does not, or its data does not give what the objective measures.
        """
        for key, distribution in self.parameters.items():
            for value in _corners(distribution):
                try:
                    self.apply(config, {key: value})
                except ConfigError as error:
                    raise ConfigError(f"[{key}] {value!r} is refused: {error}") from error
        source = SOURCES.get(self.objective.split("_")[0])
        if source and not getattr(config.data, source):
            raise ConfigError(
                f"objective = {self.objective!r} is measured on [data] {source}, which the "
                "configuration leaves empty"
            )

    def describe(self) -> dict[str, str]:
        """Return what decides a search, in words by key, for comparison with another space."""
        prune = {f"prune.{k}": str(v) for k, v in dataclasses.asdict(self.prune).items()}
        described = {key: _describe(d) for key, d in self.parameters.items()}
        return {"objective": self.objective, **prune, **described}


def load_space(path: str | Path) -> Space:
    """Read a TOML file into a space.

    Raises:
        ConfigError: the file cannot be read, a key is unknown (the nearest known one is named), or
            the values of a setting make no sense.
    """
    try:
        return space_from_dict(load_toml(path))
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def space_from_dict(values: Mapping[str, Any]) -> Space:
    """Build a space from tables; [optim.lr] and ["optim.lr"] are the same.

    Raises:
        ConfigError: as for `load_space`.
    """
    defaults = TrainConfig().to_dict()
    searched: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key in ("objective", "trials"):
            given[key] = value
        elif key == "prune":
            _need_table(key, value)
            given[key] = build(PruneConfig, value, "[prune]")
        elif "." not in key and isinstance(defaults.get(key), dict):
            _need_table(key, value)
            searched |= {f"{key}.{name}": table for name, table in value.items()}
        else:
            searched[key] = value
    if not searched:
        raise ConfigError("no setting to search: add a table such as [optim.lr] with low and high")
    parameters = {k: _parse(k, table, _default(k, defaults)) for k, table in searched.items()}
    space = Space(parameters, **given)
    if space.objective not in OBJECTIVES:
        asked = _nearest(space.objective, OBJECTIVES)
        raise ConfigError(f"objective = {space.objective!r}: {asked}")
    if type(space.trials) is not int or space.trials < 1:
        raise ConfigError(f"trials = {space.trials!r}: give a whole number of 1 or more")
    return space


def _need_table(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"[{key}] must be a table, not {value!r}")


def _nearest(name: Any, known: Iterable[str]) -> str:
    """Ask whether the nearest known name is meant."""
    return f"did you mean {difflib.get_close_matches(str(name), known, 1, 0.0)[0]!r}?"


def _default(key: str, defaults: Mapping[str, Any]) -> Any:
    """Return the default of a setting, whose type decides which values it takes.

    Raises:
        ConfigError: there is no such setting, or it must not be searched.
    """
    table = key.partition(".")[0]
    if table in UNSEARCHED:
        raise ConfigError(f"[{key}] cannot be searched: {UNSEARCHED[table]}")
    known = {
        f"{table}.{name}": value
        for table, fields in defaults.items()
        if isinstance(fields, dict) and table not in UNSEARCHED
        for name, value in fields.items()
    }
    if key not in known:
        names = [*known, "objective", "trials", "prune"]
        raise ConfigError(f"unknown key {key!r}; {_nearest(key, names)}")
    if isinstance(known[key], tuple | list):
        raise ConfigError(f"[{key}] cannot be searched: it is a list, not a single value")
    return known[key]


def _parse(key: str, table: Any, default: Any) -> Distribution:
    """Turn the table of a setting into its values.

    Raises:
        ConfigError: a key is unknown, or the values make no sense.
    """
    _need_table(key, table)
    for name in table:
        if name not in _KEYS:
            raise ConfigError(f"[{key}]: unknown key {name!r}; {_nearest(name, _KEYS)}")
    if "choices" in table:
        if len(table) > 1:
            raise ConfigError(f"[{key}]: choices stand alone, without low, high, log and step")
        return _parse_choices(key, table["choices"], default)
    if "low" not in table or "high" not in table:
        raise ConfigError(f"[{key}]: give low and high, or choices")
    if type(default) not in (int, float):
        raise ConfigError(f"[{key}] is not a number, such as {default!r}: give choices")
    return _parse_range(key, table, type(default))


def _parse_choices(key: str, choices: Any, default: Any) -> CategoricalDistribution:
    if not isinstance(choices, list) or len(choices) < 2:
        raise ConfigError(f"[{key}]: choices = {choices!r}: give a list of two or more")
    for choice in choices:
        if type(choice) not in (bool, int, float, str):
            raise ConfigError(f"[{key}]: {choice!r} is no text, number, true or false")
    if isinstance(default, float):
        choices = [float(c) if type(c) is int else c for c in choices]
    if len({(type(c), c) for c in choices}) < len(choices):
        raise ConfigError(f"[{key}]: choices = {choices!r}: one of them is there twice")
    return CategoricalDistribution(choices)


def _parse_range(
    key: str, table: Mapping[str, Any], kind: type[int] | type[float]
) -> IntDistribution | FloatDistribution:
    """Check low, high, log and step; the type of the setting decides that of the values."""
    log, numbers = table.get("log", False), {k: v for k, v in table.items() if k != "log"}
    for name, value in numbers.items():
        if type(value) not in (int, kind) or not math.isfinite(value):
            wanted = "a whole number" if kind is int else "a number"
            raise ConfigError(f"[{key}]: {name} = {value!r} must be {wanted}")
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    if type(log) is not bool:
        raise ConfigError(f"[{key}]: log = {log!r} must be true or false")
    if not low < high:
        raise ConfigError(f"[{key}]: low = {low} must lie below high = {high}")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"[{key}]: with log, low must be above 0, and there is no step")
    if step is not None:
        if step <= 0:
            raise ConfigError(f"[{key}]: step = {step} must be above 0")
        # In decimals as they are written: 0.3 is no multiple of 0.1 in binary.
        if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
            raise ConfigError(f"[{key}]: steps of {step} from low = {low} miss high = {high}")
    if kind is int:
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(
        float(low), float(high), log=log, step=None if step is None else float(step)
    )


def _tidy(distribution: Distribution, value: Any) -> Any:
    """Return a value; where there is a step, the decimal that a person would write for it."""
    if not isinstance(distribution, FloatDistribution) or distribution.step is None:
        return value
    low, step = distribution.low, distribution.step
    return float(Decimal(str(low)) + round((value - low) / step) * Decimal(str(step)))


def _corners(distribution: Distribution) -> tuple[Any, ...]:
    """Return all choices, or the ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    return (distribution.low, distribution.high)


def _describe(distribution: Distribution) -> str:
    """Return the values in words, such as "1e-05 to 0.001, log"."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(repr(choice) for choice in distribution.choices)
    words = f"{distribution.low!r} to {distribution.high!r}"
    if distribution.log:
        return f"{words}, log"
    return words if distribution.step in (None, 1) else f"{words}, step {distribution.step!r}"
