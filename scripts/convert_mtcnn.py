"""Convert the MTCNN weights of the facenet-pytorch wheel into three ONNX graphs.

    pip download --no-deps facenet-pytorch==2.6.0
    python scripts/convert_mtcnn.py facenet_pytorch-2.6.0-py3-none-any.whl

Needs the training extra (torch, onnx). The networks are those of Zhang et al. 2016, "Joint Face
Detection and Alignment using Multi-task Cascaded Convolutional Networks", in the layout of the
stored state dicts. Also writes NOTICE.md with the origin and the licence of the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Final

import onnx
import torch
from torch import Tensor, nn

VERSION: Final = "2.6.0"
WHEEL_SHA256: Final = "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca"
LICENSE_MEMBER: Final = f"facenet_pytorch-{VERSION}.dist-info/LICENSE.md"
OPSET: Final = 17
WEIGHTS: Final = Path(__file__).parents[1] / "src" / "tellframe" / "faces" / "weights"


class Slope(nn.Module):
    """PReLU, optionally with the maximum pooling behind it, without ONNX's PRelu.

    ONNX Runtime's PRelu kernel is not vectorised and took half the time of P-Net. For a slope up
    to 1, PReLU is max(x, slope * x). For a slope above 1 it is min(x, slope * x), which rises
    everywhere, so that it may as well be taken behind the pooling, where there is less to do.
    """

    def __init__(self, channels: int, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Apply slope and pooling to features of shape (N, C, ...)."""
        slope = self.weight.view(-1, *(1,) * (x.ndim - 2))
        x = torch.maximum(x, x * slope.clamp(max=1))
        if self.pool is not None:
            x = self.pool(x)
        if self.weight.max() > 1:
            x = torch.minimum(x, x * slope.clamp(min=1))
        return x


def halve(window: int) -> nn.Module:
    """Maximum pooling by 2 that keeps the last column and row, as Caffe did."""
    return nn.MaxPool2d(window, 2, ceil_mode=True)


def face_probability(scores: Tensor) -> Tensor:
    """Softmax over the two classes (no face, face), of which only the second is kept."""
    return (scores[:, 1] - scores[:, 0]).sigmoid()


class Network(nn.Module):
    """One of the three."""

    side: int | None
    """Of the pictures that it takes, in pixels; None for any."""
    outputs: tuple[str, ...]
    """Names of what it returns."""


class PNet(Network):
    """Proposal network: (N, 3, H, W) to offsets (N, 4, h, w) and probability (N, h, w)."""

    side = None
    outputs = ("offsets", "probability")

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), Slope(10, halve(2))
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), Slope(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), Slope(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the `outputs`."""
        x = self.prelu1(self.conv1(pixels))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), face_probability(self.conv4_1(x))


class RNet(Network):
    """Refinement network: (N, 3, 24, 24) to offsets (N, 4) and probability (N,)."""

    side = 24
    outputs = ("offsets", "probability")

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), Slope(28, halve(3))
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), Slope(48, halve(3))
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), Slope(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), Slope(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the `outputs`."""
        x = self.prelu1(self.conv1(pixels))
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        # The weights come from MATLAB by way of TensorFlow: they expect width before height.
        x = self.prelu4(self.dense4(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense5_2(x), face_probability(self.dense5_1(x))


class ONet(Network):
    """Output network: (N, 3, 48, 48) to offsets (N, 4), landmarks (N, 10), probability (N,)."""

    side = 48
    outputs = ("offsets", "landmarks", "probability")

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), Slope(32, halve(3))
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), Slope(64, halve(3))
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), Slope(64, halve(2))
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), Slope(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), Slope(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the `outputs`."""
        x = self.prelu1(self.conv1(pixels))
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense6_2(x), self.dense6_3(x), face_probability(self.dense6_1(x))


NETWORKS: Final[dict[str, type[Network]]] = {"pnet": PNet, "rnet": RNet, "onet": ONet}


def open_wheel(path: Path) -> zipfile.ZipFile:
    """Open the wheel after its checksum was compared with the pinned one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{path}: sha256 is {found}, expected {WHEEL_SHA256}; download it again")
    return zipfile.ZipFile(path)


def load_network(name: str, wheel: zipfile.ZipFile) -> Network:
    """Build one of the `NETWORKS` with the weights of the wheel."""
    network = NETWORKS[name]()
    stored = io.BytesIO(wheel.read(f"facenet_pytorch/data/{name}.pt"))
    state = torch.load(stored, weights_only=True, map_location="cpu")
    network.load_state_dict(state)
    return network.eval()


def _spatial_axes(output: str) -> dict[int, str]:
    first = 1 if output == "probability" else 2
    return {0: "batch", first: "rows", first + 1: "columns"}


def export(name: str, network: Network, folder: Path) -> Path:
    """Write one network as a self-contained ONNX graph."""
    path = folder / f"mtcnn_{name}.onnx"
    side = network.side
    dynamic = {"pixels": {0: "batch"} if side else {0: "batch", 2: "height", 3: "width"}}
    for output in network.outputs:
        dynamic[output] = {0: "batch"} if side else _spatial_axes(output)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is announced to go, yet it alone writes opset 17 directly and
        # without the source paths of this machine in the graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, side or 48, side or 64),),
            buffer,  # type: ignore[arg-type]  # of the other exporter; this one takes streams
            input_names=["pixels"],
            output_names=list(network.outputs),
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def write_notice(folder: Path, licence: str, paths: list[Path]) -> None:
    """Write origin, checksums and licence of the graphs beside them."""
    rows = "\n".join(
        f"| `{path.name}` | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |" for path in paths
    )
    (folder / "NOTICE.md").write_text(
        f"""# Where these weights come from

The three graphs are the MTCNN networks of Zhang et al. 2016 with the weights that the Python
package `facenet-pytorch` {VERSION} ships (`facenet_pytorch/data/pnet.pt`, `rnet.pt`, `onet.pt`),
converted by `scripts/convert_mtcnn.py` without any change of value.

- Wheel: `facenet_pytorch-{VERSION}-py3-none-any.whl`, sha256
  `{WHEEL_SHA256}`
- Licence: MIT, Copyright (c) 2019 Timothy Esler; full text below

| file | sha256 |
| --- | --- |
{rows}

## Licence of the weights

{licence.strip()}
""",
        encoding="utf-8",
    )


def main() -> None:
    """Convert the wheel named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path, help="facenet_pytorch-2.6.0-py3-none-any.whl")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="where the graphs go")
    options = parser.parse_args()
    if not options.wheel.is_file():
        parser.error(f"{options.wheel}: no such file")
    options.folder.mkdir(parents=True, exist_ok=True)
    with open_wheel(options.wheel) as wheel:
        paths = [export(name, load_network(name, wheel), options.folder) for name in NETWORKS]
        write_notice(options.folder, wheel.read(LICENSE_MEMBER).decode(), paths)
    for path in paths:
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)


if __name__ == "__main__":
    main()
