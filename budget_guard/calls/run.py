"""One run: its budget, its ledger, its scopes and its records, as all parts of a session share them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from typing import Protocol

from budget_guard.calls.call import ToolCall
from budget_guard.calls.enclosing import OpenHold
from budget_guard.calls.held import HeldCall
from budget_guard.calls.ladder import Ladder
from budget_guard.calls.ledger_spend import limits_used, spent_on, task_spend
from budget_guard.calls.loops import LoopDetector
from budget_guard.calls.planner import Planner
from budget_guard.calls.queue import queue_of
from budget_guard.calls.recorder import Recorder
from budget_guard.calls.refusals import remedy_of
from budget_guard.calls.seen import OnCancel
from budget_guard.calls.spend_rate import SpendRate
from budget_guard.clock import Clock
from budget_guard.errors import BudgetExceeded, BudgetRevoked, LedgerUnavailable
from budget_guard.events.timeline import KEPT, describe
from budget_guard.ledger import history
from budget_guard.ledger.base import Balance, Ledger, ScopeSpend
from budget_guard.ledger.flow import Flow, drive
from budget_guard.ledger.history import Labels
from budget_guard.ledger.hold_id import HoldIds
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.pricing.table import PriceTable
from budget_guard.reporting.course import thinned
from budget_guard.reporting.report import BudgetReport
from budget_guard.reporting.spend import LimitUse, TaskSpend, as_plain
from budget_guard.reporting.totals import Totals
from budget_guard.units.amounts import NOTHING, Limits, Sums
from budget_guard.units.money import to_usd
from budget_guard.units.scope import Scope

_NO_LIMITS = Limits()
_MOST_LABELS = 1_000
_EVENTS_IN_ERRORS = 20
"""An error carries a report with the last few events alone: an agent may run into its limit a thousand times."""


class KeepAlive(Protocol):
    """Something that a session keeps up for as long as it lives, such as a hold on its parent's money."""

    def due(self) -> bool:
        """Whether `keep` has anything to do now. Asks no ledger."""
        ...

    def keep(self) -> Flow[None]:
        """Before each call where it is due: see to it that it is there, and prolong it where it is time to.

        Raises:
            BudgetError: If it cannot be had: the call is refused.
        """
        ...

    def drop(self) -> Flow[None]:
        """The session is closed: settle it."""
        ...


class Run:
    """One run's budget, ledger, scopes and records."""

    def __init__(
        self,
        budget: BudgetPolicy,
        ledger: Ledger,
        scopes: Sequence[Scope],
        prices: PriceTable,
        clock: Clock,
        tags: Mapping[str, str],
    ) -> None:
        self.ledger = ledger
        self.scopes = tuple(scopes)
        """The run's own first, then those whose ceilings hold as well."""
        self.scope = self.scopes[0]
        self.clock = clock
        self.planner = Planner(Ladder(prices, clock, budget.service_tier), alone=len(self.scopes) == 1)
        self.recorder = Recorder(self.scope, clock, tags.get("agent"))
        self.revoked: BudgetRevoked | None = None
        """Set where the run was cut off by this very session."""
        self.keepalives: tuple[KeepAlive, ...] = ()
        """What is kept up for as long as the session lives; looked after before each call."""
        self.queue = queue_of(ledger)
        """The calls that wait for room in the ledger."""
        self.around: tuple[OpenHold, ...] = ()
        """The holds that it is inside of: a child session's on the money of its parent, and so on."""
        self.open_tools: dict[str, HeldCall] = {}
        """The holds of tool calls in flight, by their ids."""
        self.claimed_tools: set[str] = set()
        """Those of them that a tracked function is a part of already."""
        self.loops = None if budget.loop is None else LoopDetector(budget.loop)
        """Looks for loops in what its tools are called with; None where nobody asks for that."""
        self.rate = SpendRate()
        """What it has taken in the last minute; kept only where the budget limits that."""
        self.advises = False
        """True if a ceiling above it is advisory, so that calls which pass it are looked for."""
        self.is_watched = False
        """Whether more is to be asked about a call than whether the ledger holds it: for loops, for the rate of spend,
        and for ceilings that refuse nothing."""
        self.on_cancel: OnCancel = "bound"
        """What to book for an answer that its caller gives up."""
        self.keeps_history = False
        """Whether the ledger has a usage history, which is told what money was spent on."""
        self.labels: dict[tuple[str, str | None, bool], Labels] = {}
        """The labels of its calls in the usage history: by model or tool, by agent, and whether it is a model."""
        self.fails_open = False
        """Whether a call is made where the ledger cannot be reached."""
        self.tags = dict(tags)
        """The principals that it is attributed to, by kind."""
        self.new_id = HoldIds(clock).new
        """An id for the next hold."""
        self.owner = str(self.scope)
        """The principal that it belongs to; the run itself where it has none."""
        self.parts: list[Run] = []
        """The same run with the scopes of one agent beside its own. See `part`."""
        self.whole: Run | None = None
        """The run that this is a part of; None of a whole one."""
        self.set_budget(budget)

    def part(self, scopes: Sequence[Scope], opening: KeepAlive) -> Run:
        """This run, as the calls of one agent see it: they are held in *scopes* as well, and share everything else.

        Args:
            scopes: The agent's.
            opening: Opens them.
        """
        part = copy.copy(self)
        part.scopes = (*self.scopes, *scopes)
        part.planner = Planner(self.planner.ladder, alone=False)
        part.planner.calibration = self.planner.calibration
        part.keepalives = (*self.keepalives, opening)
        part.parts = []
        part.whole = self
        self.parts.append(part)
        part.set_budget(self.budget)  # last: it may have been raised meanwhile
        return part

    def set_budget(self, budget: BudgetPolicy) -> None:
        """Decide by *budget* from now on."""
        self.budget = budget
        self.is_watched = self.loops is not None or budget.max_usd_per_minute is not None or self.advises
        self.limits = budget.limits
        """The limits of the budget as a ledger enforces them."""
        at = budget.soft_limit
        limited = [(i, limit) for i, limit in enumerate(self.limits) if limit]
        for part in self.parts:
            part.set_budget(budget)
        self._soft_limits = [] if at is None else [(i, limit * at) for i, limit in limited]
        self._ceilings = [] if at is None else [_Ceiling(scope, at) for scope in self.scopes[1:]]

    def note_advisory(self) -> None:
        """Look at each call from now on for whether it passes an advisory ceiling."""
        for each in (self, *self.parts):
            each.advises = each.is_watched = True

    def claim_tool(self, tool: str) -> bool:
        """Whether an adapter counts a call of *tool* in flight that no tracked function has claimed yet.

        By its name alone: frameworks lose the context in which a tool's call was held.
        """
        if not self.open_tools:
            return False
        with self.recorder.lock:
            open_tools = dict(self.open_tools)
            self.claimed_tools.intersection_update(open_tools)
            for hold_id, hold in open_tools.items():
                call = hold.call
                known = isinstance(call, ToolCall) and call.tool == tool and not call.tracked
                if known and hold_id not in self.claimed_tools:
                    self.claimed_tools.add(hold_id)
                    return True
        return False

    def balance(self) -> Balance:
        """The run's own counters; what this session knows by itself where it was opened without its ledger, and has
        made no call since that opens it there."""
        try:
            return self.ledger.balances((self.scope,))[0]
        except KeyError:
            return self.known_here()

    def known_here(self) -> Balance:
        """The run's counters as far as this session knows them by itself."""
        return Balance(self.scope, self.limits, self.recorder.total(), NOTHING, 0, None)

    def labels_of(self, name: str, agent: str | None, is_model: bool) -> Labels:
        """The labels in the usage history for a call of *name*, a model or a tool, by *agent*."""
        known = self.labels.get((name, agent, is_model))
        if known is None:
            if len(self.labels) >= _MOST_LABELS:
                self.labels.clear()
            tags = self.tags
            known = self.labels[name, agent, is_model] = history.labels(
                feature=tags.get("feature"),
                agent=agent or tags.get("agent"),
                task=self.budget.task,
                **{"model" if is_model else "tool": name},
            )
        return known

    def report(self, most_events: int = KEPT) -> BudgetReport:
        """The spend so far, by what it was for, and what stopped the run; with the latest events, at most so many."""
        return drive(self.reporting(most_events), self.ledger)

    def reporting(self, most_events: int = KEPT) -> Flow[BudgetReport]:
        """As `report`, for a blocking or an awaiting caller."""
        recorder, timeline = self.recorder, self.recorder.timeline
        above = dict.fromkeys([*self.scopes[1:], *(scope for part in self.parts for scope in part.scopes)])
        above.pop(self.scope, None)
        try:
            try:
                balances: Sequence[Balance] = yield "balances", ((self.scope, *above),)
            except KeyError:  # one of them is opened with the next call
                balances = yield "balances", ((self.scope,),)
        except (LedgerUnavailable, KeyError):  # it is out of reach, or was when the session was opened
            balances = [self.known_here()]
        balance = balances[0]
        budget = {name: value for name, value in asdict(self.budget).items() if value is not None}
        latest = timeline.described(most_events)
        marks = [describe(event) for event in timeline.marks()][-most_events:]
        everybody, by_task = yield from self._spent_on(balance)
        with recorder.lock:
            totals = recorder.totals
            course, agents = totals.over_time(), everybody.by_agent(totals.started())
            return BudgetReport(
                session_id=self.scope.id,
                budget=as_plain(budget),
                tags=self.tags,
                total_spent=to_usd(balance.committed.cost),
                reserved=to_usd(balance.reserved.cost),
                remaining=remaining_usd(balance),
                breakdown=everybody.breakdown(),
                by_agent=agents,
                by_child=totals.by_child(),
                duration_seconds=timeline.duration(),
                terminated_by=recorder.terminated_by,
                unpriced_calls=totals.unpriced_calls,
                uncertain=to_usd(everybody.uncertain),
                from_provider=to_usd(totals.from_provider),
                overrun=to_usd(totals.overrun),
                bound_violations=totals.violations,
                events=latest,
                limits=self._limits_used(balances),
                by_task=by_task,
                spent_here=None if everybody is totals else to_usd(totals.total().cost),
                started_at=None if timeline.started_s is None else self.clock.now() - timedelta(seconds=timeline.at()),
                over_time=thinned(course, most_events),
                marks=marks,
            )

    def _spent_on(self, balance: Balance) -> Flow[tuple[Totals, dict[str, TaskSpend]]]:
        """What the run has spent money on, and by kind of work: what this session knows, or where others have spent
        from it as well, what the ledger's usage history does."""
        task, own, recorder = self.budget.task, self.recorder.totals, self.recorder
        spent = recorder.total()
        known = {} if task is None else {task: task_spend(spent)}
        now = balance.committed
        if not self.keeps_history or (spent.cost, spent.total_tokens, spent.tool_calls) == (now.cost, *now[3::2]):
            return own, known
        began = 0
        if balance.since is not None:
            began = int(balance.since.timestamp()) // 3_600
            if balance.since.minute:
                return own, known  # in the middle of an hour, and the history has but hours
        try:
            return (yield from spent_on(self.scope.id, began))
        except LedgerUnavailable:
            return own, known

    def _limits_used(self, balances: Sequence[Balance]) -> list[LimitUse]:
        """The use of each limit, in the scopes of *balances*, and of the run's time."""
        used = limits_used(balances)
        most, scope = self.budget.max_duration_s, str(self.scope)
        if most is not None:
            seconds = Decimal(str(round(self.recorder.timeline.duration(), 3)))
            at = sum(each.scope == scope for each in used)
            used.insert(at, LimitUse(scope=scope, name="max_duration_s", limit=Decimal(str(most)), spent=seconds))
        return used

    def report_for_error(self) -> BudgetReport:
        """The report as an error carries it."""
        return self.report(_EVENTS_IN_ERRORS)

    def too_late(self, elapsed: float) -> BudgetExceeded | None:
        """The error for a call that comes after the time is up, *elapsed* seconds after the start."""
        most = self.budget.max_duration_s
        if most is None or elapsed <= most:
            return None
        return BudgetExceeded(
            dimension="max_duration_s",
            limit=most,
            actual=round(elapsed, 3),
            scope=str(self.scope),
            remedy=remedy_of(self.scope, "max_duration_s"),
        )

    def warn(self, committed: Sums, above: Sequence[ScopeSpend] = ()) -> None:
        """Warn of the soft limits that are reached: the run's own, and those of the ceilings above it.

        Args:
            committed: What the run has spent.
            above: What is spent of each ceiling above it.
        """
        at = self.budget.soft_limit
        if at is None:
            return
        for i, soft_limit in self._soft_limits:
            if committed[i] >= soft_limit:
                self.recorder.warn(self.scope, self.limits, committed, at)
                break
        if above:
            for ceiling, (spent, limits) in zip(self._ceilings, above, strict=False):
                if ceiling.is_near(spent, limits):
                    if limits == _NO_LIMITS:  # from now on it may be one that only watches
                        self.note_advisory()
                    self.recorder.warn(ceiling.scope, limits, spent, at)


class _Ceiling:
    """The soft limits of a scope above a run, worked out again only where its limits are others."""

    __slots__ = ("_at", "_known", "scope")

    def __init__(self, scope: Scope, at: float) -> None:
        self.scope = scope
        self._at = at
        self._known: tuple[Limits, Sequence[tuple[int, float]]] = (_NO_LIMITS, ())

    def is_near(self, spent: Sums, limits: Limits) -> bool:
        """Whether *spent* has reached a soft limit, or there is none any more."""
        known, soft_limits = self._known
        if known is not limits:
            soft_limits = [(i, limit * self._at) for i, limit in enumerate(limits) if limit]
            self._known = (limits, soft_limits)
            if limits == _NO_LIMITS != known:
                return True
        for i, soft_limit in soft_limits:
            if spent[i] >= soft_limit:
                return True
        return False


def remaining_usd(balance: Balance) -> Decimal | None:
    """Dollars: limit - committed - reserved; None without a dollar limit."""
    limit = balance.limits.cost
    return None if limit is None else to_usd(limit - balance.committed.cost - balance.reserved.cost)
