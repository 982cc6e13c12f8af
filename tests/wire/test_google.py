"""Google's generateContent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from budget_guard.units.usage import Usage
from budget_guard.wire import GENERATE_CONTENT as GOOGLE
from budget_guard.wire import Answer, Request, endpoint
from budget_guard.wire.reader import EventReader

HOST = "generativelanguage.googleapis.com"
FLASH = endpoint("POST", HOST, "/v1beta/models/gemini-2.5-flash:generateContent")
STREAM = endpoint("POST", HOST, "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse")
VERTEX = endpoint(
    "POST", "europe-west1-aiplatform.googleapis.com",
    "/v1/projects/p/locations/europe-west1/publishers/google/models/gemini-3.1-pro:streamGenerateContent",
)  # fmt: skip


def request(*parts: Any, at: Any = FLASH, **body: Any) -> Request:
    contents = [{"role": "user", "parts": [{"text": "Hi"}, *parts]}]
    return GOOGLE.read_request(at, {"contents": contents, **body}, {})


def body(usage: Any, *, finish: str = "STOP", grounding: Any = None, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": "Done."}]}, "finishReason": finish}
    if grounding is not None:
        candidate["groundingMetadata"] = grounding
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "r1"}


def answer(usage: Any, **more: Any) -> Answer:
    return GOOGLE.read_answer(body(usage, **more), request())


def test_the_path_names_the_model_and_the_stream() -> None:
    assert (request().model, request().stream, request(at=STREAM).stream) == ("gemini-2.5-flash", False, True)
    found = request(at=VERTEX)
    assert (found.model, found.provider, found.region) == ("gemini-3.1-pro", "google", "europe-west1")
    assert GOOGLE.put_model(FLASH, {}, "x") is None


def test_settings_are_read_in_either_way_of_writing_them() -> None:
    camel = {
        "maxOutputTokens": 100,
        "candidateCount": 3,
        "responseModalities": ["TEXT", "IMAGE"],
        "responseSchema": {"type": "x"},
    }
    snake = {
        "max_output_tokens": 100,
        "candidate_count": 3,
        "response_modalities": ["IMAGE"],
        "response_schema": {"type": "x"},
    }

    for name, config in (("generationConfig", camel), ("generation_config", snake)):
        found = request(**{name: config})
        assert (found.max_output_tokens, found.choices, set(found.modalities)) == (100, 3, {"image"})
        assert found.needs == {"json_schema"}
        put = GOOGLE.put_cap(FLASH, {name: config}, 7)
        assert GOOGLE.read_request(FLASH, put.body, {}).max_output_tokens == 7
        assert put.added == ()
    assert GOOGLE.put_cap(FLASH, {"x": 1}, 7) == (
        {"x": 1, "generationConfig": {"maxOutputTokens": 7}},
        ("generationConfig.maxOutputTokens",),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {
            "generationConfig": {"maxOutputTokens": 1},
            "generation_config": {"max_output_tokens": 9, "candidate_count": 8},
        },
        {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}},
        {"generationConfig": {"candidateCount": 1, "candidate_count": 8}},
        {"generationConfig": {"candidate_Count": 8}},
        {"serviceTier": "standard", "service_tier": "priority"},
        {"cachedContent": "", "cached_content": "cachedContents/long"},
    ],
)
def test_a_setting_that_is_there_in_both_spellings_has_no_bound(settings: dict[str, Any]) -> None:
    assert "two spellings" in str(request(**settings).prompt.opaque)


def test_content_that_is_there_in_both_spellings_has_no_bound() -> None:
    small, large = ({"mimeType": "image/png", "data": data} for data in ("", "AAAA"))
    assert "inline_data" in str(request({"inlineData": small, "inline_data": large}).prompt)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"fileData": {"fileUri": "gs://x"}}, "a file"),
        ({"file_data": {"file_uri": "gs://x"}}, "a file"),
        ({"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}, "a video"),
        ({"inline_data": {"mime_type": "audio/mp3", "data": "AAAA"}}, "audio"),
        ({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, "an image"),
        ({"inlineData": {"mimeType": "text/csv", "data": "AAAA"}}, "a file"),
        ({"inlineData": {}}, "a file"),
        ({"hologram": {}}, "a part of type hologram"),
        ({"text": "x", "videoMetadata": {}}, "a part of type videoMetadata"),
        ({"functionResponse": {"name": "f", "response": {}, "parts": [{"fileData": {"fileUri": "x"}}]}}, "a file"),
    ],
)
def test_parts_that_are_not_text_have_no_bound(part: Any, words: str) -> None:
    assert list(request(part).prompt.unweighed.values()) == [words]


def test_parts_that_are_text_are_weighed() -> None:
    parts = [
        {"functionCall": {"name": "f", "args": {"inlineData": {"data": "a" * 100}}}},
        {"functionResponse": {"name": "f", "response": {"fileData": "b" * 100}}},
        {"text": "c" * 100, "thought": True, "thoughtSignature": "d" * 100},
        {"executableCode": {"code": "e" * 100}},
    ]
    prompt = request(*parts, systemInstruction={"parts": [{"text": "f" * 100}]}).prompt

    assert not prompt.unweighed and not prompt.opaque
    assert prompt.text >= 500 and prompt.base >= 100
    for contents in ({"role": "user", "parts": [{"text": "g" * 100}]}, "g" * 100):
        assert GOOGLE.read_request(FLASH, {"contents": contents}, {}).prompt.text >= 100


@pytest.mark.parametrize(
    ("tool", "unit"),
    [
        ({"googleSearch": {}}, "web_search"),
        ({"google_search_retrieval": {}}, "web_search"),
        ({"urlContext": {}}, "url_context"),
        ({"codeExecution": {}}, "code_execution"),
        ({"googleMaps": {}}, "google_maps"),
        ({"fileSearch": {}}, "file_search_store"),
        ({"oracle": {}}, "oracle"),
    ],
)
def test_tools_of_the_provider_are_opaque_and_functions_are_not(tool: Any, unit: str) -> None:
    found = request(tools=[tool, {"functionDeclarations": [{"name": "f"}]}])

    assert found.hosted_tools == (unit,)
    assert found.prompt.opaque == (f"what {unit} may bring in",)
    plain = request(tools=[{"function_declarations": [{"name": "f"}]}])
    assert (plain.hosted_tools, plain.prompt.opaque, set(plain.needs)) == ((), (), {"tools"})


def test_content_kept_by_the_provider_has_no_bound() -> None:
    assert request(cachedContent="cachedContents/x").prompt.opaque == ("content kept by the provider",)


def test_what_a_screening_of_the_provider_costs_has_no_bound() -> None:
    for name in ("modelArmorConfig", "model_armor_config"):
        assert request(**{name: {"promptTemplateName": "x"}}).prompt.opaque == ("what Model Armor costs",)


def detail(**counts: int) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in counts.items()]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}, Usage(10, output=5), id="plain"
        ),
        pytest.param(
            {"promptTokenCount": 20, "candidatesTokenCount": 198, "thoughtsTokenCount": 405, "totalTokenCount": 623},
            Usage(20, output=198, reasoning=405),
            id="thoughts beside",
        ),
        pytest.param(
            {"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 5, "totalTokenCount": 105},
            Usage(40, 60, output=5),
            id="cached inside",
        ),
        pytest.param(
            {"promptTokenCount": 100, "toolUsePromptTokenCount": 50, "candidatesTokenCount": 5, "totalTokenCount": 155},
            Usage(150, output=5),
            id="what tools brought in",
        ),
        pytest.param(
            {"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 81},
            Usage(21, reasoning=60),
            id="thoughts alone",
        ),
        pytest.param(
            {"promptTokenCount": 21, "toolUsePromptTokenCount": 1, "candidatesTokenCount": 5, "thoughtsTokenCount": 1},
            Usage(22, output=5, reasoning=1),
            id="one of each",
        ),
        pytest.param({"promptTokenCount": 21, "totalTokenCount": 81}, Usage(21, output=60), id="a total alone"),
        pytest.param(
            {
                "promptTokenCount": 1_000,
                "promptTokensDetails": detail(TEXT=100, AUDIO=640, IMAGE=260),
                "candidatesTokenCount": 1_300,
                "candidatesTokensDetails": detail(TEXT=10, IMAGE=1_290),
                "totalTokenCount": 2_300,
            },
            Usage(100, input_audio=640, input_image=260, output=10, output_image=1_290),
            id="sound and pictures",
        ),
        pytest.param(
            {
                "promptTokenCount": 1_000,
                "promptTokensDetails": detail(TEXT=360, AUDIO=640),
                "cachedContentTokenCount": 500,
                "cacheTokensDetails": detail(TEXT=100, AUDIO=400),
                "candidatesTokenCount": 5,
                "totalTokenCount": 1_005,
            },
            Usage(260, 100, input_audio=240, cache_audio=400, output=5),
            id="cached sound",
        ),
        pytest.param(
            {"prompt_token_count": 10, "candidates_token_count": 5, "total_token_count": 15},
            Usage(10, output=5),
            id="snake",
        ),
        pytest.param({"candidatesTokenCount": 5}, None, id="no prompt"),
        pytest.param({"promptTokenCount": 10}, None, id="no output"),
        pytest.param({"promptTokenCount": "10", "candidatesTokenCount": 5}, None, id="a text"),
        pytest.param({"totalTokenCount": 15}, None, id="the total alone"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_prompt_thoughts_and_candidates_add_up(usage: Any, expected: Usage | None) -> None:
    assert answer(usage).usage == expected


PLAIN = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}


@pytest.mark.parametrize(
    ("model", "grounding", "searches"),
    [
        ("gemini-2.5-flash", {"webSearchQueries": ["a", "b", "c"]}, 1),
        ("gemini-2.0-flash", {"webSearchQueries": ["a", "b"]}, 1),
        ("gemini-3.1-pro", {"webSearchQueries": ["a", "b", "", "a", " "]}, 2),
        ("gemini-3.1-pro", {"webSearchQueries": ["a"], "imageSearchQueries": ["b"]}, 2),
        ("gemini-3.1-pro", {"groundingChunks": [{"web": {"uri": "x"}}]}, 1),
        ("gemini-4-argon", {"searchEntryPoint": {"renderedContent": "x"}}, 1),
        ("gemini-3.1-pro", {"webSearchQueries": []}, 0),
        ("gemini-3.1-pro", {}, 0),
    ],
)
def test_grounding_is_billed_by_the_prompt_or_by_the_query(model: str, grounding: Any, searches: int) -> None:
    usage = answer(PLAIN, grounding=grounding, model=model).usage

    assert usage is not None and usage.web_search == searches


def test_maps_are_billed_by_the_prompt() -> None:
    usage = answer(PLAIN, grounding={"groundingChunks": [{"maps": {}}, {"maps": {}}]}).usage

    assert usage is not None and usage.other == (("google_maps", 1),)


@pytest.mark.parametrize(
    ("more", "tier"),
    [
        ({"trafficType": "ON_DEMAND"}, "default"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, None),
        ({"serviceTier": "SERVICE_TIER_PRIORITY"}, "priority"),
        ({"serviceTier": "standard"}, "default"),
        ({}, None),
    ],
)
def test_the_tier_that_served_is_read(more: Any, tier: str | None) -> None:
    found = answer({**PLAIN, **more}, finish="MAX_TOKENS")

    assert (found.tier, found.cut_off, found.model, found.id) == (tier, True, "gemini-2.5-flash", "r1")


def test_a_prompt_that_is_refused_is_billed_for_itself() -> None:
    refused = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 10},
    }

    assert GOOGLE.read_answer(refused, request()).usage == Usage(10)


def pieces() -> list[dict[str, Any]]:
    return [
        {
            "candidates": [{"content": {"parts": [{"text": "Hel"}]}}],
            "usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 10},
        },
        {"candidates": [{"content": {"parts": [{"text": "lo"}]}}], "usageMetadata": PLAIN},
        {**body({**PLAIN, "candidatesTokenCount": 9, "totalTokenCount": 19}, grounding={"webSearchQueries": ["a"]})},
    ]


def framed(kind: str, values: list[Any]) -> bytes:
    if kind == "array":
        return json.dumps(values, indent=1).encode()
    return b"".join(b"data: " + json.dumps(value).encode() + b"\r\n\r\n" for value in values)


@pytest.mark.parametrize("kind", ["sse", "array"])
@pytest.mark.parametrize("size", [1, 17, 10_000])
def test_the_last_counts_of_a_stream_are_its_bill(kind: str, size: int) -> None:
    reader = GOOGLE.stream(request(at=STREAM))
    data = framed(kind, pieces())
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
    found = reader.close()

    assert found.usage == Usage(10, output=9, web_search=1)
    assert found.model == "gemini-2.5-flash"


@pytest.mark.parametrize("kind", ["sse", "array"])
def test_a_stream_that_breaks_is_of_unknown_cost(kind: str) -> None:
    reader = GOOGLE.stream(request(at=STREAM))
    data = framed(kind, pieces())
    reader.feed(data[: len(data) // 2])

    assert reader.close(complete=False).usage is None


def test_an_error_within_a_stream_is_one() -> None:
    reader = GOOGLE.stream(None)
    reader.feed(framed("sse", [pieces()[0], {"error": {"code": 503, "message": "secret"}}]))
    found = reader.close()

    assert found.failed and "secret" not in str(found)
    assert GOOGLE.read_answer({"error": {"code": 400}}, None).failed


@pytest.mark.parametrize("name", ["systemInstruction", "system_instruction"])
def test_a_system_prompt_of_texts_is_weighed_and_one_of_other_parts_has_no_bound(name: str) -> None:
    of_text = request(**{name: {"parts": [{"text": "Be kind"}, {"text": "and brief"}]}})
    of_more = request(**{name: {"parts": [{"text": "Be kind"}, {"fileData": {"fileUri": "gs://x"}}]}})
    assert of_text.prompt.opaque == ()
    assert of_more.prompt.opaque == ("a system prompt of parts that are not text",)
    assert of_text.prompt.base > request().prompt.base


def test_a_prompt_that_is_blocked_ends_its_stream() -> None:
    reader = GOOGLE.stream(request())
    assert isinstance(reader, EventReader)
    usage = {"promptTokenCount": 9, "totalTokenCount": 9}
    event = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage}
    reader.feed(f"data: {json.dumps(event)}\r\n\r\n".encode())
    assert reader.finished
    assert reader.close().usage == Usage(input=9)
