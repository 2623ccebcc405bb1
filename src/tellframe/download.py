"""Fetch a file once into the user's cache and check what came."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Final

from tellframe.errors import DownloadError

CACHE_VARIABLE: Final = "TELLFRAME_CACHE"
"""Environment variable with the folder of the cache."""

_CHUNK: Final = 1 << 16


def cache_folder() -> Path:
    """Return `$TELLFRAME_CACHE`, or `~/.cache/tellframe`; the folder need not exist."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "tellframe"


def fetch(
    url: str,
    sha256: str | None,
    *,
    cache_name: str,
    max_bytes: int = 1 << 30,
    timeout: float = 30.0,
    deadline: float = 1800.0,
) -> Path:
    """Return the cached copy of a file, fetching it first where there is no good one.

    Args:
        url: http or https address.
        sha256: expected hex digest; None takes whatever comes, and whatever lies in the cache.
        cache_name: file name, or relative path, inside the cache.
        max_bytes: larger files are refused.
        timeout: seconds that the server may stay silent.
        deadline: seconds that the whole transfer may take.

    Returns:
        The path of the complete, checked file.

    Raises:
        DownloadError: the file cannot be fetched or written, is too large, or is not the one
            expected; the cache is left as it was.
    """
    target = cache_folder() / cache_name
    try:
        if target.is_file() and (sha256 is None or _digest(target) == sha256):
            return target
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise _RefusedError("only http and https addresses are fetched")
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch_into(target, url, sha256, max_bytes, timeout, time.monotonic() + deadline)
    except (OSError, ValueError, http.client.HTTPException, _RefusedError) as error:
        digest = f" (sha256 {sha256})" if sha256 else ""
        raise DownloadError(
            f"{url}: cannot be fetched: {error}. Without a connection, fetch the file{digest} "
            f"on another machine and put it at {target}"
        ) from error
    return target


class _RefusedError(Exception):
    """What came from the server is not wanted."""


def _fetch_into(
    target: Path, url: str, sha256: str | None, max_bytes: int, timeout: float, until: float
) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "tellframe"})
        with (
            os.fdopen(descriptor, "wb") as file,
            urllib.request.urlopen(request, timeout=timeout) as answer,
        ):
            found = _copy(answer, file, max_bytes, until)
            declared = answer.headers.get("Content-Length")
            if declared is not None and file.tell() != int(declared):
                raise _RefusedError(f"the connection broke after {file.tell()} of {declared} bytes")
        if sha256 is not None and found != sha256:
            raise _RefusedError(f"its sha256 is {found}, but {sha256} is pinned")
        temporary.replace(target)
    except urllib.error.HTTPError as error:
        error.close()  # it is an open answer as well as an error
        raise _RefusedError(f"the server answers {error.code} {error.reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _copy(source: IO[bytes], file: IO[bytes], max_bytes: int, until: float) -> str:
    """Copy with all limits kept; returns the hex digest of what was copied."""
    digest, copied = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        if copied > max_bytes:
            raise _RefusedError(f"it is larger than the limit of {max_bytes} bytes")
        if time.monotonic() > until:
            raise _RefusedError("the transfer takes too long")
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
