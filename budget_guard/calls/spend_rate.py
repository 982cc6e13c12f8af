"""The spend of one session over the last minute, for `Budget.max_usd_per_minute`."""

from __future__ import annotations

import threading
from collections import deque

MINUTE_S = 60
WARM_UP_S = 10.0
"""Seconds of a session in which no rate is known yet."""


class SpendRate:
    """The spend of a session in each of the last sixty seconds, and its holds. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._booked: deque[tuple[int, int]] = deque()
        """The second, and the nano-dollars booked in it: at most sixty-one of them."""
        self._held: dict[str, int] = {}

    def take(self, hold_id: str, cost: int, limit: int, at_s: float, *, hard: bool) -> tuple[int, float] | None:
        """Hold *cost* nano-dollars within *limit* a minute.

        A call is refused only where others have taken a part of the limit: one alone is never too much.

        Args:
            hold_id: The hold's id.
            cost: What it costs at most.
            limit: Nano-dollars a minute.
            at_s: Seconds since the session started.
            hard: Whether *cost* counts before it is spent.

        Returns:
            None where it is held; else what the last minute has taken, and the seconds until it fits.
        """
        with self._lock:
            found = self._look(cost, limit, at_s, hard)
            if found is None:
                self._held[hold_id] = cost if hard else 0
            return found

    def look(self, cost: int, limit: int, at_s: float, *, hard: bool) -> tuple[int, float] | None:
        """What `take` would say now. Nothing is held."""
        with self._lock:
            return self._look(cost, limit, at_s, hard)

    def _look(self, cost: int, limit: int, at_s: float, hard: bool) -> tuple[int, float] | None:
        self._forget(at_s)
        taken = sum(booked for _, booked in self._booked) + sum(self._held.values())
        full = taken + cost > limit if hard else taken >= limit
        if at_s >= WARM_UP_S and taken and full:
            return taken, self._wait(taken, limit - cost if hard else limit - 1, at_s)
        return None

    def settle(self, hold_id: str, cost: int, at_s: float) -> None:
        """Book what a held call cost, once; a correction that comes later counts no more."""
        with self._lock:
            if self._held.pop(hold_id, None) is not None:
                self._add(cost, at_s)

    def add(self, cost: int, at_s: float) -> None:
        """Book what was spent without a hold."""
        with self._lock:
            self._add(cost, at_s)

    def _add(self, cost: int, at_s: float) -> None:
        self._forget(at_s)
        second = int(at_s)
        if self._booked and self._booked[-1][0] >= second:
            last, booked = self._booked[-1]
            self._booked[-1] = (last, booked + cost)
        else:
            self._booked.append((second, cost))

    def _forget(self, at_s: float) -> None:
        while self._booked and self._booked[0][0] + MINUTE_S < at_s:
            self._booked.popleft()

    def _wait(self, taken: int, room: int, at_s: float) -> float:
        """Seconds until enough of *taken* is a minute old to leave at most *room*."""
        for second, booked in self._booked:
            taken -= booked
            if taken <= max(room, 0):
                return max(0.0, second + MINUTE_S - at_s)
        return float(MINUTE_S)
