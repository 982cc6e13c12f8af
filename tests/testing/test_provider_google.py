"""The local provider speaks Google's wire, to the real client where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import pytest

from budget_guard.testing import HostedCall, LocalProvider, Rates, Reply, Script, ToolCall
from budget_guard.units.usage import Usage

Serve: TypeAlias = Callable[..., tuple[LocalProvider, Any]]
MODEL = "gemini-2.5-flash"
GEMINI = f"/v1beta/models/{MODEL}"
VERTEX = f"/v1/projects/p/locations/us-central1/publishers/google/models/{MODEL}"
HI: Any = [{"role": "user", "parts": [{"text": "12345678"}]}]
PRICED = Reply(
    text="hello there",
    input_tokens=1_000,
    cached_tokens=400,
    output_tokens=250,
    reasoning_tokens=50,
)
PRICED_NANO = 600 * 300 + 400 * 30 + 250 * 2_500


def ask(provider: LocalProvider, path: str = GEMINI, verb: str = "generateContent", **body: Any) -> httpx.Response:
    return httpx.post(f"{provider.root_url}{path}:{verb}", json={"contents": HI, **body})


def test_thoughts_stand_beside_the_candidates_and_in_the_total(serve: Serve) -> None:
    provider, _ = serve(PRICED)
    answer = ask(provider).json()
    (candidate,) = answer["candidates"]
    assert candidate["content"] == {"role": "model", "parts": [{"text": "hello there"}]}
    assert (candidate["finishReason"], answer["modelVersion"]) == ("STOP", MODEL)
    assert answer["usageMetadata"] == {
        "promptTokenCount": 1_000,
        "totalTokenCount": 1_250,
        "candidatesTokenCount": 200,
        "cachedContentTokenCount": 400,
        "thoughtsTokenCount": 50,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1_000}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 400}],
        "serviceTier": "standard",
    }
    assert provider.bill_nano == PRICED_NANO


def test_events_tell_usage_as_far_as_it_has_come(serve: Serve) -> None:
    provider, _ = serve(Reply(text="abcd", chunks=2, input_tokens=9, output_tokens=10, reasoning_tokens=2))
    response = ask(provider, verb="streamGenerateContent?alt=sse")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.content.endswith(b"}\r\n\r\n")
    lines = response.text.split("\r\n\r\n")
    assert lines.pop() == ""
    told = [httpx.Response(200, content=line.removeprefix("data: ")).json() for line in lines]
    usage = [event["usageMetadata"] for event in told]
    assert [each.get("candidatesTokenCount") for each in usage] == [3, 8, 8]
    assert [each["totalTokenCount"] for each in usage] == [14, 19, 19]
    assert [event["candidates"][0].get("finishReason") for event in told] == [None, None, "STOP"]
    assert provider.bill_nano == 9 * 300 + 10 * 2_500


@pytest.mark.parametrize("reply", [Reply(text="abcd", chunks=2), Reply(events=[{"x": 1}])])
def test_without_alt_a_stream_is_one_json_array(serve: Serve, reply: Reply) -> None:
    provider, _ = serve(reply)
    response = ask(provider, verb="streamGenerateContent")
    assert response.headers["content-type"] == "application/json; charset=UTF-8"
    assert len(response.json()) == (3 if reply.events is None else 1)


def test_an_error_ends_the_array_as_well(serve: Serve) -> None:
    provider, _ = serve(Reply(error_after=1, status=503))
    *_, error = ask(provider, verb="streamGenerateContent").json()
    assert (error["error"]["code"], error["error"]["status"]) == (503, "UNAVAILABLE")


def test_vertex_tells_its_traffic_and_the_gemini_api_its_tier(serve: Serve) -> None:
    provider, _ = serve(Reply(service_tier="flex"))
    assert ask(provider, VERTEX).json()["usageMetadata"]["trafficType"] == "ON_DEMAND_FLEX"
    response = ask(provider)
    assert response.json()["usageMetadata"]["serviceTier"] == "flex"
    assert response.headers["x-gemini-service-tier"] == "flex"


@pytest.mark.parametrize("spelling", ["camel", "snake"])
def test_the_request_is_read_in_neutral_words(serve: Serve, spelling: str) -> None:
    provider, _ = serve(Reply(text="12345678" * 9))
    body: dict[str, Any] = {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "generationConfig": {"maxOutputTokens": 7, "candidateCount": 2, "temperature": 0.5},
        "tools": [{"functionDeclarations": [{"name": "search"}]}, {"googleSearch": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "NONE"}},
        "serviceTier": "priority",
    }
    if spelling == "snake":
        body = {
            "system_instruction": body["systemInstruction"],
            "generation_config": {"max_output_tokens": 7, "candidate_count": 2, "temperature": 0.5},
            "tools": [{"function_declarations": [{"name": "search"}]}, {"google_search": {}}],
            "tool_config": {"function_calling_config": {"mode": "NONE"}},
            "service_tier": "priority",
        }
    answer = ask(provider, **body).json()
    assert [candidate["finishReason"] for candidate in answer["candidates"]] == ["MAX_TOKENS"] * 2
    (call,) = provider.calls
    assert (call.endpoint, call.model, call.instructions) == ("generate_content", MODEL, "be brief")
    assert (call.tools, call.tool_choice) == (("search", "googleSearch"), "none")
    assert (call.max_output_tokens, call.choices, call.temperature) == (7, 2, 0.5)
    assert (call.service_tier, call.usage.output) == ("priority", 14)


def test_a_conversation_with_tools_weighs_what_the_model_reads(serve: Serve) -> None:
    provider, _ = serve()
    called = {"functionCall": {"name": "f", "args": {"a": 1}}}  # 1 + 8 bytes
    result = {"functionResponse": {"name": "f", "response": {"b": 22}}}  # 1 + 9 bytes
    picture = {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}
    ask(provider, contents=[{"parts": [called]}, {"parts": [result, picture]}])
    assert provider.calls[0].usage.input == 5  # 19 bytes


def test_grounding_and_code_are_told_and_grounding_is_billed_once(serve: Serve) -> None:
    hosted = [HostedCall("web_search"), HostedCall("code_execution"), HostedCall("web_search", fields={"x": 1})]
    provider, _ = serve(Reply(input_tokens=0, output_tokens=0, hosted=hosted))
    (candidate,) = ask(provider).json()["candidates"]
    assert candidate["groundingMetadata"]["webSearchQueries"] == ["query 1", "query 2"]
    assert candidate["groundingMetadata"]["x"] == 1
    assert [list(part) for part in candidate["content"]["parts"]] == [
        ["executableCode"],
        ["codeExecutionResult"],
        ["text"],
    ]
    streamed = ask(provider, verb="streamGenerateContent").json()
    assert len(streamed[-1]["candidates"][0]["groundingMetadata"]["webSearchQueries"]) == 2
    assert [call.cost_nano for call in provider.calls] == [35_000_000] * 2


def test_sound_is_told_by_modality_and_billed_by_its_rate(serve: Serve) -> None:
    reply = Reply(input_tokens=100, cached_tokens=10, cached_audio_tokens=4, input_audio_tokens=30, output_tokens=9)
    rates = Rates(input="0.30", cache_read="0.03", input_audio=1, cache_audio="0.1", output="2.5", output_audio=12)
    speech = Reply(input_tokens=0, output_tokens=9, output_audio_tokens=8)
    provider, _ = serve([reply, speech], prices={MODEL: rates})
    usage = ask(provider).json()["usageMetadata"]
    assert usage["promptTokensDetails"] == [
        {"modality": "TEXT", "tokenCount": 66},
        {"modality": "AUDIO", "tokenCount": 34},
    ]
    assert usage["cacheTokensDetails"][1] == {"modality": "AUDIO", "tokenCount": 4}
    assert ask(provider).json()["usageMetadata"]["candidatesTokensDetails"] == [
        {"modality": "TEXT", "tokenCount": 1},
        {"modality": "AUDIO", "tokenCount": 8},
    ]
    assert provider.calls[0].usage == Usage(input=60, cache_read=6, input_audio=30, cache_audio=4, output=9)
    assert provider.calls[0].cost_nano == 60 * 300 + 6 * 30 + 30 * 1_000 + 4 * 100 + 9 * 2_500


@pytest.mark.parametrize(
    ("status", "word"), [(400, "INVALID_ARGUMENT"), (429, "RESOURCE_EXHAUSTED"), (500, "INTERNAL")]
)
def test_a_refusal_has_the_words_of_google(serve: Serve, status: int, word: str) -> None:
    provider, _ = serve(Reply(status=status, text="no"))
    response = ask(provider)
    assert (response.status_code, response.json()) == (
        status,
        {"error": {"code": status, "message": "no", "status": word}},
    )
    assert ask(provider, contents=None).json()["error"]["status"] == "INVALID_ARGUMENT"
    assert len(provider.calls) == 1


def genai_client(provider: LocalProvider) -> Any:
    genai = pytest.importorskip("google.genai")
    return genai.Client(api_key="none", http_options={"base_url": provider.root_url})


CALLING: Script = Reply(text="Looking.", tool_calls=[ToolCall("search", {"q": "a"}, id="c1")], reasoning_tokens=3)


@pytest.mark.filterwarnings("ignore")
def test_the_real_client_understands_all_of_it(serve: Serve) -> None:
    provider, _ = serve(CALLING)
    client = genai_client(provider)
    answer = client.models.generate_content(model=MODEL, contents="hi", config={"max_output_tokens": 50})
    pieces = list(client.models.generate_content_stream(model=MODEL, contents="hi"))
    assert answer.text == "".join(piece.text or "" for piece in pieces) == "Looking."
    assert answer.function_calls[0].args == {"q": "a"}
    assert [call.args for piece in pieces for call in piece.function_calls or ()] == [{"q": "a"}]
    assert answer.usage_metadata.thoughts_token_count == pieces[-1].usage_metadata.thoughts_token_count == 3
    assert [call.stream for call in provider.calls] == [False, True]
    assert [call.max_output_tokens for call in provider.calls] == [50, None]


@pytest.mark.filterwarnings("ignore")
def test_the_real_client_raises_its_own_error(serve: Serve) -> None:
    provider, _ = serve(Reply(status=429, text="slow down"))
    client = genai_client(provider)
    errors = pytest.importorskip("google.genai.errors")
    with pytest.raises(errors.ClientError, match="slow down"):
        client.models.generate_content(model=MODEL, contents="hi")
