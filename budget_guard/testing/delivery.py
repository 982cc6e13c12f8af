"""How a reply's bytes reach the client: compressed, cut into pieces, broken off."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from budget_guard.testing.reply import Reply

if TYPE_CHECKING:
    from budget_guard.testing.server import Line

_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class BrokenOff(Exception):
    """The reply's `drop_bytes` were sent: the connection is to be cut."""


class Delivery:
    """Sends one response over its line, in the form that the reply wants."""

    def __init__(self, line: Line, reply: Reply, on_end: Callable[[], None]) -> None:
        """
        Args:
            line: The connection.
            reply: Says in what form it is sent.
            on_end: Called before the last bytes are sent, unless the reply is broken off before its end.
        """
        self._line = line
        self._reply = reply
        self._on_end = on_end
        self._left = reply.drop_bytes
        self._compressor = zlib.compressobj(wbits=_WINDOW_BITS[reply.encoding]) if reply.encoding else None

    async def open(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and the headers: the reply's own over *headers*."""
        encoding = {"content-encoding": self._reply.encoding} if self._reply.encoding else {}
        own = {name.lower(): value for name, value in self._reply.headers.items()}
        merged = {**headers, **encoding, **own}
        await self._line.open(status, {name: value for name, value in merged.items() if value is not None})

    async def send_whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole response.

        Raises:
            BrokenOff: If the reply is cut off in its body.
        """
        packed = self._packed(body, last=True)
        # Without a length it is sent in chunks, whose borders the client sees.
        length = {} if self._reply.chunk_bytes else {"content-length": str(len(packed))}
        if length and self._left is not None and self._left >= len(packed):
            self._left = None
        broken = self._breaks_in(packed)
        if not broken:
            self._on_end()  # before the headers: those of an empty body are its last bytes
        await self.open(status, {**headers, **length})
        await self._send(packed, last=True, broken=broken)

    async def send(self, data: bytes, *, last: bool) -> None:
        """Send a part of a stream.

        Raises:
            BrokenOff: If the reply is cut off in it.
        """
        packed = self._packed(data, last=last)
        broken = self._breaks_in(packed)
        if last and not broken:
            self._on_end()
        await self._send(packed, last=last, broken=broken)

    def _packed(self, data: bytes, *, last: bool) -> bytes:
        if self._compressor is None:
            return data
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    def _breaks_in(self, data: bytes) -> bool:
        return self._left is not None and self._left <= len(data)

    async def _send(self, data: bytes, *, last: bool, broken: bool) -> None:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        size = self._reply.chunk_bytes or len(data) or 1
        pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        for number, piece in enumerate(pieces, start=1):
            if piece or last:
                await self._line.send(piece, last=last and not broken and number == len(pieces))
        if broken:
            raise BrokenOff
