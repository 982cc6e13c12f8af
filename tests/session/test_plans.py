"""Several windows of a kind, and plans: all of them hold at once, are kept in the ledger, and change in the middle."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("redis")

from budget_guard import Budget, BudgetAuthority, BudgetExceeded, MemoryLedger, ModelCall, Session, Usage, open_ledger
from budget_guard.ledger import Ledger
from budget_guard.ledger.leased import LeasedLedger
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.testing import FakeClock
from tests.builders import PRICES, Way, call
from tests.ledger.redis_server import BINARY, RedisServer, needs_redis_server
from tests.ledger.test_redis import TimedRedisLedger

RUN = Budget("$5", max_wait_s=0)
DAY, MONTH = Budget("$0.30", window="day"), Budget("$0.50", window="month")
PLANS: Mapping[str, Mapping[str, Budget | Sequence[Budget]]] = {
    "free": {"user": Budget("$0.20", window="day")},
    "pro": {"user": [Budget("$1", window="day"), MONTH]},
}
JAN_2 = datetime(2025, 1, 2, tzinfo=timezone.utc)
FEB_1 = datetime(2025, 2, 1, tzinfo=timezone.utc)

Reopen = Callable[[], Ledger]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "redis", "leased"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Reopen]:
    """Opens the same counters again, as another process would."""
    opened: list[Ledger] = []
    server: RedisServer | None = None
    if request.param == "memory":
        one = MemoryLedger(clock=clock)
        yield lambda: one
        return
    if request.param == "redis":
        if BINARY is None:
            pytest.skip("no redis-server or valkey-server is installed")
        server = RedisServer(tmp_path / "redis").start()

    def again() -> Ledger:
        if server is not None:
            made: Ledger = TimedRedisLedger(server.url, clock, tenant="acme")
        else:
            made = SqliteLedger(tmp_path / "budget.db", clock=clock)
            if request.param == "leased":
                made = LeasedLedger(made, clock=clock)
        opened.append(made)
        return made

    yield again
    for each in opened:
        each.close()
    if server is not None:
        server.kill()


def authority(ledger: Ledger, clock: FakeClock, **options: Any) -> BudgetAuthority:
    return BudgetAuthority(ledger, pricing=PRICES, clock=clock, **options)


def stop_of(way: Way, session: Session) -> BudgetExceeded:
    error = way.authorize(session, call()).error
    assert isinstance(error, BudgetExceeded)
    return error


def pay(way: Way, session: Session, dimes: int) -> None:
    for _ in range(dimes):
        way.pay(session, call())


# Several windows


def test_every_window_of_a_kind_holds_and_the_one_that_binds_is_told(
    way: Way, reopen: Reopen, clock: FakeClock
) -> None:
    ours = authority(reopen(), clock, ceilings={"user": [DAY, MONTH]})
    session = ours.session(RUN, user="u1")
    pay(way, session, 3)
    stop = stop_of(way, session)
    assert (stop.scope, stop.limit, stop.resets_at) == ("user:u1", Decimal("0.30"), JAN_2)
    assert "begins anew at 2025-01-02 00:00 UTC" in str(stop)
    assert stop.retry_after_s == pytest.approx(86_400)
    clock.advance(86_400)
    pay(way, session, 2)
    stop = stop_of(way, session)
    assert (stop.scope, stop.limit, stop.resets_at) == ("user:u1", Decimal("0.50"), FEB_1)
    clock.advance(30 * 86_400)
    pay(way, session, 3)


def test_where_two_windows_bind_the_one_that_ends_last_is_told(way: Way, reopen: Reopen, clock: FakeClock) -> None:
    both = [Budget("$0.10", window="minute"), Budget("$0.10", window="month"), Budget("$0.10", window="week")]
    session = authority(reopen(), clock, ceilings={"user": both}).session(RUN, user="u1")
    pay(way, session, 1)
    assert stop_of(way, session).resets_at == FEB_1


def test_windows_of_different_limits_hold_beside_each_other(way: Way, reopen: Reopen, clock: FakeClock) -> None:
    windows = [Budget(max_requests=2, window="hour"), Budget("$9", window="week"), Budget(max_requests=3)]
    session = authority(reopen(), clock, ceilings={"user": windows}).session(RUN, user="u1")
    pay(way, session, 2)
    stop = stop_of(way, session)
    assert (stop.dimension, stop.limit) == ("max_requests", 2)
    clock.advance(3_600)
    pay(way, session, 1)
    stop = stop_of(way, session)
    assert (stop.limit, stop.resets_at) == (3, None)


def test_a_snapshot_tells_of_the_tightest_window_and_has_all_of_them(
    way: Way, reopen: Reopen, clock: FakeClock
) -> None:
    ours = authority(reopen(), clock, ceilings={"user": [DAY, MONTH.replace(max_requests=7)]})
    before = ours.snapshot("user", "u1")
    assert (before.remaining_usd, before.window) == (Decimal("0.30"), "day")
    session = ours.session(RUN, user="u1")
    pay(way, session, 2)
    seen = ours.snapshot("user", "u1")
    assert (seen.kind, seen.id, seen.window, seen.spent_usd, seen.remaining_usd, seen.resets_at) == (
        *("user", "u1", "day", Decimal("0.20"), Decimal("0.10"), JAN_2),
    )
    assert seen.remaining == {"max_cost_usd": Decimal("0.10"), "max_requests": 5}
    assert [(each.window, each.remaining_usd, each.resets_at) for each in seen.windows] == [
        ("month", Decimal("0.30"), FEB_1),
        ("day", Decimal("0.10"), JAN_2),
    ]
    clock.advance(86_400)
    pay(way, session, 2)
    seen = ours.snapshot("user", "u1")
    assert (seen.window, seen.spent_usd, seen.remaining_usd) == ("month", Decimal("0.40"), Decimal("0.10"))
    clock.advance(86_400)
    assert ours.snapshot("user", "u1").remaining == {"max_cost_usd": Decimal("0.10"), "max_requests": 3}


def test_a_revocation_holds_in_every_window_and_is_told_in_each(way: Way, reopen: Reopen, clock: FakeClock) -> None:
    ours = authority(reopen(), clock, ceilings={"user": [DAY, MONTH]})
    session = ours.session(RUN, user="u1")
    ours.revoke("user", "u1", reason="leaked")
    assert way.authorize(session, call()).action == "block"
    assert all(each.revoked and each.revoked_reason == "leaked" for each in ours.snapshot("user", "u1").windows)
    clock.advance(40 * 86_400)
    assert way.authorize(session, call()).action == "block"
    ours.restore("user", "u1")
    pay(way, session, 1)


def test_an_exception_has_windows_too_and_reaches_open_sessions(way: Way, reopen: Reopen, clock: FakeClock) -> None:
    ceilings = {"user": [DAY, MONTH]}
    session = authority(reopen(), clock, ceilings=ceilings).session(RUN, user="u1")
    other = authority(reopen(), clock, ceilings=ceilings)
    pay(way, session, 3)
    other.set_ceiling("user", "u1", [Budget("$0.40", window="day"), Budget("$9", window="month")])
    if isinstance(session.ledger, LeasedLedger):
        clock.advance(61)  # leases look once a heartbeat
    pay(way, session, 1)
    assert stop_of(way, session).limit == Decimal("0.40")
    other.set_ceiling("user", "u1", Budget("$0.60", window="month"))  # no limit a day
    if isinstance(session.ledger, LeasedLedger):
        clock.advance(61)
    pay(way, session, 2)
    assert stop_of(way, session).resets_at == FEB_1
    again = authority(reopen(), clock, ceilings=ceilings)
    again.session(RUN, user="u1")  # does not put the kind's own back
    assert again.snapshot("user", "u1").limits == {"max_cost_usd": Decimal("0.60")}
    other.set_ceiling("user", "u1", None)
    assert [each.limits["max_cost_usd"] for each in again.snapshot("user", "u1").windows] == [
        Decimal("0.50"),
        Decimal("0.30"),
    ]


def test_an_exception_in_a_window_that_nobody_counts_is_refused(clock: FakeClock) -> None:
    ours = authority(MemoryLedger(clock=clock), clock, ceilings={"user": [DAY, MONTH], "team": DAY})
    with pytest.raises(ValueError, match=r"window='week' is none in which each user.*'month', 'day'.*name it in"):
        ours.set_ceiling("user", "u1", Budget("$1", window="week"))
    with pytest.raises(ValueError, match="window='month' is none in which each team"):
        ours.set_ceiling("team", "t1", [DAY, MONTH])
    ours.set_ceiling("team", "t1", MONTH)  # one alone takes the place of the one there is
    assert ours.snapshot("team", "t1").window == "month"


def test_all_windows_take_a_call_or_none_does_at_any_number_of_threads(reopen: Reopen, clock: FakeClock) -> None:
    ours = authority(reopen(), clock, ceilings={"user": [Budget("$9", window="day"), MONTH], "team": [DAY, MONTH]})
    sessions = [ours.session(RUN, user="u1", team=f"t{i % 2}") for i in range(4)]
    admitted: list[int] = []

    def work(i: int) -> None:
        for _ in range(4):
            decision = sessions[i].authorize(call(), may_wait=False)
            if decision.reservation is not None:
                decision.reservation.commit_estimate("booked as held")
                admitted.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if isinstance(ours.ledger, LeasedLedger):
        ours.ledger.settle()
        assert len(admitted) <= 5
    else:
        assert len(admitted) == 5
    spent = ours.snapshot("user", "u1")
    assert spent.spent_usd == Decimal(len(admitted)) / 10
    assert len({each.spent_usd for each in spent.windows}) == 1
    assert sum(ours.snapshot("team", team).spent_usd for team in ("t0", "t1")) == spent.spent_usd
    assert ours.ledger.audit() == []


@needs_redis_server
def test_a_call_under_several_windows_and_a_plan_takes_two_round_trips(tmp_path: Path, clock: FakeClock) -> None:
    server = RedisServer(tmp_path / "redis").start()
    client = server.client()

    def reads() -> int:
        return int(client.info("stats")["total_reads_processed"])

    try:
        ledger = TimedRedisLedger(server.url, clock)
        ours = authority(ledger, clock, plans=PLANS, ceilings={"team": [DAY, MONTH]})
        ours.assign("user", "u1", "pro")
        with ours.session(RUN, user="u1", team="t") as session:
            session.authorize(call("penny"), sent=True).require().commit(Usage())
            before = reads()
            for _ in range(5):
                session.authorize(call("penny"), sent=True).require().commit(Usage())
            assert reads() - before - 1 == 2 * 5  # one is the look itself
        ledger.close()
    finally:
        client.close()
        server.kill()


def test_the_ceiling_of_an_agent_that_a_client_brings_has_windows(way: Way, clock: FakeClock) -> None:
    ours = authority(MemoryLedger(clock=clock), clock, ceilings={"agent": [DAY, MONTH]}, require=())
    session = ours.session(RUN)
    session.add_agent("research-42")
    asked = call()
    assert isinstance(asked, ModelCall)
    for _ in range(3):
        way.pay(session, asked._replace(agent="research-42"))
    error = way.authorize(session, asked._replace(agent="research-42")).error
    assert isinstance(error, BudgetExceeded)
    assert (error.scope, error.resets_at) == ("agent:research-42", JAN_2)
    assert [each.spent_usd for each in ours.snapshot("agent", "research-42").windows] == [Decimal("0.30")] * 2


def test_a_child_session_holds_its_part_in_every_window(way: Way, reopen: Reopen, clock: FakeClock) -> None:
    ours = authority(reopen(), clock, ceilings={"user": [DAY, MONTH]})
    parent = ours.session(RUN, user="u1")
    with parent.child(Budget("$0.20")) as child:
        assert [each.reserved_usd for each in ours.snapshot("user", "u1").windows] == [Decimal("0.20")] * 2
        pay(way, child, 1)
    assert [each.spent_usd for each in ours.snapshot("user", "u1").windows] == [Decimal("0.10")] * 2
    with pytest.raises(BudgetExceeded) as caught:
        parent.child(Budget("$0.30"))
    assert (caught.value.scope, caught.value.resets_at) == ("user:u1", JAN_2)


def test_a_soft_limit_is_told_of_for_each_window(way: Way, clock: FakeClock) -> None:
    session = authority(MemoryLedger(clock=clock), clock, ceilings={"user": [DAY, MONTH]}).session(RUN, user="u1")
    heard: list[str] = []
    session.subscribe(lambda event: heard.append(getattr(event, "scope", "")))
    pay(way, session, 3)
    clock.advance(86_400)
    pay(way, session, 2)
    assert [each for each in heard if each.startswith("user")] == ["user@day:u1", "user:u1"]


def test_decisions_name_each_principal_once(way: Way, clock: FakeClock) -> None:
    ours = authority(MemoryLedger(clock=clock), clock, ceilings={"user": [DAY, MONTH]})
    session = ours.session(RUN, "r1", user="u1")
    pay(way, session, 1)
    assert [each.scopes for each in ours.decisions("user", "u1")] == [("run:r1", "user:u1")]


# Plans


def test_a_plan_is_kept_in_the_ledger_and_holds_in_every_process(way: Way, reopen: Reopen, clock: FakeClock) -> None:
    first = authority(reopen(), clock, plans=PLANS)
    first.assign("user", "u1", "free")
    again = authority(reopen(), clock, plans=PLANS)
    session = again.session(RUN, user="u1")
    pay(way, session, 2)
    stop = stop_of(way, session)
    assert (stop.scope, stop.limit, stop.resets_at) == ("user:u1", Decimal("0.20"), JAN_2)
    assert (again.snapshot("user", "u1").plan, again.snapshot("user", "u2").plan) == ("free", None)


def test_a_plan_that_changes_in_the_middle_keeps_what_is_spent_in_every_window(
    way: Way, reopen: Reopen, clock: FakeClock
) -> None:
    here, there = (authority(reopen(), clock, plans=PLANS) for _ in range(2))
    here.assign("user", "u1", "free")
    session = here.session(RUN, user="u1")
    pay(way, session, 2)
    assert stop_of(way, session).limit == Decimal("0.20")
    there.assign("user", "u1", "pro")  # by another process, while the session is open
    if isinstance(session.ledger, LeasedLedger):
        clock.advance(61)
    pay(way, session, 3)
    stop = stop_of(way, session)
    assert (stop.limit, stop.actual, stop.resets_at) == (Decimal("0.50"), Decimal("0.50"), FEB_1)
    assert [each.spent_usd for each in there.snapshot("user", "u1").windows] == [Decimal("0.50")] * 2
    there.assign("user", "u1", "free")
    seen = there.snapshot("user", "u1")
    assert (seen.spent_usd, seen.remaining_usd, seen.window) == (Decimal("0.50"), Decimal("-0.30"), "day")
    clock.advance(86_400)
    pay(way, session, 2)
    there.assign("user", "u1", "pro")  # the month has not forgotten what the plan without one was spent under
    assert there.snapshot("user", "u1").remaining_usd == Decimal("-0.20")


def test_what_is_held_while_a_plan_changes_stays_held(way: Way, reopen: Reopen, clock: FakeClock) -> None:
    ours = authority(reopen(), clock, plans=PLANS)
    ours.assign("user", "u1", "pro")
    session = ours.session(RUN, user="u1")
    held = [way.reserve(session, call()) for _ in range(3)]
    ours.assign("user", "u1", "free")
    if isinstance(session.ledger, LeasedLedger):
        clock.advance(61)
    assert stop_of(way, session).limit == Decimal("0.20")
    for each in held:
        way.commit(each, None)
    if isinstance(ours.ledger, LeasedLedger):
        ours.ledger.settle()
    assert ours.snapshot("user", "u1").spent_usd == Decimal("0.30")
    assert ours.ledger.audit() == []


@pytest.mark.parametrize(("before", "after"), [("pro", "free"), ("free", "pro")])
def test_between_the_steps_of_a_change_no_more_is_allowed_than_by_either_plan(
    clock: FakeClock, before: str, after: str
) -> None:
    steps: list[dict[str, Decimal | None]] = []

    class Watched(MemoryLedger):
        def set_limits(self, scope: Any, *args: Any) -> None:
            super().set_limits(scope, *args)
            if scope.kind.startswith("user"):
                windows = {each.window: each.limits.get("max_cost_usd") for each in ours.snapshot("user", "u1").windows}
                steps.append({"day": None, "month": None, **windows})  # type: ignore[dict-item]  # dollars

    ours = authority(Watched(clock=clock), clock, plans=PLANS)
    ours.assign("user", "u1", before)
    steps.clear()
    ours.assign("user", "u1", after)
    first, last = steps
    assert last == (
        {"day": Decimal("0.20"), "month": None} if after == "free" else {"day": 1, "month": Decimal("0.50")}
    )
    assert first == {"day": Decimal("0.20"), "month": Decimal("0.50")}


def test_an_exception_wins_over_a_plan_and_a_plan_over_the_default(clock: FakeClock) -> None:
    ours = authority(MemoryLedger(clock=clock), clock, plans=PLANS, ceilings={"user": Budget("$0.05", window="day")})

    def limits() -> list[Any]:
        return [each.limits["max_cost_usd"] for each in ours.snapshot("user", "u1").windows]

    assert limits() == [Decimal("0.05")]
    ours.assign("user", "u1", "pro")
    assert limits() == [Decimal("0.50"), Decimal(1)]
    ours.set_ceiling("user", "u1", Budget("$7", window="day"))
    assert limits() == [Decimal(7)]
    ours.assign("user", "u1", "free")
    assert limits() == [Decimal(7)]
    ours.set_ceiling("user", "u1", None)
    assert limits() == [Decimal("0.20")]
    ours.assign("user", "u1", None)
    assert limits() == [Decimal("0.05")]
    assert ours.snapshot("user", "u1").plan is None


def test_what_a_plan_allows_may_change_with_the_next_deployment(reopen: Reopen, clock: FakeClock) -> None:
    authority(reopen(), clock, plans=PLANS).assign("user", "u1", "free")
    later = authority(reopen(), clock, plans={"free": {"user": Budget("$0.70", window="day")}})
    later.session(RUN, user="u1")
    assert later.snapshot("user", "u1").limits == {"max_cost_usd": Decimal("0.70")}


def test_a_principal_without_a_plan_is_refused_where_nothing_else_limits_it(clock: FakeClock) -> None:
    ours = authority(MemoryLedger(clock=clock), clock, plans=PLANS)
    with pytest.raises(ValueError, match=r"user:u2 has no plan.*assign\(\.\.\.\).*ceilings=\{'user'.*require=\(\)"):
        ours.session(RUN, user="u2")
    with pytest.raises(ValueError, match="none of the ceilings"):
        ours.session(RUN)
    authority(MemoryLedger(clock=clock), clock, plans=PLANS, ceilings={"team": DAY}).session(RUN, user="u2", team="t")
    authority(MemoryLedger(clock=clock), clock, plans=PLANS, require=()).session(RUN, user="u2")
    ours.set_ceiling("user", "u2", DAY)
    ours.session(RUN, user="u2")


_ASSIGNS = """
import os, signal, sys
from budget_guard import Budget, BudgetAuthority, open_ledger
from tests.session.test_plans import PLANS
authority = BudgetAuthority(open_ledger(sys.argv[1]), plans=PLANS)
authority.assign("user", "u1", "pro")
authority.session(Budget("$5"), user="u1").charge("search", "0.10")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_plan_outlives_the_process_that_gave_it(url: str) -> None:
    command = [sys.executable, "-c", _ASSIGNS, url]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == -signal.SIGKILL
    ours = BudgetAuthority(open_ledger(url), plans=PLANS)
    with ours.session(RUN, user="u1") as session:
        session.charge("search", "0.10")
        seen = ours.snapshot("user", "u1")
        assert (seen.plan, [each.spent_usd for each in seen.windows]) == ("pro", [Decimal("0.20")] * 2)
    ours.ledger.close()


def test_a_plan_or_a_kind_that_is_not_known_is_refused_with_the_known_ones(reopen: Reopen, clock: FakeClock) -> None:
    ours = authority(reopen(), clock, plans=PLANS, kinds=("org",))
    with pytest.raises(ValueError, match=r"plan='gold' for user:u1 is not known: the plans are 'free', 'pro'"):
        ours.assign("user", "u1", "gold")
    with pytest.raises(ValueError, match=r"plan='pro' says nothing of org:o1: it has ceilings for 'user'"):
        ours.assign("org", "o1", "pro")
    with pytest.raises(ValueError, match=r"the kind 'tenant' is not known.*'user', 'key', 'team', 'agent', 'org'"):
        ours.assign("tenant", "u1", "pro")
    odd: Any = ["free"]
    with pytest.raises(ValueError, match=r"plan=\['free'\] for user:u1 is not known"):
        ours.assign("user", "u1", odd)
    with pytest.raises(ValueError, match="id='' is no name"):
        ours.assign("user", "", "pro")
    assert ours.snapshot("user", "u1").plan is None
    ours.assign("user", "u1", "pro")
    later = authority(reopen(), clock, plans={"free": PLANS["free"]})
    with pytest.raises(ValueError, match=r"plan='pro' for user:u1 is not known: the plans are 'free'"):
        later.session(RUN, user="u1")
    later.assign("user", "u1", "free")
    later.session(RUN, user="u1")


def test_plans_can_be_assigned_and_asked_for_without_blocking(reopen: Reopen, clock: FakeClock) -> None:
    ours = authority(reopen(), clock, plans=PLANS)

    async def operate() -> tuple[str | None, Decimal]:
        await ours.aassign("user", "u1", "pro")
        session = await ours.asession(RUN, user="u1")
        decision = await session.aauthorize(call())
        await decision.require().acommit_estimate("booked as held")
        seen = await ours.asnapshot("user", "u1")
        await session.aclose()
        return seen.plan, seen.spent_usd + seen.reserved_usd

    plan, spent = asyncio.run(operate())
    assert (plan, spent > 0) == ("pro", True)


def test_a_plan_that_is_assigned_while_a_session_is_opened_is_not_overwritten(clock: FakeClock) -> None:
    class Meddled(MemoryLedger):
        before: Callable[[], None] | None = None

        def set_limits(self, scope: Any, *args: Any) -> None:
            if scope.kind.startswith("user") and self.before is not None:
                before, self.before = self.before, None
                before()
            super().set_limits(scope, *args)

    ledger = Meddled(clock=clock)
    options: dict[str, Any] = {"plans": PLANS, "ceilings": {"user": DAY}}
    ledger.before = lambda: authority(ledger, clock, **options).assign("user", "u1", "pro")
    ours = authority(ledger, clock, **options)
    ours.session(RUN, user="u1")
    assert [each.limits["max_cost_usd"] for each in ours.snapshot("user", "u1").windows] == [
        Decimal("0.50"),
        Decimal(1),
    ]


def test_a_plan_that_is_not_known_changes_nothing_of_a_user(clock: FakeClock) -> None:
    ours = BudgetAuthority(MemoryLedger(clock=clock), plans=PLANS, pricing=PRICES, clock=clock)
    ours.assign("user", "u1", "free")
    with pytest.raises(ValueError, match="gold"):
        ours.assign("user", "u1", "gold")
    assert ours.snapshot("user", "u1").plan == "free"
    assert ours.session(RUN, user="u1").least_remaining_usd() == Decimal("0.20")
