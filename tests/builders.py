"""Small builders of what the core's tests need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, ParamSpec, TypeVar

import pytest

from budget_guard import Budget, Decision, MemoryLedger, ModelCall, Prompt, Reservation, Session, ToolCall, Usage
from budget_guard.ledger import ReserveOutcome
from budget_guard.testing import FakeClock
from budget_guard.units.money import UsdLike

P = ParamSpec("P")
T = TypeVar("T")

ZERO = Decimal(0)

PRICES: dict[str, dict[str, Any]] = {
    # $0.10 and $0.01 a call, whatever it says
    "dime": {"input": 0, "output": 0, "requests": "0.10", "max_output": 100},
    "penny": {"input": 0, "output": 0, "requests": "0.01", "max_output": 100},
    # 1,000 nano-dollars an input token, 10,000 an output token; each further one at a tenth of the one before
    "large": {"input": 1e-6, "output": 10e-6, "max_output": 10_000, "capabilities": ["tools", "vision"]},
    "small": {"input": 1e-7, "output": 1e-6, "max_output": 10_000, "capabilities": ["tools"]},
    "tiny": {"input": 1e-8, "output": 1e-7, "max_output": 10_000, "capabilities": []},
    "brief": {"input": 1e-6, "output": 10e-6, "max_output": 100},
    # nobody knows how much it may write
    "endless": {"input": 1e-6, "output": 10e-6},
    "searcher": {"input": 1e-6, "output": 10e-6, "max_output": 1_000, "web_search": "0.01"},
}


def session(budget: Budget | UsdLike = "$1.00", **options: Any) -> Session:
    """A session in which `PRICES` are known, and in which waiting takes no time."""
    options.setdefault("clock", FakeClock(datetime.now(timezone.utc)))
    return Session(budget if isinstance(budget, Budget) else Budget(budget), pricing=PRICES, **options)


def call(model: str = "dime", *, tokens: int = 100, cap: int | None = None, **options: Any) -> ModelCall:
    """A call with an input of at most *tokens* tokens."""
    return ModelCall(model, Prompt(tokens, 1, (), 0), max_output_tokens=cap, **options)


def note_holds(patch: pytest.MonkeyPatch, served: Callable[[], int]) -> list[tuple[int, bool, bool]]:
    """What ledgers in memory hold from now on: how many calls were served before, whether what was sent stays held
    after its time is up, and whether it counts as sent."""
    held: list[tuple[int, bool, bool]] = []
    reserve = MemoryLedger.reserve

    def noting(ledger: MemoryLedger, *arguments: Any) -> ReserveOutcome:
        held.append((served(), *arguments[-2:]))
        return reserve(ledger, *arguments)

    patch.setattr(MemoryLedger, "reserve", noting)
    return held


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *function* as another task would: nothing here runs inside of what it holds."""
    return Context().run(function, *args, **kwargs)


class Way:
    """The verbs of a session, performed by one of its two drivers, each as by a task of its own."""

    def __init__(self, awaits: bool) -> None:
        self._awaits = awaits

    def authorize(self, session: Session, call: ModelCall | ToolCall) -> Decision:
        return self._run(session.authorize, session.aauthorize, call)

    def reserve(self, session: Session, call: ModelCall | ToolCall) -> Reservation:
        """Authorise, and raise the error of a refusal."""
        return self.authorize(session, call).require()

    def forward(self, reservation: Reservation) -> None:
        self._run(reservation.forward, reservation.aforward)

    def commit(self, reservation: Reservation, usage: Usage | None, *, model: str | None = None) -> int:
        return self._run(reservation.commit, reservation.acommit, usage, model=model)

    def commit_estimate(self, reservation: Reservation, reason: str = "timed out") -> int:
        return self._run(reservation.commit_estimate, reservation.acommit_estimate, reason)

    def commit_cost(self, reservation: Reservation, cost: UsdLike) -> int:
        return self._run(reservation.commit_cost, reservation.acommit_cost, cost)

    def release(self, reservation: Reservation, reason: str = "refused connection") -> None:
        self._run(reservation.release, reservation.arelease, reason)

    def charge(self, session: Session, tool: str, cost: UsdLike, agent: str | None = None) -> None:
        self._run(session.charge, session.acharge, tool, cost, agent=agent)

    def charge_call(self, session: Session, call: ModelCall, usage: Usage | None) -> None:
        self._run(session.charge_call, session.acharge_call, call, usage)

    def pay(self, session: Session, call: ModelCall, usage: Usage | None = None) -> int:
        """One whole call."""
        reservation = self.reserve(session, call)
        self.forward(reservation)
        return self.commit(reservation, usage or Usage())

    def _run(
        self,
        blocking: Callable[P, T],
        awaiting: Callable[P, Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return asyncio.run(awaiting(*args, **kwargs)) if self._awaits else apart(blocking, *args, **kwargs)
