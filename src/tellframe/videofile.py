"""An open video file: opened once, checked, and read through its descriptor from then on.

What is checked, hashed and decoded is the same file, whatever happens to its name meanwhile; and
a worker that may open nothing can read what it was given.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from tellframe.errors import MediaNotFoundError

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A regular file that is open for reading."""

    name: str
    """Path as given by the caller; stands for the file in messages."""
    descriptor: int
    """Its offset is neither used nor changed."""

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return os.fstat(self.descriptor).st_size

    def hash(self) -> str:
        """Return the SHA-256 of its content as hex digits.

        Raises:
            OSError: it cannot be read.
        """
        digest, position = hashlib.sha256(), 0
        buffer = bytearray(_CHUNK)
        while count := os.preadv(self.descriptor, [buffer], position):
            digest.update(memoryview(buffer)[:count])
            position += count
        return digest.hexdigest()


class Reader:
    """What PyAV takes for a file: reads a `VideoFile` from a position of its own."""

    def __init__(self, file: VideoFile) -> None:
        # The decoder looks at the suffix, and must not take the rest for an address.
        self.name = PurePath(file.name).name
        self._descriptor, self._size = file.descriptor, file.size
        self._position = 0

    def read(self, count: int = -1) -> bytes:
        """Return up to so many bytes; empty at the end."""
        left = max(self._size - self._position, 0)
        data = os.pread(self._descriptor, count if count >= 0 else left, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; return it, or a negative number where there is no such place.

        Damaged files lead there, and FFmpeg goes on; an exception would be raised later by PyAV.
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            return -errno.EINVAL
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


@contextmanager
def open_video_file(source: str | Path | VideoFile) -> Iterator[VideoFile]:
    """Open a file; close it at the end, unless it was open before.

    Raises:
        MediaNotFoundError: there is no such regular, readable file.
    """
    if isinstance(source, VideoFile):
        yield source
        return
    file = _open_regular(source)
    try:
        yield file
    finally:
        os.close(file.descriptor)


def _open_regular(path: str | Path) -> VideoFile:
    try:
        # Before it is opened, because to open a device can act on it.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise MediaNotFoundError(f"{path}: not a regular file; give a video file")
        # It may have become a pipe meanwhile, which would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaNotFoundError(f"{path}: cannot be read ({reason}); check the path") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MediaNotFoundError(f"{path}: not a regular file; give a video file")
    return VideoFile(str(path), descriptor)
