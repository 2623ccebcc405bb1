"""Everything that can go wrong for a client, on one page: problem details (RFC 9457) with codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, Field

from tellframe.errors import (
    AddressError,
    LimitError,
    MediaError,
    NoVideoError,
    PrivateAddressError,
)
from tellframe.report.words import finish, sentence

log: Final = logging.getLogger("tellframe.serve")
MEDIA_TYPE: Final = "application/problem+json"
NO_JOB: Final = "No such job, or it was deleted or has expired."
TITLES: Final[dict[str, tuple[int, str]]] = {
    "invalid_request": (400, "The request cannot be understood"),
    "unauthorized": (401, "A valid access token is needed"),
    "urls_refused": (403, "This server fetches no videos from addresses"),
    "foreign_site": (403, "Requests from other web sites are refused"),
    "not_found": (404, "There is no such thing here"),
    "method_not_allowed": (405, "This cannot be done here"),
    "upload_stalled": (408, "The upload stopped"),
    "not_finished": (409, "The analysis has not ended yet"),
    "too_large": (413, "The video is too large"),
    "not_a_video": (415, "This is not a video"),
    "unknown_host": (421, "The service does not go by this name"),
    "refused_address": (422, "This address is not fetched from"),
    "not_fetched": (422, "The video cannot be fetched"),
    "undecodable": (422, "The video cannot be decoded"),
    "no_video": (422, "The file holds no video"),
    "too_costly": (422, "The video asks for more than the limits allow"),
    "timeout": (422, "The analysis took too long"),
    "crashed": (422, "The analysis was given up"),
    "upload_lost": (422, "The video is no longer on the server"),
    "analysis_failed": (422, "The analysis failed"),
    "queue_full": (429, "Too many videos are waiting"),
    "rate_limited": (429, "Too many videos in a short time"),
    "not_ready": (503, "The model is not loaded yet"),
    "storage_busy": (503, "The server's database cannot be written"),
    "storage_full": (507, "The server's disk is full"),
}
"""HTTP status and title by code."""


class Problem(BaseModel):
    """What went wrong, for people and for software."""

    type: str = Field(description="A name for this kind of problem; holds the code.")
    title: str = Field(description="The kind of problem in plain words.")
    status: int = Field(description="HTTP status; of a failed job, the one its result answers.")
    detail: str = Field(description="What happened here, and what to do about it.")
    code: str = Field(description="For software.", json_schema_extra={"enum": list(TITLES)})


class ProblemError(Exception):
    """Ends a request with a problem.

    Args:
        code: one of `TITLES`.
        detail: what happened here, and what to do about it.
        headers: of the answer.
    """

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem = make(code, detail)
        self.headers = dict(headers or {})

    @classmethod
    def again(cls, problem: Problem) -> Self:
        """Return the error of a problem that was written down before."""
        return cls(problem.code, problem.detail)


def make(code: str, detail: str) -> Problem:
    """Return a problem of a known kind."""
    status, title = TITLES[code]
    kind = f"urn:tellframe:problem:{code}"
    return Problem(type=kind, title=title, status=status, detail=detail, code=code)


def undecodable(error: MediaError, path: Path) -> Problem:
    """Return why a file cannot be analysed, without the server's path and name of it."""
    text = str(error)
    for name in (str(path), path.name):
        text = text.removeprefix(f"{name}: ").replace(name, "the file")
    code = "undecodable"
    if isinstance(error, NoVideoError):
        code = "no_video"
    elif isinstance(error, LimitError):
        code = "too_costly"
    return make(code, sentence(text))


def unfetched(error: MediaError, shown: str) -> Problem:
    """Return why a video was not fetched from its address.

    Args:
        error: what was raised.
        shown: the address, as it may be shown.
    """
    code = "not_fetched"
    if isinstance(error, PrivateAddressError):  # clients are not told where names lead to inside
        text = f"{shown}: does not lead to the public internet. Fetch the video, and upload it."
        return make("refused_address", text)
    if isinstance(error, AddressError):
        code = "refused_address"
    elif isinstance(error, LimitError):
        code = "too_large"
    elif isinstance(error, NoVideoError):
        code = "not_a_video"
    return make(code, finish(str(error)))


def given_up(reason: str, seconds: float) -> Problem:
    """Return why there is no result where the worker did not come back.

    Args:
        reason: "timeout" or "crash".
        seconds: the limit.
    """
    if reason == "timeout":
        return make(
            "timeout",
            f"It was stopped after {seconds:.0f} seconds. A shorter or smaller copy may work.",
        )
    return make(
        "crashed",
        "The process that decodes ended whenever it was given this file, which may be damaged or "
        "made to do harm, or need too much memory. Converting it to H.264 in MP4 may help.",
    )


def lost() -> Problem:
    """Return what to say of a job whose upload has vanished."""
    return make("upload_lost", "Somebody removed it before it was analysed. Send it again.")


def internal(text: str) -> Problem:
    """Return a failure that is not the file's fault."""
    return make("analysis_failed", sentence(text))
