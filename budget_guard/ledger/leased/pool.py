"""The leases of this process: how they are taken, used, prolonged and given back.

Everything here that asks the shared ledger is a flow over it.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from budget_guard.clock import Clock
from budget_guard.errors import LedgerUnavailable, ReservationConflict, ReservationError
from budget_guard.ledger.base import HELD, Balance, Held, Refused, ReserveOutcome, Revoked
from budget_guard.ledger.flow import Flow
from budget_guard.ledger.history import UsageLine, difference
from budget_guard.ledger.hold_id import hold_id, unique_part
from budget_guard.ledger.leased.lease import LEASED, Lease, RunLeases
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope

_log = logging.getLogger("budget_guard")

_MOST_KNOWN = 100_000
"""Holds whose lease is remembered."""


class LeasePool:
    """The leases of every run of this process.

    Args:
        clock: Where time comes from.
        ttl_s: Seconds after which a lease is suspended whose process is not heard of any more.
        heartbeat_s: Seconds between two heartbeats.
    """

    def __init__(self, clock: Clock, ttl_s: float, heartbeat_s: float) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._heartbeat_s = heartbeat_s
        self._next_beat = clock.monotonic() + heartbeat_s
        self._lock = threading.Lock()
        self._runs: dict[tuple[Scope, ...], RunLeases] = {}
        self._lease_of: OrderedDict[str, Lease] = OrderedDict()
        self._revoked: dict[Scope, Revoked] = {}
        self._waiting = 0
        """Calls of this process that wait for room."""

    # Looking up

    @contextmanager
    def using(self, scopes: Sequence[Scope]) -> Generator[RunLeases, None, None]:
        """The leases in *scopes*, which are not forgotten meanwhile."""
        scopes = tuple(scopes)
        with self._lock:
            run = self._runs.get(scopes)
            if run is None:
                run = self._runs[scopes] = RunLeases(scopes)
            run.users += 1
        try:
            yield run
        finally:
            with self._lock:
                run.users -= 1

    @contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """A call waits for room in the shared ledger: what is given back in a lease goes there meanwhile."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def lease_of(self, id: str) -> Lease | None:
        """The lease in which the hold or charge *id* was made; None if in none."""
        with self._lock:
            return self._lease_of.get(id)

    def runs_in(self, scope: Scope) -> list[RunLeases]:
        """The leases that are taken from *scope*."""
        return [run for run in list(self._runs.values()) if scope in run.scopes]

    def run_in(self, scopes: Sequence[Scope]) -> RunLeases | None:
        """The leases in *scopes*, once the shared counters of these were looked at."""
        run = self._runs.get(tuple(scopes))
        return run if run is not None and run.view else None

    # Calls

    def hold(self, run: RunLeases, call_id: str, amounts: Amounts, room: Sums | None) -> Flow[ReserveOutcome]:
        """Hold *amounts* in the lease of *run*, or in another one that is taken for it."""
        if not run.view:
            yield from self.look((run,))
        revoked = next((self._revoked[scope] for scope in run.scopes if scope in self._revoked), None)
        if revoked is not None:
            return revoked
        wanted = amounts if room is None else Amounts._make(map(max, amounts, room))
        known = self.lease_of(call_id)
        if known is not None and known.run is not run:
            raise ReservationConflict(reservation_id=call_id, detail="was made in other scopes")
        if known is not None:
            return known.local.reserve(call_id, (LEASED,), amounts, None)
        yield from self._prolong_in_time(run)
        if self._hold_in_current(run, call_id, amounts, wanted):
            return HELD
        yield from self.close_current(run)
        outcome = yield from self._take_many_calls_worth(run, call_id, amounts, room)
        if isinstance(outcome, Refused) and outcome.waiting_helps and (yield from self._recall(run, outcome, wanted)):
            outcome = yield from self._take_many_calls_worth(run, call_id, amounts, room)
        return outcome

    def charge(
        self, run: RunLeases, charge_id: str, amounts: Amounts, lines: Sequence[UsageLine]
    ) -> Flow[Refused | None]:
        """Book what was spent without a hold: in the lease if there is enough in it, else in the shared ledger."""
        with self._lock:
            lease = run.current
            if lease is not None and all(lease.unused(i) >= amounts[i] for i in run.limited):
                self._remember(charge_id, lease)
                lease.local.charge(charge_id, (LEASED,), amounts, lines)
                return None
        yield from self.close_current(run)
        passed: Refused | None = yield "charge", (charge_id, run.scopes, amounts, lines)
        yield from self.look((run,))
        # What others have leased and not spent passes no limit.
        return None if passed is None or passed.waiting_helps else passed

    def settled_in(self, lease: Lease) -> Flow[None]:
        """Something was booked or given back in *lease*: tell the shared ledger where it waits for that."""
        yield from self._book_if_done(lease)
        if lease is lease.run.current and (self._waiting or lease.overdrawn):
            yield from self.close_current(lease.run)

    def _hold_in_current(self, run: RunLeases, call_id: str, amounts: Amounts, room: Sums) -> bool:
        with self._lock:
            lease = run.current
            if lease is None:
                return False
            if not isinstance(lease.local.reserve(call_id, (LEASED,), amounts, room), Held):
                return False
            self._remember(call_id, lease)
            return True

    def _remember(self, id: str, lease: Lease) -> None:
        self._lease_of[id] = lease
        if len(self._lease_of) > _MOST_KNOWN:
            self._lease_of.popitem(last=False)

    # Taking and giving back

    def _take_many_calls_worth(
        self, run: RunLeases, call_id: str, amounts: Amounts, room: Sums | None
    ) -> Flow[ReserveOutcome]:
        """Lease what many calls take, or else what this one does."""
        share = run.share(amounts)
        if room is not None and share != amounts:
            more = share.minus(amounts)
            outcome = yield from self._take(
                run, call_id, amounts, share, Amounts._make(map(max, amounts, room)).plus(more)
            )
            if not isinstance(outcome, Refused):
                return outcome
        return (yield from self._take(run, call_id, amounts, amounts, room))

    def _take(
        self, run: RunLeases, call_id: str, amounts: Amounts, share: Amounts, room: Sums | None
    ) -> Flow[ReserveOutcome]:
        """Lease *share*, and hold a call's *amounts* in it."""
        id = hold_id(self._clock.now_ms(), f"lease-{uuid.uuid4().hex[:12]}")
        deadline = self._clock.monotonic() + self._ttl_s
        try:
            # From then on it may be spent, whatever becomes of this process.
            outcome: ReserveOutcome = yield "reserve", (id, run.scopes, share, room, self._ttl_s, True, True)
        except LedgerUnavailable:
            raise  # it is given back once the ledger is there
        except BaseException:
            yield "release", (id, run.scopes)
            raise
        if isinstance(outcome, Revoked):
            self._revoked[outcome.scope] = outcome
        elif isinstance(outcome, Refused):
            run.left = outcome.left
        else:
            lease = Lease(id, run, share, deadline, self._clock)
            with self._lock:
                lease.local.reserve(call_id, (LEASED,), amounts, None)
                self._remember(call_id, lease)
                other, run.current = run.current, lease
            run.take(share)
            run.seen = self._clock.monotonic()
            if other is not None:  # another call has taken one at the same time
                yield from self._close(other)
        return outcome

    def _recall(self, run: RunLeases, refused: Refused, room: Sums) -> Flow[bool]:
        """Give back what another run of this process has leased in the way of this one and does not use, where that is
        a whole call's worth. Half of it is for the one that it is taken from."""
        i = refused.dimension
        unused = [
            (lease.unused(i), other)
            for other in self.runs_in(refused.scope)
            if other is not run and (lease := other.current) is not None
        ]
        most, other = max(unused, key=lambda each: each[0], default=(0, run))
        if most < room[i]:
            return False
        yield from self.close_current(other)
        limits = list(run.left)
        limits[i] = most
        run.left, run.holders = Limits._make(limits), 2
        return True

    def close_all(self) -> Flow[None]:
        """Give back what is leased and not spent."""
        for run in list(self._runs.values()):
            yield from self.close_current(run)
            self._forget(run)

    def close_current(self, run: RunLeases) -> Flow[None]:
        """Give back what *run* has leased and not spent."""
        with self._lock:
            lease, run.current = run.current, None
        if lease is not None:
            yield from self._close(lease)

    def _close(self, lease: Lease) -> Flow[None]:
        """Give back what *lease* has left, and book what was spent from it."""
        run = lease.run
        with self._lock:
            lease.closed = True
            balance = lease.balance
            run.draining.append(lease)
        run.take(balance.committed.plus(balance.reserved).minus(lease.amounts))
        if balance.open_holds:
            # Calls in flight: their estimates are booked with it, and replaced as soon as all of them are settled.
            estimate = balance.committed.plus(balance.reserved)
            yield "commit", (lease.id, run.scopes, estimate, True, lease.lines())
        yield from self._book_if_done(lease)

    def _book_if_done(self, lease: Lease) -> Flow[None]:
        """Book what was spent from a closed lease, once it has no calls in flight, and what changes later."""
        run = lease.run
        with self._lock:
            balance = lease.balance
            if not lease.closed or balance.open_holds or lease.booked == balance.committed:
                return
            before, lease.booked = lease.booked, balance.committed
            told, lease.told = lease.told, lease.lines()
            if before is None:
                run.draining.remove(lease)
            run.spent = run.spent.plus(balance.committed).minus(before or NOTHING)
        if before is None:
            try:
                yield "commit", (lease.id, run.scopes, balance.committed, False, lease.told)
            except ReservationError as error:
                _log.error("budget_guard: what was spent from the lease %s is not booked: %s", lease.id, error)
            return
        change = balance.committed.minus(before)  # an estimate of a call was replaced after the lease was booked
        unique = f"{unique_part(lease.id)}-{uuid.uuid4().hex[:8]}"
        if min(change) >= 0:
            lines = difference(lease.told, told)
            yield "charge", (hold_id(self._clock.now_ms(), unique), run.scopes, change, lines)
            return
        for i, scope in enumerate(run.scopes):
            adjust_id = hold_id(self._clock.now_ms(), f"{unique}-{i}")
            yield "adjust", (adjust_id, scope, change, "an estimate of a leased call was replaced")

    def _forget(self, run: RunLeases) -> None:
        with self._lock:
            if not run.users and not run.open:
                self._runs.pop(run.scopes, None)

    # Heartbeat

    def beat(self) -> Flow[None]:
        """Every few seconds: look at the shared counters, prolong what is used, give back what is not."""
        now = self._clock.monotonic()
        with self._lock:
            if now < self._next_beat:
                return
            self._next_beat = now + self._heartbeat_s
            runs = list(self._runs.values())
        try:
            for run in runs:
                committed = run.committed()
                if run.current is not None and not run.reserved().requests and committed == run.at_last_beat:
                    yield from self.close_current(run)
                run.at_last_beat = committed
                self._forget(run)
            used = [run for run in runs if run.current is not None]
            yield from self.look([run for run in used if run.seen <= now - self._heartbeat_s])
            for run in used:
                yield from self._prolong_in_time(run, self._ttl_s * 2 / 3)
        except LedgerUnavailable as error:  # what is leased is ours until its time is up
            _log.warning("budget_guard: the leases could not be looked after: %s", error)

    def _prolong_in_time(self, run: RunLeases, ahead_s: float = 0.0) -> Flow[None]:
        """Prolong the lease if its time is up in *ahead_s* seconds, and close it where a window has ended."""
        if run.ends is not None and self._clock.now() >= run.ends:
            yield from self.close_current(run)
            yield from self.look((run,))
        lease, now = run.current, self._clock.monotonic()
        if lease is not None and lease.deadline <= now + ahead_s:
            try:
                open: bool = yield "extend", (lease.id, self._ttl_s)
            except ReservationError:
                open = False
            if open:
                lease.deadline = now + self._ttl_s
            else:  # it was settled elsewhere
                yield from self.close_current(run)

    # The shared counters

    def look(self, runs: Sequence[RunLeases]) -> Flow[None]:
        """Look at the shared counters of *runs*, all at once."""
        scopes = list(dict.fromkeys(scope for run in runs for scope in run.scopes))
        if not scopes:
            return
        found: Sequence[Balance] = yield "balances", (scopes,)
        by_scope = {balance.scope: balance for balance in found}
        for balance in found:
            if balance.revoked is None:
                self._revoked.pop(balance.scope, None)
            else:
                self._revoked[balance.scope] = balance.revoked
        with self._lock:
            for run in runs:
                run.seen = self._clock.monotonic()
                run.see([by_scope[scope] for scope in run.scopes])

    def as_seen(self, run: RunLeases) -> list[Balance]:
        """The shared counters of *run* as they were seen last, with what it did since."""
        committed, reserved = run.committed(), run.reserved()
        in_flight = sum(lease.balance.open_holds for lease in run.open)
        return [
            balance._replace(
                committed=balance.committed.plus(committed),
                reserved=balance.reserved.plus(reserved),
                open_holds=balance.open_holds + in_flight,
                revoked=self._revoked.get(balance.scope),
            )
            for balance in run.view
        ]

    def with_ours(self, balance: Balance) -> Balance:
        """The shared counters of a scope, with what was spent and held in leases in the place of these."""
        for run in self.runs_in(balance.scope):
            for lease in run.open:
                if not lease.closed:
                    ours = lease.balance
                    balance = balance._replace(
                        committed=balance.committed.plus(ours.committed),
                        reserved=balance.reserved.plus(ours.reserved).minus(lease.amounts),
                        open_holds=balance.open_holds + ours.open_holds - 1,
                    )
        return balance
