"""What the API answers: the shapes, and how they are made of jobs and verdicts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from tellframe.report import verdict_to_dict, words
from tellframe.report.page import lead, meaning
from tellframe.report.pictures import (
    choose_moments,
    crop_uri,
    heat_scale,
    hottest_place,
    overlay_uri,
)
from tellframe.serve.jobs import Job, State
from tellframe.serve.problems import Problem
from tellframe.types import FaceVerdict, Label, ModelInfo, Reason, Verdict

SIDE: Final = 224
"""Most pixels of a picture's longer side."""

HELP: Final[dict[Reason, str]] = {
    Reason.NO_FACE: "A part of the video in which a face is seen from the front, well lit.",
    Reason.TOO_FEW_FRAMES: "A longer part of the video in which this person stays in the picture.",
    Reason.TOO_SMALL: "The original file in full resolution, or a close-up: copies from messengers "
    "and social networks are scaled down.",
    Reason.DEGRADED: "The original file instead of a copy, or a part of the video in which the "
    "face is sharp and well lit.",
    Reason.UNCERTAIN: "The original file instead of a copy, or more footage of the same person. "
    "Where there is neither, who published the video first, and when, may tell more than its "
    "pictures.",
    Reason.UNREADABLE: "The original file, or a copy that was converted to H.264 in MP4.",
    Reason.PARTIAL: "The complete file: this one seems to be cut off or damaged.",
    Reason.PERSON_NOT_JUDGED: "A part of the video in which everybody's face is large and seen "
    "from the front.",
}
"""What would help, by the reason that is in the way."""


class Progress(BaseModel):
    """How far a running analysis is."""

    stage: Literal["starting", "fetching", "reading", "faces", "judging"]
    done: int = Field(ge=0, description="Steps done in this stage; bytes of fetching.")
    total: int = Field(ge=0, description="Steps in this stage; 0 where that is not known.")


class Explanation(BaseModel):
    """A verdict, or that of one person, in plain words."""

    title: str
    lead: str
    subject: str = Field(description="Of what the probability is one.")
    meaning: str = Field(description="What the probability says; empty where there is none.")
    reasons: list[str]
    help: list[str] = Field(description="What would help, where something is in the way.")


class PersonExplanation(BaseModel):
    """What is to be said about one person."""

    person: int
    reasons: list[str]
    help: list[str]


class Links(BaseModel):
    """Where to go from here, as paths on this server."""

    self: str
    events: str
    moments: str
    report: str
    json_: str = Field(alias="json")


class JobView(BaseModel):
    """One video on its way to a verdict."""

    id: str
    name: str
    bytes: int = Field(description="Size of the file; 0 as long as it has not been fetched.")
    sha256: str = Field(description='Of the file; "" as long as it has not been fetched.')
    state: State
    position: int | None = Field(description="Place in the queue, from 1, while it waits.")
    progress: Progress | None = Field(description="While it runs.")
    created: datetime
    started: datetime | None
    finished: datetime | None
    label: Label | None = Field(description="The verdict, when it is done.")
    probability: float | None = Field(
        description="Calibrated P(at least one face is fake) among the people who were judged."
    )
    problem: Problem | None = Field(description="Why it failed.")
    links: Links


class ResultView(JobView):
    """The same with its result, where there is one."""

    verdict: dict[str, Any] | None = Field(
        description="The verdict, as `tellframe detect --json` writes it.",
        json_schema_extra={
            "anyOf": [{"$ref": "#/components/schemas/Verdict"}, {"type": "null"}],
        },
    )
    explanation: Explanation | None
    people: list[PersonExplanation]


class JobList(BaseModel):
    """The newest jobs, newest first."""

    jobs: list[JobView]


class Picture(BaseModel):
    """One moment of a person, to look at."""

    person: int
    kind: Literal["most", "least"] = Field(description="Among the most or least suspicious.")
    time: float = Field(description="Seconds.")
    probability: float
    crop: str = Field(description="The face, as a data URI of a JPEG.")
    heat: str = Field(description="The same below a map of what speaks for a fake.")
    place: str | None = Field(description="Where in the face most speaks for a fake.")


class Pictures(BaseModel):
    """The moments that are shown."""

    moments: list[Picture]
    scale: dict[str, float] = Field(description="Logits at the top of the heat map, by person.")


class Health(BaseModel):
    """That all is well."""

    status: Literal["ok"] = "ok"


class ModelView(BaseModel):
    """A model that is shipped or in use."""

    name: str
    version: str
    sha256: str
    recipe_digest: str
    active: bool = Field(description="Whether this service judges with it.")
    licence: str
    calibrated_on: str
    fake_from: float = Field(description="FAKE at this probability or above.")
    real_to: float = Field(description="REAL at this probability or below.")
    card: str | None = Field(description="Path of its model card on this server, if it has one.")


class Models(BaseModel):
    """All models, and what the service accepts."""

    models: list[ModelView]
    max_bytes: int = Field(description="Largest upload.")
    keep_seconds: float = Field(description="How long results are kept.")
    accepts_urls: bool = Field(description="Whether videos are fetched from the web.")
    keeps_uploads: bool = Field(description="Whether videos outlive their analysis.")


def view_job(
    job: Job, root: str, position: int | None, step: tuple[str, int, int], verdict: Verdict | None
) -> JobView:
    """Return a job without its result.

    Args:
        job: the job.
        root: path prefix of the service.
        position: in the queue, where it waits.
        step: stage, steps done and steps in all, where it runs.
        verdict: where it is done.
    """
    return JobView(**_common(job, root, position, step, verdict))


def view_result(
    job: Job, root: str, position: int | None, step: tuple[str, int, int], verdict: Verdict | None
) -> ResultView:
    """Return a job with its result; arguments as for `view_job`."""
    return ResultView(
        **_common(job, root, position, step, verdict),
        verdict=verdict_to_dict(verdict) if verdict else None,
        explanation=explain(verdict) if verdict else None,
        people=[
            PersonExplanation(
                person=p.person,
                reasons=_texts(p.reasons, verdict.model),
                help=_help(p.reasons),
            )
            for p in verdict.people
        ]
        if verdict
        else [],
    )


def explain(verdict: Verdict) -> Explanation:
    """Return a verdict in plain words."""
    return Explanation(
        title=words.title(verdict),
        lead=lead(verdict),
        subject=words.subject(verdict),
        meaning=meaning(verdict),
        reasons=_texts(verdict.reasons, verdict.model),
        help=_help(verdict.reasons),
    )


def view_pictures(verdict: Verdict) -> Pictures:
    """Return the pictures of all people; `verdict` has its evidence."""
    moments: list[Picture] = []
    scale: dict[str, float] = {}
    for person in verdict.people:
        if person.evidence is not None:
            top = heat_scale(person.evidence)
            scale[str(person.person)] = round(top, 2)
            moments += _pictures(person, top)
    return Pictures(moments=moments, scale=scale)


def _pictures(person: FaceVerdict, top: float) -> list[Picture]:
    evidence = person.evidence
    if evidence is None:
        return []
    most, least = choose_moments(person.moments)
    kinds: list[tuple[Literal["most", "least"], int]] = [("most", i) for i in most]
    kinds += [("least", i) for i in least]
    return [
        Picture(
            person=person.person,
            kind=kind,
            time=person.moments[i].time,
            probability=person.moments[i].probability,
            crop=crop_uri(evidence.crops[i], SIDE),
            heat=overlay_uri(evidence.crops[i], evidence.heat[i], top, SIDE),
            place=hottest_place(evidence.heat[i], top),
        )
        for kind, i in kinds
    ]


def _common(
    job: Job, root: str, position: int | None, step: tuple[str, int, int], verdict: Verdict | None
) -> dict[str, Any]:
    base = f"{root}/v1/jobs/{job.id}"
    stage, done, total = step
    running = job.state is State.RUNNING
    return {
        "id": job.id,
        "name": words.printable(job.name),
        "bytes": job.bytes,
        "sha256": job.sha256,
        "state": job.state,
        "position": position,
        "progress": {"stage": stage, "done": done, "total": total} if running else None,
        "created": datetime.fromtimestamp(job.created, UTC),
        "started": job.started and datetime.fromtimestamp(job.started, UTC),
        "finished": job.finished and datetime.fromtimestamp(job.finished, UTC),
        "label": verdict and verdict.label,
        "probability": verdict and verdict.probability,
        "problem": job.problem and json.loads(job.problem),
        "links": {
            "self": base,
            "events": f"{base}/events",
            "moments": f"{base}/moments",
            "report": f"{base}/report.html",
            "json": f"{base}/report.json",
        },
    }


def _texts(reasons: tuple[Reason, ...], model: ModelInfo | None) -> list[str]:
    return [words.sentence(text) for text in words.reason_texts(reasons, model)]


def _help(reasons: tuple[Reason, ...]) -> list[str]:
    return [HELP[reason] for reason in reasons]
