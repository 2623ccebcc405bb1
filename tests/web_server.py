"""A small web server for tests that answers as videos, pages, and servers that mean harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """What is answered is named by the first part of the path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, dict(self.headers)))
        kind = self.path.split("?")[0].split("/")[1]
        getattr(self, f"send_{kind}", self.send_missing)()

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_video(self) -> None:
        self.answer(self.server.body, Content_Type="video/mp4")

    def send_undeclared(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(self.server.body)

    def send_chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (self.server.body[:1000], self.server.body[1000:], b""):
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")

    def send_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            while not self.server.release.is_set():
                self.wfile.write(bytes(2**16))

    def send_broken(self) -> None:
        self.answer(self.server.body[:100], Content_Length=str(len(self.server.body)))
        self.close_connection = True

    def send_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.drip()

    def send_headers_that_drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.drip()

    def drip(self) -> None:
        self.close_connection = True
        try:
            while not self.server.release.wait(0.05):
                self.wfile.write(b"x")
        except OSError:
            self.server.gone.set()

    def send_page(self) -> None:
        self.answer(b"\n <!DOCTYPE html><title>Watch</title>", Content_Type="text/html; charset=x")

    def send_page_in_disguise(self) -> None:
        self.answer(b"\n <!DOCTYPE html><title>Watch</title>", Content_Type="video/mp4")

    def send_page_in_pieces(self) -> None:
        page = b"<!DOCTYPE html><title>Watch</title>"
        self.answer(page[:1], Content_Length=str(len(page)))
        with suppress(OSError):
            for position in range(1, len(page)):
                time.sleep(0.005)
                self.wfile.write(page[position : position + 1])

    def send_playlist(self) -> None:
        self.answer(b"...", Content_Type="application/vnd.apple.mpegurl")

    def send_playlist_in_disguise(self) -> None:
        self.answer(b"#EXTM3U\n#EXT-X-VERSION:3\nhttp://127.0.0.1/a.ts", Content_Type="video/mp4")

    def send_manifest(self) -> None:
        self.answer(b'<?xml version="1.0"?><MPD></MPD>', Content_Type="text/xml")

    def send_gzip(self) -> None:
        self.answer(b"\x1f\x8b", Content_Encoding="gzip")

    def send_forbidden(self) -> None:
        self.answer(b"no", 403)

    def send_partial(self) -> None:
        self.answer(b"part", 206)

    def send_to(self) -> None:
        self.answer(b"", 302, Location=self.path.split("?", 1)[1])

    def send_again(self) -> None:
        left = int(self.path.rpartition("/")[2])
        self.answer(b"", 307, Location=f"/again/{left - 1}" if left else "/video/a.mp4")

    def send_nowhere(self) -> None:
        self.answer(b"", 301)

    def send_missing(self) -> None:
        self.answer(b"", 404)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def run_web_server(body: bytes, context: Any = None) -> Iterator[Any]:
    """Yield a server on this machine; `seen` has the paths and headers of all requests.

    Args:
        body: of a video.
        context: of TLS, where the server speaks it.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running: Any = server
        running.daemon_threads = True
        if context:
            running.socket = context.wrap_socket(running.socket, server_side=True)
        running.body, running.seen = body, []
        running.release, running.gone = threading.Event(), threading.Event()
        running.url = f"http{'s' * bool(context)}://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()
