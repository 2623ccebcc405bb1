"""Bring a video of a manifest within reach of the decoder, wherever it lies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from tellframe.data.manifest import Video
from tellframe.data.zips import Member, read_member
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits
from tellframe.store import Store, is_remote, open_store, split_location
from tellframe.videofile import open_video_file


@contextmanager
def open_video(
    video: Video, endpoint: str = "", limits: ArchiveLimits = ARCHIVE_LIMITS
) -> Iterator[str]:
    """Yield a local path to a video; nothing of it is left behind, even by a killed process.

    A loose local file is read where it lies. Others come into memory by one ranged read.

    Raises:
        StoreError: it cannot be read.
        DataError: it is damaged within its zip, or unpacks to more than the limits allow.
    """
    if not video.member and not is_remote(video.location):
        yield video.location
        return
    with _in_memory(_fetch(video, endpoint, limits)) as path:
        yield path


@contextmanager
def open_descriptor(
    video: Video, endpoint: str = "", limits: ArchiveLimits = ARCHIVE_LIMITS
) -> Iterator[int]:
    """Yield a descriptor of a video, for a worker that may open nothing itself.

    Raises:
        MediaNotFoundError: it is no regular file that can be read.
        StoreError: it cannot be read.
        DataError: it is damaged within its zip, or unpacks to more than the limits allow.
    """
    with open_video(video, endpoint, limits) as path, open_video_file(path) as file:
        yield file.descriptor


def _fetch(video: Video, endpoint: str, limits: ArchiveLimits) -> bytes:
    place, key = split_location(video.location)
    store = _open_store(place, endpoint)
    if not video.member:
        return store.get(key)
    return read_member(store, key, member_of(video), limits)


def member_of(video: Video) -> Member:
    """Return where a video lies within its zip."""
    return Member(
        name=video.member,
        offset=video.offset,
        extent=video.extent,
        bytes=video.bytes,
        crc=video.crc or 0,
        compression=video.compression,
        encrypted=video.encrypted,
    )


@lru_cache(maxsize=64)
def _open_store(place: str, endpoint: str) -> Store:
    """Keep connections open from one video to the next."""
    return open_store(place, endpoint)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Yield a path under which the decoder can read the bytes."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("video")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            del content  # one copy is enough
            yield f"/proc/self/fd/{descriptor}"
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        path.write_bytes(content)
        yield str(path)
