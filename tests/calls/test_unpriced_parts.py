"""A priced model with a part that has no price: as an unpriced model, it is refused only where dollars are limited."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard import Allowance, Budget, ModelCall, UnknownPriceError, Usage, weigh

ALLOWANCE = Allowance(input_tokens=1_000, hosted_tool_calls=2)
PROMPT = weigh(messages=[{"role": "user", "content": "hi"}])


def call_of(part: str) -> ModelCall:
    call = ModelCall("gpt-4o-mini", PROMPT, "openai", 100)
    if part == "tool":
        return call._replace(hosted_tools=("image_generation", "web_search"))
    return call._replace(kinds=frozenset({"input_audio"}))


parts = pytest.mark.parametrize("part", ["tool", "sound"])


@parts
@pytest.mark.parametrize(
    "settings",
    [{"max_requests": 9}, {"max_cost_usd": 9, "unpriced": "allow"}, {"max_total_tokens": 99_999}],
    ids=["requests", "allowed", "tokens"],
)
def test_it_is_let_in_where_an_unpriced_model_would_be(part: str, settings: dict[str, Any]) -> None:
    session = Budget(**settings, allowance=ALLOWANCE).session()
    decision = session.authorize(call_of(part))
    assert decision.error is None
    hold = decision.require()
    assert hold.amounts.cost > 0  # what has a price is held
    hold.commit(Usage(input=10, output=10, other=(("image_generation", 1),)))
    report = session.report()
    assert report.unpriced_calls == 1
    assert report.total_spent > 0
    assert session.reserved_usd == 0


@parts
def test_it_is_refused_where_a_dollar_limit_applies(part: str) -> None:
    session = Budget("$9", allowance=ALLOWANCE).session()
    assert isinstance(session.authorize(call_of(part)).error, UnknownPriceError)


def test_the_tool_that_has_a_price_is_held_beside_the_one_that_has_none() -> None:
    held = [
        Budget(max_requests=9, allowance=ALLOWANCE)
        .session()
        .authorize(call_of("tool")._replace(hosted_tools=tools))
        .require()
        .amounts.cost
        for tools in ((), ("image_generation",), ("image_generation", "web_search"), ("web_search",))
    ]
    assert held[0] == held[1] < held[2] == held[3]
