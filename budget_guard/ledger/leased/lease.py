"""One lease, and all leases of one run with what is known of the ceilings that they are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from budget_guard.clock import Clock
from budget_guard.ledger.base import Balance, ScopeSpend
from budget_guard.ledger.counters import least_left
from budget_guard.ledger.history import LABELS, Labels, UsageLine, UsageQuery, line_of
from budget_guard.ledger.memory import MemoryLedger
from budget_guard.units.amounts import DIMENSIONS, NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope

LEASED = Scope("lease", "")
"""The scope in which a lease counts what is spent from it."""
_CALLS = 48
"""Usual calls that a lease is worth, where there is enough for everybody."""
_FEW_CALLS = 8
"""Those that it is worth as long as half of what is left is as much."""


class Lease:
    """One hold in the shared ledger, and the counters of what is spent from it."""

    def __init__(self, id: str, run: RunLeases, amounts: Amounts, deadline: float, clock: Clock) -> None:
        self.id = id
        self.run = run
        self.amounts = amounts
        self.deadline = deadline
        """When nothing may be spent from it any more, unless it is prolonged."""
        self.local = MemoryLedger(clock=clock)
        self.local.set_limits(
            LEASED, Limits._make(amount if i in run.limited else None for i, amount in enumerate(amounts))
        )
        self.closed = False
        """Whether nothing new is held in it."""
        self.booked: Amounts | None = None
        """What the shared ledger has for it for certain; None before that."""
        self.told: Sequence[UsageLine] = ()
        """What its usage history has of that."""

    @property
    def balance(self) -> Balance:
        """The counters of what is spent from it."""
        return self.local.balances((LEASED,))[0]

    def lines(self) -> list[UsageLine]:
        """What was spent from it, by what it was for: its part of the usage history, with the hours left out."""
        found = self.local.usage(UsageQuery(LEASED.kind, LEASED.id, 0, None, LABELS))
        return [line_of(Labels._make(map(str, each.names)), each.quantities) for each in found]

    def unused(self, dimension: int) -> int:
        """What it has left."""
        balance = self.balance
        return self.amounts[dimension] - balance.committed[dimension] - balance.reserved[dimension]

    @property
    def overdrawn(self) -> bool:
        """Whether calls took more than was held for them, and more than it has: others must know."""
        balance = self.balance
        return any(
            limit is not None and committed + reserved > limit
            for limit, committed, reserved in zip(balance.limits, balance.committed, balance.reserved, strict=True)
        )


class RunLeases:
    """The leases of one run: those in the same scopes."""

    def __init__(self, scopes: tuple[Scope, ...]) -> None:
        self.scopes = scopes
        self.users = 0
        """Verbs that are under way in them."""
        self.current: Lease | None = None
        self.draining: list[Lease] = []
        """Those that are closed, and have calls in flight."""
        self.view: Sequence[Balance] = ()
        """The shared counters when they were last looked at, less what was ours in them."""
        self.limited: tuple[int, ...] = ()
        """The dimensions that have a limit."""
        self.left = Limits()
        """What was left then."""
        self.holders: int
        """How many lease from the scope that has least left."""
        self.ends: datetime | None = None
        """When the first of the scopes begins a new window."""
        self.spent = NOTHING
        """What was spent from leases that are done with."""
        self.at_last_beat = NOTHING
        """What was committed at the last heartbeat: a lease that is not used in between is given back."""
        self.seen: float
        """When the shared ledger said last whether a scope is revoked."""

    @property
    def open(self) -> list[Lease]:
        """Those that have something to settle."""
        return [*self.draining, *([] if self.current is None else [self.current])]

    def committed(self) -> Amounts:
        """All that was spent from them."""
        total = self.spent
        for lease in self.open:
            total = total.plus(lease.balance.committed)
        return total

    def committed_in_first_scope(self) -> Amounts:
        """All that is committed in the first of the scopes: as last seen there, with what was spent since."""
        return self.view[0].committed.plus(self.committed())

    def spent_above(self) -> tuple[ScopeSpend, ...]:
        """What is committed in the other scopes: as last seen there, with what was spent since."""
        since = self.committed()
        return tuple(ScopeSpend(balance.committed.plus(since), balance.limits) for balance in self.view[1:])

    def reserved(self) -> Amounts:
        """What is held for calls in flight."""
        total = NOTHING
        for lease in self.open:
            total = total.plus(lease.balance.reserved)
        return total

    def share(self, amounts: Amounts) -> Amounts:
        """What to lease: as much as many calls like those so far take, but no more than a fair part of what is left."""
        spent = self.committed()
        calls = spent.requests + spent.tool_calls
        share = list(amounts)
        for i, limited in enumerate(self.left):
            if limited is None:
                continue
            left = max(0, limited)
            usual = spent[i] // calls if calls else amounts[i] // 4 if i < 4 else amounts[i]
            fair = max(left // self.holders, min(amounts[i] + _FEW_CALLS * usual, left // 2))
            enough = amounts[i] + _CALLS * usual or fair // 4  # how much of it will be asked for is not known yet
            share[i] = max(amounts[i], min(enough, fair))
        return Amounts._make(share)

    def take(self, change: Amounts) -> None:
        """Note that so much more is leased now."""
        self.left = Limits._make(
            None if left is None else left - amount for left, amount in zip(self.left, change, strict=True)
        )

    def see(self, balances: Sequence[Balance]) -> None:
        """Note the shared counters of the scopes as they are now."""
        booked, held = self.spent, NOTHING
        for lease in self.open:
            balance = lease.balance
            if lease.closed:
                booked = booked.plus(balance.committed).plus(balance.reserved)
            else:
                held = held.plus(lease.amounts)
        self.left = least_left(balances)
        self.limited = tuple(i for i in range(len(DIMENSIONS)) if self.left[i] is not None)
        most_held = max(balance.open_holds for balance in balances)
        self.holders = max(1, most_held + (self.current is None))
        ends = [each.ends for each in balances if each.ends is not None]
        if self.current is None:  # a lease ends with the window that it was taken in
            self.ends = min(ends, default=None)
        ours = self.current is not None
        self.view = [
            b._replace(
                committed=b.committed.minus(booked), reserved=b.reserved.minus(held), open_holds=b.open_holds - ours
            )
            for b in balances
        ]
