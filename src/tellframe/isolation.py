"""Run work on files from strangers in worker processes that may crash, hang or eat memory.

A decoder is a large C program fed by whoever made the file. What it does to its process costs
that one file, and says so.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from tellframe.errors import MissingExtraError

Context = TypeVar("Context")
Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD: Final = 8
"""Items under way or finished early, per worker: enough to go on behind one that takes long."""


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


@dataclass(slots=True)
class _Pending(Generic[Item]):
    item: Item
    future: Any
    attempts: int = 1


def map_isolated(
    function: Callable[[Context, Item], Result],
    items: Iterable[Item],
    *,
    setup: Callable[..., Context],
    arguments: tuple[Any, ...] = (),
    workers: int,
    limits: Limits,
) -> Iterator[tuple[Item, Result | Failure]]:
    """Call a function on every item in worker processes; yield the results in order.

    Few items are under way at a time, so that memory does not grow with their number.

    Args:
        function: takes what `setup` returned and an item. What it raises is raised here.
        items: picklable.
        setup: called once in every worker, when its first item comes. Like the function it must
            be at the top level of a module.
        arguments: of `setup`; picklable.
        workers: how many processes.
        limits: for one item.

    Yields:
        (item, result), or (item, `Failure`) where every attempt ended the worker.

    Raises:
        MissingExtraError: Pebble is not installed.
    """
    try:
        from pebble import ProcessPool
    except ImportError as error:
        raise MissingExtraError(
            "work in isolation needs an extra; run: pip install 'tellframe[data]'"
        ) from error
    pool = ProcessPool(
        max_workers=workers,
        initializer=_start_worker,
        initargs=(os.getpid(), limits.memory, setup, arguments),
        context=multiprocessing.get_context("spawn"),  # a fork would copy the threads' locks
    )

    def submit(item: Item) -> Any:
        return pool.schedule(_call, args=(function, item), timeout=limits.seconds)

    pending: deque[_Pending[Item]] = deque()
    with pool:
        try:
            for item in items:
                pending.append(_Pending(item, submit(item)))
                if len(pending) >= AHEAD * workers:
                    first = pending.popleft()
                    yield first.item, _finish(first, submit, limits)
            while pending:
                first = pending.popleft()
                yield first.item, _finish(first, submit, limits)
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def _finish(
    pending: _Pending[Item], submit: Callable[[Item], Any], limits: Limits
) -> Any | Failure:
    """Wait for a result; try again where the worker was lost."""
    from pebble import ProcessExpired

    while True:
        try:
            return pending.future.result()
        except FutureTimeoutError:
            reason = "timeout"
        except ProcessExpired:
            reason = "crash"
        if pending.attempts >= limits.attempts:
            return Failure(reason, pending.attempts)
        pending.attempts += 1
        pending.future = submit(pending.item)


class _Worker:
    """What a worker process keeps from one item to the next."""

    prepare: Callable[[], Any]
    context: Any = None


def _call(function: Callable[[Any, Any], Any], item: Any) -> Any:
    """Run in the worker. The context is made here, where its errors find their way back."""
    if _Worker.context is None:
        _Worker.context = _Worker.prepare()
    return function(_Worker.context, item)


def _start_worker(
    parent: int, memory: int, setup: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Prepare a worker process: it must not outlive its parent, nor take the machine's memory."""
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
    _Worker.prepare = partial(setup, *arguments)
