"""What is planned for is what is sent: settings, extra arguments and the extra body, the last one wins."""

from __future__ import annotations

import base64
import struct
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from agents import (
    Agent,
    CodeInterpreterTool,
    FileSearchTool,
    HostedMCPTool,
    ImageGenerationTool,
    ModelSettings,
    RunConfig,
    Runner,
    WebSearchTool,
)
from agents.models.interface import Model
from agents.models.multi_provider import MultiProvider

from budget_guard import Allowance, Budget, BudgetError, BudgetExceeded, UnboundedCallError, UnknownPriceError
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard.wire import Request
from budget_guard_openai_agents.request import _together, read_request
from tests.integrations.openai_agents.on_the_wire import (
    Wire,
    ask,
    chat_answer,
    chat_usage,
    response,
    usage_of,
)

MODELS = pytest.mark.parametrize(
    "model_of", [pytest.param(Wire.chat, id="chat"), pytest.param(Wire.responses, id="responses")]
)
CAP = {"chat": "max_completion_tokens", "responses": "max_output_tokens"}


def answer(body: dict[str, Any]) -> dict[str, Any]:
    if "messages" in body:
        return chat_answer(chat_usage(10, 10))
    return response(usage_of(10, 10))


def decided(guard: BudgetGuard) -> Any:
    """The one decision."""
    (decision,) = guard.session.decisions()
    return decision


@MODELS
async def test_the_model_of_the_extra_body_is_what_is_held(model_of: Callable[..., Model]) -> None:
    wire = Wire(answer)
    guard = BudgetGuard(Budget("$1.00"))
    await ask(model_of(wire, "gpt-4o-mini"), guard, max_tokens=100, extra_body={"model": "gpt-4"})
    assert decided(guard).requested == "gpt-4"
    assert [body["model"] for body in wire.sent] == ["gpt-4"]


@MODELS
async def test_the_model_of_the_extra_body_is_refused_where_it_does_not_fit(model_of: Callable[..., Model]) -> None:
    wire = Wire(answer)
    guard = BudgetGuard(Budget("$0.001"))
    with pytest.raises(BudgetExceeded):
        await ask(model_of(wire, "gpt-4o-mini"), guard, max_tokens=100, extra_body={"model": "gpt-4"})
    assert not wire.sent


@MODELS
async def test_a_downgrade_takes_the_place_of_the_extra_body_s_model(model_of: Callable[..., Model]) -> None:
    wire = Wire(answer)
    guard = BudgetGuard(Budget("$1.00"), downgrade_to={"gpt-4": "gpt-4o-mini"}, downgrade_at=0.0001)
    model = model_of(wire, "gpt-4o-mini")
    await ask(model, guard, max_tokens=100, extra_body={"model": "gpt-4", "metadata": {"a": "b"}})
    await ask(model, guard, max_tokens=100, extra_body={"model": "gpt-4", "metadata": {"a": "b"}})
    assert [body["model"] for body in wire.sent] == ["gpt-4", "gpt-4o-mini"]
    assert wire.sent[-1]["metadata"] == {"a": "b"}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_larger_of_two_caps_is_held(field: str) -> None:
    wire = Wire(answer)
    guard = BudgetGuard(Budget("$1.00"))
    await ask(wire.chat(), guard, max_tokens=100, extra_body={field: 5_000})
    assert decided(guard).estimate.output_tokens == 5_000


async def test_the_extra_body_wins_over_the_extra_arguments() -> None:
    wire = Wire(answer)
    guard = BudgetGuard(Budget("$1.00"))
    settings: dict[str, Any] = {"extra_args": {"n": 2}, "extra_body": {"n": 5, "max_completion_tokens": 100}}
    await ask(wire.chat(), guard, **settings)
    assert decided(guard).estimate.output_tokens == 500
    assert wire.sent[0]["n"] == 5


async def test_a_tier_of_the_extra_body_is_what_is_held() -> None:
    plain, dear = BudgetGuard(Budget("$1.00")), BudgetGuard(Budget("$1.00"))
    await ask(Wire(answer).chat(), plain, max_tokens=100)
    await ask(Wire(answer).chat(), dear, max_tokens=100, extra_body={"service_tier": "priority"})
    assert decided(dear).estimate.cost > decided(plain).estimate.cost


@MODELS
@pytest.mark.parametrize(
    "extra",
    [
        {"plugins": [{"id": "web"}]},
        {"search_parameters": {"mode": "on"}},
        {"moderation": {"model": "omni-moderation-latest"}},
        {"tools": [{"type": "web_search"}]},
        {"vendor_extension": {"anything": 1}},
    ],
    ids=lambda extra: next(iter(extra)),
)
async def test_what_may_cost_anything_needs_an_allowance(extra: dict[str, Any], model_of: Callable[..., Model]) -> None:
    wire = Wire(answer)
    with pytest.raises(UnboundedCallError):
        await ask(model_of(wire), BudgetGuard(Budget("$1.00")), max_tokens=100, extra_body=extra)
    assert not wire.sent


@pytest.mark.parametrize(
    "extra",
    [{"previous_response_id": "resp_0"}, {"conversation": "conv_0"}, {"prompt": {"id": "pmpt_0"}}],
    ids=lambda extra: next(iter(extra)),
)
async def test_history_kept_elsewhere_that_the_extra_body_names_needs_an_allowance(extra: dict[str, Any]) -> None:
    wire = Wire(answer)
    with pytest.raises(UnboundedCallError):
        await ask(wire.responses(), BudgetGuard(Budget("$1.00")), max_tokens=100, extra_body=extra)
    assert not wire.sent


@pytest.mark.parametrize("field", ["messages", "input"])
async def test_a_conversation_of_the_extra_body_is_weighed(field: str) -> None:
    wire = Wire(answer)
    guard = BudgetGuard(Budget("$1.00"))
    model = wire.chat() if field == "messages" else wire.responses()
    await ask(model, guard, max_tokens=100, extra_body={field: [{"role": "user", "content": "x" * 40_000}]})
    assert decided(guard).estimate.input_tokens > 5_000  # its tokens, where a tokenizer is installed; else its bytes


async def test_a_plain_parameter_that_nobody_knows_passes_with_one_warning() -> None:
    wire = Wire(answer)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            await ask(wire.chat(), BudgetGuard(Budget("$1.00")), extra_body={"vendor_flag": True})
    assert [sent["vendor_flag"] for sent in wire.sent] == [True] * 3
    assert sum("the parameter 'vendor_flag'" in str(each.message) for each in told) == 1


PROMPT: Any = {"id": "pmpt_123"}


async def run_prompt(wire: Wire, guard: BudgetGuard, model: Any = None) -> None:
    agent = Agent(name="Worker", prompt=PROMPT, model=model, model_settings=ModelSettings(max_tokens=100))
    config = RunConfig(model_provider=MultiProvider(openai_client=wire.client()), tracing_disabled=True)
    await Runner.run(agent, "hello", hooks=guard, run_config=config)


async def test_a_stored_prompt_without_a_model_is_refused() -> None:
    wire = Wire(answer)
    budget = Budget("$1.00", allowance=Allowance(input_tokens=1_000))
    with pytest.raises(UnknownPriceError, match="prompt:pmpt_123"):
        await run_prompt(wire, BudgetGuard(budget))
    assert not wire.sent


async def test_a_stored_prompt_is_let_in_where_its_model_is_named() -> None:
    wire = Wire(answer)
    budget = Budget("$1.00", allowance=Allowance(input_tokens=1_000))
    guard = BudgetGuard(budget, pricing={"prompt:pmpt_123": "gpt-4o"})
    await run_prompt(wire, guard)
    assert "model" not in wire.sent[0]
    assert list(guard.report().breakdown.llm.by_model) == ["gpt-4o"]
    await run_prompt(wire, BudgetGuard(budget), model="gpt-4o-mini")
    assert wire.sent[1]["model"] == "gpt-4o-mini"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_file", "file_url": "https://e.example/a.pdf"},
        {"type": "input_image", "image_url": "https://e.example/a.png"},
        {"type": "input_video", "video_url": "https://e.example/a.mp4"},
        {"type": "something_new", "x": 1},
    ],
    ids=lambda part: part["type"],
)
@MODELS
async def test_content_that_cannot_be_weighed_needs_an_allowance(
    part: dict[str, Any], model_of: Callable[..., Model]
) -> None:
    wire = Wire(answer)
    with pytest.raises(BudgetError) as stop:
        await ask(model_of(wire, "gpt-4o"), BudgetGuard(Budget("$1.00")), [{"role": "user", "content": [part]}])
    assert isinstance(stop.value, UnboundedCallError)
    assert not wire.sent


async def test_an_item_reference_without_a_type_needs_an_allowance() -> None:
    wire = Wire(answer)
    with pytest.raises(UnboundedCallError):
        await ask(wire.responses(), BudgetGuard(Budget("$1.00")), [{"id": "msg_1"}, {"role": "user", "content": "x"}])
    assert not wire.sent


async def test_reasoning_of_another_session_needs_an_allowance_and_that_of_this_one_does_not() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    wire = Wire(response(usage_of(100, 10, 5), model="o3", output=[thought]))
    history: list[Any] = [thought, {"role": "user", "content": "go on"}]
    guard = BudgetGuard(Budget("$1.00"))
    model = wire.responses("o3")
    with pytest.raises(UnboundedCallError, match="reasoning"):
        await ask(model, guard, history, max_tokens=100)
    await ask(model, guard, "hello", max_tokens=100)
    await ask(model, guard, history, max_tokens=100)
    assert len(wire.sent) == 2


async def test_what_was_billed_before_bounds_nothing_that_only_the_provider_can_weigh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    wire = Wire(response(usage_of(100, 10, 5), model="o3"))
    guard = BudgetGuard(Budget("$1.00", allowance=Allowance(input_tokens=1_000)))
    asked: list[Any] = []
    authorize = guard.session.aauthorize

    async def noting(call: Any, **options: Any) -> Any:
        asked.append(call.prompt)
        return await authorize(call, **options)

    monkeypatch.setattr(guard.session, "aauthorize", noting)
    await ask(wire.responses("o3"), guard, "hello", max_tokens=100)
    await ask(wire.responses("o3"), guard, [thought, {"role": "user", "content": "go on"}], max_tokens=100)
    assert [(bool(prompt.opaque), bool(prompt.conversation)) for prompt in asked] == [(False, True), (True, False)]


def test_what_a_request_asks_for_in_two_ways_is_asked_for_together() -> None:
    read = read_request(
        model=None,
        name="gpt-4o",
        system_instructions=None,
        input="hi",
        settings=ModelSettings(),
        tools=[],
        output_schema=None,
        handoffs=[],
    ).request
    items = read._replace(
        needs=frozenset({"vision"}), hosted_tools=("web_search", "mcp"), hour_cache=True, sound_tokens=5
    )
    chat = read._replace(
        needs=frozenset({"tools"}), hosted_tools=("mcp", "file_search"), hour_cache=False, sound_tokens=7
    )
    for one, other in ((items, chat), (chat, items)):
        both = _together(one, other)
        assert both.needs == {"vision", "tools"} and both.hour_cache and both.sound_tokens == 12
        assert set(both.hosted_tools) == {"web_search", "mcp", "file_search"} and len(both.hosted_tools) == 3
        assert _together(one._replace(sound_tokens=None), other).sound_tokens is None
        assert _together(one, other._replace(sound_tokens=None)).sound_tokens is None
        assert not _together(one._replace(hour_cache=False), other._replace(hour_cache=False)).hour_cache


HOSTED: list[tuple[Any, str]] = [
    (WebSearchTool(), "web_search"),
    (FileSearchTool(vector_store_ids=["v"]), "storage_searches"),
    (CodeInterpreterTool(tool_config={"type": "code_interpreter", "container": {"type": "auto"}}), "code_interpreter"),
    (ImageGenerationTool(tool_config={"type": "image_generation"}), "image_generation"),
    (
        HostedMCPTool(tool_config={"type": "mcp", "server_label": "s", "server_url": "https://x.example"}),
        "hosted_mcp",
    ),
]


@pytest.mark.parametrize(("tool", "unit"), HOSTED, ids=lambda value: value if isinstance(value, str) else "")
async def test_hosted_tools_need_an_allowance(tool: Any, unit: str) -> None:
    wire = Wire(answer)
    agent = Agent(name="Worker", model=wire.responses(), tools=[tool])
    with pytest.raises(UnboundedCallError, match=unit):
        await Runner.run(agent, "x", hooks=BudgetGuard(Budget("$1.00")), run_config=RunConfig(tracing_disabled=True))
    assert not wire.sent


async def test_an_argument_given_twice_is_not_sent_and_costs_nothing() -> None:
    guard = BudgetGuard(Budget("$1.00"))
    with pytest.raises(TypeError, match="multiple values"):
        await ask(Wire(answer).chat(), guard, max_tokens=100, extra_args={"max_tokens": 500})
    assert guard.spent_usd == guard.reserved_usd == 0


# What the next call of a conversation may be told by the bill of the last one


def read(extra: dict[str, Any] | None = None, *, input: Any = "hi", system: str | None = None, **more: Any) -> Request:
    """What a call of a model that speaks Chat Completions asks for."""
    return read_request(
        model=Wire(answer).chat(),
        name="gpt-4o",
        system_instructions=system,
        input=input,
        settings=ModelSettings(extra_body=extra),
        tools=[],
        output_schema=None,
        handoffs=[],
        **more,
    ).request


def messages(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": each} for each in texts]}


def test_a_conversation_of_the_extra_body_is_told_from_others_and_goes_on() -> None:
    plain, first = read().prompt.conversation, read(messages("a")).prompt.conversation
    assert plain
    assert first
    assert first != plain
    assert first == read(messages("a", "b")).prompt.conversation
    assert first != read(messages("b")).prompt.conversation
    assert read({"seed": 1}).prompt == read().prompt
    assert read(system="Be brief.").prompt.conversation != plain


@pytest.mark.parametrize(
    ("extra", "more"),
    [
        ({"plugins": [{"id": "web"}]}, {}),
        ({"plugins": [{"id": "web"}], **messages("a")}, {}),
        (messages("a"), {"previous_response_id": "resp_1"}),
        (messages("a"), {"conversation_id": "conv_1"}),
        (None, {"previous_response_id": "resp_1"}),
    ],
)
def test_a_bill_that_was_for_more_than_the_request_carries_tells_nothing(
    extra: dict[str, Any] | None, more: dict[str, Any]
) -> None:
    prompt = read(extra, **more).prompt
    assert prompt.opaque
    assert prompt.conversation == 0


def test_all_of_both_halves_of_a_request_is_weighed() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://e.example/a.png"}}
    more = {"messages": [{"role": "user", "content": [picture]}], "plugins": [{"id": "web"}], "n": 2}
    both = read({**more, "tools": [{"type": "web_search"}]}, input=[], previous_response_id="resp_1")
    history, sent = read(None, input=[], previous_response_id="resp_1"), read(more)
    assert both.prompt.opaque == (*history.prompt.opaque, *both.prompt.opaque[len(history.prompt.opaque) :])
    assert set(sent.prompt.opaque) < set(both.prompt.opaque)
    assert list(both.prompt.unweighed.values()) == ["an image"]
    assert "vision" in both.needs
    assert "web_search" in both.hosted_tools
    assert both.choices == 2


def wav(seconds: int) -> dict[str, Any]:
    """Sound of that length, as a part of a message."""
    rate = struct.pack("<HHIIHH", 1, 1, 8_000, 16_000, 2, 16)
    file = b"RIFF\0\0\0\0WAVE" + b"fmt " + struct.pack("<I", 16) + rate + b"data\0\0\0\0" + bytes(16_000 * seconds)
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(file).decode(), "format": "wav"}}


@pytest.mark.parametrize("where", ["the conversation", "the extra body"])
def test_sound_is_measured_wherever_it_stands(where: str) -> None:
    def heard(*parts: dict[str, Any]) -> int | None:
        message: list[Any] = [{"role": "user", "content": [*parts]}]
        asked = read(input=message) if where == "the conversation" else read({"messages": message})
        assert asked.needs >= {"audio"}
        return asked.sound_tokens

    one, two = heard(wav(1)), heard(wav(2))
    assert one
    assert two
    assert one < two
    assert heard(wav(1), wav(2)) == one + two
    assert heard(wav(1), {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}) is None
    assert read().sound_tokens == 0


def test_the_hour_cache_may_be_asked_for_in_either_half() -> None:
    control = {"type": "ephemeral", "ttl": "1h"}
    part: dict[str, Any] = {"type": "text", "text": "hi", "cache_control": control}
    message: list[Any] = [{"role": "user", "content": [part]}]
    assert not read({"seed": 1}).hour_cache
    assert read({"messages": message}).hour_cache
    assert read({"cache_control": control}).hour_cache
