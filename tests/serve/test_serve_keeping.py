"""How long a server keeps what it was given, as its clients see it."""

from __future__ import annotations

import time


def get_states(server, jobs):
    return [server.get(f"/v1/jobs/{job['id']}").status for job in jobs]


def test_uploads_are_kept_as_long_as_their_jobs(run_server, clips, variant):
    server = run_server("--keep-uploads").wait_ready()
    assert server.get("/v1/models").json["keeps_uploads"] is True
    bodies = [variant(1), clips["real"][:1000]]  # one that is judged, and one that cannot be
    jobs = [server.wait(server.post(body).json["id"]) for body in bodies]
    assert [job["state"] for job in jobs] == ["done", "failed"]
    again = server.post(bodies[0]).json  # done at once, and an upload of its own
    kept = {path.name: path.read_bytes() for path in server.uploads()}
    assert kept == {jobs[0]["id"]: bodies[0], jobs[1]["id"]: bodies[1], again["id"]: bodies[0]}

    server.end()
    server.start()  # which sweeps away what belongs to no job
    assert {path.name for path in server.uploads()} == kept.keys()
    for job in (jobs[0], jobs[1]):
        assert server.ask("DELETE", f"/v1/jobs/{job['id']}").status == 204
    assert [path.name for path in server.uploads()] == [again["id"]]
    assert server.get(again["links"]["report"]).status == 200
    server.end()


def test_results_and_uploads_go_when_they_are_old(run_server, clips, variant):
    hours = 4 / 3600
    server = run_server("--keep-uploads", "--keep-hours", str(hours)).wait_ready()
    assert server.get("/v1/models").json["keep_seconds"] == 4
    jobs = [server.wait(server.post(body).json["id"])
            for body in (variant(2), clips["real"][:1000])]  # fmt: skip
    ended = time.monotonic()
    assert [job["state"] for job in jobs] == ["done", "failed"]
    server.wait_for(lambda: get_states(server, jobs) == [404, 404], 30)
    assert time.monotonic() - ended > 3.5
    for path in ("report", "json", "moments", "events"):
        assert server.get(jobs[0]["links"][path]).status == 404
    assert server.get("/v1/jobs").json == {"jobs": []}
    server.wait_for(lambda: server.uploads() == [])
    # The result is forgotten as well: the same bytes are analysed anew.
    assert server.post(variant(2)).json["state"] != "done"
    server.end()


def test_the_oldest_results_go_when_there_are_too_many(run_server, variant):
    server = run_server("--keep-uploads", "--keep-mib", "1").wait_ready()
    jobs = [server.wait(server.post(variant(number)).json["id"]) for number in range(10, 18)]
    server.wait_for(lambda: get_states(server, jobs)[0] == 404, 30)
    states = get_states(server, jobs)
    assert states == sorted(states, reverse=True)  # the oldest ones, and not the newest
    assert states[-1] == 200
    left = [job["id"] for job, state in zip(jobs, states, strict=True) if state == 200]
    server.wait_for(lambda: {path.name for path in server.uploads()} == set(left))
    assert server.get(jobs[-1]["links"]["report"]).status == 200
    server.end()
