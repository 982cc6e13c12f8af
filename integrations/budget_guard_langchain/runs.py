"""The runs that a handler is told of, as a tree: what a record is kept of is the top of each, with all below it."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from uuid import UUID

from budget_guard.session.run_records import RunRecords, RunTally, within

_MOST_RUNS = 10_000
"""Runs under way that are remembered, of which no end may ever be told."""


class RunsByTree:
    """The runs that are under way, each with the tally of the one at its top. Safe to use from any thread.

    Args:
        records: Keeps the records.
    """

    def __init__(self, records: RunRecords) -> None:
        self.records = records
        self._lock = threading.Lock()
        self._tallies: dict[UUID | None, tuple[RunTally, bool]] = {}
        """By the run's id; and whether the run is the top itself."""

    def begin(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        """Note a run. It is at the top where nothing was told of what it is a part of."""
        if run_id in self._tallies:
            return
        above = self._tallies.get(parent_run_id)
        around = self.records.here() if above is None else above[0]
        of_run = (self.records.begin(), True) if around is None else (around, False)
        with self._lock:
            self._tallies[run_id] = of_run
            if len(self._tallies) > _MOST_RUNS:
                del self._tallies[next(iter(self._tallies))]

    def end(self, run_id: UUID, error: BaseException | None = None) -> None:
        """Note that a run is over; with *error*, if it raised."""
        with self._lock:
            tally, is_top = self._tallies.pop(run_id, (None, False))
        if tally is not None and is_top:
            self.records.end(tally, None if error is None or is_pause(error) else error)

    def knows(self, run_id: UUID | None) -> bool:
        """Whether a run is known."""
        return run_id in self._tallies

    def within(self, run_id: UUID) -> AbstractContextManager[None]:
        """A block in which calls belong to that run."""
        tally, _ = self._tallies.get(run_id, (None, False))
        return nullcontext() if tally is None else within(self.records, tally)


def is_pause(error: BaseException) -> bool:
    """Whether a graph was paused, or told its parent something: it goes on, and no run has failed."""
    return any(cls.__name__ == "GraphBubbleUp" for cls in type(error).__mro__) and not hasattr(error, "decision_id")
