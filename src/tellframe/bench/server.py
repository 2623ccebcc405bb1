"""A server that is measured: ours, started for it, or one that runs already."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tellframe.errors import DataError

READY_SECONDS: Final = 120.0
"""Wall time in which a server must have loaded its model."""
PATIENCE_SECONDS: Final = 600.0
"""How long a client waits for an answer, or for the next news of its job."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is measured."""

    url: str
    pid: int | None = None
    """Of its process, where it is ours."""
    token: str = ""
    """That it asks for, if any."""

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any, bytes]:
        """Send a request; return status, headers and body.

        Raises:
            OSError, http.client.HTTPException: there is no answer.
        """
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with contextlib.closing(connection):
            connection.request(method, parts.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def is_ready(self) -> bool:
        """Tell whether analyses can run."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/readyz")[0] == 200
        return False

    def read_metric(self, name: str) -> float:
        """Return one of its figures; 0 where it has none of that name yet.

        Raises:
            DataError: it does not say.
        """
        status, _, body = self.ask("GET", "/metrics")
        if status != 200:
            raise DataError(f"{self.url}metrics: answers {status}; does it need another token?")
        lines = (line.rpartition(" ") for line in body.decode().splitlines())
        return next((float(value) for key, _, value in lines if key == name), 0.0)


@contextlib.contextmanager
def run_server(options: Sequence[str] = ()) -> Iterator[Server]:
    """Run `tellframe serve` at a free port, in a temporary folder, until the body has ended.

    Args:
        options: of `tellframe serve`.

    Raises:
        DataError: it ends, or is not ready in time; the message has what it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="tellframe-bench-") as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "tellframe", "serve", "--port", "0", *options]
        environment = {k: v for k, v in os.environ.items() if k != "TELLFRAME_TOKENS"}
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, "--folder", f"{folder}/jobs"], stderr=stderr, env=environment
            )
        try:
            yield _await_server(process, log)
        finally:
            process.terminate()
            process.wait()


def _await_server(process: subprocess.Popen[bytes], log: Path) -> Server:
    end, server = time.monotonic() + READY_SECONDS, None
    while process.poll() is None and time.monotonic() < end:
        text = log.read_text(encoding="utf-8", errors="replace")
        if server is None and "(Ctrl-C" in text:
            server = Server(text[text.index("http://") :].split()[0], process.pid)
        if server and server.is_ready():
            return server
        time.sleep(0.05)
    raise DataError(f"bench serve: the server is not ready; it says: {log.read_text()[-2000:]}")


def resident_sizes(pid: int | None) -> dict[str, float]:
    """Return the resident sizes in MB of a server and of its workers, added up, on Linux.

    Pages that processes share count in each of them.
    """
    if pid is None:
        return {}
    children: list[int] = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, path.read_text(encoding="ascii").split())
    workers = sum(_resident(child) for child in children)
    return {"server": round(_resident(pid), 1), "workers": round(workers, 1)}


def _resident(pid: int) -> float:
    """Return a resident size in MB; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 2**10 / 1e6
    return 0.0
