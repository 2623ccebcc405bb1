"""Many clients at once: every upload is answered and done once, or refused with 429.

A small form of `tellframe bench serve`, by the same function.
"""

from __future__ import annotations

import json
import time

import pytest

from tellframe.bench.serve import bench_serve, follow, vary
from tellframe.bench.server import Server
from tellframe.cli import run
from tellframe.errors import UsageError

CLIENTS = 12


def measured(server, token=""):
    """Return a server as the benchmark sees it."""
    return Server(server.url, server.process.pid, token)


def test_many_clients_at_once(run_server, clips):
    server = run_server("--queue", "4", "--workers", "2").wait_ready()
    result = bench_serve(measured(server), clips["real"], clients=CLIENTS, seconds=1.5)
    assert result["accepted"] == result["done"] > 4
    assert result["refused_429"] > 0  # more clients than places
    assert (result["failed"], result["lost"], result["doubled"]) == (0, 0, 0)
    assert (result["errors"], result["other_answers"]) == ({}, {})
    listed = server.get("/v1/jobs?limit=1000").json["jobs"]
    assert len({job["sha256"] for job in listed}) == result["accepted"]
    text = server.get("/metrics").body.decode()
    assert f'tellframe_jobs_ended_total{{outcome="done"}} {result["done"]}\n' in text
    assert server.uploads() == []
    latency = result["seconds_to_verdict"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["max"] <= result["wall_seconds"]
    for when in ("start", "middle", "end", "largest"):
        assert result["resident_mb"][when]["server"] > 20
        assert result["resident_mb"][when]["workers"] > 50
    server.end()


def test_what_is_lost_doubled_or_broken_is_told(run_server, clips, monkeypatch):
    server = run_server(TELLFRAME_TOKENS="sesame-sesame-sesame").wait_ready()
    seen = measured(server, "sesame-sesame-sesame")

    def upload_and_forget(self, method, path, body=None):
        answer = ask(self, method, path, body)
        if path.startswith("/v1/jobs?") and answer[0] == 202:
            job_id = json.loads(answer[2])["id"]
            ask(self, "DELETE", f"/v1/jobs/{job_id}")
        return answer

    ask = Server.ask
    monkeypatch.setattr(Server, "ask", upload_and_forget)
    result = bench_serve(seen, clips["real"], clients=1, seconds=0.5)
    assert result["lost"] == result["accepted"] > 0
    assert result["done"] == 0
    monkeypatch.setattr(Server, "ask", ask)
    assert follow(seen, "0" * 32) == "lost"

    server.end()
    monkeypatch.setattr(Server, "read_metric", lambda *_: float(time.monotonic_ns()))
    result = bench_serve(seen, clips["real"], clients=1, seconds=0.3)
    assert any("ConnectionRefusedError" in error for error in result["errors"])
    assert result["doubled"] > 0  # of what the figures above would mean
    assert result["seconds_to_verdict"] is None


def test_every_upload_has_other_bytes_and_the_same_pictures(clips, tmp_path):
    import tellframe

    bodies = [vary(clips["real"]) for _ in range(100)]
    assert len(set(bodies)) == 100
    (tmp_path / "a.mp4").write_bytes(bodies[0])
    found = tellframe.load(num_frames=3, isolate=False).detect(tmp_path / "a.mp4")
    assert (found.media.num_frames, found.media.partial) == (100, False)


def test_the_verb(samples, capsys):
    pytest.importorskip("uvicorn", reason="needs the extra: pip install 'tellframe[serve]'")
    video = str(samples / "real.mp4")
    options = ["--clients", "2", "--seconds", "0.5", "--rounds", "1", "--threads", "1"]
    assert run(["bench", "serve", video, *options]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["done"] == result["accepted"] >= 2
    assert result["detect_seconds"]["median"] > 0
    assert result["server"] == "--threads 1 --workers 1 --queue 32"
    assert "lost, doubled" in err
    assert "bare detect, median" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no.txt", "--clients", "0"], "no MP4"),
        (["a.mp4", "--clients", "0"], "at least 1 client"),
        (["a.mp4", "--seconds", "0"], "more than 0 seconds"),
    ],
)
def test_what_cannot_be_measured(samples, tmp_path, options, message):
    video = (samples / "real.mp4").read_bytes() if options[0] == "a.mp4" else b"no video"
    given = {"clients": 1, "seconds": 1.0, options[1][2:]: float(options[2])}
    with pytest.raises(UsageError, match=message):
        bench_serve(Server("http://127.0.0.1:9/"), video, **given)


def test_usage_errors(capsys):
    assert run(["bench", "serve"]) == 2
    assert "give one video" in capsys.readouterr().err
