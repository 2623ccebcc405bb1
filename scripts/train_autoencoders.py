"""Train the autoencoders that `[data] autoencoders` asks for, on the real faces of a configuration.

    python scripts/train_autoencoders.py configs/frame_lite0.toml -o runs/autoencoders

Only faces of the training side of the configuration are used.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path

import torch

from tellframe.errors import TellframeError
from tellframe.train.autoencoder import SIZES, Autoencoder, train_autoencoder
from tellframe.train.batches import PairBatches
from tellframe.train.config import load_config
from tellframe.train.data import load_data


def main() -> None:
    """Read the command line and train one autoencoder a size and width of the bottleneck."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/autoencoders"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--bottlenecks", type=int, nargs="+", default=(4, 12))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    args = parser.parse_args()
    try:
        config = load_config(args.config, args.set)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, autoencoders=()))
        data, _ = load_data(config.data, config.recipe)
        reals = PairBatches(data, config.batch, config.training_recipe, 1, args.seed)
        for size, bottleneck in itertools.product(args.sizes, args.bottlenecks):
            torch.manual_seed(args.seed)
            train_autoencoder(
                Autoencoder(size, bottleneck=bottleneck),
                reals.draw_real,
                args.output,
                steps=args.steps,
                snapshots=(args.steps // 3, args.steps),
                seed=args.seed,
            )
    except TellframeError as error:
        parser.exit(1, f"train_autoencoders: error: {error}\n")


if __name__ == "__main__":
    main()
