"""Any ledger against the naive one, verb by verb, with the counters compared after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from budget_guard.clock import Clock
from budget_guard.errors import ReservationConflict, StaleReservation, UnknownReservation
from budget_guard.ledger import Held, Ledger, Refused, ScopeSpend, Settled
from budget_guard.ledger.history import Labels, UsageLine, UsageQuery
from budget_guard.ledger.hold_id import hold_id
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope, Window
from tests.ledger.naive import Conflict, NaiveLedger, Stale, Unknown

SCOPES = (Scope("run", "r"), Scope("user", "u"), Scope("team", "t"))
NAMES = st.sampled_from("abcde")
SCOPE_LISTS = st.sampled_from([SCOPES[:1], SCOPES[:2], SCOPES, SCOPES[1:]])
QUANTITIES = st.sampled_from([0, 1, 2, 3, 5, 9, 2**53 - 1])
AMOUNTS = st.tuples(QUANTITIES, QUANTITIES, st.integers(0, 2)).map(
    lambda n: Amounts(cost=n[0], output_tokens=n[1], requests=n[2])
)
CHANGES = st.tuples(st.sampled_from([-9, -2, 0, 3]), st.sampled_from([-1, 0])).map(
    lambda n: Amounts(cost=n[0], output_tokens=n[1])
)
ROOMS = st.one_of(st.none(), AMOUNTS)
LIMIT = st.one_of(st.none(), st.sampled_from([0, 5, 10, 2**53, 2**62]))
LIMITS = st.tuples(LIMIT, LIMIT, LIMIT).map(lambda n: Limits(cost=n[0], output_tokens=n[1], requests=n[2]))
WINDOWS: st.SearchStrategy[Window] = st.sampled_from(["none", "none", "minute", "day", "month"])
MODELS = st.sampled_from(["", "gpt", "claude"])
"""What is spent on; nobody says it where that is empty."""
TTLS = st.sampled_from([5, 100, 10**6])
REMEMBERED_S = 600
"""For how long every ledger remembers what is settled, at least."""

LABELLED_S = 29 * 86_400
"""For how long every ledger keeps what money was spent on, at least."""


def outcome(verb: Callable[[], Any]) -> Any:
    """What *verb* answers, errors included, in words that both ledgers share."""
    try:
        return verb()
    except (Conflict, ReservationConflict):
        return "conflict"
    except (Unknown, UnknownReservation):
        return "unknown"
    except (Stale, StaleReservation):
        return "stale"


def machine(
    make: Callable[[Clock], Ledger],
    forget: Callable[[Ledger, FakeClock], None],
    *,
    examples: int = 130,
    close: Callable[[Ledger], None] = lambda ledger: ledger.close(),
) -> type[RuleBasedStateMachine]:
    """A state machine over the ledgers that *make* makes.

    Args:
        make: Makes a new, empty ledger that reads the time from a clock.
        forget: Makes a ledger forget all that is settled, and take no earlier id for a new one.
        examples: How many histories to try; each has 40 steps.
        close: Lets go of what a ledger uses.
    """

    class LedgerMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.clock = FakeClock()
            self.real, self.naive = make(self.clock), NaiveLedger(self.clock)
            self.ids: dict[str, str] = {}
            self.forgotten_at = 0.0
            for scope in SCOPES:
                self.limit(scope, Limits(cost=10, output_tokens=10), "none")

        def teardown(self) -> None:
            assert self.real.audit() == []
            close(self.real)

        def id(self, name: str) -> str:
            """The id of what is known as *name*; a new one as long as nothing is."""
            if self.ids.get(name) not in self.naive.records or self.naive.records[self.ids[name]].forgotten:
                self.ids[name] = hold_id(self.clock.now_ms(), name)
            return self.ids[name]

        @rule(scope=st.sampled_from(SCOPES), limits=LIMITS, window=WINDOWS)
        def limit(self, scope: Scope, limits: Limits, window: Window) -> None:
            self.real.set_limits(scope, limits, window)
            self.naive.set_limits(scope, limits, window)

        @rule(
            name=NAMES,
            scopes=SCOPE_LISTS,
            amounts=AMOUNTS,
            room=ROOMS,
            ttl_s=TTLS,
            suspend=st.booleans(),
            sent=st.booleans(),
        )
        def reserve(
            self,
            name: str,
            scopes: tuple[Scope, ...],
            amounts: Amounts,
            room: Amounts | None,
            ttl_s: int,
            suspend: bool,
            sent: bool,
        ) -> None:
            made = self.id(name)

            def real() -> str:
                answer = self.real.reserve(made, scopes, amounts, room, ttl_s, suspend, sent)
                return {Held: "held", Refused: "refused"}.get(type(answer), "revoked")

            expected = outcome(lambda: self.naive.reserve(made, scopes, amounts, room, ttl_s, suspend, sent))
            assert outcome(real) == expected

        @rule(name=NAMES, scopes=SCOPE_LISTS, amounts=AMOUNTS, ttl_s=TTLS)
        def gate(self, name: str, scopes: tuple[Scope, ...], amounts: Amounts, ttl_s: int) -> None:
            """I3: right after an admitted hold the predicate holds in every scope."""
            known = self.id(name) in self.naive.records
            self.reserve(name, scopes, amounts, amounts, ttl_s, True, False)
            if not known and self.id(name) in self.naive.records:
                for balance in self.real.balances(scopes):
                    for limit, committed, reserved in zip(*balance[1:4], strict=True):
                        assert limit is None or committed + reserved <= limit

        @rule(name=NAMES)
        def forward(self, name: str) -> None:
            made = self.id(name)
            assert outcome(lambda: self.real.forward(made)) == outcome(lambda: self.naive.forward(made))

        @rule(name=NAMES, ttl_s=TTLS)
        def extend(self, name: str, ttl_s: int) -> None:
            made = self.id(name)
            assert outcome(lambda: self.real.extend(made, ttl_s)) == outcome(lambda: self.naive.extend(made, ttl_s))

        @rule(name=NAMES, scopes=SCOPE_LISTS, amounts=AMOUNTS, uncertain=st.booleans(), model=MODELS)
        def commit(self, name: str, scopes: tuple[Scope, ...], amounts: Amounts, uncertain: bool, model: str) -> None:
            made = self.id(name)
            lines = (UsageLine(Labels(model=model), amounts),) if model else ()

            def naive() -> Settled:
                record = self.naive.commit(made, scopes, amounts, uncertain, model)
                assert record.charged is not None
                above = tuple(
                    ScopeSpend(self.naive.committed(scope), self.naive.ceilings[scope].limits) for scope in scopes[1:]
                )
                left = self.naive.cost_left(scopes)
                return Settled(self.naive.committed(scopes[0]), record.charged, not record.certain, above, left)

            told = outcome(lambda: self.real.commit(made, scopes, amounts, uncertain, lines))
            expected = outcome(naive)
            if isinstance(told, Settled) and told.cost_left is None:  # which a ledger need not say
                expected = expected._replace(cost_left=None)
            assert told == expected

        @rule(name=NAMES, scopes=SCOPE_LISTS)
        def release(self, name: str, scopes: tuple[Scope, ...]) -> None:
            made = self.id(name)
            real = outcome(lambda: self.real.release(made, scopes))
            assert real == outcome(lambda: self.naive.release(made, scopes))

        @rule(name=NAMES, scopes=SCOPE_LISTS, amounts=AMOUNTS, model=MODELS)
        def charge(self, name: str, scopes: tuple[Scope, ...], amounts: Amounts, model: str) -> None:
            made = self.id(name)
            lines = (UsageLine(Labels(model=model), amounts),) if model else ()

            def naive() -> bool:
                self.naive.book("charge", made, scopes, amounts, model)
                return self.naive.fits(scopes, Amounts())

            assert outcome(lambda: self.real.charge(made, scopes, amounts, lines) is None) == outcome(naive)

        @rule(name=NAMES, scope=st.sampled_from(SCOPES), change=CHANGES)
        def adjust(self, name: str, scope: Scope, change: Amounts) -> None:
            made = self.id(name)
            below = made not in self.naive.records and min(self.naive.committed(scope).plus(change)) < 0

            def naive() -> Amounts | str:
                if below:
                    return "below nothing"
                self.naive.book("adjust", made, (scope,), change)
                return self.naive.committed(scope)

            def real() -> Amounts | str:
                try:
                    return self.real.adjust(made, scope, change, "credit note")
                except ValueError:
                    return "below nothing"

            assert outcome(real) == outcome(naive)

        @rule(scope=st.sampled_from(SCOPES[1:]))
        def revoke(self, scope: Scope) -> None:
            self.real.revoke(scope, "cut off")
            self.naive.ceilings[scope].revoked = True

        @rule(scope=st.sampled_from(SCOPES[1:]))
        def restore(self, scope: Scope) -> None:
            ceiling = self.naive.ceilings[scope]
            assert self.real.restore(scope) is ceiling.revoked
            ceiling.revoked = False

        @rule(seconds=st.sampled_from([1, 10, 61, 3_600, 86_400, 32 * 86_400]))
        def let_time_pass(self, seconds: int) -> None:
            self.clock.advance(seconds)
            assert sum(iter(self.real.sweep, 0)) == self.naive.sweep()
            if self.clock.monotonic() - self.forgotten_at > REMEMBERED_S:
                self.forget()

        @rule()
        def forget(self) -> None:
            forget(self.real, self.clock)
            self.naive.forget()
            self.clock.advance(1)
            assert sum(iter(self.real.sweep, 0)) == self.naive.sweep()
            self.forgotten_at = self.clock.monotonic()

        @precondition(lambda self: any(record.forgotten for record in self.naive.records.values()))
        @rule(data=st.data(), scopes=SCOPE_LISTS, amounts=AMOUNTS)
        def use_what_is_forgotten(self, data: st.DataObject, scopes: tuple[Scope, ...], amounts: Amounts) -> None:
            forgotten = data.draw(st.sampled_from([i for i, each in self.naive.records.items() if each.forgotten]))
            assert outcome(lambda: self.real.reserve(forgotten, scopes, amounts, None)) == "stale"
            assert outcome(lambda: self.real.forward(forgotten)) == "stale"
            assert outcome(lambda: self.real.extend(forgotten, 60)) == "stale"
            assert outcome(lambda: self.real.commit(forgotten, scopes, amounts)) == "stale"
            assert outcome(lambda: self.real.release(forgotten, scopes)) == "stale"
            assert outcome(lambda: self.real.charge(forgotten, scopes, amounts)) == "stale"
            assert outcome(lambda: self.real.adjust(forgotten, scopes[0], amounts, "credit note")) == "stale"

        @invariant()
        def the_counters_are_the_sums_of_the_records(self) -> None:
            """I1, I2, I4, I5: conservation, no negative, what was booked is what was spent, nothing leaks."""
            for balance in self.real.balances(SCOPES):
                scope, ceiling = balance.scope, self.naive.roll(balance.scope)
                assert balance.committed == self.naive.committed(scope)
                assert balance.reserved == self.naive.reserved(scope)
                assert balance.open_holds == self.naive.open_holds(scope)
                assert (balance.limits, balance.window, balance.since) == (
                    ceiling.limits,
                    ceiling.window,
                    ceiling.since,
                )
                assert (balance.revoked is not None) == ceiling.revoked
                assert all(type(n) is int for n in (*balance.committed, *balance.reserved))

        @invariant()
        def the_usage_history_has_every_booking_by_what_it_was_for(self) -> None:
            by_model = self.clock.monotonic() < LABELLED_S
            for scope in SCOPES:
                query = UsageQuery(scope.kind, scope.id, 0, None, ("model",) if by_model else ())
                found = {each.names: each.quantities for each in self.real.usage(query)}
                assert found == self.naive.history(scope, by_model)

        @invariant()
        def what_is_suspended_waits_to_be_reconciled(self) -> None:
            suspended = self.real.suspended()
            assert {each.hold_id for each in suspended} == self.naive.suspended()
            for each in suspended:
                record = self.naive.records[each.hold_id]
                assert (each.scopes, each.amounts) == (record.scopes, record.held)

    LedgerMachine.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    return LedgerMachine
