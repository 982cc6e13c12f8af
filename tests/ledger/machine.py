"""Any ledger against the naive one, verb by verb, with the invariants checked after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from budget_guard.dimension import Amounts, Limits
from budget_guard.errors import ReservationConflict, UnknownReservation
from budget_guard.hold_id import hold_id as made
from budget_guard.ledger import Held, Ledger, Refused
from budget_guard.scope import Scope
from tests.ledger.naive import Conflict, NaiveLedger

SCOPES = (Scope("run", "r"), Scope("user", "u"), Scope("team", "t"))
HOLD_IDS = st.sampled_from([made(0, name) for name in "abcd"])
CHARGE_IDS = st.sampled_from([made(0, name) for name in "xy"])
SCOPE_LISTS = st.sampled_from([SCOPES[:1], SCOPES[:2], SCOPES, SCOPES[1:]])
QUANTITIES = st.sampled_from([0, 1, 2, 3, 5, 9, 2**53 - 1])
AMOUNTS = st.tuples(QUANTITIES, QUANTITIES, st.integers(0, 2)).map(
    lambda n: Amounts(cost=n[0], output_tokens=n[1], requests=n[2])
)
ROOMS = st.one_of(st.none(), AMOUNTS)
LIMIT = st.one_of(st.none(), st.sampled_from([0, 5, 10, 2**53]))
LIMITS = st.tuples(LIMIT, LIMIT, LIMIT).map(lambda n: Limits(cost=n[0], output_tokens=n[1], requests=n[2]))


def outcome(verb: Callable[[], Any]) -> Any:
    """What *verb* answers, errors included, in words that both ledgers share."""
    try:
        return verb()
    except (Conflict, ReservationConflict):
        return "conflict"
    except UnknownReservation:
        return "unknown"


def machine(make: Callable[[], Ledger]) -> type[RuleBasedStateMachine]:
    """A state machine over the ledgers that *make* makes."""

    class LedgerMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.real, self.naive = make(), NaiveLedger()
            self.committed = dict.fromkeys(SCOPES, Amounts())
            self.corrected = False
            for scope in SCOPES:
                self.limit(scope, Limits(cost=10, output_tokens=10))

        @rule(scope=st.sampled_from(SCOPES), limits=LIMITS)
        def limit(self, scope: Scope, limits: Limits) -> None:
            self.real.set_limits(scope, limits)
            self.naive.limits[scope] = limits

        @rule(hold_id=HOLD_IDS, scopes=SCOPE_LISTS, amounts=AMOUNTS, room=ROOMS)
        def reserve(self, hold_id: str, scopes: tuple[Scope, ...], amounts: Amounts, room: Amounts | None) -> None:
            def real() -> str:
                answer = self.real.reserve(hold_id, scopes, amounts, room)
                return {Held: "held", Refused: "refused"}.get(type(answer), "revoked")

            assert outcome(real) == outcome(lambda: self.naive.reserve(hold_id, scopes, amounts, room))

        @rule(hold_id=HOLD_IDS, scopes=SCOPE_LISTS, amounts=AMOUNTS)
        def gate(self, hold_id: str, scopes: tuple[Scope, ...], amounts: Amounts) -> None:
            """I3: right after an admitted hold the predicate holds in every scope."""
            known = hold_id in self.naive.records
            self.reserve(hold_id, scopes, amounts, amounts)
            if not known and hold_id in self.naive.records:
                for balance in self.real.balances(scopes):
                    for limit, committed, reserved in zip(*balance[1:4], strict=True):
                        assert limit is None or committed + reserved <= limit

        @rule(hold_id=HOLD_IDS)
        def forward(self, hold_id: str) -> None:
            known = None if hold_id in self.naive.records else "unknown"
            assert outcome(lambda: self.real.forward(hold_id)) == known

        @rule(hold_id=HOLD_IDS, scopes=SCOPE_LISTS, amounts=AMOUNTS, uncertain=st.booleans())
        def commit(self, hold_id: str, scopes: tuple[Scope, ...], amounts: Amounts, uncertain: bool) -> None:
            record = self.naive.records.get(hold_id)
            self.corrected = record is not None and record.charged is not None and not record.certain
            expected = outcome(lambda: self.naive.commit(hold_id, scopes, amounts, uncertain))
            settled = outcome(lambda: self.real.commit(hold_id, scopes, amounts, uncertain))
            record = self.naive.records[hold_id]
            if isinstance(settled, str):
                assert settled == expected
            else:
                assert expected is None
                assert settled == (self.naive.committed(record.scopes[0]), record.charged, not record.certain)

        @rule(hold_id=HOLD_IDS, scopes=SCOPE_LISTS)
        def release(self, hold_id: str, scopes: tuple[Scope, ...]) -> None:
            real = outcome(lambda: self.real.release(hold_id, scopes))
            assert real == outcome(lambda: self.naive.release(hold_id, scopes))

        @rule(charge_id=CHARGE_IDS, scopes=SCOPE_LISTS, amounts=AMOUNTS)
        def charge(self, charge_id: str, scopes: tuple[Scope, ...], amounts: Amounts) -> None:
            real = outcome(lambda: self.real.charge(charge_id, scopes, amounts) is None)
            assert real == outcome(lambda: self.naive.charge(charge_id, scopes, amounts))

        @rule(scope=st.sampled_from(SCOPES[1:]))
        def revoke(self, scope: Scope) -> None:
            self.real.revoke(scope, "cut off")
            self.naive.revoked.add(scope)

        @invariant()
        def the_counters_are_the_sums_of_the_records(self) -> None:
            """I1, I2, I4, I5: conservation, no negative, what was booked is what was spent, nothing leaks."""
            for balance in self.real.balances(SCOPES):
                scope = balance.scope
                assert balance.committed == self.naive.committed(scope)
                assert balance.reserved == self.naive.reserved(scope)
                assert balance.open_holds == self.naive.open_holds(scope)
                assert balance.limits == self.naive.limits[scope]
                assert (balance.revoked is not None) == (scope in self.naive.revoked)
                assert all(type(n) is int and n >= 0 for n in (*balance.committed, *balance.reserved))

        @invariant()
        def what_is_spent_never_falls_but_by_a_correction(self) -> None:
            """I11."""
            for balance in self.real.balances(SCOPES):
                before = self.committed[balance.scope]
                assert self.corrected or all(now >= then for now, then in zip(balance.committed, before, strict=True))
                self.committed[balance.scope] = balance.committed
            self.corrected = False

    LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    return LedgerMachine
