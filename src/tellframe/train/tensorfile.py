"""Files of tensors that say what they are: safetensors, with JSON beside the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tellframe.errors import ConfigError

_KEY: Final = "tellframe"
"""Of the description, among the metadata of the file."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and their description; replaces what was there only when complete.

    The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(plain, temporary, metadata={_KEY: json.dumps(meta)})
    temporary.replace(path)


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors of a file that `write_tensors` wrote.

    Args:
        path: of the file.
        kind: what it is taken for, in messages.

    Raises:
        ConfigError: it cannot be read, or is not one.
    """
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})[_KEY])
        if not isinstance(meta, dict):
            raise TypeError("its description is not an object")
        return meta, load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: no {kind} of ours, or damaged ({error!r:.200}); make it anew"
        ) from error
