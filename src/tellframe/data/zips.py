"""Zips read in place: the directory once, then one ranged read a member.

Python's `zipfile` parses the directory (zip64 included); it is given a file that reads ranges.
"""

from __future__ import annotations

import errno
import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Final

from tellframe.errors import DataError
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits
from tellframe.store import Store

TAIL: Final = 32 * 1024
"""Bytes read from the end of a zip at first: most directories fit."""
_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
"""APPNOTE.TXT 4.3.7."""
_ENCRYPTED: Final = 0x1


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a zip."""

    name: str
    offset: int
    """Where its local header begins, in bytes from the start of the zip."""
    extent: int
    """Bytes from there to its end: header, name, extra fields and data."""
    bytes: int
    """Size when unpacked."""
    crc: int
    """CRC-32 of the unpacked bytes."""
    compression: int
    """0 stored, 8 deflated (APPNOTE.TXT 4.4.5)."""
    encrypted: bool


class _RangeFile(io.RawIOBase):
    """A read-only file over ranges of a store that keeps the last bytes, where `zipfile` looks."""

    def __init__(self, store: Store, key: str, limit: int) -> None:
        self.store, self.key, self.limit = store, key, limit
        self.length = store.size(key)
        self.position = 0
        self.start = max(0, self.length - TAIL)
        self.kept = store.get_range(key, self.start, self.length - self.start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        if base + offset < 0:
            # What a real file does, and what `zipfile` relies upon with a file that is too short.
            raise OSError(errno.EINVAL, "before the start of the file")
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self.position + len(view), self.length)
        if self.position < self.start:  # the directory is longer than the tail
            if self.start - self.position > self.limit:
                raise _TooLongError
            head = self.store.get_range(self.key, self.position, self.start - self.position)
            self.kept, self.start = head + self.kept, self.position
        data = self.kept[self.position - self.start : max(end - self.start, 0)]
        view[: len(data)] = data
        self.position += len(data)
        return len(data)


class _TooLongError(Exception):
    """The directory is longer than the limit."""


def list_members(store: Store, key: str, limits: ArchiveLimits = ARCHIVE_LIMITS) -> list[Member]:
    """List the files of a zip in the order of its bytes; reads only its directory.

    Raises:
        StoreError: the zip cannot be read.
        DataError: it is no zip, its directory is damaged, or it has more than the limits allow.
    """
    name = store.name(key)
    try:
        with zipfile.ZipFile(_RangeFile(store, key, limits.zip_directory)) as archive:
            directory, found = archive.start_dir, archive.infolist()
    except _TooLongError:
        raise DataError(
            f"{name}: a directory of more than {limits.zip_directory} bytes; see "
            "--max-zip-directory"
        ) from None
    except (zipfile.BadZipFile, ValueError, struct.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{name}: not a zip, or damaged ({error}); fetch it again") from error
    if len(found) > limits.zip_entries:
        raise DataError(
            f"{name}: {len(found)} entries, more than the limit of {limits.zip_entries}; see "
            "--max-zip-entries"
        )
    if any(not 0 <= m.header_offset <= directory or m.file_size >= 2**63 for m in found):
        raise DataError(f"{name}: its directory names places outside of the zip; fetch it again")
    found.sort(key=lambda m: m.header_offset)
    ends = [*(m.header_offset for m in found), directory][1:]
    return [
        Member(
            name=m.orig_filename,  # `filename` ends at a zero byte
            offset=m.header_offset,
            extent=_extent(m, end),
            bytes=m.file_size,
            crc=m.CRC,
            compression=m.compress_type,
            encrypted=bool(m.flag_bits & _ENCRYPTED),
        )
        for m, end in zip(found, ends, strict=True)
        if not m.orig_filename.endswith("/")
    ]


def _extent(member: zipfile.ZipInfo, end: int) -> int:
    """Bound a member by its neighbour: only its own header tells how long its extra field is."""
    smallest = _LOCAL_HEADER.size + len(member.orig_filename.encode()) + member.compress_size
    return min(end - member.header_offset, smallest + 2**16)


def find_fault(member: Member, limits: ArchiveLimits = ARCHIVE_LIMITS) -> str:
    """Return why a member cannot be read, as far as the directory tells; empty where it can."""
    if member.encrypted:
        return "is encrypted; unpack the zip with its password"
    if member.compression not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compression {member.compression} is unknown; repack with deflate"
    if member.bytes > limits.zip_ratio * max(member.extent, 1):
        return (
            f"would unpack to more than {limits.zip_ratio:g} times its size; refused, see "
            "--max-zip-ratio"
        )
    if member.bytes > limits.zip_bytes:
        return (
            f"would unpack to {member.bytes} bytes, more than the limit of {limits.zip_bytes}; "
            "refused, see --max-zip-bytes"
        )
    return ""


def read_member(
    store: Store, key: str, member: Member, limits: ArchiveLimits = ARCHIVE_LIMITS
) -> bytes:
    """Return the unpacked bytes of a member, checked against its CRC-32; one ranged read.

    Raises:
        StoreError: the zip cannot be read.
        DataError: the member is damaged, encrypted, compressed in an unknown way, or unpacks to
            more than the limits allow.
    """
    name = f"{store.name(key)}:{member.name}"
    if fault := find_fault(member, limits):
        raise DataError(f"{name}: {fault}")
    raw = store.get_range(key, member.offset, member.extent)
    if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
        raise DataError(f"{name}: its header is damaged; has the zip changed since it was indexed?")
    *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(raw)
    data = memoryview(raw)[_LOCAL_HEADER.size + name_length + extra_length :]
    if member.compression == zipfile.ZIP_STORED:
        content = bytes(data[: member.bytes])
    else:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = unpacker.decompress(data, member.bytes + 1)
        except zlib.error as error:
            raise DataError(f"{name}: is damaged ({error}); fetch the zip again") from error
    if len(content) != member.bytes or zlib.crc32(content) != member.crc:
        raise DataError(f"{name}: is damaged (wrong size or checksum); fetch the zip again")
    return content
