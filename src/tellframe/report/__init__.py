"""Verdicts for people and programs: terminal table, JSON, CSV, HTML."""

from tellframe.report.files import write_json, write_jsonl
from tellframe.report.html import write_html
from tellframe.report.rows import verdict_from_dict, verdict_to_dict
from tellframe.report.schema import verdict_schema
from tellframe.report.tables import write_csv
from tellframe.report.text import format_table

__all__ = [
    "format_table",
    "verdict_from_dict",
    "verdict_schema",
    "verdict_to_dict",
    "write_csv",
    "write_html",
    "write_json",
    "write_jsonl",
]
