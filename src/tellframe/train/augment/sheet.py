"""A sheet of what every augmentation does, as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np

from tellframe.report.shell import page_shell
from tellframe.report.words import escaped
from tellframe.train.augment.registry import (
    ARRANGEMENTS,
    DEGRADATIONS,
    FROM_PAIRS,
    FROM_REALS,
    MAKERS,
    Change,
    Maker,
    apply,
)
from tellframe.train.augment.sample import Frames, Image, Sample, crop_sample, map_halves
from tellframe.train.config import AugmentConfig

CONTRAST: Final = 4
"""How many times a difference is amplified to be seen."""
TRIES: Final = {True: 5, False: 2}
"""How often all augmentations together are shown, of a still and of a clip."""
STRIP_SIDE: Final = 92
"""Side in pixels of the frames of a clip; stills are shown pixel by pixel."""
_ORDERS: Final = ("shuffle", "frame_rate")
"""Frames that are moved carry their number, as they look much alike."""
_RULES: Final = """
main{max-width:1290px}
h1{font-size:34px}
.part p{max-width:46em}
.rows{display:flex;flex-wrap:wrap;gap:18px 30px;align-items:flex-start}
.example{display:flex;gap:14px;align-items:flex-start}
.example img{display:block;max-width:100%}
.example figcaption{font-size:13px;color:var(--soft)}
.lines{display:grid;grid-auto-rows:1fr;font-size:13px;color:var(--soft);align-self:stretch;
margin-top:22px;width:68px;flex:none;text-align:right}
.lines span{align-self:center}
.weight{color:var(--soft);font-weight:400;font-size:15px;margin-left:8px}
"""


def show(
    samples: Sequence[Sample],
    config: AugmentConfig,
    rng: np.random.Generator,
    *,
    size: int = 224,
    margin: float = 0.1,
    makers: Mapping[str, Maker] = MAKERS,
) -> str:
    """Show every augmentation by its name on some samples: before and after, as real, fake, gap.

    Args:
        samples: clips or stills, with or without a fake; two people at least for `swap_blend`.
        config: its probabilities are named, and used for the last part, where all come together.
        rng: draws all parameters; the page is the same for the same generator.
        size: side of the crops that are shown, as in the recipe.
        margin: as in the recipe.
        makers: of fakes, those that need more than a sample included.

    Returns:
        The page, HTML.
    """
    cropped = [crop_sample(s, size, margin, None) for s in samples]
    changes = ARRANGEMENTS | DEGRADATIONS
    body = [
        '<header class="top"><p class="brand">tellframe</p><p>Augmentation</p></header>',
        "<h1>What the augmentations do</h1>",
        f'<p class="note">Each row shows crops before and after one augmentation: the real, its '
        f"fake and their difference, amplified {CONTRAST} times; clips as frames in order of time, "
        "stills pixel by pixel. What is drawn at random is drawn anew for each row.</p>",
        *(
            _maker_part(name, make, samples, config, rng, (size, margin))
            for name, make in makers.items()
        ),
        *(_change_part(name, change, cropped, config, rng) for name, change in changes.items()),
        _together(samples, config, rng, (size, margin)),
    ]
    return page_shell("Augmentation", body, _RULES)


def _maker_part(
    name: str,
    make: Maker,
    samples: Sequence[Sample],
    config: AugmentConfig,
    rng: np.random.Generator,
    crop: tuple[int, float],
) -> str:
    """Return the part of a maker of fakes, which works on uncut frames."""
    rows = []
    for at, sample in enumerate(samples):
        if name in FROM_PAIRS and sample.fake is sample.real:
            continue
        shown = replace(sample, fake=sample.real) if name in FROM_REALS else sample
        made = make(shown, samples[at - 1], rng)
        rows.append(
            _row(
                {
                    "before": crop_sample(shown, *crop, None),
                    "after": crop_sample(made, *crop, None),
                }
            )
        )
    return _part(name, make, f"weight {getattr(config, name):g}", rows)


def _change_part(
    name: str,
    change: Change,
    samples: Sequence[Sample],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> str:
    """Return the part of an arrangement or degradation."""
    shown = [_numbered(s) if name in _ORDERS else s for s in samples]
    rows = [
        _row({"before": s, "after": change(s, rng)})
        for s in shown
        if name not in _ORDERS or len(s.real) > 1
    ]
    return _part(name, change, f"probability {getattr(config, name):g}", rows)


def _together(
    samples: Sequence[Sample],
    config: AugmentConfig,
    rng: np.random.Generator,
    crop: tuple[int, float],
) -> str:
    """Return the part that shows samples as a batch holds them."""
    rows = []
    for sample in samples:
        count = TRIES[len(sample.real) == 1]
        tries = [apply(crop_sample(sample, *crop, rng), config, rng) for _ in range(count)]
        rows.append(_row({f"draw {n}": t for n, t in enumerate(tries, 1)}))
    return _section(
        "All together",
        "Cut and augmented as the configuration says, drawn anew for each column.",
        rows,
    )


def _part(name: str, function: Any, weight: str, rows: Sequence[str]) -> str:
    text = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    title = f'{escaped(name)}<span class="weight">{escaped(weight)}</span>'
    return _section(title, escaped(text), rows)


def _section(title: str, text: str, rows: Sequence[str]) -> str:
    content = "\n".join(rows) or '<p class="note">No sample to show it on.</p>'
    return (
        f'<section class="part"><h2>{title}</h2><p>{text}</p>'
        f'<div class="rows">{content}</div></section>'
    )


def _row(pictures: Mapping[str, Sample]) -> str:
    """Return a row of boards with their captions."""
    boards = "".join(
        f"<figure><figcaption>{word}</figcaption>{_image(_board(sample), word)}</figure>"
        for word, sample in pictures.items()
    )
    return f'<div class="example">{_lines([*pictures.values()][-1])}{boards}</div>'


def _lines(sample: Sample) -> str:
    words = ["real"] if sample.fake is sample.real else ["real", "fake", "difference"]
    return f'<div class="lines">{"".join(f"<span>{w}</span>" for w in words)}</div>'


def _board(sample: Sample) -> Image:
    """Put all frames of both halves and their difference into one picture."""
    tile = sample.real.shape[1] if len(sample.real) == 1 else STRIP_SIDE
    lines = [sample.real]
    if sample.fake is not sample.real:
        gap = np.abs(sample.real.astype(np.int16) - sample.fake) * CONTRAST
        lines += [sample.fake, gap.clip(0, 255).astype(np.uint8)]
    return np.concatenate([_strip(frames, tile) for frames in lines])


def _strip(frames: Frames, tile: int) -> Image:
    """Put frames beside each other, with a white line of two pixels around each."""
    small = [cv2.resize(f, (tile, tile), interpolation=cv2.INTER_AREA) for f in frames]
    framed = np.full((len(frames), tile + 4, tile + 4, 3), 255, dtype=np.uint8)
    framed[:, 2:-2, 2:-2] = small
    return np.concatenate(list(framed), axis=1)


def _numbered(sample: Sample) -> Sample:
    """Write its number into every frame."""

    def write(frames: Frames) -> Frames:
        return np.stack([_write(frame, str(at)) for at, frame in enumerate(frames, 1)])

    return map_halves(sample, write)


def _write(frame: Image, text: str) -> Image:
    out = frame.copy()
    size = len(out) / 90
    for colour, width in ((0, 6), (255, 2)):
        cv2.putText(out, text, (4, round(24 * size)), cv2.FONT_HERSHEY_SIMPLEX, size,
                    (colour,) * 3, width, cv2.LINE_AA)  # fmt: skip
    return out


def _image(picture: Image, alt: str) -> str:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    # Full colour resolution: traces are often in the colour.
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92, *sampling])
    text = base64.b64encode(data.tobytes()).decode("ascii")
    height, width = picture.shape[:2]
    source = f"data:image/jpeg;base64,{text}"
    return f'<img alt="{escaped(alt)}" width="{width}" height="{height}" src="{source}">'
