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

from budget_guard.decision import ModelCall, ToolCall
from budget_guard.errors import BudgetError
from budget_guard.flow import adrive, drive
from budget_guard.money import UsdLike, nano_of
from budget_guard.usage import Usage

if TYPE_CHECKING:
    from budget_guard.accountant import Accountant
    from budget_guard.admission import Plan


class Reservation:
    """The hold of one model call. Safe to settle from any thread; each verb is idempotent."""

    __slots__ = ("_accountant", "call", "id", "plan", "settled")

    def __init__(self, reservation_id: str, call: ModelCall | ToolCall, plan: Plan, accountant: Accountant) -> None:
        self.id = reservation_id
        """The decision's id, which is the hold's idempotency key."""
        self.call = call
        self.plan = plan
        self.settled = False
        """Whether it was committed or released."""
        self._accountant = accountant

    def forward(self) -> None:
        """Note that the call is being sent."""
        drive(self._accountant.forward(self), self._accountant.ledger)

    async def aforward(self) -> None:
        """As `forward`."""
        await adrive(self._accountant.forward(self), self._accountant.ledger.aio)

    def commit(self, usage: Usage | None, *, model: str | None = None) -> int:
        """Book what the call used, and give the rest of the hold back.

        Args:
            usage: What the provider billed; None where it did not say, which books the estimate as uncertain.
            model: The model that was called, where it is not the one that the decision named.

        Returns:
            The cost, in nano-dollars.

        Raises:
            ReservationConflict: If other usage was committed before.
        """
        flow = self._accountant.commit(self, usage, "the provider sent no usage", model)
        return drive(flow, self._accountant.ledger)

    async def acommit(self, usage: Usage | None, *, model: str | None = None) -> int:
        """As `commit`."""
        flow = self._accountant.commit(self, usage, "the provider sent no usage", model)
        return await adrive(flow, self._accountant.ledger.aio)

    def commit_estimate(self, reason: str) -> int:
        """Book the estimate, because nobody knows what the call used. A later `commit` replaces it.

        Args:
            reason: Why it is not known.

        Returns:
            The cost, in nano-dollars.
        """
        return drive(self._accountant.commit(self, None, reason), self._accountant.ledger)

    async def acommit_estimate(self, reason: str) -> int:
        """As `commit_estimate`."""
        return await adrive(self._accountant.commit(self, None, reason), self._accountant.ledger.aio)

    def commit_cost(self, cost: UsdLike) -> int:
        """Book what a tool call cost, in dollars, and give the rest of the hold back.

        Returns:
            The cost, in nano-dollars.

        Raises:
            ValueError: If *cost* is no amount of money. Nothing is booked then.
        """
        return drive(self._accountant.commit_tool(self, nano_of(cost, "cost")), self._accountant.ledger)

    async def acommit_cost(self, cost: UsdLike) -> int:
        """As `commit_cost`."""
        return await adrive(self._accountant.commit_tool(self, nano_of(cost, "cost")), self._accountant.ledger.aio)

    def interruption(self, output_tokens: int) -> BudgetError | None:
        """Why a call that has begun must not go on; None while it may.

        Args:
            output_tokens: How many output tokens have come, at least.
        """
        return self._accountant.interruption(self, output_tokens)

    def cut_short(self) -> BudgetError | None:
        """The error for an answer that is of no use because the guard's own output cap cut it; None if it set none."""
        return self._accountant.cut_short(self)

    def release(self, reason: str) -> None:
        """Give the hold back: the call provably was not billed. Does nothing once the call is paid for."""
        drive(self._accountant.release(self, reason), self._accountant.ledger)

    async def arelease(self, reason: str) -> None:
        """As `release`."""
        await adrive(self._accountant.release(self, reason), self._accountant.ledger.aio)
