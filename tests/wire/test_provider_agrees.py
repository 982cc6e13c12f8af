"""The test provider writes the wires that are read here, and the two were written apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_guard.testing.answer import compose
from budget_guard.testing.script import Reply, ToolCall
from budget_guard.testing.wire import Wire
from budget_guard.testing.wire_anthropic_messages import AnthropicMessagesWire
from budget_guard.testing.wire_openai_chat import OpenAIChatWire
from budget_guard.testing.wire_openai_responses import OpenAIResponsesWire
from budget_guard.wire import CHAT_COMPLETIONS, MESSAGES, RESPONSES, Dialect, endpoint

HOSTS = {"/v1/messages": "api.anthropic.com"}
TALK = [{"role": "user", "content": "What is the answer?"}]
CASES: list[Any] = [
    pytest.param(CHAT_COMPLETIONS, OpenAIChatWire(), {"messages": TALK}, "max_completion_tokens", id="chat"),
    pytest.param(RESPONSES, OpenAIResponsesWire(), {"input": TALK}, "max_output_tokens", id="responses"),
    pytest.param(
        MESSAGES, AnthropicMessagesWire(), {"messages": TALK, "max_tokens": 4_000}, "max_tokens", id="messages"
    ),
]

replies = st.builds(
    Reply,
    text=st.text(max_size=40),
    input_tokens=st.integers(300, 10**6),
    cached_tokens=st.integers(0, 100),
    cache_write_tokens=st.integers(0, 100),
    output_tokens=st.integers(60, 3_000),
    reasoning_tokens=st.integers(0, 50),
    chunks=st.integers(1, 6),
    web_searches=st.integers(0, 3),
    tool_calls=st.lists(st.just(ToolCall("look", '{"at": "it"}')), max_size=2),
)


@pytest.mark.parametrize(("dialect", "wire", "body", "cap"), CASES)
@given(reply=replies, stream=st.booleans(), limit=st.none() | st.integers(61, 500))
@settings(deadline=None, max_examples=60)
def test_what_it_bills_is_what_is_read(
    dialect: Dialect, wire: Wire, body: Any, cap: str, reply: Reply, stream: bool, limit: int | None
) -> None:
    at = endpoint("POST", HOSTS.get(wire.path, "api.openai.com"), wire.path)
    asked = {"model": "gpt-4.1", **body, "stream": stream, **({} if limit is None else {cap: limit})}
    asked = dialect.ask_for_usage(at, asked).body
    provided = wire.read(asked, {})
    request = dialect.read_request(at, asked, {})
    answer = compose(provided, reply)
    bill = answer.usage()

    assert request.max_output_tokens == provided.max_output_tokens
    assert (request.stream, request.choices, request.model) == (stream, 1, provided.model)
    if stream:
        reader = dialect.stream(request)
        for frame in wire.stream(provided, answer):
            assert reader.feed(frame.data) == frame.data
        found = reader.close()
    else:
        found = dialect.read_answer(wire.whole(provided, answer), request)
    searches = 0 if dialect is CHAT_COMPLETIONS else bill.web_search  # which does not tell of them
    assert found.usage == bill._replace(web_search=searches)
    assert found.model == "gpt-4.1"
    assert found.cut_off == (answer.finish_reason == "length")
    assert found.tier == "default"


@pytest.mark.parametrize(("dialect", "wire", "body", "cap"), CASES)
@pytest.mark.parametrize("mode", ["off", "missing"])
def test_usage_that_it_leaves_out_is_not_made_up(dialect: Dialect, wire: Wire, body: Any, cap: str, mode: Any) -> None:
    at = endpoint("POST", HOSTS.get(wire.path, "api.openai.com"), wire.path)
    for stream in (True, False):
        asked = dialect.ask_for_usage(at, {"model": "m", **body, "stream": stream}).body
        provided = wire.read(asked, {})
        answer = compose(provided, Reply(text="Hello there", usage=mode))
        reader = dialect.stream(dialect.read_request(at, asked, {}))
        for frame in wire.stream(provided, answer):
            reader.feed(frame.data)
        found = reader.close() if stream else dialect.read_answer(wire.whole(provided, answer), None)
        assert found.usage is None and found.problem


@pytest.mark.parametrize(("dialect", "wire", "body", "cap"), CASES)
def test_a_cap_that_is_put_in_is_one_that_it_takes(dialect: Dialect, wire: Wire, body: Any, cap: str) -> None:
    at = endpoint("POST", HOSTS.get(wire.path, "api.openai.com"), wire.path)
    put = dialect.put_cap(at, {"model": "m", **body}, 777)

    assert wire.read(put.body, {}).max_output_tokens == 777
    assert dialect.read_answer(wire.error(500, "secret"), None).failed
