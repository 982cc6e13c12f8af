"""Requests to endpoints that no dialect reads, at a price that the user names: ``Allowance(requests={...})``."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from budget_guard.adapter.guarded_call import GuardedCall, Steps, aperform, perform
from budget_guard.adapter.stops import Stop
from budget_guard.calls.call import ToolCall
from budget_guard.errors import BudgetError
from budget_guard.session.session import Session
from budget_guard.units.money import nano_of
from budget_guard.wire import Endpoint, is_named
from budget_guard.wire.outcome import Outcome, outcome_of_error, outcome_of_status

_sending: ContextVar[PricedRequest | None] = ContextVar("budget_guard_priced_request", default=None)


class PricedRequest:
    """One request on the wire whose price is known: held before it is sent, and booked once it is answered.

    Every way out of it is one verb, which settles it once. Each comes twice: ``hold`` blocks, ``ahold`` is awaited.

    Args:
        sessions: The budgets that it spends from.
        where: Where it goes to.
        name: What it is booked as.
        cost: Its price, in nano-dollars.
        agent: Whom to attribute it to.
    """

    __slots__ = ("_agent", "_call", "_cost", "_name", "_where")

    def __init__(self, sessions: Sequence[Session], where: Endpoint, name: str, cost: int, agent: str | None) -> None:
        self._where: Endpoint = where
        above = _sending.get()
        if above is not None and above._where == where:  # a guarded client over a guarded HTTP client
            sessions = [session for session in sessions if session not in above._call.sessions]
        self._name = name
        self._cost = cost
        self._agent = agent
        self._call: GuardedCall = GuardedCall(sessions)

    def hold(self, *, may_wait: bool = True) -> Stop | None:
        """Hold its price in every session. Returns None if it may be sent; else what stops it."""
        return self._call.hold(self._asked, may_wait=may_wait)

    async def ahold(self) -> Stop | None:
        """As `hold`, and waits without blocking."""
        return await self._call.ahold(self._asked)

    @property
    def _asked(self) -> ToolCall:
        return ToolCall(self._name, self._cost, self._agent)

    @contextmanager
    def sending(self) -> Generator[None]:
        """Say to transports of ours further below that it is held, while the block sends it."""
        token = _sending.set(self)
        try:
            yield
        finally:
            _sending.reset(token)

    def answered(self) -> None:
        """Book it: it was answered with a success."""
        self._call.commit_cost()

    async def aanswered(self) -> None:
        """As `answered`."""
        await self._call.acommit_cost()

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Settle it by an answer that is no success.

        Args:
            status: The HTTP status.
            headers: The answer's headers.
            body: Its body, decompressed.
        """
        perform(self._settled(outcome_of_status(status, headers, body)))

    async def arefuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """As `refuse`."""
        await aperform(self._settled(outcome_of_status(status, headers, body)))

    def fail(self, error: BaseException) -> None:
        """Settle it by what was raised in place of an answer."""
        perform(self._settled(_outcome(error)))

    async def afail(self, error: BaseException) -> None:
        """As `fail`."""
        await aperform(self._settled(_outcome(error)))

    def _settled(self, outcome: Outcome) -> Steps[None]:
        return self._call.settling(outcome)


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, BudgetError):
        return Outcome(True, "another budget refused the call")
    return outcome_of_error(error)


def priced_request(sessions: Sequence[Session], where: Endpoint, agent: str | None) -> PricedRequest | None:
    """The request to *where* at the price that the budgets name for it; None where one of them names none.

    Args:
        sessions: The budgets that it spends from. Where they name different prices, the highest counts.
        where: Where it goes to.
        agent: Whom to attribute it to.
    """
    highest: int | None = None
    name = ""
    for session in sessions:
        named = [
            (nano_of(cost, path), path)
            for path, cost in session.budget.allowance.requests.items()
            if is_named(where, path)
        ]
        if not named:
            return None
        cost, path = max(named)
        if highest is None or cost > highest:
            highest, name = cost, path
    return None if highest is None else PricedRequest(sessions, where, name, highest, agent)
