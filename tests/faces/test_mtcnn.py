"""The arithmetic of MTCNN, against tables worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tellframe.faces import boxes, mtcnn
from tellframe.runtime import Session


def array(*rows):
    return np.array(rows, np.float32)


HEAP = array([0, 0, 10, 10], [5, 0, 15, 10], [1, 0, 11, 10], [100, 100, 110, 110])


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        # Of box 0: IoU 50/150 with box 1, 90/110 with box 2. Of box 2 with box 1: 60/140.
        (0.9, [3, 1, 2, 0]),
        (0.5, [3, 1, 2]),
        (0.4, [3, 1, 0]),
        (0.3, [3, 1]),
    ],
)
def test_suppression(limit, expected):
    scores = array(0.1, 0.8, 0.5, 0.9)
    assert boxes.suppress_overlaps(HEAP, scores, limit).tolist() == expected


def test_suppression_is_greedy():
    # 0 removes 1, so 1 cannot remove 2, although they overlap just as much.
    row = array([0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10])
    assert boxes.suppress_overlaps(row, array(0.9, 0.8, 0.7), 0.4).tolist() == [0, 2]


def test_of_equal_boxes_the_first_stays():
    assert boxes.suppress_overlaps(HEAP[[0, 0, 0]], array(0.5, 0.5, 0.5), 0.5).tolist() == [0]


def test_suppression_of_nothing():
    none = boxes.suppress_overlaps(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.5)
    assert none.shape == (0,)


def test_suppression_by_the_smaller_area():
    nested = array([0, 0, 99, 99], [10, 10, 29, 29])
    scores = array(0.9, 0.8)
    assert boxes.suppress_overlaps(nested, scores, 0.7).tolist() == [0, 1]
    assert boxes.suppress_overlaps(nested, scores, 0.7, by_smaller=True).tolist() == [0]


def test_suppression_in_blocks_equals_the_plain_loop():
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 200, (1500, 2))
    many = np.concatenate([low, low + rng.uniform(5, 60, (1500, 2))], axis=1).astype(np.float32)
    scores = rng.uniform(0, 1, 1500).astype(np.float32)
    table = boxes.overlaps(many, many)
    expected: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if all(table[i, j] <= 0.3 for j in expected):
            expected.append(i)
    assert boxes.suppress_overlaps(many, scores, 0.3).tolist() == expected


def test_overlaps():
    table = boxes.overlaps(HEAP[:1], HEAP)
    np.testing.assert_allclose(table, [[1, 50 / 150, 90 / 110, 0]], rtol=1e-6)


def test_a_box_without_area_overlaps_nothing():
    flat = array([5, 5, 5, 9], [9, 9, 4, 4])
    np.testing.assert_array_equal(boxes.overlaps(flat, flat), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("height", "width", "smallest", "expected"),
    [
        (39, 500, 40, []),
        (40, 500, 40, [0.3]),
        (80, 81, 40, [0.3, 0.15]),
        (12, 12, 12, [1.0]),
        (11, 9999, 12, []),
        (1, 1, 40, []),
    ],
)
def test_pyramid(height, width, smallest, expected):
    assert mtcnn.pyramid_scales(height, width, smallest, 0.5) == pytest.approx(expected)


@pytest.mark.parametrize(
    "shape", [(12, 12), (13, 12), (27, 40), (28, 40), (29, 700), (301, 900), (302, 411)]
)
def test_strips_equal_a_single_run(monkeypatch, shape):
    network = Session(mtcnn._WEIGHTS / "mtcnn_pnet.onnx", 1)
    level = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    pixels = (level.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 128
    whole = network.run({"pixels": pixels})
    for budget in (1, 1 << 14, 1 << 30):
        monkeypatch.setattr(mtcnn, "_STRIP", budget)
        probability, offsets = mtcnn.slide(network, level)
        np.testing.assert_allclose(probability, whole["probability"][0], atol=1e-6)
        np.testing.assert_allclose(offsets, whole["offsets"][0], atol=1e-6)


def test_proposals():
    probability = np.zeros((3, 4), np.float32)
    probability[1, 2] = 0.75
    probability[0, 0] = 0.5
    offsets = np.arange(48, dtype=np.float32).reshape(4, 3, 4)
    # The cell in row 1, column 2 looks at pixels (4, 2) to (16, 14) of a level at half size.
    expected = [[10, 6, 32, 28, 0.75, 6, 18, 30, 42]]
    np.testing.assert_array_equal(mtcnn.decode_proposals(probability, offsets, 0.5, 0.6), expected)
    assert mtcnn.decode_proposals(probability, offsets, 0.5, 0.5).shape == (2, 9)
    assert mtcnn.decode_proposals(probability, offsets, 0.5, 0.9).shape == (0, 9)


def test_proposals_are_bounded_to_the_best():
    probability = np.linspace(0.6, 1, 10_000, dtype=np.float32).reshape(100, 100)
    found = mtcnn.decode_proposals(probability, np.zeros((4, 100, 100), np.float32), 1.0, 0.5)
    assert len(found) == 4096
    assert found[:, 4].min() == np.sort(probability.ravel())[-4096]


@pytest.mark.parametrize(
    ("box", "offset", "border", "expected"),
    [
        ([0, 0, 10, 20], [0, 0, 0, 0], 0, [0, 0, 10, 20]),
        ([0, 0, 10, 20], [0.1, 0.1, -0.1, -0.1], 0, [1, 2, 9, 18]),
        ([0, 0, 9, 19], [0.1, 0.1, -0.1, -0.1], 1, [1, 2, 8, 17]),
    ],
)
def test_shift(box, offset, border, expected):
    np.testing.assert_allclose(mtcnn.shift(array(box), array(offset), border), [expected])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10]),
        ([0, 0, 10, 20], [-5, 0, 15, 20]),
        ([10, 10, 40, 20], [10, 0, 40, 30]),
    ],
)
def test_square(box, expected):
    np.testing.assert_allclose(mtcnn.square(array(box)), [expected])


def test_no_boxes_pass_through():
    none = np.empty((0, 4), np.float32)
    assert mtcnn.square(none).shape == mtcnn.shift(none, none, 1).shape == (0, 4)


@pytest.mark.parametrize("size", [(641, 481), (1000, 37), (64, 64), (3, 900)])
def test_halvings_keep_the_place(size):
    # On a ramp, every resized pixel must show the value at its own centre.
    width, height = size
    ramp = np.linspace(0, 255, width, dtype=np.float32).round().astype(np.uint8)
    halvings = mtcnn.Halvings(np.repeat(np.tile(ramp, (height, 1))[..., None], 3, axis=2))
    for columns in (max(1, width // 2), max(1, width // 5), max(1, width // 11)):
        small = halvings.resize((0, 0, width, height), (columns, max(1, height // 7)))
        centres = (np.arange(columns) + 0.5) / columns * (width - 1 + 1 / columns)
        expected = centres / max(width - 1, 1) * 255
        inner = slice(1, -1) if columns > 2 else slice(0, 0)
        found = np.asarray(small)[0, :, 0].astype(float)
        assert np.abs(found - expected)[inner].max(initial=0) < 255 / columns * 0.5 + 2


@pytest.mark.parametrize("box", [(310, 200, 350, 240), (290, 180, 390, 280), (250, 140, 410, 300)])
def test_halvings_of_a_part_are_those_of_the_whole(box):
    image = np.random.default_rng(0).integers(0, 256, (487, 661, 3), np.uint8)
    of_part = mtcnn.Halvings(image, [(0, 0, 90, 90), (240, 130, 420, 310)])
    size = (24, 24)
    expected = np.asarray(mtcnn.Halvings(image).resize(box, size))
    np.testing.assert_array_equal(np.asarray(of_part.resize(box, size)), expected)
    assert [copies[0].size for copies in of_part._copies.values()] == [(256, 192)]


def test_halvings_beyond_their_part_are_those_of_the_whole():
    image = np.random.default_rng(0).integers(0, 256, (487, 661, 3), np.uint8)
    box, size = (100, 100, 661, 487), (24, 24)
    expected = np.asarray(mtcnn.Halvings(image).resize(box, size))
    found = mtcnn.Halvings(image, [(240, 130, 420, 310)]).resize(box, size)
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_a_box_outside_the_picture_is_dropped():
    class Network:
        def run(self, inputs):
            (pixels,) = inputs.values()
            assert pixels.shape[1:] == (3, 24, 24)
            return {"probability": np.full(len(pixels), 0.5, np.float32)}

    picture = mtcnn.Halvings(np.zeros((40, 50, 3), np.uint8))
    given = array([-30, -30, -2, -2], [-5, -5, 20, 20], [60, 5, 90, 35], [30, 20, 80, 70])
    kept, out = mtcnn._look(Network(), picture, given, 24)
    np.testing.assert_array_equal(kept, given[[1, 3]])
    assert out["probability"].shape == (2,)


def test_more_crops_than_a_batch():
    sizes = []

    class Network:
        def run(self, inputs):
            (pixels,) = inputs.values()
            sizes.append(len(pixels))
            return {"probability": np.full(len(pixels), 0.5, np.float32)}

    picture = mtcnn.Halvings(np.zeros((40, 50, 3), np.uint8))
    given = np.tile(array([1, 1, 30, 30]), (150, 1))
    _, out = mtcnn._look(Network(), picture, given, 24)
    assert out["probability"].shape == (150,)
    assert sizes == [64, 64, 22]
