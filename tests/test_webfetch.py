"""Fetching videos from links: what is let through, what is refused, and what it may cost."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from tellframe import webfetch
from tellframe.errors import AddressError, FetchError, LimitError, NoVideoError
from tellframe.webfetch import FetchLimits, fetch_link
from tellframe.weblink import check_link, is_link, is_public, show_link
from web_server import run_web_server

BODY = bytes(range(256)) * 1000
LOCAL = FetchLimits(allow_private=True)


@pytest.fixture(scope="module")
def server():
    with run_web_server(BODY) as running:
        yield running


def fetch(url, tmp_path, limits=LOCAL, **options):
    path = tmp_path / "file"
    with path.open("wb") as file:
        fetch_link(url, file, limits, **options)
    return path.read_bytes()


@pytest.mark.parametrize("page", ["/video/a.mp4", "/undeclared", "/chunked", "/again/4"])
def test_good(server, tmp_path, page):
    seen = []
    assert fetch(server.url + page, tmp_path, progress=lambda *s: seen.append(s)) == BODY
    assert seen[-1] == (len(BODY), 0 if page in ("/undeclared", "/chunked") else len(BODY))


def test_a_request_says_little_and_takes_no_proxy(server, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    fetch(f"{server.url}/video/ä b.mp4?x=1&y=%20#end", tmp_path)
    path, headers = server.seen[-1]
    assert path == "/video/%C3%A4%20b.mp4?x=1&y=%20"
    assert headers == {
        "Host": f"127.0.0.1:{server.server_port}",
        "User-Agent": "tellframe",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


@pytest.mark.parametrize(
    ("page", "error", "message"),
    [
        ("/page", NoVideoError, "is a web page, not a video: give the direct link of the file"),
        ("/page_in_disguise", NoVideoError, "is a web page"),
        ("/page_in_pieces", NoVideoError, "is a web page"),
        ("/playlist", NoVideoError, "is a playlist"),
        ("/playlist_in_disguise", NoVideoError, "is a playlist"),
        ("/manifest", NoVideoError, "is a playlist"),
        ("/gzip", FetchError, "comes compressed"),
        ("/forbidden", FetchError, "answers 403 Forbidden"),
        ("/partial", FetchError, "answers 206"),
        ("/missing", FetchError, "answers 404"),
        ("/broken", FetchError, "broke after 100 of 256000 bytes"),
        ("/again/5", FetchError, "redirects more than 5 times"),
        ("/nowhere", FetchError, "does not say where to"),
        ("/to?ftp://127.0.0.1/a", AddressError, "only http:// and https://"),
        ("/to?file:///etc/passwd", AddressError, "only http:// and https://"),
        ("/to?http://me:secret@127.0.0.1/", AddressError, "user name or password"),
    ],
)
def test_bad(server, tmp_path, page, error, message):
    with pytest.raises(error, match=message) as caught:
        fetch(server.url + page, tmp_path)
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith(server.url)


@pytest.mark.parametrize("page", ["/video/a.mp4", "/undeclared", "/chunked", "/endless"])
def test_what_is_too_large_is_refused_while_it_comes(server, tmp_path, page):
    seen = []
    with pytest.raises(LimitError, match="more than 100000 bytes"):
        fetch(
            server.url + page,
            tmp_path,
            FetchLimits(bytes=100_000, allow_private=True),
            progress=lambda *s: seen.append(s),
        )
    assert (tmp_path / "file").stat().st_size <= 100_000
    assert seen == [] or page != "/video/a.mp4"  # refused by what it announces


@pytest.mark.parametrize("page", ["/drip", "/headers_that_drip"])
def test_a_server_that_drips_is_cut_off(server, tmp_path, page):
    begin = time.monotonic()
    with pytest.raises(FetchError, match=r"within 0\.5 s"):
        fetch(server.url + page, tmp_path, FetchLimits(seconds=0.5, allow_private=True))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("page", ["/drip", "/headers_that_drip"])
def test_what_nobody_wants_any_more_is_cut_off(server, tmp_path, page):
    unwanted = threading.Event()
    threading.Timer(0.4, unwanted.set).start()
    begin = time.monotonic()
    with pytest.raises(FetchError, match="nobody wants it"):
        fetch(server.url + page, tmp_path, cancelled=unwanted.is_set)
    assert time.monotonic() - begin < 5


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(webfetch, "STALL_SECONDS", 0.3)
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(FetchError, match=r"silent for 0\.3 s"):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4", tmp_path)


def test_nobody_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match="check the link and the connection"):
        fetch(f"http://127.0.0.1:{port}/a.mp4", tmp_path)


def test_a_full_disk_is_no_fault_of_the_server(server):
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):  # noqa: PTH123
        fetch_link(f"{server.url}/video/a.mp4", full, LOCAL)


REFUSED = {
    "loopback": "127.0.0.1",
    "loopback, elsewhere": "127.8.9.1",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "private 10": "10.0.0.1",
    "private 172": "172.16.5.4",
    "private 192": "192.168.1.1",
    "shared (carrier)": "100.64.0.1",
    "link-local": "169.254.169.254",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "documentation": "192.0.2.1",
    "benchmarks": "198.18.0.1",
    "loopback 6": "::1",
    "unspecified 6": "::",
    "link-local 6": "fe80::1",
    "site-local 6": "fec0::1",
    "unique local 6": "fd00::1",
    "multicast 6": "ff02::1",
    "documentation 6": "2001:db8::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "reserved 6": "4000::1",
    "mapped": "::ffff:127.0.0.1",
    "mapped link-local": "::ffff:169.254.169.254",
    "compatible": "::7f00:1",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64 private": "64:ff9b::a00:1",
    "NAT64 local": "64:ff9b:1::808:808",
    "6to4": "2002:7f00:1::1",
}


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_addresses_that_are_not_public_are_refused(tmp_path, monkeypatch, address):
    """As the link says them, as a name leads to them, and as a redirect does."""
    name = f"[{address}]" if ":" in address else address
    with pytest.raises(AddressError, match="public internet"):
        check_link(f"http://{name}/a.mp4")
    check_link(f"http://{name}/a.mp4", allow_private=True)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_, **__: [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80)),
            (family, socket.SOCK_STREAM, 6, "", (address, 80)),
        ],
    )

    def connect(*_):
        raise AssertionError("nothing may be asked")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(AddressError, match=r"^http://video\.test/a\.mp4: leads to "):
        fetch("http://video.test/a.mp4", tmp_path, FetchLimits())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8",
                                     "64:ff9b::808:808", "2002:808:808::1"])  # fmt: skip
def test_public_addresses(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_other_spellings_of_this_machine_are_refused(tmp_path, host):
    with pytest.raises(AddressError, match="leads to"):
        fetch(f"http://{host}:9/a.mp4", tmp_path, FetchLimits())


def test_a_redirect_to_a_private_address_is_refused(server, tmp_path, monkeypatch):
    """The first server passes for a public one, as it would be."""
    public = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr("tellframe.weblink.is_public", lambda address: address == public)
    for target in ("http://127.0.0.2/", "http://[::1]/", "http://169.254.169.254/latest/"):
        with pytest.raises(AddressError, match="leads to"):
            fetch(f"{server.url}/to?{target}", tmp_path, FetchLimits())
    assert fetch(f"{server.url}/to?/video/a", tmp_path, FetchLimits()) == BODY


def test_the_address_that_was_checked_is_the_one_that_is_asked(server, tmp_path, monkeypatch):
    """A name that leads elsewhere when it is looked up again."""
    looked_up, real = [], socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host != "video.test":
            assert host == "127.0.0.1"  # what was found before
            return real(host, *arguments, **options)
        looked_up.append(host)
        return real("127.0.0.1" if len(looked_up) == 1 else "127.0.0.2", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"http://video.test:{server.server_port}/video/a.mp4"
    assert fetch(url, tmp_path) == BODY
    assert looked_up == ["video.test"]
    assert server.seen[-1][1]["Host"] == f"video.test:{server.server_port}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A server that speaks TLS as video.test; its certificate is its own authority."""
    if not shutil.which("openssl"):
        pytest.skip("needs the program openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=video.test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:video.test",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    names = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with run_web_server(BODY, context) as running:
        running.names, running.certificate = names, folder / "certificate.pem"
        yield running


@pytest.fixture
def at_home(monkeypatch):
    """Names of the domain .test lead to this machine."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **o: real("127.0.0.1" if host.endswith(".test") else host, *a, **o),
    )


def test_tls(secure, server, tmp_path, monkeypatch, at_home):
    url = f"https://video.test:{secure.server_port}"
    with pytest.raises(FetchError, match="certificate"):
        fetch(f"{url}/video/a.mp4", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.certificate))
    assert fetch(f"{url}/video/a.mp4", tmp_path) == BODY
    assert secure.names[-1] == "video.test"
    with pytest.raises(FetchError, match="certificate"):
        fetch(f"https://other.test:{secure.server_port}/video/a.mp4", tmp_path)
    with pytest.raises(AddressError, match="from https to http://"):
        fetch(f" {url}/to?{server.url}/video/a.mp4", tmp_path)
    assert fetch(f"{server.url}/to?{url}/video/a.mp4", tmp_path) == BODY  # the safe way round


def test_a_handshake_that_never_ends_is_cut_off(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        with pytest.raises(FetchError, match=r"within 0\.4 s"):
            fetch(url, tmp_path, FetchLimits(seconds=0.4, allow_private=True))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http:///a.mp4", "with a host"),
        ("ftp://example.org/a.mp4", "only http"),
        ("http://[::1/a.mp4", "no web address"),
        ("http://example.org:port/", "no web address"),
        ("http://example.org:99999/", "no web address"),
        ("http://" + "ä" * 70 + ".org/", "no web address"),
        ("http://example.org/\ud800", "no web address"),
        ("http://me:secret@example.org/a.mp4", "user name or password"),
        ("http://example.org/" + "a" * 9000, "more than 8000 characters"),
    ],
)
def test_links_that_are_none(url, message):
    with pytest.raises(AddressError, match=message) as caught:
        check_link(url)
    assert "secret" not in str(caught.value)
    str(caught.value).encode()


def test_links_are_shown_without_their_secrets():
    assert is_link("HTTPS://example.org/a.mp4")
    assert not is_link("http.mp4")
    shown = show_link("https://me:secret@example.org:444/a b.mp4?token=secret#secret")
    assert shown.startswith("https://example.org:444/a b.mp4?[query ")
    assert "secret" not in shown
    one, other = (show_link(f"https://example.org/watch?v={v}") for v in "ab")
    assert one != other
