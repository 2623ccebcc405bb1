"""What a video, a zip or a file of labels may ask for, by what it says and by what it is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from tellframe.errors import UsageError


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Upper limits of one video; what asks for more is refused, or cut where the text says so.

    Raises:
        UsageError: one is not above 0.
    """

    bytes: int = 64 * 2**30
    """Size of the file."""
    pixels: int = 36_000_000
    """Of a picture; 8K (7680 x 4320) is 33 million."""
    pictures: int = 20_000_000
    """In the stream: 92 hours at 60 a second."""
    seconds: float = 48 * 3600.0
    """From the first picture to the last."""
    decoded: int = 250_000
    """Pictures that are decoded to get those that are looked at; the rest is left, as partial."""
    people: int = 64
    """Followed through one video; those seen most often are kept, the others counted."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Upper limits of a zip and of what describes a data set; what asks for more is refused.

    Raises:
        UsageError: one is not above 0.
    """

    zip_directory: int = 128 * 2**20
    """Bytes of the directory of a zip, where it is longer than the end of the file that is read at
    first: more than a million members."""
    zip_entries: int = 1_000_000
    """Files and folders in a zip; DFDC's largest part has 3,134 videos."""
    zip_ratio: float = 200.0
    """Unpacked to packed size of a member; deflate reaches 1032 (a zip bomb), video hardly 2."""
    zip_bytes: int = 4 * 2**30
    """Unpacked size of a member, which is held in memory."""
    metadata_bytes: int = 32 * 2**20
    """Of a file of labels, unpacked; one for all of DFDC's 119,154 videos would have 13 MB."""
    metadata_depth: int = 8
    """Objects and lists within each other in a metadata.json; DFDC's have 2."""
    metadata_entries: int = 1_000_000
    """Entries of one object in a metadata.json: a video each."""

    def __post_init__(self) -> None:
        _require_positive(self)


def _require_positive(limits: FileLimits | ArchiveLimits) -> None:
    for field in dataclasses.fields(limits):
        if not getattr(limits, field.name) > 0:
            raise UsageError(f"limit of {field.name.replace('_', ' ')}: give more than 0")


FILE_LIMITS: Final = FileLimits()
"""The defaults."""
ARCHIVE_LIMITS: Final = ArchiveLimits()
"""The defaults."""
