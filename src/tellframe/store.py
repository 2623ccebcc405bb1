"""Places that hold files: a local folder, or a prefix in an object store, behind one interface.

Everything is written under a name that did not exist before, and appears complete or not at all:
that is what makes work resumable, and safe to share between machines.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

from tellframe.errors import MissingExtraError, StoreError, UsageError

SCHEMES: Final = ("s3://", "gs://", "az://")
"""Object stores that can be named: Amazon S3 and all that speak it (IBM Cloud Object Storage,
MinIO, Ceph, SeaweedFS), Google Cloud Storage, Azure Blob Storage."""
MULTIPART: Final = 16 * 2**20
"""Files from this size in bytes go to an object store in several parts."""
RETRY_SECONDS: Final = 60
"""How long an object store that does not answer is asked again."""
_PART: Final = ".part-"
_DENIED: Final = ("401 Unauthorized", "403 Forbidden", "169.254.169.254")
"""In messages of obstore; the last is where a machine in a cloud is asked for its rights, which
happens where no key is given."""
_RIGHTS: Final = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights of that key",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS and the rights of that account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and the rights of that key",
}
"""What to check where access is denied, by scheme."""
_PLACE: Final = {
    "s3": "the address, --endpoint and AWS_REGION",
    "gs": "the address and GOOGLE_APPLICATION_CREDENTIALS",
    "az": "the address and AZURE_STORAGE_ACCOUNT_NAME",
}
"""What to check where a store cannot be reached, by scheme."""
_ENDPOINT: Final = re.compile(
    r"https?://(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::(\d{1,5}))?(?:/[\w./-]*)?"
)


class Store(ABC):
    """Files by key ("a/b.tar") under one place.

    The counters `requests`, `bytes_read` and `bytes_written` grow with every call.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests = self.bytes_read = self.bytes_written = 0

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return the bytes from `start` on, fewer than `length` where the file ends before.

        Raises:
            StoreError: there is no such key, or it cannot be read.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Return the number of bytes.

        Raises:
            StoreError: there is no such key, or it cannot be read.
        """

    @abstractmethod
    def list_files(self, prefix: str = "") -> dict[str, int]:
        """Return {key: bytes} of all files below a folder of the store, sorted by key.

        Raises:
            StoreError: the place cannot be listed.
        """

    @abstractmethod
    def put_if_absent(self, key: str, content: bytes | IO[bytes]) -> bool:
        """Write a file unless the key exists; return whether it was written.

        Of several writers at once, one wins.

        Args:
            key: its name.
            content: the bytes, or a file opened for reading at its start.

        Raises:
            StoreError: it cannot be written.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StoreError: it cannot be removed.
        """

    def get(self, key: str) -> bytes:
        """Return a whole file.

        Raises:
            StoreError: there is no such key, or it cannot be read.
        """
        return self.get_range(key, 0, self.size(key))

    def exists(self, key: str) -> bool:
        """Tell whether there is such a key.

        Raises:
            StoreError: the store does not answer.
        """
        try:
            self.size(key)
        except StoreError as error:
            if error.missing:
                return False
            raise
        return True

    def name(self, key: str) -> str:
        """Return a key as a person would write it."""
        return f"{self.url}/{key}" if key else self.url


class FolderStore(Store):
    """A local folder, or one on a file system that several machines share."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(str(folder))
        self.folder = Path(folder)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store`."""
        with self._explaining(key, "read"), (self.folder / key).open("rb") as file:
            file.seek(start)
            data = file.read(length)
        self.requests += 1
        self.bytes_read += len(data)
        return data

    def size(self, key: str) -> int:
        """See `Store`."""
        self.requests += 1
        with self._explaining(key, "read"):
            return (self.folder / key).stat().st_size

    def list_files(self, prefix: str = "") -> dict[str, int]:
        """See `Store`."""
        self.requests += 1
        with self._explaining(prefix, "listed"):
            found = dict(_walk(self.folder, prefix.strip("/")))
        return dict(sorted(found.items()))

    def put_if_absent(self, key: str, content: bytes | IO[bytes]) -> bool:
        """See `Store`."""
        target = self.folder / key
        self.requests += 1
        with self._explaining(key, "written"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _open_unnamed(target.parent) as (file, source):
                shutil.copyfileobj(_as_file(content), file)
                size = file.tell()
                file.flush()
                os.fsync(file.fileno())
                try:
                    # Only with a folder given does Python follow the link that `source` may be.
                    os.link(source, target, src_dir_fd=file.fileno(), follow_symlinks=True)
                except FileExistsError:
                    return False
        self.bytes_written += size
        return True

    def delete(self, key: str) -> None:
        """See `Store`."""
        self.requests += 1
        with self._explaining(key, "removed"):
            (self.folder / key).unlink(missing_ok=True)

    @contextmanager
    def _explaining(self, key: str, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            raise StoreError(
                f"{self.name(key)}: cannot be {done} ({error.strerror or error})", missing=missing
            ) from error


def _walk(
    folder: Path, below: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, int]]:
    """Yield key and bytes of the files in a folder, through links to folders but not in circles.

    Args:
        folder: what the keys start from.
        below: the key of the folder to list; one that does not exist is empty.
        above: device and number of the folders that lead there.

    Raises:
        OSError: a folder cannot be read.
    """
    try:
        facts = (folder / below).stat()
        entries = list(os.scandir(folder / below))
    except FileNotFoundError:
        return
    here = (facts.st_dev, facts.st_ino)
    for entry in entries if here not in above else ():
        key = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            yield from _walk(folder, key, above | {here})
        elif entry.is_file() and not entry.name.startswith(_PART):
            with suppress(FileNotFoundError):  # removed since
                yield key, entry.stat().st_size


@contextmanager
def _open_unnamed(folder: Path) -> Iterator[tuple[Any, str]]:
    """Open a file for writing that vanishes when this process does; yield it and a path to it."""
    descriptor = _open_tmpfile(folder)
    if descriptor is not None:
        with os.fdopen(descriptor, "wb") as file:
            yield file, f"/proc/self/fd/{descriptor}"
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=_PART) as file:
        os.fchmod(file.fileno(), 0o644)
        yield file, file.name


def _open_tmpfile(folder: Path) -> int | None:
    """Return a descriptor; None where the system or the file system (NFS) has no such files."""
    try:
        return os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o644)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return None
        raise


class ObjectStore(Store):
    """A prefix in an object store, through obstore.

    Credentials come from the usual environment variables (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION; GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_*).

    Raises:
        MissingExtraError: obstore is not installed.
        StoreError: the address is not understood.
    """

    def __init__(self, url: str, endpoint: str = "") -> None:
        super().__init__(url)
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise MissingExtraError(
                f"{url}: object stores need an extra; run: pip install 'tellframe[data]'"
            ) from error
        self._obstore = obstore
        endpoint = _check_endpoint(endpoint) if url.startswith("s3://") else ""
        given: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        with self._explaining("", "opened"):
            self._store: Any = from_url(
                url,
                client_options={"allow_http": endpoint.startswith("http://")},
                retry_config={
                    "max_retries": 10_000,
                    "retry_timeout": timedelta(seconds=RETRY_SECONDS),  # so this is what counts
                },
                **given,
            )

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Store`."""
        self.requests += 1
        if not length:
            return b""
        with self._explaining(key, "read"):
            try:
                data = bytes(self._obstore.get_range(self._store, key, start=start, length=length))
            except self._obstore.exceptions.GenericError as error:
                if "416 Range Not Satisfiable" not in str(error):
                    raise
                data = b""  # it ends before `start`
        self.bytes_read += len(data)
        return data

    def size(self, key: str) -> int:
        """See `Store`."""
        self.requests += 1
        with self._explaining(key, "read"):
            return int(self._obstore.head(self._store, key)["size"])

    def list_files(self, prefix: str = "") -> dict[str, int]:
        """See `Store`."""
        found: dict[str, int] = {}
        with self._explaining(prefix, "listed"):
            for chunk in self._obstore.list(self._store, prefix=prefix or None):
                self.requests += 1
                found |= {item["path"]: int(item["size"]) for item in chunk}
        return dict(sorted(found.items()))

    def put_if_absent(self, key: str, content: bytes | IO[bytes]) -> bool:
        """See `Store`.

        A large file is written in parts, for which no store offers "unless it exists": two writers
        at once may then both write it. Large files must therefore be named by their content.
        """
        file = _as_file(content)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size >= MULTIPART and self.exists(key):
            return False
        self.requests += 1
        with self._explaining(key, "written"):
            if size >= MULTIPART:
                self._obstore.put(self._store, key, file, chunk_size=MULTIPART)
            else:
                try:
                    self._obstore.put(self._store, key, content, mode="create", use_multipart=False)
                except (
                    self._obstore.exceptions.AlreadyExistsError,
                    self._obstore.exceptions.PreconditionError,
                ):
                    return False
        self.bytes_written += size
        return True

    def delete(self, key: str) -> None:
        """See `Store`."""
        self.requests += 1
        with self._explaining(key, "removed"):
            self._obstore.delete(self._store, key)

    @contextmanager
    def _explaining(self, key: str, done: str) -> Iterator[None]:
        kinds = self._obstore.exceptions
        missing = (kinds.NotFoundError, FileNotFoundError)
        denied = (kinds.PermissionDeniedError, kinds.UnauthenticatedError, PermissionError)
        what = f"{self.name(key)}: cannot be {done}"
        scheme = self.url.partition("://")[0]
        try:
            yield
        except (kinds.BaseError, OSError, ValueError) as error:
            text = str(error)  # all that listing gives; the rest have kinds
            if isinstance(error, missing) or "404 Not Found" in text:
                reason = f"{what}: there is no such key or bucket"
                raise StoreError(reason, missing=True) from error
            if isinstance(error, denied) or any(mark in text for mark in _DENIED):
                raise StoreError(
                    f"{what}: access denied; check {_RIGHTS[scheme]}", denied=True
                ) from error
            reason = text.strip().split("\n")[0][:300]
            raise StoreError(f"{what} ({reason}); check {_PLACE[scheme]}") from error


def _check_endpoint(given: str) -> str:
    """Return the endpoint, from the environment where none is given; obstore panics at bad ones."""
    endpoint = given or os.environ.get("AWS_ENDPOINT_URL", "")
    match = _ENDPOINT.fullmatch(endpoint)
    if endpoint and (match is None or int(match[1] or 0) > 65535):
        raise UsageError(
            f"{endpoint}: is no endpoint (--endpoint or AWS_ENDPOINT_URL); "
            "write http://host:port or https://host"
        )
    return endpoint


def _as_file(content: bytes | IO[bytes]) -> IO[bytes]:
    return io.BytesIO(content) if isinstance(content, bytes) else content


def is_remote(location: str | Path) -> bool:
    """Tell whether a location names an object store."""
    return str(location).startswith(SCHEMES)


def open_store(location: str | Path, endpoint: str = "") -> Store:
    """Return the store for a folder or an address such as s3://bucket/prefix.

    Args:
        location: where.
        endpoint: address of the server for S3 outside of Amazon; default: AWS_ENDPOINT_URL.

    Raises:
        MissingExtraError: obstore is not installed.
        StoreError: the address is not understood.
        UsageError: the scheme is not known, or no bucket is named, or the endpoint is none.
    """
    text = str(location)
    if is_remote(text):
        if not split_location(text)[0].partition("://")[2]:
            raise UsageError(f"{text}: names no bucket; write it as s3://bucket/prefix")
        return ObjectStore(text.rstrip("/"), endpoint)
    if "://" in text:
        raise UsageError(f"{text}: unknown kind of place; known: a folder, {', '.join(SCHEMES)}")
    return FolderStore(text)


def split_location(location: str | Path) -> tuple[str, str]:
    """Split the location of a file into that of its store and its key there.

    >>> split_location("s3://bucket/zips/part_0.zip")
    ('s3://bucket', 'zips/part_0.zip')
    """
    text = str(location)
    if is_remote(text):
        scheme, _, rest = text.partition("://")  # urlsplit would end a key at "?" or "#"
        bucket, _, key = rest.partition("/")
        return f"{scheme}://{bucket}", key.lstrip("/")
    path = Path(text)
    return str(path.parent), path.name
