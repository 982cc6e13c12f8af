"""Compressed answers: a provider may send them although it is asked not to. gzip and deflate are unpacked."""

from __future__ import annotations

import zlib
from typing import Any

import aiohttp

_KNOWN = ("gzip", "x-gzip", "deflate")
_ANY_HEADER = zlib.MAX_WBITS | 32
_MOST = 256 * 1024
"""Bytes that are unpacked at once, however small they are packed."""


def can_be_read(answer: Any) -> bool:
    """True if the body of *answer* can be read: it is not compressed, or is unpacked from now on as it is read.

    Args:
        answer: An `aiohttp.ClientResponse`, or a `DirectResponse`, of which nothing was read yet.
    """
    given = answer.headers.get("content-encoding")
    if given is None:
        return True
    encoding = given.strip().lower()
    if encoding in _KNOWN:
        answer.content = _Unpacked(answer.content)
    return encoding in (*_KNOWN, "identity", "")


class _Unpacked:
    """The content of an answer, unpacked as it comes."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._inflater: Any = None
        self.exception = content.exception

    def is_eof(self) -> bool:
        return False  # of what is there, one part alone is unpacked at once

    async def read(self) -> bytes:
        parts: list[bytes] = []
        while part := await self.readany():
            parts.append(part)
        return b"".join(parts)

    async def readany(self) -> bytes:
        while True:
            packed = self._left or await self._content.readany()
            if not packed:
                inflater = self._inflater
                if inflater is None or inflater.eof:
                    return b""
                if rest := inflater.flush():
                    return bytes(rest)
                raise aiohttp.ClientPayloadError("what is packed breaks off")
            if part := self._unpacked(packed):
                return part

    def read_nowait(self) -> bytes:
        packed = self._left or self._content.read_nowait()
        return self._unpacked(packed) if packed else b""

    @property
    def _left(self) -> bytes:
        """Bytes that have come, and are not unpacked yet."""
        left: bytes = b"" if self._inflater is None else self._inflater.unconsumed_tail
        return left

    def _unpacked(self, packed: bytes) -> bytes:
        if self._inflater is None:  # some servers leave out the header of deflate, which begins with an 8
            has_header = packed[:1] == b"\x1f" or packed[0] & 15 == 8
            self._inflater = zlib.decompressobj(_ANY_HEADER if has_header else -zlib.MAX_WBITS)
        try:
            part: bytes = self._inflater.decompress(packed, _MOST)
        except zlib.error as error:
            raise aiohttp.ClientPayloadError(f"what is packed cannot be read: {error}") from error
        return part
