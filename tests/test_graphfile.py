"""Graphs that would make ONNX Runtime read other files are refused before it sees them."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe import graphfile
from tellframe.bundle import SHIPPED, load_bundle
from tellframe.errors import BundleError, OutOfMemoryError
from tellframe.graphfile import read_graph, require_self_contained
from tellframe.runtime import Session

GRAPH = SHIPPED / "frame_lite0" / "model.onnx"
SIZE = load_bundle("frame_lite0").recipe.crop_size
CROPS = np.zeros((1, SIZE, SIZE, 3), np.uint8)


def varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, value: bytes | int) -> bytes:
    """Return one field of a message: bytes, or a number."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def wrap(path: list[int], inner: bytes) -> bytes:
    for number in reversed(path):
        inner = field(number, inner)
    return inner


ENTRY = field(1, b"location") + field(2, b"/etc/passwd")
EXTERNAL = {
    "names a file": field(13, ENTRY),
    "says that it does": field(14, 1),
    "says so in another way": field(14, 2**32 + 1),
    "both": field(8, b"w") + field(13, ENTRY) + field(14, 1),
}
PLACES = {
    "weights": [7, 5],
    "sparse weights": [7, 15, 1],
    "indices of sparse weights": [7, 15, 2],
    "a constant": [7, 1, 5, 5],
    "constants": [7, 1, 5, 10],
    "a sparse constant": [7, 1, 5, 22, 1],
    "sparse constants": [7, 1, 5, 23, 2],
    "a branch": [7, 1, 5, 6, 5],
    "a branch of a branch": [7, 1, 5, 6, 1, 5, 11, 5],
    "a function": [25, 7, 5, 5],
    "a default of a function": [25, 11, 5],
    "training": [20, 1, 5],
    "a step of training": [20, 2, 5],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", EXTERNAL)
def test_external_data_is_refused_wherever_it_is(place, how):
    data = field(1, 8) + wrap(PLACES[place], EXTERNAL[how]) + field(1, 8)
    with pytest.raises(BundleError, match=r"x\.onnx: keeps weights in other files"):
        require_self_contained(data, "x.onnx")
    inside = field(1, 8) + wrap(PLACES[place], field(8, b"w") + field(14, 0) + field(9, b"1234"))
    require_self_contained(inside, "x.onnx")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0b", "unknown type 3"),
        (varint((7 << 3 | 2) + 2**32) + b"\0", "too large a number"),
        (b"\x3a\x05ab", "in the middle of a field"),
        (b"\x08", "in the middle of a number"),
        (b"\x08" + b"\xff" * 10, "more than ten bytes"),
        (wrap([7] + [1, 5, 6] * 60, b""), "more than 100 messages"),
        (b"\x18\0\0\0ORTM" + bytes(64), "ONNX Runtime's own format"),
    ],
)
def test_what_is_no_graph_is_refused(data, words):
    with pytest.raises(BundleError, match=f"^x: .*{words}"):
        require_self_contained(data, "x")


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(data):
    with contextlib.suppress(BundleError):
        require_self_contained(data, "x")


def test_shipped_graphs_need_no_other_file():
    for path in SHIPPED.parent.rglob("*.onnx"):
        assert read_graph(path) == path.read_bytes()


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("missing", "pipe", "zero"):
        with pytest.raises(BundleError, match=f"{name}: no such file"):
            read_graph(tmp_path / name)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(graphfile.MAX_GRAPH_BYTES + 1)
    with pytest.raises(BundleError, match="huge: more than"):
        read_graph(tmp_path / "huge")


def test_no_more_memory_is_taken_than_the_file_has():
    """Workers load graphs within a limit that is not much larger than the largest graph."""
    tracemalloc.start()
    try:
        data = read_graph(GRAPH)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(data) + 2**20


def save_with_external_data(folder):
    """Write a graph whose weights lie beside it; return its path."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = make.make_graph(
        [make.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 64])],
        [weights],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (folder / "w.bin").stat().st_size == 64 * 64 * 4
    return path


def test_a_session_does_not_read_what_a_graph_names(tmp_path):
    path = save_with_external_data(tmp_path)
    runtime = pytest.importorskip("onnxruntime")
    runtime.InferenceSession(path, providers=["CPUExecutionProvider"])  # which would read it
    for source in (path, path.read_bytes()):
        with pytest.raises(BundleError, match="keeps weights in other files"):
            Session(source, 1)


def test_the_fields_are_those_of_onnx():
    """All ways from a model to a tensor, by ONNX's own description of its format."""
    onnx = pytest.importorskip("onnx")
    found, names = {}, {"TrainingInfo": "Training"}

    def name(message) -> str:
        short = message.name.removesuffix("Proto")
        return names.get(short, short)

    def leads_to_tensor(message, seen=()) -> bool:
        if message.name == "TensorProto":
            return True
        below = [f.message_type for f in message.fields if f.message_type]
        return any(leads_to_tensor(m, (*seen, message)) for m in below if m not in seen)

    def walk(message):
        if name(message) in found:
            return
        inside = found[name(message)] = {}
        if message.name == "TensorProto":
            return
        for entry in message.fields:
            if entry.message_type and leads_to_tensor(entry.message_type):
                inside[entry.number] = name(entry.message_type)
                walk(entry.message_type)

    walk(onnx.ModelProto.DESCRIPTOR)
    assert found == graphfile._INSIDE
    tensor = onnx.TensorProto.DESCRIPTOR.fields_by_name
    assert tensor["external_data"].number == graphfile._EXTERNAL_DATA
    assert tensor["data_location"].number == graphfile._DATA_LOCATION


def test_the_shipped_graph_still_runs():
    found = Session(GRAPH, 1).run({"crops": CROPS})
    assert found["logit"].shape == (1,)


def test_a_graph_that_memory_does_not_suffice_for_says_so(monkeypatch):
    def run(*_):
        raise RuntimeError("Non-zero status code returned while running Conv: std::bad_alloc")

    session = Session(GRAPH, 1)
    monkeypatch.setattr(session, "_session", SimpleNamespace(run=run))
    with pytest.raises(OutOfMemoryError, match=r"memory does not suffice to run model\.onnx"):
        session.run({"crops": CROPS})
