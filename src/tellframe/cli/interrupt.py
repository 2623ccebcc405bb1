"""What Ctrl-C does to judging: it ends, and what was judged is not lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def interruptible(seen: list[int]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the body without an error, and note them in `seen`.

    The exception alone is not enough: Python drops it where it is raised in a callback.
    """

    def stop(number: int, _frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def until_interrupted(
    items: Generator[Item, None, None], seen: list[int]
) -> Generator[Item, None, None]:
    """Pass items on until Ctrl-C, which is noted in `seen`; a second one ends all at once.

    Whoever takes them is not cut off in the middle of one, but the making of the next one is.

    Raises:
        KeyboardInterrupt: there is no item yet, or it is the second.
    """
    # Another thread gets no signals, and who ignores them (`&` in a script) goes on doing so.
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield from items
        return
    making, some = False, False

    def stop(number: int, _frame: object) -> None:
        seen.append(number)
        if making or len(seen) > 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        with closing(items):
            while not seen:
                making = True
                item = next(items, None)
                making = False
                if item is None or seen:  # what came of it after that may be worth nothing
                    break
                some = True
                yield item
    except KeyboardInterrupt:
        if len(seen) > 1:
            raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen and not some:
        raise KeyboardInterrupt
