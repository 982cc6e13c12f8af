"""The ledger of quota leases: a process takes a part of a shared budget, and spends it without asking for each call.

A *lease* is a hold in the shared ledger, over all scopes of a run, that is worth many calls. Calls are held and booked
within it, in memory. When it is used up, it is committed with what was really spent, and the next one is taken. So the
ceilings hold exactly as without leases: what is leased is held. What leases cost is availability: money that one
process has leased is not there for another one, until it gives back what it does not use.

::

    shared ledger    reserve ─────────────────────────────────────────────────────► commit
    this process                    reserve, commit, reserve, commit, reserve, commit

A process that dies leaves its lease behind, to be suspended when its time is up: it may be spent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import ReservationConflict
from budget_guard.ledger.base import Balance, Ledger, Refused, ReserveOutcome, Settled
from budget_guard.ledger.flow import Flow, Verb, adrive, drive
from budget_guard.ledger.history import UsageLine
from budget_guard.ledger.leased.lease import LEASED, Lease
from budget_guard.ledger.leased.pool import LeasePool
from budget_guard.ledger.outbox.ledger import OutboxLedger
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.units.amounts import Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window


class LeasedLedger(LedgerWrapper):
    """A shared ledger of which this process leases a part at a time. Use it in the place of the shared one.

    ::

        authority = BudgetAuthority(LeasedLedger(open_ledger("redis://budget")), ceilings={...})

    Calls are admitted, booked and given back in memory. Everything else goes to the shared ledger at once: ceilings,
    revocations, live runs, child sessions, money that was spent without a hold. `close` gives back what is leased.

    Args:
        shared: The ledger that others use as well. Close it by closing this one.
        lease_ttl_s: Seconds after which a lease is suspended whose process is not heard of any more.
        heartbeat_s: Seconds between two looks at the shared counters, made by whatever call comes next. A revocation
            by another process is seen by then at the latest, and a lease that is not used is given back. Where no call
            comes, `sweep` does it: call it from time to time.
        outbox: Where to keep what was spent while the shared ledger could not be reached; in memory by default.
        clock: Where time comes from.

    Raises:
        ValueError: If a time makes no sense.
    """

    def __init__(
        self,
        shared: Ledger,
        *,
        lease_ttl_s: float = 600.0,
        heartbeat_s: float = 60.0,
        outbox: Outbox | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not 0 < heartbeat_s <= lease_ttl_s / 3 < 1e9:
            raise ValueError(
                f"heartbeat_s={heartbeat_s!r} must be above 0 and at most a third of lease_ttl_s={lease_ttl_s!r}"
            )
        super().__init__(OutboxLedger(shared, outbox or Outbox(), clock=clock, forgiving=False, owner=""))
        self._new_pool = partial(LeasePool, clock, lease_ttl_s, heartbeat_s)
        self._pool = self._new_pool()
        self._pid = os.getpid()
        self.flows = {
            "set_limits": self._set_limits,
            "reserve": self._reserve,
            "forward": self._forward,
            "extend": self._extend,
            "commit": self._commit,
            "release": self._release,
            "charge": self._charge,
            "adjust": self._adjust,
            "await_room": self._await_room,
            "balances": self._balances,
            "revoke": self._revoke,
            "restore": self._restore,
            "sweep": self._sweep,
            "close": self._close,
        }

    def settle(self) -> None:
        """Give back what is leased and not spent. The next call takes a new lease."""
        drive(self._pool.close_all(), self.inner)

    async def asettle(self) -> None:
        """As `settle`."""
        await adrive(self._pool.close_all(), self.inner.aio)

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if self._pid != os.getpid():  # forked: what is leased is the parent's to spend
            self._pid, self._pool = os.getpid(), self._new_pool()
        return super().flow(verb, arguments)

    # Calls

    def _reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> Flow[ReserveOutcome]:
        if ttl_s is not None:  # a hold with a time of its own is no call
            outcome: ReserveOutcome = yield "reserve", (hold_id, scopes, amounts, room, ttl_s, suspend, sent)
            return outcome
        yield from self._pool.beat()
        with self._pool.using(scopes) as run:
            return (yield from self._pool.hold(run, hold_id, amounts, room))

    def _forward(self, hold_id: str) -> Flow[None]:
        lease = self._pool.lease_of(hold_id)
        if lease is None:
            yield "forward", (hold_id,)
        else:
            lease.local.forward(hold_id)

    def _extend(self, hold_id: str, ttl_s: float) -> Flow[bool]:
        lease = self._pool.lease_of(hold_id)
        if lease is not None:
            return lease.local.extend(hold_id, ttl_s)
        open: bool = yield "extend", (hold_id, ttl_s)
        return open

    def _commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Flow[Settled]:
        lease = self._pool.lease_of(hold_id)
        if lease is None:
            settled: Settled = yield "commit", (hold_id, scopes, amounts, uncertain, lines)
            return settled._replace(cost_left=None)  # it has our leases in it, and what they have not spent is left too
        _must_be_in(lease, hold_id, scopes)
        settled = lease.local.commit(hold_id, (LEASED,), amounts, uncertain, lines)
        yield from self._pool.settled_in(lease)
        return settled._replace(committed=lease.run.committed_in_first_scope(), above=lease.run.spent_above())

    def _release(self, hold_id: str, scopes: Sequence[Scope]) -> Flow[bool]:
        lease = self._pool.lease_of(hold_id)
        if lease is None:
            released: bool = yield "release", (hold_id, scopes)
            return released
        _must_be_in(lease, hold_id, scopes)
        released = lease.local.release(hold_id, (LEASED,))
        yield from self._pool.settled_in(lease)
        return released

    def _charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine] = ()
    ) -> Flow[Refused | None]:
        lease = self._pool.lease_of(charge_id)
        if lease is None:
            with self._pool.using(scopes) as run:
                return (yield from self._pool.charge(run, charge_id, amounts, lines))
        _must_be_in(lease, charge_id, scopes)
        passed = lease.local.charge(charge_id, (LEASED,), amounts, lines)
        yield from self._pool.settled_in(lease)
        return passed

    def _await_room(self, version: int, timeout: float) -> Flow[bool]:
        with self._pool.waiting():
            room: bool = yield "await_room", (version, timeout)
            return room

    # Shared counters

    def _balances(self, scopes: Sequence[Scope]) -> Flow[Sequence[Balance]]:
        """Of a run that leases: as last seen, with what it did since. Of others: as they are, with all that is ours."""
        run = self._pool.run_in(scopes)
        if run is not None:
            yield from self._pool.beat()
            return self._pool.as_seen(run)
        found: Sequence[Balance] = yield "balances", (scopes,)
        return [self._pool.with_ours(balance) for balance in found]

    def _set_limits(
        self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "", note: str = ""
    ) -> Flow[None]:
        affected = self._pool.runs_in(scope)
        yield "set_limits", (scope, limits, window, owner, note)
        yield from self._pool.look(affected)

    def _adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Flow[Amounts]:
        affected = self._pool.runs_in(scope)
        committed: Amounts = yield "adjust", (adjust_id, scope, change, reason)
        yield from self._pool.look(affected)
        return committed

    def _revoke(self, scope: Scope, reason: str) -> Flow[None]:
        affected = self._pool.runs_in(scope)
        for run in affected:
            yield from self._pool.close_current(run)  # nothing more is spent from them
        yield "revoke", (scope, reason)
        yield from self._pool.look(affected)

    def _restore(self, scope: Scope) -> Flow[bool]:
        affected = self._pool.runs_in(scope)
        restored: bool = yield "restore", (scope,)
        yield from self._pool.look(affected)
        return restored

    def _sweep(self, most: int) -> Flow[int]:
        """Sweep the shared ledger, and give back leases that are not used: without a call nothing else does."""
        yield from self._pool.beat()
        swept: int = yield "sweep", (most,)
        return swept

    def _close(self) -> Flow[None]:
        yield from self._pool.close_all()
        yield "close", ()


def _must_be_in(lease: Lease, hold_id: str, scopes: Sequence[Scope]) -> None:
    if tuple(scopes) != lease.run.scopes:
        held, asked = (", ".join(map(str, each)) for each in (lease.run.scopes, scopes))
        raise ReservationConflict(reservation_id=hold_id, detail=f"was made in {held}, not in {asked}")
