"""Face crops: where they are cut, and what brightening does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe.faces.align import (
    BRIGHTENED_LUMA,
    MAX_GAIN,
    TEMPLATE,
    brighten,
    crop_box,
    crop_face,
    similarity_transform,
    square_box,
)
from tellframe.recipe import DFDC_PROJECT, Recipe
from tellframe.types import Face

WIDTH, HEIGHT = 400, 300


@pytest.fixture(scope="module")
def gradient():
    """A picture whose pixels carry their place: red = x / 2, green = y / 2, blue = 255."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x / 2, y / 2, np.full_like(x, 255)], axis=2).round().astype(np.uint8)


def make_face(box, landmarks=None) -> Face:
    box = np.array(box, np.float32)
    if landmarks is None:
        landmarks = box[:2] + TEMPLATE * (box[2:] - box[:2])
    return Face(box, np.array(landmarks, np.float32), 0.99)


def place_of(crop, row, column):
    """Where in the gradient picture a pixel of a crop comes from."""
    red, green, blue = crop[row, column].astype(float)
    assert blue == 255, "outside the picture"
    return 2 * red, 2 * green


@pytest.mark.parametrize("alignment", ["square", "stretch", "similarity"])
def test_a_scale_is_a_narrower_margin(gradient, alignment):
    face = make_face((150, 100, 220, 190))
    wide, same = (Recipe(margin=m, alignment=alignment, crop_size=64) for m in (0.5, 0.2))
    scaled = crop_face(gradient, face, wide, scale=0.8)
    np.testing.assert_array_equal(scaled, crop_face(gradient, face, same))


# --- the square -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ((100, 50, 200, 150), 0.0, (100, 50, 200, 150)),
        ((100, 50, 200, 150), 0.1, (95, 45, 205, 155)),
        ((100, 50, 160, 150), 0.0, (80, 50, 180, 150)),  # the longer side decides
        ((100, 50, 200, 110), 0.5, (75, 5, 225, 155)),
        ((-20, -30, 80, 70), 0.0, (-20, -30, 80, 70)),
        ((10.5, 20.25, 20.5, 30.25), 0.0, (10.5, 20.25, 20.5, 30.25)),
    ],
)
def test_square_box(box, margin, expected):
    np.testing.assert_allclose(square_box(np.array(box, np.float32), margin), expected)


@given(
    st.tuples(*[st.floats(-500, 500, width=32)] * 2),
    st.tuples(*[st.floats(1, 500, width=32)] * 2),
    st.floats(0, 4),
)
def test_square_box_is_square_and_keeps_the_centre(corner, size, margin):
    box = np.array([*corner, *np.add(corner, size)], np.float32)
    got = square_box(box, margin)
    sides = got[2:] - got[:2]
    np.testing.assert_allclose(
        sides, (1 + margin) * (box[2:] - box[:2]).max(), rtol=1e-5, atol=1e-3
    )
    np.testing.assert_allclose((got[:2] + got[2:]) / 2, (box[:2] + box[2:]) / 2, atol=1e-2)


@pytest.mark.parametrize("size", [50, 100, 224])
def test_square_crop_shows_the_square(size, gradient):
    recipe = Recipe(crop_size=size, margin=0.2)
    crop = crop_face(gradient, make_face((120, 80, 220, 180)), recipe)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    x0, y0, x1, y1 = square_box(np.array([120, 80, 220, 180], np.float32), 0.2)
    for row, column in ((0, 0), (0, size - 1), (size - 1, 0), (size // 2, size // 2)):
        x, y = place_of(crop, row, column)
        assert x == pytest.approx(x0 + (column + 0.5) * (x1 - x0) / size - 0.5, abs=2)
        assert y == pytest.approx(y0 + (row + 0.5) * (y1 - y0) / size - 0.5, abs=2)


def test_a_crop_in_natural_size_is_a_copy(gradient):
    crop = crop_face(gradient, make_face((100, 50, 200, 150)), Recipe(crop_size=100, margin=0.0))
    np.testing.assert_array_equal(crop, gradient[50:150, 100:200])


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((-50, 100, 50, 200), np.s_[:, 50:]),
        ((350, 100, 450, 200), np.s_[:, :50]),
        ((100, -60, 200, 40), np.s_[60:, :]),
        ((100, 270, 200, 370), np.s_[:30, :]),
        ((-50, -50, 50, 50), np.s_[50:, 50:]),
    ],
)
def test_black_outside_the_picture(box, inside, gradient):
    crop = crop_face(gradient, make_face(box), Recipe(crop_size=100, margin=0.0))
    seen = np.zeros((100, 100), bool)
    seen[inside] = True
    assert (crop[seen][:, 2] == 255).all()
    assert not crop[~seen].any()


@pytest.mark.parametrize("alignment", ["square", "stretch", "similarity"])
@pytest.mark.parametrize(
    "box",
    [
        (50, 50, 50.2, 50.3),
        (-5000, -5000, 5000, 5000),
        (100, 100, 100, 100),
        (399.7, 299.7, 420, 320),
    ],
)
def test_every_box_gives_a_crop(box, alignment, gradient):
    crop = crop_face(gradient, make_face(box), Recipe(crop_size=32, alignment=alignment))
    assert crop.shape == (32, 32, 3)
    assert crop.dtype == np.uint8


@pytest.mark.parametrize("alignment", ["square", "similarity"])
@pytest.mark.parametrize("box", [(900, 900, 1000, 1000), (-200, -200, -100, -100)])
def test_a_box_outside_the_picture_gives_black(box, alignment, gradient):
    crop = crop_face(gradient, make_face(box), Recipe(crop_size=32, alignment=alignment))
    assert crop.shape == (32, 32, 3)
    assert not crop.any()


def test_large_faces_are_averaged_not_sampled():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 254
    crop = crop_box(stripes, np.array([0.0, 0.0, 256.0, 256.0]), 32)
    np.testing.assert_allclose(crop.astype(float), 127, atol=6)  # sampling would give 0 or 254


# --- stretched, as facenet-pytorch does -------------------------------------------------------


def test_stretch_takes_the_box_itself(gradient):
    recipe = Recipe(crop_size=80, margin=0.0, alignment="stretch")
    crop = crop_face(gradient, make_face((100, 40, 140, 200)), recipe)
    x0, y0 = place_of(crop, 0, 0)
    x1, y1 = place_of(crop, 79, 79)
    assert (x1 - x0, y1 - y0) == (pytest.approx(39, abs=2), pytest.approx(158, abs=3))


def test_stretch_follows_facenet_pytorch(gradient):
    # facenet_pytorch.models.utils.detect_face.extract_face: the margin, in pixels of the crop, is
    # scaled to the box; the box is widened by half of it on each side and clipped to the picture.
    x0, y0, x1, y1 = box = (30, 6, 120, 130)
    size, margin = 160, 14
    wide = [margin * (x1 - x0) / (size - margin), margin * (y1 - y0) / (size - margin)]
    expected = np.array(
        [
            max(x0 - wide[0] / 2, 0),
            max(y0 - wide[1] / 2, 0),
            min(x1 + wide[0] / 2, WIDTH),
            min(y1 + wide[1] / 2, HEIGHT),
        ]
    )
    got = crop_face(gradient, make_face(box), DFDC_PROJECT)
    np.testing.assert_array_equal(got, crop_box(gradient, expected, size))


def test_stretch_is_clipped_to_the_picture(gradient):
    recipe = Recipe(crop_size=64, margin=0.5, alignment="stretch")
    crop = crop_face(gradient, make_face((-40, 200, 60, 320)), recipe)
    assert (crop[..., 2] == 255).all()  # nothing black
    assert place_of(crop, 0, 0)[0] == pytest.approx(0, abs=2)
    assert place_of(crop, 63, 0)[1] == pytest.approx(HEIGHT - 1, abs=4)


# --- rotated and scaled by the landmarks ------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 20, -35, 90])
@pytest.mark.parametrize("side", [60.0, 110.0, 260.0])
def test_similarity_puts_the_landmarks_on_the_template(degrees, side):
    size, margin = 112, 0.2
    turn = np.exp(1j * np.radians(degrees))
    offsets = (TEMPLATE - 0.5) @ np.array([1, 1j]) * side * turn
    landmarks = np.stack([200 + offsets.real, 150 + offsets.imag], axis=1)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    radius = max(2.0, side / 40)
    for point in landmarks:
        image[np.hypot(x + 0.5 - point[0], y + 0.5 - point[1]) < radius] = 255
    recipe = Recipe(crop_size=size, margin=margin, alignment="similarity")
    crop = crop_face(image, make_face((150, 100, 250, 200), landmarks), recipe)[..., 0]
    rows, columns = np.mgrid[:size, :size]
    for point in (0.5 + (TEMPLATE - 0.5) / (1 + margin)) * size:
        near = np.hypot(columns + 0.5 - point[0], rows + 0.5 - point[1]) < 7
        weight = crop[near].astype(float)
        assert weight.max() > 100, "no dot near the place of the template"
        found = [np.average(v[near] + 0.5, weights=weight) for v in (columns, rows)]
        np.testing.assert_allclose(found, point, atol=1.0)


def test_similarity_is_black_outside(gradient):
    recipe = Recipe(crop_size=64, alignment="similarity", margin=0.0)
    crop = crop_face(gradient, make_face((-60, 100, 60, 220)), recipe)
    assert not crop[:, :28].any()
    assert (crop[:, 36:, 2] > 200).all()


@settings(max_examples=50)
@given(
    st.floats(0.05, 20),
    st.floats(-180, 180),
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_similarity_transform_is_recovered(scale, degrees, shift):
    source = TEMPLATE * 100
    turn = scale * np.exp(1j * np.radians(degrees))
    matrix = np.array([[turn.real, -turn.imag, shift[0]], [turn.imag, turn.real, shift[1]]])
    target = source @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(similarity_transform(source, target), matrix, atol=1e-6)


def test_similarity_never_mirrors():
    mirrored = TEMPLATE * [-1, 1]
    matrix = similarity_transform(TEMPLATE, mirrored)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_similarity_of_points_that_coincide_is_finite():
    assert np.isfinite(similarity_transform(np.zeros((5, 2)), TEMPLATE)).all()


# --- brightening ------------------------------------------------------------------------------


def flat(level: int):
    return np.full((64, 96, 3), level, np.uint8)


@pytest.mark.parametrize("level", [60, 61, 128, 255])
def test_a_bright_picture_is_returned_unchanged(level):
    image = flat(level)
    assert brighten(image, 60.0) is image


def test_zero_switches_it_off():
    image = flat(0)
    assert brighten(image, 0.0) is image


@pytest.mark.parametrize(("level", "expected"), [(20, 110), (50, 110), (10, 60), (1, 6), (0, 0)])
def test_a_dark_picture_is_brightened(level, expected):
    image = flat(level)
    before = image.copy()
    got = brighten(image, 60.0)
    assert got is not image
    np.testing.assert_array_equal(image, before)  # the caller's picture is left alone
    assert got.shape == image.shape
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert got.max() <= max(BRIGHTENED_LUMA, MAX_GAIN * level)


def test_one_bright_pixel_decides_nothing():
    image = flat(20)
    image[0, 0] = 255  # a place that every sampling of rows and columns looks at
    got = brighten(image, 60.0)
    assert got[10, 10, 0] == pytest.approx(110, abs=1)
    assert got[0, 0].tolist() == [255, 255, 255]


def test_a_lamp_in_a_dark_room_decides_nothing():
    image = flat(20)
    image[:, :16] = 255  # a sixth of the picture
    assert brighten(image, 60.0)[10, 90, 0] > 100


@pytest.mark.parametrize(("level", "expected"), [(90, 90), (20, 110)])
def test_black_bars_decide_nothing(level, expected):
    image = np.zeros((64, 192, 3), np.uint8)  # an upright video in a wide frame
    image[:, 72:120] = level
    got = brighten(image, 60.0)
    assert (got is image) == (level == expected)
    assert np.abs(got[:, 72:120].astype(int) - expected).max() <= 1


def test_brightening_keeps_the_order_of_levels():
    image = flat(10)
    image[:, :, 0] = np.arange(96) % 40
    got = brighten(image, 60.0)
    assert (np.diff(got[0, :40, 0].astype(int)) >= 0).all()
    assert got[0, 0, 0] == 0


def test_faces_do_not_change():
    face = make_face((10, 10, 20, 20))
    with pytest.raises(dataclasses.FrozenInstanceError):
        face.confidence = 0.5
    assert face.size == 10
