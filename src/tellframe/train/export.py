"""Export a trained model to a bundle, and prove that it computes the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch

from tellframe.bundle import Bundle, golden_crops, write_bundle
from tellframe.errors import BundleError
from tellframe.runtime import Session
from tellframe.scoring import Calibration, Decision
from tellframe.train.loop import load_trained
from tellframe.train.models import FrameClassifier

TOLERANCE: Final = 1e-4
"""Largest difference allowed between torch's and ONNX Runtime's logits."""
LICENCE: Final = "Apache-2.0; see the model card for the terms of the training data"


def export(
    folder: Path, target: Path, *, version: str, name: str = "", calibrated: Bundle | None = None
) -> float:
    """Write the model of a training folder as a bundle.

    Args:
        folder: holds the checkpoint.
        target: the bundle's folder; made where it is missing.
        version: of the bundle.
        name: of the bundle; that of the configuration where empty.
        calibrated: bundle whose calibration and limits are taken over; a new bundle is not
            calibrated otherwise.

    Returns:
        The largest difference between torch's and ONNX Runtime's logits on the golden crops.

    Raises:
        ConfigError: there is no checkpoint.
        BundleError: the exported graph does not compute the same within `TOLERANCE`.
    """
    model, config, meta = load_trained(folder)
    target.mkdir(parents=True, exist_ok=True)
    graph, temporary = target / "model.onnx", target / "model.onnx.part"
    export_graph(model, config.recipe.crop_size, temporary)
    crops = golden_crops(config.recipe.crop_size)
    gap, golden = parity(model, temporary, crops)
    if not gap < TOLERANCE:
        temporary.unlink()
        raise BundleError(f"{graph}: differs from torch by {gap:.2e}, more than {TOLERANCE}")
    temporary.replace(graph)
    write_bundle(
        Bundle(
            name=name or config.name,
            version=version,
            graph=graph,
            sha256=hashlib.sha256(graph.read_bytes()).hexdigest(),
            recipe=config.recipe,
            calibration=calibrated.calibration if calibrated else Calibration(),
            decision=calibrated.decision if calibrated else Decision(),
            golden=golden,
            licence=LICENCE,
            training={"steps": meta["step"], "config": meta["config"], "torch": torch.__version__},
        ),
        target,
    )
    return gap


def export_graph(model: FrameClassifier, size: int, path: Path) -> None:
    """Write an ONNX graph that takes uint8 crops, (N, S, S, 3), so that no caller normalises."""
    crops = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    torch.onnx.export(
        model.eval().to(memory_format=torch.contiguous_format),
        (crops,),
        str(path),
        input_names=["crops"],
        output_names=["logit", "heat"],
        dynamic_shapes={"crops": {0: torch.export.Dim("frames", min=1, max=4096)}},
        opset_version=18,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    # The exporter notes stack traces with each node, which name folders of this machine.
    exported = onnx.load(path)
    for node in exported.graph.node:
        del node.metadata_props[:]
    onnx.save(exported, path)


def parity(
    model: FrameClassifier, graph: Path, crops: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> tuple[float, tuple[float, ...]]:
    """Return the largest difference of the logits, and ONNX Runtime's logits."""
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(crops))[0].numpy()
    found = Session(graph).run({"crops": crops})["logit"]
    return float(np.abs(expected - found).max()), tuple(float(v) for v in found)
