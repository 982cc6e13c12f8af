"""Ceilings of users, keys, teams and agents, and the snapshots that operators look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, cast

from budget_guard.ledger.base import Balance
from budget_guard.policy.budget import BudgetPolicy
from budget_guard.units.amounts import DIMENSIONS, Amounts, Limits, in_unit
from budget_guard.units.scope import Window

CEILED = ("user", "key", "team", "agent")
"""The kinds of principals that may have a ceiling, in the order in which they are looked at."""


class Ceiling(NamedTuple):
    """The limits of one scope, and when they begin anew."""

    limits: Limits = Limits()
    window: Window = "none"


NO_CEILING = Ceiling()


def ceiling_of(budget: BudgetPolicy, name: str) -> Ceiling:
    """The ceiling that *budget* says.

    Args:
        budget: Limits and a window alone: policies are the run's.
        name: What an error message should call it.

    Raises:
        TypeError: If it is no budget.
        ValueError: If it sets what a ceiling does not have.
    """
    given = cast("object", budget)
    if type(given) is list or type(given) is tuple:
        raise TypeError(
            f"{name} has {len(cast('Sequence[object]', given))} budgets: a kind has one ceiling, in one window. For a "
            'second window add a kind and name it as well: BudgetAuthority(..., kinds=("user_month",)) and '
            'session(..., user="u1", user_month="u1")'
        )
    if not isinstance(budget, BudgetPolicy):
        raise TypeError(f'{name}={budget!r} is not a Budget: write Budget("$20.00", window="day")')
    plain = BudgetPolicy(1)
    for field in fields(budget):
        value = getattr(budget, field.name)
        if field.name not in (*DIMENSIONS, "window") and value != getattr(plain, field.name):
            raise ValueError(
                f"{name} sets {field.name}={value!r}: a ceiling has limits and a window alone, so set it in the "
                "budget of the runs"
            )
    return Ceiling(budget.limits, budget.window)


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


def snapshot_of(balance: Balance, live_runs: int | None) -> ScopeSnapshot:
    """*balance* in the units that users see."""
    revoked = balance.revoked
    left = [
        None if limit is None else limit - balance.committed[i] - balance.reserved[i]
        for i, limit in enumerate(balance.limits)
    ]
    return ScopeSnapshot(
        kind=balance.scope.kind,
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
    )


def _by_name(quantities: Limits | Amounts | Sequence[int | None]) -> dict[str, Decimal | int]:
    return {DIMENSIONS[i]: in_unit(i, quantity) for i, quantity in enumerate(quantities) if quantity is not None}
