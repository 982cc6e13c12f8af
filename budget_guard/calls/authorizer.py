"""The gate in front of every call: which model, how much to hold, and whether it may pass."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TypeAlias

from budget_guard.calls.decision import Action, Basis, Decision, ModelCall, ToolCall
from budget_guard.calls.refusals import cause, exceeded, revoked
from budget_guard.calls.reservation import Reservation
from budget_guard.calls.run import Run
from budget_guard.calls.settlement import Accountant
from budget_guard.calls.worst_case import Plan, plan_tool, room
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


Ask: TypeAlias = tuple[str, float, tuple[Plan, Sums]]
"""What is asked of the ledger for a call that one question is enough for: the hold's id, when, and what to hold with
what must be left for it."""


class Authorizer:
    """Decides on calls. Its flow yields ledger verbs, so that it is written once for blocking and awaiting callers."""

    def __init__(self, run: Run, accountant: Accountant) -> None:
        self._run = run
        self._accountant = accountant
        self._timeline = run.recorder.timeline
        self._basis = Basis(tuple(map(str, run.scopes)), run.planner.prices.basis)
        self._alone = len(run.scopes) == 1
        self._warned_unbounded = False

    def ask(self, call: ModelCall | ToolCall) -> Ask | None:
        """What to ask the ledger for *call*, where one question is enough; None where what is left matters."""
        run = self._run
        budget = run.budget
        if run.kept:
            return None
        at_s = self._timeline.start()
        if budget.max_duration_s is not None and run.too_late(at_s) is not None:
            return None
        ample: tuple[Plan, Sums] | None
        if not isinstance(call, ModelCall):
            ample = plan_tool(call, budget)
        elif self._alone and call.downgrade is None and budget.downgrade is None:
            ample = run.planner.plan_ample(budget, call, at_s)
        else:
            return None
        if ample is None:
            return None
        new_id = run.new_id
        return new_id(), at_s, ample

    def authorize(
        self, call: ModelCall | ToolCall, may_wait: bool, sent: bool, refused: ReserveOutcome | None = None
    ) -> Flow[Decision]:
        """Decide on *call* and hold its worst case.

        Args:
            call: The call.
            may_wait: Whether the caller can wait for room.
            sent: Whether the call is sent as soon as it is held.
            refused: What the ledger answered to `ask`, where that was asked.
        """
        run, budget, timeline = self._run, self._run.budget, self._timeline
        advisory = budget.mode == "advisory_estimate"
        at_s = timeline.start()
        hold_id = run.new_id()
        plan: Plan | None = None
        try:
            for each in run.kept:
                yield from each.keep()
            ignored = run.too_late(at_s)
            if ignored is not None and not advisory:
                raise ignored
            outcome, plan = yield from self._squeeze(hold_id, call, sent, refused)
            deadline = run.clock.monotonic() + budget.max_wait_s
            while may_wait and isinstance(outcome, Refused) and outcome.waiting_helps:
                patience = deadline - run.clock.monotonic()
                if patience <= 0:
                    break
                yield "await_room", (outcome.version, patience)
                at_s, budget = timeline.at(), run.budget
                ignored = run.too_late(at_s)
                if ignored is not None and not advisory:
                    raise ignored
                hold_id = run.new_id()  # a ledger may by now remember nothing as old as the last one
                outcome, plan = yield from self._squeeze(hold_id, call, sent, None)
            if isinstance(outcome, Refused):
                _, amounts = plan
                final = isinstance(call, ModelCall) and call.final
                ignored = exceeded(outcome, amounts, NOTHING if final else budget.kept_back)
                if not advisory:
                    raise ignored
                outcome = yield "reserve", (hold_id, run.scopes, amounts, None, None, True, sent)
            if isinstance(outcome, Revoked):
                raise revoked(outcome)
            return self.admitted(hold_id, at_s, call, plan, ignored)
        except BaseException as error:
            return (yield from self.failed(hold_id, at_s, call, plan, error))

    def failed(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan | None, error: BaseException
    ) -> Flow[Decision]:
        """Decide where *error* came in the way: refuse the call, or leave nothing held and raise it."""
        if isinstance(error, LedgerUnavailable):  # whoever is to try again later sees to what may be held
            return self._without_ledger(hold_id, at_s, call, plan, error)
        if isinstance(error, _REFUSALS):
            return self._blocked(hold_id, call, plan, error)
        try:  # a cancellation: it may hold all the same, and nobody would know the id
            yield "release", (hold_id, self._run.scopes)
        except Exception as unreleased:
            _log.info("budget_guard %s: could not take back the hold %s: %s", self._run.scope, hold_id, unreleased)
        raise error

    def _without_ledger(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan | None, error: LedgerUnavailable
    ) -> Decision:
        """Decide where nobody can say what is left: by the mode, loudly."""
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
                left, planner = run.budget.limits, run.planner
                plan = planner.plan(run.budget, call, planner.asked(run.budget, call, left), left)
            terms, _ = plan
            _log.error("budget_guard %s: %s is made without a hold: %s", run.scope, terms.rung.model, error)
            return self.admitted(hold_id, at_s, call, plan, error)
        except LedgerUnavailable:
            _log.error("budget_guard %s: %s is refused: %s", run.scope, call[0], error)
            return self._blocked(hold_id, call, plan, error)
        except _REFUSALS as refused:
            return self._blocked(hold_id, call, plan, refused)

    def _must_be_left(self, spent: Amounts) -> None:
        """Stop a run whose own limit is reached by what this session alone has spent: that much is known."""
        for i, limit in enumerate(self._run.budget.limits):
            if limit is not None and spent[i] >= limit:
                raise exceeded(Refused(self._run.scope, i, limit, spent[i], 0, False, 0, Limits()), None)

    def _squeeze(
        self, hold_id: str, call: ModelCall | ToolCall, sent: bool, refused: ReserveOutcome | None
    ) -> Flow[tuple[ReserveOutcome, Plan]]:
        """Try to hold *call* in what is left: on its own model, or on the first cheaper one that fits."""
        run, budget = self._run, self._run.budget
        if isinstance(call, ToolCall):
            plan, needed = plan_tool(call, budget)
            if isinstance(refused, Refused):
                return refused, plan
            _, amounts = plan
            outcome: ReserveOutcome = yield "reserve", (hold_id, run.scopes, amounts, needed, None, True, sent)
            return outcome, plan
        balances: Sequence[Balance] = ()
        if isinstance(refused, Refused):
            left = refused.left
        else:
            balances = yield "balances", (run.scopes,)
            left = least_left(balances)
            if budget.soft_limit is not None:
                for balance in balances[1:]:  # the run's own is looked at whenever something is booked
                    run.recorder.warn(balance.scope, balance.limits, balance.committed, budget.soft_limit)
        rungs = [run.planner.asked(budget, call, left)]
        policy = call.downgrade or budget.downgrade
        if policy is not None:
            rungs = run.planner.rungs(budget, policy, call, rungs[0], balances)
        first: tuple[ReserveOutcome, Plan] | None = None
        for rung in rungs:
            _, amounts = plan = run.planner.plan(budget, call, rung, left)
            needed = room(budget, amounts, call.final)
            outcome = yield "reserve", (hold_id, run.scopes, amounts, needed, None, True, sent)
            if not isinstance(outcome, Refused):
                return outcome, plan
            first = first or (outcome, plan)
        assert first is not None  # there is always a first rung
        return first

    def admitted(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan, ignored: BudgetError | None = None
    ) -> Decision:
        """The decision on a call that is held, noted."""
        terms, _ = plan
        requested, name = call[0], terms.rung.model  # the model, or the tool
        action: Action = "allow"
        reason = ""
        if name != requested:
            action, reason = "downgrade", terms.rung.why
        if ignored is not None:
            action, reason = "advisory_warn", str(ignored)
        reservation = Reservation(hold_id, call, plan, self._accountant)
        decision = unchecked(Decision, (hold_id, at_s, action, call, plan, self._basis, reason, None, reservation))
        timeline = self._timeline
        emit = timeline.emit
        timeline.decisions.append(decision)
        emit(decision)
        if name != requested:
            emit(ModelDowngraded(at_s, hold_id, requested, name, reason))
        if not terms.bounded and not self._warned_unbounded:
            self._warn_unbounded(plan)
        return decision

    def _blocked(self, decision_id: str, call: ModelCall | ToolCall, plan: Plan | None, error: BudgetError) -> Decision:
        requested = call[0]
        recorder = self._run.recorder
        at_s = recorder.timeline.at()
        recorder.terminated_by = cause(error)
        recorder.timeline.emit(CallBlocked(at_s, decision_id, requested, str(error)))
        error.decision_id = decision_id
        if isinstance(error, (BudgetExceeded, BudgetRevoked)):
            error.report = self._run.report_for_error()
        decision = Decision(decision_id, at_s, "block", call, plan, self._basis, str(error), error, None)
        recorder.timeline.decisions.append(decision)
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
