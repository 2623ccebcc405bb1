"""Fixtures of the service's tests: a real server in its own process, and what to send it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
READY_SECONDS = 90.0


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code of an answer that has to be problem details."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.json["status"] == self.status
        return self.status, self.json["code"]


class Server:
    """`tellframe serve` at a free port."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder, self.options, self.environment = folder, options, environment
        self.log = folder.parent / f"{folder.name}.log"
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tellframe", "serve", "--folder", str(self.folder)]
        with self.log.open("ab") as log:
            log.truncate()
            start = log.tell()
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--threads", "1", *self.options],
                stderr=log,
                env={**os.environ, **self.environment},
            )
        self.wait_for(lambda: b"http://" in self.log.read_bytes()[start:])
        line = self.log.read_bytes()[start:].split(b"http://")[1]
        self.port = int(line.split(b"/")[0].rsplit(b":", 1)[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def wait_ready(self) -> Server:
        self.wait_for(lambda: self.ask("GET", "/readyz").status == 200)
        return self

    def wait_for(self, condition: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"waited in vain; log: {self.log.read_text()}"
            time.sleep(0.02)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, body: Any, name: str = "video.mp4", **headers: str) -> Answer:
        return self.ask("POST", f"/v1/jobs?name={name}", body, **headers)

    def wait(self, job_id: str, *states: str, seconds: float = 90.0) -> Any:
        """Wait until a job is in one of these states, by itself done or failed; return it."""
        job: Any = None

        def has_come() -> bool:
            nonlocal job
            job = self.get(f"/v1/jobs/{job_id}").json
            return job["state"] in (states or ("done", "failed"))

        self.wait_for(has_come, seconds)
        return job

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]

    def freeze_workers(self) -> list[int]:
        """Stop the workers where they are, so that a job stays in the middle."""
        pids = self.workers()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def uploads(self) -> list[Path]:
        return sorted((self.folder / "uploads").iterdir())

    def end(self, sig: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(sig)
        self.process.wait(30)


@pytest.fixture(scope="session")
def run_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Return what starts a server; all are ended with the tests."""
    for name in ("fastapi", "uvicorn", "python_multipart"):
        pytest.importorskip(name, reason="needs the extra: pip install 'tellframe[serve]'")
    if sys.platform != "linux":
        pytest.skip("workers are looked for in /proc")
    servers: list[Server] = []

    def run(*options: str, folder: Path | None = None, **environment: str) -> Server:
        folder = folder or tmp_path_factory.mktemp("serve") / "folder"
        servers.append(Server(folder, *options, **environment))
        return servers[-1]

    yield run
    for server in servers:
        server.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(run_server: Callable[..., Server]) -> Server:
    """Return a server that many tests use."""
    return run_server("--max-mib", "2").wait_ready()


@pytest.fixture(scope="session")
def clips() -> dict[str, bytes]:
    """Return the sample clips by name."""
    return {name: (SAMPLES / f"{name}.mp4").read_bytes() for name in ("fake", "real", "two_people")}


@pytest.fixture(scope="session")
def variant(clips: dict[str, bytes]) -> Callable[[int], bytes]:
    """Return what makes a clip of other bytes and the same pictures, by a number."""
    return lambda number: clips["real"] + struct.pack(">I4sQ", 16, b"free", number)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 80 MiB, of which uploads may fill 16."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)
