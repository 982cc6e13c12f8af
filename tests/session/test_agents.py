"""Agents have an identity: a cap by name within one run, and a ceiling by handle across all of them."""

from __future__ import annotations

import asyncio
import gc
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    MemoryLedger,
    ModelCall,
    Session,
    ToolCall,
    Usage,
)
from budget_guard.ledger import Ledger
from budget_guard.testing.ledger_contract import race
from tests.builders import PRICES, ZERO, Way, call, session


def capped(budget: Any = "$9.00", **options: Any) -> Session:
    return session(Budget(budget, agents={"Researcher": Budget("$0.20")}, max_wait_s=0, **options))


def made(way: Way, run: Session, agent: str | None = "Researcher", **options: Any) -> str | None:
    """What stopped a call of *agent*; None where it was made."""
    decision = way.authorize(run, call(agent=agent, **options))
    if isinstance(decision.error, (BudgetExceeded, BudgetRevoked)):
        return decision.error.scope
    way.commit(decision.require(), Usage())
    return None


# --- capped by name, within one run


def test_an_agent_stops_at_its_cap_with_its_name_and_the_others_go_on(way: Way) -> None:
    run = capped()
    assert [made(way, run) for _ in range(3)] == [None, None, f"agent_in_run:{run.id}/Researcher"]
    assert [made(way, run, "Writer"), made(way, run, None)] == [None, None]
    (blocked,) = run.decisions(action="block")
    assert isinstance(blocked.error, BudgetExceeded)
    assert (blocked.error.dimension, str(blocked.error.limit)) == ("max_cost_usd", "0.2")
    assert "'Researcher'" in str(blocked.error) and "others go on" in str(blocked.error)
    assert run.spent_usd == Decimal("0.40")
    assert {name: spend.total for name, spend in run.report().by_agent.items()} == {
        "Researcher": Decimal("0.20"),
        "Writer": Decimal("0.10"),
    }


def test_of_a_hundred_threads_of_an_agent_as_many_pass_as_its_cap_pays_for() -> None:
    run = capped()
    assert sum(race([lambda: run.authorize(call(agent="Researcher")).reservation is not None] * 100)) == 2


async def test_of_a_hundred_tasks_as_many_pass_as_its_cap_pays_for() -> None:
    run = capped()
    found = await asyncio.gather(*(run.aauthorize(call(agent="Researcher")) for _ in range(100)))
    assert sum(each.reservation is not None for each in found) == 2


def test_tools_charges_and_answers_of_an_agent_count_towards_its_cap() -> None:
    run = capped()
    run.track(1, cost="0.05", agent="Researcher")
    run.charge("serp", "0.05", agent="Researcher")
    run.charge_call(call(agent="Researcher"), Usage())
    with pytest.raises(BudgetExceeded, match="/Researcher"):
        run.track(1, cost="0.01", agent="Researcher")
    with pytest.raises(BudgetExceeded, match="/Researcher"):
        run.track_tool(cost="0.01", agent="Researcher")(lambda: 1)()
    run.track(1, cost="0.05", agent="Writer")


def test_what_an_agent_gives_back_can_be_spent_again(way: Way) -> None:
    run = capped()
    hold = way.reserve(run, ToolCall("dear", 200_000_000, "Researcher"))
    assert made(way, run) is not None
    way.release(hold)
    assert made(way, run) is None


def test_any_limit_can_be_the_cap_of_an_agent(way: Way) -> None:
    agents = {"a": Budget(max_requests=1), "b": Budget(max_tool_calls=1)}
    run = session(Budget(max_requests=99, agents=agents, max_wait_s=0))
    assert [made(way, run, "a"), made(way, run, "a") is None] == [None, False]
    for expected in (True, False):
        assert (way.authorize(run, ToolCall("t", 0, "b")).error is None) is expected


def test_the_limits_of_the_run_and_a_revocation_hold_for_a_capped_agent_too(way: Way) -> None:
    run = capped("$0.15")
    assert made(way, run) is None
    assert made(way, run) == f"run:{run.id}"
    run.raise_limits(max_cost_usd="1.00")
    assert made(way, run) is None
    run.revoke("enough")
    decision = way.authorize(run, call(agent="Researcher"))
    assert isinstance(decision.error, BudgetRevoked)


def test_a_stream_of_a_capped_agent_is_stopped_by_a_revocation() -> None:
    run = capped()
    hold = run.authorize(call("large", agent="Researcher", cap=10)).require()
    run.revoke("enough")
    assert isinstance(hold.interruption(1), BudgetRevoked)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_cap_survives_the_session(kind: str, tmp_path: Any) -> None:
    ledger: Ledger | str = MemoryLedger() if kind == "memory" else f"sqlite:///{tmp_path}/budget.db"
    budget = Budget("$9.00", agents={"Researcher": Budget("$0.20")}, max_wait_s=0)
    for expected in (["allow", "allow"], ["block"]):
        run = budget.session(ledger=ledger, run_id="r1", pricing=PRICES)
        for action in expected:
            decision = run.authorize(call(agent="Researcher"))
            assert decision.action == action
            if decision.reservation is not None:
                decision.reservation.commit(Usage())


def test_a_child_session_has_caps_of_its_own(way: Way) -> None:
    parent = session("$9.00")
    with parent.child(Budget("$1.00", agents={"Researcher": Budget("$0.10")}, max_wait_s=0)) as child:
        assert [made(way, child), made(way, child) is None] == [None, False]
        assert made(way, child, "Writer") is None
    assert parent.spent_usd == Decimal("0.20")
    assert parent.reserved_usd == ZERO


def test_under_an_authority_all_scopes_hold_or_none(way: Way) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$0.30")}, pricing=PRICES)
    run = authority.session(Budget("$9.00", agents={"Researcher": Budget("$0.20")}, max_wait_s=0), user="u1")
    assert [made(way, run) for _ in range(2)] == [None, None]
    assert made(way, run, "Writer") is None
    assert made(way, run, "Writer") == "user:u1"
    assert authority.snapshot("user", "u1").spent_usd == Decimal("0.30")


def test_a_run_that_is_gone_leaves_no_scopes_behind_in_memory() -> None:
    ledger = MemoryLedger()
    for _ in range(30):
        run = Budget("$9.00", agents={"Researcher": Budget("$0.20")}).session(ledger=ledger, pricing=PRICES)
        run.authorize(call(agent="Researcher")).require().commit(Usage())
    del run
    gc.collect()
    Budget("$1").session(ledger=ledger)
    assert ledger._users.keys() <= {scope for scope in ledger._users if scope.kind == "run"}


@pytest.mark.parametrize(
    ("agents", "says"),
    [
        ({}, "names no agents"),
        ("Researcher", "names no agents"),
        ({"": Budget("$1")}, "no name of an agent"),
        ({"a": "$1"}, r"agents\['a'\]='\$1' is not a Budget"),
        ({"a": Budget("$1", max_duration_s=3)}, "max_duration_s=3"),
        ({"a": Budget("$1", window="day")}, "window='day'"),
        ({"a": Budget(max_duration_s=3)}, "max_duration_s"),
        ({"a": Budget.metered()}, "has no limit"),
    ],
)
def test_caps_that_make_no_sense_are_refused(agents: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Budget("$1.00", agents=agents)


def test_a_budget_with_caps_is_a_value_like_any_other() -> None:
    budget = Budget("$1.00", agents={"a": Budget("$0.20")})
    assert budget == budget.replace() and hash(budget) == hash(budget.replace())
    assert repr(budget) == "Budget('$1.00', agents={'a': Budget('$0.20')})"
    assert budget.session().report().budget["agents"]["a"]["max_cost_usd"] == "0.20"
    with pytest.raises(ValueError, match="agents"):
        BudgetAuthority(ceilings={"user": budget})


# --- with all that it started


def test_the_report_shows_what_an_agent_has_started_beside_its_own_spend(way: Way) -> None:
    run = session("$9.00")
    ways: list[tuple[str, tuple[str, ...]]] = [
        ("Boss", ()),
        ("Researcher", ("Boss",)),
        ("Reader", ("Researcher", "Boss")),
        ("Boss", ("Researcher", "Boss")),
    ]
    for agent, started_by in ways:
        way.commit(way.reserve(run, call(agent=agent, started_by=started_by)), Usage())
    found = {name: (spend.total, spend.with_started) for name, spend in run.report().by_agent.items()}
    dime = Decimal("0.1")
    assert found == {"Boss": (2 * dime, 4 * dime), "Researcher": (dime, 3 * dime), "Reader": (dime, dime)}


def test_an_agent_that_has_started_others_alone_is_in_the_report(way: Way) -> None:
    run = session("$9.00")
    hold = way.reserve(run, call(agent="Reader", started_by=("Boss",)))
    way.commit_estimate(hold)
    way.commit(hold, Usage())  # a late actual takes the estimate's place
    by_agent = run.report().by_agent
    assert (by_agent["Boss"].total, by_agent["Boss"].calls) == (ZERO, 0)
    assert by_agent["Boss"].with_started == Decimal("0.1")


# --- a handle: a ceiling across runs


def test_a_handle_has_a_ceiling_for_all_of_its_runs(way: Way) -> None:
    authority = BudgetAuthority(ceilings={"agent": Budget("$0.15")}, pricing=PRICES)
    one, two = (authority.session(Budget("$5.00", max_wait_s=0), agent="research-agent-42") for _ in range(2))
    assert made(way, one, None) is None
    assert made(way, two, None) == "agent:research-agent-42"
    other = authority.session(Budget("$5.00", max_wait_s=0), agent="writer-7")
    assert made(way, other, None) is None
    assert authority.snapshot("agent", "research-agent-42").spent_usd == Decimal("0.10")
    assert one.report().tags == {"agent": "research-agent-42"}
    assert one.report().by_agent["research-agent-42"].total == Decimal("0.10")


def test_one_handle_is_revoked_alone_and_restored(way: Way) -> None:
    authority = BudgetAuthority(pricing=PRICES)
    runs = {handle: authority.session(Budget("$5.00"), agent=handle) for handle in ("a-1", "a-2")}
    authority.revoke("agent", "a-1", reason="it leaks")
    decision = way.authorize(runs["a-1"], call())
    assert isinstance(decision.error, BudgetRevoked)
    assert (decision.error.scope, decision.error.reason) == ("agent:a-1", "it leaks")
    assert made(way, runs["a-2"], None) is None
    with pytest.raises(BudgetRevoked, match="it leaks"):
        runs["a-1"].track(1, cost="0.01")
    assert authority.restore("agent", "a-1")
    assert made(way, runs["a-1"], None) is None


def test_an_agent_of_a_session_has_a_ceiling_beside_the_sessions(way: Way) -> None:
    authority = BudgetAuthority(ceilings={"agent": Budget("$0.15"), "user": Budget("$9.00")}, pricing=PRICES)
    run = authority.session(Budget("$5.00", max_wait_s=0), user="u1", agent="boss-1")
    authority.set_ceiling("agent", "boss-1", Budget("$0.25"))
    run.add_agent("helper-1")
    run.add_agent("boss-1")  # whose ceiling holds already
    assert [made(way, run, "helper-1"), made(way, run, "helper-1")] == [None, "agent:helper-1"]
    assert [made(way, run, "unknown"), made(way, run, "unknown")] == [None, "agent:boss-1"]  # all of it is the boss's
    assert way.authorize(run, call(agent="boss-1")).scopes == way.authorize(run, call(agent="unknown")).scopes
    assert authority.snapshot("user", "u1").spent_usd == Decimal("0.20")
    authority.revoke("agent", "helper-1", reason="enough")
    assert isinstance(way.authorize(run, call(agent="helper-1")).error, BudgetRevoked)


def test_without_an_authority_a_handle_names_whom_to_report(way: Way) -> None:
    run = Budget("$5.00").session(agent="research-agent-42", pricing=PRICES)
    run.add_agent("other-1")
    assert made(way, run, None) is None
    assert made(way, run, "other-1") is None
    assert set(run.report().by_agent) == {"research-agent-42", "other-1"}


@pytest.mark.parametrize("wrong", ["", 3])
def test_a_handle_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="agent="):
        session().add_agent(wrong)
    with pytest.raises(ValueError, match="agent="):
        BudgetAuthority().session(Budget("$1"), agent=wrong)


def test_a_ceiling_of_agents_asks_for_one_to_be_named() -> None:
    authority = BudgetAuthority(ceilings={"agent": Budget("$1.50")})
    with pytest.raises(ValueError, match="agent="):
        authority.session(Budget("$1"))
    with pytest.raises(ValueError, match="'agent'"):
        BudgetAuthority(kinds=("agent",))


async def test_a_session_can_be_awaited_with_a_handle() -> None:
    authority = BudgetAuthority(ceilings={"agent": Budget("$0.15")}, pricing=PRICES)
    run = await authority.asession(Budget("$1.00", max_wait_s=0), agent="a-1")
    hold = (await run.aauthorize(call())).require()
    await hold.acommit(Usage())
    assert isinstance((await run.aauthorize(ModelCall(*call()))).error, BudgetExceeded)
