"""The engine of a session: authorises, settles and books, written once for blocking and awaiting callers."""

from __future__ import annotations

import itertools
import logging
import threading
import warnings
from collections.abc import Callable, Sequence

from budget_guard import events
from budget_guard.admission import Admission, Plan, Rung, room
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
from budget_guard.flow import Flow
from budget_guard.ledger.base import Balance, Held, Ledger, Refused, ReserveOutcome, Revoked, Settled
from budget_guard.pricing import PriceTable
from budget_guard.report import BudgetReport
from budget_guard.reservation import Reservation
from budget_guard.scope import Scope
from budget_guard.tally import Tally
from budget_guard.timeline import Timeline
from budget_guard.usage import Usage

_log = logging.getLogger("budget_guard")

_RAISE = "Raise it with raise_limits({}=...), or start over with a larger Budget."


class Accountant:
    """Decides and books for one run. Its flows yield ledger verbs; everything else is worked out here."""

    def __init__(
        self,
        budget: Budget,
        ledger: Ledger,
        scopes: Sequence[Scope],
        prices: PriceTable,
        clock: Clock,
        report: Callable[[], BudgetReport],
    ) -> None:
        self.budget = budget
        self.ledger = ledger
        self.scopes = tuple(scopes)
        self.tally = Tally()
        self.timeline = Timeline(clock)
        self.terminated_by: str | None = None
        self.revoked: BudgetRevoked | None = None
        """Set where the run was cut off by this very session."""
        self.lock = threading.Lock()
        """Guards the tally, the anchors and what was warned of."""
        self._scope = scopes[0]
        self._scope_names = tuple(map(str, scopes))
        self._admission = Admission(prices)
        self._clock = clock
        self._report = report
        self._numbers = itertools.count(1)
        self._spent = Amounts()
        self._warned: set[tuple[Scope, int]] = set()
        self._warned_unbounded = False

    def authorize(self, call: ModelCall | ToolCall) -> Flow[Decision]:
        """Decide on *call* and hold its worst case."""
        self.timeline.start()
        decision_id = f"{self._scope.id}-{next(self._numbers)}"
        plan: Plan | None = None
        try:
            budget = self._in_time()
            deadline: float | None = None
            while True:
                outcome, plan = yield from self._attempt(budget, decision_id, call)
                if not isinstance(outcome, Refused):
                    break
                now = self._clock.monotonic()
                deadline = now + budget.max_wait_s if deadline is None else deadline
                if not outcome.waiting_helps or now >= deadline:
                    break
                yield "await_room", (outcome.version, deadline - now)
                budget = self._in_time()
            if isinstance(outcome, Held):
                return self._admitted(decision_id, call, plan, None)
            error: BudgetError = self._refusal(outcome, plan)
            if budget.mode == "advisory_estimate" and isinstance(outcome, Refused):
                yield "reserve", (decision_id, self.scopes, plan.amounts, None)
                return self._admitted(decision_id, call, plan, str(error))
        except (BudgetExceeded, UnknownPriceError, UnboundedCallError, InvalidDowngradeError) as refusal:
            error = refusal
        return self._blocked(decision_id, call, plan, error)

    def _in_time(self) -> Budget:
        budget = self.budget
        if budget.max_duration_s is not None and (elapsed := self.timeline.at()) > budget.max_duration_s:
            raise BudgetExceeded(
                dimension="max_duration_s",
                limit=budget.max_duration_s,
                actual=round(elapsed, 3),
                scope=str(self._scope),
                remedy=_RAISE.format("max_duration_s"),
            )
        return budget

    def _attempt(
        self, budget: Budget, decision_id: str, call: ModelCall | ToolCall
    ) -> Flow[tuple[ReserveOutcome, Plan]]:
        """Try to hold *call*: on its own model, or on the first cheaper one that fits."""
        balances: Sequence[Balance] = yield "balances", (self.scopes,)
        if len(self.scopes) > 1:
            for balance in balances[1:]:
                self._warn(balance.scope, balance.limits, balance.committed)
        if isinstance(call, ToolCall):
            plan = _plan_tool(call)
            outcome: ReserveOutcome = yield "reserve", (decision_id, self.scopes, plan.amounts, plan.amounts)
            return outcome, plan
        first: tuple[ReserveOutcome, Plan] | None = None
        for rung in self._admission.rungs(budget, call, balances, self._clock.now()):
            with self.lock:
                plan = self._admission.plan(budget, call, rung, balances)
            needed = room(budget, plan, call.final)
            outcome = yield "reserve", (decision_id, self.scopes, plan.amounts, needed)
            if not isinstance(outcome, Refused):
                return outcome, plan
            first = first or (outcome, plan)
            if outcome.dimension:
                break  # only the cost is less on a cheaper model
        assert first is not None  # there is always a first rung
        return first

    def _admitted(self, decision_id: str, call: ModelCall | ToolCall, plan: Plan, would_refuse: str | None) -> Decision:
        name = plan.rung.model
        requested = call.tool if isinstance(call, ToolCall) else call.model
        action: Action = "allow"
        reason = ""
        if would_refuse is not None:
            action, reason = "advisory_warn", would_refuse
        elif name != requested:
            action, reason = "downgrade", f"{requested} is too dear for what is left"
        at_s = self.timeline.at()
        decision = Decision(
            decision_id,
            at_s,
            action,
            name,
            requested,
            plan.estimate,
            plan.output_cap,
            plan.clamped,
            plan.bounded,
            self._scope_names,
            self._admission.prices.basis,
            reason,
            None,
            Reservation(decision_id, call, plan, self),
        )
        timeline = self.timeline
        timeline.decisions.append(decision)
        timeline.emit(events.CallAdmitted(at_s, decision_id, name, plan.amounts.cost))
        if name != requested:
            timeline.emit(events.ModelDowngraded(at_s, decision_id, requested, name, reason))
        if not plan.bounded and self.budget.mode == "hard_gate" and not self._warned_unbounded:
            self._warn_unbounded(name)
        return decision

    def _blocked(self, decision_id: str, call: ModelCall | ToolCall, plan: Plan | None, error: BudgetError) -> Decision:
        requested = call.tool if isinstance(call, ToolCall) else call.model
        at_s = self.timeline.at()
        self.terminated_by = _cause(error)
        self.timeline.emit(events.CallBlocked(at_s, decision_id, requested, str(error)))
        error.decision_id = decision_id
        if isinstance(error, (BudgetExceeded, BudgetRevoked)):
            error.report = self._report()
        decision = Decision(
            decision_id,
            at_s,
            "block",
            requested,
            requested,
            plan.estimate if plan else Estimate(0, 0, 0),
            None,
            False,
            plan.bounded if plan else False,
            self._scope_names,
            self._admission.prices.basis,
            str(error),
            error,
            None,
        )
        self.timeline.decisions.append(decision)
        _log.warning("%s: blocked %s: %s", self._scope, requested, error)
        return decision

    def _refusal(self, outcome: ReserveOutcome, plan: Plan) -> BudgetExceeded | BudgetRevoked:
        if isinstance(outcome, Revoked):
            return BudgetRevoked(scope=str(outcome.scope), reason=outcome.reason, at=outcome.at)
        assert isinstance(outcome, Refused)
        i = outcome.dimension
        return BudgetExceeded(
            dimension=DIMENSIONS[i],
            limit=in_unit(i, outcome.limit),
            actual=in_unit(i, outcome.committed + outcome.reserved),
            scope=str(outcome.scope),
            estimate=in_unit(i, plan.amounts[i]),
            remedy=_RAISE.format(DIMENSIONS[i]),
        )

    def forward(self, reservation: Reservation) -> Flow[None]:
        """Note that the call is being sent."""
        yield "forward", (reservation.id,)

    def commit(self, reservation: Reservation, usage: Usage | None, reason: str, model: str | None = None) -> Flow[int]:
        """Book *usage*, or the estimate where it is None. Money that was spent is never refused here."""
        call, plan = reservation.call, reservation.plan
        assert isinstance(call, ModelCall)
        name, price, held = plan.rung.model, plan.rung.price, plan.amounts
        if model is not None and model != name:
            name, price = model, self._admission.price_called(call, model, price, self._clock.now())
        uncertain, unpriced = usage is None, price is None
        if usage is None:
            amounts = held
        else:
            cost = 0
            if price is not None:
                try:
                    cost = price.cost(usage, self._clock.now())
                except UnknownPriceError as error:
                    # It is spent, whatever it was: at least what was held, and said to be unpriced.
                    cost, unpriced, reason = held.cost, True, str(error)
            amounts = Amounts(cost, *_tokens(usage), max(1, usage.requests))
        settled: Settled = yield "commit", (reservation.id, amounts, uncertain)
        at_s = self.timeline.at()
        with self.lock:
            first = self._book(reservation, amounts, settled, uncertain)
            replaced = settled.replaced or Amounts()
            self.tally.model(
                name,
                call.agent,
                amounts.cost - replaced.cost,
                first,
                amounts.input_tokens - replaced.input_tokens,
                amounts.output_tokens - replaced.output_tokens,
            )
            if unpriced:
                self.tally.unpriced_calls += first
            exceeded = (
                plan.bounded
                and usage is not None
                and (amounts.input_tokens > held.input_tokens or amounts.output_tokens > held.output_tokens)
            )
            if exceeded:
                self.tally.violations += first
                self._admission.anchors.distrust(name)
            elif usage is not None:
                self._admission.anchors.learn(name, call.prompt, amounts.input_tokens, amounts.output_tokens)
        if settled.replaced == amounts:
            return amounts.cost  # said before
        if exceeded:
            self.timeline.emit(
                events.BoundViolated(at_s, reservation.id, name, held.total_tokens, amounts.total_tokens)
            )
        self._tell(reservation, name, amounts, settled, uncertain, at_s)
        if uncertain or unpriced:
            _log.warning("%s: booked an estimate of %s for %s: %s", self._scope, amounts.cost, name, reason)
        return amounts.cost

    def interruption(self, reservation: Reservation, output_tokens: int) -> BudgetError | None:
        """Why a call that has begun must not go on. Asks no ledger: it is called for every piece of a stream."""
        if self.revoked is not None:
            return self.revoked
        try:
            self._in_time()
        except BudgetExceeded as error:
            return error
        plan = reservation.plan
        if plan.bounded and self.budget.mode == "hard_gate" and output_tokens > plan.estimate.output_tokens > 0:
            return BudgetExceeded(
                dimension="call_max_output_tokens",
                limit=plan.estimate.output_tokens,
                actual=output_tokens,
                scope=str(self._scope),
                remedy="The provider did not keep to the output cap that it was sent.",
            )
        return None

    def cut_short(self, reservation: Reservation) -> BudgetExceeded | None:
        """The error for an answer that the guard's own output cap made useless."""
        plan = reservation.plan
        if not plan.clamped:
            return None
        limits = self.budget.limits
        i = next((i for i in (0, 2, 3) if limits[i] is not None), 0)
        return BudgetExceeded(
            dimension=DIMENSIONS[i],
            limit=in_unit(i, limits[i] or 0),
            actual=in_unit(i, self._spent[i]),
            scope=str(self._scope),
            estimate=in_unit(i, plan.amounts[i]),
            decision_id=reservation.id,
            report=self._report(),
            remedy=f"What is left paid for {plan.output_cap} output tokens, which cut the answer off. "
            + _RAISE.format(DIMENSIONS[i]),
        )

    def commit_tool(self, reservation: Reservation, cost: int) -> Flow[int]:
        """Book what a tool call cost, in nano-dollars."""
        call = reservation.call
        assert isinstance(call, ToolCall)
        amounts = Amounts(cost=cost, tool_calls=1)
        settled: Settled = yield "commit", (reservation.id, amounts, False)
        with self.lock:
            first = self._book(reservation, amounts, settled, uncertain=False)
            replaced = settled.replaced or Amounts()
            self.tally.tool(call.tool, call.agent, cost - replaced.cost, first)
        if settled.replaced != amounts:
            self._tell(reservation, call.tool, amounts, settled, False, self.timeline.at())
        return cost

    def release(self, reservation: Reservation, reason: str) -> Flow[None]:
        """Give the hold back."""
        if (yield "release", (reservation.id,)):
            reservation.settled = True
            name = reservation.plan.rung.model
            self.timeline.emit(events.CallReleased(self.timeline.at(), reservation.id, name, reason))

    def charge(self, call: ToolCall) -> Flow[None]:
        """Book money that was spent without asking."""
        self.timeline.start()
        charge_id = f"{self._scope.id}-{next(self._numbers)}"
        plan = _plan_tool(call)
        passed: Refused | None = yield "charge", (charge_id, self.scopes, plan.amounts)
        with self.lock:
            self._spent = self._spent.plus(plan.amounts)
            self.tally.tool(call.tool, call.agent, call.cost, 1)
        self.timeline.emit(events.CallCommitted(self.timeline.at(), charge_id, call.tool, call.cost, False))
        self._warn(self._scope, self.budget.limits, self._spent)
        if passed is not None:
            error = self._refusal(passed, plan)
            error.report = self._report()
            self.terminated_by = _cause(error)
            raise error

    def _book(self, reservation: Reservation, amounts: Amounts, settled: Settled, uncertain: bool) -> int:
        """Keep the sums that are the same for models and tools; return 1 if it is the first time, else 0."""
        replaced = settled.replaced
        if replaced is None:
            self._spent = self._spent.plus(amounts)
        else:
            self._spent = Amounts(*(s + a - r for s, a, r in zip(self._spent, amounts, replaced, strict=True)))
            if replaced != amounts and not uncertain:
                self.tally.uncertain -= replaced.cost
        if uncertain and replaced is None:
            self.tally.uncertain += amounts.cost
        if replaced != amounts:
            self.tally.overrun += settled.overrun
        reservation.settled = True
        return 1 if replaced is None else 0

    def _tell(
        self, reservation: Reservation, name: str, amounts: Amounts, settled: Settled, uncertain: bool, at_s: float
    ) -> None:
        self.timeline.emit(events.CallCommitted(at_s, reservation.id, name, amounts.cost, uncertain))
        if settled.overrun:
            self.timeline.emit(events.OverrunCharged(at_s, reservation.id, name, settled.overrun))
        self._warn(self._scope, self.budget.limits, self._spent)

    def _warn(self, scope: Scope, limits: Limits, committed: Amounts) -> None:
        """Send `SoftLimitReached`, once for each limit."""
        at = self.budget.soft_limit
        if at is None:
            return
        for i, limit in enumerate(limits):
            if limit is not None and committed[i] >= limit * at and (scope, i) not in self._warned:
                with self.lock:
                    if (scope, i) in self._warned:
                        continue
                    self._warned.add((scope, i))
                fraction = committed[i] / limit if limit else 1.0
                self.timeline.emit(
                    events.SoftLimitReached(self.timeline.at(), str(scope), DIMENSIONS[i], round(fraction, 4))
                )
                _log.warning("%s: %s is %.0f%% spent", scope, DIMENSIONS[i], 100 * fraction)

    def forget_warnings(self) -> None:
        """Warn of the run's own limits again: they were raised."""
        with self.lock:
            self._warned = {(scope, i) for scope, i in self._warned if scope != self._scope}

    def _warn_unbounded(self, model: str) -> None:
        self._warned_unbounded = True
        warnings.warn(
            f"Nothing caps the output of {model!r}, so its cost may pass what is held for it. Set the model's own "
            "maximum output tokens, use an adapter that can send a cap, or refuse such calls: "
            'Budget(unbounded="deny").',
            RuntimeWarning,
            stacklevel=2,
        )


def _plan_tool(call: ToolCall) -> Plan:
    amounts = Amounts(cost=call.cost, tool_calls=1)
    return Plan(Rung(call.tool, None), Estimate(0, 0, call.cost), amounts, None, False, True)


def _tokens(usage: Usage) -> tuple[int, int, int]:
    input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    return input_tokens, output_tokens, input_tokens + output_tokens


def _cause(error: BudgetError) -> str:
    if isinstance(error, BudgetExceeded):
        return error.dimension
    causes: dict[type[BudgetError], str] = {
        BudgetRevoked: "revoked",
        UnknownPriceError: "unknown_price",
        UnboundedCallError: "unbounded",
    }
    return causes.get(type(error), "downgrade")
