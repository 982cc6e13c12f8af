"""The budgets that are kept by an id: one for each thread of a graph, or for each run or thread of an agent."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, cast

from budget_guard import Budget, Session
from budget_guard.adapter.handle import SessionHandle
from budget_guard.units.amounts import Amounts

CeilingKind = Literal["run", "thread"]

_KEPT = 10_000
"""Sessions that are kept in memory. Beyond that, the one that made no call for longest is dropped."""


class SessionsById:
    """The latest sessions, by the id of what each is the budget of. Safe to use from any thread."""

    def __init__(self, open_session: Callable[[str], Session]) -> None:
        self._open_session = open_session
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def get(self, id: str, spent: Sequence[int] = (), run_id: str | None = None) -> Session:
        """The session of that id, opened on first sight.

        Args:
            id: Of a thread or a run.
            spent: What it has spent at least, as `Amounts`.
            run_id: The name to open it by; *id* by default.
        """
        with self._lock:
            session = self._sessions.pop(id, None) or self._open_session(run_id or id)
            self._sessions[id] = session  # at the end: the first is the one that made no call for longest
            if len(self._sessions) > _KEPT:
                del self._sessions[next(iter(self._sessions))]
            if spent:
                session.carry_over(Amounts(*spent))
        return session


class ThreadHandle(SessionHandle):
    """The budget of one thread: what it spent, and how to steer it."""

    def __init__(self, session: Session) -> None:
        self.session = session


class Spent(TypedDict):
    """What one run or thread has spent, as a checkpoint keeps it."""

    id: str
    amounts: list[int]
    """As `Amounts`, in its order; dollars in nano-dollars."""


class AgentCeiling:
    """A budget for each run of an agent, or for each of its threads. The agent's state keeps what it spent."""

    def __init__(self, kind: CeilingKind, budget: Budget, open_session: Callable[[Budget, str], Session]) -> None:
        self._key = f"budget_{kind}"
        self._kind: CeilingKind = kind
        self._sessions = SessionsById(lambda id: open_session(budget, id))

    def begin(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The update of *state* when an agent is called: a run begins anew, a thread goes on."""
        if self._kind == "thread" and self._key in state:
            return {}
        return {self._key: Spent(id=f"{self._kind}-{uuid.uuid4().hex}", amounts=[])}

    def session(self, state: Mapping[str, Any], thread_id: str | None) -> Session:
        """The session of the run or thread with *state*, which has spent at least what that says.

        A thread is told by its own id, where it has one: its state begins anew where it is resumed from an early
        checkpoint, and where several first turns run at once.
        """
        spent = cast(Spent, state[self._key])
        id = spent["id"] if thread_id is None or self._kind == "run" else f"thread {thread_id}"
        return self._sessions.get(id, spent["amounts"], spent["id"])

    def snapshot(self, state: Mapping[str, Any], thread_id: str | None) -> dict[str, Any]:
        """The update of *state* after a call."""
        spent = self.session(state, thread_id).committed
        return {self._key: Spent(id=state[self._key]["id"], amounts=list(spent))}
