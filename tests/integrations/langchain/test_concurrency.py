"""Any number of runs at once spend from one handler, and never more than it allows."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budget_scope
from budget_guard.testing import ProviderRequest, Reply
from tests.builders import ZERO
from tests.integrations.langchain.agents import DIME, Lab, caller_of, configured, lookup, never_below, outputs_in

ASK: dict[str, Any] = {"messages": [("user", "go")]}


@pytest.mark.parametrize("surface", ["batch", "abatch", "batch_as_completed", "gather"])
def test_a_batch_of_a_hundred_never_passes_the_ceiling(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), pricing=DIME)
    model: Any = lab.chat("dime")
    texts = [f"number {n}" for n in range(100)]
    config: Any = configured(handler) | {"max_concurrency": 16}
    most: list[Decimal] = []
    handler.subscribe(lambda _: most.append(handler.spent_usd + handler.reserved_usd))

    async def each() -> list[Any]:
        return await asyncio.gather(*(model.ainvoke(text, config) for text in texts), return_exceptions=True)

    if surface == "batch":
        answers: Any = model.batch(texts, config, return_exceptions=True)
    elif surface == "abatch":
        answers = asyncio.run(model.abatch(texts, config, return_exceptions=True))
    elif surface == "gather":
        answers = asyncio.run(each())
    else:
        answers = [answer for _, answer in model.batch_as_completed(texts, config, return_exceptions=True)]
    refused = [answer for answer in answers if isinstance(answer, BudgetExceeded)]
    assert (len(lab.calls), len(refused)) == (10, 90)
    assert (handler.spent_usd, handler.reserved_usd) == (Decimal(1), ZERO)
    assert max(most) <= 1


def test_a_batch_that_is_refused_leaves_nothing_held(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$0.50"), pricing=DIME)
    model = lab.chat("dime")
    with pytest.raises(BudgetExceeded):
        model.batch([f"number {n}" for n in range(20)], configured(handler))
    lab.provider.wait_until_idle()
    assert handler.reserved_usd == 0
    assert handler.spent_usd == Decimal(len(lab.calls)) / 10 <= Decimal("0.50")


async def test_two_hundred_runs_with_failures_and_cancellations_never_pass_the_ceiling(lab: Lab) -> None:
    """15% of the calls fail at the provider, 40 runs are cancelled, and the money is short for the rest."""
    chance = random.Random(11)
    bad = {number for number in range(2_000) if chance.random() < 0.15}

    def script(request: ProviderRequest) -> Reply:
        if request.index in bad:
            return Reply(status=chance.choice([429, 500]))
        delay = chance.random() / 50
        if outputs_in(request) < 2:
            return Reply(tool_calls=caller_of("lookup").tool_calls, delay_s=delay)
        return Reply(text="done", delay_s=delay)

    lab.script(script)
    handler = BudgetCallbackHandler(Budget("$0.25"))
    over: list[Decimal] = []

    def look(_: object) -> None:
        if handler.session.spent_usd + handler.session.reserved_usd > Decimal("0.25"):
            over.append(handler.session.spent_usd)

    handler.subscribe(look)
    agent: Any = create_agent(lab.chat(), [lookup])
    piped: Any = RunnableLambda(lambda _: ASK) | agent
    at_once = asyncio.Semaphore(40)

    async def run(number: int) -> str:
        async with at_once:
            task = asyncio.ensure_future((agent if number % 2 else piped).ainvoke(ASK, configured(handler)))
            if number % 5 == 0:
                await lab.provider.await_calls(1)
                asyncio.get_running_loop().call_later(chance.random() / 20, task.cancel)
            try:
                await task
            except asyncio.CancelledError:
                return "cancelled"
            except BudgetExceeded:
                return "stopped"
            except Exception:
                return "failed"
            return "done"

    with budget_scope(handler):  # without which Python 3.10 loses the handler
        outcomes = await asyncio.gather(*(run(number) for number in range(200)))
    await lab.quiet()
    assert {"cancelled", "failed", "stopped"} <= set(outcomes)
    assert over == []
    never_below(lab, handler)
    assert handler.spent_usd <= Decimal("0.25")
    calls = handler._calls
    assert not calls._open and not calls._parts
