"""The videos that are timed, made on the spot so that anybody can repeat a measurement.

They are like those of the DFDC: 10 s, 30 pictures a second, a keyframe every 250, people who sway
in a room, camera noise. Long ones are the same 10 s over and over, copied without encoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from tellframe.errors import DecodeError, UsageError
from tellframe.video import list_frames, read_frames

SECONDS: Final = 10
RATE: Final = 30
GOP: Final = 250
_NOISE: Final = 4.0
"""Standard deviation of the camera noise in grey levels."""
_GRAINS: Final = 4
"""Pictures of noise, shown in turn."""

ENCODERS: Final[dict[str, tuple[str, dict[str, str], str]]] = {
    "h264": ("libx264", {"crf": "23", "preset": "medium"}, ".mp4"),
    "hevc": ("libx265", {"crf": "23", "preset": "fast", "x265-params": "log-level=error"}, ".mp4"),
    "vp9": (
        "libvpx-vp9",
        {"crf": "33", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        ".webm",
    ),
    "av1": ("libsvtav1", {"crf": "30", "preset": "8"}, ".mp4"),
}
"""FFmpeg's encoder, its options and the container's suffix, by codec."""


@dataclass(frozen=True, slots=True)
class Film:
    """What one of the videos shows, and how it is coded."""

    height: int = 1080
    """Of its pictures in pixels; they are 16 : 9."""
    codec: str = "h264"
    """One of `ENCODERS`."""
    people: int = 1
    """How many faces are seen, side by side."""
    seconds: int = SECONDS
    """How long it is."""

    @property
    def width(self) -> int:
        """Width in pixels, even."""
        return 2 * round(self.height * 16 / 9 / 2)

    @property
    def name(self) -> str:
        """Name of the file."""
        suffix = ENCODERS[self.codec][2]
        return f"{self.height}p-{self.codec}-{self.people}face-{self.seconds}s{suffix}"


FILMS: Final = (
    Film(),
    *(Film(people=people) for people in (2, 3)),
    *(Film(height) for height in (360, 720, 2160)),
    *(Film(height, codec) for codec in ("hevc", "vp9", "av1") for height in (1080, 720)),
    *(Film(seconds=seconds) for seconds in (30, 60, 300, 1200)),
)
"""One that the others differ from in people, resolution, codec or length alone; those of another
codec at 720p in codec and resolution."""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of making videos."""

    files: list[Path] = field(default_factory=list)
    """In the order in which they were asked for."""
    missing: dict[str, str] = field(default_factory=dict)
    """Codecs that FFmpeg has no encoder for here, with the encoder's name."""


def has_encoder(codec: str) -> bool:
    """Tell whether the FFmpeg inside PyAV can encode one of `ENCODERS`."""
    try:
        av.Codec(ENCODERS[codec][0], "w")
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def choose_films(pattern: str = "*") -> list[Film]:
    """Return those of `FILMS` whose names match, such as "1080p-h264-*".

    Raises:
        UsageError: there is none.
    """
    chosen = [film for film in FILMS if fnmatch(film.name, pattern)]
    if not chosen:
        names = ", ".join(film.name for film in FILMS)
        raise UsageError(f"bench videos: no name matches {pattern!r}; there are {names}")
    return chosen


def make_videos(portraits: Sequence[Path], folder: Path, films: Iterable[Film] = FILMS) -> Made:
    """Write videos; those that are there already are left as they are.

    Args:
        portraits: videos of a person each; people beside each other take them in turn.
        folder: where to; made where it is not there.
        films: which.

    Returns:
        The files, and the codecs that cannot be encoded here.

    Raises:
        UsageError: no portrait is given.
        MediaError: a portrait cannot be read.
    """
    if not portraits:
        raise UsageError("bench videos: give --portrait VIDEO, such as samples/real.mp4")
    folder.mkdir(parents=True, exist_ok=True)
    made = Made()
    for film in films:
        if not has_encoder(film.codec):
            made.missing[film.codec] = ENCODERS[film.codec][0]
            continue
        target = folder / film.name
        made.files.append(target)
        if target.exists():
            continue
        once = Film(film.height, film.codec, film.people)
        if film.seconds > SECONDS:
            (source,) = make_videos(portraits, folder, [once]).files
            _write(target, lambda path, s=source, f=film: loop_video(s, path, f.seconds // SECONDS))
        else:
            _write(target, lambda path, f=film: make_video(portraits, path, f))
    return made


def _write(target: Path, write: Any) -> None:
    """Write a file under a temporary name first."""
    unfinished = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        write(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def make_video(portraits: Sequence[Path], target: Path, film: Film | None = None) -> None:
    """Encode one video.

    Args:
        portraits: videos of a person each; their pictures are shown side by side, swaying.
        target: the file to write; its suffix names the container.
        film: what it shows; 10 s of one person in 1080p H.264 where None.

    Raises:
        MediaError: a portrait cannot be read.
    """
    film = film or Film()
    encoder, options, _ = ENCODERS[film.codec]
    pictures = _draw(portraits, film)
    with same_priority(), av.open(str(target), "w") as container:
        stream: Any = container.add_stream(encoder, rate=RATE, options={**options, "g": str(GOP)})
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        stream.thread_type = "AUTO"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@contextmanager
def same_priority() -> Iterator[None]:
    """Leave the process the priority that it had.

    SVT-AV1 gives a process that encodes as root real time, before all else on the machine, and
    never takes it back; two that waited in a loop stopped a machine of two cores.
    """
    if not hasattr(os, "sched_getscheduler"):  # macOS
        yield
        return
    process = os.getpid()  # its main thread, whichever encodes
    policy, parameters = os.sched_getscheduler(process), os.sched_getparam(process)
    try:
        yield
    finally:
        os.sched_setscheduler(process, policy, parameters)


def _draw(portraits: Sequence[Path], film: Film) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures of a video, (H, W, 3), RGB."""
    width, height = film.width, film.height
    slot = width / film.people
    size = round(min(height * 2 / 3, slot * 0.8))
    sway = min(height / 9, (slot - size) / 2)
    faces = [_read_faces(path, size) for path in portraits[: film.people]]
    rng = np.random.default_rng(0)
    light = np.linspace(60, 130, height)[:, None, None] + np.linspace(0, 40, width)[None, :, None]
    room = np.repeat(light, 3, axis=2).astype(np.uint8)
    grain = rng.normal(0, _NOISE, (_GRAINS, height, width, 1)).astype(np.int16)
    top = (height - size) // 2
    for i in range(film.seconds * RATE):
        picture = room.copy()
        for person in range(film.people):
            shown = faces[person % len(faces)]
            middle = slot * (person + 0.5) + sway * np.sin(i / 25 + person)
            left = round(middle - size / 2)
            # Each begins elsewhere, so that no two move alike.
            face = shown[(i + 7 * person) % len(shown)]
            picture[top : top + size, left : left + size] = face
        yield np.clip(picture + grain[i % _GRAINS], 0, 255).astype(np.uint8)


def _read_faces(portrait: Path, size: int) -> list[NDArray[np.uint8]]:
    """Return the pictures of a portrait, each a square of `size` pixels."""
    listing = list_frames(portrait)
    faces: list[NDArray[np.uint8]] = []
    for frame in read_frames(portrait, listing, range(len(listing.times))):
        large = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
        small: Any = large.reformat(width=size, height=size, format="rgb24").to_ndarray()
        faces.append(small)
    return faces


def loop_video(source: Path, target: Path, times: int) -> None:
    """Write a video that shows another one so many times, without encoding anything.

    Args:
        source: the video.
        target: the file to write; its suffix names the container.
        times: how often.

    Raises:
        DecodeError: the source cannot be read, or FFmpeg cannot copy its codec (AV1).
    """
    try:
        with av.open(str(source)) as container:
            template: Any = container.streams.video[0]
            packets = [(p, p.pts, p.dts) for p in container.demux(template) if p.size]
            # Not a whole number of steps: some containers round each time stamp.
            seconds = len(packets) / (template.average_rate or RATE)
            length = round(seconds / template.time_base)
            with av.open(str(target), "w") as written:
                stream = written.add_stream_from_template(template)
                for number in range(times):
                    for packet, pts, dts in packets:
                        packet.stream = stream
                        packet.time_base = template.time_base  # the muxer has changed it
                        packet.pts = None if pts is None else pts + number * length
                        packet.dts = None if dts is None else dts + number * length
                        written.mux(packet)
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise DecodeError(f"{source}: cannot be copied ({error}); give a sound video") from error
