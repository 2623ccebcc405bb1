"""Follow each person through the sampled frames, and drop what is no living face.

Frames are sampled up to seconds apart, so that boxes need not overlap from one to the next: a
face belongs to the track that it is nearest to in place, size and looks, never by list position.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tellframe.faces.looks import Looks, inside_bars, look_at, thin_out
from tellframe.faces.prints import is_print
from tellframe.types import FAR_APART, Face

MAX_SHIFT: Final = 1.5
"""A face moves at most this many face sizes between two sampled frames."""
MAX_RATIO: Final = 1.8
"""A face grows or shrinks at most by this factor between two sampled frames."""
NEW_FACE: Final = 0.35
"""Share of the colours of a face that is new where another person takes its place; see
`tellframe.faces.looks` for what was measured."""
NEW_SCENE: Final = 0.4
"""Share of the colours of a frame that is new after a cut."""
NEW_LIGHT: Final = 25.0
"""As long as the thumbnails of both differ by no more levels, 0 to 255, new colours are new light
on the same face or scene."""
MAX_GAP_FRAMES: Final = 3
MAX_GAP_SECONDS: Final = 2.0
"""A track ends when its person stays unseen for more than both."""
MIN_SHARE: Final = 0.2
"""A track seen in fewer of the sampled frames, in fewer than three and in less than half of its
scene's is short-lived, unless the frames lie far apart."""


@dataclass(slots=True)
class Sighting:
    """One face in one sampled frame."""

    position: int
    """Which of the sampled frames, from 0."""
    time: float
    """Seconds."""
    face: Face
    """Where it is."""
    crop: NDArray[np.uint8]
    """Shape (S, S, 3), RGB, with the recipe's margin, so that those of two frames compare."""
    view: NDArray[np.uint8]
    """Shape (S, S, 3), RGB: what the model sees, the crop itself or a closer one."""
    looks: Looks = field(init=False)
    """What the face looks like."""

    def __post_init__(self) -> None:
        self.looks = look_at(thin_out(self.crop), 8)


@dataclass(slots=True)
class FaceTrack:
    """One person through time."""

    sightings: list[Sighting]
    """In order of time, at most one a frame."""
    scene_frames: int | None = None
    """How many frames were sampled between the cuts around it; None for all of the video."""

    @property
    def size(self) -> float:
        """Median face size in pixels."""
        return float(np.median([s.face.size for s in self.sightings]))

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Shape (N, 4), xyxy of every sighting."""
        return np.stack([s.face.box for s in self.sightings])


class Tracker:
    """Collects sightings frame by frame into tracks."""

    def __init__(self) -> None:
        self._open: list[FaceTrack] = []
        self._ended: list[FaceTrack] = []  # before the scene did
        self._earlier: list[FaceTrack] = []  # of earlier scenes
        self._last_frame: Looks | None = None
        self._scene_frames = 0
        self.num_cuts = 0

    def begin_frame(self, image: NDArray[np.uint8]) -> bool:
        """Compare the next frame with the last one; return whether a scene begins with it.

        All tracks end at a scene cut.

        Args:
            image: shape (H, W, 3).
        """
        looks = look_at(inside_bars(thin_out(image)), 16)
        last, self._last_frame = self._last_frame, looks
        cut = (
            last is not None
            and last.colour_change(looks) > NEW_SCENE
            and last.level_change(looks) > NEW_LIGHT
        )
        if cut:
            self.num_cuts += 1
            self._end_scene()
        self._scene_frames += 1
        return cut

    def _end_scene(self) -> None:
        for track in (tracks := self._ended + self._open):
            track.scene_frames = self._scene_frames
        self._earlier += tracks
        self._ended, self._open, self._scene_frames = [], [], 0

    def update(self, sightings: list[Sighting]) -> None:
        """Add the faces of the frame that was begun; all are of the same position and time."""
        if sightings:
            self._close_stale(sightings[0].position, sightings[0].time)
        free = dict(enumerate(sightings))
        tracks = dict(enumerate(self._open))
        costs = sorted(
            (cost, track.sightings[-1].face.box.tolist(), sighting.face.box.tolist(), t, s)
            for t, track in tracks.items()
            for s, sighting in free.items()
            if (cost := _distance(track.sightings[-1], sighting)) is not None
        )
        for *_, t, s in costs:
            if t in tracks and s in free:
                tracks.pop(t).sightings.append(free.pop(s))
        self._open += [FaceTrack([sighting]) for sighting in free.values()]

    def _close_stale(self, position: int, time: float) -> None:
        """End the tracks that were not seen for too long."""

        def stale(track: FaceTrack) -> bool:
            last = track.sightings[-1]
            return position - last.position > MAX_GAP_FRAMES and time - last.time > MAX_GAP_SECONDS

        self._ended += [t for t in self._open if stale(t)]
        self._open = [t for t in self._open if not stale(t)]

    def finish(self) -> list[FaceTrack]:
        """Return all tracks in order of first appearance, then from left to right."""
        self._end_scene()
        return sorted(self._earlier, key=lambda t: (t.sightings[0].position, t.boxes[0].tolist()))


def _distance(a: Sighting, b: Sighting) -> float | None:
    """Return how unlike two sightings are, or None where they cannot be the same person."""
    size = (a.face.size + b.face.size) / 2
    ratio = max(a.face.size, b.face.size) / max(min(a.face.size, b.face.size), 1e-6)
    shift = float(np.hypot(*(_centre(a.face) - _centre(b.face)))) / max(size, 1e-6)
    recoloured = a.looks.colour_change(b.looks)
    if shift > MAX_SHIFT or ratio > MAX_RATIO:
        return None
    if recoloured > NEW_FACE and a.looks.level_change(b.looks) > NEW_LIGHT:
        return None
    return shift / MAX_SHIFT + recoloured / NEW_FACE + (ratio - 1) / (MAX_RATIO - 1)


def _centre(face: Face) -> NDArray[np.float32]:
    return np.asarray((face.box[:2] + face.box[2:]) / 2, dtype=np.float32)


def least_sightings(num_frames: int, spacing: float) -> int:
    """Return in how many of the sampled frames a person has to be seen to be kept beside others.

    Args:
        num_frames: how many are sampled.
        spacing: seconds from one to the next. Of frames that lie far apart one is enough: who is
            seen in it may have been there for a minute.
    """
    return 1 if spacing > FAR_APART else math.ceil(min(3, MIN_SHARE * num_frames))


def keep_people(
    tracks: list[FaceTrack], num_frames: int, spacing: float
) -> tuple[list[FaceTrack], Counter[str]]:
    """Drop false faces: what flashes up, and prints on clothes.

    Who is seen in half of the frames between two cuts does not flash up, however few they are; and
    a face is a print only beside a living one, in the same frames.

    Args:
        tracks: in order of first appearance.
        num_frames: how many frames were sampled.
        spacing: seconds from one to the next; see `least_sightings`.

    Returns:
        The tracks to keep, and how many were dropped by cause ("short", "print").
    """
    dropped: Counter[str] = Counter()
    least = least_sightings(num_frames, spacing)
    longest = max((len(t.sightings) for t in tracks), default=0)
    kept = []
    for track in tracks:
        seen, scene_frames = len(track.sightings), track.scene_frames or num_frames
        if seen < min(least, scene_frames / 2) and seen < longest:
            dropped["short"] += 1
        elif seen >= 3 and (living := _largest_beside(track, tracks)) and _is_print(track, living):
            dropped["print"] += 1
        else:
            kept.append(track)
    return kept, dropped


def _largest_beside(track: FaceTrack, tracks: list[FaceTrack]) -> FaceTrack | None:
    """Return the largest other face that is seen in three and in half of the track's frames."""
    here = {s.position for s in track.sightings}
    beside = [
        t
        for t in tracks
        if t is not track and len(here & {s.position for s in t.sightings}) >= max(3, len(here) / 2)
    ]
    return max(beside, key=lambda t: t.size, default=None)


def _is_print(track: FaceTrack, living: FaceTrack) -> bool:
    return is_print(
        [s.crop for s in track.sightings],
        track.boxes,
        [s.crop for s in living.sightings],
        living.boxes,
    )
