"""Model bundles: a folder with the graph, and a JSON file with all that belongs to it.

``bundle.json`` holds the recipe, calibration, decision limits, golden scores, metrics, licence
and the SHA-256 of ``model.onnx``. A graph or a recipe that was changed since the export is refused.
Calibration and limits may be, as `tellframe calibrate` does, and are refused where they make no
sense; nothing tells whether the rest is as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.config import build
from tellframe.download import fetch
from tellframe.errors import BundleError, ConfigError, UsageError
from tellframe.graphfile import MAX_GRAPH_BYTES
from tellframe.recipe import Recipe
from tellframe.scoring import Calibration, Decision
from tellframe.types import ModelInfo

FORMAT: Final = 2
"""Version of bundle.json that this code writes."""
READ: Final = (1, 2)
"""Versions that it reads. Format 1 has no method and no shares of fakes in its calibration: it is
Platt scaling without a shift, which are the defaults. Nor has it a kind, which is "frame"."""
DEFAULT: Final = "frame_lite0"
"""Name of the shipped bundle that is loaded when none is asked for."""
SHIPPED: Final = Path(__file__).parent / "bundles"
"""Folder of the bundles that come with the package."""
HUB: Final = "https://huggingface.co"
"""Where hf:// leads to; the environment variable HF_ENDPOINT names a mirror."""
GRAPH: Final = "model.onnx"
"""Name of the graph in the folder of a bundle."""
MAX_JSON_BYTES: Final = 16 * 2**20
"""Of bundle.json; ours has 12 kB."""
_HUB_NAME: Final = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError)
"""What is raised where JSON is not of the expected form."""
KINDS: Final = ("frame", "clip")
"""What a model judges: single crops, or the crops of one person together."""
_FIXED: Final = {
    **dict.fromkeys(("mean", "std", "crop_size"), "is a part of the model's graph"),
    **dict.fromkeys(("crop_format", "crop_quality"), "is how crops are stored in data sets"),
}
"""Fields of a recipe that nobody can change who judges videos with a model, and why."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model with everything that it needs to be used rightly."""

    name: str
    version: str
    graph: Path
    """The ONNX graph. Kind "frame": input "crops", uint8 (N, S, S, 3); outputs "logit", (N,), and
    "heat", (N, h, w). Kind "clip": inputs "crops", uint8 (N, T, S, S, 3), and "valid", bool (N, T);
    outputs "logit", (N,), "frame_logit", (N, T), and "heat", (N, T, h, w). Some have one output
    more, "degraded", (N,) or (N, T): P(the picture is badly degraded)."""
    sha256: str
    """Hex digest of the graph."""
    recipe: Recipe
    calibration: Calibration
    decision: Decision
    kind: str = "frame"
    """One of `KINDS`."""
    golden: tuple[float, ...] = ()
    """Logits of `golden_input`, as the exporting machine computed them."""
    metrics: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    """How the model was trained: configuration, steps, seed, data."""

    def apply(self, overrides: Mapping[str, Any]) -> Recipe:
        """Return the recipe with other values of some of its fields.

        Raises:
            ConfigError: one names no field of it, or has a value out of range.
            UsageError: one would change nothing, or leave nobody who can be judged.
        """
        recipe = Recipe.from_dict({**asdict(self.recipe), **overrides})
        for name in recipe.differences(self.recipe):
            if name in _FIXED:
                raise UsageError(
                    f"{name} = {getattr(recipe, name)!r}: {_FIXED[name]}, and changes no verdict "
                    f"of {self.name}; leave it out"
                )
        least = self.decision.min_frames
        if "num_frames" in overrides and recipe.num_frames < least:
            raise UsageError(
                f"{recipe.num_frames} frames are too few: {self.name} judges nobody who is seen in "
                f"fewer than {least}, so that every verdict would be INCONCLUSIVE; give {least} or "
                "more (--frames, num_frames)"
            )
        return recipe

    def info(self, recipe: Recipe) -> ModelInfo:
        """Return what a verdict says of this model, applied with `recipe`."""
        return ModelInfo(
            self.name,
            self.version,
            self.sha256,
            recipe.digest,
            {name: mine for name, (mine, _) in recipe.differences(self.recipe).items()},
            self.calibration.fitted_on,
            self.decision.real_to,
            self.decision.fake_from,
            self.calibration.prior_use,
        )


def shipped_bundles() -> list[str]:
    """Return the names of the bundles that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/bundle.json"))


def load_bundle(source: str | Path | None = None) -> Bundle:
    """Load a bundle and check that it is whole.

    Args:
        source: the name of a shipped bundle, a folder, or "hf://owner/repository[@revision]";
            the shipped default where None.

    Raises:
        BundleError: it is missing, incomplete, altered, or of an unknown format.
        DownloadError: it has to be fetched and cannot be.
    """
    name = str(source or DEFAULT)
    foreign = False
    if name.startswith("hf://"):
        folder = _fetch_from_hub(name)
    elif name in shipped_bundles():
        folder = SHIPPED / name
    else:
        folder, foreign = Path(name), True
    path = folder / "bundle.json"
    if not path.is_file():
        raise BundleError(
            f"{name}: no bundle; give a folder with a bundle.json, hf://owner/repository, or one "
            f"of the shipped: {', '.join(shipped_bundles()) or 'none'}"
        )
    if foreign:  # an installer may have linked the shipped ones
        _require_inside(folder)
    return _read(path)


def _require_inside(folder: Path) -> None:
    """Raise where a file of a bundle is a link to somewhere else."""
    own = os.path.realpath(folder)  # pathlib's `resolve` raises where links go in circles
    for name in ("bundle.json", GRAPH):
        if not Path(os.path.realpath(folder / name)).is_relative_to(own):
            raise BundleError(
                f"{folder / name}: a link that leads out of the bundle; put the file in its place"
            )


def _read(path: Path) -> Bundle:
    """Read bundle.json and check the graph beside it."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BundleError(f"{path}: more than {MAX_JSON_BYTES} bytes; this is no bundle")
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] not in READ:
            raise BundleError(
                f"{path}: bundle format {values['format']!r:.100}, this version reads "
                f"{' and '.join(map(str, READ))}; "
                "export the model again or change the version of tellframe"
            )
        recipe = Recipe.from_dict(values["recipe"])
        bundle = Bundle(
            name=_text(values["name"]),
            version=_text(values["version"]),
            graph=path.with_name(GRAPH),
            sha256=_text(values["sha256"]),
            recipe=recipe,
            calibration=build(Calibration, values["calibration"], "calibration"),
            decision=build(Decision, values["decision"], "decision"),
            kind=_text(values.get("kind", "frame")),
            golden=tuple(map(float, values["golden"])),
            metrics=values.get("metrics", {}),
            licence=_text(values.get("licence", "")),
            training=values.get("training", {}),
        )
        digest = values["recipe_digest"]
    except BundleError:
        raise
    except (OSError, ArithmeticError, RecursionError, ConfigError, *_MALFORMED) as error:
        raise BundleError(
            f"{path}: not a readable bundle ({error!r:.500}); export it again"
        ) from error
    if bundle.kind not in KINDS:
        raise BundleError(
            f"{path}: a model of kind {bundle.kind!r:.100}, this version knows "
            f"{' and '.join(KINDS)}; change the version of tellframe"
        )
    if digest != recipe.digest:
        raise BundleError(
            f"{path}: the recipe was altered (digest {recipe.digest}, stamped {digest}); "
            "restore the file or export the model again"
        )
    _require_ascent(bundle, path)
    _check_graph(bundle.graph, bundle.sha256)
    return bundle


def _require_ascent(bundle: Bundle, path: Path) -> None:
    """Raise where a higher score of the model would not mean a higher probability.

    A fit may come to that, where a model cannot tell fakes from reals; no bundle may keep it.
    """
    slope = bundle.calibration.slope
    if slope <= 0:
        raise BundleError(
            f"{path}: calibration: slope = {slope!r} is not above 0, so that the faces that look "
            "most like fakes would be called real; calibrate again, on more videos"
        )


def _check_graph(path: Path, sha256: str) -> None:
    """Raise where a graph is missing, or is not the one that its bundle describes."""
    if path.is_file():
        if path.stat().st_size > MAX_GRAPH_BYTES:
            raise BundleError(f"{path}: more than {MAX_GRAPH_BYTES} bytes; this is no bundle")
        if _sha256(path) == sha256:
            return
    raise BundleError(
        f"{path}: missing, or not the graph of this bundle (SHA-256 differs); install or export it "
        "again"
    )


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write bundle.json beside the graph; replaced only when complete.

    Args:
        bundle: its graph must already be `folder` / "model.onnx".
        folder: where.

    Raises:
        BundleError: its calibration makes no sense.
    """
    _require_ascent(bundle, folder / "bundle.json")
    values = {
        "format": FORMAT,
        "name": bundle.name,
        "version": bundle.version,
        "kind": bundle.kind,
        "sha256": bundle.sha256,
        "recipe_digest": bundle.recipe.digest,
        "recipe": bundle.recipe.to_dict(),
        "calibration": asdict(bundle.calibration),
        "decision": asdict(bundle.decision),
        "golden": list(bundle.golden),
        "metrics": bundle.metrics,
        "licence": bundle.licence,
        "training": bundle.training,
    }
    temporary = folder / "bundle.json.part"
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / "bundle.json")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.100} is no text")
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def golden_crops(size: int, count: int = 4) -> NDArray[np.uint8]:
    """Return test pictures that every machine makes alike, to re-check a model's scores.

    Smooth coloured waves made with integers alone, so that no rounding differs.

    Args:
        size: side in pixels.
        count: how many.

    Returns:
        Shape (count, size, size, 3).
    """
    y, x = np.mgrid[0:size, 0:size]
    planes = [
        np.abs((x * (3 + 2 * k + c) + y * (5 + 3 * c) + 64 * k) % 510 - 255)
        for k in range(count)
        for c in range(3)
    ]
    stacked = np.stack(planes).reshape(count, 3, size, size)
    return np.ascontiguousarray(stacked.transpose(0, 2, 3, 1)).astype(np.uint8)


def golden_input(kind: str, size: int, count: int = 4) -> dict[str, NDArray[Any]]:
    """Return what the golden scores of a bundle are computed on, by input of its graph.

    Args:
        kind: of the bundle.
        size: side in pixels.
        count: how many scores: of crops, or of clips of four frames, of which all but the first
            clip lack a frame, each the next.
    """
    if kind == "frame":
        return {"crops": golden_crops(size, count)}
    frames = 4
    valid = np.ones((count, frames), dtype=np.bool_)
    later = np.arange(1, count)
    valid[later, (later - 1) % frames] = False
    crops = golden_crops(size, frames * count).reshape(count, frames, size, size, 3)
    return {"crops": crops, "valid": valid}


def _fetch_from_hub(name: str) -> Path:
    """Fetch a bundle from the Hugging Face hub, once; return its folder in the cache."""
    match = _HUB_NAME.fullmatch(name)
    if not match or ".." in name:
        raise BundleError(
            f"{name}: expected hf://owner/repository or hf://owner/repository@revision"
        )
    repository, revision = match[1], match[2] or "main"
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    base = f"{endpoint}/{repository}/resolve/{revision}"
    cache = f"bundles/{repository.replace('/', '--')}/{revision}"
    description = fetch(
        f"{base}/bundle.json",
        None,
        cache_name=f"{cache}/bundle.json",
        max_bytes=MAX_JSON_BYTES,
    )
    try:
        digest = _text(json.loads(description.read_text(encoding="utf-8"))["sha256"])
    except (OSError, RecursionError, *_MALFORMED) as error:
        raise BundleError(
            f"{name}: its bundle.json cannot be read ({error!r:.200}); delete {description} and "
            "ask its owner"
        ) from error
    fetch(f"{base}/{GRAPH}", digest, cache_name=f"{cache}/{GRAPH}", max_bytes=MAX_GRAPH_BYTES)
    return description.parent
