"""The slots: threads that take jobs out of the store and have them judged."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tellframe.errors import MediaError, TellframeError
from tellframe.isolation import Failure, Limits
from tellframe.serve import problems, results
from tellframe.serve.jobs import Job
from tellframe.serve.metrics import Metrics
from tellframe.serve.slot import Cancelled, Slot
from tellframe.serve.store import Store
from tellframe.serve.worker import Finding, Progress, Task
from tellframe.types import Sandbox, Verdict

PAUSE: Final = 5.0
"""Seconds to wait after a failure that is not a video's: no worker starts, or the disk is full."""


class Pool:
    """Keeps a number of slots busy.

    Args:
        store: where the jobs are.
        upload_of: returns the path of a job's upload.
        fetch: gets the file of a job that has an address; told of a place to report how far it
            is, and of one to ask whether to stop.
        settle: called with the id of every job that has ended.
        is_possible: tells whether an honest worker could have found this in the file of a SHA-256.
        make_verdict: makes a verdict of what a worker found, and of the seconds that it took.
        task: of the workers.
        workers: how many slots.
        limits: of one video; its attempts include those before a restart.
        metrics: counts.
    """

    def __init__(
        self,
        store: Store,
        upload_of: Callable[[str], Path],
        fetch: Callable[[Job, Progress, Callable[[], bool]], Job],
        settle: Callable[[str], None],
        is_possible: Callable[[Finding, str], bool],
        make_verdict: Callable[[Finding, float], Verdict],
        task: Task,
        *,
        workers: int,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._store, self._upload_of, self._settle = store, upload_of, settle
        self._fetch = fetch
        self._is_possible, self._make_verdict = is_possible, make_verdict
        self._limits, self._metrics = limits, metrics
        self._slots = [Slot(task, limits.seconds) for _ in range(workers)]
        self._wake = threading.Condition()
        self._closed = False
        self._progress: dict[str, tuple[str, int, int]] = {}
        self._unwanted: set[str] = set()
        self._ready: set[int] = set()
        self.trouble: str | None = None
        """Why no worker can be started; None where there is no such reason."""
        self._threads = [
            threading.Thread(target=self._work, args=(i, slot), name=f"slot-{i}", daemon=True)
            for i, slot in enumerate(self._slots)
        ]

    def start(self) -> None:
        """Start the slots; they get ready one by one."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End all work; what was cut off waits again in the store, without counting as a try."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def is_ready(self) -> bool:
        """Whether a worker has loaded the model and scored a sample."""
        return bool(self._ready)

    @property
    def starts(self) -> int:
        """How many worker processes there were."""
        return sum(slot.starts for slot in self._slots)

    @property
    def sandbox(self) -> Sandbox | None:
        """How workers are confined; None before the first is ready."""
        return self._slots[0].sandbox

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return [slot.pid for slot in self._slots if slot.pid is not None]

    def wake(self) -> None:
        """Say that there is a new job."""
        with self._wake:
            self._wake.notify_all()

    def cancel(self, job_id: str) -> None:
        """Stop a job if it is running."""
        if job_id in self._progress:
            self._unwanted.add(job_id)

    def progress(self, job_id: str) -> tuple[str, int, int]:
        """Return stage, steps done and steps in all of a running job."""
        return self._progress.get(job_id, ("starting", 0, 0))

    def _work(self, number: int, slot: Slot) -> None:
        """Run a slot until the pool is closed."""
        while not self._closed:
            try:
                slot.start(lambda: self._closed)
                self.trouble = None
                self._ready.add(number)
                job = self._store.claim()
                if job is None:
                    with self._wake:
                        # Not for ever: the server may have been asleep, or the database locked.
                        self._closed or self._wake.wait(PAUSE)
                    continue
                self._run(slot, job)
            except Cancelled:
                continue
            except (TellframeError, OSError, sqlite3.Error) as error:
                self._pause(number, error)
        slot.end()

    def _pause(self, number: int, error: Exception) -> None:
        problems.log.error("slot %d: %s", number, error)
        if not isinstance(error, sqlite3.Error):
            self._ready.discard(number)
            self.trouble = str(error)
        with self._wake:
            self._closed or self._wake.wait(PAUSE)

    def _run(self, slot: Slot, job: Job) -> None:
        """Have one job judged, and write down what came of it."""
        self._progress[job.id] = ("starting", 0, 0)
        begin = time.monotonic()
        try:
            ending = self._judge(slot, job)
        finally:
            self._unwanted.discard(job.id)
            self._progress.pop(job.id, None)
        # Jobs are settled one after the other, so that a full disk costs time and not a result.
        while not self._closed:
            try:
                ending()
                break
            except sqlite3.Error as error:
                problems.log.error("job %s: %s", job.id, error)
                with self._wake:
                    self._closed or self._wake.wait(1.0)
        self._metrics.observe(time.monotonic() - begin)

    def _judge(self, slot: Slot, job: Job) -> Callable[[], None]:
        """Return what is to be written of a job."""
        path, begin = self._upload_of(job.id), time.monotonic()

        def progress(stage: str, done: int, total: int) -> None:
            self._progress[job.id] = (stage, done, total)

        def cancelled() -> bool:
            return self._closed or job.id in self._unwanted

        try:
            if job.url is not None:
                job = self._fetch(job, progress, cancelled)
                if job.state.is_final:  # the same bytes were judged before
                    self._metrics.count("done")
                    return lambda: self._settle(job.id)
            # A worker that a file has taken over could lie about the files after it: those of the
            # same owner at the most.
            if slot.owner not in (None, job.owner):
                slot.end()
                try:
                    slot.start(lambda: self._closed)
                except TellframeError:  # no fault of the file: the slot says so when it starts next
                    return lambda: self._store.requeue(job.id, refund=True)
            slot.owner = job.owner
            if not path.exists():
                return lambda: self._fail(job, problems.lost())
            found = slot.ask(path, progress, cancelled)
        except Cancelled:
            if self._closed:
                return lambda: None  # it is queued again at the next start
            return lambda: self._settle(job.id)
        except problems.ProblemError as error:
            problem = error.problem
            return lambda: self._fail(job, problem)
        except MediaError as error:
            problem = problems.undecodable(error, path)
            return lambda: self._fail(job, problem)
        except TellframeError as error:
            problem = problems.internal(str(error).replace(str(path), "the video"))
            return lambda: self._fail(job, problem)
        if not isinstance(found, Failure) and not self._is_possible(found, job.sha256):
            slot.end()  # whoever answers nonsense is not asked again
            found = Failure("crash", 1)
        if isinstance(found, Failure):
            if found.reason == "crash" and job.attempts < self._limits.attempts:
                return lambda: self._store.requeue(job.id)
            problem = problems.given_up(found.reason, self._limits.seconds)
            return lambda: self._fail(job, problem)
        packed = results.pack(self._make_verdict(found, time.monotonic() - begin))
        return lambda: self._finish(job, *packed)

    def _finish(self, job: Job, verdict: str, evidence: bytes) -> None:
        for job_id in self._store.finish(job.key, verdict, evidence):
            self._metrics.count("done")
            self._settle(job_id)

    def _fail(self, job: Job, problem: problems.Problem) -> None:
        self._store.fail(job.id, problem.model_dump_json())
        self._metrics.count("failed")
        self._settle(job.id)
