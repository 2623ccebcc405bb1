"""The part of the page that shows one video: verdict, people, facts, model, limits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from tellframe.report import words
from tellframe.report.people import person_section
from tellframe.report.svg import icon, scale
from tellframe.report.words import clock, escaped, percent
from tellframe.scoring import Calibration
from tellframe.types import FaceVerdict, Label, Media, ModelInfo, Verdict

_MANY_PEOPLE: Final = 6
_SIDE: Final = 224
_SMALL_SIDE: Final = 128
"""Pixels of a crop, and of a crop where there are many people, so that the file stays small."""

_NOT_JUDGED: Final = (
    "Not calibrated: nobody in this video could be judged, for the reasons that are given. The "
    "number is what the detector makes of pictures that it was not made for, and says little."
)

_NOT_CALIBRATED: Final = (
    "Not calibrated: the recipe was changed for this run. A higher number still speaks more for a "
    "fake, but it is no longer the share of fakes among such videos."
)

_NEVER_CALIBRATED: Final = (
    "Not calibrated: this number is a score, and not the share of fakes among such videos. A "
    "higher one speaks more for a fake. To turn it into a probability, calibrate the model on "
    "videos whose truth is known: tellframe calibrate."
)


def article(verdict: Verdict, level: int, key: str) -> str:
    """Return the report of one video as an `<article>`.

    Args:
        verdict: The verdict.
        level: Level of its first heading: 1 alone in a page, 2 among others.
        key: Prefix of the ids in the page, unique for every video.
    """
    parts = [
        f'<article id="{key}" class="{verdict.label}">',
        _hero(verdict, level),
        _glance(verdict),
        _people(verdict, level + 1, key),
        _details(verdict, level + 1),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def limits(level: int) -> str:
    """Return the section on what a verdict can and cannot say."""
    items = "\n".join(f"<li>{escaped(text)}</li>" for text in words.LIMITS)
    return f"""<section class="part"><h{level}>What this verdict can and cannot say</h{level}>
<div class="card"><ul class="limits">
{items}
</ul></div></section>"""


def _hero(verdict: Verdict, level: int) -> str:
    texts = words.reason_texts(verdict.reasons, verdict.model)
    reasons = "".join(f"<li>{escaped(words.sentence(text))}</li>" for text in texts)
    if verdict.error is not None:
        reasons += f"<li>{escaped(verdict.error)}</li>"
    listed = f'\n<ul class="reasons">{reasons}</ul>' if reasons else ""
    for remark in words.remarks(verdict):
        listed += f'\n<p class="note">{escaped(words.sentence(remark))}</p>'
    score = _score(verdict)
    return f"""<section class="hero{"" if score else " alone"}"><div>
<p class="file"><bdi>{escaped(words.file_name(verdict))}</bdi></p>
<h{level} class="title">{icon(verdict.label)}<span>{words.title(verdict)}</span></h{level}>
<p class="lead">{lead(verdict)}</p>{listed}
</div>{score}</section>"""


def _score(verdict: Verdict) -> str:
    probability = verdict.probability
    if probability is None:
        return ""
    return f"""<div class="score">
<p class="big">{escaped(percent(probability))}</p>
<p class="what">{words.subject(verdict)}</p>
{scale(probability, words.limits_of(verdict.model))}
<p class="meaning">{meaning(verdict)}</p></div>"""


def meaning(verdict: Verdict) -> str:
    """Return in plain words what the probability says; "" where there is none."""
    if verdict.probability is None:
        return ""
    if words.nobody_judged(verdict):
        return _NOT_JUDGED
    if verdict.model is not None and is_never_calibrated(verdict.model):
        return _NEVER_CALIBRATED
    if verdict.model is not None and verdict.model.recipe_overrides:
        return _NOT_CALIBRATED
    count = round(100 * verdict.probability)
    share = f"about {count}"
    if count < 1:
        share = "fewer than one"
    elif count > 99:
        share = "more than 99"
    return (
        f"Calibrated: where {_prior(verdict.model)}, of 100 that score like this one {share} "
        "would show a fake face, as long as they are like the videos on which the detector was "
        "calibrated."
    )


def _prior(model: ModelInfo | None) -> str:
    """Return in words for which share of fakes a probability holds."""
    prior = model.prior_use if model is not None else None
    if prior is None:  # of an older verdict
        return "as many of the videos are fakes as its calibration assumes"
    return f"{'half' if prior == 0.5 else f'{100 * prior:.3g} %'} of the videos are fakes"


def is_never_calibrated(model: ModelInfo) -> bool:
    """Tell whether what a model calls probabilities are bare scores."""
    return model.calibrated_on == Calibration().fitted_on


def lead(verdict: Verdict) -> str:
    """Return the verdict in a plain sentence, to stand below its title."""
    if words.is_unreadable(verdict):
        return "Nothing can be said about this file."
    if verdict.label is Label.INCONCLUSIVE:
        return "The detector cannot tell whether a face in this video is fake, because:"
    if verdict.label is Label.REAL:
        return (
            "In the faces that were judged, the detector found no trace of a manipulation that it "
            "knows. This is not a proof that the video is authentic."
        )
    return f"{_accused(verdict.people)} traces of a manipulation that the detector knows."


def _accused(people: tuple[FaceVerdict, ...]) -> str:
    fake = [str(person.person) for person in people if person.label is Label.FAKE]
    if not fake:
        return "Taken together, the faces in this video show"
    if len(people) == 1:
        return "The face in this video shows"
    if len(fake) == 1:
        return f"The face of person {fake[0]} shows"
    return f"The faces of persons {', '.join(fake[:-1])} and {fake[-1]} show"


def _glance(verdict: Verdict) -> str:
    if verdict.media is None and not verdict.people:
        return ""
    cells = [
        ("People", str(len(verdict.people))),
        ("Faces judged", f"{sum(person.frames for person in verdict.people):,}"),
    ]
    if verdict.media is not None:
        width, height = _upright(verdict.media)
        cells.append(("Duration", clock(verdict.media.duration)))
        cells.append(("Picture", f"{width} × {height}"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)
    return f'<dl class="glance">{items}</dl>'


def _people(verdict: Verdict, level: int, key: str) -> str:
    people = verdict.people
    if not people:
        return ""
    duration = verdict.media.duration if verdict.media else 0.0
    side = _SMALL_SIDE if len(people) > _MANY_PEOPLE else _SIDE
    table = _people_table(people, key) if len(people) > 1 else ""
    cards = "\n".join(
        person_section(person, duration, level + 1, side, f"{key}-person-{i}", verdict.model)
        for i, person in enumerate(people, 1)
    )
    return f"""<section class="part"><h{level}>People in the video</h{level}>
{table}{cards}
</section>"""


def _people_table(people: tuple[FaceVerdict, ...], key: str) -> str:
    rows = "\n".join(_people_row(person, f"{key}-person-{i}") for i, person in enumerate(people, 1))
    return f"""<div class="card"><table class="stack">
<thead><tr><th scope="col">Person</th><th scope="col">Verdict</th><th scope="col" class="n">P(fake)
</th><th scope="col">Seen</th><th scope="col" class="n">Judged frames</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>
"""


def _people_row(person: FaceVerdict, key: str) -> str:
    return f"""<tr class="{person.label}">\
<th scope="row"><a href="#{key}">Person {person.person}</a></th>\
<td><span class="badge">{icon(person.label)} {person.label}</span></td>\
<td class="n" data-name="P(fake)">{escaped(percent(person.probability))}</td>\
<td data-name="Seen">{words.period(person.start, person.end)}</td>\
<td class="n" data-name="Judged frames">{person.frames:,}</td></tr>"""


def _details(verdict: Verdict, level: int) -> str:
    cards = []
    if verdict.model is not None:
        cards.append(_model_card(verdict.model, level + 1))
    if verdict.counters:
        facts = [
            (escaped(words.counter_text(name)), f"{count:,}")
            for name, count in verdict.counters.items()
        ]
        cards.append(_fact_card("What was seen and dropped", facts, level + 1, kind="counts"))
    return f"""<section class="part"><h{level}>File and method</h{level}>
<div class="pairs">
<div>{_media_card(verdict, level + 1)}</div>
<div>{"".join(cards)}</div></div></section>"""


def _media_card(verdict: Verdict, level: int) -> str:
    facts = [("Path", f"<bdi>{escaped(verdict.video)}</bdi>")]
    media = verdict.media
    if media is not None:
        facts += [
            ("File size", words.file_size(media.bytes)),
            ("SHA-256", f"<code>{escaped(media.sha256)}</code>"),
            ("Container", escaped(media.container)),
            ("Codec", escaped(media.codec)),
            ("Stored picture", f"{media.width} × {media.height} pixels"),
            ("Rotation", f"{media.rotation}° to stand upright" if media.rotation else "none"),
            ("Duration", f"{clock(media.duration)} ({media.duration:.3f} s)"),
            ("Pictures", f"{media.num_frames:,}"),
            ("Mean rate", f"{media.frame_rate:.3f} a second"),
            ("Decoded", _decoded(media)),
        ]
    facts.append(("Decoded in", escaped(words.confinement(verdict.sandbox))))
    if verdict.seconds:
        facts.append(("Analysed in", f"{verdict.seconds:.1f} s"))
    return _fact_card("File", facts, level)


def _decoded(media: Media) -> str:
    if not media.partial:
        return "without a gap"
    return escaped(": ".join(filter(None, ["only a part of it", words.damage(media)])))


def _model_card(model: ModelInfo, level: int) -> str:
    facts = [
        ("Name", escaped(model.name)),
        ("Version", escaped(model.version)),
        ("SHA-256 of the weights", f"<code>{escaped(model.sha256)}</code>"),
        ("Recipe digest", f"<code>{escaped(model.recipe_digest)}</code>"),
    ]
    if limits := words.limits_of(model):
        facts.append(("Limits", ", ".join(words.limit_texts(limits))))
    if not model.recipe_overrides:
        trained = "as trained" if is_never_calibrated(model) else "as trained and calibrated"
        return _fact_card("Model", [*facts, ("Recipe", trained)], level)
    changed = "<br>".join(
        f"<code>{escaped(name)} = {escaped(json.dumps(value, default=str))}</code>"
        for name, value in model.recipe_overrides.items()
    )
    note = (
        '<p class="warn">The recipe was changed for this run, so the probabilities are no longer '
        "calibrated.</p>"
    )
    return _fact_card("Model", [*facts, ("Changed in the recipe", changed)], level, note)


def _fact_card(
    title: str,
    facts: Iterable[tuple[str, str]],
    level: int,
    note: str = "",
    kind: str = "facts",
) -> str:
    """Return a card with a table; names and values of `facts` are HTML already."""
    rows = "\n".join(
        f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in facts
    )
    return f"""<section class="card"><h{level}>{title}</h{level}>
<table class="{kind}"><tbody>
{rows}
</tbody></table>{note}</section>
"""


def _upright(media: Media) -> tuple[int, int]:
    if media.rotation % 180:
        return media.height, media.width
    return media.width, media.height
