"""A verdict as a plain dictionary ("row") and back; the shape of all JSON that is written."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final

import numpy as np

from tellframe.errors import UsageError
from tellframe.report.schema import without_none, written_fields
from tellframe.types import SCHEMA_VERSION, Verdict

_DIGITS: Final[dict[str, int | None]] = {
    "probability": 6,
    "frame_rate": 6,
    "recipe_overrides": None,
    "real_to": None,
    "fake_from": None,
    "prior_use": None,
}
"""Decimals kept of the floats in a field; None keeps them all. A recipe is never rounded, or it
would no longer have its digest, nor is a limit, or a verdict might lie on its wrong side."""

_DIGITS_ELSEWHERE: Final = 3
"""Decimals of seconds and pixels."""


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """Return `verdict` as a dictionary of plain JSON types, in the order of the fields.

    Probabilities are rounded to 6 decimals, times in seconds and lengths in pixels to 3. The
    pictures (`Evidence`) are left out. Strings are kept as they are, so that a path that is not
    valid UTF-8 still holds its surrogate escapes.

    Raises:
        ValueError: a number is not finite; the message names the field.
        TypeError: a recipe override is of a type that JSON does not know.
    """
    row: dict[str, Any] = _encode(verdict, _DIGITS_ELSEWHERE, "")
    row["schema_version"] = SCHEMA_VERSION
    row["tellframe_version"] = tellframe_version()
    return row


def verdict_from_dict(row: Mapping[str, Any]) -> Verdict:
    """Return the verdict of which `row` was made; `evidence` is None.

    Keys that this version does not know are ignored, and missing keys take the default of their
    field where it has one. Lists in recipe overrides become tuples, as recipes hold them.

    Raises:
        UsageError: the row has another schema version, lacks a key, or a value has a wrong type.
    """
    version = row.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"schema_version is {version!r}, but this tellframe reads version {SCHEMA_VERSION}: "
            f"use a tellframe of the version that wrote the row "
            f"({row.get('tellframe_version', 'unknown')})"
        )
    return typing.cast(Verdict, _decode(row, Verdict, ""))


@cache
def tellframe_version() -> str:
    """Return the version of the installed package, or "unknown" where it is not installed."""
    from importlib import metadata  # 20 ms that only writers pay

    try:
        return metadata.version("tellframe")
    except metadata.PackageNotFoundError:
        return "unknown"


def _encode(value: Any, digits: int | None, where: str) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _encode(
                getattr(value, field.name),
                _DIGITS.get(field.name, _DIGITS_ELSEWHERE),
                f"{where}.{field.name}".lstrip("."),
            )
            for field, _ in written_fields(type(value))
        }
    if isinstance(value, Mapping):
        return {str(key): _encode(item, digits, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_encode(item, digits, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, str):
        return value
    return _encode_number(value, digits, where)


def _encode_number(value: Any, digits: int | None, where: str) -> bool | int | float:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if not isinstance(value, (float, np.floating)):
        raise TypeError(f"{where}: {type(value).__name__} cannot be written as JSON")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{where} is {number}, which JSON cannot hold")
    # Adding 0.0 turns the -0.0 that rounding may leave into 0.0.
    return number if digits is None else round(number, digits) + 0.0


def _decode(value: Any, hint: Any, where: str) -> Any:
    hint, optional = without_none(hint)
    if optional and value is None:
        return None
    if dataclasses.is_dataclass(hint):
        return _decode_object(value, typing.cast(type, hint), where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        items = _expect(value, list | tuple, "a list", where)
        kinds = [args[0]] * len(items) if args[-1] is Ellipsis else args
        if len(items) != len(kinds):
            raise UsageError(f"{where}: expected {len(kinds)} values, got {len(items)}")
        return tuple(
            _decode(item, kind, f"{where}[{i}]")
            for i, (item, kind) in enumerate(zip(items, kinds, strict=True))
        )
    if origin is dict:
        entries = _expect(value, Mapping, "an object", where)
        return {key: _decode(item, args[1], f"{where}.{key}") for key, item in entries.items()}
    if hint is object:
        return _freeze(value)
    return _decode_scalar(value, hint, where)


def _decode_object(value: Any, cls: type, where: str) -> Any:
    entries = _expect(value, Mapping, "an object", where or "the row")
    known = {}
    for field, hint in written_fields(cls):
        path = f"{where}.{field.name}".lstrip(".")
        if field.name in entries:
            known[field.name] = _decode(entries[field.name], hint, path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{path}: this key is missing, so the row is no complete verdict")
    return cls(**known)


def _decode_scalar(value: Any, hint: Any, where: str) -> Any:
    if issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            names = ", ".join(hint)
            raise UsageError(f"{where}: {value!r} is none of {names}") from None
    if hint is float:
        # JSON has one kind of number, and a writer may put 3 where we put 3.0.
        if isinstance(value, bool) or not math.isfinite(_expect(value, int | float, "", where)):
            raise UsageError(f"{where}: expected a finite number, got {value!r}")
        return float(value)
    if hint is int and isinstance(value, bool):
        raise UsageError(f"{where}: expected an integer, got {value!r}")
    return _expect(value, hint, f"a value of type {hint.__name__}", where)


def _expect(value: Any, kind: Any, words: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise UsageError(f"{where}: expected {words or 'a number'}, got {value!r}")
    return value


def _freeze(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    return value
