"""What holds for every dialect, whatever is sent and answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budget_guard.wire import CHAT_COMPLETIONS, GENERATE_CONTENT, MESSAGES, RESPONSES, Answer, Dialect
from budget_guard.wire.weighing import KEPT_HISTORY
from tests.wire.strategies import DIALECTS, ENDPOINTS, json_objects, json_values

many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def is_sane(answer: Answer) -> bool:
    counts = () if answer.usage is None else answer.usage[:-1]
    costs = () if answer.cost is None else (answer.cost,)
    return (answer.usage is None) == (answer.problem is not None) and all(
        type(count) is int and count >= 0 for count in (*counts, *costs)
    )


@many
@given(st.sampled_from(DIALECTS), json_objects, json_objects)
def test_any_json_is_read_or_said_to_be_unreadable(name: str, asked: Any, answered: Any) -> None:
    dialect, at = ENDPOINTS[name]
    before = json.dumps([asked, answered], default=str)
    request = dialect.read_request(at, asked, {"gpt-4o": "x"})
    call = request.call()

    assert call.choices >= 1
    assert call.max_output_tokens is None or call.max_output_tokens >= 0
    assert all(type(weight) is int and weight >= 0 for _, weight in request.prompt.parts)
    assert is_sane(dialect.read_answer(answered, request))
    assert is_sane(dialect.read_answer(answered, None))
    assert json.dumps([asked, answered], default=str) == before, "what is read is not changed"


@many
@given(st.sampled_from(DIALECTS), json_objects, st.integers(1, 10**6))
def test_a_cap_that_is_put_in_is_the_one_that_is_read(name: str, body: Any, cap: int) -> None:
    dialect, at = ENDPOINTS[name]
    put = dialect.put_cap(at, body, cap)
    found = dialect.read_request(at, put.body, {})

    assert found.max_output_tokens == (0 if name == "embeddings" else cap)
    assert not put.added or any(field.split(".")[0] in put.body for field in put.added)


@many
@given(st.sampled_from(DIALECTS), json_objects, st.text(min_size=1, max_size=20))
def test_a_model_that_is_put_in_is_the_one_that_is_read(name: str, body: Any, model: str) -> None:
    dialect, at = ENDPOINTS[name]
    put = dialect.put_model(at, body, model)

    if put is None:
        assert name in ("generateContent", "converse"), "there the path names it"
    else:
        assert dialect.read_request(at, put.body, {}).model == model


@many
@given(st.sampled_from(DIALECTS), json_objects)
def test_usage_is_asked_for_once(name: str, body: Any) -> None:
    dialect, at = ENDPOINTS[name]
    once = dialect.ask_for_usage(at, body)

    assert dialect.ask_for_usage(at, once.body) == (once.body, ())
    assert not once.added or dialect.read_request(at, once.body, {}).asks_for_usage


def text_in(value: Any) -> int:
    """The bytes of every text in *value*."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, dict):
        return sum(text_in(name) + text_in(inner) for name, inner in value.items())
    return sum(map(text_in, value)) if isinstance(value, list) else 0


_MEDIA = ("image", "image_url", "input_image", "document", "input_file", "file", "inlineData", "source", "data")


@many
@given(
    st.sampled_from(["chat completions", "responses", "messages", "generateContent", "converse"]),
    st.lists(json_values, max_size=4),
)
def test_no_text_weighs_less_than_its_bytes(name: str, messages: list[Any]) -> None:
    if any(f'"{word}"' in json.dumps(messages) for word in _MEDIA):
        return  # what is measured otherwise
    dialect, at = ENDPOINTS[name]
    field = {"responses": "input", "generateContent": "contents"}.get(name, "messages")
    prompt = dialect.read_request(at, {field: messages}, {}).prompt
    if KEPT_HISTORY in prompt.unweighed.values():
        return  # of a reference to what the provider keeps, the text says nothing

    assert prompt.text >= text_in(messages)


def stream_of(name: str, events: list[Any]) -> bytes:
    lines = []
    for event in events:
        kind = event.get("type") if name in ("messages", "responses") else None
        lines.append((f"event: {kind}\n" if kind else "") + f"data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def chat_stream(n: int, m: int) -> list[Any]:
    pieces = [{"id": "c", "model": "m", "choices": [{"delta": {"content": "é" * 3}, "finish_reason": None}]}] * 3
    usage = {"prompt_tokens": n, "completion_tokens": m, "total_tokens": n + m}
    return [*pieces, {"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]


def messages_stream(n: int, m: int) -> list[Any]:
    return [
        {
            "type": "message_start",
            "message": {"id": "x", "model": "m", "usage": {"input_tokens": n, "output_tokens": 1}},
        },
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "日本"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": m}},
        {"type": "message_stop"},
    ]


def responses_stream(n: int, m: int) -> list[Any]:
    usage = {"input_tokens": n, "output_tokens": m, "total_tokens": n + m}
    final = {"id": "r", "model": "m", "status": "completed", "output": [{"type": "message"}], "usage": usage}
    return [{"type": "response.output_text.delta", "delta": "x"}, {"type": "response.completed", "response": final}]


def google_stream(n: int, m: int) -> list[Any]:
    usage = {"promptTokenCount": n, "candidatesTokenCount": m, "totalTokenCount": n + m}
    return [{"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}], "usageMetadata": usage}]


@pytest.mark.parametrize(
    ("dialect", "make"),
    [
        (CHAT_COMPLETIONS, chat_stream),
        (MESSAGES, messages_stream),
        (RESPONSES, responses_stream),
        (GENERATE_CONTENT, google_stream),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.lists(st.integers(1, 400), max_size=12), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_stream_says_the_same_in_whatever_pieces(
    dialect: Dialect, make: Any, n: int, m: int, cuts: list[int], hide: bool
) -> None:
    data = stream_of(dialect.name, make(n, m))
    whole, pieces = dialect.stream(None), dialect.stream(None)
    whole.feed(data)
    passed, at = b"", 0
    for cut in cuts:
        passed += pieces.feed(data[at : at + cut], hide_usage=hide)
        at += cut
    passed += pieces.feed(data[at:], hide_usage=hide) + (pieces.left if hide else b"")
    found = pieces.close()

    assert found == whole.close()
    assert found.usage is not None and (found.usage.input_tokens, found.usage.output_tokens) == (n, m)
    assert passed == data or (hide and b'"choices": []' not in passed)


@given(st.sampled_from(DIALECTS), st.lists(json_objects, max_size=3), st.binary(max_size=40), st.booleans())
@settings(deadline=None, max_examples=150)
def test_no_stream_crashes_a_reader(name: str, events: list[Any], noise: bytes, complete: bool) -> None:
    dialect, _ = ENDPOINTS[name]
    for data in (noise, stream_of(name, [e for e in events if isinstance(e.get("type"), (str, type(None)))]) + noise):
        reader = dialect.stream(None)
        assert reader.feed(data) == data
        answer = reader.close(complete=complete)
        assert is_sane(answer)
        assert reader.close(complete=complete) == answer
