"""Build units on a Ray cluster.

Ray is the scheduler alone: what is done, what is tried again and what is given up is decided by
the units and the worker processes, as everywhere else.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Final

from tellframe.data.build import Progress, Workplace
from tellframe.data.build import build_units as build_here
from tellframe.data.cut import VideoRecord
from tellframe.data.plan import Unit
from tellframe.errors import MissingExtraError
from tellframe.recipe import Recipe

MAX_RETRIES: Final = 3
"""How often a unit is given to another node when its own is lost."""


def build_units(
    recipe: Recipe, units: Sequence[Unit], place: Workplace, progress: Progress
) -> None:
    """Build units on the cluster that RAY_ADDRESS names, or on a local one; one core a unit.

    Arguments and errors as for `tellframe.data.build.build_units`; the destination must be one
    that all nodes reach.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "--engine ray needs an extra; run: pip install 'tellframe[ray]'"
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_build_unit)
    one = dataclasses.replace(place, workers=1)
    # A few more than there are cores, so that none waits; not all, because they are pickled.
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    ahead = 2 * max(1, int(resources.get("CPU", 1)))
    running: set[Any] = set()
    try:
        for unit in units:
            running.add(remote.remote(recipe, unit, one))
            if len(running) >= ahead:
                running = _take(ray, running, progress)
        while running:
            running = _take(ray, running, progress)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # as if it had been raised here


def _take(ray: Any, running: set[Any], progress: Progress) -> set[Any]:
    """Report what is done; return what is not."""
    done, left = ray.wait(list(running), num_returns=1)
    for records in ray.get(done):
        for record in records:
            progress(record)
    return set(left)


def _build_unit(recipe: Recipe, unit: Unit, place: Workplace) -> list[VideoRecord]:
    records: list[VideoRecord] = []
    build_here(recipe, [unit], place, records.append)
    return records
