"""The slots: threads that take jobs out of the store and have them judged."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tellframe.errors import MediaError, TellframeError, WorkerError
from tellframe.isolation import Failure, Limits
from tellframe.serve import problems, results
from tellframe.serve.jobs import Job, State
from tellframe.serve.metrics import Metrics
from tellframe.serve.slot import Cancelled, Slot
from tellframe.serve.store import Store
from tellframe.serve.worker import Finding
from tellframe.types import Sandbox, Verdict
from tellframe.worker import Progress, Task

PAUSE: Final = 5.0
"""Seconds to wait after a failure that is not a video's: no worker starts, or the disk is full."""


class Pool:
    """Keeps a number of slots busy.

    Args:
        store: where the jobs are.
        upload_of: returns the path of a job's upload.
        fetch: gets the file of a job that has an address; told of a place to report how far it
            is, and of one to ask whether to stop. Returns the job as it is then.
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
        self._calls = 0
        """How often it was called; who counted before it looked misses none."""
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

    def wake(self) -> None:
        """Say that there is a new job."""
        with self._wake:
            self._calls += 1
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
                calls = self._calls
                if job := self._store.claim():
                    self._run(slot, job)
                else:
                    # Not for ever: the server may have been asleep, or the database locked.
                    self._rest(PAUSE, calls)
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
        self._rest(PAUSE)

    def _rest(self, seconds: float, calls: int | None = None) -> None:
        """Wait until the pool is closed, or where `calls` is given, called more often than that."""
        with self._wake:
            self._wake.wait_for(lambda: self._closed or calls not in (None, self._calls), seconds)

    def _run(self, slot: Slot, job: Job) -> None:
        """Have one job judged, and write down what came of it."""
        self._progress[job.id] = ("starting", 0, 0)
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
                self._rest(1.0)

    def _judge(self, slot: Slot, job: Job) -> Callable[[], None]:
        """Return what is to be written of a job."""
        path, begin, analysed = self._upload_of(job.id), time.monotonic(), False

        def progress(stage: str, done: int, total: int) -> None:
            self._progress[job.id] = (stage, done, total)

        def cancelled() -> bool:
            return self._closed or job.id in self._unwanted

        def fail(problem: problems.Problem) -> Callable[[], None]:
            seconds = time.monotonic() - begin
            return lambda: self._fail(job, problem, seconds, analysed=analysed)

        try:
            if job.url is not None:
                job = self._fetch(job, progress, cancelled)
                if job.state.is_final:  # the same bytes were judged before
                    return lambda: self._settle(job.id)
                if job.state is State.QUEUED:  # they are being judged, and it waits for that
                    return lambda: None
            if not path.exists():
                return fail(problems.lost())
            begin, analysed = time.monotonic(), True
            found = slot.ask(path, job.owner, progress, cancelled)
            if not isinstance(found, Failure) and not self._is_possible(found, job.sha256):
                slot.end()  # whoever answers nonsense is not asked again
                found = Failure("crash", 1)
            if isinstance(found, Failure):
                if found.reason == "crash" and job.attempts < self._limits.attempts:
                    problems.log.warning("job %s: ended its worker; tried again", job.id)
                    return lambda: self._store.requeue(job.id)
                return fail(problems.given_up(found.reason, self._limits.seconds))
            verdict = self._make_verdict(found, time.monotonic() - begin)
            packed = results.pack(verdict)
            return lambda: self._finish(job, verdict, *packed)
        except Cancelled:
            if self._closed:
                return lambda: None  # it is queued again at the next start
            return lambda: self._settle(job.id)
        except (WorkerError, OSError, sqlite3.Error) as error:  # no fault of the file's
            problems.log.error("job %s: %s", job.id, error)
            return lambda: self._store.requeue(job.id, refund=True)
        except Exception as error:  # whatever it is, the slot goes on
            return fail(_problem_of(error, path))

    def _finish(self, job: Job, verdict: Verdict, text: str, evidence: bytes) -> None:
        ids = self._store.finish(job.key, text, evidence)
        if ids:
            self._metrics.observe(verdict.seconds)
        for job_id in ids:
            self._metrics.count("done")
            problems.log.info("job %s: %s after %.1f s", job_id, verdict.label, verdict.seconds)
            self._settle(job_id)

    def _fail(self, job: Job, problem: problems.Problem, seconds: float, *, analysed: bool) -> None:
        if self._store.fail(job.id, problem.model_dump_json()):  # else it was deleted meanwhile
            self._metrics.count("failed")
            if analysed:
                self._metrics.observe(seconds)
            problems.log.info("job %s: %s after %.1f s", job.id, problem.code, seconds)
        self._settle(job.id)


def _problem_of(error: Exception, path: Path) -> problems.Problem:
    """Return why there is no verdict on a file, without the server's name of it."""
    if isinstance(error, problems.ProblemError):
        return error.problem
    if isinstance(error, MediaError):
        return problems.undecodable(error, path)
    problems.log.error("job %s: %s", path.name, error, exc_info=error)
    ours = isinstance(error, TellframeError)
    text = str(error) if ours else f"tellframe itself failed: {type(error).__name__}"
    return problems.internal(text.replace(str(path), "the video"))
