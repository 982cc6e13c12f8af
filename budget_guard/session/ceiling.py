"""Ceilings of users, keys, teams and agents, and the snapshots that operators look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias, cast, get_args

from budget_guard.calls import advisory
from budget_guard.ledger.base import Balance, Revoked
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.units.amounts import DIMENSIONS, Amounts, Limits, in_unit
from budget_guard.units.scope import Window

CEILED = ("user", "key", "team", "agent")
"""The kinds of principals that may have a ceiling, in the order in which they are looked at."""


CeilingMode: TypeAlias = Literal["hard_gate", "advisory_estimate"]
_OF_A_CEILING = (*DIMENSIONS, "window", "mode", "max_runs")


class Ceiling(NamedTuple):
    """The limits of one scope, and when they begin anew."""

    limits: Limits = Limits()
    window: Window = "none"
    mode: CeilingMode = "hard_gate"
    """``advisory_estimate`` refuses nothing, and marks what it would have refused."""
    max_runs: int | None = None
    """How many distinct runs may be begun in a window."""

    @property
    def limits_something(self) -> bool:
        """Whether it has a limit."""
        return self.limits != Limits() or self.max_runs is not None

    @property
    def enforced(self) -> tuple[Limits, Window, str]:
        """The limits, the window and the note that a ledger has for it: no limits where it refuses nothing."""
        if self.mode == "hard_gate":
            return self.limits, self.window, ""
        return Limits(), self.window, advisory.note_of(self.limits)

    @property
    def written_down(self) -> tuple[Limits, Window, str]:
        """The limits, the window and the note that say all of it, to be read again with `ceiling_in`."""
        words: list[str] = [] if self.mode == "hard_gate" else [self.mode]
        if self.max_runs is not None:
            words.append(f"{_MAX_RUNS}{self.max_runs}")
        return self.limits, self.window, " ".join(words)


def is_advisory(ceilings: Sequence[Ceiling]) -> bool:
    """Whether one of *ceilings* refuses nothing, and is to be marked."""
    return any(each.mode == "advisory_estimate" and each.limits != Limits() for each in ceilings)


NO_CEILING = Ceiling()
_MAX_RUNS = "max_runs="


def ceiling_in(balance: Balance) -> Ceiling:
    """The ceiling that was written down in a scope of its own."""
    ceiling = Ceiling(balance.limits, balance.window)
    for word in balance.note.split():
        if word.startswith(_MAX_RUNS):
            ceiling = ceiling._replace(max_runs=int(word.removeprefix(_MAX_RUNS)))
        elif word == "advisory_estimate":
            ceiling = ceiling._replace(mode="advisory_estimate")
    return ceiling


def ceilings_of(budgets: BudgetPolicy | Sequence[BudgetPolicy], name: str) -> tuple[Ceiling, ...]:
    """The ceilings that *budgets* say, each in a window of its own.

    Args:
        budgets: One budget, or a list of them.
        name: What an error message should call them.

    Raises:
        TypeError: If one is no budget.
        ValueError: If one sets what a ceiling does not have, if two have the same window, or if there is none.
    """
    if not isinstance(budgets, (list, tuple)):
        return (_ceiling_of(cast("BudgetPolicy", budgets), name),)
    made = tuple(_ceiling_of(budget, f"{name}[{i}]") for i, budget in enumerate(budgets))
    if not made:
        raise ValueError(f'{name} has no budget: give one, such as [Budget("$20.00", window="day")]')
    windows = [each.window for each in made]
    for window in windows:
        if windows.count(window) > 1:
            raise ValueError(f"{name} has two budgets with window={window!r}: put all limits of one window into one")
    return made


def _ceiling_of(budget: BudgetPolicy, name: str) -> Ceiling:
    """The ceiling that *budget* says: limits, a window and a mode alone, for other policies are the run's."""
    if not isinstance(budget, BudgetPolicy):
        raise TypeError(f'{name}={budget!r} is not a Budget: write Budget("$20.00", window="day")')
    plain = BudgetPolicy(1)
    for field in fields(budget):
        value = getattr(budget, field.name)
        if field.name not in _OF_A_CEILING and value != getattr(plain, field.name):
            raise ValueError(
                f"{name} sets {field.name}={value!r}: a ceiling has limits, a window and a mode alone, so set it in "
                "the budget of the runs"
            )
    if budget.mode not in get_args(CeilingMode):
        raise ValueError(
            f"{name} sets mode={budget.mode!r}: a ceiling has 'hard_gate', where the mode of each run counts, or "
            "'advisory_estimate', which refuses nothing"
        )
    return Ceiling(budget.limits, budget.window, cast("CeilingMode", budget.mode), budget.max_runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSnapshot:
    """The counters of one run, user, key, team or agent at one moment. Amounts are by name of the `Budget` field that
    limits them: dollars as Decimal, everything else as int."""

    kind: str
    id: str
    limits: Mapping[str, Decimal | int]
    """The limits that are set."""
    committed: Mapping[str, Decimal | int]
    """What is spent, in its present window."""
    reserved: Mapping[str, Decimal | int]
    """What is held for calls in flight."""
    remaining: Mapping[str, Decimal | int]
    """limit - committed - reserved for each limit. Negative after an overrun."""
    open_holds: int
    """Calls in flight, child sessions, and leases."""
    window: Window
    window_start: datetime | None
    """When the present window began (UTC); None for ``none``."""
    revoked: bool
    revoked_reason: str | None
    revoked_at: datetime | None
    live_runs: int | None
    """Sessions that are open; None where nothing limits them, so that they are not counted."""
    resets_at: datetime | None = None
    """When the window ends (UTC); None for ``none``."""
    plan: str | None = None
    """The name of its plan; None if it has none."""
    mode: CeilingMode | None = None
    """``advisory_estimate`` where these limits refuse nothing, and only mark what they would have refused."""
    runs: int | None = None
    """Distinct runs that were begun in the window; None where nothing limits them, so that they are not counted."""
    windows: tuple[ScopeSnapshot, ...] = ()
    """The same for each window that limits it, the longest first. This one tells of the window that has least left,
    and in `remaining` the least of all of them; of advisory ones only where there is no other."""

    @property
    def spent_usd(self) -> Decimal:
        """Dollars committed."""
        return Decimal(self.committed[DIMENSIONS[0]])

    @property
    def reserved_usd(self) -> Decimal:
        """Dollars held."""
        return Decimal(self.reserved[DIMENSIONS[0]])

    @property
    def remaining_usd(self) -> Decimal | None:
        """Dollars left; None without a dollar limit."""
        left = self.remaining.get(DIMENSIONS[0])
        return None if left is None else Decimal(left)


def snapshot_of(
    balances: Sequence[Balance],
    live_runs: int | None,
    plan: str | None = None,
    runs: Mapping[Window, Balance] | None = None,
) -> ScopeSnapshot:
    """The counters of one principal in the units that users see.

    Args:
        balances: Those of each of its windows, its own scope first.
        live_runs: How many sessions it has open.
        plan: Its plan.
        runs: What counts its distinct runs, by window, where something does.
    """
    revoked, counted = balances[0].revoked, runs or {}
    refuse_nothing = {each.scope for each in balances if advisory.is_advisory(each)}
    limiting = [each for each in map(advisory.as_meant, balances) if each.limited or each.window in counted]
    windows = [
        replace(
            _window_of(each, revoked, live_runs, plan),
            mode="advisory_estimate" if each.scope in refuse_nothing else None,
            runs=counted[each.window].committed.requests if each.window in counted else None,
        )
        for each in limiting or balances[:1]
    ]
    pairs = list(zip(limiting or balances[:1], windows, strict=True))
    refusing = [pair for pair in pairs if pair[1].mode is None] or pairs
    tightest = min(refusing, key=lambda pair: _left(pair[0]))[1]
    remaining: dict[str, Decimal | int] = {}
    for _, each in refusing:
        for name, left in each.remaining.items():
            remaining[name] = min(left, remaining.get(name, left))
    return replace(tightest, remaining=remaining, windows=tuple(windows))


def _left(balance: Balance) -> tuple[float, float]:
    """How near its limits a window is: the dollars that are left, then the smallest share."""
    left = {i: limit - balance.committed[i] - balance.reserved[i] for i, limit in balance.limited}
    shares = (left[i] / limit if limit else 0.0 for i, limit in balance.limited)
    return left.get(0, math.inf), min(shares, default=math.inf)


def _window_of(balance: Balance, revoked: Revoked | None, live_runs: int | None, plan: str | None) -> ScopeSnapshot:
    """The counters of one window in the units that users see."""
    left = [
        None if limit is None else limit - balance.committed[i] - balance.reserved[i]
        for i, limit in enumerate(balance.limits)
    ]
    return ScopeSnapshot(
        kind=balance.scope.principal.partition(":")[0],
        id=balance.scope.id,
        limits=_by_name(balance.limits),
        committed=_by_name(balance.committed),
        reserved=_by_name(balance.reserved),
        remaining=_by_name(left),
        open_holds=balance.open_holds,
        window=balance.window,
        window_start=balance.since,
        revoked=revoked is not None,
        revoked_reason=None if revoked is None else revoked.reason,
        revoked_at=None if revoked is None else revoked.at,
        live_runs=live_runs,
        resets_at=balance.ends,
        plan=plan,
    )


def _by_name(quantities: Limits | Amounts | Sequence[int | None]) -> dict[str, Decimal | int]:
    return {DIMENSIONS[i]: in_unit(i, quantity) for i, quantity in enumerate(quantities) if quantity is not None}
