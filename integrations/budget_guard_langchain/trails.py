"""The runs that tool calls are parts of, to look for loops within each, and the agents that started them.

LangChain tells of every run with the run that it is a part of. What a tool starts, an agent for example, is a run of
its own: ten agents that look up the same thing are in no loop.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from uuid import UUID

started_by: ContextVar[tuple[str, ...]] = ContextVar("budget_guard_langchain_started_by", default=())
"""The agents whose tool is running here, the nearest first: what it starts is a part of their spend, too."""

_MOST_RUNS = 10_000
"""Runs under way that are remembered, of which no end may ever be told."""


class Trails:
    """The roots of the runs that are under way. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roots: dict[UUID, UUID] = {}

    def begin(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        """Note a run."""
        self._note(run_id, self._root(run_id, parent_run_id))

    def of_tool(self, run_id: UUID, parent_run_id: UUID | None) -> UUID | None:
        """Note a tool call, in which a run of its own begins. Returns the root of the run that it is a part of; None
        where it is a part of none."""
        self._note(run_id, run_id)
        return None if parent_run_id is None else self._root(run_id, parent_run_id)

    def end(self, run_id: UUID) -> None:
        """Forget a run that is over."""
        if self._roots:
            with self._lock:
                self._roots.pop(run_id, None)

    def _root(self, run_id: UUID, parent_run_id: UUID | None) -> UUID:
        if parent_run_id is None:
            return run_id
        return self._roots.get(parent_run_id, parent_run_id)

    def _note(self, run_id: UUID, root: UUID) -> None:
        with self._lock:
            self._roots[run_id] = root
            if len(self._roots) > _MOST_RUNS:
                del self._roots[next(iter(self._roots))]
