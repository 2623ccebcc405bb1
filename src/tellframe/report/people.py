"""The part of the page that shows one person: timeline, crops, heat maps, judged frames."""

from __future__ import annotations

from typing import Final

from tellframe.report.pictures import (
    choose_moments,
    crop_uri,
    heat_scale,
    hottest_place,
    overlay_uri,
)
from tellframe.report.svg import icon, thin, timeline
from tellframe.report.words import (
    Limits,
    clock,
    escaped,
    limits_of,
    number_of,
    percent,
    period,
    reason_texts,
    sentence,
)
from tellframe.types import Evidence, FaceVerdict, ModelInfo, Moment

_LETTERS: Final = "ABCDEF"

_KEY_LINES: Final = """\
<li><svg width="24" height="12" aria-hidden="true"><line class="overall" x1="0" x2="24" y1="6" \
y2="6"/></svg>over all frames</li>
<li><svg width="24" height="12" aria-hidden="true"><line class="seen" x1="5" x2="19" y1="6" \
y2="6"/></svg>person is seen</li>"""


def person_section(
    person: FaceVerdict, duration: float, level: int, side: int, key: str, model: ModelInfo | None
) -> str:
    """Return the card of one person.

    Args:
        person: The person.
        duration: Seconds of the video; 0 where it is not known.
        level: Level of the card's heading, 2 to 5.
        side: Longest side of the crops in pixels.
        key: Id of the card in the page.
        model: That judged the person.

    Raises:
        ValueError: the evidence does not hold one crop and one map for every moment.
    """
    evidence, moments = person.evidence, person.moments
    most, least = choose_moments(moments) if evidence is not None else ((), ())
    letters = {_LETTERS[i]: moments[chosen] for i, chosen in enumerate(most + least)}
    parts = [f'<section class="card person {person.label}" id="{key}">', _header(person, level)]
    parts += [
        f'<p class="note">{escaped(sentence(text))}</p>'
        for text in reason_texts(person.reasons, model)
    ]
    if moments:
        limits = limits_of(model)
        drawing = timeline(person, duration, letters, limits)
        caption = f"<figcaption>{_key(limits)}</figcaption>"
        parts.append(f'<figure class="plot">\n{drawing}\n{caption}</figure>')
    if evidence is not None and moments:
        parts.append(_pictures(person, evidence, most, least, level + 1, side))
    elif moments:
        parts.append(_without_pictures(person))
    if moments:
        parts.append(_moment_table(person))
    return "\n".join([*parts, "</section>"])


def _key(limits: Limits | None) -> str:
    kinds = {"high": "judged frame above 50 %", "low": "judged frame up to 50 %"}
    if limits is not None:
        low, high = map(percent, limits)
        kinds = {
            "high": f"judged frame from {high} on",
            "mid": "in between",
            "low": f"up to {low}",
        }
    marks = "\n".join(
        '<li><svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true">'
        f'<use class="mark {kind}" href="#mark-{kind}"/></svg>{escaped(text)}</li>'
        for kind, text in kinds.items()
    )
    return f'<ul class="key">\n{marks}\n{_KEY_LINES}\n</ul>'


def _header(person: FaceVerdict, level: int) -> str:
    size = f" · face about {person.face_size:.0f} pixels" if person.face_size else ""
    return f"""<header><div>
<h{level}>Person {person.person} <span class="badge">{icon(person.label)} {person.label}</span>\
</h{level}>
<p>Seen {period(person.start, person.end)} · {number_of(person.frames, "frame")} judged{size}</p>
</div><p class="figure">{escaped(percent(person.probability))} <small>P(fake)</small></p>
</header>"""


def _pictures(
    person: FaceVerdict,
    evidence: Evidence,
    most: tuple[int, ...],
    least: tuple[int, ...],
    level: int,
    side: int,
) -> str:
    count = len(person.moments)
    if len(evidence.crops) != count or len(evidence.heat) != count:
        raise ValueError(
            f"person {person.person} has {count} moments, but evidence of "
            f"{len(evidence.crops)} crops and {len(evidence.heat)} heat maps"
        )
    scale = heat_scale(evidence)
    strips = []
    letters = iter(_LETTERS)
    for words, chosen in (("Most suspicious", most), ("Least suspicious", least)):
        shots = [_shot(person, evidence, i, next(letters), scale, side) for i in chosen]
        if shots:
            strips.append(
                f'<div class="strip"><h{level}>{words}</h{level}>\n'
                f'<div class="shots">{"".join(shots)}</div></div>'
            )
    return f'<div class="strips">{"".join(strips)}</div>\n{_legend(scale)}'


def _shot(
    person: FaceVerdict, evidence: Evidence, index: int, letter: str, scale: float, side: int
) -> str:
    moment = person.moments[index]
    crop, heat = evidence.crops[index], evidence.heat[index]
    share = escaped(percent(moment.probability))
    place = hottest_place(heat, scale)
    found = f"most speaks for fake in the {place}" if place else "hardly anything speaks for fake"
    return f"""<figure class="shot"><div class="pair">
<img src="{crop_uri(crop, side)}" alt="Face of person {person.person} at \
{clock(moment.time)}, P(fake) {share}">
<img src="{overlay_uri(crop, heat, scale, side)}" alt="Heat map over the same face: {found}">
</div><figcaption><b>{letter}</b> {share} <span>{clock(moment.time)}</span></figcaption></figure>
"""


def _legend(scale: float) -> str:
    return f"""<div class="legend"><span>none</span><span class="ramp" role="img" \
aria-label="Colour scale from dark purple to pale yellow"></span><span>strong ({scale:.1f})</span>
<p>Heat maps, the lower pictures: where the detector sees evidence for a fake. The scale is the \
same for all pictures of this person, and its end differs between persons, as the figure behind \
it says; evidence for real is not drawn. A map shows what moved the score, not the outline of a \
manipulation.</p></div>"""


def _without_pictures(person: FaceVerdict) -> str:
    listed = ", ".join(
        f"{clock(moment.time)} ({escaped(percent(moment.probability))})"
        for moment in person.most_suspicious()
    )
    return (
        f'<p class="note">Most suspicious: {listed}. No pictures are shown, since the verdict '
        "came without crops and heat maps.</p>"
    )


def _moment_table(person: FaceVerdict) -> str:
    shown = thin(person.moments)
    words = f"All {len(shown)} judged frames" if len(shown) > 1 else "The judged frame"
    if len(shown) < len(person.moments):
        words = f"{len(shown)} of {len(person.moments):,} judged frames, peaks included,"
    rows = "\n".join(map(_moment_row, shown))
    return f"""<details><summary>{words} as a table</summary>
<div class="scroll" role="region" aria-label="Judged frames of person {person.person}" tabindex="0">
<table><caption>Box: left, top, right, bottom in pixels of the upright picture</caption>
<thead><tr><th scope="col">Time</th><th scope="col">P(fake)</th><th scope="col">Face box</th></tr>
</thead><tbody>
{rows}
</tbody></table></div></details>"""


def _moment_row(moment: Moment) -> str:
    box = ", ".join(f"{value:.0f}" for value in moment.box)
    share = escaped(percent(moment.probability))
    return f'<tr><th scope="row">{clock(moment.time)}</th><td>{share}</td><td>{box}</td></tr>'
