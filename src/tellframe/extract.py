"""The one extraction: a video and a recipe in, one clip a person out.

Training, evaluation, `detect`, the service and the cluster all come through here, so that a model
is always fed as it was trained.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tellframe.faces import FaceDetector
from tellframe.faces.align import brighten, crop_face
from tellframe.faces.finder import FaceFinder
from tellframe.faces.track import FaceTrack, Sighting, Tracker, keep_people, least_sightings
from tellframe.limits import FILE_LIMITS, FileLimits
from tellframe.listing import Listing
from tellframe.recipe import Recipe
from tellframe.types import FAR_APART, Clip, Frame, Media
from tellframe.video import SAMPLERS, Source, list_frames, read_frames

LOOK_CLOSER: Final = 0.5
"""Seconds from one frame to the next of a closer look, or more where it has too few of them."""
FEW_FRAMES: Final = 3
"""Who is seen in fewer cannot be judged, by the default of `tellframe.scoring.Decision`."""
READ_AHEAD: Final = 3
"""Frames decoded ahead, 6 MB each at 1080p: searching a whole frame takes as long as decoding many,
finding known faces again hardly any time."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found in one video."""

    media: Media
    """Facts about the file."""
    clips: tuple[Clip, ...]
    """One a person, in order of first appearance."""
    counters: dict[str, int] = field(default_factory=dict)
    """frames_sampled, faces_detected, scene_cuts, dropped_short, dropped_print; where there
    are more people than the limit, dropped_many, and more faces in a frame, dropped_faces."""


def leaves_out(counters: Mapping[str, int]) -> bool:
    """Tell by the counters whether there were more people or faces than the limits allow."""
    return any(counters.get(name) for name in ("dropped_many", "dropped_faces"))


def extract_clips(
    path: Source,
    recipe: Recipe,
    detector: FaceDetector,
    *,
    threads: int = 0,
    limits: FileLimits = FILE_LIMITS,
    look_closer: bool = True,
) -> Extraction:
    """Cut the face crops of every person out of a video.

    Args:
        path: a local file, or one that is open.
        recipe: how.
        detector: the recipe's face detector, see `tellframe.faces.load_face_detector`.
        threads: decoder threads; 0 for as many as keep all cores busy.
        limits: what the video may ask for.
        look_closer: whether an edited or long video, in which somebody is seen in fewer than
            `FEW_FRAMES` of the frames, is searched once more in up to `Recipe.most_frames`.

    Raises:
        MediaError: the file cannot be analysed; the message says why and what to do.
    """
    listing = list_frames(path, limits)
    found = _search(path, listing, recipe.num_frames, recipe, detector, threads, limits)
    if look_closer and recipe.sampling == "uniform" and _calls_for_more(found):
        wanted = math.ceil(listing.media.duration / LOOK_CLOSER)
        closer = min(wanted, recipe.most_frames, len(listing.times))
        if closer > recipe.num_frames:
            return _search(path, listing, closer, recipe, detector, threads, limits)
    return found


def _calls_for_more(found: Extraction) -> bool:
    """Tell whether somebody is seen too seldom because shots are short, or frames far apart."""
    edited = found.counters["scene_cuts"] or found.media.sampled_every > FAR_APART
    return bool(edited) and any(clip.num_valid < FEW_FRAMES for clip in found.clips)


def _search(
    path: Source,
    listing: Listing,
    num_frames: int,
    recipe: Recipe,
    detector: FaceDetector,
    threads: int,
    limits: FileLimits,
) -> Extraction:
    """Extract from that many frames."""
    wanted = SAMPLERS[recipe.sampling](listing.times, num_frames)
    spacing = _spacing(listing.times[wanted])
    # In the last frames nobody new is looked for, who would be seen too seldom to be kept, unless
    # the recipe wants every frame searched.
    late = listing.times[wanted[len(wanted) + 1 - least_sightings(len(wanted), spacing) :]]
    until = late[0] if len(late) and recipe.search_every else math.inf
    most = recipe.max_faces if recipe.keep_all else 1
    tracker, finder = Tracker(), FaceFinder(detector, recipe.search_every, until, most)
    frames = read_frames(path, listing, wanted, threads=threads, limits=limits)
    times: list[float] = []
    num_faces, rotation = 0, 0
    for frame in _read_ahead(frames):
        new_scene = tracker.begin_frame(frame.image)
        sightings = _find_faces(frame, len(times), recipe, finder, new_scene)
        tracker.update(sightings)
        times.append(frame.time)
        num_faces += len(sightings)
        rotation = frame.rotation
    tracks, dropped = keep_people(tracker.finish(), len(times), spacing)
    many = max(len(tracks) - limits.people, 0)
    if many:  # those seen most often stay, in their order
        seen = sorted(range(len(tracks)), key=lambda n: -len(tracks[n].sightings))
        tracks = [tracks[n] for n in sorted(seen[: limits.people])]
    media = dataclasses.replace(
        listing.media,
        rotation=rotation,
        partial=listing.media.partial or len(times) < len(wanted),
        sampled_every=spacing,
    )
    return Extraction(
        media=media,
        clips=tuple(_to_clip(n, t, times, recipe) for n, t in enumerate(tracks, 1)),
        counters={
            "frames_sampled": len(times),
            "faces_detected": num_faces,
            "scene_cuts": tracker.num_cuts,
            "dropped_short": dropped["short"],
            "dropped_print": dropped["print"],
            **({"dropped_many": many} if many else {}),
            **({"dropped_faces": finder.num_cut} if finder.num_cut else {}),
        },
    )


def _spacing(times: NDArray[np.float64]) -> float:
    """Return the median of the seconds from one sampled frame to the next; 0 where there is one."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _read_ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Decode the next frames while the caller looks for faces in this one.

    Decoder and networks leave Python's lock free while they work, and neither keeps all cores busy.
    """
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, frames, None) for _ in range(READ_AHEAD))
        while (frame := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, frames, None))
            yield frame


def _find_faces(
    frame: Frame, position: int, recipe: Recipe, finder: FaceFinder, new_scene: bool
) -> list[Sighting]:
    bright = brighten(frame.image, recipe.brighten_below)
    source = bright if recipe.brighten_crops else frame.image
    scale = recipe.crop_scales[position % len(recipe.crop_scales)]
    sightings = []
    for face in finder.find(bright, frame.time, new_scene):
        crop = crop_face(source, face, recipe)
        view = crop if scale == 1 else crop_face(source, face, recipe, scale)
        sightings.append(Sighting(position, frame.time, face, crop, view))
    return sightings


def _to_clip(person: int, track: FaceTrack, times: list[float], recipe: Recipe) -> Clip:
    size, num_frames = recipe.crop_size, len(times)
    clip = Clip(
        person=person,
        pixels=np.zeros((num_frames, size, size, 3), dtype=np.uint8),
        times=np.array(times, dtype=np.float64),
        valid=np.zeros(num_frames, dtype=np.bool_),
        boxes=np.zeros((num_frames, 4), dtype=np.float32),
        landmarks=np.zeros((num_frames, 5, 2), dtype=np.float32),
        confidence=np.zeros(num_frames, dtype=np.float32),
        recipe_digest=recipe.digest,
    )
    for sighting in track.sightings:
        clip.pixels[sighting.position] = sighting.view
        clip.valid[sighting.position] = True
        clip.boxes[sighting.position] = sighting.face.box
        clip.landmarks[sighting.position] = sighting.face.landmarks
        clip.confidence[sighting.position] = sighting.face.confidence
    return clip
