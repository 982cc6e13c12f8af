"""What sinks of metrics share: labels that have an end, and what is held now."""

from __future__ import annotations

import threading

from budget_guard.events.model import CallAdmitted, CallReleased, Event, UsageEvent

_MOST_NAMES = 200
"""Names that are told apart; a program that makes up names is summed under `_REST` beyond that."""
_REST = "(others)"
_MOST_HELD = 100_000


class Names:
    """The names that are told apart, so that a label has an end."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def bounded(self, name: str) -> str:
        """*name*, or the name of the rest."""
        if name not in self._known:
            if len(self._known) >= _MOST_NAMES:
                return _REST
            self._known.add(name)
        return name


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
