"""Backbones: which are refused, and the weights that they start from."""

from __future__ import annotations

import io
import os
import zipfile

import pytest
import timm
import torch
from safetensors.torch import save_file

from tellframe.errors import ConfigError
from tellframe.train.backbone import build_backbone
from tellframe.train.config import ModelConfig

pytestmark = pytest.mark.train

NAME = "test_efficientnet"


def build(**fields):
    torch.manual_seed(0)
    return build_backbone(ModelConfig(**{"backbone": NAME, **fields}), 64)[0]


# mobilenetv3's feature map is wider than timm's num_features says.
@pytest.mark.parametrize(
    ("name", "width"),
    [(NAME, 256), ("test_resnet", 96), ("mobilenetv3_small_050", 1024), ("mixnet_s", 1536)],
)
def test_the_width_is_that_of_the_feature_map(name, width):
    backbone, found = build_backbone(ModelConfig(backbone=name), 64)
    assert found == width
    with torch.no_grad():
        assert tuple(backbone(torch.zeros(2, 3, 64, 64)).shape) == (2, width, 2, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_efficientnet_lite", "did you mean 'tf_efficientnet_lite"),
        ("test_vit", "not a feature map"),
    ],
)
def test_backbones_that_do_not_fit_are_errors(name, message):
    with pytest.raises(ConfigError, match=message):
        build_backbone(ModelConfig(backbone=name), 160)


# Weights to start from: the same order, other names, and a classifier at the end.


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    values = timm.create_model(NAME, num_classes=10).state_dict()
    # Random running statistics too: those of a new network are all alike.
    drawn = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in values.items()}
    return {f"net.{i}.{k.rsplit('.', 1)[-1]}": v for i, (k, v) in enumerate(drawn.items())}


def write(state, path):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("package/weights.pth", buffer.getvalue())
            wheel.writestr("package/__init__.py", "")
    else:
        path.write_bytes(buffer.getvalue())
    return str(path)


@pytest.mark.parametrize("name", ["weights.pth", "package.whl"])
def test_weights_are_copied_in_order(state, tmp_path, name):
    model = build(pretrained=write(state, tmp_path / name))
    own = [v for k, v in model.state_dict().items() if "num_batches" not in k]
    given = [v for k, v in state.items() if "num_batches" not in k]
    assert len(given) == len(own) + 2  # weight and bias of the classifier
    assert all(torch.equal(a, b) for a, b in zip(own, given, strict=False))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_timms_own_names_go_before_the_order(tmp_path, name):
    torch.manual_seed(4)
    source = timm.create_model(NAME, num_classes=10).state_dict()
    drawn = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in source.items()}
    model = build(pretrained=write(dict(sorted(drawn.items())), tmp_path / name))
    for key, value in model.state_dict().items():
        assert torch.equal(value, drawn[key]), key


def test_safetensors_of_other_names_are_refused_for_want_of_order(state, tmp_path):
    with pytest.raises(ConfigError, match=r"keeps no order; give a \.pth"):
        build(pretrained=write(state, tmp_path / "weights.safetensors"))


def test_weights_that_do_not_fit_are_errors(state, tmp_path):
    first = next(iter(state))
    cases = {
        "does not fit conv_stem.weight": {**state, first: torch.zeros(1, 2)},
        "holds 3 tensors, the backbone needs": dict(list(state.items())[:3]),
    }
    for message, values in cases.items():
        with pytest.raises(ConfigError, match=message):
            build(pretrained=write(values, tmp_path / "weights.pth"))


def test_missing_weights_are_an_error_that_names_the_key(tmp_path):
    with pytest.raises(ConfigError, match=r"\[model\] pretrained = '.*absent\.pth': no such file"):
        build(pretrained=str(tmp_path / "absent.pth"))


class Taken:
    """What a file of weights could execute when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["weights.pth", "package.whl", "weights.bin"])
def test_weights_that_would_execute_something_are_refused(tmp_path, name):
    made = tmp_path / "made"
    path = write({"net.0.weight": Taken(str(made))}, tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name}: holds no plain tensors"):
        build(pretrained=path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pth", b""),
        ("a.pth", b"noise" * 99),
        ("a.whl", b"no zip"),
        ("a.safetensors", b"\xff" * 99),
    ],
)
def test_damaged_weights_are_an_error_that_names_the_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name}: holds no plain tensors, or is damaged"):
        build(pretrained=str(tmp_path / name))


def test_weights_must_be_tensors_by_name(tmp_path):
    for number, value in enumerate(([1, 2], {"a": 1}, torch.zeros(3))):
        torch.save(value, tmp_path / f"{number}.pth")
        with pytest.raises(ConfigError, match="no dictionary of tensors"):
            build(pretrained=str(tmp_path / f"{number}.pth"))


def test_a_wheel_must_hold_one_weights_file(state, tmp_path):
    path = tmp_path / "package.whl"
    write(state, path)
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("package/other.pth", b"")
    with pytest.raises(ConfigError, match=r"expected one \.pth"):
        build(pretrained=str(path))
