"""A warm, confined worker process that says how far it is, as seen from the server.

A sibling of `tellframe.isolation.Crew`, which serves lists of files in order. A service wants one
answer at a time, progress while it waits, and to stop work that nobody wants any more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tellframe.errors import LimitError, MediaError, TellframeError, WorkerError, error_named
from tellframe.isolation import (
    RECEIPT_ATTEMPTS,
    RECEIPT_SECONDS,
    START_SECONDS,
    Failure,
    setup_error,
)
from tellframe.process import FAILURE, SUCCESS, WorkerProcess
from tellframe.serve.worker import STAGES, Finding
from tellframe.types import Sandbox
from tellframe.videofile import open_video_file
from tellframe.worker import Progress, Task


class Cancelled(Exception):  # noqa: N818 (no error: somebody asked for it)
    """Nobody wants the result any more."""


class Slot:
    """One worker process, started when it is needed, and again where it was lost.

    Args:
        task: what the worker is for.
        seconds: wall time for one file.
    """

    def __init__(self, task: Task, seconds: float) -> None:
        self._task, self._seconds = task, seconds
        self._worker: WorkerProcess | None = None
        self._owner: str | None = None
        """Whose files the worker has had; None where it has had none."""
        self.sandbox: Sandbox | None = None
        """How the worker is confined; None before it is ready."""
        self.starts = 0
        """How many processes there were."""

    def start(self, cancelled: Callable[[], bool]) -> WorkerProcess:
        """Return a worker that has loaded its model and scored a sample.

        Args:
            cancelled: asked ten times a second whether to stop, as below.

        Raises:
            WorkerError: the model cannot be loaded, or the process ended before it was ready.
            OSError: no process can be started.
            Cancelled: so `cancelled` said.
        """
        if self._worker is not None and not self._worker.is_lost():
            return self._worker
        self.end()
        self.starts += 1
        self._worker = worker = WorkerProcess(self._task)
        reason, found = worker.ask(START_SECONDS, Sandbox, tick=self._stop_if(cancelled))
        if reason == SUCCESS:
            self.sandbox = found
            return worker
        self.end()
        if reason == FAILURE:
            raise WorkerError(str(setup_error(*found)))
        raise WorkerError(
            f"a worker process ended before it was ready ({reason}); is memory short? Try fewer of "
            "them with --workers"
        )

    def ask(
        self, path: Path, owner: str, progress: Progress, cancelled: Callable[[], bool]
    ) -> Finding | Failure:
        """Have one file judged.

        Args:
            path: of the file.
            owner: whose it is; a worker that has had files of another one is replaced.
            progress: told how far it is, in this thread.
            cancelled: asked whether to stop.

        Returns:
            What was found; or `Failure` where the worker crashed or took too long. It is gone then.

        Raises:
            MediaError: the file cannot be analysed.
            WorkerError, OSError: there is no worker; see `start`.
            TellframeError: the analysis itself failed.
            Cancelled: so `cancelled` said; the worker is gone.
        """

        def check_step(stage: str, done: int, total: int) -> None:
            if stage in STAGES and done >= 0 and total >= 0:  # a worker may say anything
                progress(stage, done, total)

        # A worker that a file has taken over could lie about the files after it: those of the
        # same owner at the most.
        if self._owner not in (None, owner):
            self.end()
        with open_video_file(path) as file:
            worker = self._hand_over(path.name, file.descriptor, cancelled)
        if worker is None:
            return Failure("crash", 1)
        self._owner = owner
        reason, found = worker.ask(
            self._seconds, Finding, progress=check_step, tick=self._stop_if(cancelled)
        )
        if reason == SUCCESS:
            return found  # type: ignore[no-any-return]
        if reason != FAILURE:
            self.end()
            return Failure(reason, 1)
        name, message = found
        if name == MemoryError.__name__:
            raise LimitError(f"needs more memory than {self._task.memory / 2**30:g} GiB")
        raise error_named(name, message, MediaError) or TellframeError(
            f"tellframe itself failed: {name}: {message}"
        )

    def _hand_over(
        self, name: str, descriptor: int, cancelled: Callable[[], bool]
    ) -> WorkerProcess | None:
        """Give a file to a worker; see `tellframe.isolation.Crew`, which does the same."""
        for _ in range(RECEIPT_ATTEMPTS):
            worker = self.start(cancelled)
            tick = self._stop_if(cancelled)
            reason, _ = worker.ask(RECEIPT_SECONDS, type(None), name, descriptor, tick=tick)
            if reason == SUCCESS:
                return worker
            self.end()
        return None

    def _stop_if(self, cancelled: Callable[[], bool]) -> Callable[[], None]:
        def check() -> None:
            if cancelled():
                self.end()
                raise Cancelled

        return check

    def end(self) -> None:
        """End the worker, whatever it is doing."""
        if self._worker is not None:
            self._worker.end()
        self._worker = self._owner = None
