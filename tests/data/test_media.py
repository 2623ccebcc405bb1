"""Videos within reach: loose ones where they lie, the rest in memory, and nothing left behind."""

from __future__ import annotations

import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from tellframe.data.manifest import Video
from tellframe.data.media import open_video
from tellframe.data.zips import list_members
from tellframe.errors import DataError, MediaNotFoundError, MissingExtraError, StoreError
from tellframe.store import FolderStore, open_store
from tellframe.video import list_frames

CONTENT = bytes(range(256)) * 40
ZIPS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def make_zip(path: Path, compression: int = zipfile.ZIP_STORED, content: bytes = CONTENT) -> Video:
    """Write a zip with a video between others; return the video as a manifest has it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("0.mp4", b"before")
        archive.writestr("set/é b.mp4", content)
        archive.writestr("9.mp4", b"after")
    (member,) = (m for m in list_members(FolderStore(path.parent), path.name) if m.bytes > 9)
    return Video(
        video="v",
        location=str(path),
        member=member.name,
        offset=member.offset,
        extent=member.extent,
        compression=member.compression,
        bytes=member.bytes,
        crc=member.crc,
    )


def read(video: Video) -> bytes:
    with open_video(video) as path:
        return Path(path).read_bytes()


def test_a_loose_file_is_read_where_it_lies(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(CONTENT)
    with open_video(Video("a", str(path))) as found:
        assert found == str(path)
    assert path.read_bytes() == CONTENT


def test_a_loose_file_that_is_missing_is_told_by_the_decoder(tmp_path):
    gone = Video("a", str(tmp_path / "a.mp4"))
    with open_video(gone) as path, pytest.raises(MediaNotFoundError):
        list_frames(path)


@pytest.mark.parametrize("kind", ZIPS)
def test_a_member_of_a_zip(tmp_path, kind):
    video = make_zip(tmp_path / "a.zip", ZIPS[kind])
    assert video.compression == ZIPS[kind]
    with open_video(video) as path:
        for _ in range(2):  # it may be opened more than once
            assert Path(path).read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", ZIPS)
def test_the_decoder_reads_a_member(tmp_path, samples, kind):
    sample = samples / "real.mp4"
    video = make_zip(tmp_path / "a.zip", ZIPS[kind], sample.read_bytes())
    with open_video(video) as path:
        found = list_frames(path)
    assert list(found.times) == list(list_frames(sample).times)
    assert (found.media.bytes, found.media.sha256) == (
        sample.stat().st_size,
        list_frames(sample).media.sha256,
    )


def test_a_video_in_a_bucket(bucket, tmp_path):
    make_zip(tmp_path / "a.zip", zipfile.ZIP_DEFLATED)
    store = open_store(bucket)
    store.put_if_absent("loose.mp4", CONTENT)
    store.put_if_absent("zips/a.zip", (tmp_path / "a.zip").read_bytes())
    (member,) = (m for m in list_members(store, "zips/a.zip") if m.bytes > 9)
    facts = {n: getattr(member, n) for n in ("offset", "extent", "compression", "bytes", "crc")}
    zipped = Video("v", f"{bucket}/zips/a.zip", member.name, **facts)
    assert read(Video("v", f"{bucket}/loose.mp4")) == read(zipped) == CONTENT
    for location in (f"{bucket}/gone.mp4", "s3://no-such-bucket/a.mp4"):
        with pytest.raises(StoreError, match="no such key or bucket") as caught:
            read(Video("v", location))
        assert caught.value.missing


def test_nothing_is_left_after_many(tmp_path):
    videos = [make_zip(tmp_path / f"{name}.zip", kind) for name, kind in ZIPS.items()]
    for video in videos * 100:
        assert len(read(video)) == len(CONTENT)
        with pytest.raises(KeyError), open_video(video):
            raise KeyError
    opened = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [name for name in opened if "memfd:video" in name or str(tmp_path) in name]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_bytes_are_held_once(tmp_path):
    video = make_zip(tmp_path / "a.zip", content=bytes(20_000_000))
    tracemalloc.start()
    try:
        with open_video(video):
            assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_without_files_in_memory(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with open_video(make_zip(tmp_path / "a.zip")) as path:
        assert Path(path).read_bytes() == CONTENT
    assert not Path(path).parent.exists()


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    match how:
        case "gone":
            path.unlink()
            return
        case "cut off":
            del data[200:]
        case "empty":
            data.clear()
        case "flipped":
            data[data.index(CONTENT[:256]) + 300] ^= 1
        case "moved":
            data[:0] = b"x" * 50
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("gone", StoreError, r"a\.zip: cannot be read"),
        ("cut off", DataError, r"a\.zip:set/é b\.mp4: .*damaged"),
        ("empty", DataError, r"a\.zip:set/é b\.mp4: .*damaged"),
        ("flipped", DataError, r"a\.zip:set/é b\.mp4: .*checksum"),
        ("moved", DataError, r"a\.zip:set/é b\.mp4: .*changed since it was indexed"),
    ],
)
def test_damage_is_told(tmp_path, how, kind, text):
    video = make_zip(tmp_path / "a.zip")
    damage(tmp_path / "a.zip", how)
    with pytest.raises(kind, match=text) as caught:
        read(video)
    assert getattr(caught.value, "missing", how == "gone") == (how == "gone")


def test_a_zip_in_a_bucket_that_was_cut_off(bucket, tmp_path):
    video = make_zip(tmp_path / "a.zip")
    open_store(bucket).put_if_absent("a.zip", (tmp_path / "a.zip").read_bytes()[:20])
    facts = {n: getattr(video, n) for n in ("member", "offset", "extent", "bytes", "crc")}
    with pytest.raises(DataError, match="damaged"):
        read(Video("v", f"{bucket}/a.zip", **facts))


def test_a_bucket_without_obstore(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"tellframe\[data\]"):
        read(Video("v", "s3://another/a.mp4"))
