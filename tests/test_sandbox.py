"""What a confined worker may no longer do, tried from inside; absent where a kernel lacks it."""

# System calls are named here as they are.
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH123, PTH208, PTH211
from __future__ import annotations

import ctypes
import errno
import os
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from tellframe import sandbox, seccomp
from tellframe.isolation import Crew, Job, Limits
from tellframe.types import Sandbox

LIMITS = Limits(seconds=60, memory=2**30, attempts=1)
FILES = {
    "read": lambda place: open("/etc/hostname").close(),
    "read the file by its name": lambda place: open(f"{place}/given").close(),
    "read a device": lambda place: open("/dev/zero").close(),
    "list": lambda place: os.listdir("/"),
    "write": lambda place: open(f"{place}/new", "w").close(),
    "append": lambda place: open(f"{place}/given", "a").close(),
    "make a folder": lambda place: os.mkdir(f"{place}/folder"),
    "remove": lambda place: os.unlink(f"{place}/given"),
    "rename": lambda place: os.rename(f"{place}/given", f"{place}/taken"),
    "link": lambda place: os.symlink("/etc/passwd", f"{place}/link"),
    "truncate": lambda place: os.truncate(f"{place}/given", 0),
    "execute": lambda place: os.execv("/bin/true", ["true"]),
}
ELSE = {
    "connect by TCP": lambda place: socket.create_connection(("127.0.0.1", 9), 1),
    "connect by UDP": lambda place: socket.socket(type=socket.SOCK_DGRAM),
    "connect by name": lambda place: socket.socket(socket.AF_UNIX),
    "fork": lambda place: os.fork() or os._exit(0),
    "run a program": lambda place: subprocess.run(["true"]),
    "signal the parent": lambda place: os.kill(os.getppid(), 0),
    "make a program in memory": lambda place: os.memfd_create("x"),
    "change rights": lambda place: os.chmod(f"{place}/given", 0o777),
}


def start_thread():
    """Start a thread that is older than the sandbox, as a library would; return its two queues."""
    orders, answers = queue.Queue(), queue.Queue()

    def serve():
        while True:
            answers.put(attempt(*orders.get()))

    threading.Thread(target=serve, daemon=True).start()
    return orders, answers


def attempt(action, place):
    """Return "" where an action succeeds."""
    try:
        action(place)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


def probe(context, place, descriptor):
    """Try everything; runs in the worker."""
    orders, answers = context
    found = {name: attempt(action, place) for name, action in {**FILES, **ELSE}.items()}
    inside = []
    thread = threading.Thread(target=lambda: inside.append(attempt(FILES["read"], place)))
    thread.start()
    thread.join()
    orders.put((FILES["read"], place))
    return found | {
        "read in a new thread": inside[0],
        "read in an old thread": answers.get(),
        "open the descriptor again": attempt(
            lambda _: open(f"/proc/self/fd/{descriptor}").close(),
            place,
        ),
        "write to the descriptor": attempt(lambda _: os.write(descriptor, b"x"), place),
        "content": os.pread(descriptor, 100, 0).decode(),
        "environment": " ".join(sorted(os.environ)),
        "limits": str(
            [resource.getrlimit(w) for w in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)]
        ),
    }


@contextmanager
def open_given(place):
    descriptor = os.open(f"{place}/given", os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> tuple[dict[str, str], Sandbox, Path]:
    place = tmp_path_factory.mktemp("place")
    (place / "given").write_text("content")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        crew = Crew(Job(probe, start_thread, (), dict[str, str], open_given), 1, LIMITS)
        try:
            found = crew.submit(str(place)).result()
        finally:
            crew.close()
    return found, crew.sandbox, place


def need(state: Sandbox, *names: str) -> None:
    if not any(held.startswith(names) for held in state.holds):
        pytest.skip(f"absent here: {state.absent}")


@pytest.mark.parametrize("name", [*FILES, "read in a new thread", "open the descriptor again"])
def test_no_file_can_be_opened_changed_or_executed(name, probed):
    found, state, place = probed
    need(state, "landlock", "seccomp")
    assert found[name] in ("EACCES", "EPERM"), name
    assert [path.name for path in place.iterdir()] == ["given"]
    assert (place / "given").read_text() == "content"


@pytest.mark.parametrize("name", [*ELSE, "read in an old thread"])
def test_nothing_else_can_be_reached(name, probed):
    found, state, _ = probed
    need(state, "seccomp")
    assert found[name] in ("EACCES", "EPERM"), name


def test_what_was_handed_over_can_be_read_and_not_written(probed):
    found, _, _ = probed
    assert found["content"] == "content"
    assert found["write to the descriptor"] == "EBADF"
    assert found["limits"] == "[(0, 0), (0, 0)]"


def test_passwords_in_the_environment_are_not_passed_on(probed):
    names = probed[0]["environment"].split()
    assert "PATH" in names
    assert not [name for name in names if "SECRET" in name]


def test_the_state_says_what_holds(probed):
    _, state, _ = probed
    assert "rlimits" in state.holds
    if sys.platform == "linux":
        assert "no_new_privs" in state.holds
    for name in ("landlock", "seccomp"):
        held = any(h.startswith(name) for h in state.holds)
        assert held or state.absent[name], "absent, and no reason given"


# --- other kernels ----------------------------------------------------------------------------


class Kernel:
    """Stands for the C library over a kernel with some version of Landlock."""

    def __init__(self, abi: int, code: int = 0):
        self.abi, self.code, self.rights = abi, code, b""

    def syscall(self, number, *arguments):
        if number == 444 and arguments[0] is None:
            ctypes.set_errno(self.code)
            return self.abi
        if number == 444:
            self.rights = arguments[0]
            return os.open(os.devnull, os.O_RDONLY)
        ctypes.set_errno(self.code)
        return -1 if self.code else 0


@pytest.mark.parametrize(
    ("abi", "size", "highest"),
    [(1, 8, 12), (2, 8, 13), (3, 8, 14), (4, 16, 14), (5, 16, 15), (7, 24, 15)],
)
def test_older_versions_are_asked_for_what_they_know(abi, size, highest):
    kernel = Kernel(abi)
    assert sandbox._restrict_by_landlock(kernel) == ("", abi)
    assert len(kernel.rights) == size
    assert struct.unpack_from("Q", kernel.rights)[0].bit_length() - 1 == highest


@pytest.mark.parametrize(
    ("code", "text"),
    [(errno.ENOSYS, "5.13"), (errno.EOPNOTSUPP, "switched off"), (errno.EPERM, "not")],
)
def test_a_kernel_without_landlock_is_told_apart(code, text):
    fault, abi = sandbox._restrict_by_landlock(Kernel(-1, code))
    assert abi == 0
    assert text in fault


def test_a_refusal_is_an_absence():
    assert sandbox._restrict_by_landlock(Kernel(7, errno.E2BIG)) == (os.strerror(errno.E2BIG), 7)
    assert "not in this kernel" in seccomp.filter_system_calls(Kernel(7, errno.ENOSYS))


def test_an_unknown_processor_has_no_filter(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "vax")
    assert "vax" in seccomp.filter_system_calls(Kernel(7))


@pytest.mark.parametrize("column", [0, 1])
def test_the_filter_is_a_sound_program(column):
    program = seccomp._compile(column, 1)
    steps = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    for position, (_, if_true, if_false, _) in enumerate(steps):
        assert position + max(if_true, if_false) + 1 < len(steps) or steps[position][0] == 0x06
    assert steps[-1] == (0x06, 0, 0, seccomp._ALLOW)


def test_numbers_of_system_calls_are_the_kernels():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.is_file():
        pytest.skip("no header of the kernel here")
    lines = (line.split() for line in header.read_text().splitlines() if "__NR_" in line)
    numbers = {parts[1][5:]: int(parts[2]) for parts in lines if len(parts) == 3}
    for name, (number, _) in seccomp._FORBIDDEN.items():
        assert numbers.get(name, number) == number, name


def burn(context, item):
    while True:
        pass


def test_time_on_the_processor_is_limited_from_within(monkeypatch):
    """Should the parent be asleep, or be stopped."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    crew = Crew(Job(burn, dict, (), str), 1, Limits(seconds=30, memory=2**30, attempts=1))
    try:
        crew.start().result()
        (worker,) = crew._workers
        resource.prlimit(worker.process.pid, resource.RLIMIT_CPU, (1, 1))
        assert crew.submit(1).result().reason == "crash"
        assert worker.process.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    finally:
        crew.close()
