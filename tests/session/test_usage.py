"""What was spent on what: usage, top, list and past windows of an authority, and reports of runs that are shared."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("redis")

from budget_guard import Budget, BudgetAuthority, Ledger, MemoryLedger, Session, Usage
from budget_guard.ledger.history import Kept, Labels, UsageLine
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.leased.ledger import LeasedLedger
from budget_guard.ledger.outbox import replay
from budget_guard.ledger.outbox.store import Outbox, new_entry
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts
from budget_guard.units.scope import Scope
from tests.builders import PRICES, ZERO, call
from tests.ledger.redis_server import RedisServer, needs_redis_server
from tests.session import platform

NOON = datetime(2025, 1, 30, 12, tzinfo=timezone.utc)
LARGE = Usage(input=100, output=10, cache_read=40, reasoning=2)
"""$0.00026 on the model "large"."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Generator[Ledger, None, None]:
    """A ledger in the time of *clock*. The contract says that Redis does the same; `platform` tries it."""
    made: Ledger = MemoryLedger(clock=clock)
    if request.param == "sqlite":
        made = SqliteLedger(tmp_path / "budget.db", clock=clock, durable=False)
    yield made
    assert list(made.audit()) == []
    made.close()


@pytest.fixture
def authority(ledger: Ledger, clock: FakeClock) -> BudgetAuthority:
    return BudgetAuthority(
        ledger,
        {"user": [Budget("$20", window="day"), Budget("$300", window="month")]},
        clock=clock,
        pricing=PRICES,
        kinds=("org",),
    )


def opened(authority: BudgetAuthority, user: str = "u1", **named: Any) -> Session:
    return authority.session(Budget("$5", task="summarise", max_wait_s=0), user=user, **named)


def spend(session: Session, model: str = "large", usage: Usage = LARGE, agent: str | None = None) -> None:
    session.authorize(call(model, tokens=1_000, cap=100, agent=agent)).require().commit(usage)


def test_usage_tells_what_was_spent_on_what(authority: BudgetAuthority) -> None:
    session = opened(authority, feature="search", org="acme")
    spend(session, agent="Researcher")
    spend(session, "small", agent="Writer")
    session.charge("serp", "0.03", agent="Researcher")
    rows = authority.usage("user", "u1", by=("day", "model", "tool"))
    assert [(row.day, row.model, row.tool, row.cost_usd) for row in rows] == [
        (NOON.date(), None, "serp", Decimal("0.03")),
        (NOON.date(), "large", None, Decimal("0.00026")),
        (NOON.date(), "small", None, Decimal("0.000026")),
    ]
    large = rows[1]
    assert (large.calls, large.tool_calls, large.input_tokens, large.output_tokens, large.total_tokens) == (
        *(1, 0, 140, 12, 152),
    )
    assert (large.cached_tokens, large.reasoning_tokens, large.uncertain_usd, large.agent) == (40, 2, ZERO, None)
    by_agent = {row.agent: row.cost_usd for row in authority.usage("org", "acme", by=("agent",))}
    assert by_agent == {"Researcher": Decimal("0.03026"), "Writer": Decimal("0.000026")}
    (row,) = authority.usage("user", by=("feature", "task", "month", "id", "hour"))
    assert (row.feature, row.task, row.month, row.id, row.hour) == (
        *("search", "summarise", date(2025, 1, 1), "u1", NOON),
    )
    assert row.spent_usd == row.cost_usd == Decimal("0.030286")
    assert [row.cost_usd for row in authority.usage("user", "u1", by=())] == [Decimal("0.030286")]
    assert list(authority.usage("user", "nobody")) == []


def test_every_kind_of_token_is_in_the_history(authority: BudgetAuthority) -> None:
    usage = Usage(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
    spend(opened(authority), usage=usage)
    (row,) = authority.usage("user", "u1", by=("model",))
    assert (row.cached_tokens, row.cache_written_tokens, row.reasoning_tokens) == (2 + 32, 4 + 8, 256)
    assert (row.input_tokens, row.output_tokens) == (usage.input_tokens, usage.output_tokens)


def test_top_and_list_tell_who_spends(authority: BudgetAuthority, clock: FakeClock) -> None:
    for number, user in enumerate(("ann", "bob", "bea", "cid")):
        opened(authority, user).charge("serp", f"0.0{number % 3 + 1}")
    opened(authority, "idle")
    assert [(row.id, row.spent_usd) for row in authority.top("user", n=3)] == [
        ("bea", Decimal("0.03")),
        ("bob", Decimal("0.02")),
        ("ann", Decimal("0.01")),
    ]
    assert authority.list("user") == ["ann", "bea", "bob", "cid", "idle"]
    assert authority.list("user", prefix="b") == ["bea", "bob"]
    clock.advance(86_400)
    opened(authority, "cid").charge("serp", "0.05")
    today = clock.now().date()
    assert [row.id for row in authority.top("user", since=today)] == ["cid"]
    assert [row.id for row in authority.top("user", until=today)] == ["bea", "bob", "ann", "cid"]


def test_the_awaitable_twins_tell_the_same(authority: BudgetAuthority) -> None:
    spend(opened(authority))

    async def told() -> None:
        assert await authority.ausage("user", by=("model",)) == authority.usage("user", by=("model",))
        assert await authority.atop("user") == authority.top("user")
        assert await authority.alist("user") == authority.list("user") == ["u1"]
        assert await authority.asnapshot("user", "u1", window=-1) == authority.snapshot("user", "u1", window=-1)

    asyncio.run(told())


def test_last_months_snapshot_is_what_was_spent_in_it(authority: BudgetAuthority, clock: FakeClock) -> None:
    session = opened(authority)
    late = session.authorize(call("dime")).require()
    session.charge("serp", "0.07")
    clock.advance(2 * 86_400)
    session.charge("serp", "0.02")
    late.commit(Usage())
    now, before = (authority.snapshot("user", "u1", window=window) for window in (0, -1))
    month = {each.window: each for each in before.windows}["month"]
    assert (month.window_start, month.spent_usd, month.remaining_usd) == (
        *(datetime(2025, 1, 1, tzinfo=timezone.utc), Decimal("0.17"), Decimal("299.83")),
    )
    yesterday = {each.window: each for each in before.windows}["day"]
    assert (yesterday.window_start, yesterday.spent_usd) == (datetime(2025, 1, 31, tzinfo=timezone.utc), ZERO)
    assert {each.spent_usd for each in now.windows} == {Decimal("0.02")}
    assert authority.snapshot("user", "u1", window=-2).windows[0].spent_usd == 0
    assert authority.snapshot("user", "nobody", window=-1).spent_usd == 0


def test_what_cannot_be_told_says_what_can(authority: BudgetAuthority) -> None:
    by: Any = ("colour",)
    with pytest.raises(ValueError, match="'colour' is not known: use some of 'id', 'hour', 'day', 'month'"):
        authority.usage("user", by=by)
    with pytest.raises(ValueError, match="is a text"):
        authority.usage("user", by="day")  # type: ignore[arg-type]
    for ask in (authority.usage, authority.top, authority.list):
        with pytest.raises(ValueError, match="'tenant' is not known: use one of 'run', 'user'"):
            ask("tenant")
        with pytest.raises(ValueError, match='by=\\("feature",\\)'):
            ask("feature")
    with pytest.raises(ValueError, match="has no time zone"):
        authority.usage("user", since=NOON.replace(tzinfo=None))
    with pytest.raises(ValueError, match="is before since"):
        authority.usage("user", since=date(2025, 2, 1), until=date(2025, 1, 1))
    with pytest.raises(ValueError, match="is no time"):
        authority.usage("user", since="yesterday")  # type: ignore[arg-type]
    for n in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="whole number"):
            authority.top("user", n)  # type: ignore[arg-type]
    for window in (1, -1.0, True):
        with pytest.raises(ValueError, match="-1 for the last one"):
            authority.snapshot("user", "u1", window=window)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no window that begins anew"):
        authority.snapshot("org", "acme", window=-1)


def test_a_time_within_an_hour_takes_the_whole_hour(authority: BudgetAuthority, clock: FakeClock) -> None:
    opened(authority).charge("serp", "0.01")
    half = NOON + timedelta(minutes=30)
    east = half.astimezone(timezone(timedelta(hours=5)))
    assert len(authority.usage("user", since=half)) == len(authority.usage("user", until=half)) == 1
    assert len(authority.usage("user", since=east, until=east)) == 1
    assert (
        list(authority.usage("user", until=NOON)) == list(authority.usage("user", since=NOON + 2 * (half - NOON))) == []
    )


def test_a_ledger_without_a_history_says_so(clock: FakeClock) -> None:
    authority = BudgetAuthority(MemoryLedger(clock=clock, history=None), clock=clock)
    authority.session(Budget("$1"), user="u1").charge("serp", "0.01")
    with pytest.raises(ValueError, match="keeps no history"):
        authority.usage("user")
    for kept in (Kept(hours=3), Kept(days=1), Kept(hours=10**5), Kept(hours=True)):
        with pytest.raises(ValueError, match="Kept"):
            MemoryLedger(history=kept)


def test_a_plain_session_keeps_no_history() -> None:
    session = Budget("$1").session()
    assert isinstance(session.ledger, MemoryLedger) and not session.ledger.keeps_history


# --- runs in several sessions


def test_a_run_that_begins_anew_each_day_reports_what_was_spent_since(
    authority: BudgetAuthority, clock: FakeClock
) -> None:
    daily = Budget("$5", window="day")
    first = authority.session(daily, run_id="r1", user="u1")
    spend(first)
    clock.advance(86_400)
    second = authority.session(daily, run_id="r1", user="u1")
    spend(second, "small")
    spend(first, "tiny")
    report = second.report()
    assert set(report.breakdown.llm.by_model) == {"small", "tiny"}
    assert report.total_spent == report.breakdown.llm.total


def test_every_session_of_a_run_reports_what_all_of_them_spent(authority: BudgetAuthority) -> None:
    first = opened(authority, run_id="r1")
    spend(first, agent="Researcher")
    alone = first.report()
    second = opened(authority, run_id="r1")
    spend(second, "small", agent="Writer")
    second.charge("serp", "0.03")
    second.authorize(call("dime", agent="Writer")).require().commit_estimate("timed out")

    whole, again = first.report(), second.report()
    assert (alone.spent_here, whole.spent_elsewhere) == (None, whole.total_spent - alone.total_spent)
    for report in (whole, again):
        assert report.total_spent == report.breakdown.llm.total + report.breakdown.tools.total
        assert {name: model.calls for name, model in report.breakdown.llm.by_model.items()} == {
            **{"large": 1, "small": 1, "dime": 1},
        }
        assert report.breakdown.llm.by_model["large"].cached_tokens == 40
        assert report.breakdown.tools.by_tool["serp"].total == Decimal("0.03")
        assert report.by_agent["Writer"].calls == 2 and report.by_agent["Researcher"].calls == 1
        assert (report.uncertain, report.by_task["summarise"].calls) == (Decimal("0.10"), 3)
    both = whole + again
    assert (both.total_spent, both.breakdown, both.spent_elsewhere) == (whole.total_spent, whole.breakdown, ZERO)
    assert asyncio.run(first.areport()).breakdown == whole.breakdown


def test_what_a_child_session_spent_is_in_the_history_of_its_parent(authority: BudgetAuthority) -> None:
    parent = opened(authority, feature="search")
    spend(parent)
    with parent.child(Budget("$1", max_wait_s=0, task="look up")) as child:
        spend(child, "small", agent="Sub")
        child.charge("serp", "0.03")
    rows = authority.usage("user", "u1", by=("model", "tool", "agent", "task"))
    assert [(row.model, row.tool, row.agent, row.task, row.cost_usd) for row in rows] == [
        (None, "serp", None, "look up", Decimal("0.03")),
        ("large", None, None, "summarise", Decimal("0.00026")),
        ("small", None, "Sub", "look up", Decimal("0.000026")),
    ]


def test_a_child_closed_with_calls_in_flight_is_told_of_in_full_once_they_are_settled(
    authority: BudgetAuthority,
) -> None:
    parent = opened(authority)
    child = parent.child(Budget("$1", max_wait_s=0))
    spend(child)
    flying = child.authorize(call("dime")).require()
    child.close()
    rows = {row.model: row for row in authority.usage("user", by=("model",))}
    assert (rows["large"].uncertain_usd, rows[None].uncertain_usd) == (Decimal("0.00026"), Decimal("0.10"))
    flying.commit(Usage())
    child.close()
    assert {row.model: (row.cost_usd, row.uncertain_usd) for row in authority.usage("user", by=("model",))} == {
        "large": (Decimal("0.00026"), ZERO),
        "dime": (Decimal("0.10"), ZERO),
    }


# --- leases and the outbox


def test_what_is_spent_from_a_lease_is_in_the_history_once_the_lease_is_settled(
    ledger: Ledger, clock: FakeClock
) -> None:
    leased = LeasedLedger(ledger, clock=clock)
    authority = BudgetAuthority(leased, {"user": Budget("$20", window="day")}, clock=clock, pricing=PRICES)
    session = opened(authority)
    for _ in range(3):
        spend(session, agent="Researcher")
    assert list(authority.usage("user")) == []
    session.authorize(call("dime")).require().commit_estimate("timed out")
    leased.settle()
    assert {
        (row.model, row.agent): (row.calls, row.cost_usd, row.uncertain_usd, row.cached_tokens)
        for row in authority.usage("user", by=("model", "agent"))
    } == {
        ("large", "Researcher"): (3, Decimal("0.00078"), ZERO, 120),
        ("dime", None): (1, Decimal("0.10"), Decimal("0.10"), 0),
    }


def test_a_lease_with_calls_in_flight_is_told_of_in_full_once_they_are_settled(
    ledger: Ledger, clock: FakeClock
) -> None:
    leased = LeasedLedger(ledger, clock=clock)
    authority = BudgetAuthority(leased, {"user": Budget("$20", window="day")}, clock=clock, pricing=PRICES)
    session = opened(authority)
    spend(session)
    flying = session.authorize(call("dime")).require()
    guessed = session.authorize(call("large", tokens=1_000, cap=100)).require()
    guessed.commit_estimate("timed out")
    leased.settle()
    assert sum(row.uncertain_usd for row in authority.usage("user", by=())) > Decimal("0.10")
    flying.commit(Usage())
    guessed.commit(LARGE)
    assert {row.model: row.cost_usd for row in authority.usage("user", by=("model",)) if row.cost_usd > 0}[
        "dime"
    ] == Decimal("0.10")
    assert sum(row.cost_usd for row in authority.usage("user")) == Decimal("0.10052")
    assert list(ledger.audit()) == []


def test_what_the_outbox_keeps_is_in_the_history_once(authority: BudgetAuthority, tmp_path: Path) -> None:
    opened(authority)
    amounts = Amounts(cost=5, requests=1)
    lines = (UsageLine(Labels(model="gpt-\N{SNOWMAN}"), amounts, 0, 1, 2, 3),)
    scopes = (Scope("user", "u1"),)
    made = hold_id(int(NOON.timestamp() * 1000), "h")
    path = tmp_path / "outbox.jsonl"
    Outbox(path).add(new_entry("commit", made, scopes, amounts, lines=lines))
    again = Outbox(path)  # the next process finds it
    assert again.entries()[0].lines == lines
    for _ in range(2):
        assert replay(again, authority.ledger) in (0, 1)
        again.add(new_entry("commit", made, scopes, amounts, lines=lines))
    replay(again, authority.ledger)
    (row,) = authority.usage("user", by=("model",))
    assert (row.model, row.cost_usd, row.calls, row.reasoning_tokens) == ("gpt-\N{SNOWMAN}", Decimal("5E-9"), 1, 3)


# --- a platform


def test_a_platform_in_two_processes_tells_what_its_provider_billed(tmp_path: Path) -> None:
    url = f"{tmp_path}/budget.db"
    platform.check(url, 12, platform.worked(url, 12))


def test_after_kills_history_and_counters_agree(tmp_path: Path) -> None:
    assert platform.killed(f"{tmp_path}/budget.db", 2) > 0


@needs_redis_server
def test_so_it_is_on_redis(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes").start()
    try:
        platform.check(server.url, 12, platform.worked(server.url, 12))
        server.client().flushall()
        assert platform.killed(server.url, 2) > 0
    finally:
        server.stop()


def test_what_is_kept_as_one_sum_is_of_no_hour_day_or_month(clock: FakeClock) -> None:
    ledger = MemoryLedger(clock=clock, history=Kept(hours=24, days=32, run_days=32))
    authority = BudgetAuthority(ledger, {"user": Budget("$20")}, clock=clock, pricing=PRICES)
    session = opened(authority)
    session.charge("serp", "0.03")
    clock.advance(40 * 86_400)
    session.charge("serp", "0.01")
    rows = authority.usage("user", "u1", by=("hour", "day", "month"))
    now = clock.now().replace(minute=0, second=0, microsecond=0)
    assert [(row.hour, row.day, row.month, row.cost_usd) for row in rows] == [
        (None, None, None, Decimal("0.03")),
        (now, now.date(), now.date().replace(day=1), Decimal("0.01")),
    ]


@pytest.mark.parametrize(
    ("mode", "on_error", "passes"),
    [
        ("hard_gate", None, False),
        ("hard_gate", "open", True),
        ("advisory_estimate", None, True),
        ("advisory_estimate", "closed", False),
    ],
)
def test_an_authority_says_whether_calls_pass_without_its_ledger(mode: Any, on_error: Any, passes: bool) -> None:
    authority = BudgetAuthority(on_ledger_error=on_error)
    assert authority.passes_without_ledger(Budget("$1", mode=mode)) is passes
