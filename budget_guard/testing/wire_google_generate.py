"""Google generateContent, of the Gemini API and of Vertex AI: https://ai.google.dev/api/generate-content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from budget_guard.testing.answer import Answer, Piece
from budget_guard.testing.reply import ToolCall
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.tokens import weigh
from budget_guard.testing.wire import (
    EVENT_STREAM,
    Incoming,
    Json,
    Step,
    Wire,
    dressed,
    ending_kind,
    how_many,
    mapping,
    model_of,
    objects,
    optional_int,
    parsed_arguments,
    required,
    told_usage,
)
from budget_guard.units.usage import Usage

_FINISH_REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TRAFFIC = {"default": "ON_DEMAND", "flex": "ON_DEMAND_FLEX", "priority": "ON_DEMAND_PRIORITY"}
_WORD = re.compile(r"_([a-z])")


class GoogleGenerateWire(Wire):
    """The methods ``:generateContent`` and ``:streamGenerateContent``, the latter as events or as one JSON array."""

    route = re.compile(
        r"/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):(?P<verb>generateContent|streamGenerateContent)$"
    )
    newline = "\r\n"

    def read(self, incoming: Incoming) -> ProviderRequest:
        body = {_camel(name): value for name, value in incoming.body.items()}
        contents, system = required(body, "contents", list), body.get("systemInstruction")
        settings = {_camel(name): value for name, value in mapping(body.get("generationConfig")).items()}
        tools = objects(body.get("tools"))
        tier = body.get("serviceTier")
        return ProviderRequest(
            endpoint="generate_content",
            model=model_of(incoming),
            messages=contents,
            instructions=_instructions(system),
            tools=tuple(name for tool in tools for name in _tool_names(tool)),
            tool_choice=_tool_choice(mapping(body.get("toolConfig"))),
            max_output_tokens=optional_int(settings, "maxOutputTokens"),
            stream=incoming.named["verb"] == "streamGenerateContent",
            temperature=settings.get("temperature"),
            reasoning_effort=mapping(settings.get("thinkingConfig")).get("thinkingLevel"),
            service_tier="default" if tier in ("standard", "unspecified") else tier,
            choices=how_many(settings, "candidateCount"),
            input_tokens=weigh(system, *contents, schemas=(body.get("tools"), settings.get("responseSchema"))),
            headers=incoming.headers,
            body=incoming.body,
            path=incoming.path,
            query=incoming.query,
        )

    def whole(self, request: ProviderRequest, answer: Answer) -> Json:
        texts: list[Json] = [{"text": answer.text}] if answer.text else []
        parts = [*_code(answer), *texts, *map(_part, answer.tool_calls)]
        return _response(request, answer, parts, None, last=True)

    def stream(self, request: ProviderRequest, answer: Answer) -> Iterator[Step]:
        code = _code(answer)
        if code:
            yield Step("opening", [_response(request, answer, code, 0, last=False)])
        for done, piece in enumerate(answer.chunks, start=1):
            yield Step("chunk", [_response(request, answer, [_part(piece)], done, last=False)])
        yield Step(ending_kind(answer), [_response(request, answer, [{"text": ""}], None, last=True)])

    def event(self, request: ProviderRequest, data: Any) -> bytes:
        if _as_events(request):
            return super().event(request, data)
        return data.encode() if isinstance(data, str) else json.dumps(data, indent=2).encode()

    def joined(self, request: ProviderRequest, events: list[bytes]) -> list[bytes]:
        if _as_events(request):
            return events
        elements = [b"[" + events[0], *(b",\r\n" + event for event in events[1:])]
        return [*elements[:-1], elements[-1] + b"]"]

    def stream_type(self, request: ProviderRequest) -> str:
        return EVENT_STREAM if _as_events(request) else "application/json; charset=UTF-8"

    def headers(self, request: ProviderRequest, answer: Answer) -> Mapping[str, str]:
        return {} if _on_vertex(request) else {"x-gemini-service-tier": _tier(answer)}

    def error(self, status: int, message: str) -> Json:
        fallback = "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"
        return {"error": {"code": status, "message": message, "status": _STATUSES.get(status, fallback)}}


def _camel(name: str) -> str:
    """Both spellings of a field are understood, as protocol buffers do."""
    return _WORD.sub(lambda found: found.group(1).upper(), name)


def _instructions(system: object) -> str | None:
    texts = [str(part["text"]) for part in objects(mapping(system).get("parts")) if "text" in part]
    return "\n".join(texts) if texts else None


def _tool_names(tool: Mapping[str, Any]) -> Iterator[str]:
    for kind, value in tool.items():
        if _camel(kind) == "functionDeclarations":
            yield from (str(declared.get("name")) for declared in objects(value))
        else:
            yield _camel(kind)


def _tool_choice(config: Mapping[str, Any]) -> Any:
    calling = mapping(config.get("functionCallingConfig") or config.get("function_calling_config"))
    return "none" if calling.get("mode") == "NONE" else calling.get("mode")


def _as_events(request: ProviderRequest) -> bool:
    return parse_qs(request.query).get("alt") == ["sse"]


def _on_vertex(request: ProviderRequest) -> bool:
    return "/publishers/" in request.path or "/endpoints/" in request.path


def _tier(answer: Answer) -> str:
    return "standard" if answer.service_tier == "default" else answer.service_tier


def _response(request: ProviderRequest, answer: Answer, parts: list[Json], done: int | None, *, last: bool) -> Json:
    """A whole answer, or one event of a stream after *done* chunks: all have the same shape, and tell usage."""
    candidate: Json = {"content": {"parts": parts, "role": "model"}}
    if last:
        candidate["finishReason"] = _FINISH_REASONS.get(answer.finish_reason, answer.finish_reason)
        candidate |= {**_grounding(answer), **answer.reply.message_extra}
    usage = told_usage(answer, _usage(request, answer, answer.usage(done)), "usageMetadata")
    candidates = [{**candidate, "index": index} for index in range(answer.choices)]
    return dressed(
        answer,
        {"candidates": candidates, **usage, "modelVersion": answer.model, "responseId": answer.wire_id("")},
    )


def _usage(request: ProviderRequest, answer: Answer, usage: Usage) -> Json:
    """Thoughts are not among the candidates' tokens, but in the total; what is zero is left out."""
    cached, audio = usage.cache_read + usage.cache_audio, usage.input_audio + usage.cache_audio
    image = usage.input_image
    prompt = {"TEXT": usage.input_tokens - audio - image, "AUDIO": audio, "IMAGE": image}
    made = {"AUDIO": usage.output_audio, "IMAGE": usage.output_image}
    optional = {
        "candidatesTokenCount": usage.output_tokens - usage.reasoning,
        "cachedContentTokenCount": cached,
        "thoughtsTokenCount": usage.reasoning,
        "promptTokensDetails": _details(prompt),
        "cacheTokensDetails": _details({"TEXT": usage.cache_read, "AUDIO": usage.cache_audio}),
        "candidatesTokensDetails": _details({"TEXT": usage.output, **made} if any(made.values()) else {}),
    }
    tier = _TRAFFIC.get(answer.service_tier, answer.service_tier)
    told = {"trafficType": tier} if _on_vertex(request) else {"serviceTier": _tier(answer)}
    counts = {"promptTokenCount": usage.input_tokens, "totalTokenCount": usage.total_tokens}
    return {**counts, **{name: value for name, value in optional.items() if value}, **told}


def _details(by_modality: Mapping[str, int]) -> list[Json]:
    return [{"modality": modality, "tokenCount": tokens} for modality, tokens in by_modality.items() if tokens]


def _grounding(answer: Answer) -> Json:
    """The queries of Google Search that the answer is grounded on, and more fields of the last one."""
    searches = [call for call in answer.hosted if call.kind == "web_search"]
    if not searches:
        return {}
    queries = [f"query {position + 1}" for position in range(len(searches))]
    chunks = [{"web": {"uri": "https://example.com/", "title": "example.com"}}]
    return {"groundingMetadata": {"webSearchQueries": queries, "groundingChunks": chunks, **searches[-1].fields}}


def _code(answer: Answer) -> list[Json]:
    runs = [call for call in answer.hosted if call.kind == "code_execution"]
    code = {"executableCode": {"language": "PYTHON", "code": "print(2)"}}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}}
    return [part for _ in runs for part in (code, result)]


def _part(piece: Piece) -> Json:
    if isinstance(piece, ToolCall):
        return {"functionCall": {"id": piece.id, "name": piece.name, "args": parsed_arguments(piece.arguments_json)}}
    return {"text": piece}
