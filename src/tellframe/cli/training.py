"""Making models: `train` and `export`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tellframe.cli import status
from tellframe.cli.options import add_verb, asked_workers
from tellframe.cli.outputs import check_output, make_parent
from tellframe.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from tellframe.train.config import TrainConfig


def need_train(verb: str, *more: str) -> None:
    """Raise unless the training extra is installed; `more` names modules that others do without."""
    from importlib.util import find_spec

    needed = ("torch", "timm", "cv2", "onnx", "onnxscript", "safetensors", "sklearn", *more)
    missing = [module for module in needed if not find_spec(module)]
    if missing:
        raise MissingExtraError(
            f"{verb} needs {', '.join(missing)}; install it with: pip install 'tellframe[train]'"
        )
    # A thread that spins at a barrier takes the core from those it waits for, as soon as anything
    # else runs on the machine. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def add_train(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_train,
        "train",
        "train a model from a configuration",
        "tellframe train configs/frame_lite0.toml -o runs/mine --set optim.steps=200",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: runs/NAME")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as optim.lr=1e-3"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that prepare batches; default: %(default)s",
    )
    parser.add_argument("--tensorboard", action="store_true", help="also log to DIR/tensorboard")
    parser.add_argument(
        "--show-augment",
        type=Path,
        metavar="FILE.html",
        help="write a page of what each augmentation does to the data, and do not train",
    )


def run_train(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    need_train("train")
    from tellframe.train.config import load_config
    from tellframe.train.loop import train
    from tellframe.train.quality import fit_probe

    config = load_config(options.config, options.set)
    if options.show_augment:
        show_augment(config, options.show_augment)
        return status.DONE
    folder = options.output or Path("runs") / config.name
    check_output("-o", folder, folder=True)
    train(
        config,
        folder,
        resume=options.resume,
        workers=asked_workers(options),
        tensorboard=options.tensorboard,
    )
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started, the first
        if config.quality.crops:
            right = fit_probe(folder, backbone=config.model.backbone)
            print(f"degraded pictures: {right:.1%} of held-out crops told rightly")
        print(f"trained: {folder}; next: tellframe export {folder} -o BUNDLE")
    return status.DONE


def show_augment(config: TrainConfig, path: Path) -> None:
    """Write the page of all augmentations.

    Raises:
        UsageError: the file is not named as a page.
        ConfigError: there is no data to show them on.
    """
    if path.suffix != ".html":
        raise UsageError(f"--show-augment writes an HTML page: name it FILE.html, not {path}")
    check_output("--show-augment", path, folder=False)
    import numpy as np

    from tellframe.report.files import open_replacing
    from tellframe.train.augment.sheet import show
    from tellframe.train.autoencoder import all_makers, load_autoencoders
    from tellframe.train.examples import load_examples

    rng = np.random.default_rng(config.optim.seed)
    recipe = config.recipe
    page = show(
        load_examples(config, rng),
        config.augment,
        rng,
        size=recipe.crop_size,
        margin=recipe.margin,
        makers=all_makers(load_autoencoders(config.data.autoencoders)),
    )
    make_parent(path)
    with open_replacing(path) as stream:
        stream.write(page)
    print(f"wrote {path}")


def add_export(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_export,
        "export",
        "make a bundle from a training folder",
        "tellframe export runs/mine -o bundles/mine --name mine --version 1",
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="the training folder; several, of frame classifiers, judge together: the mean of "
        "their logits counts",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--name", default="", help="of the bundle; default: the configuration's")
    parser.add_argument("--version", default="0.1.0", metavar="V", help="of the bundle")
    parser.add_argument(
        "--calibrated", metavar="BUNDLE", help="take over calibration and limits of this one"
    )
    parser.add_argument(
        "--backbone",
        default="",
        metavar="NAME",
        help="of the training, where timm fetches or reads it elsewhere (hf-hub:, local-dir:)",
    )


def run_export(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    need_train("export")
    from tellframe.bundle import load_bundle
    from tellframe.train.export import export

    check_output("-o", options.output, folder=True)
    calibrated = load_bundle(options.calibrated) if options.calibrated else None
    gap = export(
        options.folders,
        options.output,
        version=options.version,
        name=options.name,
        calibrated=calibrated,
        backbone=options.backbone,
    )
    state = f"calibrated as {calibrated.name}" if calibrated else "not yet calibrated"
    print(f"{options.output}: logits differ from torch's by at most {gap:.1e}; {state}")
    return status.DONE
