"""The recipe: every number that turns a video into network input, in one frozen object.

The digest of a recipe is stamped on clips, checkpoints and model bundles, so that a model can
never be fed with input that was made in another way than its training data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from tellframe.config import build
from tellframe.errors import ConfigError, RecipeMismatchError

SAMPLING_POLICIES: Final = ("uniform", "start")
ALIGNMENTS: Final = ("square", "stretch", "similarity")
FACE_DETECTORS: Final = ("mtcnn", "yunet")
CROP_FORMATS: Final = ("jpeg", "png")
CLOSER: Final = 6
"""Times as many frames are looked at, at most, where an edited or long video asks for them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a video becomes clips.

    Raises:
        ConfigError: a value is out of range or a name is unknown.
    """

    num_frames: int = 10
    """Frames sampled from a video (10 in the DFDC project); of an edited or long one analysis may
    look at `most_frames`."""
    sampling: str = "uniform"
    """How they are spread: "uniform" over the whole video, or "start" for its first frames."""
    face_detector: str = "mtcnn"
    """Name of the face detector: "mtcnn" or "yunet"."""
    detector_thresholds: tuple[float, ...] = (0.6, 0.7, 0.9)
    """MTCNN: the thresholds of P-Net, R-Net and O-Net."""
    yunet_threshold: float = 0.7
    """YuNet: the threshold of its score, which lies lower than MTCNN's on the same faces."""
    min_face_size: int = 40
    """Length in pixels of the longer side of the smallest face that is looked for."""
    pyramid_factor: float = 0.709
    """MTCNN: scale step of the image pyramid (Zhang et al. 2016)."""
    search_every: float = 2.99
    """Seconds after which a whole frame is searched for faces again; in frames between, known faces
    are found near their last place. 0 searches every frame."""
    keep_all: bool = True
    """Whether all faces of a frame are kept, or only the largest."""
    max_faces: int = 16
    """Upper limit of faces kept a frame, the largest first; bounds memory on crowds. The others are
    counted, and the verdict says that somebody was left out."""
    brighten_below: float = 60.0
    """A frame is brightened before detection when the 75th percentile of its luma (0-255) lies
    below this; 0 switches it off. A percentile, because one bright pixel must not decide."""
    brighten_crops: bool = False
    """Whether the crops are cut from the brightened frame (as in the DFDC project)."""
    alignment: str = "square"
    """"square": a square around the box; "stretch": the box itself, stretched to a square (as in
    facenet-pytorch); "similarity": rotated and scaled by the five landmarks."""
    margin: float = 0.1
    """Share of the box side that is added to it in all (not on each side)."""
    crop_scales: tuple[float, ...] = (1.0,)
    """Frames take turns at these sides of the crop, in sides of the one that the margin gives, so
    that a person is seen from close and from afar at no cost."""
    crop_size: int = 224
    """Side of the crops in pixels."""
    crop_format: str = "jpeg"
    """How crops are stored in shards: "jpeg", or "png" without loss at about five times the size.
    Analysis takes them as they are, without storing them in between."""
    crop_quality: int = 95
    """JPEG quality of stored crops; colour is kept at full resolution (4:4:4)."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from the pixels after they are scaled to 0-1, per channel RGB."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Divides the pixels after that, per channel RGB."""

    def __post_init__(self) -> None:
        checks = {
            "num_frames": 1 <= self.num_frames <= 100_000,
            "sampling": self.sampling in SAMPLING_POLICIES,
            "face_detector": self.face_detector in FACE_DETECTORS,
            "detector_thresholds": len(self.detector_thresholds) == 3
            and all(0 < t < 1 for t in self.detector_thresholds),
            "yunet_threshold": 0 < self.yunet_threshold < 1,
            "min_face_size": self.min_face_size >= 12,
            "pyramid_factor": 0.1 < self.pyramid_factor < 0.95,
            "search_every": self.search_every >= 0,
            "max_faces": self.max_faces >= 1,
            "brighten_below": 0 <= self.brighten_below <= 255,
            "alignment": self.alignment in ALIGNMENTS,
            "margin": 0 <= self.margin <= 4,
            "crop_scales": bool(self.crop_scales)
            and all(0.3 <= scale <= 1 for scale in self.crop_scales),
            "crop_size": 16 <= self.crop_size <= 1024,
            "crop_format": self.crop_format in CROP_FORMATS,
            "crop_quality": 1 <= self.crop_quality <= 100,
            "mean": len(self.mean) == 3,
            "std": len(self.std) == 3 and all(s > 0 for s in self.std),
        }
        for name, good in checks.items():
            if not good:
                raise ConfigError(
                    f"recipe: {name} = {getattr(self, name)!r} is out of range or unknown; "
                    f"the default is {Recipe.__dataclass_fields__[name].default!r}"
                )

    @property
    def most_frames(self) -> int:
        """Frames of one video that analysis looks at, at most."""
        return CLOSER * self.num_frames

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 over the canonical JSON of all fields."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a recipe from JSON or TOML values.

        Raises:
            ConfigError: a key is unknown (the nearest known one is named) or a value is bad.
        """
        return build(cls, values, "recipe")

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Return {field: (own value, other's value)} for every field that differs."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}

    def require_same(self, other: Recipe, what: str) -> None:
        """Raise unless both recipes are equal.

        Args:
            other: the recipe to compare with.
            what: names the two artefacts in the message, e.g. "model and shards".

        Raises:
            RecipeMismatchError: they differ; the message lists every differing field.
        """
        if differences := self.differences(other):
            listed = "; ".join(f"{k}: {a!r} against {b!r}" for k, (a, b) in differences.items())
            raise RecipeMismatchError(f"{what} were made with different recipes: {listed}")


DFDC_PROJECT: Final = Recipe(
    detector_thresholds=(0.9, 0.9, 0.9),
    min_face_size=20,
    search_every=0.0,
    brighten_crops=True,
    alignment="stretch",
    margin=14 / (160 - 14),
    crop_size=160,
)
"""The settings of the DFDC student project: facenet-pytorch's MTCNN with margin 14 at 160 px
(facenet-pytorch scales the margin by box / (image_size - margin)), thresholds 0.9."""
