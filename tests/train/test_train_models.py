"""The network: what it gives, what it starts from, and which backbones it refuses."""

from __future__ import annotations

import io
import zipfile

import pytest
import timm
import torch
from safetensors.torch import save_file

from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train.config import ModelConfig
from tellframe.train.models import FrameClassifier

pytestmark = pytest.mark.train

RECIPE = Recipe(crop_size=64, mean=(0.2, 0.5, 0.7), std=(0.1, 0.2, 0.3))
NAME = "test_efficientnet"


def build(**fields):
    torch.manual_seed(0)
    return FrameClassifier(ModelConfig(**{"backbone": NAME, **fields}), RECIPE)


def crops(count=3, size=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


# mobilenetv3's feature map is wider than timm's num_features says.
@pytest.mark.parametrize("name", [NAME, "test_resnet", "mobilenetv3_small_050", "test_convnext"])
def test_logit_is_the_mean_of_the_heat(name):
    model = build(backbone=name).eval()
    with torch.no_grad():
        logit, heat = model(crops())
    assert tuple(logit.shape) == (3,)
    assert tuple(heat.shape) == (3, 2, 2)
    torch.testing.assert_close(heat.mean(dim=(1, 2)), logit)


def test_training_and_judging_agree_without_dropout():
    model = build(dropout=0.0).eval()
    with torch.no_grad():
        logit, _ = model(crops())
        trained, difference = model.forward_train(crops())
    torch.testing.assert_close(trained, logit)
    assert tuple(difference.shape) == (3, 2, 2)


def test_dropout_acts_in_training_alone():
    model = build(dropout=0.5)
    model.backbone.eval()
    with torch.no_grad():
        a, b = (model.forward_train(crops())[0] for _ in range(2))
        assert not torch.equal(a, b)
        model.eval()
        a, b = (model.forward_train(crops())[0] for _ in range(2))
        assert torch.equal(a, b)


def test_pixels_are_normalised_as_the_recipe_says():
    model = build().eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    picture = torch.tensor([[[[51, 128, 255]]]], dtype=torch.uint8).expand(1, 64, 64, 3)
    with torch.no_grad():
        model(picture)
    expected = [(0.2 - 0.2) / 0.1, (128 / 255 - 0.5) / 0.2, (1 - 0.7) / 0.3]
    torch.testing.assert_close(seen[0][0, :, 5, 9], torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_building_is_decided_by_the_seed():
    a, b = build().state_dict(), build().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert build().training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_efficientnet_lite", "did you mean 'tf_efficientnet_lite"),
        ("test_vit", "not a feature map"),
    ],
)
def test_backbones_that_do_not_fit_are_errors(name, message):
    with pytest.raises(ConfigError, match=message):
        FrameClassifier(ModelConfig(backbone=name), Recipe(crop_size=160))


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
    own = [v for k, v in model.backbone.state_dict().items() if "num_batches" not in k]
    given = [v for k, v in state.items() if "num_batches" not in k]
    assert len(given) == len(own) + 2  # weight and bias of the classifier
    assert all(torch.equal(a, b) for a, b in zip(own, given, strict=False))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_timms_own_names_go_before_the_order(tmp_path, name):
    torch.manual_seed(4)
    source = timm.create_model(NAME, num_classes=10).state_dict()
    drawn = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in source.items()}
    model = build(pretrained=write(dict(sorted(drawn.items())), tmp_path / name))
    for key, value in model.backbone.state_dict().items():
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
    with pytest.raises(ConfigError, match=r"absent\.pth: no such file; \[model\] pretrained"):
        build(pretrained=str(tmp_path / "absent.pth"))


def test_a_wheel_must_hold_one_weights_file(state, tmp_path):
    path = tmp_path / "package.whl"
    write(state, path)
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("package/other.pth", b"")
    with pytest.raises(ConfigError, match=r"expected one \.pth"):
        build(pretrained=str(path))
