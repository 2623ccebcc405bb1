"""A fake that lies off its real as a whole is found and moved back; a head that moves is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tellframe.train.shift import measure_shift, move


def scene(seed: int) -> np.ndarray:
    """Draw a picture with detail at all sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.integers(0, 256, (n, n, 3), dtype=np.uint8), (200, 200)) for n in (6, 25, 80)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def fake_of(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    """Change the middle of a picture, and move all of it."""
    changed = picture.copy()
    changed[80:120, 80:120] = 255 - changed[80:120, 80:120]
    return np.roll(changed, (y, x), axis=(0, 1))


@pytest.mark.parametrize(("x", "y"), [(-4, 0), (3, -2), (0, 6), (2, 0)])
def test_a_shift_is_measured_and_undone(x, y):
    reals = [scene(seed) for seed in range(5)]
    fakes = [fake_of(picture, x, y) for picture in reals]
    shift = measure_shift(zip(reals, fakes, strict=True))
    assert shift.tolist() == [x, y]
    back = move(np.stack(fakes), shift)
    inner = (slice(None), slice(10, 70), slice(10, 190))
    np.testing.assert_array_equal(back[inner], np.stack(reals)[inner])


@pytest.mark.parametrize(
    "shifts",
    [
        [(0, 0)] * 5,
        [(1, 0)] * 5,  # less than can be told from a head that moves
        [(-4, 0), (5, 1), (0, 6), (9, -3), (2, 2)],  # every frame another way: a head that moves
    ],
)
def test_what_moves_as_a_whole_alone_is_moved_back(shifts):
    reals = [scene(seed) for seed in range(5)]
    fakes = [fake_of(p, x, y) for p, (x, y) in zip(reals, shifts, strict=True)]
    assert measure_shift(zip(reals, fakes, strict=True)).tolist() == [0, 0]


def test_different_pictures_have_no_shift():
    pairs = [(scene(seed), scene(seed + 100)) for seed in range(5)]
    assert measure_shift(pairs).tolist() == [0, 0]
    assert measure_shift([]).tolist() == [0, 0]


def test_no_shift_leaves_the_frames_as_they_are():
    frames = np.stack([scene(1), scene(2)])
    np.testing.assert_array_equal(move(frames, np.zeros(2, dtype=np.int64)), frames)
