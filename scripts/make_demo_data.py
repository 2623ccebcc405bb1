"""Make a small data set in the shape of the DFDC's training parts, oddities included.

Run from the repository root::

    python scripts/make_demo_data.py --out demo

Each `dfdc_train_part_N.zip` holds videos and their `metadata.json`, and `demo.json` beside them
names the oddities. The people come from the clips in samples/ (see its README) and are pasted into
drawn rooms: enough to try the pipeline with, and useless for learning what deepfakes look like.
The same arguments, library versions and kind of processor give the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.float32]
"""RGB in H x W x 3, 0 to 255."""

SAMPLES: Final = Path(__file__).resolve().parents[1] / "samples"
FRAME_RATE: Final = 25
REAL_SHARE: Final = 0.17
"""Of all videos, as in the DFDC's training parts."""
MIN_VIDEOS: Final = 12
"""So many files it takes to show each oddity once."""
MIN_HEIGHT: Final = 200
"""A face is 0.3 of the picture's height, and must be 60 pixels tall to be found surely."""
MIN_ASPECT: Final = 1.2
"""Two people need that width to stand side by side."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """A person in a sample clip: where the face is in its first and in its last frame, xyxy.

    Fitted to what MTCNN finds; in between, the camera eases from one to the other.
    """

    file: str
    start: tuple[float, float, float, float]
    end: tuple[float, float, float, float]


ALONE: Final = Portrait("real.mp4", (184.7, 67.8, 301.7, 220.5), (157.4, 59.3, 283.0, 219.6))
LEFT: Final = Portrait("two_people.mp4", (215.8, 72.5, 336.8, 229.2), (204.7, 66.7, 328.6, 226.6))
RIGHT: Final = Portrait("two_people.mp4", (446.5, 83.5, 572.9, 241.4), (443.7, 77.8, 574.9, 240.2))
REAL_PEOPLE: Final = (ALONE, LEFT)
FAKE_FACES: Final = (replace(ALONE, file="fake.mp4"), RIGHT)

FACE_CENTRE: Final = (0.5, 0.425)
"""In a portrait as `crop` cuts it, as share of its width and height."""
FACE_RADIUS: Final = (0.24, 0.25)
OUTLINE_RADIUS: Final = (0.5, 0.6)
"""What is outside fades into the room, among it a collar that MTCNN takes for a small face."""


@functools.cache
def read_sample(name: str) -> tuple[Image.Image, ...]:
    with av.open(str(SAMPLES / name)) as container:
        pictures = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return tuple(Image.fromarray(picture) for picture in pictures)


def crop(portrait: Portrait, number: int, size: tuple[int, int]) -> Picture:
    """Cut head and shoulders out of a frame, the face always in the same place.

    Args:
        portrait: whom.
        number: of the frame; past the end it goes back and forth.
        size: width and height of the result; its height is twice the face's.
    """
    frames = read_sample(portrait.file)
    last = len(frames) - 1
    number = last - abs(number % (2 * last) - last)
    ease = (1 - np.cos(np.pi * number / last)) / 2
    start, end = np.array(portrait.start), np.array(portrait.end)
    left, top, right, bottom = start + ease * (end - start)
    middle, height = (left + right) / 2, bottom - top
    wide = 0.8 * height
    box = (middle - wide, top - 0.35 * height, middle + wide, bottom + 0.65 * height)
    picture = frames[number].resize(size, Image.Resampling.BICUBIC, box)
    return np.asarray(picture, np.float32)


@dataclass(frozen=True, slots=True)
class Person:
    """How somebody is shown, alike in a real video and in its fakes."""

    portrait: Portrait
    size: tuple[int, int]
    """Width and height of the portrait; the face is half as tall."""
    x: float
    """Of its middle, in pixels."""
    mirrored: bool
    colour: Picture
    """Factor of each channel."""
    phase: float
    """Where in its motion the person starts, 0 to 2 pi."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What a fake does to a face."""

    face: Portrait
    detail: int
    """The new face is reduced to so many pixels and enlarged again."""
    tint: Picture
    """Factor of each channel, left over after its colours were matched."""


def make_tint(rng: np.random.Generator, darkest: float, brightest: float) -> Picture:
    """Return factors of the channels, from warm to cold light; green faces would not be found."""
    warmth = rng.uniform(-0.1, 0.1)
    factors = np.array((1 + warmth, 1, 1 - warmth), np.float32)
    return factors * np.float32(rng.uniform(darkest, brightest))


def make_people(count: int, size: tuple[int, int], rng: np.random.Generator) -> list[Person]:
    """Place people side by side, each in another size and light."""
    width, height = size
    people = []
    for i in range(count):
        tall = round(2 * height * rng.uniform(0.3, 0.31 if count > 1 else 0.42))
        room = (width / count - 0.9 * tall) / 2
        person = Person(
            portrait=REAL_PEOPLE[rng.integers(len(REAL_PEOPLE))],
            size=(round(0.8 * tall * rng.uniform(0.92, 1.08)), tall),
            x=width * (i + 0.5) / count + rng.uniform(-0.6, 0.6) * room,
            mirrored=bool(rng.integers(2)),
            colour=make_tint(rng, 0.75, 1.1),
            phase=rng.uniform(0, 2 * np.pi),
        )
        people.append(person)
    return people


def make_swap(rng: np.random.Generator) -> Swap:
    return Swap(
        face=FAKE_FACES[rng.integers(len(FAKE_FACES))],
        detail=int(rng.integers(36, 64)),
        tint=make_tint(rng, 0.85, 1.1),
    )


def make_room(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    """Draw a wall in uneven light, with furniture out of focus."""
    width, height = size
    left, right, top, bottom = rng.uniform(0.7, 1.2, 4)
    light = np.linspace(top, bottom, height)[:, None] * np.linspace(left, right, width)
    room = np.asarray(light[..., None] * rng.uniform(90, 170, 3), np.float32)
    for _ in range(7):
        x, y = (rng.uniform(-0.2, 1, 2) * size).astype(int)
        wide, tall = (rng.uniform(0.1, 0.5, 2) * size).astype(int)
        room[max(y, 0) : y + tall, max(x, 0) : x + wide] *= rng.uniform(0.6, 1.2, 3)
    picture = Image.fromarray(room.clip(0, 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(3)), np.float32)


def show(person: Person, swap: Swap | None) -> Iterator[tuple[Picture, Picture]]:
    """Yield a person's portrait frame by frame, with its mask (H x W x 1, 0 to 1)."""
    width, height = person.size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x + 0.5) / width, (y + 0.5) / height

    def ellipse(radius: tuple[float, float], edge: float) -> Picture:
        distance = np.hypot((x - FACE_CENTRE[0]) / radius[0], (y - FACE_CENTRE[1]) / radius[1])
        return np.asarray(((1 - distance) / edge).clip(0, 1)[..., None], np.float32)

    outline, inside = ellipse(OUTLINE_RADIUS, 0.2), ellipse(FACE_RADIUS, 0.3)
    number = round(person.phase * 30)
    while True:
        picture = crop(person.portrait, number, person.size)
        if swap is not None:
            picture += inside * (_fake_face(swap, number, picture, inside) - picture)
        picture *= person.colour
        yield (picture[:, ::-1], outline) if person.mirrored else (picture, outline)
        number += 1


def _fake_face(swap: Swap, number: int, target: Picture, inside: Picture) -> Picture:
    """Return another face in the colours of the target, soft as face swaps are."""
    height, width = target.shape[:2]
    small = crop(swap.face, number, (swap.detail, swap.detail)).clip(0, 255).astype(np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    face = np.asarray(large, np.float32)
    ours, theirs = ((inside * i)[::4, ::4].sum(axis=(0, 1)) for i in (target, face))
    return np.asarray(face * (ours / theirs * swap.tint), np.float32)


MARGIN: Final = 16
"""Pixels that the room is larger than the picture on each side, for the camera to move in."""


def film(
    seed: tuple[int, int], num_people: int, size: tuple[int, int], swap: Swap | None, light: float
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures of a scene; all its videos share room, people, motion and noise.

    Args:
        seed: of the scene.
        num_people: 0 to 2.
        size: width and height.
        swap: done to the last of the people, or nothing.
        light: 1 is daylight.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    whole = (width + 2 * MARGIN, height + 2 * MARGIN)
    room, people = make_room(whole, rng), make_people(num_people, size, rng)
    grain = rng.normal(0, 2, (whole[1], whole[0], 1)).astype(np.float32)
    shows = [show(p, swap if p is people[-1] else None) for p in people]
    phase = rng.uniform(0, 2 * np.pi)
    frame = 0
    while True:
        dx, dy = (MARGIN + round(5 * np.sin(frame / t + phase)) for t in (17, 23))
        picture = room[dy : dy + height, dx : dx + width].copy()
        for person, portraits in zip(people, shows, strict=True):
            x = round(person.x - person.size[0] / 2 + 6 * np.sin(frame / 12 + person.phase))
            y = round(height - person.size[1] + 6 + 4 * np.sin(frame / 9 + person.phase))
            _paste(picture, *next(portraits), x, y)
        dx, dy = rng.integers(0, 2 * MARGIN, 2)
        picture = picture * np.float32(light) + grain[dy : dy + height, dx : dx + width]
        yield picture.clip(0, 255).round().astype(np.uint8)
        frame += 1


def _paste(target: Picture, picture: Picture, mask: Picture, x: int, y: int) -> None:
    """Lay a picture over the target; what reaches over its edges is cut off."""
    height, width = target.shape[:2]
    left, top = max(-x, 0), max(-y, 0)
    inner = slice(top, height - y), slice(left, width - x)
    patch = target[max(y, 0) : y + picture.shape[0], max(x, 0) : x + picture.shape[1]]
    patch += mask[inner] * (picture[inner] - patch)


def encode(
    frames: Iterator[NDArray[np.uint8]], count: int, size: tuple[int, int], lying: bool
) -> bytes:
    """Encode as the DFDC is: H.264, a single group of pictures, the index in front.

    Args:
        frames: upright.
        count: how many of them.
        size: width and height.
        lying: store the pictures on their side, and say so in the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=FRAME_RATE)
            stream.width, stream.height = reversed(size) if lying else size
            stream.pix_fmt = "yuv420p"
            # One thread, and no macroblock trees, which give other bytes from run to run.
            stream.codec_context.thread_count = 1
            stream.options = {"crf": "23", "preset": "veryfast", "g": "250"}
            stream.options |= {"x264-params": "mbtree=0"}
            for image in itertools.islice(frames, count):
                stored = np.ascontiguousarray(np.rot90(image)) if lying else image
                container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
            container.mux(stream.encode())
        data = bytearray(path.read_bytes())
    if lying:
        # PyAV writes no display matrix; this one is a quarter turn clockwise (ISO 14496-12, 8.3.2).
        matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Video:
    """One file, or one line of metadata.json, that is to be made."""

    name: str
    part: int
    """Which zip it lies in."""
    kind: str
    """Its oddity, or "" where it has none."""
    scene: int
    """Videos of one scene are a real one and its fakes."""
    original: str = ""
    """For fakes: the name of the real video."""

    @property
    def id(self) -> str:
        """Where it lies, such as dfdc_train_part_0/abcdefghij.mp4."""
        return f"dfdc_train_part_{self.part}/{self.name}"


FAKE_ODDITIES: Final = ("dark", "rotated", "truncated", "not_a_video", "no_file", "no_entry")
NUM_PEOPLE: Final = {"two_people": 2, "no_face": 0}
"""In scenes of that kind; one person in all others."""


def plan(videos: int, zips: int, rng: np.random.Generator) -> list[Video]:
    """Decide on all videos: which oddity, which scene, which zip.

    A file without entry counts as a video, an entry without file does not.
    """
    names = _names(rng)
    # Three more real ones are odd. A small data set gets some extra, so that it can be split.
    num_plain = max(round(REAL_SHARE * videos) - 3, min(5, videos // 6 - 1))
    plain = [Video(next(names), i, "", i) for i in range(num_plain)]
    pair, empty = (
        Video(next(names), len(plain) + i, kind, len(plain) + i)
        for i, kind in enumerate(NUM_PEOPLE)
    )
    result = [*plain, pair, empty, replace(plain[0], name=next(names), part=1, kind="duplicate")]
    result.append(Video(next(names), pair.part, "two_people", pair.scene, pair.name))
    for i, kind in enumerate(("", *FAKE_ODDITIES)):
        real = plain[i % len(plain)]
        result.append(Video(next(names), real.part, kind, real.scene, real.name))
    for i in range(max(1, videos // 40)):
        scene = num_plain + 2 + i
        result.append(Video(next(names), i + 1, "missing_original", scene, next(names)))
    # The entry without file is one more than there are files. Each real video gets a fake first.
    for i in range(videos + 1 - len(result)):
        real = plain[i + 1 if i + 1 < len(plain) else rng.integers(len(plain))]
        result.append(Video(next(names), real.part, "", real.scene, real.name))
    return [replace(video, part=video.part % zips) for video in result]


def _names(rng: np.random.Generator) -> Iterator[str]:
    """Yield file names as the DFDC has them, each once."""
    letters, seen = list("abcdefghijklmnopqrstuvwxyz"), set[str]()
    while True:
        name = "".join(rng.choice(letters, 10)) + ".mp4"
        if name not in seen:
            seen.add(name)
            yield name


def make_video(video: Video, size: tuple[int, int], seconds: float, seed: int) -> bytes:
    """Return the content of one file."""
    if video.kind == "not_a_video":
        return b"This is no video.\n" * 100
    swap = None
    if video.original:
        own = int.from_bytes(video.name.encode())
        swap = make_swap(np.random.default_rng((seed, own)))
    light = 0.2 if video.kind == "dark" else 1.0
    frames = film((seed, video.scene), NUM_PEOPLE.get(video.kind, 1), size, swap, light)
    data = encode(frames, round(seconds * FRAME_RATE), size, lying=video.kind == "rotated")
    return data[: len(data) * 4 // 5] if video.kind == "truncated" else data


def describe(video: Video) -> dict[str, str]:
    """Return a video's entry in metadata.json."""
    if video.original:
        return {"label": "FAKE", "split": "train", "original": video.original}
    return {"label": "REAL", "split": "train"}


def write_zip(path: Path, members: Iterator[tuple[str, bytes]]) -> None:
    """Write members as they are, not deflated, and all of the same date."""
    temporary = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, (2019, 9, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    temporary.replace(path)


def make_demo(
    out: Path,
    *,
    videos: int = 120,
    zips: int = 3,
    size: tuple[int, int] = (640, 360),
    seconds: float = 4.0,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Write the zips and demo.json; zips of an earlier call are deleted.

    Args:
        out: folder to write to; made where it does not exist.
        videos: number of files that are called .mp4.
        zips: number of parts.
        size: width and height of the videos.
        seconds: length of the videos.
        seed: of everything random.

    Returns:
        What demo.json holds: {oddity: ids}, an id being "dfdc_train_part_0/abcdefghij.mp4".

        - missing_original: fakes whose original is in no zip.
        - truncated: the last fifth of the bytes is cut off.
        - dark: mean luma below 40.
        - rotated: stored on its side with a display matrix.
        - two_people: a real video and its fake, in which one of both is fake.
        - no_face: nobody is there.
        - not_a_video: a text.
        - no_file: in metadata.json alone.
        - no_entry: not in metadata.json.
        - duplicate: two real videos of the same bytes, in two zips where there are two.

    Raises:
        ValueError: too few videos, too many zips or an impossible size.
    """
    _check(videos, zips, size, seconds)
    todo = plan(videos, zips, np.random.default_rng(seed))
    # Once here rather than in every thread.
    for portrait in (*REAL_PEOPLE, *FAKE_FACES):
        read_sample(portrait.file)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("dfdc_train_part_*.zip"):
        old.unlink()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in range(zips):
            folder = f"dfdc_train_part_{part}"
            inside = sorted((v for v in todo if v.part == part), key=lambda v: v.name)
            entries = {v.name: describe(v) for v in inside if v.kind != "no_entry"}
            files = [v for v in inside if v.kind != "no_file"]
            contents = pool.map(lambda v: make_video(v, size, seconds, seed), files)
            members = zip((v.id for v in files), contents, strict=True)
            metadata = f"{folder}/metadata.json", json.dumps(entries).encode()
            write_zip(out / f"{folder}.zip", itertools.chain([metadata], members))
    oddities = _list_oddities(todo)
    (out / "demo.json").write_text(json.dumps(oddities, indent=2) + "\n", encoding="utf-8")
    return oddities


def _list_oddities(todo: list[Video]) -> dict[str, list[str]]:
    oddities: dict[str, list[str]] = {}
    for video in todo:
        if video.kind:
            oddities.setdefault(video.kind, []).append(video.id)
    (copy,) = (v for v in todo if v.kind == "duplicate")
    (first,) = (v for v in todo if not v.kind and not v.original and v.scene == copy.scene)
    oddities["duplicate"] = [first.id, copy.id]
    return oddities


def _check(videos: int, zips: int, size: tuple[int, int], seconds: float) -> None:
    width, height = size
    if videos < MIN_VIDEOS:
        raise ValueError(f"{videos} videos are too few for all oddities; ask for {MIN_VIDEOS}")
    limit = videos // 8 + 1  # more zips would leave some empty
    if not 1 <= zips <= limit:
        raise ValueError(f"{zips} zips; ask for 1 to {limit} for {videos} videos")
    if height < MIN_HEIGHT or width < MIN_ASPECT * height or width % 2 or height % 2:
        raise ValueError(
            f"size {width}x{height}; both must be even, the height at least {MIN_HEIGHT}, and the "
            f"width at least {MIN_ASPECT} times as much"
        )
    if round(seconds * FRAME_RATE) < 1:
        raise ValueError(f"videos of {seconds} s have no pictures")


def _parse_size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--videos", type=int, default=120, help="default: 120")
    parser.add_argument("--zips", type=int, default=3, help="default: 3")
    parser.add_argument("--size", type=_parse_size, default=(640, 360), help="default: 640x360")
    parser.add_argument("--seconds", type=float, default=4.0, help="default: 4")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    try:
        make_demo(**vars(parser.parse_args()))
    except ValueError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
