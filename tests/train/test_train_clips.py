"""Scenes out of shards: who belongs to whom, and real and fake in the same square."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from tellframe.bundle import load_bundle
from tellframe.data.build import Workplace, build
from tellframe.data.manifest import Video
from tellframe.data.plan import plan_build
from tellframe.errors import ConfigError, RecipeMismatchError
from tellframe.recipe import Recipe
from tellframe.train.batches import PairBatches
from tellframe.train.clips import ClipSource, join, load_scenes, match_frames, require_room
from tellframe.train.config import BatchConfig, DataConfig, OptimConfig, TrainConfig
from tellframe.train.examples import load_examples
from tellframe.train.loop import require_held_out
from tellframe.train.models import build_model
from tellframe.train.shift import measure_shift
from tellframe.train.validation import validate
from tellframe.video import list_frames, read_frames

MODEL = dataclasses.replace(load_bundle().recipe, crop_scales=(1.0,))
WIDE = dataclasses.replace(MODEL, margin=0.7, crop_size=160, num_frames=6, crop_format="png")
SIZE = 240
NO_SHIFT = np.zeros(2, dtype=np.int64)


@pytest.fixture(scope="module")
def dataset(samples, make_video, tmp_path_factory) -> str:
    """A real video, its fake with a dark mouth, an unchanged one, and a fake without original."""
    folder = tmp_path_factory.mktemp("clips")
    path = samples / "real.mp4"
    frames = [f.image[::2, ::2] for f in read_frames(path, list_frames(path), range(12))]

    def write(name: str, spoil) -> str:
        def draw(number: int, *_size: int):
            picture = frames[number].copy()
            spoil(picture)
            return picture

        quality = {"crf": "10"}
        make_video(folder / name, 12, size=(SIZE, SIZE), draw=draw, options=quality)
        return str(folder / name)

    def darken(picture) -> None:
        picture[82:98, 105:140] //= 3

    real, fake = write("real.mp4", lambda p: None), write("fake.mp4", darken)
    videos = [
        Video("real", real, label="REAL", group="g", split="train"),
        Video("fake", fake, label="FAKE", original="real", group="g", split="train", method="dark"),
        Video("same", real, label="FAKE", original="real", group="g", split="train", method="none"),
        Video("lost", fake, label="FAKE", original="gone", group="h", split="train"),
        Video("other", real, label="REAL", group="i", split="test"),
    ]
    build(plan_build(videos, WIDE), Workplace(str(folder / "faces")))
    return str(folder / "faces")


def test_a_real_and_its_fakes_are_one_scene(dataset):
    scenes = {s.group: s for s in load_scenes([dataset], MODEL, split="train")}
    assert set(scenes) == {"g", "h"}
    assert scenes["g"].real.video == "real"
    assert dict(zip(scenes["g"].methods, (r.video for r in scenes["g"].fakes), strict=True)) == {
        "dark": "fake",
        "none": "same",
    }
    assert (scenes["h"].real, scenes["h"].fakes[0].video) == (None, "lost")
    with pytest.raises(ConfigError, match="'holdout'"):
        load_scenes([dataset], MODEL, split="holdout")


def test_a_pair_differs_where_the_fake_was_made(dataset):
    (scene,) = (s for s in load_scenes([dataset], MODEL, split="train") if s.group == "g")
    rng = np.random.default_rng(0)
    sample = scene.pair(scene.methods.index("dark"), rng, 4)
    assert sample.real.shape == sample.fake.shape == (4, 160, 160, 3)
    gap = np.abs(sample.real.astype(int) - sample.fake).mean(axis=3)
    for frame in range(4):
        x, y = sample.landmarks[frame, 3:].mean(axis=0).astype(int)
        mouth = gap[frame, y - 4 : y + 4, x - 4 : x + 4].mean()
        assert mouth > 20
        assert np.median(gap[frame]) < 4
    left, top, right, bottom = sample.boxes[0]
    assert 0 < left < right < 160
    assert max(right - left, bottom - top) == pytest.approx(160 / 1.7, rel=0.05)


def test_an_unchanged_fake_is_no_pair(dataset):
    (scene,) = (s for s in load_scenes([dataset], MODEL, split="train") if s.group == "g")
    assert scene.pair(scene.methods.index("none"), np.random.default_rng(0), 4) is None
    alone = scene.alone(None, np.random.default_rng(0), 3)
    assert alone.real is alone.fake
    assert len(alone.real) == 3


def test_frames_are_matched_by_time_and_place(dataset):
    (scene,) = (s for s in load_scenes([dataset], MODEL, split="train") if s.group == "g")
    real = scene.source.read(scene.real)
    fake = scene.source.read(scene.fakes[0])
    pairs = match_frames(real, fake)
    assert pairs.tolist() == [[i, i] for i in range(6)]
    assert not len(match_frames(real, dataclasses.replace(fake, times=fake.times + 1)))
    assert not len(match_frames(real, dataclasses.replace(fake, boxes=fake.boxes + 500)))
    same = join(real, real, pairs, WIDE.margin, NO_SHIFT)
    np.testing.assert_array_equal(same.real, same.fake)


def test_boxes_that_differ_still_show_the_same_square(dataset):
    """The same picture, cut at two boxes as detectors find them, comes together again."""
    source = ClipSource(dataset)
    (row,) = (r for r in source.rows() if r.video == "real")
    real = source.read(row)
    shifted = dataclasses.replace(real, boxes=real.boxes + np.float32(3), pixels=real.pixels.copy())
    side = WIDE.crop_size / ((1 + WIDE.margin) * np.ptp(real.boxes[0][[1, 3]]))
    shift = round(3 * side)
    shifted.pixels[:, :-shift, :-shift] = real.pixels[:, shift:, shift:]
    sample = join(real, shifted, np.array([[0, 0]]), WIDE.margin, NO_SHIFT)
    inner = (slice(20, 140), slice(20, 140))
    gap = np.abs(sample.real[0][inner].astype(int) - sample.fake[0][inner])
    assert gap.mean() < 4


def test_a_source_travels_to_other_processes(dataset):
    source = pickle.loads(pickle.dumps(ClipSource(dataset)))
    row = source.rows()[0]
    np.testing.assert_array_equal(source.read(row).pixels, ClipSource(dataset).read(row).pixels)


def test_only_the_frames_that_are_asked_for_are_decoded(dataset, monkeypatch):
    source = ClipSource(dataset)
    row = source.rows()[0]
    whole = source.read(row)
    monkeypatch.setattr(source, "_read_bytes", None)  # stored bytes are read once
    some = source.read(row, [4, 1])
    np.testing.assert_array_equal(some.pixels[[1, 4]], whole.pixels[[1, 4]])
    assert not some.pixels[[0, 2, 3, 5]].any()
    np.testing.assert_array_equal(some.valid, whole.valid)
    np.testing.assert_array_equal(some.boxes, whole.boxes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 0.05}, r"margin: 0\.05 against 0\.1"),
        ({"min_face_size": 60}, "min_face_size: 60 against 40"),
        ({"alignment": "stretch"}, "alignment: 'stretch'"),
        ({"crop_scales": [1.0, 0.8]}, r"crop_scales: \(1\.0, 0\.8\)"),
        ({"margin": 0.9, "crop_size": 512, "num_frames": 32, "crop_format": "png"}, ""),
    ],
)
def test_the_model_must_fit_into_the_crops(change, message):
    shards = Recipe.from_dict({**MODEL.to_dict(), **change})
    if message:
        with pytest.raises(RecipeMismatchError, match=message):
            require_room(shards, MODEL, "faces")
    else:
        require_room(shards, MODEL, "faces")


def test_a_fake_that_lies_off_its_real_is_moved_back(dataset):
    source = ClipSource(dataset)
    (row,) = (r for r in source.rows() if r.video == "real")
    real = source.read(row)
    moved = dataclasses.replace(real, pixels=np.roll(real.pixels, -6, axis=2))
    pairs = np.array([[i, i] for i in range(6)])
    apart = join(real, moved, pairs, WIDE.margin, NO_SHIFT)
    shift = measure_shift(zip(apart.real, apart.fake, strict=True))
    assert shift.tolist() == [-6, 0]
    sample = join(real, moved, pairs, WIDE.margin, shift)
    inner = (slice(None), slice(10, 150), slice(10, 150))
    np.testing.assert_allclose(sample.real[inner], sample.fake[inner], atol=1)


def test_a_shard_is_copied_once_where_it_is_to_be_kept(dataset, tmp_path, monkeypatch):
    source = ClipSource(dataset, keep=str(tmp_path / "copies"))
    row, *_, last = source.rows()
    expected = ClipSource(dataset).read(last).pixels
    source.read(row)
    monkeypatch.setattr(source, "_store", None)  # nothing more is asked of the store
    monkeypatch.setattr("tellframe.train.clips.open_store", lambda *_: None)
    np.testing.assert_array_equal(source.read(last).pixels, expected)
    assert [p.name for p in (tmp_path / "copies").rglob("*.tar")] == [Path(row.shard).name]


# What is made of them.


def only(faces, scenes):
    """Return training data of clips of shards, and of nothing else."""
    return dataclasses.replace(
        faces.data(videos=(), reals=(), stills=(), portraits=()), clips=scenes
    )


def test_the_rarer_class_weighs_more_and_pairs_weigh_the_same(dataset, faces):
    scenes = tuple(load_scenes([dataset], MODEL, split="train"))  # one real, three fakes
    data = dataclasses.replace(faces.data(), clips=scenes)
    asked = BatchConfig(
        video_pairs=1, still_pairs=0, part_blends=0, self_blends=1, clip_pairs=4, balance="weighted"
    )
    batch = PairBatches(data, asked, Recipe(crop_size=32), 2, seed=0)[0]
    assert batch.paired.tolist() == [True, True, False, False, False, False]
    assert batch.weights[:4].tolist() == [1.0] * 4
    expected = [2 / 3 if fake else 2.0 for fake in batch.labels[4:].tolist()]
    assert batch.weights[4:].tolist() == pytest.approx(expected)
    assert set(batch.labels[4:].tolist()) == {0.0, 1.0}


def test_fakes_without_their_originals_are_measured_too(dataset, faces, config):
    scenes = tuple(load_scenes([dataset], MODEL, split="train"))
    apart = [dataclasses.replace(s, fakes=()) if s.real else s for s in scenes]
    model = build_model(config.model, config.recipe)
    together = validate(model, only(faces, scenes), config)
    assert set(together) == {"clip_auc", "clip_ranked", "clip_log_loss", "log_loss"}
    measured = validate(model, only(faces, tuple(apart)), config)
    assert set(measured) == {"clip_auc", "clip_log_loss", "log_loss"}
    assert measured["clip_auc"] in (0.0, 0.5, 1.0)  # of one real and one fake
    assert 0 < measured["log_loss"] < 5
    assert validate(model, only(faces, tuple(s for s in scenes if not s.real)), config) == {}


def test_fakes_that_do_not_differ_are_measured_without_their_originals(dataset, faces, config):
    """As fakes are whose sound alone was changed: no pair shows a difference."""
    (scene,) = (s for s in load_scenes([dataset], MODEL, split="train") if s.group == "g")
    same = scene.fakes[scene.methods.index("none")]
    alike = (dataclasses.replace(scene, fakes=(same,)),)
    model = build_model(config.model, config.recipe)
    measured = validate(model, only(faces, alike), config)
    assert set(measured) == {"clip_auc", "clip_log_loss", "log_loss"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "best"}, "keep = 'best': no real and fake is held out .* set keep = 'last'"),
        ({"schedule": "plateau"}, "schedule = 'plateau': no real .* set schedule = 'cosine'"),
    ],
)
def test_what_follows_validation_needs_both_classes(dataset, faces, options, message):
    scenes = tuple(load_scenes([dataset], MODEL, split="train"))
    require_held_out(OptimConfig(**options), only(faces, scenes))
    fakes = tuple(s for s in scenes if not s.real)
    require_held_out(OptimConfig(), only(faces, fakes))
    with pytest.raises(ConfigError, match=message):
        require_held_out(OptimConfig(**options), only(faces, fakes))


def test_examples_come_from_the_shards_where_they_are_named(dataset):
    found = load_examples(
        TrainConfig(recipe=MODEL, data=DataConfig(shards=(dataset,), validation=0.0)),
        np.random.default_rng(0),
    )
    assert len(found) == 2
    assert sorted(s.fake is s.real for s in found) == [False, True]  # "g", and "h" without a real
