"""Plain words and safe text that the table and the page share."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

from tellframe.types import (
    FAR_APART,
    REASON_TEXT,
    Label,
    Media,
    ModelInfo,
    Reason,
    Sandbox,
    Verdict,
)

Limits = tuple[float, float]
"""Up to which probability REAL is said, and from which on FAKE."""

TITLES: Final[dict[Label, str]] = {
    Label.FAKE: "Likely fake",
    Label.REAL: "No sign of a fake found",
    Label.INCONCLUSIVE: "Inconclusive",
}
"""What a label means; REAL is worded so that nobody takes it for a proof."""

UNREADABLE_TITLE: Final = "Could not be read"

COUNTER_TEXT: Final[dict[str, str]] = {
    "frames_sampled": "Frames sampled from the video",
    "faces_detected": "Faces found in these frames",
    "scene_cuts": "Cuts between scenes, at which a person counts anew",
    "dropped_short": "People left out, seen too briefly",
    "dropped_print": "Faces left out as prints on clothes",
    "dropped_many": "People left out, more than the limit",
    "dropped_faces": "Faces left out, more than the limit of one frame",
}
"""Words for well-known counters; the others are shown by their name, with spaces."""

LIMITS: Final[tuple[str, ...]] = (
    "This is a statistical estimate by a machine, not a proof. It can support the judgement of a "
    "person who knows the source and the context, and it cannot replace it.",
    "A low score is not a proof of authenticity: it says that no trace was found that the "
    "detector knows, and unknown methods leave unknown traces.",
    "The detector was trained mostly on face swaps and on lip-sync. Faces that are synthesised "
    "as a whole and heads that are puppeteered from another video are weak points.",
    "Profile views, small or dark faces, heavy compression, filters and videos that were filmed "
    "from a screen make it less reliable, in both directions.",
    "Only faces are judged, and only in the sampled frames. The voice, the background, the order "
    "of the scenes and what is being said are not analysed.",
    "A probability holds for videos like those on which it was calibrated, and where as many of "
    "them are fakes as is said beside it: half, unless another share was chosen. Where fakes are "
    "rarer or more common, the true share is lower or higher.",
)
"""The limits of the method, one paragraph each."""


def printable(text: str) -> str:
    r"""Return `text` with every character made visible that could act on a terminal or a reader.

    Control characters, escape sequences, line breaks, text direction overrides and other
    invisible characters become `\x1b`, `\u202e` and so on; a byte that is not UTF-8 becomes
    `\xff`. The result is always valid Unicode in one line.
    """
    return "".join(map(_visible, text))


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] != "C" and category not in ("Zl", "Zp"):
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps an undecodable byte of a file name
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def file_name(verdict: Verdict) -> str:
    """Return the last part of the path of `verdict`, printable."""
    return printable(PurePath(verdict.video).name or verdict.video) or "(no name)"


def is_unreadable(verdict: Verdict) -> bool:
    """Return whether nothing can be said because the file could not be read."""
    return verdict.error is not None or Reason.UNREADABLE in verdict.reasons


def title(verdict: Verdict) -> str:
    """Return the verdict in two or three plain words."""
    return UNREADABLE_TITLE if is_unreadable(verdict) else TITLES[verdict.label]


def percent(probability: float | None) -> str:
    """Return a probability as a percentage with one decimal, "-" where there is none.

    Nothing is rounded to certainty: the ends are "<0.1 %" and ">99.9 %".
    """
    if probability is None:
        return "-"
    share = 100 * probability
    if share < 0.1:
        return "<0.1 %"
    if share > 99.9:
        return ">99.9 %"
    return f"{share:.1f} %"


def tenths(time: float) -> int:
    """Return seconds in tenths, half of one rounded up; the page's words.js does the same."""
    # The half millisecond is what JSON rounds: without it, its readers might see another tenth.
    return max(0, math.floor(time * 10 + 0.505))


def seconds(time: float) -> str:
    """Return seconds as "9.7", however many."""
    return f"{tenths(time) / 10:.1f}"


def clock(time: float) -> str:
    """Return seconds as "9.7 s", from one minute on as "1:09.7", from one hour as "1:01:09.7"."""
    minutes, rest = divmod(tenths(time), 600)
    if not minutes:
        return f"{rest / 10:.1f} s"
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 10:04.1f}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"


def period(start: float, end: float) -> str:
    """Return a span of seconds as "from 0.3 s to 9.6 s", or "at 7.1 s" where it has no length."""
    first, last = clock(start), clock(end)
    return f"at {first}" if first == last else f"from {first} to {last}"


def sentence(text: str) -> str:
    """Return `text` with a capital first letter, and finished."""
    return finish(text[:1].upper() + text[1:])


def finish(text: str) -> str:
    """Return a text with a full stop, unless it ends as a sentence does: many end in a question."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: "1 frame", "1,200 frames"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def reason_texts(reasons: Iterable[Reason], model: ModelInfo | None) -> list[str]:
    """Return one plain sentence for every reason of a verdict by a model."""
    texts = dict(REASON_TEXT)
    if limits := limits_of(model):
        texts[Reason.UNCERTAIN] += f" ({percent(limits[0])} and {percent(limits[1])})"
    return [texts[reason] for reason in reasons]


def limits_of(model: ModelInfo | None) -> Limits | None:
    """Return the limits of REAL and FAKE; None where a verdict of an older version lacks them."""
    if model is None or model.real_to is None or model.fake_from is None:
        return None
    return model.real_to, model.fake_from


def limit_texts(limits: Limits) -> tuple[str, str]:
    """Return the limits in words."""
    return f"REAL up to {percent(limits[0])}", f"FAKE from {percent(limits[1])}"


def nobody_judged(verdict: Verdict) -> bool:
    """Return whether people were seen, but none of them well enough to be judged."""
    return bool(verdict.people) and not any(person.judged for person in verdict.people)


def subject(verdict: Verdict) -> str:
    """Return of what the probability of a verdict is one."""
    if nobody_judged(verdict):
        return "highest score of a face, none of which could be judged"
    text = "probability that at least one face is fake"
    if Reason.PERSON_NOT_JUDGED in verdict.reasons:
        text += ", among the people who were judged"
    return text


def remarks(verdict: Verdict) -> list[str]:
    """Return what has to be known of how a video was looked at: what may be missed, who left out.

    Nothing where its frames lie close to each other, and nobody was left out for a limit.
    """
    found = []
    if verdict.media is not None and verdict.media.sampled_every > FAR_APART:
        every = verdict.media.sampled_every
        text = f"looked at one frame every {every:.{0 if every >= 10 else 1}f} s; what shows for "
        text += "less may be missed"
        brief = sum(Reason.TOO_FEW_FRAMES in person.reasons for person in verdict.people)
        if brief:
            everybody = number_of(len(verdict.people), "person", "people")
            text += f", and too little is seen of {brief:,} of {everybody} to judge them"
        found.append(f"{text}: --frames N looks closer")
    if many := verdict.counters.get("dropped_many"):
        people = number_of(many, "person", "people")
        found.append(f"{people} left out, more than are followed: --max-people N follows more")
    if cut := verdict.counters.get("dropped_faces"):
        faces = number_of(cut, "face")
        found.append(f"{faces} left out, more than are looked at in one frame")
    return found


def counter_text(name: str) -> str:
    """Return what a counter of the extraction counts, in plain words."""
    if name in COUNTER_TEXT:
        return COUNTER_TEXT[name]
    return name.replace("_", " ").capitalize()


def file_size(count: int) -> str:
    """Return a number of bytes as "12.3 MB (12,345,678 bytes)"."""
    exact = number_of(count, "byte")
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit} ({exact})"
    return exact


def damage(media: Media) -> str:
    """Return in numbers what is missing of a partial video; "" where it is whole or not known.

    Such as "read 7 of 10 pictures; 3 decode errors; the header announces 300 pictures, the file
    holds 180".
    """
    parts = []
    if media.partial and media.num_asked:
        parts.append(f"read {media.num_decoded:,} of {number_of(media.num_asked, 'picture')}")
    if media.partial and media.decode_errors:
        parts.append(number_of(media.decode_errors, "decode error"))
    if media.partial and media.num_packets < (media.num_declared or 0):
        announced = number_of(media.num_declared or 0, "picture")
        parts.append(f"the header announces {announced}, the file holds {media.num_packets:,}")
    return "; ".join(parts)


def confinement(sandbox: Sandbox | None) -> str:
    """Return in one line how the process was confined that decoded a file."""
    if sandbox is None:
        return "the process that asked, not confined"
    missing = "".join(f"; no {name}: {why}" for name, why in sandbox.absent.items())
    return f"a process of its own, confined by {', '.join(sandbox.holds) or 'nothing'}{missing}"


def escaped(text: str) -> str:
    """Return `text` printable and escaped for HTML, inside of elements and of attributes."""
    return html.escape(printable(text), quote=True)
