"""The installation: `models` and `doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from tellframe.cli import status
from tellframe.cli.options import add_model_options, add_verb, load_detector
from tellframe.types import Sandbox


def add_models(verbs: Any) -> None:
    """Add the verb."""
    add_verb(verbs, run_models, "models", "list the shipped models", "tellframe models")


def run_models(_options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.bundle import load_bundle, shipped_bundles

    for name in shipped_bundles():
        bundle = load_bundle(name)
        print(f"{name}  version {bundle.version}  recipe {bundle.recipe.digest}  {bundle.graph}")
    return status.DONE


def add_doctor(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_doctor,
        "doctor",
        "check the installation and re-check the model's scores",
        "tellframe doctor",
    )
    add_model_options(parser)


def run_doctor(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    import platform

    import av
    import numpy
    import onnxruntime

    from tellframe.runtime import usable_cores

    ffmpeg = str(av.ffmpeg_version_info)
    print(f"python {platform.python_version()}, numpy {numpy.__version__}, {usable_cores()} cores")
    print(f"onnxruntime {onnxruntime.__version__}, av {av.__version__}, FFmpeg {ffmpeg}")
    detector = load_detector(options)
    gap = detector.check_golden()
    bundle = detector.bundle
    print(f"model {bundle.name} {bundle.version}: graph unaltered, golden scores within {gap:.1e}")
    print(f"face detector {detector.face_detector.name}: loaded")
    for line in describe_sandbox(detector.sandbox):
        print(line)
    print(f"calibration fitted on: {bundle.calibration.fitted_on}")
    return status.DONE


def describe_sandbox(sandbox: Sandbox | None) -> list[str]:
    """Return lines that say how files are kept from doing harm."""
    if sandbox is None:
        return ["sandbox: none, files are decoded in the process that asks"]
    lines = [f"sandbox: {', '.join(sandbox.holds)}"]
    return lines + [f"sandbox: no {name}: {why}" for name, why in sandbox.absent.items()]
