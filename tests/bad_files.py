"""Makes files that a video may be, or pretend to be, and says what must become of each.

`python tests/bad_files.py FOLDER` writes them all and prints the table of docs/security.md.
"""

from __future__ import annotations

import importlib.util
import io
import os
import random
import socket
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

# By its place, because several folders of tests have a conftest.
_spec = importlib.util.spec_from_file_location(
    "tests_conftest", Path(__file__).with_name("conftest.py")
)
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
draw_number, write_video = _conftest.draw_number, _conftest.write_video

READ, PARTIAL, REFUSED = "read", "partial", "refused"
COUNT = 24
SIZE = (96, 64)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
FRONT = {"movflags": "faststart"}


@dataclass(frozen=True)
class Kind:
    """Files with the same fault."""

    text: str
    """What is wrong, in a few words."""
    outcomes: frozenset[str]
    """What may become of such a file."""
    make: Callable[[Path], Iterator[Path]]
    """Writes the files into a folder."""


KINDS: dict[str, Kind] = {}


def kind(text: str, *outcomes: str):
    """Register a function that writes files of a kind."""

    def register(make: Callable[[Path], Iterator[Path]]):
        KINDS[make.__name__] = Kind(text, frozenset(outcomes), make)
        return make

    return register


def sound(folder: Path, suffix: str = "mp4", **options) -> bytes:
    """Return the bytes of a sound video."""
    path = write_video(folder / f"sound.{suffix}", COUNT, size=SIZE, **options)
    data = path.read_bytes()
    path.unlink()
    return data


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def cuts(folder: Path, count: int, suffix: str = "mp4", **options) -> Iterator[Path]:
    data = sound(folder, suffix, **options)
    for n in range(1, count + 1):
        yield write(folder / f"cut{n:02d}.{suffix}", data[: len(data) * n // (count + 1)])


@kind("MP4 cut off, its index at the end and lost", REFUSED)
def cut_mp4(folder):
    yield from cuts(folder, 15)


@kind("MP4 cut off behind its index", PARTIAL, REFUSED)
def cut_mp4_index_first(folder):
    yield from cuts(folder, 15, container_options=FRONT)


@kind("fragmented MP4, MKV or MPEG-TS cut off", READ, PARTIAL, REFUSED)
def cut_stream(folder):
    yield from cuts(folder, 8, container_options=FRAGMENTS)
    yield from cuts(folder, 8, "mkv")
    yield from cuts(folder, 8, "ts")


@kind("single bits turned over, anywhere", READ, PARTIAL, REFUSED)
def flipped_bits(folder):
    rng = random.Random(0)
    for suffix in ("mp4", "mkv", "avi"):
        data = sound(folder, suffix)
        for n in range(12):
            changed = bytearray(data)
            for _ in range(1 + n):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            yield write(folder / f"bits{n:02d}.{suffix}", changed)


@kind("MP4 boxes that lie about their size", READ, PARTIAL, REFUSED)
def lying_boxes(folder):
    data = sound(folder)
    for tag in (b"ftyp", b"mdat", b"moov", b"trak", b"stbl", b"stsz", b"stts", b"stco", b"avcC"):
        at = data.rindex(tag) - 4
        for size in (0, 7, 2**31, 2**32 - 1):
            changed = data[:at] + struct.pack(">I", size) + data[at + 4 :]
            yield write(folder / f"{tag.decode()}{size:x}.mp4", changed)


@kind("tables of an MP4 that announce billions of entries", READ, PARTIAL, REFUSED)
def lying_tables(folder):
    data = sound(folder)
    for tag in (b"stsz", b"stts", b"stsc", b"stco", b"elst"):
        at = data.rindex(tag) + 8 + 4 * (tag == b"stsz")
        changed = data[:at] + b"\xff" * 4 + data[at + 4 :]
        yield write(folder / f"{tag.decode()}.mp4", changed)


def y4m(width: int, height: int, frames: int = 3) -> bytes:
    count = max(width * height * 3 // 2, 0) if width * height < 1 << 20 else 100
    head = b"YUV4MPEG2 W%d H%d F25:1 C420jpeg\n" % (width, height)
    return head + frames * (b"FRAME\n" + bytes(count))


@kind("dimensions of zero, below zero, or huge", REFUSED)
def impossible_sizes(folder):
    sizes = [(0, 0), (0, 64), (64, 0), (-1, 64), (100_000, 100_000), (16_384, 16_384), (2**31, 2)]
    for width, height in sizes:
        yield write(folder / f"{width}x{height}.y4m", y4m(width, height))


@kind("pictures of one pixel or one line", READ, PARTIAL)
def tiny_sizes(folder):
    for size in ((1, 1), (2, 200), (1, 64)):
        yield write_video(
            folder / f"{size[0]}x{size[1]}.mov", 6, codec="png", size=size, pixel_format="rgb24"
        )


@kind("odd sizes", READ)
def odd_sizes(folder):
    for size in ((97, 63), (33, 99)):
        yield write_video(folder / f"{size[0]}.mp4", 6, size=size, pixel_format="yuv444p")


@kind("the size changes in mid-stream", READ, PARTIAL)
def changing_size(folder):
    for n, size in enumerate(((64, 48), (192, 128))):
        other = write_video(folder / "other.h264", COUNT, size=size)
        yield write(folder / f"both{n}.h264", sound(folder, "h264") + other.read_bytes())
        other.unlink()


@kind("10 and 12 bits, 4:4:4, 4:2:2, grey, alpha", READ)
def pixel_formats(folder):
    for name in ("yuv420p10le", "yuv422p", "yuv422p10le", "yuv444p", "yuv444p10le", "gray"):
        yield write_video(folder / f"{name}.mp4", 6, pixel_format=name)
    yield write_video(folder / "alpha.webm", 6, codec="libvpx-vp9", pixel_format="yuva420p")
    yield write_video(folder / "alpha.mov", 6, codec="qtrle", pixel_format="argb")
    yield write_video(folder / "12.mkv", 6, codec="ffv1", pixel_format="yuv420p12le")


@kind("HDR", READ)
def hdr(folder):
    for transfer in ("smpte2084", "arib-std-b67"):
        parameters = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
        yield write_video(
            folder / f"{transfer}.mp4",
            6,
            pixel_format="yuv420p10le",
            options={"x264-params": parameters},
        )


@kind("interlaced", READ)
def interlaced(folder):
    for n in range(2):
        options = {"x264-params": "interlaced=1"}
        yield write_video(folder / f"{n}.mp4", COUNT, b_frames=2 * n, options=options)


@kind("turned by a display matrix, or by nonsense in its place", READ)
def rotated(folder):
    data = sound(folder)
    at = data.index(b"tkhd") + 4 + 40
    one, minus = struct.pack(">i", 1 << 16), struct.pack(">i", -(1 << 16))
    zero = bytes(4)
    matrices = {
        "90": zero + one + zero + minus + zero,
        "180": minus + zero + zero + zero + minus,
        "270": zero + minus + zero + one + zero,
        "zero": bytes(20),
        "noise": random.Random(1).randbytes(20),
        "flipped": minus + zero + zero + zero + one,
    }
    for name, matrix in matrices.items():
        yield write(folder / f"{name}.mp4", data[:at] + matrix + data[at + 20 :])


@kind("variable rate, gaps, time stamps below zero", READ, PARTIAL)
def odd_times(folder):
    yield write_video(folder / "vfr.mp4", seconds=[n * n / 300 for n in range(COUNT)])
    yield write_video(folder / "gap.mkv", seconds=[n + 3000 * (n > 9) for n in range(COUNT)])
    yield write_video(folder / "day.mkv", seconds=[n + 80_000 * (n > 9) for n in range(COUNT)])
    yield write_video(folder / "negative.mp4", seconds=[n / 10 - 1 for n in range(COUNT)])


@kind("edit lists: cut away, moved, empty", READ, PARTIAL, REFUSED)
def edit_lists(folder):
    data = sound(folder)
    at = data.index(b"elst") + 12
    for n, (duration, start) in enumerate([(400, 4096), (0, -1), (900, 2**31 - 1), (1, 0)]):
        changed = data[:at] + struct.pack(">Ii", duration, start) + data[at + 8 :]
        yield write(folder / f"{n}.mp4", changed)


@kind("fragmented MP4, whole", READ)
def fragmented(folder):
    yield write(folder / "a.mp4", sound(folder, container_options=FRAGMENTS))


@kind("one picture alone", READ)
def one_picture(folder):
    for suffix in ("mp4", "mkv", "h264"):
        yield write_video(folder / f"one.{suffix}", 1)


@kind("a video stream without a picture", REFUSED)
def no_picture(folder):
    for suffix in ("mkv", "avi", "y4m"):
        path = folder / f"none.{suffix}"
        if suffix == "y4m":
            yield write(path, y4m(64, 64, 0))
            continue
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            container.start_encoding()
        yield path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        add_sound(container, container.add_stream("aac", rate=8000, layout="mono"))
    return path


def add_sound(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
    for n in range(8):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 1024 * n
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


@kind("sound alone", REFUSED)
def sound_alone(folder):
    for suffix in ("mp4", "mkv", "mov", "avi"):
        yield write_sound(folder / f"sound.{suffix}")


@kind("a cover picture and sound", REFUSED)
def cover_alone(folder):
    for suffix in ("mp4", "mov"):
        path = folder / f"cover.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000, layout="mono")
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = *SIZE, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            still = av.VideoFrame.from_ndarray(draw_number(1, *SIZE), format="rgb24")
            add_sound(container, stream)
            container.mux(picture.encode(still))
            container.mux(picture.encode())
        yield path


@kind("encrypted (CENC)", REFUSED)
def encrypted(folder):
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    yield write(folder / "a.mp4", sound(folder, container_options=options))


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "hls_http": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    "concat": "ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "asx": '<asx version="3.0"><entry><ref href="http://127.0.0.1:9/"/></entry></asx>',
    "pls": "[playlist]\nFile1=http://127.0.0.1:9/\n",
    "smil": '<smil><body><video src="http://127.0.0.1:9/"/></body></smil>',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
}


@kind("playlists and other lists of files, renamed", REFUSED)
def playlists(folder):
    for name, text in PLAYLISTS.items():
        yield write(folder / f"{name}.mp4", text.encode())


@kind("pictures, renamed", REFUSED)
def pictures(folder):
    image = Image.fromarray(draw_number(1, *SIZE))
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        image.save(buffer, form)
        yield write(folder / f"{form}.mp4", buffer.getvalue())
        if form in ("PNG", "JPEG"):
            yield write(folder / f"{form}%03d.mp4", buffer.getvalue())


@kind("archives, programs, texts and noise, renamed", REFUSED)
def no_media(folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../escape.mp4", b"x")
    yield write(folder / "zip.mp4", buffer.getvalue())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../escape.mp4"))
    yield write(folder / "tar.mp4", buffer.getvalue())
    yield write(folder / "program.mp4", Path(os.path.realpath("/bin/true")).read_bytes())
    yield write(folder / "html.mp4", b"<!doctype html><script>alert(1)</script>")
    yield write(folder / "pickle.mp4", b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    yield write(folder / "zeros.mp4", bytes(1 << 20))
    yield write(folder / "noise.mp4", random.Random(2).randbytes(1 << 20))
    yield write(folder / "one.mp4", b"\0")
    yield write(folder / "empty.mp4", b"")


@kind("a video that is something else as well", READ, PARTIAL, REFUSED)
def polyglots(folder):
    data = sound(folder)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    script = b"<script>alert(1)</script>"
    yield write(folder / "zip behind.mp4", data + buffer.getvalue())
    yield write(folder / "script.mp4", data + struct.pack(">I", 8 + len(script)) + b"free" + script)
    yield write(folder / "pdf before.mp4", b"%PDF-1.4\n" + data)
    yield write(folder / "two.mp4", data + data)
    yield write(folder / "mkv behind.mp4", data + sound(folder, "mkv"))


@kind("no regular file: folder, pipe, socket, device, dangling or circular link", REFUSED)
def no_file(folder):
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    (folder / "dangling.mp4").symlink_to(folder / "nothing")
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    for name in ("folder", "pipe", "device", "dangling", "circle"):
        yield folder / f"{name}.mp4"
    with socket.socket(socket.AF_UNIX) as server:
        # A socket's address must be short.
        before = Path.cwd()
        os.chdir(folder)
        server.bind("socket.mp4")
        os.chdir(before)
    yield folder / "socket.mp4"


NAMES = (
    "=cmd|' -c calc'!A0",
    "<img src=x onerror=alert(1)>",
    "\x1b[31m\x07\r",
    "gpj.\u202e",
    "-rf",
    "$(touch x);`id`",
    "'; DROP TABLE videos;--",
    "\udcff\udcfe",
    "http:",
    "a\nb",
    "%s%n%d",
    "é" * 100,
    " ",
)


@kind("names that are commands, formulas, addresses, or no text", READ)
def hostile_names(folder):
    data = sound(folder)
    for name in NAMES:
        yield write(folder / f"{name}.mp4", data)


def make_all(folder: Path) -> dict[str, list[Path]]:
    """Write all files, a folder a kind; return their paths by kind."""
    made = {}
    for name, one in KINDS.items():
        place = folder / name
        place.mkdir(parents=True)
        made[name] = list(one.make(place))
    return made


def table(made: dict[str, list[Path]]) -> str:
    """Return the table of docs/security.md."""
    rows = ["| files | of which | may be |", "| --- | --- | --- |"]
    for name, paths in made.items():
        outcomes = [o for o in (READ, PARTIAL, REFUSED) if o in KINDS[name].outcomes]
        rows.append(f"| {len(paths)} | {KINDS[name].text} | {', '.join(outcomes)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(table(make_all(Path(sys.argv[1]))) + "\n")
