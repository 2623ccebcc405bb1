"""Makers of fakes: what changes and what must not."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from tellframe.train.augment import Sample, blends
from tellframe.train.augment.blends import (
    blend,
    local_blend,
    match_colour,
    mixup,
    part_blend,
    self_blend,
    swap_blend,
    turn,
)
from tellframe.train.augment.masks import (
    EYES,
    HULL,
    LOCAL,
    LOWER,
    MOUTH,
    NOSE,
    PARTS,
    hard_masks,
    place,
    soft_masks,
)
from tellframe.train.augment.pictures import flip_sample

pytestmark = pytest.mark.train

SEEDS = range(8)
FRONTAL = np.array([[40, 40], [80, 40], [60, 62], [44, 80], [76, 80]], dtype=np.float32)
NAMES = {
    "self_blend": lambda a, b, rng: self_blend(a, rng),
    "swap_blend": swap_blend,
}


def rngs(seeds=SEEDS):
    return map(np.random.default_rng, seeds)


def distance_outside(outline, side):
    """Return how many pixels each place lies outside an outline; 0 within."""
    outside = np.ones((side, side), dtype=np.uint8)
    cv2.fillPoly(outside, [cv2.convexHull(outline.round().astype(np.int32))], 0)
    return cv2.distanceTransform(outside, cv2.DIST_L2, 5)


@pytest.mark.parametrize("part", range(1, len(PARTS)))
def test_part_blend_differs_from_the_real_only_at_the_outline(faces, monkeypatch, part):
    monkeypatch.setattr(blends, "PARTS", (PARTS[part],))
    sample = faces.sample(1, 3)
    sample = dataclasses.replace(sample, fake=255 - sample.real // 2)  # differs everywhere
    for rng in rngs():
        made = part_blend(sample, rng)
        assert made.real is sample.real
        for at in range(3):
            outline = place(PARTS[part], sample.landmarks[at])
            away = distance_outside(outline, faces.side)
            span = np.ptp(outline, axis=0).mean()
            gap = np.abs(made.fake[at].astype(int) - sample.real[at]).mean(axis=2)
            # Jitter of 4 % in any direction, 8 % larger, and a border blurred by up to 9 %.
            assert gap[away > 0.5 * span].max(initial=0) == 0
            x, y = outline.mean(axis=0).astype(int)
            assert gap[y, x] > 20


def test_part_blend_takes_no_part_that_is_real(faces):
    """Of a fake whose mouth alone is made, the eyes would be a fake that is none."""
    sample = faces.sample(1)
    fake = sample.real.copy()
    fake[:, 68:84, 44:68] ^= 90
    sample = dataclasses.replace(sample, fake=fake)
    for rng in rngs(range(40)):
        made = part_blend(sample, rng)
        assert np.abs(made.fake.astype(int) - made.real)[:, 66:86].mean() > 1


@pytest.mark.parametrize("make", [part_blend, mixup])
def test_weaker_fakes_of_equal_pictures_are_equal(faces, make):
    sample = faces.sample(1, 2)
    for rng in rngs():
        made = make(dataclasses.replace(sample, fake=sample.real), rng)
        np.testing.assert_array_equal(made.fake, sample.real)


def test_mixup_weakens_the_whole_fake_alike(faces):
    sample = faces.sample(1, 3)
    whole = sample.fake.astype(float) - sample.real
    shares = []
    for rng in rngs(range(30)):
        left = mixup(sample, rng).fake.astype(float) - sample.real
        shares.append((left * whole).sum() / (whole**2).sum())
        np.testing.assert_allclose(left, whole * shares[-1], atol=1.1)
    assert 0.38 < min(shares) < 0.55
    assert 0.85 < max(shares) < 1.02


@pytest.mark.parametrize("name", NAMES)
def test_face_blends_leave_far_corners_unchanged(faces, name):
    sample = faces.sample(1, 2)
    wide = ((0, 0), (60, 60), (60, 60), (0, 0))  # a face that is small in its picture
    real = np.pad(sample.real, wide, mode="reflect")
    small = Sample(real, real, sample.boxes + 60, sample.landmarks + 60)
    for rng in rngs():
        made = NAMES[name](small, faces.sample(2, 2), rng)
        gap = np.abs(made.fake.astype(int) - made.real).max(axis=3)
        for at in range(2):
            far = distance_outside(place(HULL, small.landmarks[at]), gap.shape[1]) > 35
            assert gap[at][far].max() <= 1  # rounding of the blend
            assert gap[at][~far].max() > 3


@pytest.mark.parametrize("part", [EYES, NOSE, MOUTH, LOWER], ids=["eyes", "nose", "mouth", "lower"])
def test_local_blend_changes_a_part_alone(faces, monkeypatch, part):
    monkeypatch.setattr(blends, "LOCAL", (part,))
    sample, other = faces.sample(1), faces.sample(2)
    outline = place(part, sample.landmarks[0])
    away = distance_outside(outline, faces.side) > 0.5 * np.ptp(outline, axis=0).mean()
    of_other = []
    for rng in rngs():
        state = rng.bit_generator.state
        made = local_blend(sample, other, rng)
        gap = np.abs(made.fake.astype(int) - made.real)[0].max(axis=2)
        assert gap[away].max() <= 1  # rounding of the blend
        assert gap[~away].max() > 3
        rng.bit_generator.state = state
        alone = local_blend(sample, sample, rng)
        of_other.append(not np.array_equal(alone.fake, made.fake))
    assert len(set(of_other)) == 2  # now another person's, now a copy of its own


def test_local_blend_takes_every_part_and_never_the_whole():
    assert {id(p) for p in LOCAL} == {id(p) for p in PARTS} - {id(HULL)}


def test_self_blend_shows_the_altered_background_in_both_halves(faces):
    """Otherwise colour alone, not the seam, would tell the fake from the real."""
    sample = faces.sample(1, 2)
    kept = 0
    for rng in rngs(range(20)):
        made = self_blend(sample, rng)
        kept += np.array_equal(made.real, sample.real)
        gap = np.abs(made.real.astype(int) - made.fake)
        assert gap[:, :8, :8].max() <= 1
    assert 4 <= kept <= 16


def test_swap_blend_brings_the_other_face(faces):
    a, b = faces.sample(1, 3), faces.sample(2)
    striped = b.real.copy()
    striped[:, ::8] = 0
    made = swap_blend(a, dataclasses.replace(b, real=striped), np.random.default_rng(0))
    for at in range(3):
        x, y = a.landmarks[at, 2].astype(int)
        column, real = (h[at, y - 12 : y + 12, x, 1].astype(float) for h in (made.fake, a.real))
        assert np.abs(np.diff(column)).sum() > 2 * np.abs(np.diff(real)).sum()


def test_a_shorter_clip_is_played_to_and_fro(faces, monkeypatch):
    played = []
    monkeypatch.setattr(
        blends,
        "_bring",
        lambda frame, matrix, side, factor: (played.append(int(frame[0, 0, 0])), frame)[1],
    )
    other = faces.sample(2, 3)
    real = other.real.copy()
    real[:, 0, 0, 0] = [10, 20, 30]
    swap_blend(faces.sample(1, 8), dataclasses.replace(other, real=real), np.random.default_rng(0))
    assert played == [10, 20, 30, 20, 10, 20, 30, 20]


def test_swap_blend_mirrors_who_looks_to_the_other_side(faces):
    """So a person and that person mirrored give the same fake."""
    a, b = faces.sample(1), faces.sample(2)
    nose = np.zeros((1, 5, 2), dtype=np.float32)
    nose[:, 2, 0] = 4
    a = dataclasses.replace(a, landmarks=a.landmarks + nose)
    b = dataclasses.replace(b, landmarks=b.landmarks + nose)
    assert turn(a.landmarks) > 0.05 > -0.05 > turn(flip_sample(b).landmarks)
    one, two = (swap_blend(a, o, np.random.default_rng(3)).fake for o in (b, flip_sample(b)))
    np.testing.assert_array_equal(one, two)


def test_match_colour_moves_mean_and_spread(faces):
    source, target = faces.sample(1, 2).real, faces.sample(2, 2).real // 2 + 60
    inside = np.zeros(source.shape[:3], dtype=np.bool_)
    inside[:, 30:80, 40:75] = True
    full = match_colour(source, target, inside, 1.0)[inside]
    np.testing.assert_allclose(full.mean(axis=0), target[inside].mean(axis=0), atol=1.5)
    np.testing.assert_array_equal(match_colour(source, target, inside, 0.0), source)
    few = np.zeros_like(inside)
    few[:, 0, :9] = True
    np.testing.assert_array_equal(match_colour(source, target, few, 1.0), source)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_blend_mixes_by_the_mask(strength):
    black, white = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 255, np.uint8)
    mixed = blend(black, white, np.full((2, 4, 4), strength, np.float32))
    assert (mixed.shape, mixed.dtype) == (black.shape, np.uint8)
    assert mixed.mean() == pytest.approx(255 * strength, abs=0.5)


# Outlines.


def inside(outline, points):
    hull = cv2.convexHull(outline.astype(np.float32))
    return [cv2.pointPolygonTest(hull, (float(x), float(y)), False) > 0 for x, y in points]


@pytest.mark.parametrize(
    ("outline", "within"),
    [
        # Left eye, right eye, nose, left and right corner of the mouth.
        (HULL, [True] * 5),
        (EYES, [True, True, False, False, False]),
        (NOSE, [False, False, True, False, False]),
        (MOUTH, [False, False, False, True, True]),
        (LOWER, [False, False, True, True, True]),
    ],
    ids=["hull", "eyes", "nose", "mouth", "lower"],
)
@pytest.mark.parametrize("degrees", [0, 30, -90])
def test_outlines_lie_where_they_should(outline, within, degrees):
    matrix = cv2.getRotationMatrix2D((60.0, 60.0), degrees, 1.3)
    landmarks = (FRONTAL @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    placed = place(outline, landmarks)
    assert (placed.shape, placed.dtype) == (outline.shape, np.float32)
    assert inside(placed, landmarks) == within
    expected = place(outline, FRONTAL) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(placed, expected, atol=0.01)


def test_every_outline_is_a_part_and_lies_in_the_hull():
    assert {id(p) for p in PARTS} == {id(p) for p in (HULL, EYES, NOSE, MOUTH, LOWER)}
    hull = place(HULL * np.float32(1.1), FRONTAL)  # corners may stick out a little
    for part in PARTS:
        assert all(inside(hull, place(part, FRONTAL)))


def test_outline_of_a_turned_head_is_narrower_but_not_flat():
    turned = FRONTAL.copy()
    turned[:, 0] = 60 + (turned[:, 0] - 60) * 0.1
    narrow, wide = (np.ptp(place(HULL, points), axis=0) for points in (turned, FRONTAL))
    assert narrow[1] == pytest.approx(wide[1], rel=0.01)
    assert 0.4 * wide[0] < narrow[0] < 0.8 * wide[0]


def test_soft_masks_are_full_inside_and_zero_outside():
    for rng in rngs():
        (mask,) = soft_masks(HULL, FRONTAL[None], 160, rng)
        assert (mask.shape, mask.dtype) == ((160, 160), np.float32)
        assert mask.min() == 0
        assert 0.95 < mask.max() <= 1 + 1e-6
        assert mask[62, 60] > 0.9
        assert mask[155:, 150:].max() == 0


def test_soft_masks_keep_their_shape_and_follow_the_landmarks():
    ways = np.array([[0, 0], [12, 5], [30, 20]], dtype=np.float32)
    for rng in rngs():
        masks = soft_masks(HULL, FRONTAL + ways[:, None], 180, rng)
        for mask, (x, y) in zip(masks, ways.astype(int), strict=True):
            back = np.roll(mask, (-y, -x), axis=(0, 1))
            # Both drift and the small size at which wide borders are drawn move it a little.
            assert np.abs(back - masks[0]).mean() < 0.02


def test_soft_masks_lie_where_the_hard_ones_do():
    hard = hard_masks(HULL, FRONTAL[None], 160)[0]
    assert set(np.unique(hard)) == {0, 1}
    mean = np.mean([soft_masks(HULL, FRONTAL[None], 160, rng)[0] for rng in rngs(range(40))], 0)
    grid = np.mgrid[0:160, 0:160]
    for axis in grid:
        middle = [(axis * m).sum() / m.sum() for m in (mean, hard)]
        assert middle[0] == pytest.approx(middle[1], abs=1.0)
