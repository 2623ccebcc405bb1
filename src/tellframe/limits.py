"""What a video may ask for, checked on what its header says and on what its pictures are."""

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
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise UsageError(f"limit of {field.name}: give more than 0")


FILE_LIMITS: Final = FileLimits()
"""The defaults."""
