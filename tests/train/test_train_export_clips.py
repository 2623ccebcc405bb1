"""Bundles of the heads that judge whole clips: graph, golden scores, and detection with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch

import tellframe
from tellframe.bundle import golden_input, load_bundle
from tellframe.errors import BundleError
from tellframe.runtime import Session
from tellframe.train import export as room
from tellframe.train.checkpoint import load_trained, save_checkpoint
from tellframe.train.config import HEADS
from tellframe.train.export import export
from tellframe.train.models import build_model
from tellframe.train.state import TrainState

pytestmark = pytest.mark.train


def clips(count, frames, seed=0, size=64):
    rng = np.random.default_rng([seed, count, frames])
    return rng.integers(0, 256, (count, frames, size, size, 3)).astype(np.uint8)


@pytest.fixture(scope="module", params=[head for head in HEADS if head != "mean"])
def head(request):
    return request.param


@pytest.fixture(scope="module")
def folder(config, head, tmp_path_factory):
    """A training folder of that head, of weights none of which is zero."""
    model_config = dataclasses.replace(config.model, head=head, hidden=16)
    recipe = dataclasses.replace(config.recipe, num_frames=5)
    config = dataclasses.replace(config, model=model_config, recipe=recipe, name=head)
    torch.manual_seed(0)
    model = build_model(config.model, config.recipe)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith("backbone"):
                weight += 0.3 * torch.randn_like(weight)
    path = tmp_path_factory.mktemp(head)
    optimizer = torch.optim.AdamW(model.parameters())
    save_checkpoint(path, config, TrainState(model, model, optimizer), 0)
    return path


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """The bundle of that folder, and the gap that was measured; never written to by a test."""
    target = tmp_path_factory.mktemp("bundles")
    return target, export([folder], target, version="1")


@pytest.fixture(scope="module")
def session(exported):
    return Session(exported[0] / "model.onnx", 1)


@pytest.mark.parametrize(("count", "frames"), [(1, 1), (1, 7), (4, 1), (2, 3), (3, 12)])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_graph_computes_what_torch_computes(session, folder, count, frames, share):
    crops = clips(count, frames)
    valid = np.random.default_rng([3, count, frames]).random((count, frames)) < share
    model = load_trained(folder)[0]
    with torch.no_grad():
        expected = model(torch.from_numpy(crops), torch.from_numpy(valid))
    found = session.run({"crops": crops, "valid": valid})
    for name, tensor in zip(("logit", "frame_logit", "heat"), expected, strict=True):
        assert found[name].shape == tuple(tensor.shape)
        assert np.abs(found[name] - tensor.numpy()).max() < 1e-4, name
    again = session.run({"crops": crops, "valid": valid})  # nothing is kept between runs
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_names_of_the_graph(session):
    assert session.input_names == ("crops", "valid")
    assert session.output_names == ("logit", "frame_logit", "heat")


def test_missing_frames_have_no_influence_in_the_graph(session):
    crops, valid = clips(2, 6), np.array([[1, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 0]], dtype=np.bool_)
    found = session.run({"crops": crops, "valid": valid})
    noise = np.where(valid[..., None, None, None], crops, clips(2, 6, seed=9))
    for name, array in session.run({"crops": noise, "valid": valid}).items():
        np.testing.assert_allclose(array, found[name], atol=1e-5)
    for k, seen in enumerate(valid):
        alone = session.run({"crops": crops[k : k + 1, seen], "valid": seen[None, seen]})
        np.testing.assert_allclose(alone["logit"][0], found["logit"][k], atol=1e-5)
        np.testing.assert_allclose(
            alone["frame_logit"][0], found["frame_logit"][k, seen], atol=1e-5
        )
    assert np.ptp(found["logit"]) > 1e-3  # not mute


def test_the_graph_tells_nothing_of_the_machine_that_made_it(exported):
    data = (exported[0] / "model.onnx").read_bytes()
    for word in (b"stack_trace", b"site-packages", b"models.py", str(exported[0].parent).encode()):
        assert word not in data


def test_the_bundle_says_what_it_is(exported, head):
    path, gap = exported
    bundle = load_bundle(path)
    assert bundle.kind == "clip"
    assert bundle.name == bundle.training["config"]["model"]["head"] == head
    assert gap < 1e-4
    assert sorted(p.name for p in path.iterdir()) == ["bundle.json", "model.onnx", "model_card.md"]


def test_golden_scores_are_those_of_the_graph(exported):
    bundle = load_bundle(exported[0])
    found = Session(bundle.graph, 1).run(golden_input(bundle.kind, 64))["logit"]
    assert len(bundle.golden) == len(set(bundle.golden)) == 4
    np.testing.assert_allclose(bundle.golden, found, atol=1e-5)
    assert tellframe.load(exported[0], threads=1).check_golden() < 1e-4
    detector = tellframe.load(exported[0], threads=1)
    wrong = dataclasses.replace(bundle, golden=tuple(g + 0.1 for g in bundle.golden))
    with pytest.raises(BundleError, match="golden scores differ"):
        tellframe.Detector(wrong, wrong.recipe, detector.face_detector).check_golden()


def test_a_graph_of_fixed_length_is_no_bundle(exported, folder, tmp_path, monkeypatch):
    """As an exporter that unrolls the frames would write it."""

    def export_fixed(_model, _size, path):
        graph = onnx.load(exported[0] / "model.onnx")
        for value in graph.graph.input:
            value.type.tensor_type.shape.dim[1].dim_value = 3
        onnx.save(graph, path)

    monkeypatch.setattr(room, "export_graph", export_fixed)
    with pytest.raises(BundleError, match="does not accept"):
        export([folder], tmp_path, version="1")
    assert not list(tmp_path.iterdir())


def test_detection_with_every_head(exported, folder, samples):
    detector = tellframe.load(exported[0], threads=1)
    (clip,) = detector.extract(samples / "real.mp4").clips
    (person,) = detector.detect(samples / "real.mp4").people
    with torch.no_grad():
        crops, valid = torch.from_numpy(clip.pixels)[None], torch.from_numpy(clip.valid)[None]
        logit, frame_logit, heat = load_trained(folder)[0](crops, valid)
    probability = detector.bundle.calibration.probability
    assert person.probability == pytest.approx(float(probability(logit.item())), abs=1e-4)
    shown = [moment.probability for moment in person.moments]
    assert len(shown) == person.frames == clip.num_valid > 2
    np.testing.assert_allclose(shown, probability(frame_logit.numpy()[valid]), atol=1e-4)
    np.testing.assert_allclose(person.evidence.heat, heat.numpy()[valid], atol=1e-4)
