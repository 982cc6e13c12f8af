"""The local provider speaks the real wire format, obeys the request, and bills exactly what it served."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from budget_guard.testing import LocalProvider, ProviderRequest, Rates, Reply, Script, ToolCall
from budget_guard.units.usage import Usage

Serve: TypeAlias = Callable[..., tuple[LocalProvider, OpenAI]]
HI: Any = [{"role": "user", "content": "hi"}]
ASKED: Any = {"include_usage": True}
PRICED = Reply(
    text="hello there",
    input_tokens=1_000,
    cached_tokens=400,
    cache_write_tokens=100,
    output_tokens=250,
    reasoning_tokens=50,
)
PRICED_NANO = 500 * 2_500 + 400 * 1_250 + 100 * 2_500 + 200 * 10_000 + 50 * 10_000


def chat(client: OpenAI, **body: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": HI, **body})


def respond(client: OpenAI, **body: Any) -> Any:
    return client.responses.create(**{"model": "gpt-4o", "input": "hi", **body})


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_chat_json_carries_text_and_usage_and_is_billed_exactly(serve: Serve) -> None:
    provider, client = serve(PRICED)
    reply = chat(client)
    assert reply.choices[0].message.content == "hello there"
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1_000, 250)
    assert reply.usage.prompt_tokens_details.cached_tokens == 400
    assert reply.usage.prompt_tokens_details.cache_write_tokens == 100
    assert reply.usage.completion_tokens_details.reasoning_tokens == 50
    assert provider.bill_nano == PRICED_NANO
    assert provider.bill_usd == Decimal("0.0045")
    assert provider.calls[0].usage == Usage(input=500, cache_read=400, cache_write_5m=100, output=200, reasoning=50)


def test_chat_stream_carries_the_same_and_costs_the_same(serve: Serve) -> None:
    provider, client = serve(PRICED)
    chunks = list(chat(client, stream=True, stream_options=ASKED))
    assert text_of(chunks) == "hello there"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 1_250
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert provider.bill_nano == PRICED_NANO


def test_responses_json_carries_text_and_usage_and_is_billed_exactly(serve: Serve) -> None:
    provider, client = serve(PRICED)
    reply = respond(client)
    assert reply.status == "completed"
    assert reply.output_text == "hello there"
    assert [item.type for item in reply.output] == ["reasoning", "message"]
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (1_000, 250)
    assert reply.usage.input_tokens_details.cached_tokens == 400
    assert reply.usage.output_tokens_details.reasoning_tokens == 50
    assert provider.bill_nano == PRICED_NANO


def test_responses_stream_carries_the_same_and_costs_the_same(serve: Serve) -> None:
    provider, client = serve(PRICED)
    events = list(respond(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "hello there"
    final = events[-1]
    assert final.type == "response.completed"
    assert final.response.output_text == "hello there"
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == final.response.output
    assert final.response.usage.total_tokens == 1_250
    assert provider.bill_nano == PRICED_NANO


async def test_the_async_client_gets_the_same_from_both_endpoints() -> None:
    with LocalProvider(PRICED) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(model="gpt-4o", messages=HI)
            assert whole.choices[0].message.content == "hello there"
            stream = await client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)
            assert text_of([chunk async for chunk in stream]) == "hello there"
            assert (await client.responses.create(model="gpt-4o", input="hi")).output_text == "hello there"
            events = await client.responses.create(model="gpt-4o", input="hi", stream=True)
            assert [event.type async for event in events][-1] == "response.completed"
        assert [call.stream for call in provider.calls] == [False, True, False, True]
        assert provider.bill_nano == 4 * PRICED_NANO


def test_a_cost_is_rounded_up_to_the_nano_once_a_call(serve: Serve) -> None:
    rates = Rates(input="0.0003", output="0.0003")
    provider, client = serve(Reply(input_tokens=1, output_tokens=1), prices={"tiny": rates})
    chat(client, model="tiny")  # 0.6 nano-dollars
    chat(client, model="tiny")
    assert [call.cost_nano for call in provider.calls] == [1, 1]
    assert provider.bill_nano == 2


def test_a_model_without_rates_is_served_and_makes_the_bill_unknown(serve: Serve) -> None:
    provider, client = serve()
    assert provider.bill_nano == 0
    chat(client, model="mystery")
    assert provider.calls[0].cost_nano is None
    with pytest.raises(ValueError, match="mystery"):
        _ = provider.bill_nano


def test_unknown_models_can_be_refused(serve: Serve) -> None:
    provider, client = serve(refuse_unknown_models=True)
    with pytest.raises(openai.NotFoundError, match="mystery") as refused:
        chat(client, model="mystery")
    assert refused.value.code == "model_not_found"
    assert (provider.calls[0].outcome, provider.bill_nano) == ("refused", 0)
    chat(client, model="gpt-4o-2024-08-06")


def test_a_dated_snapshot_costs_what_its_model_costs(serve: Serve) -> None:
    provider, client = serve(Reply(input_tokens=10, output_tokens=1, model="gpt-4o-2024-08-06"))
    assert chat(client, model="gpt-4o").model == "gpt-4o-2024-08-06"
    assert provider.calls[0].served_model == "gpt-4o-2024-08-06"
    assert provider.bill_nano == 10 * 2_500 + 10_000


def test_the_model_that_answers_is_the_one_that_is_billed(serve: Serve) -> None:
    provider, client = serve(Reply(input_tokens=10, output_tokens=0, model="gpt-4o-mini"))
    respond(client, model="router/auto")
    assert provider.bill_nano == 10 * 150


def test_a_service_tier_is_billed_by_its_own_rates_or_not_known(serve: Serve) -> None:
    flex = Rates(input="2.50", output="10", tiers={"flex": Rates(input="1.25", output="5")})
    provider, client = serve(Reply(input_tokens=2, output_tokens=2), prices={"gpt-4o": flex})
    assert chat(client, service_tier="flex").service_tier == "flex"
    assert respond(client, service_tier="auto").service_tier == "default"
    respond(client, service_tier="priority")
    assert [call.cost_nano for call in provider.calls] == [12_500, 25_000, None]


def test_web_searches_are_items_of_a_response_and_are_billed(serve: Serve) -> None:
    provider, client = serve(Reply(input_tokens=0, output_tokens=0, web_searches=2))
    items = [item.type for item in respond(client, tools=[{"type": "web_search"}]).output]
    assert items == ["web_search_call", "web_search_call", "message"]
    events = [event.type for event in respond(client, stream=True)]
    assert events.count("response.web_search_call.completed") == 2
    assert provider.calls[0].tools == ("web_search",)
    assert provider.bill_nano == 2 * 2 * 10_000_000


def test_a_search_without_a_rate_has_no_known_cost(serve: Serve) -> None:
    prices = {"gpt-4o": Rates(input="1", output="1")}
    provider, client = serve(Reply(web_searches=1), prices=prices)
    respond(client)
    assert provider.calls[0].cost_nano is None


def test_tokens_not_given_are_four_bytes_each_of_all_that_the_model_reads(serve: Serve) -> None:
    tool: Any = {"type": "function", "function": {"name": "f"}}  # 45 bytes in a list
    provider, client = serve(Reply(text="12345"))
    chat(client, messages=[{"role": "user", "content": "12345678"}])
    chat(client, messages=[{"role": "user", "content": [{"type": "text", "text": "éé"}]}], tools=[tool])
    respond(client, instructions="1234", input="1234")
    chat(client, messages=[{"role": "user", "content": ""}])
    assert [call.usage.input for call in provider.calls] == [2, 13, 2, 1]
    assert [call.usage.output for call in provider.calls] == [2, 2, 2, 2]


def test_every_choice_asked_for_is_answered_and_billed(serve: Serve) -> None:
    provider, client = serve(Reply(input_tokens=1, output_tokens=5))
    assert len(chat(client, n=3).choices) == 3
    chunks = list(chat(client, n=3, stream=True))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1, 2}
    assert [call.usage.output for call in provider.calls] == [15, 15]


def test_a_continued_response_is_billed_for_the_conversation_before_it(serve: Serve) -> None:
    script = [Reply(input_tokens=100, output_tokens=30, reasoning_tokens=10), Reply()]
    provider, client = serve(script)
    first = respond(client)
    respond(client, input="1234", previous_response_id=first.id)
    assert provider.calls[1].usage.input == 100 + 20 + 1


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
def test_chat_obeys_the_cap_under_either_name(cap: str, serve: Serve) -> None:
    provider, client = serve(Reply(text="1234" * 50))
    reply = chat(client, **{cap: 7})
    assert reply.choices[0].message.content == "1234" * 7
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 7
    assert provider.calls[0].max_output_tokens == 7
    assert text_of(list(chat(client, stream=True, **{cap: 7}))) == "1234" * 7
    assert [call.usage.output for call in provider.calls] == [7, 7]


def test_responses_obeys_the_cap_and_says_incomplete(serve: Serve) -> None:
    provider, client = serve(Reply(text="1234" * 50))
    reply = respond(client, max_output_tokens=20)
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    final = list(respond(client, max_output_tokens=20, stream=True))[-1]
    assert final.type == "response.incomplete"
    assert final.response.output_text == reply.output_text == "1234" * 20
    assert [call.usage.output for call in provider.calls] == [20, 20]


def test_a_cap_cuts_text_in_proportion_to_the_tokens_that_were_given(serve: Serve) -> None:
    _, client = serve(Reply(text="x" * 100, output_tokens=5_000))
    assert respond(client, max_output_tokens=500).output_text == "x" * 10


def test_reasoning_comes_first_out_of_the_cap(serve: Serve) -> None:
    provider, client = serve(Reply(text="never said", reasoning_tokens=100))
    reply = chat(client, max_completion_tokens=60)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (None, "length")
    assert (provider.calls[0].usage.output, provider.calls[0].usage.reasoning) == (0, 60)


def test_a_tool_call_that_does_not_fit_the_cap_is_not_made(serve: Serve) -> None:
    calls = [ToolCall("f", "{}"), ToolCall("long", {"q": "x" * 200})]
    _, client = serve(Reply(tool_calls=calls))
    made = chat(client, max_tokens=10).choices[0].message.tool_calls
    assert [call.function.name for call in made] == ["f"]


def test_tool_calls_arrive_whole_on_both_endpoints_streamed_or_not(serve: Serve) -> None:
    calls = [ToolCall("search", {"q": "a"}), ToolCall("search", '{"q": "b"}', id="call_mine")]
    arguments = ['{"q": "a"}', '{"q": "b"}']
    _, client = serve(Reply(tool_calls=calls))
    message = chat(client).choices[0].message
    assert message.content is None
    assert [call.function.arguments for call in message.tool_calls] == arguments
    with client.chat.completions.stream(model="gpt-4o", messages=HI) as stream:
        gathered = stream.get_final_completion().choices[0]
    assert gathered.finish_reason == "tool_calls"
    assert [call.function.arguments for call in gathered.message.tool_calls or ()] == arguments
    items = respond(client).output
    assert [(item.type, item.name) for item in items] == [("function_call", "search")] * 2
    assert items[1].call_id == "call_mine"
    with client.responses.stream(model="gpt-4o", input="hi") as events:
        streamed: Any = events.get_final_response().output
    assert [item.arguments for item in streamed] == arguments


def test_a_model_told_not_to_call_tools_answers_unless_scripted_to_disobey(serve: Serve) -> None:
    looping = Reply(tool_calls=[ToolCall("search")])
    _, client = serve([looping, Reply(tool_calls=[ToolCall("search")], ignore_tool_choice=True)])
    assert chat(client, tool_choice="none").choices[0].message.content == "ok"
    assert chat(client, tool_choice="none").choices[0].finish_reason == "tool_calls"


def test_the_last_reply_of_a_sequence_repeats(serve: Serve) -> None:
    _, client = serve([Reply(text="first"), Reply(text="then")])
    assert [respond(client).output_text for _ in range(3)] == ["first", "then", "then"]


def test_each_model_has_its_own_script_and_others_share_one(serve: Serve) -> None:
    script: Script = {"gpt-4o": [Reply(text="a"), Reply(text="b")], "*": Reply(text="other")}
    _, client = serve(script)
    asked = ("gpt-4o-mini", "gpt-4o", "gpt-5", "gpt-4o")
    said = [respond(client, model=name).output_text for name in asked]
    assert said == ["other", "a", "other", "b"]


def test_a_model_that_the_script_lacks_is_not_found(serve: Serve) -> None:
    _, client = serve({"gpt-4o": Reply()})
    with pytest.raises(openai.NotFoundError):
        respond(client, model="gpt-5")


def test_a_scripted_function_sees_the_request_in_neutral_words(serve: Serve) -> None:
    seen: list[ProviderRequest] = []

    def script(request: ProviderRequest) -> Script:
        seen.append(request)
        return [Reply(text="one"), Reply(text=f"call {request.index} of {request.model}")]

    tool: Any = {"type": "function", "name": "search", "parameters": {}, "strict": False}
    provider, client = serve(script)
    settings: Any = {"temperature": 0.5, "reasoning_effort": "low", "verbosity": "high"}
    chat(client, model="gpt-5", stream=True, **settings).close()
    reply = respond(
        client,
        tools=[tool],
        tool_choice="required",
        max_output_tokens=99,
        instructions="be brief",
        reasoning={"effort": "high"},
        extra_headers={"X-Run": "r1"},
    )
    assert reply.output_text == "call 1 of gpt-4o"
    first, second = seen
    assert (first.endpoint, first.stream, first.include_usage) == ("chat_completions", True, False)
    assert (first.temperature, first.reasoning_effort, first.verbosity) == (0.5, "low", "high")
    assert (second.endpoint, second.tools, second.tool_choice) == ("responses", ("search",), "required")
    assert (second.max_output_tokens, second.instructions) == (99, "be brief")
    assert second.reasoning_effort == "high"
    assert (second.headers["x-run"], second.index, second.model_index) == ("r1", 1, 0)
    assert second.body["input"] == "hi"
    assert provider.calls[1].tools == ("search",)
    assert "x-run" not in repr(provider.calls[1])


@pytest.mark.parametrize("mode", ["on", "off", "late", "missing"])
def test_usage_is_billed_however_it_is_reported(mode: Any, serve: Serve) -> None:
    provider, client = serve(Reply(usage=mode, input_tokens=4, output_tokens=4))
    told = mode in ("on", "late")
    chunks = list(chat(client, stream=True, stream_options=ASKED))
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([8] if told else [])
    assert (chunks[-1].choices == []) == (mode != "off")
    final: Any = list(respond(client, stream=True))[-1]
    assert final.type == "response.completed"
    assert (final.response.usage is not None) == told
    assert (chat(client).usage is not None) == told
    assert (respond(client).usage is not None) == told
    assert provider.bill_nano == 4 * (4 * 2_500 + 4 * 10_000)


def test_a_chat_stream_that_does_not_ask_for_usage_gets_none(serve: Serve) -> None:
    provider, client = serve()
    chunks = list(chat(client, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert provider.calls[0].include_usage is False


def test_reset_empties_the_ledger_and_begins_the_script_anew(serve: Serve) -> None:
    provider, client = serve([Reply(text="first"), Reply(text="then")])
    respond(client)
    provider.reset()
    assert (provider.calls, provider.bill_nano, provider.peak_concurrency) == ([], 0, 0)
    assert respond(client).output_text == "first"
    assert provider.calls[0].index == 0
    provider.reset(Reply(text="new"))
    assert respond(client).output_text == "new"


def test_several_providers_run_at_once_and_keep_apart(serve: Serve) -> None:
    (one, first), (other, second) = serve(Reply(text="a")), serve(Reply(text="b"))
    assert respond(first).output_text + respond(second).output_text == "ab"
    assert (len(one.calls), len(other.calls)) == (1, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_tokens", -1),
        ("cache_write_1h_tokens", -1),
        ("chunks", 0),
        ("status", 302),
        ("delay_s", -0.1),
        ("web_searches", -1),
    ],
)
def test_a_reply_that_cannot_be_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Reply(**{field: value})


@pytest.mark.parametrize("kind", ["cached_tokens", "cache_write_tokens", "cache_write_1h_tokens"])
def test_a_reply_whose_input_lacks_what_is_cached_is_refused(kind: str) -> None:
    cached: Any = {kind: 2}
    with pytest.raises(ValueError, match="input_tokens"):
        Reply(input_tokens=1, **cached)


@pytest.mark.parametrize("price", ["free", "-1", float("nan"), True, None])
def test_a_rate_that_is_no_price_is_refused_by_name(price: Any) -> None:
    with pytest.raises(ValueError, match="output"):
        Rates(input=1, output=price)
