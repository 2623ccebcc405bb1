"""The training loop: steps, losses, exact resume, checkpoints, validation and log."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tellframe.errors import ConfigError, RecipeMismatchError
from tellframe.train import checkpoint, loop, tensorfile, validation
from tellframe.train.augment import cut
from tellframe.train.batches import Batch, PairBatches
from tellframe.train.checkpoint import (
    load_checkpoint,
    load_start,
    load_trained,
    read_checkpoint,
    save_average,
    save_start,
)
from tellframe.train.config import HEADS, BatchConfig, OptimConfig
from tellframe.train.loop import build_batches, num_cells, train, train_step
from tellframe.train.losses import pair_losses
from tellframe.train.models import build_model
from tellframe.train.optimizer import build_optimizer, learning_rate, update_mean
from tellframe.train.state import Progress, TrainState, build_state
from tellframe.train.tensorfile import write_tensors
from tellframe.train.validation import score, validate

pytestmark = pytest.mark.train


def build(config, seed=0):
    torch.manual_seed(seed)
    return build_model(config.model, config.recipe)


def changed(config, **tables):
    """Return the configuration with fields of its tables replaced."""
    new = {k: dataclasses.replace(getattr(config, k), **v) for k, v in tables.items()}
    return dataclasses.replace(config, **new)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_tensors(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def rewrite(folder, tensors, meta):
    write_tensors(folder / "checkpoint.safetensors", tensors, meta)


# The schedule.


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.02), (1, 0.04), (49, 1.0), (50, 1.0), (100, 0.5), (150, 0.0), (75, 0.5 + 0.5**1.5)],
)
def test_learning_rate_warms_up_and_falls_by_half_a_cosine(step, expected):
    config = OptimConfig(lr=1.0, steps=150, warmup=50)
    assert learning_rate(step, config) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 1, 10, 20])
def test_learning_rate_is_never_negative_nor_above_its_peak(warmup):
    config = OptimConfig(lr=0.3, steps=10, warmup=warmup)
    rates = [learning_rate(step, config) for step in range(10)]
    assert all(0 < rate <= 0.3 for rate in rates)
    peak = rates.index(max(rates))
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)


# The losses, by hand.


def softplus(x):
    return math.log1p(math.exp(x))


def make_batch(differences, labels=(0, 1, 0, 1), **changes):
    """Make a batch of clips of one frame."""
    batch = Batch(
        crops=torch.zeros(len(labels), 1, 8, 8, 3, dtype=torch.uint8),
        valid=torch.ones(len(labels), 1, dtype=torch.bool),
        labels=torch.tensor(labels, dtype=torch.float32),
        weights=torch.ones(len(labels)),
        paired=torch.ones(len(labels) // 2, dtype=torch.bool),
        differences=torch.tensor(differences, dtype=torch.float32)[:, None],
    )
    return dataclasses.replace(batch, **changes)


def test_losses_by_hand():
    logits = torch.tensor([1.0, 3.0, -2.0, 0.5])
    maps = torch.tensor([[[0.0, 1.0]], [[2.0, -1.0]], [[0.5, 0.5]], [[4.0, 4.0]]])
    batch = make_batch([[[0, 0]], [[1, -1]], [[0, -1]], [[-1, 1]]])
    losses = pair_losses(logits, maps[:, None], batch)
    label = (softplus(1.0) + softplus(-3.0) + softplus(-2.0) + softplus(-0.5)) / 4
    pair = (softplus(1.0 - 3.0) + softplus(-2.0 - 0.5)) / 2
    # Five cells are known: reals 0, 1, 0.5 with target 0, fakes 2 and 4 with target 1.
    cells = [softplus(0.0), softplus(1.0), softplus(0.5), softplus(-2.0), softplus(-4.0)]
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(
        {"loss": label, "pair": pair, "map": sum(cells) / 5}, abs=1e-6
    )


@pytest.mark.parametrize(("real", "fake", "low"), [(-3.0, 3.0, True), (3.0, -3.0, False)])
def test_pair_loss_wants_the_fake_above_its_own_real(real, fake, low):
    zeros = [[[0]], [[0]]]
    losses = pair_losses(
        torch.tensor([real, fake]), torch.zeros(2, 1, 1, 1), make_batch(zeros, (0, 1))
    )
    assert (losses["pair"].item() < 0.1) is low
    assert losses["pair"].item() == pytest.approx(softplus(real - fake), abs=1e-6)


def test_unknown_places_have_neither_loss_nor_gradient():
    maps = torch.tensor([[[5.0]], [[-5.0]]], requires_grad=True)
    losses = pair_losses(torch.zeros(2), maps[:, None], make_batch([[[-1]], [[-1]]], (0, 1)))
    assert losses["map"].item() == 0
    losses["map"].backward()
    assert not maps.grad.any()


def test_two_clips_that_are_no_pair_have_no_order():
    logits, maps = torch.tensor([1.0, 3.0, -2.0, 0.5]), torch.zeros(4, 1, 1, 1)
    batch = make_batch([[[0]]] * 4, paired=torch.tensor([False, True]))
    assert pair_losses(logits, maps, batch)["pair"].item() == pytest.approx(softplus(-2.5))
    batch = make_batch([[[0]]] * 4, paired=torch.tensor([False, False]))
    assert pair_losses(logits, maps, batch)["pair"].item() == 0


def test_weights_and_smoothed_labels():
    logits, maps = torch.tensor([1.0, 3.0]), torch.zeros(2, 1, 1, 1)
    batch = make_batch([[[0]]] * 2, (0, 1), weights=torch.tensor([2.0, 0.5]))
    expected = (2 * softplus(1.0) + 0.5 * softplus(-3.0)) / 2
    assert pair_losses(logits, maps, batch)["loss"].item() == pytest.approx(expected)
    batch = make_batch([[[0]]] * 2, (0, 1))
    real = 0.95 * softplus(1.0) + 0.05 * softplus(-1.0)
    fake = 0.95 * softplus(-3.0) + 0.05 * softplus(3.0)
    smoothed = pair_losses(logits, maps, batch, 0.1)["loss"].item()
    assert smoothed == pytest.approx((real + fake) / 2)


def test_a_plateau_reduces_the_rate():
    config = OptimConfig(lr=1.0, warmup=0, schedule="plateau", factor=0.5, patience=1)
    progress, rates = Progress(), []
    for loss in (0.9, 0.8, 0.8, 0.85, 0.7, 0.75, 0.74, 0.73):
        progress.note(loss, config.patience)
        rates.append(learning_rate(9, config, progress.reductions))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert progress.best == 0.7


# The running mean.


def test_running_mean_moves_weights_and_statistics_by_the_decay():
    model, mean = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(model.weight, 5.0)
    model.running_var.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    update_mean(mean, model, 0.75)
    assert mean.weight.tolist() == [2.0, 2.0]  # 0.75 * 1 + 0.25 * 5
    assert mean.running_var.tolist() == [1.5, 1.5]
    assert mean.num_batches_tracked.item() == 7
    assert model.weight.tolist() == [5.0, 5.0]


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (10**6, 0.998)])
def test_running_mean_follows_faster_early_on(config, faces, step, decay):
    config = changed(config, optim={"ema": 0.998, "steps": 2 * 10**6, "warmup": 1})
    model, mean = build(config), build(config, seed=1)
    before = {k: v.clone() for k, v in mean.named_parameters()}
    state = TrainState(model, mean, build_optimizer(model, config.optim))
    train_step(state, batches_of(faces, config)[0], step, config.optim)
    for name, now in mean.named_parameters():
        expected = decay * before[name] + (1 - decay) * dict(model.named_parameters())[name]
        torch.testing.assert_close(now.detach(), expected.detach(), atol=1e-5, rtol=1e-4)


# One step.


def batches_of(faces, config, **data):
    return PairBatches(faces.data(**data), config.batch, config.recipe, 2, config.optim.seed)


def test_weight_decay_is_for_matrices_and_kernels(config):
    optimizer = build_optimizer(build(config), config.optim)
    decayed, others = optimizer.param_groups
    assert decayed["weight_decay"] == config.optim.weight_decay > 0
    assert others["weight_decay"] == 0
    assert {p.ndim > 1 for p in decayed["params"]} == {True}
    assert {p.ndim > 1 for p in others["params"]} == {False}


def test_a_step_is_decided_by_its_number(config, faces):
    """Whatever was drawn before it: otherwise dropout would differ in a resumed run."""
    results = []
    for noise in (0, 5):
        state = build_state(config)
        torch.rand(noise)
        batch = batches_of(faces, config)[3]
        results.append((train_step(state, batch, 3, config.optim), state.model.state_dict()))
        assert state.optimizer.param_groups[0]["lr"] == learning_rate(3, config.optim)
    assert results[0][0] == results[1][0]
    assert_same_tensors(results[0][1], results[1][1])


def test_overfits_a_handful_of_pairs(config, faces):
    config = changed(config, optim={"steps": 1000, "warmup": 3, "lr": 3e-3})
    pairs = BatchConfig(video_pairs=3, still_pairs=3, part_blends=0, self_blends=0)
    config = dataclasses.replace(config, batch=pairs)
    state = build_state(config)
    batch = batches_of(faces, config)[0]
    losses = [train_step(state, batch, step, config.optim) for step in range(15)]
    for name, most in (("loss", 0.5), ("pair", 0.5), ("map", 0.7)):
        assert losses[-1][name] < most * losses[0][name], name
    state.model.train()  # with the statistics of this batch: those of the run are still young
    with torch.no_grad():
        logits, _, _ = state.model(batch.crops, batch.valid)
    assert (logits[1::2] > logits[0::2]).all()


def test_the_gradient_is_clipped(config, faces):
    config = changed(config, optim={"clip": 1e-3})
    state = build_state(config)
    train_step(state, batches_of(faces, config)[0], 0, config.optim)
    norm = torch.stack([p.grad.norm() for p in state.model.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("training", [True, False])
def test_counting_cells_changes_nothing(config, training):
    model = build(config).train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert num_cells(model, config) == 2
    assert model.training is training
    assert_same_tensors(model.state_dict(), before)


def test_crops_in_training_may_be_smaller_than_those_judged(faces, config):
    small = changed(config, batch={"crop_size": 32})
    batch = build_batches(faces.data(), build(small), small)[0]
    assert config.recipe.crop_size == small.recipe.crop_size == 64
    assert batch.crops.shape[2:4] == (32, 32)
    assert batch.differences.shape[-1] == num_cells(build(small), small) == 1
    same = build_batches(faces.data(), build(config), config)[0]
    assert same.crops.shape[2:4] == (64, 64)


# Whole runs, and what interrupts them.


class Stopped(Exception):  # noqa: N818 - an interruption, not an error
    """Stands for a lost machine."""


@pytest.fixture
def run(faces, monkeypatch):
    """Train on drawn faces; `stop` breaks the run off before that step."""
    monkeypatch.setattr(loop, "load_data", lambda *_: (faces.data(), faces.data()))
    monkeypatch.setattr(loop, "keep_memory", lambda: None)  # changes the whole process

    def start(config, folder, *, stop=None, workers=0, **given):
        def step_or_stop(*arguments):
            if arguments[2] == stop:
                raise Stopped
            return train_step(*arguments)

        monkeypatch.setattr(loop, "train_step", step_or_stop)
        if stop is None:
            return train(config, folder, workers=workers, **given)
        with pytest.raises(Stopped):
            train(config, folder, workers=workers, **given)
        return None

    return start


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("backbone", "stop", "workers"),
    [("test_efficientnet", 3, 0), ("test_efficientnet", 5, 1), ("test_resnet", 3, 0)],
)
def test_a_resumed_run_repeats_the_straight_one_bit_by_bit(
    config, run, tmp_path, backbone, stop, workers
):
    config = changed(config, model={"backbone": backbone, "dropout": 0.5})
    straight = run(config, tmp_path / "straight", workers=workers)
    run(config, tmp_path / "broken", stop=stop, workers=workers)
    assert read_checkpoint(tmp_path / "broken")[0]["step"] == 3
    resumed = run(config, tmp_path / "broken", resume=True, workers=workers)
    assert_same_tensors(resumed.state_dict(), straight.state_dict())
    (one, expected), (two, tensors) = (
        read_checkpoint(tmp_path / name) for name in ("straight", "broken")
    )
    assert one == two
    assert_same_tensors(tensors, expected)  # the model, its mean and the optimiser's state
    rows = [
        {
            r["step"]: {k: r[k] for k in ("loss", "pair", "map")}
            for r in log_of(folder)
            if "loss" in r
        }
        for folder in (tmp_path / "straight", tmp_path / "broken")
    ]
    assert rows[0] == rows[1]
    assert list(rows[0]) == list(range(6))


def test_the_seed_decides_the_result(config, run, tmp_path):
    config = changed(config, optim={"steps": 2})
    first, again, other = (
        run(changed(config, optim={"seed": seed}), tmp_path / name).state_dict()
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert_same_tensors(first, again)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_finished_run_can_be_resumed_and_changes_nothing(config, run, tmp_path):
    done = run(config, tmp_path)
    lines = len(log_of(tmp_path))
    again = run(config, tmp_path, resume=True)
    assert_same_tensors(again.state_dict(), done.state_dict())
    assert len(log_of(tmp_path)) == lines


@pytest.mark.parametrize(
    ("tables", "listed"),
    [
        ({"optim": {"lr": 0.1}}, "optim.lr: 0.0004 there, 0.1 here"),
        ({"optim": {"seed": 9}}, "optim.seed: 0 there, 9 here"),
        ({"optim": {"steps": 7}}, "optim.steps: 6 there, 7 here"),
        ({"batch": {"still_pairs": 2}}, "batch.still_pairs: 1 there, 2 here"),
        ({"recipe": {"margin": 0.2}}, "recipe.margin: 0.1 there, 0.2 here"),
        ({"data": {"labels": "other.csv"}}, "data.labels: '' there, 'other.csv' here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(config, run, tmp_path, tables, listed):
    run(config, tmp_path, stop=3)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="another configuration") as raised:
        run(changed(config, **tables), tmp_path, resume=True)
    assert str(raised.value).endswith(f"choose another folder ({listed})")
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


ASIDE = {
    "name": "other",
    "data": {"cache": "elsewhere", "endpoint": "https://s3.example", "keep_shards": True},
    "optim": {"threads": 2, "checkpoint_every": 2, "stop": 5},
    "quality": {"crops": 8},
}


def test_a_run_goes_on_with_what_changes_no_weight(config, run, tmp_path):
    straight = run(changed(config, optim={"stop": 5}), tmp_path / "straight")
    run(config, tmp_path / "broken", stop=3)
    tables = {name: table for name, table in ASIDE.items() if name != "name"}
    other = dataclasses.replace(changed(config, **tables), name=ASIDE["name"])
    other = changed(other, optim={"threads": 1})  # more would change the rounding
    resumed = run(other, tmp_path / "broken", resume=True)
    assert_same_tensors(resumed.state_dict(), straight.state_dict())
    assert load_trained(tmp_path / "broken")[1] == other


@pytest.mark.parametrize(
    "key", [(table, key) for table in ("data", "optim", "quality") for key in ASIDE[table]], ids=str
)
def test_a_finished_run_takes_over_what_changes_no_weight(config, run, tmp_path, key, monkeypatch):
    """So that a probe can be fitted that was not asked for before, or from another cache."""
    monkeypatch.setattr(loop, "use_threads", lambda optim: None)  # changes the whole process
    done = run(changed(config, optim={"steps": 1}), tmp_path)
    table, name = key
    other = changed(config, optim={"steps": 1})
    other = changed(other, **{table: {name: ASIDE[table][name]}})
    run(other, tmp_path, resume=True)
    model, made, meta = load_trained(tmp_path)
    assert (made, meta["step"]) == (other, 1)
    assert_same_tensors(model.state_dict(), done.state_dict())
    run(other, tmp_path, resume=True)  # with the state of the optimiser, too


def test_a_folder_with_a_checkpoint_is_refused_without_resume(config, run, tmp_path):
    run(config, tmp_path, stop=3)
    with pytest.raises(ConfigError, match="holds a checkpoint; add --resume"):
        run(config, tmp_path)
    (tmp_path / "checkpoint.json").unlink()  # the file for people alone; the weights are there
    with pytest.raises(ConfigError, match="holds a checkpoint; add --resume"):
        run(config, tmp_path)


def test_a_key_of_a_later_version_counts_as_its_default(config, run, tmp_path):
    run(config, tmp_path, stop=3)
    meta, tensors = read_checkpoint(tmp_path)
    del meta["config"]["optim"]["clip"]
    rewrite(tmp_path, tensors, meta)
    run(config, tmp_path, resume=True)
    with pytest.raises(ConfigError, match="another configuration"):
        run(changed(config, optim={"clip": 2.0}), tmp_path, resume=True)


def test_nothing_to_resume_is_an_error(config, run, tmp_path):
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        run(config, tmp_path, resume=True)
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        load_trained(tmp_path)


def test_a_broken_save_leaves_the_last_checkpoint_whole(config, run, tmp_path, monkeypatch):
    def broken(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    run(config, tmp_path, stop=3)
    before, _ = read_checkpoint(tmp_path)
    monkeypatch.setattr(tensorfile, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        run(config, tmp_path, resume=True)
    assert read_checkpoint(tmp_path)[0] == before


def test_a_checkpoint_says_what_made_it(config, run, tmp_path):
    run(config, tmp_path)
    meta, tensors = read_checkpoint(tmp_path)
    assert meta == json.loads((tmp_path / "checkpoint.json").read_text())
    assert (meta["format"], meta["step"]) == (1, 6)
    assert meta["recipe_digest"] == config.recipe.digest
    assert {k.split(".")[0] for k in tensors} == {"model", "mean", "optimizer"}
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_the_running_mean_is_what_is_loaded(config, run, tmp_path):
    # The weights it started from may be gone by then.
    mean = run(config, tmp_path)
    model, loaded, meta = load_trained(tmp_path)
    assert_same_tensors(model.state_dict(), mean.state_dict())
    assert loaded == config
    assert meta["step"] == 6
    assert not model.training
    weights = read_checkpoint(tmp_path)[1]["model.head.weight"]
    assert not torch.equal(weights, model.head.weight)


def change_model(folder, **values):
    """Have a checkpoint say other things of its network."""
    meta, tensors = read_checkpoint(folder)
    meta["config"]["model"] |= values
    rewrite(folder, tensors, meta)


@pytest.mark.parametrize(("first", "then"), [(0, 3), (3, 0), (3, 4)])
def test_a_network_cut_off_elsewhere_gives_the_stages_that_both_keep(config, tmp_path, first, then):
    models = []
    for seed, stages in enumerate((first, then)):
        torch.manual_seed(seed)
        kept = dataclasses.replace(config, model=dataclasses.replace(config.model, stages=stages))
        models.append(build_model(kept.model, kept.recipe))
        if not seed:
            save_start(tmp_path, kept, models[0])
    given, model = models
    own = {k: v.clone() for k, v in model.state_dict().items()}
    load_start(tmp_path, kept, model)
    both = given.backbone.state_dict().keys() & model.backbone.state_dict().keys()
    assert any(k.startswith("blocks.1.") for k in both)
    for name, tensor in model.state_dict().items():
        shared = name.removeprefix("backbone.") in both
        source = given.state_dict() if shared else own
        assert torch.equal(tensor, source[name]), name


def test_loading_needs_no_pretrained_file(config, run, tmp_path):
    run(config, tmp_path)
    change_model(tmp_path, pretrained="gone.pth", frozen_stages=1)
    _, loaded, _ = load_trained(tmp_path)
    assert loaded.model.pretrained == "gone.pth"


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "local-dir:/tmp"])
def test_a_checkpoint_does_not_lead_elsewhere(config, run, tmp_path, name, monkeypatch):
    """Unless the user names the same place."""
    run(config, tmp_path)
    change_model(tmp_path, backbone=name)
    built = []

    def build(model, recipe):
        built.append(model.backbone)
        return build_model(config.model, recipe)

    monkeypatch.setattr(checkpoint, "build_model", build)
    for named in ("", "hf-hub:another/net"):
        with pytest.raises(ConfigError, match=r"from elsewhere; .* --backbone"):
            load_trained(tmp_path, backbone=named)
    assert built == []
    load_trained(tmp_path, backbone=name)
    assert built == [name]


def test_restoring_brings_back_the_optimiser(config, faces, run, tmp_path):
    run(config, tmp_path, stop=4)
    state = build_state(config)
    assert load_checkpoint(tmp_path, config, state) == 3
    steps = {s["step"].item() for s in state.optimizer.state.values()}
    assert steps == {3.0}
    assert len(state.optimizer.state) == len(list(state.model.parameters()))


def test_every_line_of_the_log_is_json(config, run, tmp_path, capsys):
    config = changed(config, optim={"validate_every": 4})
    run(config, tmp_path)
    rows = log_of(tmp_path)
    steps = [r for r in rows if "loss" in r]
    validations = [r for r in rows if "loss" not in r]
    assert [r["step"] for r in steps] == list(range(6))
    assert [r["step"] for r in validations] == [3, 5]
    for row in rows:
        assert all(math.isfinite(v) for v in row.values())
    names = [f"{a}_{b}" for a in ("video", "still") for b in ("auc", "ranked", "log_loss")]
    assert all(set(row) == {"step", "seconds", "log_loss", *names} for row in validations)
    shown = capsys.readouterr().err
    assert "step 1/6" in shown
    assert "video_auc" in shown


def test_an_observer_sees_every_validation(config, run, tmp_path):
    seen = []
    config = changed(config, optim={"validate_every": 2, "steps": 5})
    run(config, tmp_path, observe=lambda *given: seen.append(given))
    rows = [r for r in log_of(tmp_path) if "loss" not in r]
    assert [step for step, _ in seen] == [r["step"] for r in rows] == [1, 3, 4]
    assert [measured for _, measured in seen] == [
        {k: v for k, v in r.items() if k not in ("step", "seconds")} for r in rows
    ]


def test_an_observer_ends_the_run_and_it_can_be_resumed(config, run, tmp_path):
    config = changed(config, optim={"validate_every": 3})
    straight = run(config, tmp_path / "straight")

    def end(step, measured):
        raise Stopped(f"after step {step}: {measured['log_loss']}")

    with pytest.raises(Stopped, match="after step 2: 0"):
        run(config, tmp_path / "ended", observe=end)
    assert read_checkpoint(tmp_path / "ended")[0]["step"] == 3
    resumed = run(config, tmp_path / "ended", resume=True)
    assert_same_tensors(resumed.state_dict(), straight.state_dict())


def test_nothing_held_out_is_nothing_to_observe(config, run, faces, tmp_path, monkeypatch):
    data = faces.data(), faces.data(videos=(), stills=())
    monkeypatch.setattr(loop, "load_data", lambda *_: data)
    run(config, tmp_path, observe=lambda *_: pytest.fail("observed"))


@pytest.mark.parametrize(
    ("optim", "message"),
    [({"keep": "best"}, "keep = 'best'"), ({"schedule": "plateau"}, "schedule = 'plateau'")],
)
def test_a_run_that_needs_measures_ends_at_the_first_that_is_none(
    config, run, faces, tmp_path, monkeypatch, optim, message
):
    """Not when all is trained, and there are no best weights to export."""
    data = faces.data(), faces.data(videos=(faces.video(1, swapped=()),), stills=())
    monkeypatch.setattr(loop, "load_data", lambda *_: data)
    run(changed(config, optim={"validate_every": 2}), tmp_path / "last")
    with pytest.raises(ConfigError, match=rf"\[optim\] {message}: no real and fake is held out"):
        run(changed(config, optim={"validate_every": 2, **optim}), tmp_path / "best")
    assert [row["step"] for row in log_of(tmp_path / "best")] == [0, 1]


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_of_one_pair_is_enough_for_every_head(config, run, tmp_path, head):
    """Batch norm over clips, as "dfdcnet" has it, needs two of them: a pair has two."""
    pairs = BatchConfig(video_pairs=1, still_pairs=0, part_blends=0, self_blends=0)
    config = changed(config, model={"head": head, "hidden": 8}, optim={"steps": 2})
    run(dataclasses.replace(config, batch=pairs), tmp_path)
    assert all(math.isfinite(row["loss"]) for row in log_of(tmp_path) if "loss" in row)


def test_a_frozen_backbone_can_be_resumed_and_exported(config, run, tmp_path):
    """Though what is loaded for export has no weights to start from."""
    mean = run(config, tmp_path / "one").state_dict()
    frozen = {"frozen": True, "start": str(tmp_path / "one")}
    config = changed(config, model=frozen)
    run(config, tmp_path / "two", stop=3)
    run(config, tmp_path / "two", resume=True)
    state = load_trained(tmp_path / "two")[0].state_dict()
    same = {k for k, v in mean.items() if torch.equal(v, state[k])}
    assert {k for k in mean if k.startswith("backbone")} <= same
    assert "head.weight" not in same


# Runs in stages: one stops early, the next starts from its running mean.


@pytest.mark.parametrize(("stop", "last"), [(0, 6), (4, 4), (6, 6), (60, 6)])
def test_a_run_stops_early_on_the_same_schedule(config, run, tmp_path, stop, last):
    run(changed(config, optim={"stop": stop}), tmp_path / "stopped")
    assert read_checkpoint(tmp_path / "stopped")[0]["step"] == last
    run(config, tmp_path / "straight")
    stopped, straight = (
        [r["loss"] for r in log_of(tmp_path / name) if "loss" in r]
        for name in ("stopped", "straight")
    )
    assert stopped == straight[:last]
    assert "loss" not in log_of(tmp_path / "stopped")[-1]  # it ends with a validation


def test_a_stage_starts_from_the_running_mean_of_another(config, run, tmp_path, monkeypatch):
    mean = run(config, tmp_path / "one").state_dict()
    config = changed(config, model={"start": str(tmp_path / "one")}, optim={"seed": 1})
    seen = []

    def look(state, *_):
        seen.extend([state.model.state_dict(), state.mean_model.state_dict()])
        raise Stopped

    monkeypatch.setattr(loop, "PairBatches", lambda *_: [None] * 6)
    monkeypatch.setattr(loop, "open_batches", lambda *_: [None])
    monkeypatch.setattr(loop, "train_step", look)
    with pytest.raises(Stopped):
        train(config, tmp_path / "two")
    for state in seen:
        assert_same_tensors(state, mean)


def test_a_stage_may_change_the_head(config, run, tmp_path):
    run(config, tmp_path / "frames")
    start = load_trained(tmp_path / "frames")[0].state_dict()
    gru = {"head": "gru", "hidden": 8, "start": str(tmp_path / "frames")}
    config = changed(config, model=gru, optim={"steps": 1, "lr": 0.0})
    state = run(config, tmp_path / "clips").state_dict()
    assert set(start) < set(state)
    for key in ("head.weight", "head.bias", "difference.weight", "backbone.conv_stem.weight"):
        assert torch.equal(state[key], start[key]), key
    other = {"hidden": 9, "start": str(tmp_path / "clips")}
    with pytest.raises(ConfigError, match=r"its gru head has other sizes \(hidden 8, layers 2\)"):
        run(changed(config, model=other), tmp_path / "third")


def test_the_mean_of_runs_is_of_one_network(config, run, tmp_path):
    for number, seed in enumerate((0, 1)):
        run(changed(config, optim={"seed": seed, "steps": 1}), tmp_path / f"{number}")
    runs = [tmp_path / "0", tmp_path / "1"]
    save_average(tmp_path / "mean", config, runs)
    weights = [load_trained(p)[0].state_dict()["head.weight"] for p in (*runs, tmp_path / "mean")]
    torch.testing.assert_close(weights[2], (weights[0] + weights[1]) / 2)
    run(changed(config, model={"head": "dfdcnet", "hidden": 8}, optim={"steps": 1}), tmp_path / "2")
    with pytest.raises(ConfigError, match=r"2: its \[model\] head is 'dfdcnet', not 'mean'"):
        save_average(tmp_path / "other", config, [*runs, tmp_path / "2"])
    assert not (tmp_path / "other").exists()


def test_a_resumed_stage_does_not_start_again(config, run, tmp_path):
    run(config, tmp_path / "one")
    config = changed(config, model={"start": str(tmp_path / "one")}, optim={"seed": 1})
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "broken", stop=3)
    (tmp_path / "one").rename(tmp_path / "gone")
    resumed = run(config, tmp_path / "broken", resume=True)
    assert_same_tensors(resumed.state_dict(), straight.state_dict())
    assert_same_tensors(load_trained(tmp_path / "broken")[0].state_dict(), straight.state_dict())


def test_a_start_that_does_not_fit_is_refused(config, run, tmp_path):
    run(config, tmp_path / "one")
    start = {"start": str(tmp_path / "one")}
    with pytest.raises(RecipeMismatchError, match=r"one and this configuration.*mean"):
        run(changed(config, model=start, recipe={"mean": (0.4, 0.5, 0.5)}), tmp_path / "two")
    run(changed(config, model=start, recipe={"margin": 0.4}), tmp_path / "wider")
    with pytest.raises(ConfigError, match="has the backbone test_efficientnet, not test_resnet"):
        run(changed(config, model={**start, "backbone": "test_resnet"}), tmp_path / "two")
    advice = r"\[model\] start = '.*absent': holds no checkpoint.*--set model\.pretrained=FILE"
    with pytest.raises(ConfigError, match=advice):
        run(changed(config, model={"start": str(tmp_path / "absent")}), tmp_path / "two")
    assert not (tmp_path / "two").exists()  # nothing of a run that never began


# Validation.


@pytest.fixture
def trained(config, faces):
    """A model whose running statistics are no longer those of a new one."""
    state = build_state(config)
    for step in range(3):
        train_step(state, batches_of(faces, config)[step], step, config.optim)
    return state.model


def test_a_clip_scores_the_same_alone_and_among_others(config, faces, trained):
    halves = [cut(faces.sample(seed, 1 + seed % 3), 64, 0.1, None) for seed in range(8)]
    clips = [clip for pair in halves for clip in pair]
    together = score(trained.train(), clips)
    assert together.shape == (16,)
    alone = np.concatenate([score(trained.train(), [clip]) for clip in clips])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(score(trained, clips[::-1])[::-1], together, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_validation_judges_and_learns_nothing(config, faces, trained, training):
    trained.zero_grad(set_to_none=True)
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    expected = validate(trained.eval(), faces.data(), config)
    assert validate(trained.train(training), faces.data(), config) == expected
    assert all(p.grad is None for p in trained.parameters())
    assert all(p.requires_grad for p in trained.parameters())
    assert_same_tensors(trained.state_dict(), before)


@pytest.fixture
def judged(monkeypatch):
    """Score clips by their red alone; return those that were scored."""
    seen = []

    def by_red(model, clips):
        seen.extend(clips)
        return np.array([clip[..., 0].mean() - 128.0 for clip in clips])

    monkeypatch.setattr(validation, "score", by_red)
    return seen


@pytest.mark.parametrize(("tint", "expected"), [((90, 0, 0), 1.0), ((-90, 0, 0), 0.0)])
def test_validation_ranks_fakes_above_their_reals(config, faces, judged, tint, expected):
    data = faces.data(videos=(faces.video(1, tint=tint),), stills=())
    results = validate(None, data, config)
    assert results["video_ranked"] == results["video_auc"] == expected
    assert not [k for k in results if k.startswith("still")]


def test_validation_looks_at_swapped_frames_alone(config, faces, judged):
    scene = faces.video(1, frames=12, swapped=tuple(range(0, 12, 2)))
    validate(None, faces.data(videos=(scene,), stills=()), config, frames=4)
    real, fake = judged
    assert len(real) == len(fake) == 4
    assert all(not np.array_equal(a, b) for a, b in zip(real, fake, strict=True))
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(real, 2))


def test_validation_without_data_measures_nothing(config, faces, judged):
    assert validate(None, faces.data(videos=(), stills=()), config) == {}
    nothing_swapped = (faces.video(1, swapped=()),)
    assert validate(None, faces.data(videos=nothing_swapped, stills=()), config) == {}


@pytest.mark.parametrize(
    ("pairs", "auc", "ranked", "log_loss"),
    [
        ([(-1, 1), (-1, 1)], 1.0, 1.0, softplus(-1)),
        ([(1, -1)], 0.0, 0.0, softplus(1)),
        ([(0, 0)], 0.5, 0.5, math.log(2)),  # a tie counts half
        # Every fake above its own real, but not above the other real.
        ([(-4, -2), (2, 4)], 0.75, 1.0, (softplus(-4) + softplus(2)) / 2),
    ],
)
def test_pair_metrics_by_hand(pairs, auc, ranked, log_loss):
    real, fake = np.array(pairs, dtype=float).T
    metrics = validation._metrics(real, fake, paired=True)
    assert metrics == pytest.approx({"auc": auc, "ranked": ranked, "log_loss": log_loss})


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 99, (2**60).to_bytes(8, "little") + b"{}", "no description", "other", "deep"],
    ids=str,
)
def test_a_damaged_checkpoint_is_an_error_that_names_it(content, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    described = {"no description": None, "other": {"tellframe": "[]"}}
    described["deep"] = {"tellframe": '{"config":' * 100_000}
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file({"a": torch.zeros(1)}, path, described[content])
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors: no checkpoint of ours"):
        read_checkpoint(tmp_path)
