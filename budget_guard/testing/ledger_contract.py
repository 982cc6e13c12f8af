"""What every ledger must do, as tests to inherit.

The author of a ledger subclasses `LedgerContract` in a pytest file, and every rule runs against it::

    class TestMyLedger(LedgerContract):
        def make_ledger(self, clock: Clock) -> Ledger:
            return MyLedger("my://database", clock=clock)

Needs ``pip install pytest``. Put ``pytest.register_assert_rewrite("budget_guard.testing.ledger_contract")`` into a
``conftest.py`` to see the values of a failed comparison.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from budget_guard.clock import Clock, SystemClock
from budget_guard.dimension import DIMENSIONS, NOTHING, Amounts, Limits
from budget_guard.errors import ReservationConflict, UnknownReservation
from budget_guard.hold_id import hold_id
from budget_guard.ledger.base import HELD, MOST, Balance, Held, Ledger, Refused, Revoked, Settled
from budget_guard.scope import Scope
from budget_guard.testing.clock import FakeClock

T = TypeVar("T")

RUN = Scope("run", "r1")
USER = Scope("user", "u1")
OTHER = Scope("user", "u2")
BOTH = (RUN, USER)
_PATIENCE_S = 20.0
"""How long a wait that ought to be woken at once may take before the test gives up."""


def race(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run *jobs* at the same time, a thread each, all let go by one barrier; return their results in order.

    Threads take turns after every few instructions meanwhile, so that a step that ought to be one and is two shows.
    """
    barrier = threading.Barrier(len(jobs))

    def job_at_once(job: Callable[[], T]) -> T:
        barrier.wait(_PATIENCE_S)
        return job()

    turn_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            return list(pool.map(job_at_once, jobs))
    finally:
        sys.setswitchinterval(turn_s)


def cost(nano: int) -> Amounts:
    """Amounts of *nano* nano-dollars and nothing else."""
    return Amounts(cost=nano)


class Ids:
    """Ids by name: each is made from the clock when it is first asked for, and stays the same from then on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self._made.setdefault(name, hold_id(self._clock.now_ms(), name))


class _LiveClock(SystemClock):
    """Real time that tells when a thread begins to wait, and when nobody woke it."""

    def __init__(self) -> None:
        self.waits = threading.Semaphore(0)

    def wait(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float) -> bool:
        self.waits.release()
        ends = self.monotonic() + timeout
        while not ready():
            if not condition.wait(ends - self.monotonic()):
                return False
        return True


class LedgerContract:
    """The rules of `budget_guard.ledger.base`, one test each."""

    workers = 32
    """Threads in the races. A slow ledger may lower it."""
    rounds = 100
    """Calls of each thread in the races. A slow ledger may lower it."""

    def make_ledger(self, clock: Clock) -> Ledger:
        """A new, empty ledger that reads the time from *clock*."""
        raise NotImplementedError  # abstract

    def close_ledger(self, ledger: Ledger) -> None:
        """Let go of what *ledger* uses. Does nothing by default."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of `ledger`."""
        return FakeClock()

    @pytest.fixture
    def ledger(self, clock: FakeClock) -> Iterator[Ledger]:
        """A ledger with a run of 100 nano-dollars, and two users of 1,000 nano-dollars."""
        made = self.make_ledger(clock)
        _open(made)
        yield made
        self.close_ledger(made)

    @pytest.fixture
    def ids(self, clock: FakeClock) -> Ids:
        """The ids of what `ledger` holds."""
        return Ids(clock)

    @pytest.fixture
    def live_clock(self) -> _LiveClock:
        """The time of `live_ledger`."""
        return _LiveClock()

    @pytest.fixture
    def live_ledger(self, live_clock: _LiveClock) -> Iterator[Ledger]:
        """As `ledger`, in real time: for waits that something ends."""
        made = self.make_ledger(live_clock)
        _open(made)
        yield made
        self.close_ledger(made)

    @pytest.fixture
    def live_ids(self, live_clock: _LiveClock) -> Ids:
        """The ids of what `live_ledger` holds."""
        return Ids(live_clock)

    # --- holding: the predicate, all scopes or none

    def test_a_hold_is_counted_in_every_scope_and_in_no_other(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.reserve(ids("h"), BOTH, cost(40), cost(40)) == HELD
        run, user, other = ledger.balances((RUN, USER, OTHER))
        assert run.reserved == user.reserved == cost(40)
        assert run.committed == user.committed == other.reserved == Amounts()
        assert (run.open_holds, user.open_holds, other.open_holds) == (1, 1, 0)

    @pytest.mark.parametrize("dimension", range(len(DIMENSIONS)), ids=DIMENSIONS)
    @pytest.mark.parametrize("amount", [1, 7, MOST])
    def test_the_limit_itself_still_fits_and_one_more_does_not(
        self, ledger: Ledger, ids: Ids, dimension: int, amount: int
    ) -> None:
        scope = Scope("team", "boundary")
        ledger.set_limits(scope, Limits(**{Amounts._fields[dimension]: amount}))
        exactly, one = _only(dimension, amount), _only(dimension, 1)
        assert ledger.reserve(ids("exactly"), (scope,), exactly, exactly) == HELD
        refused = ledger.reserve(ids("one"), (scope,), one, one)
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.dimension, refused.limit) == (scope, dimension, amount)
        assert (refused.committed, refused.reserved) == (0, amount)
        assert ledger.reserve(ids("nothing"), (scope,), Amounts(), Amounts()) == HELD

    def test_what_is_committed_counts_as_much_as_what_is_held(self, ledger: Ledger, ids: Ids) -> None:
        _spend(ledger, ids, "spent", 60)
        assert isinstance(ledger.reserve(ids("over"), BOTH, cost(41), cost(41)), Refused)
        assert ledger.reserve(ids("fits"), BOTH, cost(40), cost(40)) == HELD

    def test_amounts_beyond_floating_point_are_exact(self, ledger: Ledger, ids: Ids) -> None:
        wide = Scope("team", "wide")
        ledger.set_limits(wide, Limits(cost=2**60))
        for number in range(3):
            ledger.reserve(ids(f"h{number}"), (wide,), cost(MOST), cost(MOST))
            ledger.commit(ids(f"h{number}"), (wide,), cost(MOST))
        ledger.reserve(ids("one"), (wide,), cost(1), cost(1))
        balance = _balance(ledger, wide)
        assert (balance.committed.cost, balance.reserved.cost) == (3 * MOST, 1)

    def test_a_limit_in_one_scope_refuses_the_hold_in_all_of_them(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(USER, Limits(cost=30))
        refused = ledger.reserve(ids("h"), BOTH, cost(40), cost(40))
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.limit) == (USER, 30)
        for balance in ledger.balances(BOTH):
            assert (balance.reserved, balance.open_holds) == (Amounts(), 0)

    def test_a_refused_id_may_try_again_with_other_amounts(self, ledger: Ledger, ids: Ids) -> None:
        assert isinstance(ledger.reserve(ids("h"), BOTH, cost(101), cost(101)), Refused)
        assert ledger.reserve(ids("h"), BOTH, cost(100), cost(100)) == HELD

    def test_the_room_asked_for_may_differ_from_the_hold(self, ledger: Ledger, ids: Ids) -> None:
        assert isinstance(ledger.reserve(ids("kept"), BOTH, cost(60), cost(101)), Refused)
        assert ledger.reserve(ids("soft"), BOTH, cost(150), cost(1)) == HELD
        assert _balance(ledger, RUN).reserved == cost(150)

    def test_a_hold_without_a_question_is_never_refused(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.reserve(ids("h"), BOTH, cost(5_000), None) == HELD
        assert _balance(ledger, RUN).reserved == cost(5_000)

    def test_a_scope_without_limits_only_counts(self, ledger: Ledger, ids: Ids) -> None:
        free = Scope("feature", "f")
        ledger.set_limits(free, Limits())
        huge = Amounts(*[MOST] * len(DIMENSIONS))
        assert ledger.reserve(ids("h"), (free,), huge, huge) == HELD
        assert _balance(ledger, free).reserved == huge

    def test_a_limit_of_zero_takes_nothing(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(RUN, Limits(tool_calls=0))
        one = Amounts(tool_calls=1)
        assert isinstance(ledger.reserve(ids("h"), (RUN,), one, one), Refused)

    def test_a_scope_that_was_never_opened_is_an_error_and_holds_nothing(self, ledger: Ledger, ids: Ids) -> None:
        unknown = Scope("user", "nobody")
        with pytest.raises(KeyError):
            ledger.reserve(ids("h"), (RUN, unknown), cost(1), cost(1))
        with pytest.raises(KeyError):
            ledger.balances((unknown,))
        assert _balance(ledger, RUN).reserved == Amounts()

    @pytest.mark.parametrize("verb", ["reserve", "commit", "charge"])
    def test_an_amount_that_is_negative_is_refused_before_anything_changes(
        self, ledger: Ledger, ids: Ids, verb: str
    ) -> None:
        ledger.reserve(ids("open"), BOTH, cost(10), cost(10))
        before = ledger.balances(BOTH)
        hostile = Amounts(output_tokens=-1)
        with pytest.raises(ValueError, match="-1"):
            if verb == "reserve":
                ledger.reserve(ids("h"), BOTH, hostile, hostile)
            elif verb == "commit":
                ledger.commit(ids("open"), BOTH, hostile)
            else:
                ledger.charge(ids("h"), BOTH, hostile)
        assert ledger.balances(BOTH) == before

    def test_a_refusal_tells_what_is_left_in_the_scope_that_has_least_of_it(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(RUN, Limits(cost=100, output_tokens=50, requests=5))
        ledger.set_limits(USER, Limits(cost=70, output_tokens=80, tool_calls=0))
        held, spent = Amounts(cost=20, output_tokens=10, requests=1), Amounts(cost=5, output_tokens=10, requests=1)
        ledger.reserve(ids("open"), BOTH, held, held)
        ledger.charge(ids("spent"), (RUN,), spent)
        refused = ledger.reserve(ids("h"), BOTH, cost(51), cost(51))
        assert isinstance(refused, Refused)
        assert refused.left == Limits(cost=50, output_tokens=30, requests=3, tool_calls=0)
        ledger.charge(ids("over"), (USER,), cost(60))
        refused = ledger.reserve(ids("h"), BOTH, NOTHING, NOTHING)
        assert isinstance(refused, Refused)
        assert refused.left.cost == -10

    def test_scope_names_do_not_run_into_each_other(self, ledger: Ledger, ids: Ids) -> None:
        names = [Scope("user", "a:b"), Scope("user:a", "b"), Scope("user", "a"), Scope("user", "ä{}\n'\"")]
        for scope in names:
            ledger.set_limits(scope, Limits(cost=10))
        ledger.reserve(ids("h"), names[:1], cost(10), cost(10))
        assert [balance.reserved.cost for balance in ledger.balances(names)] == [10, 0, 0, 0]

    # --- idempotence

    def test_the_same_reserve_again_gets_the_same_answer_and_holds_once(self, ledger: Ledger, ids: Ids) -> None:
        for _ in range(3):
            assert ledger.reserve(ids("h"), BOTH, cost(60), cost(60)) == HELD
        assert _balance(ledger, RUN).reserved == cost(60)
        assert _balance(ledger, RUN).open_holds == 1

    @pytest.mark.parametrize(
        ("scopes", "amounts"),
        [(BOTH, cost(61)), (BOTH, Amounts(cost=60, requests=1)), ((RUN,), cost(60)), ((RUN, OTHER), cost(60))],
    )
    def test_the_same_id_with_other_parameters_is_a_conflict_that_changes_nothing(
        self, ledger: Ledger, ids: Ids, scopes: tuple[Scope, ...], amounts: Amounts
    ) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        before = ledger.balances((RUN, USER, OTHER))
        with pytest.raises(ReservationConflict) as caught:
            ledger.reserve(ids("h"), scopes, amounts, None)
        assert caught.value.reservation_id == ids("h")
        assert ledger.balances((RUN, USER, OTHER)) == before

    def test_the_scopes_of_a_hold_are_its_own(self, ledger: Ledger, ids: Ids) -> None:
        scopes = [RUN, USER]
        ledger.reserve(ids("h"), scopes, cost(10), cost(10))
        scopes.clear()
        ledger.release(ids("h"), BOTH)
        assert [balance.reserved for balance in ledger.balances(BOTH)] == [Amounts(), Amounts()]

    # --- settling

    def test_a_commit_books_what_was_spent_and_frees_the_rest(self, ledger: Ledger, ids: Ids) -> None:
        held, spent = Amounts(60, 50, 40, 90, 1, 0), Amounts(25, 20, 10, 30, 1, 0)
        ledger.reserve(ids("h"), BOTH, held, held)
        assert ledger.commit(ids("h"), BOTH, spent) == Settled(spent, spent, False)
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved, balance.open_holds) == (spent, Amounts(), 0)

    def test_a_commit_above_the_hold_is_charged_in_full(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        assert ledger.commit(ids("h"), BOTH, cost(160)) == Settled(cost(160), cost(160), False)
        assert _balance(ledger, RUN).committed == cost(160)
        assert isinstance(ledger.reserve(ids("next"), BOTH, Amounts(), Amounts()), Refused)

    def test_a_release_gives_the_whole_hold_back_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.reserve(ids("other"), BOTH, cost(30), cost(30))
        assert ledger.release(ids("h"), BOTH) is True
        assert ledger.release(ids("h"), BOTH) is False
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved, balance.open_holds) == (Amounts(), cost(30), 1)

    def test_a_release_after_the_commit_does_nothing(self, ledger: Ledger, ids: Ids) -> None:
        _spend(ledger, ids, "h", 60)
        assert ledger.release(ids("h"), BOTH) is False
        assert _balance(ledger, RUN).committed == cost(60)
        assert _balance(ledger, RUN).reserved == Amounts()

    def test_a_commit_after_the_release_is_charged_all_the_same(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.release(ids("h"), BOTH)
        ledger.commit(ids("h"), BOTH, cost(25))
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved, balance.open_holds) == (cost(25), Amounts(), 0)

    def test_a_commit_again_is_booked_once_and_says_so(self, ledger: Ledger, ids: Ids) -> None:
        _spend(ledger, ids, "h", 60)
        _spend(ledger, ids, "h2", 10)
        assert ledger.commit(ids("h"), BOTH, cost(60)) == Settled(cost(70), cost(60), False)
        assert _balance(ledger, RUN).committed == cost(70)

    def test_a_commit_of_other_amounts_is_a_conflict_that_changes_nothing(self, ledger: Ledger, ids: Ids) -> None:
        _spend(ledger, ids, "h", 60)
        with pytest.raises(ReservationConflict):
            ledger.commit(ids("h"), BOTH, cost(61))
        assert _balance(ledger, RUN).committed == cost(60)

    def test_an_estimate_is_replaced_by_the_actual_amounts_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        assert ledger.commit(ids("h"), BOTH, cost(60), uncertain=True) == Settled(cost(60), cost(60), True)
        assert ledger.commit(ids("h"), BOTH, cost(25)) == Settled(cost(25), cost(25), False)
        for balance in ledger.balances(BOTH):
            assert (balance.committed, balance.reserved) == (cost(25), Amounts())
        with pytest.raises(ReservationConflict):
            ledger.commit(ids("h"), BOTH, cost(26))

    def test_an_estimate_again_is_booked_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
        assert ledger.commit(ids("h"), BOTH, cost(60), uncertain=True) == Settled(cost(60), cost(60), True)
        assert _balance(ledger, RUN).committed == cost(60)

    def test_an_estimate_never_replaces_what_was_booked_for_certain(self, ledger: Ledger, ids: Ids) -> None:
        _spend(ledger, ids, "h", 25)
        assert ledger.commit(ids("h"), BOTH, cost(60), uncertain=True) == Settled(cost(25), cost(25), False)
        assert _balance(ledger, RUN).committed == cost(25)

    def test_an_actual_amount_equal_to_the_estimate_makes_it_certain(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.commit(ids("h"), BOTH, cost(60), uncertain=True)
        assert ledger.commit(ids("h"), BOTH, cost(60)) == Settled(cost(60), cost(60), False)
        with pytest.raises(ReservationConflict):
            ledger.commit(ids("h"), BOTH, cost(61))
        assert _balance(ledger, RUN).committed == cost(60)

    def test_a_forwarded_hold_settles_like_any_other(self, ledger: Ledger, ids: Ids) -> None:
        for name in ("paid", "free"):
            ledger.reserve(ids(name), BOTH, cost(40), cost(40))
            ledger.forward(ids(name))
            ledger.forward(ids(name))
        assert _balance(ledger, RUN).reserved == cost(80)
        ledger.commit(ids("paid"), BOTH, cost(25))
        assert ledger.release(ids("free"), BOTH) is True
        ledger.forward(ids("paid"))
        assert ledger.release(ids("paid"), BOTH) is False
        assert _balance(ledger, RUN)[2:5] == (cost(25), Amounts(), 0)

    @pytest.mark.parametrize("verb", ["forward", "extend"])
    def test_an_unknown_id_is_an_error_that_names_it_and_changes_nothing(
        self, ledger: Ledger, ids: Ids, verb: str
    ) -> None:
        arguments = (60,) if verb == "extend" else ()
        with pytest.raises(UnknownReservation, match="ghost"):
            getattr(ledger, verb)(ids("ghost"), *arguments)
        assert _balance(ledger, RUN)[2:5] == (NOTHING, NOTHING, 0)

    def test_a_lost_hold_is_charged_all_the_same(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.commit(ids("lost"), BOTH, cost(25)) == Settled(cost(25), cost(25), False)
        assert [balance.committed for balance in ledger.balances(BOTH)] == [cost(25), cost(25)]

    def test_a_release_that_overtakes_its_reserve_keeps_it_from_holding(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.release(ids("h"), BOTH) is False
        with pytest.raises(ReservationConflict):
            ledger.reserve(ids("h"), BOTH, cost(25), cost(25))
        assert _balance(ledger, RUN)[2:5] == (NOTHING, NOTHING, 0)

    # --- money that was spent without asking

    def test_a_charge_is_always_booked_and_names_the_limit_that_is_passed(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.charge(ids("c1"), BOTH, cost(100)) is None
        passed = ledger.charge(ids("c2"), BOTH, cost(1))
        assert passed is not None
        assert (passed.scope, passed.dimension, passed.limit, passed.committed) == (RUN, 0, 100, 101)
        assert [balance.committed.cost for balance in ledger.balances(BOTH)] == [101, 101]

    def test_a_charge_again_is_booked_once(self, ledger: Ledger, ids: Ids) -> None:
        for _ in range(2):
            assert ledger.charge(ids("c"), BOTH, cost(30)) is None
        assert _balance(ledger, RUN).committed == cost(30)
        with pytest.raises(ReservationConflict):
            ledger.charge(ids("c"), BOTH, cost(31))

    # --- limits and revocation

    def test_raised_limits_hold_at_once(self, ledger: Ledger, ids: Ids) -> None:
        _spend(ledger, ids, "h", 100)
        ledger.set_limits(RUN, Limits(cost=150))
        balance = _balance(ledger, RUN)
        assert (balance.limits, balance.committed) == (Limits(cost=150), cost(100))
        assert ledger.reserve(ids("h2"), BOTH, cost(50), cost(50)) == HELD

    def test_a_revoked_scope_is_refused_and_no_other(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        clock.advance(5)
        ledger.revoke(USER, "compromised")
        expected = Revoked(USER, "compromised", clock.now())
        clock.advance(5)
        ledger.revoke(USER, "again")
        assert ledger.reserve(ids("h"), BOTH, cost(1), cost(1)) == expected
        assert ledger.reserve(ids("h"), BOTH, cost(1), None) == expected
        assert _balance(ledger, USER).revoked == expected
        assert _balance(ledger, RUN).reserved == Amounts()
        assert ledger.reserve(ids("h2"), (RUN, OTHER), cost(1), cost(1)) == HELD

    def test_what_is_in_flight_settles_after_a_revocation(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        ledger.revoke(USER, "compromised")
        assert ledger.reserve(ids("h"), BOTH, cost(60), cost(60)) == HELD
        ledger.commit(ids("h"), BOTH, cost(25))
        assert ledger.charge(ids("c"), BOTH, cost(5)) is None
        assert _balance(ledger, USER)[2:5] == (cost(30), Amounts(), 0)

    def test_a_scope_may_be_revoked_before_it_is_opened(self, ledger: Ledger, ids: Ids) -> None:
        early = Scope("key", "k")
        ledger.revoke(early, "leaked")
        ledger.set_limits(early, Limits(cost=10))
        assert isinstance(ledger.reserve(ids("h"), (early,), cost(1), cost(1)), Revoked)

    # --- waiting

    def test_a_refusal_says_whether_waiting_can_help(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("open"), BOTH, cost(60), cost(60))
        fits, never = (ledger.reserve(ids(f"h{n}"), BOTH, cost(n), cost(n)) for n in (100, 101))
        assert isinstance(fits, Refused) and fits.waiting_helps
        assert isinstance(never, Refused) and not never.waiting_helps
        ledger.set_limits(USER, Limits(cost=70))
        elsewhere = ledger.reserve(ids("h"), BOTH, cost(80), cost(80))
        assert isinstance(elsewhere, Refused) and not elsewhere.waiting_helps

    def test_a_wait_that_nothing_ends_takes_its_time_and_says_so(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        version = _full(ledger, ids)
        assert ledger.await_room(version, 7.5) is False
        assert clock.monotonic() == 7.5

    def test_an_async_wait_that_nothing_ends_takes_its_time_too(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        version = _full(ledger, ids)
        assert asyncio.run(_wait(ledger, version, 7.5)) is False
        assert clock.monotonic() == 7.5

    @pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "async"])
    @pytest.mark.parametrize("event", ["release", "commit", "raise", "revoke", "correct"])
    def test_what_made_room_before_the_wait_began_is_not_missed(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, event: str, awaits: bool
    ) -> None:
        version = _full(ledger, ids)
        _make_room(ledger, ids, event)
        if awaits:
            assert asyncio.run(_wait(ledger, version, 60)) is True
        else:
            assert ledger.await_room(version, 60) is True
        assert clock.monotonic() == 0

    @pytest.mark.parametrize("event", ["release", "commit", "raise", "revoke"])
    def test_whoever_waits_is_woken(
        self, live_ledger: Ledger, live_ids: Ids, live_clock: _LiveClock, event: str
    ) -> None:
        version = _full(live_ledger, live_ids)

        def wait() -> bool:
            return live_ledger.await_room(version, _PATIENCE_S)

        def make_room() -> bool:
            begun = [live_clock.waits.acquire(timeout=_PATIENCE_S) for _ in range(2)]
            _make_room(live_ledger, live_ids, event)
            return all(begun)

        assert all(race([wait, wait, make_room]))

    @pytest.mark.parametrize("event", ["release", "commit", "raise", "revoke"])
    def test_whoever_awaits_is_woken(self, live_ledger: Ledger, live_ids: Ids, event: str) -> None:
        version = _full(live_ledger, live_ids)

        async def waiters() -> list[bool]:
            waiting = [asyncio.create_task(_wait(live_ledger, version, _PATIENCE_S)) for _ in range(3)]
            await asyncio.sleep(0)  # let them begin
            await asyncio.to_thread(_make_room, live_ledger, live_ids, event)
            return await asyncio.gather(*waiting)

        assert asyncio.run(waiters()) == [True, True, True]

    def test_a_cancelled_wait_leaves_nothing_behind(self, live_ledger: Ledger, live_ids: Ids) -> None:
        version = _full(live_ledger, live_ids)

        async def cancel_one_of_two() -> bool:
            first, second = (asyncio.create_task(_wait(live_ledger, version, _PATIENCE_S)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            _make_room(live_ledger, live_ids, "release")
            return await second

        assert asyncio.run(cancel_one_of_two()) is True
        assert _balance(live_ledger, RUN).open_holds == 0

    # --- races

    def test_threads_never_hold_more_than_the_limit_and_lose_nothing(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(RUN, Limits(cost=10))
        ledger.set_limits(USER, Limits())
        most: list[int] = []

        def work(worker: int) -> int:
            spent = 0
            for number in range(self.rounds):
                hold_id = f"{worker}-{number}"
                if isinstance(ledger.reserve(ids(hold_id), BOTH, cost(3), cost(3)), Held):
                    most.append(_balance(ledger, RUN).reserved.cost)
                    ledger.release(ids(hold_id), BOTH)
                ledger.reserve(ids(f"{hold_id}-user"), (USER,), cost(3), None)
                ledger.commit(ids(f"{hold_id}-user"), (USER,), cost(2))
                spent += 2
            return spent

        spent = race([lambda worker=worker: work(worker) for worker in range(self.workers)])  # type: ignore[misc]  # no type for its default
        run, user = ledger.balances(BOTH)
        assert max(most) <= 10
        assert (run.committed, run.reserved, run.open_holds) == (Amounts(), Amounts(), 0)
        assert user.committed == cost(sum(spent)) == cost(2 * self.rounds * self.workers)
        assert (user.reserved, user.open_holds) == (Amounts(), 0)

    def test_exactly_as_many_threads_pass_as_fit(self, ledger: Ledger, ids: Ids) -> None:
        def hold(worker: int) -> bool:
            return isinstance(ledger.reserve(ids(f"h{worker}"), BOTH, cost(10), cost(10)), Held)

        admitted = race([lambda worker=worker: hold(worker) for worker in range(self.workers)])  # type: ignore[misc]  # no type for its default
        assert sum(admitted) == min(10, self.workers)
        assert _balance(ledger, RUN).reserved == cost(10 * sum(admitted))

    def test_one_hold_settled_by_many_threads_is_settled_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        race([lambda: ledger.commit(ids("h"), BOTH, cost(25))] * self.workers)
        assert _balance(ledger, RUN)[2:5] == (cost(25), Amounts(), 0)

    def test_tasks_never_hold_more_than_the_limit_and_lose_nothing(self, ledger: Ledger, ids: Ids) -> None:
        async def call(number: int) -> bool:
            outcome = await ledger.aio.reserve(ids(f"h{number}"), BOTH, cost(10), cost(10))
            if not isinstance(outcome, Held):
                return False
            await asyncio.sleep(0)
            await ledger.aio.forward(ids(f"h{number}"))
            await ledger.aio.commit(ids(f"h{number}"), BOTH, cost(10))
            return True

        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(call(number) for number in range(200)))

        assert sum(asyncio.run(all_at_once())) == 10
        assert _balance(ledger, RUN)[2:5] == (cost(100), Amounts(), 0)

    def test_the_verbs_to_await_are_the_blocking_ones(self, ledger: Ledger, ids: Ids) -> None:
        async def every_verb() -> None:
            aio = ledger.aio
            assert await aio.reserve(ids("h"), BOTH, cost(60), cost(60)) == HELD
            assert await aio.reserve(ids("h2"), BOTH, cost(40), cost(40)) == HELD
            await aio.forward(ids("h"))
            assert await aio.commit(ids("h"), BOTH, cost(60), True) == Settled(cost(60), cost(60), True)
            assert await aio.commit(ids("h"), BOTH, cost(25)) == Settled(cost(25), cost(25), False)
            assert await aio.release(ids("h2"), BOTH) is True
            assert await aio.charge(ids("c"), BOTH, cost(5)) is None
            assert list(await aio.balances(BOTH)) == list(ledger.balances(BOTH))

        asyncio.run(every_verb())
        assert _balance(ledger, RUN)[2:5] == (cost(30), Amounts(), 0)


def _open(ledger: Ledger) -> None:
    ledger.set_limits(RUN, Limits(cost=100))
    for scope in (USER, OTHER):
        ledger.set_limits(scope, Limits(cost=1_000))


def _only(dimension: int, amount: int) -> Amounts:
    return Amounts(**{Amounts._fields[dimension]: amount})


def _balance(ledger: Ledger, scope: Scope) -> Balance:
    return ledger.balances((scope,))[0]


def _spend(ledger: Ledger, ids: Ids, name: str, nano: int) -> None:
    ledger.reserve(ids(name), BOTH, cost(nano), cost(nano))
    ledger.commit(ids(name), BOTH, cost(nano))


def _full(ledger: Ledger, ids: Ids) -> int:
    """Fill the run with the hold "full"; return the version to wait from."""
    ledger.reserve(ids("full"), BOTH, cost(100), cost(100))
    refused = ledger.reserve(ids("next"), BOTH, cost(1), cost(1))
    assert isinstance(refused, Refused)
    return refused.version


def _make_room(ledger: Ledger, ids: Ids, event: str) -> None:
    if event == "release":
        ledger.release(ids("full"), BOTH)
    elif event == "commit":
        ledger.commit(ids("full"), BOTH, cost(10))
    elif event == "correct":
        ledger.commit(ids("full"), BOTH, cost(100), uncertain=True)
        ledger.commit(ids("full"), BOTH, cost(10))
    elif event == "raise":
        ledger.set_limits(RUN, Limits(cost=200))
    else:
        ledger.revoke(RUN, "stop")


async def _wait(ledger: Ledger, version: int, timeout: float) -> bool:
    return await ledger.aio.await_room(version, timeout)
