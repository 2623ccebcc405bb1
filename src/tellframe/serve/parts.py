"""The file inside a multipart form, taken out while it streams in."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tellframe.serve.problems import ProblemError


class FormFile:
    """The first file of a multipart/form-data body; all else in it is skipped.

    Args:
        chunks: of the body.
        content_type: header of the request, which names the boundary.

    Raises:
        ProblemError: invalid_request, where the header names no boundary.
    """

    def __init__(self, chunks: AsyncIterator[bytes], content_type: str) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise _broken("its header names no boundary")
        self._chunks = chunks
        self._found: deque[bytes] = deque()
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._inside = self._seen = self._ended = False
        self.name = ""
        """File name that the form gives; known once the first chunk was read."""
        self._parser: Any = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, i, j: self._header.extend(data[i:j]),
                "on_header_value": lambda data, i, j: self._value.extend(data[i:j]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_body,
                "on_part_data": self._take,
                "on_part_end": self._end_body,
                "on_end": lambda: setattr(self, "_ended", True),
            },
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the content of the file.

        Raises:
            ProblemError: invalid_request, where the body is no such form, or holds no file.
        """
        async for chunk in self._chunks:
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _broken(str(error)) from error
            while self._found:
                yield self._found.popleft()
        if not self._ended:
            raise _broken("it ends too early")
        if not self._seen:
            raise _broken("it holds no file")

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _begin_body(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        if not self._seen and b"filename" in options:
            self._inside = self._seen = True
            self.name = options[b"filename"].decode("utf-8", "replace")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._found.append(data[start:end])

    def _end_body(self) -> None:
        self._inside = False


def _broken(why: str) -> ProblemError:
    return ProblemError(
        "invalid_request",
        f"The form cannot be read: {why}. Send multipart/form-data with one file, or the file "
        "itself as the body.",
    )
