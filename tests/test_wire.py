"""Values as plain bytes: they come back as they were, and whatever else is said is refused."""

from __future__ import annotations

import contextlib
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tellframe.errors import WireError
from tellframe.extract import Extraction
from tellframe.types import Clip, Label, Media
from tellframe.wire import pack, unpack


@dataclass(frozen=True, slots=True)
class Inner:
    label: Label
    share: float
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    number: int
    flag: bool
    inner: tuple[Inner, ...]
    box: tuple[float, float]
    counts: dict[str, int]
    picture: bytes
    pixels: NDArray[np.uint8]
    times: NDArray[np.float64]
    facts: dict[str, Any]


floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec=None), max_size=10)  # half of a surrogate pair included
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
outers = st.builds(
    Outer,
    number=st.integers(-(2**70), 2**70),
    flag=st.booleans(),
    inner=st.lists(
        st.builds(Inner, label=st.sampled_from(Label), share=floats, name=st.none() | texts),
        max_size=3,
    ).map(tuple),
    box=st.tuples(floats, floats),
    counts=st.dictionaries(texts, st.integers(), max_size=3),
    picture=st.binary(max_size=20),
    pixels=shapes.map(lambda s: np.arange(int(np.prod(s)), dtype=np.uint8).reshape(s)),
    times=st.lists(floats, max_size=4).map(lambda v: np.array(v, np.float64)),
    facts=st.dictionaries(texts, st.lists(st.integers() | texts, max_size=2), max_size=2),
)


@settings(max_examples=100)
@given(outers)
def test_round_trip(value):
    found = unpack(pack(value), Outer)
    for name in ("number", "flag", "inner", "box", "counts", "picture", "facts"):
        assert getattr(found, name) == getattr(value, name)
    for name in ("pixels", "times"):
        before, after = getattr(value, name), getattr(found, name)
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        assert before.tobytes() == after.tobytes()
        assert after.flags.writeable
    assert type(found.inner) is tuple


EXAMPLE = pack(
    Outer(
        1,
        True,
        (Inner(Label.FAKE, 0.5),),
        (1.0, 2.0),
        {"a": 1},
        b"xyz",
        np.zeros((2, 2), np.uint8),
        np.ones(3),
        {},
    )
)


@settings(max_examples=300)
@given(st.integers(0, len(EXAMPLE) - 1), st.integers(0, 255), st.integers(0, len(EXAMPLE)))
def test_a_changed_message_is_refused_or_is_another_value(at, byte, end):
    data = bytearray(EXAMPLE[:end])
    if at < end:
        data[at] = byte
    with contextlib.suppress(WireError):
        assert isinstance(unpack(data, Outer), Outer)


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_noise_is_refused(data):
    with pytest.raises(WireError):
        unpack(data, Outer)


def say(plain: Any, rest: bytes = b"") -> bytes:
    text = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    return struct.pack("<I", len(text)) + text + rest


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (say("1"), int),
        (say(True), int),
        (say(1.0), int),
        (say(1), str),
        (say(1), bool),
        (say(b"NaN"), float),
        (say(b"Infinity"), float),
        (say(b"1e999"), float),
        (say(10**400), float),
        (say(b"[" * 100_000), dict[str, int]),
        (say(b"1" * 5000), int),
        (say("MAYBE"), Label),
        (say([]), Label),
        (say(None), str),
        (say([1, 2]), tuple[int]),
        (say({"a": "b"}), dict[str, int]),
        (say(3, b"ab"), bytes),
        (say(-1, b"ab"), bytes),
        (say(1, b"ab"), bytes),
        (say(["|u1", [2**62, 2**62]], b""), NDArray[np.uint8]),
        (say(["|u1", [-1, -2]], b"ab"), NDArray[np.uint8]),
        (say(["|u1", [0, 2**70]], b""), NDArray[np.uint8]),
        (say(["|u1", [1] * 60], b"a"), NDArray[np.uint8]),
        (say(["|O", [1]], bytes(8)), NDArray[np.uint8]),
        (say(["|O", [1]], bytes(8)), NDArray[np.object_]),
        (say(["<f4", [1]], np.float32(np.nan).tobytes()), NDArray[np.float32]),
        (say(["|b1", [1]], b"\x02"), NDArray[np.bool_]),
        (say([["FAKE", 0.5]]), tuple[Inner, ...]),
        (struct.pack("<I", 2**32 - 1), int),
        (b"\x01", int),
        (b"", int),
    ],
)
def test_what_is_not_exactly_of_the_type_is_refused(message, kind):
    with pytest.raises(WireError):
        unpack(message, kind)


@pytest.mark.parametrize("value", [object(), {1: 2}, float("nan"), {"a": {1, 2}}, Label])
def test_what_cannot_be_sent(value):
    with pytest.raises(WireError):
        pack(value)


def test_an_extraction():
    clip = Clip(
        person=1,
        pixels=np.full((2, 4, 4, 3), 7, np.uint8),
        times=np.array([0.0, 1.0]),
        valid=np.array([True, False]),
        boxes=np.ones((2, 4), np.float32),
        landmarks=np.ones((2, 5, 2), np.float32),
        confidence=np.ones(2, np.float32),
        recipe_digest="d",
    )
    media = Media("b\udcff.mp4", 1, "s", "mp4", "h264", 1, 2, 0, 0.1, 3, 1 / 3, False)
    found = unpack(pack(Extraction(media, (clip,), {"frames_sampled": 2})), Extraction)
    assert found.media == media
    assert found.counters == {"frames_sampled": 2}
    assert found.clips[0].pixels.tobytes() == clip.pixels.tobytes()
    assert found.clips[0].valid.tolist() == [True, False]
