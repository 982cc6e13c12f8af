"""The hold of one admitted call, to be settled exactly once.

::

    reserved ──forward──► forwarded ──commit──► committed
        │                     │                     ▲
        └──────release────────┴────────► released ──┘  (late: what was spent is charged all the same)

Every way out of a call ends in one of three verbs. It was paid for: `Reservation.commit`. It provably was not billed:
`Reservation.release`. It may have been billed: `Reservation.commit_estimate`, and the actual usage replaces the
estimate if it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from budget_guard.calls import settlement
from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.coverage import covers
from budget_guard.calls.enclosing import OpenHold
from budget_guard.calls.held import HeldCall
from budget_guard.calls.plan import Plan
from budget_guard.calls.run import Run
from budget_guard.calls.seen import Seen
from budget_guard.calls.settlement import Bill
from budget_guard.errors import BudgetError
from budget_guard.units.money import UsdLike
from budget_guard.units.scope import Scope
from budget_guard.units.usage import Usage


class Reservation(HeldCall):
    """The hold of one call. Safe to settle from any thread; each verb is idempotent.

    What to book is worked out, and recorded, by `budget_guard.calls.settlement` for both kinds of callers; the verbs
    here perform it, blocking or awaited.
    """

    __slots__ = ("_run",)

    def __init__(self, hold_id: str, call: ModelCall | ToolCall, plan: Plan, run: Run) -> None:
        self.id = hold_id  # as HeldCall does, in one step: a reservation is made for every call
        self.call = call
        self.terms, self.amounts = plan
        self.settled = False
        self.posting = self.cost_left = None
        self._run = run

    @property
    def scopes(self) -> Sequence[Scope]:
        return self._run.scopes

    @property
    def outer(self) -> Sequence[OpenHold]:
        return self._run.around

    @property
    def trusts_server_errors(self) -> bool:
        """Whether its budget takes a call that ended in the provider's own 500 for one that is not billed."""
        return self._run.budget.server_errors == "release"

    def forward(self) -> None:
        """Note that the call is being sent."""
        self._run.ledger.forward(self.id)

    async def aforward(self) -> None:
        """As `forward`."""
        await self._run.ledger.aio.forward(self.id)

    def commit(
        self,
        usage: Usage | None,
        *,
        model: str | None = None,
        service_tier: str | None = None,
        region: str | None = None,
        cost: int | None = None,
        others: Sequence[tuple[str, Usage]] = (),
    ) -> int:
        """Book what the call used, and give the rest of the hold back.

        Args:
            usage: What the provider billed; None where it did not say, which books the estimate as uncertain. So does
                usage that makes no sense: nothing for a call that took something, or far more than it can take.
            model: The model that was called, where it is not the one that the decision named.
            service_tier: The price tier that served the call, where it may not be the one asked for.
            region: Where the answer was made, where it may not be what was asked for.
            cost: The provider's own figure, in nano-dollars, which wins over the price table.
            others: What other models used for the same answer, to be billed besides.

        Returns:
            The cost, in nano-dollars.

        Raises:
            ReservationConflict: If other usage was committed before.
            TypeError: If it is a tool call's hold. Nothing is booked then.
            ValueError: If a quantity is negative, or no whole number. Nothing is booked then.
        """
        return self._book(settlement.bill(self._run, self, usage, model, service_tier, region, cost, others))

    async def acommit(
        self,
        usage: Usage | None,
        *,
        model: str | None = None,
        service_tier: str | None = None,
        region: str | None = None,
        cost: int | None = None,
        others: Sequence[tuple[str, Usage]] = (),
    ) -> int:
        """As `commit`."""
        return await self._abook(settlement.bill(self._run, self, usage, model, service_tier, region, cost, others))

    def commit_estimate(self, reason: str, seen: Seen | None = None) -> int:
        """Book the estimate, because it is not known what the call used. A later `commit` replaces it.

        Args:
            reason: Why it is not known.
            seen: What was seen of the answer, where its caller gave it up. The session's ``on_cancel`` says what that
                means.

        Returns:
            The cost, in nano-dollars.
        """
        return self._book(settlement.given_up(self._run, self, reason, seen))

    async def acommit_estimate(self, reason: str, seen: Seen | None = None) -> int:
        """As `commit_estimate`."""
        return await self._abook(settlement.given_up(self._run, self, reason, seen))

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
        return self._book(settlement.bill_tool(self, cost))

    async def acommit_cost(self, cost: UsdLike | None = None) -> int:
        """As `commit_cost`."""
        return await self._abook(settlement.bill_tool(self, cost))

    def release(self, reason: str) -> None:
        """Give the hold back: the call provably was not billed. Does nothing once the call is paid for."""
        run = self._run
        settlement.released(run, self, reason, run.ledger.release(self.id, run.scopes))

    async def arelease(self, reason: str) -> None:
        """As `release`."""
        run = self._run
        settlement.released(run, self, reason, await run.ledger.aio.release(self.id, run.scopes))

    def note_result(self, result: object) -> None:
        """Note what a tool returned, or the error that it raised, where loops are looked for."""
        settlement.returned(self._run, self, result)

    def covers(self, call: ModelCall) -> bool:
        """Whether what is held is enough for *call*, where that is what is really sent in place of what was planned."""
        return covers(self._run, self, call)

    def interruption(self, output_tokens: int) -> BudgetError | None:
        """Why a call that has begun must not go on; None while it may.

        Args:
            output_tokens: How many output tokens have come, at least.
        """
        return settlement.interruption(self._run, self, output_tokens)

    def cut_short(self) -> BudgetError | None:
        """The error for an answer that is of no use because the guard's own output cap cut it; None if it set none."""
        return settlement.cut_short(self._run, self)

    def _book(self, bill: Bill) -> int:
        run = self._run
        lines = settlement.lines(run, self.call, bill)
        settled = run.ledger.commit(self.id, run.scopes, bill.amounts, bill.uncertain, lines)
        return settlement.settled(run, self, bill, settled)

    async def _abook(self, bill: Bill) -> int:
        run = self._run
        lines = settlement.lines(run, self.call, bill)
        settled = await run.ledger.aio.commit(self.id, run.scopes, bill.amounts, bill.uncertain, lines)
        return settlement.settled(run, self, bill, settled)
