"""What the help of the verbs says of values and statuses."""

from __future__ import annotations

import pytest

from tellframe.cli import build_parser, status


def help_of(verb, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([verb, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("verb", "texts"),
    [
        ("build", ["processes here; 0, the default, for one a core"]),
        ("eda", ["processes here; 0, the default, for one a core"]),
        (
            "evaluate",
            [
                "processes; 0, the default, for one a core",
                "threads; 0, the default, for one a core",
            ],
        ),
        ("serve", ["threads; 0, the default, for one a core"]),
    ],
)
def test_help_names_the_value_that_asks_for_one_a_core(verb, texts, capsys):
    shown = help_of(verb, capsys)
    for text in texts:
        assert text in shown


def test_help_lists_every_exit_status_of_detect(capsys):
    shown = help_of("detect", capsys)
    assert f" {status.INTERRUPTED} interrupted by Ctrl-C" in shown
    statuses = [value for value in vars(status).values() if isinstance(value, int)]
    for value in statuses:
        assert f"\n  {value} " in status.TEXT
