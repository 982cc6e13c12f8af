"""A downgrade that cannot work says so, as early as it can be known, and leaves nothing held."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, Model, ModelProvider, ModelSettings, UserError

from budget_guard import Allowance, Budget, DowngradePolicy, InvalidDowngradeError
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.testing import Reply
from tests.integrations.openai_agents.support import (
    BIG,
    SMALL,
    DelegatingModel,
    Lab,
    NamelessModel,
    agent_named,
    agree,
    by_role,
    caller_of,
    lookup,
)

modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])

THINKING = by_role(
    {"Worker": [Reply(tool_calls=caller_of("lookup").tool_calls, reasoning_tokens=50), Reply(text="done")]}
)
SOON = 0.000_001


def soon(to: Any, budget: Any = "$1.00", **options: Any) -> BudgetGuard:
    """A guard that switches after the first call."""
    return BudgetGuard(Budget(budget, downgrade=DowngradePolicy(to=to, at=SOON), **options))


def worker(model: Any) -> Agent[Any]:
    return agent_named("Worker", model, tools=[lookup], model_settings=ModelSettings(max_tokens=300))


class Fixed(DelegatingModel):
    """A model whose name cannot be set."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @property
    def model(self) -> str:  # type: ignore[override]  # a property, as in some models
        return BIG


@modes
@pytest.mark.parametrize("kind", ["nameless", "fixed"])
async def test_a_model_whose_name_cannot_be_changed_is_refused_and_nothing_stays_held(
    lab: Lab, kind: str, mode: str
) -> None:
    lab.script(THINKING)
    model = NamelessModel(lab.responses()) if kind == "nameless" else Fixed(lab.responses())
    guard = BudgetGuard(
        Budget("$1.00"), downgrade_to=SMALL, downgrade_at=SOON, pricing={"NamelessModel": (2.5e-6, 10e-6)}
    )
    with pytest.raises(InvalidDowngradeError, match="model_provider"):
        await lab.run(mode, worker(model), hooks=guard)
    assert len(lab.calls) == 1
    agree(lab.provider, guard)


@modes
async def test_a_provider_that_does_not_have_the_target_ends_the_run_with_nothing_held(lab: Lab, mode: str) -> None:
    lab.script(THINKING)
    guard = BudgetGuard(
        Budget("$1.00"), downgrade_to="nowhere/tiny", downgrade_at=SOON, pricing={"nowhere/tiny": (1e-9, 1e-9)}
    )

    class Picky(ModelProvider):
        def get_model(self, model_name: str | None) -> Model:
            if model_name != BIG:
                raise UserError(f"I do not have {model_name}")
            return lab.responses()

    with pytest.raises(UserError, match="nowhere"):
        await lab.run(mode, worker(BIG), hooks=guard, run_config=lab.config(model_provider=Picky()))
    assert len(lab.calls) == 1
    agree(lab.provider, guard)


@modes
@pytest.mark.parametrize(("model", "target", "called"), [("gpt-5", SMALL, None), ("gpt-5", "gpt-5-mini", "gpt-5-mini")])
async def test_a_conversation_that_the_provider_keeps_stays_within_the_family_or_stops(
    lab: Lab, model: str, target: str, called: str | None, mode: str
) -> None:
    lab.script(THINKING)
    guard = soon(target, "$5.00", allowance=Allowance(input_tokens=20_000))
    agent = worker(lab.responses(model))
    if called is None:
        with pytest.raises(InvalidDowngradeError):
            await lab.run(mode, agent, hooks=guard, auto_previous_response_id=True)
        assert {call.model for call in lab.calls} <= {model}
    else:
        await lab.run(mode, agent, hooks=guard, auto_previous_response_id=True)
        assert [call.model for call in lab.calls] == [model, called]
        assert lab.calls[1].previous_response_id is not None
    assert guard.reserved_usd == 0
    assert guard.spent_usd == lab.provider.bill_usd


@modes
async def test_a_target_that_is_dearer_is_refused_on_the_first_call(lab: Lab, mode: str) -> None:
    guard = BudgetGuard(Budget("$1.00"), downgrade_to=BIG)
    with pytest.raises(InvalidDowngradeError, match="dearer"):
        await lab.run(mode, worker(lab.responses(SMALL)), hooks=guard)
    assert lab.calls == []
    assert guard.reserved_usd == 0


@modes
async def test_a_target_that_lacks_what_the_call_needs_is_refused_on_the_first_call(lab: Lab, mode: str) -> None:
    plain = {"input": 1e-8, "output": 2e-8, "capabilities": ["json_schema"]}
    guard = BudgetGuard(Budget("$1.00"), downgrade_to="plain", pricing={"plain": plain})
    with pytest.raises(InvalidDowngradeError, match="tools"):
        await lab.run(mode, worker(lab.responses()), hooks=guard)
    assert lab.calls == []


def test_a_target_that_nobody_knows_is_refused_at_construction() -> None:
    with pytest.raises(InvalidDowngradeError, match="gpt-4o-mimi"):
        BudgetGuard(Budget("$1.00"), downgrade_to="gpt-4o-mimi")
    with pytest.raises(InvalidDowngradeError, match="dearer"):
        BudgetGuard(Budget("$1.00"), downgrade_to={SMALL: BIG})
    with pytest.raises(ValueError, match=r"downgrade_to=.*Budget\.downgrade"):
        BudgetGuard(Budget("$1.00", downgrade={BIG: SMALL}), downgrade_to=SMALL)
