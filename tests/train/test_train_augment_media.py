"""Degradations of pictures and clips, each by what it is named for; and the sheet of all."""

from __future__ import annotations

import base64
import dataclasses
import re

import cv2
import numpy as np
import pytest

from tellframe.cli import run, status
from tellframe.train.augment import ARRANGEMENTS, DEGRADATIONS, MAKERS, pictures, video
from tellframe.train.augment.sheet import show
from tellframe.train.augment.video import PRESETS, Encoding, encode_h264
from tellframe.train.config import AugmentConfig, TrainConfig
from tellframe.train.examples import load_examples

pytestmark = pytest.mark.train


def rngs(count=8):
    return map(np.random.default_rng, range(count))


@pytest.fixture(scope="module")
def textured(faces):
    """A clip with detail that a codec loses."""
    sample = faces.sample(1, 5)
    rng = np.random.default_rng(0)
    detail = cv2.GaussianBlur(rng.normal(0, 60, (faces.side, faces.side)), (0, 0), 1.0)
    real = np.clip(sample.real + detail[..., None], 0, 255).astype(np.uint8)
    return dataclasses.replace(sample, real=real, fake=real)


def error(a, b):
    return float(np.abs(a.astype(int) - b).mean())


# Pictures.


@pytest.mark.parametrize(
    ("factor", "same"), [(1.0, True), (0.99, False), (1.5, True), (0.0, False)]
)
def test_rescale_shrinks_and_never_grows(factor, same):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    out = pictures.rescale_picture(picture, factor)
    assert (out.shape, out.dtype) == (picture.shape, np.uint8)
    assert np.array_equal(out, picture) is same


def test_jpeg_and_video_keep_red_red():
    """Once the JPEG took red for blue, alike in both halves, and nobody saw it."""
    red = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    red[..., 0] = 200
    for picture in (
        pictures.jpeg_picture(red[0], 60),
        encode_h264(red, Encoding(crf=30, preset="veryfast"))[1],
    ):
        assert np.abs(picture.mean(axis=(0, 1)) - (200, 0, 0)).max() < 8


def test_relight_is_one_curve_for_all_pixels(faces):
    """Each output channel is linear in the input: least squares leave rounding, in fixed point."""
    grey = 0
    for rng in rngs(60):
        sample = faces.sample(1)
        half = dataclasses.replace(sample, real=sample.real // 4 + 90)  # where nothing is clipped
        lit = pictures.relight(half, rng).real.reshape(-1, 3)
        kept = ((lit > 0) & (lit < 255)).all(axis=1)
        inputs = np.column_stack([half.real.reshape(-1, 3), np.ones(len(lit))])[kept]
        weights, *_ = np.linalg.lstsq(inputs, lit[kept].astype(float), rcond=None)
        assert np.abs(inputs @ weights - lit[kept]).max() < 1.6
        grey += np.abs(weights[:3] - weights[:3].mean(axis=0)).max() < 0.03
    assert 0 <= grey <= 9


def test_noise_is_normal_and_drawn_for_each_half_and_frame_alone(faces):
    flat = np.full((3, 112, 112, 3), 128, dtype=np.uint8)
    sample = dataclasses.replace(faces.sample(1, 3), real=flat, fake=flat.copy())
    for rng in rngs():
        done = pictures.noise(sample, rng)
        drawn = [f.astype(float).ravel() - 128 for half in (done.real, done.fake) for f in half]
        spread = np.std(drawn)
        assert 0.9 < spread < 7.2
        assert abs(np.mean(drawn)) < 0.1
        assert np.mean(np.abs(drawn) < spread) == pytest.approx(0.68, abs=0.2)  # in whole levels
        assert np.abs(np.corrcoef(drawn) - np.eye(6)).max() < 0.05


def test_blur_takes_detail(textured):
    for rng in rngs():
        done = pictures.blur(textured, rng).real.astype(int)
        assert (
            np.abs(np.diff(done, axis=2)).mean()
            < np.abs(np.diff(textured.real.astype(int), axis=2)).mean()
        )


def test_flip_twice_is_nothing_and_once_swaps_left_and_right(faces):
    sample = faces.sample(1, 3)
    once = pictures.flip_sample(sample)
    np.testing.assert_array_equal(once.real, sample.real[:, :, ::-1])
    np.testing.assert_array_equal(once.fake, sample.fake[:, :, ::-1])
    assert (once.landmarks[:, 0, 0] < once.landmarks[:, 1, 0]).all()
    assert (once.landmarks[:, 3, 0] < once.landmarks[:, 4, 0]).all()
    assert (once.boxes[:, 0] < once.boxes[:, 2]).all()
    np.testing.assert_allclose(once.landmarks[:, 0, 0], 112 - sample.landmarks[:, 1, 0])
    twice = pictures.flip_sample(once)
    for field in dataclasses.fields(sample):
        np.testing.assert_array_equal(getattr(twice, field.name), getattr(sample, field.name))


def test_cutout_covers_a_part_in_both_halves_and_all_frames(faces):
    sample = faces.sample(1, 3)
    seen = set()
    for rng in rngs(20):
        done = pictures.cutout(sample, rng)
        covered = (done.real != sample.real).any(axis=3)
        assert (covered.mean(axis=(1, 2)) > 0.005).all()
        assert (covered.mean(axis=(1, 2)) < 0.15).all()
        for at in range(3):
            colours = np.unique(done.real[at][covered[at]], axis=0)
            assert len(colours) == 1
            np.testing.assert_array_equal(done.fake[at][covered[at]], done.real[at][covered[at]])
        seen.add(round(np.nonzero(covered[0])[0].mean() / 10))
    assert len(seen) >= 2


def test_cutout_leaves_what_is_fake_to_be_seen(faces):
    """Of a fake in the mouth alone, the mouth is never covered."""
    sample = faces.sample(1, 2, still=True)
    fake = sample.real.copy()
    fake[:, 70:80, 48:64] ^= 90
    sample = dataclasses.replace(sample, fake=fake)
    for rng in rngs(20):
        done = pictures.cutout(sample, rng)
        assert error(done.real, done.fake) > 0.3 * error(sample.real, sample.fake)


# Clips.


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("frames", [1, 5])
def test_h264_keeps_form_and_loses_by_its_factor(textured, preset, frames):
    clip = textured.real[:frames]
    fine, coarse = (encode_h264(clip, Encoding(crf, preset)) for crf in (17, 40))
    assert (fine.shape, fine.dtype) == (clip.shape, np.uint8)
    assert 0 < error(fine, clip) < 0.7 * error(coarse, clip) < 20


@pytest.mark.parametrize("side", [47, 64, 112])
@pytest.mark.parametrize(
    "encoding",
    [
        Encoding(20, "ultrafast", shift=(5, 9)),
        Encoding(20, "veryfast", repeats=3, kept=1, shift=(15, 0)),
        Encoding(20, "superfast", scale=0.5, repeats=2, kept=1, shift=(2, 3)),
    ],
    ids=["shifted", "repeated", "small"],
)
def test_h264_moves_nothing(faces, side, encoding):
    """Whatever is put around or between the frames is taken away again."""
    clip = np.stack([cv2.resize(f, (side, side)) for f in faces.sample(1, 4).real])
    done = encode_h264(clip, encoding)
    assert done.shape == clip.shape
    ways = [(y, x) for y in (-2, -1, 0, 1, 2) for x in (-2, -1, 0, 1, 2)]
    for at in range(4):
        core = clip[at, 8:-8, 8:-8]
        errors = [error(np.roll(done[at], way, axis=(0, 1))[8:-8, 8:-8], core) for way in ways]
        assert ways[int(np.argmin(errors))] == (0, 0)


def test_h264_order_is_kept_with_frames_that_are_coded_backwards():
    """B-frames leave the encoder in another order than they are shown."""
    clip = np.stack([np.full((64, 64, 3), 20 + 20 * t, dtype=np.uint8) for t in range(10)])
    for repeats in (1, 2, 3):
        done = encode_h264(clip, Encoding(20, "veryfast", repeats=repeats, kept=repeats - 1))
        np.testing.assert_allclose(done.mean(axis=(1, 2, 3)), 20 + 20 * np.arange(10), atol=4)


def test_frame_rate_repeats_frames_and_keeps_the_order(faces):
    sample = faces.sample(1, 12)
    numbered = dataclasses.replace(
        sample, boxes=np.repeat(np.arange(12, dtype=np.float32)[:, None], 4, axis=1)
    )
    for rng in rngs():
        order = video.frame_rate(numbered, rng).boxes[:, 0].astype(int)
        assert order[0] == 0
        assert (order <= np.arange(12)).all()
        assert (np.diff(order) >= 0).all()
        assert 5 <= len(set(order)) <= 11


def test_shuffle_only_changes_the_order(faces):
    sample = faces.sample(1, 6)
    numbered = dataclasses.replace(
        sample,
        real=sample.real + np.arange(6, dtype=np.uint8)[:, None, None, None],
        landmarks=sample.landmarks + 0,
    )
    orders = set()
    for rng in rngs():
        done = video.shuffle(numbered, rng)
        order = [
            next(k for k in range(6) if np.array_equal(f, numbered.real[k])) for f in done.real
        ]
        assert sorted(order) == list(range(6))
        np.testing.assert_array_equal(done.fake, numbered.fake[order])
        np.testing.assert_array_equal(done.landmarks, numbered.landmarks[order])
        orders.add(tuple(order))
    assert len(orders) > 5


@pytest.mark.parametrize("name", ["shuffle", "frame_rate"])
def test_order_is_nothing_to_a_still(faces, name):
    sample = faces.sample(1)
    for rng in rngs():
        assert ARRANGEMENTS[name](sample, rng) is sample


# The sheet.


def pictures_of(page):
    texts = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(t), np.uint8), 1) for t in texts]


def test_sheet_shows_every_name_and_loads_nothing(faces):
    samples = [faces.sample(1, 3), faces.sample(2)]
    samples.append(dataclasses.replace(samples[1], fake=samples[1].real))
    pages = [show(samples, AugmentConfig(h264=0.125), np.random.default_rng(0), size=48)
             for _ in "12"]  # fmt: skip
    assert pages[0] == pages[1]
    for name in (*MAKERS, *ARRANGEMENTS, *DEGRADATIONS):
        assert f"<h2>{name}<" in pages[0]
    assert "probability 0.125" in pages[0]
    assert "<script" not in pages[0]
    assert set(re.findall(r'src="(\w+:)', pages[0])) == {"data:"}
    shown = pictures_of(pages[0])
    assert len(shown) > 60
    assert all(picture is not None and picture.std() > 1 for picture in shown)


def test_train_writes_the_sheet_of_the_samples_and_does_not_train(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.toml").write_text("[recipe]\ncrop_size = 64\n[augment]\njpeg = 0.375\n")
    monkeypatch.chdir(tmp_path)
    asked = ["train", "config.toml", "--show-augment"]
    assert run([*asked, "sheet.html"]) == status.DONE
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "probability 0.375" in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.toml", "sheet.html"]
    assert run([*asked, "sheet.png"]) == status.USAGE
    assert "name it FILE.html" in capsys.readouterr().err


def test_examples_come_from_the_data_where_it_is_named(faces, monkeypatch):
    monkeypatch.setattr(
        "tellframe.train.examples.load_data", lambda data, recipe: (faces.data(), faces.data())
    )
    config = TrainConfig(data=dataclasses.replace(TrainConfig().data, labels="x.csv"))
    found = load_examples(config, np.random.default_rng(0))
    assert [len(s.real) for s in found] == [3, 3, 1, 1]
    assert [s.fake is s.real for s in found] == [False, False, False, True]


def test_examples_of_the_samples_show_the_face_where_the_landmarks_say():
    clip, other, *stills = load_examples(TrainConfig(), np.random.default_rng(0))
    assert [len(s.real) for s in (clip, other, *stills)] == [6, 6, 1, 1]
    assert error(clip.real, clip.fake) > 2
    side = clip.real.shape[1]
    assert ((clip.landmarks > 0.2 * side) & (clip.landmarks < 0.8 * side)).all()
    for points, frame in zip(clip.landmarks, clip.real, strict=True):
        eye, cheek = points[0].astype(int), ((points[0] + points[3]) / 2).astype(int)
        dark, light = (frame[y - 2 : y + 3, x - 4 : x + 5].mean() for x, y in (eye, cheek))
        assert dark < 0.8 * light
