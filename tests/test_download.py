"""Fetching into the cache, against a server on this machine."""

from __future__ import annotations

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tellframe.download import cache_folder, fetch
from tellframe.errors import DownloadError

BODY = b"weights" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/silent":
            self.server.release.wait(10)
            return
        self.send_response(200)
        if self.path == "/chunked":  # a chunk that ends too early
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"400\r\n" + BODY[:100])
            return
        if self.path != "/undeclared":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:100] if self.path == "/broken" else BODY)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TELLFRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.paths, running.release = [], threading.Event()
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()


def left_in_cache():
    return sorted(path.name for path in cache_folder().rglob("*") if path.is_file())


@pytest.mark.parametrize("sha256", [SHA256, None])
@pytest.mark.parametrize("page", ["/good", "/undeclared"])
def test_good(server, sha256, page):
    path = fetch(server.url + page, sha256, cache_name="models/w.onnx")
    assert path == cache_folder() / "models" / "w.onnx"
    assert path.read_bytes() == BODY
    assert left_in_cache() == ["w.onnx"]


def test_a_good_copy_is_not_fetched_again(server):
    for _ in range(3):
        fetch(server.url + "/good", SHA256, cache_name="w.onnx")
    assert server.paths == ["/good"]


def test_an_altered_copy_is_replaced(server):
    path = fetch(server.url + "/good", SHA256, cache_name="w.onnx")
    path.write_bytes(b"altered")
    assert fetch(server.url + "/good", SHA256, cache_name="w.onnx").read_bytes() == BODY


@pytest.mark.parametrize(
    ("page", "sha256", "options", "message"),
    [
        ("/good", "0" * 64, {}, "is pinned"),
        ("/missing", SHA256, {}, "404"),
        ("/good", SHA256, {"max_bytes": 100}, "larger than the limit of 100 bytes"),
        ("/undeclared", None, {"max_bytes": 100}, "larger than the limit of 100 bytes"),
        ("/broken", None, {}, "broke after 100 of 7000 bytes"),
        ("/chunked", None, {}, "IncompleteRead"),
        ("/silent", SHA256, {"timeout": 0.2}, "timed out"),
        ("/good", SHA256, {"deadline": -1.0}, "takes too long"),
    ],
)
def test_bad(server, page, sha256, options, message):
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(server.url + page, sha256, cache_name="w.onnx", **options)
    assert server.url + page in str(caught.value)
    assert str(cache_folder() / "w.onnx") in str(caught.value)
    assert left_in_cache() == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "nonsense"])
def test_other_schemes_are_refused(server, url):
    with pytest.raises(DownloadError, match="only http and https"):
        fetch(url, None, cache_name="w.onnx")


def test_no_server(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DownloadError, match="Without a connection"):
        fetch(closed + "/x", SHA256, cache_name="w.onnx", timeout=1)


def test_the_cache_is_in_the_home_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("TELLFRAME_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tellframe"
