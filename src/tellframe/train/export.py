"""Export a trained model to a bundle, and prove that it computes the same."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    DeduplicateHashedInitializersPass,
)
from torch import Tensor, nn

from tellframe.bundle import Bundle, golden_input, write_bundle
from tellframe.errors import BundleError, ConfigError
from tellframe.runtime import Session
from tellframe.scoring import Calibration, Decision
from tellframe.train.card import write_card
from tellframe.train.checkpoint import load_trained
from tellframe.train.config import TrainConfig
from tellframe.train.models import ClipModel, FrameEnsemble, MeanModel
from tellframe.train.quality import load_probe

TOLERANCE: Final = 1e-4
"""Largest difference allowed between ONNX Runtime's logits and torch's in float64."""
LICENCE: Final = "Apache-2.0; see the model card for the terms of the training data"


def export(
    folders: Sequence[Path],
    target: Path,
    *,
    version: str,
    name: str = "",
    calibrated: Bundle | None = None,
    backbone: str = "",
) -> float:
    """Write the model of a training folder as a bundle, with the draft of a model card.

    Args:
        folders: of the training; of several, all of frame classifiers, the mean of the logits
            counts, and what they have in common is computed once.
        target: the bundle's folder; made where it is missing.
        version: of the bundle.
        name: of the bundle; that of the (first) configuration where empty.
        calibrated: bundle whose calibration and limits are taken over; a new bundle is not
            calibrated otherwise. Its metrics are taken over where it has the same graph.
        backbone: see `load_trained`.

    Returns:
        The largest difference of ONNX Runtime's logits to torch's in float64 on the golden crops.

    Raises:
        ConfigError: see `load_trained` and `load_probe`; or clip models are to be joined.
        RecipeMismatchError: the folders have different recipes.
        BundleError: the exported graph does not compute the same within `TOLERANCE`.
    """
    trained = [_load(folder, backbone) for folder in folders]
    config = trained[0][1]
    for folder, (_, other, _) in zip(folders[1:], trained[1:], strict=True):
        other.recipe.require_same(config.recipe, f"{folders[0]} and {folder}")
    models = [model for model, _, _ in trained]
    model = _join(folders, models) if len(models) > 1 else models[0]
    target.mkdir(parents=True, exist_ok=True)
    graph, temporary = target / "model.onnx", target / "model.onnx.part"
    try:
        export_graph(model, config.recipe.crop_size, temporary)
        gap, golden = parity(model, temporary, golden_input(model.kind, config.recipe.crop_size))
        if not gap < TOLERANCE:
            raise BundleError(f"{graph}: differs from torch by {gap:.2e}, more than {TOLERANCE}")
        temporary.replace(graph)
    finally:
        temporary.unlink(missing_ok=True)
    digest = hashlib.sha256(graph.read_bytes()).hexdigest()
    described = [
        {"steps": m["step"], "config": m["config"], "torch": torch.__version__}
        for _, _, m in trained
    ]
    measured = calibrated is not None and calibrated.sha256 == digest
    bundle = Bundle(
        name=name or config.name,
        version=version,
        graph=graph,
        sha256=digest,
        recipe=config.recipe,
        calibration=calibrated.calibration if calibrated else Calibration(),
        decision=calibrated.decision if calibrated else Decision(),
        kind=model.kind,
        golden=golden,
        metrics=calibrated.metrics if calibrated and measured else {},
        licence=LICENCE,
        training={**described[0], "joined": described[1:]} if described[1:] else described[0],
    )
    write_bundle(bundle, target)
    write_card(bundle, target)
    return gap


def _load(folder: Path, backbone: str) -> tuple[ClipModel, TrainConfig, dict[str, Any]]:
    model, config, meta = load_trained(folder, backbone=backbone)
    model.probe = load_probe(folder, meta["step"])
    return model, config, meta


def _join(folders: Sequence[Path], models: Sequence[ClipModel]) -> FrameEnsemble:
    """Make one network of several.

    Raises:
        ConfigError: one of them is no frame classifier.
    """
    frames = [model for model in models if isinstance(model, MeanModel)]
    if len(frames) < len(models):
        other = next(
            f for f, m in zip(folders, models, strict=True) if not isinstance(m, MeanModel)
        )
        raise ConfigError(
            f'{other}: judges whole clips; only those of [model] head = "mean" are joined'
        )
    joined = FrameEnsemble(frames)
    for tensor in joined.state_dict().values():
        # Weights are shared where they are the same bytes, and a running mean makes 0 of -0.
        tensor.add_(0)
    return joined


class _FrameGraph(nn.Module):
    """The frame classifier on single crops, which need no clip around them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        return self.model.judge_frames(crops)  # type: ignore[no-any-return, operator]


def export_graph(model: ClipModel | FrameEnsemble, size: int, path: Path) -> None:
    """Write an ONNX graph that takes uint8 crops, so that no caller normalises.

    Args:
        model: its kind decides the inputs and outputs; see `Bundle.graph`.
        size: side of the crops in pixels.
        path: of the graph.
    """
    model = model.eval().to(memory_format=torch.contiguous_format)
    # An axis of length 1 could be taken for a constant; the golden clips have another length.
    crops = torch.zeros(2, 3, size, size, 3, dtype=torch.uint8)
    axes = {0: "clips", 1: "frames"}
    if model.kind == "frame":
        example = {"crops": crops[:, 0]}
        dynamic = {"crops": {0: "frames"}}
    else:
        example = {"crops": crops, "valid": torch.ones(2, 3, dtype=torch.bool)}
        dynamic = {"crops": axes, "valid": axes}
    with warnings.catch_warnings():
        # Notes of the exporter to its own developers; parity shows whether the graph is right.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _graph_of(model),
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=output_names(model),
            dynamic_shapes=dynamic,
            opset_version=18,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    exported = onnx_ir.load(path)
    # Members of an ensemble that share their first stages compute them once.
    DeduplicateHashedInitializersPass()(exported)
    CommonSubexpressionEliminationPass()(exported)
    # The exporter notes stack traces with each node, which name folders of this machine.
    ClearMetadataAndDocStringPass()(exported)
    onnx_ir.save(exported, path)


def output_names(model: ClipModel | FrameEnsemble) -> list[str]:
    """Return the names of the outputs of a model's graph; see `Bundle.graph`."""
    names = ["logit", "heat"] if model.kind == "frame" else ["logit", "frame_logit", "heat"]
    members = model.members if isinstance(model, FrameEnsemble) else [model]
    return [*names, "degraded"] if any(m.probe is not None for m in members) else names


def parity(
    model: ClipModel | FrameEnsemble, graph: Path, inputs: Mapping[str, NDArray[Any]]
) -> tuple[float, tuple[float, ...]]:
    """Return the largest difference of all outputs but the heat, and ONNX Runtime's logits.

    The graph is held against torch in float64: in float32, torch itself can be 1e-4 off where a
    network amplifies rounding, and two such errors would be counted as one of the graph.

    Args:
        model: what the graph was exported from.
        graph: the exported graph.
        inputs: by name, in the order of the graph.
    """
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    with torch.no_grad():
        values = _graph_of(copy.deepcopy(model).eval().double())(*tensors)
    expected = dict(zip(output_names(model), values, strict=True))
    found = Session(graph).run(inputs)
    gaps = [np.abs(expected[n].numpy() - found[n]).max() for n in expected if n != "heat"]
    return float(np.max(gaps)), tuple(float(v) for v in found["logit"])


def _graph_of(model: ClipModel | FrameEnsemble) -> nn.Module:
    return _FrameGraph(model) if model.kind == "frame" else model
