"""A filter of system calls for workers: nothing may be opened, connected, executed or forked.

Landlock binds only the thread that asks for it; this binds all threads of the process, and
covers what Landlock does not know, UDP for one. It is a list of what is forbidden, so that no
new version of a library breaks on a harmless call that nobody thought of.

Sources: Documentation/userspace-api/seccomp_filter.rst, linux/seccomp.h, linux/filter.h; numbers
of system calls from the kernel's syscall_64.tbl and asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Any, Final

_SET_MODE_FILTER, _TSYNC = 1, 1
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_JMP|JSET|K, BPF_RET|K."""
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; the low half of the argument, little-endian."""
_CLONE_THREAD: Final = 0x10000
_X32: Final = 0x40000000
"""From here on x86-64 has the numbers of another ABI, by which a filter could be evaded."""

_FORBIDDEN: Final[dict[str, tuple[int, int]]] = {
    "open": (2, -1),
    "creat": (85, -1),
    "openat": (257, 56),
    "openat2": (437, 437),
    "open_by_handle_at": (304, 265),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
    "memfd_create": (319, 279),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rename": (82, -1),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "unlink": (87, -1),
    "unlinkat": (263, 35),
    "rmdir": (84, -1),
    "mkdir": (83, -1),
    "mkdirat": (258, 34),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "link": (86, -1),
    "linkat": (265, 37),
    "symlink": (88, -1),
    "symlinkat": (266, 36),
    "truncate": (76, 45),
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
}
"""Name: number on x86-64 and on AArch64, -1 where it does not exist. Connected descriptors are
still written to by write(2)."""
_CLONE, _CLONE3 = (56, 220), 435
_CALL: Final = (317, 277)
"""seccomp(2) itself."""
_MACHINES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the table above, and AUDIT_ARCH_ of linux/audit.h."""


def filter_system_calls(libc: Any) -> str:
    """Forbid all threads of this process what is in the list; they get "not permitted".

    no_new_privs must hold.

    Args:
        libc: the C library, from `ctypes.CDLL(None, use_errno=True)`.

    Returns:
        What went wrong; empty where the filter holds.
    """
    machine = platform.machine()
    if machine not in _MACHINES or struct.calcsize("P") != 8:
        return f"no list of system calls for {machine}"
    column, architecture = _MACHINES[machine]
    program = _compile(column, architecture)
    buffer = ctypes.create_string_buffer(program)
    # struct sock_fprog: a count, padding, a pointer.
    given = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    failed = libc.syscall(
        ctypes.c_long(_CALL[column]),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_TSYNC),
        given,
    )
    if not failed:
        return ""
    if failed > 0:
        return "another thread has a filter of its own"
    code = ctypes.get_errno()
    return "not in this kernel" if code in (errno.ENOSYS, errno.EINVAL) else os.strerror(code)


def _compile(column: int, architecture: int) -> bytes:
    """Return the filter as a program of classic BPF."""
    refuse = _ERRNO | errno.EPERM
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, refuse),
        # The C library then takes clone(2), whose flags can be seen here, to start a thread.
        _step(_JUMP_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for numbers in _FORBIDDEN.values():
        if numbers[column] >= 0:
            program += [_step(_JUMP_EQUAL, numbers[column], 0, 1), _step(_RETURN, refuse)]
    program += [
        _step(_JUMP_EQUAL, _CLONE[column], 0, 3),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_JUMP_BITS, _CLONE_THREAD, 1, 0),
        _step(_RETURN, refuse),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction, a struct sock_filter."""
    return struct.pack("HBBI", code, if_true, if_false, value)
