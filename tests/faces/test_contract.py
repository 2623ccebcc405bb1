"""What every face detector owes, whatever it does inside."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tellframe.errors import BundleError, UsageError
from tellframe.faces import load_face_detector
from tellframe.recipe import FACE_DETECTORS, Recipe

pytestmark = pytest.mark.parametrize("name", FACE_DETECTORS)

RELAXED = {"detector_thresholds": (0.6, 0.7, 0.7)}


def crowd(portrait, sides):
    """A row of the same person at several sizes."""
    from PIL import Image

    canvas = np.full((max(sides), sum(sides), 3), 128, np.uint8)
    left = 0
    for side in sides:
        scaled = Image.fromarray(portrait).resize((side, side), Image.Resampling.BICUBIC)
        canvas[:side, left : left + side] = scaled
        left += side
    return canvas


def noise(height, width):
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def test_name(make_detector, name):
    assert make_detector(name).name == name


def test_finds_the_one_face(make_detector, name, portrait):
    (face,) = make_detector(name, **RELAXED).detect(portrait)
    height, width = portrait.shape[:2]
    assert face.box.dtype == face.landmarks.dtype == np.float32
    assert face.box.shape == (4,)
    assert face.landmarks.shape == (5, 2)
    assert 0.7 <= face.confidence <= 1
    assert face.box[0] >= 0
    assert face.box[1] >= 0
    assert face.box[2] <= width
    assert face.box[3] <= height
    assert (face.landmarks > face.box[:2]).all()
    assert (face.landmarks < face.box[2:]).all()


def test_landmarks_are_in_order(make_detector, name, portrait):
    (face,) = make_detector(name, **RELAXED).detect(portrait)
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_a_mirrored_picture_has_mirrored_landmarks(make_detector, name, portrait):
    detector = make_detector(name, **RELAXED)
    (face,) = detector.detect(portrait)
    (mirrored,) = detector.detect(portrait[:, ::-1])
    expected = face.landmarks[[1, 0, 2, 4, 3]]
    expected[:, 0] = portrait.shape[1] - 1 - expected[:, 0]
    assert np.abs(mirrored.landmarks - expected).max() < 0.12 * face.size


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(np.zeros((240, 320, 3), np.uint8), id="black"),
        pytest.param(np.full((240, 320, 3), 255, np.uint8), id="white"),
        pytest.param(noise(240, 320), id="noise"),
    ],
)
def test_nothing_is_found_where_nothing_is(make_detector, name, picture):
    assert make_detector(name).detect(picture) == []


@pytest.mark.parametrize(
    "shape", [(1, 1), (11, 11), (12, 12), (1, 5000), (20, 3000), (3000, 20), (41, 41), (333, 777)]
)
def test_any_size_is_taken(make_detector, name, shape):
    detector = make_detector(name, min_face_size=12)
    assert isinstance(detector.detect(noise(*shape)), list)
    assert isinstance(detector.detect(np.full((*shape, 3), 90, np.uint8)), list)


def test_a_view_is_taken(make_detector, name, portrait):
    detector = make_detector(name, **RELAXED)
    mirrored = portrait[:, ::-1]
    mirrored.flags.writeable = False
    assert len(detector.detect(mirrored)) == 1


def test_results_repeat(make_detector, name, portrait):
    detector, other = make_detector(name), make_detector(name)
    picture = crowd(portrait, [300, 200])
    first = detector.detect(picture)
    detector.detect(noise(100, 130))
    for again in (detector.detect(picture), other.detect(picture)):
        assert len(first) == len(again) > 0
        for one, two in zip(first, again, strict=True):
            np.testing.assert_array_equal(one.box, two.box)
            np.testing.assert_array_equal(one.landmarks, two.landmarks)
            assert one.confidence == two.confidence


def test_the_picture_is_left_alone(make_detector, name, portrait):
    picture = portrait.copy()
    make_detector(name).detect(picture)
    np.testing.assert_array_equal(picture, portrait)


def test_largest_first_and_none_too_small(make_detector, name, portrait):
    picture = crowd(portrait, [200, 320, 260])
    faces = make_detector(name, **RELAXED).detect(picture)
    assert len(faces) == 3
    sizes = [face.size for face in faces]
    assert sizes == sorted(sizes, reverse=True)
    assert 200 < faces[0].box[0] < 520

    limit = int(np.ceil(sizes[1] + 1))
    large = make_detector(name, min_face_size=limit, **RELAXED).detect(picture)
    assert all(face.size >= limit for face in large)


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(np.zeros((32, 32, 3), np.float32), id="float"),
        pytest.param(np.zeros((32, 32), np.uint8), id="grey"),
        pytest.param(np.zeros((32, 32, 4), np.uint8), id="alpha"),
        pytest.param(np.zeros((3, 32, 32), np.uint8), id="channels first"),
        pytest.param(np.zeros((0, 32, 3), np.uint8), id="empty"),
        pytest.param([[0, 0, 0]], id="list"),
    ],
)
def test_what_is_no_picture_is_refused(make_detector, name, picture):
    with pytest.raises(UsageError, match="a picture must be"):
        make_detector(name).detect(picture)


def test_missing_weights_are_named(name, tmp_path):
    if name != "yunet":
        pytest.skip("these weights are inside the package")
    path = tmp_path / "absent.onnx"
    with pytest.raises(BundleError, match=r"absent\.onnx"):
        load_face_detector(Recipe(face_detector=name), yunet_path=path)


def test_detecting_needs_no_torch(name):
    code = (
        "import sys, tellframe.faces, tellframe.faces.mtcnn, tellframe.faces.yunet, "
        "tellframe.runtime; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def moved(picture, x, y):
    """The same picture on a larger grey one, its corner at (x, y)."""
    canvas = np.full((3 * picture.shape[0] // 2, 3 * picture.shape[1] // 2, 3), 128, np.uint8)
    canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas


def test_a_face_is_followed_to_where_a_search_finds_it(make_detector, name, portrait):
    detector = make_detector(name, **RELAXED)
    known = detector.detect(moved(portrait, 40, 30))
    there = moved(portrait, 62, 20)
    (expected,), (found,) = detector.detect(there), detector.follow(there, known)
    np.testing.assert_allclose(found.box, expected.box, atol=0.05 * expected.size)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=0.05 * expected.size)


def test_a_face_that_is_gone_is_not_followed(make_detector, name, portrait):
    detector = make_detector(name, **RELAXED)
    known = detector.detect(moved(portrait, 40, 30))
    assert detector.follow(np.full_like(moved(portrait, 0, 0), 128), known) == []
    assert detector.follow(moved(portrait, 0, 0), []) == [] or name == "yunet"


def test_following_checks_its_picture(make_detector, name):
    with pytest.raises(UsageError, match="a picture must be"):
        make_detector(name).follow(np.zeros((40, 40), np.uint8), [])
