"""What the client really sends is held, attempt by attempt, and what the provider really answers is booked."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel
from agents.models.interface import Model
from openai import AsyncOpenAI

from budget_guard import Budget, BudgetExceeded
from budget_guard.integrations.openai_agents import BudgetGuard
from tests.integrations.openai_agents.on_the_wire import (
    Wire,
    ask,
    chat_answer,
    chat_chunks,
    chat_usage,
    response,
    usage_of,
)
from tests.integrations.openai_agents.support import DelegatingModel

FAILED = (500, {"error": {"message": "gateway"}})
SLOW_DOWN = (429, {"error": {"message": "slow down"}})
ANSWER = chat_answer(chat_usage(100, 50))
COST = Decimal("0.00075")
"""What `ANSWER` costs on gpt-4o."""


def held(guard: BudgetGuard) -> list[Decimal]:
    """What each attempt was held at."""
    return [decision.estimate.cost_usd for decision in guard.session.decisions() if decision.action == "allow"]


async def test_every_retry_of_the_client_is_held_and_settled_by_its_own_outcome() -> None:
    wire = Wire(FAILED, FAILED, ANSWER)
    guard = BudgetGuard(Budget("$1.00"))
    await ask(wire.chat(retries=2), guard, max_tokens=500)
    holds = held(guard)
    report = guard.report()
    assert len(wire.sent) == len(holds) == 3
    assert guard.reserved_usd == 0
    assert guard.spent_usd == holds[0] + holds[1] + COST
    assert report.uncertain == holds[0] + holds[1]
    assert report.breakdown.llm.calls == 3


async def test_retries_that_were_throttled_cost_nothing() -> None:
    wire = Wire(SLOW_DOWN, SLOW_DOWN, ANSWER)
    guard = BudgetGuard(Budget("$1.00"))
    await ask(wire.chat(retries=2), guard, max_tokens=500)
    assert len(held(guard)) == 3
    assert guard.spent_usd == COST
    assert guard.report().uncertain == 0


async def test_what_failed_before_a_throttled_retry_stays_booked() -> None:
    wire = Wire(FAILED, FAILED, SLOW_DOWN)
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(Exception, match="slow down"):
        await ask(wire.chat(retries=2), guard, max_tokens=500)
    first, second, _ = held(guard)
    assert guard.spent_usd == first + second
    assert guard.reserved_usd == 0


async def test_a_retry_that_does_not_fit_is_not_sent() -> None:
    wire = Wire(FAILED)
    guard = BudgetGuard(Budget("$0.012"))
    with pytest.raises(BudgetExceeded) as stop:
        await ask(wire.chat(retries=5), guard, max_tokens=500)
    assert stop.value.dimension == "max_cost_usd"
    assert len(wire.sent) == len(held(guard)) == 2
    assert guard.spent_usd == sum(held(guard))


async def test_a_connection_that_never_was_costs_nothing_and_one_that_broke_does() -> None:
    wire = Wire(httpx.ConnectError("no route"), httpx.ReadError("reset"), ANSWER)
    guard = BudgetGuard(Budget("$1.00"))
    await ask(wire.chat(retries=2), guard, max_tokens=500)
    holds = held(guard)
    assert guard.spent_usd == holds[1] + COST


async def test_without_a_guarded_run_the_client_sends_what_it_always_sent() -> None:
    wire = Wire(ANSWER)
    model = wire.chat()
    await ask(model, BudgetGuard(Budget("$1.00")))
    seen: list[httpx.Request] = []

    def plain(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=ANSWER)

    http: Any = httpx.AsyncClient(transport=httpx.MockTransport(plain))
    model._client._client._transport._inner = http._transport  # type: ignore[attr-defined]
    await ask(model, None)
    (request,) = seen
    assert "gzip" in request.headers["accept-encoding"]
    assert b"max_tokens" not in request.content


async def test_a_transport_is_wrapped_once() -> None:
    wire = Wire(ANSWER)
    model: Any = wire.chat()
    for _ in range(3):
        await ask(model, BudgetGuard(Budget("$1.00")))
    assert type(model._client._client._transport._inner).__name__ == "MockTransport"


MODELS = pytest.mark.parametrize(
    "model_of", [pytest.param(Wire.chat, id="chat"), pytest.param(Wire.responses, id="responses")]
)


@MODELS
async def test_the_model_that_served_is_booked(model_of: Callable[..., Model]) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        if "messages" in body:
            return chat_answer(chat_usage(100, 50), model="gpt-4")
        return response(usage_of(100, 50), model="gpt-4")

    wire = Wire(answer)
    guard = BudgetGuard(Budget("$1.00"))
    await ask(model_of(wire, "gpt-4o-mini"), guard, max_tokens=500)
    assert guard.spent_usd == Decimal("0.006")  # 100 at $30 and 50 at $60 a million


async def test_a_snapshot_is_booked_under_the_name_that_was_asked_for() -> None:
    wire = Wire(chat_answer(chat_usage(100, 50), model="gpt-4o-2024-08-06"))
    guard = BudgetGuard(Budget("$1.00"))
    await ask(wire.chat(), guard)
    assert list(guard.report().breakdown.llm.by_model) == ["gpt-4o"]


async def test_calls_are_held_at_the_tier_that_serves_this_client_once_an_answer_has_said_so() -> None:
    wire = Wire(chat_answer(chat_usage(100, 50), service_tier="priority"))
    guard = BudgetGuard(Budget("$1.00"))
    model = wire.chat()
    await ask(model, guard, max_tokens=500)
    await ask(model, guard, max_tokens=500)
    await ask(model, guard, max_tokens=500, extra_args={"service_tier": "default"})
    first, second, third = held(guard)
    assert second > first
    assert third < second  # asked for by name


async def test_a_tier_that_has_served_a_client_is_held_for_by_every_guard_over_it() -> None:
    wire = Wire(chat_answer(chat_usage(100, 50), service_tier="priority"))
    model, guards = wire.chat(), [BudgetGuard(Budget("$1.00")) for _ in range(2)]
    for guard in guards:
        await ask(model, guard, max_tokens=500)
    (first,), (second,) = map(held, guards)
    assert second > first


async def test_audio_is_booked_at_its_own_price() -> None:
    usage = chat_usage(
        2_000,
        500,
        prompt_tokens_details={"audio_tokens": 1_800},
        completion_tokens_details={"audio_tokens": 400, "reasoning_tokens": 0},
    )
    wire = Wire(chat_answer(usage, model="gpt-audio"))
    guard = BudgetGuard(Budget("$5.00"))
    await ask(wire.chat("gpt-audio"), guard, "x" * 4_000, max_tokens=500)
    assert guard.spent_usd == Decimal("0.0847")


async def test_an_answer_of_exactly_its_cap_is_whole_where_it_says_so() -> None:
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=300))
    result = await ask(Wire(chat_answer(chat_usage(100, 300))).chat(), guard)
    assert result.final_output == "Done."


async def test_an_answer_that_says_it_was_cut_is_a_stop() -> None:
    guard = BudgetGuard(Budget("$0.004"))
    with pytest.raises(BudgetExceeded) as stop:
        await ask(Wire(chat_answer(chat_usage(100, 200), finish="length")).chat(), guard)
    assert stop.value.dimension == "max_cost_usd"
    assert guard.spent_usd == Decimal("0.00225")


@pytest.mark.parametrize(
    "pieces",
    [[""] * 400, list("w" * 400), ["word "] * 300, [""] * 50 + ["w"] * 300 + [""] * 50],
    ids=["empty", "characters", "words", "mixed"],
)
async def test_a_stream_is_not_stopped_for_its_pieces(pieces: list[str]) -> None:
    wire = Wire(chat_chunks(chat_usage(100, 300), "Done. ", *pieces))
    guard = BudgetGuard(Budget("$1.00"))
    result = await ask(wire.chat(), guard, stream=True, max_tokens=300)
    assert result.final_output == "Done. " + "".join(pieces)
    assert guard.spent_usd == Decimal("0.00325")


async def test_a_stream_that_ends_without_usage_is_booked_as_held() -> None:
    wire = Wire(chat_chunks(None, "Done."))
    guard = BudgetGuard(Budget("$1.00"))
    await ask(wire.chat(), guard, stream=True, max_tokens=300)
    assert guard.spent_usd == sum(held(guard))
    assert guard.report().uncertain == guard.spent_usd
    assert guard.reserved_usd == 0


async def test_models_that_a_model_of_ones_own_calls_are_each_counted() -> None:
    wire = Wire(ANSWER)
    inner = [wire.chat() for _ in range(3)]
    guard = BudgetGuard(Budget("$1.00"))
    for model in inner:
        await ask(model, guard)

    class Ensemble(DelegatingModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            return [await model.get_response(*args, **kwargs) for model in inner][-1]

    await ask(Ensemble(inner[0]), guard, max_tokens=500)
    assert guard.report().breakdown.llm.calls == len(wire.sent) == 6
    assert guard.spent_usd == 6 * COST


async def test_two_guards_hold_a_retry_both() -> None:
    wire = Wire(FAILED, ANSWER)
    outer, inner = BudgetGuard(Budget("$1.00")), BudgetGuard(Budget("$1.00"))
    with outer:
        await ask(wire.chat(retries=1), inner, max_tokens=500)
    assert outer.spent_usd == inner.spent_usd == held(inner)[0] + COST
    assert outer.reserved_usd == inner.reserved_usd == 0


async def test_more_than_was_held_is_held_before_it_is_sent_or_refused() -> None:
    """A subclass may change what is sent after the guard has seen it."""

    class Sneaky(OpenAIResponsesModel):
        def _build_response_create_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            built = super()._build_response_create_kwargs(*args, **kwargs)
            return {**built, "model": "gpt-4", "max_output_tokens": 8_000}

    wire = Wire(response(usage_of(100, 8_000), model="gpt-4"))
    guard = BudgetGuard(Budget("$0.10"))
    with pytest.raises(BudgetExceeded):
        await ask(Sneaky("gpt-4o-mini", openai_client=wire.client()), guard, max_tokens=100)
    assert not wire.sent
    assert guard.spent_usd == guard.reserved_usd == 0
    enough = BudgetGuard(Budget("$1.00"))
    await ask(Sneaky("gpt-4o-mini", openai_client=wire.client()), enough, max_tokens=100)
    assert enough.spent_usd == Decimal("0.483")
    assert enough.report().overrun == 0


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_compressed_answer_is_read_or_booked_as_held(encoding: str) -> None:
    body = json.dumps(ANSWER).encode()
    compressed = gzip.compress(body) if encoding == "gzip" else body

    def handle(request: httpx.Request) -> httpx.Response:
        assert "br" not in request.headers["accept-encoding"]
        headers = {"content-type": "application/json", "content-encoding": encoding}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(compressed))

    http: Any = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    client = AsyncOpenAI(api_key="none", max_retries=0, http_client=http)
    guard = BudgetGuard(Budget("$1.00"))
    model = OpenAIChatCompletionsModel("gpt-4o", openai_client=client)
    if encoding == "gzip":
        await ask(model, guard, max_tokens=500)
        assert guard.spent_usd == COST
    else:
        with contextlib.suppress(Exception):  # no decoder of it may be installed
            await ask(model, guard, max_tokens=500)
        assert guard.spent_usd == guard.report().uncertain > COST
    assert guard.reserved_usd == 0
