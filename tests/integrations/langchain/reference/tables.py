"""Tables of what the functions under the handler make of many values."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import BaseModel

from budget_guard import BudgetRevoked, DowngradePolicy, ModelCall, weigh
from budget_guard.wire import CHAT_COMPLETIONS, CONVERSE, GENERATE_CONTENT, MESSAGES, RESPONSES
from budget_guard_langchain import output_cap, request
from budget_guard_langchain.messages import as_sent, plain, without_kept
from budget_guard_langchain.response import Reply
from budget_guard_langchain.steering import SteeredParams, Steering, steering_of
from tests.integrations.langchain.reference.told import histories
from tests.wire.reference.corpus import BEDROCK, CHAT, CLAUDE, FUNCTION, GEMINI, PDF, PNG, RESPONSE, WAV

_AT = datetime(2026, 11, 1, tzinfo=timezone.utc)
_DIALECTS = (CHAT_COMPLETIONS, RESPONSES, MESSAGES, GENERATE_CONTENT, CONVERSE)
_PICTURE = f"data:image/png;base64,{PNG}"

# Messages

_BLOCKS: tuple[Any, ...] = (
    "",
    "text",
    {"type": "text", "text": "a"},
    {"type": "input_text", "text": "a"},
    {"type": "image_url", "image_url": _PICTURE},
    {"type": "image_url", "image_url": {"url": _PICTURE, "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "https://e/a.png"}},
    {"type": "image", "base64": PNG, "mime_type": "image/png"},
    {"type": "image", "source_type": "base64", "data": PNG, "mime_type": "image/jpeg", "extras": {"detail": "high"}},
    {"type": "image", "source_type": "url", "source": "https://e/a.png"},
    {"type": "image", "source": "https://e/a.png"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    {"type": "image", "source": {"type": "url", "url": "https://e/a.png"}},
    {"type": "image", "url": _PICTURE, "media_resolution": "MEDIA_RESOLUTION_LOW"},
    {"type": "image", "file_id": "file-1"},
    {"type": "input_image", "image_url": _PICTURE, "detail": "auto"},
    {"type": "file", "base64": PDF, "mime_type": "application/pdf"},
    {"type": "file", "base64": PNG, "mime_type": "image/png"},
    {"type": "file", "data": f"data:audio/wav;base64,{WAV}"},
    {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}"},
    {"type": "input_file", "file_url": "https://e/a.pdf"},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
    {"type": "document", "source": {"type": "text", "data": "long"}},
    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}},
    {"type": "media", "mime_type": "video/mp4", "data": "AAAA"},
    {"type": "media", "mime_type": "text/plain", "file_uri": "gs://a"},
    {"type": "text-plain", "text": "a"},
    {"type": "text-plain", "base64": "AAAA", "mime_type": "text/plain"},
    {"type": "audio", "base64": WAV, "mime_type": "audio/wav"},
    {"type": "audio", "base64": WAV},
    {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
    {"type": "video", "base64": "AAAA"},
    {"type": "video", "url": "https://e/a.mp4"},
    {"type": "reasoning", "reasoning": "thought"},
    {"type": "reasoning", "id": "rs_1", "reasoning": "thought"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xxxx"},
    {"type": "reasoning", "extras": {"encrypted_content": "xxxx"}},
    {"type": "reasoning", "id": "other_1", "summary": [{"type": "summary_text", "text": "a"}]},
    {"type": "thinking", "thinking": "thought", "signature": "s"},
    {"type": "tool_use", "id": "t1", "name": "f", "input": {"key": "a"}},
    {"type": "function_call", "name": "f", "arguments": "{}"},
    {"type": "code_interpreter_call", "code": "1 + 1"},
    {"type": "tool_call", "name": "f", "args": {}},
    {"type": "server_tool_result", "output": "a"},
    {"type": "citation", "url": "https://e"},
    {"type": "non_standard", "value": {"type": "text", "text": "a"}},
    {"type": "non_standard", "value": {"type": "image", "base64": PNG}},
    {"type": "non_standard", "value": "a"},
    {"type": "nobody_knows", "text": "a"},
    {"type": 3, "text": "a"},
    {"text": "a"},
)
_CALL = {"name": "f", "args": {"key": "a"}, "id": "call_1", "type": "tool_call"}
_MESSAGES: tuple[BaseMessage, ...] = (
    SystemMessage("Be brief."),
    HumanMessage("hi"),
    HumanMessage(""),
    HumanMessage("hi", name="me"),
    HumanMessage([{"type": "text", "text": "hi"}], name="me"),
    HumanMessage("hi", additional_kwargs={"vendor": "x", "text": "y"}),
    AIMessage("Done."),
    AIMessage("", tool_calls=[_CALL]),
    AIMessage("Done.", tool_calls=[_CALL, {**_CALL, "id": "call_2"}], name="me"),
    AIMessage([{"type": "text", "text": "Done."}, ""], tool_calls=[_CALL]),
    AIMessage("Done.", additional_kwargs={"refusal": "no", "parsed": {}, "tool_calls": []}),
    AIMessage("Done.", additional_kwargs={"reasoning": {"type": "reasoning", "id": "rs_1"}}),
    AIMessage("Done.", additional_kwargs={"tool_outputs": [{"type": "web_search_call", "id": "ws_1"}]}),
    AIMessage("Done.", additional_kwargs={"audio": {"id": "audio_1"}, "reasoning_content": "thought"}),
    AIMessage("Done.", response_metadata={"id": "resp_1"}),
    AIMessage("Done.", response_metadata={"id": "chatcmpl_1"}),
    AIMessage("Done.", response_metadata={"id": 3}),
    ToolMessage("value", tool_call_id="call_1"),
    ToolMessage([{"type": "text", "text": "value"}], tool_call_id="call_1"),
    ToolMessage("value", tool_call_id="", name="f"),
    FunctionMessage(content="value", name="f"),
    ChatMessage(content="hi", role="critic"),
)


def _messages() -> Iterator[str]:
    for dialect in _DIALECTS:
        for block in _BLOCKS:
            sent = as_sent([HumanMessage.model_construct(content=[block])], dialect.name)
            yield f"{dialect.name} {_short(block)}: {_short(sent)}"
        for message in _MESSAGES:
            yield f"{dialect.name} {message.type} {_short(message.content)}: {_short(as_sent([message], dialect.name))}"
    for at, message in enumerate(_MESSAGES):
        yield f"plain {at}: {plain([message])}"
        for given in ([message], [message, _MESSAGES[0]], [_MESSAGES[14], message], [message, _MESSAGES[14]]):
            left, ident = without_kept(given)
            yield f"kept {at}: {len(left)} {ident} {left is given}"


def _short(value: Any) -> str:
    """A value, and of what is long in it the first letters."""
    text = repr(value)
    for long in (PNG, PDF, WAV):
        text = text.replace(long, long[:4])
    return text


# Calls


class _Schema(BaseModel):
    answer: str


_TYPES = (
    *("openai-chat", "azure-openai-chat", "chat-deepseek", "xai-chat", "anthropic-chat", "anthropic-chat-vertexai"),
    *("chat-google-generative-ai", "vertexai", "amazon_bedrock_converse_chat", "nobody-knows", None),
)
_CONSTRUCTOR: Mapping[str, Sequence[Any]] = {
    "openai_api_base": ["https://api.openai.com/v1", "https://llm.example/v1"],
    "azure_endpoint": ["https://me.openai.azure.com"],
    "openai_api_version": ["2024-10-21"],
    "base_url": ["https://openrouter.ai/api/v1"],
    "region_name": ["eu-west-1"],
    "use_responses_api": [True, False],
    "output_version": ["responses/v1", "v1"],
    "use_previous_response_id": [True],
    "inference_geo": ["us"],
    "mcp_servers": [[{"type": "url"}]],
    "container": ["c1"],
    "cached_content": ["cachedContents/1"],
    "max_tokens": [90],
    "guardrail_config": [{"id": "g"}],
    "guardrails": [{"id": "h"}],
    "performance_config": [{"latency": "optimized"}],
    "service_tier": ["flex"],
    "additional_model_request_fields": [{"top_k": 1}],
}
_PARAMS: Mapping[str, Sequence[Any]] = {
    "model": ["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-flash", ""],
    "model_name": ["gpt-4o-mini"],
    "model_id": ["us.anthropic.claude-sonnet-4-5-20250929-v1:0"],
    "azure_deployment": ["prod"],
    "max_tokens": [100, 4_096],
    "max_completion_tokens": [70, "70"],
    "max_output_tokens": [80],
    "num_predict": [60],
    "maxTokens": [50],
    "n": [1, 2],
    "candidate_count": [3],
    "tools": [
        [FUNCTION],
        [{"type": "web_search"}],
        [{"name": "f", "description": "d", "input_schema": {}}],
        [{"google_search": {}}, {"name": "g"}],
        [{"cachePoint": {"type": "default"}}],
        [SimpleNamespace(model_dump=lambda: {"google_search": {}, "code_execution": None})],
    ],
    "toolConfig": [{"tools": [{"toolSpec": {"name": "f"}}]}],
    "functions": [[{"name": "f"}]],
    "response_format": [{"type": "json_object"}, _Schema],
    "text_format": [_Schema],
    "response_schema": [{"type": "object"}],
    "output_config": [{"effort": "low"}],
    "response_modalities": [["IMAGE"], [SimpleNamespace(name="AUDIO")]],
    "generation_config": [{"candidateCount": 4, "topK": 1}],
    "inferenceConfig": [{"maxTokens": 40}],
    "service_tier": ["flex", "priority"],
    "performanceConfig": [{"latency": "standard"}],
    "guardrailConfig": [{"id": "i"}],
    "additionalModelRequestFields": [{"thinking": {}}],
    "extra_body": [{"plugins": []}, {"messages": []}, {"input": "else", "model": "o3"}, "odd"],
    "model_kwargs": [{"max_tokens": 4_000, "top_k": 3}, {"stop": ["x"]}],
    "previous_response_id": ["resp_9"],
    "reasoning": [{"effort": "low"}],
    "text": [{"verbosity": "low"}],
    "stop": [["x"]],
    "cache_control": [{"type": "ephemeral", "ttl": "1h"}],
    "cached_content": ["cachedContents/2"],
    "conversation_id": ["conv_1"],
    "stream": [True],
}
_METADATA: Mapping[str, Sequence[Any]] = {
    "ls_provider": ["openai", "anthropic", "google_genai", "mistral", 3],
    "ls_model_name": ["some-model"],
    "ls_max_tokens": [30],
    "lc_agent_name": ["Named"],
    "langgraph_node": ["model", 3],
}
_CONVERSATIONS: tuple[Any, ...] = (
    "one text",
    [HumanMessage("hi")],
    [SystemMessage("Be brief."), HumanMessage("hi")],
    [HumanMessage("hi"), AIMessage("Done.", response_metadata={"id": "resp_1"}), HumanMessage("go on")],
    [SystemMessage([{"type": "text", "text": "Be brief."}]), HumanMessage([{"type": "image", "base64": PNG}])],
)


def _some(chance: random.Random, values: Mapping[str, Sequence[Any]], likely: float) -> dict[str, Any]:
    return {name: chance.choice(given) for name, given in values.items() if chance.random() < likely}


def _calls() -> Iterator[str]:
    chance = random.Random(1)
    with _without_clients():
        for number in range(1_500):
            constructor = _some(chance, _CONSTRUCTOR, 0.08)
            written: Any = {
                "name": chance.choice(["ChatOpenAI", "AzureChatOpenAI", "ChatAnthropic", "ChatNobodyKnows", None]),
                "kwargs": constructor,
            }
            params = {"_type": chance.choice(_TYPES), **_some(chance, _PARAMS, chance.choice([0.02, 0.1, 0.2]))}
            metadata = _some(chance, _METADATA, 0.3)
            prompt = chance.choice(_CONVERSATIONS)
            if number % 50 == 0:
                written = None
            try:
                told: Any = _asked(request.read_call(written, prompt, metadata, params))
            except Exception as error:
                told = type(error).__name__
            yield f"{number} {params['_type']} {_names(constructor)} {_names(params)} {_names(metadata)}: {told}"
            texts = chance.choice([0, 1, 2, 19, 20, 21, 45, None])
            yield f"{number} in {request.requests_of_texts(written, {'_type': 'openai'}, texts)} requests"
            yield f"{number} names {list(request.tool_names({'tools': params.get('tools')}))}"


def _names(values: Mapping[str, Any]) -> str:
    return ",".join(values)


def _without_clients() -> Any:
    """What the newest clients of OpenAI and Anthropic do by themselves is not what those of another version do."""
    openai, anthropic = ModuleType("langchain_openai.chat_models.base"), ModuleType("langchain_anthropic")
    openai._model_prefers_responses_api = lambda name: name == "gpt-4o-mini"  # type: ignore[attr-defined]
    anthropic.ChatAnthropic = lambda **_: SimpleNamespace(max_tokens=4_096)  # type: ignore[attr-defined]
    request.filled_in_cap.cache_clear()
    request._known.clear()
    return mock.patch.dict(sys.modules, {"langchain_openai.chat_models.base": openai, "langchain_anthropic": anthropic})


def _asked(asked: request.Asked) -> tuple[Any, ...]:
    call, sent, prompt = asked.call, asked.request, asked.call.prompt
    return (
        *(
            sent.dialect,
            call.model,
            call.provider,
            call.max_output_tokens,
            call.agent,
            call.can_cap,
            sorted(call.needs),
        ),
        *(prompt.base, [weight for _, weight in prompt.parts], prompt.opaque, sorted(prompt.unweighed.values())),
        *(prompt.conversation != 0, call.choices, sent.tier, sent.region),
        *(sent.unknown, sent.hosted_tools, sent.hour_cache, sent.sound_tokens, sent.max_output_tokens),
        *(sent.prompt.base, len(sent.prompt.parts), call.service_tier),
    )


_ODD: Sequence[Any] = (
    *(None, "", "text", 0, 1, 3, -1, 2.5, True, False, [], ["a"], [None], {}, {"a": 1}, {"text": "a"}),
    [{"type": "function", "name": "g"}],
    [{"type": "function", "function": {"name": "g"}}],
)
"""Values that stand anywhere at times."""


def _one_by_one() -> Iterator[str]:
    """Calls of each class that say one thing more than a plain one, and that in every way."""
    settings = {**_CONSTRUCTOR, "api_base": ["https://api.x.ai/v1"], "anthropic_api_url": ["https://proxy.example"]}
    clients = {"openai-chat": "ChatOpenAI", "azure-openai-chat": "AzureChatOpenAI", "anthropic-chat": "ChatAnthropic"}
    talk = [HumanMessage("hi")]
    with _without_clients():
        for kind in _TYPES:
            written: Any = {"name": clients.get(kind or ""), "kwargs": {}}
            plain_params = {"_type": kind, "model": "gpt-4o"}
            for name, values in settings.items():
                for value in (*values, *_ODD):
                    given = {**written, "kwargs": {name: value}}
                    yield f"{kind} made with {name} {value}: {_told_of(given, talk, {}, plain_params)}"
            for name, values in _PARAMS.items():
                listed = name in ("tools", "response_modalities")  # numbers in their place are refused by the client
                for value in (*values, *(each for each in _ODD if not (listed and isinstance(each, (int, float))))):
                    params = {**plain_params, name: value}
                    shown = value if isinstance(value, (int, str)) or value in _ODD else type(value).__name__
                    yield f"{kind} {name} {shown}: {_told_of(written, talk, {}, params)}"
            for name, values in _METADATA.items():
                for value in (*values, *_ODD):
                    yield f"{kind} of {name} {value}: {_told_of(written, talk, {name: value}, {'_type': kind})}"
                    yield f"{kind} text of {name} {value}: {_told_of(None, 'hi', {name: value}, {'_type': kind})}"


def _told_of(*given: Any) -> Any:
    return _asked(request.read_call(*given))


# Answers

_REASONS = (None, "", "stop", "length", "MAX_TOKENS", "end_turn", 3)


def _answers() -> Iterator[str]:
    """Answers of few words, which say things in odd places."""
    chance = random.Random(2)
    asked = (None, None, *(each.read(each.body) for each in (CHAT, RESPONSE, CLAUDE, GEMINI, BEDROCK)))
    for number in range(2_000):
        choices = [_choice(chance) for _ in range(chance.choice([0, 1, 1, 1, 2]))]
        output = _some(chance, {"token_usage": _RAW, "usage": _RAW, **_SAID}, 0.15)
        run_id: Any = chance.choice([None, "run-1"])
        generations = [choices] if chance.random() < 0.95 else []
        reply = Reply(SimpleNamespace(generations=generations, llm_output=output or None), run_id)  # type: ignore[arg-type]
        more = (reply.finish, reply.is_cut_off, reply.says_no_usage_of_its_own, reply.text, reply.model)
        try:
            answer = reply.read(chance.choice(asked), added_up=chance.random() < 0.05)
            told: Any = (
                *(answer.dialect, None if answer.usage is None else tuple(answer.usage), answer.problem, answer.model),
                *(answer.tier, answer.id, answer.cost, answer.cut_off, answer.region, reply.was_cached),
            )
        except Exception as error:
            told = type(error).__name__
        yield f"{number}: {told} {more}"


def _answers_one_by_one() -> Iterator[str]:
    """Answers that say one thing more than a plain one, or leave one out, in every dialect."""
    plain_usage = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    counts = (
        "cache_read",
        "cache_creation",
        "ephemeral_5m_input_tokens",
        "ephemeral_1h_input_tokens",
        "audio",
        "image",
    )
    usages: list[Any] = [None, {}, *({**plain_usage, name: value} for name in plain_usage for value in _ODD)]
    for name in (*counts, "reasoning", "flex_reasoning"):
        for value in (*_ODD, 99, 100, 101, 49, 50, 51):
            for side in ("input_token_details", "output_token_details"):
                usages.append({**plain_usage, side: {name: value}})
    usages += [{**plain_usage, side: value} for side in ("input_token_details", "total_cost") for value in _ODD]
    usages += [
        {**plain_usage, "input_token_details": {"cache_read": read, "cache_creation": wrote, counts[2]: short}}
        for read in (0, 40, 100)
        for wrote in (0, 60, 61)
        for short in (0, 60, 70)
    ]
    said: list[dict[str, Any]] = [{name: value} for name, values in _SAID.items() for value in (*values, *_ODD)]
    notes = [[{"type": kind, "url": "u"}] for kind in ("citation", "file_citation", "url_citation", None)]
    contents = [*_CONTENTS, *([{"type": "text", "text": "a", "annotations": each}] for each in (*notes, *_ODD))]
    extras = [{name: value} for name in ("refusal", "annotations", "tool_outputs") for value in (*notes, *_ODD)]
    asked = (None, *(each.read(each.body) for each in (CHAT, RESPONSE, CLAUDE, GEMINI, BEDROCK)))
    for each_asked in asked:

        def line(what: object, output: Any = None, texts: int = 1, asked: Any = each_asked, **given: Any) -> str:
            told = None if asked is None else asked.dialect
            message = SimpleNamespace(
                **{
                    **{"id": "msg_1", "content": "Done.", "tool_calls": [], "invalid_tool_calls": []},
                    **{"additional_kwargs": {}, "response_metadata": {}, "usage_metadata": plain_usage},
                    **given,
                }
            )
            choices: Any = [SimpleNamespace(text="Done.", message=message, generation_info=None)] * texts
            result: Any = SimpleNamespace(generations=[choices], llm_output=output)
            return f"{told} {what}: {_said_by(Reply(result), asked)}"

        yield from (line(each, usage_metadata=each) for each in usages)
        yield from (line(f"said {each}", response_metadata=each) for each in said)
        yield from (line(f"put out {each}", each) for each in said)
        yield from (line(f"put out {each} without usage", each, usage_metadata=None) for each in said)
        yield from (line(f"said {each} without usage", response_metadata=each, usage_metadata=None) for each in said)
        yield from (line(f"content {each}", content=each) for each in contents)
        for raw in _RAW:
            yield from (line(f"content {each} {raw}", {"token_usage": raw}, content=each) for each in contents)
            yield from (line(f"{each} {raw}", {"token_usage": raw}, additional_kwargs=each) for each in extras)
        yield from (line(f"beside it {each}", additional_kwargs=each) for each in extras)
        for calls in ([], [_CALL]):
            yield line(f"tool_calls {calls}", tool_calls=calls, content="")
            yield line(f"invalid_tool_calls {calls}", invalid_tool_calls=calls, content="")
        yield from (line(f"{each} choices", texts=each) for each in (0, 2))
        yield from (line(f"id {each}", id=each) for each in _ODD)


def _said_by(reply: Reply, asked: Any) -> Any:
    answer = reply.read(asked)
    return (
        *(answer.dialect, None if answer.usage is None else tuple(answer.usage), answer.problem, answer.model),
        *(answer.tier, answer.id, answer.cost, answer.cut_off, answer.region, reply.was_cached, reply.finish),
    )


_RAW: Sequence[Any] = (
    {},
    {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    {"completion_tokens": 5},
    {"input_tokens": 10, "output_tokens": 5},
    {"cost": 0.01},
)
_SAID: Mapping[str, Sequence[Any]] = {
    "model_name": ["gpt-4o", ""],
    "model": ["claude-sonnet-4-5", 3],
    "model_id": ["m"],
    "model_version": ["v"],
    "model_provider": ["google_genai", "anthropic", "openai", None],
    "finish_reason": _REASONS,
    "stop_reason": _REASONS,
    "stopReason": _REASONS,
    "incomplete_details": [{"reason": "max_output_tokens"}, None],
    "status": ["incomplete", "completed"],
    "object": ["response", "chat.completion"],
    "service_tier": ["flex", "default", 3],
    "id": ["id_1", 3],
    "usage": _RAW,
    "token_usage": _RAW,
    "grounding_metadata": [{"web_search_queries": ["a", "b"]}],
}
_CONTENTS: Sequence[Any] = (
    "",
    "Done.",
    [],
    [{"type": "text", "text": "a", "annotations": [{"type": "citation", "url": "u"}, {"type": "file_citation"}]}],
    [{"type": "web_search_call", "id": "ws_1", "status": "completed"}, {"type": "file_search_call"}],
    [{"type": "server_tool_call", "name": "web_search", "id": "ws_1", "args": {"type": "search"}}],
    [{"type": "non_standard", "value": {"type": "code_interpreter_call", "container_id": "c"}}],
    [{"type": "non_standard", "value": None}, "text"],
)


def _choice(chance: random.Random) -> Any:
    info = _some(chance, {"finish_reason": _REASONS, "stop_reason": _REASONS}, 0.2)
    if chance.random() < 0.1:
        return SimpleNamespace(text="Done.", generation_info=info or None)
    message = SimpleNamespace(
        id=chance.choice([None, "msg_1", "lc_run-1", 3]),
        content=chance.choice(_CONTENTS),
        tool_calls=chance.choice([[], [_CALL]]),
        invalid_tool_calls=chance.choice([[], [{"name": "f"}]]),
        additional_kwargs=_some(
            chance,
            {
                "refusal": ["no"],
                "annotations": [[{"type": "url_citation"}], None],
                "tool_outputs": [[{"type": "web_search_call", "id": "ws_2"}], "odd"],
            },
            0.2,
        ),
        response_metadata=_some(chance, _SAID, 0.12),
        usage_metadata=_usage(chance),
    )
    return SimpleNamespace(text=str(message.content)[:9], message=message, generation_info=info or None)


def _usage(chance: random.Random) -> Any:
    if chance.random() < 0.15:
        return None
    read, written = chance.choice([0, 10, 100, 1_000]), chance.choice([0, 5, 50])
    usage: dict[str, Any] = {"input_tokens": read, "output_tokens": written}
    usage["total_tokens"] = chance.choice([read + written, read + written, 0, None, 7])
    given = _some(
        chance,
        {
            "cache_read": [0, 4, 100, None],
            "cache_creation": [0, 3, 90],
            "ephemeral_5m_input_tokens": [0, 2, 50],
            "ephemeral_1h_input_tokens": [0, 1, 40],
            "flex_cache_read": [5],
            "priority_audio": [2],
            "audio": [0, 6],
            "image": [7],
        },
        0.25,
    )
    made = _some(chance, {"reasoning": [0, 2, 50, 60], "audio": [0, 3], "image": [1], "flex_reasoning": [1]}, 0.25)
    usage["input_token_details"] = given if chance.random() < 0.7 else None
    usage["output_token_details"] = made if chance.random() < 0.7 else None
    if chance.random() < 0.1:
        usage["total_cost"] = chance.choice([0, 0.0, 0.5, 1, None])
    return usage


# Steering


class _BaseChatOpenAI(SimpleNamespace):
    def _use_responses_api(self, given: Mapping[str, Any]) -> bool:
        return bool(given.get("reasoning") or self.__dict__.get("responses"))

    def model_copy(self, update: Mapping[str, Any]) -> Any:
        return type(self)(**{**self.__dict__, **update})


def _class(name: str, package: str, *bases: type) -> type[Any]:
    return type(name, bases or (_BaseChatOpenAI,), {"__module__": f"{package}.chat_models"})


_BASE = _class("BaseChatOpenAI", "langchain_openai")
_CLASSES: Mapping[str, type[Any]] = {
    "openai": _class("ChatOpenAI", "langchain_openai", _BASE),
    "azure": _class("AzureChatOpenAI", "langchain_openai", _BASE),
    "deepseek": _class("ChatDeepSeek", "langchain_deepseek", _BASE),
    "own": _class("Own", "mine", _class("ChatOpenAI", "langchain_openai", _BASE)),
    "claude": _class("ChatAnthropic", "langchain_anthropic"),
    "google": _class("ChatGoogleGenerativeAI", "langchain_google_genai"),
    "unknown": _class("ChatNobodyKnows", "nobody"),
}
_FIELDS: Mapping[str, Sequence[Any]] = {
    "max_tokens": [None, 40, 300, 4_096, "odd"],
    "max_output_tokens": [50, None],
    "extra_body": [None, {"max_tokens": 60}, {"seed": 1}, {"max_completion_tokens": "odd"}],
    "model_kwargs": [{"max_tokens": 70}, {"reasoning": {}}, {"stream_options": {}}, {"reasoning": {"effort": "low"}}],
    "model_name": ["gpt-4o", "o3-mini"],
    "model": ["claude-sonnet-4-5"],
    "deployment_name": ["prod"],
    "openai_api_base": ["https://api.openai.com/v1", "https://llm.example/v1", "https://api.groq.com/openai/v1"],
    "azure_endpoint": ["https://me.openai.azure.com"],
    "openai_api_version": ["2024-10-21"],
    "stream_usage": [None, None, True, False],
    "responses": [True],
    "thinking": [{"type": "enabled", "budget_tokens": each} for each in (1_024, 2_000, 4_000)],
}
_KWARGS: Mapping[str, Sequence[Any]] = {
    "max_tokens": [30, 500, None],
    "max_completion_tokens": [35],
    "max_output_tokens": [25],
    "extra_body": [{"max_tokens": 60}, {"seed": 1}],
    "model": ["o3", 3],
    "stream_usage": [True, False],
    "stream_options": [{}],
    "thinking": [{"type": "enabled", "budget_tokens": 3_000}, {"type": "adaptive"}],
    "stop": [["x"]],
}


def _caps() -> Iterator[str]:
    """The calls of steered models, with an output cap and a wish for usage."""
    chance = random.Random(3)
    with _without_clients():
        for number in range(1_200):
            kind = chance.choice(list(_CLASSES))
            model = _CLASSES[kind](**_some(chance, _FIELDS, 0.2))
            kwargs = _some(chance, _KWARGS, 0.15)
            if kind in ("claude", "google", "unknown"):
                model._use_responses_api = None
            given = f"{number} {kind} {vars(model)} {kwargs}"
            cap = chance.choice([1, 30, 40, 45, 1_500, 2_048, 3_000, 5_000])
            capped, sent = output_cap.with_cap(model, dict(kwargs), cap)
            changed = {name: value for name, value in vars(capped).items() if vars(model).get(name) != value}
            asked = output_cap.with_usage(model, sent)
            added = output_cap.added_by(kwargs, asked), output_cap.added_by({}, kwargs)
            told = (output_cap.can_cap(model), output_cap.cap_set(model, kwargs), capped is model, changed)
            yield f"{given} at {cap}: {told} {asked} {asked is sent} {added}"


def _caps_one_by_one() -> Iterator[str]:
    """Models of each class that have one thing set, at each address, and calls that say one thing more."""
    addresses = ("https://me.openai.azure.com/", "https://me.example/", "https://api.deepseek.com/v1", "no address")
    made: Mapping[str, Sequence[Any]] = {
        **_FIELDS,
        "openai_api_base": [*_FIELDS["openai_api_base"], *addresses],
        "azure_endpoint": [*_FIELDS["azure_endpoint"], *addresses],
        "base_url": addresses,
    }
    places = [None, *(("openai_api_base", each) for each in (*_FIELDS["openai_api_base"], *addresses))]
    with _without_clients():
        for kind, make in _CLASSES.items():
            known: dict[str, Any] = {"_use_responses_api": None} if kind in ("claude", "google", "unknown") else {}
            for place in places if not known else places[:1]:
                odd = _ODD if place is None else ()
                here = {**known, "stream_usage": None, **({} if place is None else {place[0]: place[1]})}
                yield f"{kind} {place}: {_capped(make(**here), {})}"
                for field, values in made.items():
                    for value in (*values, *odd):
                        yield f"{kind} {place} {field} {value}: {_capped(make(**{**here, field: value}), {})}"
                for field, values in _KWARGS.items():
                    for value in (*values, *odd):
                        yield f"{kind} {place} called with {field} {value}: {_capped(make(**here), {field: value})}"


def _capped(model: Any, kwargs: Mapping[str, Any]) -> Any:
    told: list[Any] = [output_cap.can_cap(model), output_cap.cap_set(model, dict(kwargs))]
    for cap in (1, 45, 2_048):
        capped, sent = output_cap.with_cap(model, dict(kwargs), cap)
        changed = {name: value for name, value in vars(capped).items() if vars(model).get(name) != value}
        told += [changed, sent, output_cap.added_by(dict(kwargs), sent)]
    asked = output_cap.with_usage(model, dict(kwargs))
    return (*told, asked, output_cap.added_by(dict(kwargs), asked))


def _steered() -> Iterator[str]:
    """What budgets are asked for a steered call, and what it makes of what they decide."""
    chance = random.Random(4)
    call = ModelCall("large", weigh(messages=["hi"]), provider="openai", max_output_tokens=90)
    cheaper = DowngradePolicy(to="small", at=0.5)
    for _ in range(300):
        options: dict[str, Any] = {
            "can_cap": chance.random() < 0.5,
            "cap_set": chance.choice([None, 30]),
            "downgrade": chance.choice([None, cheaper]),
            "takes": chance.choice([frozenset(), frozenset({"small"})]),
            "stands_for": chance.choice([None, ("larger", True), ("larger", False)]),
            "final": chance.random() < 0.5,
        }
        steering = Steering(**options)
        lines = [_call(steering.ask(call)), f"{steering.asks_for_usage} {steering.takes('small')} {steering.decided}"]
        for _ in range(chance.choice([0, 1, 2, 3])):
            name, cap = chance.choice(["large", "small"]), chance.choice([None, 20, 40, 60])
            decision: Any = SimpleNamespace(name=name, requested="large", output_cap=cap)
            steering.answer(decision)
            lines.append(f"{name} {cap} -> {steering.model} {steering.cap} {steering.decided}")
            lines.append(_call(steering.ask(call)))
        for kept in ({}, {"keeps_cut": True}, {"keeps_cut": False}):
            cut = Steering(**{**options, **kept})
            for stop in (None, BudgetRevoked(scope="user:u1", reason="leaked", at=_AT)):
                cut.cut = stop
                try:
                    cut.raise_if_cut()
                    lines.append("kept")
                except BudgetRevoked as error:
                    lines.append(type(error).__module__)
        params = SteeredParams({"a": 1}, steering)
        lines.append(f"{steering_of(params) is steering} {steering_of(dict(params))} {params}")
        yield f"{list(options.values())}: {'; '.join(lines)}"


def _call(call: ModelCall) -> str:
    policy = None if call.downgrade is None else call.downgrade.at
    return f"{call.model} {call.provider} {call.max_output_tokens} {call.can_cap} {policy} {call.final}"


def _refusals() -> Iterator[str]:
    """The notes in errors of endpoints that say who added a field."""
    for added in ((), ("max_completion_tokens",), ("stream_options.include_usage", "max_tokens")):
        for status in (None, "400", 400, 422, 429, 500):
            for words in ("unknown field", "max_completion_tokens is unknown", "stream_options: no", "max_tokens?"):
                for more in (
                    {},
                    {"body": words},
                    {"response": SimpleNamespace(text=words)},
                    {"body": "", "response": 3},
                ):
                    error = Exception("no")
                    for name, value in {"status_code": status, **more}.items():
                        setattr(error, name, value)
                    with mock.patch.object(output_cap, "_log") as log:
                        output_cap.explain(error, added)
                    told = [each.args[1] for each in log.warning.mock_calls]
                    yield f"{added} {status} {words} {sorted(more)}: {told}"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "messages": _messages,
    "calls": _calls,
    "calls one by one": _one_by_one,
    "odd answers": _answers,
    "odd answers one by one": _answers_one_by_one,
    "caps": _caps,
    "caps one by one": _caps_one_by_one,
    "steered calls": _steered,
    "refusals": _refusals,
    "what a handler is told": histories,
}
