"""The course of a run: what it had spent at which time, in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

from budget_guard.reporting.posting import Posting

_MOST = 256
"""The most points that are kept: enough for a picture of a thousand dots."""


class SpentAt(NamedTuple):
    """What a run had spent at one moment, as far as its session knows."""

    at_s: float
    """Seconds since the session started."""
    cost: int = 0
    """Nano-dollars."""
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    """Model calls."""
    tool_calls: int = 0

    def plus(self, other: SpentAt) -> SpentAt:
        """The sum, at the time of this one."""
        at_s, cost, read, written, calls, tools = self
        _, cost2, read2, written2, calls2, tools2 = other
        return SpentAt(at_s, cost + cost2, read + read2, written + written2, calls + calls2, tools + tools2)


class Course:
    """Sums over time. Not thread-safe: `Totals` keeps it.

    Where there are too many points, every second one is dropped: they are the further apart the more calls there were.
    """

    __slots__ = ("_every", "_left_out", "_points", "_sum")

    def __init__(self) -> None:
        self._points: list[SpentAt] = []
        self._sum = (0.0, 0, 0, 0, 0, 0)
        self._every = 1
        """How many postings there are to a point."""
        self._left_out = 0
        """How many came since the last point."""

    def note(self, posting: Posting) -> None:
        """Add *posting* at the time that it has."""
        at_s, cost, read, written, calls, tools = self._sum
        more, more_read, more_written, _, requests, tool_calls = posting.amounts
        later = posting.at_s  # what is taken out again has the time at which it was put in
        self._sum = (
            *(later if later > at_s else at_s, cost + more, read + more_read, written + more_written),
            *(calls + requests, tools + tool_calls),
        )
        self._left_out += 1
        if self._left_out >= self._every:
            self._left_out = 0
            self._points.append(SpentAt(*self._sum))
            if len(self._points) > _MOST:
                del self._points[1::2]  # the last of them stays
                self._every *= 2

    def points(self) -> list[SpentAt]:
        """The sums over time, oldest first; the last one is what they are now."""
        return [*self._points, SpentAt(*self._sum)] if self._left_out else list(self._points)


def thinned(points: list[SpentAt], most: int) -> list[SpentAt]:
    """At most so many of *points*, more than one, evenly, the last one always among them."""
    if len(points) <= most:
        return points
    step = -(-len(points) // most)
    return points[::-1][::step][::-1]
