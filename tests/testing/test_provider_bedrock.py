"""The local provider speaks Bedrock's Converse, and Anthropic's Messages as Bedrock and Vertex serve them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx
import pytest

from budget_guard.testing import LocalProvider, Rates, Reply, ToolCall
from tests.testing.frames import read_frames

Serve: TypeAlias = Callable[..., tuple[LocalProvider, Any]]
NOVA = "amazon.nova-lite-v1:0"
CLAUDE = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
HI: Any = [{"role": "user", "content": [{"text": "12345678"}]}]
SAID: Any = [{"role": "user", "content": "hi"}]
PRICED = Reply(
    text="hello there",
    input_tokens=1_000,
    cached_tokens=400,
    cache_write_tokens=100,
    cache_write_1h_tokens=50,
    output_tokens=250,
    reasoning_tokens=50,
)
PRICED_NANO = 450 * 1_000 + 400 * 100 + 100 * 1_250 + 50 * 2_000 + 250 * 5_000


def post(provider: LocalProvider, model: str, verb: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{provider.root_url}/model/{quote(model, safe='')}/{verb}", json=body)


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    assert response.headers["content-type"] == "application/vnd.amazon.eventstream"
    frames = read_frames(response.content)
    return [(head.get(":event-type") or head[":exception-type"], payload) for head, payload in frames]


def test_converse_counts_what_is_cached_beside_the_input_and_in_the_total(serve: Serve) -> None:
    provider, _ = serve(PRICED)
    answer = post(provider, CLAUDE, "converse", messages=HI).json()
    thought, text = answer["output"]["message"]["content"]
    assert list(thought) == ["reasoningContent"] and text == {"text": "hello there"}
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"] == {
        "inputTokens": 450,
        "outputTokens": 250,
        "totalTokens": 1_250,
        "cacheReadInputTokens": 400,
        "cacheWriteInputTokens": 150,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 100}, {"ttl": "1h", "inputTokens": 50}],
    }
    assert "model" not in answer
    assert provider.bill_nano == PRICED_NANO


def test_a_converse_stream_is_frames_and_tells_usage_last(serve: Serve) -> None:
    calls = [ToolCall("search", {"q": "a"}, id="t1")]
    provider, _ = serve(Reply(text="Looking.", tool_calls=calls, chunks=2, input_tokens=9, output_tokens=8))
    told = events(post(provider, NOVA, "converse-stream", messages=HI))
    assert [kind for kind, _ in told] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockDelta",
        "contentBlockStop",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    deltas = [payload["delta"] for kind, payload in told if kind == "contentBlockDelta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "Looking."
    assert json.loads(deltas[-1]["toolUse"]["input"]) == {"q": "a"}
    assert [payload["contentBlockIndex"] for kind, payload in told if kind == "contentBlockStop"] == [0, 1]
    assert told[-2][1] == {"stopReason": "tool_use"}
    assert (told[-1][1]["usage"]["inputTokens"], told[-1][1]["usage"]["totalTokens"]) == (9, 17)
    assert provider.bill_nano == 9 * 60 + 8 * 240


def test_converse_reads_the_request_in_neutral_words(serve: Serve) -> None:
    provider, _ = serve(Reply(text="1234" * 50))
    profile = f"arn:aws:bedrock:us-east-1:123:inference-profile/{NOVA}"
    answer = post(
        provider,
        profile,
        "converse",
        messages=[*HI, {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "f", "input": {}}}]}],
        system=[{"text": "brief"}],
        inferenceConfig={"maxTokens": 7, "temperature": 0.5},
        toolConfig={"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}], "toolChoice": {"any": {}}},
        serviceTier={"type": "flex"},
    )
    assert answer.json()["stopReason"] == "max_tokens"
    assert answer.json()["serviceTier"] == {"type": "flex"}
    (call,) = provider.calls
    assert (call.endpoint, call.model, call.instructions) == ("converse", profile, "brief")
    assert (call.tools, call.tool_choice, call.service_tier) == (("f",), {"any": {}}, "flex")
    assert (call.max_output_tokens, call.temperature, call.stream) == (7, 0.5, False)
    assert call.cost_nano is None


def test_a_model_in_a_region_has_no_rates_unless_it_is_given_some(serve: Serve) -> None:
    model = CLAUDE.replace("global.", "us.")
    provider, _ = serve(Reply(input_tokens=2, output_tokens=1))
    post(provider, model, "converse", messages=HI)
    assert provider.calls[0].cost_nano is None
    priced, _ = serve(Reply(input_tokens=2, output_tokens=1), prices={model: Rates(input="1.1", output="5.5")})
    post(priced, model, "converse", messages=HI)
    assert priced.bill_nano == 2 * 1_100 + 5_500


@pytest.mark.parametrize("verb", ["converse", "invoke"])
def test_a_refusal_names_its_exception_in_a_header(serve: Serve, verb: str) -> None:
    provider, _ = serve(Reply(status=429, text="slow down"))
    response = post(provider, CLAUDE, verb, messages=HI, max_tokens=9)
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (429, "ThrottlingException")
    assert response.json() == {"message": "slow down"}


@pytest.mark.parametrize("verb", ["converse-stream", "invoke-with-response-stream"])
def test_an_error_in_mid_stream_is_an_exception_frame(serve: Serve, verb: str) -> None:
    provider, _ = serve(Reply(text="abcd", chunks=2, error_after=1, status=424))
    *_, (kind, payload) = events(post(provider, CLAUDE, verb, messages=HI, max_tokens=9))
    assert kind == "modelErrorException" and "message" in payload
    assert provider.calls[0].outcome == "failed"


@pytest.mark.parametrize("chunk_bytes", [1, 7])
def test_frames_may_be_cut_anywhere(serve: Serve, chunk_bytes: int) -> None:
    provider, _ = serve(Reply(chunk_bytes=chunk_bytes))
    assert events(post(provider, NOVA, "converse-stream", messages=HI))[-1][0] == "metadata"


def test_messages_on_bedrock_are_those_of_anthropic(serve: Serve) -> None:
    provider, _ = serve(PRICED)
    body = {"messages": SAID, "max_tokens": 300, "anthropic_version": "bedrock-2023-05-31"}
    whole = post(provider, CLAUDE, "invoke", **body).json()
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (450, 250)
    told = events(post(provider, CLAUDE, "invoke-with-response-stream", **body))
    assert {kind for kind, _ in told} == {"chunk"}
    inner = [json.loads(base64.b64decode(payload["bytes"])) for _, payload in told]
    assert (inner[0]["type"], inner[-1]["type"]) == ("message_start", "message_stop")
    assert inner[-2]["usage"]["output_tokens"] == 250
    assert "amazon-bedrock-invocationMetrics" in inner[-1]
    assert [call.stream for call in provider.calls] == [False, True]
    assert provider.bill_nano == 2 * PRICED_NANO


def test_the_real_bedrock_client_gets_a_message(serve: Serve) -> None:
    anthropic = pytest.importorskip("anthropic")
    provider, _ = serve(PRICED)
    with anthropic.AnthropicBedrock(
        api_key="none", aws_region="us-east-1", base_url=provider.root_url, max_retries=0
    ) as client:
        message = client.messages.create(model=CLAUDE, max_tokens=300, messages=SAID)
    assert message.content[-1].text == "hello there"
    assert provider.bill_nano == PRICED_NANO


def test_the_real_vertex_client_gets_messages_and_streams(serve: Serve) -> None:
    anthropic = pytest.importorskip("anthropic")
    pytest.importorskip("google.auth")
    provider, _ = serve(PRICED)
    with anthropic.AnthropicVertex(
        region="global",
        project_id="p",
        access_token="none",
        base_url=f"{provider.root_url}/v1",
        max_retries=0,
    ) as client:
        asked: Any = {"model": "claude-haiku-4-5@20251001", "max_tokens": 300, "messages": SAID}
        assert client.messages.create(**asked).content[-1].text == "hello there"
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream) == "hello there"
    assert [call.path.rpartition(":")[2] for call in provider.calls] == ["rawPredict", "streamRawPredict"]
    assert provider.bill_nano == 2 * PRICED_NANO
