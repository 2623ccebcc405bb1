"""tellframe: says who in a video is a deepfake, when, and how sure we can be.

>>> import tellframe
>>> detector = tellframe.load()
>>> verdict = detector.detect("interview.mp4")
>>> tellframe.report.write_html(verdict, "report.html")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tellframe import report
    from tellframe.detector import Detector, load
    from tellframe.errors import (
        BundleError,
        ConfigError,
        DecodeError,
        DownloadError,
        LimitError,
        MediaError,
        MediaNotFoundError,
        MissingExtraError,
        NoVideoError,
        RecipeMismatchError,
        TellframeError,
        UsageError,
    )
    from tellframe.extract import Extraction, extract_clips
    from tellframe.faces import load_face_detector
    from tellframe.limits import FileLimits
    from tellframe.recipe import DFDC_PROJECT, Recipe
    from tellframe.types import (
        Clip,
        Evidence,
        FaceVerdict,
        Label,
        Media,
        ModelInfo,
        Moment,
        Reason,
        Sandbox,
        Verdict,
    )

_HOMES = {
    "detector": ("Detector", "load"),
    "errors": (
        "BundleError",
        "ConfigError",
        "DecodeError",
        "DownloadError",
        "LimitError",
        "MediaError",
        "MediaNotFoundError",
        "MissingExtraError",
        "NoVideoError",
        "RecipeMismatchError",
        "TellframeError",
        "UsageError",
    ),
    "extract": ("Extraction", "extract_clips"),
    "faces": ("load_face_detector",),
    "limits": ("FileLimits",),
    "recipe": ("DFDC_PROJECT", "Recipe"),
    "types": (
        "Clip",
        "Evidence",
        "FaceVerdict",
        "Label",
        "Media",
        "ModelInfo",
        "Moment",
        "Reason",
        "Sandbox",
        "Verdict",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 (sorted as `sorted` does, which a test checks)
    "BundleError",
    "Clip",
    "ConfigError",
    "DFDC_PROJECT",
    "DecodeError",
    "Detector",
    "DownloadError",
    "Evidence",
    "Extraction",
    "FaceVerdict",
    "FileLimits",
    "Label",
    "LimitError",
    "Media",
    "MediaError",
    "MediaNotFoundError",
    "MissingExtraError",
    "ModelInfo",
    "Moment",
    "NoVideoError",
    "Reason",
    "Recipe",
    "RecipeMismatchError",
    "Sandbox",
    "TellframeError",
    "UsageError",
    "Verdict",
    "extract_clips",
    "load",
    "load_face_detector",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import tellframe`` costs next to nothing."""
    if name == "report":
        return importlib.import_module("tellframe.report")
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"tellframe.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'tellframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
