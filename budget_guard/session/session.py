"""Sessions: the live handle of one run, which authorises its calls and reports on them."""

from __future__ import annotations

import inspect
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, get_args, overload

from budget_guard.calls import queue, settlement
from budget_guard.calls.alternatives import Alternative, find_alternatives, refused_for_its_cost
from budget_guard.calls.authorizer import Authorizer
from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.call_estimate import CallEstimate, PastRuns
from budget_guard.calls.decision import Action, Decision, DecisionLog
from budget_guard.calls.decision_json import taken_up
from budget_guard.calls.idempotency import IdempotencyKey, KeyedDecisions, checked_key, with_own_time
from budget_guard.calls.ladder import check_policy, spent_fraction
from budget_guard.calls.loops import FinishedCall, digest
from budget_guard.calls.queue import Steps
from budget_guard.calls.reservation import Reservation
from budget_guard.calls.run import KeepAlive, Run, remaining_usd
from budget_guard.calls.seen import OnCancel
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import BudgetError, BudgetRevoked, LedgerUnavailable, UnknownPriceError
from budget_guard.estimate.prompt import Prompt
from budget_guard.events.model import Event, LimitsRaised, SessionRevoked
from budget_guard.events.origin import Origin, Sink
from budget_guard.events.subscribing import AnySubscriber, as_subscriber
from budget_guard.ledger.base import HELD, Balance, Ledger
from budget_guard.ledger.counters import least_cost_left
from budget_guard.ledger.flow import Flow, adrive, drive
from budget_guard.ledger.memory import MemoryLedger
from budget_guard.ledger.outbox.ledger import OutboxLedger
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.ledger.url import open_ledger
from budget_guard.policy.budget import BudgetPolicy, OnLedgerError, fails_open
from budget_guard.pricing.overlay import PriceLike
from budget_guard.pricing.table import PriceTable
from budget_guard.reporting.report import BudgetReport
from budget_guard.reporting.spend import Outcome
from budget_guard.session import answers, entered
from budget_guard.session.ceiling import Ceiling, is_advisory
from budget_guard.session.child import ParentHold
from budget_guard.session.keepalive import RUN_TTL_S, DeferredOpening
from budget_guard.session.plans import Ceilings
from budget_guard.session.run_records import RunRecords
from budget_guard.session.told import NOBODY, Told, is_given_up
from budget_guard.session.tracking import to_the_end, tracked
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.money import UsdLike, nano_of, to_usd
from budget_guard.units.scope import AGENT_IN_RUN, Scope
from budget_guard.units.usage import Usage
from budget_guard.wire.answer import Answer

if TYPE_CHECKING:
    from budget_guard.reporting.records import RunRecord, RunStore

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger("budget_guard")

NO_PROMPT = Prompt(0, 0, (), 0)
"""The prompt of a call that was made already."""
OLD_PRICES_DAYS = 90
"""From this age on the bundled prices are warned of, once in a process."""
_told_of_old_prices = False
_DOLLARS = ("max_cost_usd", "max_usd_per_minute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The parts that a session is given by the authority or the parent session that opens it."""

    owner: str = ""
    """The principal that the run belongs to: under another one its id is refused."""
    keepalives: Sequence[KeepAlive] = ()
    """What to keep up while the session lives. With it, the scopes are opened by what opens the session."""
    decisions: DecisionLog | None = None
    """Where the decisions are logged as well."""
    outbox: Outbox | None = None
    """Where to keep what was spent while the ledger could not be reached; in memory by default."""
    single_use: bool = False
    """Whether the run is never opened again."""
    prices: PriceTable | None = None
    """The prices that it goes by, where it is given none of its own; the bundled ones by default."""
    subscribers: Sequence[AnySubscriber] = ()
    """Who is told of its events, and of those of its child sessions."""
    ceilings: Ceilings | None = None
    """The ceilings of principals; None where they have none."""


_ALONE = Wiring()


class Session:
    """One run's budget, live. Safe to use from any number of threads and tasks, with and without ``with``.

    Every verb that may wait comes twice: ``authorize`` blocks, ``aauthorize`` is awaited.

    Args:
        budget: What the run may spend.
        ledger: Where the counters live, or its URL as of `open_ledger`; a new one in memory by default. With one that
            lasts and a *run_id*, the run goes on where it stopped, also in another process.
        run_id: The run's name; made up by default.
        scopes: Further scopes whose ceilings hold as well, opened in the ledger beforehand.
        tags: The principals that the run is attributed to, for the report alone.
        pricing: Prices that win over the bundled ones, dollars per token: ``{"my-model": (2.5e-6, 10e-6)}``.
        per_million: The same in dollars per million tokens: ``{"my-model": (2.5, 10)}``.
        clock: Where time comes from.
        on_ledger_error: What to do with a call where the ledger cannot be reached: ``closed`` refuses it, ``open`` lets
            it pass without a hold. By default the budget's mode says: what never refuses, or estimates nothing, passes.
        run_ttl_s: Seconds without a call after which a child session's money is suspended.
        on_cancel: What to book for an answer that its caller gives up, say a stream whose reader closed the tab:
            ``bound``, all that was held; or ``seen``, the input and what was seen of the answer, and a margin, where
            that can be known. Either is uncertain, and the actual usage replaces it if it comes.
        told: Whom it tells by itself: callbacks, and where the record of the run goes.
        wiring: What an authority or a parent session gives to a session that it opens.

    Raises:
        InvalidDowngradeError: If a target of the budget's downgrade policy is unknown or dearer.
        ForeignRun: If the run's id is another owner's.
        ValueError: If a price makes no sense, or *on_cancel* is not known.
    """

    def __init__(
        self,
        budget: BudgetPolicy,
        *,
        ledger: Ledger | str | None = None,
        run_id: str | None = None,
        scopes: Sequence[Scope] = (),
        tags: Mapping[str, str] | None = None,
        pricing: Mapping[str, PriceLike] | None = None,
        per_million: Mapping[str, PriceLike] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_ledger_error: OnLedgerError | None = None,
        run_ttl_s: float = RUN_TTL_S,
        on_cancel: OnCancel = "bound",
        told: Told = NOBODY,
        wiring: Wiring = _ALONE,
    ) -> None:
        told.check()
        if on_cancel not in get_args(OnCancel):
            raise ValueError(f'on_cancel={on_cancel!r} is not known: use "bound" or "seen"')
        prices = wiring.prices or PriceTable.bundled()
        if pricing or per_million:
            prices = prices.overlaid(pricing, per_million=per_million)
        _tell_of_old_prices(prices, clock)
        if budget.downgrade is not None:
            check_policy(budget.downgrade, prices)
        if budget.max_runs is not None:
            raise ValueError(
                f"max_runs={budget.max_runs} limits the runs of a principal, so it is of a ceiling: "
                'BudgetAuthority(ceilings={"user": Budget(..., max_runs=...)})'
            )
        self.id = run_id or _new_run_id()
        """The run's id."""
        self._scope = Scope("run", self.id)
        self._wiring = wiring
        forgiving = fails_open(budget.mode, on_ledger_error)
        if isinstance(ledger, str):
            ledger = open_ledger(ledger)
        if ledger is None or isinstance(ledger, (MemoryLedger, OutboxLedger)):
            self._ledger: Ledger = MemoryLedger(clock=clock, history=None) if ledger is None else ledger
        else:
            self._ledger = OutboxLedger(
                ledger, wiring.outbox or Outbox(), clock=clock, forgiving=forgiving, owner=wiring.owner
            )
        self.times_raised = 0
        """How often the limits were raised."""
        self._run = Run(budget, self._ledger, (self._scope, *scopes), prices, clock, tags or {})
        if ledger is not None and isinstance(self._ledger, MemoryLedger):
            self._ledger.keep_while(self._scope, self._run, wiring.single_use)
        if not wiring.keepalives:
            self._ledger.set_limits(self._scope, budget.limits, budget.window, wiring.owner)
        self._run.keepalives = tuple(wiring.keepalives)
        self._run.keeps_history = not isinstance(self._ledger, MemoryLedger) or self._ledger.keeps_history
        self._run.fails_open = forgiving
        self._run.on_cancel = on_cancel
        self._run.owner = wiring.owner or self._run.owner
        self._on_ledger_error: OnLedgerError | None = on_ledger_error
        self._run_ttl_s = run_ttl_s
        self._is_child = False
        self._answers = answers.KnownAnswers()
        self._handles: set[str] = set()
        """The agents that have a ceiling of their own beside the session's."""
        self._parts: dict[str, Authorizer] = {}
        self._has_parts = budget.agents is not None
        self._outcome: Outcome | None = None
        self._authorizer = Authorizer(self._run, DecisionLog(wiring.decisions))
        self._keyed: KeyedDecisions | None = None
        self._told = told
        self._is_recorded = False
        listener = told.listener(self.report)
        if listener is not None:
            self._subscribe(listener)
        self._sinks: list[Sink] = []
        for subscriber in wiring.subscribers:
            self._subscribe(subscriber)

    def __repr__(self) -> str:
        return f"Session({self.id!r}, {self.budget!r})"

    @property
    def budget(self) -> BudgetPolicy:
        """The budget, with its limits as they are now."""
        return self._run.budget

    @property
    def on_cancel(self) -> OnCancel:
        """What is booked for an answer that its caller gives up."""
        return self._run.on_cancel

    @property
    def scope(self) -> Scope:
        """The run's scope in the ledger."""
        return self._scope

    @property
    def ledger(self) -> Ledger:
        """Where the session's counters live."""
        return self._ledger

    @property
    def spent_usd(self) -> Decimal:
        """Dollars committed, exact to the nano-dollar."""
        return to_usd(self._run.balance().committed.cost)

    async def aspent_usd(self) -> Decimal:
        """As `spent_usd`, without blocking an event loop where the ledger lives elsewhere."""
        try:
            (balance,) = await self._ledger.aio.balances((self._scope,))
        except KeyError:  # it was opened without its ledger
            balance = self._run.known_here()
        return to_usd(balance.committed.cost)

    @property
    def reserved_usd(self) -> Decimal:
        """Dollars held for calls in flight."""
        return to_usd(self._run.balance().reserved.cost)

    @property
    def remaining_usd(self) -> Decimal | None:
        """Dollars: limit - committed - reserved; None without a dollar limit. Negative after an overrun."""
        return remaining_usd(self._run.balance())

    def least_remaining_usd(self) -> Decimal | None:
        """Dollars left in the tightest of its scopes, the ceilings above it among them; None without a dollar limit."""
        return _maybe_usd(least_cost_left(drive(self._balances(), self._ledger)))

    async def aleast_remaining_usd(self) -> Decimal | None:
        """As `least_remaining_usd`."""
        return _maybe_usd(least_cost_left(await adrive(self._balances(), self._ledger.aio)))

    def _balances(self) -> Flow[Sequence[Balance]]:
        """The counters of all its scopes, which are open then."""
        yield from _opened(self._run)
        found: Sequence[Balance] = yield "balances", (self._run.scopes,)
        return found

    @property
    def terminated_by(self) -> str | None:
        """What stopped the run: the name of a limit, or as in `BudgetReport.terminated_by`; None while nothing did."""
        return self._run.recorder.terminated_by

    @property
    def near_limit(self) -> bool:
        """Whether a soft limit is reached; without soft limits, whether a limit is."""
        balance = self._run.balance()
        at = self.budget.soft_limit or 1.0
        return any(
            limit is not None and limit > 0 and committed >= limit * at
            for limit, committed in zip(balance.limits, balance.committed, strict=True)
        )

    @property
    def spent_fraction(self) -> float:
        """The largest spent share of any dollar or token limit, of all scopes; what downgrades go by."""
        return spent_fraction(drive(self._balances(), self._ledger))

    @property
    def committed(self) -> Amounts:
        """Everything that the run has spent, in whole units."""
        return self._run.balance().committed

    def carry_over(self, spent: Amounts) -> None:
        """Start from what the run had *spent* before this session knew of it, say in another process.

        Only what is missing is charged, as one sum that the report's breakdown does not have.
        """
        known = self.committed
        missing = Amounts(*(max(0, was - now) for was, now in zip(spent, known, strict=True)))
        if missing != NOTHING:
            self._ledger.charge(self._run.new_id(), (self._scope,), missing)

    def decisions(self, *, action: Action | None = None) -> list[Decision]:
        """The latest decisions, oldest first; 1,000 are kept.

        Args:
            action: Only those with this action.
        """
        latest = self._authorizer.decisions.latest()
        return [decision for decision in latest if action is None or decision.action == action]

    def events(self) -> list[Event]:
        """The latest events, oldest first; 1,000 are kept."""
        return self._run.recorder.timeline.events()

    def subscribe(self, subscriber: AnySubscriber) -> Callable[[], None]:
        """Call *subscriber* with every event; returns how to stop.

        A plain function is called on the thread that caused the event. An async one is called on the event loop that is
        running now, or that runs when its first event comes, one event after the other. A sink of
        `budget_guard.events.sinks` is told of child sessions that are opened from now on as well. What raises is logged
        and does not disturb the run.

        Raises:
            TypeError: If it can take no event.
        """
        unsubscribe = self._subscribe(subscriber)
        if not isinstance(subscriber, Sink):
            return unsubscribe
        self._sinks.append(subscriber)

        def stop() -> None:
            unsubscribe()
            if subscriber in self._sinks:
                self._sinks.remove(subscriber)

        return stop

    def _subscribe(self, subscriber: AnySubscriber) -> Callable[[], None]:
        run = self._run
        origin = Origin(self.id, run.tags, run.budget.task, run.clock)
        return run.recorder.timeline.subscribe(as_subscriber(subscriber, origin))

    def report(self) -> BudgetReport:
        """The spend so far, by what it was for, and what stopped the run. ``print`` it for one line."""
        return self._run.report()

    async def areport(self) -> BudgetReport:
        """As `report`."""
        return await adrive(self._run.reporting(), self._ledger.aio)

    def child(self, budget: BudgetPolicy, run_id: str | None = None) -> Session:
        """Open a session that spends from a part of this one's budget: for a sub-agent, or a step of a plan.

        All that *budget* allows is held here, and in every ceiling above, while the child is open: nothing else can
        spend it, and the child can spend no more. Closing the child, best with ``with``, books what it spent and
        gives the rest back. Its calls stop when this session, or whom it belongs to, is revoked.

        Args:
            budget: What the child may spend. Every limit that holds here must be set in it, too.
            run_id: The child's own name, never used before; made up by default.

        Raises:
            BudgetExceeded: If that much is not left.
            BudgetRevoked: If this session was cut off.
            ForeignRun: If *run_id* was used before.
            ValueError: If the budget leaves out a limit that holds here, or is of a laxer mode.
        """
        child, opening = self._child(budget, run_id)
        drive(opening, self._ledger)
        return child

    async def achild(self, budget: BudgetPolicy, run_id: str | None = None) -> Session:
        """As `child`."""
        child, opening = self._child(budget, run_id)
        await adrive(opening, self._ledger.aio)
        return child

    def _child(self, budget: BudgetPolicy, run_id: str | None) -> tuple[Session, Flow[None]]:
        if not isinstance(budget, BudgetPolicy):
            raise TypeError(f'budget={budget!r} is not a Budget: write session.child(Budget("$1.00"))')
        hold = ParentHold(self._run, budget, self._run_ttl_s)
        child = Session(
            budget,
            ledger=self._ledger,
            run_id=run_id,
            tags=self._run.tags,
            clock=self._run.clock,
            on_ledger_error=self._on_ledger_error,
            run_ttl_s=self._run_ttl_s,
            on_cancel=self._run.on_cancel,
            wiring=Wiring(
                owner=f"child-{_new_run_id()}",  # it is never opened again: what it spent is booked when it is closed
                keepalives=(hold,),
                decisions=self._wiring.decisions,
                single_use=True,
                prices=self._run.planner.ladder.prices,
                subscribers=(*self._wiring.subscribers, *self._sinks),
            ),
        )
        child._is_child = True
        return child, hold.open(child._run, child._wiring.owner)

    def knows_price_of(self, model: str, provider: str | None = None) -> bool:
        """True where a price is known for *model*.

        Args:
            model: Its name.
            provider: Who serves it; by the name of the model by default.
        """
        try:
            self._run.planner.ladder.prices.find(model, provider=provider)
        except UnknownPriceError:
            return False
        return True

    def raise_limits(self, **limits: UsdLike | None) -> None:
        """Raise limits of the running session, for example ``raise_limits(max_cost_usd="3.00")``.

        Args:
            **limits: New values of ``max_...`` fields of the budget; None removes a limit.

        Raises:
            ValueError: If a name is not a limit, or a value is lower than before; or if it is a child session, which
                has what its parent gave it. Nothing is changed then.
        """
        drive(self._raise_limits(limits), self._ledger)

    async def araise_limits(self, **limits: UsdLike | None) -> None:
        """As `raise_limits`."""
        await adrive(self._raise_limits(limits), self._ledger.aio)

    def _raise_limits(self, limits: Mapping[str, UsdLike | None]) -> Flow[None]:
        run = self._run
        if self._is_child:
            raise ValueError(f"{run.scope} is a child session: raise its parent's limits, and open another child")
        if not limits:
            raise ValueError('no limit is named: write raise_limits(max_cost_usd="$3.00"), for example')
        while True:
            before = run.budget
            raised = before.raised(**limits)
            yield "set_limits", (self._scope, raised.limits, raised.window, self._wiring.owner)
            with run.recorder.lock:
                if run.budget is before:  # else another raise came in between: this one goes on top of it
                    run.set_budget(raised)
                    self.times_raised += 1
                    break
        run.recorder.limits_raised()
        old = tuple(format(getattr(before, name) or 0, "f" if name in _DOLLARS else "") for name in limits)
        run.recorder.timeline.mark(LimitsRaised(run.recorder.timeline.at(), tuple(limits), old))

    def revoke(self, reason: str) -> None:
        """Refuse every further call of this run. Calls in flight settle as usual."""
        drive(self._revoke(reason), self._ledger)

    async def arevoke(self, reason: str) -> None:
        """As `revoke`."""
        await adrive(self._revoke(reason), self._ledger.aio)

    def _revoke(self, reason: str) -> Flow[None]:
        run = self._run
        yield "revoke", (self._scope, reason)
        run.recorder.terminated_by = "revoked"
        balances: Sequence[Balance] = yield "balances", ((self._scope,),)
        revoked = balances[0].revoked  # an earlier reason stands
        if revoked is not None:
            for each in (run, *run.parts):
                each.revoked = BudgetRevoked(scope=str(revoked.scope), reason=revoked.reason, at=revoked.at)
        run.recorder.timeline.mark(SessionRevoked(run.recorder.timeline.at(), reason))

    def authorize(
        self,
        call: ModelCall | ToolCall,
        *,
        may_wait: bool = True,
        sent: bool = False,
        idempotency_key: str | IdempotencyKey | None = None,
        hold_ttl_s: float | None = None,
    ) -> Decision:
        """Decide on *call*, and hold its worst case if it may be made.

        Never raises for a refusal: the decision carries the error, for the adapter to raise in its own terms.

        Args:
            call: The call.
            may_wait: Whether `Budget.max_wait_s` applies. False on an event loop's thread, which must not block.
            sent: Whether the call is sent as soon as it is held, so that `Reservation.forward` need not be called.
            idempotency_key: A name for this one call. The same key from the same principal (the user, else the key,
                else the team that the run belongs to) gets the decision that was made the first time, with the same
                hold: from any thread, task or process on the ledger, and for a day. With another call it is refused
                with a `ReservationConflict`. A refusal that asks to try again is not kept.
            hold_ttl_s: Seconds after which its hold expires: for a call that any process on the ledger may settle. By
                default the ledger says; with *idempotency_key* they are 900.

        Raises:
            ValueError: If *idempotency_key* is empty or too long.
        """
        authorizer, ledger = self._authorizer, self._ledger
        if self._has_parts:
            authorizer = self._authorizer_of(call.agent)
        if idempotency_key is not None:
            return queue.drive(self._authorizing(authorizer, call, idempotency_key, may_wait, sent), ledger)
        if hold_ttl_s is not None:
            return queue.drive(with_own_time(authorizer.authorize(call, may_wait, sent), hold_ttl_s), ledger)
        offer = authorizer.offer(call)
        if offer is None:
            return queue.drive(authorizer.authorize(call, may_wait, sent), ledger)
        hold_id, at_s, plan, room = offer
        _, amounts = plan
        try:
            outcome = ledger.reserve(hold_id, authorizer.run.scopes, amounts, room, None, True, sent)
        except BaseException as error:
            return queue.drive(authorizer.failed(hold_id, at_s, call, plan, error), ledger)
        if outcome is HELD:
            return authorizer.admitted(hold_id, at_s, call, plan)
        return queue.drive(authorizer.authorize(call, may_wait, sent, outcome), ledger)

    async def aauthorize(
        self,
        call: ModelCall | ToolCall,
        *,
        sent: bool = False,
        idempotency_key: str | IdempotencyKey | None = None,
        hold_ttl_s: float | None = None,
    ) -> Decision:
        """As `authorize`, and waits without blocking."""
        authorizer, ledger = self._authorizer, self._ledger.aio
        if self._has_parts:
            authorizer = self._authorizer_of(call.agent)
        if idempotency_key is not None:
            return await queue.adrive(self._authorizing(authorizer, call, idempotency_key, True, sent), ledger)
        if hold_ttl_s is not None:
            return await queue.adrive(with_own_time(authorizer.authorize(call, True, sent), hold_ttl_s), ledger)
        offer = authorizer.offer(call)
        if offer is None:
            return await queue.adrive(authorizer.authorize(call, True, sent), ledger)
        hold_id, at_s, plan, room = offer
        _, amounts = plan
        try:
            outcome = await ledger.reserve(hold_id, authorizer.run.scopes, amounts, room, None, True, sent)
        except BaseException as error:
            return await queue.adrive(authorizer.failed(hold_id, at_s, call, plan, error), ledger)
        if outcome is HELD:
            return authorizer.admitted(hold_id, at_s, call, plan)
        return await queue.adrive(authorizer.authorize(call, True, sent, outcome), ledger)

    def _authorizing(
        self,
        authorizer: Authorizer,
        call: ModelCall | ToolCall,
        key: str | IdempotencyKey,
        may_wait: bool,
        sent: bool,
    ) -> Steps[Decision]:
        """Decide on a call that may come more than once."""
        if self._keyed is None:
            with self._run.recorder.lock:
                self._keyed = self._keyed or KeyedDecisions()
        return self._keyed.authorize(authorizer, call, checked_key(key), may_wait, sent)

    def take_up(self, text: str) -> Decision:
        """The decision in *text*, with a hold that can be settled here: for who goes on with a call of another process.

        Args:
            text: What `budget_guard.calls.decision_json.decision_text` wrote of a decision in this run.
        """
        return taken_up(text, lambda agent: self._authorizer_of(agent) if self._has_parts else self._authorizer)

    def estimate(self, call: ModelCall | ToolCall, *, records: Iterable[RunRecord] | None = None) -> CallEstimate:
        """What would be held for *call*, whether it would be made, and what such runs took: before anything is sent.

        Nothing is held, and nothing is logged as a decision. ``print`` it for one line.

        Args:
            call: The call.
            records: Records of runs to compare with; those of `run_log` by default. Those of this budget's task count.
        """
        estimate = queue.drive(self._foreseeing(call), self._ledger)
        return replace(estimate, past=self._past_runs(records))

    async def aestimate(
        self, call: ModelCall | ToolCall, *, records: Iterable[RunRecord] | None = None
    ) -> CallEstimate:
        """As `estimate`."""
        estimate = await queue.adrive(self._foreseeing(call), self._ledger.aio)
        return replace(estimate, past=self._past_runs(records))

    def alternatives(self, decision: Decision, *, models: Iterable[str] = ()) -> list[Alternative]:
        """The cheaper models that could take the call that *decision* refuses, priced against what is left in every
        scope. Nothing is held.

        Only where the call is refused for what it may cost. Never a model that is dearer, that lacks a capability which
        the call needs, or of which one of these is not known; of another provider than the call names, none at all.

        Args:
            decision: A decision of this session.
            models: Models to look at beside those that the budget downgrades to; of all, the first 20.

        Returns:
            Those of the downgrade policy first, then the others in their order; none where nothing could take it.
        """
        return queue.drive(self._finding_alternatives(decision, models), self._ledger)

    async def aalternatives(self, decision: Decision, *, models: Iterable[str] = ()) -> list[Alternative]:
        """As `alternatives`."""
        return await queue.adrive(self._finding_alternatives(decision, models), self._ledger.aio)

    def _finding_alternatives(self, decision: Decision, models: Iterable[str]) -> Steps[list[Alternative]]:
        call = refused_for_its_cost(decision)
        if call is None:
            return []
        authorizer = yield from self._opened_authorizer(call.agent)
        return (yield from find_alternatives(authorizer, call, models))

    def _foreseeing(self, call: ModelCall | ToolCall) -> Steps[CallEstimate]:
        authorizer = yield from self._opened_authorizer(call.agent)
        return (yield from authorizer.foresee(call))

    def _opened_authorizer(self, agent: str | None) -> Steps[Authorizer]:
        """Who decides on the calls of *agent*; its scopes are open then, and have counters to look at."""
        authorizer = self._authorizer_of(agent) if self._has_parts else self._authorizer
        yield from _opened(authorizer.run)
        return authorizer

    def _past_runs(self, records: Iterable[RunRecord] | None) -> PastRuns | None:
        log: Any = self._told.run_log
        if records is None and isinstance(log, Iterable):
            records = cast("Iterable[RunRecord]", log)
        if records is None:
            return None
        from budget_guard.reporting.advice import advise  # few programs keep records

        try:
            task = self.budget.task
            advice = advise([each for each in records if each.task == task])
        except Exception:
            _log.exception("budget_guard %s: the records of past runs could not be read", self._scope)
            return None
        return PastRuns(runs=advice.successes + advice.stopped, median=advice.median, p95=advice.p95)

    def note_ceilings(self, ceilings: Sequence[Ceiling], marks: Sequence[Scope]) -> None:
        """Note what the authority that opens it has found above it.

        Args:
            ceilings: The ceilings of its principals.
            marks: The scopes that say that its run is counted.
        """
        if is_advisory(ceilings):
            self._run.note_advisory()
        if isinstance(self._ledger, MemoryLedger):
            for mark in marks:
                self._ledger.keep_while(mark, self._run, self._wiring.single_use)

    def add_agent(self, handle: str) -> None:
        """Hold the calls of the agent of that *handle* in its own ceiling as well, where an authority has one for it.

        `guard` does so for a client with ``agent=``; calls belong to it by their `ModelCall.agent`.
        """
        if not isinstance(handle, str) or not handle:
            raise ValueError(f"agent={handle!r} is no name: use a text that is not empty, or None")
        if self._wiring.ceilings is not None and self._run.tags.get("agent") != handle:
            with self._run.recorder.lock:
                if handle not in self._handles:
                    self._handles.add(handle)
                    self._parts.pop(handle, None)
            self._has_parts = True

    def _run_of(self, agent: str | None) -> Run:
        """The run that the calls of an agent spend from: with the scopes of that agent, where it has some."""
        return self._authorizer_of(agent).run if self._has_parts else self._run

    def _authorizer_of(self, agent: str | None) -> Authorizer:
        if agent is None:
            agent = self._run.tags.get("agent")
        if agent is None:
            return self._authorizer
        found = self._parts.get(agent)
        if found is not None:
            return found
        caps = self.budget.agents or {}
        if agent not in caps and agent not in self._handles:
            return self._authorizer
        with self._run.recorder.lock:
            if agent not in self._parts:
                self._parts[agent] = Authorizer(self._part(agent), self._authorizer.decisions)
            return self._parts[agent]

    def _part(self, agent: str) -> Run:
        """The run, with the cap of an agent within it, and with the agent's ceiling."""
        cap = None if self.budget.agents is None else self.budget.agents.get(agent)
        within, principal = Scope(AGENT_IN_RUN, f"{self.id}/{agent}"), Scope("agent", agent)
        ceilings = self._wiring.ceilings if agent in self._handles else None
        scopes = [*([within] if cap is not None else []), *(() if ceilings is None else ceilings.scopes(principal))]

        def opening() -> Flow[None]:
            if cap is not None:
                yield "set_limits", (within, cap.limits, "none", self._wiring.owner)
            if ceilings is not None:
                meant = yield from ceilings.open(principal)
                if is_advisory(meant):
                    part.note_advisory()

        part = self._run.part(scopes, DeferredOpening(opening))
        if cap is not None and isinstance(self._ledger, MemoryLedger):
            self._ledger.keep_while(within, part, self._wiring.single_use)
        return part

    def charge(self, tool: str, cost: UsdLike, *, agent: str | None = None) -> None:
        """Book *cost* dollars that were already spent on *tool*. Always charged.

        Raises:
            BudgetExceeded: If a limit is passed now. The money is booked all the same.
            ValueError: If *cost* is no amount of money. Nothing is booked then.
        """
        drive(settlement.charge(self._run_of(agent), ToolCall(tool, nano_of(cost, "cost"), agent)), self._ledger)

    async def acharge(self, tool: str, cost: UsdLike, *, agent: str | None = None) -> None:
        """As `charge`."""
        await adrive(
            settlement.charge(self._run_of(agent), ToolCall(tool, nano_of(cost, "cost"), agent)), self._ledger.aio
        )

    def charge_call(self, call: ModelCall, usage: Usage | None) -> None:
        """Book a model call that was made without asking. Always charged.

        Args:
            call: The call.
            usage: What the provider billed; None where it did not say, which the report shows as an unpriced call.

        Raises:
            BudgetExceeded: If a limit is passed now. The money is booked all the same.
        """
        drive(settlement.charge_call(self._run_of(call.agent), call, usage), self._ledger)

    async def acharge_call(self, call: ModelCall, usage: Usage | None) -> None:
        """As `charge_call`."""
        await adrive(settlement.charge_call(self._run_of(call.agent), call, usage), self._ledger.aio)

    def track(self, value: T, *, cost: UsdLike, tool: str = "tool", agent: str | None = None) -> T:
        """Book *cost* dollars that making *value* took, and return *value*. They are spent: always charged.

        Args:
            value: What was paid for.
            cost: Dollars.
            tool: What to report them under.
            agent: Whom to attribute them to.

        Raises:
            BudgetExceeded: If a limit is passed now. The money is booked, and the error carries *value*.
            BudgetRevoked: If the run, or whom it belongs to, was cut off; likewise.
            ValueError: If *cost* is no amount of money. Nothing is booked then.
        """
        call = ToolCall(tool, nano_of(cost, "cost"), agent)
        try:
            drive(settlement.charge(self._run_of(agent), call, even_if_revoked=False), self._ledger)
        except BudgetError as stop:
            stop.value = value
            raise
        return value

    async def atrack(self, value: T, *, cost: UsdLike, tool: str = "tool", agent: str | None = None) -> T:
        """As `track`."""
        call = ToolCall(tool, nano_of(cost, "cost"), agent)
        try:
            charging = settlement.charge(self._run_of(agent), call, even_if_revoked=False)
            await to_the_end(adrive(charging, self._ledger.aio))
        except BudgetError as stop:
            stop.value = value
            raise
        return value

    def track_tool(
        self,
        *,
        cost: UsdLike | Callable[[Any], UsdLike] | None = None,
        estimate: UsdLike | Callable[..., UsdLike] | None = None,
        tool: str | None = None,
        agent: str | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function of one's own as a tool with a price: held before it runs, booked after.

        ::

            @session.track_tool(cost="0.02")
            def search(query: str) -> list[str]: ...

            @session.track_tool(estimate=lambda sql, limit: limit * 1e-4, cost=lambda rows: len(rows) * 1e-4)
            async def query(sql: str, limit: int) -> list[Row]: ...

        A call that does not fit is refused before the function runs. What it returned is booked; what it raised is
        booked as held, unless that proves that nothing was billed, such as a 404. It may be plain, async, or a
        generator (held from the first item to the end), a bound method or any callable; signature and docstring stay,
        so that it goes below ``@function_tool`` and LangChain's ``@tool``. Where an adapter of this session counts a
        call of the same name already, its cost is added to that.

        Args:
            cost: Dollars a call, or a function of the result that says them. None for a tool that is free, or that
                costs what was estimated.
            estimate: What a call costs at most, or a function of its arguments that says it. By default *cost*, where
                that is an amount, and else nothing.
            tool: The tool's name; the function's own by default.
            agent: Whom to attribute the calls to.

        Raises:
            ValueError: If an amount is none, naming the tool.
            TypeError: If what is decorated is no function, or is a generator whose cost only its result would tell.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            return tracked(function, lambda: self, cost=cost, estimate=estimate, tool=tool, agent=agent)

        return decorate

    def hold_tool(self, tool: str, cost: int, agent: str | None, arguments: object) -> Reservation:
        """Hold a call of a tracked function, to be settled by the caller. As `track_tool` does before each call.

        Args:
            tool: The tool.
            cost: What it costs at most, in nano-dollars.
            agent: Whom to attribute it to.
            arguments: What it is called with, to look for loops.

        Raises:
            BudgetError: If it may not be made.
        """
        call = self._tracked_call(tool, cost, agent, arguments)
        return self.authorize(call, may_wait=not _on_a_loop(), sent=True).require()

    async def ahold_tool(self, tool: str, cost: int, agent: str | None, arguments: object) -> Reservation:
        """As `hold_tool`."""
        return (await self.aauthorize(self._tracked_call(tool, cost, agent, arguments), sent=True)).require()

    def _tracked_call(self, tool: str, cost: int, agent: str | None, arguments: object) -> ToolCall:
        counts = not self._run.claim_tool(tool)
        call = ToolCall(tool, cost, agent, counts, tracked=True)
        return self.with_trail(call, arguments) if counts else call  # who counts it looks for loops as well

    @property
    def looks_for_loops(self) -> bool:
        """Whether the budget has a `LoopPolicy`."""
        return self._run.loops is not None

    def with_trail(self, call: ToolCall, arguments: object, run: object = None) -> ToolCall:
        """*call* with what it takes to see whether it repeats itself, where the budget asks for that.

        Args:
            call: The call.
            arguments: What the tool is called with: any value, or JSON.
            run: The run that it is a part of, by anything that can be hashed; the one under way here by default.
        """
        if self._run.loops is None:
            return call
        return call._replace(arguments=digest(arguments), run=entered.run_of(self) if run is None else run)

    def loop_in(self, run: str, calls: Sequence[FinishedCall], call: ModelCall) -> BudgetError | None:
        """The refusal of a model call whose conversation is in a loop, for an adapter to raise; None if it is in none.

        Args:
            run: What the conversation is known by, so that each loop is told of once.
            calls: The tool calls in it that are over, oldest first.
            call: The model call.
        """
        return self._authorizer.loop_in(run, calls, call)

    def wrap(self, answer: T, *, model: str | None = None, agent: str | None = None) -> T:
        """Book *answer*, which a model gave without asking, by its own model and usage, and return it.

        ::

            reply = session.wrap(client.chat.completions.create(model="gpt-4o", messages=messages))

        It is spent, so it is always booked; once for each answer, also where a guarded client has booked it already.
        `guard` holds a call before it is made, and sees streams: prefer it where you can.

        Args:
            answer: An answer of openai, anthropic, google-genai, mistralai, cohere or LiteLLM, a message of LangChain,
                a raw or a parsed one, an HTTP response, or a dict of one of these.
            model: The model that answered, where the answer names none, as Cohere's and Amazon's do not, or a name of
                your own.
            agent: Whom to attribute it to.

        Raises:
            BudgetExceeded: If a limit is passed now. It is booked, and the error carries it as ``value``.
            BudgetRevoked: If the run, or whom it belongs to, was cut off; likewise.
            UnknownPriceError: If it tells no usage, or no price is known, in a hard gate; likewise, and it is reported
                as an unpriced call.
            TypeError: If it is no answer yet: a coroutine, which `awrap` takes, or a stream, which is counted as an
                unpriced call. Or if it is nothing that a model answers, which `charge` books.
        """
        try:
            found = answers.read(answer, _read_message)
        except answers.NotRead:
            self._count_unread(model, agent)
            raise
        if self._is_new(found, answer):
            try:
                drive(self._booking(found.answer, model, agent), self._ledger)
            except BudgetError as stop:
                self._not_booked(found, answer, stop)
                raise
        return answer

    @overload
    async def awrap(self, answer: Awaitable[T], *, model: str | None = None, agent: str | None = None) -> T: ...

    @overload
    async def awrap(self, answer: T, *, model: str | None = None, agent: str | None = None) -> T: ...

    async def awrap(self, answer: Any, *, model: str | None = None, agent: str | None = None) -> Any:
        """As `wrap`, of what *answer* brings when it is awaited.

        ::

            reply = await session.awrap(client.chat.completions.create(model="gpt-4o", messages=messages))
        """
        if inspect.isawaitable(answer):
            answer = await answer
        given = answer
        if hasattr(given, "parse") and hasattr(given, "http_response"):  # a raw response, which may have to be awaited
            given = given.parse()
            given = await given if inspect.isawaitable(given) else given
        try:
            found = answers.read(given, _read_message)
        except answers.NotRead:
            self._count_unread(model, agent)
            raise
        if self._is_new(found, given):
            try:
                await to_the_end(adrive(self._booking(found.answer, model, agent), self._ledger.aio))
            except BudgetError as stop:
                self._not_booked(found, answer, stop)
                raise
        return answer

    def note_answer(self, key: str | None) -> None:
        """Note that the answer of that id is booked, so that `wrap` books nothing more for it."""
        if key is not None:
            self._answers.add(key)

    def _is_new(self, found: answers.Read, answer: object) -> bool:
        if found.unbilled:
            return False
        return self._answers.add_object(answer) if found.key is None else self._answers.add(found.key)

    def _not_booked(self, found: answers.Read, answer: object, stop: BudgetError) -> None:
        """Hand *answer*, which is paid for, on with *stop*; forget it where it was not booked."""
        stop.value = answer
        if isinstance(stop, LedgerUnavailable):
            self._answers.forget(found.key, answer)

    def _booking(self, answer: Answer, model: str | None, agent: str | None) -> Flow[None]:
        call = ModelCall(
            model or answer.model or "unknown", NO_PROMPT, service_tier=answer.tier, region=answer.region, agent=agent
        )
        return settlement.charge_call(
            self._run_of(agent), call, answer.usage, cost=answer.cost, others=answer.others, strict=True
        )

    def _count_unread(self, model: str | None, agent: str | None) -> None:
        """Count a call that nothing tells the cost of. What that leads to is told by the next call."""
        with suppress(BudgetError):
            self.charge_call(ModelCall(model or "unknown", NO_PROMPT, agent=agent), None)

    def guard(
        self,
        client: T,
        *,
        models: Mapping[str, str] | None = None,
        agent: str | None = None,
        tool_costs: Mapping[str, UsdLike | Callable[[Any], UsdLike]] | None = None,
        add_fields: Sequence[Literal["output_cap", "usage"]] = ("output_cap", "usage"),
    ) -> T:
        """A copy of *client* whose every request is held in this budget before it is sent, retries included.

        ::

            client = session.guard(OpenAI())                # the same type; Anthropic and the async ones as well
            http = session.guard(httpx.Client())            # for any SDK that takes an HTTP client

        The client itself is not changed, and nothing is patched. Guard it once more in another session, and requests
        are held in both. A request whose cost cannot be held is refused before it is sent: docs/clients.md has them.

        Args:
            client: An OpenAI or Anthropic client, or an ``httpx`` or ``httpx2`` one; or a client of MCP tools, whose
                tool calls are held.
            models: The models behind names of one's own, such as Azure deployments: ``{"prod-chat": "gpt-4o"}``.
            agent: The handle of the agent that uses it, such as "research-agent-42": its calls are attributed to that,
                and held in its ceiling as well where the session is an authority's.
            tool_costs: What one use of a tool costs that the provider runs, by its type: ``{"web_search": "0.01"}``. It
                wins over the price table. Of a client of MCP tools, what they cost a call, by name.
            add_fields: What may be added to a request: an output cap where it has none, and the asking of a stream for
                its usage.

        Raises:
            TypeError: If it is no client that can be guarded.
            ValueError: If its SDK is too old, or its address tells nothing about prices and *models* is not given.
        """
        if agent is not None:
            self.add_agent(agent)
        if callable(getattr(client, "call_tool", None)):
            from budget_guard.integrations.mcp import guard_session

            return guard_session(client, self, tool_costs=tool_costs, agent=agent)
        from budget_guard.integrations.clients import guard

        return guard(self, client, models=models, agent=agent, tool_costs=tool_costs, add_fields=add_fields)

    def close(self) -> None:
        """Stop the run's time, and give up what is kept for the session alone, such as its place among the live runs.

        Calls in flight settle as usual. A session that goes on calling takes its place again.
        """
        self._run.recorder.timeline.end()
        drive(self._drop(), self._ledger)
        if self._is_last_word():
            self._told.keep(self._run, self.report(), self._outcome)

    async def aclose(self) -> None:
        """As `close`."""
        self._run.recorder.timeline.end()
        await adrive(self._drop(), self._ledger.aio)
        if self._is_last_word():
            self._told.keep(self._run, await self.areport(), self._outcome)

    def _is_last_word(self) -> bool:
        """Whether the record of the run is to be made now: once."""
        first, self._is_recorded = not self._is_recorded, True
        return first and self._told.run_log is not None

    def _drop(self) -> Flow[None]:
        for each in self._run.keepalives:
            yield from each.drop()

    def record_runs(self, run_log: RunStore) -> RunRecords:
        """Keep a record of each run that shares this session, for an adapter that knows where one begins and ends.

        Args:
            run_log: Where the records go.

        Raises:
            TypeError: If it cannot keep any.
        """
        Told(run_log).check()
        records = RunRecords(run_log, self._run)
        self.subscribe(records)
        return records

    @contextmanager
    def run(self) -> Generator[Session]:
        """A block that is a run of its own, where several of them share this session: ``with session.run():``.

        What is spent is the session's all the same. Loops are looked for within each run; without a block, the whole
        session is one. It is the `current_session` inside.
        """
        run = entered.begin_run(self)
        entered.enter(self)
        try:
            yield self
        finally:
            entered.leave(self)
            entered.end_run(run)

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended: ``ok``, ``failed``, ``stopped`` by the budget, or ``abandoned``. None while it is open.

        Set it to what you know. By default it is how ``with`` ends: ``ok`` without an error, ``stopped`` where the
        budget has stopped the run and nothing was called since, ``abandoned`` by a cancellation or an interrupt, and
        ``failed`` with any other error.
        """
        return self._outcome

    @outcome.setter
    def outcome(self, outcome: Outcome) -> None:
        if outcome not in get_args(Outcome):
            words = ", ".join(map(repr, get_args(Outcome)))
            raise ValueError(f"outcome={outcome!r} is not known: use one of {words}")
        self._outcome = outcome

    def _ended(self, error: BaseException | None) -> None:
        """Note how the block ended, where nobody has said it."""
        entered.leave(self)
        if self._outcome is None:
            if isinstance(error, BudgetError) or (error is None and self.terminated_by is not None):
                self._outcome = "stopped"
            elif error is None:
                self._outcome = "ok"
            else:
                self._outcome = "abandoned" if is_given_up(error) else "failed"

    def __enter__(self) -> Session:
        self._run.recorder.timeline.start()
        entered.enter(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None = None, trace: object = None) -> None:
        self._ended(error)
        self.close()

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None = None, trace: object = None) -> None:
        self._ended(error)
        await self.aclose()


def current_session() -> Session:
    """The session that the running task or thread is inside of, by ``with session:``; the innermost one.

    For tools of a module, which are written before any session is opened. A thread of your own is inside of none,
    unless it is started with ``contextvars.copy_context().run``.

    Raises:
        TypeError: If it is inside of none.
    """
    found = entered.innermost()
    if not isinstance(found, Session):
        raise TypeError(
            "no session is open here, so nothing would be held: call it inside `with Budget(...).session():` or a "
            "function with @budgeted(Budget(...)), in a thread of your own by contextvars.copy_context().run"
        )
    return found


def _read_message(message: object) -> Answer:
    """What a message of LangChain says was used."""
    from budget_guard.integrations.langchain import read_message

    return read_message(message)


def _maybe_usd(nano: int | None) -> Decimal | None:
    return None if nano is None else to_usd(nano)


def _opened(run: Run) -> Flow[None]:
    """Open the scopes of a run that was opened without its ledger."""
    for each in run.keepalives:
        if isinstance(each, DeferredOpening):
            yield from each.keep()


def _on_a_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    import asyncio  # as `SystemClock.wait_async` does

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _tell_of_old_prices(prices: PriceTable, clock: Clock) -> None:
    global _told_of_old_prices
    days = (clock.now().date() - prices.as_of).days
    if days > OLD_PRICES_DAYS and not _told_of_old_prices:
        _told_of_old_prices = True
        _log.warning(
            "budget_guard: the bundled prices are those of %s, %s days ago, and some may have changed: "
            "pip install --upgrade budget-guard-py, or give your own with pricing=",
            *(prices.as_of, days),
        )


def _new_run_id() -> str:
    """A new id that sorts by the time it was made: 48 bits of milliseconds, then 64 random ones."""
    return f"{time.time_ns() // 1_000_000:012x}{uuid.uuid4().hex[:16]}"
