"""The look at a data set as one HTML page that runs no script and loads nothing from anywhere.

Every number on it comes from the facts of `tellframe.data.eda.describe`.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tellframe.data.cut import Outcome
from tellframe.data.eda_cards import (
    OUTCOME_TEXT,
    Facts,
    face_cards,
    find_words,
    light_cards,
    manifest_cards,
    video_cards,
)
from tellframe.data.eda_look import CLASSES, Look, Pictures, class_of
from tellframe.report.drawing import DRAWING_RULES
from tellframe.report.files import open_replacing
from tellframe.report.shell import page_shell
from tellframe.report.svg import icon
from tellframe.report.words import escaped
from tellframe.types import Label

FRAMES_A_CLASS: Final = 12
"""Frames of the contact sheet, a class."""
NO_FACE_FRAMES: Final = 12
DARK_FRAMES: Final = 8
FAILURES: Final = 20
"""Videos that are listed with the reason why they could not be read."""

_RULES: Final = """
.sheet{display:grid;grid-template-columns:repeat(4,1fr);gap:20px 14px;margin-top:14px}
.sheet.two{grid-template-columns:1fr 1fr}
.sheet img{display:block;width:100%;aspect-ratio:4/3;object-fit:contain;background:var(--faint)}
.sheet .pair{display:grid;grid-template-columns:1fr 1fr;gap:2px}
.sheet figcaption{font-size:13px;line-height:1.4;margin-top:5px;overflow-wrap:anywhere}
.sheet .badge{font-size:13px;gap:4px}
.sheet bdi,.sheet span.soft{display:block}
.soft{color:var(--soft)}
@media screen and (max-width:760px){
.sheet{grid-template-columns:1fr 1fr}
.sheet.two{grid-template-columns:1fr}
}
@media print{.sheet figure{break-inside:avoid}}
"""


class Album:
    """The pictures of the page: a bounded number, however many videos are looked at."""

    def __init__(self) -> None:
        self.frames: dict[str, list[Look]] = {c: [] for c in CLASSES}
        self.no_face: list[Look] = []
        self.dark: list[Look] = []

    def add(self, look: Look) -> Look:
        """Keep the pictures of a look where the page shows them; return it without."""
        frames = self.frames[class_of(look.label)]
        if look.record.outcome == Outcome.OK and len(frames) < FRAMES_A_CLASS:
            frames.append(look)
        if look.record.outcome == Outcome.NO_FACE and len(self.no_face) < NO_FACE_FRAMES:
            self.no_face.append(look)
        if look.pictures.dark and len(self.dark) < DARK_FRAMES:
            self.dark.append(look)
        return dataclasses.replace(look, pictures=Pictures())


def write_page(facts: Facts, album: Album, path: str | Path, *, name: str) -> None:
    """Write the page; replaced only when complete.

    Args:
        facts: from `tellframe.data.eda.describe`.
        album: the pictures of the same sample.
        path: of the HTML file.
        name: of the data set.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    body = [
        '<header class="top"><p class="brand">tellframe</p><p>A look at a data set</p></header>',
        f"<h1><bdi>{escaped(name)}</bdi></h1>",
        _glance(facts),
        '<ul class="found">',
        *(f"<li>{text}</li>" for text in find_words(facts)),
        "</ul>",
        _part("All videos, by the manifest", manifest_cards(facts["manifest"])),
        *_sample_parts(facts, album),
        _failures(facts["sample"]),
        f'<footer class="foot">Made by tellframe {escaped(facts["tellframe"])}, recipe '
        f"{escaped(facts['recipe_digest'])}, seed {facts['sample']['seed']}. This page is complete "
        "in itself: it runs no script and loads nothing.</footer>",
    ]
    with open_replacing(path) as stream:
        stream.write(page_shell(f"Data set {name}", body, DRAWING_RULES + _RULES))


def _glance(facts: Facts) -> str:
    manifest, sample = facts["manifest"], facts["sample"]
    labels = manifest["labels"]
    items = {
        "Videos": f"{manifest['videos']:,}",
        "REAL / FAKE": f"{labels['REAL']:,} / {labels['FAKE']:,}",
        "Opened": f"{sample['videos']:,}",
        "Not readable": f"{len(sample['failures']):,}",
        "Without a face": f"{sample['no_face']:,}",
        "Dark": f"{sample['dark']['videos']:,}",
    }
    cells = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in items.items())
    return f'<dl class="glance">{cells}</dl>'


def _part(title: str, content: Iterable[str]) -> str:
    inner = "\n".join(filter(None, content))
    if not inner:
        return ""
    return f'<section class="part"><h2>{title}</h2>\n<div class="plots">{inner}</div></section>'


def _sample_parts(facts: Facts, album: Album) -> Iterator[str]:
    """Yield the parts that come from the opened videos."""
    sample = facts["sample"]
    yield _part("The opened videos", video_cards(sample))
    yield _part("Light", light_cards(sample))
    yield _sheet(
        "Dark videos, before and after brightening",
        "A dark frame of videos drawn at random among the dark ones: as it is, and as the face "
        "detector sees it, with the faces that it found.",
        [_dark_shot(look) for look in sorted(album.dark, key=lambda k: k.level)],
        "sheet two",
    )
    yield _part("Faces", face_cards(sample))
    shots = [_shot(look) for c in CLASSES for look in album.frames[c]]
    note = "The middle one of the sampled frames of videos drawn at random, with the boxes and the "
    yield _sheet(
        "Frames",
        f"{note}five key points that the face detector found, and its confidence that each box "
        "holds a face, from left to right.",
        shots,
    )
    yield _sheet(
        "Frames of videos without a face",
        f"Nobody was found in any sampled frame, or too briefly; {sample['no_face']:,} such.",
        [_shot(look) for look in album.no_face],
    )


def _sheet(title: str, note: str, shots: Sequence[str], kind: str = "sheet") -> str:
    if not shots:
        return ""
    return (
        f'<section class="part"><h2>{title}</h2><p class="note">{note} Shown: {len(shots)}.</p>'
        f'<div class="{kind}">{"".join(shots)}</div></section>'
    )


def _shot(look: Look) -> str:
    """Return the frame of one video with what is known of it."""
    scores = ", ".join(f"{c:.3f}" for c in look.pictures.confidence[:6])
    found = f"confidence {scores}" if scores else "no face in this frame"
    return f"<figure>{_image(look.pictures.frame, look)}{_caption(look, found)}</figure>"


def _dark_shot(look: Look) -> str:
    pair = _image(look.pictures.dark, look) + _image(look.pictures.brightened, look, "brightened, ")
    text = f"brightness {look.level:.0f} of 255"
    return f'<figure><div class="pair">{pair}</div>{_caption(look, text)}</figure>'


def _image(jpeg: bytes, look: Look, what: str = "") -> str:
    data = base64.b64encode(jpeg).decode("ascii")
    alt = f"{what}frame of {look.record.video}"
    return f'<img alt="{escaped(alt)}" src="data:image/jpeg;base64,{data}">'


def _caption(look: Look, text: str) -> str:
    name = class_of(look.label)
    badge = "no label"
    if name != "unknown":
        badge = f'<span class="badge {name}">{icon(Label(name))} {name}</span>'
    title = escaped(look.record.video)
    last = escaped(look.record.video.rsplit("/", 1)[-1])
    return (
        f'<figcaption>{badge}<bdi title="{title}">{last}</bdi>'
        f'<span class="soft">{escaped(text)}</span></figcaption>'
    )


def _failures(sample: Facts) -> str:
    """Return the list of videos that could not be read."""
    failures = sample["failures"]
    if not failures:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{OUTCOME_TEXT[Outcome(f["outcome"])]}</th>'
        f"<td><bdi>{escaped(f['message'] or f['video'])}</bdi></td></tr>"
        for f in failures[:FAILURES]
    )
    more = len(failures) - FAILURES
    rest = f'<p class="note">And {more:,} more; the JSON has all of them.</p>' if more > 0 else ""
    return (
        '<section class="part"><h2>Not readable</h2><div class="card"><table class="facts">'
        f"<tbody>{rows}</tbody></table></div>{rest}</section>"
    )
