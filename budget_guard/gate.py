"""The gate in front of every call: which model, how much to hold, and whether it may pass."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from budget_guard.accountant import Accountant
from budget_guard.admission import Plan, plan_tool, room
from budget_guard.budget import Budget
from budget_guard.decision import Action, Decision, ModelCall, ToolCall
from budget_guard.dimension import NOTHING, Amounts, Limits
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    InvalidDowngradeError,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.events import CallBlocked, ModelDowngraded
from budget_guard.flow import Flow
from budget_guard.ledger.base import Balance, Held, Refused, ReserveOutcome, Revoked
from budget_guard.refusal import cause, exceeded, revoked
from budget_guard.reservation import Reservation
from budget_guard.run import Run

_log = logging.getLogger("budget_guard")


class Gate:
    """Decides on calls. Its flow yields ledger verbs, so that it is written once for blocking and awaiting callers."""

    def __init__(self, run: Run, accountant: Accountant) -> None:
        self._run = run
        self._accountant = accountant
        self._scope_names = tuple(map(str, run.scopes))
        self._basis = run.admission.prices.basis
        self._warned_unbounded = False

    def authorize(self, call: ModelCall | ToolCall, may_wait: bool) -> Flow[Decision]:
        """Decide on *call* and hold its worst case; wait for room only where the caller *may_wait*."""
        self._run.books.timeline.start()
        decision_id = self._run.new_id()
        plan: Plan | None = None
        advisory = self._run.budget.mode == "advisory_estimate"
        deadline: float | None = None
        try:
            while True:
                late = self._run.too_late()
                if late is not None and not advisory:
                    raise late
                outcome, plan = yield from self._attempt(self._run.budget, decision_id, call)
                if isinstance(outcome, Held):
                    return self._admitted(decision_id, call, plan, late)
                if isinstance(outcome, Revoked):
                    raise revoked(outcome)
                now = self._run.clock.monotonic()
                deadline = now + self._run.budget.max_wait_s if deadline is None else deadline
                if not may_wait or not outcome.waiting_helps or now >= deadline:
                    break
                yield "await_room", (outcome.version, deadline - now)
            final = isinstance(call, ModelCall) and call.final
            kept = NOTHING if final else self._run.budget.kept_back
            refused = exceeded(outcome, plan.amounts, kept)
            if not advisory:
                raise refused
            outcome = yield from self._reserve(decision_id, plan, None)
            if isinstance(outcome, Revoked):
                raise revoked(outcome)
            return self._admitted(decision_id, call, plan, refused)
        except (BudgetExceeded, BudgetRevoked, UnknownPriceError, UnboundedCallError, InvalidDowngradeError) as error:
            return self._blocked(decision_id, call, plan, error)

    def _attempt(
        self, budget: Budget, decision_id: str, call: ModelCall | ToolCall
    ) -> Flow[tuple[ReserveOutcome, Plan]]:
        """Try to hold *call*: on its own model, or on the first cheaper one that fits."""
        if isinstance(call, ToolCall):
            plan = plan_tool(call)
            needed = plan.amounts.plus(Amounts(cost=budget.kept_back.cost))
            return (yield from self._reserve(decision_id, plan, needed)), plan
        left: Limits = yield "remaining", (self._run.scopes,)
        admission = self._run.admission
        rungs = [admission.asked(budget, call, left)]
        policy = call.downgrade or budget.downgrade
        if policy is not None or len(self._run.scopes) > 1:
            balances: Sequence[Balance] = yield "balances", (self._run.scopes,)
            if budget.soft_limit is not None:
                for balance in balances[1:]:  # the run's own is looked at whenever something is booked
                    self._run.books.warn(balance.scope, balance.limits, balance.committed, budget.soft_limit)
            if policy is not None:
                rungs = admission.rungs(budget, policy, call, rungs[0], balances)
        first: tuple[ReserveOutcome, Plan] | None = None
        for rung in rungs:
            plan = admission.plan(budget, call, rung, left)
            outcome = yield from self._reserve(decision_id, plan, room(budget, plan, call.final))
            if not isinstance(outcome, Refused):
                return outcome, plan
            first = first or (outcome, plan)
        assert first is not None  # there is always a first rung
        return first

    def _reserve(self, decision_id: str, plan: Plan, needed: Amounts | None) -> Flow[ReserveOutcome]:
        try:
            outcome: ReserveOutcome = yield "reserve", (decision_id, self._run.scopes, plan.amounts, needed)
            return outcome
        except BaseException:  # a lost reply, a cancellation: it may hold all the same, and nobody would know the id
            try:
                yield "release", (decision_id,)
            except Exception as error:
                _log.info("budget_guard %s: could not take back the hold %s: %s", self._run.scope, decision_id, error)
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
        timeline = self._run.books.timeline
        decision = Decision(
            decision_id,
            timeline.at(),
            action,
            "model" if isinstance(call, ModelCall) else "tool",
            name,
            requested,
            plan,
            self._scope_names,
            self._basis,
            reason,
            None,
            Reservation(decision_id, call, plan, self._accountant),
        )
        timeline.admitted(decision)
        if name != requested:
            timeline.emit(ModelDowngraded(decision.at_s, decision_id, requested, name, reason))
        if (
            not plan.bounded
            and not self._warned_unbounded
            and self._run.budget.mode == "hard_gate"
            and plan.amounts.cost
        ):
            self._warn_unbounded(name)
        return decision

    def _blocked(self, decision_id: str, call: ModelCall | ToolCall, plan: Plan | None, error: BudgetError) -> Decision:
        requested = call[0]
        books = self._run.books
        at_s = books.timeline.at()
        books.terminated_by = cause(error)
        books.timeline.emit(CallBlocked(at_s, decision_id, requested, str(error)))
        error.decision_id = decision_id
        if isinstance(error, (BudgetExceeded, BudgetRevoked)):
            error.report = self._run.report_for_error()
        decision = Decision(
            decision_id,
            at_s,
            "block",
            "model" if isinstance(call, ModelCall) else "tool",
            requested,
            requested,
            plan,
            self._scope_names,
            self._basis,
            str(error),
            error,
            None,
        )
        books.timeline.decisions.append(decision)
        _log.info("budget_guard %s: blocked %s: %s", self._run.scope, requested, error)
        return decision

    def _warn_unbounded(self, model: str) -> None:
        if self._warned_unbounded:
            return
        self._warned_unbounded = True
        warnings.warn(
            f"Nothing caps the output of {model!r}, so its cost may pass what is held for it. Set the model's own "
            "maximum output tokens, use an adapter that can send a cap, or refuse such calls: "
            'Budget(unbounded="deny").',
            RuntimeWarning,
            stacklevel=2,
        )
