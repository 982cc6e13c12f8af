"""What is booked is what the answer says was used, in the provider's own words where LangChain hands them on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from budget_guard import Budget, BudgetExceeded
from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetMiddleware, budgeted_model
from budget_guard.wire import Answer
from budget_guard_langchain.output_cap import added_by, explain, with_cap, with_usage
from budget_guard_langchain.request import read_call
from budget_guard_langchain.response import Reply, _as_chat

TYPES = {
    "chat completions": "own",
    "responses": "openai-chat",
    "messages": "anthropic-chat",
    "generateContent": "chat-google-generative-ai",
}
NAMES = {"messages": "claude-sonnet-4-5", "generateContent": "gemini-2.5-flash"}


def read(dialect: str, message: AIMessage, output: dict[str, Any] | None = None, **more: Any) -> Answer:
    """How an answer in that dialect is read."""
    name = more.pop("model", NAMES.get(dialect, "gpt-4o"))
    params: dict[str, Any] = {"_type": TYPES[dialect], "model": name}
    serialized = {"kwargs": {"use_responses_api": dialect == "responses"}}
    request = read_call(serialized, [HumanMessage("hi")], {}, params).request
    assert request.dialect == dialect
    result = LLMResult(generations=[[ChatGeneration(message=message)]], llm_output=output)
    return Reply(result).read(request, **more)


def told(input: Any = 100, output: Any = 10, total: Any = None, **details: Any) -> Any:
    """LangChain's usage."""
    return {
        "input_tokens": input,
        "output_tokens": output,
        "total_tokens": input + output if total is None and type(input) is type(output) is int else total,
        **details,
    }


def of(content: Any = "ok", usage: Any = None, **more: Any) -> AIMessage:
    """An answer. Its usage is not checked, as that of a class of one's own is not."""
    message = AIMessage(content, **more)
    message.usage_metadata = usage
    return message


# Usage that makes no sense

SENSELESS: list[Any] = [
    told(0, 0),
    told(0, 0, 1_500),
    told(0, 10),
    told(100, 0),
    told(None, None),
    told(-5, 10),
    told(100, -1),
    told(100, 10, -1),
    told(2**60, 10),
    told("100", "10"),
    told(1.5, 10),
    told(True, True),
    told(100, 10, input_token_details={"cache_read": -7}),
    told(100, 10, output_token_details={"reasoning": "many"}),
    {},
]


@pytest.mark.parametrize("dialect", TYPES)
@pytest.mark.parametrize("usage", SENSELESS, ids=str)
def test_usage_that_makes_no_sense_is_none(dialect: str, usage: Any) -> None:
    if dialect == "messages" and usage.get("total_tokens") == -1:
        pytest.skip("Anthropic tells no total")
    answer = read(dialect, of(usage=usage))
    assert answer.usage is None
    assert answer.problem is not None


class Own(BaseChatModel):
    """A class of one's own, whose usage nobody checks."""

    usages: Sequence[Any] = ()
    content: Any = "ok"

    @property
    def _llm_type(self) -> str:
        return "own"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="openai", ls_model_name="gpt-4o", ls_model_type="chat", ls_max_tokens=1_000)

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=of(self.content, self.usages[0]))])

    def _stream(self, *_: Any, run_manager: Any = None, **__: Any) -> Iterator[ChatGenerationChunk]:
        for usage in self.usages:
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=self.content, usage_metadata=usage))
            if run_manager:
                run_manager.on_llm_new_token(self.content, chunk=chunk)
            yield chunk


@pytest.mark.parametrize("usage", SENSELESS, ids=str)
def test_a_call_of_senseless_usage_is_booked_as_it_was_held_and_marked(usage: Any) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    assert Own(usages=[usage]).invoke("hi", {"callbacks": [handler]}).content == "ok"
    report = handler.report()
    assert handler.reserved_usd == 0
    assert handler.spent_usd > Decimal("0.01")  # the cap alone costs that
    assert report.uncertain == handler.spent_usd


def test_contradictions_are_read_the_dearer_way() -> None:
    beside = read("chat completions", of(usage=told(100, 10, 500)))
    assert beside.usage is not None
    assert (beside.usage.input, beside.usage.output) == (100, 400)
    exclusive = read("chat completions", of(usage=told(100, 10, input_token_details={"cache_read": 900})))
    assert exclusive.usage is not None
    assert exclusive.usage.input_tokens == 1_000
    thought = read("chat completions", of(usage=told(100, 10, output_token_details={"reasoning": 300})))
    assert thought.usage is not None
    assert thought.usage.output_tokens == 310


@pytest.mark.parametrize("surface", ["stream", "astream"])
def test_usage_so_far_that_is_told_in_every_chunk_is_no_usage(surface: str) -> None:
    model = Own(usages=[told(100, n) for n in range(1, 19)])
    handler = BudgetCallbackHandler(Budget("$1.00"))
    config: Any = {"callbacks": [handler]}
    if surface == "stream":
        list(model.stream("hi", config))
    else:

        async def main() -> None:
            [chunk async for chunk in model.astream("hi", config)]

        asyncio.run(main())
    assert handler.report().uncertain == handler.spent_usd > 0
    in_parts = BudgetCallbackHandler(Budget("$1.00"))
    list(Own(usages=[told(100, 1), told(0, 2), told(0, 3)]).stream("hi", {"callbacks": [in_parts]}))
    assert in_parts.spent_usd * 10**9 == 100 * 2_500 + 6 * 10_000


def test_a_cost_of_nothing_that_a_provider_tells_is_no_cache() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    Own(usages=[{**told(100, 10), "total_cost": 0}]).invoke("hi", {"callbacks": [handler]})
    assert handler.spent_usd * 10**9 == 100 * 2_500 + 10 * 10_000


# What sets the price


def test_what_anthropic_says_itself_is_read() -> None:
    usage = {
        "input_tokens": 50,
        "output_tokens": 10,
        "speed": "fast",
        "inference_geo": "us",
        "cache_read_input_tokens": 5,
        "server_tool_use": {"web_search_requests": 3},
        "iterations": [
            {"type": "compaction", "input_tokens": 1_000, "output_tokens": 100},
            {"type": "message", "input_tokens": 50, "output_tokens": 10},
        ],
    }
    answer = read("messages", of(usage=told(55, 10)), {"usage": usage, "model": "claude-opus-4-8"})
    assert (answer.tier, answer.region, answer.model) == ("fast", "us", "claude-opus-4-8")
    assert answer.usage is not None
    assert (answer.usage.input, answer.usage.cache_read, answer.usage.output) == (1_050, 5, 110)
    assert answer.usage.web_search == 3


def test_a_streamed_claude_tells_searches_by_its_blocks() -> None:
    found = {"type": "web_search_tool_result", "tool_use_id": "1", "content": [{"url": "u"}]}
    failed = {"type": "web_search_tool_result", "tool_use_id": "2", "content": {"error_code": "too_many"}}
    details = {"cache_read": 40, "ephemeral_1h_input_tokens": 20, "cache_creation": 0}
    answer = read(
        "messages", of([found, failed, {"type": "text", "text": "x"}], told(100, 10, input_token_details=details))
    )
    assert answer.usage is not None
    assert answer.usage.web_search == 1
    assert (answer.usage.input, answer.usage.cache_read, answer.usage.cache_write_1h) == (40, 40, 20)


@pytest.mark.parametrize(("model", "searches"), [("gemini-2.5-flash", 1), ("gemini-3-pro-preview", 2)])
def test_gemini_s_grounding_is_billed(model: str, searches: int) -> None:
    grounding = {"web_search_queries": ["a", "b", "a", ""], "grounding_chunks": []}
    message = of(usage=told(100, 10), response_metadata={"grounding_metadata": grounding, "model_name": model})
    usage = read("generateContent", message, model=model).usage
    assert usage is not None
    assert usage.web_search == searches


def test_of_openai_s_searches_those_that_searched_are_billed() -> None:
    blocks = [
        {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
        {"type": "web_search_call", "status": "completed", "action": {"type": "open_page"}},
        {"type": "web_search_call", "status": "failed", "action": {"type": "search"}},
        {"type": "server_tool_call", "name": "web_search", "args": {"type": "search"}, "id": "1"},
        {"type": "non_standard", "value": {"type": "file_search_call", "status": "completed"}},
        {"type": "text", "text": "x"},
    ]
    usage = read("responses", of(blocks, told(100, 10))).usage
    assert usage is not None
    assert (usage.web_search, usage.other) == (2, (("storage_searches", 1),))


def test_a_provider_s_own_figure_and_cached_tokens_elsewhere_are_read() -> None:
    raw = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "prompt_cache_hit_tokens": 60}
    usage = read("chat completions", of(usage=told()), {"token_usage": raw}).usage
    assert usage is not None
    assert (usage.input, usage.cache_read) == (40, 60)
    ticks = {**raw, "cost_in_usd_ticks": 5_000_000}
    assert read("chat completions", of(usage=told()), {"token_usage": ticks}).cost == 500_000


def test_the_model_and_the_tier_that_served_are_billed() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    run_id = uuid4()
    begin(handler, run_id, model="gpt-4o-mini")
    said = {"model_name": "gpt-4o-2024-08-06", "service_tier": "priority"}
    end(handler, run_id, of(usage=told(), response_metadata=said))
    assert handler.spent_usd * 10**9 == 100 * 4_250 + 10 * 17_000


def begin(handler: BudgetCallbackHandler, run_id: UUID, *, model: str = "gpt-4o", **more: Any) -> None:
    handler.on_chat_model_start(
        {},
        [[HumanMessage("hi")]],
        run_id=run_id,
        metadata={"ls_provider": "openai", "ls_model_name": model, "ls_max_tokens": 100},
        **more,
    )


def end(handler: BudgetCallbackHandler, run_id: UUID, message: BaseMessage) -> None:
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id)


# Errors


class Status(Exception):
    """An error of a client that has no class of its own for it."""

    def __init__(self, status: int, body: object = None, *, of_aws: bool = False) -> None:
        super().__init__(f"status {status}")
        if of_aws:
            self.response: Any = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": body or {"Code": "X"}}
        else:
            self.response = httpx.Response(status, json=body)


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (Status(429), True),
        (Status(429, of_aws=True), True),
        (Status(503, {"error": {"message": "overloaded"}}), True),
        (Status(503, of_aws=True), True),
        (Status(500, of_aws=True), False),
        (Status(424), False),
        (Status(499), False),
        (Status(400, {"error": {"code": "content_filter"}}), False),
        (Status(400, {"error": {"code": "bad"}}), True),
        (type("EndpointConnectionError", (Exception,), {})("no route"), True),
        (type("NoCredentialsError", (Exception,), {})("no key"), True),
        (TimeoutError("read"), False),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_tells_what_it_says_about_the_bill_however_it_is_wrapped(
    error: Exception, free: bool, wrapped: bool
) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    run_id = uuid4()
    begin(handler, run_id)
    raised: BaseException = error
    if wrapped:
        try:
            try:
                raise error
            except Exception as cause:
                raise ValueError("Error raised by the service") from cause
        except ValueError as outer:
            raised = outer
    handler.on_llm_error(raised, run_id=run_id)
    assert handler.reserved_usd == 0
    assert (handler.spent_usd == 0) is free


# Streams and finish reasons


@pytest.mark.parametrize("written", ["", "w", "word "])
def test_a_stream_is_not_stopped_for_the_number_of_its_chunks(written: str) -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    run_id = uuid4()
    begin(handler, run_id)
    for _ in range(900):
        handler.on_llm_new_token(written, run_id=run_id, chunk=object())
    long = "w" * 128 * 101
    with pytest.raises(BudgetExceeded, match="does not keep to the output cap"):
        handler.on_llm_new_token(long, run_id=run_id, chunk=object())


@pytest.mark.parametrize(
    ("said", "cut"),
    [
        ({"finish_reason": "stop"}, False),
        ({"stop_reason": "end_turn"}, False),
        ({"object": "response", "status": "completed"}, False),
        ({"finish_reason": "length"}, True),
        ({"stop_reason": "max_tokens"}, True),
        ({"finish_reason": "MAX_TOKENS"}, True),
        ({"object": "response", "incomplete_details": {"reason": "max_output_tokens"}}, True),
    ],
)
def test_the_finish_reason_tells_a_cut_off(said: dict[str, Any], cut: bool) -> None:
    result = LLMResult(generations=[[ChatGeneration(message=of(usage=told(), response_metadata=said))]])
    assert Reply(result).is_cut_off is cut
    assert Reply(result).finish is not None


@pytest.mark.parametrize("dialect", ["chat completions", "own"])
def test_what_an_answer_is_known_by_may_be_told_beside_it_or_in_it(dialect: str) -> None:
    def read_of(said: dict[str, Any], output: dict[str, Any]) -> tuple[str | None, str | None]:
        message = of(usage=told(), response_metadata={"model_name": "gpt-4o", **said})
        if dialect == "own":
            answer = Reply(LLMResult(generations=[[ChatGeneration(message=message)]], llm_output=output)).read()
        else:
            answer = read(dialect, message, output)
        return answer.id, answer.tier

    inside, beside = {"id": "in", "service_tier": "flex"}, {"id": "by", "service_tier": "priority"}
    assert read_of(inside, {}) == ("in", "flex")
    assert read_of({}, beside) == read_of(inside, beside) == ("by", "priority")
    assert read_of({"id": "in"}, {"service_tier": "priority"}) == ("in", "priority")


def test_an_answer_without_a_message_says_nothing_of_its_bill() -> None:
    assert _as_chat(Generation(text="ok")) == {}
    bill = _as_chat(ChatGeneration(message=of("ok")))
    assert bill == {"content": "ok", "tool_calls": [], "refusal": None, "annotations": None}


# One run id for many calls


def test_a_run_id_that_is_used_for_calls_at_once_holds_each_of_them() -> None:
    handler, other = BudgetCallbackHandler(Budget("$1.00")), BudgetCallbackHandler(Budget("$1.00"))
    run_id = uuid4()
    for _ in range(3):
        begin(handler, run_id)
    held = handler.reserved_usd
    for _ in range(3):
        end(handler, run_id, of(usage=told()))
    assert handler.report().breakdown.llm.calls == 3
    assert handler.reserved_usd == 0
    begin(other, run_id)
    assert held == 3 * other.reserved_usd
    end(other, run_id, of(usage=told()))


def test_a_refusal_gives_back_nothing_of_another_call_with_its_run_id() -> None:
    handler = BudgetCallbackHandler(Budget(max_requests=1))
    run_id = uuid4()
    begin(handler, run_id)
    with pytest.raises(BudgetExceeded):
        begin(handler, run_id)
    end(handler, run_id, of(usage=told()))
    assert handler.report().breakdown.llm.calls == 1


async def test_a_config_with_a_run_id_is_used_again_in_async_code() -> None:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    config: Any = {"callbacks": [handler], "run_id": uuid4()}
    for _ in range(4):
        await Own(usages=[told()]).ainvoke("hi", config)
    assert handler.report().breakdown.llm.calls == 4


# Fields that are added

KEYS: dict[str, Any] = {"api_key": "none"}


@pytest.mark.parametrize(
    ("address", "cap", "asks"),
    [
        (None, {"max_completion_tokens": 7}, False),  # it asks by itself there
        ("https://eu.api.openai.com/v1", {"max_completion_tokens": 7}, True),
        ("https://api.mistral.ai/v1", {"extra_body": {"max_tokens": 7}}, False),
        ("https://x.cloud.databricks.com/serving-endpoints", {"max_completion_tokens": 7}, False),
        ("https://api.deepseek.com/v1", {"extra_body": {"max_tokens": 7}}, True),
    ],
)
def test_fields_are_those_that_the_endpoint_takes(address: str | None, cap: dict[str, Any], asks: bool) -> None:
    model: Any = ChatOpenAI(model="gpt-4o", base_url=address, **KEYS)
    assert with_cap(model, {}, 7)[1] == cap
    assert ("stream_usage" in with_usage(model, {})) is asks
    for own in (None, 500):  # with a cap of the caller's own no other one is sent besides
        capped: Any
        capped, kwargs = with_cap(model.model_copy(update={"max_tokens": own}), {}, 7)
        payload = capped._get_request_payload("hi", **kwargs)
        sent = {
            name: payload[name] for name in ("max_tokens", "max_completion_tokens", "extra_body") if name in payload
        }
        assert sent == cap


@pytest.mark.parametrize(
    ("version", "deployment", "cap"),
    [
        ("2024-08-01-preview", "gpt-4o", {"extra_body": {"max_tokens": 7}}),
        ("2025-04-01-preview", "prod-chat", {"max_completion_tokens": 7}),
        ("2024-08-01-preview", "o3-mini", {"max_completion_tokens": 7}),
    ],
)
def test_azure_s_version_tells_the_name_of_the_cap(version: str, deployment: str, cap: dict[str, Any]) -> None:
    model = AzureChatOpenAI(
        azure_endpoint="https://c.openai.azure.com", api_version=version, azure_deployment=deployment, **KEYS
    )
    assert with_cap(model, {}, 7)[1] == cap


def test_a_refusal_of_a_field_that_was_added_says_so(caplog: pytest.LogCaptureFixture) -> None:
    added = added_by({"temperature": 1}, {"temperature": 1, "extra_body": {"max_tokens": 7}, "stream_usage": True})
    assert added == ("max_tokens", "max_completion_tokens", "stream_options.include_usage")
    assert added_by({"max_tokens": 7, "stream_usage": True}, {"max_tokens": 5, "stream_usage": False}) == ()
    assert added_by({}, {"max_completion_tokens": 7}) == ("max_completion_tokens",)
    error = Status(422, {"detail": [{"loc": ["body", "stream_options"]}]})
    error.status_code = 422  # type: ignore[attr-defined]  # as clients do
    with caplog.at_level(logging.WARNING):
        explain(error, added)
    assert "add_fields=('output_cap',)" in caplog.text
    notes: list[str] = getattr(error, "__notes__", [])  # from Python 3.11 on
    assert ["add_fields=('output_cap',)" in note for note in notes] == [True] * hasattr(error, "add_note")
    caplog.clear()
    explain(Status(429), added)
    explain(error, ())
    assert not caplog.text


def test_each_field_can_be_left_out() -> None:
    big, small = (
        ChatOpenAI(model=name, base_url="http://gateway.example/v1", **KEYS) for name in ("gpt-4o", "gpt-4o-mini")
    )
    plain: Any = budgeted_model(big, small, add_fields=())
    usual: Any = budgeted_model(big, small)
    assert not plain._steer({}).asks_for_usage
    assert usual._steer({}).asks_for_usage
    with pytest.raises(ValueError, match="add_fields"):
        budgeted_model(big, small, add_fields=("cap",))  # type: ignore[arg-type]  # a wrong name on purpose
    with pytest.raises(ValueError, match="add_fields"):
        BudgetMiddleware(Budget("$1.00"), add_fields=("cap",))  # type: ignore[arg-type]  # a wrong name on purpose


# Never silently useless


def test_the_class_of_the_handler_among_the_callbacks_is_refused() -> None:
    config: Any = {"callbacks": [BudgetCallbackHandler]}
    with pytest.raises(TypeError, match=r"write BudgetCallbackHandler\(Budget"):
        Own(usages=[told()]).invoke("hi", config)
    assert not hasattr(BudgetCallbackHandler, "ignore_llm")


def test_a_budgeted_model_without_a_budget_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    class Cheap(Own):
        def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
            return {**super()._get_ls_params(stop), "ls_model_name": "gpt-4o-mini"}

    model = budgeted_model(Own(usages=[told()]), Cheap(usages=[told()]))
    for _ in range(2):
        model.invoke("hi")
    assert caplog.text.count("no budget's handler is active") == 1
    caplog.clear()
    budgeted_model(Own(usages=[told()]), Cheap(usages=[told()]), handler=BudgetCallbackHandler(Budget("$1.00"))).invoke(
        "hi"
    )
    assert "no budget's handler" not in caplog.text
