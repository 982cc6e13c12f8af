"""The authorizer of one session: decides whether a call may be made, and holds its worst case.

One way through, for every call: keep up what the session keeps up, offer the ample plan to the ledger, and only where
that is refused look at what is left and fit the call into it. `Authorizer.authorize` is that rule, written once as a
flow. `Authorizer.offer` is its first step for a call that needs no other: with it, `Session` asks the ledger by itself
and saves the flow, which costs as much as the decision.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TypeAlias

from budget_guard.calls.call import ModelCall, ToolCall, name_of
from budget_guard.calls.decision import Action, Basis, Decision, DecisionLog
from budget_guard.calls.plan import Plan
from budget_guard.calls.refusals import cause, exceeded, revoked
from budget_guard.calls.reservation import Reservation
from budget_guard.calls.run import Run
from budget_guard.calls.worst_case import plan_tool, room
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.events.model import CallBlocked, ModelDowngraded
from budget_guard.ledger.base import Balance, Refused, ReserveOutcome, Revoked
from budget_guard.ledger.counters import least_left
from budget_guard.ledger.flow import Flow
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums, unchecked

_log = logging.getLogger("budget_guard")

_REFUSALS = (
    BudgetExceeded,
    BudgetRevoked,
    UnknownPriceError,
    UnboundedCallError,
    InvalidDowngradeError,
    ForeignRun,
)


Offer: TypeAlias = tuple[str, float, Plan, Sums]
"""The first request to the ledger for a call: the hold's id, when, the plan, and the room that must be left for it."""


class Authorizer:
    """Decides on the calls of one run.

    Args:
        run: The run.
        decisions: Where the decisions are logged.
    """

    def __init__(self, run: Run, decisions: DecisionLog) -> None:
        self.decisions = decisions
        self._run = run
        self._timeline = run.recorder.timeline
        self._basis = Basis(tuple(map(str, run.scopes)), run.planner.ladder.prices.basis)
        self._warned_unbounded = False

    def offer(self, call: ModelCall | ToolCall) -> Offer | None:
        """The first request to the ledger for *call*, where that may be all there is to do; None where it is not."""
        run = self._run
        for each in run.keepalives:
            if each.due():
                return None
        at_s = self._timeline.start()
        if run.budget.max_duration_s is not None and run.too_late(at_s) is not None:
            return None
        ample = self._ample(call, at_s)
        if ample is None:
            return None
        new_id = run.new_id
        return new_id(), at_s, *ample

    def _ample(self, call: ModelCall | ToolCall, at_s: float) -> tuple[Plan, Sums] | None:
        """The plan where enough is left for certain, and the room that proves it."""
        run = self._run
        if isinstance(call, ModelCall):
            return run.planner.ample(run.budget, call, at_s)
        return plan_tool(call, run.budget)

    def authorize(
        self, call: ModelCall | ToolCall, may_wait: bool, sent: bool, refused: ReserveOutcome | None = None
    ) -> Flow[Decision]:
        """Decide on *call* and hold its worst case.

        Args:
            call: The call.
            may_wait: Whether the caller can wait for room.
            sent: Whether the call is sent as soon as it is held.
            refused: What the ledger answered to the `offer`, where that was made already.
        """
        run, timeline = self._run, self._timeline
        at_s = timeline.start()
        hold_id = run.new_id()
        plan: Plan | None = None
        outcome = refused
        try:
            for each in run.keepalives:
                yield from each.keep()
            ignored: BudgetError | None = self._late(at_s)
            if outcome is None and (ample := self._ample(call, at_s)) is not None:
                plan, needed = ample
                _, amounts = plan
                outcome = yield "reserve", (hold_id, run.scopes, amounts, needed, None, True, sent)
            if plan is None or isinstance(outcome, Refused):
                outcome, plan = yield from self._reserve_best_fit(hold_id, call, sent, outcome)
            deadline = run.clock.monotonic() + run.budget.max_wait_s
            while may_wait and isinstance(outcome, Refused) and outcome.waiting_helps:
                patience = deadline - run.clock.monotonic()
                if patience <= 0:
                    break
                yield "await_room", (outcome.version, patience)
                at_s = timeline.at()
                ignored = self._late(at_s)
                hold_id = run.new_id()  # a ledger may by now remember nothing as old as the last one
                outcome, plan = yield from self._reserve_best_fit(hold_id, call, sent, None)
            if isinstance(outcome, Refused):
                _, amounts = plan
                final = isinstance(call, ModelCall) and call.final
                ignored = exceeded(outcome, amounts, NOTHING if final else run.budget.kept_back, now=run.clock.now())
                if run.budget.mode != "advisory_estimate":
                    raise ignored
                outcome = yield "reserve", (hold_id, run.scopes, amounts, None, None, True, sent)
            if isinstance(outcome, Revoked):
                raise revoked(outcome)
            return self.admitted(hold_id, at_s, call, plan, ignored)
        except BaseException as error:
            return (yield from self.failed(hold_id, at_s, call, plan, error))

    def _late(self, at_s: float) -> BudgetExceeded | None:
        """Refuse a call that comes too late; the error that advisory mode ignores."""
        late = self._run.too_late(at_s)
        if late is not None and self._run.budget.mode != "advisory_estimate":
            raise late
        return late

    def failed(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan | None, error: BaseException
    ) -> Flow[Decision]:
        """Decide where *error* came in the way: refuse the call, or leave nothing held and raise it."""
        if isinstance(error, LedgerUnavailable):  # what may be held is the outbox's to give back
            return self._without_ledger(hold_id, at_s, call, plan, error)
        if isinstance(error, _REFUSALS):
            return self._blocked(hold_id, call, plan, error)
        try:  # a cancellation: it may hold all the same, and nothing else knows the id
            yield "release", (hold_id, self._run.scopes)
        except Exception as unreleased:
            _log.info("budget_guard %s: could not take back the hold %s: %s", self._run.scope, hold_id, unreleased)
        raise error

    def _without_ledger(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan | None, error: LedgerUnavailable
    ) -> Decision:
        """Decide while it cannot be known what is left: by the mode, loudly."""
        run = self._run
        try:
            if not run.fails_open:
                raise error
            late = run.too_late(at_s)
            stop = run.revoked or (None if run.budget.mode == "advisory_estimate" else late)
            if stop is not None:
                raise stop
            if run.budget.mode != "advisory_estimate":
                self._must_be_left(run.recorder.totals.total())
            if isinstance(call, ToolCall):
                plan, _ = plan_tool(call, run.budget)
            elif plan is None:
                left, planner = run.limits, run.planner
                plan = planner.plan(run.budget, call, planner.ladder.asked(run.budget, call, left), left)
            terms, _ = plan
            _log.error("budget_guard %s: %s is made without a hold: %s", run.scope, terms.rung.model, error)
            return self.admitted(hold_id, at_s, call, plan, error)
        except LedgerUnavailable:
            _log.error("budget_guard %s: %s is refused: %s", run.scope, name_of(call), error)
            return self._blocked(hold_id, call, plan, error)
        except _REFUSALS as refused:
            return self._blocked(hold_id, call, plan, refused)

    def _must_be_left(self, spent: Amounts) -> None:
        """Stop a run whose own limit is reached by what this session alone has spent: that much is known."""
        for i, limit in enumerate(self._run.limits):
            if limit is not None and spent[i] >= limit:
                raise exceeded(Refused(self._run.scope, i, limit, spent[i], 0, False, 0, Limits()), None)

    def _reserve_best_fit(
        self, hold_id: str, call: ModelCall | ToolCall, sent: bool, refused: ReserveOutcome | None
    ) -> Flow[tuple[ReserveOutcome, Plan]]:
        """Try to hold *call* in what is left: on its own model, or on the first cheaper one that fits.

        The answer to the first plan that does not fit is the one that is told.

        Args:
            hold_id: The hold's id.
            call: The call.
            sent: Whether the call is sent as soon as it is held.
            refused: What the ledger answered to the ample plan just now.
        """
        run, budget = self._run, self._run.budget
        if isinstance(call, ToolCall):
            plan, needed = plan_tool(call, budget)
            if refused is not None:
                return refused, plan
            _, amounts = plan
            outcome: ReserveOutcome = yield "reserve", (hold_id, run.scopes, amounts, needed, None, True, sent)
            return outcome, plan
        policy = call.downgrade or budget.downgrade
        balances: Sequence[Balance] = ()
        if isinstance(refused, Refused) and policy is None:
            left = refused.left
        else:
            balances = yield "balances", (run.scopes,)
            left = least_left(balances)
        ladder = run.planner.ladder
        rungs = [ladder.asked(budget, call, left)]
        if policy is not None:
            rungs = ladder.rungs(budget, policy, call, rungs[0], balances)
        tried: list[tuple[ReserveOutcome, Plan]] = []
        for rung in rungs:
            _, amounts = plan = run.planner.plan(budget, call, rung, left)
            needed = room(budget, amounts, call.final)
            outcome = yield "reserve", (hold_id, run.scopes, amounts, needed, None, True, sent)
            if not isinstance(outcome, Refused):
                return outcome, plan
            tried.append((outcome, plan))
        return tried[0]

    def admitted(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan, ignored: BudgetError | None = None
    ) -> Decision:
        """The decision on a call that is held, noted."""
        terms, amounts = plan
        requested, name = name_of(call), terms.rung.model
        action: Action = "allow"
        reason = ""
        if name != requested:
            action, reason = "downgrade", terms.rung.why
        if ignored is not None:
            action, reason = "advisory_warn", str(ignored)
        reservation = Reservation(hold_id, call, plan, self._run)
        decision = unchecked(
            Decision,
            (hold_id, at_s, action, call, requested, name, terms, amounts, self._basis, reason, None, reservation),
        )
        emit = self._timeline.emit
        self.decisions.add(decision)
        emit(decision)
        if name != requested:
            emit(ModelDowngraded(at_s, hold_id, requested, name, reason))
        if not terms.bounded and not self._warned_unbounded:
            self._warn_unbounded(plan)
        return decision

    def _blocked(self, decision_id: str, call: ModelCall | ToolCall, plan: Plan | None, error: BudgetError) -> Decision:
        requested = name_of(call)
        recorder = self._run.recorder
        at_s = recorder.timeline.at()
        recorder.terminated_by = cause(error)
        recorder.timeline.emit(CallBlocked(at_s, decision_id, requested, str(error)))
        error.decision_id = decision_id
        if isinstance(error, (BudgetExceeded, BudgetRevoked)):
            error.report = self._run.report_for_error()
        terms, held = plan or (None, NOTHING)
        decision = Decision(
            decision_id, at_s, "block", call, requested, requested, terms, held, self._basis, str(error), error, None
        )
        self.decisions.add(decision)
        _log.info("budget_guard %s: blocked %s: %s", self._run.scope, requested, error)
        return decision

    def _warn_unbounded(self, plan: Plan) -> None:
        terms, amounts = plan
        if self._run.budget.mode != "hard_gate" or not amounts.cost:
            return
        self._warned_unbounded = True
        warnings.warn(
            f"Nothing caps the output of {terms.rung.model!r}, so its cost may pass what is held for it. Set the "
            "model's own maximum output tokens, use an adapter that can send a cap, or refuse such calls: "
            'Budget(unbounded="deny").',
            RuntimeWarning,
            stacklevel=2,
        )
