"""Shards: clips come back as they were, any tool reads them, and damage is told."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import tarfile
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tellframe.data.shards import (
    ClipRow,
    ShardWriter,
    clip_key,
    parse_clip,
    read_clip,
    store_clip,
)
from tellframe.errors import DataError
from tellframe.recipe import Recipe
from tellframe.store import FolderStore
from tellframe.types import Clip

SIZE, FRAMES = 32, 6
SEEN = [0, 2, 5]
VIDEO = "part_0/a b.c.mp4"
JPEG, PNG = (
    Recipe(crop_size=SIZE, num_frames=FRAMES, crop_format=name) for name in ("jpeg", "png")
)
SHARD = "shards/0123.tar"


def draw_clip(seed=0, person=1, seen=SEEN) -> Clip:
    """Draw a clip: smooth pictures with some noise, as faces are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = np.sin(x / 9 + seed)[None, :, :, None] + np.cos(y[..., None] / (7 + np.arange(3)))
    pixels = 128 + 50 * waves + rng.normal(0, 1, (FRAMES, SIZE, SIZE, 3))
    valid = np.isin(np.arange(FRAMES), seen)
    some = valid[:, None].astype(np.float32)
    return Clip(
        person=person,
        pixels=(np.clip(pixels, 0, 255) * valid[:, None, None, None]).astype(np.uint8),
        times=np.arange(FRAMES) / 29.97,
        valid=valid,
        boxes=rng.uniform(-50, 4000, (FRAMES, 4)).astype(np.float32) * some,
        landmarks=rng.uniform(-50, 4000, (FRAMES, 5, 2)).astype(np.float32) * some[..., None],
        confidence=rng.uniform(0.6, 1, FRAMES).astype(np.float32) * valid,
        recipe_digest="0123456789abcdef",
    )


def write_shard(clips, recipe) -> tuple[bytes, list[ClipRow]]:
    """Write clips of one video; return the shard and its rows."""
    file, rows = io.BytesIO(), []
    writer = ShardWriter(file, {"jpeg": "jpg", "png": "png"}[recipe.crop_format])
    empty = {f.name: "" for f in dataclasses.fields(ClipRow)}
    for clip in clips:
        offset, size = writer.add(clip_key(VIDEO, clip.person), store_clip(clip, recipe))
        facts = {"frames": FRAMES, "seen": clip.num_valid, "person": clip.person, "video": VIDEO}
        rows.append(ClipRow(**empty | facts | {"shard": SHARD, "offset": offset, "size": size}))
    writer.close()
    return file.getvalue(), rows


def read_all(shard, rows, recipe):
    return [parse_clip(shard[r.offset : r.offset + r.size], r, recipe) for r in rows]


def assert_same_but_pixels(found: Clip, clip: Clip):
    assert (found.person, found.recipe_digest) == (clip.person, clip.recipe_digest)
    assert np.array_equal(found.valid, clip.valid)
    for name, tolerance in {
        "times": 5e-7,
        "boxes": 0.0052,
        "landmarks": 0.0052,
        "confidence": 5.1e-5,
    }.items():
        ours, theirs = getattr(found, name), getattr(clip, name)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=name)


CLIPS = [draw_clip(1), draw_clip(2, 2, [3]), draw_clip(3, 3, range(FRAMES))]


def test_png_comes_back_exactly():
    for found, clip in zip(read_all(*write_shard(CLIPS, PNG), PNG), CLIPS, strict=True):
        assert_same_but_pixels(found, clip)
        assert found.pixels.dtype == np.uint8
        assert np.array_equal(found.pixels, clip.pixels)


def test_jpeg_comes_back_nearly():
    for found, clip in zip(read_all(*write_shard(CLIPS, JPEG), JPEG), CLIPS, strict=True):
        assert_same_but_pixels(found, clip)
        difference = np.abs(found.pixels.astype(int) - clip.pixels)
        assert difference.mean() < 1.5
        assert difference.max() < 20
        assert not found.pixels[~clip.valid].any()


def test_jpeg_keeps_colour_at_full_resolution():
    shard, rows = write_shard(CLIPS[:1], JPEG)
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        image = Image.open(tar.extractfile(f"{clip_key(VIDEO, 1)}.000.jpg"))
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    assert rows[0].offset == 0


def test_facts_beside_a_clip():
    clip = CLIPS[0]
    stored = store_clip(clip, PNG)
    assert [position for position, _ in stored.pictures] == SEEN
    assert stored.face_size == pytest.approx(clip.face_size, abs=0.005)
    red, green, blue = clip.pixels[SEEN].reshape(-1, 3).mean(axis=0)
    assert stored.brightness == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=0.01)
    nobody = store_clip(draw_clip(seen=[]), PNG)
    assert (nobody.pictures, nobody.brightness, nobody.face_size) == ((), 0, 0)


@pytest.mark.parametrize("recipe", [JPEG, PNG])
def test_the_same_clips_give_the_same_bytes(recipe):
    assert write_shard(CLIPS, recipe) == write_shard(CLIPS, recipe)


def test_any_reader_of_webdataset_understands_a_shard():
    """That is: it groups by what comes before the first dot, and takes the rest as the field."""
    shard, _ = write_shard(CLIPS, JPEG)
    groups: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(shard), mode="r|") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.uname, member.mode) == (0, 0, "", 0o644)
            key, field = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", member.name).groups()
            groups.setdefault(key, {})[field] = tar.extractfile(member).read()
    assert list(groups) == [clip_key(VIDEO, clip.person) for clip in CLIPS]
    for group, clip in zip(groups.values(), CLIPS, strict=True):
        seen = np.flatnonzero(clip.valid).tolist()
        assert list(group) == ["json", *(f"{n:03d}.jpg" for n in seen)]
        assert json.loads(group["json"])["seen"] == seen
        assert all(Image.open(io.BytesIO(group[f"{n:03d}.jpg"])).size == (SIZE, SIZE) for n in seen)


def test_read_clip_by_one_range(tmp_path):
    shard, rows = write_shard(CLIPS, PNG)
    store = FolderStore(tmp_path)
    store.put_if_absent(SHARD, shard)
    requests = store.requests
    for row, clip in zip(rows, CLIPS, strict=True):
        assert np.array_equal(read_clip(store, row, PNG).pixels, clip.pixels)
    assert (store.requests, store.bytes_read) == (requests + 3, sum(r.size for r in rows))


HOSTILE_NAMES = (
    *("../../etc/passwd", "..", "", "/", "a/", ".mp4", "a" * 300 + ".mp4", "é/ü\u202e.mp4", "-rf"),
    *(
        "\x00\x1b[2J.mp4",
        "a\nb",
        "C:\\a.mp4",
        "con.mp4",
        "x.tar.json",
        "日本/動画.mp4",
        "a b*?.mp4",
    ),
)


@pytest.mark.parametrize("video", HOSTILE_NAMES)
def test_keys_of_hostile_names(video):
    key = clip_key(video, 1)
    assert re.fullmatch(r"[A-Za-z0-9_-]{0,40}-[0-9a-f]{16}_p1", key)


@given(st.text(max_size=400), st.text(max_size=400), st.integers(1, 10**6), st.integers(1, 10**6))
@example("a/x.mp4", "b/x.mp4", 1, 1)
@example("x.mp4", "x.avi", 1, 1)
@example("X.mp4", "x.mp4", 1, 1)
@example("x_p1", "x", 1, 11)
def test_keys_are_safe_and_unique(one, other, person, another):
    key = clip_key(one, person)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key)
    assert len(f"{key}.100000.jpg") <= 100  # what USTAR has room for
    same = (one, person) == (other, another)
    assert (key.lower() == clip_key(other, another).lower()) == same


def test_the_longest_key_fits():
    file = io.BytesIO()
    writer = ShardWriter(file, "jpg")
    pictures = ((99_999, b"x"),)
    key = clip_key("x" * 300, 10**6)
    writer.add(key, dataclasses.replace(store_clip(CLIPS[0], JPEG), pictures=pictures))
    writer.close()
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        assert tar.getnames() == [f"{key}.json", f"{key}.99999.jpg"]


def refusal(data, row, recipe=PNG) -> str:
    with pytest.raises(DataError) as caught:
        parse_clip(data, row, recipe)
    message = str(caught.value)
    assert f"{SHARD}: clip of person {row.person} in {row.video}" in message
    assert "tellframe data verify" in message
    return message


def change(shard, changes) -> bytes:
    """Return the shard with other members: {suffix: content, or None to leave it out}."""
    file = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(shard)) as old,
        tarfile.open(fileobj=file, mode="w") as new,
    ):
        for member in old:
            data = old.extractfile(member).read()
            suffix = member.name.partition(".")[2]
            data = changes.get(suffix, data)
            if callable(data):
                data = data(old.extractfile(member).read())
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    return file.getvalue()


def with_facts(**changes):
    """Return what changes the JSON of a clip; None leaves a key out."""

    def alter(data):
        facts = json.loads(data) | changes
        return json.dumps({k: v for k, v in facts.items() if v is not None}).encode()

    return {"json": alter}


def picture(size, kind="PNG", mode="RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


DAMAGES = {
    "no JSON": {"json": None},
    "bad JSON": {"json": b'{"person": 1'},
    "another JSON": {"json": b"[1, 2]"},
    "binary JSON": {"json": b"\xff\x00"},
    "deep JSON": {"json": b"[" * 100_000},
    "long number": {"json": b'{"person": ' + b"1" * 5000 + b"}"},
    "no picture": {"002.png": None},
    "empty picture": {"002.png": b""},
    "half a picture": {"002.png": lambda data: data[: len(data) // 2]},
    "no picture at all": {"002.png": b"not a picture"},
    "small picture": {"002.png": picture((SIZE - 1, SIZE))},
    "large picture": {"002.png": picture((2 * SIZE, 2 * SIZE))},
    "another format": {"002.png": picture((SIZE, SIZE), "GIF", "P")},
    **{
        f"{name} = {value!r:.30}": with_facts(**{name: value})
        for name, values in {
            "person": [2, None, "1"],
            "seen": [None, [0, 2], [2, 0, 5], [0, 2, 2], [0, 2, 6], [0, 2, -1], [0, 2, 1e400], "x"],
            "times": [None, [], [0.0] * 5, [0.0] * 7, [[0.0]] * 6, ["x"] * 6, [1e400] * 6, 1],
            "boxes": [None, [], [0.0] * 4, [[0.0] * 4] * 2, [[0.0] * 5] * 3, [[1e39] * 4] * 3],
            "landmarks": [None, [[[0.0] * 2] * 4] * 3, [[[float("nan")] * 2] * 5] * 3],
            "confidence": [None, 0.5, [0.5] * 2, [10**400] * 3],
            "recipe_digest": [None],
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told(damage):
    shard, (row,) = write_shard(CLIPS[:1], PNG)
    assert np.array_equal(parse_clip(change(shard, {}), row, PNG).pixels, CLIPS[0].pixels)
    refusal(change(shard, DAMAGES[damage]), row)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_picture_that_unpacks_to_much_is_not_unpacked(side):
    """Pillow warns of the first, and raises at the second."""
    shard, (row,) = write_shard(CLIPS[:1], PNG)
    bomb = change(shard, {"002.png": picture((side, side), mode="1")})
    assert len(bomb) < 200_000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert str(side) in refusal(bomb, row) or "exceeds limit" in refusal(bomb, row)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("offset", n) for n in (-1, 512, 513, 10**6, 2**62)),
        *(("size", n) for n in (-1, 0, 1, 512, 1024, 2**62)),
        *(("video", v) for v in ("other.mp4", "")),
        *(("person", n) for n in (2, -1)),
        *(("frames", n) for n in (0, -1, FRAMES - 1, FRAMES + 1, 2**40)),
        *(("seen", n) for n in (0, 2, 4)),
    ],
)
def test_an_index_that_does_not_fit_is_told(tmp_path, field, value):
    shard, rows = write_shard(CLIPS, PNG)
    store = FolderStore(tmp_path)
    store.put_if_absent(SHARD, shard)
    row = dataclasses.replace(rows[0], **{field: value})
    with pytest.raises(DataError, match=f"{SHARD}: clip of person") as caught:
        read_clip(store, row, PNG)
    assert row.video in str(caught.value)


@pytest.mark.parametrize("recipe", [JPEG, dataclasses.replace(PNG, crop_size=SIZE * 2)])
def test_another_recipe_is_told(recipe):
    shard, (row,) = write_shard(CLIPS[:1], PNG)
    refusal(shard, row, recipe)


def check_bears(data, row, recipe):
    """Either a clip of the right shapes or a DataError: never another exception."""
    try:
        clip = parse_clip(data, row, recipe)
    except DataError:
        return
    assert clip.pixels.shape == (FRAMES, SIZE, SIZE, 3)
    assert (clip.times.shape, clip.boxes.shape) == ((FRAMES,), (FRAMES, 4))
    assert (clip.landmarks.shape, clip.confidence.shape) == ((FRAMES, 5, 2), (FRAMES,))
    assert clip.num_valid == row.seen
    for name in ("times", "boxes", "landmarks", "confidence"):
        assert np.isfinite(getattr(clip, name)).all()


SHARDS = {recipe.crop_format: (recipe, *write_shard(CLIPS[:1], recipe)) for recipe in (JPEG, PNG)}
SOME = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@SOME
@given(
    st.sampled_from(sorted(SHARDS)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_flipped_bytes(kind, flips):
    recipe, shard, (row,) = SHARDS[kind]
    data = bytearray(shard)
    for place, value in flips:
        data[int(place * (row.size - 1))] = value
    check_bears(bytes(data[: row.size]), row, recipe)


@SOME
@given(st.sampled_from(sorted(SHARDS)), st.floats(0, 1), st.floats(0, 1), st.binary(max_size=700))
def test_shifted_and_foreign_bytes(kind, start, end, foreign):
    recipe, shard, (row,) = SHARDS[kind]
    start, end = int(start * len(shard)), int(end * len(shard))
    check_bears(foreign + shard[start:end], row, recipe)


@pytest.mark.parametrize("kind", SHARDS)
def test_every_byte_of_the_headers_and_facts(kind):
    recipe, shard, (row,) = SHARDS[kind]
    length = len(json.dumps(store_clip(CLIPS[0], recipe).facts)) + 1024
    for place in range(0, length, 3):
        for value in (shard[place] ^ 1, 0, 0xFF, ord("e")):
            data = bytearray(shard[: row.size])
            data[place] = value
            check_bears(bytes(data), row, recipe)


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_a_compressed_shard_is_refused(kind):
    """It could unpack to anything."""
    _, (row,) = write_shard(CLIPS[:1], PNG)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{kind}") as new:
        new.addfile(tarfile.TarInfo("a"))
    refusal(file.getvalue(), row)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_links_are_not_followed(kind):
    shard, (row,) = write_shard(CLIPS[:1], PNG)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo(f"{clip_key(VIDEO, 1)}.json")
        info.type, info.linkname = kind, info.name
        tar.addfile(info)
    refusal(file.getvalue() + shard, row)
