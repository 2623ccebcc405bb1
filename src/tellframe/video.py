"""Read upright pictures out of video files, by time stamp, in one pass.

A file is opened twice: once to list its packets without decoding them (so that the true time
stamps are known, whatever the header claims), once to decode the wanted pictures. Groups of
pictures that hold no wanted picture are never decoded.
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from tellframe.errors import DecodeError, LimitError, MediaNotFoundError, NoVideoError
from tellframe.limits import FILE_LIMITS, FileLimits
from tellframe.types import Frame, Media
from tellframe.videofile import Reader, VideoFile, open_video_file

VIDEO_SUFFIXES: Final = frozenset(
    ".3gp .asf .avi .flv .h264 .h265 .hevc .ivf .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts "  # noqa: SIM905
    ".mxf .obu .ogv .ts .webm .wmv .y4m".split()
)
"""File names that are taken for videos when a folder is searched."""

DEMUXERS: Final = (
    "asf,av1,avi,flv,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,mpegvideo,mxf,obu,ogg,yuv4mpegpipe"
)
"""Containers that FFmpeg may open. Playlists (hls, dash, concat, sdp) and pictures are left out:
the former fetch other files, the latter are no videos."""

MAX_GAP: Final = 3600.0
"""Seconds between two pictures beyond which time stamps are not believed."""
MIN_SKIP: Final = 16
"""Fewer undecoded packets than this between two wanted pictures are decoded nevertheless: to
drain and refill the decoder would cost more than they do."""
SPARE: Final = 2
"""Packets decoded after a wanted one, for a picture in its place where it yields none: where it is
damaged, or hidden, as VP8's are that only serve as a reference."""
DISPOSING: Final = frozenset({"h264", "mpeg2video", "mpeg4"})
"""Codecs whose pictures that no other one refers to are decoded only where they are wanted. In HEVC
higher temporal layers may refer to what is marked so, and dav1d (AV1) cannot be told in between."""

BUFFER: Final = 1 << 16
"""Bytes that are read at once."""

Source = str | Path | VideoFile
"""A video: the path of a local file, or the open file."""
SamplingPolicy = Callable[[NDArray[np.float64], int], NDArray[np.int64]]
_DAMAGE: Final = (av.error.FFmpegError, OSError, ValueError)
"""What PyAV raises for damaged streams: errors of every family."""


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
    """The pictures of a video stream in presentation order, as its packets announce them."""

    media: Media
    """Facts about the file."""
    times: NDArray[np.float64]
    """Shape (F,), seconds since the first picture, ascending."""
    packets: NDArray[np.int64]
    """Shape (F,), position in the file, from 0, of the packet that holds the picture."""
    starts: NDArray[np.int64]
    """Shape (F,), the packet at which decoding has to begin to get the picture."""
    stamped: bool
    """Whether pictures are known by time stamps; otherwise all are decoded and counted."""


def list_frames(path: Source, limits: FileLimits = FILE_LIMITS) -> Listing:
    """List the pictures of a video; all but one keyframe without decoding them.

    Args:
        path: a local file, or one that is open.
        limits: what the video may ask for.

    Raises:
        MediaNotFoundError: there is no such regular, readable file.
        NoVideoError: the file holds no video stream, or one without a picture.
        DecodeError: the file is no video container that tellframe opens, or is encrypted.
        LimitError: it is larger or longer than the limits.
    """
    with open_video_file(path) as file:
        if file.size > limits.bytes:
            raise LimitError(
                f"{path}: {file.size} bytes, more than the limit of {limits.bytes}; see --max-bytes"
            )
        return _list_opened(file, limits)


def _list_opened(path: VideoFile, limits: FileLimits) -> Listing:
    with _open(path, limits) as (container, stream):
        size, sha256 = _read_facts(path)
        stamps, keyed, shown, broken = _list_packets(path, container, stream, limits.pictures)
        if not len(shown):
            raise NoVideoError(f"{path}: its video stream holds no picture; is the file complete?")
        rate, unit = stream.average_rate or stream.guessed_rate or 25, stream.time_base or 0
        times, packets, starts, stamped = _present(stamps, keyed, shown, float(unit), float(rate))
        step = float(np.median(np.diff(times))) if len(times) > 1 else float(1 / rate)
        duration = float(times[-1]) + step
        if duration > limits.seconds:
            raise LimitError(
                f"{path}: lasts {duration:.0f} s, more than the limit of {limits.seconds:g}; split "
                "it, or see --max-seconds"
            )
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
            num_frames=len(times),
            frame_rate=len(times) / duration if len(times) > 1 and duration > 0 else 0.0,
            partial=broken or _lacks_pictures(container, stream, len(stamps), duration, step),
        )
    # AVI stores no times of presentation; FFmpeg's guess is wrong where there are B-frames.
    return Listing(media, times, packets, starts, stamped and media.container != "avi")


def read_frames(
    path: Source,
    listing: Listing,
    wanted: Iterable[int],
    *,
    threads: int = 0,
    limits: FileLimits = FILE_LIMITS,
) -> Iterator[Frame]:
    """Decode the wanted pictures in one sequential pass.

    A wanted picture that is damaged is replaced by the next decoded one that is whole (which may
    depend on `threads`): what an error was painted over says nothing about a face. Only the wanted
    ones are converted to RGB. Memory does not grow with the length of the video.

    Args:
        path: the file that was listed.
        listing: what `list_frames` found.
        wanted: positions in `listing.times`, ascending.
        threads: decoder threads; 0 for one a core.
        limits: what the video may ask for; beyond `limits.decoded` pictures the rest is left.

    Yields:
        Upright frames in order of time, at most one for each wanted position.

    Raises:
        DecodeError: not one picture could be decoded without damage.
        LimitError: a picture takes more memory than there is.
    """
    positions, num_read = np.fromiter(wanted, dtype=np.int64), 0
    if not len(positions):
        return
    with open_video_file(path) as file, _open(file, limits) as (container, stream):
        stream.thread_type = "AUTO"
        stream.thread_count = threads
        pictures = _decode(container, stream, listing, positions)
        pictures = itertools.islice(pictures, limits.decoded)
        for position, picture in _pick(pictures, listing, positions):
            turns = round(picture.rotation / 90) % 4
            try:
                stored = picture.to_ndarray(format="rgb24")
            except _DAMAGE:
                continue
            except MemoryError as error:
                raise LimitError(f"{path}: too little memory for one of its pictures") from error
            num_read += 1
            image = np.ascontiguousarray(np.rot90(stored, turns))
            yield Frame(image, float(listing.times[position]), position, 90 * turns)
    if not num_read:
        raise DecodeError(
            f"{path}: no picture could be decoded; is the file damaged or encrypted, or are its "
            f"pictures larger than {limits.pixels} pixels?"
        )


def plan_segments(listing: Listing, wanted: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the runs of packets (first, last; inclusive) that the wanted pictures need."""
    end = int(listing.packets.max())
    if not listing.stamped:
        return [(0, end)]
    needed = np.minimum(listing.packets[wanted] + SPARE, end)
    segments: list[tuple[int, int]] = []
    for first, last in sorted(zip(listing.starts[wanted].tolist(), needed.tolist(), strict=True)):
        if segments and first <= segments[-1][1] + MIN_SKIP:
            segments[-1] = (segments[-1][0], max(segments[-1][1], last))
        else:
            segments.append((first, last))
    return segments


def _read_facts(file: VideoFile) -> tuple[int, str]:
    """Return size and SHA-256."""
    try:
        return file.size, file.hash()
    except OSError as error:
        reason = error.strerror or error
        raise MediaNotFoundError(f"{file}: cannot be read ({reason}); check the disk") from error


@contextmanager
def _open(path: VideoFile, limits: FileLimits = FILE_LIMITS) -> Iterator[tuple[Any, Any]]:
    """Open the best video stream of a file; yield (container, stream)."""
    try:
        container = av.open(
            Reader(path),
            options={"max_pixels": str(limits.pixels)},
            # No protocol at all: the bytes come from the reader, and nothing else is opened.
            container_options={"protocol_whitelist": "none", "format_whitelist": DEMUXERS},
            metadata_errors="replace",
            buffer_size=BUFFER,
        )
    except Exception as error:
        empty = not path.size
        reason = getattr(error, "strerror", None) or error
        why = "the file is empty" if empty else f"not a video that can be opened ({reason})"
        raise DecodeError(f"{path}: {why}; convert it to MP4, MOV, MKV, WebM or AVI") from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise NoVideoError(f"{path}: holds no video stream (sound alone cannot be analysed)")
        codec: Any = stream.codec_context
        if codec is None:
            raise DecodeError(f"{path}: its video codec is unknown; convert it to H.264 in MP4")
        if codec.width * codec.height > limits.pixels:
            raise LimitError(
                f"{path}: pictures of {codec.width} x {codec.height} pixels, more than the limit "
                f"of {limits.pixels}; scale the video down, or see --max-pixels"
            )
        codec.options = {"max_pixels": str(limits.pixels)}  # pictures may grow within a stream
        if codec.name == "h264":  # it would guess how far pictures are reordered and lose some
            codec.options["strict"] = "strict"
        yield container, stream


def _list_packets(
    path: VideoFile, container: Any, stream: Any, limit: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], bool]:
    """Return what the packets say, in the order of the file.

    Returns:
        Time stamps (P,) in units of the time base, NaN where missing; whether decoding can begin
        there (P,); the positions of those that edit lists do not cut away (F,); damage was met.
    """
    stamps, keyed, shown = array("d"), bytearray(), array("q")
    broken, can_skip, tried, codec = False, True, False, stream.codec_context
    codec.thread_count = 1
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.has_sidedata("encryption_info"):  # what decodes of it by chance is noise
                raise DecodeError(f"{path}: it is encrypted; give it decrypted")
            if stamps and packet.is_keyframe and not tried:
                # Where pictures are refreshed bit by bit, a keyframe alone does not give one.
                tried = True
                can_skip = bool(_decode_packet(codec, packet) + _decode_packet(codec, None))
            if stamps and packet.has_sidedata("new_extradata"):
                tried, can_skip = True, False  # who begins later would miss the new settings
            if not packet.is_discard:
                shown.append(len(stamps))
            stamps.append(np.nan if packet.pts is None else packet.pts)
            keyed.append(packet.is_keyframe and can_skip)
            broken |= packet.is_corrupt
            if len(stamps) > limit:
                raise LimitError(
                    f"{path}: more than {limit} pictures; split it, or see --max-pictures"
                )
    except _DAMAGE:
        broken = True  # what came before the damage is still worth a verdict
    return np.array(stamps), np.array(keyed, dtype=np.bool_), np.array(shown, np.int64), broken


def _present(
    stamps: NDArray[np.float64],
    keyed: NDArray[np.bool_],
    shown: NDArray[np.int64],
    unit: float,
    rate: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], bool]:
    """Put pictures into presentation order; return the last four fields of `Listing`."""
    keys = np.union1d(0, np.flatnonzero(keyed))
    order = shown[np.argsort(stamps[shown], kind="stable")]
    times = (stamps[order] - stamps[order[0]]) * unit
    # Missing stamps are NaN, which no comparison holds for. Keyframes that step back in time
    # belong to another recording that was joined on.
    steps_good = bool((np.diff(times) <= MAX_GAP).all() and (np.diff(stamps[keys]) >= 0).all())
    if not (steps_good and times[-1] > 0):
        return np.arange(len(shown)) / rate, shown, np.zeros_like(shown), False
    # The last keyframe that comes before a picture both in the file and in time: pictures shown
    # before a keyframe but stored after it refer to the group before.
    in_file = np.searchsorted(keys, order, side="right")
    in_time = np.searchsorted(stamps[keys], stamps[order], side="right")
    return times, order, keys[np.minimum(in_file, in_time).clip(1) - 1], True


def _lacks_pictures(container: Any, stream: Any, num: int, duration: float, step: float) -> bool:
    """Tell whether the header announces clearly more than the `num` packets of the file."""
    of_stream = stream.duration and float(stream.duration * (stream.time_base or 0))
    missing = (of_stream or (container.duration or 0) / av.time_base) - duration
    if stream.frames:  # counts what edit lists cut away as well, hence the second condition
        return bool(stream.frames > num + 2 and missing > 3 * step)
    return bool(missing > 0.5 + 0.05 * duration)  # sound may last somewhat longer


def _decode(
    container: Any, stream: Any, listing: Listing, wanted: NDArray[np.int64]
) -> Iterator[Any]:
    """Decode what the wanted pictures need; yield pictures with their positions as time stamps."""
    codec, segments = stream.codec_context, deque(plan_segments(listing, wanted))
    positions = np.full(int(listing.packets.max()) + 1, -1)  # -1: decoded, but not shown
    positions[listing.packets] = np.arange(len(listing.packets))
    # Left out, pictures cannot be counted. The wanted ones and their spares never are.
    skips = listing.stamped and codec.name in DISPOSING
    whole = {packet + i for packet in listing.packets[wanted].tolist() for i in range(SPARE + 1)}
    with suppress(*_DAMAGE):
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            if number > segments[0][1]:
                yield from _decode_packet(codec, None)
                segments.popleft()
                if not segments:
                    return
                codec.flush_buffers()
            if number >= segments[0][0]:
                if listing.stamped:
                    packet.pts = int(positions[number])
                if skips:
                    codec.skip_frame = "DEFAULT" if number in whole else "NONREF"
                yield from _decode_packet(codec, packet)
    yield from _decode_packet(codec, None)


def _decode_packet(codec: Any, packet: Any) -> list[Any]:
    """Decode one packet, or drain the decoder; damage costs this packet alone."""
    try:
        return list(codec.decode(packet))
    except _DAMAGE:
        return []


def _pick(
    pictures: Iterable[Any], listing: Listing, wanted: NDArray[np.int64]
) -> Iterator[tuple[int, Any]]:
    """Yield (position, picture) for each wanted picture, or the next one that is whole."""
    pending, position = deque(wanted.tolist()), -1
    for picture in pictures:
        known = listing.stamped and picture.pts is not None
        position = min(picture.pts if known else position + 1, len(listing.times) - 1)
        if position < pending[0] or picture.is_corrupt:
            continue
        while pending and pending[0] <= position:
            pending.popleft()
        yield position, picture
        if not pending:
            return
