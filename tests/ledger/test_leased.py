"""A process leases a part of the shared budget and spends it without asking: ceilings hold, books are exact."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import os
import random
import threading
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    LedgerUnavailable,
    MemoryLedger,
    ReservationConflict,
    Scope,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.ledger.base import HELD, Held
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.leased.lease import RunLeases
from budget_guard.ledger.leased.ledger import LeasedLedger
from budget_guard.ledger.reconcile import reconcile
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from tests.builders import PRICES, Way, apart, call

USER = Scope("user", "u1")
DIME = 100_000_000


class Shared(LedgerWrapper):
    """The shared ledger: in memory, with its verbs counted, and down where it is told to be."""

    def __init__(self, clock: FakeClock) -> None:
        self.memory = MemoryLedger(clock=clock)
        super().__init__(self.memory)
        self.verbs: Counter[Verb] = Counter()
        self.down = False

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if self.down:
            raise LedgerUnavailable(detail="no route to host")
        self.verbs[verb] += 1
        return super().flow(verb, arguments)

    def money(self, scope: Scope = USER) -> tuple[int, int]:
        balance = self.memory.balances((scope,))[0]
        return balance.committed.cost, balance.reserved.cost


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shared(clock: FakeClock) -> Shared:
    return Shared(clock)


@pytest.fixture
def leased(shared: Shared, clock: FakeClock) -> LeasedLedger:
    return LeasedLedger(shared, clock=clock)


def authority(ledger: Any, clock: FakeClock, **options: Any) -> BudgetAuthority:
    options.setdefault("ceilings", {"user": Budget("$100")})
    return BudgetAuthority(ledger, pricing=PRICES, clock=clock, **options)


def run_of(ledger: Any, clock: FakeClock, budget: Budget | str = "$90", **options: Any) -> Session:
    budget = budget if isinstance(budget, Budget) else Budget(budget)
    return authority(ledger, clock, **options).session(budget, user="u1")


def refused_by(way: Way, run: Session) -> Any:
    error = way.authorize(run, call()).error
    return (error.dimension, error.scope) if isinstance(error, BudgetExceeded) else error


# Spending


def test_many_calls_take_few_round_trips_and_every_figure_is_as_without_leases(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock)
    shared.verbs.clear()
    for _ in range(39):
        way.pay(run, call())
    clock.advance(61)  # the shared counters are looked at again
    way.pay(run, call())
    held = way.reserve(run, call())
    assert shared.verbs.total() <= 12
    assert (run.spent_usd, run.reserved_usd, run.remaining_usd) == tuple(map(Decimal, ("4.0", "0.1", "85.9")))
    seen = leased.balances((run.scope, USER))  # what the gate looks at
    assert [(b.committed.cost, b.reserved.cost, b.open_holds) for b in seen] == [(40 * DIME, DIME, 1)] * 2
    assert authority(leased, clock).snapshot("user", "u1").spent_usd == 4
    assert authority(leased, clock).snapshot("user", "u1").reserved_usd == Decimal("0.1")
    way.commit(held, Usage())
    leased.settle()
    assert shared.money() == shared.money(run.scope) == (41 * DIME, 0)
    assert shared.memory.audit() == []


def test_what_is_leased_is_nobody_elses_and_what_is_given_back_is(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    limits = {"user": Budget("$1")}
    mine = run_of(leased, clock, ceilings=limits)
    other = run_of(shared, clock, ceilings=limits)
    way.pay(mine, call())
    assert sum(shared.money()) <= 10**9
    paid = 1
    while refused_by(way, other) is None:
        paid += 1
    assert sum(shared.money()) <= 10**9
    leased.settle()
    for reservation in [d.reservation for d in other.decisions() if d.reservation is not None]:
        way.commit(reservation, Usage())
    while paid < 10:
        way.pay(other, call())
        paid += 1
    assert refused_by(way, other) == ("max_cost_usd", "user:u1")
    assert shared.money() == (10**9, 0)


def test_the_last_cent_can_be_spent(way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock) -> None:
    run = run_of(leased, clock, "$1.00")
    for _ in range(10):
        way.pay(run, call())
    assert refused_by(way, run) == ("max_cost_usd", f"run:{run.id}")
    leased.settle()
    assert shared.money() == (10**9, 0)


@pytest.mark.parametrize("awaits", [False, True])
def test_closing_gives_back_what_is_leased(shared: Shared, clock: FakeClock, awaits: bool) -> None:
    leased = LeasedLedger(shared, clock=clock)
    Way(awaits).pay(run_of(leased, clock), call())
    asyncio.run(leased.aio.close()) if awaits else leased.close()
    assert shared.money() == (DIME, 0)


async def test_settling_can_be_awaited(shared: Shared, leased: LeasedLedger, clock: FakeClock) -> None:
    run = run_of(leased, clock)
    (await run.aauthorize(call())).require().commit(Usage())
    await leased.asettle()
    assert shared.money() == (DIME, 0)


def test_tools_money_spent_without_a_hold_and_released_calls_are_counted(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock, Budget("$1", max_tool_calls=3))
    way.commit_cost(way.reserve(run, ToolCall("search", DIME)), "$0.05")
    way.charge(run, "serp", "$0.30")
    way.release(way.reserve(run, call()))
    assert run.spent_usd == Decimal("0.35")
    way.commit_cost(way.reserve(run, ToolCall("search", DIME)), "$0.05")
    error = way.authorize(run, ToolCall("search", DIME)).error
    assert isinstance(error, BudgetExceeded) and error.dimension == "max_tool_calls"
    leased.settle()
    assert shared.money() == (400_000_000, 0)


@pytest.mark.parametrize("mode", ["soft_gate", "actuals_only", "advisory_estimate"])
def test_softer_modes_do_as_they_do_without_leases(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock, mode: Any
) -> None:
    budget = Budget("$0.25", mode=mode)
    actions: list[list[str]] = []
    for ledger in (MemoryLedger(clock=clock), leased):
        run = run_of(ledger, clock, budget)
        actions.append([])
        for _ in range(5):
            decision = way.authorize(run, call())
            actions[-1].append(decision.action)
            if decision.reservation is not None:
                way.commit(decision.reservation, Usage())
    assert actions[0] == actions[1]


def test_a_cheaper_model_takes_over_at_the_same_point(way: Way, leased: LeasedLedger, clock: FakeClock) -> None:
    budget = Budget("$1", downgrade={"dime": "penny"})
    names: list[list[str]] = []
    for ledger in (MemoryLedger(clock=clock), leased):
        run = run_of(ledger, clock, budget)
        names.append([])
        for _ in range(12):
            decision = way.authorize(run, call())
            names[-1].append(decision.name)
            way.commit(decision.require(), Usage(), model=decision.name)
    assert names[0] == names[1] and names[0].count("penny") == 4


# Settling


def test_an_estimate_replaced_after_its_lease_was_booked_is_put_right(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock)
    low, high = (way.reserve(run, call("large", tokens=100, cap=50)) for _ in range(2))
    for hold in (low, high):
        way.commit_estimate(hold)
    leased.settle()
    assert shared.money() == (1_200_000, 0)
    way.commit(low, Usage(input=10))
    assert shared.money() == (610_000, 0)
    way.commit(high, Usage(input=1_000))
    assert shared.money() == shared.money(run.scope) == (1_010_000, 0)
    assert run.spent_usd == Decimal("0.00101")


def test_a_lease_with_calls_in_flight_is_booked_with_their_estimates_until_they_end(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock)
    way.pay(run, call())
    first, second = (way.reserve(run, call()) for _ in range(2))
    leased.settle()
    assert shared.money() == (3 * DIME, 0)
    assert (run.spent_usd, authority(leased, clock).snapshot("user", "u1").spent_usd) == (
        Decimal("0.3"),
        Decimal("0.3"),
    )
    way.release(first)
    assert shared.money() == (3 * DIME, 0)
    way.commit(second, Usage())
    assert shared.money() == (2 * DIME, 0)


def test_an_overrun_is_told_to_the_others_at_once(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock, "$1")
    hold = way.reserve(run, call("large", tokens=100, cap=50))
    way.commit(hold, Usage(input=2_000_000))
    assert shared.money() == (2 * 10**9, 0)
    assert refused_by(way, run) == ("max_cost_usd", f"run:{run.id}")


def test_the_rules_of_ids_are_kept(leased: LeasedLedger) -> None:
    scopes, others = (Scope("run", "r1"), USER), (Scope("run", "r2"), USER)
    for scope in {*scopes, *others}:
        leased.set_limits(scope, Limits(cost=10**9))
    held, five, six = hold_id(0, "h"), Amounts(cost=5), Amounts(cost=6)
    for _ in range(2):
        assert isinstance(leased.reserve(held, scopes, five, five), Held)
    for elsewhere, other in ((scopes, six), (others, five)):
        with pytest.raises(ReservationConflict):
            leased.reserve(held, elsewhere, other, other)
    leased.forward(held)
    assert leased.extend(held, 60)
    with pytest.raises(ReservationConflict):
        leased.commit(held, others, five)
    for _ in range(2):
        assert leased.commit(held, scopes, Amounts(cost=4)).committed == Amounts(cost=4)
    with pytest.raises(ReservationConflict):
        leased.commit(held, scopes, five)
    assert leased.release(held, scopes) is False
    leased.commit(hold_id(0, "never heard of"), scopes, five)
    leased.settle()
    assert [b.committed.cost for b in leased.balances(scopes)] == [9, 9]


# What others do


def test_a_revocation_elsewhere_is_seen_at_the_next_heartbeat_and_here_at_once(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock)
    way.pay(run, call())
    elsewhere = authority(shared, clock)
    elsewhere.revoke("user", "u1", reason="compromised")
    clock.advance(61)
    error = refused_by(way, run)
    assert isinstance(error, BudgetRevoked) and error.reason == "compromised"
    elsewhere.restore("user", "u1")
    clock.advance(61)
    assert refused_by(way, run) is None
    authority(leased, clock).revoke("user", "u1", reason="again")
    assert isinstance(refused_by(way, run), BudgetRevoked)


def test_limits_that_are_raised_or_set_hold_at_once(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock, "$0.20")
    way.pay(run, call())
    way.pay(run, call())
    assert refused_by(way, run) == ("max_cost_usd", f"run:{run.id}")
    run.raise_limits(max_cost_usd="$5")
    way.pay(run, call())
    leased.settle()
    authority(leased, clock).set_ceiling("user", "u1", Budget("$0.40"))
    way.pay(run, call())
    assert refused_by(way, run) == ("max_cost_usd", "user:u1")


def test_a_new_window_begins_with_a_new_lease(way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock) -> None:
    run = run_of(leased, clock, ceilings={"user": Budget("$0.30", window="day")})
    for _ in range(3):
        way.pay(run, call())
    assert refused_by(way, run) == ("max_cost_usd", "user:u1")
    clock.advance(86_400)
    way.pay(run, call())
    leased.settle()
    assert (shared.money(), shared.money(run.scope)) == ((DIME, 0), (4 * DIME, 0))


def test_a_lease_ends_with_its_window_also_where_a_heartbeat_comes_first(
    way: Way, shared: Shared, clock: FakeClock
) -> None:
    leased = LeasedLedger(shared, clock=clock, heartbeat_s=5)
    run = run_of(leased, clock, ceilings={"user": Budget("$9", window="minute")})
    for _ in range(3):
        clock.advance(25)
        way.pay(run, call())
    leased.settle()
    assert (shared.money(), shared.money(run.scope)) == ((DIME, 0), (3 * DIME, 0))


def test_money_that_is_spent_already_passes_no_limit_by_what_others_have_leased(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    ceilings = {"user": Budget("$1")}
    way.pay(run_of(leased, clock, "$0.90", ceilings=ceilings), call())
    elsewhere = run_of(LeasedLedger(shared, clock=clock), clock, ceilings=ceilings)
    way.charge(elsewhere, "serp", "$0.85")
    with pytest.raises(BudgetExceeded, match="user:u1 is passed"):
        way.charge(elsewhere, "serp", "$0.20")


# Heartbeat, death, outage


def test_a_lease_in_use_lives_on_and_one_that_nobody_uses_is_given_back(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    busy, idle = run_of(leased, clock), run_of(leased, clock)
    way.pay(idle, call())
    for _ in range(30):
        clock.advance(50)
        way.pay(busy, call("penny"))
    shared.memory.sweep()
    assert shared.memory.suspended() == []
    assert shared.money(idle.scope) == (DIME, 0)
    assert shared.money(busy.scope)[1] > 0


def test_a_lease_is_given_back_by_a_sweep_where_no_call_comes_any_more(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock)
    way.pay(run, call())
    leased.sweep()
    assert shared.money()[1] > 0
    for _ in range(2):
        clock.advance(60)
        leased.sweep()
    assert shared.money() == (DIME, 0)
    way.pay(run, call())
    leased.settle()
    assert shared.money() == (2 * DIME, 0)


def test_a_lease_that_is_taken_right_after_a_heartbeat_is_not_forgotten(
    way: Way, shared: Shared, clock: FakeClock
) -> None:
    leased = LeasedLedger(shared, clock=clock, heartbeat_s=1)
    run = run_of(leased, clock)
    for _ in range(3):
        clock.advance(2)
        way.pay(run, call())
    leased.settle()
    assert shared.money() == (3 * DIME, 0)


def test_a_process_that_died_leaves_its_lease_suspended_and_counted(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    way.pay(run_of(leased, clock), call())
    leased_out = shared.money()[1]
    assert leased_out > 0
    clock.advance(601)
    shared.memory.sweep()
    assert [hold.amounts.cost for hold in shared.memory.suspended()] == [leased_out]
    reconcile(shared, "estimate")
    assert shared.money() == (leased_out, 0)


def test_a_process_that_slept_goes_on_with_its_lease_or_a_new_one(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock)
    way.pay(run, call())
    clock.advance(601)
    shared.memory.sweep()
    way.pay(run, call())  # it is not dead
    assert shared.memory.suspended() == []
    clock.advance(601)
    reconcile(shared, "estimate")
    way.pay(run, call())
    leased.settle()
    assert shared.money() == (3 * DIME, 0)
    assert shared.memory.audit() == []


def test_an_outage_is_not_noticed_as_long_as_the_lease_lasts(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(leased, clock)
    way.pay(run, call())
    shared.down = True
    for _ in range(5):
        clock.advance(100)
        way.pay(run, call())
    assert "could not be looked after" in caplog.text
    clock.advance(200)
    assert isinstance(refused_by(way, run), LedgerUnavailable)
    shared.down = False
    way.pay(run, call())
    shared.down = True
    with caplog.at_level(logging.ERROR):
        leased.settle()
    shared.down = False
    way.authorize(run, call())
    assert shared.money()[0] == 7 * DIME


def test_live_runs_and_child_sessions_are_the_shared_ledgers(
    way: Way, shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    ours = authority(leased, clock, max_live_runs={"user": 1})
    parent = ours.session(Budget("$1"), user="u1")
    with pytest.raises(BudgetExceeded, match="max_live_runs"):
        authority(shared, clock, max_live_runs={"user": 1}).session(Budget("$1"), user="u1")
    with parent.child(Budget("$0.50")) as child:
        assert shared.money(parent.scope) == (0, 5 * DIME)
        way.pay(child, call())
        clock.advance(30)
        assert refused_by(way, child) is None
        way.release(child.decisions()[-1].require())
    assert shared.money(parent.scope) == (DIME, 0)
    assert parent.report().by_child[child.id].total == Decimal("0.10")


def test_who_waits_for_room_gets_what_others_give_back(shared: Shared, leased: LeasedLedger, clock: FakeClock) -> None:
    options: dict[str, Any] = {"ceilings": {"user": Budget("$0.10")}}
    one = run_of(leased, clock, **options)
    other = run_of(leased, clock, Budget("$5", max_wait_s=60), **options)
    hold = apart(one.authorize, call()).require()
    await_room = shared.memory.await_room

    def meanwhile(version: int, timeout: float) -> bool:
        hold.release("refused connection")
        return await_room(version, timeout)

    shared.memory.await_room = meanwhile  # type: ignore[method-assign]
    assert other.authorize(call()).action == "allow"
    assert clock.monotonic() == 0  # at once, not when its time was up


# Many at once


def test_threads_never_pass_the_ceiling_and_lose_nothing(
    shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    ours = authority(leased, clock, ceilings={"user": Budget("$2")})
    paid: list[int] = []
    start = threading.Barrier(6)

    def work(n: int) -> None:
        run = ours.session(Budget("$5"), f"r{n % 3}", user="u1")
        start.wait()
        for i in range(40):
            decision = run.authorize(call("penny" if i % 2 else "dime"))
            if decision.reservation is None:
                continue
            decision.reservation.forward()
            if i % 7 == 0:
                decision.reservation.release("refused connection")
            else:
                paid.append(decision.reservation.commit(Usage(), model=decision.name))
            committed, reserved = shared.money()
            assert committed + reserved <= 2 * 10**9

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leased.settle()
    assert shared.money() == (sum(paid), 0)
    assert 0 < sum(paid) <= 2 * 10**9
    assert shared.memory.audit() == []


async def test_tasks_that_are_cancelled_anywhere_lose_nothing(
    shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    ours = authority(leased, clock, ceilings={"user": Budget("$2")})
    run = await ours.asession(Budget("$5"), user="u1")
    paid: list[int] = []

    async def work(i: int) -> None:
        decision = await run.aauthorize(call())
        if decision.reservation is not None:
            try:
                await decision.reservation.aforward()
                await asyncio.sleep(0)
                paid.append(await decision.reservation.acommit(Usage()))
            except asyncio.CancelledError:
                paid.append(decision.reservation.commit(Usage()))
                raise

    tasks = [asyncio.create_task(work(i)) for i in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await leased.asettle()
    assert shared.money() == (sum(paid), 0) and len(paid) <= 20
    assert shared.memory.audit() == []


@pytest.mark.parametrize(("workers", "processes", "usd"), [(8, 8, 20), (8, 1, 20), (64, 64, 150)])
def test_a_fleet_asks_seldom_and_never_overshoots(workers: int, processes: int, usd: int) -> None:
    """Calls of lognormal cost, estimated 1.2 to 8 times too high, until everybody is refused."""
    chance, clock = random.Random(7), FakeClock()
    shared = Shared(clock)
    shared.memory.set_limits(USER, Limits(cost=usd * 10**9))
    ledgers = [LeasedLedger(shared, clock=clock) for _ in range(processes)]
    scopes = [(Scope("run", str(worker)), USER) for worker in range(workers)]
    for pair in scopes:
        shared.memory.set_limits(pair[0], Limits())
    due = [(chance.random(), worker, "", 0) for worker in range(workers)]
    heapq.heapify(due)
    calls = spent = 0
    first_refusal: float | None = None
    while due:
        at, worker, held, cost = heapq.heappop(due)
        clock.advance(max(0.0, at - clock.monotonic()))
        ledger, own = ledgers[worker % processes], scopes[worker]
        if held:
            ledger.commit(held, own, Amounts(cost, requests=1))
            calls, spent = calls + 1, spent + cost
        cost = int(chance.lognormvariate(math.log(8e6), 0.9))
        bound = Amounts(int(cost * chance.uniform(1.2, 8)), requests=1)
        held = hold_id(clock.now_ms(), f"{worker}-{calls}")
        ledger.balances(own)
        outcome = ledger.reserve(held, own, bound, bound)
        assert sum(shared.money()) <= usd * 10**9
        if isinstance(outcome, Held):
            ledger.forward(held)
            heapq.heappush(due, (at + chance.expovariate(0.5), worker, held, cost))
        else:
            first_refusal = first_refusal or spent / (usd * 10**9)
    for ledger in ledgers:
        ledger.settle()
    assert shared.money() == (spent, 0)
    assert shared.memory.audit() == []
    assert shared.verbs.total() / calls < 0.15
    assert first_refusal is not None and first_refusal > 0.75


@pytest.mark.parametrize("times", [{"heartbeat_s": 0}, {"heartbeat_s": 300}, {"lease_ttl_s": float("nan")}])
def test_times_that_make_no_sense_are_refused(times: dict[str, float]) -> None:
    options: dict[str, Any] = {**times}
    with pytest.raises(ValueError, match="heartbeat_s="):
        LeasedLedger(MemoryLedger(), **options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:a budget in memory:RuntimeWarning")
def test_a_forked_process_takes_leases_of_its_own(shared: Shared, leased: LeasedLedger, clock: FakeClock) -> None:
    run = run_of(leased, clock)
    Way(False).pay(run, call())
    shared.verbs.clear()
    child = os.fork()
    if child == 0:
        Way(False).pay(run, call())
        os._exit(0 if shared.verbs["reserve"] == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    Way(False).pay(run, call())
    assert shared.verbs["reserve"] == 0


@pytest.mark.parametrize("lost", [False, True], ids=["before it is taken", "after it is taken"])
async def test_a_lease_whose_taking_is_cancelled_is_given_back(
    shared: Shared, leased: LeasedLedger, clock: FakeClock, lost: bool
) -> None:
    run = await authority(leased, clock, ceilings={"user": Budget("$2")}).asession(Budget("$5"), user="u1")
    flow = shared.flow

    def cancelled(verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if verb == "reserve":
            if lost:
                yield verb, arguments
            raise asyncio.CancelledError
        return (yield from flow(verb, arguments))

    shared.flow = cancelled  # type: ignore[method-assign]  # on purpose
    with pytest.raises(asyncio.CancelledError):
        await run.aauthorize(call())
    shared.flow = flow  # type: ignore[method-assign]
    assert shared.money() == (0, 0)
    paid = [await hold.acommit(Usage()) for _ in range(20) if (hold := (await run.aauthorize(call())).reservation)]
    await leased.asettle()
    assert shared.money() == (sum(paid), 0) and len(paid) == 20
    assert shared.memory.audit() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:a budget in memory:RuntimeWarning")
def test_a_forked_process_that_forks_again_takes_leases_of_its_own(
    shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    run = run_of(leased, clock)
    Way(False).pay(run, call())
    child = os.fork()
    if child == 0:
        Way(False).pay(run, call())
        shared.verbs.clear()
        grandchild = os.fork()
        if grandchild == 0:
            Way(False).pay(run, call())
            os._exit(0 if shared.verbs["reserve"] == 1 else 1)
        _, status = os.waitpid(grandchild, 0)
        Way(False).pay(run, call())
        os._exit(0 if status == 0 and shared.verbs["reserve"] == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("left", "holders", "leased"),
    [
        (10_000, 1, 130 + 48 * 10),  # there is enough for everybody
        (400, 1, 400),  # all of it for one alone
        (400, 2, 200),  # half of what is left
        (180, 3, 130),  # what the call takes, at least
    ],
)
def test_a_lease_is_what_many_calls_take_and_no_more_than_a_fair_part(left: int, holders: int, leased: int) -> None:
    run = RunLeases((Scope("run", "r"),))
    run.limited, run.left, run.holders = (0,), Limits(cost=left), holders
    run.spent = Amounts(cost=100, requests=10)
    assert run.share(Amounts(cost=130, requests=1)).cost == leased
    run.take(Amounts(cost=30))
    assert run.left.cost == left - 30


def test_a_hold_with_a_time_of_its_own_is_the_shared_ledgers_to_extend(
    shared: Shared, leased: LeasedLedger, clock: FakeClock
) -> None:
    leased.set_limits(USER, Limits(cost=100))
    own = hold_id(clock.now_ms(), "own")
    assert leased.reserve(own, (USER,), Amounts(cost=5), None, 10) == HELD
    clock.advance(9)
    assert leased.extend(own, 10) is True
    clock.advance(9)
    shared.memory.sweep()
    assert shared.money() == (0, 5)
    leased.release(own, (USER,))
    assert leased.extend(own, 10) is False
