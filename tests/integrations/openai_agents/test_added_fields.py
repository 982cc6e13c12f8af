"""What the guard adds to a request is what the endpoint takes, can be left out, and is named where it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from agents import OpenAIChatCompletionsModel
from openai import APIStatusError

from budget_guard import Budget
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard_openai_agents.call import explain
from budget_guard_openai_agents.look import _attempts
from tests.integrations.openai_agents.on_the_wire import Wire, ask, chat_answer, chat_chunks, chat_usage

ANSWER = chat_answer(chat_usage(20, 10))
CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def caps_in(body: dict[str, Any]) -> list[str]:
    return [name for name in CAPS if name in body]


@pytest.mark.parametrize(
    ("base_url", "name", "cap"),
    [
        ("https://api.openai.com/v1", "gpt-4o", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "gpt-4o", "max_completion_tokens"),
        ("https://api.openai.com/v1", "ft:o4-mini-2025-04-16:acme::9abc", "max_completion_tokens"),
        ("https://api.mistral.ai/v1", "mistral-large-latest", "max_tokens"),
        ("https://api.deepseek.com", "deepseek-chat", "max_tokens"),
        ("http://localhost:8000/v1", "gpt-4o", "max_tokens"),
        ("http://proxy.internal/v1", "gpt-5", "max_completion_tokens"),
    ],
)
async def test_the_cap_has_the_name_that_the_endpoint_takes(base_url: str, name: str, cap: str) -> None:
    wire = Wire(ANSWER)
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=300))
    await ask(wire.chat(name, base_url=base_url), guard)
    assert caps_in(wire.sent[0]) == [cap]


@pytest.mark.parametrize(
    ("version", "cap"), [("2025-04-01-preview", "max_completion_tokens"), ("2024-06-01", "max_tokens")]
)
async def test_the_cap_of_a_deployment_goes_by_the_version_of_the_api(version: str, cap: str) -> None:
    wire = Wire(ANSWER)
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=300), pricing={"prod-chat": "gpt-4o"})
    await ask(OpenAIChatCompletionsModel("prod-chat", openai_client=wire.azure(version)), guard)
    assert caps_in(wire.sent[0]) == [cap]
    assert wire.paths == ["/openai/deployments/prod-chat/chat/completions"]


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("http://localhost:8000/v1", True),
        ("https://api.mistral.ai/v1", False),
        ("https://api.groq.com/openai/v1", False),
        ("https://adb-1.azuredatabricks.net/serving-endpoints", False),
    ],
)
async def test_a_stream_is_asked_for_usage_where_the_endpoint_takes_that(base_url: str, asked: bool) -> None:
    wire = Wire(chat_chunks(chat_usage(20, 10), "Done."))
    await ask(wire.chat("gpt-4o", base_url=base_url), BudgetGuard(Budget(max_requests=5)), stream=True)
    assert ("stream_options" in wire.sent[0]) is asked


@pytest.mark.filterwarnings("ignore:Nothing caps the output")
@pytest.mark.parametrize("add_fields", [(), ("usage",), ("output_cap",), ("output_cap", "usage")])
async def test_either_field_is_left_out_on_demand(add_fields: Any) -> None:
    wire = Wire(chat_chunks(chat_usage(20, 10), "Done."))
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=300), add_fields=add_fields)
    await ask(wire.chat(base_url="http://localhost:8000/v1"), guard, stream=True)
    assert bool(caps_in(wire.sent[0])) is ("output_cap" in add_fields)
    assert ("stream_options" in wire.sent[0]) is ("usage" in add_fields)
    assert guard.fork().add_fields == guard.add_fields == frozenset(add_fields)


def test_a_field_that_cannot_be_added_is_refused() -> None:
    with pytest.raises(ValueError, match="add_fields"):
        BudgetGuard(Budget("$1.00"), add_fields=("tools",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "complaint", "stream", "setting"),
    [
        (400, "Unsupported parameter: 'max_tokens' is not supported with this model.", False, "('usage',)"),
        (422, "extra_forbidden: body stream_options include_usage", True, "('output_cap',)"),
    ],
    ids=["cap", "usage"],
)
async def test_a_refused_field_says_who_added_it(status: int, complaint: str, stream: bool, setting: str) -> None:
    wire = Wire((status, {"error": {"message": complaint}}))
    guard = BudgetGuard(Budget("$1.00", call_max_output_tokens=300))
    with pytest.raises(APIStatusError) as refused:
        await ask(wire.chat(base_url="http://localhost:8000/v1"), guard, stream=stream)
    assert "budget_guard added" in str(refused.value)
    assert f"add_fields={setting}" in str(refused.value)
    assert guard.spent_usd == 0


async def test_a_field_that_the_caller_set_is_not_ours() -> None:
    wire = Wire((400, {"error": {"message": "Unsupported parameter: 'max_tokens'."}}))
    with pytest.raises(APIStatusError) as refused:
        await ask(wire.chat(base_url="http://localhost:8000/v1"), BudgetGuard(Budget("$1.00")), max_tokens=100)
    assert "budget_guard" not in str(refused.value)


def test_what_looks_at_requests_adds_no_wish_for_usage_which_is_made_above() -> None:
    assert _attempts(frozenset({"output_cap", "usage"})).add_fields == {"output_cap"}
    assert _attempts(frozenset({"usage"})).add_fields == frozenset()


class Refusal(Exception):
    """An error of a client of one's own."""

    def __init__(self, said: str, **told: Any) -> None:
        super().__init__(said, "more")
        self.__dict__.update(told)


COMPLAINT = "Unsupported parameter: 'max_tokens'"
ADDED = "add_fields=('usage',)"


@pytest.mark.parametrize(
    ("error", "explained"),
    [
        (Refusal(COMPLAINT, status_code=400), True),
        (Refusal("no", status_code=400, body={"error": {"message": COMPLAINT}}, message="no"), True),
        (Refusal(COMPLAINT, status_code=400, body=None, message=5), True),
        (Refusal(COMPLAINT, status_code="400"), False),
        (Refusal(COMPLAINT), False),
        (Refusal(COMPLAINT, status_code=500), False),
        (Refusal("Unsupported parameter: 'top_p'", status_code=400), False),
    ],
)
def test_an_error_of_any_client_says_who_added_the_field_that_it_is_about(error: Any, explained: bool) -> None:
    before = (error.args, getattr(error, "message", None))
    explain(error, ("max_tokens",))
    if not explained:
        assert (error.args, getattr(error, "message", None)) == before
        return
    assert ADDED in error.args[0] and error.args[1:] == ("more",)
    assert error.args[0].startswith(str(before[0]))
    assert getattr(error, "message", None) in (5, None, error.args[0])
