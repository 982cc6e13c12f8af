"""An answer that the budget's own output cap has cut off is a stop, not an answer; its cost is booked."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain_anthropic")
pytest.importorskip("langchain")

from langchain.agents import create_agent

from budget_guard import Budget
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    budgeted_model,
)
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import MODELS, SMALL, Lab, caller_of, configured, lookup

LONG = Reply(text="word " * 3_000, output_tokens=12_000)
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda model, config: model.invoke("go", config),
    "stream": lambda model, config: list(model.stream("go", config)),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_a_budgeted_model_stops_at_an_answer_that_the_budget_has_cut(lab: Lab, kind: str, way: str) -> None:
    lab.script(LONG)
    handler = BudgetCallbackHandler(Budget("$0.10"))
    model = budgeted_model(MODELS[kind](lab, max_tokens=None), lab.chat(SMALL, max_tokens=None))
    with pytest.raises(BudgetExceeded, match="cut the answer off"):
        WAYS[way](model, configured(handler))
    assert [call.usage.output_tokens < 12_000 for call in lab.calls if call.usage] == [True]
    assert (handler.spent_usd, handler.reserved_usd) == (lab.provider.bill_usd, Decimal(0))


@pytest.mark.parametrize("stream", [False, True])
async def test_so_it_does_where_it_is_awaited(lab: Lab, stream: bool) -> None:
    lab.script(LONG)
    handler = BudgetCallbackHandler(Budget("$0.10"))
    model = budgeted_model(lab.chat(max_tokens=None), lab.chat(SMALL, max_tokens=None))
    with pytest.raises(BudgetExceeded, match="cut the answer off"):
        if stream:
            async for _ in model.astream("go", configured(handler)):
                pass
        else:
            await model.ainvoke("go", configured(handler))
    assert (handler.spent_usd, handler.reserved_usd) == (lab.provider.bill_usd, Decimal(0))
    await lab.quiet()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_what_came_of_it_is_on_the_stop(lab: Lab, kind: str, way: str) -> None:
    lab.script(LONG)
    handler = BudgetCallbackHandler(Budget("$0.10"))
    model = budgeted_model(MODELS[kind](lab, max_tokens=None), lab.chat(SMALL, max_tokens=None))
    with pytest.raises(BudgetExceeded) as stop:
        WAYS[way](model, configured(handler))
    partial = stop.value.partial_output
    assert partial is not None
    assert partial.startswith("word word")
    assert len(partial) < len(LONG.text or "")
    assert handler.report().terminated_by == "output_cap"


@pytest.mark.parametrize("by", ["handler", "model"])
@pytest.mark.parametrize("way", WAYS)
def test_a_model_keeps_it_where_that_is_wanted(lab: Lab, way: str, by: str) -> None:
    lab.script(LONG)
    options: dict[str, dict[str, Any]] = {"handler": {}, "model": {}, by: {"on_cut_off": "keep"}}
    handler = BudgetCallbackHandler(Budget("$0.10"), **options["handler"])
    model = budgeted_model(lab.chat(max_tokens=None), lab.chat(SMALL, max_tokens=None), **options["model"])
    answer = WAYS[way](model, configured(handler))
    text = answer.text if way == "invoke" else "".join(chunk.text for chunk in answer)
    assert text.startswith("word word")
    assert len(text) < len(LONG.text or "")
    assert handler.spent_usd == lab.provider.bill_usd


def test_an_answer_of_exactly_the_cap_that_says_it_is_done_is_whole(lab: Lab) -> None:
    lab.script(lambda request: Reply(text="done", output_tokens=request.max_output_tokens))
    handler = BudgetCallbackHandler(Budget("$0.10"))
    model = budgeted_model(lab.chat(max_tokens=None), lab.chat(SMALL, max_tokens=None))
    assert model.invoke("go", configured(handler)).text == "done"
    assert lab.calls[0].usage.output == lab.calls[0].max_output_tokens
    assert handler.report().terminated_by is None


def test_an_unknown_choice_is_refused(lab: Lab) -> None:
    wrong: Any = {"on_cut_off": "truncate"}
    for make in (
        lambda: BudgetCallbackHandler(Budget("$1.00"), **wrong),
        lambda: BudgetMiddleware(Budget("$1.00"), **wrong),
        lambda: budgeted_model(lab.chat(), lab.chat(SMALL), **wrong),
    ):
        with pytest.raises(ValueError, match="on_cut_off='truncate'"):
            make()


def test_an_answer_that_the_caller_has_capped_is_kept(lab: Lab) -> None:
    lab.script(LONG)
    handler = BudgetCallbackHandler(Budget("$1.00"))
    model = budgeted_model(lab.chat(max_tokens=50), lab.chat(SMALL, max_tokens=50))
    assert model.invoke("go", configured(handler)).response_metadata["finish_reason"] == "length"


def cut_agent(lab: Lab, **options: Any) -> Any:
    lab.script(caller_of("lookup", key="word " * 12_000))
    return create_agent(lab.chat(max_tokens=None), [lookup], middleware=[BudgetMiddleware(Budget("$0.10"), **options)])


def test_an_agent_ends_with_words_for_it(lab: Lab) -> None:
    last = cut_agent(lab).invoke({"messages": [("user", "go")]})["messages"][-1]
    assert last.text.startswith("Budget exceeded: max_cost_usd=$0.10")
    assert last.response_metadata["budget_guard"]["stopped_by"] == "max_cost_usd"
    assert len(lab.calls) == 1


def talkative_agent(lab: Lab, **options: Any) -> Any:
    lab.script([LONG, Reply(text="and the rest")])
    return create_agent(lab.chat(max_tokens=None), [], middleware=[BudgetMiddleware(**options)])


def test_an_agent_ends_with_what_came_and_goes_on_from_it(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$0.10"))
    agent = talkative_agent(lab, budget=handler)
    result = agent.invoke({"messages": [("user", "go")]})
    *_, partial, last = result["messages"]
    assert partial.text.startswith("word word")
    assert last.text.startswith("Budget exceeded: max_cost_usd=$0.10")
    handler.raise_limits(max_cost_usd="1.00")
    again = agent.invoke({"messages": [*result["messages"], ("user", "Go on.")]})
    assert again["messages"][-1].text == "and the rest"
    assert partial.text in str(lab.calls[-1].body)
    assert handler.report().terminated_by is None


@pytest.mark.parametrize("by", ["handler", "middleware"])
def test_an_agent_keeps_it_where_that_is_wanted(lab: Lab, by: str) -> None:
    keep: Any = {"on_cut_off": "keep"}
    budget = BudgetCallbackHandler(Budget("$0.10"), **(keep if by == "handler" else {}))
    agent = talkative_agent(lab, budget=budget, **(keep if by == "middleware" else {}))
    last = agent.invoke({"messages": [("user", "go")]})["messages"][-1]
    assert last.text.startswith("word word")
    assert last.response_metadata["finish_reason"] == "length"


def test_an_agent_raises_it_where_it_is_to_raise(lab: Lab) -> None:
    with pytest.raises(BudgetExceeded, match="cut the answer off"):
        cut_agent(lab, exit_behavior="error").invoke({"messages": [("user", "go")]})


def test_an_agent_that_wraps_up_tries_a_final_answer_and_keeps_it_however_long(lab: Lab) -> None:
    agent = cut_agent(lab, wrap_up_at=0.9)
    lab.script([caller_of("lookup", key="word " * 12_000), LONG])
    last = agent.invoke({"messages": [("user", "go")]})["messages"][-1]
    assert last.text.startswith("word word")
    assert [call.tools for call in lab.calls] == [("lookup",), ()]
