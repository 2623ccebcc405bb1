"""The command line: one thin function a verb, grouped by what a person is about to do."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from tellframe.cli import (
    bench,
    build,
    calibration,
    checks,
    data,
    detect,
    evaluation,
    messages,
    serve,
    status,
    submission,
    sweep,
    training,
)
from tellframe.errors import TellframeError


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: without the name of the program.

    Returns:
        The exit status.
    """
    options = build_parser().parse_args(arguments)
    try:
        result: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status.DONE
    except (TellframeError, OSError) as error:
        text = messages.explain(error) if isinstance(error, OSError) else error
        print(f"tellframe: error: {text}", file=sys.stderr)
        return status.USAGE
    except KeyboardInterrupt:
        print("tellframe: interrupted", file=sys.stderr)
        return status.INTERRUPTED
    return result


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="tellframe",
        description="Says who in a video is a deepfake, when, and how sure we can be.",
        epilog="example: tellframe detect interview.mp4 --html report.html",
    )
    parser.add_argument("--version", action="version", version=version("tellframe"))
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    detect.add_detect(verbs)
    serve.add_serve(verbs)
    training.add_train(verbs)
    sweep.add_sweep(verbs)
    training.add_export(verbs)
    calibration.add_calibrate(verbs)
    evaluation.add_evaluate(verbs)
    submission.add_submit(verbs)
    submission.add_score(verbs)
    data.add_eda(verbs)
    data.add_index(verbs)
    build.add_build(verbs)
    build.add_data(verbs)
    bench.add_bench(verbs)
    checks.add_doctor(verbs)
    checks.add_models(verbs)
    return parser
