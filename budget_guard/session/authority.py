"""Ceilings that many runs share: users, keys, teams and agents, across processes and hosts."""

from __future__ import annotations

import logging
import os
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from budget_guard.calls.decision import Action, Decision, DecisionLog
from budget_guard.calls.run import KeepAlive
from budget_guard.calls.seen import OnCancel
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import LedgerUnavailable
from budget_guard.events.subscribing import AnySubscriber, check_subscriber
from budget_guard.ledger.base import Balance, Ledger
from budget_guard.ledger.flow import Flow, adrive, drive
from budget_guard.ledger.memory import MemoryLedger
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.ledger.url import open_ledger
from budget_guard.policy.budget import OnLedgerError, fails_open
from budget_guard.policy.misspelt import refuses_unknown_keywords, unknown_keyword
from budget_guard.pricing.table import PriceLike, PriceTable
from budget_guard.reporting.report import BudgetReport
from budget_guard.session.budget import Budget
from budget_guard.session.ceiling import CEILED, Ceiling, ScopeSnapshot, ceilings_of, snapshot_of
from budget_guard.session.distinct_runs import count_run, run_limits, runs_of, uncounted
from budget_guard.session.keepalive import RUN_TTL_S, ConcurrencySlot, DeferredOpening
from budget_guard.session.plans import Ceilings, look
from budget_guard.session.run_report import report_of
from budget_guard.session.session import Session, Wiring
from budget_guard.session.told import OnThreshold, Told
from budget_guard.session.usage import By, UsageRow, When, past_snapshot, top_of, usage_of, window_back
from budget_guard.units.amounts import DIMENSIONS, Limits, in_unit
from budget_guard.units.scope import AGENT_IN_RUN, Scope, Window

if TYPE_CHECKING:
    from budget_guard.reporting.records import RunStore

_log = logging.getLogger("budget_guard")


_KIND = re.compile(r"[a-z][a-z0-9_]*")
_SETTINGS = ("run_id", "pricing", "per_million", "on_cancel", *Told._fields)
_PARAMETERS = ("self", "budget", "kind", "id", *_SETTINGS)
"""Words that `session` takes for something else, now or later."""
_NO_PLAN = (
    "{} has no plan, and nothing else limits it, so only the session's own budget would hold: give it a plan with "
    "assign(...), give those without one a ceiling with BudgetAuthority(..., ceilings={{{!r}: Budget(...)}}), or say "
    "that none is needed with require=()"
)


class BudgetAuthority:
    """Opens sessions whose users, keys, teams and agents have ceilings of their own, each shared by all of its runs.

    ::

        authority = BudgetAuthority(
            ledger=open_ledger("sqlite:///budget.db"),
            ceilings={"user": Budget("$20.00", window="day"), "key": Budget("$500.00", window="month")},
        )
        with authority.session(Budget("$5.00"), user="u1", key="k1") as session:
            ...
        authority.revoke("user", "u1", reason="compromised")

    Every process makes one of its own on the same ledger. Verbs that may wait come twice: ``session`` blocks,
    ``asession`` is awaited. Safe to use from any number of threads and tasks.

    Args:
        ledger: Where the counters live, or its URL as of `open_ledger`; a new one in memory by default.
        ceilings: What each user, key, team and agent may spend, by kind: limits and a window. A list of budgets, each
            with another window, holds in all of them: ``{"user": [Budget("$20", window="day"), Budget("$300",
            window="month")]}``. ``mode="advisory_estimate"`` makes one that refuses nothing and marks what it would
            have refused, ``max_runs=100`` limits the distinct runs of a window. `set_ceiling` makes exceptions.
        plans: What those may spend that have a plan, by its name and by kind: ``{"free": {"user": Budget("$1",
            window="day")}, "pro": {"user": [...]}}``. `assign` gives one; those without have the *ceilings*.
        pricing: Prices that win over the bundled ones, dollars per token: ``{"my-model": (2.5e-6, 10e-6)}``.
        per_million: The same in dollars per million tokens: ``{"my-model": (2.5, 10)}``.
        clock: Where time comes from.
        max_live_runs: How many sessions one principal may have open at once, by kind.
        run_ttl_s: Seconds without a call after which a session that was never closed gives up its place among them.
        outbox: A file on a local disk to keep what was spent while the ledger could not be reached; several processes
            may share it. In memory by default, where a crash during an outage loses it.
        on_ledger_error: What to do with a call where the ledger cannot be reached: ``closed`` refuses it, ``open`` lets
            it pass without a hold. By default the budget's mode says.
        kinds: Further kinds of principals beside ``user``, ``key``, ``team`` and ``agent``: with ``("org",)`` sessions
            take ``org="acme"``. Those that *ceilings* or *plans* name need not be named here.
        require: The kinds that every session must name. By default at least one of those that have a ceiling: without
            any, the session would be under none of them. ``()`` requires nothing.

    Raises:
        ValueError: If a kind is not known, or a value makes no sense.
        TypeError: If a ceiling is no budget.
    """

    @refuses_unknown_keywords("BudgetAuthority")
    def __init__(
        self,
        ledger: Ledger | str | None = None,
        ceilings: Mapping[str, Budget | Sequence[Budget]] | None = None,
        *,
        plans: Mapping[str, Mapping[str, Budget | Sequence[Budget]]] | None = None,
        pricing: Mapping[str, PriceLike] | None = None,
        per_million: Mapping[str, PriceLike] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        max_live_runs: Mapping[str, int] | None = None,
        run_ttl_s: float = RUN_TTL_S,
        outbox: Outbox | str | os.PathLike[str] | None = None,
        on_ledger_error: OnLedgerError | None = None,
        kinds: Sequence[str] = (),
        require: Sequence[str] | None = None,
    ) -> None:
        named = [*(ceilings or {}), *(kind for plan in _checked_plans(plans).values() for kind in plan)]
        self._ceiled = _with_further(kinds, named)
        """The kinds that may have a ceiling, in the order in which they are looked at."""
        self._cut_off = ("run", *self._ceiled)
        """The kinds that can be looked at and revoked."""
        fails_open("hard_gate", on_ledger_error)  # refuses a value that is not known
        if isinstance(run_ttl_s, bool) or not isinstance(run_ttl_s, (int, float)) or not 0 < run_ttl_s < 1e9:
            raise ValueError(f"run_ttl_s={run_ttl_s!r} must be a number of seconds above zero, such as 3600")
        self._ceilings = Ceilings(
            self._ceiled,
            {kind: ceilings_of(given, f"ceilings[{kind!r}]") for kind, given in (ceilings or {}).items()},
            {
                name: {kind: ceilings_of(given, f"plans[{name!r}][{kind!r}]") for kind, given in plan.items()}
                for name, plan in (plans or {}).items()
            },
        )
        self._live = {
            kind: Limits(requests=_places(self._kind(kind, "max_live_runs"), most))
            for kind, most in (max_live_runs or {}).items()
        }
        if isinstance(ledger, str):
            ledger = open_ledger(ledger)
        if isinstance(require, str):
            raise ValueError(f'require={require!r} is a text: give the kinds, such as require=("user",)')
        self._require = None if require is None else tuple(self._kind(kind, "require") for kind in require)
        self.ledger: Ledger = MemoryLedger(clock=clock) if ledger is None else ledger
        """Where the counters live."""
        self._prices = PriceTable.bundled()
        if pricing or per_million:
            self._prices = self._prices.overlaid(pricing, per_million=per_million)
        self._clock = clock
        self._run_ttl_s = float(run_ttl_s)
        self._on_ledger_error: OnLedgerError | None = on_ledger_error
        self.outbox = outbox if isinstance(outbox, Outbox) else Outbox(outbox)
        """What was spent and is not booked yet."""
        self._decisions = DecisionLog()
        self._subscribers: tuple[AnySubscriber, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of principals that its sessions take: ``user``, ``key``, ``team``, ``agent``, and your own."""
        return self._ceiled

    def session(
        self,
        budget: Budget,
        run_id: str | None = None,
        *,
        user: str | None = None,
        key: str | None = None,
        team: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        pricing: Mapping[str, PriceLike] | None = None,
        per_million: Mapping[str, PriceLike] | None = None,
        run_log: RunStore | None = None,
        on_soft_limit: OnThreshold | None = None,
        on_hard_limit: OnThreshold | None = None,
        on_loop_detected: OnThreshold | None = None,
        on_downgrade: OnThreshold | None = None,
        on_cancel: OnCancel = "bound",
        **further: str | None,
    ) -> Session:
        """Open a session that spends from *budget* and from the ceilings of its principals.

        Args:
            budget: What the run may spend.
            run_id: The run's name, to go on with it later, also in another process; made up by default. It belongs to
                the principal that made it: the user if there is one, else the key, the team, the agent.
            user: The user whose ceiling holds as well.
            key: The name of the key whose ceiling holds as well. Not the secret: it is logged.
            team: The team whose ceiling holds as well.
            feature: What to attribute the run to, in the report. It has no ceiling.
            agent: The handle of the agent whose ceiling holds as well, such as "research-agent-42": a name that the
                caller gives it for good, and not the one that a framework shows.
            pricing: Prices that win over the authority's, dollars per token.
            per_million: The same in dollars per million tokens.
            run_log: Where a record of the run goes when the session is closed, such as `budget_guard.reporting.RunLog`.
            on_soft_limit: A function of the report, plain or async, that is called once for each limit that is nearly
                used up.
            on_hard_limit: The same for each limit that has refused a call.
            on_loop_detected: The same for each loop that is noticed, and when it is stopped.
            on_downgrade: The same for each model that another one stands in for.
            on_cancel: What to book for an answer that its caller gives up, as `Session` says.
            **further: The principals of further kinds, by kind: ``org="acme"``. See `kinds`.

        Raises:
            BudgetExceeded: If a principal has as many sessions open as `max_live_runs` allows, or has begun as many
                runs as the ``max_runs`` of a ceiling allows.
            ForeignRun: If *run_id* is another principal's.
            LedgerUnavailable: If the ledger cannot be reached, and calls are not to pass without it.
            ValueError: If an argument makes no sense, or no principal is named that has a ceiling. See `require`.
        """
        named = {"user": user, "key": key, "team": team, "agent": agent, **further}
        session, opening = self._new(
            budget,
            run_id,
            named,
            feature,
            pricing,
            per_million,
            on_cancel,
            Told(run_log, on_soft_limit, on_hard_limit, on_loop_detected, on_downgrade),
        )
        drive(opening, session.ledger)
        return session

    async def asession(
        self,
        budget: Budget,
        run_id: str | None = None,
        *,
        user: str | None = None,
        key: str | None = None,
        team: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        pricing: Mapping[str, PriceLike] | None = None,
        per_million: Mapping[str, PriceLike] | None = None,
        run_log: RunStore | None = None,
        on_soft_limit: OnThreshold | None = None,
        on_hard_limit: OnThreshold | None = None,
        on_loop_detected: OnThreshold | None = None,
        on_downgrade: OnThreshold | None = None,
        on_cancel: OnCancel = "bound",
        **further: str | None,
    ) -> Session:
        """As `session`."""
        named = {"user": user, "key": key, "team": team, "agent": agent, **further}
        session, opening = self._new(
            budget,
            run_id,
            named,
            feature,
            pricing,
            per_million,
            on_cancel,
            Told(run_log, on_soft_limit, on_hard_limit, on_loop_detected, on_downgrade),
        )
        await adrive(opening, session.ledger.aio)
        return session

    def passes_without_ledger(self, budget: Budget) -> bool:
        """Whether the calls of a run of *budget* are made where the ledger cannot be reached."""
        return fails_open(budget.mode, self._on_ledger_error)

    def subscribe(self, subscriber: AnySubscriber) -> Callable[[], None]:
        """Call *subscriber* with every event of the sessions opened here from now on, and of their child sessions.

        As `Session.subscribe`: a plain or an async function of one event, or a sink. A `UsageEvent` says whose it is.

        Returns:
            How to stop: for sessions opened after that.

        Raises:
            TypeError: If it can take no event.
        """
        check_subscriber(subscriber)
        self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            self._subscribers = tuple(each for each in self._subscribers if each is not subscriber)

        return unsubscribe

    def set_ceiling(self, kind: str, id: str, budget: Budget | Sequence[Budget] | None) -> None:
        """Give one user, key or team a ceiling of its own, in every process, also for the sessions that are open.

        Args:
            kind: ``user``, ``key``, ``team``, ``agent``, or a kind of your own.
            id: Which one.
            budget: Its limits, window and mode, or a list of them, instead of those of its plan or its kind; None to go
                back to those. What is spent in the present window stays spent.

        Raises:
            ValueError: If *kind* is not known, the budget sets more than limits, a window and a mode, or it has one of
                several windows in which its kind is not counted.
            TypeError: If *budget* is no budget.
        """
        drive(self._set_ceiling(kind, id, budget), self.ledger)

    async def aset_ceiling(self, kind: str, id: str, budget: Budget | Sequence[Budget] | None) -> None:
        """As `set_ceiling`."""
        await adrive(self._set_ceiling(kind, id, budget), self.ledger.aio)

    def own_ceiling(self, kind: str, id: str) -> Sequence[Budget] | None:
        """The ceiling that `set_ceiling` gave to one user, key or team, one budget for each window; None for none.

        Raises:
            ValueError: If *kind* is not known.
        """
        return drive(self._own_ceiling(kind, id), self.ledger)

    async def aown_ceiling(self, kind: str, id: str) -> Sequence[Budget] | None:
        """As `own_ceiling`."""
        return await adrive(self._own_ceiling(kind, id), self.ledger.aio)

    def assign(self, kind: str, id: str, plan: str | None) -> None:
        """Give one user, key or team a plan, for good: in every process, also for the sessions that are open.

        It is kept in the ledger by its name, so what a plan allows may change with the next deployment. What is spent
        in the present windows stays spent; the limits are others at once. What `set_ceiling` says wins over it.

        Args:
            kind: ``user``, ``key``, ``team``, ``agent``, or a kind of your own.
            id: Which one. It need not have been heard of before.
            plan: One of `plans`; None to go back to the ceiling of its kind.

        Raises:
            ValueError: If *kind* or *plan* is not known, or the plan says nothing of that kind.
        """
        drive(self._assign(kind, id, plan), self.ledger)

    async def aassign(self, kind: str, id: str, plan: str | None) -> None:
        """As `assign`."""
        await adrive(self._assign(kind, id, plan), self.ledger.aio)

    def revoke(self, kind: str, id: str, *, reason: str) -> None:
        """Refuse every further call of a run, user, key or team, in every process. Calls in flight settle as usual.

        Args:
            kind: ``run``, ``user``, ``key`` or ``team``.
            id: Which one. It need not have been heard of before.
            reason: Why: it is in every refusal and its decision. The first one stands.

        Raises:
            ValueError: If *kind* is not known, or there is no reason.
        """
        drive(self._revoke(kind, id, reason), self.ledger)

    async def arevoke(self, kind: str, id: str, *, reason: str) -> None:
        """As `revoke`."""
        await adrive(self._revoke(kind, id, reason), self.ledger.aio)

    def restore(self, kind: str, id: str) -> bool:
        """Take a `revoke` back; return whether there was one.

        Raises:
            ValueError: If *kind* is not known.
        """
        return drive(self._restore(kind, id), self.ledger)

    async def arestore(self, kind: str, id: str) -> bool:
        """As `restore`."""
        return await adrive(self._restore(kind, id), self.ledger.aio)

    def snapshot(self, kind: str, id: str, *, window: int = 0) -> ScopeSnapshot:
        """The counters of a run, user, key or team as they are now: of several windows, those of the tightest one.

        Args:
            kind: ``run``, ``user``, ``key``, ``team`` or another kind.
            id: Which one.
            window: -1 for the last window, -2 for the one before, and so on: what was spent in it, from the ledger's
                usage history, beside the limits as they are now.

        Raises:
            ValueError: If *kind* is not known, or there is no such window, or the ledger has no history.
            KeyError: If there is no such run.
        """
        return drive(self._snapshot(kind, id, window), self.ledger)

    async def asnapshot(self, kind: str, id: str, *, window: int = 0) -> ScopeSnapshot:
        """As `snapshot`."""
        return await adrive(self._snapshot(kind, id, window), self.ledger.aio)

    def report(self, run_id: str) -> BudgetReport:
        """What the ledger knows of a run, whichever processes have spent from it: how much, and what for.

        Unlike `Session.report` it has neither events nor the course of the run: these are its sessions' to know.

        Raises:
            KeyError: If there is no such run.
        """
        return drive(report_of(_name("run_id", run_id)), self.ledger)

    async def areport(self, run_id: str) -> BudgetReport:
        """As `report`."""
        return await adrive(report_of(_name("run_id", run_id)), self.ledger.aio)

    def usage(
        self,
        kind: str,
        id: str | None = None,
        *,
        since: When | None = None,
        until: When | None = None,
        by: Sequence[By] = ("day", "model"),
    ) -> Sequence[UsageRow]:
        """What was spent, from the ledger's usage history: all of it, whichever process has spent it.

        Hours are kept for 7 days, then days for 400 (62 in memory), then one sum; of runs, days for 30.

        Args:
            kind: ``user``, ``key``, ``team``, ``agent``, ``run`` or another kind.
            id: Which one; None for all of that kind together, or apart with ``by=("id", ...)``.
            since: From when on: a day in UTC, or a moment with a time zone, from the beginning of its hour on. A row
                of a whole day counts by its beginning.
            until: Before when.
            by: One row for each combination of these: ``id``, ``hour``, ``day``, ``month``, ``feature``, ``agent``,
                ``task``, ``model``, ``tool``.

        Returns:
            The rows, sorted by the names that were asked for.

        Raises:
            ValueError: If *kind* or a name in *by* is not known, a time has no time zone, or the ledger has no history.
        """
        return drive(usage_of(self._measured(kind), id, since, until, by), self.ledger)

    async def ausage(
        self,
        kind: str,
        id: str | None = None,
        *,
        since: When | None = None,
        until: When | None = None,
        by: Sequence[By] = ("day", "model"),
    ) -> Sequence[UsageRow]:
        """As `usage`."""
        return await adrive(usage_of(self._measured(kind), id, since, until, by), self.ledger.aio)

    def top(
        self, kind: str, n: int = 20, *, since: When | None = None, until: When | None = None
    ) -> Sequence[UsageRow]:
        """The *n* users, or others of a kind, that have spent most; each row has its `id` and `spent_usd`.

        Args:
            kind: As of `usage`.
            n: How many.
            since: As of `usage`.
            until: As of `usage`.

        Raises:
            ValueError: As `usage`, and if *n* is no number of rows.
        """
        return drive(top_of(self._measured(kind), n, since, until), self.ledger)

    async def atop(
        self, kind: str, n: int = 20, *, since: When | None = None, until: When | None = None
    ) -> Sequence[UsageRow]:
        """As `top`."""
        return await adrive(top_of(self._measured(kind), n, since, until), self.ledger.aio)

    def decisions(
        self, kind: str | None = None, id: str | None = None, *, action: Action | None = None
    ) -> Sequence[Decision]:
        """The latest decisions of all sessions that this authority opened, oldest first; 1,000 are kept.

        Args:
            kind: Only those that concern a scope of this kind: ``run``, ``user``, ``key`` or ``team``.
            id: And of this id.
            action: Only those with this action.

        Raises:
            ValueError: If *kind* is not known, or there is an *id* without one.
        """
        if id is not None and kind is None:
            raise ValueError(f"id={id!r} needs its kind: one of {_listed(self._cut_off)}")
        prefix = "" if kind is None else f"{self._known(kind)}:"
        latest = self._decisions.latest()
        return [
            decision
            for decision in latest
            if (action is None or decision.action == action)
            and any(name.startswith(prefix) if id is None else name == prefix + id for name in decision.scopes)
        ]

    def _new(
        self,
        budget: Budget,
        run_id: str | None,
        named: Mapping[str, str | None],
        feature: str | None,
        pricing: Mapping[str, PriceLike] | None,
        per_million: Mapping[str, PriceLike] | None,
        on_cancel: OnCancel,
        told: Told,
    ) -> tuple[Session, Flow[None]]:
        """A session, and the flow that opens its scopes."""
        if not isinstance(budget, Budget):
            raise TypeError(f'budget={budget!r} is not a Budget: write authority.session(Budget("$5.00"))')
        run_id = None if run_id is None else _name("run_id", run_id)
        for kind in named:
            if kind not in self._ceiled:
                remedy = f"a principal of a kind of your own needs BudgetAuthority(..., kinds=({kind!r},))"
                raise unknown_keyword("session", kind, (*self._ceiled, "feature", *_SETTINGS), remedy)
        tags = {kind: _name(kind, id) for kind, id in (*named.items(), ("feature", feature)) if id is not None}
        self._must_be_under_a_ceiling(tags)
        principals = [Scope(kind, tags[kind]) for kind in self._ceiled if kind in tags]
        owner = str(principals[0]) if principals else ""
        live = [Scope("live", str(scope)) for scope in principals if scope.kind in self._live]
        ceilings = self._ceilings
        needs_plan = self._require is None and ceilings.has_plans and not live
        above = [each for principal in principals for each in ceilings.scopes(principal)]
        clock = self._clock

        def opening() -> Flow[None]:
            meant: list[Ceiling] = []
            refuses = budget.mode != "advisory_estimate"
            run = (run_scope, budget.limits, budget.window, owner)
            if not ceilings.limit_runs:
                yield "set_limits", run
            for scope in principals:
                meant += yield from ceilings.open(scope)
            runs = run_limits(above, meant)
            if ceilings.limit_runs:  # a run that is one too many leaves nothing behind
                yield from uncounted(runs, run_scope.id, clock, refuses)
                yield "set_limits", run
            yield from count_run(runs, run_scope.id, clock, refuses)
            opened = opening_session()
            if opened is not None:
                opened.note_ceilings(meant, [limit.mark(run_scope.id) for limit in runs])
            if needs_plan and not any(each.limits_something for each in meant):
                raise ValueError(_NO_PLAN.format(", ".join(map(str, principals)), principals[0].kind))
            for scope, principal in zip(live, (p for p in principals if p.kind in self._live), strict=True):
                places = self._live[principal.kind]
                balance = yield from look(scope)
                if balance is None or balance.limits != places:
                    yield "set_limits", (scope, places)

        keepalives: list[KeepAlive] = [DeferredOpening(opening)]
        if live:
            keepalives.append(ConcurrencySlot(self._clock, self._run_ttl_s, live))
        session = Session(
            budget,
            ledger=self.ledger,
            run_id=run_id,
            scopes=above,
            tags=tags,
            pricing=pricing,
            per_million=per_million,
            clock=self._clock,
            on_ledger_error=self._on_ledger_error,
            run_ttl_s=self._run_ttl_s,
            on_cancel=on_cancel,
            told=told,
            wiring=Wiring(
                owner=owner,
                keepalives=keepalives,
                decisions=self._decisions,
                outbox=self.outbox,
                prices=self._prices,
                subscribers=self._subscribers,
                ceilings=ceilings,
            ),
        )

        # Not the session: what opens it is kept by it, and it is to end without a collection.
        run_scope, opening_session = session.scope, weakref.ref(session)

        def open_now() -> Flow[None]:
            try:
                for each in keepalives:
                    yield from each.keep()
            except LedgerUnavailable as error:
                if not fails_open(budget.mode, self._on_ledger_error):
                    raise
                _log.error("budget_guard %s: opened without its ledger: %s", session.scope, error)

        return session, open_now()

    def _must_be_under_a_ceiling(self, named: Mapping[str, str]) -> None:
        """Check that a session of *named* principals is held by what this authority is for.

        Raises:
            ValueError: If it is not.
        """
        if self._require is not None:
            for kind in self._require:
                if kind not in named:
                    raise ValueError(
                        f"{kind}=None names nobody, and this authority has require={self._require!r}: "
                        f'write session(..., {kind}="...")'
                    )
            return
        ceiled = list(dict.fromkeys((*self._ceilings.kinds, *self._live)))
        if ceiled and named.keys().isdisjoint(ceiled):
            given = ", ".join(f"{kind}={id!r}" for kind, id in named.items())
            only = (
                f"{given} is under none of the ceilings of this authority, so only the session's own budget would hold"
                if given
                else "no principal is named, so none of the ceilings would hold, only the session's own budget"
            )
            raise ValueError(
                f"{only}: name one with {' or '.join(f'{kind}=...' for kind in ceiled)}, or say that "
                "none is needed with BudgetAuthority(..., require=())"
            )

    def _kind(self, kind: str, field: str) -> str:
        """*kind*, which may have a ceiling.

        Raises:
            ValueError: If it may not.
        """
        if kind in self._ceiled:
            return kind
        raise ValueError(f"{field}: the kind {kind!r} {_why_not(kind)}: use one of {_listed(self._ceiled)}")

    def _known(self, kind: str) -> str:
        """*kind*, which can be looked at and cut off.

        Raises:
            ValueError: If it cannot.
        """
        if kind not in self._cut_off:
            raise ValueError(f"kind={kind!r} is not known: use one of {_listed(self._cut_off)}")
        return kind

    def _set_ceiling(self, kind: str, id: str, budget: Budget | Sequence[Budget] | None) -> Flow[None]:
        scope = Scope(self._kind(kind, "kind"), _name("id", id))
        yield from self._ceilings.set(scope, None if budget is None else ceilings_of(budget, "budget"))

    def _own_ceiling(self, kind: str, id: str) -> Flow[Sequence[Budget] | None]:
        scope = Scope(self._kind(kind, "kind"), _name("id", id))
        own = yield from self._ceilings.own(scope)
        return None if own is None else [_budget_of(each) for each in own if each.limits_something]

    def _assign(self, kind: str, id: str, plan: str | None) -> Flow[None]:
        yield from self._ceilings.assign(Scope(self._kind(kind, "kind"), _name("id", id)), plan)

    def _revoke(self, kind: str, id: str, reason: str) -> Flow[None]:
        scope = Scope(self._known(kind), _name("id", id))
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f'reason={reason!r} says nothing: give one such as "compromised", it is in every refusal')
        yield "revoke", (scope, reason)
        _log.warning("budget_guard %s: revoked: %s", scope, reason)

    def _restore(self, kind: str, id: str) -> Flow[bool]:
        scope = Scope(self._known(kind), _name("id", id))
        restored: bool = yield "restore", (scope,)
        if restored:
            _log.warning("budget_guard %s: restored", scope)
        return restored

    def list(self, kind: str, *, prefix: str = "") -> Sequence[str]:
        """The ids of all users, or others of a kind, that the ledger knows, sorted.

        Args:
            kind: As of `usage`.
            prefix: Only those that begin with it.

        Raises:
            ValueError: If *kind* is not known.
        """
        return self.ledger.names(self._measured(kind), prefix)

    async def alist(self, kind: str, *, prefix: str = "") -> Sequence[str]:
        """As `list`."""
        return await self.ledger.aio.names(self._measured(kind), prefix)

    def _measured(self, kind: str) -> str:
        """*kind*, which has a usage history.

        Raises:
            ValueError: If it has none.
        """
        if kind == "feature":
            raise ValueError(
                f'kind={kind!r} is what runs are attributed to: write usage("user", by=("feature",)), or another of '
                f"{_listed(self._cut_off)}"
            )
        return self._known(kind)

    def _snapshot(self, kind: str, id: str, window: int) -> Flow[ScopeSnapshot]:
        scope, back = Scope(self._known(kind), _name("id", id)), window_back(window)
        if kind == "run":
            balance = yield from look(scope)
            if balance is None:
                raise KeyError(f"no run {id!r} is known: sessions have it as session.id")
            return (
                (yield from past_snapshot((balance,), back, self._clock.now(), None))
                if back
                else snapshot_of((balance,), None)
            )
        balances = yield from self._ceilings.balances(scope)
        plan = yield from self._ceilings.plan(scope)
        if back:
            return (yield from past_snapshot(balances, back, self._clock.now(), plan))
        runs: dict[Window, Balance] = {}
        for each in balances:
            counter = yield from look(runs_of(each.scope))
            if counter is not None:
                runs[each.window] = counter
        live = None
        if kind in self._live:
            places = yield from look(Scope("live", str(scope)))
            live = 0 if places is None else places.open_holds
        return snapshot_of(balances, live, plan, runs)


def _with_further(kinds: Sequence[str], named: Sequence[str]) -> tuple[str, ...]:
    """The kinds that may have a ceiling, with those that a user adds: *kinds*, and those *named* in his ceilings."""
    if isinstance(kinds, str):
        raise ValueError(f"kinds={kinds!r} is a text: give a tuple, such as kinds=({kinds!r},)")
    taken = ("run", "feature", "live", "ceiling", "plan", "runs", "ran", AGENT_IN_RUN, *CEILED, *_PARAMETERS)
    for kind in kinds:
        if not isinstance(kind, str) or not _KIND.fullmatch(kind) or kind in taken:
            raise ValueError(
                f"kinds: {kind!r} is no name for a kind, or is taken: use a word of small letters such as 'org'"
            )
    for kind in named:
        if kind in CEILED or kind in kinds:
            continue
        if not isinstance(kind, str) or not _KIND.fullmatch(kind) or kind in taken:
            raise ValueError(f"ceilings: the kind {kind!r} {_why_not(kind)}: use one of {_listed((*CEILED, *kinds))}")
        near = get_close_matches(kind, CEILED, 1, 0.75)
        if near:
            raise ValueError(
                f"ceilings: the kind {kind!r} is not known: did you mean {near[0]!r}? A kind of your own that is "
                f"called so needs BudgetAuthority(..., kinds=({kind!r},))"
            )
    return tuple(dict.fromkeys((*CEILED, *kinds, *named)))


def _why_not(kind: str) -> str:
    """Why *kind* may have no ceiling."""
    if kind == "feature":
        return "is what runs are attributed to, and has none"
    if kind == "run":
        return "is not known, for a run has the budget of its session"
    return f"is not known: a kind of your own needs BudgetAuthority(..., kinds=({kind!r},))"


def _checked_plans(plans: object) -> Mapping[str, Mapping[str, object]]:
    """*plans*, if they are names with ceilings by kind.

    Raises:
        ValueError: If they are not.
    """
    example = 'use plans={"free": {"user": Budget("$1", window="day")}}'
    if plans is None:
        return {}
    if not isinstance(plans, Mapping):
        raise ValueError(f"plans={plans!r} is no mapping of plans by their names: {example}")
    checked = cast("Mapping[object, object]", plans)
    for name, plan in checked.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"plans: {name!r} is no name of a plan: {example}")
        if not isinstance(plan, Mapping) or not plan:
            raise ValueError(f"plans[{name!r}]={plan!r} names no kind with its ceiling: {example}")
    return cast("Mapping[str, Mapping[str, object]]", plans)


def _budget_of(ceiling: Ceiling) -> Budget:
    """The budget that says *ceiling*."""
    limits: dict[str, Any] = {
        DIMENSIONS[i]: in_unit(i, limit) for i, limit in enumerate(ceiling.limits) if limit is not None
    }
    return Budget(**limits, window=ceiling.window, mode=ceiling.mode, max_runs=ceiling.max_runs)


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(map(repr, kinds))


def _name(field: str, id: str) -> str:
    if not isinstance(id, str) or not id:
        raise ValueError(f"{field}={id!r} is no name: use a text that is not empty, or None")
    return id


def _places(kind: str, most: int) -> int:
    if isinstance(most, bool) or not isinstance(most, int) or not 0 < most < 2**53:
        raise ValueError(f"max_live_runs[{kind!r}]={most!r} must be a whole number from 1 on")
    return most
