"""Server-sent events, read from bytes as they come in.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from typing import NamedTuple

_END = re.compile(rb"\r\n(?:\r\n|\n|\r)|\n(?:\r\n|\n|\r)|\r(?!\n)(?:\r\n|\r)")
"""The empty line after an event. Lines end with CR LF, LF or CR; a CR is no end of a line if its LF follows."""
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event as it came."""

    raw: bytes
    """All of its bytes, the empty line at its end included."""
    name: str
    """Its type; "message" where it names none."""
    data: bytes | None
    """Its data; None for comments alone."""


class EventParser:
    """Splits bytes into events, whatever pieces they come in."""

    __slots__ = ("_begun", "_pieces", "_tail")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of an event that is not at its end; a picture has very many
        self._tail = b""
        self._begun = False

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that *data* completes."""
        tail = self._tail + data  # an end may be split between two pieces
        if self._pieces and _END.search(tail) is None:
            self._pieces.append(data)
            self._tail = tail[-3:]
            return []
        before = b"".join(self._pieces)
        buffer = before + data if before else data
        events: list[ServerEvent] = []
        start, at = 0, max(0, len(before) - 3)
        while (end := _END.search(buffer, at)) is not None:
            events.append(self._event(buffer[start : end.end()]))
            start = at = end.end()
        left = buffer[start:]
        self._pieces = [left] if left else []
        self._tail = left[-3:]
        return events

    @property
    def is_within(self) -> bool:
        """True while there are bytes of an event that is not at its end."""
        return bool(self._pieces)

    @property
    def left(self) -> bytes:
        """Bytes of an event that is not at its end."""
        return b"".join(self._pieces)

    def close(self) -> list[ServerEvent]:
        """The last event, where the stream ends without the empty line after it. The standard drops it, servers do
        not."""
        left, self._pieces, self._tail = self.left, [], b""
        return [self._event(left)] if left.strip() else []

    def _event(self, raw: bytes) -> ServerEvent:
        content = raw
        if not self._begun:
            self._begun = True
            content = raw.removeprefix(_BOM)
        if content.startswith(b"data: ") and content.find(b"\n") == len(content) - 2 and b"\r" not in content:
            return ServerEvent(raw, "message", content[6:-2])  # one line of data: nearly every event of most servers
        name = "message"
        data: list[bytes] = []
        for line in _LINE_END.split(content):
            field, colon, value = line.partition(b":")
            if colon and value.startswith(b" "):
                value = value[1:]
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
        return ServerEvent(raw, name, b"\n".join(data) if data else None)
