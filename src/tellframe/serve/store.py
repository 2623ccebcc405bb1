"""The jobs and results on disk: SQLite, in one process, by many threads."""

from __future__ import annotations

import fcntl
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tellframe.errors import UsageError
from tellframe.serve.jobs import COLUMNS, SCHEMA, Job, State

BUSY_SECONDS: Final = 3.0
"""How long to wait for a database that another program has locked."""
_NAMES: Final = COLUMNS.removeprefix("seq, ")


class Store:
    """The table of jobs and the table of results.

    Every change is one transaction that is on disk when the method returns. All methods raise
    sqlite3.OperationalError where the database is locked for longer than `BUSY_SECONDS`, or the
    disk is full; nothing is changed then.

    Args:
        folder: made where it is missing; no other server may use it at the same time.

    Raises:
        UsageError: another server uses the folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # it holds other people's videos
        self._lock_file = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise UsageError(f"{folder}: another server uses it; give another --folder") from error
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            folder / "jobs.sqlite3",
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(SCHEMA)
        columns = [row[1] for row in self._connection.execute("PRAGMA table_info(jobs)")]
        if "url" not in columns:  # made by an earlier version
            self._connection.execute("ALTER TABLE jobs ADD COLUMN url TEXT")

    def close(self) -> None:
        """Let another server have the folder."""
        with self._lock:
            self._connection.close()
        self._lock_file.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Run the body as one transaction."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def add(
        self,
        owner: str,
        name: str,
        size: int,
        sha256: str,
        key: str,
        job_id: str,
        url: str | None = None,
    ) -> Job:
        """Accept a job; it is done at once where its result is known."""
        now = time.time()
        with self._change() as db:
            known = db.execute("SELECT 1 FROM results WHERE key = ?", [key]).fetchone()
            state = State.DONE if known else State.QUEUED
            ended = now if known else None
            values = [
                job_id,
                owner,
                name,
                size,
                sha256,
                key,
                state,
                0,
                now,
                ended,
                ended,
                None,
                url,
            ]
            marks = ", ".join("?" * len(values))
            rows = db.execute(
                f"INSERT INTO jobs ({_NAMES}) VALUES ({marks}) RETURNING {COLUMNS}", values
            ).fetchall()
        return _job(rows[0])

    def claim(self) -> Job | None:
        """Take the next job that waits, and call it running; None where there is none.

        The same bytes are not analysed by two workers at once: the second job waits for the first.
        """
        with self._change() as db:
            rows = db.execute(
                f"""UPDATE jobs SET state = 'running', started = ?, attempts = attempts + 1
                WHERE seq = (SELECT min(seq) FROM jobs AS waiting WHERE state = 'queued'
                    AND NOT EXISTS (SELECT 1 FROM jobs AS other
                        WHERE other.state = 'running' AND other.key = waiting.key))
                RETURNING {COLUMNS}""",
                [time.time()],
            ).fetchall()
        return _job(rows[0]) if rows else None

    def finish(self, key: str, verdict: str, evidence: bytes) -> list[str]:
        """Store a result, and call all jobs done that wait for it.

        Returns:
            Their ids.
        """
        with self._change() as db:
            waiting = "key = ? AND state IN ('queued', 'running')"
            ids = [row[0] for row in db.execute(f"SELECT id FROM jobs WHERE {waiting}", [key])]
            if ids:  # else they were deleted meanwhile, and nobody wants the result
                size = len(verdict) + len(evidence)
                values = [key, verdict, evidence, size]
                db.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", values)
                done = f"UPDATE jobs SET state = 'done', finished = ? WHERE {waiting}"
                db.execute(done, [time.time(), key])
        return ids

    def fail(self, job_id: str, problem: str) -> bool:
        """Call a running job failed, for a reason given as JSON.

        Returns:
            Whether it was running; else it was deleted meanwhile, or is done.
        """
        with self._change() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'failed', finished = ?, problem = ?, url = NULL "
                "WHERE id = ? AND state = 'running'",
                [time.time(), problem, job_id],
            ).rowcount
        return bool(changed)

    def fetched(self, job_id: str, size: int, sha256: str, key: str) -> Job | None:
        """Note that the file of a job has been fetched; its address is forgotten.

        Returns:
            The job: done where the result of the same bytes is known; queued again, and the
            attempt not counted, where they are being analysed; else as it was. None where it was
            deleted meanwhile.
        """
        with self._change() as db:
            db.execute(
                "UPDATE jobs SET bytes = ?, sha256 = ?, key = ?, url = NULL WHERE id = ?",
                [size, sha256, key, job_id],
            )
            db.execute(
                "UPDATE jobs SET state = 'done', finished = ? WHERE id = ? AND EXISTS "
                "(SELECT 1 FROM results WHERE results.key = jobs.key)",
                [time.time(), job_id],
            )
            db.execute(
                "UPDATE jobs SET state = 'queued', started = NULL, attempts = attempts - 1 "
                "WHERE id = ? AND state = 'running' AND EXISTS (SELECT 1 FROM jobs AS other "
                "WHERE other.state = 'running' AND other.key = jobs.key AND other.id != jobs.id)",
                [job_id],
            )
            rows = db.execute(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", [job_id]).fetchall()
        return _job(rows[0]) if rows else None

    def requeue(self, job_id: str | None = None, *, refund: bool = False) -> None:
        """Let a running job, or all of them, wait again in their old places.

        Args:
            job_id: which one; all where None.
            refund: whether the attempt does not count.
        """
        with self._change() as db:
            db.execute(
                "UPDATE jobs SET state = 'queued', started = NULL, attempts = attempts - ? "
                "WHERE state = 'running' AND (?2 IS NULL OR id = ?2)",
                [int(refund), job_id],
            )

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """Return a job; None where there is none, or not one of this owner."""
        rows = self._read(
            f"SELECT {COLUMNS} FROM jobs WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
            [job_id, owner],
        )
        return _job(rows[0]) if rows else None

    def list_jobs(self, owner: str, limit: int) -> list[Job]:
        """Return the newest jobs of an owner, newest first."""
        query = f"SELECT {COLUMNS} FROM jobs WHERE owner = ? ORDER BY seq DESC LIMIT ?"
        return [_job(row) for row in self._read(query, [owner, limit])]

    def position(self, job: Job) -> int:
        """Return the place of a queued job in the queue, from 1."""
        # Those before it: the job itself may have been claimed since it was read.
        query = "SELECT count(*) FROM jobs WHERE state = 'queued' AND seq < ?"
        return int(self._read(query, [job.seq])[0][0]) + 1

    def count(self) -> dict[State, int]:
        """Return how many jobs there are in every state."""
        found = dict(self._read("SELECT state, count(*) FROM jobs GROUP BY state"))
        return {state: int(found.get(state, 0)) for state in State}

    def verdict(self, key: str) -> str | None:
        """Return the JSON of a result; None where there is none."""
        rows = self._read("SELECT verdict FROM results WHERE key = ?", [key])
        return str(rows[0][0]) if rows else None

    def evidence(self, key: str) -> bytes | None:
        """Return the pictures of a result, as `results.pack` packed them."""
        rows = self._read("SELECT evidence FROM results WHERE key = ?", [key])
        return bytes(rows[0][0]) if rows else None

    def delete(self, job_id: str) -> None:
        """Forget a job, and its result where no other job has the same."""
        with self._change() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", [job_id])
            _drop_orphans(db)

    def expire(self, before: float, most_bytes: int) -> int:
        """Forget what is too old, then the oldest until the results are small enough.

        Args:
            before: seconds since 1970.
            most_bytes: of all results together.

        Returns:
            How many jobs were forgotten.
        """
        with self._change() as db:
            final = "state IN ('done', 'failed')"
            gone = db.execute(f"DELETE FROM jobs WHERE {final} AND finished < ?", [before]).rowcount
            _drop_orphans(db)
            query = f"""SELECT seq, bytes FROM results JOIN
                (SELECT key, max(seq) AS seq FROM jobs WHERE {final} GROUP BY key) USING (key)
                ORDER BY seq DESC"""
            total = 0
            for seq, size in db.execute(query).fetchall():
                total += size
                if total > most_bytes:
                    oldest = f"DELETE FROM jobs WHERE {final} AND seq <= ?"
                    gone += db.execute(oldest, [seq]).rowcount
                    _drop_orphans(db)
                    break
        if gone:
            with self._lock:
                self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return gone

    def list_running(self) -> list[Job]:
        """Return the jobs that are said to be running."""
        query = f"SELECT {COLUMNS} FROM jobs WHERE state = 'running'"
        return [_job(row) for row in self._read(query)]

    def ids(self, *, final: bool) -> set[str]:
        """Return the ids of the jobs that wait or run, and where `final` of those that ended."""
        query = "SELECT id FROM jobs WHERE ? OR state IN ('queued', 'running')"
        return {row[0] for row in self._read(query, [final])}


def new_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_hex(16)


def _drop_orphans(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM results WHERE key NOT IN (SELECT key FROM jobs)")


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(Job.__slots__, row, strict=True))
    return Job(**{**values, "state": State(values["state"])})
