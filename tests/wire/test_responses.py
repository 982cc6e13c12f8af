"""OpenAI Responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from budget_guard.estimate.prompt import KEPT_REASONING
from budget_guard.units.usage import Usage
from budget_guard.wire import RESPONSES, Answer, Request, endpoint

OPENAI = endpoint("POST", "api.openai.com", "/v1/responses")
OTHER = endpoint("POST", "p.example", "/v1/responses")
DONE = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}


def request(given: Any = "Hi", **body: Any) -> Request:
    return RESPONSES.read_request(OPENAI, {"model": "gpt-4.1", "input": given, **body}, {})


def body(usage: Any, *output: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-4.1-2025-04-14",
        "status": "completed",
        "output": [*output, DONE],
        "usage": usage,
        **more,
    }


def counts(
    taken: Any, made: Any, total: Any = None, cached: int = 0, reasoning: int = 0, **details: Any
) -> dict[str, Any]:
    return {
        "input_tokens": taken,
        "output_tokens": made,
        "total_tokens": taken + made if total is None else total,
        "input_tokens_details": {"cached_tokens": cached, **details},
        "output_tokens_details": {"reasoning_tokens": reasoning},
    }


def answer(usage: Any, *output: Any, **more: Any) -> Answer:
    return RESPONSES.read_answer(body(usage, *output, **more), request())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"previous_response_id": "resp_0"}, "history kept by the provider"),
        ({"conversation": "conv_1"}, "history kept by the provider"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "a long cache, whose price is not known"),
        ({"conversation": {"id": "conv_1"}}, "history kept by the provider"),
        ({"prompt": {"id": "pmpt_1"}}, "a prompt kept by the provider"),
        ({"context_management": [{"type": "compaction"}]}, "compaction by the provider"),
        ({"tools": [{"type": "mcp", "server_url": "https://x"}]}, "what hosted_mcp may bring in"),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}]},
            "files kept by the provider",
        ),
    ],
)
def test_what_the_provider_keeps_or_brings_in_has_no_bound(more: Any, words: str) -> None:
    assert words in request(**more).prompt.opaque


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "history kept by the provider"),
        ({"id": "msg_1"}, "history kept by the provider"),
        ({"type": "compaction", "id": "c"}, "history kept by the provider"),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, KEPT_REASONING),
        ({"type": "hologram"}, "a part of type hologram"),
        ({"role": "user", "content": [{"type": "input_file", "file_url": "https://x/y.pdf"}]}, "a file"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}, "a file"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}, "an image"),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_image", "image_url": "https://x"}],
            },
            "an image",
        ),
        (
            {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "file_id": "f"}},
            "an image",
        ),
        ({"type": "image_generation_call", "id": "ig", "result": "AAAA"}, "an image"),
    ],
)
def test_items_that_are_not_text_have_no_bound(item: Any, words: str) -> None:
    assert list(request([{"role": "user", "content": "Hi"}, item]).prompt.unweighed.values()) == [words]


def test_a_history_of_text_is_weighed_whole() -> None:
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "What?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" * 1_000},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"type": "input_file"}'},
        {"type": "function_call_output", "call_id": "c", "output": "found"},
        {"type": "compaction", "id": "c", "encrypted_content": "y" * 500},
        DONE,
    ]
    prompt = request(history, instructions="Be brief.").prompt

    assert not prompt.unweighed and not prompt.opaque
    assert prompt.text >= 1_500


def test_reasoning_that_only_the_provider_has_is_named() -> None:
    items = [{"type": "reasoning", "id": "rs_1"}, {"type": "reasoning", "id": "rs_2", "encrypted_content": "x"}, DONE]

    assert request(items).reasoning_ids == ("rs_1",)
    assert answer(counts(10, 5), {"type": "reasoning", "id": "rs_9"}).reasoning_ids == ("rs_9",)


def test_a_request_without_a_model_has_none() -> None:
    assert RESPONSES.read_request(OPENAI, {"prompt": {"id": "p"}}, {}).model == ""


def test_a_cap_and_a_schema_and_functions_are_read() -> None:
    tools = [{"type": "function", "name": "f", "parameters": {}}, {"type": "custom", "name": "g"}, {"type": "computer"}]
    found = request(
        max_output_tokens=300, tools=tools, text={"format": {"type": "json_schema", "schema": {}}}, background=True
    )

    assert (found.max_output_tokens, set(found.needs), found.hosted_tools) == (300, {"tools", "json_schema"}, ())
    assert found.background
    assert RESPONSES.put_cap(OPENAI, {"max_output_tokens": 1}, 9) == ({"max_output_tokens": 9}, ())
    assert RESPONSES.put_cap(OPENAI, {}, 9).added == ("max_output_tokens",)


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        ("web_search", "web_search"),
        ("web_search_preview_2025_03_11", "web_search"),
        ("file_search", "storage_searches"),
        ("code_interpreter", "code_interpreter"),
        ("image_generation", "image_generation"),
        ("shell", "hosted_shell"),
        ("brand_new", "brand_new"),
    ],
)
def test_tools_of_the_provider_are_named_by_their_unit(kind: str, unit: str) -> None:
    assert request(tools=[{"type": kind}]).hosted_tools == (unit,)


def test_a_shell_of_one_s_own_is_not_the_provider_s() -> None:
    assert request(tools=[{"type": "shell", "environment": {"type": "local"}}]).hosted_tools == ()


def search(action: Any = None, status: str = "completed") -> dict[str, Any]:
    return {"type": "web_search_call", "id": "ws", "status": status, **({} if action is None else {"action": action})}


@pytest.mark.parametrize(
    ("items", "searches", "other"),
    [
        ([search({"type": "search", "query": "x"})] * 2, 2, ()),
        ([search({"type": "open_page"}), search({"type": "find_in_page"}), search({"type": "find"})], 0, ()),
        ([search()], 1, ()),
        ([search({"type": "search"}, "failed"), search({"type": "search"}, "in_progress")], 0, ()),
        ([{"type": "file_search_call", "status": "completed"}] * 2, 0, (("storage_searches", 2),)),
        ([{"type": "code_interpreter_call", "container_id": "a"}] * 3, 0, (("code_interpreter", 1),)),
        ([{"type": "image_generation_call", "status": "completed"}], 0, (("image_generation", 1),)),
        ([{"type": "mcp_call"}, {"type": "function_call"}], 0, ()),
    ],
)
def test_only_events_that_cost_are_counted(items: Any, searches: int, other: Any) -> None:
    usage = answer(counts(3_000, 500), *items).usage

    assert usage == Usage(3_000, output=500, web_search=searches, other=other)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (counts(100, 20, cached=40, reasoning=5, cache_write_tokens=10), Usage(50, 40, 10, output=15, reasoning=5)),
        (
            counts(
                100, 20, cache_write_tokens=50, cache_write_tokens_details={"ttl_12h_tokens": 30, "ttl_30m_tokens": 20}
            ),
            Usage(50, 0, 20, output=20, other=(("cache_write_12h", 30),)),
        ),
        (counts(100, 20, 500), Usage(100, output=400)),
        (counts(100, 20, 100 + 20 + 300, reasoning=300), Usage(100, output=20, reasoning=300)),
        (counts(0, 0), None),
        ({"input_tokens": None, "output_tokens": 5, "total_tokens": 5}, None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_is_read_as_it_adds_up(usage: Any, expected: Any) -> None:
    assert answer(usage).usage == expected


def test_an_incomplete_answer_is_cut_off_only_by_its_cap() -> None:
    by_cap = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

    assert answer(counts(1, 1), **by_cap).cut_off
    assert not answer(counts(1, 1), status="incomplete", incomplete_details={"reason": "content_filter"}).cut_off
    assert answer(counts(1, 1), service_tier="flex").tier == "flex"


def sse(*events: Any) -> bytes:
    return b"".join(f"event: {e.get('type')}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_the_last_event_of_a_stream_carries_the_answer(end: str) -> None:
    reader = RESPONSES.stream(request(stream=True))
    final = body(counts(100, 20), search({"type": "search"}), status=end, service_tier="priority")
    created = {**final, "output": [], "usage": None, "status": "in_progress"}
    data = sse(
        {"type": "response.created", "response": created},
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": f"response.{end}", "response": final},
    )
    for at in range(0, len(data), 11):
        reader.feed(data[at : at + 11])
    found = reader.close()

    assert found.usage == Usage(100, output=20, web_search=1)
    assert (found.tier, found.model) == ("priority", "gpt-4.1-2025-04-14")


def test_the_items_of_a_stream_count_where_its_last_event_has_none() -> None:
    done = {"type": "response.output_item.done", "item": search({"type": "search"})}
    for output, searches in (([], 1), ([search({"type": "search"})] * 2, 2)):
        reader = RESPONSES.stream(request(stream=True))
        reader.feed(sse(done, {"type": "response.completed", "response": {**body(counts(100, 20)), "output": output}}))
        assert reader.close().usage == Usage(100, output=20, web_search=searches)


def test_a_stream_that_breaks_or_fails_is_of_unknown_cost() -> None:
    started = {"type": "response.created", "response": body(None)}
    delta = {"type": "response.function_call_arguments.delta", "delta": "x" * 300}
    reader = RESPONSES.stream(request(stream=True))
    reader.feed(sse(started, delta))
    broken = reader.close(complete=False)

    assert (broken.usage, broken.failed, broken.output_floor) == (None, True, 3)
    reader = RESPONSES.stream(None)
    reader.feed(sse(started, {"type": "error", "message": "secret"}))
    assert "secret" not in str(reader.close().problem)


def test_an_error_in_the_shape_of_an_answer_is_one() -> None:
    assert RESPONSES.read_answer({"id": "r", "status": "failed", "error": {"code": "x"}}, None).failed
    assert OTHER.provider is None


def test_xai_counts_the_uses_of_its_tools_itself() -> None:
    used = {
        "web_search_calls": 2,
        "x_search_calls": 1,
        "file_search_calls": 1,
        "mcp_calls": 4,
        "code_interpreter_calls": 0,
    }
    usage = answer({**counts(100, 20), "server_side_tool_usage_details": used}, search()).usage

    assert usage == Usage(100, output=20, web_search=2, other=(("x_search", 1), ("storage_searches", 1)))
