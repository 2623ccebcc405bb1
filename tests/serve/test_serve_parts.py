"""The parts of the service that need no server: uploads, forms, guards, settings, figures."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import re
import socket
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'tellframe[serve]'")

from tellframe import download
from tellframe.bundle import load_bundle
from tellframe.cli import build_parser, run
from tellframe.cli import serve as verb
from tellframe.errors import DecodeError, FetchError, LimitError, NoVideoError, UsageError
from tellframe.isolation import Limits
from tellframe.serve import about, problems, uploads
from tellframe.serve.address import check_address
from tellframe.serve.guard import Rate, Tokens
from tellframe.serve.jobs import State
from tellframe.serve.metrics import Metrics
from tellframe.serve.page.markdown import render
from tellframe.serve.parts import FormFile
from tellframe.serve.problems import ProblemError
from tellframe.serve.results import clean_name
from tellframe.serve.service import Service
from tellframe.serve.settings import Settings

MP4 = b"\0\0\0\x20ftypisom"


async def pieces(*chunks):
    for chunk in chunks:
        yield chunk


def receive(folder, *chunks, most=10**7):
    return asyncio.run(folder.receive("a" * 32, pieces(*chunks), most))


@pytest.fixture
def folder(tmp_path):
    return uploads.Folder(tmp_path / "uploads")


def files(folder):
    return [path.name for path in folder.path("x").parent.iterdir()]


def test_an_upload_is_counted_and_hashed(folder):
    data = MP4 + bytes(3 * 2**20)
    found = receive(folder, data[:5], data[5:2_000_000], data[2_000_000:])
    assert found == uploads.Upload(len(data), hashlib.sha256(data).hexdigest())
    assert folder.path("a" * 32).read_bytes() == data
    assert files(folder) == ["a" * 32]


@pytest.mark.parametrize("chunks", [[MP4, bytes(200)], [MP4 + bytes(200)], [bytes(1)] * 101])
def test_too_much_is_refused_and_leaves_nothing(folder, chunks):
    with pytest.raises(ProblemError) as caught:
        receive(folder, *chunks, most=100)
    assert caught.value.problem.code == "too_large"
    assert files(folder) == []


def test_what_reading_raises_is_passed_on_and_leaves_nothing(folder):
    async def broken():
        yield MP4 + bytes(2**21)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        asyncio.run(folder.receive("b", broken(), 10**8))
    assert files(folder) == []


def test_a_client_that_sends_nothing_is_given_up():
    async def silent():
        yield b"x"
        await asyncio.sleep(60)

    async def read():
        return [chunk async for chunk in uploads.awaited(silent(), 0.05)]

    with pytest.raises(ProblemError) as caught:
        asyncio.run(read())
    assert caught.value.problem.code == "upload_stalled"


def test_a_full_disk_says_so_and_leaves_nothing(folder, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads.os, "fsync", fail)
    with pytest.raises(ProblemError, match="No space left") as caught:
        receive(folder, MP4)
    assert caught.value.problem.status == 507
    assert files(folder) == []


def test_a_nearly_full_disk_takes_no_upload(folder, monkeypatch):
    monkeypatch.setattr(
        uploads.os, "statvfs", lambda _: SimpleNamespace(f_bavail=2**15, f_frsize=4096)
    )
    folder.check_space(10**6)
    with pytest.raises(ProblemError) as caught:
        folder.check_space(10**8)
    assert caught.value.problem.code == "storage_full"


def test_files_of_no_job_are_swept(folder):
    for name in ("known", "half.part", "arriving.part", "left"):
        folder.path(name).write_bytes(b"x")
    assert folder.sweep(lambda: {"known", "arriving"}) == 2
    assert sorted(files(folder)) == ["arriving.part", "known"]


HEADS = {
    "mp4": MP4,
    "mov": b"\0\0\0\x08wide\0\0\0\0mdat",
    "mkv": b"\x1aE\xdf\xa3\x01",
    "avi": b"RIFF\x00\x10\0\0AVI LIST",
    "flv": b"FLV\x01",
    "ogg": b"OggS\0",
    "y4m": b"YUV4MPEG2 W64",
    "mpeg": b"\0\0\x01\xba",
    "h264": b"\0\0\0\x01\x67",
    "ts": (b"\x47" + bytes(187)) * 3,
    "m2ts": (bytes(4) + b"\x47" + bytes(187)) * 3,
}
STRANGERS = {
    "nothing": b"",
    "text": b"Dear Sir or Madam,",
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0",
    "playlist": b"#EXTM3U\n#EXT-X-VERSION:3\nhttp://example.org/a.ts",
    "zip": b"PK\x03\x04",
    "wave": b"RIFF\x00\x10\0\0WAVEfmt ",
    "html": b"<!doctype html>",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_videos_are_known_by_how_they_begin(head):
    uploads.check_container(head)


@pytest.mark.parametrize("head", STRANGERS.values(), ids=STRANGERS)
def test_what_is_no_video_is_refused(head):
    with pytest.raises(ProblemError) as caught:
        uploads.check_container(head)
    assert (caught.value.problem.status, caught.value.problem.code) == (415, "not_a_video")


FORM = (
    b'--XX\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a b.mp4"\r\n'
    b"Content-Type: video/mp4\r\n\r\n\x00\r\n--X\x01data\r\n"
    b'--XX\r\nContent-Disposition: form-data; name="more"; filename="c.mp4"\r\n\r\nother\r\n'
    b"--XX--\r\n"
)


def read_form(body, step, kind="multipart/form-data; boundary=XX"):
    async def read():
        form = FormFile(pieces(*(body[i : i + step] for i in range(0, len(body), step))), kind)
        return b"".join([part async for part in form]), form.name

    return asyncio.run(read())


@pytest.mark.parametrize("step", [1, 2, 7, 50, 10_000])
def test_the_first_file_of_a_form_is_taken(step):
    assert read_form(FORM, step) == (b"\x00\r\n--X\x01data", "a b.mp4")


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (FORM[:-30], "multipart/form-data; boundary=XX", "ends too early"),
        (b"--XX--\r\n", "multipart/form-data; boundary=XX", "holds no file"),
        (FORM, "multipart/form-data", "no boundary"),
        (b"no form at all", "multipart/form-data; boundary=XX", "cannot be read"),
    ],
)
def test_broken_forms_are_refused(body, kind, why):
    with pytest.raises(ProblemError, match=why) as caught:
        read_form(body, 100, kind)
    assert caught.value.problem.status == 400


def test_tokens_are_needed_only_where_there_are_some():
    assert Tokens([]).owner("") == ""
    tokens = Tokens(["one-two-three-four", "five-six-seven-eight"])
    first, second = (
        tokens.owner(f"Bearer {t}") for t in ("one-two-three-four", "five-six-seven-eight")
    )
    assert first != second
    assert tokens.owner("bearer one-two-three-four") == first
    for wrong in ("", "one-two-three-four", "Basic one-two-three-four", "Bearer one", "Bearer é"):
        with pytest.raises(ProblemError) as caught:
            tokens.owner(wrong)
        assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


def test_a_rate_has_room_for_a_minute_at_once():
    rate = Rate(3)
    for _ in range(3):
        rate.check("a", now=0)
    with pytest.raises(ProblemError) as caught:
        rate.check("a", now=1)
    assert caught.value.headers == {"Retry-After": "19"}
    rate.check("b", now=1)
    rate.check("a", now=21)
    with pytest.raises(ProblemError):
        rate.check("a", now=21)
    Rate(0).check("a")


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("a.mp4", "a.mp4"),
        ("C:\\Users\\x\\b.mov", "b.mov"),
        ("../../etc/passwd", "passwd"),
        ("", "video"),
        ("/", "video"),
        ("x" * 500 + ".mp4", "x" * 196 + ".mp4"),
    ],
)
def test_names_lose_their_folders(given, cleaned):
    assert clean_name(given) == cleaned


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"workers": 0}, "--workers 0: give 1 or more"),
        ({"threads": -1}, "--threads -1: give 0 or more"),
        ({"max_queue": 0}, "--queue 0: give 1 or more"),
        ({"max_bytes": 0}, "--max-mib 0: give more than 0"),
        ({"rate": -0.5}, "--rate -0.5: give 0 or more"),
        (
            {"tokens": ("short",)},
            "--token-file or $TELLFRAME_TOKENS: a token has fewer than 16 characters",
        ),
        ({"root_path": "no-slash"}, "--root-path no-slash: begin it with /"),
        ({"limits": Limits(memory=2**20)}, "--limit-mib 1: give 512 or more"),
        ({"limits": Limits(seconds=0)}, "--limit-seconds 0: give more than 0"),
        ({"keep_seconds": 0}, "--keep-hours 0: give a finite number above 0"),
        ({"keep_seconds": float("inf")}, "--keep-hours inf: give a finite number above 0"),
        ({"keep_bytes": -(2**20)}, "--keep-mib -1: give 0 or more"),
        (
            {"workers": 0, "max_queue": 0},
            "--workers 0: give 1 or more; --queue 0: give 1 or more",
        ),
    ],
)
def test_settings_out_of_range_are_refused_with_the_reason(wrong, reason):
    with pytest.raises(UsageError, match=f"^{re.escape(reason)}$"):
        Settings(**wrong)


def test_weights_are_fetched_before_the_workers_that_may_not(tmp_path, monkeypatch, capsys):
    asked = []

    def refuse(request, timeout):
        asked.append(request.full_url)
        raise OSError("no connection")

    def serve(config, names):
        raise AssertionError("the service was started")

    monkeypatch.delenv("TELLFRAME_YUNET", raising=False)
    monkeypatch.setenv("TELLFRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(verb, "_make_server", serve)
    folder = str(tmp_path / "folder")
    assert run(["serve", "--folder", folder, "--face-detector", "yunet"]) == 2
    assert "cannot be fetched: no connection" in capsys.readouterr().err
    assert len(asked) == 1


def test_an_address_that_cannot_be_had_is_known_before_the_model_is_loaded(tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="needs the extra: pip install 'tellframe[serve]'")
    folder = tmp_path / "folder"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = [f"--port={port}", "--folder", str(folder), "--model", "no-such"]
        assert run(["serve", *options]) == 2
    assert capsys.readouterr().err == (
        f"tellframe: error: --port {port}: is taken at 127.0.0.1; name another, or 0 for any free "
        "one\n"
    )
    assert not folder.exists()
    for host, reason in (("192.0.2.1", "is no address of this machine"), ("a..b", "")):
        with pytest.raises(UsageError, match=f"--host {host}: {reason}"):
            check_address(host, 0)
    check_address("127.0.0.1", 0)
    check_address("", 0)


def test_a_family_of_addresses_that_is_switched_off_is_passed_over(monkeypatch):
    switched_off = {socket.AF_INET6}

    class Socket(socket.socket):
        def __init__(self, family=socket.AF_INET, *rest):
            if family in switched_off:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest)

    def resolve(*_, **__):
        kind = socket.SOCK_STREAM
        return [(socket.AF_INET6, kind, 6, "", ("::1", 0, 0, 0)),
                (socket.AF_INET, kind, 6, "", ("127.0.0.1", 0))]  # fmt: skip

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "socket", Socket)
    check_address("localhost", 0)
    switched_off.add(socket.AF_INET)
    with pytest.raises(UsageError, match="--host localhost: is no address of this machine"):
        check_address("localhost", 0)


def test_a_folder_that_cannot_be_made_is_named_with_its_option(tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="needs the extra: pip install 'tellframe[serve]'")
    (tmp_path / "file").touch()
    assert run(["serve", "--folder", f"{tmp_path}/file/jobs", "--port", "0"]) == 2
    assert f"--folder {tmp_path}/file/jobs: {tmp_path}/file is no" in capsys.readouterr().err


def test_private_addresses_are_of_links_alone():
    with pytest.raises(UsageError, match="give --allow-urls as well"):
        settings_of("--allow-private-addresses")
    assert settings_of("--allow-private-addresses", "--allow-urls").fetch.allow_private


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_ports_out_of_range_are_refused(port, capsys):
    pytest.importorskip("uvicorn", reason="needs the extra: pip install 'tellframe[serve]'")
    assert run(["serve", f"--port={port}"]) == 2
    assert capsys.readouterr().err == f"tellframe: error: --port {port}: give 0 to 65535\n"


@pytest.mark.parametrize(
    ("address", "names", "shown"),
    [
        ("0.0.0.0", ["*", "faces.example.org", "other.example.org"], "faces.example.org"),
        ("::", ["faces.example.org"], "faces.example.org"),
        ("0.0.0.0", ["*"], "localhost"),
        ("127.0.0.1", ["faces.example.org"], "127.0.0.1"),
        ("::1", [], "[::1]"),
    ],
)
def test_the_address_that_is_shown_can_be_opened(address, names, shown):
    assert verb._shown_name(address, names) == shown


def settings_of(*options):
    return verb.read_settings(build_parser().parse_args(["serve", *options]))


@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize("option", ["--max-mib", "--keep-hours"])
def test_sizes_and_times_are_finite(option, value):
    with pytest.raises(UsageError, match=f"{option}.*finite"):
        settings_of(option, value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no token"),
        (b"\n \r\n", "holds no token"),
        ("caf\xe9-0123456789abc\n".encode("latin-1"), "no text in UTF-8"),
    ],
)
def test_a_file_of_tokens_without_one_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.setenv(verb.TOKENS, "0123456789abcdef")
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"--token-file {path}: .*{message}"):
        settings_of("--token-file", str(path))
    path.write_bytes(b" fedcba9876543210 \n\n")
    expected = ("0123456789abcdef", "fedcba9876543210")
    assert settings_of("--token-file", str(path)).tokens == expected


def test_a_file_of_tokens_that_cannot_be_read_is_named_with_its_option(tmp_path):
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"^--token-file {path}: {reason}.*; check the path"):
            settings_of("--token-file", str(path))


def test_only_the_shipped_model_has_a_model_card():
    shipped = load_bundle()
    other = dataclasses.replace(shipped, name="mine", sha256="0" * 64)
    settings = Settings(root_path="/prefix")
    for active, cards in ((shipped, ["/prefix/model-card"]), (other, [None, "/prefix/model-card"])):
        service = SimpleNamespace(bundle=active, recipe=active.recipe, settings=settings)
        assert [model.card for model in about.list_models("", service).models] == cards


@pytest.mark.parametrize(
    ("error", "code"),
    [(DecodeError, "undecodable"), (NoVideoError, "no_video"), (LimitError, "too_costly")],
)
def test_problems_of_files_do_not_show_the_servers_paths(error, code):
    for name in ("/srv/uploads/abc", "abc"):  # as the server and as the worker call it
        text = f"{name}: it is broken; convert it"
        problem = problems.undecodable(error(text), Path("/srv/uploads/abc"))
        assert (problem.code, problem.status) == (code, 422)
        assert problem.detail == "It is broken; convert it."


def test_problems_end_in_a_full_stop_where_they_end_in_nothing_else():
    for text, expected in (
        ("is the file complete?", "Is the file complete?"),
        ("convert it", "Convert it."),
        ("convert it.", "Convert it."),
    ):
        assert problems.undecodable(DecodeError(f"xyz: {text}"), Path("xyz")).detail == expected
        assert problems.internal(text).detail == expected
        unfetched = problems.unfetched(FetchError(text), "https://example.org/a.mp4")
        assert unfetched.detail.capitalize() == expected


def test_markdown_becomes_html_and_html_in_it_stays_text():
    text = "# A `b`\nOne\ntwo **three** <i>.\n\n- x\n  y\n- [z](https://a.b/c) [w](d.md)\n\n"
    assert render(text + "| a | b |\n| --- | --- |\n| 1 | - |\n").splitlines() == [
        "<h1>A <code>b</code></h1>",
        "<p>One two <b>three</b> &lt;i&gt;.</p>",
        '<ul><li>x y</li><li><a href="https://a.b/c">z</a> w</li></ul>',
        '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table><thead><tr>'
        '<th scope="col">a</th><th scope="col">b</th></tr></thead><tbody>'
        '<tr><th scope="row">1</th><td>-</td></tr></tbody></table></div>',
    ]


def test_an_upload_that_was_accepted_is_not_refused_for_what_comes_after(tmp_path, monkeypatch):
    service = Service(Settings(folder=tmp_path, keep_uploads=True))

    def upload():
        return asyncio.run(service.accept("", lambda: "a.mp4", pieces(MP4)))

    def fail(*_):
        raise sqlite3.OperationalError("database is locked")

    service.store.finish(upload().key, "{}", b"")
    monkeypatch.setattr(service.store, "_read", fail)
    assert upload().state is State.DONE
    assert 'tellframe_jobs_ended_total{outcome="done"} 1\n' in service.metrics.write(
        {}, ready=True, starts=1
    )
    service.store.close()


def test_figures_are_in_prometheus_format():
    metrics = Metrics()
    metrics.observe(0.7)
    metrics.observe(3.0)
    metrics.count("done")
    metrics.answer(202)
    text = metrics.write({"queued": 2}, ready=True, starts=1)
    for line in (
        'tellframe_jobs{state="queued"} 2',
        'tellframe_jobs_ended_total{outcome="done"} 1',
        'tellframe_answers_total{status="202"} 1',
        'tellframe_analysis_seconds_bucket{le="1"} 1',
        'tellframe_analysis_seconds_bucket{le="5"} 2',
        'tellframe_analysis_seconds_bucket{le="+Inf"} 2',
        "tellframe_ready 1",
    ):
        assert line in text.splitlines()
    assert metrics.mean_seconds() == pytest.approx(1.85)
