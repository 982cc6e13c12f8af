"""What an agent's state keeps of its spending, and the ceilings of one run and one thread that are made from it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypedDict, cast

from langchain.agents import AgentState
from langchain.agents.middleware.types import PrivateStateAttr, ResponseT
from typing_extensions import NotRequired

from budget_guard import Budget, Session
from budget_guard.units.amounts import Amounts

CeilingKind = Literal["run", "thread"]

_KEPT = 10_000
"""Runs and threads whose sessions are kept in memory. A dropped one goes on from what the state says."""


class Spent(TypedDict):
    """What one run or thread has spent, as a checkpoint keeps it."""

    id: str
    amounts: list[int]
    """As `Amounts`, in its order; dollars in nano-dollars."""


class BudgetState(AgentState[ResponseT]):
    """State schema of `BudgetMiddleware`.

    Both are tracked, so that they survive a pause and a restart. They are a copy: the sessions count, and a copy is
    lost where a node fails after its model was paid.
    """

    budget_run: NotRequired[Annotated[Spent, PrivateStateAttr]]
    budget_thread: NotRequired[Annotated[Spent, PrivateStateAttr]]


class Ceiling:
    """A budget for each run of an agent, or for each of its threads. Safe to use from any thread."""

    def __init__(self, kind: CeilingKind, budget: Budget, open_session: Callable[[Budget, str], Session]) -> None:
        self._key = f"budget_{kind}"
        self._kind: CeilingKind = kind
        self._budget = budget
        self._open_session = open_session
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The update of *state* when an agent is called: a run begins anew, a thread goes on."""
        if self._kind == "thread" and self._key in state:
            return {}
        return {self._key: Spent(id=f"{self._kind}-{uuid.uuid4().hex}", amounts=[])}

    def session(self, state: Mapping[str, Any]) -> Session:
        """The session of the run or thread with *state*, which has spent at least what that says."""
        spent = cast(Spent, state[self._key])
        with self._lock:
            session = self._sessions.pop(spent["id"], None) or self._open_session(self._budget, spent["id"])
            self._sessions[spent["id"]] = session  # at the end: the first is the one that was longest not heard of
            if len(self._sessions) > _KEPT:
                del self._sessions[next(iter(self._sessions))]
            if spent["amounts"]:
                session.carry_over(Amounts(*spent["amounts"]))
        return session

    def snapshot(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The update of *state* after a call."""
        return {self._key: Spent(id=state[self._key]["id"], amounts=list(self.session(state).committed))}
