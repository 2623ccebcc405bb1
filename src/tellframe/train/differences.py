"""What differs between two sets of settings, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def list_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return what differs, such as "optim.steps: 2 there, 3 here"; "" where nothing does.

    Args:
        there: settings of what was made before; tables of them one level deep.
        here: those of now.
    """
    old, own = _flat(there), _flat(here)
    return "; ".join(
        f"{key}: {old.get(key)!r} there, {own.get(key)!r} here"
        for key in {**old, **own}
        if old.get(key) != own.get(key)
    )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of tables by key, such as "optim.lr"."""
    flat: dict[str, Any] = {}
    for table, fields in values.items():
        if isinstance(fields, Mapping):
            flat |= {f"{table}.{name}": value for name, value in fields.items()}
        else:
            flat[table] = fields
    return flat
