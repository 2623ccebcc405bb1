"""What `tellframe detect` is given: files, folders, web links, places in object stores.

What lies elsewhere is fetched into a file without a name, a few ahead of the one that is judged,
so that little disk is used, and nothing is left of it however the process ends.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from tellframe.errors import (
    FetchError,
    LimitError,
    MediaError,
    MediaNotFoundError,
    StoreError,
)
from tellframe.store import Store, is_remote, open_store, split_location
from tellframe.webfetch import FetchLimits, fetch_link
from tellframe.weblink import is_link, show_link

if TYPE_CHECKING:
    from tellframe.detector import Detector
    from tellframe.types import Verdict

AHEAD: Final = 2
"""Videos that are fetched while another one is judged."""
CHUNK: Final = 4 * 2**20
"""Bytes of an object that are asked for at once."""
COMPANIONS: Final = frozenset(
    ".ass .csv .db .flac .gif .htm .html .ini .jpeg .jpg .json .jsonl .log .md .md5 .mp3 .ndjson "  # noqa: SIM905
    ".parquet .pdf .png .sha256 .srt .tsv .txt .vtt .wav .webp .xml .yaml .yml".split()
)
"""Ends of the names of what often lies beside videos and is none: not worth a word."""
Fetch = Callable[[IO[bytes], Callable[[], bool]], None]
"""Writes a video into a file; asks the second argument whether to stop. Raises MediaError where
that is the video's fault, and StoreError where the store does not answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """One video, wherever it lies."""

    name: str
    """What it is called in the verdict; the path of a local file."""
    fetch: Fetch | None = None
    """How to get it, where it is no local file."""
    in_folder: bool = False
    """Whether it was found in a local folder, and may still be on its way there."""
    is_place: bool = False
    """Whether it stands for a place where there is no video."""


def find_sources(
    inputs: Iterable[str],
    limits: FetchLimits,
    endpoint: str = "",
    tell: Callable[[str, int], None] = lambda _place, _count: None,
) -> list[Source]:
    """Return the videos that inputs stand for; folders and prefixes are searched by suffix.

    Args:
        inputs: files, folders, http and https links, addresses as s3://bucket/prefix.
        limits: of what is fetched.
        endpoint: as for `tellframe.store.open_store`.
        tell: called with a folder or prefix and the number of files there that may be videos, but
            are passed over for their names.

    Raises:
        MissingExtraError: obstore is not installed.
        StoreError: a place cannot be listed, or the store of an object does not answer.
        UsageError: an address is none.
    """
    found: list[Source] = []
    for name in inputs:
        if is_link(name):
            found.append(_from_link(name, limits))
        elif is_remote(name):
            found += _from_store(name, limits, endpoint, tell)
        elif is_folder(name):
            found += _from_folder(name, tell)
        else:
            found.append(Source(name))
    return found


def is_folder(name: str) -> bool:
    """Tell whether a name is that of a folder; one that cannot be looked at is none."""
    return os.path.isdir(name)  # noqa: PTH112 (Path.is_dir raises at names too long or locked away)


def list_folder(folder: str) -> tuple[list[str], int, list[OSError]]:
    """Search a folder by suffix.

    Returns:
        The videos below it, sorted; how many files were passed over for their names; why folders
        cannot be read.
    """
    errors: list[OSError] = []

    def note(error: OSError) -> None:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        if not gone or error.filename == folder:  # one below it may go at any time
            errors.append(error)

    walk = os.walk(folder, onerror=note)
    paths = [Path(at, name) for at, _, names in walk for name in names]
    passed_over = sum(_is_passed_over(path.relative_to(folder)) for path in paths)
    return sorted(str(path) for path in paths if _is_video(path)), passed_over, errors


def _is_video(path: PurePath) -> bool:
    from tellframe.video import VIDEO_SUFFIXES

    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_passed_over(path: PurePath) -> bool:
    """Tell whether a file may be a video, though its name does not say so.

    Args:
        path: below the folder that is searched; hidden folders are passed over without a word.
    """
    hidden = any(part.startswith(".") for part in path.parts)
    return not (hidden or _is_video(path) or path.suffix.lower() in COMPANIONS)


def find_videos(
    inputs: Iterable[str], tell: Callable[[str, int], None] = lambda _place, _count: None
) -> list[str]:
    """Expand folders to the videos below them, or keep them where there is none; keep other names.

    Args:
        inputs: files and folders.
        tell: as for `find_sources`.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    for name in inputs:
        paths, passed_over, errors = list_folder(name) if is_folder(name) else ([name], 0, [])
        if errors:
            raise errors[0]
        if passed_over:
            tell(name, passed_over)
        found += paths or [name]
    return found


def _from_folder(folder: str, tell: Callable[[str, int], None]) -> list[Source]:
    """List the videos below a folder, and the folders there that cannot be read."""
    paths, passed_over, errors = list_folder(folder)
    if passed_over:
        tell(folder, passed_over)
    found = [Source(path, in_folder=True) for path in paths]
    for error in errors:
        name = str(Path(error.filename or folder))
        reason = f"{name}: cannot be read ({error.strerror or error}); check its rights"
        found.append(Source(name, _failing(MediaNotFoundError(reason))))
    empty = _failing(MediaNotFoundError(f"{folder}: holds no video; check the folder"))
    return sorted(found, key=lambda source: source.name) or [Source(folder, empty, is_place=True)]


def _from_link(url: str, limits: FetchLimits) -> Source:
    return Source(
        show_link(url), lambda file, cancelled: fetch_link(url, file, limits, cancelled=cancelled)
    )


def _from_store(
    location: str, limits: FetchLimits, endpoint: str, tell: Callable[[str, int], None]
) -> list[Source]:
    """List the videos under a prefix, or take a single one, which may be gone."""
    bucket, single = split_location(location)
    if _is_video(PurePosixPath(single)):
        store = open_store(bucket, endpoint)
        try:
            size = store.size(single)
        except StoreError as error:
            if not (error.missing or error.denied):  # it says nothing about this video
                raise
            return [Source(store.name(single), _failing(FetchError(str(error))))]
        return [_from_key(store, single, size, limits)]
    store = open_store(location, endpoint)
    files = store.list_files()
    if passed_over := sum(_is_passed_over(PurePosixPath(key)) for key in files):
        tell(store.url, passed_over)
    videos = [key for key in files if _is_video(PurePosixPath(key))]
    return [_from_key(store, key, files[key], limits) for key in videos] or [
        Source(
            store.url,
            _failing(MediaNotFoundError(f"{store.url}: holds no video; check bucket and prefix")),
            is_place=True,
        )
    ]


def _failing(error: MediaError) -> Fetch:
    def fetch(_file: IO[bytes], _cancelled: Callable[[], bool]) -> None:
        raise error

    return fetch


def _from_key(store: Store, key: str, size: int, limits: FetchLimits) -> Source:
    name = store.name(key)

    def fetch(file: IO[bytes], cancelled: Callable[[], bool]) -> None:
        if size > limits.bytes:
            raise LimitError(f"{name}: has {size} bytes; allow more than {limits.bytes}")
        try:
            for start in range(0, size, CHUNK):
                if cancelled():
                    raise FetchError(f"{name}: was not fetched, because nobody wants it any more")
                file.write(store.get_range(key, start, min(CHUNK, size - start)))
        except StoreError as error:
            if error.missing or error.denied:
                raise FetchError(str(error)) from error
            raise  # it says nothing about this video
        if file.tell() != size:
            raise FetchError(f"{name}: changed while it was read; judge it again")

    return Source(name, fetch)


def judge_sources(detector: Detector, sources: Iterable[Source]) -> Generator[Verdict, None, None]:
    """Judge videos in order; fetch those that lie elsewhere a few ahead, and forget them after.

    Raises:
        StoreError: an object store does not answer; all verdicts before it were given.
    """
    handed: deque[_Held] = deque()
    with closing(_fetch_ahead(sources)) as fetched:

        def paths() -> Iterator[str]:
            for held in fetched:
                handed.append(held)
                yield held.path

        try:
            for verdict in detector.detect_many(paths()):
                with closing(handed.popleft()) as held:
                    yield held.name_verdict(verdict)
        finally:
            for held in handed:
                held.close()


class _Held:
    """A video that can be read: a local file, or one that was fetched, or failed to be.

    Args:
        source: the video.
        cancelled: asked whether to stop fetching.

    Raises:
        StoreError: an object store does not answer.
    """

    def __init__(self, source: Source, cancelled: Callable[[], bool]) -> None:
        self._source, self._error = source, ""
        self._file: IO[bytes] | None = None
        self.path = source.name
        """For the detector."""
        if source.fetch is None:
            return
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        try:
            source.fetch(self._file, cancelled)
            self._file.flush()
            self.path = f"/proc/self/fd/{self._file.fileno()}"
        except MediaError as error:
            self._error, self.path = str(error), os.devnull  # which is no video
            self.close()
        except BaseException:
            self.close()
            raise

    def name_verdict(self, verdict: Verdict) -> Verdict:
        """Return the verdict on `path` as one on the source."""
        name = self._source.name
        error = self._error or (verdict.error and verdict.error.replace(self.path, name))
        media = verdict.media and dataclasses.replace(verdict.media, path=name)
        return dataclasses.replace(verdict, video=name, media=media, error=error)

    def close(self) -> None:
        """Let go of what was fetched."""
        if self._file:
            self._file.close()


def _fetch_ahead(sources: Iterable[Source]) -> Generator[_Held, None, None]:
    stop = threading.Event()
    pending: deque[Future[_Held]] = deque()
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch") as pool:
        try:
            for source in sources:
                pending.append(pool.submit(_Held, source, stop.is_set))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            stop.set()
            for future in pending:
                future.add_done_callback(_let_go)
                future.cancel()


def _let_go(future: Future[_Held]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
