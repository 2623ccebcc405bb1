"""Measure a model on labelled videos, compare two, calibrate one, and answer a competition."""

from tellframe.evaluate.calibration import calibrate, recalibrated
from tellframe.evaluate.compare import compare, compare_sets
from tellframe.evaluate.rows import (
    Judgement,
    Row,
    in_calibration_half,
    read_scores,
    write_scores,
)
from tellframe.evaluate.score import judge_videos, score_source, score_stills
from tellframe.evaluate.sources import (
    Still,
    list_stills,
    open_source,
    read_labels,
    read_stills,
)
from tellframe.evaluate.summary import markdown, summarise, tables

__all__ = [
    "Judgement",
    "Row",
    "Still",
    "calibrate",
    "compare",
    "compare_sets",
    "in_calibration_half",
    "judge_videos",
    "list_stills",
    "markdown",
    "open_source",
    "read_labels",
    "read_scores",
    "read_stills",
    "recalibrated",
    "score_source",
    "score_stills",
    "summarise",
    "tables",
    "write_scores",
]
