"""Guards that are made of others: children, forks with other settings, and those that are opened in async code."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import RunConfig, Runner, function_tool

from budget_guard import Budget, BudgetAuthority, DowngradePolicy, LedgerUnavailable, open_ledger
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, CompositeRunHooks
from budget_guard.ledger import MemoryLedger
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import BIG, SMALL, Lab, agent_named, agree, by_role, caller_of, lookup

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@modes
async def test_a_child_holds_a_part_and_books_what_it_spent_when_it_is_closed(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    with guard.child(Budget("$0.20")) as child:
        assert guard.reserved_usd == Decimal("0.20")
        await lab.run(mode, agent_named("Worker", BIG), hooks=child)
        assert child.spent_usd == lab.provider.bill_usd > 0
        assert guard.spent_usd == 0
    agree(lab.provider, guard)


@modes
async def test_a_child_is_stopped_at_its_own_limit(lab: Lab, mode: str) -> None:
    lab.script(by_role({"Worker": Reply(tool_calls=caller_of("lookup").tool_calls)}))
    guard = BudgetGuard(Budget("$1.00", max_requests=9))
    async with await guard.achild(Budget("$0.20", max_requests=2)) as child:
        with pytest.raises(BudgetExceeded) as stop:
            await lab.run(mode, agent_named("Worker", BIG, tools=[lookup]), hooks=child)
        assert stop.value.scope == str(child.session.scope)
    assert len(lab.calls) == 2
    agree(lab.provider, guard)


@pytest.mark.parametrize("given", ["nested", "block", "composite", "run config"])
async def test_a_child_inside_its_parents_run_is_counted_once(lab: Lab, given: str) -> None:
    guard = BudgetGuard(Budget("$1.00"), tool_costs={"lookup": "0.01"})
    inner = agent_named("Inner", BIG, tools=[lookup])

    @function_tool
    async def delegate() -> str:
        with guard.child(Budget("$0.20")) as child:
            config = child.run_config(lab.config()) if given == "run config" else lab.config()
            hooks: Any = {"composite": CompositeRunHooks(guard, child), "nested": child}.get(given)
            result = await Runner.run(inner, "go", hooks=hooks, run_config=config)
            assert guard.reserved_usd >= Decimal("0.20") - child.spent_usd
        return str(result.final_output)

    lab.script(
        by_role({"Outer": [caller_of("delegate"), Reply(text="all")], "Inner": [caller_of("lookup"), Reply(text="x")]})
    )
    await lab.run("run", agent_named("Outer", BIG, tools=[delegate]), hooks=guard)
    lab.provider.wait_until_idle()
    report = guard.report()
    assert guard.reserved_usd == 0
    assert len(lab.calls) == report.breakdown.llm.calls == 4
    assert report.breakdown.llm.total == lab.provider.bill_usd
    assert report.breakdown.tools.total == Decimal("0.01")


async def test_a_child_that_does_not_fit_is_refused_in_the_terms_of_the_sdk() -> None:
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(BudgetExceeded):
        guard.child(Budget("$2.00"))
    with pytest.raises(BudgetExceeded):
        await guard.achild(Budget("$2.00"))
    assert guard.reserved_usd == 0


async def test_a_child_of_a_child_spends_from_both(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    with guard.child(Budget("$0.50")) as child, child.child(Budget("$0.20")) as grandchild:
        await lab.run("run", agent_named("Worker", BIG), hooks=CompositeRunHooks(guard, child, grandchild))
        assert child.spent_usd == guard.spent_usd == 0
        assert grandchild.spent_usd == lab.provider.bill_usd
    agree(lab.provider, guard)


async def test_the_fork_of_a_child_is_another_child(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$0.50"))
    with guard.child(Budget("$0.20")) as child, child.fork() as fork:
        assert guard.reserved_usd == Decimal("0.40")
        assert fork.budget.max_cost_usd == Decimal("0.20")
        with pytest.raises(BudgetExceeded):
            child.fork()


def test_what_is_no_budget_is_no_child() -> None:
    with pytest.raises(TypeError, match=r"Budget\("):
        BudgetGuard(Budget("$1")).child("$0.20")  # type: ignore[arg-type]


def test_a_fork_changes_what_it_is_given() -> None:
    ledger = MemoryLedger()
    guard = BudgetGuard(Budget("$1"), downgrade_to=SMALL, downgrade_at=0.5, user="u1", team="t", ledger=ledger)
    fork = guard.fork(budget=Budget("$3", max_requests=2), user="u2", run_id="again", on_cut_off="keep")
    assert fork.budget.max_cost_usd == 3
    assert fork.budget.downgrade == DowngradePolicy(to=SMALL, at=0.5)
    assert fork.session.id == "again"
    assert fork.report().tags == {"user": "u2", "team": "t"}
    assert fork.on_cut_off == "keep"
    assert fork.session.ledger is ledger
    other = DowngradePolicy(to={"gpt-5": "gpt-5-mini"})
    assert guard.fork(budget=Budget("$1", downgrade=other)).budget.downgrade == other
    with pytest.raises(TypeError, match=r"fork\(\) takes no usr="):
        guard.fork(usr="u3")


def test_a_fork_moves_to_an_authority() -> None:
    authority = BudgetAuthority(MemoryLedger(), ceilings={"user": Budget("$1")})
    guard = BudgetGuard(Budget("$1"), ledger=MemoryLedger()).fork(authority=authority, user="u1")
    assert guard.session.ledger is authority.ledger


async def test_a_guard_is_opened_without_blocking_the_loop(tmp_path: Path) -> None:
    authority = BudgetAuthority(open_ledger(f"sqlite:///{tmp_path}/b.db"), ceilings={"user": Budget("$1")})
    guard = await BudgetGuard.open(Budget("$0.50"), authority=authority, user="u1")
    assert isinstance(guard, BudgetGuard)
    assert guard.report().tags == {"user": "u1"}
    with pytest.raises(ValueError, match="user="):
        await BudgetGuard.open(Budget("$0.50"), authority=authority)


async def test_a_guard_whose_opening_is_cancelled_takes_no_place() -> None:
    authority = BudgetAuthority(MemoryLedger(), ceilings={"user": Budget("$1")}, max_live_runs={"user": 1})
    opening = asyncio.ensure_future(BudgetGuard.open(Budget("$0.50"), authority=authority, user="u1"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    guard = await BudgetGuard.open(Budget("$0.50"), authority=authority, user="u1")
    await guard.aclose()


async def test_a_ledger_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable):
        await BudgetGuard.open(Budget("$1"), ledger=f"sqlite:///{tmp_path}/no/such/folder/b.db", run_id="r")


def test_config_of_a_child_brings_the_child() -> None:
    with BudgetGuard(Budget("$1")).child(Budget("$0.5")) as child:
        assert isinstance(child.run_config({"tracing_disabled": True}), RunConfig)
