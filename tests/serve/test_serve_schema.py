"""The server does what its OpenAPI document says, whatever it is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXPECTED = '["2xx", "401", "404", "409", "415", "422", "429"]'


@pytest.fixture
def attack(tmp_path):
    """Return what runs schemathesis against a server."""
    pytest.importorskip("schemathesis", reason="needs schemathesis, of the group serve-tests")
    command = Path(sys.executable).with_name("schemathesis")

    def run(server, *options, config=""):
        # Whether bytes are a video is more than a schema can say (415), and a random id leads
        # nowhere (404).
        accepted = f"[checks]\npositive_data_acceptance.expected-statuses = {EXPECTED}\n"
        (tmp_path / "schemathesis.toml").write_text(config + accepted)
        return subprocess.run(
            [command, "--config-file", tmp_path / "schemathesis.toml", "run",
             f"{server.url}v1/openapi.json", "--checks", "all", "--seed", "1", *options],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip

    return run


def test_no_request_leads_to_a_failure_or_an_undocumented_answer(server, attack):
    done = attack(server, "--max-examples", "4", "--phases", "coverage,fuzzing")
    assert done.returncode == 0, done.stdout


def test_links_as_well(run_server, attack):
    server = run_server("--allow-urls", "--limit-seconds", "1").wait_ready()
    options = ("--include-path", "/v1/jobs", "--include-method", "POST", "--max-examples", "20")
    done = attack(server, *options, "--phases", "coverage,fuzzing")
    assert done.returncode == 0, done.stdout
    server.end()


def test_results_are_as_documented(server, attack, clips):
    job = server.wait(server.post(clips["fake"]).json["id"])
    parameters = f'[parameters]\n"path.job_id" = "{job["id"]}"\n'
    done = attack(server, "--phases", "coverage", "--include-method", "GET", config=parameters)
    assert done.returncode == 0, done.stdout
