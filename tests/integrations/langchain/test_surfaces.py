"""Every way to call a model is held before the provider is asked, and booked to the nano-dollar."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budget_scope
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import MODEL_SURFACES, MODELS, Lab, agree, configured

models = pytest.mark.parametrize("model_of", MODELS.values(), ids=MODELS)
surfaces = pytest.mark.parametrize("call", MODEL_SURFACES.values(), ids=MODEL_SURFACES)


@surfaces
@models
def test_a_call_is_booked_as_it_is_billed_and_the_one_too_many_is_not_sent(lab: Lab, model_of: Any, call: Any) -> None:
    lab.script(Reply(text="twelve words are a fair amount of text", input_tokens=50, output_tokens=20))
    handler = BudgetCallbackHandler(Budget(max_requests=3))
    model = model_of(lab)
    for _ in range(3):
        call(model, "hi", configured(handler))
    agree(lab, handler)
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as stop:
            call(model, "hi", configured(handler))
        assert stop.value.dimension == "max_requests"
        assert stop.value.report is not None
    assert len(lab.calls) == 3
    agree(lab, handler)


@surfaces
def test_a_scope_covers_calls_without_a_config(lab: Lab, call: Any) -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=1))
    model = lab.chat()
    with budget_scope(handler):
        call(model, "hi", {"callbacks": None})
        agree(lab, handler)
        with pytest.raises(BudgetExceeded):
            call(model, "hi", {"callbacks": None})
    call(model, "hi", {"callbacks": None})
    assert len(lab.calls) == 2
    assert handler.report().breakdown.llm.calls == 1
