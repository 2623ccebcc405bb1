"""The probe for degraded pictures: fitted after training, exported, and heard by the verdict."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import tellframe
from tellframe.errors import ConfigError
from tellframe.runtime import Session
from tellframe.train import quality
from tellframe.train.checkpoint import load_trained, save_checkpoint
from tellframe.train.config import QualityConfig, load_config
from tellframe.train.export import export
from tellframe.train.models import build_model
from tellframe.train.state import TrainState
from tellframe.train.tensorfile import write_tensors
from tellframe.types import Label, Reason

pytestmark = pytest.mark.train
CROPS = 150


@pytest.fixture(scope="module", params=["mean", "attention"])
def folder(request, config, faces, tmp_path_factory):
    """A training folder of a frame and of a clip model, and its probe fitted to drawn faces."""
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, head=request.param, hidden=8),
        recipe=dataclasses.replace(config.recipe, num_frames=4),
        quality=QualityConfig(crops=CROPS),
    )
    torch.manual_seed(0)
    model = build_model(config.model, config.recipe)
    path = tmp_path_factory.mktemp(request.param)
    save_checkpoint(
        path, config, TrainState(model, model, torch.optim.AdamW(model.parameters())), 7
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "load_data", lambda *_: (faces.data(), None))
        assert quality.fit_probe(path) > 0.6  # of an untrained network, on small crops
    return path


@pytest.fixture(scope="module")
def bundle(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundles")
    assert export([folder], target, version="1") < 1e-4
    return target


def test_crops_are_drawn_as_training_shows_them_but_not_degraded(config, faces, monkeypatch):
    monkeypatch.setattr(quality, "load_data", lambda *_: (faces.data(), None))
    config = dataclasses.replace(config, quality=QualityConfig(crops=21))
    model = build_model(config.model, config.recipe)
    crops = quality.draw_crops(model, config)
    assert crops.shape == (21, 64, 64, 3)
    # Noise and JPEG would leave steps between neighbours of the drawn, smooth backgrounds.
    steps = np.abs(np.diff(crops[:, :4].astype(int), axis=2)).max(axis=(1, 2, 3))
    assert np.median(steps) <= 8


@pytest.mark.parametrize("name", quality.DAMAGES)
def test_every_damage_is_seen(faces, name):
    picture = faces.picture(3)
    damaged = quality.DAMAGES[name](picture, np.random.default_rng(0))
    assert (damaged.shape, damaged.dtype) == (picture.shape, picture.dtype)
    assert np.abs(damaged.astype(int) - picture).mean() > 1


def test_half_of_the_pictures_reach_the_probe_through_a_codec(faces):
    picture = faces.picture(4)
    rng = np.random.default_rng(0)
    sent = [quality.send(picture, rng) for _ in range(40)]
    assert all(one.shape == picture.shape for one in sent)
    changed = [one for one in sent if not np.array_equal(one, picture)]
    assert 10 < len(changed) < 30
    assert max(np.abs(one.astype(int) - picture).mean() for one in changed) < 6  # no damage


def test_a_linear_fit_finds_the_plane():
    rng = np.random.default_rng(0)
    features = rng.normal(5.0, [1.0, 10.0, 0.1], (400, 3))
    labels = (features[:, 1] > 5 + 0.1 * rng.normal(size=400)).astype(int)
    weight, bias = quality.fit_linear(features, labels)
    assert ((features @ weight + bias > 0) == labels).mean() > 0.9


def test_the_graph_tells_what_the_probe_tells(folder, bundle):
    model, config, meta = load_trained(folder)
    model.probe = quality.load_probe(folder, meta["step"])
    crops = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    features = quality.pool_features(model, crops)
    with torch.no_grad():
        expected = model.probe(torch.from_numpy(features).float())[:, 0].sigmoid().numpy()
    if config.model.head == "mean":
        inputs = {"crops": crops}
    else:
        inputs = {"crops": crops[None], "valid": np.array([[True, False, True]])}
        expected = np.where(inputs["valid"], expected, 0)
    found = Session(bundle / "model.onnx", 1).run(inputs)["degraded"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_degraded_pictures_are_not_judged(bundle, samples, monkeypatch):
    detector = tellframe.load(bundle, threads=1)
    (person,) = detector.detect(samples / "real.mp4").people
    assert 0 < person.degraded < 1
    for limit, held in ((person.degraded + 1e-6, False), (person.degraded - 1e-6, True)):
        decision = dataclasses.replace(detector.bundle.decision, max_degraded=limit)
        monkeypatch.setattr(
            detector, "bundle", dataclasses.replace(detector.bundle, decision=decision)
        )
        verdict = detector.detect(samples / "real.mp4")
        assert (Reason.DEGRADED in verdict.people[0].reasons) is held
        assert (Reason.DEGRADED in verdict.reasons) is held
        if held:
            assert verdict.label is Label.INCONCLUSIVE
            assert verdict.probability == person.probability


def test_a_probe_goes_with_the_weights_that_it_was_fitted_to(folder, config, tmp_path):
    assert quality.load_probe(folder, 7) is not None
    assert quality.load_probe(tmp_path, 7) is None
    with pytest.raises(ConfigError, match="step 7, not 9"):
        quality.load_probe(folder, 9)
    path = tmp_path / "quality.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match=r"quality\.safetensors: no probe of ours"):
        quality.load_probe(tmp_path, 7)
    for tensors in ({}, {"weight": torch.zeros(3)}, {"weight": torch.zeros(1, 3)}):
        write_tensors(path, tensors, {"step": 7})
        with pytest.raises(ConfigError, match=r"quality\.safetensors: no probe of ours"):
            quality.load_probe(tmp_path, 7)


def test_the_wait_for_a_probe_is_announced(config, tmp_path, monkeypatch, capsys):
    def draw(*_):
        raise InterruptedError(capsys.readouterr().err)  # what was said before the work

    config = dataclasses.replace(config, quality=QualityConfig(crops=2000))
    model = build_model(config.model, config.recipe)
    save_checkpoint(
        tmp_path, config, TrainState(model, model, torch.optim.AdamW(model.parameters())), 1
    )
    monkeypatch.setattr(quality, "draw_crops", draw)
    with pytest.raises(InterruptedError, match=r"degraded pictures, on 2,000 crops: this may take"):
        quality.fit_probe(tmp_path)


def test_a_probe_has_to_be_asked_for(config, tmp_path):
    model = build_model(config.model, config.recipe)
    save_checkpoint(
        tmp_path, config, TrainState(model, model, torch.optim.AdamW(model.parameters())), 1
    )
    with pytest.raises(ConfigError, match="crops is 0"):
        quality.fit_probe(tmp_path)
    (tmp_path / "x.toml").write_text("[quality]\ncrops = -1\n")
    with pytest.raises(ConfigError, match=r"\[quality\] crops = -1"):
        load_config(tmp_path / "x.toml")
