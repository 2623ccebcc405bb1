"""Reading videos: the right pictures, upright, by time stamp, whatever the container is like."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tellframe import video
from tellframe.errors import DecodeError, LimitError, MediaNotFoundError, NoVideoError
from tellframe.limits import FILE_LIMITS
from tellframe.listing import _unit_types, open_stream
from tellframe.video import (
    SAMPLERS,
    list_frames,
    plan_segments,
    read_frames,
    sample_start,
    sample_uniform,
)
from tellframe.videofile import open_video_file

COUNT = 40
HEVC = "keyint=8:min-keyint=8:bframes=3:log-level=none:pools=none:frame-threads=1"

PYRAMID = "bframes=7:b-adapt=0:b-pyramid=strict:scenecut=0"

# name: (file name, how it is written)
STREAMS = {
    "h264": ("a.mp4", {}),
    "h264 with b-frames": ("a.mp4", {"b_frames": 3}),
    "h264 with a pyramid": (
        "a.mkv",
        {"options": {"x264-params": f"{PYRAMID}:direct=temporal"}, "gop": 20},
    ),
    "h264 with open groups": (
        "a.mkv",
        {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3"}},
    ),
    "h264 with gradual refresh": (
        "a.mp4",
        {"options": {"x264-params": "intra-refresh=1:keyint=8"}},
    ),
    "h264 interlaced": ("a.mp4", {"options": {"x264-params": "interlaced=1"}, "b_frames": 2}),
    "h264 in avi, no time stamps of presentation": ("a.avi", {"b_frames": 3}),
    "h264 bare, no time stamps at all": ("a.h264", {"b_frames": 3}),
    "h264 in a transport stream": ("a.ts", {"b_frames": 3}),
    "h264 in flash": ("a.flv", {"b_frames": 3}),
    "h264 in fragments": (
        "a.mp4",
        {"b_frames": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "hevc with open groups": (
        "a.mp4",
        {"codec": "libx265", "options": {"x265-params": f"open-gop=1:{HEVC}"}},
    ),
    "hevc in a transport stream": (
        "a.ts",
        {"codec": "libx265", "options": {"x265-params": f"open-gop=0:{HEVC}"}},
    ),
    "mpeg-1 in a program stream": ("a.mpg", {"codec": "mpeg1video"}),
    "mpeg-2 with open groups": (
        "a.ts",
        {"codec": "mpeg2video", "b_frames": 2, "options": {"sc_threshold": "1000000000"}},
    ),
    "mpeg-4 with b-frames": ("a.avi", {"codec": "mpeg4", "b_frames": 2}),
    "mpeg-4 in mp4": (
        "a.mp4",
        {"codec": "mpeg4", "b_frames": 2, "options": {"sc_threshold": "1000000000", "qpel": "1"}},
    ),
    "vp9 with hidden pictures": (
        "a.webm",
        {
            "codec": "libvpx-vp9",
            "options": {"lag-in-frames": "12", "auto-alt-ref": "1", "cpu-used": "8"},
        },
    ),
    "av1 with hidden pictures": ("a.mp4", {"codec": "libsvtav1", "options": {"preset": "10"}}),
    "mjpeg": ("a.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    "ffv1, odd size": ("a.mkv", {"codec": "ffv1", "size": (95, 63)}),
    "10 bits": ("a.mp4", {"pixel_format": "yuv420p10le"}),
    "yuv444, odd size": ("a.mp4", {"pixel_format": "yuv444p", "size": (97, 65)}),
    "grey": ("a.mkv", {"codec": "ffv1", "pixel_format": "gray"}),
}


@pytest.fixture(scope="module")
def streams(make_video, number_picture, tmp_path_factory) -> Callable[[str], Path]:
    """Write a video of `STREAMS` by its name, once."""
    written: dict[str, Path] = {}
    texture = np.random.default_rng(0).integers(0, 70, (80, 120, 3))

    def draw(number: int, width: int, height: int):
        # What moves is predicted from other pictures: a wrong one of those shows.
        moved = np.roll(texture, (2 * number, 3 * number), axis=(0, 1))[:height, :width]
        return (number_picture(number, width, height) * 0.7 + moved).astype(np.uint8)

    def write(name: str) -> Path:
        if name not in written:
            file, how = STREAMS[name]
            path = tmp_path_factory.mktemp("video") / file
            written[name] = make_video(path, COUNT, draw=draw, **how)
        return written[name]

    return write


@pytest.fixture(scope="module")
def read_numbers(read_number):
    """Read positions of a video (all where none are given); return the numbers on its pictures."""

    def read(path: str | Path, wanted=None) -> list[int]:
        listing = list_frames(path)
        wanted = range(len(listing.times)) if wanted is None else wanted
        return [read_number(frame.image) for frame in read_frames(path, listing, wanted)]

    return read


def decode_plainly(path: Path) -> list[bytes]:
    """All pictures of a stream in the decoder's order, without tellframe."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24").tobytes() for f in container.decode(video=0)]


def patch(path: Path, tag: bytes, offset: int, new: bytes) -> None:
    """Overwrite the bytes that lie `offset` after the start of a tag of four letters."""
    data = bytearray(path.read_bytes())
    place = data.index(tag) + offset
    data[place : place + len(new)] = new
    path.write_bytes(data)


# --- which picture, when ----------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_every_picture_is_found_in_its_place(name, streams, read_number):
    path = streams(name)
    listing = list_frames(path)
    assert listing.media.num_frames == len(listing.times) == COUNT
    np.testing.assert_allclose(listing.times, np.arange(COUNT) / 25, atol=1e-3)
    assert listing.media.duration == pytest.approx(COUNT / 25, abs=2e-3)
    assert listing.media.frame_rate == pytest.approx(25, rel=1e-2)
    assert not listing.media.partial
    width, height = STREAMS[name][1].get("size", (96, 64))
    assert (listing.media.width, listing.media.height) == (width, height)
    assert listing.media.sha256 == list_frames(path).media.sha256
    assert listing.media.bytes == path.stat().st_size
    frames = list(read_frames(path, listing, range(COUNT)))
    assert [read_number(f.image) for f in frames] == list(range(COUNT))
    assert [f.index for f in frames] == list(range(COUNT))
    assert [f.time for f in frames] == listing.times.tolist()
    for frame in frames:
        assert frame.image.shape == (height, width, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert frame.rotation == 0


@pytest.mark.parametrize("name", STREAMS)
def test_skipping_changes_no_bit(name, streams, monkeypatch):
    path = streams(name)
    listing, plain = list_frames(path), decode_plainly(path)
    monkeypatch.setattr(video, "MIN_SKIP", 0)  # the harshest case: skip whatever can be skipped

    @settings(max_examples=12)
    @given(
        st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=6).map(sorted),
        st.sampled_from([1, 2, 5]),
    )
    def check(wanted, threads):
        frames = list(read_frames(path, listing, wanted, threads=threads))
        assert [f.index for f in frames] == wanted
        assert [f.image.tobytes() == plain[f.index] for f in frames] == [True] * len(wanted)
        media = listing.media
        assert (media.num_asked, media.num_decoded) == (len(wanted), len(wanted))
        assert media.decode_errors == 0, "what was skipped on purpose is no damage"
        assert not media.partial

    check()


@pytest.mark.parametrize(
    ("name", "skips"),
    [
        ("h264", True),
        ("h264 with open groups", True),
        ("hevc with open groups", True),
        ("mpeg-2 with open groups", True),
        ("h264 with gradual refresh", False),
        ("h264 bare, no time stamps at all", False),
    ],
)
def test_groups_without_a_wanted_picture_are_skipped(name, skips, streams, monkeypatch):
    monkeypatch.setattr(video, "MIN_SKIP", 0)
    listing = list_frames(streams(name))
    segments = plan_segments(listing, np.array([2, 37]))
    assert (len(segments) == 2) is skips
    assert segments[0][0] == 0
    assert segments[-1][1] <= COUNT - 1


@pytest.mark.parametrize(
    ("name", "decoded"),
    [
        ("h264", 0),
        ("h264 in fragments", 0),
        ("h264 in flash", 0),
        ("h264 in a transport stream", 0),
        ("h264 with open groups", 1),
        ("h264 with gradual refresh", 1),
        ("hevc with open groups", 1),
    ],
)
def test_a_keyframe_is_tried_only_where_it_may_need_others(name, decoded, streams, monkeypatch):
    tried = []
    monkeypatch.setattr("tellframe.listing.decode_packet", lambda _, p, __: tried.append(p) or [])
    list_frames(streams(name))
    assert sum(packet is not None for packet in tried) == decoded


@given(st.binary(max_size=200), st.binary(max_size=8))
def test_any_bytes_are_read_as_units(data, extradata):
    types = list(_unit_types(data, extradata))
    assert all(0 <= kind < 32 for kind in types)
    assert len(types) <= len(data)


@pytest.mark.parametrize(
    ("name", "skips"),
    [
        ("h264 with a pyramid", True),
        ("h264 interlaced", True),
        ("h264 in a transport stream", True),
        ("h264 in avi, no time stamps of presentation", False),
        ("mpeg-2 with open groups", True),
        ("mpeg-4 in mp4", True),
        ("hevc with open groups", False),
        ("av1 with hidden pictures", False),
    ],
)
def test_pictures_that_no_other_refers_to_are_not_decoded(name, skips, streams, monkeypatch):
    monkeypatch.setattr(video, "MIN_SKIP", COUNT)
    path = streams(name)
    listing = list_frames(path)
    for wanted in (np.array([0, COUNT - 1]), np.arange(COUNT)):
        ((_, last),) = plan_segments(listing, wanted)
        with open_video_file(path) as file, open_stream(file) as (container, stream):
            pictures = list(video._decode(container, stream, listing, wanted))
        assert (len(pictures) <= last) is (skips and len(wanted) < COUNT)


def test_pictures_before_an_open_keyframe_need_the_group_before(streams, monkeypatch):
    monkeypatch.setattr(video, "MIN_SKIP", 0)
    path = streams("h264 with open groups")
    listing = list_frames(path)
    leading = np.flatnonzero(listing.starts + 8 < listing.packets)
    assert len(leading), "the stream has no open group"
    keyframe = int(np.flatnonzero(np.diff(listing.starts) > 0)[1]) + 1
    # The keyframe comes first in the file, what is shown before it comes after it.
    frames = list(read_frames(path, listing, [keyframe - 1, keyframe]))
    plain = decode_plainly(path)
    assert [f.image.tobytes() for f in frames] == plain[keyframe - 1 : keyframe + 1]


def test_close_segments_are_joined(streams):
    listing = list_frames(streams("h264"))
    assert plan_segments(listing, np.array([2, 20])) == [(0, 22)]
    assert plan_segments(listing, np.array([2, 37])) == [(0, 4), (32, 39)]


def forget_reordering(path: Path) -> bytes:
    """Return a file of H.264 whose settings do not say how far its pictures are reordered."""
    with av.open(str(path)) as container:
        settings = bytes(container.streams.video[0].codec_context.extradata)
    told = settings[8 : 8 + int.from_bytes(settings[6:8])]
    bits = f"{int.from_bytes(told):b}"
    flag = 1 << len(bits) - 1 - bits.rindex("1111")  # the first of four ones, near the end
    data, untold = path.read_bytes(), int.from_bytes(told) ^ flag
    assert data.count(told) == 1
    return data.replace(told, untold.to_bytes(len(told)))


def test_a_stream_need_not_say_how_far_pictures_are_reordered(make_video, read_numbers, tmp_path):
    # The decoder would have to learn it, and lose pictures where it does so late.
    first = make_video(tmp_path / "a.flv", seconds=np.arange(40) / 25)
    second = make_video(
        tmp_path / "b.flv",
        seconds=2 + np.arange(40) / 25,
        gop=99,
        options={"x264-params": PYRAMID},
    )
    path = tmp_path / "joined.flv"
    path.write_bytes(forget_reordering(first) + forget_reordering(second)[13:])
    assert read_numbers(path) == [*range(40), *range(40)]
    for wanted in range(40, 80, 3):
        assert read_numbers(path, [wanted]) == [wanted - 40]


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param([0, 0.04, 0.05, 1.0, 1.5, 3.211, 4.0], id="variable rate"),
        pytest.param([5.0, 5.04, 6.0], id="shifted start"),
        pytest.param([0.0, 900.0, 3000.0], id="long gaps"),
        pytest.param([0.0], id="one picture"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_are_those_of_the_stamps(suffix, seconds, make_video, read_numbers, tmp_path):
    path = make_video(tmp_path / f"a{suffix}", seconds=seconds)
    listing = list_frames(path)
    np.testing.assert_allclose(listing.times, np.array(seconds) - seconds[0], atol=1e-3)
    assert read_numbers(path) == list(range(len(seconds)))


def test_negative_time_stamps(make_video, read_numbers, tmp_path):
    made = make_video(tmp_path / "a.mp4", 20, b_frames=3)
    path = tmp_path / "a.ts"
    keep = {"avoid_negative_ts": "disabled"}
    with av.open(str(made)) as source, av.open(str(path), "w", container_options=keep) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts -= packet.time_base.denominator  # one second
                packet.dts -= packet.time_base.denominator
                packet.stream = stream
                target.mux(packet)
    with av.open(str(path)) as container:
        assert next(container.demux(video=0)).pts < 0
    assert read_numbers(path) == list(range(20))
    np.testing.assert_allclose(list_frames(path).times, np.arange(20) / 25, atol=1e-3)


def test_stamps_that_cannot_be_true_are_not_believed(make_video, read_numbers, tmp_path):
    seconds = [0.0, 0.04, 0.08, 1e5, 1e5 + 0.04, 1e5 + 0.08]
    path = make_video(tmp_path / "a.mkv", seconds=seconds)
    assert list_frames(path).media.duration < 10_000
    assert read_numbers(path) == list(range(6))


def test_joined_recordings_follow_each_other(make_video, read_numbers, tmp_path):
    first = make_video(tmp_path / "a.ts", 20, b_frames=2)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + make_video(tmp_path / "b.ts", 30).read_bytes())
    assert read_numbers(path) == [*range(20), *range(30)]
    assert list_frames(path).media.duration == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("cut", [3, 8, 11, 30])
def test_what_an_edit_list_cuts_away_is_not_seen(cut, make_video, read_number, tmp_path):
    path = make_video(tmp_path / "a.mp4", COUNT, b_frames=2, rate=20)
    with av.open(str(path)) as container:
        step = container.streams.video[0].time_base.denominator // 20
    data = path.read_bytes()
    place = data.index(b"elst") + 12  # length in units of mvhd (1 ms), then the start
    start = struct.unpack(">i", data[place + 4 : place + 8])[0] + cut * step
    patch(path, b"elst", 12, struct.pack(">ii", 50 * (COUNT - cut), start))
    listing = list_frames(path)
    assert listing.media.num_frames == COUNT - cut
    assert listing.times[0] == 0
    assert not listing.media.partial
    frames = list(read_frames(path, listing, range(COUNT - cut)))
    assert [read_number(f.image) for f in frames] == list(range(cut, COUNT))
    (alone,) = read_frames(path, listing, [1])
    assert read_number(alone.image) == cut + 1


def test_a_claimed_length_is_not_believed(make_video, read_numbers, tmp_path):
    path = make_video(tmp_path / "a.mp4", 20)
    for tag, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        patch(path, tag, offset, struct.pack(">I", 2**32 - 2))
    listing = list_frames(path)
    assert listing.media.duration == pytest.approx(0.8)
    assert listing.media.num_frames == 20
    assert read_numbers(path, sample_uniform(listing.times, 5)) == [2, 6, 10, 14, 18]


# --- upright ----------------------------------------------------------------------------------

CLOCKWISE = {  # quarter turns: the display matrix (a, b, c, d) of the file format
    0: (1, 0, 0, 1),
    1: (0, 1, -1, 0),
    2: (-1, 0, 0, -1),
    3: (0, -1, 1, 0),
}


@pytest.mark.parametrize("turns", CLOCKWISE)
def test_pictures_stand_upright(turns, make_video, number_picture, read_number, tmp_path):
    def draw_lying(number: int, width: int, height: int):
        upright = (height, width) if turns % 2 else (width, height)
        return np.ascontiguousarray(np.rot90(number_picture(number, *upright), turns))

    path = make_video(tmp_path / "a.mp4", 3, size=(96, 64), draw=draw_lying)
    a, b, c, d = (65536 * v for v in CLOCKWISE[turns])
    patch(path, b"tkhd", 44, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    listing = list_frames(path)
    assert (listing.media.width, listing.media.height) == (96, 64)
    for number, frame in enumerate(read_frames(path, listing, range(3))):
        assert frame.image.shape == ((96, 64, 3) if turns % 2 else (64, 96, 3))
        assert frame.rotation == -90 * turns % 360
        assert read_number(frame.image) == number
        red, green, blue = frame.image[4, 4]
        assert red > 150
        assert max(green, blue) < 100


@pytest.mark.parametrize(
    ("aspect", "shown"),
    [
        (Fraction(64, 45), (137, 64)),
        (Fraction(8, 9), (96, 72)),
        (Fraction(100, 99), (96, 64)),  # hardly seen
        (Fraction(1, 100), (96, 64)),  # senseless
    ],
)
def test_pixels_are_square(aspect, shown, make_video, read_number, tmp_path):
    path = make_video(tmp_path / "a.mp4", 3, aspect=aspect, options={"crf": "10"})
    listing = list_frames(path)
    assert (listing.media.width, listing.media.height) == shown
    (frame,) = read_frames(path, listing, [2])
    assert frame.image.shape == (*reversed(shown), 3)
    assert read_number(np.asarray(Image.fromarray(frame.image).resize((96, 64)))) == 2


def test_the_limit_is_of_pictures_as_they_are_shown(make_video, tmp_path):
    path = make_video(tmp_path / "a.mp4", 1, aspect=Fraction(64, 45))
    limits = dataclasses.replace(FILE_LIMITS, pixels=96 * 64)
    with pytest.raises(LimitError, match="137 x 64 pixels, more than the limit of 6144"):
        list_frames(path, limits)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("file", "codec"),
    [
        ("a.ts", "libx264"),
        ("a.ts", "libx265"),
        ("a.ts", "mpeg2video"),
        ("a.mkv", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.h264", "libx264"),
    ],
)
def test_pixels_are_square_where_the_codec_alone_says_what_they_are(
    file, codec, threads, make_video, read_number, tmp_path
):
    options = {"x265-params": HEVC} if codec == "libx265" else {}
    path = make_video(
        tmp_path / file, codec=codec, size=(192, 128), aspect=Fraction(32, 27), options=options
    )
    listing = list_frames(path)
    for wanted in (0, 17):
        (frame,) = read_frames(path, listing, [wanted], threads=threads)
        assert (listing.media.width, listing.media.height) == (228, 128)
        assert frame.image.shape == (128, 228, 3)
        assert read_number(np.asarray(Image.fromarray(frame.image).resize((192, 128)))) == wanted
    limits = dataclasses.replace(FILE_LIMITS, pixels=29000)
    with pytest.raises(LimitError, match="228 x 128 pixels, more than the limit of 29000"):
        list(read_frames(path, listing, [0], threads=threads, limits=limits))


@pytest.mark.parametrize("matrix", [(0,) * 9, (2**31 - 1,) * 9, (46341, 46341, 0, -46341, 46341)])
def test_a_senseless_display_matrix_does_no_harm(matrix, make_video, read_numbers, tmp_path):
    path = make_video(tmp_path / "a.mp4", 3)
    patch(path, b"tkhd", 44, struct.pack(f">{len(matrix)}i", *matrix))
    listing = list_frames(path)
    assert len(list(read_frames(path, listing, range(3)))) == 3


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "container_options"),
    [
        ("a.mp4", {"movflags": "faststart"}),
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", {}),
        ("a.avi", {}),
    ],
    ids=["mp4", "fragmented mp4", "mkv", "avi"],
)
@pytest.mark.parametrize("share", [0.6, 0.8])
def test_a_cut_file_gives_its_first_pictures(
    file, container_options, share, make_video, read_number, tmp_path
):
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)

    def draw_noise(number: int, width: int, height: int):
        return np.roll(noise, number, axis=1)  # so that the pictures fill the file, not its index

    path = make_video(tmp_path / file, 100, draw=draw_noise, container_options=container_options)
    plain = decode_plainly(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    listing = list_frames(path)
    assert listing.media.partial
    assert 20 < listing.media.num_frames < 100
    frames = list(read_frames(path, listing, range(listing.media.num_frames)))
    assert len(frames) >= listing.media.num_frames - 2
    assert all(f.image.tobytes() == plain[f.index] for f in frames)


def blank_packets(path: Path, which: range) -> Path:
    """Overwrite some packets of the video stream with zeros."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    for number in which:
        assert data.count(packets[number]) == 1
        data = data.replace(packets[number], bytes(len(packets[number])))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("damaged", "got"),
    [
        (range(20, 21), [1, 21, 39]),
        (range(19, 22), [1, 22, 39]),
        (range(19, 23), [1, 39]),  # no replacement near by
        (range(21, 40), [1, 20]),
    ],
)
def test_a_damaged_picture_is_replaced_by_the_next_whole_one(
    damaged, got, make_video, read_number, tmp_path
):
    path = blank_packets(make_video(tmp_path / "a.mkv", COUNT, gop=1), damaged)
    listing = list_frames(path)
    assert listing.media.num_frames == COUNT
    assert not listing.media.partial, "nothing was decoded yet"
    frames = list(read_frames(path, listing, [1, 20, 39], threads=1))
    assert [read_number(f.image) for f in frames] == got
    assert [f.index for f in frames] == got
    assert [f.time for f in frames] == listing.times[got].tolist()
    media = listing.media
    # Blanked pictures are no keyframes any more, so that decoding begins before all of them.
    assert (media.num_asked, media.num_decoded) == (3, len(got))
    assert media.decode_errors == len(damaged)
    assert media.partial
    # What is counted is the last reading alone, and one that meets no damage is whole.
    assert len(list(read_frames(path, listing, [1], threads=1))) == 1
    media = listing.media
    assert (media.num_asked, media.num_decoded, media.decode_errors) == (1, 1, 0)
    assert not media.partial


@pytest.mark.parametrize(
    ("codec", "width", "height", "cores", "threads"),
    [
        ("h264", 1920, 1080, 2, 8),
        ("hevc", 1920, 1080, 2, 8),
        ("h264", 1920, 1080, 64, 16),
        ("h264", 1920, 1080, 6, 16),
        ("h264", 0, 0, 2, 8),  # the header does not say
        ("h264", 7680, 4320, 1, 2),  # 100 MB
        ("h264", 7680, 4320, 4, 4),  # one a core nevertheless
        ("libdav1d", 1920, 1080, 2, 2),
        ("libdav1d", 1920, 1080, 64, 16),
    ],
)
def test_the_decoder_has_several_pictures_a_core_under_way(
    codec, width, height, cores, threads, monkeypatch
):
    monkeypatch.setattr(video, "usable_cores", lambda: cores)
    context = types.SimpleNamespace(name=codec, width=width, height=height)
    assert video._choose_threads(context) == threads


def test_a_cut_file_says_what_its_header_announces(make_video, tmp_path):
    path = make_video(tmp_path / "a.mp4", 100, container_options={"movflags": "faststart"})
    whole = list_frames(path).media
    assert (whole.num_declared, whole.num_packets, whole.num_frames) == (100, 100, 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    cut = list_frames(path).media
    assert cut.partial
    assert cut.num_declared == 100
    assert 0 < cut.num_packets == cut.num_frames < 100
    assert list_frames(make_video(tmp_path / "a.mkv", 20)).media.num_declared is None


def test_damaged_pictures_alone_are_an_error(make_video, tmp_path):
    path = blank_packets(make_video(tmp_path / "a.mkv", COUNT, gop=1), range(COUNT))
    listing = list_frames(path)
    assert listing.media.num_frames == COUNT
    with pytest.raises(DecodeError, match=r"a\.mkv: no picture could be decoded; .*damaged"):
        list(read_frames(path, listing, [0, 5]))
    assert list(read_frames(path, listing, [])) == []


def test_a_file_that_changes_after_listing(make_video, tmp_path):
    path = make_video(tmp_path / "a.mp4", 20)
    listing = list_frames(path)
    path.write_bytes(b"")
    with pytest.raises(DecodeError, match="empty"):
        list(read_frames(path, listing, [3]))
    path.unlink()
    with pytest.raises(MediaNotFoundError, match=r"a\.mp4"):
        list(read_frames(path, listing, [3]))


# --- what is no video -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "written", "codec"),
    [
        *((suffix, ".h264", "libx264") for suffix in (".264", ".h264")),
        *((suffix, ".hevc", "libx265") for suffix in (".265", ".h265")),
        *((suffix, ".mp4", "libx264") for suffix in (".3g2", ".cmfv", ".f4v", ".qt")),
        *((suffix, ".ts", "libx264") for suffix in (".m2t", ".m2ts", ".mts")),
        *((suffix, ".m2v", "mpeg2video") for suffix in (".m2v", ".mpv")),
        *((suffix, ".vob", "mpeg2video") for suffix in (".vob", ".mpe")),
        (".m1v", ".m1v", "mpeg1video"),
        (".divx", ".avi", "mpeg4"),
    ],
)
def test_what_is_searched_for_by_suffix_is_opened(suffix, written, codec, make_video, tmp_path):
    assert suffix in video.VIDEO_SUFFIXES
    options = {"x265-params": HEVC} if codec == "libx265" else {}
    path = make_video(tmp_path / f"a{written}", count=10, codec=codec, options=options)
    assert len(list_frames(path.rename(tmp_path / f"b{suffix}")).times) == 10


def test_the_readme_names_the_suffixes_that_are_searched_for():
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    assert " ".join(sorted(video.VIDEO_SUFFIXES)) in " ".join(text.split())


def write_audio(path: Path, cover: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            still = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for start in range(0, 8192, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.rate, frame.pts = 8000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if cover:
            container.mux(picture.encode(still))
            container.mux(picture.encode())
    return path


def write_header_alone(path: Path, make_video) -> Path:
    make_video(path, container_options={"movflags": "frag_keyframe+empty_moov"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    return path


def write_without_index(path: Path, make_video) -> Path:
    make_video(path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    return path


def write_picture(path: Path, codec: str, pixel_format: str, make_video) -> Path:
    made = make_video(
        path.with_suffix(f".{codec}"), 3, codec=codec, pixel_format=pixel_format, gop=1
    )
    return shutil.move(made, path)


def write_playlist(path: Path, text: str, make_video) -> Path:
    make_video(path.parent / "good.ts")
    path.write_text(text)
    with av.open(str(path.parent / "good.ts")) as container:
        assert next(container.decode(video=0)), "what the playlist points to is a good video"
    return path


def write_huge_y4m(path: Path) -> Path:
    path.write_bytes(b"YUV4MPEG2 W16000 H16000 F25:1 C420jpeg\nFRAME\n" + bytes(5000))
    return path


NO_VIDEOS = {
    "missing": (lambda p, m: p, MediaNotFoundError, "No such file .*check the path"),
    "folder": (lambda p, m: p.mkdir() or p, MediaNotFoundError, "not a regular file; give a"),
    "pipe": (lambda p, m: os.mkfifo(p) or p, MediaNotFoundError, "not a regular file; give a"),
    "empty": (
        lambda p, m: p.touch() or p,
        DecodeError,
        r"the file is empty; is the download complete\?$",
    ),
    "text": (lambda p, m: p.write_text("hello\n" * 99) and p, DecodeError, "opened .*; convert"),
    "zeros": (lambda p, m: p.write_bytes(bytes(99999)) and p, DecodeError, "opened .*; convert"),
    "sound alone": (lambda p, m: write_audio(p), NoVideoError, "no video stream"),
    "sound with cover": (lambda p, m: write_audio(p, True), NoVideoError, "no video stream"),
    "no picture": (write_header_alone, NoVideoError, "no picture; is the file complete"),
    "index cut off": (write_without_index, DecodeError, "opened .*; convert"),
    "gif": (lambda p, m: write_picture(p, "gif", "rgb8", m), DecodeError, "opened .*; convert"),
    "png": (lambda p, m: write_picture(p, "apng", "rgb24", m), DecodeError, "opened .*; convert"),
    "hls": (
        lambda p, m: write_playlist(
            p, "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.ts\n#EXT-X-ENDLIST\n", m
        ),
        DecodeError,
        "opened .*; convert",
    ),
    "concat": (
        lambda p, m: write_playlist(p, "ffconcat version 1.0\nfile good.ts\n", m),
        DecodeError,
        "opened .*; convert",
    ),
    "sdp": (
        lambda p, m: write_playlist(
            p, "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n", m
        ),
        DecodeError,
        "opened .*; convert",
    ),
    "huge": (lambda p, m: write_huge_y4m(p), LimitError, "16000 x 16000 .*scale the video down"),
}


@pytest.mark.timeout(20)  # to open a pipe would wait for ever
@pytest.mark.parametrize("name", NO_VIDEOS)
def test_what_is_no_video_is_refused_with_advice(name, make_video, tmp_path):
    make, error, words = NO_VIDEOS[name]
    path = make(tmp_path / "input.mp4", make_video)
    with pytest.raises(error, match=f"(?s)^{tmp_path}/input.mp4: .*{words}") as caught:
        list_frames(path)
    assert type(caught.value) is error
    assert str(caught.value).count("input.mp4") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(make_video, tmp_path):
    path = make_video(tmp_path / "a.mp4")
    path.chmod(0)
    with pytest.raises(MediaNotFoundError, match=r"a\.mp4: .*Permission denied"):
        list_frames(path)


def test_a_name_with_a_zero_byte():
    with pytest.raises(MediaNotFoundError, match="null byte"):
        list_frames("a\0b.mp4")


READ_ALL = """
import re, sys
from tellframe.errors import MediaError
from tellframe.video import list_frames, read_frames
try:
    listing = list_frames(sys.argv[1])
    list(read_frames(sys.argv[1], listing, range(len(listing.times))))
except MediaError as error:
    print(error)
# Not ru_maxrss: that counts what the parent held when it forked.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("codec", ["mjpeg", "libvpx"])
def test_huge_pictures_take_no_memory(codec, announced, make_video, tmp_path):
    # The size stands in every keyframe, and some containers repeat it. 16,000 x 16,000 pixels
    # would take 366 MiB decoded and 732 MiB in RGB.
    if codec == "mjpeg":
        path = make_video(tmp_path / "a.avi", 3, codec=codec, pixel_format="yuvj420p")
        small, huge = struct.pack(">HH", 64, 96), struct.pack(">HH", 16000, 16000)
        before, header = b"\x08", path.read_bytes().index(b"strf") + 12
        announcement = struct.pack("<ii", 16000, 16000)
    else:
        path = make_video(tmp_path / "a.ivf", 3, codec=codec, gop=1)
        small, huge = struct.pack("<HH", 96, 64), struct.pack("<HH", 16000, 16000)
        before, header, announcement = b"\x9d\x01\x2a", 12, huge
    data = path.read_bytes()
    assert data.count(before + small) == 3
    data = data.replace(before + small, before + huge)
    if announced:
        data = data[:header] + announcement + data[header + len(announcement) :]
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(path)], capture_output=True, check=True, text=True
    )
    message, megabytes = done.stdout.splitlines()
    assert "pixels" in message
    assert int(megabytes) < 200


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"two\nlines.mp4",
        b"-i.mp4",
        b"caf\xe9.mp4",
        "映像 ビデオ.mp4".encode(),
        b"%03d.mp4",
        b"what?a#b&c.mp4",
        b"concat:a.mp4|b.mp4",
        b"pipe:0",
        b"file:a.mp4",
        b"no suffix",
        b"wrong.jpg",
    ],
    ids=ascii,
)
def test_any_file_name_will_do(name, make_video, read_numbers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_video(tmp_path / "made.mp4", 3)
    made.rename(os.fsdecode(name))
    assert read_numbers(os.fsdecode(name)) == [0, 1, 2]
    assert read_numbers(tmp_path / os.fsdecode(name)) == [0, 1, 2]


def test_a_name_that_looks_like_an_address_is_a_path(make_video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("http:") / "127.0.0.1:9"
    folder.mkdir(parents=True)
    make_video(Path("a.mp4"), 3).rename(folder / "a.mp4")
    assert list_frames("http://127.0.0.1:9/a.mp4").media.num_frames == 3
    with pytest.raises(MediaNotFoundError, match=r"http://127\.0\.0\.1:9/b\.mp4: "):
        list_frames("http://127.0.0.1:9/b.mp4")


# --- sizes that change, few pictures, memory --------------------------------------------------


def test_the_size_may_change_within_a_stream(make_video, read_number, tmp_path):
    path = tmp_path / "joined.h264"
    first = make_video(tmp_path / "a.h264", 10)
    path.write_bytes(
        first.read_bytes() + make_video(tmp_path / "b.h264", 10, size=(160, 120)).read_bytes()
    )
    frames = list(read_frames(path, list_frames(path), range(20)))
    assert [read_number(f.image) for f in frames] == [*range(10), *range(10)]
    assert [f.image.shape for f in frames] == [(64, 96, 3)] * 10 + [(120, 160, 3)] * 10


def test_settings_that_change_within_a_stream_are_not_skipped(
    make_video, read_number, tmp_path, monkeypatch
):
    monkeypatch.setattr(video, "MIN_SKIP", 0)
    first = make_video(tmp_path / "a.flv", seconds=np.arange(20) / 25)
    second = make_video(tmp_path / "b.flv", seconds=2 + np.arange(20) / 25, size=(160, 120))
    path = tmp_path / "joined.flv"
    path.write_bytes(first.read_bytes() + second.read_bytes()[13:])  # without its file header
    listing = list_frames(path)
    assert listing.stamped
    for wanted in ([38], [3, 38], [10, 19, 20, 29]):
        frames = list(read_frames(path, listing, wanted))
        assert [f.index for f in frames] == wanted
        assert [read_number(f.image) for f in frames] == [w % 20 for w in wanted]
        assert [f.image.shape[0] for f in frames] == [64 if w < 20 else 120 for w in wanted]


def test_one_picture(make_video, read_numbers, tmp_path):
    path = make_video(tmp_path / "a.mp4", 1)
    media = list_frames(path).media
    assert (media.num_frames, media.frame_rate) == (1, 0.0)
    assert media.duration == pytest.approx(0.04)
    assert read_numbers(path, sample_uniform(list_frames(path).times, 10)) == [0]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(threads, streams):
    path = streams("h264 with b-frames")
    frames = read_frames(path, list_frames(path), range(COUNT), threads=threads)
    assert [f.image.tobytes() for f in frames] == decode_plainly(path)


def test_videos_are_read_side_by_side(streams):
    paths = [streams("h264"), streams("hevc with open groups"), streams("vp9 with hidden pictures")]
    results: dict[Path, list[bytes]] = {}

    def read(path: Path) -> None:
        frames = read_frames(path, list_frames(path), range(0, COUNT, 7))
        results[path] = [f.image.tobytes() for f in frames]

    workers = [threading.Thread(target=read, args=(path,)) for path in paths]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == {path: decode_plainly(path)[::7] for path in paths}


def test_memory_does_not_grow_with_the_length(make_video, read_number, tmp_path):
    path = make_video(tmp_path / "a.mp4", 2000, gop=250, options={"preset": "ultrafast"})
    listing = list_frames(path)
    wanted = sample_uniform(listing.times, 10)
    assert wanted.tolist() == list(range(100, 2000, 200))
    tracemalloc.start()
    try:
        for position, frame in zip(wanted, read_frames(path, listing, wanted), strict=True):
            assert read_number(frame.image) == position
            assert tracemalloc.get_traced_memory()[1] < 2_000_000  # all pictures: 37 MB
            assert sum(type(o) is av.VideoFrame for o in gc.get_objects()) < 40
            tracemalloc.reset_peak()  # the list of all objects is itself a large one
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_reading_can_be_given_up(streams):
    path = streams("h264")
    frames = read_frames(path, list_frames(path), range(COUNT))
    assert next(frames).index == 0
    frames.close()


def test_facts_are_frozen(streams):
    listing = list_frames(streams("h264"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        listing.media.width = 1
    assert listing.media.codec == "h264"
    assert listing.media.container.startswith("mov")


# --- sampling ---------------------------------------------------------------------------------

gaps = st.lists(st.floats(0.001, 100), max_size=60)
timelines = gaps.map(lambda g: np.cumsum([0.0, *g]))


@pytest.mark.parametrize(
    ("policy", "num_frames", "count", "expected"),
    [
        ("uniform", 10, 5, [1, 3, 5, 7, 9]),
        ("uniform", 9, 3, [1, 4, 7]),
        ("uniform", 100, 4, [12, 37, 62, 87]),
        ("uniform", 3, 1, [1]),
        ("uniform", 3, 3, [0, 1, 2]),
        ("uniform", 3, 10, [0, 1, 2]),
        ("uniform", 1, 1, [0]),
        ("uniform", 0, 5, []),
        ("start", 10, 3, [0, 1, 2]),
        ("start", 2, 3, [0, 1]),
        ("start", 0, 3, []),
    ],
)
def test_sampling_table(policy, num_frames, count, expected):
    got = SAMPLERS[policy](np.arange(num_frames, dtype=np.float64), count)
    assert got.tolist() == expected
    assert got.dtype == np.int64


def test_sampling_follows_time_not_count():
    dense_then_sparse = np.concatenate([np.arange(90) * 0.01, 0.9 + np.arange(10) * 0.91])
    assert (sample_uniform(dense_then_sparse, 10) >= 90).sum() >= 8


def test_one_late_picture_does_not_take_the_place_of_the_others():
    times = np.append(np.arange(30) / 25, 100.0)
    assert sample_uniform(times, 10).tolist() == [*range(21, 31)]
    in_the_middle = np.concatenate([[0.0], 50 + np.arange(30) / 25, [100.0]])
    got = sample_uniform(in_the_middle, 10).tolist()
    assert {0, 31} < set(got)
    assert len(got) == 10


def test_filling_up_takes_no_time_that_grows_with_the_cluster():
    times = np.append(np.arange(200_000) / 1e6, 1e6)
    begin = time.monotonic()
    assert len(sample_uniform(times, 100_000)) == 100_000
    assert time.monotonic() - begin < 20


@given(timelines, st.integers(1, 80), st.sampled_from(sorted(SAMPLERS)))
def test_samples_are_ascending_and_in_range(times, count, policy):
    got = SAMPLERS[policy](times, count)
    assert (np.diff(got) > 0).all()
    assert len(got) == min(count, len(times))
    assert got.min() >= 0
    assert got.max() < len(times)
    if policy == "start" or len(times) <= count:
        assert got.tolist() == list(range(min(count, len(times))))


@given(st.integers(1, 3000), st.integers(1, 200), st.sampled_from([24, 25, 29.97, 30, 60]))
def test_constant_rate_gives_the_full_count_spread_evenly(num_frames, count, rate):
    got = sample_uniform(np.arange(num_frames) / rate, count)
    assert len(got) == min(count, num_frames)
    if num_frames > count:
        targets = (np.arange(count) + 0.5) * num_frames / count
        assert (np.abs(got - targets) <= 0.5 + 1e-6).all()


@given(timelines, st.integers(1, 80))
def test_every_part_has_a_sample_within_one_interval(times, count):
    got = times[sample_uniform(times, count)]
    if len(times) <= count:
        return
    step = np.median(np.diff(times))
    targets = (np.arange(count) + 0.5) * (times[-1] + step) / count
    for target in targets:
        after = min(max(int(np.searchsorted(times, target)), 1), len(times) - 1)
        interval = max(times[after] - times[after - 1], step)
        assert np.abs(got - target).min() <= interval * (1 + 1e-9)


@given(timelines, st.integers(1, 80), st.floats(-1e4, 1e4))
def test_sample_start_ignores_time(times, count, shift):
    np.testing.assert_array_equal(sample_start(times, count), sample_start(times + shift, count))
