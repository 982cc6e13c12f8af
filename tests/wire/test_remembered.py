"""A request of a plain conversation is remembered, and read as its dialect reads it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from budget_guard import ModelCall, weigh
from budget_guard.wire import (
    CHAT_COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Dialect,
    Endpoint,
    Request,
    endpoint,
    remembered,
)

OPENAI = endpoint("POST", "api.openai.com", "/v1/chat/completions")
OTHER = endpoint("POST", "example.com", "/v1/chat/completions")
ANSWERS = endpoint("POST", "api.openai.com", "/v1/responses")
CLAUDE = endpoint("POST", "api.anthropic.com", "/v1/messages")
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CALLED = [{"id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": 1}'}}]
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
CONVERSATIONS: list[Any] = [
    [],
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Größe 漢字 \U0001f600"}],
    [{"role": "user", "content": "Hi", "name": "me"}],
    [
        {"role": "assistant", "content": None, "tool_calls": CALLED},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ],
    [{"role": "assistant", "content": None, "audio": {"id": "kept"}}],
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"ttl": "1h"}}]}],
    [{"role": "user", "content": [PICTURE]}],
    [{"type": "item_reference", "id": "1"}],
    [{"role": "user", "content": "Hi", "type": "message"}],
    [
        {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": "{}", "id": "fc_1"},
        {"type": "function_call_output", "call_id": "1", "output": "Größe 漢字"},
    ],
    [{"type": "function_call", "call_id": "1", "name": "look_up", "arguments": {"q": 1}}],
    [{"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image", "file_id": "f1"}]}],
    [{"type": "message", "role": "assistant", "content": "Hi", "id": "m1"}, {"type": "message", "role": "user"}],
    [{"type": "reasoning", "id": "r1", "summary": "x"}],
    [{"type": ["function_call"], "role": "user", "content": "Hi"}],
    [{"role": "user"}],
    [{"id": "kept"}],
    ["Hi"],
    [5],
    "Hi",
    None,
    {"role": "user"},
]
REST: list[dict[str, Any]] = [
    {},
    {"max_tokens": 100, "max_completion_tokens": 200, "n": 2, "temperature": 0.5},
    {"tools": [TOOL], "stream": True, "service_tier": "flex"},
    {"tools": [{"type": "web_search"}], "novelty": 5, "structure": {"x": 1}},
    {"system": "Be brief", "output_config": {"format": {"type": "json_schema"}}, "max_output_tokens": 10},
    {"instructions": "Be brief", "previous_response_id": "r1"},
    {"instructions": [{"role": "developer", "content": "Be brief"}]},
    {"system": [{"type": "text", "text": "Be brief", "cache_control": {"ttl": "1h"}}]},
    {"modalities": ["text", "audio"], "web_search_options": {}},
]


def body_of(dialect: Dialect, model: str, rest: dict[str, Any], conversation: Any) -> dict[str, Any]:
    field = "input" if dialect is RESPONSES else "messages"
    return {"model": model, **rest, field: conversation}


@pytest.mark.parametrize(
    ("dialect", "where"),
    [(CHAT_COMPLETIONS, OPENAI), (CHAT_COMPLETIONS, OTHER), (RESPONSES, ANSWERS), (MESSAGES, CLAUDE)],
)
@pytest.mark.parametrize("aliases", [{}, {"mine": "gpt-4o"}])
def test_it_is_read_as_its_dialect_reads_it(dialect: Dialect, where: Endpoint, aliases: dict[str, str]) -> None:
    for _ in range(2):  # first it is remembered, then it is known
        for rest in REST:
            for conversation in CONVERSATIONS:
                body = body_of(dialect, "mine" if aliases else "gpt-4o", rest, conversation)
                before = copy.deepcopy(body)
                found = remembered.read_request(dialect, where, body, aliases)
                assert found == dialect.read_request(where, before, aliases) and body == before
                again = dialect.read_request(where, before, aliases)
                counted = [each.prompt.texts and each.prompt.texts.counted("o200k_base") for each in (found, again)]
                assert counted[0] == counted[1]


def test_a_dialect_without_messages_reads_by_itself() -> None:
    body = {"model": "text-embedding-3-small", "input": "Hi"}
    where = endpoint("POST", "api.openai.com", "/v1/embeddings")
    assert remembered.read_request(EMBEDDINGS, where, body, {}) == EMBEDDINGS.read_request(where, body, {})


def test_settings_that_differ_are_told_apart() -> None:
    hi = [{"role": "user", "content": "Hi"}]
    caps = [
        remembered.read_request(CHAT_COMPLETIONS, OPENAI, {"model": "gpt-4o", "messages": hi, "max_tokens": cap}, {})
        for cap in (1, True, 1.0, "1", 2)
    ]
    assert [each.max_output_tokens for each in caps] == [1, None, 1, 1, 2]
    named = {"model": "mine", "messages": hi}
    models = [
        remembered.read_request(CHAT_COMPLETIONS, OPENAI, named, aliases).model
        for aliases in ({}, {"mine": "gpt-4o"}, {"mine": "gpt-4o-mini"}, {})
    ]
    assert models == ["mine", "gpt-4o", "gpt-4o-mini", "mine"]


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 10)
    monkeypatch.setattr(remembered, "_remembered", {})
    for seed in range(50):
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "seed": seed}
        remembered.read_request(CHAT_COMPLETIONS, OPENAI, body, {})
        assert len(remembered.__dict__["_remembered"]) == seed % 10 + 1


def test_a_conversation_and_its_weight_are_those_of_its_own_messages() -> None:
    one, other = (
        remembered.read_request(
            CHAT_COMPLETIONS, OPENAI, {"model": "gpt-4o", "messages": [{"role": "user", "content": said}]}, {}
        )
        for said in ("Hi", "Hello there, how are you?")
    )
    assert one.prompt.text < other.prompt.text and one.prompt.conversation != other.prompt.conversation


def test_a_request_and_its_call_with_another_prompt_differ_in_nothing_else() -> None:
    kinds: tuple[Any, Any] = (Request, ModelCall)
    request, call = (kind(*[f"its {name}" for name in kind._fields]) for kind in kinds)
    prompt = weigh(messages=["Hi"])
    assert request.with_prompt(prompt) == request._replace(prompt=prompt)
    assert call.with_prompt(prompt, "somebody") == call._replace(prompt=prompt, agent="somebody")


def test_a_request_with_what_is_not_plain_in_it_is_read_each_time() -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "metadata": {"x": object()}}
    found = remembered.read_request(CHAT_COMPLETIONS, OPENAI, body, {})
    assert found == CHAT_COMPLETIONS.read_request(OPENAI, body, {})
