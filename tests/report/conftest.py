from __future__ import annotations

import numpy as np
import pytest

from tellframe.types import (
    Evidence,
    FaceVerdict,
    Label,
    Media,
    ModelInfo,
    Moment,
    Reason,
    Verdict,
)

HOSTILE_NAMES = [
    "<script>alert(1)</script>.mp4",
    '" onload="alert(1).mp4',
    "' onload='alert(1).mp4",
    "two\nlines\r.mp4",
    "red\x1b[31m\x07.mp4",
    "latin-\udcff\udce9.mp4",
    "gpj.\u202e4pm.exe",
    "=HYPERLINK(1).mp4",
    "--help",
    "..",
    "",
    "&amp;.mp4",
    "映像 ビデオ.mp4",
    "x" * 300 + ".mp4",
]


def make_person(
    number: int = 1,
    label: Label = Label.FAKE,
    probabilities: tuple[float, ...] = (0.9, 0.2, 0.97, 0.6),
    *,
    evidence: bool = False,
    top: float = 3.0,
) -> FaceVerdict:
    times = np.linspace(0.5, 9.5, len(probabilities)) if probabilities else np.zeros(1)
    moments = tuple(
        Moment(round(float(t), 3), p, (10.0, 20.0, 90.0, 110.0))
        for t, p in zip(times, probabilities, strict=False)
    )
    pictures = None
    if evidence:
        rng = np.random.default_rng(number)
        count = len(moments)
        heat = np.zeros((count, 5, 5), dtype=np.float32)
        heat[:, 4, 2] = top
        pictures = Evidence(rng.integers(0, 255, (count, 64, 64, 3), dtype=np.uint8), heat)
    return FaceVerdict(
        person=number,
        label=label,
        probability=float(np.mean(probabilities)) if probabilities else None,
        start=float(times[0]),
        end=float(times[-1]),
        frames=len(moments),
        face_size=90.0,
        moments=moments,
        evidence=pictures,
    )


def make_verdict(
    path: str = "folder/interview.mp4",
    people: tuple[FaceVerdict, ...] | None = None,
    label: Label = Label.FAKE,
    duration: float = 10.0,
) -> Verdict:
    people = (make_person(),) if people is None else people
    return Verdict(
        video=path,
        label=label,
        probability=0.9731234 if people else None,
        reasons=() if people else (Reason.NO_FACE,),
        people=people,
        media=Media(
            path=path,
            bytes=1_234_567,
            sha256="ab" * 32,
            container="mov,mp4",
            codec="h264",
            width=640,
            height=360,
            rotation=90,
            duration=duration,
            num_frames=300,
            frame_rate=29.97003,
            partial=False,
        ),
        model=ModelInfo("baseline", "1.0", "cd" * 32, "0123456789abcdef", {"num_frames": 32}),
        counters={"frames_sampled": 16, "dropped_short": 2, "something_new": 3},
        seconds=1.5,
    )


def make_unreadable(path: str = "broken.mp4") -> Verdict:
    return Verdict(
        video=path,
        label=Label.INCONCLUSIVE,
        probability=None,
        reasons=(Reason.UNREADABLE,),
        people=(),
        error="broken.mp4 is no video: convert it",
    )


@pytest.fixture
def verdict() -> Verdict:
    return make_verdict()


@pytest.fixture
def rich_verdict() -> Verdict:
    people = (
        make_person(1, Label.FAKE, (0.9, 0.2, 0.97, 0.6, 0.8, 0.7, 0.1, 0.3), evidence=True),
        make_person(2, Label.REAL, (0.1, 0.05), evidence=True, top=0.1),
        make_person(3, Label.INCONCLUSIVE, (0.5,)),
    )
    return make_verdict(people=people)


@pytest.fixture
def unreadable() -> Verdict:
    return make_unreadable()


@pytest.fixture(params=HOSTILE_NAMES, ids=ascii)
def hostile_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make():
    """The builders, for tests that need variations."""

    class Builders:
        person = staticmethod(make_person)
        verdict = staticmethod(make_verdict)
        unreadable = staticmethod(make_unreadable)

    return Builders
