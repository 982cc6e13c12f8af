"""What sinks of metrics share: labels that have an end, and what is held now."""

from __future__ import annotations

import threading

from budget_guard.events.model import CallAdmitted, CallReleased, Event, UsageEvent
from budget_guard.units.printable import printable

_MOST_NAMES = 200
"""Names that are told apart; a program that makes up names is summed under `_REST` beyond that."""
_REST = "(others)"
_MOST_HELD = 100_000


class Names:
    """The names that are told apart, so that a label has an end."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def bounded(self, name: str) -> str:
        """*name*, so that it can be printed, for not every reader of numbers takes a NUL; or the name of the rest."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= _MOST_NAMES:
                return _REST
            known = self._known[name] = printable(name)
        return known


class HeldNow:
    """The sum of what is held for calls in flight. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self.total = 0
        """Nano-dollars."""

    def note(self, event: Event) -> int:
        """Take notice of *event*; return by how much the sum has changed."""
        if isinstance(event, CallAdmitted):
            with self._lock:
                if len(self._held) >= _MOST_HELD:  # calls that never settled: what is held for them runs out elsewhere
                    self.total -= self._held.pop(next(iter(self._held)))
                self._held[event.decision_id] = event.held
                self.total += event.held
            return event.held
        if isinstance(event, (UsageEvent, CallReleased)):
            with self._lock:
                freed = self._held.pop(event.decision_id, 0)
                self.total -= freed
            return -freed
        return 0
