"""Detectors that others published, judging the same people as tellframe; see `compare_peers.py`."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lrnet import WEIGHTS, LRNet, load_lrnet, read_landmarks
from measuring import follow, say
from mesonet import SIZE, TINY, align_face, load_mesonet
from tellframe.data.cut import Outcome
from tellframe.detector import Detector
from tellframe.errors import DataError, MediaError
from tellframe.evaluate import Judgement, read_stills
from tellframe.evaluate.rows import Row
from tellframe.evaluate.sources import Videos
from tellframe.scoring import Decision
from tellframe.types import Clip, Label, Reason
from tellframe.video import SAMPLERS, list_frames, read_frames

MESONETS: Final = {
    "Meso4": "mesonet/Meso4_DF.h5",
    "MesoInception4": "mesonet/MesoInception_DF.h5",
}
"""Weights below the folder of the peers, by detector."""
LRNET: Final = "LRNet"

Network = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""From crops, (N, 256, 256, 3) RGB, to P(real), (N,)."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The peers that can be asked."""

    networks: dict[str, Network] = field(default_factory=dict)
    """Those that judge crops, by name."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of these the first digits of the SHA-256 of their weights, by name."""
    lrnet: LRNet | None = None
    """Judges landmarks."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why others are left out, by name."""


def load_peers(folder: Path, landmarks: Path) -> Peers:
    """Load the peers whose weights are there.

    Args:
        folder: of the weights.
        landmarks: for LRNet, see `score_landmarks`.

    Raises:
        DataError: a file holds other weights than it should.
    """
    networks: dict[str, Network] = {}
    digests: dict[str, str] = {}
    reasons: dict[str, str] = {}
    lrnet = None
    wanted = {name: [folder / file] for name, file in MESONETS.items()}
    wanted[LRNET] = [folder / "lrnet" / file for file in WEIGHTS]
    for name, files in wanted.items():
        needs = ["torch"] if name == LRNET else ["torch", "h5py"]
        missing = [module for module in needs if importlib.util.find_spec(module) is None]
        absent = [file for file in files if not file.is_file()]
        try:
            if missing:
                reasons[name] = f"It needs {' and '.join(missing)}: pip install {' '.join(missing)}"
            elif absent:
                reasons[name] = f"Its weights are not at {absent[0].relative_to(folder.parent)}."
            elif name != LRNET:
                networks[name] = load_mesonet(name, files[0])
                digests[name] = hashlib.sha256(files[0].read_bytes()).hexdigest()[:12]
            elif not landmarks.is_dir():
                reasons[name] = NO_LANDMARKS
            else:
                lrnet = load_lrnet(files)
        except (ValueError, OSError) as error:
            raise DataError(f"{name}: its weights cannot be read ({error})") from error
    return Peers(networks, digests, lrnet, reasons)


NO_LANDMARKS: Final = (
    "Its weights are there, its input is not: the landmarks that its authors' extraction writes, "
    "at VIDEO.txt in the folder that --landmarks names. LRNet judges the small errors of 68 "
    "landmarks from frame to frame, and comes without the detector that finds them. Those that its "
    "authors used (dlib's, face-alignment's) were trained on 300-W and its kin, whose terms limit "
    "their use, so that none is brought along; with another detector it would be another method."
)


def can_be_judged(clip: Clip, decision: Decision) -> bool:
    """Say whether tellframe would judge a person: seen in enough frames, and large enough."""
    return clip.num_valid >= decision.min_frames and clip.face_size >= decision.min_face_size


def cut_people(path: str | Path, detector: Detector) -> list[NDArray[np.uint8]]:
    """Cut MesoNet's crops of all people in a video that tellframe would judge.

    Args:
        path: of the video.
        detector: finds the people, and says who can be judged: all where nobody can, as in
            tellframe's own rule.

    Returns:
        Crops of shape (N, 256, 256, 3), one array a person.

    Raises:
        MediaError: the video cannot be read.
    """
    clips = detector.extract(path).clips
    clips = tuple(c for c in clips if can_be_judged(c, detector.bundle.decision)) or clips
    listing = list_frames(path)
    wanted = SAMPLERS[detector.recipe.sampling](listing.times, detector.recipe.num_frames)
    crops: list[list[NDArray[np.uint8]]] = [[] for _ in clips]
    frames = read_frames(path, listing, wanted, threads=detector.threads)
    for position, frame in enumerate(frames):
        for clip, own in zip(clips, crops, strict=True):
            if clip.times[position] != frame.time:
                raise MediaError(f"{path}: decodes differently each time")
            if clip.valid[position]:
                own.append(align_face(frame.image, clip.landmarks[position]))
    return [np.stack(own) for own in crops]


def judge_people(people: Sequence[NDArray[np.uint8]], network: Network) -> Judgement:
    """Judge a video by a peer: the mean over frames of each person, the highest of the people.

    Afchar et al. average over frames (section IV.D); people are joined by tellframe's rule.
    """
    if not people:
        return Judgement(outcome=Outcome.NO_FACE, reasons=(Reason.NO_FACE,))
    return judged(max(1 - float(network(crops).mean()) for crops in people), len(people))


def judged(probability: float, people: int = 1) -> Judgement:
    """Return the judgement of a detector that has no limits of its own: FAKE from 0.5."""
    p = min(max(probability, TINY), 1 - TINY)
    return Judgement(
        outcome=Outcome.OK,
        people=people,
        logit=math.log(p / (1 - p)),
        probability=p,
        verdict=Label.FAKE if p >= 0.5 else Label.REAL,
    )


def score_videos(
    source: Videos, detector: Detector, networks: Mapping[str, Network]
) -> dict[str, list[Row]]:
    """Judge every video by every network; each is decoded once for all of them."""
    scored: dict[str, list[Row]] = {name: [] for name in networks}
    pairs = zip(source.rows, source.videos, strict=True)
    for row, video in follow(pairs, len(source.rows), "peers, videos"):
        try:
            people = cut_people(video.location, detector)
        except MediaError as error:
            say(str(error))
            for rows in scored.values():
                rows.append(row.judged(Judgement(outcome=Outcome.UNREADABLE)))
            continue
        for name, network in networks.items():
            scored[name].append(row.judged(judge_people(people, network)))
    return scored


def score_crops(rows: Sequence[Row], zipped: Path, network: Network) -> Iterator[Row]:
    """Judge single crops, each seen whole; `rows` are the first of the zip, in its order."""
    for row, still in zip(rows, islice(read_stills(zipped), len(rows)), strict=True):
        yield row.judged(judged(1 - float(network(_whole(io.BytesIO(still.data)))[0])))


def _whole(file: io.BytesIO | Path) -> NDArray[np.uint8]:
    """Return a picture as one crop, (1, 256, 256, 3)."""
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB").resize((SIZE, SIZE)))[None]


def score_landmarks(rows: Sequence[Row], folder: Path, lrnet: LRNet) -> list[Row]:
    """Judge videos by LRNet.

    Args:
        rows: the labelled videos.
        folder: with the landmarks of PATH, the only or the largest face, at PATH.txt; see
            `read_landmarks`.
        lrnet: both branches.

    Returns:
        The rows; without a score where there are no landmarks, or too few frames of them.

    Raises:
        DataError: a file holds something else than landmarks.
    """
    found = []
    for row in rows:
        path = folder / f"{row.path}.txt"
        try:
            probability = lrnet(read_landmarks(path)) if path.is_file() else None
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: cannot be read as landmarks ({error})") from error
        lacking = Judgement(outcome=Outcome.NO_FACE, reasons=(Reason.TOO_FEW_FRAMES,))
        found.append(row.judged(lacking if probability is None else judged(probability)))
    return found


def share_called_real(folder: Path, network: Network) -> float | None:
    """Return the share of pictures of real faces that are called real; None without pictures."""
    files = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
    if not files:
        return None
    called = [float(network(_whole(file))[0]) > 0.5 for file in files]
    return sum(called) / len(called)
