"""Run work on files from strangers in worker processes that may crash, hang or eat memory.

A decoder is a large C program fed by whoever made the file. What it does to its process costs
that one file, and says so. Workers share nothing with each other, no pipe and no lock, so that
one may be killed at any moment, as the system does when memory is short.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from tellframe.errors import WorkerError

Context = TypeVar("Context")
Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD: Final = 8
"""Items under way or finished early, per worker: enough to go on behind one that takes long."""
START_SECONDS: Final = 300.0
"""Wall time in which a worker must be ready for its first item."""
START_ATTEMPTS: Final = 3
"""Workers in a row that may end before they are ready."""
_LONGEST: Final = 2e6
"""Upper limit of seconds to wait: poll(2) counts milliseconds in 32 bits."""
_RETURNED: Final = "returned"
_RAISED: Final = "raised"
_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost."""

    seconds: float = 120.0
    """Wall time for one try."""
    memory: int = 4 * 2**30
    """Bytes of address space of a worker."""
    attempts: int = 3
    """Tries before a file that kills or stalls its worker is given up."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Work that never came back."""

    reason: str
    """"crash" or "timeout"."""
    attempts: int
    """How often it was tried."""


def map_isolated(
    function: Callable[[Context, Item], Result],
    items: Iterable[Item],
    *,
    setup: Callable[..., Context],
    arguments: tuple[Any, ...] = (),
    workers: int,
    limits: Limits,
) -> Generator[tuple[Item, Result | Failure], None, None]:
    """Call a function on every item in worker processes; yield the results in order.

    Few items are under way at a time, so that memory does not grow with their number. Closing the
    iterator ends the workers.

    Args:
        function: takes what `setup` returned and an item. What it raises is raised here.
        items: picklable.
        setup: called once in every worker, before its first item. Like the function it must be at
            the top level of a module. What it raises is raised here.
        arguments: of `setup`; picklable.
        workers: how many processes.
        limits: for one item.

    Yields:
        (item, result), or (item, `Failure`) where every attempt ended the worker.

    Raises:
        WorkerError: workers end before they have been given anything to do.
    """
    crew: _Crew[Item, Result] = _Crew((function, setup, arguments), workers, limits)
    pending: deque[tuple[Item, Future[Result | Failure]]] = deque()
    try:
        for item in items:
            pending.append((item, crew.submit(item)))
            if len(pending) >= AHEAD * workers:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        crew.close()


class _Crew(Generic[Item, Result]):
    """The worker processes; each has a thread here that talks to it, and to no other."""

    def __init__(self, task: tuple[Any, ...], workers: int, limits: Limits) -> None:
        self._task, self._limits = task, limits
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="isolation")
        self._mine = threading.local()
        self._workers: set[_Worker] = set()
        self._closed = False
        self._lock = threading.Lock()
        """For the two above, and because multiprocessing keeps its books for one thread only."""

    def submit(self, item: Item) -> Future[Result | Failure]:
        return self._threads.submit(self._run, item)

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.end()
        self._threads.shutdown(cancel_futures=True)

    def _run(self, item: Item) -> Result | Failure:
        """Get an item done, in the thread of one worker."""
        reason = ""
        for _ in range(self._limits.attempts):
            worker = self._get_worker()
            reason, value = worker.ask(self._limits.seconds, item)
            if reason == _RETURNED:
                return value  # type: ignore[no-any-return]
            if reason == _RAISED:
                raise value
            self._dismiss(worker)
        return Failure(reason, self._limits.attempts)

    def _get_worker(self) -> _Worker:
        """Return the worker of this thread, or a new one where it was lost."""
        worker: _Worker | None = getattr(self._mine, "worker", None)
        if worker is not None and worker.is_lost():
            self._dismiss(worker)
            worker = None
        self._mine.worker = worker or self._start()
        return self._mine.worker  # type: ignore[no-any-return]

    def _start(self) -> _Worker:
        for _ in range(START_ATTEMPTS):
            with self._lock:
                if self._closed:
                    raise CancelledError
                worker = _Worker(self._task, self._limits.memory)
                self._workers.add(worker)
            reason, value = worker.ask(START_SECONDS)
            if reason == _RETURNED:
                return worker
            self._dismiss(worker)
            if reason == _RAISED:
                raise value
        raise WorkerError(
            f"worker processes end before they begin ({reason}, exit status "
            f"{worker.process.exitcode}); is memory short? Try fewer of them with --workers"
        )

    def _dismiss(self, worker: _Worker) -> None:
        self._mine.worker = None
        with self._lock:
            self._workers.discard(worker)
            worker.end()


class _Worker:
    """A worker process, as seen from here."""

    def __init__(self, task: tuple[Any, ...], memory: int) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=_serve, args=(theirs, os.getpid(), memory, *task), daemon=True
        )
        self.process.start()
        theirs.close()  # so that its end here is the last one, and the pipe ends with the process

    def ask(self, seconds: float, *items: Any) -> tuple[str, Any]:
        """Send an item, if one is given; return how that ended, and a result or an exception."""
        try:
            for item in items:
                self._pipe.send(item)
            if not self._pipe.poll(min(seconds, _LONGEST)):
                return "timeout", None
            data = self._pipe.recv_bytes()
        except (EOFError, OSError):
            return "crash", None
        return pickle.loads(data)  # type: ignore[no-any-return]

    def is_lost(self) -> bool:
        """Tell whether an idle worker has ended: it has nothing to say, so that is what is read."""
        return self._pipe.poll()

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(
    pipe: Any,
    parent: int,
    memory: int,
    function: Callable[[Any, Any], Any],
    setup: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Run a worker process."""
    _confine(parent, memory)
    try:
        context = setup(*arguments)
    except Exception as error:
        pipe.send_bytes(_pickle_error(error))
        return
    pipe.send_bytes(pickle.dumps((_RETURNED, None)))
    while True:
        pipe.send_bytes(_answer(function, context, pipe.recv()))


def _answer(function: Callable[[Any, Any], Any], context: Any, item: Any) -> bytes:
    """Do an item, and pickle what comes of it; too little memory for that ends the worker."""
    try:
        result = function(context, item)
    except Exception as error:
        return _pickle_error(error)
    try:
        return pickle.dumps((_RETURNED, result))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return _pickle_error(error)


def _pickle_error(error: Exception) -> bytes:
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        data = pickle.dumps((_RAISED, error))
        pickle.loads(data)  # some can be pickled, and not unpickled
    except Exception:
        data = pickle.dumps((_RAISED, RuntimeError(f"{type(error).__name__}: {error}")))
    return data


def _confine(parent: int, memory: int) -> None:
    """Keep this process from outliving its parent, and from taking the machine's memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
