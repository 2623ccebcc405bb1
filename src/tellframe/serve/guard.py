"""Who may ask, and how often; and the headers that keep the page to itself."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tellframe.report.words import printable
from tellframe.serve.metrics import Metrics
from tellframe.serve.problems import MEDIA_TYPE, ProblemError
from tellframe.serve.settings import LOOPBACK

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Of the page: nothing from another host, no inline script, and videos from the browser alone."""
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise."""
access_log: Final = logging.getLogger("tellframe.serve.access")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_CLIENTS: Final = 10_000


class Guard:
    """Middleware: checks host and origin, sets headers, counts and logs answers.

    Args:
        app: what it guards.
        hosts: names that requests may use, without the port; "*" allows all.
        metrics: counts.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._hosts = {host.lower() for host in hosts}
        # Many things may be served at a port of localhost, so that its names alone say nothing.
        self._public = self._hosts.difference(LOOPBACK)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begin, status = time.monotonic(), 500

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                self._metrics.answer(message["status"])
            await send(message)

        try:
            self._check(scope["method"], Headers(scope=scope))
            await self._app(scope, receive, send_guarded)
        except ProblemError as error:
            await send_problem(error, send_guarded)
        finally:
            log_request(scope, status, time.monotonic() - begin)

    def _check(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if "*" not in self._hosts and name.lower() not in self._hosts:
            raise ProblemError("unknown_host", "Whoever runs it can allow the name: --host-name.")
        if method not in _SAFE and self._is_foreign(headers):
            raise ProblemError("foreign_site", "Use the page of the service itself.")

    def _is_foreign(self, headers: Headers) -> bool:
        """Tell whether a page of another web site asks; what is no browser says nothing."""
        relation = headers.get("sec-fetch-site")
        # This holds behind a proxy that changes the host, too. Old browsers do not send it, and
        # none does to a plain http address of another machine.
        if relation in ("cross-site", "same-origin"):
            return relation == "cross-site"
        origin = headers.get("origin")
        if origin is None:
            return False
        place = origin.lower().partition("://")[2]  # "" of "null"; a proxy may change the scheme
        return not place or place not in {headers.get("host", "").lower(), *self._public}


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """Log an answered request; without its query, which has the names of files.

    Args:
        scope: of the request.
        status: of the answer.
        seconds: from the request to the end of the answer.
    """
    client = (scope.get("client") or ("-",))[0]
    path = printable(scope["path"])
    access_log.info("%s %s %s %d %.3f s", client, scope["method"], path, status, seconds)


async def send_problem(error: ProblemError, send: Send) -> None:
    """Answer with a problem."""
    body = error.problem.model_dump_json().encode()
    extra = [(k.lower().encode(), v.encode()) for k, v in error.headers.items()]
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    status = error.problem.status
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
    await send({"type": "http.response.body", "body": body})


class Tokens:
    """The bearer tokens.

    Args:
        tokens: none is needed where this is empty.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        # Digests are of one length, so that comparing takes the same time for every guess.
        self._digests = [_digest(token) for token in tokens]

    def __bool__(self) -> bool:
        """Tell whether one is needed."""
        return bool(self._digests)

    def owner(self, authorization: str) -> str:
        """Return who asks.

        Args:
            authorization: header of the request, "" where there is none.

        Raises:
            ProblemError: unauthorized.
        """
        if not self._digests:
            return ""
        scheme, _, token = authorization.partition(" ")
        given = _digest(token.strip())
        # All are compared, whichever is the right one.
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise ProblemError(
                "unauthorized",
                "Send the header Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )
        return given[:32]


class Rate:
    """A limit of uploads a minute by client, with room for as many at once.

    Args:
        per_minute: 0 for no limit.
    """

    def __init__(self, per_minute: float) -> None:
        self._per_minute = per_minute
        self._clients: MutableMapping[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str, now: float | None = None) -> None:
        """Count an upload of a client.

        Raises:
            ProblemError: rate_limited.
        """
        if not self._per_minute:
            return
        now = time.monotonic() if now is None else now
        room = max(1.0, self._per_minute)
        left, seen = self._clients.pop(client, (room, now))
        left = min(room, left + (now - seen) * self._per_minute / 60)
        while len(self._clients) >= _MOST_CLIENTS:
            self._clients.pop(next(iter(self._clients)))
        self._clients[client] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            wait = max(1, round((1 - left) * 60 / self._per_minute))
            raise ProblemError(
                "rate_limited",
                f"At most {self._per_minute:g} videos a minute are taken. Try again later.",
                {"Retry-After": str(wait)},
            )


def _digest(token: Any) -> str:
    return hashlib.sha256(str(token).encode("utf-8", "surrogateescape")).hexdigest()
