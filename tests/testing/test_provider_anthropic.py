"""The local provider speaks Anthropic's Messages to the real client and to LangChain's model of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

anthropic = pytest.importorskip("anthropic")

from anthropic import Anthropic, AsyncAnthropic  # noqa: E402  after the importorskip

from budget_guard.testing import LocalProvider, Rates, Reply, Script, ToolCall  # noqa: E402
from budget_guard.units.usage import Usage  # noqa: E402

Serve: TypeAlias = Callable[..., tuple[LocalProvider, Anthropic]]
HI: Any = [{"role": "user", "content": "hi"}]
MODEL = "claude-haiku-4-5"
INPUT_NANO, OUTPUT_NANO = 1_000, 5_000  # a token of claude-haiku-4-5
PRICED = Reply(
    text="hello there",
    input_tokens=1_000,
    cached_tokens=400,
    cache_write_tokens=100,
    cache_write_1h_tokens=50,
    output_tokens=250,
    reasoning_tokens=50,
)
PRICED_NANO = 450 * INPUT_NANO + 400 * 100 + 100 * 1_250 + 50 * 2_000 + 250 * OUTPUT_NANO
CALLS = [ToolCall("search", {"q": "a"}), ToolCall("search", '{"q": "b"}', id="toolu_mine")]
SEARCH: Any = {"name": "search", "description": "Search.", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def anthropic_client() -> Iterator[Anthropic]:
    with Anthropic(base_url="http://127.0.0.1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def serve(anthropic_client: Anthropic) -> Iterator[Serve]:
    """Start a provider and give it with a client of it; stop it after the test."""
    with ExitStack() as stack:

        def start(script: Script | None = None, **options: Any) -> tuple[LocalProvider, Anthropic]:
            provider = stack.enter_context(LocalProvider(script, **options))
            return provider, anthropic_client.with_options(base_url=provider.anthropic_base_url)

        yield start


def client_of(provider: LocalProvider) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=provider.anthropic_base_url, api_key="none", max_retries=0)


def ask(client: Anthropic | AsyncAnthropic, **body: Any) -> Any:
    return client.messages.create(**{"model": MODEL, "max_tokens": 1_000, "messages": HI, **body})


def text_in(event: Any) -> str:
    """The piece of text that an event carries."""
    return event.delta.text if event.type == "content_block_delta" and event.delta.type == "text_delta" else ""


def test_a_message_carries_text_and_usage_and_is_billed_exactly(serve: Serve) -> None:
    provider, client = serve(PRICED)
    message = ask(client)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[-1].text, message.stop_reason) == ("hello there", "end_turn")
    assert message.usage.input_tokens == 450
    assert message.usage.cache_read_input_tokens == 400
    assert message.usage.cache_creation_input_tokens == 150
    assert message.usage.cache_creation.ephemeral_5m_input_tokens == 100
    assert message.usage.cache_creation.ephemeral_1h_input_tokens == 50
    assert message.usage.output_tokens == 250
    assert message.usage.output_tokens_details.thinking_tokens == 50
    assert (message.usage.service_tier, message.usage.server_tool_use) == ("standard", None)
    assert provider.bill_nano == PRICED_NANO
    assert provider.calls[0].usage == Usage(
        input=450, cache_read=400, cache_write_5m=100, cache_write_1h=50, output=200, reasoning=50
    )


def test_a_stream_carries_the_same_and_costs_the_same(serve: Serve) -> None:
    provider, client = serve(PRICED)
    whole = ask(client)
    with client.messages.stream(model=MODEL, max_tokens=1_000, messages=HI) as stream:
        assert "".join(stream.text_stream) == "hello there"
        gathered = stream.get_final_message()
    thought, text = gathered.content
    assert (thought.type, thought.type == "thinking" and thought.thinking) == ("thinking", whole.content[0].thinking)
    assert (text.type, text.type == "text" and text.text) == ("text", "hello there")
    assert (gathered.usage, gathered.stop_reason) == (whole.usage, whole.stop_reason)
    assert provider.bill_nano == 2 * PRICED_NANO


def test_a_stream_tells_the_input_first_and_all_of_it_last(serve: Serve) -> None:
    _, client = serve(PRICED)
    events = list(ask(client, stream=True))
    assert events[0].type == "message_start"
    assert (events[0].message.content, events[0].message.stop_reason) == ([], None)
    assert events[0].message.usage.input_tokens == 450
    assert events[0].message.usage.cache_creation.ephemeral_1h_input_tokens == 50
    assert events[0].message.usage.output_tokens == 1
    assert [event.type for event in events[-2:]] == ["message_delta", "message_stop"]
    final = events[-2].usage
    assert (final.input_tokens, final.cache_read_input_tokens, final.cache_creation_input_tokens) == (450, 400, 150)
    assert (final.output_tokens, final.output_tokens_details.thinking_tokens) == (250, 50)
    assert [event.type for event in events[1:-2] if event.type != "content_block_delta"] == [
        "content_block_start",
        "content_block_stop",
    ] * 2
    blocks = [event.index for event in events[1:-2]]
    assert blocks == sorted(blocks) and set(blocks) == {0, 1}


async def test_the_async_client_gets_the_same() -> None:
    with LocalProvider(PRICED) as provider:
        async with client_of(provider) as client:
            assert (await ask(client)).content[-1].text == "hello there"
            stream = await ask(client, stream=True)
            assert "".join([text_in(event) async for event in stream]) == "hello there"
        assert [call.stream for call in provider.calls] == [False, True]
        assert provider.bill_nano == 2 * PRICED_NANO


def test_tool_calls_arrive_whole_streamed_or_not(serve: Serve) -> None:
    provider, client = serve(Reply(text="Looking.", tool_calls=CALLS))
    message = ask(client, tools=[SEARCH])
    with client.messages.stream(model=MODEL, max_tokens=1_000, messages=HI, tools=[SEARCH]) as stream:
        streamed: Any = stream.get_final_message()
    for got in (message, streamed):
        text, first, second = got.content
        assert (text.text, got.stop_reason) == ("Looking.", "tool_use")
        assert (first.name, first.input, second.input, second.id) == ("search", {"q": "a"}, {"q": "b"}, "toolu_mine")
    assert first.id != second.id
    assert provider.calls[0].tools == ("search",)


def test_a_tool_call_may_be_the_whole_answer(serve: Serve) -> None:
    _, client = serve(Reply(tool_calls=CALLS[:1]))
    (block,) = ask(client).content
    assert block.type == "tool_use"
    started = [event for event in ask(client, stream=True) if event.type == "content_block_start"]
    assert [(event.index, event.content_block.input) for event in started] == [(0, {})]


def test_arguments_that_are_broken_on_purpose_arrive_as_they_are(serve: Serve) -> None:
    _, client = serve(Reply(tool_calls=[ToolCall("search", '{"q": ')]))
    assert ask(client).content[0].input == '{"q": '
    deltas = [event.delta for event in ask(client, stream=True) if event.type == "content_block_delta"]
    assert [delta.partial_json for delta in deltas] == ['{"q": ']


def test_a_model_told_not_to_call_tools_answers(serve: Serve) -> None:
    _, client = serve(Reply(tool_calls=CALLS))
    message = ask(client, tools=[SEARCH], tool_choice={"type": "none"})
    assert (message.content[0].text, message.stop_reason) == ("ok", "end_turn")
    assert ask(client, tools=[SEARCH], tool_choice={"type": "any"}).stop_reason == "tool_use"


def test_an_empty_answer_has_no_blocks_and_is_billed(serve: Serve) -> None:
    provider, client = serve(Reply(text="", output_tokens=1))
    assert ask(client).content == []
    assert "content_block_start" not in [event.type for event in ask(client, stream=True)]
    assert [call.usage.output for call in provider.calls] == [1, 1]


def test_searches_are_blocks_and_are_billed(serve: Serve) -> None:
    provider, client = serve(Reply(input_tokens=0, output_tokens=0, web_searches=2))
    message = ask(client)
    searched = ["server_tool_use", "web_search_tool_result"] * 2
    assert [block.type for block in message.content] == [*searched, "text"]
    assert message.usage.server_tool_use.web_search_requests == 2
    with client.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream:
        assert [block.type for block in stream.get_final_message().content] == [*searched, "text"]
    assert provider.bill_nano == 2 * 2 * 10_000_000


def test_the_cap_is_obeyed_and_is_required(serve: Serve) -> None:
    provider, client = serve(Reply(text="1234" * 50))
    message = ask(client, max_tokens=7)
    assert (message.content[0].text, message.stop_reason) == ("1234" * 7, "max_tokens")
    assert "".join(map(text_in, ask(client, max_tokens=7, stream=True))) == "1234" * 7
    assert [(call.max_output_tokens, call.usage.output) for call in provider.calls] == [(7, 7)] * 2
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        client.post("/v1/messages", body={"model": MODEL, "messages": HI}, cast_to=object)
    assert len(provider.calls) == 2


def test_a_cap_has_to_leave_room_for_an_answer_after_the_thinking(serve: Serve) -> None:
    provider, client = serve()
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    with pytest.raises(anthropic.BadRequestError, match="expected >= 2001, got 2000"):
        ask(client, max_tokens=2_000, thinking=thinking)
    ask(client, max_tokens=2_001, thinking=thinking)
    with pytest.raises(anthropic.BadRequestError, match="expected >= 1, got 0"):
        ask(client, max_tokens=0)
    assert [call.outcome for call in provider.calls] == ["refused", "completed", "refused"]


def test_a_request_is_read_in_neutral_words_and_weighed(serve: Serve) -> None:
    provider, client = serve()
    system = [{"type": "text", "text": "1234"}, {"type": "text", "text": "5678"}]
    called = {"type": "tool_use", "id": "t", "name": "find", "input": {"q": "x"}}  # 4 bytes and 10
    found = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "12"}]}
    ask(
        client,
        system=system,
        messages=[*HI, {"role": "assistant", "content": [called]}, {"role": "user", "content": [found]}],
        output_config={"effort": "low"},
        extra_body={"temperature": 0.5},  # of older models, and no argument of newer clients
        service_tier="standard_only",
        extra_headers={"X-Run": "r1"},
    )
    (served,) = provider.calls
    assert (served.endpoint, served.instructions) == ("messages", "1234\n5678")
    assert (served.temperature, served.reasoning_effort, served.service_tier) == (0.5, "low", "default")
    assert (served.headers["x-run"], len(served.messages)) == ("r1", 3)
    assert served.usage.input == (8 + 2 + 4 + 10 + 2 + 3) // 4
    ask(client, system="be brief", tools=[{"name": "f", "input_schema": {}}])
    assert provider.calls[1].instructions == "be brief"
    assert provider.calls[1].usage.input == -(-(8 + 2 + len('[{"name":"f","input_schema":{}}]')) // 4)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_call_raises_the_clients_own_error_and_costs_nothing(
    serve: Serve, status: int, error: type[Any], kind: str, stream: bool
) -> None:
    provider, client = serve(Reply(status=status, text="not now", retry_after_s=7))
    with pytest.raises(error, match="not now") as raised:
        ask(client, stream=stream)
    assert raised.value.body["error"]["type"] == kind
    assert raised.value.request_id.startswith("req_")
    assert raised.value.response.headers.get("retry-after") == ("7" if status == 429 else None)
    assert (provider.calls[0].outcome, provider.calls[0].status) == ("refused", status)
    assert provider.bill_nano == 0


def test_a_model_that_is_not_there_is_not_found(serve: Serve) -> None:
    _, client = serve({MODEL: Reply()})
    with pytest.raises(anthropic.NotFoundError, match="gpt-4o"):
        ask(client, model="gpt-4o")


def test_each_retry_of_the_client_is_a_call(serve: Serve) -> None:
    provider, client = serve([Reply(status=529), Reply(status=429, retry_after_s=0.001), Reply()])
    ask(client.with_options(max_retries=2))
    assert [served.outcome for served in provider.calls] == ["refused", "refused", "completed"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_dropped_call_is_billed_for_what_was_generated(serve: Serve, stream: bool) -> None:
    provider, client = serve(Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=40, drop_after=2))
    received: list[str] = []
    with pytest.raises(Exception, match=r"[Cc]onnection|closed"):
        received.extend(filter(None, map(text_in, ask(client, stream=True))) if stream else ask(client))
    (served,) = provider.calls
    assert (served.outcome, served.usage.output) == ("dropped", 20 if stream else 40)
    assert provider.bill_nano == 100 * INPUT_NANO + served.usage.output * OUTPUT_NANO


def test_a_stream_that_the_client_closes_is_billed_for_the_chunks_it_let_come(serve: Serve) -> None:
    provider, client = serve(Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=40, gate_chunks=True))
    stream = ask(client, stream=True)
    provider.release_chunk(2)
    pieces = filter(None, map(text_in, stream))
    assert [next(pieces), next(pieces)] == ["ab", "cd"]
    stream.close()
    provider.wait_until_idle()
    assert provider.calls[0].outcome == "aborted"
    assert provider.bill_nano == 100 * INPUT_NANO + 20 * OUTPUT_NANO


async def test_a_cancelled_task_aborts_its_stream() -> None:
    reply = Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=40, gate_chunks=True)
    with LocalProvider(reply) as provider:
        async with client_of(provider) as client:
            received = asyncio.Event()

            async def read() -> None:
                async for event in await ask(client, stream=True):
                    if text_in(event):
                        received.set()

            task = asyncio.create_task(read())
            await provider.await_calls(1)
            provider.release_chunk()
            await received.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await provider.await_idle()
        assert (provider.calls[0].outcome, provider.calls[0].usage.output) == ("aborted", 10)


@pytest.mark.parametrize("mode", ["on", "off", "late", "missing"])
def test_usage_is_billed_however_it_is_reported(mode: Any, serve: Serve) -> None:
    provider, client = serve(Reply(usage=mode, input_tokens=4, output_tokens=4))
    told = mode in ("on", "late")
    assert (getattr(ask(client), "usage", None) is not None) == told
    events = list(ask(client, stream=True))
    assert (getattr(events[0].message, "usage", None) is not None) == told
    assert (getattr(events[-2], "usage", None) is not None) == told
    assert provider.bill_nano == 2 * (4 * INPUT_NANO + 4 * OUTPUT_NANO)


def test_late_usage_is_held_back_until_one_more_release(serve: Serve) -> None:
    provider, client = serve(Reply(text="abcd", chunks=2, usage="late", gate_chunks=True))
    stream = ask(client, stream=True)
    provider.release_chunk(2)
    pieces = filter(None, map(text_in, stream))
    assert next(pieces) + next(pieces) == "abcd"
    assert len(provider.open_calls) == 1
    provider.release_chunk()
    assert list(pieces) == []
    assert provider.calls[0].outcome == "completed"


def test_a_dated_snapshot_costs_what_its_model_costs(serve: Serve) -> None:
    provider, client = serve(Reply(input_tokens=10, output_tokens=1, model="claude-haiku-4-5-20251001"))
    assert ask(client).model == "claude-haiku-4-5-20251001"
    assert provider.bill_nano == 10 * INPUT_NANO + OUTPUT_NANO


def test_a_call_that_the_rates_do_not_know_has_no_known_cost(serve: Serve) -> None:
    rates = Rates(input="1", output="5", max_input=100)
    long, hour = Reply(input_tokens=101), Reply(input_tokens=100, cache_write_1h_tokens=1)
    provider, client = serve([long, hour, Reply(input_tokens=100, output_tokens=1)], prices={MODEL: rates})
    for _ in range(3):
        ask(client)
    assert [call.cost_nano for call in provider.calls] == [None, None, 100 * INPUT_NANO + OUTPUT_NANO]


# --- LangChain's model


@pytest.fixture
async def chat_anthropic() -> AsyncIterator[Callable[..., Any]]:
    """Makes models, and closes their clients after the test."""
    chat_models = pytest.importorskip("langchain_anthropic")
    made: list[Any] = []

    def make(provider: LocalProvider, **options: Any) -> Any:
        given = {"model": MODEL, "base_url": provider.anthropic_base_url, "api_key": "none", "max_retries": 0}
        made.append(chat_models.ChatAnthropic(**{**given, "max_tokens": 1_000, **options}))
        return made[-1]

    yield make
    for model in made:
        model._client.close()
        await model._async_client.close()


async def test_langchains_model_reads_text_tools_and_usage(chat_anthropic: Callable[..., Any]) -> None:
    with LocalProvider(Reply(text="Looking.", tool_calls=CALLS, input_tokens=100, cached_tokens=40)) as provider:
        model = chat_anthropic(provider).bind_tools([SEARCH])
        whole = model.invoke("hi")
        awaited = await model.ainvoke("hi")
        chunks = list(model.stream("hi"))
        streamed = chunks[0]
        for chunk in chunks[1:]:
            streamed += chunk
    for message in (whole, awaited, streamed):
        assert [call["args"] for call in message.tool_calls] == [{"q": "a"}, {"q": "b"}]
        assert message.content[0]["text"] == "Looking."
        assert message.usage_metadata["input_tokens"] == 100
        assert message.usage_metadata["input_token_details"]["cache_read"] == 40
    assert [call.max_output_tokens for call in provider.calls] == [1_000] * 3


def test_langchains_model_sends_a_cap_of_its_own_where_none_is_given(chat_anthropic: Callable[..., Any]) -> None:
    with LocalProvider() as provider:
        chat_anthropic(provider, max_tokens=None).invoke("hi")
    assert provider.calls[0].max_output_tokens == 64_000


async def test_langchains_agent_runs_a_tool_loop_to_its_end(chat_anthropic: Callable[..., Any]) -> None:
    agents = pytest.importorskip("langchain.agents")

    def weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    loop = [
        Reply(tool_calls=[ToolCall("weather", {"city": "Bern"})], input_tokens=100, output_tokens=10),
        Reply(text="Sunny in Bern.", input_tokens=150, output_tokens=20),
    ]
    with LocalProvider(loop) as provider:
        agent = agents.create_agent(chat_anthropic(provider), [weather], system_prompt="Look it up.")
        result = await agent.ainvoke({"messages": HI})
    assert result["messages"][-1].content == "Sunny in Bern."
    assert [(served.tools, served.instructions) for served in provider.calls] == [(("weather",), "Look it up.")] * 2
    assert "sunny in Bern" in str(provider.calls[1].messages)
    assert provider.bill_nano == 250 * INPUT_NANO + 30 * OUTPUT_NANO
