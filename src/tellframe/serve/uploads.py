"""Uploads, and what is fetched in their place: streamed to disk, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any, Final

from anyio import to_thread

from tellframe.serve.problems import ProblemError
from tellframe.webfetch import FetchLimits, fetch_link

HEAD: Final = 1024
"""Bytes from the start of a file by which a container is known."""
BLOCK: Final = 2**20
"""Bytes that are gathered before they are written."""
SPARE_BYTES: Final = 64 * 2**20
"""Disk space that uploads leave to the database."""
STALL_SECONDS: Final = 60.0
"""How long a client may send nothing."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete file."""

    bytes: int
    sha256: str


class Folder:
    """Where uploads are.

    Args:
        path: made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        self._path = path

    def path(self, job_id: str) -> Path:
        """Return where the upload of a job is."""
        return self._path / job_id

    def remove(self, job_id: str) -> None:
        """Remove an upload, if it is there."""
        self.path(job_id).unlink(missing_ok=True)

    def sweep(self, known: Callable[[], Collection[str]]) -> int:
        """Remove all files that are no upload of a known job; return how many.

        Args:
            known: asked after the files are listed, so that none that came meanwhile is removed.
        """
        found = list(self._path.iterdir())
        names = set(known())
        strangers = [path for path in found if path.name.removesuffix(".part") not in names]
        for path in strangers:
            path.unlink(missing_ok=True)
        return len(strangers)

    def check_space(self, wanted: int) -> None:
        """Refuse an upload that the disk has no room for.

        Raises:
            ProblemError: storage_full.
        """
        state = os.statvfs(self._path)
        if state.f_bavail * state.f_frsize < wanted + SPARE_BYTES:
            raise ProblemError("storage_full", "Try again later, or tell whoever runs the server.")

    async def receive(self, job_id: str, chunks: AsyncIterator[bytes], most: int) -> Upload:
        """Write an upload to disk; nothing is left of it where that fails.

        Args:
            job_id: of the job that it is for.
            chunks: of the file.
            most: bytes.

        Raises:
            ProblemError: too_large, not_a_video or storage_full.
            ClientDisconnect: whatever else reading raises is passed on.
        """
        with self._new_file(job_id) as file:
            return await _write(file, chunks, most)

    def fetch(
        self,
        job_id: str,
        url: str,
        limits: FetchLimits,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Upload:
        """Write a file from the web to disk; nothing is left of it where that fails.

        Args:
            job_id: of the job that it is for.
            url: of the file.
            limits: what it may cost.
            progress: told how many bytes have come, and how many there are (0: not known).
            cancelled: asked whether to stop.

        Raises:
            ProblemError: not_a_video or storage_full.
            MediaError: as `fetch_link` says.
        """

        def check(done: int, total: int) -> None:
            self.check_space(total - done if total else BLOCK)
            progress(done, total)

        with _keeping(), self._new_file(job_id) as file:
            fetch_link(url, file, limits, progress=check, cancelled=cancelled)
            size = file.tell()
            file.seek(0)
            check_container(file.read(HEAD))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            return Upload(size, digest)

    @contextmanager
    def _new_file(self, job_id: str) -> Iterator[BufferedRandom]:
        """Open a file that gets its name when the body is through.

        Raises:
            ProblemError: storage_full.
        """
        part = self._path / f"{job_id}.part"
        with _keeping():
            file = part.open("w+b")
        try:
            try:
                yield file
            finally:
                with _keeping():
                    file.close()
            with _keeping():
                part.replace(self.path(job_id))
                _sync_folder(self._path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _keeping() -> Iterator[None]:
    """Say of what cannot be written that it could not be kept.

    Raises:
        ProblemError: storage_full.
    """
    try:
        yield
    except OSError as error:
        raise ProblemError(
            "storage_full", f"The video could not be kept: {error.strerror}."
        ) from error


async def awaited(
    chunks: AsyncIterator[bytes], seconds: float = STALL_SECONDS
) -> AsyncIterator[bytes]:
    """Pass on what a client sends.

    Args:
        chunks: of a body.
        seconds: how long none may come.

    Raises:
        ProblemError: upload_stalled.
    """
    iterator = aiter(chunks)
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ProblemError(
                "upload_stalled", f"Nothing came for {seconds:.0f} seconds. Send it again."
            ) from error
        yield chunk


async def _write(file: IO[bytes], chunks: AsyncIterator[bytes], most: int) -> Upload:
    digest, size, block = hashlib.sha256(), 0, bytearray()
    head_checked = False

    @_keeping()
    def store(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise too_large(most)
        block += chunk
        if len(block) >= BLOCK:
            if not head_checked:
                check_container(bytes(block[:HEAD]))
                head_checked = True
            await to_thread.run_sync(store, bytes(block))
            block.clear()
    if not head_checked:
        check_container(bytes(block[:HEAD]))

    @_keeping()
    def complete() -> None:
        store(bytes(block))
        file.flush()
        os.fsync(file.fileno())

    await to_thread.run_sync(complete)
    return Upload(size, digest.hexdigest())


def too_large(most: int) -> ProblemError:
    """Return the problem of an upload of more than `most` bytes."""
    text = f"{most / 2**20:.0f} MiB" if most >= 2**20 else f"{most} bytes"
    return ProblemError(
        "too_large", f"At most {text} are taken. Cut the video, or send a smaller copy."
    )


def check_container(head: bytes) -> None:
    """Refuse what does not begin as a video does.

    A cheap look at the first bytes: what really is in the file is found out by the worker.

    Args:
        head: the first bytes of the file, up to `HEAD`.

    Raises:
        ProblemError: not_a_video.
    """
    if not head:
        raise ProblemError("not_a_video", "The file is empty.")
    if not any(head[at : at + len(mark)] == mark for at, mark in _MARKS) and not _is_mpeg(head):
        raise ProblemError(
            "not_a_video",
            "It does not begin as a video file does. MP4, MOV, MKV, WebM, AVI and other common "
            "containers are taken.",
        )


_MARKS: Final = (
    *((4, mark) for mark in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),  # MP4
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "),
    (0, b"FLV"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF, WMV
    (0, b"OggS"),
    (0, b"DKIF"),  # IVF
    (0, b"YUV4MPEG2"),
    (0, b"\x06\x0e\x2b\x34"),  # MXF
    (0, b"\x00\x00\x01"),  # MPEG, H.264 and HEVC streams
    (0, b"\x00\x00\x00\x01"),
    (0, b"\x12\x00"),  # AV1 in OBUs: a temporal delimiter
)
"""Where containers have their marks, and which."""


def _is_mpeg(head: bytes) -> bool:
    """Tell whether these are packets of an MPEG transport stream, with time stamps or without."""
    return any(
        len(head) > start + 2 * step and all(head[start + i * step] == 0x47 for i in range(3))
        for start, step in ((0, 188), (4, 192), (0, 204))
    )


def _sync_folder(path: Path) -> None:
    """Make a rename last through a power cut."""
    handle: Any = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
