"""Tables of what the functions under the dialects make of many values."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from budget_guard.wire import (
    Answer,
    Counts,
    dialect_at,
    endpoint,
    explain_refusal,
    outcome_of_error,
    outcome_of_status,
    read_counts,
)
from budget_guard.wire.answer import served_tier
from budget_guard.wire.claude_version import claude_version
from budget_guard.wire.conversation import beginning, finished_calls
from budget_guard.wire.document import pdf_pages
from budget_guard.wire.event_stream import encode_frame
from budget_guard.wire.media import media_rules
from budget_guard.wire.picture import picture_size
from budget_guard.wire.price_headers import PRICE_HEADERS, with_headers
from budget_guard.wire.provider_cost import provider_cost
from budget_guard.wire.repeated import repeated_field
from budget_guard.wire.sound import wav_seconds
from budget_guard.wire.tools import hosted_tool_named, hosted_tools_of, tool_name_of_type
from budget_guard.wire.values import read_json
from tests.wire.reference.corpus import ANSWERS, PDF, PNG, REQUESTS, STREAMS, WAV, variants
from tests.wire.reference.made_up import KINDS, made_up
from tests.wire.test_media import gif, jpeg, png, wav, webp


def _counts() -> Iterator[str]:
    """Counts that nearly add up, in every way that they can be meant."""
    chance = random.Random(1)
    for number in range(3_000):
        taken, made = chance.choice([0, 1, 10, 100, 1_000]), chance.choice([0, 1, 5, 300])
        parts = [chance.choice([None, None, None, 0, 1, 4, 60, taken, taken + 1]) for _ in range(7)]
        out_parts = [chance.choice([None, None, 0, 2, 90, made, made + 1]) for _ in range(3)]
        beside_in, beside_out = sum(each or 0 for each in parts), sum(each or 0 for each in out_parts)
        total = taken + made + chance.choice([0, beside_in, beside_out, beside_in + beside_out, -1, 1, 17])
        given: list[Any] = [taken, made, chance.choice([None, total, total, 0]), *parts, *out_parts]
        if number % 4 == 0:
            given[chance.randrange(len(given))] = chance.choice([None, -1, 0, "5", 2.0, True, 2**53 - 1, 2**53, 10**30])
        how: dict[str, Any] = {
            "input_parts": chance.choice(["unsure", "inside", "beside"]),
            "output_parts": chance.choice(["unsure", "inside", "beside"]),
            "prompted": chance.random() < 0.8,
            "answered": chance.random() < 0.8,
            "hour_cache": chance.random() < 0.3,
        }
        usage, problem = read_counts(Counts(*given), **how)
        yield f"{given} {list(how.values())}: {problem if usage is None else list(usage)}"


MODELS = (
    "gpt-4o gpt-4o-mini gpt-4.1-mini gpt-4.1-nano gpt-5 gpt-5-mini gpt-5-nano gpt-5.1 gpt-5.2 gpt-5.4 gpt-5.4-mini "
    "gpt-5.6 gpt-6 gpt-6-mini o1 o3 o4-mini computer-use-preview gpt-audio ft:gpt-4o:me openai/gpt-4o azure-name "
    "claude-3-5-sonnet claude-sonnet-4-5 claude-opus-4-6 claude-opus-4-7 claude-opus-4-8 claude-next "
    "gpt-4o-search-preview gpt-4o-mini-search-preview-2025-03-11 gpt-5-search-api x-search-bot sonar "
    "gemini-1.5-pro gemini-2.5-flash models/gemini-2.0-flash gemini-3-flash gemini-3.1-pro llava grok-4"
).split()
_SIZES = ((1, 1), (28, 28), (384, 384), (385, 20), (512, 513), (768, 768), (1_024, 769), (2_048, 2_049), (5_000, 100))


def _pictures() -> Iterator[str]:
    for provider in (None, "openai", "anthropic"):
        for model in MODELS:
            rules = media_rules(provider, model)
            sizes = [
                "-" if rules.picture is None else rules.picture(*size, detail)
                for size in _SIZES
                for detail in ("auto", "low", "high", "original", "MEDIA_RESOLUTION_MEDIUM", "odd")
            ]
            yield f"{provider} {model}: {rules.name} {rules.page} {rules.sound} {sizes}"


_BODIES: tuple[Any, ...] = (
    None,
    b"",
    b"<html>bad gateway</html>",
    b'{"error": {"message": "no", "type": "invalid_request_error", "code": "x"}}',
    {"error": {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
    {"error": {"type": "overloaded_error"}},
    {"message": "no"},
    {"__type": "ThrottlingException"},
    [{"error": {"code": 400, "status": "INVALID_ARGUMENT"}}],
    {"detail": "none of its own"},
    "upstream connect error",
)


_CLAUDES = "claude-3-5-sonnet claude-3-haiku claude-4 claude-opus-4 claude-opus-4-1-20250805 claude-sonnet-4-5".split()


def _versions() -> Iterator[str]:
    """The version of Claude in many names."""
    for name in _CLAUDES:
        for full in (name, f"anthropic.{name}-v1:0", f"{name}@20250101", f"{name}-20250514", f"{name}.5", name.upper()):
            yield f"{full}: {claude_version(full)} {claude_version(full.replace('-', '.'))}"


def _failures() -> Iterator[str]:
    for status in (200, 204, 301, *range(400, 432), 451, 499):
        yield from _failure(status)
    for status in (500, 501, 502, 503, 504, 520, 524, 529, 530, 599, 0, 600):
        yield from _failure(status)


def _failure(status: int) -> Iterator[str]:
    for at, body in enumerate(_BODIES):
        for headers in (None, {"content-type": "text/html"}, {"Content-Type": "application/json"}):
            found = outcome_of_status(status, headers, body)
            more = [outcome_of_status(status, headers, body, unknown_before=1)]
            more.append(outcome_of_status(status, headers, body, requests=2))
            yield f"{status} {at} {headers}: {tuple(found)} {[tuple(each) for each in more]}"


HOSTS = (
    "",
    "api.openai.com",
    "eu.api.openai.com",
    "me.openai.azure.com",
    "me.services.ai.azure.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "europe-west1-aiplatform.googleapis.com",
    "aiplatform.googleapis.com",
    "bedrock-runtime.eu-west-1.amazonaws.com",
    "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
    "api.x.ai",
    "api.groq.com",
    "openrouter.ai",
    "api.perplexity.ai",
    "api.mistral.ai",
    "api.cohere.com",
    "api.deepseek.com",
    "adb.azuredatabricks.net",
    "llm.example:8080",
    "LLM.Example",
    "me:secret@API.OpenAI.com:443",
    "[::1]:8080",
)
_PLACES = (
    "/v1/chat/completions",
    "/v1/chat/completions/",
    "/openai/deployments/prod-chat/chat/completions?api-version=2024-10-21",
    "/openai/deployments/gpt%2D5/chat/completions?api-version=2025-04-01-preview",
    "/openai/v1/responses",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/threads/t/messages",
    "/v1beta/models/gemini-2.5-flash:generateContent",
    "/v1beta/models/gemini-2.5-flash:countTokens",
    "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-5:streamRawPredict",
    "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
    "/model/anthropic.claude-sonnet-4-5/invoke",
    "/model/meta.llama3/invoke",
    "/model/meta.llama3/converse-stream",
    "/v2/chat",
    "/chat",
    "/api/v1/chat/completions",
    "/v1/models",
    "",
    "/",
    "//",
    "?x=1",
    "/v1/chat/completions?api-version",
    "/v1/chat/completions?a=1&a=2#x",
    "/V1/Chat/Completions",
    "/x/v1/chat/completions",
    "/v1/chat/completions/x",
    "/compatibility/v1/chat/completions",
)


def _places() -> Iterator[str]:
    for host in HOSTS:
        for path in _PLACES:
            where = endpoint("POST", host, path)
            dialect = dialect_at(where)
            caps = [where.name_of_cap(model) for model in ("gpt-4o", "gpt-5", "o3-mini", "gpt-5-chat-latest", "prod")]
            yield (
                f"{host} {path}: {tuple(where)} {None if dialect is None else dialect.name} {where.deployment} "
                f"{where.api_version!r} {where.region} {where.takes_usage_option} {caps}"
            )
    yield f"GET: {dialect_at(endpoint('GET', 'api.openai.com', '/v1/chat/completions'))}"


def _asked_there() -> Iterator[str]:
    """What each request asks for by the host that it goes to."""
    for asked in REQUESTS:
        for host in HOSTS:
            found = asked._replace(where=endpoint("POST", host, asked.where.path)).read(asked.body)
            weights = (found.prompt.base, found.prompt.text, found.prompt.opaque)
            terms = (found.provider, found.region, found.tier, found.model, found.hosted_tools, found.caps)
            yield f"{asked.name} {host}: {terms} {weights} {sorted(found.needs)}"


def _asked_of() -> Iterator[str]:
    """The reading of each request for each model, as far as that changes what the call may cost."""
    for asked in REQUESTS:
        path = asked.where.path
        for model in MODELS:
            there = re.sub(r"(/models?/)[^/:]+", rf"\g<1>{model.replace('/', '.')}", path)
            body = {**asked.body, "model": model}
            found = asked._replace(where=endpoint("POST", "openrouter.ai", there)).read(body)
            call = found.call()
            prompt = found.prompt
            weights = (prompt.base, prompt.text, prompt.opaque, sorted(prompt.unweighed.values()), found.sound_tokens)
            terms = (found.model, found.max_output_tokens, sorted(found.needs), found.unclear, found.hosted_tools)
            yield f"{asked.name} {model}: {weights} {terms} {call.max_output_tokens} {call.can_cap}"


_KINDS = (
    "web_search web_search_preview_2025_03_11 google_search googleSearch x_search web_fetch_20250910 url_context "
    "urlContext googleMaps file_search fileSearch collections_search retrieval code_interpreter "
    "code_execution_20250825 codeExecution image_generation mcp mcp_toolset advisor shell function custom namespace "
    "apply_patch local_shell tool_search computer computer_use_preview bash_20250124 text_editor_20250728 memory_1 "
    "browser_1 quantum_annealer a-name-that-is-much-longer-than-forty-characters-are odd\u00e9 bad\x07"
).split(" ")


def _tools() -> Iterator[str]:
    for kind in _KINDS:
        given: list[Any] = [{"type": kind}, {kind: {}}, {"type": kind, "name": "n"}, {kind: {}, "name": "n"}]
        given.append({"type": kind, "environment": {"type": "local"}})
        found = [list(hosted_tools_of([each])) for each in given]
        yield f"{kind!r}: {tool_name_of_type(kind)!r} {hosted_tool_named(kind)!r} {found!r}"
        several = [[*given, {"type": "web_search"}], [{"name": "f"}, given[0], given[-1], {"type": "mcp"}]]
        yield f"{kind!r} and more: {[list(hosted_tools_of(each)) for each in several]}"
    yield f"no type: {list(hosted_tools_of([{}, 'x', None, {'type': 3}, {'type': None, 'function': 1}]))}"


def _costs() -> Iterator[str]:
    costs: list[Any] = [
        None,
        0,
        0.0,
        0.01,
        "0.01",
        "x",
        -1,
        True,
        10**9,
        10**10,
        float("nan"),
        1e-12,
        {"total_cost": 2},
    ]
    for provider in (None, "openai", "openrouter", "perplexity", "x-ai"):
        for cost in costs:
            usages: list[dict[str, Any]] = [{"cost": cost}, {"cost": cost, "is_byok": True}]
            usages.append({"cost": cost, "is_byok": True, "cost_details": {"upstream_inference_cost": cost}})
            usages.append({"cost_in_usd_ticks": cost})
            found = [
                provider_cost(usage, provider=provider, model=model, answer_id=ident)
                for usage in usages
                for model in ("m", "m:free", None)
                for ident in ("gen-1", "x", None)
            ]
            yield f"{provider} {cost}: {found}"
    for tier in (None, "", "default", "standard", "on_demand", "priority", "Flex", 3, "batch"):
        yield f"{tier}: {served_tier(tier)} {served_tier(tier, 'fast')} {served_tier(tier, 'standard')}"


_STATED: tuple[dict[str, Any], ...] = (
    {"cost_in_usd_ticks": 70},
    {"cost": 0.5},
    {"cost": {"total_cost": 0.25}},
    {"cost": 0},
    {"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.125}},
)


_SAID = {
    "role": "user",
    "content": "word",
    "text": "word",
    "image_url": f"data:image/png;base64,{PNG}",
    "file_data": f"data:application/pdf;base64,{PDF}",
    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
    "input_audio": {"data": WAV, "format": "wav"},
    "data": WAV,
    "result": PNG,
    "id": "1",
}
_MESSAGES = {"responses": "input", "generateContent": "contents", "completions": "prompt", "embeddings": "input"}
_NO_KIND = "no kind"


def _one_message() -> Iterator[str]:
    """The reading of requests with one message, of each kind, or with a part of each kind in it."""
    for asked in REQUESTS:
        field = _MESSAGES.get(asked.dialect.name, "messages")
        for kind in (*KINDS, _NO_KIND, None, 7):
            typed: dict[str, Any] = _SAID if kind == _NO_KIND else {**_SAID, "type": kind}
            bare: dict[str, Any] = {name: typed[name] for name in ("type", "role", "id") if name in typed}
            messages: list[dict[str, Any]] = [typed, bare, {**typed, "content": [typed]}]
            messages += [{"role": "user", "content": [typed]}, {"role": "model", "parts": [typed]}]
            messages.append({"role": "user", str(kind): typed})
            for message in messages:
                found = asked.read({"model": "claude-sonnet-4-5", field: [message]})
                prompt = found.prompt
                weights = (
                    prompt.base,
                    prompt.text,
                    prompt.opaque,
                    [*prompt.unweighed.values()],
                    prompt.conversation != 0,
                )
                yield (
                    f"{asked.name} {kind} {list(message)}: {weights} {sorted(found.needs)} {found.reasoning_ids} "
                    f"{found.sound_tokens} {found.unknown_structures}"
                )


def _stated() -> Iterator[str]:
    """What an answer of each dialect states that it cost, by who gives it."""
    for answered in (*ANSWERS, *STREAMS):
        for host in ("api.openai.com", "api.x.ai", "openrouter.ai", "api.perplexity.ai", "llm.example"):
            for free in ("m", "m:free"):
                to = answered.to._replace(where=endpoint("POST", host, answered.to.where.path))
                asked = answered._replace(to=to._replace(body=to.body | {"model": free}))
                found = [asked.read(_with_usage(answered.body, each)).cost for each in _STATED]
                yield f"{answered.name} {host} {free}: {found}"


def _answered_by() -> Iterator[str]:
    """The usage in each answer, for each model that gives it and each that was asked for it."""
    for answered in (*ANSWERS, *STREAMS):
        for model in MODELS:
            to = answered.to._replace(body={**answered.to.body, "model": model})
            for body in (answered.body, _with_text(answered.body, _MODEL, model)):
                found = answered._replace(to=to).read(body)
                shown = found._replace(usage=None, text="", seen=None)
                usage = None if found.usage is None else {k: v for k, v in found.usage._asdict().items() if v}
                yield f"{answered.name} {model} {body is answered.body}: {usage} {list(filter(None, shown))}"


_MODEL = frozenset({"model", "modelVersion", "invokedModelId"})
_WRITTEN = frozenset({"text", "content", "delta"})
"""Names of the texts that a model writes."""


def _with_text(value: Any, names: frozenset[str], text: str) -> Any:
    """*value* with *text* in the place of each text in it that has one of *names*."""
    if isinstance(value, list):
        return [_with_text(each, names, text) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: text if name in names and isinstance(inner, str) else _with_text(inner, names, text)
        for name, inner in value.items()
    }


def _with_usage(value: Any, more: dict[str, Any]) -> Any:
    """*value* with *more* in each usage in it, and an id as OpenRouter's."""
    if isinstance(value, list):
        return [_with_usage(each, more) for each in value]
    if not isinstance(value, dict):
        return value
    made = {name: _with_usage(inner, more) for name, inner in value.items()}
    if isinstance(made.get("usage"), dict):
        made["usage"] |= more
    return made | ({"id": "gen-1"} if "id" in made else {})


def _rewritten() -> Iterator[str]:
    """What is put into requests, and where."""
    for asked in REQUESTS:
        for where, body in variants(asked.body):
            if "." in where.partition(" ")[0] and not where.startswith(("generationConfig", "inferenceConfig")):
                continue
            capped = asked.dialect.put_cap(asked.where, body, 77)
            other = asked.dialect.put_model(asked.where, body, "other")
            told = asked.dialect.ask_for_usage(asked.where, body)
            yield (
                f"{asked.name} {where}: {_diff(body, capped.body)} {capped.added} "
                f"{None if other is None else (_diff(body, other.body), other.added)} "
                f"{_diff(body, told.body)} {told.added}"
            )


def _diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
    return changed | {name: "gone" for name in before if name not in after}


def _refusals() -> Iterator[str]:
    bodies: list[Any] = [
        {"error": {"message": "Unrecognized request argument supplied: stream_options", "param": "stream_options"}},
        {"error": {"message": "Unsupported parameter: 'max_completion_tokens'", "param": None}},
        {"detail": [{"loc": ["body", "max_tokens"]}]},
        {"error": {"message": "no"}},
        "max_tokens is not allowed",
        None,
    ]
    added = [("stream_options.include_usage",), ("max_completion_tokens",), ("max_tokens",), ()]
    for status in (200, 400, 401, 404, 422, 429, 500):
        for body in bodies:
            yield f"{status} {body}: {[explain_refusal(each, status, body) for each in added]}"


_KEPT_BY_THE_PROVIDER = ("previous_response_id", "conversation", "cachedContent", "promptVariables", "conversation_id")


def _errors() -> Iterator[str]:
    """Answers that are errors, or nothing, to requests that are known, empty or not known."""
    bodies: list[dict[str, Any]] = [
        {},
        {"error": {"message": "no"}},
        {"error": None},
        {"type": "error", "error": {"type": "overloaded_error"}},
        {"message": "invalid api token"},
        {"status": "failed", "id": "resp_1"},
        {"error": {"message": "no"}, "usage": {"prompt_tokens": 5, "completion_tokens": 5}},
        {"error": {"message": "no"}, "usage": {"input_tokens": 5, "output_tokens": 5}, "output": [{}]},
        {"usage": {"prompt_tokens": 0, "total_tokens": 5}, "data": [{}]},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 5}, "choices": [{"message": {"content": "x"}}]},
        {"usage": {"prompt_tokens": 5, "completion_tokens": 0}, "choices": [{"text": "x"}]},
        {"usage": {"prompt_tokens": 5, "completion_tokens": 0}, "choices": [{"message": {"content": ""}}, {}]},
        {"choices": [{"finish_reason": "max_tokens", "message": {"content": "x", "function_call": {}}}], "usage": {}},
        {"usage": {"inputTokens": 5, "outputTokens": 0}, "output": {"message": {"content": [{"text": "x"}]}}},
        {"usageMetadata": {"promptTokenCount": 5}, "candidates": [{"content": {"parts": [{"text": "x"}]}}]},
        *(
            {"usage": {"billed_units": {"input_tokens": 5, "output_tokens": 0}}, "message": said}
            for said in ({"content": [{"text": "x"}]}, {"tool_calls": [{"id": "1"}]}, {"tool_plan": "x"}, {})
        ),
        {"usage": {"billed_units": {"input_tokens": 0, "output_tokens": 5}}, "message": {"content": [{"text": "x"}]}},
    ]
    for asked in REQUESTS:
        empty = asked.read({"model": "m"})
        kept = asked.read({"model": "m", **dict.fromkeys(_KEPT_BY_THE_PROVIDER, "k"), "prompt": {"id": "k"}})
        for body in bodies:
            found = [asked.dialect.read_answer(body, to) for to in (asked.read(asked.body), empty, kept, None)]
            yield f"{asked.name} {body}: {[(each.usage, each.problem, each.failed, each.cut_off) for each in found]}"


def _given_up() -> Iterator[str]:
    """What each stream comes to where it breaks off after so many events, and what is held back of it."""
    for streamed in STREAMS:
        sent = streamed.sent(streamed.body)
        for number in range(len(sent) + 1):
            reader = streamed.reader()
            passed = [len(raw) - len(reader.feed(raw, hide_usage=True)) for raw in sent[:number]]
            told = [reader.finished, reader.failed, reader.thinks, reader.is_told, reader.output_bytes]
            answer = reader.close(complete=False)
            seen = answer.seen
            yield (
                f"{streamed.name} {number}: hides {passed} {told} {answer.usage} {answer.problem} {answer.failed} "
                f"{answer.output_floor} {None if seen is None else tuple(seen)}"
            )


_ODD: Mapping[str, tuple[bytes, ...]] = {
    "events": (
        *(b"event: error\ndata: oops\n\n", b'event: error\ndata: {"type": "x"}\n\n', b"event: error\ndata: {}\n\n"),
        *(b'event: x\ndata: {"type": "error"}\n\n', b"event: error\n\n", b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n"),
        *(b": a comment\n\n", b"id: 7\nretry: 9\n\n", b"data: \n\n", b"data: 7\n\n", b"data: null\n\n"),
        *(
            b"data: [1]\n\n",
            b"data: {\n\n",
            b'data: {"a":\ndata: 1}\n\n',
            b"\n\n",
            b"data: 7\n",
            b"data: {}\n",
            b"data: ",
        ),
        b"\xef\xbb\xbf",
        *(b'data: {"error": {"message": "no"}}\n\n', b'data: {"error": null}\n\n', b'data: {"usage": {}}\n\n'),
        b'event: error\ndata: {"error": {"type": "overloaded_error"}}\n\n',
    ),
    "frames": (
        encode_frame({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message": "no"}'),
        encode_frame({":message-type": "event", ":event-type": "chunk"}, b'{"bytes": "e30="}'),
        encode_frame({":message-type": "event", ":event-type": "chunk"}, b'{"bytes": "e3"}'),
        encode_frame({":message-type": "event", ":event-type": "chunk"}, b'{"bytes": 7}'),
        encode_frame({":message-type": "event"}, b'{"x": 1}'),
        *(encode_frame({":event-type": "metadata"}, each) for each in (b'{"x": 1}', b"{}", b"[]", b"x", b"")),
        *(b"\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00"),
    ),
    "lines": (b"{}\n", b"\n", b"  \n", b"null\n", b"{\n", b"7\n", b"[]\n", b'{"event_type": "x"}\n', b"{", b"\r\n"),
    "array": (b"", b" ", b"[", b"]", b"{}", b",", b"[7]", b"[[]]"),
}
"""What a stream may hold as well, sent as its events are."""


def _odd_events() -> Iterator[str]:
    """What each stream comes to with something odd in it, in front of each of its events and at its end."""
    for streamed in STREAMS:
        sent = streamed.sent(streamed.body)
        for odd in _ODD[streamed.framing]:
            for at in range(len(sent) + 1):
                reader = streamed.reader(keeps_text=at % 2 == 0)
                again = sent[max(0, at - 1) : at]  # what comes behind it is like what came before
                passed = [reader.feed(raw, hide_usage=True) for raw in (*sent[:at], odd, *again, *sent[at:])]
                told = [reader.finished, reader.ended, reader.failed, reader.is_told, reader.is_final, reader.left]
                yield f"{streamed.name} {odd!r} {at}: {list(map(len, passed))} {told} {_short_of(reader.close())}"


def _told_often() -> Iterator[str]:
    """What each stream comes to where one of its events comes several times, with other texts in it, and where it
    breaks off at its end."""
    for streamed in STREAMS:
        for at in range(len(streamed.body)):
            for many in (2, 5):
                one = [_with_text(streamed.body[at], _WRITTEN, f"word {number}") for number in range(many)]
                body = [*streamed.body[:at], *one, *streamed.body[at:]]
                for to in (streamed.to, streamed.to._replace(body=streamed.to.body | {"n": 1, "candidateCount": 1})):
                    reader = streamed._replace(to=to).reader(keeps_text=many == 2)
                    for raw in streamed.sent(body):
                        reader.feed(raw)
                    told = [reader.finished, reader.is_final, reader.output_bytes]
                    yield f"{streamed.name} {at} {many} times: {told} {_short_of(reader.close(complete=False))}"


def _short_of(answer: Answer) -> str:
    seen = answer.seen
    usage = None if answer.usage is None else {k: v for k, v in answer.usage._asdict().items() if v}
    more = (answer.problem, answer.failed, answer.cut_off, answer.output_floor, answer.model, answer.id)
    return f"{usage} {more} {None if seen is None else tuple(seen)}"


def _twice() -> Iterator[str]:
    """Bodies in which a field stands twice, written by hand."""
    bodies = [
        '{"model": "a", "model": "b"}',
        '{"model": "a", "model": "a"}',
        '{"x": 1, "x": 2, "model": "a", "y": "\\u006dodel"}',
        '{"x": 1, "x": 2, "model": "a"}',
        '{"x": {"model": "a", "model": "b"}, "n": 1}',
        '{"x": {"model": "a"}, "model": "b"}',
        '{"\\u006dodel": "a", "model": "b"}',
        '{"n": 1, "\\u006E": 2}',
        '{"n": 1, "text": "\\u00e9"}',
        '{"n": 1, "\\u002f": 1, "\\u002f": 2}',
        '{"generationConfig": {"maxOutputTokens": 1, "maxOutputTokens": 2}}',
        '{"generationConfig": {"maxOutputTokens": 1}, "x": {"maxOutputTokens": 2}}',
        '{"generationConfig": [{"maxOutputTokens": 1}], "maxOutputTokens": 2}',
        '{"inferenceConfig": {"maxTokens": 1, "x": 1, "x": 2}, "y": "maxTokens"}',
        '{"model": "\\"model\\"", "n": 1}',
        '{"messages": [{"content": "\\"messages\\""}]}',
        '{"tools": [], "functions": [], "tools": [1]}',
        '{"max_tokens": 1, "max_tokens": 1.0}',
        "{}",
    ]
    for body in bodies:
        raw = body.encode()
        yield f"{body}: {repeated_field(raw, read_json(raw))}"


def _headers() -> Iterator[str]:
    """What headers say about the price, beside what the body does."""
    tiers = ("", " ", "flex", " Flex ", "priority", "default", "standard", "on_demand", "reserved")
    for asked in REQUESTS:
        for own in (None, "default", "flex"):
            request = asked.read(asked.body)._replace(tier=own)
            for name in sorted(PRICE_HEADERS):
                for tier in (*tiers, "optimized", "OPTIMIZED "):
                    found = with_headers(request, {name: tier})
                    shown = (found.tier, found.unclear, found.prompt.opaque, found.prompt.conversation != 0)
                    yield f"{asked.name} {own} {name}: {tier!r}: {shown}"
        for one in tiers:
            for other in tiers:
                given = dict(zip(sorted(PRICE_HEADERS)[-2:], (one, other), strict=True))
                found = with_headers(asked.read(asked.body), given)
                yield f"{asked.name} {one!r} {other!r}: {(found.tier, found.unclear)}"


def _conversations() -> Iterator[str]:
    """What a conversation is known by, and the tool calls in it that have a result."""
    for asked in REQUESTS:
        plain, calls = beginning(asked.body), finished_calls(asked.body)
        yield f"{asked.name}: {list(map(tuple, calls))}"
        for where, body in made_up("said", asked.dialect.name, asked.body, 400):
            again, finished = beginning(body) == plain, finished_calls(body)
            if not again or finished != calls:
                yield f"{asked.name} {where}: {again} {list(map(tuple, finished))}"


_PAGES = b"%PDF-1.7\n5 0 obj << /Type /Pages /Count 2 >> endobj\n<< /Type /Page >>\n<</Type/Page/Parent 1 0 R>>\n"
_PACKED = b"6 0 obj << /Type /ObjStm /Filter /FlateDecode >>\nstream\n" + zlib.compress(_PAGES[9:]) + b"\nendstream\n"
_FILES: Mapping[str, bytes] = {
    "png": png(700, 300),
    "jpeg": jpeg(700, 300),
    "jpeg with more": b"\xff\xd8\xff\xfe\x00\x02\xff\xff\xfe\x00\x03c\xff\x01\xff\xd0" + jpeg(700, 300)[2:],
    "gif": gif(700, 300),
    "webp": webp(700, 300),
    "webp without loss": webp(700, 300, b"VP8L"),
    "webp with loss": webp(700, 300, b"VP8 "),
    "wav": wav(0.01),
    "wav with more": wav(0.01)[:12] + b"fact\x03\x00\x00\x00odd\x00LIST\x04\x00\x00\x00even" + wav(0.01)[12:],
    "pdf": _PAGES,
    "packed pdf": b"%PDF-1.7\n" + _PACKED + _PACKED,
}


def _files() -> Iterator[str]:
    """What files tell of their size, whole, in part, and with a byte of theirs changed."""
    for name, whole in _FILES.items():
        plain = _sizes(whole)
        yield f"{name}: {plain}"
        head = whole[:64]  # what is packed begins behind it
        changed = {f"{at} bytes": whole[:at] for at in range(len(head))}
        for at, byte in enumerate(head):
            for other in {0, 1, 2, 3, 0x7F, 0x80, 0xC4, 0xD8, 0xDA, 0xFF, byte ^ 1, byte ^ 0x20} - {byte}:
                changed[f"byte {at} is {other}"] = whole[:at] + bytes([other]) + whole[at + 1 :]
        for said, instead in ((b"/Count 2", b"/Count 7"), (b"/ObjStm", b"/Objects"), (b"stream\n", b"stream\r\n")):
            changed[f"{instead!r}"] = whole.replace(said, instead)
            changed[f"first {instead!r}"] = whole.replace(said, instead, 1)
        changed["and encrypted"] = whole + b"/Encrypt"
        for how, data in changed.items():
            found = _sizes(data)
            if found != plain:
                yield f"{name} {how}: {found}"


def _sizes(data: bytes) -> list[object]:
    seconds = wav_seconds(data, 1_000)
    return [picture_size(data), None if seconds is None else round(seconds, 6), pdf_pages(data)]


class _Response:
    """The response that a client's error carries."""

    def __init__(self, status: object = None, headers: object = None, content: object = None) -> None:
        self.status_code, self.headers, self.content = status, headers, content

    @property
    def text(self) -> str:
        raise RuntimeError("it was not read")


def _raised() -> Iterator[str]:
    """What errors of many shapes say about the bill."""
    own = b'{"error": {"message": "no", "type": "overloaded_error"}}'
    filtered = {"error": {"code": "content_filter"}}
    shapes: list[dict[str, Any]] = [{}]
    for status in (400, 429, 500, 503):
        for body in (None, own, own.decode(), filtered, "<html>", 7):
            shapes += [{"status_code": status, "body": body}, {"status": status, "details": body}]
            shapes += [{"response": _Response(status, headers, body)} for headers in (None, {}, _HTML, _JSON)]
    shapes += [{name: value} for name in ("code", "http_status") for value in (429, True, "429", 99, 100, 7.0)]
    shapes.append({"response": {"ResponseMetadata": {"HTTPStatusCode": 503}, "Error": {"Code": "x"}}})
    shapes.append({"response": {"ResponseMetadata": {"HTTPStatusCode": 503}}})
    for name in ("OddError", "ConnectError", "ReadTimeout", "HttpProcessingError", "TypeError"):
        for shape in shapes:
            error = type(name, (Exception,), {})()
            vars(error).update(shape)
            found = [
                outcome_of_error(error, unknown_before=before, requests=n) for before, n in ((0, 1), (1, 1), (0, 2))
            ]
            shown = {key: vars(value) if isinstance(value, _Response) else value for key, value in shape.items()}
            yield f"{name} {shown}: {[tuple(each) for each in found]}"


_HTML, _JSON = {"content-type": "text/html"}, {"Content-Type": "application/json"}


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "counts": _counts,
    "errors": _errors,
    "pictures": _pictures,
    "versions": _versions,
    "failures": _failures,
    "places": _places,
    "requests by their host": _asked_there,
    "requests by their model": _asked_of,
    "tools": _tools,
    "costs": _costs,
    "costs by who answers": _stated,
    "answers by their model": _answered_by,
    "one message": _one_message,
    "rewritten": _rewritten,
    "refusals": _refusals,
    "given up": _given_up,
    "odd events": _odd_events,
    "told often": _told_often,
    "files": _files,
    "fields twice": _twice,
    "headers": _headers,
    "conversations": _conversations,
    "raised": _raised,
}
