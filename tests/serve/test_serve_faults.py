"""What is accepted is not lost, and nothing half is left, whatever is killed, full or locked."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def victim(run_server):
    """A server that these tests may kill."""
    return run_server().wait_ready()


def test_a_killed_server_goes_on_where_it_was(victim, variant):
    frozen = victim.freeze_workers()
    first = victim.post(variant(1), "first.mp4").json
    victim.wait(first["id"], "running")
    second = victim.post(variant(2), "second.mp4").json
    (victim.folder / "uploads" / ("0" * 32 + ".part")).write_bytes(b"half an upload")
    victim.end(signal.SIGKILL)
    for pid in frozen:  # stopped processes are killed with the server, but only when they wake
        while Path(f"/proc/{pid}").exists():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.05)
    victim.start()
    for job in (first, second):
        ended = victim.wait(job["id"])
        assert (ended["state"], ended["name"]) == ("done", job["name"])
    assert [job["id"] for job in victim.get("/v1/jobs").json["jobs"]] == [second["id"], first["id"]]
    assert victim.uploads() == []


def test_a_server_that_is_asked_to_end_does_so_and_loses_nothing(victim, variant):
    victim.freeze_workers()
    job = victim.post(variant(3)).json
    victim.wait(job["id"], "running")
    begin = time.monotonic()
    victim.end(signal.SIGTERM)
    assert time.monotonic() - begin < 15
    victim.start()
    assert victim.wait(job["id"])["state"] == "done"


def test_a_worker_killed_before_it_has_begun_costs_nothing(victim, variant):
    victim.wait_ready()
    (pid,) = victim.freeze_workers()
    job = victim.post(variant(4)).json
    victim.wait(job["id"], "running")
    os.kill(pid, signal.SIGKILL)
    assert victim.wait(job["id"])["state"] == "done"
    with sqlite3.connect(victim.folder / "jobs.sqlite3") as database:
        query = "SELECT attempts FROM jobs WHERE id = ?"
        assert database.execute(query, [job["id"]]).fetchone() == (1,)
    database.close()


def test_a_file_that_kills_every_worker_is_given_up(victim, variant):
    victim.wait_ready()
    job = victim.post(variant(5)).json

    def is_looked_at():
        progress = victim.get(job["links"]["self"]).json["progress"]
        return progress is not None and progress["stage"] != "starting"

    for _ in range(3):
        victim.wait_for(is_looked_at)
        for pid in victim.workers():
            os.kill(pid, signal.SIGKILL)
        victim.wait(job["id"], "queued", "failed")
    assert victim.get(f"/v1/jobs/{job['id']}").json["problem"]["code"] == "crashed"
    assert victim.uploads() == []


def test_a_client_that_goes_away_leaves_nothing(victim, clips):
    victim.wait_ready()
    before = victim.get("/v1/jobs").json
    with socket.create_connection(("127.0.0.1", victim.port)) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {3 * 2**20}\r\n\r\n"
        connection.sendall(head.encode() + clips["fake"].ljust(2 * 2**20, b"\0"))
        victim.wait_for(lambda: [p.suffix for p in victim.uploads()] == [".part"])
    victim.wait_for(lambda: victim.uploads() == [])
    assert victim.get("/v1/jobs").json == before


def test_a_locked_database_is_said_and_not_waited_for_for_ever(victim, variant):
    victim.wait_ready()
    other = sqlite3.connect(victim.folder / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = victim.post(variant(6))
    assert (answer.status, answer.json["code"]) == (503, "storage_busy")
    assert answer.headers["Retry-After"]
    assert victim.uploads() == []
    other.execute("ROLLBACK")
    other.close()
    assert victim.wait(victim.post(variant(6)).json["id"])["state"] == "done"


def test_a_full_disk_is_said_and_nothing_is_lost(run_server, small_disk, clips, variant):
    server = run_server("--max-mib", "1000", folder=small_disk / "jobs").wait_ready()
    job = server.post(variant(7)).json
    answer = server.post(clips["fake"] + bytes(20 * 2**20))
    assert (answer.status, answer.json["code"]) == (507, "storage_full")
    server.wait(job["id"])
    with (small_disk / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(2**16)):
            pass
    answer = server.post(variant(8))
    assert (answer.status, answer.json["code"]) == (507, "storage_full")
    assert server.uploads() == []
    assert server.get(f"/v1/jobs/{job['id']}").json["state"] == "done"
    (small_disk / "filling").unlink()
    assert server.wait(server.post(variant(8)).json["id"])["state"] == "done"
    server.end()
