"""The verbs of a ledger in a file: what they read and change within one transaction.

A batch of verbs shares one `Transaction`: each row is read when the first verb needs it, the rules of `Counters` and
`Hold` are applied to it, and what became of it is written at the end. Under the file's write lock nobody else
changes it meanwhile. A verb checks everything before it changes anything, so one that fails leaves the rest of its
batch alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from budget_guard.errors import ForeignRun, StaleReservation, UnknownReservation
from budget_guard.ledger.base import HELD, Balance, Refused, ReserveOutcome, Revoked, Settled, Suspended
from budget_guard.ledger.checks import check_limits, check_text, check_ttl, checked_amounts, checked_change
from budget_guard.ledger.counters import first_refusal
from budget_guard.ledger.hold import State, Verb, differences
from budget_guard.ledger.hold_id import TOLERANCE_MS, made_ms
from budget_guard.ledger.sqlite.rows import Group, StoredHold
from budget_guard.ledger.sqlite.transaction import LARGEST, Transaction
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

_SWEPT_AT_ONCE = 8
"""Expired holds that the first reserve of a batch clears away by itself."""
_FORGOTTEN_AT_ONCE = 1_000
"""Settled holds that a batch forgets at most."""


class SqliteVerbs:
    """The verbs, within one transaction.

    Args:
        page: What they read and write.
        hold_ttl_s: Seconds after which a hold expires if nothing else was asked for.
        retain: How many settled holds to remember, beside those younger than the tolerance.
    """

    def __init__(self, transaction: Transaction, hold_ttl_s: float, retain: int) -> None:
        self._transaction = transaction
        self._hold_ttl_s = hold_ttl_s
        self._retain = retain
        self._swept = False

    def forget(self) -> None:
        """Forget the oldest settled holds beyond those to be retained, a slice of them at most.

        None that is younger than the tolerance: forgotten, it would make stale what others have just made.
        """
        excess = min(self._transaction.settled - self._transaction.forgotten - self._retain, _FORGOTTEN_AT_ONCE)
        if excess <= 0:
            return
        made_before = self._transaction.now // 1_000 - TOLERANCE_MS
        for hold in self._transaction.take_settled(self._transaction.forgotten + excess, made_before):
            self._transaction.forgotten_ms = max(self._transaction.forgotten_ms, made_ms(hold.id))
            if hold.charged is not None:
                for counters in hold.counted_in():
                    counters.archive([hold.charged])

    def version(self) -> int:
        """A number that changes whenever room is given."""
        return self._transaction.version

    def set_limits(self, scope: Scope, limits: Limits, window: Window, owner: str) -> None:
        check_limits(limits)
        check_text("owner", owner)
        counters = self._transaction.opened(scope)
        if counters.owner is not None and counters.owner != owner:
            raise ForeignRun(scope=str(scope))
        counters.owner = owner
        counters.set_limits(limits, window)
        self._transaction.version += 1

    def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None,
        suspend: bool,
        sent: bool,
    ) -> ReserveOutcome:
        amounts = checked_amounts(amounts)
        if room is not None and room is not amounts:
            room = checked_amounts(room)
        expires_at = self._in(self._hold_ttl_s if ttl_s is None else ttl_s)
        known = self._transaction.holds.get(hold_id)
        if known is not None:
            known.must_match("reserve", scopes, amounts)
            return HELD
        self._must_be_young(hold_id)
        if not self._swept:
            self._swept = True
            self.sweep(_SWEPT_AT_ONCE)
        group = self._transaction.group(scopes)
        found = group.counters
        for counters in found:
            if counters.revoked is not None:
                return counters.revoked
        if room is not None:
            refused = first_refusal(found, room, self._transaction.version)
            if refused is not None:
                return refused
        self._transaction.must_fit(found, amounts)
        hold = self._transaction.holds[hold_id] = StoredHold.new(
            hold_id, group, amounts, "reserve", "forwarded" if sent else "reserved"
        )
        for counters in found:
            counters.hold(amounts)
        hold.suspend = suspend
        hold.expires = expires_at
        return HELD

    def forward(self, hold_id: str) -> None:
        self._hold(hold_id).forward()

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        expires_at = self._in(ttl_s)
        hold = self._hold(hold_id)
        if not hold.open:
            return False
        hold.expires = expires_at
        if hold.state == "suspended":
            hold.state = "forwarded"
        return True

    def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool) -> Settled:
        amounts = checked_amounts(amounts)
        hold = self._transaction.holds.get(hold_id)
        if hold is None:
            hold = self._lost(hold_id, self._transaction.group(scopes), amounts, "commit")
        else:
            hold.must_be_hold(scopes)
            self._transaction.must_fit(hold.group.counters, amounts)
        was_open = hold.open
        if hold.commit(amounts, uncertain):
            if was_open:
                self._number(hold)
            self._transaction.version += 1
        return Settled(hold.counters[0].committed, hold.charged or NOTHING, hold.uncertain)

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        hold = self._transaction.holds.get(hold_id)
        if hold is None:
            self._lost(hold_id, self._transaction.group(scopes), NOTHING, "release")
            return False
        hold.must_be_hold(scopes)
        if not hold.open:
            return False
        self._free(hold, "released")
        return True

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        amounts = checked_amounts(amounts)
        group = self._transaction.group(scopes)
        found = group.counters
        known = self._transaction.holds.get(charge_id)
        if known is None:
            self._lost(charge_id, group, amounts, "charge").commit(amounts, uncertain=False)
        else:
            known.must_match("charge", scopes, amounts)
        return first_refusal(found, NOTHING, self._transaction.version)

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        change = checked_change(change)
        check_text("reason", reason)
        group = self._transaction.group((scope,))
        counters = group.counters[0]
        known = self._transaction.holds.get(adjust_id)
        if known is not None:
            known.must_match("adjust", (scope,), change)
            return Amounts._make(counters.committed)
        then = change.plus(Amounts._make(counters.committed))
        if min(then) < 0:
            raise ValueError(f"change={change} would leave less than nothing committed in {scope}: {then}")
        self._lost(adjust_id, group, change, "adjust", reason).commit(change, uncertain=False)
        self._transaction.version += 1
        return then

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return [counters.balance() for counters in self._transaction.group(scopes).counters]

    def revoke(self, scope: Scope, reason: str) -> None:
        check_text("reason", reason)
        counters = self._transaction.opened(scope)
        if counters.revoked is None:
            counters.revoked = Revoked(scope, reason, self._transaction.time.now())
        self._transaction.version += 1  # whoever waits shall hear of it

    def restore(self, scope: Scope) -> bool:
        counters = self._transaction.counters(scope)
        if counters is None or counters.revoked is None:
            return False
        counters.revoked = None
        return True

    def sweep(self, most: int) -> int:
        due = self._transaction.due(most)
        for hold in due:
            if hold.state == "forwarded" and hold.suspend:
                hold.state = "suspended"
                hold.suspended_at = self._transaction.time.now()
            else:
                self._free(hold, "expired")
        return len(due)

    def suspended(self, most: int) -> Sequence[Suspended]:
        return [
            Suspended(hold.id, hold.scopes, hold.amounts, hold.suspended_at)
            for hold in self._transaction.suspended(most)
            if hold.suspended_at is not None
        ]

    def audit(self) -> Sequence[str]:
        wrong = self._transaction.damage()
        holds = self._transaction.everything()
        return [*wrong, *differences(self._transaction.scopes.values(), holds)]

    def _hold(self, hold_id: str) -> StoredHold:
        hold = self._transaction.holds.get(hold_id)
        if hold is None:
            self._must_be_young(hold_id)
            raise UnknownReservation(reservation_id=hold_id, detail="was never made; nothing was changed")
        hold.must_be_hold()
        return hold

    def _must_be_young(self, hold_id: str) -> None:
        made = made_ms(hold_id)
        if made <= self._transaction.forgotten_ms:
            raise StaleReservation(
                reservation_id=hold_id, detail="is older than what the ledger remembers; nothing was changed"
            )
        ahead = made - self._transaction.now // 1_000
        if ahead > TOLERANCE_MS:
            raise ValueError(
                f"hold_id={hold_id[:40]!r} was made {ahead // 1_000} s ahead of the ledger's time: set this machine's "
                "clock, and give the session and the ledger the same one"
            )

    def _lost(self, hold_id: str, group: Group, amounts: Amounts, verb: Verb, reason: str | None = None) -> StoredHold:
        """A record for what the ledger hears of for the first time, and holds nothing for."""
        self._must_be_young(hold_id)
        self._transaction.must_fit(group.counters, amounts)
        hold = self._transaction.holds[hold_id] = StoredHold.new(hold_id, group, amounts, verb)
        hold.reason = reason
        self._number(hold)
        return hold

    def _free(self, hold: StoredHold, state: State) -> None:
        hold.free(state)
        self._number(hold)
        self._transaction.version += 1

    def _number(self, hold: StoredHold) -> None:
        self._transaction.settled += 1
        hold.settled = self._transaction.settled

    def _in(self, ttl_s: float) -> int:
        check_ttl(ttl_s)
        return min(self._transaction.now + round(ttl_s * 1_000_000), LARGEST)
