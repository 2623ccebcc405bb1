"""Augmentation: pure, decided by its generator, and the same for both halves of a pair."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe.faces.align import crop_face
from tellframe.recipe import Recipe
from tellframe.train import augment
from tellframe.train.augment import (
    EYES,
    HULL,
    LOWER,
    MOUTH,
    NOSE,
    PARTS,
    Sample,
    cut,
    degrade,
    difference_target,
    part_blend,
    place,
    self_blend,
    soft_mask,
    swap_blend,
)
from tellframe.types import Face

pytestmark = pytest.mark.train

SEEDS = range(8)
FRONTAL = np.array([[40, 40], [80, 40], [60, 62], [44, 80], [76, 80]], dtype=np.float32)


class Quiet(np.random.Generator):
    """A generator without Gaussian noise: no jitter of outlines, no rotation, no sensor noise."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))

    def normal(self, loc=0.0, scale=1.0, size=None):
        return loc if size is None else np.full(size, loc)


STEPS = {
    "part_blend": lambda a, b, rng: part_blend(a, rng),
    "self_blend": lambda a, b, rng: self_blend(a, rng),
    "swap_blend": lambda a, b, rng: swap_blend(a, b, rng),
    "cut": lambda a, b, rng: cut(a, 48, 0.1, rng),
    "cut exactly": lambda a, b, rng: cut(a, 48, 0.1, None),
    "degrade": lambda a, b, rng: degrade([a.real, a.fake], rng),
    "alter": lambda a, b, rng: augment.alter(a.real, rng),
    "rescale": lambda a, b, rng: augment.rescale(a.real, 0.5),
    "place": lambda a, b, rng: place(HULL, a.landmarks),
    "soft_mask": lambda a, b, rng: soft_mask(place(HULL, a.landmarks), 112, rng),
    "difference_target": lambda a, b, rng: difference_target(a.real, a.fake, 4),
}


def arrays(result):
    """List the arrays of whatever a step returns."""
    if isinstance(result, Sample):
        return [getattr(result, f.name) for f in dataclasses.fields(result)]
    return list(result) if isinstance(result, list | tuple) else [result]


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_pure_and_decided_by_its_generator(faces, name):
    a, b = faces.sample(1), faces.sample(2)
    before = [x.copy() for s in (a, b) for x in arrays(s)]
    varied = False
    for seed in SEEDS:
        first, again = (arrays(STEPS[name](a, b, np.random.default_rng(seed))) for _ in "12")
        other = arrays(STEPS[name](a, b, np.random.default_rng(seed + 100)))
        for x, y in zip(first, again, strict=True):
            np.testing.assert_array_equal(x, y)
        varied |= any(not np.array_equal(x, y) for x, y in zip(first, other, strict=True))
    for x, y in zip(before, (x for s in (a, b) for x in arrays(s)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert varied is (name not in {"cut exactly", "rescale", "place", "difference_target"})


@pytest.mark.parametrize("name", ["part_blend", "self_blend", "swap_blend"])
def test_blends_keep_form_and_face(faces, name):
    a, b = faces.sample(1), faces.sample(2)
    for seed in SEEDS:
        made = STEPS[name](a, b, np.random.default_rng(seed))
        for picture in (made.real, made.fake):
            assert (picture.shape, picture.dtype) == (a.real.shape, np.uint8)
        np.testing.assert_array_equal(made.box, a.box)
        np.testing.assert_array_equal(made.landmarks, a.landmarks)
        assert not np.array_equal(made.real, made.fake)


@pytest.mark.parametrize("size", [32, 48, 200])
@pytest.mark.parametrize("exact", [True, False])
def test_cut_gives_uint8_squares(faces, size, exact):
    for seed in SEEDS:
        pair = cut(faces.sample(3), size, 0.1, None if exact else np.random.default_rng(seed))
        assert [(p.shape, p.dtype) for p in pair] == [((size, size, 3), np.uint8)] * 2


def test_degrade_keeps_number_form_and_order(faces):
    sample = faces.sample(3)
    for seed in SEEDS:
        real, fake = degrade([sample.real, sample.fake], np.random.default_rng(seed))
        assert (real.shape, real.dtype) == (fake.shape, fake.dtype) == (sample.real.shape, np.uint8)
        gap = np.abs(real.astype(int) - fake).mean(axis=2)
        centre, corner = gap[40:72, 45:68].mean(), gap[:12, :12].mean()
        assert centre > 4 * corner or corner > 1  # noise differs between the two


# The exact cut against the one that the detector makes.


def smooth(side):
    """Draw a picture whose colours say where in it one is."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
    waves = 128 + 60 * np.sin(5 * x + 3 * y)
    return np.stack([20 + 210 * x, 20 + 210 * y, waves], axis=2).round().astype(np.uint8)


@pytest.mark.parametrize("size", [64, 160, 224])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("box", [(90.0, 70.5, 262.25, 310.0), (150.0, 160.0, 250.0, 230.0)])
def test_exact_cut_shows_what_the_detector_cuts(size, margin, box):
    picture = smooth(448)
    face = Face(np.array(box, dtype=np.float32), FRONTAL, 1.0)
    expected = crop_face(picture, face, Recipe(crop_size=size, margin=margin))
    sample = Sample(picture, picture[:, ::-1].copy(), face.box, face.landmarks)
    real, fake = cut(sample, size, margin, None)
    gap = np.abs(real.astype(int) - expected)
    # One grey level of the ramps is 2.1 pixels of the picture.
    assert gap.mean() < 0.6
    assert gap[2:-2, 2:-2].max() <= 3
    mirrored = crop_face(sample.fake, face, Recipe(crop_size=size, margin=margin))
    assert np.abs(fake.astype(int) - mirrored).mean() < 0.6


def test_varied_cut_stays_within_the_picture():
    """Red and green of the ramps grow steadily; a mirrored border would turn them back."""
    sample = Sample(smooth(200), smooth(200), np.array([5, 5, 195, 190], np.float32), FRONTAL)
    for seed in range(20):
        real, _ = cut(sample, 64, 0.3, Quiet(seed))
        row = real[32, :, 0].astype(int)
        steps = np.diff(row if row[-1] > row[0] else row[::-1])
        assert steps[1:-1].min() >= 0
        assert steps[1:-1].mean() > 1


def test_varied_cut_moves_zooms_and_mirrors(faces):
    places, mirrored = [], 0
    sample = Sample(smooth(448), smooth(448), np.array([120, 120, 320, 320], np.float32), FRONTAL)
    for seed in range(40):
        real, fake = cut(sample, 64, 0.1, np.random.default_rng(seed))
        np.testing.assert_array_equal(real, fake)
        red = real[32, :, 0].astype(float)
        mirrored += red[-1] < red[0]
        places.append((red.mean(), np.ptp(red)))
    assert 10 <= mirrored <= 30
    middle, span = np.array(places).T
    assert np.ptp(middle) > 5
    assert span.max() > 1.2 * span.min()


# Both halves alike.


@settings(deadline=None)  # whatever else runs on the machine
@given(seed=st.integers(0, 2**32))
def test_both_halves_are_treated_alike(faces, seed):
    picture = faces.picture(seed % 5)
    sample = Sample(picture, picture.copy(), faces.box, faces.landmarks)
    real, fake = cut(sample, 48, 0.1, np.random.default_rng(seed))
    np.testing.assert_array_equal(real, fake)
    real, fake = degrade([real, fake], Quiet(seed))
    np.testing.assert_array_equal(real, fake)


def test_noise_is_drawn_for_each_half_alone(faces, monkeypatch):
    monkeypatch.setattr(augment, "_jpeg", lambda image, quality: image)
    drawn = 0
    for seed in range(40):
        picture = faces.picture(1)
        real, fake = degrade([picture, picture], np.random.default_rng(seed))
        drawn += not np.array_equal(real, fake)
        assert np.abs(real.astype(int) - fake).mean() < 12
    assert 4 <= drawn <= 24  # 30 %


# Blends: what changes and what must not.


def distance_outside(outline, side):
    """Return how many pixels each place lies outside an outline; 0 within."""
    outside = np.ones((side, side), dtype=np.uint8)
    cv2.fillPoly(outside, [cv2.convexHull(outline.round().astype(np.int32))], 0)
    return cv2.distanceTransform(outside, cv2.DIST_L2, 5)


@pytest.mark.parametrize("part", range(1, len(PARTS)))
def test_part_blend_differs_from_the_real_only_at_the_outline(faces, monkeypatch, part):
    outline = place(PARTS[part], faces.landmarks)
    monkeypatch.setattr(augment, "PARTS", (PARTS[part],))
    away = distance_outside(outline, faces.side)
    span = np.ptp(outline, axis=0).mean()
    real = faces.picture(1)
    sample = Sample(real, 255 - real // 2, faces.box, faces.landmarks)  # differs everywhere
    for seed in SEEDS:
        made = part_blend(sample, np.random.default_rng(seed))
        assert made.real is real
        gap = np.abs(made.fake.astype(int) - real).mean(axis=2)
        # Jitter of 4 % in any direction, 8 % larger, and a border blurred by up to 9 %.
        assert gap[away > 0.5 * span].max(initial=0) == 0
        x, y = outline.mean(axis=0).astype(int)
        assert gap[y, x] > 20
        exact = part_blend(sample, Quiet(seed)).fake
        assert np.abs(exact.astype(int) - real)[away > 0.35 * span + 1].max(initial=0) == 0


def test_part_blend_of_equal_pictures_changes_nothing(faces):
    real = faces.picture(1)
    for seed in SEEDS:
        made = part_blend(
            Sample(real, real, faces.box, faces.landmarks), np.random.default_rng(seed)
        )
        np.testing.assert_array_equal(made.fake, real)


@pytest.mark.parametrize("name", ["self_blend", "swap_blend"])
def test_face_blends_leave_far_corners_unchanged(faces, name):
    small = Sample(  # a face that is small in its picture
        cv2.copyMakeBorder(faces.picture(1), 60, 60, 60, 60, cv2.BORDER_REFLECT),
        cv2.copyMakeBorder(faces.picture(1), 60, 60, 60, 60, cv2.BORDER_REFLECT),
        faces.box + 60,
        faces.landmarks + 60,
    )
    for seed in SEEDS:
        made = STEPS[name](small, faces.sample(2), np.random.default_rng(seed))
        gap = np.abs(made.fake.astype(int) - made.real).max(axis=2)
        assert max(gap[c].max() for c in np.ix_([0, -1], [0, -1])) == 0
        far = distance_outside(place(HULL, small.landmarks), len(gap)) > 35
        assert gap[far].max() == 0
        assert gap[~far].max() > 3


def test_self_blend_shows_the_altered_background_in_both_halves(faces):
    """Otherwise colour alone, not the seam, would tell the fake from the real."""
    sample = faces.sample(1)
    kept = 0
    for seed in range(20):
        made = self_blend(sample, np.random.default_rng(seed))
        same = np.array_equal(made.real, sample.real)
        kept += same
        np.testing.assert_array_equal(made.real[:8, :8], made.fake[:8, :8])
    assert 4 <= kept <= 16


def test_swap_blend_brings_the_other_face(faces):
    """A dark and a light picture: their face colours are matched by half at least, not wholly."""
    a, b = faces.sample(1), faces.sample(2)
    striped = b.real.copy()
    striped[::8] = 0
    other = Sample(striped, striped, b.box, b.landmarks)
    made = swap_blend(a, other, np.random.default_rng(0))
    x, y = a.landmarks[2].astype(int)
    column = made.fake[y - 12 : y + 12, x, 1].astype(float)
    real = a.real[y - 12 : y + 12, x, 1].astype(float)
    assert np.abs(np.diff(column)).sum() > 2 * np.abs(np.diff(real)).sum()


def test_match_colour_moves_mean_and_spread(faces):
    source, target = faces.picture(1), faces.picture(2) // 2 + 60
    inside = np.zeros(source.shape[:2], dtype=np.bool_)
    inside[30:80, 40:75] = True
    full = augment.match_colour(source, target, inside, 1.0)[inside]
    np.testing.assert_allclose(full.mean(axis=0), target[inside].mean(axis=0), atol=1.5)
    none = augment.match_colour(source, target, inside, 0.0)
    np.testing.assert_array_equal(none, source)


@pytest.mark.parametrize(
    ("factor", "same"), [(1.0, True), (0.99, False), (1.5, True), (0.0, False)]
)
def test_rescale_shrinks_and_never_grows(faces, factor, same):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    out = augment.rescale(picture, factor)
    assert (out.shape, out.dtype) == (picture.shape, np.uint8)
    assert np.array_equal(out, picture) is same


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_blend_mixes_by_the_mask(strength):
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    mixed = augment.blend(black, white, np.full((4, 4, 1), strength, np.float32))
    assert mixed.dtype == np.uint8
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
    turn = cv2.getRotationMatrix2D((60.0, 60.0), degrees, 1.3)
    landmarks = (FRONTAL @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    placed = place(outline, landmarks)
    assert (placed.shape, placed.dtype) == (outline.shape, np.float32)
    assert inside(placed, landmarks) == within
    expected = place(outline, FRONTAL) @ turn[:, :2].T + turn[:, 2]
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


def test_soft_mask_is_full_inside_and_zero_outside():
    for seed in SEEDS:
        mask = soft_mask(place(HULL, FRONTAL), 160, np.random.default_rng(seed))
        assert (mask.shape, mask.dtype) == ((160, 160, 1), np.float32)
        assert mask.min() == 0
        assert 0.95 < mask.max() <= 1 + 1e-6
        assert mask[62, 60, 0] > 0.9
        assert mask[155:, 150:].max() == 0


# The target of the difference map.


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0, 0), (1, 0), (2, -1), (4, -1), (6, -1), (7, 1), (100, 1)],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_difference_target_has_three_answers(gap, expected, sign):
    real = np.full((64, 64, 3), 128, dtype=np.uint8)
    fake = (real.astype(int) + sign * gap).astype(np.uint8)
    target = difference_target(real, fake, 4)
    assert (target.shape, target.dtype) == ((4, 4), np.float32)
    assert np.all(target == expected)


def test_difference_target_says_where():
    real = np.full((64, 64, 3), 128, dtype=np.uint8)
    fake = real.copy()
    fake[:16, 48:] = 255  # wholly another
    fake[16:32, :16, 0] += 9  # by three levels in the mean of the channels
    expected = np.zeros((4, 4))
    expected[0, 3], expected[1, 0] = 1, -1
    np.testing.assert_array_equal(difference_target(real, fake, 4), expected)
    np.testing.assert_array_equal(
        difference_target(real[:, ::-1], fake[:, ::-1], 4), expected[:, ::-1]
    )
