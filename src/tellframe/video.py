"""Read upright pictures out of video files, by time stamp, in one pass.

A file is opened twice: once to list its packets without decoding them (so that the true time
stamps are known, whatever the header claims), once to decode the wanted pictures. Groups of
pictures that hold no wanted picture are never decoded.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from tellframe.errors import (
    DecodeError,
    LimitError,
    MediaNotFoundError,
    NoVideoError,
    TellframeError,
)
from tellframe.types import Frame, Media

VIDEO_SUFFIXES: Final = frozenset(
    f".{suffix}"
    for suffix in (
        *("3gp", "asf", "avi", "flv", "h264", "h265", "hevc", "ivf", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "mxf", "obu", "ogv", "ts", "webm", "wmv", "y4m"),
    )
)
"""File names that are taken for videos when a folder is searched."""

DEMUXERS: Final = (
    "asf,av1,avi,flv,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,mpeg,mpegts,mpegvideo,mxf,"
    "obu,ogg,yuv4mpegpipe"
)
"""Containers that FFmpeg may open. Playlists (hls, dash, concat, sdp) and pictures are left out:
the former fetch other files, the latter are no videos."""

MAX_PIXELS: Final = 36_000_000
"""Largest picture that is decoded; 8K (7680 x 4320) is 33 million."""
MAX_PACKETS: Final = 20_000_000
"""Upper limit of pictures in a stream: 92 hours at 60 pictures a second."""
MIN_SKIP: Final = 16
"""Fewer undecoded packets than this between two wanted pictures are decoded nevertheless: to
drain and refill the decoder would cost more than they do."""

SamplingPolicy = Callable[[NDArray[np.float64], int], NDArray[np.int64]]


def sample_uniform(times: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Pick `count` pictures spread evenly over time: those nearest to the middles of equal parts.

    Args:
        times: shape (F,), seconds, ascending.
        count: how many are wanted; all are returned where there are no more.

    Returns:
        Shape (<= count,), ascending positions in `times` without repeats. Fewer than `count`
        where one picture is the nearest to several middles (variable frame rate).
    """
    if len(times) <= count:
        return np.arange(len(times), dtype=np.int64)
    step = float(np.median(np.diff(times)))
    span = float(times[-1] - times[0]) + max(step, 0.0)
    targets = times[0] + (np.arange(count) + 0.5) * span / count
    after = np.searchsorted(times, targets).clip(1, len(times) - 1)
    before = after - 1
    nearest = np.where(targets - times[before] <= times[after] - targets, before, after)
    return np.unique(nearest).astype(np.int64)


def sample_start(times: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Pick the first `count` pictures; arguments and result as for `sample_uniform`."""
    return np.arange(min(count, len(times)), dtype=np.int64)


SAMPLERS: Final[dict[str, SamplingPolicy]] = {"uniform": sample_uniform, "start": sample_start}
"""Sampling policies by the name that a recipe gives."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The pictures of a video stream, as its packets announce them."""

    media: Media
    """Facts about the file."""
    times: NDArray[np.float64]
    """Shape (F,), seconds since the first picture, in presentation order."""
    pts: NDArray[np.int64] | None
    """Shape (F,), time stamps in presentation order; None where the stream carries none."""
    decode_position: NDArray[np.int64]
    """Shape (F,), position of each picture's packet in the file, counted from 0."""
    keyframes: NDArray[np.int64]
    """Shape (K,), packet positions at which decoding can begin, ascending."""


def list_frames(path: str | Path) -> Listing:
    """List the pictures of a video without decoding them.

    Args:
        path: a local file.

    Raises:
        MediaNotFoundError: there is no such regular, readable file.
        NoVideoError: the file holds no video stream, or one without a picture.
        DecodeError: the file is no video container that tellframe opens.
        LimitError: its pictures are larger than `MAX_PIXELS`.
    """
    size, sha256 = _read_facts(path)
    with _open(path) as (container, stream):
        packets: list[tuple[int | None, int | None, bool]] = []
        broken = False
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    packets.append((packet.pts, packet.dts, bool(packet.is_keyframe)))
                    broken |= packet.is_corrupt
                if len(packets) > MAX_PACKETS:
                    raise LimitError(f"{path}: more than {MAX_PACKETS} pictures; split the file")
        except (av.error.FFmpegError, OSError):
            broken = True  # what came before the damage is still worth a verdict
        if not packets:
            raise NoVideoError(f"{path}: its video stream holds no picture; is the file complete?")
        pts, order = _presentation(packets)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        time_base = float(stream.time_base or 0)
        if pts is None or time_base <= 0:
            pts, times = None, np.arange(len(packets)) / rate
        else:
            times = (pts - pts[0]) * time_base
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / rate
        duration = float(times[-1]) + step
        codec = stream.codec_context
        media = Media(
            path=str(path),
            bytes=size,
            sha256=sha256,
            container=container.format.name,
            codec=codec.name,
            width=codec.width,
            height=codec.height,
            rotation=0,
            duration=duration,
            num_frames=len(packets),
            frame_rate=len(packets) / duration if len(packets) > 1 and duration > 0 else 0.0,
            partial=broken or stream.frames > len(packets) + 2,
        )
    keyframes = np.flatnonzero([key for _, _, key in packets])
    return Listing(media, times, pts, order, keyframes)


def read_frames(
    path: str | Path,
    listing: Listing,
    wanted: Sequence[int] | NDArray[np.int64],
    *,
    threads: int = 0,
) -> Iterator[Frame]:
    """Decode the wanted pictures in one sequential pass.

    A wanted picture that cannot be decoded is replaced by the next one that can; only the wanted
    ones are converted to RGB. Memory does not grow with the length of the video.

    Args:
        path: the file that was listed.
        listing: what `list_frames` found.
        wanted: ascending positions in `listing.times`.
        threads: decoder threads; 0 for one a core.

    Yields:
        Upright frames in order of time, at most one for each wanted position.

    Raises:
        DecodeError: not one picture could be decoded.
        LimitError: a picture is larger than `MAX_PIXELS`.
    """
    wanted = np.asarray(wanted, dtype=np.int64)
    num_read = 0
    with _open(path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.thread_count = threads
        try:
            for position, picture in _pick(container, stream, listing, wanted):
                num_read += 1
                turns = round(picture.rotation / 90) % 4
                image = _upright_rgb(picture, turns, path)
                yield Frame(image, float(listing.times[position]), position, 90 * turns)
        except (av.error.FFmpegError, OSError, AttributeError) as error:
            # PyAV raises errors of every family for damaged streams, AttributeError among them;
            # the file itself was opened before, so whatever comes here is a decoding error.
            if not num_read:
                raise DecodeError(_undecodable(path, error)) from error
    if not num_read:
        raise DecodeError(_undecodable(path, None))


def _undecodable(path: str | Path, error: Exception | None) -> str:
    detail = f" ({error})" if error else ""
    return f"{path}: no picture of the video could be decoded{detail}; is the file damaged?"


def _read_facts(path: str | Path) -> tuple[int, str]:
    """Return size and SHA-256 of a regular file."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise MediaNotFoundError(f"{path}: not a regular file; give a video file")
        with Path(path).open("rb") as file:
            return status.st_size, hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaNotFoundError(f"{path}: cannot be read ({reason}); check the path") from error


@contextmanager
def _open(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open the best video stream of a file; yield (container, stream)."""
    try:
        # "file:" keeps FFmpeg from taking a name such as "http://..." for another protocol.
        container = av.open(
            f"file:{path}",
            options={"max_pixels": str(MAX_PIXELS)},
            container_options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            metadata_errors="replace",
        )
    except TellframeError:
        raise
    except Exception as error:
        size = Path(path).stat().st_size
        why = "the file is empty" if size == 0 else f"not a video that can be opened ({error})"
        raise DecodeError(f"{path}: {why}; convert it to MP4, MOV, MKV, WebM or AVI") from error
    with container:
        stream = container.streams.best("video")
        codec = getattr(stream, "codec_context", None)
        if stream is None or codec is None:
            raise NoVideoError(f"{path}: holds no video stream (sound alone cannot be analysed)")
        if codec.width * codec.height > MAX_PIXELS:
            raise LimitError(
                f"{path}: pictures of {codec.width} x {codec.height} pixels, more than the limit "
                f"of {MAX_PIXELS}; scale the video down"
            )
        yield container, stream


def _presentation(
    packets: list[tuple[int | None, int | None, bool]],
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Return (sorted time stamps or None, packet position of each picture in that order)."""
    if any(pts is None for pts, _, _ in packets):
        if any(dts is None for _, dts, _ in packets):
            return None, np.arange(len(packets), dtype=np.int64)
        # AVI and some MPEG streams stamp only the decoding order, which is the order of showing
        # where there are no B-frames, and differs from it by a few pictures otherwise.
        stamps = np.array([dts if pts is None else pts for pts, dts, _ in packets], dtype=np.int64)
    else:
        stamps = np.array([pts for pts, _, _ in packets], dtype=np.int64)
    order = np.argsort(stamps, kind="stable")
    return stamps[order], order


def plan_segments(listing: Listing, wanted: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the runs of packets (first, last; inclusive) that the wanted pictures need.

    A picture needs all packets from the last keyframe that comes before it both in the file and
    in time (pictures shown before a keyframe but stored after it refer to the group before).
    """
    if listing.pts is None:
        last = int(listing.decode_position[wanted].max(initial=0))
        return [(0, last)]
    pts_of_packet = np.empty(len(listing.pts), dtype=np.int64)
    pts_of_packet[listing.decode_position] = listing.pts
    segments: list[tuple[int, int]] = []
    for position in sorted(listing.decode_position[wanted]):
        keys = listing.keyframes[: np.searchsorted(listing.keyframes, position, side="right")]
        keys = keys[pts_of_packet[keys] <= pts_of_packet[position]]
        first = int(keys[-1]) if len(keys) else 0
        if segments and first <= segments[-1][1] + MIN_SKIP:
            segments[-1] = (segments[-1][0], max(int(position), segments[-1][1]))
        else:
            segments.append((first, int(position)))
    return segments


def _decode_segments(container: Any, stream: Any, segments: list[tuple[int, int]]) -> Iterator[Any]:
    """Decode the packets of the segments; drain the decoder after each."""
    codec = stream.codec_context
    current, position = 0, 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if not packet.is_discard:
            if position > segments[current][1]:
                yield from codec.decode(None)
                current += 1
                if current == len(segments):
                    return
                codec.flush_buffers()
            position += 1
        if position > segments[current][0]:
            yield from _decode_packet(codec, packet)
    yield from codec.decode(None)


def _decode_packet(codec: Any, packet: Any) -> list[Any]:
    """Decode one packet; damage in it costs this packet alone."""
    try:
        return list(codec.decode(packet))
    except av.error.InvalidDataError:
        return []


def _pick(
    container: Any, stream: Any, listing: Listing, wanted: NDArray[np.int64]
) -> Iterator[tuple[int, Any]]:
    """Yield (position, picture) for each wanted picture, or the next one that was decoded."""
    pending = list(wanted)
    position = -1
    for picture in _decode_segments(container, stream, plan_segments(listing, wanted)):
        if not pending:
            return
        position += 1
        if listing.pts is not None and picture.pts is not None:
            position = int(np.searchsorted(listing.pts, picture.pts, side="right")) - 1
        if position < pending[0]:
            continue
        while pending and pending[0] <= position:
            pending.pop(0)
        yield min(position, len(listing.times) - 1), picture


def _upright_rgb(picture: Any, quarter_turns: int, path: str | Path) -> NDArray[np.uint8]:
    """Convert a decoded picture to RGB and turn it anticlockwise."""
    if picture.width * picture.height > MAX_PIXELS:
        raise LimitError(f"{path}: a picture of {picture.width} x {picture.height} pixels")
    image = picture.to_ndarray(format="rgb24")
    if quarter_turns:
        image = np.ascontiguousarray(np.rot90(image, quarter_turns))
    return image  # type: ignore[no-any-return]
