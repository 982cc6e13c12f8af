"""The test provider writes the wires that are read here, and the two were written apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_guard.testing.answer import Answer, compose
from budget_guard.testing.reply import Reply, ToolCall
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.wire import Incoming, Wire
from budget_guard.testing.wire_anthropic_messages import AnthropicMessagesWire
from budget_guard.testing.wire_bedrock_converse import BedrockConverseWire
from budget_guard.testing.wire_cohere_chat import CohereChatWire
from budget_guard.testing.wire_google_generate import GoogleGenerateWire
from budget_guard.testing.wire_openai_chat import OpenAIChatWire
from budget_guard.testing.wire_openai_completions import OpenAICompletionsWire
from budget_guard.testing.wire_openai_responses import OpenAIResponsesWire
from budget_guard.wire import Dialect, Endpoint, dialect_for, endpoint

TALK = [{"role": "user", "content": "What is the answer?"}]
PARTS = [{"role": "user", "parts": [{"text": "What is the answer?"}]}]
BLOCKS = [{"role": "user", "content": [{"text": "What is the answer?"}]}]


@dataclass(frozen=True)
class Line:
    """One endpoint, as it is called and as it is served."""

    wire: Wire
    host: str
    path: str
    body: dict[str, Any]
    streamed: str | None = None
    """The path of a stream, where it is another one."""
    tools: bool = True
    cached: bool = True
    """Whether it tells what was read from a cache, and thought."""
    names_model: bool = True
    """Whether the body names the model, and not the path."""

    def read(self, *, stream: bool) -> tuple[Dialect, Endpoint, dict[str, Any], ProviderRequest]:
        """A request, as both sides read it."""
        path = self.streamed if stream and self.streamed else self.path
        dialect, at = dialect_for("POST", self.host, path), endpoint("POST", self.host, path)
        assert dialect is not None
        asked = {**self.body, **({"stream": stream} if self.streamed is None else {})}
        if self.names_model:
            asked["model"] = "gpt-4.1"
        asked = dialect.ask_for_usage(at, asked).body
        return dialect, at, asked, self.provided(asked, path)

    def provided(self, asked: dict[str, Any], path: str | None = None) -> ProviderRequest:
        """What the provider makes of a body."""
        bare, _, query = (path or self.path).partition("?")
        found = self.wire.route.search(bare)
        assert found is not None
        named = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
        return self.wire.read(Incoming(asked, {}, bare, query, named))


LINES = [
    pytest.param(Line(OpenAIChatWire(), "api.openai.com", "/v1/chat/completions", {"messages": TALK}), id="chat"),
    pytest.param(
        Line(
            OpenAIChatWire(),
            "acme.openai.azure.com",
            "/openai/deployments/gpt-4.1/chat/completions?api-version=2025-04-01-preview",
            {"messages": TALK},
            names_model=False,
        ),
        id="azure",
    ),
    pytest.param(Line(OpenAIResponsesWire(), "api.openai.com", "/v1/responses", {"input": TALK}), id="responses"),
    pytest.param(
        Line(AnthropicMessagesWire(), "api.anthropic.com", "/v1/messages", {"messages": TALK, "max_tokens": 4_000}),
        id="messages",
    ),
    pytest.param(
        Line(
            GoogleGenerateWire(),
            "generativelanguage.googleapis.com",
            "/v1beta/models/gemini-2.5-flash:generateContent",
            {"contents": PARTS},
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            names_model=False,
        ),
        id="google",
    ),
    pytest.param(
        Line(
            BedrockConverseWire(),
            "bedrock-runtime.us-east-1.amazonaws.com",
            "/model/amazon.nova-lite-v1%3A0/converse",
            {"messages": BLOCKS},
            "/model/amazon.nova-lite-v1%3A0/converse-stream",
            names_model=False,
        ),
        id="converse",
    ),
    pytest.param(
        Line(CohereChatWire(), "api.cohere.com", "/v2/chat", {"messages": TALK}, tools=False, cached=False), id="cohere"
    ),
    pytest.param(
        Line(
            OpenAICompletionsWire(),
            "api.openai.com",
            "/v1/completions",
            {"prompt": "So", "max_tokens": 4_000},
            tools=False,
            cached=False,
        ),
        id="completions",
    ),
]

replies = st.builds(
    Reply,
    text=st.text(min_size=1, max_size=40),
    input_tokens=st.integers(300, 10**6),
    cached_tokens=st.integers(0, 100),
    output_tokens=st.integers(60, 3_000),
    reasoning_tokens=st.integers(0, 50),
    chunks=st.integers(1, 6),
    tool_calls=st.lists(st.just(ToolCall("look", '{"at": "it"}')), max_size=2),
)


def streamed(wire: Wire, request: ProviderRequest, answer: Answer) -> bytes:
    """All bytes of a stream."""
    steps = [b"".join(wire.event(request, event) for event in step.events) for step in wire.stream(request, answer)]
    return b"".join(wire.joined(request, steps))


@pytest.mark.parametrize("line", LINES)
@given(reply=replies, stream=st.booleans(), cut=st.integers(1, 97))
@settings(deadline=None, max_examples=40)
def test_what_it_bills_is_what_is_read(line: Line, reply: Reply, stream: bool, cut: int) -> None:
    dialect, at, asked, provided = line.read(stream=stream)
    request = dialect.read_request(at, asked, {})
    if not line.tools or not line.cached:
        reply = Reply(text=reply.text, input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)
    answer = compose(provided, reply)

    assert request.max_output_tokens == provided.max_output_tokens
    assert (request.stream, request.choices, request.model) == (stream, 1, provided.model)
    if stream:
        reader, data = dialect.stream(request), streamed(line.wire, provided, answer)
        assert b"".join(reader.feed(data[i : i + cut]) for i in range(0, len(data), cut)) == data
        found = reader.close()
    else:
        found = dialect.read_answer(json.loads(json.dumps(line.wire.whole(provided, answer))), request)
    bill = answer.usage()
    assert found.usage is not None, found.problem
    assert (found.usage.input_tokens, found.usage.output_tokens) == (bill.input_tokens, bill.output_tokens)
    assert found.usage.cache_read == bill.cache_read
    assert found.cut_off == (answer.finish_reason == "length")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("mode", ["off", "missing"])
@pytest.mark.parametrize("stream", [True, False])
def test_usage_that_it_leaves_out_is_not_made_up(line: Line, mode: Any, stream: bool) -> None:
    dialect, at, asked, provided = line.read(stream=stream)
    answer = compose(provided, Reply(text="Hello there", usage=mode))
    reader = dialect.stream(dialect.read_request(at, asked, {}))
    if stream:
        reader.feed(streamed(line.wire, provided, answer))
    found = reader.close() if stream else dialect.read_answer(line.wire.whole(provided, answer), None)
    assert found.usage is None and found.problem


@pytest.mark.parametrize("line", LINES)
def test_a_cap_that_is_put_in_is_one_that_it_takes(line: Line) -> None:
    dialect, at, asked, _ = line.read(stream=False)
    put = dialect.put_cap(at, asked, 777)

    assert line.provided(put.body).max_output_tokens == 777
