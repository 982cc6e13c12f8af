"""Requests and answers of every dialect with all that costs in them, and each of them with one thing changed.

`python -m tests.wire.reference.make` reads them all and writes down what was read, in `readings.txt.gz`.
"""

from __future__ import annotations

import base64
import copy
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COHERE_CHAT,
    COMPLETIONS,
    CONVERSE,
    EMBEDDINGS,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Answer,
    Dialect,
    Endpoint,
    Request,
    endpoint,
)
from budget_guard.wire.event_stream import encode_frame
from budget_guard.wire.reader import EventReader

OPENAI, ANTHROPIC = "api.openai.com", "api.anthropic.com"
GOOGLE, AWS = "generativelanguage.googleapis.com", "bedrock-runtime.us-east-1.amazonaws.com"


def _png() -> str:
    header = struct.pack(">IIBBBBB", 700, 300, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk).decode()


def _wav() -> str:
    rate = struct.pack("<HHIIHH", 1, 1, 800, 1_600, 2, 16)
    file = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 16) + rate + b"data\0\0\0\0" + bytes(3_200)
    return base64.b64encode(file).decode()


PNG, WAV = _png(), _wav()
PDF = base64.b64encode(b"%PDF-1.4\n<< /Type /Pages /Count 2 >>\n" + b"<< /Type /Page >>\n" * 2).decode()
HOUR = {"type": "ephemeral", "ttl": "1h"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


class Asked(NamedTuple):
    """A request, and where it goes."""

    name: str
    dialect: Dialect
    where: Endpoint
    body: dict[str, Any]

    def read(self, body: Any) -> Request:
        """What *body* in its place asks for."""
        return self.dialect.read_request(self.where, body, {"alias": "gpt-4o"})


class Answered(NamedTuple):
    """A whole answer, and the request that it is one to."""

    name: str
    to: Asked
    body: dict[str, Any]

    def read(self, body: Any) -> Answer:
        """What *body* in its place says."""
        return self.to.dialect.read_answer(body, self.to.read(self.to.body))


class Streamed(NamedTuple):
    """A streamed answer: its events, and the request that it is one to."""

    name: str
    to: Asked
    body: list[Any]
    framing: str = "events"
    """How it is sent: server-sent ``events``, ``frames`` of AWS, ``lines``, or one ``array``."""

    def read(self, body: Any) -> Answer:
        """What *body* in its place says."""
        reader = self.reader()
        for raw in self.sent(body):
            reader.feed(raw)
        return reader.close()

    def reader(self, keeps_text: bool = True) -> EventReader:
        """What reads it."""
        reader = self.to.dialect.stream(self.to.read(self.to.body))
        assert isinstance(reader, EventReader)
        if keeps_text:
            reader.keeps_text = True
        return reader

    def sent(self, body: Any) -> list[bytes]:
        """The bytes of each event of *body*."""
        events = body if isinstance(body, list) else [body]
        if self.framing == "array":
            return [json.dumps(body).encode()]
        return [_FRAMINGS[self.framing](event) for event in events]


def _server_event(event: Any) -> bytes:
    kind = event.get("type") if isinstance(event, dict) else None
    head = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


def _frame(event: Any) -> bytes:
    ((name, inner),) = event.items() if isinstance(event, dict) and len(event) == 1 else (("odd", event),)
    return encode_frame({":message-type": "event", ":event-type": str(name)}, json.dumps(inner).encode())


_FRAMINGS: Mapping[str, Callable[[Any], bytes]] = {
    "events": _server_event,
    "frames": _frame,
    "lines": lambda event: json.dumps(event).encode() + b"\n",
}


def _asked(name: str, dialect: Dialect, host: str, path: str, **body: Any) -> Asked:
    return Asked(name, dialect, endpoint("POST", host, path), body)


CHAT = _asked(
    "chat",
    CHAT_COMPLETIONS,
    OPENAI,
    "/v1/chat/completions",
    model="gpt-4o",
    messages=[
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ],
    tools=[FUNCTION],
    response_format={"type": "json_schema", "json_schema": {"name": "s"}},
    max_completion_tokens=100,
    max_tokens=90,
    n=2,
    service_tier="flex",
    stream=True,
    stream_options={"include_usage": True},
    modalities=["text"],
    prompt_cache_options={"ttl": "30m"},
    models=["gpt-4o", "alias"],
    stop=["x"],
)
CHAT_MORE = _asked(
    "chat with more",
    CHAT_COMPLETIONS,
    "openrouter.ai",
    "/api/v1/chat/completions",
    model="openai/gpt-4o-audio:online",
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
                {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
                {"type": "video_url", "video_url": {"url": "https://e.example/v"}},
                {"type": "image_url", "image_url": "https://e.example/i.png"},
            ],
        },
        {"role": "assistant", "audio": {"id": "a"}, "content": "said"},
    ],
    functions=[{"name": "g"}],
    plugins=[{"id": "web"}],
    web_search_options={"search_context_size": "low", "search_type": "pro"},
    search_parameters={"mode": "on"},
    prediction={"content": "p"},
    audio={"voice": "v"},
    speed="fast",
    deferred=True,
    cache_control={"ttl": "1h"},
    data_sources=[],
    vendor={"deep": 1},
    odd=3,
)
RESPONSE = _asked(
    "responses",
    RESPONSES,
    OPENAI,
    "/v1/responses",
    model="alias",
    instructions="Be brief.",
    input=[
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "high"},
                {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "42"}]},
        {"type": "compaction", "encrypted_content": "xxxx"},
        {"type": "item_reference", "id": "msg_1"},
    ],
    tools=[{"type": "function", "name": "f"}, {"type": "web_search"}, {"type": "code_interpreter", "container": {}}],
    text={"format": {"type": "json_schema", "name": "s", "schema": {}}},
    max_output_tokens=100,
    service_tier="priority",
    stream=True,
    background=False,
    models=["gpt-4o-mini"],
    context_management=[],
    prompt_cache_options={"ttl": "24h"},
    vendor=[1],
    odd="x",
)
CLAUDE = _asked(
    "messages",
    MESSAGES,
    ANTHROPIC,
    "/v1/messages",
    model="claude-sonnet-4-5",
    system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
                {"type": "document", "source": {"type": "text", "data": "plain"}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "part"}]}},
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "42"}]}],
        },
    ],
    tools=[{"name": "f", "input_schema": {}}, {"type": "web_search_20250305", "name": "web_search"}],
    max_tokens=100,
    service_tier="auto",
    speed="fast",
    inference_geo="us",
    output_config={"format": {"type": "json_schema"}},
    context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
    fallbacks=[{"model": "claude-haiku-4-5"}],
    stream=True,
    mcp_servers=[],
    container=None,
    vendor={"deep": 1},
    odd=3,
)
GEMINI = _asked(
    "generateContent",
    GENERATE_CONTENT,
    GOOGLE,
    "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
    systemInstruction={"parts": [{"text": "Be brief."}]},
    contents=[
        {
            "role": "user",
            "parts": [
                {"text": "hi"},
                {"inlineData": {"mimeType": "image/png", "data": PNG}, "mediaResolution": {"level": "LOW"}},
                {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
                {"inlineData": {"mimeType": "audio/wav", "data": WAV}},
                {"fileData": {"fileUri": "gs://x", "mimeType": "video/mp4"}},
            ],
        },
        {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"x": 1}, "parts": []}}]},
    ],
    tools=[{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}, {"computerUse": {}}],
    generationConfig={
        "maxOutputTokens": 100,
        "candidateCount": 2,
        "responseSchema": {"type": "OBJECT"},
        "responseModalities": ["TEXT", "IMAGE"],
        "speechConfig": {},
    },
    serviceTier="SERVICE_TIER_FLEX",
    cachedContent="",
    vendor={"deep": 1},
    odd=3,
)
BEDROCK = _asked(
    "converse",
    CONVERSE,
    AWS,
    "/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/converse",
    system=[{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
    messages=[
        {
            "role": "user",
            "content": [
                {"text": "hi"},
                {"image": {"format": "png", "source": {"bytes": PNG}}},
                {"document": {"format": "pdf", "name": "d", "source": {"bytes": PDF}}},
                {"cachePoint": {"type": "default", "ttl": "5m"}},
            ],
        },
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "f", "input": {}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"text": "42"}]}}]},
    ],
    toolConfig={"tools": [{"toolSpec": {"name": "f"}}, {"systemTool": {"name": "nova_grounding"}}]},
    inferenceConfig={"maxTokens": 100},
    additionalModelRequestFields={"max_tokens": 120, "speed": "fast", "thinking": {"budget": 1}, "odd": {"x": 1}},
    performanceConfig={"latency": "standard"},
    serviceTier={"type": "flex"},
    outputConfig={"textFormat": {"type": "json_schema"}},
    guardrailConfig={},
    promptVariables={},
    vendor={"deep": 1},
    odd=3,
)
COHERE = _asked(
    "cohere",
    COHERE_CHAT,
    "api.cohere.com",
    "/v2/chat",
    model="command-r-plus",
    messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    tools=[FUNCTION],
    documents=["d"],
    response_format={"type": "json_object", "schema": {}},
    max_tokens=100,
    stream=True,
    vendor={"deep": 1},
    odd=3,
)
TEXTS = _asked(
    "completions",
    COMPLETIONS,
    OPENAI,
    "/v1/completions",
    model="gpt-3.5-turbo-instruct",
    prompt=["a", "b"],
    suffix="end",
    n=2,
    best_of=3,
    max_tokens=50,
    stream=True,
    stream_options={"include_usage": True},
    service_tier="flex",
    vendor={"deep": 1},
    odd=3,
)
VECTORS = _asked(
    "embeddings",
    EMBEDDINGS,
    OPENAI,
    "/v1/embeddings",
    model="alias",
    input=["a", "b"],
    dimensions=3,
    vendor={"deep": 1},
    odd=3,
)
REQUESTS = (CHAT, CHAT_MORE, RESPONSE, CLAUDE, GEMINI, BEDROCK, COHERE, TEXTS, VECTORS)


def _at(asked: Asked, host: str, path: str | None = None, **more: Any) -> Asked:
    """The same request, sent elsewhere."""
    return asked._replace(
        where=endpoint("POST", host, path or asked.where.path), name=f"{asked.name} at {host}", body=asked.body | more
    )


XAI, DEEPSEEK = _at(CHAT, "api.x.ai"), _at(CHAT, "api.deepseek.com")
OPENROUTER, PERPLEXITY = _at(CHAT, "openrouter.ai", "/api/v1/chat/completions"), _at(CHAT, "api.perplexity.ai")
XAI_RESPONSES = _at(RESPONSE, "api.x.ai")

_CHAT_USAGE: dict[str, Any] = {
    "prompt_tokens": 1_000,
    "completion_tokens": 300,
    "total_tokens": 1_300,
    "prompt_tokens_details": {
        "cached_tokens": 200,
        "audio_tokens": 30,
        "cache_write_tokens": 40,
        "cached_tokens_details": {"audio_tokens": 10},
    },
    "completion_tokens_details": {"reasoning_tokens": 100, "audio_tokens": 20, "image_tokens": 5},
}


def _chat_answer(usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    note = {"type": "url_citation", "url": "https://e.example"}
    message = {"role": "assistant", "content": "Done.", "annotations": [note]}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "service_tier": "priority",
        "choices": [{"index": 0, "finish_reason": "length", "message": message}],
        "usage": usage,
        **more,
    }


ANSWERS = (
    Answered("chat", CHAT, _chat_answer(_CHAT_USAGE)),
    Answered(
        "chat that searched",
        CHAT_MORE,
        _chat_answer({**_CHAT_USAGE, "server_tool_use": {"web_search_requests": 2}, "inference_geo": "us"}),
    ),
    Answered(
        "xai",
        XAI,
        _chat_answer(
            {
                "prompt_tokens": 1_000,
                "completion_tokens": 300,
                "total_tokens": 1_400,
                "completion_tokens_details": {"reasoning_tokens": 100},
                "num_sources_used": 3,
                "cost_in_usd_ticks": 50_000_000,
            }
        ),
    ),
    Answered(
        "deepseek",
        DEEPSEEK,
        _chat_answer(
            {
                "prompt_tokens": 1_000,
                "completion_tokens": 300,
                "total_tokens": 1_300,
                "prompt_cache_hit_tokens": 600,
                "prompt_cache_miss_tokens": 400,
                "completion_tokens_details": {"reasoning_tokens": 100},
            }
        ),
    ),
    Answered(
        "openrouter",
        OPENROUTER,
        _chat_answer(
            {
                "prompt_tokens": 1_000,
                "completion_tokens": 300,
                "total_tokens": 1_300,
                "cost": 0.0123,
                "is_byok": False,
                "cost_details": {"upstream_inference_cost": 0.01},
            },
            provider="OpenAI",
        ),
    ),
    Answered(
        "perplexity",
        PERPLEXITY,
        _chat_answer(
            {
                "prompt_tokens": 10,
                "completion_tokens": 300,
                "total_tokens": 310,
                "citation_tokens": 50,
                "num_search_queries": 4,
                "reasoning_tokens": 60,
                "search_context_size": "low",
                "cost": {"total_cost": 0.02},
            }
        ),
    ),
    Answered(
        "perplexity through another",
        CHAT,
        _chat_answer({"prompt_tokens": 10, "completion_tokens": 300, "num_search_queries": 4, "citation_tokens": 50}),
    ),
    Answered(
        "responses",
        RESPONSE,
        {
            "id": "resp_1",
            "object": "response",
            "model": "gpt-4o-2024-08-06",
            "service_tier": "default",
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [
                {"type": "reasoning", "id": "rs_2", "summary": []},
                {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
                {"type": "code_interpreter_call", "container_id": "c1"},
                {"type": "file_search_call", "status": "completed"},
                {"type": "message", "content": [{"type": "output_text", "text": "Do"}, {"type": "x", "text": "ne"}]},
            ],
            "usage": {
                "input_tokens": 1_000,
                "output_tokens": 300,
                "total_tokens": 1_300,
                "input_tokens_details": {"cached_tokens": 200, "cache_write_tokens": 30, "audio_tokens": 20},
                "output_tokens_details": {"reasoning_tokens": 100, "audio_tokens": 10},
            },
        },
    ),
    Answered(
        "responses of xai",
        XAI_RESPONSES,
        {
            "id": "resp_1",
            "model": "grok-4",
            "status": "completed",
            "output": [{"type": "x_search_call", "status": "completed"}],
            "usage": {
                "input_tokens": 1_000,
                "output_tokens": 300,
                "total_tokens": 1_300,
                "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1, "mcp_calls": 4},
                "cost_in_usd_ticks": 70_000_000,
            },
        },
    ),
    Answered(
        "messages",
        CLAUDE,
        {
            "id": "msg_1",
            "type": "message",
            "model": "claude-sonnet-4-5",
            "stop_reason": "max_tokens",
            "content": [
                {"type": "text", "text": "Done."},
                {"type": "web_search_tool_result", "content": [{"url": "u"}]},
                {"type": "server_tool_use", "name": "bash_code_execution"},
            ],
            "usage": {
                "input_tokens": 500,
                "output_tokens": 300,
                "cache_read_input_tokens": 200,
                "cache_creation_input_tokens": 90,
                "cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 40},
                "output_tokens_details": {"thinking_tokens": 20},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
                "service_tier": "priority",
                "speed": "fast",
                "inference_geo": "us",
                "iterations": [
                    {"type": "message", "input_tokens": 400, "output_tokens": 350},
                    {"type": "compaction", "input_tokens": 70, "output_tokens": 7},
                    {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 9, "output_tokens": 8},
                ],
            },
        },
    ),
    Answered(
        "generateContent",
        GEMINI,
        {
            "responseId": "r1",
            "modelVersion": "gemini-3-flash",
            "candidates": [
                {
                    "content": {"parts": [{"text": "Done."}]},
                    "finishReason": "MAX_TOKENS",
                    "groundingMetadata": {
                        "webSearchQueries": ["a", "b", "a", " "],
                        "groundingChunks": [{"web": {}}, {"maps": {}}],
                        "searchEntryPoint": {"x": 1},
                    },
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 1_000,
                "candidatesTokenCount": 300,
                "thoughtsTokenCount": 50,
                "toolUsePromptTokenCount": 40,
                "totalTokenCount": 1_390,
                "cachedContentTokenCount": 200,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 900},
                    {"modality": "AUDIO", "tokenCount": 60},
                    {"modality": "IMAGE", "tokenCount": 40},
                ],
                "cacheTokensDetails": [
                    {"modality": "AUDIO", "tokenCount": 20},
                    {"modality": "IMAGE", "tokenCount": 10},
                ],
                "toolUsePromptTokensDetails": [{"modality": "IMAGE", "tokenCount": 5}],
                "candidatesTokensDetails": [
                    {"modality": "AUDIO", "tokenCount": 30},
                    {"modality": "IMAGE", "tokenCount": 25},
                ],
                "trafficType": "ON_DEMAND_PRIORITY",
            },
        },
    ),
    Answered(
        "converse",
        BEDROCK,
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "Done."}]}},
            "stopReason": "max_tokens",
            "usage": {
                "inputTokens": 500,
                "outputTokens": 300,
                "totalTokens": 1_090,
                "cacheReadInputTokens": 200,
                "cacheWriteInputTokens": 90,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 40}, {"ttl": "5m", "inputTokens": 50}],
                "serverToolUsage": {"webSearchRequests": 2},
            },
            "serviceTier": {"type": "priority"},
            "performanceConfig": {"latency": "optimized"},
            "trace": {"promptRouter": {"invokedModelId": "arn:x/claude-haiku-4-5"}},
            "metrics": {"latencyMs": 1},
        },
    ),
    Answered(
        "cohere",
        COHERE,
        {
            "id": "c1",
            "model": "command-r-plus",
            "finish_reason": "MAX_TOKENS",
            "message": {"content": [{"type": "text", "text": "Done."}], "tool_calls": [{"id": "1"}]},
            "usage": {
                "billed_units": {"input_tokens": 100.0, "output_tokens": 30, "search_units": 2},
                "tokens": {"input_tokens": 500, "output_tokens": 40},
            },
        },
    ),
    Answered(
        "completions",
        TEXTS,
        {
            "id": "cmpl-1",
            "model": "gpt-3.5-turbo-instruct",
            "service_tier": "flex",
            "choices": [{"text": "Done.", "finish_reason": "length"}, {"text": "", "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40},
        },
    ),
    Answered(
        "embeddings",
        VECTORS,
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "embedding": [0]}],
            "usage": {"prompt_tokens": 10, "total_tokens": 12},
        },
    ),
)


def _chat_event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "gpt-4o", "service_tier": "flex", "choices": [choice], **more}


STREAMS = (
    Streamed(
        "chat",
        CHAT,
        [
            _chat_event({"role": "assistant", "content": ""}),
            _chat_event({"content": "Do"}),
            _chat_event({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}),
            _chat_event({"content": "ne"}, "length"),
            {"id": "chatcmpl-1", "model": "gpt-4o", "choices": [], "usage": _CHAT_USAGE},
        ],
    ),
    Streamed(
        "responses",
        RESPONSE,
        [
            {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-4o", "status": "in_progress"}},
            {"type": "response.output_text.delta", "delta": "Done."},
            {"type": "response.function_call_arguments.delta", "delta": "{}"},
            {"type": "response.output_item.done", "item": {"type": "web_search_call", "status": "completed"}},
            {
                "type": "response.completed",
                "response": {
                    "id": "resp_1",
                    "model": "gpt-4o",
                    "status": "completed",
                    "output": [],
                    "usage": {"input_tokens": 100, "output_tokens": 30, "total_tokens": 130},
                },
            },
        ],
    ),
    Streamed(
        "messages",
        CLAUDE,
        [
            {
                "type": "message_start",
                "message": {"id": "msg_1", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 50}},
            },
            {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Do"}},
            {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}},
            {"type": "content_block_start", "content_block": {"type": "web_search_tool_result", "content": [{}]}},
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 30}},
            {"type": "message_stop"},
        ],
    ),
    Streamed(
        "generateContent",
        GEMINI,
        [
            {"responseId": "r1", "candidates": [{"content": {"parts": [{"text": "Do"}]}}]},
            {
                "modelVersion": "gemini-2.5-flash",
                "candidates": [
                    {
                        "content": {"parts": [{"text": "ne"}]},
                        "finishReason": "STOP",
                        "groundingMetadata": {"webSearchQueries": ["a"]},
                    }
                ],
                "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 30, "totalTokenCount": 130},
            },
        ],
    ),
    Streamed(
        "cohere",
        COHERE,
        [
            {"type": "message-start", "id": "c1"},
            {"type": "content-delta", "delta": {"message": {"content": {"text": "Do"}}}},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will"}}},
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "COMPLETE",
                    "usage": {"billed_units": {"input_tokens": 100, "output_tokens": 30}},
                },
            },
        ],
    ),
    Streamed(
        "completions",
        TEXTS,
        [
            {"id": "cmpl-1", "model": "gpt-3.5-turbo-instruct", "choices": [{"text": "Done."}]},
            {"id": "cmpl-1", "choices": [{"text": "", "finish_reason": "length"}]},
            {"id": "cmpl-1", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 30}},
        ],
    ),
    Streamed(
        "chat of nothing",
        CHAT,
        [
            _chat_event({"role": "assistant", "content": ""}),
            {"error": None, **_chat_event({}, "stop")},
            {"choices": [], "x_groq": {"usage": {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10}}},
        ],
    ),
    Streamed("chat that fails", CHAT, [_chat_event({"content": "Do"}), {"error": {"message": "overloaded"}}]),
    Streamed(
        "responses that fail",
        RESPONSE,
        [
            {"type": "response.output_text.delta", "delta": "Do"},
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}},
            {"type": "error", "message": "no"},
        ],
    ),
    Streamed(
        "messages with thoughts",
        CLAUDE,
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 50, "output_tokens": 1}}},
            {"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}},
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "s"}},
            {"type": "content_block_start", "content_block": {"type": "redacted_thinking", "data": "x"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
            {"type": "error", "error": {"type": "overloaded_error"}},
        ],
    ),
    Streamed(
        "generateContent in an array",
        GEMINI,
        [
            {
                "candidates": [
                    {"content": {"parts": [{"text": "Do", "thought": True}, {"functionCall": {"name": "f"}}]}}
                ]
            },
            {
                "candidates": [{"content": {"parts": [{"text": "ne"}]}, "finishReason": "MAX_TOKENS"}],
                "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 30, "totalTokenCount": 130},
            },
        ],
        "array",
    ),
    Streamed(
        "converse",
        BEDROCK,
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "Do"}}},
            {"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}}},
            {"contentBlockDelta": {"delta": {"reasoningContent": {"text": "hm"}}}},
            {"messageStop": {"stopReason": "max_tokens"}},
            {"metadata": {"usage": {"inputTokens": 500, "outputTokens": 300, "totalTokens": 800}, "trace": {}}},
        ],
        "frames",
    ),
    Streamed(
        "cohere in lines",
        COHERE,
        [
            {"event_type": "stream-start", "generation_id": "g1"},
            {"event_type": "text-generation", "text": "Done."},
            {
                "event_type": "stream-end",
                "finish_reason": "COMPLETE",
                "response": {"meta": {"billed_units": {"input_tokens": 100, "output_tokens": 30}}},
            },
        ],
        "lines",
    ),
)

# One thing changed

_OTHERS: tuple[Any, ...] = (None, 0, -1, 7, 250, 10**9, 2.5, True, "", "x", [], {})
_OTHER_WORDS = ("default", "fast", "1h", "search", "function", "text", "audio", "failed", "gpt-4o", "web_search")


def variants(body: Any) -> Iterator[tuple[str, Any]]:
    """*body* with each part of it left out, doubled, or replaced by something else in turn, and where."""
    for path in _paths(body, ()):
        where = ".".join(map(str, path))
        here = body
        for step in path:
            here = here[step]
        others = list(_OTHERS)
        if isinstance(here, str):
            others += _OTHER_WORDS
        elif isinstance(here, list) and here:
            others.append([*here, *here])
        yield f"{where} left out", _changed(body, path, None, leave_out=True)
        for other in others:
            if other != here or type(other) is not type(here):
                shown = "twice" if isinstance(other, list) and other else repr(other)
                yield f"{where} = {shown}", _changed(body, path, other)


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    steps: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from _paths(inner, (*path, step))


def _changed(body: Any, path: tuple[Any, ...], other: Any, leave_out: bool = False) -> Any:
    """*body* with something else at the end of *path*, and copied as far as that takes."""
    made = copy.copy(body)
    step, *below = path
    if below:
        made[step] = _changed(made[step], tuple(below), other, leave_out)
    elif leave_out:
        del made[step]
    else:
        made[step] = other
    return made
