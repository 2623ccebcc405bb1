"""Zips read in place: what is fetched, how large they may be, and what hostile ones may not do."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe.data import zips
from tellframe.data.zips import list_members, read_member
from tellframe.errors import DataError, StoreError
from tellframe.limits import ArchiveLimits
from tellframe.store import FolderStore

DIRECTORY, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def make_zip(files, compression=zipfile.ZIP_STORED, comment=b""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def patch(data, mark, offset, content):
    """Overwrite bytes at an offset from the first occurrence of a record's mark."""
    at = data.index(mark) + offset
    return data[:at] + content + data[at + len(content) :]


def read_all(folder, data):
    (folder / "a.zip").write_bytes(data)
    store = FolderStore(folder)
    return {m.name: read_member(store, "a.zip", m) for m in list_members(store, "a.zip")}


FILES = {"part/a.mp4": b"a" * 1000, "part/b.mp4": bytes(range(256)) * 9, "metadata.json": b"{}"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(make_zip(FILES), id="stored"),
        pytest.param(make_zip(FILES, zipfile.ZIP_DEFLATED), id="deflated"),
        pytest.param(make_zip(FILES, comment=b"x" * 40_000), id="long comment"),
        pytest.param(b"#!/bin/sh\n" * 99 + make_zip(FILES), id="something before it"),
        pytest.param(make_zip({"part/": b"", **FILES}), id="folders are no members"),
    ],
)
def test_members_are_read(tmp_path, data):
    assert read_all(tmp_path, data) == FILES


def test_zip_of_more_than_four_gigabytes(tmp_path):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first.mp4", b"first")
        for gigabytes in (5, 6):
            archive.start_dir = gigabytes * 2**30  # a hole, which takes no room
            archive.writestr(f"{gigabytes}.mp4", b"%d" % gigabytes * 1000)
    store = FolderStore(tmp_path)
    members = list_members(store, path.name)
    assert [m.offset for m in members] == [0, 5 * 2**30, 6 * 2**30]
    assert [read_member(store, path.name, m) for m in members] == [
        b"first",
        b"5" * 1000,
        b"6" * 1000,
    ]
    assert store.bytes_read < 300_000
    assert path.stat().st_blocks * 512 < 2**20


def test_little_more_is_fetched_than_what_is_read(tmp_path):
    files = {f"{i}.mp4": bytes([i]) * 100_000 for i in range(40)}
    data = make_zip(files)
    (tmp_path / "a.zip").write_bytes(data)
    store = FolderStore(tmp_path)
    members = list_members(store, "a.zip")
    assert store.requests == 2
    assert {m.name: read_member(store, "a.zip", m) for m in members} == files
    assert store.bytes_read <= 1.05 * len(data)
    assert store.requests == 2 + len(files)


def test_directory_longer_than_the_tail_is_read_once(tmp_path):
    data = make_zip({f"{'long/' * 20}{i}.mp4": b"x" for i in range(1000)})
    directory = len(data) - data.index(DIRECTORY)
    assert directory > 3 * zips.TAIL
    (tmp_path / "a.zip").write_bytes(data)
    store = FolderStore(tmp_path)
    assert len(list_members(store, "a.zip")) == 1000
    assert store.requests == 3
    assert store.bytes_read <= directory + 100


ONE = make_zip({"a.mp4": b"video" * 100})
ENCRYPTED = patch(patch(ONE, LOCAL, 6, b"\x01\x00"), DIRECTORY, 8, b"\x01\x00")
BOMB = make_zip({"a.mp4": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "not a zip", id="empty"),
        pytest.param(b"PK", "not a zip", id="two bytes"),
        pytest.param(b"no zip" * 1000, "not a zip", id="no zip"),
        pytest.param(ONE[:-30], "not a zip", id="cut in the directory"),
        pytest.param(ONE[: len(ONE) // 2], "not a zip", id="cut in half"),
        pytest.param(ONE.replace(b"video", b"vidio", 1), "wrong size or checksum", id="checksum"),
        pytest.param(ENCRYPTED, "encrypted", id="encrypted"),
        pytest.param(make_zip({"a": b"x"}, zipfile.ZIP_LZMA), "compression 14", id="lzma"),
        pytest.param(BOMB, "200 times its size", id="bomb"),
        pytest.param(patch(BOMB, DIRECTORY, 24, b"\xff\xff\x01\x00"), "wrong size", id="lies"),
        pytest.param(patch(ONE, LOCAL, 0, b"XX"), "header is damaged", id="local header"),
        pytest.param(patch(ONE, LOCAL, 28, b"\xff\xff"), "wrong size", id="long extra field"),
        pytest.param(
            patch(make_zip(FILES, zipfile.ZIP_DEFLATED), LOCAL, 40, b"\xff" * 4),
            "is damaged",
            id="deflate stream",
        ),
        pytest.param(patch(ONE, DIRECTORY, 42, b"\xf0\xff\xff\x7f"), "outside", id="far offset"),
        pytest.param(patch(ONE, END, 16, b"\xf0\xff\xff\x7f"), "outside", id="negative offset"),
        pytest.param(patch(ONE, END, 12, b"\xf0\xff\xff\x7f"), "not a zip", id="huge directory"),
        pytest.param(patch(ONE, DIRECTORY, 0, b"XX"), "not a zip", id="directory"),
    ],
)
def test_what_is_damaged_or_hostile_is_refused(tmp_path, data, words):
    with pytest.raises(DataError, match=words) as caught:
        read_all(tmp_path, data)
    assert "a.zip" in str(caught.value)


def test_a_bomb_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "a.zip").write_bytes(BOMB)
    store = FolderStore(tmp_path)
    (member,) = list_members(store, "a.zip")
    before = store.bytes_read
    with pytest.raises(DataError, match="refused"):
        read_member(store, "a.zip", member)
    assert store.bytes_read == before


def test_a_directory_of_absurd_length_is_not_read(tmp_path):
    limits = ArchiveLimits(zip_directory=10_000)
    data = make_zip({f"{'long/' * 20}{i}.mp4": b"x" for i in range(1000)})
    (tmp_path / "a.zip").write_bytes(data)
    store = FolderStore(tmp_path)
    with pytest.raises(DataError, match="directory of more than 10000 bytes; see --max-zip"):
        list_members(store, "a.zip", limits)
    assert store.bytes_read == zips.TAIL
    with pytest.raises(DataError, match="1000 entries, more than the limit of 999; see --max-zip"):
        list_members(store, "a.zip", ArchiveLimits(zip_entries=999))
    assert len(list_members(store, "a.zip", ArchiveLimits(zip_entries=1000))) == 1000


def test_limits_of_members_are_kept_to_the_byte(tmp_path):
    data = make_zip({"a.mp4": b"x" * 100_000}, zipfile.ZIP_DEFLATED)
    (tmp_path / "a.zip").write_bytes(data)
    store = FolderStore(tmp_path)
    (member,) = list_members(store, "a.zip")
    ratio = member.bytes / member.extent
    for limits in (ArchiveLimits(zip_ratio=1e4, zip_bytes=100_000), ArchiveLimits(zip_ratio=1e4)):
        assert read_member(store, "a.zip", member, limits) == b"x" * 100_000
    with pytest.raises(DataError, match=r"a\.zip:a\.mp4: .* limit of 99999; .*--max-zip-bytes"):
        read_member(store, "a.zip", member, ArchiveLimits(zip_ratio=1e4, zip_bytes=99_999))
    with pytest.raises(DataError, match=r"a\.zip:a\.mp4: .*--max-zip-ratio"):
        read_member(store, "a.zip", member, ArchiveLimits(zip_ratio=ratio * 0.999))
    assert read_member(store, "a.zip", member, ArchiveLimits(zip_ratio=ratio * 1.001))


def test_a_size_that_no_file_has_is_refused(tmp_path):
    name = b"a.mp4"
    extra = struct.pack("<HHQQ", 1, 16, 2**63, 500)
    entry = struct.pack(
        "<4s4B4HL2L5H2L", DIRECTORY, 45, 3, 45, 0, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF,
        len(name), len(extra), 0, 0, 0, 0, 0,
    )  # fmt: skip
    data = b"x" * 99 + entry + name + extra
    data += struct.pack("<4s4H2LH", END, 0, 0, 1, 1, len(data) - 99, 99, 0)
    with pytest.raises(DataError, match="outside"):
        read_all(tmp_path, data)


def test_a_name_with_a_zero_byte_is_kept_whole(tmp_path):
    data = make_zip({"a.mp4_x": b"1"}).replace(b"a.mp4_x", b"a.mp4\0x")
    assert list(read_all(tmp_path, data)) == ["a.mp4\0x"]


def test_no_such_zip(tmp_path):
    with pytest.raises(StoreError) as caught:
        list_members(FolderStore(tmp_path), "a.zip")
    assert caught.value.missing


BASE = make_zip({"a.mp4": b"video" * 9, "b/c.mp4": b"x" * 99}, zipfile.ZIP_DEFLATED)


@settings(max_examples=300)
@given(
    changes=st.dictionaries(
        st.integers(0, len(BASE) - 1), st.integers(0, 255), min_size=1, max_size=6
    ),
    cut=st.integers(0, 30),
)
def test_no_damage_gets_past_the_checks(tmp_path_factory, changes, cut):
    data = bytearray(BASE)
    for at, value in changes.items():
        data[at] = value
    folder = tmp_path_factory.getbasetemp()
    Path(folder / "a.zip").write_bytes(data[: len(data) - cut])
    store = FolderStore(folder)
    try:
        members = list_members(store, "a.zip")
    except DataError:
        return
    for member in members:
        try:
            content = read_member(store, "a.zip", member)
        except DataError:
            continue
        assert len(content) == member.bytes
    assert store.bytes_read < 10 * len(BASE)


def test_an_empty_zip_has_no_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert list_members(FolderStore(tmp_path), "empty.zip") == []
