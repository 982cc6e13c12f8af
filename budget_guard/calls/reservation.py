"""The hold of one admitted call, to be settled exactly once.

::

    reserved ──forward──► forwarded ──commit──► committed
        │                     │                     ▲
        └──────release────────┴────────► released ──┘  (late: what was spent is charged all the same)

Every way out of a call ends in one of three verbs. It was paid for: `Reservation.commit`. It provably was not billed:
`Reservation.release`. Nobody knows: `Reservation.commit_estimate`, and the actual usage replaces the estimate if it
comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budget_guard.calls.decision import ModelCall, ToolCall
from budget_guard.errors import BudgetError
from budget_guard.reporting.posting import Posting
from budget_guard.units.money import UsdLike
from budget_guard.units.usage import Usage

if TYPE_CHECKING:
    from budget_guard.calls.settlement import Accountant
    from budget_guard.calls.worst_case import Plan

_NO_USAGE = "the provider sent no usage"


class Reservation:
    """The hold of one call. Safe to settle from any thread; each verb is idempotent."""

    __slots__ = ("_accountant", "amounts", "call", "id", "posting", "settled", "terms")

    def __init__(self, reservation_id: str, call: ModelCall | ToolCall, plan: Plan, accountant: Accountant) -> None:
        self.id = reservation_id
        """The decision's id, which is the hold's idempotency key."""
        self.call = call
        self.terms, self.amounts = plan
        """How it is made, and what is held for it."""
        self.settled = False
        """Whether it was committed or released."""
        self.posting: Posting | None = None
        """What the session's books hold for it."""
        self._accountant = accountant

    def forward(self) -> None:
        """Note that the call is being sent."""
        self._accountant.ledger.forward(self.id)

    async def aforward(self) -> None:
        """As `forward`."""
        await self._accountant.ledger.aio.forward(self.id)

    def commit(self, usage: Usage | None, *, model: str | None = None, service_tier: str | None = None) -> int:
        """Book what the call used, and give the rest of the hold back.

        Args:
            usage: What the provider billed; None where it did not say, which books the estimate as uncertain.
            model: The model that was called, where it is not the one that the decision named.
            service_tier: The price tier that served the call, where it may not be the one asked for.

        Returns:
            The cost, in nano-dollars.

        Raises:
            ReservationConflict: If other usage was committed before.
            TypeError: If it is a tool call's hold. Nothing is booked then.
        """
        if usage is None:
            return self.commit_estimate(_NO_USAGE)
        accountant = self._accountant
        amounts, unpriced = accountant.bill(self, usage, model, service_tier)
        settled = accountant.ledger.commit(self.id, accountant.scopes, amounts)
        return accountant.settled(self, settled, model, unpriced)

    async def acommit(self, usage: Usage | None, *, model: str | None = None, service_tier: str | None = None) -> int:
        """As `commit`."""
        if usage is None:
            return await self.acommit_estimate(_NO_USAGE)
        accountant = self._accountant
        amounts, unpriced = accountant.bill(self, usage, model, service_tier)
        settled = await accountant.ledger.aio.commit(self.id, accountant.scopes, amounts)
        return accountant.settled(self, settled, model, unpriced)

    def commit_estimate(self, reason: str) -> int:
        """Book the estimate, because nobody knows what the call used. A later `commit` replaces it.

        Args:
            reason: Why it is not known.

        Returns:
            The cost, in nano-dollars.
        """
        settled = self._accountant.ledger.commit(self.id, self._accountant.scopes, self.amounts, True)
        return self._accountant.settled(self, settled, why=reason)

    async def acommit_estimate(self, reason: str) -> int:
        """As `commit_estimate`."""
        settled = await self._accountant.ledger.aio.commit(self.id, self._accountant.scopes, self.amounts, True)
        return self._accountant.settled(self, settled, why=reason)

    def commit_cost(self, cost: UsdLike | None = None) -> int:
        """Book what a tool call cost, and give the rest of the hold back.

        Args:
            cost: Dollars; None for what was held.

        Returns:
            The cost, in nano-dollars.

        Raises:
            ValueError: If *cost* is no amount of money. Nothing is booked then.
            TypeError: If it is a model call's hold. Nothing is booked then.
        """
        amounts = self._accountant.bill_tool(self, cost)
        return self._accountant.settled(self, self._accountant.ledger.commit(self.id, self._accountant.scopes, amounts))

    async def acommit_cost(self, cost: UsdLike | None = None) -> int:
        """As `commit_cost`."""
        amounts = self._accountant.bill_tool(self, cost)
        return self._accountant.settled(
            self, await self._accountant.ledger.aio.commit(self.id, self._accountant.scopes, amounts)
        )

    def release(self, reason: str) -> None:
        """Give the hold back: the call provably was not billed. Does nothing once the call is paid for."""
        self._accountant.released(self, reason, self._accountant.ledger.release(self.id, self._accountant.scopes))

    async def arelease(self, reason: str) -> None:
        """As `release`."""
        self._accountant.released(
            self, reason, await self._accountant.ledger.aio.release(self.id, self._accountant.scopes)
        )

    def interruption(self, output_tokens: int) -> BudgetError | None:
        """Why a call that has begun must not go on; None while it may.

        Args:
            output_tokens: How many output tokens have come, at least.
        """
        return self._accountant.interruption(self, output_tokens)

    def cut_short(self) -> BudgetError | None:
        """The error for an answer that is of no use because the guard's own output cap cut it; None if it set none."""
        return self._accountant.cut_short(self)
