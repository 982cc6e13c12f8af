"""One budget for each thread of a graph."""

from __future__ import annotations

import threading
from collections.abc import Callable

from budget_guard import Session
from budget_guard.adapter.handle import SessionHandle

_KEPT = 10_000
"""Threads whose spending is kept. Beyond that, the one that was not heard of for longest starts anew."""


class ThreadHandle(SessionHandle):
    """The budget of one thread: what it spent, and how to steer it."""

    def __init__(self, session: Session) -> None:
        self.session = session


class Threads:
    """The sessions of threads, by id. Safe to use from any thread."""

    def __init__(self, open_session: Callable[[str], Session]) -> None:
        self._open_session = open_session
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def session(self, thread_id: str) -> Session:
        """The session of that thread, opened on first sight."""
        with self._lock:
            session = self._sessions.pop(thread_id, None) or self._open_session(thread_id)
            self._sessions[thread_id] = session  # at the end: the first is the one that was longest not heard of
            if len(self._sessions) > _KEPT:
                del self._sessions[next(iter(self._sessions))]
            return session
