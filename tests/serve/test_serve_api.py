"""The API of a real server: uploads, results, events, problems, and what protects it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest

import tellframe
from tellframe.report import verdict_schema, verdict_to_dict
from tellframe.video import VIDEO_SUFFIXES


@pytest.fixture(scope="module")
def done(server, clips):
    """A job that is done, as the API shows it."""
    answer = server.post(clips["two_people"], "two_people.mp4")
    assert answer.status == 202, answer.body
    return server.wait(answer.json["id"])


def test_a_verdict_is_that_of_detect(server, samples, done):
    assert done["state"] == "done"
    answer = server.get(done["links"]["json"])
    jsonschema.validate(answer.json, verdict_schema())
    expected = verdict_to_dict(
        tellframe.load(threads=1, isolate=False, keep_evidence=False).detect(
            samples / "two_people.mp4"
        )
    )
    found = answer.json
    for row in (found, expected):
        for name in ("seconds", "sandbox", "video"):
            del row[name]
        del row["media"]["path"]
    assert found == expected
    assert done["verdict"]["video"] == "two_people.mp4"
    assert (done["label"], done["probability"]) == (found["label"], found["probability"])


def test_a_verdict_is_explained(done):
    explanation = done["explanation"]
    assert explanation["title"] == "Likely fake"
    assert "person 2" in explanation["lead"]
    assert explanation["subject"] == "probability that at least one face is fake"
    assert "of 100 that score like this one" in explanation["meaning"]
    assert [entry["person"] for entry in done["people"]] == [1, 2]


def test_files_are_decoded_in_a_sandbox(done):
    assert done["verdict"]["sandbox"]["holds"]


def test_moments_are_pictures(server, done):
    found = server.get(done["links"]["moments"]).json
    assert len(found["moments"]) == 12
    for moment in found["moments"]:
        assert moment["crop"].startswith("data:image/jpeg;base64,")
        assert moment["heat"] != moment["crop"]
    assert found["scale"].keys() == {"1", "2"}


def test_the_report_is_complete_in_itself(server, done):
    answer = server.get(done["links"]["report"])
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    page = answer.body.decode()
    assert "two_people.mp4" in page
    assert page.count("data:image/jpeg") == 24
    assert str(server.folder) not in page


def test_a_form_does_as_well_and_the_same_bytes_are_done_at_once(server, clips, done):
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="file"; filename="copy.mp4"\r\n\r\n'
        + clips["two_people"]
        + b"\r\n--XX--\r\n"
    )
    kind = "multipart/form-data; boundary=XX"
    answer = server.ask("POST", "/v1/jobs", body, Content_Type=kind)
    assert answer.status == 202
    assert answer.headers["Location"] == answer.json["links"]["self"]
    assert answer.json["state"] == "done"
    assert (answer.json["name"], answer.json["label"]) == ("copy.mp4", "FAKE")
    # A job of its own: to delete it takes nothing from the other.
    assert server.ask("DELETE", answer.headers["Location"]).status == 204
    assert server.get(answer.headers["Location"]).problem == (404, "not_found")
    assert server.get(done["links"]["report"]).status == 200


def test_uploads_are_gone_after_the_analysis(server, done):
    assert server.uploads() == []


def test_a_job_can_be_followed(server, clips):
    job = server.post(clips["fake"], "fake.mp4").json
    answer = server.get(job["links"]["events"])
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    blocks = [
        dict(line.split(": ", 1) for line in block.split("\n"))
        for block in answer.body.decode().split("\n\n")
        if block and block[0] != ":"
    ]
    assert {block["event"] for block in blocks} == {"job"}
    states = [json.loads(block["data"])["state"] for block in blocks]
    assert states[-1] == "done"
    assert states == sorted(states, key=["queued", "running", "done"].index)


def test_jobs_are_listed_newest_first(server, done):
    jobs = server.get("/v1/jobs").json["jobs"]
    assert done["id"] in [job["id"] for job in jobs]
    assert [job["created"] for job in jobs] == sorted((j["created"] for j in jobs), reverse=True)
    assert len(server.get("/v1/jobs?limit=1").json["jobs"]) == 1


def test_what_cannot_be_decoded_fails_with_the_reason(server, clips):
    job = server.wait(server.post(clips["fake"][:1000], "cut.mp4").json["id"])
    assert job["state"] == "failed"
    assert (job["problem"]["status"], job["problem"]["code"]) == (422, "undecodable")
    assert "convert it" in job["problem"]["detail"]
    assert job["id"] not in job["problem"]["detail"]
    for name in ("report", "json", "moments"):
        assert server.get(job["links"][name]).problem == (422, "undecodable")


def test_a_video_without_a_face_says_what_would_help(server, make_video, tmp_path):
    path = make_video(tmp_path / "numbers.mp4", 25)
    job = server.wait(server.post(path.read_bytes(), "numbers.mp4").json["id"])
    assert (job["label"], job["probability"]) == ("INCONCLUSIVE", None)
    assert job["explanation"]["help"]
    assert server.get(job["links"]["moments"]).json == {"moments": [], "scale": {}}


def test_problems(server):
    assert server.post(b"Dear Sir").problem == (415, "not_a_video")
    assert server.post(b"").problem == (415, "not_a_video")
    assert server.get("/v1/jobs/" + "0" * 32).problem == (404, "not_found")
    for path in ("none", "none/events", "none/report.json", "%00", "%ff"):
        answer = server.get(f"/v1/jobs/{path}")
        assert answer.problem == (404, "not_found")
        assert answer.json["detail"] == "No such job, or it was deleted or has expired."
    assert server.ask("DELETE", "/v1/jobs/none").problem == (404, "not_found")
    assert server.get("/v1/jobs?limit=0").problem == (400, "invalid_request")
    assert server.get("/no/such/page").problem == (404, "not_found")
    answer = server.ask("PATCH", "/v1/jobs/" + "0" * 32)
    assert answer.problem == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE, GET"


def test_every_job_that_ends_leaves_a_line(server, clips, variant):
    done = server.wait(server.post(variant(51), "secret-name.mp4").json["id"])
    again = server.post(variant(51), "secret-name.mp4").json
    failed = server.wait(server.post(clips["fake"][:999], "secret-name.mp4").json["id"])
    assert server.ask("DELETE", f"/v1/jobs/{again['id']}").status == 204
    log = server.log.read_text()
    for job, ending in (
        (done["id"], rf"{done['label']} after \d+\.\d s"),
        (again["id"], "done, as the same bytes before"),
        (failed["id"], r"undecodable after \d+\.\d s"),
        (again["id"], "deleted"),
    ):
        assert re.search(rf"^\d{{4}}-.* INFO job {job}: {ending}$", log, re.MULTILINE), ending
    assert "secret-name" not in log
    assert "GET " not in log  # requests are logged on demand alone


def test_an_announced_size_is_refused_before_it_is_sent(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**10}\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(200)


def test_what_is_not_announced_is_counted_while_it_streams(server, clips):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        block = clips["fake"].ljust(2**19, b"\0")
        for _ in range(5):  # 2.5 MiB of an upload without an end
            connection.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        assert b" 413 " in connection.recv(200)
    assert server.uploads() == []


def test_a_large_upload_is_too_large(server, clips):
    answer = server.post(clips["fake"] + bytes(2 * 2**20))
    assert answer.problem == (413, "too_large")
    assert "2 MiB" in answer.json["detail"]


def test_the_service_says_how_it_is(server, done):
    assert server.get("/healthz").json == server.get("/readyz").json == {"status": "ok"}
    models = server.get("/v1/models").json
    assert [model["name"] for model in models["models"] if model["active"]] == ["frame_lite0"]
    assert models["max_bytes"] == 2 * 2**20
    text = server.get("/metrics").body.decode()
    assert 'tellframe_jobs_ended_total{outcome="done"}' in text
    assert b"<h1>Model card: frame_lite0" in server.get("/model-card").body


def test_the_page_offers_every_file_that_a_folder_is_searched_for(server):
    (accepted,) = re.findall(r'accept="([^"]+)"', server.get("/").body.decode())
    assert accepted.split(",") == ["video/*", *sorted(VIDEO_SUFFIXES)]


def test_headers_keep_the_page_to_itself(server):
    for path in ("/", "/assets/app.js", "/v1/jobs", "/no/such/page"):
        headers = server.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert server.get("/assets/index.html").status == 404
    assert server.get("/assets/..%2f__init__.py").status == 404


def test_other_names_and_other_sites_are_refused(server, clips):
    assert server.get("/v1/jobs", Host="evil.example").problem == (421, "unknown_host")
    assert server.get("/v1/jobs", Host=f"localhost:{server.port}").status == 200
    here = f"http://127.0.0.1:{server.port}"
    for foreign in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "cross-site", "Origin": here},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": f"http://localhost:{server.port}"},
        {"Origin": "http://127.0.0.1:1", "Sec_Fetch_Site": "same-site"},
    ):
        assert server.post(clips["fake"], **foreign).problem == (403, "foreign_site"), foreign
    assert server.get("/v1/models", Origin="http://evil.example").status == 200
    for own in ({}, {"Origin": here}, {"Origin": here.replace("http", "https")}):
        assert server.post(clips["fake"], **own).status == 202, own


@pytest.fixture(scope="module")
def guarded(run_server):
    """A server with two tokens, at a path prefix, that takes one video at a time."""
    tokens = "alice-alice-alice-1,bob-bob-bob-bob-2"
    options = ("--root-path", "/tools", "--queue", "1", "--rate", "60", "--host-name", "proxy.test")
    return run_server(*options, TELLFRAME_TOKENS=tokens).wait_ready()


def test_a_server_at_every_address_shows_its_name(run_server):
    options = ("--host", "0.0.0.0", "--host-name", "faces.example.org")
    server = run_server(*options, TELLFRAME_TOKENS="alice-alice-alice-1")
    assert server.log.read_text().startswith(f"http://faces.example.org:{server.port}/")


def test_requests_are_logged_on_demand_without_names_and_tokens(run_server, clips):
    server = run_server("--access-log", TELLFRAME_TOKENS="alice-alice-alice-1").wait_ready()
    server.post(clips["fake"], "secret-name.mp4", **ALICE)
    server.get("/v1/jobs", Host="evil.example")
    server.get("/v1/a%0Ab")
    for ending in (
        r"POST /v1/jobs 202 \d+\.\d{3} s",
        r"GET /v1/jobs 421 \d+\.\d{3} s",
        r"GET /v1/a\\x0ab 404 \d+\.\d{3} s",
    ):
        line = re.compile(rf" INFO 127\.0\.0\.1 {ending}$", re.MULTILINE)
        # The line is written after the answer.
        server.wait_for(lambda line=line: bool(line.search(server.log.read_text())))
    assert not re.search("secret-name|alice", server.log.read_text())


def bearer(name):
    return {"Authorization": f"Bearer {name}"}


ALICE, BOB = bearer("alice-alice-alice-1"), bearer("bob-bob-bob-bob-2")


def test_tokens_are_needed_and_keep_jobs_apart(guarded, clips):
    for path in ("/v1/jobs", "/v1/models", "/metrics"):
        answer = guarded.get(path)
        assert answer.problem == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert guarded.get("/readyz").status == guarded.get("/").status == 200
    assert guarded.post(clips["fake"], **bearer("wrong")).problem == (401, "unauthorized")
    job = guarded.post(clips["fake"], **ALICE).json
    assert guarded.get(f"/v1/jobs/{job['id']}", **ALICE).status == 200
    assert guarded.get(f"/v1/jobs/{job['id']}", **BOB).problem == (404, "not_found")
    assert guarded.get("/v1/jobs", **BOB).json == {"jobs": []}
    guarded.get(job["links"]["events"].removeprefix("/tools"), **ALICE)


def test_a_worker_is_not_passed_on_from_one_token_to_another(guarded, variant):
    seen = []
    for number, who in ((31, ALICE), (32, ALICE), (33, BOB)):
        job = guarded.post(variant(number), **who).json
        guarded.get(job["links"]["events"].removeprefix("/tools"), **who)
        seen.append(guarded.workers())
    assert seen[0] == seen[1] != seen[2]


def test_behind_a_prefix_links_have_it_and_both_paths_lead_here(guarded, clips):
    answer = guarded.post(clips["fake"], Host="proxy.test", **ALICE)
    assert answer.headers["Location"].startswith("/tools/v1/jobs/")
    pages = (
        {"Host": "proxy.test", "Origin": "https://proxy.test"},
        {"Host": "proxy.test:8443", "Origin": "https://proxy.test:8443"},
        {"Origin": "https://proxy.test"},  # the proxy passes on its own name of the service
        {"Origin": "https://proxy.test:8443", "Sec-Fetch-Site": "same-origin"},
    )
    for page in pages:
        assert guarded.ask("DELETE", answer.headers["Location"], **page).problem[0] == 401, page
    foreign = {"Host": "proxy.test", "Origin": "https://proxy.test:9999"}
    refused = guarded.ask("DELETE", answer.headers["Location"], **foreign)
    assert refused.problem == (403, "foreign_site")
    for path in (answer.headers["Location"], answer.headers["Location"].removeprefix("/tools")):
        assert guarded.get(path, **ALICE).status == 200


def test_workers_do_not_know_the_tokens(guarded):
    for pid in guarded.workers():
        assert b"alice-alice" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_full_queue_says_when_to_come_back(guarded, variant):
    frozen = guarded.freeze_workers()
    try:
        running = guarded.post(variant(1), **ALICE).json
        guarded.wait_for(
            lambda: guarded.get(f"/v1/jobs/{running['id']}", **ALICE).json["state"] == "running"
        )
        waiting = guarded.post(variant(2), **BOB).json
        assert (waiting["state"], waiting["position"]) == ("queued", 1)
        refused = guarded.post(variant(3), **ALICE)
        assert refused.problem == (429, "queue_full")
        assert 1 <= int(refused.headers["Retry-After"]) <= 300
        assert guarded.ask("DELETE", f"/v1/jobs/{waiting['id']}", **BOB).status == 204
        again = guarded.post(variant(3), **ALICE)
        assert again.status == 202
        for job in (running, again.json):  # one that runs, one that waits
            assert guarded.ask("DELETE", f"/v1/jobs/{job['id']}", **ALICE).status == 204
        guarded.wait_for(lambda: set(guarded.workers()) - set(frozen) and not guarded.uploads())
    finally:
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
