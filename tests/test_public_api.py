"""The front door: what it offers, and what it costs to open."""

import json
import subprocess
import sys

import pytest

import tellframe


def test_all_is_sorted_complete_and_importable():
    assert tellframe.__all__ == sorted(tellframe.__all__)
    for name in tellframe.__all__:
        assert getattr(tellframe, name) is not None
    assert dir(tellframe) == tellframe.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tellframe.nothing


def loaded_modules(statement):
    """Return the names of the modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["tellframe", "tellframe.cli", "tellframe.report"])
def test_importing_is_light(module):
    heavy = {"torch", "timm", "onnxruntime", "av", "cv2", "sklearn", "PIL", "optuna"}
    assert not loaded_modules(f"import {module}") & heavy


def test_detecting_never_loads_torch(samples):
    statement = (
        f"import tellframe; tellframe.load(num_frames=3).detect({str(samples / 'real.mp4')!r})"
    )
    modules = loaded_modules(statement)
    assert "onnxruntime" in modules
    assert not modules & {"torch", "timm", "cv2", "sklearn", "tellframe.train"}
