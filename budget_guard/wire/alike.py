"""Events of a stream that differ in their text alone, told by their bytes.

Nearly all events of a streamed answer are alike but for a few words, and to parse each takes most of what a guarded
stream adds. So an event that does nothing but write a text is kept as a pattern: its own bytes, with a hole where the
text is. What fits is the same JSON with another text, because nothing in a hole can end a string or an event. Every
other event is parsed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(rb'[^"\\\x00-\x1f]*')
"""What stands for itself in a JSON string."""
_NUMBER = re.compile(rb"(?:0|[1-9][0-9]*)?")
_CHANGING = (
    (re.compile(rb'"obfuscation"\s*:\s*"'), _TEXT),
    (re.compile(rb'"sequence_number"\s*:\s*'), _NUMBER),
)
"""Fields of events that change with each of them and tell nothing: https://platform.openai.com/docs/api-reference."""


class _Hole(NamedTuple):
    takes: re.Pattern[bytes]
    is_text: bool
    then: bytes
    """The bytes after it."""


class Alike:
    """A pattern of events. Made by `alike`."""

    __slots__ = ("_between", "_first", "_holes", "_last")

    def __init__(self, first: bytes, holes: tuple[_Hole, ...]) -> None:
        self._first = first
        self._holes = holes
        self._last = holes[-1].then
        self._between = self._last + first if len(holes) == 1 else b""
        """What stands between the texts of two events, where there is nothing else that changes."""

    def texts(self, data: bytes, at: int) -> tuple[int, int, bytes] | None:
        """Where the last event that fits ends, how many there are from *at* to there, and all that they write; None
        if another one is among them, or where more than their texts changes from one to the next.

        It takes the time of one `match`, for however many events.
        """
        between = self._between
        if not between or not data.startswith(self._first, at):
            return None
        start, stop = at + len(self._first), data.rfind(self._last)
        if stop < start:
            return None
        # no text has a quote in it, and all of `between` begins with one; it is found from the end in half the time
        parts = data[start:stop].rsplit(between)
        written = b"".join(parts)
        if _TEXT.fullmatch(written) is None:
            return None
        return stop + len(self._last), len(parts), written

    def match(self, data: bytes, at: int) -> tuple[int, int, int] | None:
        """Where an event at *at* ends, and from where to where its text is; None if it does not fit."""
        if not data.startswith(self._first, at):
            return None
        at += len(self._first)
        start = end = at
        for takes, is_text, then in self._holes:
            found = takes.match(data, at)
            stop = at if found is None else found.end()
            if not data.startswith(then, stop):
                return None
            if is_text:
                start, end = at, stop
            at = stop + len(then)
        return at, start, end


def alike(raw: bytes, text: str) -> Alike | None:
    """The pattern of an event that does nothing but write *text*; None where its place is not certain.

    Args:
        raw: All of the event's bytes, what ends it included.
        text: What it writes.
    """
    written = text.encode("utf-8", "surrogatepass")
    quoted = b'"' + written + b'"'
    if not written or _TEXT.fullmatch(written) is None or raw.count(quoted) != 1:
        return None
    start = raw.index(quoted) + 1
    places = [(start, start + len(written), _TEXT, True)]
    for field, takes in _CHANGING:
        for found in field.finditer(raw):
            value = takes.match(raw, found.end())
            if value is not None:
                places.append((value.start(), value.end(), takes, False))
    places.sort(key=lambda place: place[:2])
    ends = [place[0] for place in places[1:]] + [len(raw)]
    holes = tuple(
        _Hole(takes, is_text, raw[stop:end]) for (_, stop, takes, is_text), end in zip(places, ends, strict=True)
    )
    pattern = Alike(raw[: places[0][0]], holes)
    return pattern if pattern.match(raw, 0) == (len(raw), start, start + len(written)) else None
