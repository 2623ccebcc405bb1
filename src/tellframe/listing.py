"""List the pictures of a video by its packets: true time stamps, whatever the header claims.

At most one keyframe is decoded for it; what is wanted of the pictures is decoded by
`tellframe.video`, which opens the file once more.
"""

from __future__ import annotations

import dataclasses
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import av.error
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from tellframe.errors import DecodeError, LimitError, MediaNotFoundError, NoVideoError
from tellframe.limits import FILE_LIMITS, FileLimits
from tellframe.types import Media
from tellframe.videofile import Reader, VideoFile, open_video_file

DEMUXERS: Final = (
    "asf,av1,avi,flv,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,mpegvideo,mxf,obu,ogg,yuv4mpegpipe"
)
"""Containers that FFmpeg may open. Playlists (hls, dash, concat, sdp) and pictures are left out:
the former fetch other files, the latter are no videos."""
MAX_GAP: Final = 3600.0
"""Seconds between two pictures beyond which time stamps are not believed."""
BUFFER: Final = 1 << 16
"""Bytes that are read at once."""
H264_TYPE: Final = 0x1F
"""The bits of a NAL unit's first byte that hold its type (ISO/IEC 14496-10, 7.3.1)."""
H264_IDR: Final = 5
"""Type of the NAL units of an IDR picture."""
LENGTH_AT: Final = 4
"""Place of the size of lengths in the settings of H.264 in MP4 and Matroska, less one, in two bits
(ISO/IEC 14496-15, 5.3.3.1)."""

Source = str | Path | VideoFile
"""A video: the path of a local file, or the open file."""
NEARLY_SQUARE: Final = 0.02
"""Pixels whose sides differ by no larger share are taken for square: nobody sees it, and no picture
needs to be scaled."""
MAX_ASPECT: Final = 4.0
"""Pixels that are longer than this many times their width are taken for square: a mistake, or meant
to make pictures huge. Those of DVDs and broadcasts lie between 0.9 and 1.5."""
DAMAGE: Final = (av.error.FFmpegError, OSError, ValueError)
"""What PyAV raises for damaged streams: errors of every family."""


@dataclass(slots=True)
class Tally:
    """What reading a listed video came to; counts on while it is read."""

    asked: int = 0
    """Pictures that were wanted."""
    decoded: int = 0
    """Of those, how many were decoded, or had one decoded in their place."""
    errors: int = 0
    """Packets that the decoder refused, and pictures in wanted places that it gave up or marked as
    damaged."""
    stretch: tuple[float, float] = (1.0, 1.0)
    """What makes the stored pixels square, as far as it is known; see `square_pixels`."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The pictures of a video stream in presentation order, as its packets announce them."""

    facts: Media
    """What header and packets say of the file; width and height as they are stored."""
    times: NDArray[np.float64]
    """Shape (F,), seconds since the first picture, ascending."""
    packets: NDArray[np.int64]
    """Shape (F,), position in the file, from 0, of the packet that holds the picture."""
    starts: NDArray[np.int64]
    """Shape (F,), the packet at which decoding has to begin to get the picture."""
    stamped: bool
    """Whether pictures are known by time stamps; otherwise all are decoded and counted."""
    tally: Tally = field(default_factory=Tally)
    """What the last reading came to; `tellframe.video.read_frames` begins it anew."""

    @property
    def media(self) -> Media:
        """Facts about the file, with what the last reading came to so far."""
        tally = self.tally
        across, down = tally.stretch
        return dataclasses.replace(
            self.facts,
            width=round(self.facts.width * across),
            height=round(self.facts.height * down),
            num_asked=tally.asked,
            num_decoded=tally.decoded,
            decode_errors=tally.errors,
            partial=self.facts.partial or tally.errors > 0,
        )


def list_frames(path: Source, limits: FileLimits = FILE_LIMITS) -> Listing:
    """List the pictures of a video without decoding them, but for one keyframe in doubt.

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
    with open_stream(path, limits) as (container, stream):
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
        codec, tally = stream.codec_context, Tally(stretch=square_pixels(stream))
        media = Media(
            path=str(path),
            bytes=size,
            sha256=sha256,
            container=container.format.name,
            codec=codec.codec.canonical_name,
            width=codec.width,
            height=codec.height,
            rotation=0,
            duration=duration,
            num_frames=len(times),
            frame_rate=len(times) / duration if len(times) > 1 and duration > 0 else 0.0,
            partial=broken or _lacks_pictures(container, stream, len(stamps), duration, step),
            num_declared=max(stream.frames, 0) or None,
            num_packets=len(stamps),
        )
    # AVI stores no times of presentation; FFmpeg's guess is wrong where there are B-frames.
    return Listing(media, times, packets, starts, stamped and media.container != "avi", tally)


def _read_facts(file: VideoFile) -> tuple[int, str]:
    """Return size and SHA-256."""
    try:
        return file.size, file.hash()
    except OSError as error:
        reason = error.strerror or error
        raise MediaNotFoundError(f"{file}: cannot be read ({reason}); check the disk") from error


@contextmanager
def open_stream(path: VideoFile, limits: FileLimits = FILE_LIMITS) -> Iterator[tuple[Any, Any]]:
    """Open the best video stream of a file; yield (container, stream).

    Raises:
        DecodeError: the file is no video container that tellframe opens, or its codec is unknown.
        NoVideoError: it holds no video stream.
        LimitError: its pictures are larger than the limit.
    """
    try:
        container = av.open(
            Reader(path),
            # Or FFmpeg decodes pictures to guess what packets will say: 23 ms in 1080p.
            options={"max_pixels": str(limits.pixels), "skip_frame": "all"},
            # No protocol at all: the bytes come from the reader, and nothing else is opened.
            container_options={"protocol_whitelist": "none", "format_whitelist": DEMUXERS},
            metadata_errors="replace",
            buffer_size=BUFFER,
        )
    except Exception as error:
        if not path.size:
            raise DecodeError(f"{path}: the file is empty; is the download complete?") from error
        reason = getattr(error, "strerror", None) or error
        raise DecodeError(
            f"{path}: not a video that can be opened ({reason}); convert it to MP4, MOV, MKV, "
            "WebM or AVI"
        ) from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise NoVideoError(f"{path}: holds no video stream (sound alone cannot be analysed)")
        codec: Any = stream.codec_context
        if codec is None:
            raise DecodeError(f"{path}: its video codec is unknown; convert it to H.264 in MP4")
        check_size(path, stream, limits)
        codec.skip_frame = "DEFAULT"
        codec.options = {"max_pixels": str(limits.pixels)}  # pictures may grow within a stream
        if codec.name == "h264":  # it would guess how far pictures are reordered and lose some
            codec.options["strict"] = "strict"
        yield container, stream


def square_pixels(stream: Any) -> tuple[float, float]:
    """Return the factors of width and height that make stored pixels square, neither below 1.

    What the container says; where it says nothing, what the codec does, once a picture is decoded.
    """
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    if abs(aspect - 1) <= NEARLY_SQUARE or not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        return 1.0, 1.0
    return max(aspect, 1.0), max(1 / aspect, 1.0)


def check_size(path: VideoFile, stream: Any, limits: FileLimits) -> None:
    """Refuse pictures that are larger than the limit once their pixels are square.

    Raises:
        LimitError: they are.
    """
    codec, (across, down) = stream.codec_context, square_pixels(stream)
    width, height = round(codec.width * across), round(codec.height * down)
    if width * height > limits.pixels:
        raise LimitError(
            f"{path}: pictures of {width} x {height} pixels, more than the limit of "
            f"{limits.pixels}; scale the video down, or see --max-pixels"
        )


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
                tried, can_skip = True, _stands_alone(codec, packet)
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
    except DAMAGE:
        broken = True  # what came before the damage is still worth a verdict
    return np.array(stamps), np.array(keyed, dtype=np.bool_), np.array(shown, np.int64), broken


def _stands_alone(codec: Any, packet: Any) -> bool:
    """Tell whether decoding can begin at a keyframe.

    Where pictures are refreshed bit by bit, it cannot. An IDR picture of H.264 needs nothing from
    before it (ISO/IEC 14496-10, 7.4.1.2.4), others are tried.
    """
    if codec.name == "h264" and H264_IDR in _unit_types(bytes(packet), codec.extradata or b""):
        return True
    return bool(decode_packet(codec, packet, Tally()) + decode_packet(codec, None, Tally()))


def _unit_types(data: bytes, settings: bytes) -> Iterator[int]:
    """Yield the types of the NAL units of an H.264 packet.

    Args:
        data: units behind their lengths, where the settings begin with version 1 (ISO/IEC 14496-15,
            5.3.3), or else behind start codes.
        settings: of the stream.
    """
    if settings[:1] != b"\x01" or len(settings) < LENGTH_AT + 1:
        firsts = re.findall(rb"\x00\x00\x01(.)", data, re.DOTALL)
        yield from (first[0] & H264_TYPE for first in firsts)
        return
    length, at = settings[LENGTH_AT] % 4 + 1, 0
    while at + length < len(data):
        yield data[at + length] & H264_TYPE
        at += length + int.from_bytes(data[at : at + length])


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


def decode_packet(codec: Any, packet: Any, tally: Tally) -> list[Any]:
    """Decode one packet, or drain the decoder where it is None; damage costs this packet alone.

    Args:
        codec: a codec context of PyAV.
        packet: one of its stream.
        tally: counts it where the decoder refuses it.
    """
    try:
        return list(codec.decode(packet))
    except DAMAGE:
        tally.errors += 1
        return []
