"""Every error that tellframe raises on purpose, on one page.

A message names the file, says what is wrong, and says what to do about it.
"""

from typing import TypeVar


class TellframeError(Exception):
    """Base of all errors raised by tellframe."""


class UsageError(TellframeError):
    """The caller asked for something that does not exist or cannot be combined."""


class ConfigError(UsageError):
    """A recipe or configuration holds an unknown key or a value out of range."""


class MediaError(TellframeError):
    """One input cannot be analysed; the other inputs are not affected."""


class MediaNotFoundError(MediaError):
    """The path does not lead to a readable file."""


class NoVideoError(MediaError):
    """The file opens, but holds no video stream with at least one picture."""


class DecodeError(MediaError):
    """The file is no known video container, or its pictures cannot be decoded."""


class LimitError(MediaError):
    """The file asks for more memory or pixels than the limits allow."""


class OutOfMemoryError(LimitError):
    """A network needs more memory than there is; which file it ran on is not known there."""


class AddressError(MediaError):
    """The web address of a video is none, or leads where it must not."""


class PrivateAddressError(AddressError):
    """The web address of a video leads into a network that is not public."""


class FetchError(MediaError):
    """A video cannot be fetched: its server does not answer, or answers something else."""


class BundleError(TellframeError):
    """A model bundle is missing, incomplete, altered, or of an unknown format."""


class RecipeMismatchError(TellframeError):
    """Two artefacts were made with different recipes; the message lists the differences."""


class DownloadError(TellframeError):
    """A file could not be fetched, or its checksum is not the pinned one."""


class StoreError(TellframeError):
    """A folder or object store cannot be read or written."""

    def __init__(self, message: str, *, missing: bool = False, denied: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        """Whether the cause is that there is no such file."""
        self.denied = denied
        """Whether the cause is that it may not be read or written."""


class DataError(TellframeError):
    """A data set is incomplete, altered, or does not belong to what it is used with."""


class LeakError(DataError):
    """The same original or person is on two sides of a split."""


class WorkerError(TellframeError):
    """Worker processes cannot be started."""


class WireError(TellframeError):
    """A message from a worker process is not what it should be."""


class MissingExtraError(TellframeError):
    """An optional dependency is not installed; the message names the extra to install."""


Family = TypeVar("Family", bound=TellframeError)


def error_named(name: str, message: str, family: type[Family]) -> Family | None:
    """Return the error of a family that a worker process named; None where it has no such one."""
    kind = globals().get(name)
    return kind(message) if isinstance(kind, type) and issubclass(kind, family) else None
