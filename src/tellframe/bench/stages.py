"""Where the time of one analysis goes, stage by stage, measured in the code that users run.

Functions that mark a stage are timed by wrappers that are put in their places and taken away
afterwards. What a stage calls that is a stage itself counts for that one alone. The frames are
read and searched one after the other, and not side by side as otherwise, so that no stage waits
for a core that another one has.
"""

from __future__ import annotations

import functools
import importlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tellframe.detector import Detector
from tellframe.report import format_table, write_html, write_jsonl

STAGES: Final[dict[str, tuple[str, ...]]] = {
    "list": ("extract.list_frames",),
    "decode": ("video._pick",),
    "convert": ("extract.read_frames",),
    "detect": ("extract.brighten", "faces.finder.FaceFinder.find"),
    "align": ("extract.crop_face", "extract._to_clip"),
    "track": ("extract.Tracker.update", "extract.Tracker.finish", "extract.keep_people"),
    "judge": ("detector.Detector.judge", "detector.judge_video"),
    "report": (),
}
"""What is timed, below `tellframe`, by stage. "list": the file is read once for its checksum and
the time stamps of its pictures; "convert": to RGB, and turned upright."""
_ITERATORS: Final = frozenset({"video._pick", "extract.read_frames"})
_SIDE_BY_SIDE: Final = "extract._read_ahead"


class Stopwatch:
    """Seconds by stage; each counts without those that run inside of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._inside: list[float] = []

    @contextmanager
    def run(self, stage: str) -> Iterator[None]:
        """Count the time until the end of the block."""
        begin = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.seconds[stage] += spent - self._inside.pop()
            if self._inside:
                self._inside[-1] += spent

    def wrap(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """Return the function, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.run(stage):
                return function(*args, **kwargs)

        return timed

    def wrap_iterator(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """Return a function that gives an iterator, timed while something is taken from it."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = iter(function(*args, **kwargs))
            while True:
                with self.run(stage):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item

        return timed


@contextmanager
def watch_stages() -> Iterator[Stopwatch]:
    """Time the stages of what one thread analyses within the block."""
    watch = Stopwatch()
    replaced: list[tuple[Any, str, Any]] = []

    def replace(name: str, make: Callable[[Any], Any]) -> None:
        owner, last = _find(name)
        replaced.append((owner, last, getattr(owner, last)))
        setattr(owner, last, make(getattr(owner, last)))

    try:
        for stage, names in STAGES.items():
            for name in names:
                wrap = watch.wrap_iterator if name in _ITERATORS else watch.wrap
                replace(name, functools.partial(wrap, stage=stage))
        replace(_SIDE_BY_SIDE, lambda _: iter)
        yield watch
    finally:
        for owner, last, original in reversed(replaced):
            setattr(owner, last, original)


def _find(name: str) -> tuple[Any, str]:
    """Return the module or class that holds a name, and the name's last part."""
    *parts, last = name.split(".")
    modules = [part for part in parts if part.islower()]
    owner: Any = importlib.import_module(".".join(["tellframe", *modules]))
    for part in parts[len(modules) :]:
        owner = getattr(owner, part)
    return owner, last


def time_stages(detector: Detector, path: Path) -> dict[str, float]:
    """Analyse and report one video stage after stage.

    The report is what `tellframe detect` prints, as a table and as JSON; with a detector that
    keeps evidence, the HTML page as well.

    Args:
        detector: warm, and not one that leaves the video to a worker process.
        path: the video.

    Returns:
        Seconds by stage, and as "rest" what lies between them.

    Raises:
        MediaError: the video cannot be read.
    """
    with watch_stages() as watch, tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        verdict = detector.detect(path)
        with watch.run("report"):
            format_table([verdict])
            write_jsonl(verdict, io.StringIO())
            if detector.keep_evidence:
                write_html(verdict, Path(folder) / "page.html")
        spent = time.perf_counter() - begin
    return {**watch.seconds, "rest": max(spent - sum(watch.seconds.values()), 0.0)}
