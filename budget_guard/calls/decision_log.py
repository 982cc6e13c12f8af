"""The latest decisions of many sessions together."""

from __future__ import annotations

from collections import deque

from budget_guard.calls.decision import Decision
from budget_guard.events.timeline import KEPT


class DecisionLog:
    """Decisions in the order in which they were made; the latest 1,000 are kept. Safe to use from any thread."""

    def __init__(self) -> None:
        self._decisions: deque[Decision] = deque(maxlen=KEPT)

    def log(self) -> deque[Decision]:
        """A log for one session, whose decisions come here as well."""
        return _Log(self._decisions)

    def latest(self) -> list[Decision]:
        """The decisions, oldest first."""
        return list(self._decisions)


class _Log(deque[Decision]):
    def __init__(self, shared: deque[Decision]) -> None:
        super().__init__(maxlen=KEPT)
        self._shared = shared

    def append(self, decision: Decision) -> None:
        super().append(decision)
        self._shared.append(decision)
