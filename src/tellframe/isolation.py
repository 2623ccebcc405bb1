"""Run work on files from strangers in worker processes that may crash, hang or eat memory.

A decoder is a large C program fed by whoever made the file. What it does to its process costs
that one file, and says so. Workers share nothing with each other, no pipe and no lock, so that
one may be killed at any moment, as the system does when memory is short.

A confined worker gives up its rights once it is set up, see `tellframe.sandbox`: it gets open
descriptors, and what it says is plain bytes that are checked, see `tellframe.wire`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from tellframe.errors import TellframeError, WorkerError, error_named
from tellframe.process import FAILURE, SUCCESS, WorkerProcess
from tellframe.types import Sandbox
from tellframe.worker import Task

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD: Final = 8
"""Items under way or finished early, per worker: enough to go on behind one that takes long."""
START_SECONDS: Final = 300.0
"""Wall time in which a worker must be ready for its first item."""
START_ATTEMPTS: Final = 3
"""Workers in a row that may end before they are ready."""
RECEIPT_SECONDS: Final = 60.0
"""Wall time in which an idle worker must say that it has its item."""
RECEIPT_ATTEMPTS: Final = 2
"""Workers in a row that may be lost before they say so: the idle one, and a fresh one."""


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
    """Work that never came back, or that failed in a confined worker."""

    reason: str
    """"crash", "timeout", or "raised", which is of a confined worker."""
    attempts: int
    """How often it was tried."""
    error: str = ""
    """For "raised": the name of the exception's class."""
    message: str = ""
    """For "raised": its text. Both are the worker's, and not to be relied upon."""


@dataclass(frozen=True, slots=True)
class Job(Generic[Item, Result]):
    """What workers do."""

    function: Callable[..., Result]
    """Takes what `setup` returned and an item, and with `open_item` a descriptor. Like `setup` it
    must be at the top level of a module."""
    setup: Callable[..., Any]
    """Called once in every worker, before its first item. What it raises is raised here."""
    arguments: tuple[Any, ...] = ()
    """Of `setup`; picklable."""
    returns: Any = None
    """What the function returns, as a type that `tellframe.wire` knows: workers are confined then,
    and what they raise gives a `Failure`. None: workers are not confined, what they return must be
    picklable, and what they raise is raised here."""
    open_item: Callable[[Item], AbstractContextManager[int]] | None = None
    """Called here with every item: gives a descriptor for the worker. What it raises gives a
    `Failure` too, unless it is no error of ours, or says that a store does not answer."""


def map_isolated(
    function: Callable[[Any, Item], Result],
    items: Iterable[Item],
    *,
    setup: Callable[..., Any],
    arguments: tuple[Any, ...] = (),
    workers: int,
    limits: Limits,
    returns: Any = None,
    open_item: Callable[[Item], AbstractContextManager[int]] | None = None,
) -> Generator[tuple[Item, Result | Failure], None, None]:
    """Call a function on every item in worker processes; yield the results in order.

    Few items are under way at a time, so that memory does not grow with their number. Closing the
    iterator ends the workers.

    Args:
        function: see `Job`, as for `setup`, `arguments`, `returns` and `open_item`.
        items: picklable.
        setup: what workers begin with.
        arguments: of `setup`.
        workers: how many processes.
        limits: for one item.
        returns: for confined workers.
        open_item: opens what an item stands for.

    Yields:
        (item, result), or (item, `Failure`) where every attempt ended the worker.

    Raises:
        WorkerError: workers end before they have been given anything to do.
    """
    crew = Crew(Job(function, setup, arguments, returns, open_item), workers, limits)
    try:
        yield from crew.map(items, AHEAD * workers)
    finally:
        crew.close()


def map_ahead(
    submit: Callable[[Item], Future[Result]], items: Iterable[Item], ahead: int
) -> Generator[tuple[Item, Result], None, None]:
    """Have items done, some of them ahead of the one that is waited for.

    Args:
        submit: has an item done by somebody else.
        items: taken one by one; what goes wrong there is raised after the results before it.
        ahead: items under way or finished early at most.

    Yields:
        (item, result), in order.
    """
    pending: deque[tuple[Item, Future[Result]]] = deque()
    following, exhausted = iter(items), False
    failure: Exception | None = None
    while pending or not exhausted:
        while not exhausted and len(pending) < ahead:
            try:
                item = next(following)
            except StopIteration:
                exhausted = True
            except Exception as error:
                exhausted, failure = True, error
            else:
                pending.append((item, submit(item)))
        if pending:
            item, future = pending.popleft()
            yield item, future.result()
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # it would keep itself alive, through its traceback and this frame


class Crew(Generic[Item, Result]):
    """Worker processes that stay; each has a thread here that talks to it, and to no other."""

    def __init__(self, job: Job[Item, Result], workers: int, limits: Limits) -> None:
        self.sandbox: Sandbox | None = None
        """How the worker that was started last is confined; None before, or if it is not."""
        self._job, self._limits = job, limits
        self._task = Task(
            function=job.function,
            setup=job.setup,
            arguments=job.arguments,
            memory=limits.memory,
            processor=limits.seconds * (os.cpu_count() or 1),
            confined=job.returns is not None,
        )
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="isolation")
        self._mine = threading.local()
        self._workers: set[WorkerProcess] = set()
        self._closed = False
        self._lock = threading.Lock()
        """For the two above."""

    def start(self) -> Future[Any]:
        """Start a worker; what is returned is done when it is ready, or says why it is not."""
        return self._threads.submit(self._get_worker)

    def submit(self, item: Item) -> Future[Result | Failure]:
        """Have an item done."""
        return self._threads.submit(self._run, item)

    def map(
        self, items: Iterable[Item], ahead: int
    ) -> Generator[tuple[Item, Result | Failure], None, None]:
        """Have items done, some of them ahead of the one that is waited for; yield in order."""
        yield from map_ahead(self.submit, items, ahead)

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.end()
        self._threads.shutdown(cancel_futures=True)

    def _run(self, item: Item) -> Result | Failure:
        """Get an item done, in the thread of one worker."""
        job, reason = self._job, ""
        with ExitStack() as stack:
            try:
                opened = job.open_item(item) if job.open_item else nullcontext()
                descriptor = stack.enter_context(opened)
            except (TellframeError, MemoryError) as error:
                if not getattr(error, "missing", True):  # it says nothing about the item
                    raise
                return Failure(FAILURE, 1, type(error).__name__, str(error))
            for attempt in range(1, self._limits.attempts + 1):
                worker = self._hand_over(item, descriptor)
                if worker is None:
                    reason = "crash"
                    continue
                reason, value = worker.ask(self._limits.seconds, job.returns)
                if reason == SUCCESS:
                    return value  # type: ignore[no-any-return]
                if reason == FAILURE:
                    if isinstance(value, Exception):
                        raise value
                    return Failure(reason, attempt, *value)
                self._dismiss(worker)
        return Failure(reason, self._limits.attempts)

    def _hand_over(self, item: Item, descriptor: int | None) -> WorkerProcess | None:
        """Give an item to a worker; return it when it says that it has it, None if none does.

        A worker that is lost before, killed for want of memory while it was idle, has not begun:
        that is no doing of the item's, and costs it none of its attempts.
        """
        for _ in range(RECEIPT_ATTEMPTS):
            worker = self._get_worker()
            reason, _ = worker.ask(RECEIPT_SECONDS, type(None), item, descriptor)
            if reason == SUCCESS:
                return worker
            self._dismiss(worker)
        return None

    def _get_worker(self) -> WorkerProcess:
        """Return the worker of this thread, or a new one where it was lost."""
        worker: WorkerProcess | None = getattr(self._mine, "worker", None)
        if worker is not None and worker.is_lost():
            self._dismiss(worker)
            worker = None
        self._mine.worker = worker or self._start()
        return self._mine.worker  # type: ignore[no-any-return]

    def _start(self) -> WorkerProcess:
        for _ in range(START_ATTEMPTS):
            with self._lock:
                if self._closed:
                    raise CancelledError
                worker = WorkerProcess(self._task)
                self._workers.add(worker)
            reason, value = worker.ask(START_SECONDS, Sandbox)
            if reason == SUCCESS:
                self.sandbox = value
                return worker
            self._dismiss(worker)
            if reason == FAILURE:
                raise value if isinstance(value, Exception) else setup_error(*value)
        raise WorkerError(
            f"worker processes end before they begin ({reason}, exit status "
            f"{worker.process.returncode}); is memory short? Try fewer of them with "
            "--workers, or --memory where it gives them too little"
        )

    def _dismiss(self, worker: WorkerProcess) -> None:
        self._mine.worker = None
        with self._lock:
            self._workers.discard(worker)
            worker.end()


def setup_error(name: str, message: str) -> TellframeError:
    """Return the error that a confined worker raised when it was set up, before any item."""
    known = error_named(name, message, TellframeError)
    return known or WorkerError(f"a worker process cannot be set up ({name}: {message})")
