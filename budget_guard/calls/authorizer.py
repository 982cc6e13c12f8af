"""The authorizer of one session: decides whether a call may be made, and holds its worst case.

One way through, for every call: keep up what the session keeps up, wait behind those who came first, offer the ample
plan to the ledger, and only where that is refused look at what is left and fit the call into it. What does not fit for
the time being waits, and is tried again whenever something was given back. `Authorizer.authorize` is that rule, written
once as a flow. `Authorizer.offer` is its first step for a call that needs no other: with it, `Session` asks the ledger
by itself and saves the flow, which costs as much as the decision.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from budget_guard.calls.advisory import passed
from budget_guard.calls.call import ModelCall, ToolCall, name_of
from budget_guard.calls.call_estimate import CallEstimate, would_hold
from budget_guard.calls.decision import Action, Basis, Decision, DecisionLog
from budget_guard.calls.enclosing import OpenHold, enter, holds_around, total_in
from budget_guard.calls.loops import FinishedCall, Repetition
from budget_guard.calls.plan import Plan, Rung, Space, Terms
from budget_guard.calls.queue import Steps, Ticket
from budget_guard.calls.refusals import cap_too_high, cause, exceeded, remedy_of, revoked
from budget_guard.calls.reservation import Reservation
from budget_guard.calls.run import Run
from budget_guard.calls.worst_case import UNKNOWN_MOST, plan_tool, rejected_cap, room
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    LoopDetected,
    UnboundedCallError,
    UnknownPriceError,
)
from budget_guard.events.model import CallBlocked, LoopNoticed, ModelDowngraded
from budget_guard.ledger.base import Balance, Refused, ReserveOutcome, Revoked
from budget_guard.ledger.counters import least_left
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums, unchecked
from budget_guard.units.money import limit_nano, to_usd
from budget_guard.units.scope import Scope

_log = logging.getLogger("budget_guard")

_REFUSALS = (
    BudgetExceeded,
    BudgetRevoked,
    LoopDetected,
    UnknownPriceError,
    UnboundedCallError,
    InvalidDowngradeError,
    ForeignRun,
)


_MOST_CHANGES = 8
"""How often a plan is made anew at once because what is left has changed since it was looked at."""


class _Attempt(NamedTuple):
    """One try to hold a call."""

    outcome: ReserveOutcome
    plan: Plan
    waits: bool = False
    """Whether it may fit once other calls in flight are over."""
    in_the_way: Sequence[Scope] = ()
    """The scopes that it does not fit into now."""
    changed: bool = False
    """Whether it was refused though it should have fitted: what is left has changed meanwhile."""
    ignored: BudgetError | None = None
    """The error that would refuse it, had the budget another mode."""


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
        self.run = run
        """The run that it decides for."""
        self._run = run
        self._recorder = run.recorder
        self._timeline = run.recorder.timeline
        self.basis = Basis(
            tuple(dict.fromkeys(scope.principal for scope in run.scopes)), run.planner.ladder.prices.basis
        )
        """The scopes and prices that all its decisions rest on."""
        self._warned_unbounded = False
        self._told_unknown_most = False

    def offer(self, call: ModelCall | ToolCall) -> Offer | None:
        """The first request to the ledger for *call*, where that may be all there is to do; None where it is not."""
        run = self._run
        if run.queue.tickets or run.is_watched:
            return None
        for each in run.keepalives:
            if each.due():
                return None
        at_s = self._timeline.start()
        if run.budget.max_duration_s is not None and run.too_late(at_s) is not None:
            return None
        ample = run.planner.ample(run.budget, call, at_s)
        if ample is None:
            return None
        new_id = run.new_id
        return new_id(), at_s, *ample

    def authorize(
        self, call: ModelCall | ToolCall, may_wait: bool, sent: bool, refused: ReserveOutcome | None = None
    ) -> Steps[Decision]:
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
        attempt: _Attempt | None = None
        place: _Place | None = None
        ignored: BudgetError | None = None
        try:
            ignored = self._late(at_s)
            for each in run.keepalives:
                yield from each.keep()
            if run.is_watched:
                ignored = self._repeats(call, at_s) or ignored
            patient = may_wait and run.budget.max_wait_s > 0 and run.budget.mode != "advisory_estimate"
            deadline = run.clock.monotonic() + run.budget.max_wait_s
            around = holds_around(run.around)
            place = _Place(run, around)
            while True:
                waited = False
                if patient and (place.ticket is not None or (refused is None and place.is_behind())):
                    version = None if attempt is None else _version(attempt.outcome)
                    waited = yield from place.wait(version, deadline)
                    if waited:
                        at_s = timeline.at()
                        ignored = self._late(at_s)
                        hold_id = run.new_id()  # a ledger may by now remember nothing as old as the last one
                    patient = run.clock.monotonic() < deadline
                attempt = yield from self._attempt(hold_id, call, sent, refused, place, patient)
                refused = None
                if not isinstance(attempt.outcome, Refused) or not attempt.waits or not patient:
                    break
                place.take(attempt.in_the_way)
            outcome, plan, ignored = attempt.outcome, attempt.plan, attempt.ignored or ignored
            if isinstance(outcome, Refused):
                _, amounts = plan
                final = isinstance(call, ModelCall) and call.final
                kept = NOTHING if final else run.budget.kept_back
                ignored = exceeded(outcome, amounts, kept, waiting_helps=attempt.waits, now=run.clock.now())
                if run.budget.mode != "advisory_estimate":
                    raise ignored
                outcome = yield "reserve", (hold_id, run.scopes, amounts, None, None, True, sent)
            if isinstance(outcome, Revoked):
                raise revoked(outcome)
            if run.advises:
                ignored = (yield from self._passes_advisory(plan)) or ignored
            if run.budget.max_usd_per_minute is not None:
                ignored = (yield from self._too_fast(hold_id, at_s, plan)) or ignored
            return self.admitted(hold_id, at_s, call, plan, ignored)
        except BaseException as error:
            return (yield from self.failed(hold_id, at_s, call, None if attempt is None else attempt.plan, error))
        finally:
            if place is not None:
                place.leave()

    def foresee(self, call: ModelCall | ToolCall, seen: Sequence[Balance] | None = None) -> Steps[CallEstimate]:
        """What `authorize` would decide on *call* now. Holds nothing, and neither logs nor tells anything.

        Loops and the spend of the last minute are not looked at: to ask for them is to count.

        Args:
            call: The call.
            seen: The counters of its scopes, to go by these and not to look again.
        """
        run, budget = self._run, self._run.budget
        ignored: BudgetError | None = None
        attempt: _Attempt | None = None
        place = _Place(run, holds_around(run.around))
        try:
            ignored = self._late(self._timeline.at())
            attempt = yield from self._foreseen(
                call, place, budget.max_wait_s > 0 and budget.mode != "advisory_estimate", seen
            )
            outcome, plan, ignored = attempt.outcome, attempt.plan, attempt.ignored or ignored
            if isinstance(outcome, Revoked):
                raise revoked(outcome)
            if isinstance(outcome, Refused):
                kept = NOTHING if isinstance(call, ModelCall) and call.final else budget.kept_back
                ignored = exceeded(outcome, plan[1], kept, waiting_helps=attempt.waits, now=run.clock.now())
                if budget.mode != "advisory_estimate":
                    raise ignored
            if run.advises:
                looked: Sequence[Balance] = seen if seen is not None else (yield "balances", (run.scopes,))
                over = passed(looked, plan[1])
                ignored = ignored if over is None else exceeded(over, plan[1], now=run.clock.now())
        except (*_REFUSALS, LedgerUnavailable) as error:
            passes = isinstance(error, LedgerUnavailable) and run.fails_open
            return self._estimate(call, attempt, "advisory_warn" if passes else "block", error)
        finally:
            place.leave()
        action: Action = "allow" if plan[0].rung.model == name_of(call) else "downgrade"
        return self._estimate(call, attempt, action if ignored is None else "advisory_warn", ignored)

    def _foreseen(
        self, call: ModelCall | ToolCall, place: _Place, may_wait: bool, seen: Sequence[Balance] | None
    ) -> Steps[_Attempt]:
        """The attempt to hold *call*, in which the counters are only looked at."""
        steps = self._attempt("", call, True, None, place, may_wait)
        answer: Any = None
        while True:
            try:
                verb, arguments = steps.send(answer)
            except StopIteration as done:
                attempt: _Attempt = done.value
                return attempt
            if verb == "reserve":
                _, scopes, _, needed, *_ = arguments
                balances: Sequence[Balance] = seen if seen is not None else (yield "balances", (scopes,))
                answer = would_hold(balances, needed)
            elif verb == "balances" and seen is not None:
                answer = seen
            else:
                answer = yield verb, arguments

    def _estimate(
        self, call: ModelCall | ToolCall, attempt: _Attempt | None, action: Action, error: BudgetError | None
    ) -> CallEstimate:
        terms, held = (None, NOTHING) if attempt is None else attempt.plan
        return CallEstimate(
            requested=name_of(call),
            name=name_of(call) if terms is None or action == "block" else terms.rung.model,
            action=action,
            held=Amounts._make(held),
            output_cap=None if terms is None else terms.output_cap,
            waits=attempt is not None and isinstance(attempt.outcome, Refused) and attempt.waits,
            error=error,
            past=None,
        )

    def _late(self, at_s: float) -> BudgetExceeded | None:
        """Refuse a call that comes too late; the error that advisory mode ignores."""
        late = self._run.too_late(at_s)
        if late is not None and self._run.budget.mode != "advisory_estimate":
            raise late
        return late

    def _repeats(self, call: ModelCall | ToolCall, at_s: float) -> LoopDetected | None:
        """Warn of a loop that *call* goes on with, and refuse it where that has gone on for too long; the error that
        advisory mode ignores."""
        loops = self._run.loops
        if loops is None or not isinstance(call, ToolCall) or call.arguments is None:
            return None
        found = loops.ask(call.run, call.tool, call.arguments, at_s)
        return None if found is None else self._told_of_loop(call.tool, call.agent, found)

    def _told_of_loop(self, tool: str, agent: str | None, found: Repetition) -> LoopDetected | None:
        """Warn of a loop once, and raise where it is to be stopped; the error that advisory mode ignores."""
        run, timeline = self._run, self._timeline
        policy = run.budget.loop
        stops = found.stops and policy is not None and policy.on_loop == "raise"
        if not found.is_new and not stops:
            return None
        error = LoopDetected(tool=tool, repeats=found.repeats, period=found.period, scope=str(run.scope), agent=agent)
        refuses = stops and run.budget.mode != "advisory_estimate"
        timeline.mark(LoopNoticed(timeline.at(), tool, found.repeats, found.period, refuses))
        if refuses:
            raise error
        if found.is_new:
            _log.warning("budget_guard %s: %s", run.scope, error)
        return error if stops else None

    def loop_in(self, run: object, calls: Sequence[FinishedCall], call: ModelCall) -> BudgetError | None:
        """The refusal of a model call whose conversation is in a loop; None where it may be made.

        Args:
            run: What the conversation is known by.
            calls: The tool calls in it that are over, oldest first.
            call: The call.
        """
        loops = self._run.loops
        judged = None if loops is None else loops.judge(run, calls)
        if judged is None:
            return None
        try:
            self._told_of_loop(judged[0], call.agent, judged[1])
        except LoopDetected as error:
            self._timeline.start()
            return self._blocked(self._run.new_id(), call, None, error).error
        return None

    def _passes_advisory(self, plan: Plan) -> Steps[BudgetExceeded | None]:
        """The error that a held call would have been refused with by a ceiling that refuses nothing; None where there
        is none, or it cannot be looked at."""
        run, (_, amounts) = self._run, plan
        try:
            balances: Sequence[Balance] = yield "balances", (run.scopes,)
        except LedgerUnavailable:
            return None
        # Looked at with the hold in it: of calls that come at once, none that is over the limit is left unmarked.
        without = [each._replace(reserved=each.reserved.minus(amounts)) for each in balances]
        over = passed(without, amounts)
        return None if over is None else exceeded(over, amounts, now=run.clock.now())

    def _too_fast(self, hold_id: str, at_s: float, plan: Plan) -> Steps[BudgetExceeded | None]:
        """Refuse a held call that would take more in a minute than the budget allows, and give its hold back; the error
        that advisory mode ignores."""
        run, budget = self._run, self._run.budget
        assert budget.max_usd_per_minute is not None
        limit, cost = limit_nano(budget.max_usd_per_minute), plan[1].cost
        found = run.rate.take(hold_id, cost, limit, at_s, hard=budget.mode == "hard_gate")
        if found is None:
            return None
        taken, wait_s = found
        error = BudgetExceeded(
            dimension="max_usd_per_minute",
            limit=budget.max_usd_per_minute,
            actual=to_usd(taken),
            scope=str(run.scope),
            estimate=to_usd(cost),
            remedy=f"In {wait_s:.0f} s there is room again. {remedy_of(run.scope, 'max_usd_per_minute')}",
        )
        error.retry_after_s = wait_s
        error.user_message = "This is going too fast. Try again in a minute."
        if budget.mode == "advisory_estimate":
            return error
        yield "release", (hold_id, run.scopes)
        raise error

    def failed(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan | None, error: BaseException
    ) -> Steps[Decision]:
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
            if run.revoked is not None:
                raise run.revoked
            if run.budget.mode != "advisory_estimate":
                self._must_be_left(run.recorder.total())
            if isinstance(call, ToolCall):
                plan, _ = plan_tool(call, run.budget)
            elif plan is None:
                left, planner = run.limits, run.planner
                plan = planner.alone(run.budget, call, planner.ladder.asked(run.budget, call, left), left)
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

    def _attempt(
        self,
        hold_id: str,
        call: ModelCall | ToolCall,
        sent: bool,
        refused: ReserveOutcome | None,
        place: _Place,
        may_wait: bool,
    ) -> Steps[_Attempt]:
        """Try to hold *call*: by the ample plan, or in what is left.

        Args:
            hold_id: The hold's id.
            call: The call.
            sent: Whether the call is sent as soon as it is held.
            refused: What the ledger answered to the ample plan just now.
            place: Its place among those that wait.
            may_wait: Whether it can wait for room.
        """
        run, outcome = self._run, refused
        if outcome is None and not place.is_crowded():
            ample = run.planner.ample(run.budget, call, self._timeline.at())
            if ample is not None:
                plan, needed = ample
                _, amounts = plan
                outcome = yield "reserve", (hold_id, run.scopes, amounts, needed, None, True, sent)
                if not isinstance(outcome, Refused):
                    return _Attempt(outcome, plan)
        changes = 0
        while True:
            attempt = yield from self._fit(hold_id, call, sent, outcome, place, may_wait)
            if not attempt.changed or changes == _MOST_CHANGES:
                return attempt
            changes += 1
            outcome = None

    def _fit(
        self,
        hold_id: str,
        call: ModelCall | ToolCall,
        sent: bool,
        refused: ReserveOutcome | None,
        place: _Place,
        may_wait: bool,
    ) -> Steps[_Attempt]:
        """Try to hold *call* in what is left: on its own model, or on the first cheaper one that fits.

        The answer to the first plan that does not fit is the one that is told.
        """
        run, budget = self._run, self._run.budget
        left: Limits | None = refused.left if isinstance(refused, Refused) else None
        balances: Sequence[Balance] | None = None
        looked: Sequence[Balance]
        policy = (call.downgrade or budget.downgrade) if isinstance(call, ModelCall) else None
        if left is None or policy is not None:
            balances = looked = yield "balances", (run.scopes,)
            left = least_left(looked)
        later = None if balances is None else place.later(balances)
        crowded = place.is_crowded()
        plans: Sequence[Rung | ToolCall]
        ignored: BudgetExceeded | None = None
        if isinstance(call, ToolCall):
            plans = (call,)
        else:
            asked = run.planner.ladder.asked(budget, call, left)
            ignored = self._cap_too_high(call, asked)
            plans = self._rungs(call, asked, balances)
        first: _Attempt | None = None
        needs: list[Amounts] = []
        waits = changed = False
        outcome: ReserveOutcome
        for each in plans:
            helps = False
            if isinstance(call, ToolCall) or isinstance(each, ToolCall):  # both or neither
                plan, needed = plan_tool(cast(ToolCall, call), budget)
            else:
                fit = run.planner.fit(budget, call, each, Space(left, later, may_wait, crowded))
                if fit is None:
                    balances = looked = yield "balances", (run.scopes,)
                    left, later = least_left(looked), place.later(looked)
                    fit = run.planner.fit(budget, call, each, Space(left, later, may_wait, crowded))
                    assert fit is not None
                plan, helps = fit
                needed = room(budget, plan[1], call.final)
            if refused is not None and isinstance(call, ToolCall):
                outcome = refused  # to the same plan
            else:
                outcome = yield "reserve", (hold_id, run.scopes, plan[1], needed, None, True, sent)
            if not isinstance(outcome, Refused):
                return _Attempt(outcome, plan, ignored=ignored)
            first = first or _Attempt(outcome, plan)
            needs.append(needed)
            waits = waits or helps
            changed = changed or fits(needed, left)
        assert first is not None
        if changed:
            return first._replace(changed=True, waits=True)
        hoped = later
        if waits or balances is None or later is None or any(fits(needed, later) for needed in needs):
            # Looked at after the refusal: what was hoped for may have been given back, and spent, in between. Nothing
            # would tell of that once this call waits.
            balances = looked = yield "balances", (run.scopes,)
            later = place.later(looked)
        stale = waits and hoped is not None and later != hoped
        waits = waits or any(fits(needed, later) for needed in needs)
        in_the_way = [each.scope for each in balances or () if not fits(needs[0], least_left((each,)))]
        return first._replace(waits=waits, in_the_way=in_the_way, changed=stale)

    def _cap_too_high(self, call: ModelCall, asked: Rung) -> BudgetExceeded | None:
        """Refuse a call that sets a higher output cap than it may; the error that advisory mode ignores."""
        most = rejected_cap(self._run.budget, call, asked.price)
        if most is None:
            return None
        error = cap_too_high(self._run.scope, call, most, of_model=most != self._run.budget.call_max_output_tokens)
        if self._run.budget.mode != "advisory_estimate":
            raise error
        return error

    def _rungs(self, call: ModelCall, asked: Rung, balances: Sequence[Balance] | None) -> Sequence[Rung]:
        """The models to try, first choice first. The *balances* are known where there is more than one."""
        budget, ladder = self._run.budget, self._run.planner.ladder
        policy = call.downgrade or budget.downgrade
        return [asked] if policy is None or balances is None else ladder.rungs(budget, policy, call, asked, balances)

    def admitted(
        self, hold_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan, ignored: BudgetError | None = None
    ) -> Decision:
        """The decision on a call that is held, noted."""
        terms, amounts = plan
        reservation = Reservation(hold_id, call, plan, self._run)
        enter(reservation)
        recorder = self._recorder
        if isinstance(call, ToolCall):
            requested = call.tool
            self._run.open_tools[hold_id] = reservation
        else:
            requested = call.model
            if recorder.terminated_by is not None and ignored is None and not call.final:
                recorder.goes_on()
        name = terms.rung.model
        action: Action = "allow"
        reason = ""
        if name != requested:
            action, reason = "downgrade", terms.rung.why
        if ignored is not None:
            action, reason = "advisory_warn", str(ignored)
        decision = unchecked(
            Decision,
            (hold_id, at_s, action, call, requested, name, terms, amounts, self.basis, reason, None, reservation),
        )
        emit = self._timeline.emit
        self.decisions.add(decision)
        emit(decision)
        if name != requested:
            self._timeline.mark(ModelDowngraded(at_s, hold_id, requested, name, reason))
        if not terms.bounded and not self._warned_unbounded:
            self._warn_unbounded(plan)
        if terms.clamped and not self._told_unknown_most:
            self._tell_unknown_most(terms)
        return decision

    def _blocked(self, decision_id: str, call: ModelCall | ToolCall, plan: Plan | None, error: BudgetError) -> Decision:
        requested = name_of(call)
        recorder = self._run.recorder
        at_s = recorder.timeline.at()
        recorder.terminated_by = cause(error)
        recorder.timeline.mark(CallBlocked(at_s, decision_id, requested, str(error), recorder.terminated_by))
        error.decision_id = decision_id
        if isinstance(error, (BudgetExceeded, BudgetRevoked, LoopDetected)):
            error.report = self._run.report_for_error()
        decision = self.refusal(decision_id, at_s, call, plan, error)
        self.decisions.add(decision)
        _log.info("budget_guard %s: blocked %s: %s", self._run.scope, requested, error)
        return decision

    def refusal(
        self, decision_id: str, at_s: float, call: ModelCall | ToolCall, plan: Plan | None, error: BudgetError
    ) -> Decision:
        """The decision on a call that *error* refuses. It is noted nowhere."""
        requested = name_of(call)
        terms, held = plan or (None, NOTHING)
        return Decision(
            decision_id, at_s, "block", call, requested, requested, terms, held, self.basis, str(error), error, None
        )

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

    def _tell_unknown_most(self, terms: Terms) -> None:
        price = terms.rung.price
        if terms.output_cap != UNKNOWN_MOST or (price is not None and price.max_output is not None):
            return
        self._told_unknown_most = True
        _log.warning(
            "budget_guard %s: how much %r may write is not known, so its answers are capped at %s tokens. Set the "
            "model's own maximum output tokens, max_output in its pricing=, or Budget(call_max_output_tokens=...)",
            *(self._run.scope, terms.rung.model, UNKNOWN_MOST),
        )


class _Place:
    """The place of one call among those that wait for room.

    Args:
        run: Its run.
        around: The open holds that the call is inside of.
    """

    __slots__ = ("_around", "_is_inside", "_run", "ticket")

    def __init__(self, run: Run, around: Sequence[OpenHold]) -> None:
        self._run = run
        self._around = around
        own = set(run.scopes)
        self._is_inside = any(hold.is_call or not own.isdisjoint(hold.scopes) for hold in around)
        """Whether somebody in the line may wait for a hold that this call is inside of."""
        self.ticket: Ticket | None = None

    def is_behind(self) -> bool:
        """Whether somebody waits already for a scope of this call: then it stands behind him."""
        queue = self._run.queue
        awaited = () if self._is_inside or not queue.tickets else tuple(queue.awaited(self._run.scopes))
        if awaited:
            self.take(awaited)
        return bool(awaited)

    def take(self, scopes: Sequence[Scope]) -> None:
        """Wait for *scopes* from now on."""
        run = self._run
        if self.ticket is None:
            self.ticket = Ticket(run.clock, scopes, self._around, self._is_inside)
            run.queue.join(self.ticket)
        else:
            run.queue.wait_for(self.ticket, scopes)

    def is_crowded(self) -> bool:
        """Whether others wait for a scope of this call."""
        run = self._run
        return bool(run.queue.tickets and run.queue.awaited(run.scopes, self.ticket))

    def later(self, balances: Sequence[Balance]) -> Limits:
        """What will be left once the holds are given back that this call can wait for."""
        # A tool mostly costs what is held for it, and frameworks lose the context in which it was held: a call that it
        # makes would wait for it.
        stay = list({id(hold): hold for hold in (*self._around, *self._run.open_tools.values())}.values())
        if self._is_inside:  # nor is one given back that another waiting call is inside of: it may wait for ours
            if self.ticket is None:
                self.take(())  # first, so that of two that look at once at least one sees the other
            seen = {id(hold) for hold in stay}
            stay = [*stay, *(hold for hold in self._run.queue.around_others(self.ticket) if id(hold) not in seen)]
        return least_left(
            [each._replace(reserved=total_in(each.scope, stay)) if each.open_holds else each for each in balances]
        )

    def wait(self, version: int | None, deadline: float) -> Steps[bool]:
        """Wait until it is this call's turn, or something was given back since *version*; return whether it waited."""
        run, ticket = self._run, self.ticket
        patience = deadline - run.clock.monotonic()
        if ticket is None or patience <= 0:
            return False
        times = run.queue.turn(ticket)
        if times is not None:
            yield "await_turn", (ticket, times, patience)
        elif version is not None:
            yield "await_room", (version, patience)
        else:
            return False
        return True

    def leave(self) -> None:
        """Wait no longer."""
        if self.ticket is not None:
            self._run.queue.leave(self.ticket)
            self.ticket = None


def fits(needed: Amounts, left: Limits) -> bool:
    """Whether *needed* is left in every dimension."""
    return all(limit is None or amount <= limit for amount, limit in zip(needed, left, strict=True))


def _version(outcome: ReserveOutcome) -> int | None:
    return outcome.version if isinstance(outcome, Refused) else None
