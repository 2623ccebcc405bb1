"""Tables of TOML or JSON into frozen dataclasses: unknown keys and wrong types are errors."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tellframe.errors import ConfigError

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a dataclass whose fields all have defaults; the defaults say the types.

    Args:
        cls: the dataclass.
        values: its fields; a list stands for a tuple, an integer for a float.
        where: names the table in messages.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), or a value has the wrong
            type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a table of keys and values")
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in defaults:
            nearest = difflib.get_close_matches(key, defaults, 1, 0.0)
            raise ConfigError(f"{where}: unknown key {key!r}; did you mean {nearest[0]!r}?")
        given[key] = _as_type_of(defaults[key], value, f"{where}: {key}")
    return cls(**given)


def _as_type_of(default: Any, value: Any, what: str) -> Any:
    """Return the value in the type of the default."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        pattern = default[0] if default else ""
        return tuple(_as_type_of(pattern, v, what) for v in value)
    if isinstance(default, float) and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{what}: the number is too large") from error
    if type(value) is not type(default):
        raise ConfigError(
            f"{what} = {value!r} must be of type {type(default).__name__}, such as {default!r}"
        )
    return value


def load_toml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file and apply overrides.

    Args:
        path: the file.
        overrides: "table.key=value" each, the value in TOML syntax, or a bare word.

    Raises:
        ConfigError: the file cannot be read, or an override has no equals sign.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
    return apply_overrides(values, overrides)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set values in nested tables, which are changed; arguments and errors as for `load_toml`."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: expected table.key=value")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except (ValueError, RecursionError):
            value = text
        *tables, last = key.strip().split(".")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"override {override!r}: {name!r} is a value, not a table")
        table[last] = value
    return values
