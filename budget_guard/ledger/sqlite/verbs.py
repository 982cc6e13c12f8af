"""The verbs of a ledger in a file: what they read and change within one transaction.

A batch of verbs shares one `Transaction`: each row is read when the first verb needs it, the rules are applied to the
counters and holds that the rows are, and what became of them is written at the end. Under the file's write lock nothing
else changes them meanwhile. A verb checks everything before it changes anything, so one that fails leaves the rest of
its batch alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime

from budget_guard.ledger.base import HELD, Refused, ReserveOutcome, ScopeSpend, Settled
from budget_guard.ledger.checks import check_place, check_text, check_ttl, checked_amounts, checked_lines, checked_room
from budget_guard.ledger.counters import Counters, first_refusal, least_cost_left
from budget_guard.ledger.history import UsageLine, UsageQuery, UsageSum, keeps_history
from budget_guard.ledger.hold import Origin, differences
from budget_guard.ledger.hold_id import TOLERANCE_MS, made_ms
from budget_guard.ledger.rules import LedgerRules, stale
from budget_guard.ledger.sqlite.rows import StoredHold
from budget_guard.ledger.sqlite.transaction import LARGEST, Transaction
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

_SWEPT_AT_ONCE = 8
"""Expired holds that the first reserve of a batch clears away by itself."""
_FORGOTTEN_AT_ONCE = 1_000
"""Settled holds that a batch forgets at most."""


class SqliteVerbs(LedgerRules[StoredHold]):
    """The verbs, within one transaction.

    Args:
        transaction: What they read and write.
        hold_ttl_s: Seconds after which a hold expires if nothing else was asked for.
        retain: How many settled holds to remember, beside those younger than the tolerance.
    """

    _lock = nullcontext()  # the file's own lock keeps others out

    def __init__(self, transaction: Transaction, hold_ttl_s: float, retain: int) -> None:
        self._transaction = transaction
        self._holds = transaction.holds
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

    def set_limits(
        self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "", note: str = ""
    ) -> None:
        check_text("owner", owner)
        check_text("note", note)
        super().set_limits(scope, limits, window, owner, note)

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
            room = checked_room(room)
        ttl_s = self._hold_ttl_s if ttl_s is None else ttl_s
        check_ttl(ttl_s)
        known = self._holds.get(hold_id)
        if known is not None:
            known.must_match("reserve", scopes, amounts)
            return HELD
        self._must_be_young(hold_id)
        if not self._swept:
            self._swept = True
            self._sweep(_SWEPT_AT_ONCE)
        group = self._transaction.group(scopes)
        for counters in group.counters:
            if counters.revoked is not None:
                return counters.revoked
        if room is not None:
            refused = first_refusal(group.counters, room, self._transaction.version)
            if refused is not None:
                return refused
        self._transaction.must_fit(group.counters, amounts)
        hold = self._holds[hold_id] = StoredHold.new(
            hold_id, group, amounts, "reserve", "forwarded" if sent else "reserved"
        )
        for counters in group.counters:
            counters.hold(amounts)
        hold.suspend = suspend
        self._expire_in(hold, ttl_s)
        return HELD

    def commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool,
        lines: Sequence[UsageLine],
    ) -> Settled:
        amounts, lines = checked_amounts(amounts), checked_lines(lines)
        hold = self._holds.get(hold_id)
        if hold is None:
            hold = self._settled_at_once(hold_id, scopes, amounts, "commit")
        else:
            hold.must_be_hold(scopes)
            self._transaction.must_fit(hold.counters, amounts)
        was_open = hold.open
        hold.lines = lines
        if hold.commit(amounts, uncertain):
            self._note(hold)
            if was_open:
                self._settle(hold)
            self._give_room()
        first, *others = hold.counters
        above = tuple(ScopeSpend(each.committed, each.limits) for each in others)
        left = least_cost_left(hold.counters)
        return Settled(first.committed, hold.charged or NOTHING, hold.uncertain, above, left)

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        check_text("reason", reason)
        return super().adjust(adjust_id, scope, change, reason)

    def revoke(self, scope: Scope, reason: str) -> None:
        check_text("reason", reason)
        super().revoke(scope, reason)

    def swap(self, name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        check_place(name)
        check_text("name", name)
        if text is not None:
            check_text("text", text)
        check_ttl(ttl_s)
        kept = self._transaction.kept(name)
        if kept == expected:
            until = min(self._transaction.now + round(ttl_s * 1_000_000), LARGEST)
            self._transaction.keep(name, text, until)
            return text
        return kept

    def audit(self) -> Sequence[str]:
        wrong = self._transaction.damage()
        holds = self._transaction.everything()
        return [*wrong, *differences(self._transaction.scopes.values(), holds, self._in_history)]

    # The store

    def _now(self) -> datetime:
        return self._transaction.time.now()

    def _counters(self, scope: Scope) -> Counters | None:
        return self._transaction.counters(scope)

    def _opened(self, scope: Scope) -> Counters:
        return self._transaction.opened(scope)

    def _note(self, hold: StoredHold) -> None:
        self._transaction.usage.note(hold)

    def _answer(self, query: UsageQuery) -> Sequence[UsageSum]:
        return self._transaction.usage.answer(query)

    def _names(self, kind: str, prefix: str) -> Iterable[str]:
        return self._transaction.ids(kind, prefix)

    def _in_history(self, counters: Counters) -> Amounts | None:
        if not keeps_history(counters.scope.kind):
            return None
        return self._transaction.usage.committed(self._transaction.opened(counters.scope))

    def _find(self, scopes: Sequence[Scope]) -> Sequence[Counters]:
        return self._transaction.group(scopes).counters

    def _recorded(
        self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, origin: Origin, reason: str | None
    ) -> StoredHold:
        group = self._transaction.group(scopes)
        self._transaction.must_fit(group.counters, amounts)
        hold = StoredHold.new(hold_id, group, amounts, origin)
        hold.reason = reason
        return hold

    def _must_be_young(self, hold_id: str) -> None:
        made = made_ms(hold_id)
        if made <= self._transaction.forgotten_ms:
            raise stale(hold_id)
        ahead = made - self._transaction.now // 1_000
        if ahead > TOLERANCE_MS:
            raise ValueError(
                f"hold_id={hold_id[:40]!r} was made {ahead // 1_000} s ahead of the ledger's time: set this machine's "
                "clock, and give the session and the ledger the same one"
            )

    def _settle(self, hold: StoredHold) -> None:
        self._transaction.settled += 1
        hold.settled = self._transaction.settled

    def _expire_in(self, hold: StoredHold, ttl_s: float) -> None:
        hold.expires = min(self._transaction.now + round(ttl_s * 1_000_000), LARGEST)

    def _due(self, most: int) -> Iterable[StoredHold]:
        return self._transaction.due(most)

    def _suspended(self, most: int) -> Iterable[StoredHold]:
        return self._transaction.suspended(most)

    def _refusal(self, found: Sequence[Counters], room: Sums) -> Refused | None:
        return first_refusal(found, room, self._transaction.version)

    def _give_room(self) -> None:
        self._transaction.version += 1
