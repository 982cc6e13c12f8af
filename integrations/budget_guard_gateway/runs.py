"""The runs that callers have open, each a session with its principals' ceilings."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections import OrderedDict
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Protocol

from budget_guard import Budget, BudgetAuthority, BudgetError, Decision, LedgerUnavailable, Session
from budget_guard.adapter import Attempts
from budget_guard.calls.seen import OnCancel
from budget_guard.clock import Clock
from budget_guard.ledger.outbox.ledger import areplay
from budget_guard.protocol import problem
from budget_guard.units.money import to_usd
from budget_guard_gateway.keys import Principal
from budget_guard_gateway.messages import Refused

_log = logging.getLogger("budget_guard")

LOOKED_AFTER_S = 30.0
"""Seconds between two looks at what was left behind: holds whose time is up, runs that nobody calls."""
_LIMITS_KEPT_S = 30 * 86_400.0
"""Seconds for which the limits that a run was opened with are kept, since it was opened last."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class RunSettings(Protocol):
    """What runs may spend, and how many are kept at hand, as of `GatewaySettings`."""

    @property
    def run_budget(self) -> Budget: ...
    @property
    def models(self) -> Mapping[str, str]: ...
    @property
    def on_cancel(self) -> OnCancel: ...
    @property
    def run_ttl_s(self) -> float: ...
    @property
    def max_runs(self) -> int: ...


def is_run_id(text: str) -> bool:
    """Whether *text* can name a run."""
    return _RUN_ID.fullmatch(text) is not None and ".." not in text


def checked_run_id(text: str | None) -> str | None:
    """*text*, which names a run; None where a request names none.

    Raises:
        Refused: If it is no name.
    """
    if text is not None and not is_run_id(text):
        raise Refused(problem("invalid_run_id", "X-Run-Id must be letters, digits and ._:-, at most 128 of them."))
    return text


async def least_remaining_usd(session: Session, decision: Decision | None = None) -> Decimal | None:
    """Dollars left in the tightest scope of a run; None where nothing limits them, or they cannot be looked at.

    Args:
        session: The run.
        decision: That on a call which was settled just now: where its ledger has said what is left, nobody looks again.
    """
    held = None if decision is None else decision.reservation
    if held is not None and held.cost_left is not None:
        return to_usd(held.cost_left)
    try:
        return await session.aleast_remaining_usd()
    except (LedgerUnavailable, KeyError):  # or it was never to be reached, so that no scope was opened
        return None


class OpenRun:
    """One run that is open, and the requests that are held in it."""

    __slots__ = ("attempts", "calls", "made_up", "session", "used", "who")

    def __init__(self, who: Principal, session: Session, attempts: Attempts, made_up: bool) -> None:
        self.who = who
        self.session = session
        self.attempts = attempts
        self.made_up = made_up
        """Whether the caller named no run: it is put away once its calls are over."""
        self.calls = 0
        """Requests under way in it."""
        self.used = 0.0
        """When the latest one came."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is found by."""
        return self.who.name, self.session.id


class Runs:
    """Opens runs, and puts away those that nobody calls any more. What they have spent is the ledger's to know.

    Args:
        authority: Whose ceilings hold.
        settings: What the runs may spend, and how many are kept at hand.
        clock: Where time comes from.
    """

    def __init__(self, authority: BudgetAuthority, settings: RunSettings, clock: Clock) -> None:
        self._authority = authority
        self._settings = settings
        self._clock = clock
        self._open: OrderedDict[tuple[str, str], OpenRun] = OrderedDict()
        self._opening: dict[tuple[str, str], asyncio.Future[OpenRun]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> list[OpenRun]:
        """Those that are open, the one called last at the end."""
        return list(self._open.values())

    @staticmethod
    def new_id() -> str:
        """A name for a run that is given none."""
        return f"run-{uuid.uuid4().hex}"

    def budget_of(self, who: Principal) -> Budget:
        """What a run of *who* may spend, if it asks for no less."""
        budget = self._settings.run_budget
        if who.run_budget is not None:
            budget = budget.replace(max_cost_usd=who.run_budget)
        if who.models and budget.downgrade is not None:
            budget = budget.replace(downgrade=budget.downgrade.only(who.may_use))
        return budget

    async def enter(self, who: Principal, run_id: str | None, limits: Mapping[str, str] | None = None) -> OpenRun:
        """The run that a request of *who* belongs to, until `leave`.

        Args:
            who: The caller.
            run_id: The run that it names; None for a new one.
            limits: What it shall be held to from now on, in every process, below what `budget_of` says.

        Raises:
            BudgetError: If the run is another principal's, or cannot be opened.
        """
        run = None if run_id is None else self._open.get((who.name, run_id))
        if limits is not None and run_id is not None:
            run = await self._new(who, run_id, limits)
        elif run is None or run.who != who:  # or the key's entry says something else than before
            run = await self._opened(who, run_id)
        run.calls += 1
        run.used = self._clock.monotonic()
        if self._open.get(run.key) is run:
            self._open.move_to_end(run.key)
        return run

    async def leave(self, run: OpenRun) -> None:
        """Note that a request is over."""
        run.calls -= 1
        if run.made_up and not run.calls:
            await self._close(run)

    async def _opened(self, who: Principal, run_id: str | None) -> OpenRun:
        if run_id is None:
            return await self._new(who, None)
        key = (who.name, run_id)
        opening = self._opening.get(key)
        if opening is None:  # by one of all that come at once: each session would count as a run
            opening = self._opening[key] = asyncio.ensure_future(self._new(who, run_id))
            opening.add_done_callback(lambda done: (self._opening.pop(key, None), done.cancelled() or done.exception()))
        return await asyncio.shield(opening)

    async def _new(self, who: Principal, run_id: str | None, limits: Mapping[str, str] | None = None) -> OpenRun:
        settings = self._settings
        budget = self.budget_of(who)
        if limits is None and run_id is not None:
            limits = await self._own_limits(run_id, budget)
        session = await self._authority.asession(
            _held_to(budget, limits or {}),
            run_id,
            user=who.user,
            key=who.name,
            team=who.team,
            feature=who.feature,
            on_cancel=settings.on_cancel,
        )
        if limits and run_id is not None:  # it is the caller's own: nobody else's limits are replaced
            await self._keep_limits(run_id, limits)
        run = OpenRun(who, session, Attempts([session], models=settings.models), run_id is None)
        run.used = self._clock.monotonic()
        if run_id is not None:
            before = self._open.pop(run.key, None)
            too_many = len(self._open) + 1 - settings.max_runs
            idle = [each for each in self._open.values() if not each.calls] if too_many > 0 else []
            self._open[run.key] = run
            for each in ([] if before is None else [before]) + idle[: max(0, too_many)]:
                if self._open.get(each.key) is each:
                    del self._open[each.key]
                await self._close(each)
        return run

    async def _own_limits(self, run_id: str, budget: Budget) -> Mapping[str, str]:
        """The limits that a run was opened with, in whatever process."""
        try:
            text = await self._authority.ledger.aio.swap(_place(run_id), None, None, 1)
        except LedgerUnavailable:
            if not self._authority.passes_without_ledger(budget):
                raise
            return {}
        found: dict[str, str] = {} if text is None else json.loads(text)
        return found

    async def _keep_limits(self, run_id: str, limits: Mapping[str, str]) -> None:
        ledger = self._authority.ledger.aio
        place, text = _place(run_id), json.dumps(limits)
        kept = await ledger.swap(place, None, text, _LIMITS_KEPT_S)
        while kept != text:
            kept = await ledger.swap(place, kept, text, _LIMITS_KEPT_S)
        await ledger.swap(place, text, text, _LIMITS_KEPT_S)

    async def end(self, run: OpenRun) -> None:
        """Put *run* away, if nobody calls it just now."""
        if not run.calls and self._open.get(run.key) is run:
            del self._open[run.key]
            await self._close(run)

    async def sweep(self) -> None:
        """Put away the runs that were not called for `GatewaySettings.run_ttl_s`."""
        since = self._clock.monotonic() - self._settings.run_ttl_s
        for run in list(self._open.values()):
            if not run.calls and run.used <= since and self._open.pop(run.key, None) is not None:
                await self._close(run)

    async def look_after(self) -> None:
        """Put away what is over, book what could not be booked, and expire what was left behind."""
        try:
            await self.sweep()
            await areplay(self._authority.outbox, self._authority.ledger)
            await self._authority.ledger.aio.sweep()
        except BudgetError as error:
            _log.info("budget_guard: what was left behind waits: %s", error)

    async def close(self) -> None:
        """Close them all."""
        while self._open:
            _, run = self._open.popitem()
            await self._close(run)

    async def _close(self, run: OpenRun) -> None:
        try:
            await run.session.aclose()
        except BudgetError as error:
            _log.info("budget_guard run %s: closed without its ledger: %s", run.session.id, error)


def _held_to(budget: Budget, limits: Mapping[str, str]) -> Budget:
    """*budget* with those of *limits* that are lower than its own."""
    lower: dict[str, Any] = {}
    for name, text in limits.items():
        value = Decimal(text) if name == "max_cost_usd" else int(text)
        most = getattr(budget, name)
        if most is None or value < most:
            lower[name] = value
    return budget.replace(**lower) if lower else budget


def _place(run_id: str) -> str:
    """Where the ledger keeps the limits that a run was opened with."""
    return f"run-limits:{run_id}"


def check_principals(principals: list[Principal], ceilings: Collection[str]) -> None:
    """Refuse keys that no ceiling would hold, and budgets that make no sense.

    Raises:
        ValueError: If a key names none of the kinds that have a ceiling.
    """
    for who in principals:
        if who.run_budget is not None:
            Budget(who.run_budget)
        if ceilings and who.kinds.isdisjoint(ceilings):
            kinds = " or ".join(sorted(ceilings))
            raise ValueError(
                f"the key {who.name!r} is under none of the ceilings: give it a {kinds}, or a ceiling to every key"
            )
