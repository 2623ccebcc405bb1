"""Take the rights of a worker process away, so that a decoder that is taken over can do no harm.

Sources: the kernel's documentation, Documentation/userspace-api/landlock.rst, no_new_privs.rst and
seccomp_filter.rst, and the headers that its constants come from. Everything goes through ctypes;
what a kernel does not have is named as absent, and never taken for given.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Any, Final

from tellframe.seccomp import filter_system_calls
from tellframe.types import Sandbox

FILES: Final = 64
"""Descriptors that a confined process may have open."""
_NO_NEW_PRIVS: Final = 38
"""PR_SET_NO_NEW_PRIVS, linux/prctl.h."""
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""System calls of Landlock; the same numbers on all architectures since Linux 5.13."""
_GET_VERSION: Final = 1
"""LANDLOCK_CREATE_RULESET_VERSION, linux/landlock.h, as are all the following."""
_READ: Final = 1 << 2 | 1 << 3
"""LANDLOCK_ACCESS_FS_READ_FILE and _READ_DIR."""
_FILE_RIGHTS: Final = ((5, 16), (3, 15), (2, 14), (1, 13))
"""(first ABI, number of LANDLOCK_ACCESS_FS_ bits): execute, write, read, remove, make, and from
ABI 2 move, 3 truncate, 5 control devices."""
_NETWORK: Final = 3
"""LANDLOCK_ACCESS_NET_BIND_TCP and _CONNECT_TCP, from ABI 4."""
_SCOPES: Final = 3
"""LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and _SIGNAL, from ABI 6."""


def restrict_start() -> None:
    """Give up writing, executing and connecting, where Landlock is there; reading goes on.

    To be called before any library is imported: Landlock binds the calling thread and those that
    it starts, and libraries start threads when they are imported.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        _forbid_new_privileges(libc)
        _restrict_by_landlock(libc, reading=True)


def confine(memory: int) -> Sandbox:
    """Give up all rights but to compute and to use what is open already; nothing brings them back.

    To be called when all imports are done and all models are loaded.

    Args:
        memory: bytes of address space.

    Returns:
        What holds now, and what does not, and why.
    """
    holds: list[str] = []
    absent: dict[str, str] = {}

    def note(name: str, fault: str, held: str = "") -> None:
        if fault:
            absent[name] = fault
        else:
            holds.append(held or name)

    _limit_resources(memory)
    note("rlimits", "")
    if sys.platform != "linux":
        absent |= dict.fromkeys(("no_new_privs", "landlock", "seccomp"), "Linux only")
        return Sandbox(tuple(holds), absent)
    libc = ctypes.CDLL(None, use_errno=True)
    others = _count_threads() - 1
    note("no_new_privs", _forbid_new_privileges(libc))
    fault, abi = _restrict_by_landlock(libc)
    note("landlock", fault, f"landlock {abi}")
    if not fault:
        if abi < 4:
            absent["landlock network"] = f"needs ABI 4, this kernel has {abi}"
        if abi < 6:
            absent["landlock scopes"] = f"needs ABI 6, this kernel has {abi}"
    fault = filter_system_calls(libc)
    note("seccomp", fault)
    if fault and others:  # seccomp binds all threads, Landlock this one and those that it starts
        absent["landlock for all threads"] = f"{others} older threads may still read files"
    return Sandbox(tuple(holds), absent)


def limit_processor(seconds: float) -> None:
    """Let this process use so many more seconds of all processors together, then be ended."""
    if sys.platform == "win32":
        return
    import resource

    used = sum(os.times()[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = math.ceil(min(used + seconds, 1e9)) + 1
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def tie_to_parent(parent: int) -> None:
    """Let this process end when the one that started it does.

    Args:
        parent: its process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def limit_memory(memory: int) -> None:
    """Limit the address space of this process, in bytes; let it leave no image when it crashes."""
    if sys.platform == "win32":
        return
    import resource

    _lower(resource.RLIMIT_AS, memory)
    _lower(resource.RLIMIT_CORE, 0)


def _limit_resources(memory: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    limit_memory(memory)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # to write gives an error then
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, FILES)


def _lower(which: int, limit: int) -> None:
    """Set a resource limit for good, unless a lower one holds already."""
    import resource

    hard = resource.getrlimit(which)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (limit, limit))


def _forbid_new_privileges(libc: Any) -> str:
    """Set no_new_privs; return what went wrong."""
    zero = ctypes.c_ulong(0)
    failed = libc.prctl(_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero)
    return os.strerror(ctypes.get_errno()) if failed else ""


def _restrict_by_landlock(libc: Any, *, reading: bool = False) -> tuple[str, int]:
    """Forbid this thread, and those that it will start, what Landlock can forbid.

    Args:
        libc: the C library.
        reading: whether files may still be opened to be read.

    Returns:
        What went wrong, empty where nothing did; the kernel's version of Landlock, 0 for none.
    """
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_GET_VERSION))
    if abi < 1:
        code = ctypes.get_errno()
        reasons = {
            errno.ENOSYS: "not in this kernel (Linux 5.13 or later)",
            errno.EOPNOTSUPP: "switched off when this kernel was started",
        }
        return reasons.get(code, os.strerror(code)), 0
    files = (1 << next(bits for first, bits in _FILE_RIGHTS if abi >= first)) - 1
    rights = struct.pack("Q", files & ~_READ if reading else files)
    if abi >= 4:
        rights += struct.pack("Q", _NETWORK)
    if abi >= 6:
        rights += struct.pack("Q", _SCOPES)
    # Without a rule that allows something, all that is handled is denied.
    ruleset = libc.syscall(
        _CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return os.strerror(ctypes.get_errno()), abi
    try:
        failed = libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
        return (os.strerror(ctypes.get_errno()) if failed else ""), abi
    finally:
        os.close(ruleset)


def _count_threads() -> int:
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()
