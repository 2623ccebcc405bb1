"""Batches: decided by seed and step alone, in pairs, out of whatever data there is."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train import batches as batches_module
from tellframe.train.autoencoder import Autoencoder
from tellframe.train.batches import PairBatches, open_batches
from tellframe.train.config import AugmentConfig, BatchConfig

pytestmark = pytest.mark.train

RECIPE = Recipe(crop_size=32)


def pairs(video, still, part, own):
    return BatchConfig(video_pairs=video, still_pairs=still, part_blends=part, self_blends=own)


TWO_OF_EACH = pairs(2, 2, 2, 2)
VIDEOS, STILLS = pairs(4, 0, 0, 0), pairs(0, 4, 0, 0)
RED, BLUE = (90, -60, -60), (-60, -60, 90)


def make(data, batch=TWO_OF_EACH, seed=0):
    return PairBatches(data, batch, RECIPE, 2, seed)


def assert_equal(a, b):
    for field in dataclasses.fields(a):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


def test_form_of_a_batch(faces):
    batch = make(faces.data())[0]
    assert (batch.crops.dtype, tuple(batch.crops.shape)) == (torch.uint8, (16, 1, 32, 32, 3))
    assert (batch.labels.dtype, batch.labels.tolist()) == (torch.float32, [0.0, 1.0] * 8)
    assert (batch.differences.dtype, batch.differences.shape) == (torch.float32, (16, 1, 2, 2))


def test_a_step_depends_on_seed_and_step_alone(faces):
    first, again = make(faces.data()), make(faces.data())
    expected = {step: first[step] for step in (0, 1, 7)}
    for step in (7, 0, 7, 1):  # in another order, and twice
        assert_equal(again[step], expected[step])
    for a, b in itertools.combinations(expected.values(), 2):
        assert not torch.equal(a.crops, b.crops)
    assert not torch.equal(make(faces.data(), seed=1)[0].crops, expected[0].crops)


def test_reals_differ_from_themselves_nowhere(faces):
    batches = make(faces.data())
    fakes = []
    for step in range(6):
        differences = batches[step].differences
        assert torch.equal(differences[0::2], torch.zeros(8, 1, 2, 2))
        fakes.append(differences[1::2])
    known = torch.stack(fakes)
    assert set(known.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert (known == 1).float().mean() > 0.1


def test_fakes_come_after_their_own_real(faces, monkeypatch):
    """The halves of a pair show one picture but for the swapped face, which is less red."""
    monkeypatch.setattr(batches_module, "degrade", lambda sample, config, rng: sample)
    batches = make(faces.data(), pairs(4, 4, 4, 0))
    for step in range(4):
        crops = batches[step].crops.int()
        change = crops[1::2] - crops[0::2]
        assert (change[..., 0].sum(dim=(1, 2, 3)) < 0).all()
        assert (change[..., 2].sum(dim=(1, 2, 3)) > 0).all()
        assert (change.abs().amax(dim=4) <= 2).float().mean() > 0.5


@pytest.mark.parametrize("workers", [0, 1, 2])
# Python 3.12 and later warn of fork in a process with threads; torch's loader forks on Linux.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_loader_gives_the_steps_in_order(faces, workers):
    batches = make(faces.data())
    loaded = list(open_batches(batches, 3, 8, workers))
    assert len(loaded) == 5
    for step, batch in enumerate(loaded, start=3):
        assert_equal(batch, batches[step])


def test_nothing_is_left_to_load_at_the_end(faces):
    assert list(open_batches(make(faces.data()), 5, 5, 0)) == []


# Which scenes are drawn.


def test_methods_are_drawn_by_the_square_root_of_their_scenes(faces):
    videos = (
        *(faces.video(seed, ("common",), 1, tint=RED) for seed in range(9)),
        faces.video(9, ("rare",), 1, tint=BLUE),
    )
    batches = make(faces.data(videos=videos), VIDEOS)
    share = dict(zip(batches.by_method, batches.method_share, strict=True))
    assert share == pytest.approx({"common": 3 / 4, "rare": 1 / 4})
    rng = np.random.default_rng(0)
    drawn = [batches._video_pair(rng) for _ in range(400)]
    red = [(s.fake.astype(int) - s.real)[0, 60, 56, 0] > 0 for s in drawn]
    assert np.mean(red) == pytest.approx(3 / 4, abs=0.08)


def test_favoured_methods_are_drawn_more_often(faces):
    videos = (faces.video(1, ("a", "b", "c"), 1),)
    favour = dataclasses.replace(VIDEOS, favoured=("b",), favour=4.0)
    batches = make(faces.data(videos=videos), favour)
    share = dict(zip(batches.by_method, batches.method_share, strict=True))
    assert share == pytest.approx({"a": 1 / 6, "b": 4 / 6, "c": 1 / 6})


def test_a_favoured_method_that_is_not_there_is_an_error(faces):
    favour = dataclasses.replace(VIDEOS, favoured=("swap", "swop"), favour=4.0)
    with pytest.raises(ConfigError, match=r"favoured: no video of the methods \['swop'\]"):
        make(faces.data(), favour)


def test_a_scene_with_two_fakes_of_a_method_counts_once(faces):
    videos = (faces.video(1, ("a", "a", "a", "a"), 1), faces.video(2, ("b",), 1))
    batches = make(faces.data(videos=videos), VIDEOS)
    assert batches.method_share == pytest.approx([0.5, 0.5])


def test_unswapped_frames_are_never_shown_as_fake(faces):
    scene = faces.video(1, ("swap", "none"), frames=4, swapped=(2,))
    scene.swapped[1] = False
    batches = make(faces.data(videos=(scene,)), VIDEOS)
    assert set(batches.by_method) == {"swap"}
    rng = np.random.default_rng(0)
    for _ in range(20):
        pair = batches._video_pair(rng)
        np.testing.assert_array_equal(pair.real[0], scene.real[2])
        assert not np.array_equal(pair.real, pair.fake)


def test_blends_are_made_of_reals_alone(faces):
    """The fakes are painted magenta here: none of it may show in a blend."""
    rng = np.random.default_rng(0)
    videos = tuple(faces.video(s, tint=(120, -120, 120)) for s in (1, 2))
    batches = make(faces.data(videos=videos), pairs(0, 0, 0, 4))
    reals = [p for v in videos for p in v.real]
    reals += [p for v in faces.data().reals for p in v.real]
    reals += [s.sample(None).real[0] for s in faces.data().stills + faces.data().portraits]
    seen = set()
    for _ in range(200):
        drawn = batches.draw_real(rng)
        assert drawn.fake is drawn.real
        seen.add(next(i for i, r in enumerate(reals) if np.array_equal(r, drawn.real[0])))
    assert seen == set(range(len(reals)))


def draw_reals(faces, count, *, clips=(), **without):
    """Draw real faces; return their places among all real pictures, -1 for a clip of shards."""
    data = dataclasses.replace(faces.data(**without), clips=clips)
    batches = make(data, pairs(0, 0, 0, 1))
    reals = [p for s in data.videos + data.reals for p in s.real]
    reals += [s.sample(None).real[0] for s in data.stills + data.portraits]
    rng = np.random.default_rng(0)
    drawn = (batches.draw_real(rng).real[0] for _ in range(count))
    return [next((i for i, r in enumerate(reals) if np.array_equal(r, d)), -1) for d in drawn]


@pytest.mark.parametrize(
    ("without", "drawn"),
    [
        ((), [10, 0, 9, 10, 10, 12, 10, 5, 8, 2, 11, 11]),
        (("videos", "reals"), [1, 2, 2, 1, 1, 3, 0, 3, 1, 0, 2, 3]),
        (("stills",), [10, 0, 9, 10, 10, 10, 10, 5, 8, 2, 9, 9]),
        (("portraits",), [10, 0, 9, 10, 10, 10, 10, 5, 8, 2, 9, 9]),
        (("stills", "portraits"), [3, 0, 5, 8, 5, 6, 3, 6, 1, 4, 0, 4]),
    ],
)
def test_a_seed_draws_the_same_reals_for_ever(faces, without, drawn):
    """Otherwise the shipped model could not be trained again."""
    assert draw_reals(faces, len(drawn), **dict.fromkeys(without, ())) == drawn


class Shard:
    """Stands for a real clip of shards that shows one face."""

    real, fakes = "row", ()

    def __init__(self, sample):
        self.alone = lambda fake, rng, num_frames: sample


@pytest.mark.parametrize("kinds", [*itertools.product((True, False), repeat=3)], ids=str)
def test_reals_come_from_every_kind_that_there_is(faces, kinds):
    films, crops, portraits = kinds
    left_out = {
        **({} if films else {"videos": (), "reals": ()}),
        **({} if crops else {"stills": ()}),
        **({} if portraits else {"portraits": ()}),
    }
    drawn = draw_reals(faces, 400, clips=(Shard(faces.sample(99)),), **left_out)
    num_films, num_crops = 9 * films, 2 * crops
    found = {
        "clip": np.mean([d == -1 for d in drawn]),
        "video": np.mean([0 <= d < num_films for d in drawn]),
        "crop": np.mean([num_films <= d < num_films + num_crops for d in drawn]),
        "portrait": np.mean([d >= num_films + num_crops for d in drawn]),
    }
    pictured = 0.6 if crops or portraits else 0.0
    expected = {
        "clip": (1 - pictured) * (0.5 if films else 1),
        "video": (1 - pictured) * (0.5 if films else 0),
        "crop": 0.6 if crops and not portraits else 0.4 * crops,
        "portrait": 0.6 if portraits and not crops else 0.2 * portraits,
    }
    assert found == pytest.approx(expected, abs=0.08)


# Augmentation by its configuration.


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({}, {"self_blend", "swap_blend", "part_blend"}),
        ({"swap_blend": 0.0}, {"self_blend", "part_blend"}),
        ({"self_blend": 0.0, "part_blend": 0.0, "mixup": 0.1}, {"swap_blend", "mixup"}),
        (
            {"self_blend": 0.0, "painted_blend": 0.5},
            {"swap_blend", "painted_blend", "part_blend"},
        ),
        (
            {"self_blend": 0.0, "swap_blend": 0.0, "local_blend": 0.1},
            {"local_blend", "part_blend"},
        ),
    ],
)
def test_makers_are_drawn_by_their_weights(faces, weights, names):
    used = set()
    data = dataclasses.replace(faces.data(), coders=(Autoencoder(32, 2, 3).eval(),))
    batches = PairBatches(data, pairs(0, 0, 2, 2), RECIPE, 2, 0, AugmentConfig(**weights))
    batches.makers = {
        name: lambda *given, n=name, m=maker: (used.add(n), m(*given))[1]
        for name, maker in batches.makers.items()
    }
    for step in range(12):
        batches[step]
    assert used == names


def test_painted_blends_need_autoencoders(faces):
    config = AugmentConfig(painted_blend=0.5)
    with pytest.raises(ConfigError, match=r"painted_blend.*\[data\] autoencoders"):
        PairBatches(faces.data(), pairs(0, 0, 0, 1), RECIPE, 2, 0, config)
    PairBatches(faces.data(), pairs(2, 0, 0, 0), RECIPE, 2, 0, config)  # none is asked for


def test_differences_follow_the_mirror(faces):
    still = AugmentConfig(relight=0, rescale=0, blur=0, noise=0, jpeg=0, flip=1.0)
    batch = PairBatches(faces.data(), pairs(2, 2, 0, 0), RECIPE, 32, 0, still)[0]
    gap = (batch.crops[1::2].int() - batch.crops[0::2].int()).abs().float().mean(dim=4)
    known = batch.differences[1::2]
    assert (gap[known == 1] > 6).all()
    assert (gap[known == 0] < 2).all()
    assert (known == 1).flatten(1).any(dim=1).all()


# Whatever data there is.

WITHOUT = [
    ("videos",),
    ("stills",),
    ("portraits",),
    ("reals",),
    ("videos", "reals"),
    ("stills", "portraits"),
    ("videos", "reals", "portraits"),
    ("stills", "portraits", "reals"),
]


@pytest.mark.parametrize("kinds", WITHOUT, ids="+".join)
def test_works_without_some_kinds_of_data(faces, kinds):
    batches = make(faces.data(**dict.fromkeys(kinds, ())))
    for step in range(4):
        batch = batches[step]
        assert len(batch.crops) == 16
        assert not torch.equal(batch.crops[0::2], batch.crops[1::2])


@pytest.mark.parametrize("kept", ["videos", "reals", "stills", "portraits"])
def test_self_blends_need_any_face(faces, kept):
    without = {k: () for k in ("videos", "reals", "stills", "portraits") if k != kept}
    assert len(make(faces.data(**without), pairs(0, 0, 0, 3))[0].crops) == 6


@pytest.mark.parametrize(
    ("batch", "kinds"),
    [
        (VIDEOS, ("videos", "stills")),
        (STILLS, ("videos", "stills")),
        (pairs(0, 0, 1, 0), ("videos", "stills")),
        (TWO_OF_EACH, ("videos", "stills", "reals", "portraits")),
        (pairs(0, 0, 0, 1), ("videos", "stills", "reals", "portraits")),
    ],
)
def test_nothing_to_train_on_is_an_error_that_names_the_keys(faces, batch, kinds):
    with pytest.raises(ConfigError, match=r"\[data\] shards, labels"):
        make(faces.data(**dict.fromkeys(kinds, ())), batch)


def test_only_unswapped_videos_are_nothing_to_train_on(faces):
    videos = (faces.video(1, swapped=()),)
    with pytest.raises(ConfigError, match=r"\[data\] shards, labels"):
        make(faces.data(videos=videos, stills=()), VIDEOS)


# Prepared by several processes.


@pytest.mark.parametrize("balance", ["paired", "apart"])
@pytest.mark.parametrize("share", [2, 4])
def test_shares_of_a_batch_are_those_pairs_of_the_whole(faces, balance, share):
    batch = dataclasses.replace(TWO_OF_EACH, balance=balance)
    whole = PairBatches(faces.data(), batch, RECIPE, 2, 0)[3]
    together = 8 if balance == "paired" else 4
    assert whole.paired.tolist() == [True] * together + [False] * (8 - together)
    for first in range(share):
        places = range(first, 8, share)
        part = PairBatches(faces.data(), batch, RECIPE, 2, 0, None, places)[3]
        clips = torch.tensor([2 * place + half for place in places for half in (0, 1)])
        assert torch.equal(part.paired, whole.paired[list(places)])
        for name in ("crops", "valid", "labels", "weights", "differences"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[clips]), name


def test_apart_puts_no_pair_into_a_batch(faces):
    """Every clip of videos and crops comes from a scene of its own draw, and says so."""
    together, apart = (
        make(faces.data(), dataclasses.replace(pairs(2, 2, 0, 1), balance=balance))[0]
        for balance in ("paired", "apart")
    )
    assert together.paired.all()
    assert sorted(apart.paired.tolist()) == [False] * 4 + [True]
    assert apart.labels.tolist() == together.labels.tolist()
    strangers = ~apart.paired.repeat_interleave(2)
    fakes = apart.labels.bool() & strangers
    assert (apart.differences[fakes] == -1).all()  # unknown without its own real
    assert (apart.differences[~apart.labels.bool()] == 0).all()
