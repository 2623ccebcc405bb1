"""Fetch a video from a direct web link into a file.

Redirects are followed by hand, each checked as in `tellframe.weblink`, and the connection goes to
an address that was checked. Nothing of the environment is used or sent: no proxy, no cookies, no
passwords of ~/.netrc; only certificates are looked up as OpenSSL does (SSL_CERT_FILE,
SSL_CERT_DIR).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from tellframe.errors import AddressError, FetchError, LimitError, NoVideoError
from tellframe.weblink import Address, ascii_host, check_link, resolve_host, show_link

MAX_REDIRECTS: Final = 5
STALL_SECONDS: Final = 30.0
"""How long a server may be silent."""
CONNECT_SECONDS: Final = 10.0
"""How long one address of a host may take to accept a connection."""
_ADDRESSES_TRIED: Final = 3
_CHUNK: Final = 1 << 18
_TICK: Final = 0.1
_HEAD: Final = 512
"""Bytes by which a web page or a playlist is known."""
_PAGES: Final = ("text/html", "application/xhtml+xml")
_PLAYLISTS: Final = (
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "audio/mpegurl",
    "audio/x-mpegurl",
    "application/dash+xml",
    "application/vnd.ms-sstr+xml",
    "audio/x-scpls",
    "application/xspf+xml",
)
_PAGE_MARKS: Final = (b"<!doctype html", b"<html", b"<head", b"<body")
_PLAYLIST_MARKS: Final = (b"#extm3u", b"[playlist]", b"<mpd", b"<smoothstreamingmedia")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one link may cost."""

    bytes: int = 64 * 2**30
    """Size of the file."""
    seconds: float = 1800.0
    """Wall time of it all; to look up a name takes as long as the system lets it."""
    allow_private: bool = False
    """Whether addresses of this machine and of private networks are taken."""


def fetch_link(
    url: str,
    file: IO[bytes],
    limits: FetchLimits,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Write the file behind a direct link into an open file, counting what comes.

    Args:
        url: of a video file; a page that shows one, or a playlist, is refused.
        file: open for writing, at its start.
        limits: what it may cost.
        progress: told how many bytes have come, and how many there are (0: not known).
        cancelled: asked ten times a second whether to stop.

    Raises:
        AddressError: it, or where it redirects to, must not be fetched.
        FetchError: it cannot be fetched, or takes too long, or `cancelled` said to stop.
        LimitError: it is too large.
        NoVideoError: it is a web page or a playlist.
        OSError: the file cannot be written.
    """
    done = 0
    # Written here, outside of what explains the errors of a connection.
    with closing(_read_link(url, limits, cancelled)) as chunks:
        for chunk, total in chunks:
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    file.flush()


def _read_link(
    url: str, limits: FetchLimits, cancelled: Callable[[], bool]
) -> Generator[tuple[bytes, int], None, None]:
    """Yield what is behind a link, piece by piece, each with the size of it all (0: not known)."""
    shown, end = show_link(url), time.monotonic() + limits.seconds
    for hop in range(MAX_REDIRECTS + 1):
        try:
            parts = check_link(url, allow_private=limits.allow_private)
        except AddressError as error:
            if hop:
                raise type(error)(f"{shown}: redirects to {error}") from error
            raise
        with (
            _Watch(end, cancelled) as watch,
            _explaining(shown, watch, limits),
            _ask(shown, parts, limits, watch) as answer,
        ):
            if answer.status not in (301, 302, 303, 307, 308):
                yield from _read_body(shown, answer, limits, watch)
                return
            url = _redirected(shown, parts, answer)
    raise FetchError(f"{shown}: redirects more than {MAX_REDIRECTS} times; give the final link")


class _Watch:
    """Cuts a connection when time is up, or when nobody wants the file any more.

    A server that sends a byte now and then would keep every single read from ending in time.
    """

    def __init__(self, end: float, cancelled: Callable[[], bool]) -> None:
        self._end, self._cancelled = end, cancelled
        self._done = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.reason = ""
        """ "timeout" or "cancelled", where it was cut."""

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._socket:
            self._socket.close()

    def hold(self, connected: socket.socket) -> None:
        """Watch a socket, instead of the one before; it is closed at the end."""
        self._socket = connected

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: none; or nobody wants the file any more.
        """
        left = self._end - time.monotonic()
        if self._cancelled():
            self.reason = "cancelled"
        elif left <= 0:
            self.reason = "timeout"
        if self.reason:
            raise TimeoutError(self.reason)
        return left

    def _run(self) -> None:
        while not self._done.wait(_TICK):
            try:
                self.left()
            except TimeoutError:
                if self._socket:
                    with suppress(OSError):
                        # Not that of SSLSocket, which would go on in the clear.
                        socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@contextmanager
def _explaining(shown: str, watch: _Watch, limits: FetchLimits) -> Iterator[None]:
    """Turn what a connection raises into errors that name the link."""
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        if watch.reason == "timeout":
            raise FetchError(
                f"{shown}: could not be fetched within {limits.seconds:g} s; allow more time, or "
                "fetch the file yourself"
            ) from error
        if watch.reason:
            raise FetchError(
                f"{shown}: was not fetched, because nobody wants it any more"
            ) from error
        why = f"silent for {STALL_SECONDS:g} s" if isinstance(error, TimeoutError) else error
        raise FetchError(
            f"{shown}: cannot be fetched ({why or type(error).__name__}); check the link and the "
            "connection"
        ) from error


def _ask(
    shown: str, parts: SplitResult, limits: FetchLimits, watch: _Watch
) -> http.client.HTTPResponse:
    """Send the request for a link to an address that was checked; return the answer."""
    secure, host = parts.scheme == "https", ascii_host(parts)
    port = parts.port or (443 if secure else 80)
    connected = _connect(resolve_host(shown, host, port, limits.allow_private), port, watch)
    if secure:
        connected = ssl.create_default_context().wrap_socket(
            connected, server_hostname=host, do_handshake_on_connect=False
        )
        watch.hold(connected)
        connected.do_handshake()
    connection = http.client.HTTPConnection(host, port)
    connection.sock, connection.auto_open = connected, 0  # or it would look the name up again
    name = f"[{host}]" if ":" in host else host
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": f"{name}:{parts.port}" if parts.port else name,
        "User-Agent": "tellframe",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    connection.request("GET", quote(target, safe="/%:=&?~+!$,;'@()*[]"), headers=headers)
    return connection.getresponse()


def _connect(addresses: list[Address], port: int, watch: _Watch) -> socket.socket:
    """Return a connection to the first address that answers, watched.

    Raises:
        OSError: none does.
    """
    trouble: OSError = OSError("the host has no address")
    for address in addresses[:_ADDRESSES_TRIED]:
        seconds = min(CONNECT_SECONDS, watch.left())
        try:
            connected = socket.create_connection((str(address), port), seconds)
        except TimeoutError:
            trouble = OSError(f"no connection within {seconds:.1f} s")
        except OSError as error:
            trouble = error
        else:
            watch.hold(connected)
            connected.settimeout(STALL_SECONDS)
            return connected
    watch.left()  # what ended the last try may have been the end of all time
    raise trouble


def _redirected(shown: str, parts: SplitResult, answer: http.client.HTTPResponse) -> str:
    """Return where an answer leads to.

    Raises:
        AddressError: from https to http.
        FetchError: nowhere.
    """
    place = answer.headers.get("Location", "")
    if not place:
        raise FetchError(f"{shown}: redirects, but does not say where to; give the final link")
    target = urljoin(parts.geturl(), place)
    if parts.scheme == "https" and urlsplit(target).scheme != "https":
        raise AddressError(
            f"{shown}: redirects from https to {show_link(target)}, which anybody on the way could "
            "change; give a link that stays with https"
        )
    return target


def _read_body(
    shown: str, answer: http.client.HTTPResponse, limits: FetchLimits, watch: _Watch
) -> Iterator[tuple[bytes, int]]:
    """Yield the body of an answer as `_read_link` does.

    Raises:
        FetchError: it is an error, or comes in pieces, compressed, or not as a whole.
        LimitError: it is too large.
        NoVideoError: it is a web page or a playlist.
    """
    if answer.status != 200:
        raise FetchError(
            f"{shown}: the server answers {answer.status} {answer.reason:.80}; give a link that "
            "works without signing in"
        )
    coding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise FetchError(
            f"{shown}: comes compressed ({coding:.40}), which videos are not; give the direct link"
        )
    _check_kind(shown, answer.headers.get_content_type(), b"")
    total = answer.length or 0  # http.client's reading of Content-Length; None where there is none
    done, head = 0, b""
    while chunk := answer.read1(_CHUNK):
        if len(head) < _HEAD:  # a server may send the first bytes one by one
            head += chunk[: _HEAD - len(head)]
            _check_kind(shown, "", head)
        done += len(chunk)
        if max(done, total) > limits.bytes:
            raise LimitError(
                f"{shown}: has more than {limits.bytes} bytes, the limit; cut the video, or allow "
                "more"
            )
        watch.left()
        yield chunk, total
    watch.left()
    if done < total:
        raise FetchError(f"{shown}: the connection broke after {done} of {total} bytes; try again")


def _check_kind(shown: str, kind: str, head: bytes) -> None:
    """Refuse what is known not to be a video file, by its type or by how it begins."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if kind in _PAGES or start.startswith(_PAGE_MARKS):
        raise NoVideoError(f"{shown}: is a web page, not a video: give the direct link of the file")
    listed = start.startswith((b"#", b"[", b"<")) and any(mark in start for mark in _PLAYLIST_MARKS)
    if kind in _PLAYLISTS or listed:
        raise NoVideoError(
            f"{shown}: is a playlist, not a video: give the direct link of a video file"
        )
