"""Read upright pictures out of video files, by time stamp, in one pass.

A file is opened twice: once to list its packets without decoding them (`tellframe.listing`), once
to decode the wanted pictures. Groups of pictures that hold no wanted picture are never decoded.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.errors import DecodeError, LimitError
from tellframe.limits import FILE_LIMITS, FileLimits
from tellframe.listing import (
    DAMAGE,
    Listing,
    Source,
    check_size,
    decode_packet,
    list_frames,
    open_stream,
    square_pixels,
)
from tellframe.runtime import usable_cores
from tellframe.types import Frame
from tellframe.videofile import open_video_file

__all__ = [
    "SAMPLERS",
    "VIDEO_SUFFIXES",
    "Listing",
    "SamplingPolicy",
    "Source",
    "list_frames",
    "plan_segments",
    "read_frames",
    "sample_start",
    "sample_uniform",
]

VIDEO_SUFFIXES: Final = frozenset(
    ".264 .265 .3g2 .3gp .asf .avi .cmfv .divx .f4v .flv .h264 .h265 .hevc .ivf .m1v .m2t "  # noqa: SIM905
    ".m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .obu .ogv .qt .ts .vob "
    ".webm .wmv .y4m".split()
)
"""File names that are taken for videos when a folder is searched."""

MIN_SKIP: Final = 16
"""Fewer undecoded packets than this between two wanted pictures are decoded nevertheless: to
drain and refill the decoder would cost more than they do."""
IN_FLIGHT: Final = 4
"""Pictures of H.264 and HEVC that are decoded at a time, for each core. They wait for those that
they refer to, and all of them while Python handles a finished one. Other codecs gain nothing, and
AV1's decoder, which divides its work otherwise, loses."""
IN_FLIGHT_BYTES: Final = 128 * 2**20
"""What they may take together, unless there is one a core: 8K pictures have 50 MB each."""
MAX_THREADS: Final = 16
"""Of a decoder; FFmpeg advises against more."""
SPARE: Final = 2
"""Packets decoded after a wanted one, for a picture in its place where it yields none: where it is
damaged, or hidden, as VP8's are that only serve as a reference."""
DISPOSING: Final = frozenset({"h264", "mpeg2video", "mpeg4"})
"""Codecs whose pictures that no other one refers to are decoded only where they are wanted. In HEVC
higher temporal layers may refer to what is marked so, and dav1d (AV1) cannot be told in between."""

SamplingPolicy = Callable[[NDArray[np.float64], int], NDArray[np.int64]]


def sample_uniform(times: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Pick `count` pictures spread evenly over time: those nearest to the middles of equal parts.

    Args:
        times: shape (F,), seconds, ascending.
        count: how many are wanted; all are returned where there are no more.

    Returns:
        Shape (<= count,), ascending positions in `times` without repeats. Where one picture is the
        nearest to several middles (variable frame rate), those left over take the nearest unused.
    """
    if len(times) <= count:
        return np.arange(len(times), dtype=np.int64)
    step = float(np.median(np.diff(times)))
    span = float(times[-1] - times[0]) + max(step, 0.0)
    targets = times[0] + (np.arange(count) + 0.5) * span / count
    after = np.searchsorted(times, targets).clip(1, len(times) - 1)
    before = after - 1
    nearest = np.where(targets - times[before] <= times[after] - targets, before, after)
    chosen, owners = np.unique(nearest, return_index=True)
    if len(chosen) == count:
        return chosen.astype(np.int64)
    left_over = np.delete(np.arange(count), owners)
    return _fill_up(times, chosen, nearest[left_over], targets[left_over])


def _fill_up(
    times: NDArray[np.float64],
    chosen: NDArray[np.int64],
    nearest: NDArray[np.int64],
    targets: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Add to the chosen positions, for every target, the nearest that is unused.

    Args:
        times: shape (F,), more of them than there are positions and targets.
        chosen: shape (C,), positions in `times`.
        nearest: shape (N,), the nearest position to each target, which is chosen.
        targets: shape (N,), seconds.
    """
    # Of every used position, where to go on looking for a free one; -1 and F are the ends.
    earlier = {position: position - 1 for position in chosen.tolist()}
    later = {position: position + 1 for position in chosen.tolist()}
    for start, target in zip(nearest.tolist(), targets.tolist(), strict=True):
        low, high = _first_free(earlier, start), _first_free(later, start)
        nearer = high >= len(times) or target - times[low] <= times[high] - target
        taken = low if low >= 0 and nearer else high
        earlier[taken], later[taken] = taken - 1, taken + 1
    return np.array(sorted(earlier), dtype=np.int64)


def _first_free(links: dict[int, int], position: int) -> int:
    """Follow links to a position that has none, and let all on the way point there.

    Otherwise a file with a cluster of pictures would be walked through once for each.
    """
    way = []
    while position in links:
        way.append(position)
        position = links[position]
    links.update(dict.fromkeys(way, position))
    return position


def sample_start(times: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Pick the first `count` pictures; arguments and result as for `sample_uniform`."""
    return np.arange(min(count, len(times)), dtype=np.int64)


SAMPLERS: Final[dict[str, SamplingPolicy]] = {"uniform": sample_uniform, "start": sample_start}
"""Sampling policies by the name that a recipe gives."""


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
        listing: what `list_frames` found; its tally says afterwards what this came to.
        wanted: positions in `listing.times`, ascending.
        threads: decoder threads; 0 for as many as keep all cores busy.
        limits: what the video may ask for; beyond `limits.decoded` pictures the rest is left.

    Yields:
        Upright frames of square pixels in order of time, at most one for each wanted position.

    Raises:
        DecodeError: not one picture could be decoded without damage.
        LimitError: a picture takes more memory than there is, or is larger than the limit.
    """
    positions, tally = np.fromiter(wanted, dtype=np.int64), listing.tally
    tally.asked, tally.decoded, tally.errors = len(positions), 0, 0
    if not len(positions):
        return
    with open_video_file(path) as file, open_stream(file, limits) as (container, stream):
        stream.thread_type = "AUTO"
        stream.thread_count = threads or _choose_threads(stream.codec_context)
        pictures = _decode(container, stream, listing, positions)
        pictures = itertools.islice(pictures, limits.decoded)
        for position, picture in _pick(pictures, listing, positions):
            if not tally.decoded:  # by now the codec says what the container may have left open
                check_size(file, stream, limits)
                tally.stretch = square_pixels(stream)
            turns = round(picture.rotation / 90) % 4
            try:
                stored = _to_rgb(picture, *tally.stretch)
            except DAMAGE:
                tally.errors += 1
                continue
            except MemoryError as error:
                raise LimitError(f"{path}: too little memory for one of its pictures") from error
            tally.decoded += 1
            image = np.ascontiguousarray(np.rot90(stored, turns))
            yield Frame(image, float(listing.times[position]), position, 90 * turns)
    if not tally.decoded:
        raise DecodeError(
            f"{path}: no picture could be decoded; is the file damaged or encrypted, or are its "
            f"pictures larger than {limits.pixels} pixels?"
        )


def _to_rgb(picture: Any, across: float, down: float) -> NDArray[np.uint8]:
    """Return a stored picture, (H, W, 3), as wide and as high as it is shown."""
    if across == down == 1:
        return np.asarray(picture.to_ndarray(format="rgb24"))
    size = {"width": round(picture.width * across), "height": round(picture.height * down)}
    return np.asarray(picture.to_ndarray(format="rgb24", interpolation="BICUBIC", **size))


def _choose_threads(codec: Any) -> int:
    """Return how many decoder threads, with a picture each, keep all cores busy."""
    cores = min(usable_cores(), MAX_THREADS)
    if codec.name not in ("h264", "hevc"):
        return cores
    size: int = max(codec.width * codec.height, 1) * 3 // 2  # 4:2:0
    return max(cores, min(IN_FLIGHT * cores, MAX_THREADS, IN_FLIGHT_BYTES // size))


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


def _decode(
    container: Any, stream: Any, listing: Listing, wanted: NDArray[np.int64]
) -> Iterator[Any]:
    """Decode what the wanted pictures need; yield pictures with their positions as time stamps."""
    codec, segments = stream.codec_context, deque(plan_segments(listing, wanted))
    positions = np.full(int(listing.packets.max()) + 1, -1)  # -1: decoded, but not shown
    positions[listing.packets] = np.arange(len(listing.packets))
    # Left out, pictures cannot be counted. The wanted ones never are, and no spares at an end: in
    # between, the next picture that others refer to takes the place of one that yields none.
    skips = listing.stamped and codec.name in DISPOSING
    whole = set(listing.packets[wanted].tolist())
    whole.update(last - i for _, last in segments for i in range(SPARE))
    try:
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            if number > segments[0][1]:
                yield from decode_packet(codec, None, listing.tally)
                segments.popleft()
                if not segments:
                    return
                codec.flush_buffers()
            if number >= segments[0][0]:
                if listing.stamped:
                    packet.pts = int(positions[number])
                if skips:
                    codec.skip_frame = "DEFAULT" if number in whole else "NONREF"
                yield from decode_packet(codec, packet, listing.tally)
    except DAMAGE:
        listing.tally.errors += 1  # of the container: what lies behind cannot be reached
    yield from decode_packet(codec, None, listing.tally)


def _pick(
    pictures: Iterable[Any], listing: Listing, wanted: NDArray[np.int64]
) -> Iterator[tuple[int, Any]]:
    """Yield (position, picture) for each wanted picture, or the next one that is whole."""
    pending, position = deque(wanted.tolist()), -1
    for picture in pictures:
        known = listing.stamped and picture.pts is not None
        position = min(picture.pts if known else position + 1, len(listing.times) - 1)
        if position < pending[0]:
            continue
        if picture.is_corrupt:
            listing.tally.errors += 1
            continue
        while pending and pending[0] <= position:
            pending.popleft()
        yield position, picture
        if not pending:
            return
