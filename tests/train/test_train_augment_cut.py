"""The cut of a pair: as the detector cuts, within the picture, and steady through time."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from tellframe.faces.align import crop_face
from tellframe.recipe import Recipe
from tellframe.train.augment import Sample, crop_sample, cut, difference_target
from tellframe.train.augment.sample import drift, smooth_boxes
from tellframe.types import Face

pytestmark = pytest.mark.train

SEEDS = range(8)
FRONTAL = np.array([[40, 40], [80, 40], [60, 62], [44, 80], [76, 80]], dtype=np.float32)


class Level(np.random.Generator):
    """A generator without Gaussian draws: no turn of the cut."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))

    def normal(self, loc=0.0, scale=1.0, size=None):
        return loc


def smooth(side):
    """Draw a picture whose colours say where in it one is."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
    waves = 128 + 60 * np.sin(5 * x + 3 * y)
    return np.stack([20 + 210 * x, 20 + 210 * y, waves], axis=2).round().astype(np.uint8)


def still(picture, box, fake=None):
    box = np.array(box, dtype=np.float32)[None]
    return Sample(picture[None], (picture if fake is None else fake)[None], box, FRONTAL[None])


@pytest.mark.parametrize("size", [32, 48, 200])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("frames", [1, 3])
def test_cut_gives_uint8_squares(faces, size, exact, frames):
    sample = faces.sample(3, frames)
    for seed in SEEDS:
        pair = cut(sample, size, 0.1, None if exact else np.random.default_rng(seed))
        assert [(p.shape, p.dtype) for p in pair] == [((frames, size, size, 3), np.uint8)] * 2


def test_cut_is_pure_and_decided_by_its_generator(faces):
    sample = faces.sample(1, 3)
    before = sample.real.copy(), sample.boxes.copy()
    for seed in SEEDS:
        first, again, other = (cut(sample, 48, 0.1, np.random.default_rng(s))[0]
                               for s in (seed, seed, seed + 9))  # fmt: skip
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
    np.testing.assert_array_equal(sample.real, before[0])
    np.testing.assert_array_equal(sample.boxes, before[1])


@pytest.mark.parametrize("size", [64, 160, 224, 300])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("box", [(90.0, 70.5, 262.25, 310.0), (150.0, 160.0, 250.0, 230.0)])
def test_exact_cut_shows_what_the_detector_cuts(size, margin, box):
    picture = smooth(448)
    sample = still(picture, box, picture[:, ::-1].copy())
    face = Face(sample.boxes[0], FRONTAL, 1.0)
    expected = crop_face(picture, face, Recipe(crop_size=size, margin=margin))
    (real,), (fake,) = cut(sample, size, margin, None)
    gap = np.abs(real.astype(int) - expected)
    # One grey level of the ramps is 2.1 pixels of the picture.
    assert gap.mean() < 0.5
    assert gap[2:-2, 2:-2].max() <= 3
    mirrored = crop_face(sample.fake[0], face, Recipe(crop_size=size, margin=margin))
    assert np.abs(fake.astype(int) - mirrored).mean() < 0.5


def test_exact_cut_of_a_clip_cuts_every_frame_at_its_own_box(faces):
    sample = faces.sample(1, 5)
    real, fake = cut(sample, 48, 0.1, None)
    for at in range(5):
        one = Sample(*(getattr(sample, f.name)[at : at + 1] for f in dataclasses.fields(sample)))
        alone = cut(one, 48, 0.1, None)
        np.testing.assert_array_equal(real[at], alone[0][0])
        np.testing.assert_array_equal(fake[at], alone[1][0])


def test_varied_cut_stays_within_the_picture():
    """Red and green of the ramps grow steadily; a mirrored border would turn them back."""
    sample = still(smooth(200), [5, 5, 195, 190])
    for seed in range(20):
        (real,), _ = cut(sample, 64, 0.3, Level(seed))
        steps = np.diff(real[32, :, 0].astype(int))
        assert steps[1:-1].min() >= 0
        assert steps[1:-1].mean() > 1


def test_varied_cut_moves_and_zooms(faces):
    places = []
    sample = still(smooth(448), [120, 120, 320, 320])
    for seed in range(40):
        (real,), (fake,) = cut(sample, 64, 0.1, np.random.default_rng(seed))
        np.testing.assert_array_equal(real, fake)
        red = real[32, :, 0].astype(float)
        places.append((red.mean(), np.ptp(red)))
    middle, span = np.array(places).T
    assert np.ptp(middle) > 5
    assert span.max() > 1.2 * span.min()


def test_landmarks_and_boxes_move_with_the_picture():
    """A white dot at the nose is found again where the cropped landmarks say."""
    picture = np.zeros((200, 200, 3), dtype=np.uint8)
    nose = np.array([97.0, 112.0])
    cv2.circle(picture, (97, 112), 4, (255, 255, 255), -1)
    landmarks = np.tile((nose + 0.5).astype(np.float32), (1, 5, 1))
    box = np.array([[60, 60, 140, 160]], dtype=np.float32)
    sample = Sample(picture[None], picture[None], box, landmarks)
    for seed in SEEDS:
        for size in (64, 150):
            done = crop_sample(sample, size, 0.1, np.random.default_rng(seed))
            ys, xs = np.nonzero(done.real[0, ..., 0] > 60)
            found = np.array([xs.mean() + 0.5, ys.mean() + 0.5])
            np.testing.assert_allclose(done.landmarks[0, 2], found, atol=0.75)
            x0, y0, x1, y1 = done.boxes[0]
            # The dot lies at 46 and 52 % of the box; a turn of some degrees moves it a little.
            share = (found - (x0, y0)) / (x1 - x0, y1 - y0)
            np.testing.assert_allclose(share, [0.47, 0.525], atol=0.03)


def test_a_missing_fake_stays_missing(faces):
    sample = faces.sample(1, 2)
    alone = dataclasses.replace(sample, fake=sample.real)
    done = crop_sample(alone, 48, 0.1, np.random.default_rng(0))
    assert done.fake is done.real


# Through time.


def test_a_varied_clip_has_one_geometry():
    """A picture that stands still, with a box that stands still, gives equal frames."""
    frames = np.stack([smooth(200)] * 6)
    box = np.tile(np.array([50, 50, 150, 150], np.float32), (6, 1))
    for seed in SEEDS:
        real, _ = cut(Sample(frames, frames, box, np.stack([FRONTAL] * 6)), 64, 0.1,
                      np.random.default_rng(seed))  # fmt: skip
        assert np.abs(np.diff(real.astype(int), axis=0)).max() <= 1


def test_boxes_that_tremble_are_followed_less():
    """Somewhere between the boxes as found, as at judgement, and their smoothed path."""
    frames = np.stack([smooth(300)] * 12)
    rng = np.random.default_rng(0)
    boxes = (np.array([90, 90, 210, 210]) + rng.normal(0, 3, (12, 1))).astype(np.float32)
    sample = Sample(frames, frames, boxes, np.stack([FRONTAL] * 12))
    found, smoothed = (np.abs(np.diff(b[:, 0])).mean() for b in (boxes, smooth_boxes(boxes)))
    assert smoothed < 0.4 * found

    def tremble(generator):
        crops = cut(sample, 64, 0.1, generator)[0][:, 20:44, 20:44, 0]
        return np.abs(np.diff(crops.astype(float).mean(axis=(1, 2)))).mean()

    exact = tremble(None)
    varied = [tremble(Level(seed)) for seed in range(20)]
    assert max(varied) < 1.15 * exact
    assert min(varied) < 0.6 * exact


@pytest.mark.parametrize("frames", [1, 2, 20])
def test_smoothed_boxes_keep_what_is_steady(frames):
    boxes = np.tile(np.array([10, 20, 60, 80], np.float32), (frames, 1))
    np.testing.assert_allclose(smooth_boxes(boxes), boxes, atol=1e-4)


def test_drift_is_slow_small_and_none_for_a_still():
    for seed in SEEDS:
        way = drift(20, 0.5, np.random.default_rng(seed), 2)
        assert way.shape == (20, 2)
        assert np.abs(way).max() <= 1.0
        assert np.ptp(way) > 0.1
        assert np.abs(np.diff(way, axis=0)).max() < 0.5 * 0.55
        np.testing.assert_allclose(way.mean(axis=0), 0, atol=1e-9)
        assert not drift(1, 0.5, np.random.default_rng(seed), 2).any()


# The target of the difference map.


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0, 0), (1, 0), (2, -1), (4, -1), (6, -1), (7, 1), (100, 1)],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_difference_target_has_three_answers(gap, expected, sign):
    real = np.full((2, 64, 64, 3), 128, dtype=np.uint8)
    fake = (real.astype(int) + sign * gap).astype(np.uint8)
    target = difference_target(real, fake, 4)
    assert (target.shape, target.dtype) == ((2, 4, 4), np.float32)
    assert np.all(target == expected)


def test_difference_target_says_where_and_when():
    real = np.full((2, 64, 64, 3), 128, dtype=np.uint8)
    fake = real.copy()
    fake[1, :16, 48:] = 255  # wholly another
    fake[1, 16:32, :16, 0] += 9  # by three levels in the mean of the channels
    expected = np.zeros((2, 4, 4))
    expected[1, 0, 3], expected[1, 1, 0] = 1, -1
    np.testing.assert_array_equal(difference_target(real, fake, 4), expected)
    mirrored = difference_target(real[:, :, ::-1], fake[:, :, ::-1], 4)
    np.testing.assert_array_equal(mirrored, expected[..., ::-1])
    assert not difference_target(fake, fake, 4).any()
