"""What tools cost by name, and the warning of names that no tool has."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pytest

from budget_guard import ToolCall
from budget_guard.adapter import ToolCosts
from budget_guard.adapter.tool_costs import ToolCost


def of_length(result: str) -> str:
    return f"0.0{len(result)}"


COSTS: Mapping[str, ToolCost] = {"serp": "0.01", "ocr": of_length}


def test_a_cost_is_known_beforehand_or_by_the_result() -> None:
    costs = ToolCosts(COSTS)
    assert costs.call("serp", "Writer") == ToolCall("serp", 10_000_000, "Writer")
    assert costs.call("ocr", None) == ToolCall("ocr", 0, None)
    assert costs.call("free", None) == ToolCall("free", 0, None)
    assert [costs.depends_on_result(tool) for tool in ("serp", "ocr", "free")] == [False, True, False]
    assert [costs.of_result(tool, "page") for tool in ("serp", "ocr", "free")] == [None, "0.04", None]


@pytest.mark.parametrize(
    ("costs", "looks", "unseen", "seen_any", "looked"),
    [
        (None, [], set[str](), False, False),
        (COSTS, [], {"serp", "ocr"}, False, False),
        (COSTS, [()], {"serp", "ocr"}, False, True),
        (COSTS, [("serp", "other"), ()], {"ocr"}, True, True),
        (COSTS, [("other",), ("serp", "ocr")], set[str](), True, True),
    ],
)
def test_which_of_them_there_are_is_noted(
    costs: Mapping[str, ToolCost] | None, looks: list[tuple[str, ...]], unseen: set[str], seen_any: bool, looked: bool
) -> None:
    noting = ToolCosts(costs)
    for tools in looks:
        noting.saw(iter(tools))
    assert (noting.unseen, noting.seen_any, noting.looked) == (unseen, seen_any, looked)


def test_those_that_there_are_not_are_warned_of_once_and_none_where_all_are_there() -> None:
    costs = ToolCosts(COSTS)
    costs.saw(("serp",))
    with pytest.warns(
        RuntimeWarning, match=r"tool_costs names 'ocr', but no agent of this run has such a tool"
    ) as told:
        costs.warn_of_unseen()
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        costs.warn_of_unseen()
        ToolCosts(None).warn_of_unseen()
