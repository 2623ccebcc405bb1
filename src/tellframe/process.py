"""A worker process, as the process that started it sees it."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from typing import Any, Final

from tellframe.channel import ParentEnd
from tellframe.errors import WireError
from tellframe.wire import unpack
from tellframe.worker import RETURNED, Task

MAX_ANSWER: Final = 2**30
"""Bytes of the longest answer that is taken from a confined worker."""
SUCCESS: Final = "returned"
FAILURE: Final = "raised"
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "{first}from {module} import main; main(sys.argv[2:])"
)
_RESTRICT: Final = "from tellframe.sandbox import restrict_start; restrict_start(); "
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
        self.process, ours = start_process(
            "tellframe.worker", str(int(self._confined)), confined=self._confined
        )
        self._channel = ParentEnd(ours)
        self._first: bytes | None = pickle.dumps(task)

    def ask(
        self, seconds: float, kind: Any, item: Any = None, descriptor: int | None = None
    ) -> tuple[str, Any]:
        """Send an item, or at first the task; return how that ended, and what it gave.

        Returns:
            "returned" and the result; "raised" and an exception, or of a confined worker the name
            of its class and its text; "timeout" or "crash" and None.
        """
        try:
            data, self._first = self._first or pickle.dumps(item), None
            self._channel.send(data, descriptor, seconds)
            answer = self._channel.receive(seconds, MAX_ANSWER if self._confined else 2**62)
            returned, rest = answer[:1] == RETURNED, memoryview(answer)[1:]
            if not self._confined:
                return (SUCCESS if returned else FAILURE), pickle.loads(rest)
            return (
                (SUCCESS, unpack(rest, kind))
                if returned
                else (FAILURE, unpack(rest, tuple[str, str]))
            )
        except TimeoutError:
            return "timeout", None
        except (EOFError, OSError, WireError):  # one that talks nonsense is as good as dead
            return "crash", None

    def is_lost(self) -> bool:
        """Tell whether an idle worker has ended: it has nothing to say, so that is what is read."""
        return self._channel.is_readable()

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self._channel.close()


def start_process(
    module: str, *arguments: str, confined: bool, restrict: bool = False
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a worker process; return it, and our end of the channel to it.

    Args:
        module: its `main` is called with the number of the descriptor of its end, the id of this
            process, and the arguments.
        arguments: more of them.
        confined: whether it may not know the secrets of the environment.
        restrict: whether it gives up rights before the module is imported.
    """
    ours, theirs = socket.socketpair()
    boot = _BOOT.format(first=_RESTRICT if restrict else "", module=module)
    command = [sys.executable, "-P", "-c", boot, json.dumps(sys.path)]
    process = subprocess.Popen(
        [*command, str(theirs.fileno()), str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env=worker_environment(confined=confined),
    )
    theirs.close()  # so that its end there is the last one, and it ends with the process
    return process, ours


def worker_environment(*, confined: bool) -> dict[str, str]:
    """Return the environment that a worker is started with."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not confined or name in _KEPT or name.startswith(_KEPT_BEGINNINGS)
    }
    # Linear algebra is of no use to a worker, and its threads would be older than the sandbox.
    return {"OPENBLAS_NUM_THREADS": "1", **kept}
