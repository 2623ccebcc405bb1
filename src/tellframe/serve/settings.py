"""What whoever runs the service decides."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tellframe.errors import UsageError
from tellframe.isolation import Limits
from tellframe.webfetch import FetchLimits

MIB: Final = 2**20
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a browser on the same machine reaches the service."""


def default_folder() -> Path:
    """Return where jobs are kept where nothing else is said (XDG base directories)."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tellframe" / "serve"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the service can be told.

    Raises:
        UsageError: a value is out of range.
    """

    folder: Path = field(default_factory=default_folder)
    """Database and uploads; one server at a time uses it."""
    model: str | None = None
    """Bundle, as `tellframe.detector.load` takes it."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Recipe fields that differ from the bundle's."""
    threads: int = 0
    """Threads of one analysis; 0 for one a core."""
    workers: int = 1
    """Videos that are analysed at once."""
    limits: Limits = field(default_factory=lambda: Limits(seconds=600.0))
    """What one video may cost."""
    max_bytes: int = 2048 * MIB
    """Largest upload."""
    max_queue: int = 32
    """Videos that may wait, uploads under way included."""
    keep_seconds: float = 24 * 3600.0
    """Age at which jobs and their results are removed."""
    keep_bytes: int = 1024 * MIB
    """Total size of results beyond which the oldest are removed."""
    keep_uploads: bool = False
    """Whether videos stay on disk as long as their jobs."""
    allow_urls: bool = False
    """Whether videos are fetched from the web, where a client gives an address."""
    fetch: FetchLimits = field(default_factory=FetchLimits)
    """What one address may cost; its size is `max_bytes` at most."""
    tokens: tuple[str, ...] = ()
    """One of these is needed as a bearer token; none is where this is empty."""
    rate: float = 0.0
    """Uploads a minute that one client may send; 0 for no limit."""
    root_path: str = ""
    """Path prefix under which a proxy offers the service, such as "/tellframe"."""
    hosts: tuple[str, ...] = LOOPBACK
    """Host names that requests may use, without the port; "*" allows all."""

    def __post_init__(self) -> None:
        more, least = "give more than 0", "give 0 or more"
        hours = self.keep_seconds / 3600
        checks = (
            (self.workers >= 1, f"--workers {self.workers}: give 1 or more"),
            (self.threads >= 0, f"--threads {self.threads}: {least}"),
            (self.max_queue >= 1, f"--queue {self.max_queue}: give 1 or more"),
            (self.max_bytes > 0, f"--max-mib {self.max_bytes / MIB:g}: {more}"),
            (self.rate >= 0, f"--rate {self.rate:g}: {least}"),
            (0 < hours < math.inf, f"--keep-hours {hours:g}: give a finite number above 0"),
            (self.keep_bytes >= 0, f"--keep-mib {self.keep_bytes / MIB:g}: {least}"),
            (self.limits.seconds > 0, f"--limit-seconds {self.limits.seconds:g}: {more}"),
            (
                self.limits.memory >= 512 * MIB,
                f"--limit-mib {self.limits.memory / MIB:g}: give 512 or more",
            ),
            (
                not self.root_path or self.root_path.startswith("/"),
                f"--root-path {self.root_path}: begin it with /",
            ),
            (
                all(len(token) >= 16 for token in self.tokens),
                "--token-file or $TELLFRAME_TOKENS: a token has fewer than 16 characters",
            ),
        )
        wrong = [reason for good, reason in checks if not good]
        if wrong:
            raise UsageError("; ".join(wrong))
