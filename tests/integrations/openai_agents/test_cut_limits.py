"""A limit that leaves room for half an answer is named by the stop, with its scope, the cap and what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("agents")

from budget_guard import Budget, BudgetAuthority, MemoryLedger
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import BIG, Lab, agent_named

TEXT = "it is so, " * 1_000
LIMITS: dict[str, dict[str, Any]] = {
    "max_cost_usd": {"max_cost_usd": "0.01"},
    "max_total_tokens": {"max_total_tokens": 1_500},
    "max_output_tokens": {"max_output_tokens": 900},
}
"""What leaves room for less than the answer's 2,500 tokens. A limit of input tokens cuts no answer off: it refuses."""


@pytest.mark.parametrize("scope", ["run", "user"])
@pytest.mark.parametrize("dimension", LIMITS)
@pytest.mark.parametrize("mode", ["run", "run_streamed"])
@pytest.mark.parametrize(
    "model_of", [lambda lab: lab.responses(BIG), lambda lab: lab.chat(BIG)], ids=["responses", "chat"]
)
async def test_the_stop_names_the_limit_that_bound(
    lab: Lab, model_of: Callable[[Lab], Any], mode: str, dimension: str, scope: str
) -> None:
    lab.script([Reply(text=TEXT), Reply(text="and the rest")])
    limit, wide = Budget(**LIMITS[dimension]), Budget("$1.00", max_total_tokens=100_000)
    authority = BudgetAuthority(MemoryLedger(), ceilings={"user": limit if scope == "user" else wide})
    guard = BudgetGuard(limit if scope == "run" else wide, authority=authority, user="u1")
    agent = agent_named("Worker", model_of(lab))
    with pytest.raises(BudgetExceeded) as raised:
        await lab.run(mode, agent, hooks=guard)
    stop = raised.value
    cap = lab.calls[0].max_output_tokens
    assert (stop.dimension, stop.scope) == (dimension, f"run:{guard.session.id}" if scope == "run" else "user:u1")
    assert f"the guard's cap of {cap} output tokens cut the answer off" in str(stop)
    assert " of it is left" in str(stop)
    partial = stop.partial_output
    assert partial
    assert TEXT.startswith(partial)
    if scope == "user":
        authority.set_ceiling("user", "u1", wide)
    else:
        guard.raise_limits(**{dimension: "1.00" if dimension == "max_cost_usd" else 100_000})
    result = await lab.run(mode, stop.last_agent, stop.resume_input(), hooks=guard)
    assert result.final_output == "and the rest"
    assert partial in str(lab.calls[-1].body)
