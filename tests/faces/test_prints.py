"""Prints on clothes are told from living faces, and calm people are kept."""

import numpy as np
import pytest
from PIL import Image

from tellframe.faces.prints import STILL, change, is_print
from tellframe.video import list_frames, read_frames

SIDE = 96
ROOM = 12


@pytest.fixture(scope="module")
def portrait(samples):
    """Return one crop of a face with room around it, (SIDE + 2 * ROOM, SIDE + 2 * ROOM, 3)."""
    path = samples / "real.mp4"
    frame = next(iter(read_frames(path, list_frames(path), [0])))
    return np.asarray(Image.fromarray(frame.image).resize((SIDE + 2 * ROOM,) * 2))


def middle(picture, x=0, y=0):
    """Cut the crop itself out of its surroundings, shifted by a few pixels."""
    return picture[ROOM + y : ROOM + y + SIDE, ROOM + x : ROOM + x + SIDE]


def printed(portrait, count=6, seed=0):
    """Return the same face again and again: shifted, turned, relit and noised."""
    rng = np.random.default_rng(seed)
    crops = []
    for _ in range(count):
        picture = Image.fromarray(portrait).rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC)
        shifted = middle(np.asarray(picture), *rng.integers(-3, 4, 2))
        noisy = shifted * rng.uniform(0.9, 1.1) + rng.normal(0, 3, shifted.shape)
        crops.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return crops


def living(portrait, count=6, seed=0):
    """Return a face whose parts change: bands of it are stretched by themselves."""
    rng = np.random.default_rng(seed)
    crops = []
    for _ in range(count):
        bands = []
        for band in np.array_split(middle(portrait), 4):
            height = max(4, round(len(band) * rng.uniform(0.5, 1.5)))
            bands.append(np.asarray(Image.fromarray(band).resize((SIDE, height))))
        crops.append(np.asarray(Image.fromarray(np.concatenate(bands)).resize((SIDE, SIDE))))
    return crops


def boxes(centre, size, sway=0.0, count=6):
    """Return boxes around a centre that sways by pixels."""
    x = centre[0] + sway * np.sin(np.arange(count))
    y = np.full(count, float(centre[1]))
    half = size / 2
    return np.stack([x - half, y - half, x + half, y + half], axis=1).astype(np.float32)


def test_change_tells_prints_from_living_faces(portrait):
    assert change([middle(portrait)] * 4) == pytest.approx(0, abs=1e-3)
    assert change(printed(portrait)) < STILL
    assert change(living(portrait)) > 2 * STILL


@pytest.mark.parametrize(
    ("kind", "centre", "size", "sway", "expected"),
    [
        ("printed", (300, 500), 90, 30, True),  # on the chest, moving with the body
        ("printed", (900, 100), 90, 0, False),  # a calm person, or a poster
        ("printed", (300, 500), 190, 0, False),  # as large as the other: somebody sits still
        ("living", (300, 500), 90, 30, False),  # a child on the lap
        ("living", (900, 100), 90, 0, False),
    ],
)
def test_prints(portrait, kind, centre, size, sway, expected):
    crops = {"printed": printed, "living": living}[kind](portrait, seed=1)
    other = living(portrait, seed=2)
    verdict = is_print(crops, boxes(centre, size, sway), other, boxes((300, 200), 200, 20))
    assert verdict is expected


def test_beside_a_still_face_nothing_is_a_print(portrait):
    calm = printed(portrait, seed=3)
    assert not is_print(printed(portrait), boxes((300, 500), 90), calm, boxes((300, 200), 200, 20))
