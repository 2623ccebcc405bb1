"""The nouns of tellframe: frozen dataclasses that every stage passes on.

Conventions: pictures are RGB uint8 in H x W x 3, boxes are pixel ``xyxy``, times are seconds
from the first picture, ``confidence`` says that a face was found, ``probability`` is P(fake).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION: Final = 1
"""Version of the JSON that is written from `Verdict`; raised when a field changes meaning."""
FAR_APART: Final = 2.0
"""Seconds between two sampled frames beyond which a face seen in one alone cannot be said to flash
up, since it may have been there all the time to the frames before and behind."""


class Label(StrEnum):
    """What a person or a video is judged to be."""

    REAL = "REAL"
    FAKE = "FAKE"
    INCONCLUSIVE = "INCONCLUSIVE"


class Reason(StrEnum):
    """Why a judgement is missing, withheld or limited."""

    NO_FACE = "no_face"
    TOO_FEW_FRAMES = "too_few_frames"
    TOO_SMALL = "too_small"
    DEGRADED = "degraded"
    UNREADABLE = "unreadable"
    UNCERTAIN = "uncertain"
    PARTIAL = "partial"
    PERSON_NOT_JUDGED = "person_not_judged"


REASON_TEXT: Final[dict[Reason, str]] = {
    Reason.NO_FACE: "no face was found in the sampled frames",
    Reason.TOO_FEW_FRAMES: "the face is seen in too few of the sampled frames",
    Reason.TOO_SMALL: "the face is too small to be judged",
    Reason.DEGRADED: "the picture is too blurred, noisy, compressed, dark or bright to be judged",
    Reason.UNREADABLE: "the file cannot be read as a video",
    Reason.UNCERTAIN: "the score lies between the limits for real and fake",
    Reason.PARTIAL: "only a part of the video could be decoded",
    Reason.PERSON_NOT_JUDGED: "at least one person in the video could not be judged",
}
"""One plain sentence for every reason code."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright picture of a video."""

    image: NDArray[np.uint8]
    """Shape (H, W, 3), RGB, rotation already applied."""
    time: float
    """Seconds since the first picture of the stream."""
    index: int
    """Position among the pictures of the stream in presentation order, from 0."""
    rotation: int = 0
    """Degrees anticlockwise by which the stored picture was turned: 0, 90, 180 or 270."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face found in one picture."""

    box: NDArray[np.float32]
    """Shape (4,), xyxy in pixels of the picture; may reach beyond its border."""
    landmarks: NDArray[np.float32]
    """Shape (5, 2), x and y in pixels: left eye, right eye, nose, left and right mouth corner,
    left and right as seen in the picture."""
    confidence: float
    """The detector's score that this is a face, 0 to 1."""

    @property
    def size(self) -> float:
        """The longer side of the box in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@dataclass(frozen=True, slots=True)
class Clip:
    """The face crops of one person through time: all that a model ever sees."""

    person: int
    """Number of the person in the video, from 1: by first appearance, then from left to right."""
    pixels: NDArray[np.uint8]
    """Shape (T, S, S, 3), RGB; zeros where `valid` is false."""
    times: NDArray[np.float64]
    """Shape (T,), seconds."""
    valid: NDArray[np.bool_]
    """Shape (T,), whether the person was seen in that frame."""
    boxes: NDArray[np.float32]
    """Shape (T, 4), xyxy of the face in pixels of the video; zeros where not valid."""
    landmarks: NDArray[np.float32]
    """Shape (T, 5, 2), as `Face.landmarks`; zeros where not valid."""
    confidence: NDArray[np.float32]
    """Shape (T,), the face detector's score; zero where not valid."""
    recipe_digest: str
    """Digest of the recipe that made this clip."""

    @property
    def num_valid(self) -> int:
        """Number of frames in which the person was seen."""
        return int(self.valid.sum())

    @property
    def face_size(self) -> float:
        """Median length in pixels of the longer box side over the valid frames."""
        if not self.valid.any():
            return 0.0
        boxes = self.boxes[self.valid]
        return float(np.median(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])))


@dataclass(frozen=True, slots=True)
class Media:
    """Facts about one video file."""

    path: str
    """As given by the caller."""
    bytes: int
    """File size."""
    sha256: str
    """Hex digest of the whole file."""
    container: str
    """Name of the container format, as FFmpeg calls it."""
    codec: str
    """Name of the video codec, as FFmpeg calls it."""
    width: int
    """Width in pixels before rotation; where stored ones are no squares, as it is shown."""
    height: int
    """Height in pixels before rotation, likewise."""
    rotation: int
    """Degrees anticlockwise by which the stored picture is turned to stand upright."""
    duration: float
    """Seconds between the first and the end of the last picture, from the time stamps."""
    num_frames: int
    """Number of pictures in the stream, counted."""
    frame_rate: float
    """Mean pictures a second, counted; 0 where it has only one picture."""
    partial: bool
    """True where a part of the stream is missing or could not be decoded."""
    num_declared: int | None = None
    """Number of pictures that the header announces; None where it does not say."""
    num_packets: int = 0
    """Number of packets of the stream, with those whose pictures an edit list hides."""
    num_asked: int = 0
    """Number of pictures that were asked for, to look at them."""
    num_decoded: int = 0
    """Of those asked for, how many were decoded, or had one decoded in their place."""
    decode_errors: int = 0
    """Packets that the decoder refused, and pictures in wanted places that it gave up or marked as
    damaged."""
    sampled_every: float = 0.0
    """Seconds from one picture that was looked at to the next, the median; 0 where there are not
    two, or it is not known."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One judged frame of one person."""

    time: float
    """Seconds."""
    probability: float
    """Calibrated P(fake) of this frame alone."""
    box: tuple[float, float, float, float]
    """xyxy of the face in pixels of the upright video."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The pictures behind one person's verdict; never written to JSON."""

    crops: NDArray[np.uint8]
    """Shape (N, S, S, 3), RGB; one for every moment, in the same order."""
    heat: NDArray[np.float32]
    """Shape (N, h, w), the model's class activation map in logits: positive speaks for fake."""


@dataclass(frozen=True, slots=True)
class FaceVerdict:
    """The judgement of one person."""

    person: int
    """Number of the person in the video, from 1: by first appearance, then from left to right."""
    label: Label
    """REAL, FAKE or INCONCLUSIVE."""
    probability: float | None
    """Calibrated P(fake) over all judged frames; None where no frame was scored."""
    start: float
    """Seconds at which the person is first seen."""
    end: float
    """Seconds at which the person is last seen."""
    frames: int
    """Number of judged frames."""
    reasons: tuple[Reason, ...] = ()
    """Why the label is INCONCLUSIVE; empty otherwise."""
    face_size: float = 0.0
    """Median length in pixels of the longer box side."""
    degraded: float | None = None
    """Median over the frames of the model's P(the picture is badly degraded); None where the model
    does not tell."""
    moments: tuple[Moment, ...] = ()
    """Every judged frame in order of time."""
    evidence: Evidence | None = field(default=None, repr=False, compare=False)
    """Crops and heat maps for the report, where they were asked for."""

    @property
    def judged(self) -> bool:
        """Whether there was enough to judge this person by, be it with an uncertain outcome."""
        return not set(self.reasons) - {Reason.UNCERTAIN}

    def most_suspicious(self, count: int = 3) -> tuple[Moment, ...]:
        """Return the `count` moments of highest P(fake), highest first."""
        return tuple(sorted(self.moments, key=lambda m: -m.probability)[:count])


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which weights and which recipe made a verdict."""

    name: str
    """Name of the bundle."""
    version: str
    """Version of the bundle."""
    sha256: str
    """Hex digest of its ONNX graph."""
    recipe_digest: str
    """Digest of the recipe that was applied, overrides included."""
    recipe_overrides: dict[str, object] = field(default_factory=dict)
    """Recipe fields that differ from those the model was trained and calibrated with."""
    calibrated_on: str = ""
    """Data on which its probabilities were calibrated, in plain words: "nothing" where they were
    not, empty where that is not known."""
    real_to: float | None = None
    """REAL at this probability or below; None where it is not known."""
    fake_from: float | None = None
    """FAKE at this probability or above, INCONCLUSIVE in between; None where it is not known."""
    prior_use: float | None = None
    """Share of fakes among the videos for which its probabilities hold; None where it is not
    known."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How the process was confined that decoded a file; see docs/security.md."""

    holds: tuple[str, ...] = ()
    """What held: "rlimits", "no_new_privs", "landlock" with the version of the kernel's,
    "seccomp"."""
    absent: dict[str, str] = field(default_factory=dict)
    """What did not, and why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one video: the only output schema."""

    video: str
    """Path as given by the caller."""
    label: Label
    """REAL, FAKE or INCONCLUSIVE."""
    probability: float | None
    """Calibrated P(at least one face is fake) among the people who were judged. Where nobody could
    be, the highest score among those who were seen, which is no frequency; None where nothing was
    scored."""
    reasons: tuple[Reason, ...]
    """Reason codes; always at least one where the label is INCONCLUSIVE."""
    people: tuple[FaceVerdict, ...]
    """One entry a person, in order of first appearance."""
    media: Media | None = None
    """Facts about the file; None where it could not be read."""
    model: ModelInfo | None = None
    """Identity of model and recipe."""
    error: str | None = None
    """What went wrong where the file could not be read."""
    counters: dict[str, int] = field(default_factory=dict)
    """What extraction saw and dropped: sampled frames, detected faces, dropped tracks by cause."""
    sandbox: Sandbox | None = None
    """How the process was confined that decoded the file; None where that was the process that
    asked."""
    seconds: float = 0.0
    """Wall time spent on this video."""

    @property
    def faces(self) -> tuple[FaceVerdict, ...]:
        """The same as `people`."""
        return self.people
