"""What is installed of what pyproject.toml asks for, with all that this asks for in turn."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
Packages = dict[str, metadata.Distribution]
"""Distributions by canonical name, without tellframe itself."""


class NotInstalledError(Exception):
    """A package that is needed is not installed."""


def read_project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements_of(project: dict[str, Any], *, extra: str = "", group: str = "") -> list[str]:
    """Return what pyproject.toml asks for: for an extra, for a group, or for the core."""
    if group:
        return list(project["dependency-groups"][group])
    if extra:
        return list(project["project"]["optional-dependencies"][extra])
    return list(project["project"]["dependencies"])


def find_packages(requirements: Iterable[str], project: dict[str, Any]) -> Packages:
    """Return the packages that requirements lead to on this platform.

    Args:
        requirements: as in pyproject.toml; tellframe's own extras among them.
        project: from `read_project`, for these.

    Raises:
        NotInstalledError: one is not installed.
    """
    found: Packages = {}
    pending = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while pending:
        wanted = pending.pop()
        name = canonicalize_name(wanted.name)
        for extra in sorted({"", *wanted.extras}):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "tellframe":
                texts = requirements_of(project, extra=extra)
                pending += map(Requirement, texts)
                continue
            found[name] = _installed(name)
            asked = map(Requirement, found[name].requires or ())
            pending += [r for r in asked if not r.marker or r.marker.evaluate({"extra": extra})]
    return dict(sorted(found.items()))


def _installed(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise NotInstalledError(
            f"{name} is not installed; run this in the environment that `make test` makes (.venv)"
        ) from error
