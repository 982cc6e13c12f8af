"""Usage as it may be reported: what adds up is booked, and what makes no sense is booked as held."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from agents import ModelResponse, Usage
from agents.models.interface import Model
from openai.types.responses import Response

from budget_guard import Allowance, Budget
from budget_guard import Usage as CoreUsage
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.wire import Answer
from budget_guard_openai_agents.answer import usage_of as sdk_usage_of
from tests.integrations.openai_agents.on_the_wire import (
    Wire,
    ask,
    chat_answer,
    chat_chunks,
    response,
    usage_of,
)

HUGE = 10**30
SENSELESS: dict[str, Any] = {
    "none": None,
    "empty": {},
    "nulls": {"input_tokens": None, "output_tokens": None, "total_tokens": None},
    "zeros": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    "no input": {"input_tokens": 0, "output_tokens": 5, "total_tokens": 5},
    "no output": {"input_tokens": 5, "output_tokens": 0, "total_tokens": 5},
    "negative": {"input_tokens": -5, "output_tokens": 5, "total_tokens": 0},
    "huge": {"input_tokens": HUGE, "output_tokens": 5, "total_tokens": HUGE},
    "too much of both": {"input_tokens": 900_000, "output_tokens": 900_000, "total_tokens": 1_800_000},
}
WAYS = pytest.mark.parametrize("stream", [False, True], ids=["run", "run_streamed"])


def details(usage: Any) -> Any:
    """*usage* with the details that the SDK asks for."""
    if not usage:
        return usage
    more = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {**usage, **more}


def as_chat(usage: Any) -> Any:
    """*usage* under the names of Chat Completions."""
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    return usage and {names.get(name, name): count for name, count in usage.items()}


async def check_bound(model: Model, guard: BudgetGuard, *, stream: bool) -> None:
    """It runs as without the guard, or fails as without it, and books what was held."""
    plain = failed = None
    try:
        plain = (await ask(model, None, stream=stream, max_tokens=300)).final_output
    except Exception as error:
        failed = type(error)
    try:
        assert (await ask(model, guard, stream=stream, max_tokens=300)).final_output == plain
    except AssertionError:
        raise
    except Exception as error:
        assert type(error) is failed
    (decision,) = guard.session.decisions()
    assert guard.reserved_usd == 0
    assert guard.spent_usd == guard.report().uncertain == decision.estimate.cost_usd


@WAYS
@pytest.mark.parametrize("usage", SENSELESS.values(), ids=SENSELESS)
async def test_senseless_usage_of_responses_is_booked_as_held(usage: Any, stream: bool) -> None:
    body = response(details(usage))
    event = {"type": "response.completed", "response": body, "sequence_number": 0}
    wire = Wire([event] if stream else body)
    await check_bound(wire.responses(), BudgetGuard(Budget("$1.00")), stream=stream)


@WAYS
@pytest.mark.parametrize("usage", SENSELESS.values(), ids=SENSELESS)
async def test_senseless_usage_of_chat_completions_is_booked_as_held(usage: Any, stream: bool) -> None:
    usage = as_chat(usage)
    wire = Wire(chat_chunks(usage, "Done.") if stream else chat_answer(usage))
    await check_bound(wire.chat(), BudgetGuard(Budget("$1.00")), stream=stream)


class Reporting(Model):
    """A model of one's own that reports any usage."""

    model = "gpt-4o"

    def __init__(self, usage: Any, output: list[Any] | None = None, raw: Any = None) -> None:
        self._usage = usage
        self._output = output or []
        self._raw = raw

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        answer = Response.model_validate(response(None))
        raw = {} if self._raw is None else {"raw_usage": self._raw}
        return ModelResponse([*self._output, *answer.output], self._usage, None, **raw)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(requests=1),
        Usage(requests=1, input_tokens=-1, output_tokens=5, total_tokens=4),
        Usage(requests=1, input_tokens=HUGE, output_tokens=5, total_tokens=HUGE),
        Usage(requests=1, input_tokens=0, output_tokens=5, total_tokens=5),
    ],
    ids=["zeros", "requests alone", "negative", "huge", "no input"],
)
async def test_senseless_usage_of_a_model_of_ones_own_is_booked_as_held(usage: Usage) -> None:
    guard = BudgetGuard(Budget("$1.00"))
    await ask(Reporting(usage), guard, max_tokens=300)
    (decision,) = guard.session.decisions()
    assert guard.reserved_usd == 0
    assert guard.spent_usd == guard.report().uncertain == decision.estimate.cost_usd


async def test_a_total_above_its_parts_is_output_that_nobody_named() -> None:
    guard = BudgetGuard(Budget("$1.00"))
    usage = Usage(requests=1, input_tokens=100, output_tokens=50, total_tokens=200)
    await ask(Reporting(usage), guard, max_tokens=300)
    assert guard.spent_usd == Decimal("0.00125")  # 100 at $2.50 and 100 at $10 a million


async def test_a_total_that_nobody_gave_contradicts_nothing() -> None:
    guard = BudgetGuard(Budget("$1.00"))
    usage = Usage(requests=1, input_tokens=100, output_tokens=50, total_tokens=0)  # as the SDK shows it
    await ask(Reporting(usage), guard, max_tokens=300)
    assert (guard.spent_usd, guard.report().uncertain) == (Decimal("0.00075"), Decimal(0))


def test_an_answer_of_which_nothing_is_known_is_one_request() -> None:
    assert sdk_usage_of(Answer("responses", None)) == Usage(requests=1)
    told = Answer("responses", CoreUsage(input=10, cache_read=5, output=3))
    assert sdk_usage_of(told) == Usage(requests=1, input_tokens=15, output_tokens=3, total_tokens=18)


@pytest.mark.skipif(
    "raw_usage" not in ModelResponse.__dataclass_fields__, reason="the SDK does not keep usage as it was sent"
)
async def test_usage_as_it_was_sent_wins_over_what_the_sdk_made_of_it() -> None:
    raw = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 250}
    usage = Usage(requests=1, input_tokens=100, output_tokens=50, total_tokens=150)
    guard = BudgetGuard(Budget("$1.00"))
    await ask(Reporting(usage, raw=raw), guard, max_tokens=300)
    assert guard.spent_usd == Decimal("0.00175")


def searched(action: str, status: str = "completed") -> dict[str, Any]:
    return {"type": "web_search_call", "id": "ws_1", "status": status, "action": {"type": action, "query": "q"}}


@WAYS
@pytest.mark.parametrize(
    ("output", "fee"),
    [
        ([searched("search")], "0.01"),
        ([searched("search"), searched("search")], "0.02"),
        ([searched("open_page"), searched("find_in_page")], "0"),
        ([searched("search", "failed")], "0"),
    ],
    ids=["one search", "two searches", "pages", "a failed search"],
)
async def test_hosted_tools_are_billed_by_what_they_did(output: list[Any], fee: str, stream: bool) -> None:
    body = json.loads(json.dumps(response(usage_of(100, 50), output=output)))
    event = {"type": "response.completed", "response": body, "sequence_number": 0}
    wire = Wire([event] if stream else body)
    guard = BudgetGuard(Budget("$1.00", allowance=Allowance(input_tokens=1_000, hosted_tool_calls=3)))
    await ask(wire.responses(), guard, stream=stream, max_tokens=300)
    assert guard.spent_usd == Decimal("0.00075") + Decimal(fee)
