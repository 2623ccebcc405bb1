"""The targets of fuzz/, run for a moment, and what longer runs found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from targets import TARGETS

FOUND = {
    "bundle": [
        b'{"format": 2, "recipe": []}',
        b"[]",
        b"1",
        b"\xff",
        b'{"format": 2, "recipe": "x"}',
    ],
    "recipe": [
        b"recipe = 1",
        b"[recipe]\nmargin = 1" + b"0" * 400,
        b"[recipe]\nmargin = nan",
        b"[[recipe]]",
        b"[recipe]\nnum_frames = true",
        b"[recipe]\nmean = [inf, 0, 0]",
        b"[recipe]\nsampling = []",
    ],
    "metadata": [b'{"a": {"label": 1}}', b"{}" * 2, b"\xef\xbb\xbf{}", b'{"a": null}'],
    "mtcnn": [b"\xff" * 400, b"\0\0\x80\x7f" * 100],
    "zip_directory": [b"PK\x05\x06" + b"\xff" * 18, b"PK\x05\x06" + bytes(18)],
    "wire": [b"\xff" * 8],
}


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found(name):
    call, seeds = TARGETS[name]
    for data in [*seeds, *FOUND.get(name, ())]:
        call(data)


@pytest.mark.parametrize("name", TARGETS)
def test_for_a_moment(name):
    call, seeds = TARGETS[name]

    @settings(max_examples=60)
    @given(
        st.sampled_from(seeds), st.integers(0, 2000), st.binary(max_size=8), st.integers(0, 3000)
    )
    def run(seed, at, piece, end):
        call((seed[:at] + piece + seed[at + len(piece) :])[:end])

    run()
