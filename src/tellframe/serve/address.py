"""Whether the service can listen where it is told to."""

from __future__ import annotations

import errno
import socket

from tellframe.errors import UsageError


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before the model is loaded.

    Args:
        host: name or address; "" for all of the machine.
        port: 0 for any free one.

    Raises:
        UsageError: it is such.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "is no name of a host"
        raise UsageError(f"--host {host}: {reason}; give an address of this machine") from error
    for family, kind, protocol, _, address in found:
        try:
            _try(family, kind, protocol, address)
        except OSError as error:
            raise UsageError(_explain(error, host, port)) from error


def _try(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> None:
    with socket.socket(family, kind, protocol) as attempt:
        # As the server does: what an earlier one left half closed is no hindrance.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            attempt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        attempt.bind(address)


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port}: is taken at {host}; name another, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"--port {port}: needs more rights; name one from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: is no address of this machine; name one that is"
    return f"--host {host} --port {port}: {error.strerror or error}; name others"
