"""What is fuzzed: our own parsers. Each takes bytes, and may raise nothing but its own error."""

# The file in memory needs no name.
# ruff: noqa: ARG002
from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from tellframe.bundle import SHIPPED, load_bundle
from tellframe.config import load_toml
from tellframe.data.layouts import parse_metadata
from tellframe.data.zips import find_fault, list_members, read_member
from tellframe.errors import BundleError, ConfigError, DataError, StoreError, WireError
from tellframe.extract import Extraction
from tellframe.faces.boxes import suppress_overlaps
from tellframe.faces.mtcnn import decode_proposals, shift, square
from tellframe.graphfile import require_self_contained
from tellframe.recipe import Recipe
from tellframe.store import Store
from tellframe.types import Media
from tellframe.wire import pack, unpack

PLACE = Path(tempfile.mkdtemp(prefix="tellframe-fuzz-"))
MAX_MEMBER = 1 << 20


class _Bytes(Store):
    """A store with a single file, in memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__("memory")
        self._data = data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._data[start : start + length] if start >= 0 and length > 0 else b""

    def size(self, key: str) -> int:
        return len(self._data)

    def list_files(self, prefix: str = "") -> dict[str, int]:
        return {"a.zip": len(self._data)}

    def put_if_absent(self, key: str, content: object) -> bool:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError


def metadata(data: bytes) -> None:
    """metadata.json of DFDC."""
    with contextlib.suppress(DataError):
        for row in parse_metadata(data, "metadata.json").rows.values():
            assert isinstance(row.get("label"), str | None)


def zip_directory(data: bytes) -> None:
    """The directory of a zip, and its members."""
    store = _Bytes(data)
    with contextlib.suppress(DataError, StoreError):
        for member in list_members(store, "a.zip")[:20]:
            assert 0 <= member.offset <= len(data)
            if not find_fault(member) and member.bytes <= MAX_MEMBER:
                with contextlib.suppress(DataError, StoreError):
                    assert len(read_member(store, "a.zip", member)) == member.bytes


def bundle(data: bytes) -> None:
    """bundle.json."""
    (PLACE / "bundle.json").write_bytes(data)
    with contextlib.suppress(BundleError):
        load_bundle(PLACE)


def graph(data: bytes) -> None:
    """An ONNX file, as far as we read it ourselves."""
    with contextlib.suppress(BundleError):
        require_self_contained(data, "model.onnx")


def recipe(data: bytes) -> None:
    """A TOML file with a recipe."""
    path = PLACE / "recipe.toml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        made = Recipe.from_dict(load_toml(path).get("recipe", {}))
        assert Recipe.from_dict(json.loads(json.dumps(made.to_dict()))).digest == made.digest


def mtcnn(data: bytes) -> None:
    """What MTCNN makes of the maps of its networks, whatever numbers they hold."""
    if len(data) < 24:
        return
    height, width, rest = 1 + data[0] % 16, 1 + data[1] % 16, data[4:]
    count = height * width * 5
    values = np.frombuffer(rest[: len(rest) // 4 * 4], np.float32)
    values = np.resize(values, count)
    with np.errstate(all="ignore"):
        probability = values[: height * width].reshape(height, width)
        offsets = values[height * width :].reshape(4, height, width)
        found = decode_proposals(probability, offsets, 0.1 + data[2] / 256, 0.6)
        assert found.shape[1] == 9
        boxes = square(shift(found[:, :4], found[:, 5:], border=data[3] % 2))
        kept = suppress_overlaps(boxes, found[:, 4], 0.7, by_smaller=bool(data[3] & 2))
        assert len(set(kept.tolist())) == len(kept) <= len(boxes)


def wire(data: bytes) -> None:
    """What a worker says."""
    with contextlib.suppress(WireError):
        assert isinstance(unpack(data, Extraction), Extraction)


def _zips() -> list[bytes]:
    found = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr("a/b.mp4", b"content" * 9)
            archive.writestr("metadata.json", b"{}")
        found.append(buffer.getvalue())
    return found


_TOML = "[recipe]\n" + "".join(
    f"{key} = {json.dumps(value)}\n" for key, value in Recipe().to_dict().items()
)
_MEDIA = Media("a.mp4", 1, "00", "mp4", "h264", 2, 2, 0, 1.0, 25, 25.0, False)
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "metadata": (
        metadata,
        [b'{"a.mp4": {"label": "FAKE", "split": "train", "original": "b.mp4"}}', b"[" * 5000],
    ),
    "zip_directory": (zip_directory, _zips()),
    "bundle": (
        bundle,
        [*((SHIPPED / "frame_lite0" / "bundle.json").read_bytes() for _ in "1"), b"[" * 5000],
    ),
    "graph": (
        graph,
        [
            b"\x08\x08\x3a\x0c\x2a\x0a\x08\x02\x10\x01\x4a\x04\0\0\x80?",  # weights inside
            b"\x3a\x08\x0a\x06\x2a\x04\x2a\x02\x70\x01",  # a constant that lies elsewhere
        ],
    ),
    "recipe": (recipe, [_TOML.encode(), b"a = " + b"[" * 5000]),
    "mtcnn": (mtcnn, [bytes(range(256)) * 4, np.full(400, 0.9, np.float32).tobytes()]),
    "wire": (wire, [pack(Extraction(_MEDIA, (), {"frames_sampled": 1}))]),
}
"""Name: what is called, and inputs to begin with."""
