"""Judging whatever comes: `tellframe detect --watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tellframe.cli.sources import Source, judge_sources
from tellframe.errors import StoreError

if TYPE_CHECKING:
    from tellframe.detector import Detector
    from tellframe.types import Verdict


class Lookout:
    """Looks for videos again and again.

    Args:
        find: returns all that are there now.
        seconds: between two looks; 0 to look once.
        known: names of those that need not be judged any more; `watch` adds to its own copy.
    """

    def __init__(
        self, find: Callable[[], Sequence[Source]], seconds: float, known: Iterable[str] = ()
    ) -> None:
        self.seconds, self.known = seconds, set(known)
        self._find = find
        self._states: dict[str, tuple[int, int]] = {}

    def look(self) -> list[Source]:
        """Return the videos that are new and complete.

        A file in a folder that is looked at again is complete where it is unchanged since the look
        before, or for as long as there is between two of them.

        Raises:
            StoreError: a place cannot be listed.
        """
        found = [s for s in self._find() if s.name not in self.known]
        if not self.seconds:
            return found
        new = {s.name: s for s in found if not s.is_place}
        return [s for s in new.values() if self._is_complete(s)]

    def _is_complete(self, source: Source) -> bool:
        if not source.in_folder:
            return True
        try:
            facts = Path(source.name).stat()
        except OSError:
            return False  # gone since
        state = (facts.st_size, facts.st_mtime_ns)
        same = self._states.get(source.name) == state
        self._states[source.name] = state
        return same or time.time() - facts.st_mtime >= self.seconds


def watch(detector: Detector, lookout: Lookout, interrupted: Sequence[int]) -> Iterator[Verdict]:
    """Yield the verdicts on whatever comes, until `interrupted` is no longer empty."""
    while not interrupted:
        try:
            for verdict in judge_sources(detector, lookout.look()):
                if interrupted:  # its worker may have been ended as well
                    return
                lookout.known.add(verdict.video)
                yield verdict
        except StoreError as error:
            print(f"tellframe: {error}; trying again", file=sys.stderr, flush=True)
        end = time.monotonic() + lookout.seconds
        while not interrupted and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
