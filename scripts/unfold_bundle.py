"""Make a training folder of a bundle, for `[model] start`: to go on from a shipped model.

    python scripts/unfold_bundle.py configs/frame_lite0.toml runs/shipped

In a bundle's graph every batch norm is folded into the convolution before it. Here each gets the
mean and variance that its convolution gives on crops of the configuration's training data, and the
scale and offset that take them back: the network computes the same, and can be trained as before.
The difference map is in no bundle and starts anew. Of networks that judge together, the first is
unfolded; the others can be trained from it as they were.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from tellframe.bundle import Bundle, load_bundle
from tellframe.errors import ConfigError, TellframeError
from tellframe.train.checkpoint import save_start
from tellframe.train.config import QualityConfig, TrainConfig, load_config
from tellframe.train.models import MeanModel, build_model
from tellframe.train.quality import draw_crops, say_crops

TOLERANCE: Final = 1e-3
"""Largest difference allowed between the logits of the graph and of the unfolded network."""
CROPS: Final = 640
"""Of the training data, whose statistics the batch norms get."""
BATCH: Final = 32


def read_folded(bundle: Bundle) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Read weight and bias of every convolution, in the order of the graph, and of the head.

    Of networks that judge together, those of the first.

    Raises:
        ConfigError: the graph is not one of `tellframe export` of a head "mean".
    """
    graph = onnx.load(bundle.graph).graph
    values = {v.name: torch.from_numpy(numpy_helper.to_array(v).copy()) for v in graph.initializer}
    # Of what several have in common the graph keeps the name that it has in the first.
    others = re.compile(r"model\.members\.[1-9]")
    convolutions = [
        (values[node.input[1]], values[node.input[2]])
        for node in graph.node
        if node.op_type == "Conv" and len(node.input) == 3 and not others.match(node.input[1])
    ]
    heads = [
        values[name]
        for n in graph.node
        if n.op_type == "Einsum"
        for name in n.input
        if name in values
    ]
    biases = [v for name, v in values.items() if name.endswith("head.bias")]
    if not convolutions or not heads or len(biases) != len(heads):
        raise ConfigError(f"{bundle.graph}: no frame classifier as `tellframe export` writes it")
    return convolutions, heads[0].reshape(1, -1), biases[0]


def judge_first(bundle: Bundle, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits, (N,), that the first network of a graph gives crops, (N, S, S, 3)."""
    model = onnx.load(bundle.graph)
    nodes = model.graph.node
    linear = next(node.output[0] for node in nodes if node.op_type == "Einsum")
    heat = next(node.output[0] for node in nodes if linear in node.input)  # the bias added
    model.graph.output.append(onnx.ValueInfoProto(name=heat))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run([heat], {"crops": crops})
    return np.asarray(found.mean(axis=(1, 2)), dtype=np.float32)


def pair_up(model: MeanModel) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return every convolution of the backbone with the batch norm that follows it.

    Raises:
        ConfigError: some have none.
    """
    modules = list(model.backbone.modules())
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d)]
    norms = [m for m in modules if isinstance(m, nn.BatchNorm2d)]
    widths = [c.out_channels for c in convolutions], [n.num_features for n in norms]
    if widths[0] != widths[1] or any(c.bias is not None for c in convolutions):
        raise ConfigError("the backbone has convolutions without a batch norm; train it anew")
    return list(zip(convolutions, norms, strict=True))


@torch.no_grad()
def load_folded(model: MeanModel, bundle: Bundle) -> None:
    """Give a model the weights of a bundle; its batch norms add the folded bias and no more.

    Raises:
        ConfigError: they do not fit.
    """
    folded, weight, bias = read_folded(bundle)
    pairs = pair_up(model)
    found, expected = [w.shape for w, _ in folded], [c.weight.shape for c, _ in pairs]
    if found != expected or weight.shape != model.head.weight.shape:
        raise ConfigError(f"{bundle.graph}: is of another backbone than the configuration's")
    for (conv, norm), (w, b) in zip(pairs, folded, strict=True):
        conv.weight.copy_(w)
        norm.get_buffer("running_mean").zero_()
        norm.get_buffer("running_var").fill_(1 - norm.eps)
        norm.weight.fill_(1)
        norm.bias.copy_(b)
    model.head.weight.copy_(weight)
    model.head.bias.copy_(bias)


@torch.no_grad()
def unfold_norms(model: MeanModel, crops: Tensor) -> None:
    """Give every batch norm the statistics of its input on crops, (N, S, S, 3).

    Scale and offset change with them, so that the network in `eval()` computes what it did.
    """
    sums: dict[nn.Module, Tensor] = {}

    def note(conv: nn.Module, _inputs: object, output: Tensor) -> None:
        values = output.double()
        found = torch.stack([values.mean(dim=(2, 3)), values.square().mean(dim=(2, 3))])
        sums[conv] = sums.get(conv, 0) + found.sum(dim=1) / len(crops)

    pairs = pair_up(model)
    hooks = [conv.register_forward_hook(note) for conv, _ in pairs]
    for batch in torch.split(crops, BATCH):
        model.judge_frames(batch)
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        mean, square = sums[conv]
        variance = (square - mean**2).clamp(min=0)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


def unfold(config: TrainConfig, bundle: Bundle, folder: Path) -> float:
    """Write the training folder.

    Args:
        config: its backbone and recipe are the bundle's; its data gives the crops.
        bundle: a frame classifier.
        folder: made where it is missing.

    Returns:
        The largest difference of the unfolded network's logits to those of the graph.

    Raises:
        ConfigError: the bundle does not fit, or there is no training data.
        RecipeMismatchError: the bundle has another recipe.
    """
    bundle.recipe.require_same(config.recipe, f"{bundle.graph} and the configuration")
    model = build_model(config.model, config.recipe)
    if not isinstance(model, MeanModel):
        raise ConfigError('[model] head: only "mean" is unfolded; another can start from it')
    model.eval()
    load_folded(model, bundle)
    say_crops("measuring the batch norms", CROPS)
    crops = draw_crops(model, replace(config, quality=QualityConfig(crops=CROPS)))
    unfold_norms(model, torch.from_numpy(crops))
    shown = crops[:BATCH]
    with torch.no_grad():
        logits = model.judge_frames(torch.from_numpy(shown))[0].numpy()
    gap = float(np.abs(logits - judge_first(bundle, shown)).max())
    if not gap < TOLERANCE:
        raise ConfigError(f"{bundle.graph}: unfolded it differs by {gap:.2e}, over {TOLERANCE}")
    save_start(folder, config, model)
    return gap


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="configuration whose data gives the crops")
    parser.add_argument("output", type=Path, help="training folder to write")
    parser.add_argument("--model", metavar="BUNDLE", help="default: the shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    try:
        config = load_config(args.config, [*args.set, "model.start=''"])
        gap = unfold(config, load_bundle(args.model), args.output)
    except TellframeError as error:
        parser.exit(1, f"unfold_bundle: error: {error}\n")
    print(f"{args.output}: computes what the graph does within {gap:.1e}")


if __name__ == "__main__":
    main()
