"""Whether the service can listen where it is told to."""

from __future__ import annotations

import asyncio
import errno
from typing import Final

from tellframe.errors import UsageError

_NO_ADDRESS: Final = "--host {host}: is no address of this machine; name one that is"
_TEXTS: Final = {
    None: _NO_ADDRESS,
    errno.EADDRNOTAVAIL: _NO_ADDRESS,
    errno.EADDRINUSE: "--port {port}: is taken at {host}; name another, or 0 for any free one",
    errno.EACCES: "--port {port}: needs more rights; name one from 1024 on",
}
_OTHER: Final = "--host {host}: {reason}; give an address of this machine"


def check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before the model is loaded.

    Args:
        host: name or address; "" for all of the machine.
        port: 0 for any free one.

    Raises:
        UsageError: it is such.
    """
    try:
        asyncio.run(_bind(host, port))
    except (OSError, UnicodeError) as error:
        text = _TEXTS.get(getattr(error, "errno", None), _OTHER)
        reason = getattr(error, "strerror", None)
        raise UsageError(text.format(host=host, port=port, reason=reason)) from error


async def _bind(host: str, port: int) -> None:
    """Take the address as the server does, and let it go."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    found = server.sockets
    server.close()
    if not found:  # of families that are switched off alone
        raise OSError(f"{host}: no address")
