"""Messages between a process and its worker, over a socket that only these two hold.

A message is its length in 8 bytes, a byte that tells whether a descriptor comes with it, and the
bytes. The parent waits for no longer than it is told to, whatever the worker does or leaves.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

_HEADER: Final = struct.Struct("<Q?")
_CHUNK: Final = 1 << 20
_LONGEST: Final = 2e6
"""Upper limit of seconds to wait: poll(2) counts milliseconds in 32 bits."""
TICK: Final = 0.1
"""Seconds between two looks at whether an answer is still wanted."""


class ParentEnd:
    """The parent's end.

    Args:
        connection: one of a pair of stream sockets; closed by `close`.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, data: bytes, descriptor: int | None, seconds: float) -> None:
        """Send a message.

        Args:
            data: the message.
            descriptor: of a file that the worker gets as well.
            seconds: at most, for every part.

        Raises:
            TimeoutError: the worker does not read it.
            OSError: the worker has ended.
        """
        self._socket.settimeout(min(seconds, _LONGEST))
        header = _HEADER.pack(len(data), descriptor is not None)
        # One byte arrives whole or not at all, and the descriptor with it.
        if descriptor is None:
            self._socket.sendall(header[:1])
        else:
            socket.send_fds(self._socket, [header[:1]], [descriptor])
        self._socket.sendall(header[1:])
        self._socket.sendall(data)

    def receive(
        self, seconds: float, limit: int, tick: Callable[[], None] = lambda: None
    ) -> bytearray:
        """Receive a message.

        Args:
            seconds: in which it must have come as a whole.
            limit: bytes of the longest that is taken.
            tick: called at least every `TICK` seconds; what it raises is raised here.

        Raises:
            TimeoutError: it has not.
            EOFError: the worker has ended.
            OSError: as `EOFError`; or the message is too long.
        """
        end = time.monotonic() + min(seconds, _LONGEST)
        length, _ = _HEADER.unpack(self._read(_HEADER.size, end, tick))
        if length > limit:
            raise OSError(f"a message of {length} bytes, more than {limit}")
        return self._read(length, end, tick)

    def is_readable(self) -> bool:
        """Tell whether there is something to read; the end of the worker is."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the socket, at which an idle worker ends."""
        self._socket.close()

    def _read(self, count: int, end: float, tick: Callable[[], None]) -> bytearray:
        # Grows with what has come, not with what was announced.
        data = bytearray()
        while len(data) < count:
            tick()
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("the worker does not answer")
            self._socket.settimeout(min(left, TICK))
            try:
                part = self._socket.recv(min(count - len(data), _CHUNK))
            except TimeoutError:
                continue
            if not part:
                raise EOFError("the worker has ended")
            data += part
        return data


class WorkerEnd:
    """The worker's end; it needs nothing but recvmsg(2) and write(2).

    Args:
        descriptor: of the other socket of the pair.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def receive(self) -> tuple[bytearray, int | None]:
        """Wait for a message; return it, and the descriptor that came with it.

        Raises:
            EOFError: the parent has ended.
        """
        first, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        header = first + self._read(_HEADER.size - 1) if first else b""
        if len(header) < _HEADER.size:
            raise EOFError("the parent has ended")
        length, has_descriptor = _HEADER.unpack(header)
        data = self._read(length)
        return data, descriptors[0] if has_descriptor else None

    def send(self, *parts: bytes) -> None:
        """Send a message, given in parts."""
        for part in (_HEADER.pack(sum(map(len, parts)), False), *parts):
            view = memoryview(part)
            while view:
                view = view[os.write(self._socket.fileno(), view) :]

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            received = self._socket.recv_into(view)
            if not received:
                raise EOFError("the parent has ended")
            view = view[received:]
        return data
