"""The base of guards, handlers and middleware: the view of a session, and the settings that they open one with."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, get_args

from budget_guard.calls.seen import OnCancel
from budget_guard.events.subscribing import AnySubscriber
from budget_guard.ledger.base import Ledger
from budget_guard.ledger.url import open_ledger
from budget_guard.policy.misspelt import unknown_keyword
from budget_guard.pricing.table import PriceLike
from budget_guard.reporting.report import BudgetReport
from budget_guard.session.authority import BudgetAuthority
from budget_guard.session.budget import Budget
from budget_guard.session.opening import open_session
from budget_guard.session.session import Session
from budget_guard.session.told import OnThreshold, Told
from budget_guard.units.money import UsdLike

if TYPE_CHECKING:
    from budget_guard.reporting.records import RunRecord, RunStore

OnCutOff: TypeAlias = Literal["raise", "keep"]
"""What becomes of an answer that a budget's own output cap cuts off: it is a stop, or it is kept as the answer."""
H = TypeVar("H", bound="SessionHandle")


class SessionHandle:
    """The view of one session, and how to steer it: what users see of a guard, a handler or a middleware."""

    session: Session

    @property
    def budget(self) -> Budget:
        """The budget, with its limits as they are now."""
        return cast("Budget", self.session.budget)  # which a handle was given

    @property
    def spent_usd(self) -> Decimal:
        """Dollars committed, exact to the nano-dollar."""
        return self.session.spent_usd

    async def aspent_usd(self) -> Decimal:
        """As `spent_usd`, without blocking an event loop where the ledger lives elsewhere."""
        return await self.session.aspent_usd()

    @property
    def reserved_usd(self) -> Decimal:
        """Dollars held for calls in flight."""
        return self.session.reserved_usd

    @property
    def remaining_usd(self) -> Decimal | None:
        """Dollars: limit - committed - reserved; None without a dollar limit. Negative after an overrun."""
        return self.session.remaining_usd

    @property
    def times_raised(self) -> int:
        """How often the limits were raised."""
        return self.session.times_raised

    def report(self) -> BudgetReport:
        """What was spent so far, on what, and what stopped the run. ``print`` it for one line."""
        return self.session.report()

    async def areport(self) -> BudgetReport:
        """As `report`."""
        return await self.session.areport()

    def raise_limits(self, **limits: UsdLike | None) -> None:
        """Raise limits of the running session. As `Session.raise_limits`."""
        self.session.raise_limits(**limits)

    async def araise_limits(self, **limits: UsdLike | None) -> None:
        """As `raise_limits`."""
        await self.session.araise_limits(**limits)

    def revoke(self, reason: str) -> None:
        """Refuse every further call. Calls in flight settle as usual."""
        self.session.revoke(reason)

    async def arevoke(self, reason: str) -> None:
        """As `revoke`."""
        await self.session.arevoke(reason)

    def charge(self, tool: str, cost: UsdLike, *, agent: str | None = None) -> None:
        """Book *cost* dollars that were already spent on *tool*. As `Session.charge`."""
        self.session.charge(tool, cost, agent=agent)

    def close(self) -> None:
        """Give up what is kept for the session alone, such as its place among the live runs. As `Session.close`."""
        self.session.close()

    async def aclose(self) -> None:
        """As `close`."""
        await self.session.aclose()

    def subscribe(self, subscriber: AnySubscriber) -> Callable[[], None]:
        """Call *subscriber* with every event; returns how to stop. As `Session.subscribe`."""
        return self.session.subscribe(subscriber)


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """What a guard or a handler opens its sessions with."""

    authority: BudgetAuthority | None
    """Where the ceilings live that its runs share with others; None for none."""
    user: str | None
    key: str | None
    team: str | None
    feature: str | None
    pricing: Mapping[str, PriceLike] | None
    """Prices that win over the bundled ones, dollars per token."""
    per_million: Mapping[str, PriceLike] | None = None
    """The same in dollars per million tokens."""
    agent: str | None = None
    """The handle of the agent that makes the runs."""
    ledger: Ledger | str | None = None
    """Where the counters live, or its URL, where there is no authority; each session in memory by default."""
    on_cancel: OnCancel = "bound"
    """What to book for an answer that its caller gives up."""
    run_log: RunStore | None = None
    """Where the record of each run goes. See `Session.record_runs`."""
    on_soft_limit: OnThreshold | None = None
    on_hard_limit: OnThreshold | None = None
    on_loop_detected: OnThreshold | None = None
    on_downgrade: OnThreshold | None = None
    principals: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    """The principals of kinds that the authority has beside the usual ones."""

    def __post_init__(self) -> None:
        if isinstance(self.ledger, str):  # one for all sessions
            object.__setattr__(self, "ledger", open_ledger(self.ledger))
        Told(self.run_log).check()

    def past_runs(self) -> Iterable[RunRecord] | None:
        """The records to compare with; None where none can be read."""
        log: object = self.run_log
        return cast("Iterable[RunRecord]", log) if isinstance(log, Iterable) else None

    def arguments(self) -> dict[str, Any]:
        """What makes a guard with the same settings."""
        named = {name: value for name, value in vars(self).items() if name != "principals"}
        return {**named, **self.principals}

    def open(self, budget: Budget, run_id: str | None = None, *, shared: bool = True) -> Session:
        """A new session.

        Args:
            budget: What it may spend.
            run_id: A name for its scope; made up by default.
            shared: Whether it spends from the authority's ceilings as well: one session of each call does.

        Raises:
            BudgetError, ValueError: As `BudgetAuthority.session`.
        """
        return open_session(
            self.authority if shared else None,
            budget,
            run_id,
            user=self.user,
            key=self.key,
            team=self.team,
            feature=self.feature,
            agent=self.agent,
            pricing=self.pricing,
            per_million=self.per_million,
            ledger=self.ledger if shared else None,
            on_cancel=self.on_cancel,
            on_soft_limit=self.on_soft_limit,
            on_hard_limit=self.on_hard_limit,
            on_loop_detected=self.on_loop_detected,
            on_downgrade=self.on_downgrade,
            **self.principals,
        )


async def opened(make: Callable[..., H], *args: Any, **settings: Any) -> H:
    """What *make* gives of the arguments, made in a thread: its ledger may have to be waited for.

    A cancellation waits until it is made, and closes it.
    """
    making = asyncio.ensure_future(asyncio.to_thread(functools.partial(make, *args, **settings)))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await asyncio.wait([making])
        if making.exception() is None:
            await making.result().aclose()
        raise


def forked(
    budget: Budget,
    settings: SessionSettings,
    own: Mapping[str, Any],
    changes: Mapping[str, Any],
    fork: Callable[..., object],
) -> dict[str, Any]:
    """The arguments of a guard or handler like one that there is, with *changes*.

    Args:
        budget: What the one that there is may spend.
        settings: What it opens its sessions with.
        own: What else it was given, by name.
        changes: What is to be another.
        fork: The method that is called, for the error to name.

    Raises:
        TypeError: If a change names what is no setting.
    """
    known = {"budget": budget, "run_id": None, **settings.arguments(), **own}
    authority = changes.get("authority", settings.authority)
    for name in changes:
        if name not in known and not (isinstance(authority, BudgetAuthority) and name in authority.kinds):
            raise TypeError(f"{fork.__name__}() takes no {name}=: it takes {', '.join(known)}")
    made = {**known, **changes}
    given = changes.get("budget")
    if isinstance(given, Budget) and given.downgrade is not None and "downgrade_to" not in changes:
        made["downgrade_to"] = None  # a budget that says it itself has the last word
        made.pop("downgrade_at", None)
    if changes.get("authority") is not None and "ledger" not in changes:
        made["ledger"] = None
    if changes.get("ledger") is not None and "authority" not in changes:
        made["authority"] = None
    return made


def check_principals(principals: Mapping[str, object], authority: object, made: type) -> None:
    """Refuse keywords that are neither parameters of a guard nor kinds of its authority.

    Args:
        principals: The keywords that are no parameters.
        authority: Its authority; None for none.
        made: The guard's class.

    Raises:
        TypeError: If there is one, naming the one that was most likely meant.
    """
    kinds = authority.kinds if isinstance(authority, BudgetAuthority) else ()
    for name in principals:
        if name in kinds:
            continue
        parameters = [each for each in inspect.signature(made).parameters if each not in ("self", "principals")]
        remedy = "a kind of your own needs authority=, and a ceiling there"
        raise unknown_keyword(made.__name__, name, (*parameters, *kinds), remedy)


def check_budget(budget: object, owner: str) -> None:
    """Refuse what is no budget.

    Args:
        budget: What was given as one.
        owner: The class that it was given to.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(budget, Budget):
        raise TypeError(f'budget={budget!r} is not a Budget: write {owner}(Budget("$5.00"))')


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse a *value* that is none of *choices*.

    Args:
        name: The parameter's name.
        value: What was given.
        choices: The parameter's type, a `Literal`.

    Raises:
        ValueError: If it is none of them.
    """
    known = get_args(choices)
    if value not in known:
        *most, last = map(repr, known)
        raise ValueError(f"{name}={value!r} is not known: use {', '.join(most)} or {last}")
