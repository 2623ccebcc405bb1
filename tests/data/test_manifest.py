"""The manifest: what is written is what is read, and no group is on two sides of a split."""

from __future__ import annotations

import io
import threading
from typing import ClassVar

import pytest

from tellframe.errors import DataError, LeakError

pa = pytest.importorskip("pyarrow")

from tellframe.data.manifest import (  # noqa: E402
    Video,
    read_manifest,
    read_parquet,
    require_no_leak,
    write_manifest,
)

VIDEOS = [
    Video("b/ö.mp4", "/data/b.zip", "b/ö.mp4", 2**33, 5000, 8, True, 4000, 2**32 - 1, "FAKE"),
    Video("a.mp4", "s3://bucket/a.mp4", bytes=7, group="g", split="test"),
]


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "m.parquet"
    write_manifest(VIDEOS, path)
    assert read_manifest(path) == sorted(VIDEOS, key=lambda v: v.video)
    assert [p.name for p in path.parent.iterdir()] == ["m.parquet"]


def test_same_videos_give_the_same_bytes(tmp_path):
    write_manifest(VIDEOS, tmp_path / "a")
    write_manifest(reversed(VIDEOS), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_reading_is_done_by_the_thread_that_asks(tmp_path):
    """One of Arrow's own, that still held memory of Python's at its end, aborted the process."""
    write_manifest([Video(f"{n}", "a.mp4") for n in range(1000)], tmp_path / "m.parquet")

    class Watched(io.BytesIO):
        threads: ClassVar = set()

        def read(self, *size):
            self.threads.add(threading.get_ident())
            return super().read(*size)

    read_parquet(Watched((tmp_path / "m.parquet").read_bytes()))
    assert Watched.threads == {threading.get_ident()}


def test_no_videos(tmp_path):
    write_manifest([], tmp_path / "a")
    assert read_manifest(tmp_path / "a") == []


def test_what_is_no_manifest_is_refused(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(DataError, match=r"m\.parquet"):
        read_manifest(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_manifest(path)
    table = pa.table({"video": ["a"]})
    pa.parquet.write_table(table, path)
    with pytest.raises(DataError, match="no manifest of format 1"):
        read_manifest(path)
    pa.parquet.write_table(table.replace_schema_metadata({"tellframe_manifest": "1"}), path)
    with pytest.raises(DataError, match="lacks the columns"):
        read_manifest(path)


def test_labels():
    assert [Video("a", "a", label=x).fake for x in ("REAL", "FAKE", "")] == [False, True, None]


@pytest.mark.parametrize(
    ("rows", "leaks"),
    [
        ([("g", "train"), ("g", "train"), ("h", "test")], False),
        ([("g", "train"), ("g", "test")], True),
        ([("g", "train"), ("g", ""), ("g", "train")], False),
        ([("g", ""), ("g", "train"), ("g", "test")], True),
        ([("", "train"), ("", "test")], False),
    ],
)
def test_leaks(rows, leaks):
    videos = [Video(f"{i}.mp4", "", group=g, split=s) for i, (g, s) in enumerate(rows)]
    if not leaks:
        require_no_leak(videos)
        return
    with pytest.raises(LeakError) as caught:
        require_no_leak(videos)
    assert videos[-1].video in str(caught.value)
    assert "'train'" in str(caught.value)
    assert "'test'" in str(caught.value)
