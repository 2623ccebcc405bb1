"""What a worker process runs: it sets itself up, gives up its rights, and does item after item."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tellframe.channel import WorkerEnd
from tellframe.errors import OutOfMemoryError
from tellframe.sandbox import confine, limit_memory, limit_processor, restrict_start, tie_to_parent
from tellframe.wire import pack

RETURNED: Final = b"+"
RAISED: Final = b"-"
STEP: Final = b"~"
"""First byte of a message to the parent: of an answer, or of how far it is."""
Progress = Callable[[str, int, int], None]
"""Called with the stage, how many steps of it are done, and how many there are (0: not known)."""
_LONGEST_TEXT: Final = 4000
"""Characters of a message that are passed on."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is for."""

    function: Callable[..., Any]
    """Takes what `setup` returned and an item, the descriptor that came with it, if any, and where
    it reports a `Progress`."""
    setup: Callable[..., Any]
    arguments: tuple[Any, ...]
    memory: int
    """Bytes of address space."""
    processor: float
    """Seconds of all processors together for one item."""
    confined: bool
    """Whether the worker gives up its rights, and answers in plain bytes instead of pickles."""
    reports: bool = False
    """Whether the function says how far it is."""


def main(arguments: list[str]) -> None:
    """Run a worker process.

    Args:
        arguments: number of the descriptor of the channel, id of the parent, "1" for a confined
            worker.
    """
    channel, parent, confined = WorkerEnd(int(arguments[0])), int(arguments[1]), arguments[2]
    tie_to_parent(parent)
    if confined == "1":
        restrict_start()
    try:
        serve(channel)
    except (EOFError, OSError):  # the parent wants no more, or is gone
        os._exit(0)


def serve(channel: WorkerEnd) -> None:
    """Set up, and answer until the parent ends.

    An item takes two messages: the item itself, which is acknowledged, and then the word to begin.

    Raises:
        EOFError, OSError: the parent has ended.
    """
    received, _ = channel.receive()
    confined = False
    try:
        task: Task = pickle.loads(received)
        confined = task.confined
        limit_memory(task.memory)
        context = task.setup(*task.arguments)
        state = None
        if confined:
            _leave_terminal()
            state = confine(task.memory)
    except Exception as error:
        channel.send(RAISED, _error_bytes(error, confined))
        return
    nothing = pack(None) if confined else pickle.dumps(None)
    channel.send(RETURNED, pack(state) if confined else nothing)
    while True:
        data, descriptor = channel.receive()
        # Until it has said so, its end is not the item's doing; see `tellframe.isolation.Crew`.
        channel.send(RETURNED, nothing)
        channel.receive()
        limit_processor(task.processor)
        given = [pickle.loads(data)]
        if descriptor is not None:
            given.append(descriptor)
        if task.reports:
            given.append(lambda *step: channel.send(STEP, pack(step)))
        answer = _answer(task, context, given)
        if descriptor is not None:
            os.close(descriptor)
        channel.send(*answer)


def _answer(task: Task, context: Any, given: list[Any]) -> tuple[bytes, bytes]:
    """Do an item; too little memory for the answer ends the worker."""
    try:
        result = task.function(context, *given)
        if task.confined:
            return RETURNED, pack(result)
    except Exception as error:
        if task.confined and isinstance(error, OutOfMemoryError):
            error = MemoryError(str(error))  # the parent knows the file, the limit and its option
        return RAISED, _error_bytes(error, task.confined)
    try:
        return RETURNED, pickle.dumps(result)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return RAISED, _error_bytes(error, confined=False)


def _error_bytes(error: Exception, confined: bool) -> bytes:
    if confined:
        return pack((type(error).__name__, str(error)[:_LONGEST_TEXT]))
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # some can be pickled, and not unpickled
    except Exception:
        data = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return data


def _leave_terminal() -> None:
    """Let nothing that a file makes a library write reach the user's terminal or log."""
    sys.stderr.flush()
    os.dup2(1, 2)  # which leads nowhere from the start
