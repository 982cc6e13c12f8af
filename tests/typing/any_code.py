"""What type checkers make of tracked functions, wrapped answers and budgeted calls. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import openai
from openai.types.chat import ChatCompletion
from typing_extensions import assert_type

from budget_guard import (
    Budget,
    BudgetAuthority,
    LoopDetected,
    LoopPolicy,
    Session,
    budgeted,
    current_session,
    track_tool,
)

budget = Budget(
    "$5.00",
    loop=LoopPolicy(max_repeats=3, window_s=None, exempt=("job_status",), on_loop="warn"),
    agents={"Researcher": Budget("$0.20")},
    max_usd_per_minute="0.50",
)


def rows_cost(rows: list[str]) -> float:
    return len(rows) * 1e-4


def most(query: str, limit: int = 10) -> float:
    return limit * 1e-4


@track_tool(cost=rows_cost, estimate=most)
def search(query: str, limit: int = 10) -> list[str]:
    return [query] * limit


@budgeted(Budget("$2.00"), user="u1", agent="research-agent-42")
async def answer(question: str, *, loud: bool = False) -> str:
    assert_type(current_session(), Session)
    return question


async def run(client: openai.OpenAI, aclient: openai.AsyncOpenAI) -> None:
    with budget.session(user="u1", agent="research-agent-42") as session:
        reply = session.wrap(client.chat.completions.create(model="gpt-4o", messages=[]))
        assert_type(reply, ChatCompletion)
        assert_type(await session.awrap(aclient.chat.completions.create(model="gpt-4o", messages=[])), ChatCompletion)
        assert_type(session.track(["a"], cost=0.01, tool="serp_api"), list[str])
        assert_type(await session.atrack(1, cost="$0.01"), int)

        @session.track_tool(cost="0.02")
        def plain(query: str, limit: int = 3) -> list[str]:
            return [query]

        @session.track_tool(cost=Decimal("0.02"), estimate=0.05, tool="later", agent="Researcher")
        async def later(query: str) -> int:
            return 1

        @session.track_tool(cost=1)
        async def pages(query: str) -> AsyncGenerator[int, None]:
            yield 1

        assert_type(plain("x", limit=2), list[str])
        assert_type(await later("x"), int)
        assert_type(pages("x"), AsyncGenerator[int, None])
        plain(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(search("x"), list[str])
        session.outcome = "ok"
        with session.run() as again:
            assert_type(again, Session)
    assert_type(await answer("x", loud=True), str)
    assert_type(Budget.metered(), Budget)
    authority = BudgetAuthority(ceilings={"agent": Budget("$1.50")})
    assert_type(authority.session(Budget("$5.00"), agent="research-agent-42"), Session)


def stopped(stop: LoopDetected) -> None:
    assert_type(stop.tool, str)
    assert_type(stop.repeats, int)
    value: Any = stop.value
    make: Callable[[str], Awaitable[str]] = answer
    made: Awaitable[str] = make(str(value))
    del made
