"""Values as plain bytes and back, checked against their type: what a worker may say.

A worker that was taken over by a file may say anything, and nothing that is said here can run
code, as a pickle can. The reader names the type that it expects; what is not exactly of it is
refused.

A message is a 4-byte length, JSON of that length, and the bytes of arrays one after the other.
In the JSON a dataclass is the list of its fields, an array is [type, shape].
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import types as pytypes
import typing
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final, NoReturn, TypeVar

import numpy as np

from tellframe.errors import WireError

Kind = TypeVar("Kind")
_LENGTH: Final = struct.Struct("<I")
_MAX_DIMENSIONS: Final = 8


def pack(value: Any) -> bytes:
    """Return a value as bytes.

    Args:
        value: of dataclasses, tuples, lists, dictionaries with text as keys, arrays, bytes, text,
            numbers and None.

    Raises:
        WireError: something in it is of another kind, or a number is not finite.
    """
    parts: list[bytes] = []
    try:
        text = json.dumps(_plain(value, parts), allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise WireError(f"cannot be sent: {error}") from error
    return b"".join([_LENGTH.pack(len(text)), text, *parts])


def unpack(data: bytes | bytearray | memoryview, kind: type[Kind]) -> Kind:
    """Return the value that was packed.

    Args:
        data: from anybody.
        kind: what is expected: a type, or an annotation such as `tuple[Clip, ...]`.

    Raises:
        WireError: it is not exactly that; floats that are not finite included.
    """
    try:
        (length,) = _LENGTH.unpack_from(data)
        end = _LENGTH.size + length
        plain = json.loads(bytes(data[_LENGTH.size : end]), parse_constant=_refuse)
    except (ValueError, struct.error, RecursionError) as error:
        raise WireError(f"not a message: {error}") from error
    reader = _Reader(memoryview(data)[end:])
    try:
        value = reader.read(plain, kind)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise WireError(f"not a {getattr(kind, '__name__', kind)}: {error}") from error
    if reader.left:
        raise WireError(f"{reader.left} bytes too many")
    return typing.cast(Kind, value)


def _refuse(name: str) -> NoReturn:
    raise WireError(f"{name} is no number")


def _plain(value: Any, parts: list[bytes]) -> Any:
    """Return a value as JSON has it; appends the bytes of arrays."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value  # members of a StrEnum are text
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        parts.append(value.tobytes())
        return [value.dtype.str, list(value.shape)]
    if isinstance(value, bytes):
        parts.append(value)
        return len(value)
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return [_plain(getattr(value, field.name), parts) for field in fields]
    if isinstance(value, (tuple, list)):
        return [_plain(item, parts) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, parts) for key, item in value.items()}
    raise WireError(f"{type(value).__name__} cannot be sent")


class _Reader:
    """Takes values out of JSON, and arrays out of the bytes behind it."""

    def __init__(self, rest: memoryview) -> None:
        self._rest, self._position = rest, 0

    @property
    def left(self) -> int:
        """Bytes that nobody took."""
        return len(self._rest) - self._position

    def read(self, plain: Any, kind: Any) -> Any:
        """Return a value of a kind."""
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin in (pytypes.UnionType, typing.Union):
            return self._read_optional(plain, args)
        if kind is Any:
            return plain  # any JSON
        if dataclasses.is_dataclass(kind):
            items = _expect(plain, list)
            hints = _hints(typing.cast(type, kind))
            if len(items) != len(hints):
                raise WireError(f"{len(items)} fields, not {len(hints)}")
            values = [self.read(p, hint) for p, hint in zip(items, hints, strict=True)]
            return typing.cast(Any, kind)(*values)
        if origin is tuple:
            return self._read_tuple(_expect(plain, list), args)
        if origin is list:
            return [self.read(item, args[0]) for item in _expect(plain, list)]
        if origin is dict:
            return {key: self.read(item, args[1]) for key, item in _expect(plain, dict).items()}
        if origin is np.ndarray:
            (dtype,) = typing.get_args(args[1])
            return self._read_array(plain, np.dtype(dtype))
        return self._read_scalar(plain, kind)

    def _read_optional(self, plain: Any, args: tuple[Any, ...]) -> Any:
        (kind,) = (arg for arg in args if arg is not pytypes.NoneType)
        return None if plain is None else self.read(plain, kind)

    def _read_tuple(self, items: list[Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
        if args[-1] is Ellipsis:
            return tuple(self.read(item, args[0]) for item in items)
        if len(items) != len(args):
            raise WireError(f"{len(items)} values, not {len(args)}")
        return tuple(self.read(item, arg) for item, arg in zip(items, args, strict=True))

    def _read_scalar(self, plain: Any, kind: Any) -> Any:
        if kind is bytes:
            return bytes(self._take(_expect(plain, int)))
        if kind is float:
            if type(plain) not in (float, int) or not math.isfinite(plain):
                raise WireError("not a finite number")
            return float(plain)
        if issubclass(kind, StrEnum):
            try:
                return kind(plain)
            except ValueError as error:
                raise WireError(str(error)) from error
        return _expect(plain, kind)

    def _read_array(self, plain: Any, dtype: np.dtype[Any]) -> Any:
        name, shape = self._read_tuple(_expect(plain, list), (str, tuple[int, ...]))
        if name != dtype.str or len(shape) > _MAX_DIMENSIONS or any(n < 0 for n in shape):
            raise WireError(f"an array of {name}, shape {shape}, not of {dtype}")
        data = self._take(math.prod(shape) * dtype.itemsize)
        # A copy: the caller's array must be writable and must not keep the whole message alive.
        array = np.frombuffer(data, dtype).reshape(shape).copy()
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise WireError("a number in an array is not finite")
        if dtype.kind == "b" and (array.view(np.uint8) > 1).any():
            raise WireError("a truth value that is neither")
        return array

    def _take(self, count: int) -> memoryview:
        if not 0 <= count <= self.left:
            raise WireError(f"{count} bytes are announced, {self.left} are there")
        self._position += count
        return self._rest[self._position - count : self._position]


@cache
def _hints(kind: type) -> tuple[Any, ...]:
    """Return the types of the fields of a dataclass, in order."""
    hints = typing.get_type_hints(kind)
    return tuple(hints[field.name] for field in dataclasses.fields(kind))


def _expect(plain: Any, kind: type) -> Any:
    if type(plain) is not kind:  # exactly: a bool is no int here
        raise WireError(f"{type(plain).__name__} instead of {kind.__name__}")
    return plain
