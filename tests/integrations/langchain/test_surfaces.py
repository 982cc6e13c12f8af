"""Every way to call a model is held before the provider is asked, and booked to the nano-dollar."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetExceeded, budget_scope
from budget_guard.testing import Attempts, Reply
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


@surfaces
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_model_over_a_client_that_is_guarded_in_the_handlers_session_counts_once(
    lab: Lab, kind: str, call: Any
) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    model = getattr(lab, kind)(**lab.clients_guarded_in(handler.session))
    for _ in range(2):
        call(model, "hi", configured(handler))
    call(model, "hi", {"callbacks": None})  # the client is guarded without the handler as well
    assert len(lab.calls) == 3
    agree(lab, handler)


def test_each_retry_of_a_guarded_client_below_a_model_is_held_and_settled_by_itself(lab: Lab) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    model = lab.chat(max_retries=2, **lab.clients_guarded_in(handler.session))
    lab.script(Attempts(Reply(status=429, retry_after_s=0), Reply()))
    model.invoke("hi", configured(handler))
    assert [call.outcome for call in lab.calls] == ["refused", "completed"]
    agree(lab, handler)
    other = Budget("$1.00").session()
    lab.script(Reply())
    model = lab.chat(**lab.clients_guarded_in(other))
    model.invoke("hi", configured(handler))  # two budgets pay for it, each once
    assert other.spent_usd == lab.provider.bill_usd
    assert (handler.report().breakdown.llm.calls, other.report().breakdown.llm.calls) == (2, 1)
    assert handler.reserved_usd == other.reserved_usd == 0


@pytest.mark.parametrize("where", ["inside", "a task", "a thread", "afterwards"])
async def test_a_call_that_is_made_after_a_cancelled_one_is_a_call_of_its_own(lab: Lab, where: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    clients = lab.clients_guarded_in(handler.session)
    other = lab.chat(**clients)
    asking = asyncio.current_task()
    assert asking is not None

    async def ask_again() -> None:
        lab.provider.resume()
        if where == "a thread":
            await asyncio.to_thread(other.invoke, "hi")
        elif where == "a task":
            await asyncio.create_task(other.ainvoke("hi"))
        else:
            await other.ainvoke("hi")

    held: list[Decimal] = []

    async def cancel() -> None:
        await lab.provider.await_calls(1)
        held.append(handler.reserved_usd)
        asking.cancel()

    lab.provider.pause()
    cancelling = asyncio.create_task(cancel())
    try:
        await lab.chat().ainvoke("hi", configured(handler))  # below it nothing is guarded
    except asyncio.CancelledError:
        if where != "afterwards":
            await ask_again()
    await cancelling
    if where == "afterwards":
        await ask_again()
    lab.provider.wait_until_idle()
    answered = Decimal(lab.calls[-1].cost_nano or 0) / 10**9
    assert answered > 0
    # what was cancelled is held still, or booked as held: nothing tells when its last reference goes
    assert handler.spent_usd + handler.reserved_usd == held[0] + answered


@pytest.mark.parametrize("awaits", [False, True])
def test_a_call_that_is_made_between_the_pieces_of_a_stream_is_a_call_of_its_own(lab: Lab, awaits: bool) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    other = lab.chat(**lab.clients_guarded_in(handler.session))
    lab.script(Reply(text="so many words that there are some pieces", chunks=4))

    async def read() -> None:
        pieces = 0
        async for _ in lab.chat().astream("hi", configured(handler)):
            pieces += 1
            if pieces == 2:
                await other.ainvoke("hi")

    if awaits:
        asyncio.run(read())
    else:
        for number, _ in enumerate(lab.chat().stream("hi", configured(handler))):
            if number == 1:
                other.invoke("hi")
    assert len(lab.calls) == 2
    agree(lab, handler)
