"""A worker process, as the process that started it sees it."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from tellframe.channel import ParentEnd
from tellframe.errors import WireError
from tellframe.wire import unpack
from tellframe.worker import RETURNED, STEP, Progress, Task

MAX_ANSWER: Final = 2**30
"""Bytes of the longest answer that is taken from a confined worker."""
SUCCESS: Final = "returned"
FAILURE: Final = "raised"
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tellframe.worker import main; main(sys.argv[2:])"
)
_KEPT: Final = ("HOME", "LANG", "PATH", "TMPDIR", "TELLFRAME_CACHE", "TELLFRAME_YUNET")
_KEPT_BEGINNINGS: Final = ("LC_", "LD_", "PYTHON", "XDG_")
"""What a confined worker inherits of the environment, which may hold passwords and tokens."""


class WorkerProcess:
    """A worker; started at once, and killed by `end`.

    Args:
        task: what it is for; sent when it is asked for the first time.
    """

    def __init__(self, task: Task) -> None:
        self._confined = task.confined
        self._first: bytes | None = pickle.dumps(task)
        ours, theirs = socket.socketpair()
        with theirs:  # so that its end there is the last one, and it ends with the process
            command = [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)]
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(int(self._confined))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(confined=self._confined),
            )
        self._channel = ParentEnd(ours)

    def ask(
        self,
        seconds: float,
        kind: Any,
        item: Any = None,
        descriptor: int | None = None,
        *,
        progress: Progress = lambda *_: None,
        tick: Callable[[], None] = lambda: None,
    ) -> tuple[str, Any]:
        """Send an item, or at first the task; return how that ended, and what it gave.

        Args:
            seconds: wall time for it.
            kind: what a confined worker has to answer, as a type that `tellframe.wire` knows.
            item: picklable.
            descriptor: of a file that the worker gets as well.
            progress: told how far it is, in this thread, where the task reports it.
            tick: called ten times a second; what it raises is raised here.

        Returns:
            "returned" and the result; "raised" and an exception, or of a confined worker the name
            of its class and its text; "timeout" or "crash" and None.
        """
        end = time.monotonic() + seconds
        try:
            data, self._first = self._first or pickle.dumps(item), None
            self._channel.send(data, descriptor, seconds)
            while True:
                sort, rest = self._receive(end - time.monotonic(), tick)
                if sort != STEP:
                    break
                progress(*unpack(rest, tuple[str, int, int]))
            if not self._confined:
                return (SUCCESS if sort == RETURNED else FAILURE), pickle.loads(rest)
            if sort == RETURNED:
                return SUCCESS, unpack(rest, kind)
            return FAILURE, unpack(rest, tuple[str, str])
        except TimeoutError:
            return "timeout", None
        except (EOFError, OSError, WireError):  # one that talks nonsense is as good as dead
            return "crash", None

    def _receive(self, seconds: float, tick: Callable[[], None]) -> tuple[bytes, memoryview]:
        """Return the first byte of a message, which says of what sort it is, and the others."""
        message = self._channel.receive(seconds, MAX_ANSWER if self._confined else 2**62, tick)
        return bytes(message[:1]), memoryview(message)[1:]

    def is_lost(self) -> bool:
        """Tell whether an idle worker has ended: it has nothing to say, so that is what is read."""
        return self._channel.is_readable()

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self._channel.close()


def _environment(*, confined: bool) -> dict[str, str]:
    """Return the environment that a worker is started with."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not confined or name in _KEPT or name.startswith(_KEPT_BEGINNINGS)
    }
    # Linear algebra is of no use to a worker, and its threads would be older than the sandbox.
    return {"OPENBLAS_NUM_THREADS": "1", **kept}
