"""Average the weights of training runs that share their start: a "soup".

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time". The result is a training folder that
`tellframe export` makes a bundle of, and that another run can start from. Where the configuration
asks for a probe for degraded pictures, it is fitted to the result:

    python scripts/average_runs.py configs/frame_lite0.toml runs/soup runs/two runs/three
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tellframe.errors import TellframeError
from tellframe.train.checkpoint import save_average
from tellframe.train.config import load_config
from tellframe.train.quality import fit_probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="configuration of the result; its recipe goes into bundles")
    parser.add_argument("output", type=Path, help="training folder to write")
    parser.add_argument("runs", type=Path, nargs="+", help="training folders, each counts the same")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    try:
        config = load_config(args.config, args.set)
        save_average(args.output, config, args.runs)
        if config.quality.crops:
            print(f"degraded pictures: {fit_probe(args.output):.1%} told rightly")
    except TellframeError as error:
        parser.exit(1, f"average_runs: error: {error}\n")


if __name__ == "__main__":
    main()
