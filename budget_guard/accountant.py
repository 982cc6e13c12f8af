"""The engine of a session: decides on calls and books them, written once for blocking and awaiting callers."""

from __future__ import annotations

import itertools
import logging
import uuid
import warnings
from collections.abc import Callable, Sequence

from budget_guard.admission import Admission, Plan, Rung, priced_part, room
from budget_guard.books import Books
from budget_guard.budget import Budget
from budget_guard.clock import Clock
from budget_guard.decision import Action, Decision, Estimate, ModelCall, ToolCall
from budget_guard.dimension import DIMENSIONS, Amounts, Limits, in_unit
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    InvalidDowngradeError,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.events import CallBlocked, CallReleased, ModelDowngraded
from budget_guard.flow import Flow
from budget_guard.ledger.base import Balance, Held, Ledger, Refused, ReserveOutcome, Revoked, Settled
from budget_guard.money import UsdLike, nano_of
from budget_guard.pricing import PriceTable
from budget_guard.report import BudgetReport
from budget_guard.reservation import Booked, Reservation
from budget_guard.scope import Scope
from budget_guard.usage import Usage

_log = logging.getLogger("budget_guard")

_EVENTS_IN_ERRORS = 20
"""An error carries a report with the last few events alone: an agent may run into its limit a thousand times."""

_RAISE = "Raise it with raise_limits({}=...), or start over with a larger Budget."


class Accountant:
    """Decides and books for one run. It asks the ledger through flows, or is told what the ledger answered."""

    def __init__(
        self,
        budget: Budget,
        ledger: Ledger,
        scopes: Sequence[Scope],
        prices: PriceTable,
        clock: Clock,
        report: Callable[[int], BudgetReport],
    ) -> None:
        self.ledger = ledger
        self.scopes = tuple(scopes)
        self.books = Books(scopes[0], clock)
        self.revoked: BudgetRevoked | None = None
        """Set where the run was cut off by this very session."""
        self._scope = scopes[0]
        self._scope_names = tuple(map(str, scopes))
        self._admission = Admission(prices, clock)
        self._basis = prices.basis
        self._clock = clock
        self._report = report
        self._prefix = f"{scopes[0].id}-{uuid.uuid4().hex[:8]}"  # a run may be resumed by another session
        self._numbers = itertools.count(1)
        self._warned_unbounded = False
        self.set_budget(budget)

    def set_budget(self, budget: Budget) -> None:
        """Decide by *budget* from now on."""
        self.budget = budget
        self._limits = budget.limits

    # Before a call

    def authorize(self, call: ModelCall | ToolCall) -> Flow[Decision]:
        """Decide on *call* and hold its worst case."""
        self.books.timeline.start()
        decision_id = f"{self._prefix}-{next(self._numbers)}"
        plan: Plan | None = None
        advisory = self.budget.mode == "advisory_estimate"
        deadline: float | None = None
        try:
            while True:
                late = self._too_late()
                if late is not None and not advisory:
                    raise late
                outcome, plan = yield from self._attempt(self.budget, decision_id, call)
                if isinstance(outcome, Held):
                    return self._admitted(decision_id, call, plan, late)
                if isinstance(outcome, Revoked):
                    raise _revoked(outcome)
                now = self._clock.monotonic()
                deadline = now + self.budget.max_wait_s if deadline is None else deadline
                if not outcome.waiting_helps or now >= deadline:
                    break
                yield "await_room", (outcome.version, deadline - now)
            refused = self._exceeded(outcome, plan.amounts)
            if not advisory:
                raise refused
            outcome = yield from self._reserve(decision_id, plan, None)
            if isinstance(outcome, Revoked):
                raise _revoked(outcome)
            return self._admitted(decision_id, call, plan, refused)
        except (BudgetExceeded, BudgetRevoked, UnknownPriceError, UnboundedCallError, InvalidDowngradeError) as error:
            return self._blocked(decision_id, call, plan, error)

    def _too_late(self) -> BudgetExceeded | None:
        most = self.budget.max_duration_s
        if most is None or (elapsed := self.books.timeline.at()) <= most:
            return None
        return BudgetExceeded(
            dimension="max_duration_s",
            limit=most,
            actual=round(elapsed, 3),
            scope=str(self._scope),
            remedy=_RAISE.format("max_duration_s"),
        )

    def _attempt(
        self, budget: Budget, decision_id: str, call: ModelCall | ToolCall
    ) -> Flow[tuple[ReserveOutcome, Plan]]:
        """Try to hold *call*: on its own model, or on the first cheaper one that fits."""
        if isinstance(call, ToolCall):
            plan = _plan_tool(call)
            needed = plan.amounts.plus(Amounts(cost=budget.kept_back.cost))
            return (yield from self._reserve(decision_id, plan, needed)), plan
        left: Limits = yield "remaining", (self.scopes,)
        admission = self._admission
        rungs = [admission.asked(budget, call, left)]
        if budget.downgrade is not None or len(self.scopes) > 1:
            balances: Sequence[Balance] = yield "balances", (self.scopes,)
            if budget.soft_limit is not None:
                for balance in balances[1:]:  # the run's own is looked at whenever something is booked
                    self.books.warn(balance.scope, balance.limits, balance.committed, budget.soft_limit)
            if budget.downgrade is not None:
                rungs = admission.rungs(budget, budget.downgrade, call, rungs[0], balances)
        first: tuple[ReserveOutcome, Plan] | None = None
        for rung in rungs:
            plan = admission.plan(budget, call, rung, left)
            outcome = yield from self._reserve(decision_id, plan, room(budget, plan, call.final))
            if not isinstance(outcome, Refused):
                return outcome, plan
            first = first or (outcome, plan)
            if outcome.dimension:
                break  # only the cost is less on a cheaper model
        assert first is not None  # there is always a first rung
        return first

    def _reserve(self, decision_id: str, plan: Plan, needed: Amounts | None) -> Flow[ReserveOutcome]:
        try:
            outcome: ReserveOutcome = yield "reserve", (decision_id, self.scopes, plan.amounts, needed)
            return outcome
        except BaseException:  # a lost reply, a cancellation: it may hold all the same, and nobody would know the id
            try:
                yield "release", (decision_id,)
            except Exception as error:
                _log.info("budget_guard %s: could not take back the hold %s: %s", self._scope, decision_id, error)
            raise

    def _admitted(
        self, decision_id: str, call: ModelCall | ToolCall, plan: Plan, ignored: BudgetError | None
    ) -> Decision:
        name = plan.rung.model
        requested = call[0]  # the model, or the tool
        action: Action = "allow"
        reason = ""
        if name != requested:
            action, reason = "downgrade", plan.rung.why
        if ignored is not None:
            action, reason = "advisory_warn", str(ignored)
        timeline = self.books.timeline
        decision = Decision(
            decision_id,
            timeline.at(),
            action,
            "model" if isinstance(call, ModelCall) else "tool",
            name,
            requested,
            plan.estimate,
            plan.output_cap,
            plan.clamped,
            plan.bounded,
            self._scope_names,
            self._basis,
            reason,
            None,
            Reservation(decision_id, call, plan, self),
        )
        timeline.admitted(decision)
        if name != requested:
            timeline.emit(ModelDowngraded(decision.at_s, decision_id, requested, name, reason))
        if not plan.bounded and not self._warned_unbounded and self.budget.mode == "hard_gate" and plan.amounts.cost:
            self._warn_unbounded(name)
        return decision

    def _blocked(self, decision_id: str, call: ModelCall | ToolCall, plan: Plan | None, error: BudgetError) -> Decision:
        requested = call[0]
        books = self.books
        at_s = books.timeline.at()
        books.terminated_by = _cause(error)
        books.timeline.emit(CallBlocked(at_s, decision_id, requested, str(error)))
        error.decision_id = decision_id
        if isinstance(error, (BudgetExceeded, BudgetRevoked)):
            error.report = self._report(_EVENTS_IN_ERRORS)
        decision = Decision(
            decision_id,
            at_s,
            "block",
            "model" if isinstance(call, ModelCall) else "tool",
            requested,
            requested,
            plan.estimate if plan else Estimate(0, 0, 0),
            None,
            False,
            plan.bounded if plan else False,
            self._scope_names,
            self._basis,
            str(error),
            error,
            None,
        )
        books.timeline.decisions.append(decision)
        _log.info("budget_guard %s: blocked %s: %s", self._scope, requested, error)
        return decision

    def _exceeded(self, refused: Refused, asked: Amounts | None) -> BudgetExceeded:
        i = refused.dimension
        return BudgetExceeded(
            dimension=DIMENSIONS[i],
            limit=in_unit(i, refused.limit),
            actual=in_unit(i, refused.committed + refused.reserved),
            scope=str(refused.scope),
            estimate=None if asked is None else in_unit(i, asked[i]),
            remedy=_RAISE.format(DIMENSIONS[i]),
        )

    def _warn_unbounded(self, model: str) -> None:
        self._warned_unbounded = True
        warnings.warn(
            f"Nothing caps the output of {model!r}, so its cost may pass what is held for it. Set the model's own "
            "maximum output tokens, use an adapter that can send a cap, or refuse such calls: "
            'Budget(unbounded="deny").',
            RuntimeWarning,
            stacklevel=2,
        )

    # While it runs

    def interruption(self, reservation: Reservation, output_tokens: int) -> BudgetError | None:
        """Why a call that has begun must not go on. Asks no ledger: it is called for every piece of a stream."""
        if self.revoked is not None:
            return self.revoked
        late = self._too_late()
        if late is not None:
            return late
        plan = reservation.plan
        if plan.bounded and self.budget.mode == "hard_gate" and output_tokens > plan.amounts.output_tokens > 0:
            return BudgetExceeded(
                dimension="call_max_output_tokens",
                limit=plan.amounts.output_tokens,
                actual=output_tokens,
                scope=str(self._scope),
                decision_id=reservation.id,
                detail="the provider does not keep to the output cap that it was sent",
            )
        return None

    # After it

    def bill(self, reservation: Reservation, usage: Usage, model: str | None) -> tuple[Amounts, str | None]:
        """What to commit for *usage*, and why it is no exact price, if it is none.

        Money that was spent is never refused here, and never booked as nothing.
        """
        call, plan = reservation.call, reservation.plan
        if not isinstance(call, ModelCall):
            raise TypeError(f"{call.tool!r} is a tool call: settle it with commit_cost")
        price = plan.rung.price
        if model is not None and model != plan.rung.model:
            price = self._admission.price_called(call, model, price)
        unpriced: str | None = None
        if price is None:
            cost, unpriced = 0, f"no price is known for {model or plan.rung.model!r}"
        else:
            try:
                cost = price.cost(usage, self._clock.now() if price.varies_by_hour else None)
            except UnknownPriceError:
                # It is spent, whatever it was: at least what was held, and at least the part that has a price.
                cost, unpriced = priced_part(price, usage)
                cost = max(cost, plan.amounts.cost)
        input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
        return Amounts(cost, input_tokens, output_tokens, input_tokens + output_tokens, usage.requests or 1), unpriced

    def bill_tool(self, reservation: Reservation, cost: UsdLike) -> Amounts:
        """What to commit for a tool call that cost *cost* dollars."""
        if not isinstance(reservation.call, ToolCall):
            raise TypeError(f"{reservation.call.model!r} is a model call: settle it with commit(usage)")
        return Amounts(cost=nano_of(cost, "cost"), tool_calls=1)

    def settled(
        self,
        reservation: Reservation,
        settled: Settled,
        *,
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
        plan, charged, uncertain = reservation.plan, settled.charged, settled.uncertain
        name, violated = model or plan.rung.model, False
        if isinstance(reservation.call, ModelCall):
            anchors = self._admission.anchors
            if uncertain and (plan.rung.price is None or not charged.total_tokens):
                unpriced = why  # nobody knows what it cost, and nothing was estimated
            elif not uncertain:
                held = plan.amounts
                violated = plan.bounded and (
                    charged.input_tokens > held.input_tokens or charged.output_tokens > held.output_tokens
                )
                if violated:
                    anchors.distrust(name)
                else:
                    anchors.learn(name, reservation.call.prompt, charged.input_tokens, charged.output_tokens)
        booked = Booked(name, charged, uncertain, unpriced is not None, violated)
        if self.books.record(reservation, booked, why or unpriced):
            self._warn(settled.committed)
        return charged.cost

    def released(self, reservation: Reservation, reason: str, freed: bool) -> None:
        """Take note that the ledger gave a hold back."""
        reservation.settled = True
        if freed:
            timeline = self.books.timeline
            timeline.emit(CallReleased(timeline.at(), reservation.id, reservation.plan.rung.model, reason))

    def charge(self, call: ToolCall) -> Flow[None]:
        """Book money that was spent without asking."""
        self.books.timeline.start()
        plan = _plan_tool(call)
        charge = Reservation(f"{self._prefix}-{next(self._numbers)}", call, plan, self)
        passed: Refused | None = yield "charge", (charge.id, self.scopes, plan.amounts)
        self.books.record(charge, Booked(call.tool, plan.amounts, False, False, False), None)
        balances: Sequence[Balance] = yield "balances", (self.scopes[:1],)
        self._warn(balances[0].committed)
        if passed is not None:
            error = self._exceeded(passed, None)
            error.report = self._report(_EVENTS_IN_ERRORS)
            self.books.terminated_by = _cause(error)
            raise error

    def cut_short(self, reservation: Reservation) -> BudgetExceeded | None:
        """The error for an answer that the guard's own output cap made useless."""
        plan = reservation.plan
        if not plan.clamped:
            return None
        balance = self.ledger.balances(self.scopes[:1])[0]
        i = next((i for i in (0, 2, 3) if balance.limits[i] is not None), 0)
        return BudgetExceeded(
            dimension=DIMENSIONS[i],
            limit=in_unit(i, balance.limits[i] or 0),
            actual=in_unit(i, balance.committed[i] + balance.reserved[i]),
            scope=str(self._scope),
            decision_id=reservation.id,
            report=self._report(_EVENTS_IN_ERRORS),
            detail=f"what was left paid for {plan.output_cap} output tokens, which cut the answer off",
            remedy=_RAISE.format(DIMENSIONS[i]),
        )

    def _warn(self, committed: Amounts) -> None:
        if self.budget.soft_limit is not None:
            self.books.warn(self._scope, self._limits, committed, self.budget.soft_limit)


def _revoked(outcome: Revoked) -> BudgetRevoked:
    return BudgetRevoked(scope=str(outcome.scope), reason=outcome.reason, at=outcome.at)


def _plan_tool(call: ToolCall) -> Plan:
    return Plan(Rung(call.tool, None), Amounts(cost=call.cost, tool_calls=1), None, False, True)


def _cause(error: BudgetError) -> str:
    if isinstance(error, BudgetExceeded):
        return error.dimension
    causes: dict[type[BudgetError], str] = {
        BudgetRevoked: "revoked",
        UnknownPriceError: "unknown_price",
        UnboundedCallError: "unbounded",
    }
    return causes.get(type(error), "downgrade")
