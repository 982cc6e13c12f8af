"""With the handler alone, a fallback takes the call that a cheaper model is to make."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.exceptions import LangChainException
from langchain_core.runnables import RunnableConfig

from budget_guard import Budget, BudgetError, DowngradePolicy
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetDowngrade, BudgetExceeded
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import (
    BIG,
    SMALL,
    SURFACES,
    Lab,
    agree,
    caller_of,
    configured,
    lookup,
    outputs_in,
)

PAIRS: dict[str, Callable[[Lab], Any]] = {
    "chat": lambda lab: lab.chat(BIG).with_fallbacks([lab.chat(SMALL)]),
    "responses": lambda lab: lab.responses(BIG).with_fallbacks([lab.responses(SMALL)]),
    "another provider's": lambda lab: lab.claude("claude-sonnet-5").with_fallbacks([lab.chat(SMALL)]),
}
LONG = "four letters and so " * 200
ASK: dict[str, Any] = {"messages": [("user", LONG)]}
REPLY = Reply(text="done", input_tokens=1_000, output_tokens=200)


@pytest.mark.parametrize("surface", ["invoke", "stream", "abatch", "astream_events"])
@pytest.mark.parametrize("pair_of", PAIRS.values(), ids=PAIRS)
def test_from_the_threshold_on_the_fallback_takes_the_calls(lab: Lab, pair_of: Any, surface: str) -> None:
    lab.script(REPLY)
    handler = BudgetCallbackHandler(Budget("$0.05"), downgrade_to=SMALL, downgrade_at=0.1)
    model = pair_of(lab)
    seen = [SURFACES[surface](model, LONG, configured(handler)) and lab.models[-1] for _ in range(5)]
    first = seen.index(SMALL)
    assert first in (1, 2)
    assert set(seen[first:]) == {SMALL}
    agree(lab, handler)


@pytest.mark.parametrize("surface", ["invoke", "stream", "ainvoke", "astream_events_v3"])
@pytest.mark.parametrize("how", ["with_fallbacks", "ModelFallbackMiddleware", "with a retry around it"])
def test_an_agent_goes_on_with_the_fallback(lab: Lab, how: str, surface: str) -> None:
    lab.script(
        lambda request: (
            Reply(tool_calls=caller_of("lookup").tool_calls, input_tokens=1_000, output_tokens=200)
            if outputs_in(request) < 4
            else REPLY
        )
    )
    handler = BudgetCallbackHandler(Budget("$0.05"), downgrade_to=SMALL, downgrade_at=0.1)
    big, small = lab.chat(BIG), lab.chat(SMALL)
    if how == "with_fallbacks":
        agent: Any = create_agent(_bound(big, small), [lookup])
    else:
        retry = [ModelRetryMiddleware(initial_delay=0)] if how != "ModelFallbackMiddleware" else []
        agent = create_agent(big, [lookup], middleware=[ModelFallbackMiddleware(small), *retry])
    SURFACES[surface](agent, ASK, configured(handler))
    assert lab.models == [BIG, BIG, SMALL, SMALL, SMALL]
    agree(lab, handler)


def _bound(big: Any, small: Any) -> Any:
    """The pair for `create_agent`, which binds tools itself."""
    return big.with_fallbacks([small])


def test_a_call_that_no_longer_fits_goes_to_the_fallback_before_the_threshold(lab: Lab) -> None:
    lab.script(REPLY)
    handler = BudgetCallbackHandler(Budget("$0.005"), downgrade_to=SMALL, downgrade_at=1)
    model = lab.chat(BIG, max_tokens=1_000).with_fallbacks([lab.chat(SMALL)])
    model.invoke(LONG, configured(handler))
    assert lab.models == [SMALL]
    agree(lab, handler)


def test_the_fallback_is_held_as_well_and_refused_at_the_ceiling(lab: Lab) -> None:
    lab.script(REPLY)
    handler = BudgetCallbackHandler(Budget("$0.02"), downgrade_to=SMALL, downgrade_at=0.1)
    model = lab.chat(BIG).with_fallbacks([lab.chat(SMALL)])
    with pytest.raises(BudgetExceeded):
        for _ in range(1_000):
            model.invoke(LONG, configured(handler))
    assert SMALL in lab.models
    agree(lab, handler)
    calls = len(lab.calls)
    with pytest.raises(BudgetExceeded):
        model.invoke(LONG, configured(handler))
    assert len(lab.calls) == calls


def test_without_anything_that_catches_it_the_signal_says_what_to_add(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$0.03"), downgrade_to=SMALL, downgrade_at=0.1)
    lab.script(REPLY)
    lab.chat(BIG).invoke(LONG, configured(handler))
    with pytest.raises(BudgetDowngrade, match=r"with_fallbacks\(\[<gpt-4o-mini>\]\)") as signal:
        lab.chat(BIG).invoke(LONG, configured(handler))
    assert (signal.value.model, signal.value.target) == (BIG, SMALL)
    assert isinstance(signal.value, BudgetError)
    assert isinstance(signal.value, LangChainException)
    assert isinstance(signal.value, RuntimeError)
    assert not isinstance(signal.value, BudgetExceeded)
    (decision,) = handler.session.decisions(action="downgrade")
    assert signal.value.decision_id == decision.id
    agree(lab, handler)


@pytest.mark.parametrize(("spent", "model"), [("$0.10", BIG), ("$0.60", "gpt-4.1-mini"), ("$0.9994", "gpt-4.1-nano")])
def test_a_ladder_goes_one_rung_down_at_the_threshold_and_further_where_that_does_not_fit(
    lab: Lab, spent: str, model: str
) -> None:
    lab.script(REPLY)
    policy = DowngradePolicy(to={BIG: "gpt-4.1-mini", "gpt-4.1-mini": "gpt-4.1-nano"}, at=0.5)
    handler = BudgetCallbackHandler(Budget("$1.00", downgrade=policy))
    handler.charge("earlier work", spent)
    big, *cheaper = (lab.chat(name, max_tokens=200) for name in (BIG, "gpt-4.1-mini", "gpt-4.1-nano"))
    big.with_fallbacks(cheaper).invoke(LONG, configured(handler))
    assert lab.models == [model]
    assert handler.session.decisions()[-1].name == model
    assert handler.report().breakdown.llm.total == lab.provider.bill_usd
    assert handler.reserved_usd == 0


def test_runs_at_the_same_time_each_get_their_own_model(lab: Lab) -> None:
    """One model object, two hundred calls in sixteen threads, half of them of budgets that are nearly used up."""
    lab.script(REPLY)
    model = lab.chat(BIG).with_fallbacks([lab.chat(SMALL)])
    rich = BudgetCallbackHandler(Budget("$100"), downgrade_to=SMALL, downgrade_at=0.9)
    poor = BudgetCallbackHandler(Budget("$100"), downgrade_to=SMALL, downgrade_at=0.1)
    poor.charge("earlier work", "$20")

    def one(number: int) -> None:
        handler, name = ((rich, "rich"), (poor, "poor"))[number % 2]
        model.invoke(f"for {name}", RunnableConfig(callbacks=[handler]))

    numbers = list(range(200))
    random.Random(7).shuffle(numbers)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(one, numbers))
    wrong = [call for call in lab.calls if call.model != (BIG if "for rich" in str(call.messages) else SMALL)]
    assert (len(lab.calls), wrong) == (200, [])
    assert rich.spent_usd + poor.spent_usd - Decimal(20) == lab.provider.bill_usd


@pytest.mark.parametrize("surface", ["invoke", "astream"])
def test_below_the_threshold_the_model_asked_for_is_called(lab: Lab, surface: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"), downgrade_to=SMALL)
    SURFACES[surface](lab.chat(BIG), "hi", configured(handler))
    assert lab.models == [BIG]
