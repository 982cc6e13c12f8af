"""Chat Completions, as OpenAI and all who copy it speak it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from budget_guard.units.usage import Usage
from budget_guard.wire import CHAT_COMPLETIONS as CHAT
from budget_guard.wire import Answer, Endpoint, Request, endpoint, endpoint_of_url, explain_refusal

OPENAI = endpoint("POST", "api.openai.com", "/v1/chat/completions")
XAI = endpoint("POST", "api.x.ai", "/v1/chat/completions")
OPENROUTER = endpoint("POST", "openrouter.ai", "/api/v1/chat/completions")
MISTRAL = endpoint("POST", "api.mistral.ai", "/v1/chat/completions")
LOCAL = endpoint("POST", "127.0.0.1:8000", "/v1/chat/completions")


def azure(version: str, deployment: str = "prod-chat") -> Endpoint:
    path = f"/openai/deployments/{deployment}/chat/completions"
    return endpoint("POST", "contoso.openai.azure.com", path + (f"?api-version={version}" if version else ""))


def request(at: Endpoint = OPENAI, **body: Any) -> Request:
    return CHAT.read_request(at, {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], **body}, {})


def answer(
    usage: Any, at: Endpoint | None = OPENAI, *, content: Any = "Done.", finish: str = "stop", **body: Any
) -> Answer:
    message = {"role": "assistant", "content": content, **body.pop("message", {})}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": usage,
        **body,
    }
    return CHAT.read_answer(value, None if at is None else request(at))


def counts(prompt: Any, completion: Any, total: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}


@pytest.mark.parametrize(
    ("caps", "cap"),
    [
        ({}, None),
        ({"max_tokens": 100}, 100),
        ({"max_tokens": 100, "max_completion_tokens": 16_000}, 16_000),
        ({"max_completion_tokens": 100, "max_tokens": 16_000}, 16_000),
        ({"max_tokens": None}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "900"}, 900),
        ({"max_tokens": 12.5}, 13),
    ],
)
def test_the_largest_cap_counts(caps: dict[str, Any], cap: int | None) -> None:
    assert request(**caps).max_output_tokens == cap


@pytest.mark.parametrize(
    ("n", "choices"), [(None, 1), (8, 8), ("8", 8), (8.0, 8), (0, 1), (-3, 1), (True, 1), ([8], 1)]
)
def test_every_answer_asked_for_counts(n: Any, choices: int) -> None:
    assert request(n=n).choices == choices
    assert request(n=n).call().choices == choices


def test_a_request_is_a_call_for_the_core() -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    found = request(tools=tools, response_format=schema, service_tier="flex", stream=True)
    call = found.call(agent="a", final=True)

    assert call.needs == {"tools", "json_schema"}
    assert (call.model, call.provider, call.service_tier, call.agent, call.final) == (
        "gpt-4o",
        "openai",
        "flex",
        "a",
        True,
    )
    assert found.stream and not found.asks_for_usage
    assert not found.prompt.opaque and not found.hosted_tools
    assert not call.hour_cache


@pytest.mark.parametrize("tier", [None, "auto"])
def test_a_tier_that_is_left_to_the_provider_is_none(tier: str | None) -> None:
    assert request(service_tier=tier).call().service_tier is None


@pytest.mark.parametrize("tier", ["default", "standard", "on_demand", "standard_only", "performance"])
def test_the_standard_tier_has_one_name_whoever_is_asked_for_it(tier: str) -> None:
    assert request(service_tier=tier).call().service_tier == "default"


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({}, None),
        ({"search_context_size": "low"}, "low"),
        ({"search_context_size": "medium", "search_type": "fast"}, "medium"),
        ({"search_context_size": "low", "search_type": "pro"}, "pro-low"),
        ({"search_context_size": "low", "search_type": "auto"}, "pro-low"),
        ({"search_type": "pro"}, "pro-high"),
        ({"search_context_size": 3}, None),
    ],
)
def test_the_size_of_a_search_sets_the_fee_of_a_request(options: dict[str, Any], context: str | None) -> None:
    assert request(web_search_options=options).call().search_context == context


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"type": "video_url", "video_url": {"url": "https://x"}}, "a video"),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, "an image"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "a file"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}, "audio"),
        ({"type": "holodeck", "text": "x"}, "a part of type holodeck"),
        ({"type": ["text"], "text": "x"}, 'a part of type ["text"]'),
        ({"type": "x" * 500, "text": "x"}, "a part of type unknown"),
        ({"text": "x"}, "a part without a type"),
        ({"id": "item_1"}, "history kept by the provider"),
    ],
)
def test_what_is_not_known_to_be_text_has_no_bound(part: Any, what: str) -> None:
    prompt = request(messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}, part]}]).prompt

    assert list(prompt.unweighed.values()) == [what]


def test_known_text_is_weighed_and_nothing_else_is_said_of_it() -> None:
    history = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "What?"}], "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "reasoning_content": "Let me think of it.",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"type": "image"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "It is so."}]},
    ]
    prompt = request(messages=history).prompt

    assert not prompt.unweighed
    text = "Be brief.What?annLet me think of it.f" + '{"type": "image"}' + "It is so."
    assert prompt.text >= len(text)


def test_sound_kept_from_an_earlier_answer_has_no_bound() -> None:
    prompt = request(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}]).prompt

    assert list(prompt.unweighed.values()) == ["history kept by the provider"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plugins", [{"id": "file-parser"}]),
        ("prompt_cache_options", {"ttl": "12h"}),
        ("data_sources", [{"type": "azure_search"}]),
        ("search_parameters", {"mode": "on"}),
        ("mcp_servers", [{"url": "https://x"}]),
        ("prediction", {"type": "content", "content": "x"}),
        ("tools", [{"type": "web_search"}]),
        ("tools", [{"type": "brand_new_tool"}]),
        ("tools", [{"brand_new_tool": {}}]),
    ],
)
def test_what_costs_more_than_its_text_is_named(field: str, value: Any) -> None:
    assert request(**{field: value}).prompt.opaque


def test_unknown_fields_pass_where_they_are_plain() -> None:
    found = request(brand_new_scalar=3, brand_new_structure={"x": 1}, empty={})

    assert found.unknown == ("brand_new_scalar",)
    assert found.unknown_structures == ("brand_new_structure",)
    assert not found.prompt.opaque
    assert found.call().prompt.opaque == ("the parameter brand_new_structure",)
    assert not found.call(admitted={"brand_new_structure"}).prompt.opaque


def test_models_that_may_answer_in_its_place_are_named() -> None:
    found = request(OPENROUTER, models=["gpt-4o", "openai/gpt-4", "a/b"])

    assert found.models == ("openai/gpt-4", "a/b")
    assert found.call().alternatives == ("openai/gpt-4", "a/b")
    assert found.call(model="openai/gpt-4").model == "openai/gpt-4"


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("gpt-4o-search-preview", {}),
        ("gpt-4o-mini-search-preview-2025-03-11", {}),
        ("gpt-5-search-api", {}),
        ("gpt-4o", {"web_search_options": {}}),
        ("openai/gpt-4o:online", {}),
        ("openai/gpt-4o", {"plugins": [{"id": "web"}]}),
    ],
)
def test_models_and_options_that_search_are_told_apart(model: str, more: dict[str, Any]) -> None:
    assert request(OPENROUTER, model=model, **more).hosted_tools == ("web_search",)


def test_sound_is_asked_for_in_two_ways() -> None:
    assert request(modalities=["text", "audio"]).needs == {"audio"}
    assert request(audio={"voice": "alloy"}).modalities == {"audio"}
    assert not request(modalities=["text"]).modalities


def test_a_one_hour_cache_is_asked_for_in_a_part() -> None:
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}

    assert request(messages=[{"role": "user", "content": [part]}]).hour_cache
    assert (
        request(messages=[{"role": "user", "content": [{**part, "cache_control": {"ttl": "5m"}}]}]).hour_cache is False
    )


@pytest.mark.parametrize(
    ("at", "model", "name"),
    [
        (OPENAI, "gpt-4o", "max_completion_tokens"),
        (OPENAI, "gpt-3.5-turbo", "max_completion_tokens"),
        (OPENAI, "ft:o4-mini-2025-04-16:acme::9abc", "max_completion_tokens"),
        (azure("2025-04-01-preview", "prod-reasoner"), "", "max_completion_tokens"),
        (azure("2025-04-01-preview", "team-o4-mini"), "gpt-4o", "max_completion_tokens"),
        (azure("2024-08-01-preview", "gpt-4o"), "gpt-4o", "max_tokens"),
        (azure("2024-10-21", "o1"), "o1", "max_completion_tokens"),
        (azure("", "x"), "x", "max_completion_tokens"),
        (MISTRAL, "mistral-large-latest", "max_tokens"),
        (LOCAL, "my-llama", "max_tokens"),
        (LOCAL, "gpt-5-mini", "max_completion_tokens"),
        (LOCAL, "gpt-oss-120b", "max_tokens"),
    ],
)
def test_a_cap_goes_under_the_name_that_the_endpoint_takes(at: Endpoint, model: str, name: str) -> None:
    body = {"model": model, "messages": []}
    put = CHAT.put_cap(at, body, 77)

    assert put.body == {**body, name: 77}
    assert put.added == (name,)
    assert "max" not in str(body)


def test_a_cap_takes_the_place_of_all_others_under_the_caller_s_own_name() -> None:
    assert CHAT.put_cap(OPENAI, {"max_tokens": 5}, 77) == ({"max_tokens": 77}, ())
    both = CHAT.put_cap(OPENAI, {"max_tokens": 5, "max_completion_tokens": 9}, 77)

    assert both.body == {"max_completion_tokens": 77}


@pytest.mark.parametrize(
    ("at", "asked"),
    [
        (OPENAI, True),
        (LOCAL, True),
        (azure("2024-10-21"), True),
        (azure(""), True),
        (azure("2024-06-01"), False),
        (MISTRAL, False),
        (OPENROUTER, False),
        (XAI, False),
        (endpoint("POST", "adb-1.azuredatabricks.net", "/serving-endpoints/chat/completions"), False),
    ],
)
def test_a_stream_is_asked_for_usage_only_where_the_endpoint_takes_that(at: Endpoint, asked: bool) -> None:
    put = CHAT.ask_for_usage(at, {"stream": True, "stream_options": {"x": 1}})

    assert ("include_usage" in put.body["stream_options"]) is asked
    assert put.added == (("stream_options.include_usage",) if asked else ())
    assert CHAT.ask_for_usage(at, {"stream": False}) == ({"stream": False}, ())


def test_a_stream_that_is_asked_already_is_left_alone() -> None:
    body = {"stream": True, "stream_options": {"include_usage": True}}

    assert CHAT.ask_for_usage(OPENAI, body) == (body, ())
    with_data = {"stream": True, "data_sources": [{}]}
    assert CHAT.ask_for_usage(azure("2024-10-21"), with_data) == (with_data, ()), "azure-sdk-for-js#30751"


def test_another_model_takes_the_place_of_the_one_asked_for() -> None:
    assert CHAT.put_model(OPENAI, {"model": "a", "x": 1}, "b") == ({"model": "b", "x": 1}, ())


@pytest.mark.parametrize(
    ("usage", "at", "expected"),
    [
        pytest.param(
            counts(18_014, 100, 18_114, prompt_tokens_details={"cached_tokens": 0, "cache_write_tokens": 18_011}),
            OPENAI,
            Usage(3, 0, 18_011, output=100),
            id="openai: written",
        ),
        pytest.param(
            counts(200, 300, 500, prompt_tokens_details={"cached_tokens": 100, "cache_creation_tokens": 50}),
            LOCAL,
            Usage(50, 100, 50, output=300),
            id="litellm: written",
        ),
        pytest.param(
            counts(
                6_200,
                300,
                6_500,
                prompt_tokens_details={
                    "cached_tokens": 5_000,
                    "cache_creation_tokens": 1_000,
                    "cache_creation_token_details": {
                        "ephemeral_5m_input_tokens": 400,
                        "ephemeral_1h_input_tokens": 600,
                    },
                },
            ),
            OPENAI,
            Usage(200, 5_000, 400, 600, output=300),
            id="litellm: written, for how long",
        ),
        pytest.param(
            counts(100, 10, 110, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36),
            endpoint("POST", "api.deepseek.com", "/chat/completions"),
            Usage(36, 64, output=10),
            id="deepseek",
        ),
        pytest.param(
            counts(100, 10, 110, cached_tokens=64),
            endpoint("POST", "api.moonshot.ai", "/v1/chat/completions"),
            Usage(36, 64, output=10),
            id="moonshot",
        ),
        pytest.param(
            counts(10_120, 1_499, 14_428, completion_tokens_details={"reasoning_tokens": 2_809}),
            XAI,
            Usage(10_120, output=1_499, reasoning=2_809),
            id="xai",
        ),
        pytest.param(counts(20, 198, 623), LOCAL, Usage(20, output=603), id="gemini"),
        pytest.param(
            counts(
                108, 3_256, 3_364, citation_tokens=7_299, num_search_queries=74, reasoning_tokens=73_248
            ),
            endpoint("POST", "api.perplexity.ai", "/chat/completions"),
            Usage(108, output=3_256, reasoning=73_248, web_search=74, other=(("output_citation_tokens", 7_299),)),
            id="perplexity deep research",
        ),
        pytest.param(
            counts(100, 10, 110, num_search_queries=3),
            LOCAL,
            Usage(100, output=10, web_search=3),
            id="perplexity, resold",
        ),
        pytest.param(
            counts(100, 10, 110, citation_tokens=50),
            endpoint("POST", "api.perplexity.ai", "/chat/completions"),
            Usage(100, output=10, other=(("output_citation_tokens", 50),)),
            id="perplexity without a search",
        ),
        pytest.param(counts(None, None, None), OPENAI, None, id="nulls"),
        pytest.param(counts(0, 0, 0), OPENAI, None, id="zeros"),
        pytest.param(counts(0, 0, 1_500), OPENAI, None, id="a total alone"),
        pytest.param({}, OPENAI, None, id="nothing"),
        pytest.param(None, OPENAI, None, id="null"),
        pytest.param([1], OPENAI, None, id="a list"),
        pytest.param({"input_tokens": 1_000, "output_tokens": 500}, OPENAI, None, id="other names"),
        pytest.param(counts(10, 0, 10), OPENAI, None, id="no output for an answer"),
    ],
)  # fmt: skip
def test_usage_has_many_shapes(usage: Any, at: Endpoint, expected: Usage | None) -> None:
    found = answer(usage, at)

    assert found.usage == expected
    assert (found.problem is None) == (expected is not None)


def test_an_answer_says_who_served_it() -> None:
    found = answer(counts(10, 5, 15), service_tier="priority")

    assert (found.model, found.tier, found.id, found.source) == ("gpt-4o-2024-08-06", "priority", "chatcmpl-1", "usage")
    assert answer(counts(10, 5, 15), service_tier="default").tier == "default"
    assert answer(counts(10, 5, 15)).tier is None


@pytest.mark.parametrize(
    ("finish", "cut"), [("stop", False), ("length", True), ("tool_calls", False), ("content_filter", False)]
)
def test_an_answer_is_cut_off_where_it_says_so_and_not_by_its_length(finish: str, cut: bool) -> None:
    assert answer(counts(10, 100, 110), finish=finish).cut_off is cut


@pytest.mark.parametrize(
    ("usage", "at", "nano"),
    [
        ({"cost": 0.035}, OPENROUTER, 35_000_000),
        ({"cost": 1.23e-9}, OPENROUTER, 2),
        ({"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": 1.25}}, OPENROUTER, 1_750_000_000),
        ({"cost": 0.5, "is_byok": True}, OPENROUTER, None),
        ({"cost": 0}, OPENROUTER, None),
        ({"cost": -1}, OPENROUTER, None),
        ({"cost": True}, OPENROUTER, None),
        ({"cost": float("nan")}, OPENROUTER, None),
        ({"cost": 1e300}, OPENROUTER, None),
        ({"cost": 0.035}, LOCAL, None),
        ({"cost": 0.035}, OPENAI, None),
        ({"cost_in_usd_ticks": 37_756_001}, XAI, 3_775_601),
        ({"cost_in_usd_ticks": 0}, XAI, None),
        ({"cost_in_usd_ticks": 1.5}, XAI, None),
        ({"cost": {"total_cost": 0.008256}}, endpoint("POST", "api.perplexity.ai", "/chat/completions"), 8_256_000),
        ({"cost": {"total_cost": 5}}, OPENAI, None),
    ],
)
def test_a_provider_s_own_figure_counts_where_it_is_known_what_it_means(
    usage: Any, at: Endpoint, nano: int | None
) -> None:
    found = answer(counts(10, 5, 15, **usage), at)

    assert found.cost == nano
    assert found.source == ("provider" if nano is not None else "usage")


def test_a_free_model_costs_nothing_where_its_name_says_so() -> None:
    free = request(OPENROUTER, model="deepseek/deepseek-chat-v3.1:free")
    body = {"id": "gen-1", "choices": [{"message": {"content": "x"}}], "usage": counts(10, 5, 15, cost=0)}

    assert CHAT.read_answer(body, free).cost == 0


@pytest.mark.parametrize(
    ("model", "message", "searches"),
    [
        ("gpt-4o-search-preview", {}, 1),
        ("gpt-4o", {}, 0),
        ("gpt-4o", {"annotations": [{"type": "url_citation"}]}, 0),
    ],
)
def test_a_search_model_searches_for_every_answer(model: str, message: Any, searches: int) -> None:
    body = {"choices": [{"message": {"content": "x", **message}}], "usage": counts(10, 5, 15), "model": model}
    usage = CHAT.read_answer(body, request(model=model)).usage

    assert usage is not None and usage.web_search == searches


def test_a_search_that_was_allowed_counts_where_it_is_quoted() -> None:
    asked = request(web_search_options={})
    body = {
        "choices": [{"message": {"content": "x", "annotations": [{"type": "url_citation"}]}}],
        "usage": counts(9, 5, 14),
    }
    usage = CHAT.read_answer(body, asked).usage

    assert usage is not None and usage.web_search == 1


def test_searches_that_claude_counts_itself_are_handed_on_by_proxies() -> None:
    usage = answer(counts(10, 5, 15, server_tool_use={"web_search_requests": 3}), LOCAL).usage

    assert usage is not None and usage.web_search == 3


def test_an_error_in_the_shape_of_an_answer_is_one() -> None:
    found = CHAT.read_answer({"error": {"message": "secret prompt"}}, None)

    assert found.failed and found.usage is None
    assert found.problem is not None and "secret" not in found.problem


# --- streams


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "model": "gpt-4o-1", "choices": choices, **more}


def sse(*chunks: Any, done: bool = True) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n" * done


def streamed(*chunks: Any, done: bool = True, complete: bool = True, at: Endpoint = OPENAI) -> Answer:
    reader = CHAT.stream(request(at, stream=True))
    reader.feed(sse(*chunks, done=done))
    return reader.close(complete=complete)


HELLO = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hello"}),
    chunk({}, "stop", service_tier="flex"),
)


def test_the_usage_of_a_stream_comes_at_its_end() -> None:
    found = streamed(*HELLO, chunk(usage=counts(10, 5, 15)))

    assert (found.usage, found.model, found.tier, found.id) == (Usage(10, output=5), "gpt-4o-1", "flex", "c")
    assert not found.cut_off and not found.failed


def test_counts_that_grow_from_chunk_to_chunk_are_not_added_up() -> None:
    pieces = [chunk({"content": "x"}, usage=counts(10, n, 10 + n)) for n in range(1, 19)]
    found = streamed(*pieces, chunk({}, "stop", usage=counts(10, 18, 28)), done=False)

    assert found.usage == Usage(10, output=18)


def test_an_empty_report_after_the_real_one_does_not_count() -> None:
    assert streamed(*HELLO, chunk(usage=counts(10, 5, 15)), chunk(usage=counts(0, 0, 0))).usage == Usage(10, output=5)
    assert streamed(*HELLO, chunk(usage=counts(10, 5, 15)), chunk(usage={})).usage == Usage(10, output=5)


@pytest.mark.parametrize(
    "last",
    [
        chunk({}, "stop", x_groq={"usage": counts(10, 5, 15)}),
        {"choices": [{"delta": {}, "finish_reason": "stop", "usage": counts(10, 5, 15)}]},
    ],
    ids=["groq", "moonshot"],
)
def test_usage_stands_elsewhere_in_some_streams(last: Any) -> None:
    assert streamed(HELLO[1], last, at=LOCAL).usage == Usage(10, output=5)


@pytest.mark.parametrize(
    ("chunks", "options"),
    [
        (HELLO, {}),
        (HELLO[:2], {"done": False, "complete": False}),
        (HELLO[:2], {"done": False}),
        ((*HELLO[:2], chunk({"content": "y"}, usage=counts(10, 2, 12))), {"done": False, "complete": False}),
        ((*HELLO[:2], {"error": {"message": "no"}}), {}),
        ((HELLO[1], chunk({}, "stop"), chunk(usage=counts(0, 0, 0))), {}),
    ],
    ids=["no usage", "broken", "ended early", "counts so far", "an error", "zeros"],
)
def test_a_stream_that_does_not_tell_its_usage_is_of_unknown_cost(chunks: Any, options: Any) -> None:
    found = streamed(*chunks, **options)

    assert found.usage is None and found.problem
    assert found.output_floor == 1, "something was written"


def test_pieces_of_a_stream_are_not_tokens() -> None:
    reader = CHAT.stream(None)
    reader.feed(sse(*[chunk({"content": ""})] * 50, *[chunk({"content": "w"})] * 800, done=False))

    assert reader.output_floor == 7, "800 characters may be 200 tokens, and are 7 at least"


def test_the_chunk_that_only_carries_usage_can_be_held_back() -> None:
    reader = CHAT.stream(None)
    data = sse(*HELLO, chunk(usage=counts(10, 5, 15)))
    passed = b"".join(reader.feed(data[at : at + 7], hide_usage=True) for at in range(0, len(data), 7)) + reader.left

    assert passed == sse(*HELLO)
    assert reader.close().usage == Usage(10, output=5)


def test_a_stream_of_several_choices_is_cut_off_where_one_is() -> None:
    choices = [{"index": 0, "delta": {}, "finish_reason": "stop"}, {"index": 1, "delta": {}, "finish_reason": "length"}]

    assert streamed(HELLO[1], {"choices": choices}, chunk(usage=counts(10, 5, 15))).cut_off


def test_an_address_can_be_a_url() -> None:
    url = "https://u:p@contoso.openai.azure.com:443/openai/deployments/prod%20chat/chat/completions?api-version=1"
    found = endpoint_of_url(url)

    assert (found.host, found.provider) == ("contoso.openai.azure.com", "azure")
    assert (found.deployment, found.api_version) == ("prod chat", "1")
    assert CHAT.read_request(found, {}, {"prod chat": "gpt-4o"}).model == "gpt-4o"


def test_a_refusal_of_a_field_that_was_added_says_who_added_it() -> None:
    put = CHAT.ask_for_usage(LOCAL, {"stream": True})
    body = {
        "detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"], "input": "secret"}]
    }
    said = explain_refusal(put.added, 422, body)

    assert (
        said is not None and "stream_options" in said and "add_fields=('output_cap',)" in said and "secret" not in said
    )
    assert (
        explain_refusal(put.added, 422, json.dumps(body).encode())
        == explain_refusal(put.added, 422, json.dumps(body))
        == said
    )
    cap = explain_refusal(
        ("max_completion_tokens",), 400, {"error": {"message": "Unrecognized: max_completion_tokens"}}
    )
    assert cap is not None and "add_fields=('usage',)" in cap
    assert explain_refusal(put.added, 400, {"error": "no such model"}) is None
    assert explain_refusal(put.added, 500, body) is None
    assert explain_refusal((), 422, body) is None


def test_an_answer_for_later_is_no_answer_yet() -> None:
    assert request(XAI, deferred=True).background
    assert not request(XAI, deferred=False).background


def test_extra_fields_that_a_proxy_may_merge_are_not_let_in() -> None:
    assert request(extra_body={"model": "gpt-4"}).unknown_structures == ("extra_body",)


def test_a_stream_tells_its_usage_where_it_is_asked_for_or_comes_by_itself() -> None:
    assert request().asks_for_usage
    assert not request(stream=True).asks_for_usage
    assert request(stream=True, stream_options={"include_usage": True}).asks_for_usage
    assert not request(stream=True, stream_options={"include_usage": False}).asks_for_usage
    assert request(MISTRAL, stream=True).asks_for_usage  # it takes no such option
