"""Export: the graph computes what torch computes, and the bundle says what it is."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json

import numpy as np
import onnx
import pytest
import torch

from tellframe.bundle import golden_crops, load_bundle
from tellframe.cli import run
from tellframe.errors import BundleError, ConfigError, RecipeMismatchError
from tellframe.recipe import Recipe
from tellframe.runtime import Session
from tellframe.scoring import Calibration, Decision
from tellframe.train import export as room
from tellframe.train import loop
from tellframe.train.checkpoint import load_start, load_trained, save_checkpoint, save_start
from tellframe.train.config import load_config
from tellframe.train.export import export, export_graph, parity
from tellframe.train.models import build_model
from tellframe.train.optimizer import update_mean
from tellframe.train.state import TrainState

pytestmark = pytest.mark.train


def crops(count, size=64, seed=0):
    rng = np.random.default_rng([seed, count])
    return rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def judge(model, pixels):
    with torch.no_grad():
        logit, heat = model.judge_frames(torch.from_numpy(pixels))
    return logit.numpy(), heat.numpy()


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    """A training folder after three steps: running statistics are no longer those of a new net."""
    path = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model = build_model(config.model, config.recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    pixels, valid = torch.from_numpy(crops(4))[:, None], torch.ones(4, 1, dtype=torch.bool)
    for _ in range(3):
        logit, marks = model.forward_train(pixels, valid)
        optimizer.zero_grad()
        (logit[0] - logit[1] + marks.mean()).backward()
        optimizer.step()
    save_checkpoint(path, config, TrainState(model, model, optimizer), 3)
    return path


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """The bundle of that folder, and the gap that was measured; never written to by a test."""
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    return target, export([folder], target, version="1.2.3")


@pytest.fixture(scope="module")
def model(folder):
    return load_trained(folder)[0]


@pytest.fixture
def target(exported, tmp_path):
    """A bundle that a test may change."""
    for path in exported[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def graph_at_hand(exported, monkeypatch):
    """Take the graph that was exported once, where only what stands beside it matters."""
    data = (exported[0] / "model.onnx").read_bytes()
    monkeypatch.setattr(room, "export_graph", lambda _model, _size, path: path.write_bytes(data))


# The graph.


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_the_graph_computes_what_torch_computes(exported, model, count):
    pixels = crops(count)
    found = Session(exported[0] / "model.onnx", 1).run({"crops": pixels})
    logit, heat = judge(model, pixels)
    assert found["logit"].shape == (count,)
    assert found["heat"].shape == heat.shape
    assert np.abs(found["logit"] - logit).max() < 1e-4
    assert np.abs(found["heat"] - heat).max() < 1e-3
    assert np.ptp(heat) > 0.01  # not mute


@pytest.mark.parametrize("count", [1, 3, 17])
def test_the_mean_of_the_heat_is_the_logit(exported, count):
    found = Session(exported[0] / "model.onnx", 1).run({"crops": crops(count)})
    np.testing.assert_allclose(found["heat"].mean(axis=(1, 2)), found["logit"], atol=1e-5)


def test_a_crop_scores_the_same_alone_and_among_others(exported):
    session = Session(exported[0] / "model.onnx", 1)
    pixels = crops(7)
    together = session.run({"crops": pixels})["logit"]
    alone = [session.run({"crops": crop[None]})["logit"][0] for crop in pixels]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_names_of_the_graph(exported):
    session = Session(exported[0] / "model.onnx", 1)
    assert session.input_names == ("crops",)
    assert session.output_names == ("logit", "heat")


@pytest.mark.parametrize(
    "wrong",
    [
        crops(2).astype(np.float32),
        crops(2).transpose(0, 3, 1, 2),
        crops(2, size=32),
        crops(2)[0],
    ],
    ids=["float", "channels first", "another size", "no batch"],
)
def test_the_graph_takes_uint8_crops_of_its_size_alone(exported, wrong):
    with pytest.raises(BundleError, match="does not accept"):
        Session(exported[0] / "model.onnx", 1).run({"crops": np.ascontiguousarray(wrong)})


def test_the_graph_tells_nothing_of_the_machine_that_made_it(exported):
    data = (exported[0] / "model.onnx").read_bytes()
    for word in (b"stack_trace", b"site-packages", b"models.py", str(exported[0].parent).encode()):
        assert word not in data


# The bundle.


def test_the_bundle_loads_and_says_what_it_is(exported, folder):
    path, gap = exported
    bundle = load_bundle(path)
    _, config, meta = load_trained(folder)
    assert (bundle.name, bundle.version, bundle.kind) == ("tiny", "1.2.3", "frame")
    assert bundle.recipe == config.recipe
    assert bundle.training["steps"] == meta["step"] == 3
    assert bundle.training["config"] == meta["config"]
    assert bundle.training["torch"] == torch.__version__
    assert "Apache-2.0" in bundle.licence
    assert gap < 1e-4
    assert sorted(p.name for p in path.iterdir()) == ["bundle.json", "model.onnx", "model_card.md"]


def test_recipe_digest_and_checksum_are_stamped(exported, config):
    values = json.loads((exported[0] / "bundle.json").read_text())
    assert values["recipe_digest"] == config.recipe.digest
    graph = (exported[0] / "model.onnx").read_bytes()
    assert values["sha256"] == hashlib.sha256(graph).hexdigest()


def test_golden_scores_are_those_of_the_graph(exported, model):
    bundle = load_bundle(exported[0])
    pixels = golden_crops(64)
    assert len(bundle.golden) == len(pixels) == 4
    found = Session(bundle.graph, 1).run({"crops": pixels})["logit"]
    np.testing.assert_allclose(bundle.golden, found, atol=1e-5)
    np.testing.assert_allclose(bundle.golden, judge(model, pixels)[0], atol=1e-4)


def test_a_new_bundle_is_not_calibrated_unless_it_takes_one_over(
    exported, folder, tmp_path, graph_at_hand
):
    first = load_bundle(exported[0])
    assert first.calibration == Calibration()
    fitted = dataclasses.replace(
        first,
        calibration=Calibration(2.0, 0.5, "a test"),
        decision=Decision(fake_from=0.9),
        metrics={"all": {"auc": 0.9}},
    )
    export([folder], tmp_path, version="2", name="second", calibrated=fitted)
    second = load_bundle(tmp_path)
    assert second.name == "second"
    assert second.calibration == fitted.calibration
    assert second.decision == fitted.decision
    assert second.metrics == {"all": {"auc": 0.9}}  # of the same graph


def test_metrics_of_other_weights_are_not_taken_over(exported, folder, tmp_path, graph_at_hand):
    other = dataclasses.replace(
        load_bundle(exported[0]), sha256="another", metrics={"all": {"auc": 0.9}}
    )
    export([folder], tmp_path, version="2", calibrated=other)
    assert load_bundle(tmp_path).metrics == {}


def test_an_altered_graph_is_refused(target):
    graph = target / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="SHA-256 differs"):
        load_bundle(target)


def test_an_altered_recipe_is_refused(target):
    path = target / "bundle.json"
    values = json.loads(path.read_text())
    values["recipe"]["margin"] = 0.3
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="recipe was altered"):
        load_bundle(target)


# Several networks together.


@pytest.fixture(scope="module")
def patches(config, folder, tmp_path_factory):
    """A training folder that shares its frozen stages with the first, and is cut off after them."""
    path = tmp_path_factory.mktemp("patches")
    network = dataclasses.replace(config.model, stages=3, frozen_stages=2, start=str(folder))
    config = dataclasses.replace(config, model=network)
    torch.manual_seed(1)
    model = build_model(config.model, config.recipe)
    load_start(folder, config, model)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.requires_grad):
            weight += 0.1 * torch.randn_like(weight)
    state = TrainState(model, copy.deepcopy(model), torch.optim.AdamW(model.parameters()))
    update_mean(state.mean_model, model, 0.5)
    save_checkpoint(path, config, state, 5)
    return path


@pytest.fixture(scope="module")
def together(folder, patches, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundles") / "two"
    export([folder, patches], target, version="1")
    return load_bundle(target)


def test_the_mean_of_the_logits_of_several_counts(together, folder, patches):
    pixels = crops(5)
    found = Session(together.graph, 1).run({"crops": pixels})
    logits = [judge(load_trained(f)[0], pixels)[0] for f in (folder, patches)]
    assert np.ptp(logits[1]) > 1e-3
    np.testing.assert_allclose(found["logit"], np.mean(logits, axis=0), atol=1e-4)
    np.testing.assert_allclose(found["heat"].mean(axis=(1, 2)), found["logit"], atol=1e-5)


def test_what_several_have_in_common_is_computed_once(together, exported, patches):
    def convolutions(path):
        return sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)

    cut = load_trained(patches)[0]
    frozen = [m for n, m in cut.backbone.named_modules() if n.startswith(("conv_stem", "blocks.0"))]
    all_of, shared = (
        sum(isinstance(m, torch.nn.Conv2d) for m in modules) for modules in (cut.modules(), frozen)
    )
    assert shared > 1
    own = all_of - shared - 1  # without the difference map
    assert convolutions(together.graph) == convolutions(exported[0] / "model.onnx") + own


def test_the_bundle_says_what_was_joined(together, folder, patches):
    first, second = (load_trained(f)[2] for f in (folder, patches))
    assert together.training["config"] == first["config"]
    (other,) = together.training["joined"]
    assert (other["steps"], other["config"]) == (5, second["config"])
    card = (together.graph.parent / "model_card.md").read_text()
    assert "together with 1 more" in card
    assert "after 5 steps" in card
    assert '"stages": 3' in card


def test_only_frame_classifiers_of_one_recipe_are_joined(config, folder, tmp_path):
    def save(name, **fields):
        other = dataclasses.replace(config, **fields)
        save_start(tmp_path / name, other, build_model(other.model, other.recipe))
        return tmp_path / name

    target = tmp_path / "bundle"
    clip = save("clip", model=dataclasses.replace(config.model, head="gru", hidden=8))
    with pytest.raises(ConfigError, match=r"clip: judges whole clips; only .*\"mean\""):
        export([folder, clip], target, version="1")
    wide = save("wide", recipe=dataclasses.replace(config.recipe, margin=0.9))
    with pytest.raises(RecipeMismatchError, match="margin"):
        export([folder, wide], target, version="1")
    assert not target.exists()


# What fails.


@pytest.mark.parametrize("gap", [1e-3, float("nan")])
def test_a_graph_that_computes_otherwise_is_no_bundle(
    folder, target, monkeypatch, graph_at_hand, gap
):
    before = {p.name: p.read_bytes() for p in target.iterdir()}
    monkeypatch.setattr(room, "parity", lambda *_: (gap, ()))
    with pytest.raises(BundleError, match="differs from torch"):
        export([folder], target, version="2")
    assert {p.name: p.read_bytes() for p in target.iterdir()} == before  # the old one stays whole


def test_parity_sees_a_difference(exported, folder):
    model, _, _ = load_trained(folder)
    graph = exported[0] / "model.onnx"
    assert parity(model, graph, {"crops": crops(3)})[0] < 1e-4
    with torch.no_grad():
        model.head.bias += 0.01
    assert parity(model, graph, {"crops": crops(3)})[0] == pytest.approx(0.01, abs=1e-4)


def test_nothing_to_export_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="train first"):
        export([tmp_path], tmp_path / "bundle", version="1")
    assert not (tmp_path / "bundle").exists()


def test_another_recipe_another_size_and_a_model_in_training_mode(config, tmp_path):
    recipe = Recipe(crop_size=96, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    torch.manual_seed(0)
    model = build_model(config.model, recipe)
    assert model.training
    before = {k: v.clone() for k, v in model.state_dict().items()}
    export_graph(model, 96, tmp_path / "model.onnx")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    pixels = crops(3, size=96)
    found = Session(tmp_path / "model.onnx", 1).run({"crops": pixels})
    assert found["heat"].shape == (3, 3, 3)
    np.testing.assert_allclose(found["logit"], judge(model.eval(), pixels)[0], atol=1e-4)


# From the command line, from a configuration to a bundle.


def test_train_and_export_from_the_command_line(faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "load_data", lambda *_: (faces.data(), faces.data()))
    monkeypatch.setattr(loop, "keep_memory", lambda: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # set by the verb, for the whole process
    path = tmp_path / "small.toml"
    path.write_text(
        'name = "small"\n[recipe]\ncrop_size = 64\n[model]\nbackbone = "test_efficientnet"\n'
        "[batch]\nvideo_pairs = 1\nstill_pairs = 1\npart_blends = 0\nself_blends = 0\n"
        "[optim]\nsteps = 9\nthreads = 1\n"
    )
    trained, bundle = str(tmp_path / "trained"), str(tmp_path / "bundle")
    steps = ["--workers", "0", "--set", "optim.steps=2"]
    assert run(["train", str(path), "-o", trained, *steps]) == 0
    assert run(["export", trained, "-o", bundle, "--version", "7"]) == 0
    made = load_bundle(bundle)
    assert (made.name, made.version, made.training["steps"]) == ("small", "7", 2)
    assert made.recipe.digest == load_config(path).recipe.digest
    assert "not yet calibrated" in capsys.readouterr().out
    data = made.graph.read_bytes()  # once is enough
    monkeypatch.setattr(room, "export_graph", lambda _model, _size, path: path.write_bytes(data))
    options = ["--name", "other", "--calibrated", "frame_lite0"]
    assert run(["export", trained, "-o", bundle, *options]) == 0
    assert "calibrated as frame_lite0" in capsys.readouterr().out
    other = load_bundle(bundle)
    assert (other.name, other.calibration) == ("other", load_bundle("frame_lite0").calibration)
    assert run(["export", trained, trained, "-o", bundle]) == 0
    assert len(load_bundle(bundle).training["joined"]) == 1
    assert run(["train", str(path), "-o", trained, *steps]) != 0
    assert "add --resume" in capsys.readouterr().err
