"""Completions, Embeddings, Bedrock Converse and Cohere chat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from budget_guard.units.usage import Usage
from budget_guard.wire import COHERE_CHAT, COMPLETIONS, CONVERSE, EMBEDDINGS, Dialect, Endpoint, Request, endpoint
from budget_guard.wire.event_stream import encode_frame

TEXT = endpoint("POST", "api.openai.com", "/v1/completions")
VECTORS = endpoint("POST", "api.openai.com", "/v1/embeddings")
MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
BEDROCK = endpoint("POST", "bedrock-runtime.eu-west-1.amazonaws.com", f"/model/{MODEL.replace(':', '%3A')}/converse")
BEDROCK_STREAM = endpoint("POST", BEDROCK.host, f"/model/{MODEL}/converse-stream")
COHERE = endpoint("POST", "api.cohere.com", "/v2/chat")


def read(dialect: Dialect, at: Endpoint, **body: Any) -> Request:
    return dialect.read_request(at, body, {})


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ({"prompt": "Hi"}, 1),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": "Hi", "n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": "Hi", "suffix": "end"}, 1),
        ({}, 1),
    ],
)
def test_a_text_model_answers_each_prompt(body: Any, choices: int) -> None:
    found = read(COMPLETIONS, TEXT, model="gpt-3.5-turbo-instruct", max_tokens=50, **body)

    assert (found.choices, found.max_output_tokens) == (choices, 50)
    assert (
        found.requests == len(body.get("prompt", "x"))
        if isinstance(body.get("prompt"), list) and choices != 1
        else True
    )


def test_tokens_in_place_of_texts_are_weighed() -> None:
    assert read(COMPLETIONS, TEXT, prompt=list(range(100))).prompt.text >= 100
    assert read(EMBEDDINGS, VECTORS, input=[[1] * 100, [2] * 50]).prompt.text >= 150


def test_a_text_is_weighed_and_nothing_is_nothing() -> None:
    def weight(**body: Any) -> int:
        return read(COMPLETIONS, TEXT, **body).prompt.text

    assert weight(prompt="a word " * 100) >= 100 + weight(prompt="")
    assert weight(prompt="") == weight(prompt=None) == weight(prompt=[]) == weight() == 0
    assert weight(prompt="a", suffix="a word " * 100) >= 100


def test_a_text_model_s_answer_is_read_whole_and_streamed() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    body = {"id": "c", "model": "m", "choices": [{"text": "Done.", "finish_reason": "length"}], "usage": usage}
    asked = read(COMPLETIONS, TEXT, model="m", prompt="Hi", stream=True)
    whole = COMPLETIONS.read_answer(body, asked)

    assert (whole.usage, whole.cut_off, whole.model, whole.id) == (Usage(10, output=5), True, "m", "c")
    reader = COMPLETIONS.stream(asked)
    reader.feed(
        b"".join(
            f"data: {json.dumps(e)}\n\n".encode() for e in ({**body, "usage": None}, {"choices": [], "usage": usage})
        )
    )
    assert reader.close() == whole._replace(output_floor=1)
    assert COMPLETIONS.ask_for_usage(TEXT, {"stream": True}).added == ("stream_options.include_usage",)
    assert COMPLETIONS.put_cap(TEXT, {}, 9) == ({"max_tokens": 9}, ("max_tokens",))


def test_vectors_have_no_output() -> None:
    found = read(EMBEDDINGS, VECTORS, model="text-embedding-3-small", input=["a" * 100, "b"])

    assert (found.max_output_tokens, found.prompted, found.requests) == (0, True, 2)
    assert found.call().max_output_tokens == 0
    assert EMBEDDINGS.put_cap(VECTORS, {"input": "x"}, 9) == ({"input": "x"}, ())
    for usage in (
        {"prompt_tokens": 8, "total_tokens": 8},
        {"total_tokens": 8},
        {"prompt_tokens": 0, "total_tokens": 8},
    ):
        answer = EMBEDDINGS.read_answer({"object": "list", "data": [{}], "model": "m", "usage": usage}, found)
        assert answer.usage == Usage(8)
    assert EMBEDDINGS.read_answer({"data": [{}], "usage": {"prompt_tokens": 0, "total_tokens": 0}}, found).usage is None
    assert EMBEDDINGS.stream(None).close().usage is None


def converse(*blocks: Any, at: Endpoint = BEDROCK, **body: Any) -> Request:
    return read(CONVERSE, at, messages=[{"role": "user", "content": [{"text": "Hi"}, *blocks]}], **body)


def test_bedrock_names_the_model_in_the_path() -> None:
    found = converse(inferenceConfig={"maxTokens": 100})

    assert (found.model, found.provider, found.region, found.max_output_tokens) == (MODEL, "aws", "eu-west-1", 100)
    assert converse(at=BEDROCK_STREAM).stream and not found.stream
    assert CONVERSE.put_model(BEDROCK, {}, "x") is None


def test_a_cap_may_hide_in_the_model_s_own_parameters() -> None:
    body: dict[str, Any] = {
        "inferenceConfig": {"maxTokens": 100},
        "additionalModelRequestFields": {"max_tokens": 9_000, "top_k": 5},
    }
    found = converse(**body)

    assert found.max_output_tokens == 9_000
    assert found.caps == ("inferenceConfig.maxTokens", "additionalModelRequestFields.max_tokens")
    put = CONVERSE.put_cap(BEDROCK, body, 7).body
    assert put == {"inferenceConfig": {"maxTokens": 7}, "additionalModelRequestFields": {"top_k": 5}}
    assert CONVERSE.put_cap(BEDROCK, {}, 7).added == ("inferenceConfig.maxTokens",)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://x"}}}}, "an image"),
        ({"document": {"format": "docx", "source": {"bytes": "AAAA"}}}, "a file"),
        ({"video": {"source": {"bytes": "AAAA"}}}, "a video"),
        ({"audio": {"source": {"bytes": "AAAA"}}}, "audio"),
        ({"toolResult": {"toolUseId": "t", "content": [{"image": {"source": {}}}]}}, "an image"),
        ({"toolResult": {"content": [{"hologram": {}}]}}, "a part of type hologram"),
        ({"guardContent": {"image": {}}}, "a part of type guardContent"),
        ({"hologram": {}}, "a part of type hologram"),
    ],
)
def test_blocks_that_are_not_text_have_no_bound(block: Any, words: str) -> None:
    assert list(converse(block).prompt.unweighed.values()) == [words]


def test_a_system_prompt_is_weighed() -> None:
    told = [{"text": "a word " * 100}]
    plain, more = (read(CONVERSE, BEDROCK, messages=[], **given).prompt for given in ({}, {"system": told}))
    assert more.base >= plain.base + 100


@pytest.mark.parametrize("count", [-5, 0, None, "7"])
def test_a_count_of_what_was_cached_that_makes_no_sense_is_not_added_up(count: object) -> None:
    cached = [
        {"ttl": "1h", "inputTokens": count},
        {"ttl": "1h", "inputTokens": 6},
        {"ttl": "forever", "inputTokens": 9},
    ]
    usage = {"inputTokens": 4, "outputTokens": 1, "totalTokens": 11, "cacheWriteInputTokens": 6, "cacheDetails": cached}
    found = CONVERSE.read_answer({"usage": usage, "output": {"message": {"content": [{"text": "x"}]}}}, None).usage
    assert found is not None and found.cache_write_1h == 6


@pytest.mark.parametrize(("given", "requests"), [("a", 1), (["a", "b"], 2), ([], 1), ([1, 2], 1)])
def test_vectors_are_asked_for_by_the_text(given: object, requests: int) -> None:
    assert read(EMBEDDINGS, VECTORS, model="text-embedding-3-small", input=given).requests == requests


def test_what_a_router_says_that_vectors_cost_is_their_cost() -> None:
    routed = endpoint("POST", "openrouter.ai", "/api/v1/embeddings")
    asked = read(EMBEDDINGS, routed, model="openai/text-embedding-3-small", input="a")
    told = {"data": [{}], "id": "gen-1", "usage": {"prompt_tokens": 4, "total_tokens": 4, "cost": 0.000_000_25}}
    assert EMBEDDINGS.read_answer(told, asked).cost == 250


@pytest.mark.parametrize("dialect", [COHERE_CHAT, COMPLETIONS, CONVERSE, EMBEDDINGS], ids=lambda dialect: dialect.name)
def test_what_is_wrong_with_usage_is_told_and_nothing_where_nothing_is(dialect: Dialect) -> None:
    def told(taken: int) -> str | None:
        usage = {"inputTokens": taken, "outputTokens": 1, "totalTokens": taken + 1}
        usage |= {"prompt_tokens": taken, "completion_tokens": 1, "total_tokens": taken + 1}
        units = {"billed_units": {"input_tokens": taken, "output_tokens": 1}}
        return dialect.read_answer({"usage": usage | units, "meta": units, "data": [{}]}, None).problem

    assert dialect.name in (told(-1) or "")
    assert told(4) is None


def test_blocks_that_are_text_are_weighed() -> None:
    blocks = [
        {"toolUse": {"toolUseId": "t", "name": "f", "input": {"image": "a" * 100}}},
        {
            "toolResult": {
                "toolUseId": "t",
                "content": [{"json": {"video": "b" * 100}}, {"text": "c" * 100}],
                "status": "success",
            }
        },
        {"reasoningContent": {"reasoningText": {"text": "d" * 100}}},
        {"guardContent": {"text": {"text": "e" * 100}}},
        {"cachePoint": {"type": "default", "ttl": "1h"}},
    ]
    tools = {"tools": [{"toolSpec": {"name": "f"}}, {"cachePoint": {"type": "default"}}]}
    found = converse(*blocks, system=[{"text": "f" * 100}], toolConfig=tools)

    assert not found.prompt.unweighed and not found.prompt.opaque
    assert found.prompt.text >= 500 and found.prompt.base >= 100
    assert found.hour_cache and found.needs == {"tools"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"guardrailConfig": {"guardrailIdentifier": "g"}}, "what a guardrail costs"),
        ({"promptVariables": {"x": {"text": "y"}}}, "a prompt kept by the provider"),
        ({"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}, "what nova_grounding may bring in"),
        ({"system": [{"guardContent": {"image": {}}}]}, "a system prompt of parts that are not text"),
    ],
)
def test_what_bedrock_brings_in_has_no_bound(more: Any, words: str) -> None:
    assert words in converse(**more).prompt.opaque


def test_faster_processing_has_a_price_of_its_own() -> None:
    assert converse(performanceConfig={"latency": "optimized"}).call().service_tier == "optimized"
    assert converse(serviceTier={"type": "flex"}).call().service_tier == "flex"
    assert converse(additionalModelRequestFields={"speed": "fast"}).call().service_tier == "fast"
    assert converse(additionalModelRequestFields={"oracle": {"x": 1}}).unknown_structures == ("oracle",)


USAGE = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, Usage(10, output=5)),
        (
            {
                "inputTokens": 10,
                "outputTokens": 5,
                "totalTokens": 145,
                "cacheReadInputTokens": 90,
                "cacheWriteInputTokens": 40,
            },
            Usage(10, 90, 40, output=5),
        ),
        (
            {
                "inputTokens": 10,
                "outputTokens": 5,
                "totalTokens": 55,
                "cacheWriteInputTokens": 40,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 10}],
            },
            Usage(10, 0, 10, 30, output=5),
        ),
        ({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}, None),
        ({}, None),
    ],
)
def test_bedrock_s_inputs_add_up(usage: Any, expected: Usage | None) -> None:
    body = {"output": {"message": {"content": [{"text": "Done."}]}}, "stopReason": "max_tokens", "usage": usage}
    found = CONVERSE.read_answer(body, converse())

    assert (found.usage, found.cut_off) == (expected, True)


def frames(*events: Any) -> bytes:
    return b"".join(
        encode_frame({":event-type": name, ":message-type": "event"}, json.dumps(payload).encode())
        for event in events
        for name, payload in event.items()
    )


def test_bedrock_streams_its_usage_at_the_end() -> None:
    data = frames(
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"text": "Hello"}}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": USAGE, "serviceTier": {"type": "flex"}}},
    )
    reader = CONVERSE.stream(converse(at=BEDROCK_STREAM))
    for at in range(0, len(data), 9):
        reader.feed(data[at : at + 9])
    found = reader.close()

    assert (found.usage, found.tier, found.cut_off) == (Usage(10, output=5), "flex", False)
    reader = CONVERSE.stream(None)
    reader.feed(data[: len(data) // 2])
    assert reader.close(complete=False).usage is None
    assert CONVERSE.read_answer({"message": "Too many requests"}, None).failed


@pytest.mark.parametrize("written", ["", "Hello"])
def test_bedrock_bills_nothing_for_an_answer_of_nothing_alone(written: str) -> None:
    reader = CONVERSE.stream(converse(at=BEDROCK_STREAM))
    reader.feed(frames({"contentBlockDelta": {"delta": {"text": written}}}))
    reader.feed(frames({"messageStop": {"stopReason": "end_turn"}}))
    reader.feed(frames({"metadata": {"usage": {"inputTokens": 10, "outputTokens": 0, "totalTokens": 10}}}))

    assert (reader.close().usage == Usage(10)) == (written == "")


def test_cohere_bills_its_billed_units() -> None:
    asked = read(COHERE_CHAT, COHERE, model="command-r", messages=[{"role": "user", "content": "Hi"}], max_tokens=50)
    usage = {
        "billed_units": {"input_tokens": 5.0, "output_tokens": 418.0},
        "tokens": {"input_tokens": 71, "output_tokens": 418},
    }
    body = {
        "id": "x",
        "message": {"content": [{"type": "text", "text": "a"}]},
        "finish_reason": "MAX_TOKENS",
        "usage": usage,
    }
    found = COHERE_CHAT.read_answer(body, asked)

    assert asked.max_output_tokens == 50
    assert (found.usage, found.cut_off, found.id) == (Usage(5, output=418), True, "x")
    first = {
        "text": "a",
        "generation_id": "g",
        "meta": {"billed_units": {"input_tokens": 5, "output_tokens": 4, "search_units": 2}},
    }
    assert COHERE_CHAT.read_answer(first, None).usage == Usage(5, output=4, other=(("search_units", 2),))
    processed = {"message": {"content": "a"}, "usage": {"tokens": {"input_tokens": 71, "output_tokens": 418}}}
    assert COHERE_CHAT.read_answer(processed, None).usage == Usage(71, output=418)
    assert COHERE_CHAT.read_answer({**processed, "usage": {}}, None).usage is None
    assert COHERE_CHAT.read_answer({"message": "invalid api token"}, None).failed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Hi", "connectors": [{"id": "web-search"}]}, "what connectors may bring in"),
        ({"message": "Hi", "conversation_id": "c"}, "history kept by the provider"),
    ],
)
def test_cohere_may_bring_in_more(body: Any, words: str) -> None:
    assert words in read(COHERE_CHAT, COHERE, **body).prompt.opaque


def test_all_that_cohere_is_told_is_weighed() -> None:
    body = {
        "preamble": "p" * 100,
        "message": "m" * 100,
        "chat_history": [{"role": "USER", "message": "h" * 100}],
        "documents": [{"title": "t", "snippet": "d" * 100}],
        "tools": [{"name": "f", "description": "x" * 200, "parameter_definitions": {}}],
    }
    found = read(COHERE_CHAT, COHERE, **body)

    assert not found.prompt.unweighed and not found.prompt.opaque
    assert found.prompt.text >= 300 and found.prompt.base >= 300
    assert found.prompt.base >= read(COHERE_CHAT, COHERE, **{**body, "tools": []}).prompt.base + 200
    schema = {"type": "json_object", "json_schema": {"type": "object", "description": "s" * 500}}
    assert read(COHERE_CHAT, COHERE, **body, response_format=schema).prompt.base >= found.prompt.base + 500


@pytest.mark.parametrize("error", ["out of order", None])
def test_a_stream_of_cohere_that_ends_with_an_error_has_failed(error: str | None) -> None:
    end = {"type": "message-end", "delta": {"finish_reason": "ERROR", **({} if error is None else {"error": error})}}
    reader = COHERE_CHAT.stream(None)
    reader.feed(f"event: message-end\ndata: {json.dumps(end)}\n\n".encode())
    assert reader.close().failed == (error is not None)


@pytest.mark.parametrize("version", [1, 2])
def test_cohere_streams_its_usage_at_the_end(version: int) -> None:
    units = {"billed_units": {"input_tokens": 5, "output_tokens": 4}}
    if version == 2:
        events: list[Any] = [
            {"type": "message-start", "id": "x"},
            {"type": "content-delta", "delta": {"message": {"content": {"text": "Hello"}}}},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": units}},
        ]
        data = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    else:
        events = [
            {"event_type": "stream-start", "generation_id": "x"},
            {"event_type": "text-generation", "text": "Hello"},
            {
                "event_type": "stream-end",
                "finish_reason": "COMPLETE",
                "response": {"generation_id": "x", "text": "Hello", "meta": units},
            },
        ]
        data = b"".join(json.dumps(e).encode() + b"\n" for e in events)
    reader = COHERE_CHAT.stream(None)
    for at in range(0, len(data), 7):
        reader.feed(data[at : at + 7])
    found = reader.close()

    assert (found.usage, found.id, found.output_floor) == (Usage(5, output=4), "x", 1)
