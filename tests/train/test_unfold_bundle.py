"""A bundle unfolded: the same scores, and batch norms that can be trained again."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import unfold_bundle
from tellframe.bundle import load_bundle
from tellframe.errors import ConfigError, RecipeMismatchError
from tellframe.train.checkpoint import load_start, load_trained, save_checkpoint, save_start
from tellframe.train.config import ModelConfig
from tellframe.train.export import export
from tellframe.train.models import build_model
from tellframe.train.state import TrainState

pytestmark = pytest.mark.train

BACKBONE = "mobilenetv2_035"


@pytest.fixture(scope="module")
def config(config):
    return dataclasses.replace(config, model=ModelConfig(backbone=BACKBONE))


@pytest.fixture(scope="module")
def crops(faces, config):
    """Drawn faces at the size of the recipe."""
    size = config.recipe.crop_size
    return np.stack([faces.picture(seed)[:size, :size] for seed in range(48)])


@pytest.fixture(scope="module")
def trained(config, crops, tmp_path_factory):
    """A training folder after five steps, so that no batch norm is as it was made."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model = build_model(config.model, config.recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for step in range(5):
        pixels = torch.from_numpy(crops[8 * step : 8 * step + 8])[:, None]
        logit, _ = model.forward_train(pixels, torch.ones(8, 1, dtype=torch.bool))
        optimizer.zero_grad()
        (logit[::2] - logit[1::2]).mean().backward()
        optimizer.step()
    save_checkpoint(folder, config, TrainState(model, model, optimizer), 5)
    return folder


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundle")
    export([trained], target, version="1.0.0")
    return load_bundle(target)


@pytest.fixture(autouse=True)
def _drawn(monkeypatch, crops):
    monkeypatch.setattr(unfold_bundle, "draw_crops", lambda _model, _config: crops)


def logits(model, pixels):
    with torch.no_grad():
        return model.judge_frames(torch.from_numpy(pixels))[0].numpy()


def test_it_scores_as_before(config, bundle, trained, crops, tmp_path):
    assert unfold_bundle.unfold(config, bundle, tmp_path) < 1e-3
    before, after = (load_trained(folder)[0] for folder in (trained, tmp_path))
    expected = logits(before, crops)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(logits(after, crops), expected, atol=1e-3)


def test_batch_norms_have_the_statistics_of_the_crops(config, bundle, crops, tmp_path):
    """So that training, which takes those of its batches, begins with about the same network."""
    unfold_bundle.unfold(config, bundle, tmp_path)
    model = load_trained(tmp_path)[0]
    seen = {}
    for conv, norm in unfold_bundle.pair_up(model):
        conv.register_forward_hook(lambda _c, _i, out, norm=norm: seen.update({norm: out}))
    logits(model, crops)
    assert len(seen) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) > 20
    for norm, values in seen.items():
        mean, variance = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(norm.running_mean, mean, atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(norm.running_var, variance, atol=1e-3, rtol=5e-2)


def test_a_run_can_start_from_it(config, bundle, tmp_path):
    unfold_bundle.unfold(config, bundle, tmp_path)
    model = build_model(config.model, config.recipe)
    load_start(tmp_path, config, model)
    assert torch.equal(model.head.weight, load_trained(tmp_path)[0].head.weight)


def test_of_several_networks_the_first_is_unfolded(config, trained, crops, tmp_path):
    cut = dataclasses.replace(
        config, model=ModelConfig(backbone=BACKBONE, stages=3, frozen_stages=2, start="runs/x")
    )
    patches = build_model(cut.model, cut.recipe)
    load_start(trained, cut, patches)
    save_start(tmp_path / "patches", cut, patches)
    export([trained, tmp_path / "patches"], tmp_path / "both", version="1.0.0")
    both = load_bundle(tmp_path / "both")
    assert unfold_bundle.unfold(config, both, tmp_path / "first") < 1e-3
    expected = logits(load_trained(trained)[0], crops)
    np.testing.assert_allclose(
        logits(load_trained(tmp_path / "first")[0], crops), expected, atol=1e-3
    )


def test_another_backbone_is_refused(config, bundle, tmp_path):
    other = dataclasses.replace(config, model=ModelConfig(backbone="mobilenetv2_050"))
    with pytest.raises(ConfigError, match="another backbone"):
        unfold_bundle.unfold(other, bundle, tmp_path)
    assert not list(tmp_path.iterdir())


def test_convolutions_without_a_batch_norm_are_refused(config, bundle, tmp_path):
    other = dataclasses.replace(config, model=ModelConfig(backbone="test_efficientnet"))
    with pytest.raises(ConfigError, match="without a batch norm"):
        unfold_bundle.unfold(other, bundle, tmp_path)


def test_other_crops_are_refused(config, bundle, tmp_path):
    other = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, margin=0.7))
    with pytest.raises(RecipeMismatchError, match="margin"):
        unfold_bundle.unfold(other, bundle, tmp_path)


def test_a_graph_of_another_head_is_refused(config, bundle, tmp_path):
    other = dataclasses.replace(config, model=ModelConfig(backbone=BACKBONE, head="gru", hidden=8))
    with pytest.raises(ConfigError, match="head"):
        unfold_bundle.unfold(other, bundle, tmp_path)
