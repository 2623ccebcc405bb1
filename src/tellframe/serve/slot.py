"""A warm, confined worker process that says how far it is, as seen from the server.

A sibling of `tellframe.isolation`, which serves lists of files in order. A service wants one
answer at a time, progress while it waits, and to stop work that nobody wants any more.
"""

from __future__ import annotations

import dataclasses
import json
import select
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tellframe.channel import ParentEnd
from tellframe.errors import (
    LimitError,
    MediaError,
    TellframeError,
    WireError,
    WorkerError,
    error_named,
)
from tellframe.isolation import START_SECONDS, Failure
from tellframe.process import start_process
from tellframe.serve.worker import PROGRESS, RAISED, READY, Finding, Progress, Task
from tellframe.types import Sandbox
from tellframe.videofile import open_video_file
from tellframe.wire import unpack

TICK: Final = 0.1
"""Seconds between two looks at whether the work is still wanted."""
MAX_ANSWER: Final = 2**29
"""Bytes of the longest answer that is taken: 64 people in 32 frames are 300 MiB."""
MESSAGE_SECONDS: Final = 30.0
"""In which a message must have come as a whole, once it has begun."""


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
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket
        self._channel: ParentEnd
        self.sandbox: Sandbox | None = None
        """How the worker is confined; None before it is ready."""
        self.owner: str | None = None
        """Whose files the worker has had; None where it has had none."""
        self.starts = 0
        """How many processes there were."""

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None where there is none."""
        return self._process.pid if self._process else None

    def start(self, cancelled: Callable[[], bool]) -> None:
        """Have a worker that has loaded its model and scored a sample.

        Raises:
            TellframeError: the model cannot be loaded, or the process ended before it was ready.
            Cancelled: so `cancelled` said.
        """
        if self._process is not None and not self._channel.is_readable():
            return  # an idle worker has nothing to say: what could be read is its end
        self.end()
        self.owner = None
        self.starts += 1
        self._process, self._socket = start_process(
            "tellframe.serve.worker", confined=True, restrict=True
        )
        self._channel = ParentEnd(self._socket)
        try:
            text = json.dumps(dataclasses.asdict(self._task)).encode()
            self._channel.send(text, None, MESSAGE_SECONDS)
        except OSError:
            pass  # it has ended already, which is found out next
        found = self._wait(START_SECONDS, Sandbox, lambda *_: None, cancelled)
        if isinstance(found, Failure):
            self.end()
            if found.reason != "raised":
                raise WorkerError(
                    f"a worker process ended before it was ready ({found.reason}); "
                    "is memory short? Try fewer of them with --workers"
                )
            raise _error_of(found, TellframeError)
        self.sandbox = found

    def ask(
        self, path: Path, progress: Progress, cancelled: Callable[[], bool]
    ) -> Finding | Failure:
        """Have one file judged.

        Args:
            path: of the file.
            progress: told how far it is, in this thread.
            cancelled: asked every `TICK` seconds whether to stop.

        Returns:
            What was found; or `Failure` where the worker crashed or took too long. It is gone then.

        Raises:
            MediaError: the file cannot be analysed.
            Cancelled: so `cancelled` said; the worker is gone.
        """
        with open_video_file(path) as file:
            try:
                self._channel.send(path.name.encode(), file.descriptor, MESSAGE_SECONDS)
            except OSError:
                self.end()
                return Failure("crash", 1)
        found = self._wait(self._seconds, Finding, progress, cancelled)
        if isinstance(found, Failure) and found.reason == "raised":
            if found.error == MemoryError.__name__:
                raise LimitError(f"needs more memory than {self._task.memory / 2**30:g} GiB")
            raise _error_of(found, MediaError)
        if isinstance(found, Failure):
            self.end()
        return found  # type: ignore[no-any-return]

    def end(self) -> None:
        """End the worker, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._channel.close()
            self._process = None

    def _wait(
        self, seconds: float, kind: Any, progress: Progress, cancelled: Callable[[], bool]
    ) -> Any:
        """Return what the worker answers, as a value of a kind, or how it failed to."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while time.monotonic() < deadline:
            if cancelled():
                self.end()
                raise Cancelled
            if not poll.poll(1000 * TICK):
                continue
            try:
                answer = self._channel.receive(MESSAGE_SECONDS, MAX_ANSWER)
                sort, rest = bytes(answer[:1]), memoryview(answer)[1:]
                if sort == PROGRESS:
                    progress(*unpack(rest, tuple[str, int, int]))
                elif sort == RAISED:
                    return Failure("raised", 1, *unpack(rest, tuple[str, str]))
                elif (sort == READY) == (kind is Sandbox):
                    return unpack(rest, kind)
                else:
                    return Failure("crash", 1)
            except TimeoutError:
                break
            except (EOFError, OSError, WireError):  # who talks nonsense is as good as dead
                return Failure("crash", 1)
        return Failure("timeout", 1)


def _error_of(failure: Failure, family: type[TellframeError]) -> TellframeError:
    """Return the error that a worker raised, as one of a family."""
    return error_named(failure.error, failure.message, family) or TellframeError(
        f"tellframe itself failed: {failure.error}: {failure.message}"
    )
