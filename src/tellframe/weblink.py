"""Links to videos in the web: how they are checked, and how they are shown.

A link comes from whoever wants something judged, and must not make this machine ask its own
network in their place. A host name is therefore resolved once, all that it resolves to is checked,
and only that is asked, whatever the name says a moment later: see `tellframe.webfetch`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from contextlib import suppress
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from tellframe.errors import AddressError, PrivateAddressError

SCHEMES: Final = ("http://", "https://")
"""What is taken for a web link, in small or capital letters."""
MAX_LENGTH: Final = 8000
"""Characters of an address, as RFC 9110 section 4.1 recommends that servers take."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address."""
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215: translated by the local network, to wherever it likes."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_link(text: str) -> bool:
    """Tell whether an input is a web link, and not the name of a file."""
    return text.lower().startswith(SCHEMES)


def show_link(url: str) -> str:
    """Return a link as it may be shown and kept: without what could open more than this video.

    User name, password and fragment are left out. Of a query, which may hold a signature or a
    token, the first 8 hex digits of its SHA-256 remain, so that links stay apart.

    >>> show_link("https://me:secret@example.org/a.mp4?token=abc")
    'https://example.org/a.mp4?[query 4dc7c9ec]'
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return "(a web link that cannot be read)"
    place = parts.netloc.rpartition("@")[2]
    shown = urlunsplit((parts.scheme, place, parts.path, "", ""))
    if parts.query:
        digest = hashlib.sha256(parts.query.encode("utf-8", "replace")).hexdigest()
        shown += f"?[query {digest[:8]}]"
    return shown.encode("utf-8", "replace").decode()  # a lone surrogate cannot be written


def check_link(url: str, *, allow_private: bool = False) -> SplitResult:
    """Check a link as far as that is possible without asking anybody.

    Args:
        url: of a video.
        allow_private: whether addresses of this machine and of private networks are taken.

    Returns:
        Its parts.

    Raises:
        AddressError: it is no link of this kind, holds a password, or names a private address.
    """
    shown = show_link(url)
    try:
        url.encode()
        parts = urlsplit(url.strip())
        host, _port = ascii_host(parts), parts.port  # which is looked at when it is asked for
    except ValueError as error:  # UnicodeError is one
        raise AddressError(f"{shown}: is no web address ({error}); check the link") from error
    if parts.scheme not in ("http", "https") or not host:
        raise AddressError(f"{shown}: only http:// and https:// links with a host are fetched")
    if len(url) > MAX_LENGTH:
        raise AddressError(f"{shown[:200]}: has more than {MAX_LENGTH} characters; shorten it")
    if "@" in parts.netloc:
        raise AddressError(
            f"{shown}: holds a user name or password, which are not sent; give a link "
            "that needs none"
        )
    with suppress(ValueError):
        _check_address(shown, ipaddress.ip_address(host), allow_private)
    return parts


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet.

    Addresses of IPv4 inside of IPv6 (mapped, 6to4, NAT64) count as what they stand for.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address in _NAT64_LOCAL or address.is_site_local:
            return False
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_private
    )


def ascii_host(parts: SplitResult) -> str:
    """Return the host as it is looked up and sent; "" where there is none.

    Raises:
        UnicodeError: it is no name of a host.
    """
    host = parts.hostname or ""
    return host if host.isascii() else host.encode("idna").decode("ascii")


def resolve_host(shown: str, host: str, port: int, allow_private: bool) -> list[Address]:
    """Return the addresses of a host, all of them checked.

    Raises:
        AddressError: one of them must not be asked.
        OSError: there are none.
        UnicodeError: it is no name of a host.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
    for address in addresses:
        _check_address(shown, address, allow_private)
    return addresses


def _check_address(shown: str, address: Address, allow_private: bool) -> None:
    if not allow_private and not is_public(address):
        raise PrivateAddressError(
            f"{shown}: leads to {address}, which is not an address of the public internet; if you "
            "trust the link, allow it with --allow-private-addresses"
        )
