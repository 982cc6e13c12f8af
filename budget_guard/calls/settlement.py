"""What happens to a call's hold: interrupted, billed, booked, or given back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from budget_guard.calls.decision import ModelCall, ToolCall
from budget_guard.calls.refusals import cause, exceeded, remedy_of
from budget_guard.calls.reservation import Reservation
from budget_guard.calls.run import Run
from budget_guard.calls.worst_case import Plan, Rung, Terms, plan_tool
from budget_guard.errors import BudgetError, BudgetExceeded, LedgerUnavailable, UnknownPriceError
from budget_guard.events.model import CallReleased
from budget_guard.ledger.base import Balance, Refused, Settled
from budget_guard.ledger.flow import Flow
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.pricing.rate_card import BUCKETS
from budget_guard.reporting.posting import Posting
from budget_guard.units.amounts import DIMENSIONS, Amounts, in_unit, unchecked
from budget_guard.units.money import UsdLike, nano_of
from budget_guard.units.usage import Usage


class Accountant:
    """Works out what to commit, and takes note of what the ledger committed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._recorder = run.recorder
        self._timeline = run.recorder.timeline
        self._calibration = run.planner.calibration
        self.ledger = run.ledger
        """Where the counters live."""
        self.scopes = run.scopes
        """The scopes that every hold is made in."""

    def interruption(self, reservation: Reservation, output_tokens: int) -> BudgetError | None:
        """Why a call that has begun must not go on. Asks no ledger: it is called for every piece of a stream."""
        if self._run.revoked is not None:
            return self._run.revoked
        late = self._run.too_late(self._timeline.at())
        if late is not None:
            return late
        most = reservation.amounts.output_tokens
        if reservation.terms.bounded and self._run.budget.mode == "hard_gate" and output_tokens > most > 0:
            return BudgetExceeded(
                dimension="call_max_output_tokens",
                limit=most,
                actual=output_tokens,
                scope=str(self._run.scope),
                decision_id=reservation.id,
                detail="the provider does not keep to the output cap that it was sent",
            )
        return None

    def bill(
        self, reservation: Reservation, usage: Usage, model: str | None, service_tier: str | None
    ) -> tuple[Amounts, str | None]:
        """What to commit for *usage*, and why it is no exact price, if it is none.

        Money that was spent is never refused here, and never booked as nothing.
        """
        call, rung = reservation.call, reservation.terms.rung
        if not isinstance(call, ModelCall):
            raise TypeError(f"{call.tool!r} is a tool call: settle it with commit_cost")
        planned, price = rung.model, rung.price
        if model is not None or service_tier is not None:
            model, tier = model or planned, service_tier or call.service_tier
            if model != planned or tier != call.service_tier:
                price = self._run.planner.price_called(call._replace(service_tier=tier), model, price)
        if price is not None:
            amounts = price.bill_text(usage)
            if amounts is not None:
                return amounts, None
        cost, unpriced = self._cost(price, usage, model or planned, reservation.amounts.cost)
        read, written = usage.input_tokens, usage.output_tokens
        return Amounts(cost, read, written, read + written, usage.requests or 1), unpriced

    def _cost(self, price: ModelPrice | None, usage: Usage, model: str, held: int) -> tuple[int, str | None]:
        """What *usage* costs, by every bucket of it, and why that is no exact price, if it is none."""
        if price is None:
            return 0, f"no price is known for {model!r}"
        try:
            return price.cost(usage, self._run.clock.now() if price.varies_by_hour else None), None
        except UnknownPriceError:
            # It is spent, whatever it was: at least what was held, and at least the part that has a price.
            cost, unpriced = _priced_part(price, usage)
            return max(cost, held), unpriced

    def bill_tool(self, reservation: Reservation, cost: UsdLike | None) -> Amounts:
        """What to commit for a tool call that cost *cost* dollars, or what was held."""
        if not isinstance(reservation.call, ToolCall):
            raise TypeError(f"{reservation.call.model!r} is a model call: settle it with commit(usage)")
        return reservation.amounts if cost is None else Amounts(cost=nano_of(cost, "cost"), tool_calls=1)

    def settled(
        self,
        reservation: Reservation,
        settled: Settled,
        model: str | None = None,
        unpriced: str | None = None,
        why: str | None = None,
    ) -> int:
        """Take note of what the ledger has booked for a hold; return its cost in nano-dollars.

        Args:
            reservation: The hold.
            settled: The ledger's answer.
            model: The model that was called, where it is not the planned one.
            unpriced: What has no known price, in words.
            why: Why the amounts are an estimate, where they are one.
        """
        reservation.settled = True
        committed, charged, uncertain = settled
        cost, read, written = charged[:3]
        terms, held = reservation.terms, reservation.amounts
        name, call, violated = model or terms.rung.model, reservation.call, False
        if isinstance(call, ModelCall):
            if uncertain:
                if terms.rung.price is None or not charged.total_tokens:
                    unpriced = why  # nobody knows what it cost, and nothing was estimated
            elif terms.bounded and (read > held[1] or written > held[2]):
                violated = True
                self._calibration[name].distrust()
            else:
                self._calibration[name].learn(call[1], read, written)
        over = cost - held[0]
        if over < 0:
            over = 0
        at_s, is_unpriced = self._timeline.at(), unpriced is not None
        posting = unchecked(Posting, (at_s, reservation.id, name, charged, over, uncertain, is_unpriced, violated))
        if self._recorder.record(reservation, posting, why or unpriced):
            for i, soft_limit in self._run.soft_limits:
                if committed[i] >= soft_limit:
                    self._run.warn(committed)
                    break
        return cost

    def released(self, reservation: Reservation, reason: str, freed: bool) -> None:
        """Take note that the ledger gave a hold back."""
        reservation.settled = True
        if freed:
            at_s, model = self._timeline.at(), reservation.terms.rung.model
            self._timeline.emit(CallReleased(at_s, reservation.id, model, reason))

    def charge(self, call: ToolCall) -> Flow[None]:
        """Book money that was spent on a tool without asking."""
        yield from self._charge(call, plan_tool(call, self._run.budget)[0], None)

    def charge_call(self, call: ModelCall, usage: Usage | None) -> Flow[None]:
        """Book a model call that was made without asking."""
        price = self._run.planner.price_called(call, call.model, None)
        terms, amounts = Terms(Rung(call.model, price), None, False, False), Amounts(requests=1)
        unpriced: str | None = "the provider sent no usage"
        if usage is not None:
            amounts, unpriced = self.bill(Reservation("", call, (terms, amounts), self), usage, None, None)
        yield from self._charge(call, (terms, amounts), unpriced)

    def _charge(self, call: ModelCall | ToolCall, plan: Plan, unpriced: str | None) -> Flow[None]:
        at_s = self._timeline.start()
        charge = Reservation(self._run.new_id(), call, plan, self)
        passed: Refused | None = yield "charge", (charge.id, self._run.scopes, charge.amounts)
        name, is_unpriced = charge.terms.rung.model, unpriced is not None
        posting = Posting(at_s, charge.id, name, charge.amounts, 0, False, is_unpriced, False)
        self._recorder.record(charge, posting, unpriced)
        try:
            balances: Sequence[Balance] = yield "balances", (self._run.scopes[:1],)
            self._run.warn(balances[0].committed)
        except LedgerUnavailable:
            return  # it is booked, or kept to be booked
        if passed is not None:
            error = exceeded(passed, None)
            error.report = self._run.report_for_error()
            self._recorder.terminated_by = cause(error)
            raise error

    def cut_short(self, reservation: Reservation) -> BudgetExceeded | None:
        """The error for an answer that the guard's own output cap made useless."""
        terms = reservation.terms
        if not terms.clamped:
            return None
        try:
            balances = self._run.ledger.balances(self._run.scopes)
        except LedgerUnavailable:
            return None  # nobody can say any more what cut it off: half an answer is better than none
        i = next((i for i in (0, 2, 3) if any(balance.limits[i] is not None for balance in balances)), 0)
        tightest = min(balances, key=lambda balance: _left(balance, i))
        return BudgetExceeded(
            dimension=DIMENSIONS[i],
            limit=in_unit(i, tightest.limits[i] or 0),
            actual=in_unit(i, tightest.committed[i] + tightest.reserved[i]),
            scope=str(tightest.scope),
            decision_id=reservation.id,
            report=self._run.report_for_error(),
            detail=f"what was left paid for {terms.output_cap} output tokens, which cut the answer off",
            remedy=remedy_of(tightest.scope, DIMENSIONS[i]),
        )


def _left(balance: Balance, i: int) -> float:
    limit = balance.limits[i]
    return math.inf if limit is None else limit - balance.committed[i] - balance.reserved[i]


def _priced_part(price: ModelPrice, usage: Usage) -> tuple[int, str | None]:
    """What the units of *usage* that have a price cost, in nano-dollars, and which have none, in words."""
    unpriced: str | None = None
    while True:
        try:
            return price.cost(usage), unpriced
        except UnknownPriceError as error:
            unpriced = unpriced or str(error)
            other = tuple(unit for unit in usage.other if unit[0] != error.missing)
            without: dict[str, Any] = {error.missing: 0} if error.missing in BUCKETS else {}
            usage = usage._replace(**without, other=other)
