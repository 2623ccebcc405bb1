"""What a job is, and the table that remembers all of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (State.DONE, State.FAILED)


@dataclass(frozen=True, slots=True)
class Job:
    """One video that somebody wants judged."""

    seq: int
    """Order of arrival."""
    id: str
    """32 hexadecimal digits that nobody can guess."""
    owner: str
    """Who may see it: a digest of the token, "" where none is needed."""
    name: str
    """File name as the client gave it, without folders."""
    bytes: int
    """Size of the file; 0 as long as it has not been fetched."""
    sha256: str
    """Hex digest of the file; "" as long as it has not been fetched."""
    key: str
    """Of its result: file, weights and recipe; its own as long as there is no file."""
    state: State
    attempts: int
    """How often an analysis was begun."""
    created: float
    """Seconds since 1970, like the next two."""
    started: float | None
    finished: float | None
    problem: str | None
    """JSON of what went wrong, where it failed."""
    url: str | None
    """Where the file is to be fetched from; None once it was, or where it was uploaded."""


SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY,
    verdict TEXT NOT NULL,
    evidence BLOB NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    key TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    problem TEXT,
    url TEXT
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, seq);
CREATE INDEX IF NOT EXISTS jobs_key ON jobs (key);
"""
COLUMNS: Final = ", ".join(Job.__slots__)
"""Of the table, in the order of the fields."""
