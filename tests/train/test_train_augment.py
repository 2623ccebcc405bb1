"""The contract of every augmentation: pure, decided by its generator, alike for both halves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tellframe.train.augment import (
    ARRANGEMENTS,
    DEGRADATIONS,
    FROM_PAIRS,
    FROM_REALS,
    Sample,
    apply,
    arrange,
    choose,
    degrade,
    registry,
)
from tellframe.train.autoencoder import Autoencoder, all_makers
from tellframe.train.config import AugmentConfig

pytestmark = pytest.mark.train

SEEDS = range(4)
MAKERS = all_makers((Autoencoder(32, 2, 3).eval(),))
CHANGES = ARRANGEMENTS | DEGRADATIONS
NEVER = AugmentConfig(**dict.fromkeys(CHANGES, 0.0))
ALWAYS = AugmentConfig(**dict.fromkeys(CHANGES, 1.0))


def call(name, sample, other, seed):
    rng = np.random.default_rng(seed)
    return MAKERS[name](sample, other, rng) if name in MAKERS else CHANGES[name](sample, rng)


def arrays(sample):
    return [getattr(sample, f.name) for f in dataclasses.fields(sample)]


def assert_same(a, b):
    for x, y in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_array_equal(x, y)


def gap(sample):
    """Return the mean over channels of the difference of both halves, (T, P, P)."""
    return np.abs(sample.real.astype(int) - sample.fake).mean(axis=3)


def inner(values):
    """Return the part that the drawn fakes change."""
    return values[..., 44:76, 44:68]


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("name", [*MAKERS, *CHANGES])
def test_every_one_is_pure_and_keeps_the_form(faces, name, frames):
    sample, other = faces.sample(1, frames), faces.sample(2, 3)
    before = [x.copy() for s in (sample, other) for x in arrays(s)]
    varied = False
    for seed in SEEDS:
        first, again = (call(name, sample, other, seed) for _ in "12")
        assert_same(first, again)
        for x, y in zip(arrays(first), arrays(sample), strict=True):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
        third = call(name, sample, other, seed + 50)
        varied |= not all(map(np.array_equal, arrays(first), arrays(third)))
    for x, y in zip(before, [x for s in (sample, other) for x in arrays(s)], strict=True):
        np.testing.assert_array_equal(x, y)
    inert = name == "flip" or (frames == 1 and name in ("shuffle", "frame_rate"))
    assert varied is not inert


@pytest.mark.parametrize("name", [*MAKERS, *CHANGES])
def test_parameters_are_drawn_once_for_a_clip(faces, name):
    """A face that stands still does not flicker, but for noise and a slow drift."""
    sample, other = faces.sample(1, 6, still=True), faces.sample(2, 6, still=True)
    for seed in SEEDS:
        done = call(name, sample, other, seed)
        for half in (done.real, done.fake):
            steps = np.abs(np.diff(half.astype(int), axis=0))
            assert steps.mean() < (11 if name == "noise" else 4)
            # The whole way is not much more than a step of it.
            there = np.abs(half[-1].astype(int) - half[0]).mean()
            assert there < (11 if name == "noise" else 6)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("name", CHANGES)
def test_both_halves_are_changed_alike(faces, name, frames):
    pair = faces.sample(1, frames)
    twins = dataclasses.replace(pair, fake=pair.real.copy())
    alone = dataclasses.replace(pair, fake=pair.real)
    for seed in SEEDS:
        done = call(name, twins, None, seed)
        if name == "noise":
            assert np.abs(gap(done)).mean() < 12
        else:
            np.testing.assert_array_equal(done.real, done.fake)
        kept = call(name, alone, None, seed)
        assert kept.fake is kept.real  # still no fake
        np.testing.assert_array_equal(kept.real, done.real)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("name", CHANGES)
def test_a_fake_stays_one_where_it_was(faces, name, frames):
    sample = faces.sample(1, frames, still=True)
    for seed in range(8):
        difference = gap(call(name, sample, None, seed))
        assert (
            difference[:, :12].mean(axis=(1, 2)) < inner(difference).mean(axis=(1, 2)) / 2
        ).all()


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("name", MAKERS)
def test_makers_change_the_face_of_every_frame_and_nothing_else(faces, name, frames):
    sample, other = faces.sample(1, frames), faces.sample(2, frames)
    for seed in range(8):
        made = call(name, sample, other, seed)
        np.testing.assert_array_equal(made.boxes, sample.boxes)
        np.testing.assert_array_equal(made.landmarks, sample.landmarks)
        difference = gap(made)
        assert (difference.max(axis=(1, 2)) > 6).all()
        assert difference[:, 0, [0, -1]].max() <= 1
        if name not in (
            "self_blend",
            "local_blend",
        ):  # whose background may be altered, in both halves
            np.testing.assert_array_equal(made.real, sample.real)


def test_makers_from_reals_look_at_no_fake(faces):
    sample, other = faces.sample(1, 2), faces.sample(2, 2)
    painted = [dataclasses.replace(s, fake=np.full_like(s.fake, 255)) for s in (sample, other)]
    for name in FROM_REALS:
        for seed in SEEDS:
            assert_same(call(name, sample, other, seed), call(name, *painted, seed))


def test_every_name_has_a_probability_and_a_description():
    fields = [f.name for f in dataclasses.fields(AugmentConfig)]
    assert set(fields) == {*MAKERS, *CHANGES}
    assert set(MAKERS) == {*FROM_REALS, *FROM_PAIRS}
    assert not set(ARRANGEMENTS) & set(DEGRADATIONS)
    assert all(f.__doc__ for f in (MAKERS | CHANGES).values())


# All together.


def test_apply_arranges_and_degrades_in_the_order_of_the_tables(faces, monkeypatch):
    done = []
    for table in (registry.ARRANGEMENTS, registry.DEGRADATIONS):
        for name in table:
            monkeypatch.setitem(table, name, lambda s, rng, n=name: (done.append(n), s)[1])
    apply(faces.sample(1), ALWAYS, np.random.default_rng(0))
    assert done == [*ARRANGEMENTS, *DEGRADATIONS]
    assert done.index("cutout") < done.index("relight") < done.index("noise") < done.index("h264")


def test_nothing_happens_without_probability(faces):
    sample = faces.sample(1, 3)
    assert apply(sample, NEVER, np.random.default_rng(0)) is sample


def test_each_comes_as_often_as_configured(faces, monkeypatch):
    done = []
    for name in DEGRADATIONS:
        monkeypatch.setitem(
            registry.DEGRADATIONS, name, lambda s, rng, n=name: (done.append(n), s)[1]
        )
    config = dataclasses.replace(NEVER, relight=1.0, jpeg=0.7, noise=0.2)
    rng = np.random.default_rng(0)
    sample = faces.sample(1)
    for _ in range(500):
        degrade(sample, config, rng)
    assert done.count("relight") == 500
    assert done.count("jpeg") / 500 == pytest.approx(0.7, abs=0.07)
    assert done.count("noise") / 500 == pytest.approx(0.2, abs=0.07)
    assert len(set(done)) == 3


@pytest.mark.parametrize("frames", [1, 4])
def test_everything_at_once_keeps_form_and_label(faces, frames):
    sample = faces.sample(1, frames)
    for seed in SEEDS:
        done = apply(sample, ALWAYS, np.random.default_rng(seed))
        assert isinstance(done, Sample)
        assert [(x.shape, x.dtype) for x in arrays(done)] == [
            (x.shape, x.dtype) for x in arrays(sample)
        ]
        assert gap(done).max() > 20


def test_arrange_keeps_pixel_values(faces):
    sample = faces.sample(1, 4)
    config = dataclasses.replace(NEVER, shuffle=1.0, frame_rate=1.0, flip=1.0)
    done = arrange(sample, config, np.random.default_rng(0))
    assert {f.tobytes() for f in done.real[:, :, ::-1]} <= {f.tobytes() for f in sample.real}


def test_choose_draws_by_weight():
    config = AugmentConfig(self_blend=0.2, swap_blend=0.6, part_blend=0.0, mixup=0.1)
    rng = np.random.default_rng(0)
    drawn = [choose(FROM_REALS, config, rng) for _ in range(800)]
    assert drawn.count("self_blend") / 800 == pytest.approx(0.25, abs=0.06)
    assert {choose(FROM_PAIRS, config, rng) for _ in range(50)} == {"mixup"}
