"""Whether what is held for one request is enough for the one that is really sent."""

from __future__ import annotations

from typing import Any

import pytest

from budget_guard import Budget, ModelCall, Prompt, ToolCall, Usage
from tests.builders import apart, call, session

PLANNED = call("large", tokens=100, cap=50)
OPAQUE = Prompt(100, 1, (), 0, opaque=("a picture",))

SENT: dict[str, tuple[ModelCall, ModelCall, bool]] = {
    # what was held for, what is sent, and whether that is enough
    "the very call": (PLANNED, PLANNED, True),
    "a shorter one": (PLANNED, call("large", tokens=99, cap=49), True),
    "a longer input": (PLANNED, call("large", tokens=101, cap=50), False),
    "a longer input, and a smaller cap that pays for it": (PLANNED, call("large", tokens=101, cap=49), False),
    "a larger cap": (PLANNED, call("large", tokens=100, cap=51), False),
    "a smaller cap": (PLANNED, call("large", tokens=100, cap=49), True),
    "a cheaper model": (PLANNED, call("small", tokens=100, cap=50), True),
    "a cheaper model without a cap": (PLANNED, call("small", tokens=100), False),
    "a dearer model": (call("small", tokens=100, cap=50), PLANNED, False),
    "a model that nobody knows": (PLANNED, call("nobody-knows", tokens=100, cap=50), False),
    "a model that only the provider knows": (PLANNED, call("", tokens=100, cap=50), True),
    "two answers": (PLANNED, call("large", tokens=100, cap=50, choices=2), False),
    "one of two answers": (call("large", tokens=100, cap=50, choices=2), PLANNED, True),
    "a search": (call("searcher", tokens=100, cap=50), call("searcher", cap=50, hosted_tools=("web_search",)), False),
    "a tier that has no price": (PLANNED, call("large", tokens=100, cap=50, service_tier="express"), False),
    "the same tier": (
        call("large", tokens=100, cap=50, region="eu"),
        call("large", tokens=100, cap=50, region="".join("eu")),
        True,
    ),
    "what has no bound": (PLANNED, PLANNED._replace(prompt=OPAQUE), False),
    "another agent's": (PLANNED, call("large", tokens=100, cap=50, agent="Writer"), True),
    "a dearer one that may answer instead": (
        call("small", tokens=100, cap=50),
        call("small", tokens=100, cap=50, alternatives=("large",)),
        False,
    ),
    "a dearer one that might have answered instead": (
        call("small", tokens=100, cap=50, alternatives=("large",)),
        call("small", tokens=100, cap=50),
        True,
    ),
}


@pytest.mark.parametrize("name", SENT)
def test_what_is_held_is_enough_for_what_costs_no_more(name: str) -> None:
    planned, sent, enough = SENT[name]
    hold = apart(session(Budget("$5")).authorize, planned).require()
    assert hold.covers(sent) is enough


def test_what_is_held_for_a_tool_is_enough_for_no_model() -> None:
    hold = session().authorize(ToolCall("search", 10**9 // 2)).require()
    assert not hold.covers(PLANNED)


@pytest.mark.parametrize(("cap", "enough"), [(None, False), (1, True)])
def test_where_the_guard_chose_a_cap_one_without_it_is_too_much(cap: int | None, enough: bool) -> None:
    run: Any = session("$0.05")
    hold = run.authorize(call("large", tokens=100)).require()
    assert hold.terms.clamped and hold.covers(call("large", tokens=100, cap=hold.terms.output_cap))
    assert hold.covers(call("large", tokens=100, cap=cap)) is enough


def test_a_hold_is_enough_for_what_it_was_made_for_though_its_kind_is_known_to_be_dearer_by_now() -> None:
    run = Budget("$1").session()
    hold = apart(run.authorize, call("gpt-4o", tokens=100, cap=50, region="us")).require()
    apart(run.authorize, call("gpt-4o", tokens=100, cap=50)).require().commit(Usage(1), service_tier="priority")
    assert hold.covers(call("gpt-4o", tokens=100, cap=49, region="us"))
    assert not hold.covers(call("gpt-4o", tokens=100, cap=49, region="eu"))  # which was not planned for
