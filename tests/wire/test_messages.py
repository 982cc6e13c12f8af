"""Anthropic Messages, at Anthropic, on Bedrock and on Vertex."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from budget_guard.units.usage import Usage
from budget_guard.wire import MESSAGES, Answer, Endpoint, Request, endpoint
from budget_guard.wire.event_stream import encode_frame
from budget_guard.wire.price_headers import with_headers

ANTHROPIC = endpoint("POST", "api.anthropic.com", "/v1/messages")
BEDROCK = endpoint(
    "POST",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream",
)
VERTEX = endpoint(
    "POST",
    "us-east5-aiplatform.googleapis.com",
    "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
)


FETCHED = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}


def request(at: Endpoint = ANTHROPIC, **body: Any) -> Request:
    given = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **body}
    return MESSAGES.read_request(at, given, {})


def body(usage: Any, *content: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "model": "claude-sonnet-4-5",
        "content": [*content, {"type": "text", "text": "Done."}],
        "stop_reason": "end_turn",
        "usage": usage,
        **more,
    }


def answer(usage: Any, *content: Any, asked: Request | None = None, **more: Any) -> Answer:
    return MESSAGES.read_answer(body(usage, *content, **more), asked)


def test_a_request_says_what_sets_its_price() -> None:
    found = request(speed="fast", inference_geo="us", service_tier="standard_only", stream=True)

    assert (found.max_output_tokens, found.speed, found.region, found.stream) == (100, "fast", "us", True)
    assert found.call().service_tier == "fast"
    assert request(service_tier="standard_only").call().service_tier == "default"
    assert request(service_tier="auto").call().service_tier is None
    assert MESSAGES.ask_for_usage(ANTHROPIC, {"stream": True}).added == ()


def test_the_model_stands_in_the_path_elsewhere() -> None:
    on_bedrock, on_vertex = request(BEDROCK, model=None), request(VERTEX, model=None)

    assert on_bedrock.model == "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert on_vertex.model == "claude-sonnet-4-5@20250929"
    assert on_bedrock.stream and on_vertex.stream
    assert (on_bedrock.provider, on_vertex.provider) == ("aws", "google")
    assert MESSAGES.put_model(BEDROCK, {}, "x") is None
    assert MESSAGES.put_model(ANTHROPIC, {"model": "a"}, "b") == ({"model": "b"}, ())


@pytest.mark.parametrize(
    "where",
    [
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"system": [{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}]},
        {"tools": [{"name": "f", "input_schema": {}, "cache_control": {"ttl": "1h"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}]}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "content": [{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}],
                        }
                    ],
                }
            ]
        },
    ],
)
def test_a_one_hour_cache_is_asked_for_anywhere(where: Any) -> None:
    assert request(**where).hour_cache
    assert not request(**json.loads(json.dumps(where).replace("1h", "5m"))).hour_cache


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mcp_servers": [{"url": "https://x"}]}, "what MCP servers may bring in"),
        ({"container": "container_1"}, "files kept by the provider"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "compaction by the provider"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "what web_search may bring in"),
        ({"tools": [{"type": "advisor_20260301", "name": "advisor"}]}, "what advisor may bring in"),
        ({"tools": [{"type": "brand_new_20270101", "name": "x"}]}, "what brand_new_20270101 may bring in"),
        ({"system": [{"type": "image"}]}, "a system prompt of parts that are not text"),
    ],
)
def test_what_the_provider_brings_in_has_no_bound(more: Any, words: str) -> None:
    assert words in request(**more).prompt.opaque


def test_tools_of_the_client_and_cleared_history_cost_their_text_alone() -> None:
    tools = [
        {"name": "f", "input_schema": {"type": "object"}},
        {"type": "custom", "name": "g", "input_schema": {}},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "edit"},
        {"type": "memory_20250818", "name": "memory"},
    ]
    found = request(tools=tools, context_management={"edits": [{"type": "clear_tool_uses_20250919"}]})

    assert not found.prompt.opaque and not found.hosted_tools


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "image", "source": {"type": "url", "url": "https://x"}}, "an image"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "an image"),
        ({"type": "document", "source": {"type": "url", "url": "https://x"}}, "a file"),
        ({"type": "container_upload", "file_id": "f"}, "files kept by the provider"),
        ({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url"}}]}, "an image"),
        ({"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": FETCHED}}, "a file"),
        ({"type": "smell"}, "a part of type smell"),
    ],
)  # fmt: skip
def test_blocks_that_are_not_text_have_no_bound(block: Any, words: str) -> None:
    prompt = request(messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}, block]}]).prompt

    assert list(prompt.unweighed.values()) == [words]


def test_blocks_that_are_text_are_weighed() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s" * 100},
        {"type": "redacted_thinking", "data": "d" * 100},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"type": "image", "source": {"x": "a" * 100}}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "b" * 100}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "c" * 100}]}},
        {"type": "search_result", "content": [{"type": "text", "text": "e" * 100}]},
        {"type": "compaction", "content": "f" * 100},
        {"type": "tool_result", "tool_use_id": "t", "content": "g" * 100},
    ]
    prompt = request(
        messages=[{"role": "user", "content": blocks}], system=[{"type": "text", "text": "h" * 100}]
    ).prompt

    assert not prompt.unweighed and not prompt.opaque
    assert prompt.text >= 700 and prompt.base >= 100


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 10, "output_tokens": 5}, Usage(10, output=5)),
        (
            {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 30},
            Usage(10, 90, 30, output=5),
        ),
        (
            {
                "input_tokens": 0,
                "output_tokens": 5,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            },
            Usage(0, 0, 10, 20, output=5),
        ),
        (
            {"input_tokens": 10, "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 40}},
            Usage(10, output=10, reasoning=40),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1, "tool_search_requests": 1},
            },
            Usage(10, output=5, web_search=2),
        ),
        (
            {"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"oracle_requests": 2}},
            Usage(10, output=5, other=(("oracle", 2),)),
        ),
        ({"input_tokens": 0, "output_tokens": 5}, None),
        ({"input_tokens": 10, "output_tokens": 0}, None),
        ({"input_tokens": 10}, None),
        ({"input_tokens": -10, "output_tokens": 5}, None),
        ({}, None),
        (None, None),
    ],
)  # fmt: skip
def test_inputs_add_up_and_thoughts_are_output(usage: Any, expected: Usage | None) -> None:
    found = answer(usage)

    assert found.usage == expected
    assert (found.problem is None) == (expected is not None)


def test_compactions_are_billed_and_the_top_level_leaves_them_out() -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
    ]
    usage = {"input_tokens": 23_000, "output_tokens": 1_000, "iterations": iterations}

    assert answer(usage).usage == Usage(203_000, output=4_500)


def test_a_top_level_of_the_last_iteration_alone_is_not_the_bill() -> None:
    steps = [{"type": "message", "input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50}] * 3
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50, "iterations": steps}

    assert answer(usage).usage == Usage(300, 150, output=30)


def test_what_other_models_did_is_billed_besides() -> None:
    steps = [
        {"type": "message", "model": "claude-opus-5", "input_tokens": 100, "output_tokens": 1},
        {"type": "advisor_message", "model": "claude-fable-5", "input_tokens": 50, "output_tokens": 20},
        {"type": "fallback_message", "model": "claude-sonnet-4-5", "input_tokens": 100, "output_tokens": 10},
    ]
    found = answer({"input_tokens": 100, "output_tokens": 10, "iterations": steps})

    assert found.usage == Usage(100, output=10)
    assert found.others == (("claude-opus-5", Usage(100, output=1)), ("claude-fable-5", Usage(50, output=20)))


def test_a_senseless_iteration_makes_the_usage_unknown() -> None:
    steps = [{"type": "compaction", "input_tokens": -1, "output_tokens": 10}]

    assert answer({"input_tokens": 100, "output_tokens": 10, "iterations": steps}).usage is None


@pytest.mark.parametrize(
    ("usage", "tier"),
    [
        ({"speed": "fast", "service_tier": "standard"}, "fast"),
        ({"speed": "standard"}, "default"),
        ({"service_tier": "standard"}, "default"),
        ({"service_tier": "priority"}, "priority"),
        ({}, None),
    ],
)
def test_the_speed_and_the_tier_that_served_are_read(usage: Any, tier: str | None) -> None:
    found = answer({"input_tokens": 10, "output_tokens": 5, "inference_geo": "us", **usage})

    assert (found.tier, found.region) == (tier, "us")


def test_searches_are_counted_in_blocks_where_the_usage_does_not_say() -> None:
    usage = {"input_tokens": 10, "output_tokens": 5}
    good = {"type": "web_search_tool_result", "content": [{"type": "web_search_result"}]}
    bad = {"type": "web_search_tool_result", "content": {"type": "web_search_tool_result_error"}}
    ran = {"type": "server_tool_use", "name": "bash_code_execution"}

    assert answer(usage, good, bad, good, ran).usage == Usage(
        10, output=5, web_search=2, other=(("code_execution", 1),)
    )


def test_an_hour_is_booked_where_it_was_asked_for_and_the_split_is_lost() -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 30}
    asked = request(cache_control={"ttl": "1h"})

    assert answer(usage, asked=asked).usage == Usage(10, 0, 0, 30, output=5)


def test_a_cut_off_is_told_by_the_reason() -> None:
    usage = {"input_tokens": 10, "output_tokens": 100}

    assert not answer(usage).cut_off
    assert answer(usage, stop_reason="max_tokens").cut_off


START = {
    "type": "message_start",
    "message": body({"input_tokens": 10, "cache_read_input_tokens": 7, "output_tokens": 1}, content=[]),
}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
END = {
    "type": "message_delta",
    "delta": {"stop_reason": "max_tokens"},
    "usage": {"output_tokens": 25, "input_tokens": None},
}
STOP = {"type": "message_stop"}


def sse(*events: Any) -> bytes:
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


def frames(*events: Any) -> bytes:
    return b"".join(
        encode_frame(
            {":event-type": "chunk", ":message-type": "event"},
            json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abc"}).encode(),
        )
        for event in events
    )


@pytest.mark.parametrize("framed", [sse, frames], ids=["sse", "aws"])
def test_a_stream_tells_its_input_first_and_its_output_last(framed: Any) -> None:
    reader = MESSAGES.stream(request(stream=True))
    data = framed(START, {"type": "ping"}, BLOCK, TEXT, END, STOP)
    for at in range(0, len(data), 13):
        assert reader.feed(data[at : at + 13]) == data[at : at + 13]
    found = reader.close()

    assert found.usage == Usage(10, 7, output=25)
    assert found.cut_off and found.id == "msg_1" and found.model == "claude-sonnet-4-5"


@pytest.mark.parametrize(
    "events",
    [
        (START, BLOCK, TEXT),
        (START, BLOCK, TEXT, {**END, "usage": {}}, STOP),
        (START, BLOCK, TEXT, {"type": "error", "error": {"type": "overloaded_error", "message": "secret"}}),
        (BLOCK, TEXT, END, STOP),
    ],
    ids=["broken", "no usage at its end", "an error", "no start"],
)
def test_a_stream_that_does_not_tell_both_is_of_unknown_cost(events: Any) -> None:
    reader = MESSAGES.stream(request(stream=True))
    reader.feed(sse(*events))
    found = reader.close()

    assert found.usage is None
    assert found.problem is not None and "secret" not in found.problem
    assert found.output_floor == 1


def test_a_broken_or_exceptional_frame_makes_the_cost_unknown() -> None:
    for tail in (b"\x00" * 40, encode_frame({":message-type": "exception", ":exception-type": "throttling"}, b"{}")):
        for events in ((START, BLOCK, TEXT), (START, BLOCK, TEXT, END, STOP)):
            reader = MESSAGES.stream(None)
            reader.feed(frames(*events))
            reader.feed(tail)
            found = reader.close()

            assert found.usage is None and found.failed


def test_no_output_is_billed_for_an_answer_of_nothing_alone() -> None:
    usage = {"input_tokens": 10, "output_tokens": 0}
    assert answer(usage, content=[]).usage == Usage(10)
    assert answer(usage, {"type": "text", "text": "Hello"}).usage is None


def test_an_error_is_not_an_answer() -> None:
    found = MESSAGES.read_answer({"type": "error", "error": {"message": "secret"}}, None)

    assert found.failed and found.usage is None and "secret" not in str(found)


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_the_form_that_an_answer_is_asked_for_is_weighed(field: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object", "description": "s" * 500}}
    asked: dict[str, Any] = {field: form if field == "output_format" else {"format": form}}
    found = request(**asked)
    assert found.prompt.base >= request().prompt.base + 500
    assert "json_schema" in found.needs


def test_a_thread_is_history_that_the_provider_keeps() -> None:
    assert request(thread={"id": "thread_1"}).prompt.opaque == ("history kept by the provider",)
    assert request(thread=None).prompt.opaque == ()


def test_a_guardrail_in_a_header_has_no_bound_and_nothing_is_learned_of_its_conversation() -> None:
    plain = request()
    found = with_headers(plain, {"x-amzn-bedrock-guardrailidentifier": "g1"})
    assert plain.prompt.conversation != 0
    assert found == plain.with_prompt(plain.prompt._replace(opaque=("what a guardrail costs",), conversation=0))
    assert with_headers(plain, {}) == plain
