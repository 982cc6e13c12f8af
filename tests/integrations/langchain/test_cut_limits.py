"""A limit that leaves room for half an answer is named by the stop, with its scope, the cap and what is left."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

from langchain.agents import create_agent

from budget_guard import Budget, BudgetAuthority, MemoryLedger
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    budgeted_model,
)
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import SMALL, Lab

TEXT = "it is so, " * 1_000
LIMITS: dict[str, dict[str, Any]] = {
    "max_cost_usd": {"max_cost_usd": "0.01"},
    "max_total_tokens": {"max_total_tokens": 1_500},
    "max_output_tokens": {"max_output_tokens": 900},
}
"""What leaves room for less than the answer's 2,500 tokens. A limit of input tokens cuts no answer off: it refuses."""


def calling(lab: Lab, made: str, handler: BudgetCallbackHandler) -> Any:
    """Makes a call with a conversation, and returns its last message."""
    if made == "model":
        model: Any = budgeted_model(
            lab.chat(max_tokens=None), lab.chat(SMALL, max_tokens=None), handler=handler, downgrade_at=1.0
        )
        return model.invoke
    middleware = BudgetMiddleware(handler, exit_behavior="error")
    agent: Any = create_agent(lab.chat(max_tokens=None), [], middleware=[middleware])
    return lambda messages: agent.invoke({"messages": messages})["messages"][-1]


@pytest.mark.parametrize("scope", ["run", "user"])
@pytest.mark.parametrize("dimension", LIMITS)
@pytest.mark.parametrize("made", ["middleware", "model"])
def test_the_stop_names_the_limit_that_bound(lab: Lab, made: str, dimension: str, scope: str) -> None:
    lab.script([Reply(text=TEXT), Reply(text="and the rest")])
    limit, wide = Budget(**LIMITS[dimension]), Budget("$1.00", max_total_tokens=100_000)
    authority = BudgetAuthority(MemoryLedger(), ceilings={"user": limit if scope == "user" else wide})
    handler = BudgetCallbackHandler(limit if scope == "run" else wide, authority=authority, user="u1")
    call = calling(lab, made, handler)
    with pytest.raises(BudgetExceeded) as raised:
        call([("user", "go")])
    stop = raised.value
    cap = lab.calls[0].max_output_tokens
    assert (stop.dimension, stop.scope) == (dimension, f"run:{handler.session.id}" if scope == "run" else "user:u1")
    assert f"the guard's cap of {cap} output tokens cut the answer off" in str(stop)
    assert " of it is left" in str(stop)
    partial = stop.partial_output
    assert partial
    assert TEXT.startswith(partial)
    if scope == "user":
        authority.set_ceiling("user", "u1", wide)
    else:
        handler.raise_limits(**{dimension: "1.00" if dimension == "max_cost_usd" else 100_000})
    assert call([("user", "go"), ("assistant", partial)]).text == "and the rest"
    assert partial in str(lab.calls[-1].body)
