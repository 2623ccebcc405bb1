"""Mixed precision, as far as a CPU has it: bf16 for all heads, and float16 with its scaler.

On GPUs nothing here has been run.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tellframe.errors import ConfigError
from tellframe.train import loop
from tellframe.train.batches import PairBatches
from tellframe.train.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from tellframe.train.config import HEADS, OptimConfig
from tellframe.train.loop import train, train_step
from tellframe.train.state import build_state, choose_dtype, new_scaler

pytestmark = pytest.mark.train

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def with_precision(config, precision, **model):
    return dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, precision=precision),
        model=dataclasses.replace(config.model, **model),
    )


@pytest.fixture
def batch(faces, config):
    return PairBatches(faces.data(), config.batch, config.recipe, 2, 0)[0]


@pytest.mark.parametrize(
    ("precision", "place", "has_bf16", "dtype"),
    [
        ("auto", CPU, False, torch.float32),
        ("fp32", CPU, False, torch.float32),
        ("bf16", CPU, False, torch.bfloat16),
        ("auto", GPU, True, torch.bfloat16),
        ("auto", GPU, False, torch.float32),
        ("fp32", GPU, True, torch.float32),
        ("bf16", GPU, True, torch.bfloat16),
        ("fp16", GPU, False, torch.float16),
    ],
)
def test_precision_by_device(monkeypatch, precision, place, has_bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert choose_dtype(precision, place) is dtype


def test_what_the_device_lacks_is_refused(config, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "load_data", lambda *_: pytest.fail("loads first"))
    monkeypatch.setattr(loop, "keep_memory", lambda: None)
    with pytest.raises(ConfigError, match="'fp16' needs a GPU, and torch finds none; set 'auto'"):
        train(with_precision(config, "fp16"), tmp_path)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(ConfigError, match="this GPU has no bf16; set 'auto', 'fp16' or 'fp32'"):
        choose_dtype("bf16", GPU)
    with pytest.raises(ConfigError, match="precision = 'bf61': did you mean 'bf16'"):
        OptimConfig(precision="bf61")


@pytest.mark.parametrize("head", HEADS)
def test_bf16_computes_the_network_alone(config, batch, head):
    """Weights, losses, gradients and the running mean stay in float32, near those of float32."""
    seen, losses = [], {}
    for precision in ("fp32", "bf16"):
        state = build_state(with_precision(config, precision, head=head, hidden=8, dropout=0.0))
        convolution = state.model.difference
        convolution.register_forward_hook(lambda *given: seen.append(given[2].dtype))
        losses[precision] = train_step(state, batch, 0, config.optim)
        tensors = [*state.model.state_dict().values(), *state.mean_model.state_dict().values()]
        tensors += [p.grad for p in state.model.parameters()]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float32}
        assert not state.scaler.state_dict()
    assert seen == [torch.float32, torch.bfloat16]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.03)
    assert losses["bf16"] != losses["fp32"]


def test_a_run_in_bf16(config, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "load_data", lambda *_: (faces.data(), faces.data()))
    monkeypatch.setattr(loop, "keep_memory", lambda: None)
    train(with_precision(config, "bf16"), tmp_path, workers=0)
    meta, tensors = read_checkpoint(tmp_path)
    assert meta["config"]["optim"]["precision"] == "bf16"
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float32}


def state_in_float16(config, scale):
    """Build what training in float16 begins with: a CPU computes in it, if too slowly for use."""
    state = build_state(with_precision(config, "fp32", dropout=0.0))
    state.dtype, state.scaler = torch.float16, new_scaler(torch.float16)
    kept = {**state.scaler.state_dict(), "scale": scale, "growth_interval": 3}
    state.scaler.load_state_dict(kept)
    return state


def test_the_scale_is_taken_out_of_the_gradient(config, batch):
    single = build_state(with_precision(config, "fp32", dropout=0.0))
    half = state_in_float16(config, 1024.0)
    losses = [train_step(state, batch, 0, config.optim) for state in (half, single)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    one, other = (
        torch.cat([p.grad.flatten() for p in state.model.parameters()]) for state in (half, single)
    )
    assert one.norm() <= config.optim.clip * 1.001
    assert (one - other).norm() < 0.1 * other.norm()
    assert half.optimizer.state


def test_a_gradient_that_overflows_makes_no_step(config, batch):
    state = state_in_float16(config, 2.0**40)
    before = {k: v.clone() for k, v in state.model.named_parameters()}
    train_step(state, batch, 0, config.optim)
    assert all(torch.equal(before[k], v) for k, v in state.model.named_parameters())
    assert state.scaler.get_scale() == 2.0**39


def test_the_scale_is_part_of_the_checkpoint(config, batch, tmp_path):
    """It grows after three steps: one resumed after two must know of them."""
    straight = state_in_float16(config, 8.0)
    for step in range(2):
        train_step(straight, batch, step, config.optim)
    save_checkpoint(tmp_path, config, straight, 2)
    resumed = state_in_float16(config, 65536.0)
    assert load_checkpoint(tmp_path, config, resumed) == 2
    for state in (straight, resumed):
        train_step(state, batch, 2, config.optim)
        assert state.scaler.get_scale() == 16.0
    assert resumed.scaler.state_dict() == straight.scaler.state_dict()
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
