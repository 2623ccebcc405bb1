"""What an ONNX file holds, read without running it: a graph has its weights inside, or is refused.

ONNX lets a tensor name a file for its numbers, and ONNX Runtime would read it. A graph may come
from anybody, so that this is refused before ONNX Runtime sees it. The file is a message of
Protocol Buffers; of its fields only the few are followed that lead to tensors, by their numbers in
onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tellframe.errors import BundleError

MAX_GRAPH_BYTES: Final = 2**30
"""Of an ONNX file; Protocol Buffers end at twice as much."""
MAX_DEPTH: Final = 100
"""Messages within each other; Protocol Buffers' own limit."""
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
"""Number of a field and the message in it, by message."""
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
"""Fields of a tensor: where its numbers lie, and whether they do not lie in it (0: they do)."""
_ORT_MARK: Final = b"ORTM"
"""At byte 4 of ONNX Runtime's own format, which it would read as well."""


def read_graph(path: str | Path) -> bytes:
    """Return the bytes of an ONNX file that needs no other file.

    Raises:
        BundleError: it is missing, too large, damaged, or has external data.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"{path}: no such file; a complete ONNX graph is needed here")
    try:
        size = path.stat().st_size
        _require_small(size, str(path))
        with path.open("rb") as file:
            data = file.read(size)  # memory is taken for as many bytes as are asked for
    except OSError as error:
        reason = error.strerror or error
        raise BundleError(f"{path}: cannot be read ({reason}); check the file") from error
    require_self_contained(data, str(path))
    return data


def require_self_contained(data: bytes, name: str) -> None:
    """Check that a graph has all its weights inside.

    Args:
        data: of an ONNX file, from anybody.
        name: for messages.

    Raises:
        BundleError: it has not, is too large, or is no ONNX.
    """
    _require_small(len(data), name)
    if data[4:8] == _ORT_MARK:
        raise BundleError(f"{name}: in ONNX Runtime's own format; export it as ONNX")
    try:
        found = _has_external_data(memoryview(data), "Model", 0)
    except ValueError as error:
        raise BundleError(
            f"{name}: no ONNX graph, or damaged ({error}); export it again"
        ) from error
    if found:
        raise BundleError(
            f"{name}: keeps weights in other files (external data), which are not read; export it "
            "with all weights inside"
        )


def _require_small(size: int, name: str) -> None:
    if size > MAX_GRAPH_BYTES:
        raise BundleError(f"{name}: more than {MAX_GRAPH_BYTES} bytes; this is no graph of ours")


def _has_external_data(data: memoryview, kind: str, depth: int) -> bool:
    """Tell whether a tensor in a message lies in another file.

    Raises:
        ValueError: the message is damaged.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} messages within each other")
    inside = _INSIDE[kind]
    for number, value in _fields(data):
        if kind == "Tensor" and (
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
        ):
            return True
        if (
            number in inside
            and isinstance(value, memoryview)
            and _has_external_data(value, inside[number], depth + 1)
        ):
            return True
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number of every field of a message, and its bytes or its number.

    Raises:
        ValueError: the message is damaged, or has groups, which ONNX has not.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag >= 2**32:  # others drop the bits beyond, and would see another field than we do
            raise ValueError("a field of too large a number")
        number, wire = tag >> 3, tag & 7
        value: int | memoryview = 0
        if wire == 0:
            value, position = _varint(data, position)
        elif wire in (1, 5):  # 8 or 4 bytes
            position += 8 if wire == 1 else 4
        elif wire == 2:
            length, start = _varint(data, position)
            position = start + length
            value = data[start:position]
        else:
            raise ValueError(f"a field of the unknown type {wire}")
        if position > len(data):
            raise ValueError("it ends in the middle of a field")
        yield number, value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return a number of up to ten bytes of seven bits each, and the position behind it."""
    value = 0
    for i in range(10):
        if position + i >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[position + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & (2**64 - 1), position + i + 1
    raise ValueError("a number of more than ten bytes")
