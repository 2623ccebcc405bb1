"""Looks: what counts as new colours, as new light, and as a black bar."""

from __future__ import annotations

import numpy as np
import pytest

from tellframe.faces.looks import BLACK, inside_bars, look_at


def paint(*levels: int, share: float = 0.5) -> np.ndarray:
    """A picture (60, 100, 3) of one grey, or of two, the first on that share of its rows."""
    image = np.full((60, 100, 3), levels[-1], np.uint8)
    image[: round(60 * share)] = levels[0]
    return image


def changes(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    first, second = look_at(a, 8), look_at(b, 8)
    assert first.colour_change(second) == second.colour_change(first)
    return first.colour_change(second), first.level_change(second)


@pytest.mark.parametrize(
    ("share", "recoloured", "relit"), [(0.0, 0.0, 0.0), (0.25, 0.25, 25.0), (1.0, 1.0, 100.0)]
)
def test_the_share_of_new_colours(share, recoloured, relit):
    got = changes(paint(50), paint(150, 50, share=share))
    assert got == pytest.approx((recoloured, relit), abs=0.01)


def test_moving_what_is_there_brings_no_new_colours():
    noise = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    recoloured, relit = changes(noise, noise[::-1, ::-1].copy())
    assert recoloured == 0
    assert relit > 5


@pytest.mark.parametrize("level", range(0, 256, 5))
def test_flicker_of_a_plain_wall_brings_no_new_colours(level):
    brighter = min(level + 4, 255)
    assert changes(paint(level), paint(brighter))[0] == 0


def test_hue_counts_where_light_does_not_change():
    red, green = paint(100), paint(100)
    red[..., 0] += 60
    green[..., 1] += 60
    assert changes(red, green)[0] == 1


@pytest.mark.parametrize("noise", [0, BLACK])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(0, 60), slice(30, 70)),
        (slice(10, 50), slice(0, 100)),
        (slice(5, 30), slice(60, 100)),
        (slice(0, 60), slice(0, 100)),
    ],
)
def test_bars_are_left_out(rows, columns, noise):
    image = np.random.default_rng(0).integers(0, noise + 1, (60, 100, 3), dtype=np.uint8)
    image[rows, columns] = 120
    got = inside_bars(image)
    assert got.shape == image[rows, columns].shape
    assert (got == 120).all()
    assert np.shares_memory(got, image)


def test_black_within_the_picture_is_no_bar():
    image = paint(120)
    image[20:40] = 0
    assert inside_bars(image).shape == image.shape


def test_of_a_black_picture_all_is_left():
    assert inside_bars(paint(0)).shape == (60, 100, 3)


def test_a_dim_picture_has_no_bars():
    assert inside_bars(paint(BLACK + 1)).shape == (60, 100, 3)


def test_a_speck_in_a_bar_does_not_end_it():
    image = paint(120)
    image[:20] = 0
    image[5, 50] = 255  # one pixel of a hundred
    assert inside_bars(image).shape == (40, 100, 3)
