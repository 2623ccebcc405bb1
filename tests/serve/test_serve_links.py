"""Videos that the server fetches: only where it is allowed to, and never from where it must not."""

from __future__ import annotations

import json
import signal
import sqlite3
import time

import pytest

from web_server import run_web_server


@pytest.fixture(scope="module")
def web(clips):
    with run_web_server(clips["fake"]) as running:
        yield running


@pytest.fixture(scope="module")
def fetching(run_server):
    """A server that fetches links, and may do so from this machine, where `web` is."""
    return run_server("--allow-urls", "--allow-private-addresses", "--max-mib", "2").wait_ready()


def link(server, url, **more):
    body = json.dumps({"url": url, **more})
    return server.ask("POST", "/v1/jobs", body, Content_Type="application/json; charset=utf-8")


def test_links_are_refused_unless_they_are_allowed(server, web):
    before = len(web.seen)
    assert link(server, f"{web.url}/video/a.mp4").problem == (403, "urls_refused")
    assert server.get("/v1/models").json["accepts_urls"] is False
    document = server.get("/v1/openapi.json").json
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert "application/json" not in content
    assert len(web.seen) == before


def test_private_addresses_are_refused_unless_they_are_allowed(run_server, web):
    server = run_server("--allow-urls").wait_ready()
    before = len(web.seen)
    for host in ("127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]"):
        answer = link(server, f"http://{host}:{web.server_port}/video/a.mp4")
        assert answer.problem == (422, "refused_address")
    # What a name leads to is found out when its turn has come.
    answer = link(server, f"http://localhost:{web.server_port}/video/a.mp4")
    assert answer.status == 202
    job = server.wait(answer.json["id"])
    assert (job["state"], job["problem"]["code"]) == ("failed", "refused_address")
    assert server.get(job["links"]["report"]).problem == (422, "refused_address")
    assert "127.0.0.1" not in job["problem"]["detail"]  # nobody is told what is where inside
    assert len(web.seen) == before
    server.end()


def test_a_link_is_fetched_and_judged(fetching, web, server, clips):
    url = f"{web.url}/video/fake.mp4"
    answer = link(fetching, f"{url}?token=secret")
    assert answer.status == 202
    assert answer.headers["Location"] == answer.json["links"]["self"]
    job = fetching.wait(answer.json["id"])
    assert (job["state"], job["bytes"]) == ("done", len(clips["fake"]))
    assert job["label"] == job["verdict"]["label"]
    assert job["name"].startswith(f"{url}?[query ")
    assert job["verdict"]["video"] == job["name"]
    assert fetching.uploads() == []
    everything = json.dumps(job) + fetching.get(job["links"]["report"]).body.decode()
    assert "secret" not in everything + fetching.log.read_text()
    with sqlite3.connect(fetching.folder / "jobs.sqlite3") as database:
        assert database.execute("SELECT url FROM jobs WHERE id = ?", [job["id"]]).fetchone() == (
            None,
        )
    database.close()
    # The same bytes are done as soon as they are there, whichever way they came.
    again = fetching.wait(link(fetching, url).json["id"])
    assert (again["state"], again["sha256"], again["name"]) == ("done", job["sha256"], url)
    assert fetching.post(clips["fake"]).json["state"] == "done"
    text = fetching.get("/metrics").body.decode()
    assert f"tellframe_received_bytes_total {3 * len(clips['fake'])}\n" in text


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("/page", "not_a_video"),
        ("/playlist", "not_a_video"),
        ("/manifest", "not_a_video"),
        ("/endless", "too_large"),
        ("/forbidden", "not_fetched"),
        ("/broken", "not_fetched"),
        ("/again/9", "not_fetched"),
        ("/to?http://me:secret@localhost/", "refused_address"),
    ],
)
def test_what_cannot_be_had_says_why(fetching, web, page, problem):
    job = fetching.wait(link(fetching, web.url + page).json["id"])
    assert (job["state"], job["problem"]["code"]) == ("failed", problem)
    assert job["problem"]["detail"].startswith("http")
    assert fetching.get(job["links"]["json"]).problem == (job["problem"]["status"], problem)
    assert fetching.uploads() == []


def test_what_is_fetched_must_begin_as_a_video(fetching, web, monkeypatch):
    monkeypatch.setattr(web, "body", b"Dear Sir or Madam,")
    job = fetching.wait(link(fetching, f"{web.url}/video/a.mp4").json["id"])
    assert job["problem"]["code"] == "not_a_video"


@pytest.mark.parametrize(
    "body",
    ['{"url": "ftp://example.org/a.mp4"}', '{"url": "a.mp4"}', '{"url": "http://a:b@example.org"}',
     '{"url": "http://example.org/\\ud800"}', '{"url": ""}',
     json.dumps({"url": "http://x/" + 9000 * "a"})],
)  # fmt: skip
def test_links_that_are_none_are_refused_at_once(fetching, body):
    answer = fetching.ask("POST", "/v1/jobs", body, Content_Type="application/json")
    assert answer.problem == (422, "refused_address")


@pytest.mark.parametrize(
    "body",
    ["", "no json", "[]", '"http://example.org"', "{}", '{"url": 1}', '{"url": "http://x", "a": 1}',
     '{"url": null}', "[" * 50_000, '"' + 70_000 * "a"],
)  # fmt: skip
def test_bodies_that_name_no_link(fetching, body):
    answer = fetching.ask("POST", "/v1/jobs", body, Content_Type="application/json")
    assert answer.problem == (400, "invalid_request")


def test_progress_and_a_delete_in_the_middle(fetching, web):
    web.gone.clear()
    job = link(fetching, f"{web.url}/drip").json
    running = fetching.wait(job["id"], "running")
    fetching.wait_for(
        lambda: fetching.get(job["links"]["self"]).json["progress"]["stage"] == "fetching"
    )
    fetching.wait_for(lambda: fetching.get(job["links"]["self"]).json["progress"]["done"] > 0)
    assert (running["bytes"], running["sha256"]) == (0, "")
    assert [path.suffix for path in fetching.uploads()] == [".part"]
    assert fetching.ask("DELETE", job["links"]["self"]).status == 204
    assert web.gone.wait(10)
    fetching.wait_for(lambda: fetching.uploads() == [])
    # The slot is free again.
    assert fetching.wait(link(fetching, f"{web.url}/video/a").json["id"])["state"] == "done"


def test_a_killed_server_fetches_again(fetching, web):
    job = link(fetching, f"{web.url}/drip?x").json
    fetching.wait(job["id"], "running")
    fetching.end(signal.SIGKILL)
    waiting = f"{web.url}/video/later.mp4"
    with sqlite3.connect(fetching.folder / "jobs.sqlite3") as database:
        database.execute("UPDATE jobs SET url = ? WHERE id = ?", [waiting, job["id"]])
    database.close()
    fetching.start()
    assert fetching.wait(job["id"])["state"] == "done"
    assert fetching.uploads() == []


def test_a_server_that_is_asked_to_end_does_not_wait_for_a_link(fetching, web):
    job = link(fetching, f"{web.url}/drip?y").json
    fetching.wait(job["id"], "running")
    begin = time.monotonic()
    fetching.end(signal.SIGTERM)
    assert time.monotonic() - begin < 15
    fetching.start()
    fetching.wait(job["id"], "running")
    assert fetching.ask("DELETE", job["links"]["self"]).status == 204


def test_a_link_takes_no_longer_than_it_may(run_server, web):
    options = ("--allow-urls", "--allow-private-addresses", "--limit-seconds", "1")
    server = run_server(*options)
    job = server.wait(link(server, f"{web.url}/drip?z").json["id"])
    assert job["problem"]["code"] == "not_fetched"
    assert "within 1 s" in job["problem"]["detail"]
    server.end()


def test_a_table_of_an_earlier_version_is_taken_over(run_server, tmp_path, clips, web):
    server = run_server("--allow-urls", "--allow-private-addresses", folder=tmp_path / "f")
    done = server.wait(server.post(clips["real"]).json["id"])
    server.end()
    with sqlite3.connect(tmp_path / "f" / "jobs.sqlite3") as database:
        database.execute("ALTER TABLE jobs DROP COLUMN url")
    database.close()
    server.start()
    assert server.get(done["links"]["self"]).json["verdict"] == done["verdict"]
    assert server.wait(link(server, f"{web.url}/video/a").json["id"])["state"] == "done"
    server.end()


def test_a_full_disk_is_said(run_server, web, small_disk):
    options = ("--allow-urls", "--allow-private-addresses", "--max-mib", "1000")
    server = run_server(*options, folder=small_disk / "jobs")
    job = server.wait(link(server, f"{web.url}/endless").json["id"])
    assert job["problem"]["code"] == "storage_full"
    assert server.uploads() == []
    server.end()
