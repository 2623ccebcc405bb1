"""The drawings of the page as inline SVG: symbols, the probability scale, the timeline.

Positions along time are percentages and all else is pixels, so that a drawing grows with the
page while its letters keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from tellframe.report.words import Limits, clock, limit_texts, number_of, percent
from tellframe.types import FaceVerdict, Label, Moment

MAX_MARKS: Final = 500
"""Most marks in one timeline; from more moments the extremes of equal spans of time are drawn."""

_TOP: Final = 34.0
_BOTTOM: Final = 164.0
_HEIGHT: Final = 214
"""Pixels from the top: 100 % and 0 % of the timeline, and its whole height."""

_BAR: Final = _BOTTOM + 13
"""Pixels from the top to the middle of the bar of when the person is seen."""

_MIN_LETTER_GAP: Final = 5.0
"""Percent of the width; at 300 px just enough for one letter."""

_MIN_LABEL_GAP: Final = 0.1
"""Share of the height of the timeline: 13 px, just enough for one line."""

_STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)

SYMBOLS: Final = """<svg class="symbols" width="0" height="0" aria-hidden="true" focusable="false">
<defs>
<path id="mark-high" d="M0 -6.6L6 4.2H-6Z"/>
<path id="mark-mid" d="M0 -6L6 0L0 6L-6 0Z"/>
<circle id="mark-low" r="5"/>
<g id="icon-FAKE"><path d="M12 2.5L23 21.5H1Z"/>\
<path class="sign" d="M12 9v6.2M12 18.2v.6"/></g>
<g id="icon-REAL"><circle cx="12" cy="12" r="10.5"/>\
<path class="sign" d="M7.5 12.2l3.2 3.3 5.8-6.6"/></g>
<g id="icon-INCONCLUSIVE"><path d="M12 1L23 12L12 23L1 12Z"/>\
<path class="sign" d="M7.5 12h9"/></g>
</defs>
</svg>"""
"""Shapes that are used by their name; every label has its own outline, not only its own colour."""


def icon(label: Label) -> str:
    """Return the symbol of a label; it is decoration beside the word."""
    use = f'<use href="#icon-{label}"/>'
    return f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{use}</svg>'


def scale(probability: float, limits: Limits | None) -> str:
    """Return a scale from 0 to 100 % with a pointer at `probability`, and the limits if known."""
    x = 100 * min(1.0, max(0.0, probability))
    ends = '<text x="0" y="42">0 %</text><text x="100%" y="42" class="end">100 %</text>'
    name = f"{_escaped_percent(probability)} on a scale from 0 to 100 %"
    height = 44
    if limits is None:
        inside = f"""{_tick(0.5)}
{ends}<text x="50%" y="42" class="mid">50 %</text>"""
    else:
        real, fake = map(_escaped, limit_texts(limits))
        height, name = 64, f"{name}: {real}, {fake}"
        inside = f"""<line class="zone REAL" x1="0" x2="{100 * limits[0]:.1f}%" y1="28" y2="28"/>
<line class="zone FAKE" x1="{100 * limits[1]:.1f}%" x2="100%" y1="28" y2="28"/>
{_tick(limits[0])}{_tick(limits[1])}
{ends.replace('y="42"', 'y="45"')}
<text x="0" y="61">{real}</text><text x="100%" y="61" class="end">{fake}</text>"""
    return f"""<svg class="scale" role="img" height="{height}" aria-label="{name}">
<rect class="track" y="16" width="100%" height="8" rx="4"/>
<rect class="value" y="16" width="{x:.1f}%" height="8" rx="4"/>
<svg x="{x:.1f}%" y="12" overflow="visible"><path class="pointer" d="M0 0L6 -9H-6Z"/></svg>
{inside}
</svg>"""


def _tick(share: float) -> str:
    return f'<line class="tick" x1="{100 * share:.1f}%" x2="{100 * share:.1f}%" y1="14" y2="26"/>'


def mark_kind(probability: float, limits: Limits | None) -> str:
    """Return how a judged frame is marked: "high", "mid" or "low"; by 50 % where no limit is."""
    real_to, fake_from = limits or (0.5, math.nextafter(0.5, 1))
    if probability >= fake_from:
        return "high"
    return "low" if probability <= real_to else "mid"


def thin(moments: Sequence[Moment], limit: int = MAX_MARKS) -> list[Moment]:
    """Return at most `limit` moments in order of time.

    From more than that, the highest and the lowest of each of `limit // 2` equal spans of time
    are kept, so that no peak is lost.
    """
    if len(moments) <= limit:
        return sorted(moments, key=lambda m: m.time)
    first = min(m.time for m in moments)
    width = (max(m.time for m in moments) - first) / (limit // 2) or 1.0
    spans: dict[int, list[Moment]] = {}
    for moment in moments:
        spans.setdefault(min(int((moment.time - first) / width), limit // 2 - 1), []).append(moment)
    kept: dict[int, Moment] = {}
    for span in spans.values():
        for moment in (min(span, key=_probability), max(span, key=_probability)):
            kept[id(moment)] = moment
    return sorted(kept.values(), key=lambda m: m.time)


def timeline(
    person: FaceVerdict, duration: float, letters: Mapping[str, Moment], limits: Limits | None
) -> str:
    """Return the P(fake) of a person over the seconds of the whole video.

    Args:
        person: The person; every moment becomes a mark (see `thin`).
        duration: Seconds of the video; 0 where it is not known.
        letters: Moments that are named in the drawing, by their letter.
        limits: Of REAL and FAKE, where they are known.
    """
    moments = thin(person.moments)
    span = max([duration, person.end, *(m.time for m in moments)])
    parts = [_grid(span, limits), _presence(person, span)]
    if person.probability is not None:
        y = _y(person.probability)
        parts.append(f'<line class="overall" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    parts.append(_letters(letters, span))
    parts += [_mark(moment, span, limits) for moment in moments]
    return (
        f'<svg class="timeline" role="img" height="{_HEIGHT}" '
        f'aria-label="{_summary(person)}">\n' + "\n".join(parts) + "\n</svg>"
    )


def ticks(span: float, most: int = 5) -> list[float]:
    """Return round times in seconds from 0 to `span`, at most `most` after the first."""
    if span <= 0:
        return [0.0]
    step = next((s for s in _STEPS if span / s <= most), None)
    if step is None:
        step = 3600 * -(-span // (3600 * most))
    return [i * step for i in range(int(span / step + 1e-9) + 1)]


def _grid(span: float, limits: Limits | None) -> str:
    parts = []
    labelled: list[float] = []
    for share in (1.0, 0.0, *(limits or (0.5,))):
        y = _y(share)
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        if all(abs(share - other) >= _MIN_LABEL_GAP for other in labelled):
            labelled.append(share)
            text = f"{100 * share:.3g} %"
            parts.append(f'<text class="end" x="-8" y="{y + 4:g}">{text}</text>')
    parts.append(f'<text class="end" x="-8" y="{_TOP - 16:g}">P(fake)</text>')
    for time in ticks(span):
        x = _x(time, span)
        parts.append(f'<line class="tick" x1="{x}" x2="{x}" y1="{_BAR + 7:g}" y2="{_BAR + 12:g}"/>')
        parts.append(f'<text class="mid" x="{x}" y="{_BAR + 27:g}">{_tick_text(time)}</text>')
    return "\n".join(parts)


def _presence(person: FaceVerdict, span: float) -> str:
    start, end = _x(person.start, span), _x(person.end, span)
    return (
        f'<line class="unseen" x1="0" x2="100%" y1="{_BAR:g}" y2="{_BAR:g}"/>\n'
        f'<line class="seen" x1="{start}" x2="{end}" y1="{_BAR:g}" y2="{_BAR:g}"/>'
    )


def _mark(moment: Moment, span: float, limits: Limits | None) -> str:
    kind = mark_kind(moment.probability, limits)
    return (
        f'<use class="mark {kind}" href="#mark-{kind}" x="{_x(moment.time, span)}" '
        f'y="{_y(moment.probability)}"><title>{clock(moment.time)}: '
        f"{_escaped_percent(moment.probability)}</title></use>"
    )


def _letters(letters: Mapping[str, Moment], span: float) -> str:
    """Draw the letters above the plot, pushed apart where moments are close in time."""
    parts = []
    places = _spread([float(_x(m.time, span)[:-1]) for m in letters.values()])
    for (letter, moment), place in zip(letters.items(), places, strict=True):
        parts.append(
            f'<line class="guide" x1="{place:.2f}%" y1="17" x2="{_x(moment.time, span)}" '
            f'y2="{_y(moment.probability)}"/>'
            f'<text class="letter" x="{place:.2f}%" y="12">{letter}</text>'
        )
    return "\n".join(parts)


def _spread(places: list[float]) -> list[float]:
    """Move places in percent so that neighbours keep a gap and all stay within 0 to 100."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for before, here in pairwise(order):
        moved[here] = max(moved[here], moved[before] + _MIN_LETTER_GAP)
    ceiling = 100.0
    for here in reversed(order):
        moved[here] = min(moved[here], ceiling)
        ceiling = moved[here] - _MIN_LETTER_GAP
    return moved


def _summary(person: FaceVerdict) -> str:
    text = (
        f"P(fake) of person {person.person} over time. Seen from {clock(person.start)} to "
        f"{clock(person.end)}, {number_of(len(person.moments), 'judged frame')}"
    )
    if person.moments:
        low = min(person.moments, key=_probability)
        high = max(person.moments, key=_probability)
        text += (
            f"; lowest {_escaped_percent(low.probability)} at {clock(low.time)}, "
            f"highest {_escaped_percent(high.probability)} at {clock(high.time)}"
        )
    return text + "."


def _probability(moment: Moment) -> float:
    return moment.probability


def _escaped_percent(probability: float) -> str:
    return _escaped(percent(probability))


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _tick_text(time: float) -> str:
    if time < 60:
        return f"{time:g} s"
    return clock(time).removesuffix(".0")


def _x(time: float, span: float) -> str:
    share = min(1.0, max(0.0, time / span)) if span > 0 else 0.5
    return f"{100 * share:.2f}%"


def _y(probability: float) -> float:
    return round(_BOTTOM - (_BOTTOM - _TOP) * min(1.0, max(0.0, probability)), 1)
