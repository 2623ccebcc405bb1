"""The converted networks of MTCNN against the stored ones in torch.

The nets are written here once more, with torch's own PReLU and softmax, so that neither a slip in
the conversion nor in its rewriting of PReLU can hide.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tellframe.runtime import Session

torch = pytest.importorskip("torch", reason="needs the training extra")
from torch import nn  # noqa: E402

pytestmark = pytest.mark.train

WEIGHTS = Path(__file__).parents[2] / "src" / "tellframe" / "faces" / "weights"
PLANS = {
    "pnet": ([(3, 10, 3, 2), (10, 16, 3, 0), (16, 32, 3, 0)], None, "4"),
    "rnet": ([(3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)], (576, 128), "5"),
    "onet": ([(3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)], (1152, 256), "6"),
}
"""Convolutions (in, out, kernel, pooling window), dense layer, and number of the heads."""


@pytest.fixture(scope="module")
def wheel():
    named = os.environ.get("TELLFRAME_FACENET_WHEEL")
    if not named:
        pytest.skip("set TELLFRAME_FACENET_WHEEL to the wheel of facenet-pytorch 2.6.0")
    with zipfile.ZipFile(named) as archive:
        yield archive


def run_reference(wheel, name, pixels):
    """Run the stored network with plain torch functions, step by step."""
    state = torch.load(io.BytesIO(wheel.read(f"facenet_pytorch/data/{name}.pt")), weights_only=True)
    convolutions, dense, head = PLANS[name]
    x = torch.from_numpy(pixels)
    for i, (_, _, _, window) in enumerate(convolutions, start=1):
        x = nn.functional.conv2d(x, state[f"conv{i}.weight"], state[f"conv{i}.bias"])
        x = nn.functional.prelu(x, state[f"prelu{i}.weight"])
        if window:
            x = nn.functional.max_pool2d(x, window, 2, ceil_mode=True)
    kind = "dense" if dense else "conv"
    if dense:
        number = len(convolutions) + 1
        x = x.permute(0, 3, 2, 1).flatten(1)
        x = nn.functional.linear(x, state[f"dense{number}.weight"], state[f"dense{number}.bias"])
        x = nn.functional.prelu(x, state[f"prelu{number}.weight"])
    apply = nn.functional.linear if dense else nn.functional.conv2d
    outputs = {}
    for i, key in enumerate(("probability", "offsets", "landmarks"), start=1):
        if f"{kind}{head}_{i}.weight" in state:
            parts = (state[f"{kind}{head}_{i}.{part}"] for part in ("weight", "bias"))
            outputs[key] = apply(x, *parts)
    outputs["probability"] = outputs["probability"].softmax(1)[:, 1]
    return {key: value.numpy() for key, value in outputs.items()}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pnet", (1, 3, 12, 12)),
        ("pnet", (2, 3, 61, 97)),
        ("pnet", (1, 3, 200, 123)),
        ("rnet", (1, 3, 24, 24)),
        ("rnet", (70, 3, 24, 24)),
        ("onet", (1, 3, 48, 48)),
        ("onet", (33, 3, 48, 48)),
    ],
)
def test_parity(wheel, name, shape):
    pixels = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    # Smooth spots as well as noise: networks of this kind stay mute on noise alone.
    pixels[..., : shape[-1] // 2] = pixels[..., :1, :1]
    found = Session(WEIGHTS / f"mtcnn_{name}.onnx", 1).run({"pixels": pixels})
    expected = run_reference(wheel, name, pixels)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].shape == value.shape
        assert np.abs(found[key] - value).max() < 1e-4, key


def test_notice_names_these_files():
    notice = (WEIGHTS / "NOTICE.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2019 Timothy Esler" in notice
    for name in PLANS:
        digest = hashlib.sha256((WEIGHTS / f"mtcnn_{name}.onnx").read_bytes()).hexdigest()
        assert digest in notice
