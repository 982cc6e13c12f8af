"""What is known of guarded runs and of the calls that they hold."""

from __future__ import annotations

import asyncio
import gc
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("agents")

from budget_guard import Budget, ToolCall
from budget_guard.adapter import GuardedCall
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard_openai_agents.guarded_run import (
    OpenCalls,
    ToolHolds,
    current_run,
    leave,
    may_be_lost,
    open_calls,
    without_guard,
)
from tests.builders import ZERO, call, session


async def test_tools_are_of_another_loop_where_the_running_one_holds_none() -> None:
    held, run = OpenCalls(), session()

    async def elsewhere() -> bool:
        return held.are_of_other_loops()

    async def look() -> tuple[bool, bool, bool]:
        """In this loop, in another one, and where none runs."""
        other = await asyncio.to_thread(asyncio.run, elsewhere())
        return held.are_of_other_loops(), other, await asyncio.to_thread(held.are_of_other_loops)

    assert await look() == (False, False, False)
    model, tool = GuardedCall([run]), GuardedCall([run])
    assert model.hold(call()) is None and tool.hold(ToolCall("search", 0)) is None
    held.begin(model)
    assert (held.tools(), await look()) == ([], (False, False, False))
    held.begin(tool)
    assert (held.tools(), await look()) == ([tool], (False, True, False))
    held.end(tool)
    assert (held.tools(), await look()) == ([], (False, False, False))


async def test_a_run_without_a_guard_and_all_inside_of_it_were_started_by_no_tool_that_begins_later() -> None:
    run = session()
    tool, later = GuardedCall([run]), GuardedCall([run])
    assert may_be_lost()
    with without_guard():
        assert not may_be_lost()
        assert tool.hold(ToolCall("search", 0)) is None
        open_calls.begin(tool)
        with without_guard():
            assert not may_be_lost()
        assert not may_be_lost()
    with without_guard():
        assert may_be_lost()  # the tool may have begun it
    open_calls.end(tool)
    assert later.hold(call()) is None
    open_calls.begin(later)
    with without_guard():
        assert not may_be_lost()  # a model's call begins none
    open_calls.end(later)
    assert may_be_lost()


def test_leaving_a_run_goes_back_to_the_one_around_it_and_from_none_to_none() -> None:
    leave()
    assert current_run() is None
    with BudgetGuard(Budget("$1")):
        outer = current_run()
        with BudgetGuard(Budget("$1")):
            assert current_run() is not outer
        assert current_run() is outer is not None
    assert current_run() is None


async def test_tools_whose_end_no_hook_told_of_are_booked_and_held_no_more() -> None:
    holds, run, without_id = ToolHolds(), session(), object()
    contexts: list[Any] = [SimpleNamespace(tool_call_id="a"), SimpleNamespace(tool_call_id="a"), without_id, without_id]
    calls = [GuardedCall([run]) for _ in contexts]
    for context, each in zip(contexts, calls, strict=True):
        assert each.hold(ToolCall("search", 10_000_000)) is None
        holds.start(context, "search", each)
    assert [holds.has(each, "search") for each in contexts] == [True, True, False, False]
    assert not holds.has(contexts[0], "other") and holds.end(contexts[0], "other") is None
    assert holds.end(without_id, "search") is calls[3]  # of those that nothing tells apart the latest ends first
    assert holds.end(contexts[0], "search") is calls[1]
    assert holds.has(contexts[0], "search")
    assert [each for each in calls if each in open_calls.tools()] == [calls[0], calls[2]]
    holds.settle()
    assert holds.end(contexts[0], "search") is None
    assert [each for each in calls if each in open_calls.tools()] == []
    assert (run.spent_usd, run.reserved_usd) == (Decimal("0.02"), Decimal("0.02"))


def test_calls_whose_loop_was_closed_are_booked_and_those_of_others_go_on() -> None:
    held, lost, going_on = OpenCalls(), session(), session()

    async def begin(of: GuardedCall) -> None:
        held.begin(of)

    loop = asyncio.new_event_loop()
    calls = [GuardedCall([lost]), GuardedCall([lost]), GuardedCall([going_on])]
    for each in calls:
        assert each.hold(call()) is None
    closed = asyncio.new_event_loop()
    closed.run_until_complete(begin(calls[0]))
    closed.close()
    asyncio.run(begin(calls[1]))  # of its loop nothing is left
    loop.run_until_complete(begin(calls[2]))
    gc.collect()
    for _ in range(2):
        held.settle_lost()
        assert (lost.spent_usd, lost.reserved_usd) == (lost.report().uncertain, ZERO)
        assert lost.report().breakdown.llm.calls == 2
        assert going_on.spent_usd == 0 < going_on.reserved_usd
    loop.close()
    held.settle_lost()
    assert going_on.spent_usd > 0 == going_on.reserved_usd
