"""Quota leasing: a process takes a part of the shared budget at a time, and spends it without asking for each call.

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

import logging
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import LedgerUnavailable, ReservationConflict, ReservationError
from budget_guard.ledger.base import (
    HELD,
    Balance,
    Held,
    Ledger,
    Refused,
    ReserveOutcome,
    Revoked,
    Settled,
)
from budget_guard.ledger.flow import Flow, Verb, adrive, drive
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.layered import LedgerWrapper
from budget_guard.ledger.leased.lease import LEASED, Lease, Leases
from budget_guard.ledger.outbox.ledger import OutboxLedger
from budget_guard.ledger.outbox.store import Outbox
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope

_log = logging.getLogger("budget_guard")

_MOST_KNOWN = 100_000
"""Holds whose lease is remembered."""


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
            by another process is seen by then at the latest, and a lease that nobody uses is given back.
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
        self._clock = clock
        self._ttl_s = lease_ttl_s
        self._heartbeat_s = heartbeat_s
        self._next_beat = clock.monotonic() + heartbeat_s
        self._lock = threading.Lock()
        self._leases: dict[tuple[Scope, ...], Leases] = {}
        self._of_hold: OrderedDict[str, Lease] = OrderedDict()
        self._revoked: dict[Scope, Revoked] = {}
        self._pid = os.getpid()
        self._waiting = 0
        """Calls of this process that wait for room."""

    def settle(self) -> None:
        """Give back what is leased and not spent. The next call takes a new lease."""
        drive(self._settle_all(), self.inner)

    async def asettle(self) -> None:
        """As `settle`."""
        await adrive(self._settle_all(), self.inner.aio)

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if self._pid != os.getpid():  # forked: what is leased is the parent's to spend
            self._pid, self._leases, self._of_hold, self._lock = os.getpid(), {}, OrderedDict(), threading.Lock()
        if verb == "reserve" and arguments[4] is None:  # a hold with a time of its own is no call
            return self._reserve(*arguments[:4])
        if verb in ("forward", "extend", "commit", "release", "charge"):
            with self._lock:
                lease = self._of_hold.get(arguments[0])
            if lease is not None:
                return self._in_lease(lease, verb, arguments)
        if verb == "balances":
            return self._balances(arguments[0])
        if verb == "charge":
            return self._charge(*arguments)
        if verb in ("set_limits", "revoke", "restore", "adjust"):
            return self._changed(verb, arguments[verb == "adjust"], arguments)
        if verb == "await_room":
            return self._await_room(*arguments)
        if verb == "close":
            return self._shut()
        return super().flow(verb, arguments)

    # Calls

    def _reserve(
        self, call_id: str, scopes: Sequence[Scope], amounts: Amounts, room: Sums | None
    ) -> Flow[ReserveOutcome]:
        yield from self._beat()
        with self._using(tuple(scopes)) as leases:
            return (yield from self._reserve_in(leases, call_id, amounts, room))

    def _reserve_in(self, leases: Leases, call_id: str, amounts: Amounts, room: Sums | None) -> Flow[ReserveOutcome]:
        if not leases.view:
            yield from self._look((leases,))
        revoked = next((self._revoked[scope] for scope in leases.scopes if scope in self._revoked), None)
        if revoked is not None:
            return revoked
        wanted = amounts if room is None else Amounts._make(map(max, amounts, room))
        with self._lock:
            known = self._of_hold.get(call_id)
        if known is not None and known.of is not leases:
            raise ReservationConflict(reservation_id=call_id, detail="was made in other scopes")
        if known is not None:
            return known.local.reserve(call_id, (LEASED,), amounts, None)
        yield from self._prolong_in_time(leases)
        if self._hold_in(leases, call_id, amounts, wanted):
            return HELD
        yield from self._close_current(leases)
        outcome = yield from self._take_some(leases, call_id, amounts, room)
        if (
            isinstance(outcome, Refused)
            and outcome.waiting_helps
            and (yield from self._recall(leases, outcome, wanted))
        ):
            outcome = yield from self._take_some(leases, call_id, amounts, room)
        return outcome

    def _hold_in(self, leases: Leases, call_id: str, amounts: Amounts, room: Sums) -> bool:
        with self._lock:
            lease = leases.current
            if lease is None:
                return False
            if not isinstance(lease.local.reserve(call_id, (LEASED,), amounts, room), Held):
                return False
            self._remember(call_id, lease)
            return True

    def _remember(self, call_id: str, lease: Lease) -> None:
        self._of_hold[call_id] = lease
        if len(self._of_hold) > _MOST_KNOWN:
            self._of_hold.popitem(last=False)

    def _in_lease(self, lease: Lease, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        """Perform the verb of one call's hold in its lease."""
        leases = lease.of
        settles = verb in ("commit", "release", "charge")
        if settles and tuple(arguments[1]) != leases.scopes:
            held, asked = (", ".join(map(str, each)) for each in (leases.scopes, arguments[1]))
            raise ReservationConflict(reservation_id=arguments[0], detail=f"was made in {held}, not in {asked}")
        here = (arguments[0], (LEASED,), *arguments[2:]) if settles else arguments
        result = getattr(lease.local, verb)(*here)
        if settles:
            yield from self._drained(lease)
            if lease is leases.current and (self._waiting or lease.overdrawn):
                yield from self._close_current(leases)
        if isinstance(result, Settled):
            before = leases.view[0].committed if leases.view else NOTHING
            return result._replace(committed=before.plus(leases.committed()))
        return result

    def _charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Flow[Refused | None]:
        """Book what was spent without a hold: in the lease if there is enough in it."""
        with self._using(tuple(scopes)) as leases:
            return (yield from self._charge_in(leases, charge_id, amounts))

    def _charge_in(self, leases: Leases, charge_id: str, amounts: Amounts) -> Flow[Refused | None]:
        with self._lock:
            lease = leases.current
            if lease is not None and all(lease.unused(i) >= amounts[i] for i in leases.limited):
                self._remember(charge_id, lease)
                lease.local.charge(charge_id, (LEASED,), amounts)
                return None
        yield from self._close_current(leases)
        passed: Refused | None = yield "charge", (charge_id, leases.scopes, amounts)
        yield from self._look((leases,))
        # What others have leased and not spent passes no limit.
        return None if passed is None or passed.waiting_helps else passed

    # Leases

    def _take_some(self, leases: Leases, call_id: str, amounts: Amounts, room: Sums | None) -> Flow[ReserveOutcome]:
        """Lease what many calls take, or else what this one does."""
        share = leases.share(amounts)
        if room is not None and share != amounts:
            more = share.minus(amounts)
            outcome = yield from self._take(
                leases, call_id, amounts, share, Amounts._make(map(max, amounts, room)).plus(more)
            )
            if not isinstance(outcome, Refused):
                return outcome
        return (yield from self._take(leases, call_id, amounts, amounts, room))

    def _take(
        self, leases: Leases, call_id: str, amounts: Amounts, share: Amounts, room: Sums | None
    ) -> Flow[ReserveOutcome]:
        """Lease *share*, and hold a call's *amounts* in it."""
        id = hold_id(self._clock.now_ms(), f"lease-{uuid.uuid4().hex[:12]}")
        deadline = self._clock.monotonic() + self._ttl_s
        try:
            # From then on it may be spent, whatever becomes of this process.
            outcome: ReserveOutcome = yield "reserve", (id, leases.scopes, share, room, self._ttl_s, True, True)
        except LedgerUnavailable:
            raise  # it is given back once the ledger is there
        except BaseException:
            yield "release", (id, leases.scopes)
            raise
        if isinstance(outcome, Revoked):
            self._revoked[outcome.scope] = outcome
        elif isinstance(outcome, Refused):
            leases.left = outcome.left
        else:
            lease = Lease(id, leases, share, deadline, self._clock)
            with self._lock:
                lease.local.reserve(call_id, (LEASED,), amounts, None)
                self._remember(call_id, lease)
                other, leases.current = leases.current, lease
            leases.take(share)
            leases.seen = self._clock.monotonic()
            if other is not None:  # another call has taken one at the same time
                yield from self._close(other)
        return outcome

    def _close_current(self, leases: Leases) -> Flow[None]:
        with self._lock:
            lease, leases.current = leases.current, None
        if lease is not None:
            yield from self._close(lease)

    def _shut(self) -> Flow[None]:
        yield from self._settle_all()
        yield "close", ()

    def _close(self, lease: Lease) -> Flow[None]:
        """Give back what *lease* has left, and book what was spent from it."""
        leases = lease.of
        with self._lock:
            lease.closed = True
            balance = lease.balance
            leases.draining.append(lease)
        leases.take(balance.committed.plus(balance.reserved).minus(lease.amounts))
        if balance.open_holds:
            # Calls in flight: their estimates are booked with it, and replaced as soon as all of them are settled.
            estimate = balance.committed.plus(balance.reserved)
            yield "commit", (lease.id, leases.scopes, estimate, True)
        yield from self._drained(lease)

    def _drained(self, lease: Lease) -> Flow[None]:
        """Book what was spent from a closed lease, once it has no calls in flight, and what changes later."""
        leases = lease.of
        with self._lock:
            balance = lease.balance
            if not lease.closed or balance.open_holds or lease.booked == balance.committed:
                return
            before, lease.booked = lease.booked, balance.committed
            if before is None:
                leases.draining.remove(lease)
            leases.spent = leases.spent.plus(balance.committed).minus(before or NOTHING)
        if before is None:
            try:
                yield "commit", (lease.id, leases.scopes, balance.committed)
            except ReservationError as error:
                _log.error("budget_guard: what was spent from the lease %s is not booked: %s", lease.id, error)
            return
        change = balance.committed.minus(before)  # an estimate of a call was replaced after the lease was booked
        unique = f"{lease.id[13:]}-{uuid.uuid4().hex[:8]}"
        if min(change) >= 0:
            yield "charge", (hold_id(self._clock.now_ms(), unique), leases.scopes, change)
            return
        for i, scope in enumerate(leases.scopes):
            adjust_id = hold_id(self._clock.now_ms(), f"{unique}-{i}")
            yield "adjust", (adjust_id, scope, change, "an estimate of a leased call was replaced")

    def _recall(self, leases: Leases, refused: Refused, room: Sums) -> Flow[bool]:
        """Give back what another run of this process has leased in the way of this one and does not use, where that is
        a whole call's worth. Half of it is for the one that it is taken from."""
        i = refused.dimension
        unused = [
            (lease.unused(i), other)
            for other in list(self._leases.values())
            if other is not leases and refused.scope in other.scopes and (lease := other.current) is not None
        ]
        most, other = max(unused, key=lambda each: each[0], default=(0, leases))
        if most < room[i]:
            return False
        yield from self._close_current(other)
        limits = list(leases.left)
        limits[i] = most
        leases.left, leases.holders = Limits._make(limits), 2
        return True

    def _settle_all(self) -> Flow[None]:
        for leases in list(self._leases.values()):
            yield from self._close_current(leases)
            self._forget(leases)

    # Heartbeat

    def _beat(self) -> Flow[None]:
        """Now and then: look at the shared counters, prolong what is used, give back what is not."""
        now = self._clock.monotonic()
        with self._lock:
            if now < self._next_beat:
                return
            self._next_beat = now + self._heartbeat_s
            all_leases = list(self._leases.values())
        try:
            for leases in all_leases:
                committed = leases.committed()
                if leases.current is not None and not leases.reserved().requests and committed == leases.at_last_beat:
                    yield from self._close_current(leases)
                leases.at_last_beat = committed
                self._forget(leases)
            used = [leases for leases in all_leases if leases.current is not None]
            yield from self._look([leases for leases in used if leases.seen <= now - self._heartbeat_s])
            for leases in used:
                yield from self._prolong_in_time(leases, self._ttl_s * 2 / 3)
        except LedgerUnavailable as error:  # what is leased is ours until its time is up
            _log.warning("budget_guard: the leases could not be looked after: %s", error)

    def _prolong_in_time(self, leases: Leases, ahead_s: float = 0.0) -> Flow[None]:
        """Prolong the lease if its time is up in *ahead_s* seconds, and close it where a window has ended."""
        if leases.ends is not None and self._clock.now() >= leases.ends:
            yield from self._close_current(leases)
            yield from self._look((leases,))
        lease, now = leases.current, self._clock.monotonic()
        if lease is not None and lease.deadline <= now + ahead_s:
            try:
                open: bool = yield "extend", (lease.id, self._ttl_s)
            except ReservationError:
                open = False
            if open:
                lease.deadline = now + self._ttl_s
            else:  # it was settled by somebody else
                yield from self._close_current(leases)

    # Looking

    def _look(self, of: Sequence[Leases]) -> Flow[None]:
        """Look at the shared counters of all these leases at once."""
        scopes = list(dict.fromkeys(scope for leases in of for scope in leases.scopes))
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
            for leases in of:
                leases.seen = self._clock.monotonic()
                leases.see([by_scope[scope] for scope in leases.scopes])

    def _balances(self, scopes: Sequence[Scope]) -> Flow[Sequence[Balance]]:
        """Of a run that leases: as last seen, with what it did since. Of others: as they are, with all that is ours."""
        leases = self._leases.get(tuple(scopes))
        if leases is not None and leases.view:
            yield from self._beat()
            committed, reserved = leases.committed(), leases.reserved()
            in_flight = sum(lease.balance.open_holds for lease in leases.open)
            return [
                balance._replace(
                    committed=balance.committed.plus(committed),
                    reserved=balance.reserved.plus(reserved),
                    open_holds=balance.open_holds + in_flight,
                    revoked=self._revoked.get(balance.scope),
                )
                for balance in leases.view
            ]
        found: Sequence[Balance] = yield "balances", (scopes,)
        return [self._with_ours(balance) for balance in found]

    def _with_ours(self, balance: Balance) -> Balance:
        for leases in list(self._leases.values()):
            if balance.scope not in leases.scopes:
                continue
            for lease in leases.open:
                if not lease.closed:
                    ours = lease.balance
                    balance = balance._replace(
                        committed=balance.committed.plus(ours.committed),
                        reserved=balance.reserved.plus(ours.reserved).minus(lease.amounts),
                        open_holds=balance.open_holds + ours.open_holds - 1,
                    )
        return balance

    def _changed(self, verb: Verb, scope: Scope, arguments: tuple[Any, ...]) -> Flow[Any]:
        """Perform what changes shared counters, and look at them again before the next call."""
        affected = [leases for leases in list(self._leases.values()) if scope in leases.scopes]
        if verb == "revoke":
            for leases in affected:
                yield from self._close_current(leases)  # nothing more is spent from them
        result = yield verb, arguments
        yield from self._look(affected)
        return result

    def _await_room(self, version: int, timeout: float) -> Flow[bool]:
        """Wait for room in the shared ledger. What is given back in a lease goes there meanwhile."""
        with self._lock:
            self._waiting += 1
        try:
            room: bool = yield "await_room", (version, timeout)
            return room
        finally:
            with self._lock:
                self._waiting -= 1

    @contextmanager
    def _using(self, scopes: tuple[Scope, ...]) -> Generator[Leases, None, None]:
        """The leases in *scopes*, which are not forgotten meanwhile."""
        with self._lock:
            leases = self._leases.get(scopes)
            if leases is None:
                leases = self._leases[scopes] = Leases(scopes)
            leases.users += 1
        try:
            yield leases
        finally:
            with self._lock:
                leases.users -= 1

    def _forget(self, leases: Leases) -> None:
        with self._lock:
            if not leases.users and not leases.open:
                self._leases.pop(leases.scopes, None)
