"""What LangChain tells callbacks of calls and answers, with all that costs in it, and each with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

from langchain_core.messages import HumanMessage

from budget_guard.wire import Request
from budget_guard_langchain.request import read_call
from budget_guard_langchain.response import Reply
from tests.integrations.langchain.reference.tables import TABLES
from tests.wire.reference.corpus import BEDROCK, CHAT, CLAUDE, FUNCTION, GEMINI, RESPONSE, TEXTS
from tests.wire.reference.readings import changes

_Base: TypeAlias = "tuple[Callable[[Any], Any], dict[str, Any]]"

USAGE: dict[str, Any] = {
    "input_tokens": 1_000,
    "output_tokens": 300,
    "total_tokens": 1_300,
    "input_token_details": {
        "cache_read": 200,
        "cache_creation": 90,
        "ephemeral_5m_input_tokens": 50,
        "ephemeral_1h_input_tokens": 40,
        "audio": 30,
        "flex_cache_read": 5,
    },
    "output_token_details": {"reasoning": 100, "audio": 20},
}


def _reply(body: dict[str, Any]) -> Reply:
    message = None if body.get("message") is None else SimpleNamespace(**body["message"])
    choice = SimpleNamespace(text=body.get("text"), message=message, generation_info=body.get("generation_info"))
    choices = [choice] * (2 if body.get("choices") else 1)
    return Reply(SimpleNamespace(generations=[choices], llm_output=body.get("llm_output")))  # type: ignore[arg-type]


def _answer(request: Request | None) -> Callable[[Any], Any]:
    def read(body: dict[str, Any]) -> Any:
        reply = _reply(body)
        answer = reply.read(request, added_up=body.get("added_up") is True)
        more = (reply.finish, reply.is_cut_off, reply.was_cached, reply.says_no_usage_of_its_own, reply.text)
        return answer._replace(text=repr(more))

    return read


def _message(content: Any = "Done.", **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "content": content,
        "tool_calls": [],
        "usage_metadata": USAGE,
        "response_metadata": {},
        "additional_kwargs": {},
        **more,
    }


_RAW = {
    "prompt_tokens": 1_000,
    "completion_tokens": 300,
    "total_tokens": 1_300,
    "prompt_tokens_details": {"cached_tokens": 200},
    "completion_tokens_details": {"reasoning_tokens": 100},
}
_OF_CLAUDE = {
    "input_tokens": 500,
    "output_tokens": 300,
    "cache_read_input_tokens": 200,
    "cache_creation": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 40},
}
_REPLIES: Mapping[str, tuple[Request | None, dict[str, Any]]] = {
    "chat": (
        CHAT.read(CHAT.body),
        {
            "text": "Done.",
            "message": _message(
                response_metadata={
                    "token_usage": _RAW,
                    "model_name": "gpt-4o-2024-08-06",
                    "finish_reason": "length",
                    "service_tier": "flex",
                    "id": "chatcmpl-1",
                    "model_provider": "openai",
                },
                tool_calls=[{"name": "f"}],
            ),
            "generation_info": {"finish_reason": "stop"},
            "llm_output": {"model_name": "gpt-4o", "token_usage": {}},
            "choices": 2,
        },
    ),
    "responses": (
        RESPONSE.read(RESPONSE.body),
        {
            "message": _message(
                [{"type": "text", "text": "Done."}, {"type": "web_search_call", "id": "ws_1"}],
                additional_kwargs={"tool_outputs": [{"type": "file_search_call", "status": "completed"}]},
                response_metadata={
                    "object": "response",
                    "id": "resp_1",
                    "model": "gpt-4o",
                    "status": "incomplete",
                    "incomplete_details": {"reason": "max_output_tokens"},
                    "service_tier": "priority",
                },
            ),
        },
    ),
    "messages": (
        CLAUDE.read(CLAUDE.body),
        {
            "message": _message(
                [{"type": "text", "text": "Done."}, {"type": "web_search_tool_result", "content": []}],
                response_metadata={
                    "usage": _OF_CLAUDE,
                    "model": "claude-sonnet-4-5",
                    "stop_reason": "max_tokens",
                    "id": "msg_2",
                },
            ),
            "llm_output": {"model": "claude-sonnet-4-5"},
        },
    ),
    "messages without the provider's own words": (
        CLAUDE.read(CLAUDE.body),
        {"message": _message(response_metadata={"model_name": "claude-sonnet-4-5", "stop_reason": "end_turn"})},
    ),
    "generateContent": (
        GEMINI.read(GEMINI.body),
        {
            "message": _message(
                response_metadata={
                    "model_name": "gemini-2.5-flash",
                    "finish_reason": "MAX_TOKENS",
                    "grounding_metadata": {"web_search_queries": ["a"]},
                    "service_tier": "flex",
                }
            ),
        },
    ),
    "converse": (
        BEDROCK.read(BEDROCK.body),
        {"message": _message(response_metadata={"stopReason": "max_tokens", "model_name": "claude-sonnet-4-5"})},
    ),
    "of nobody knows whom": (
        None,
        {
            "message": _message(
                [{"type": "text", "text": "x"}, {"type": "web_search_call"}],
                response_metadata={"model": "m", "model_provider": "google_genai", "id": "gen-1", "object": "x"},
            ),
            "llm_output": {"usage": {"cost": 0.01, "prompt_tokens_unknown": 3}},
        },
    ),
    "of a cache": (None, {"message": _message(usage_metadata={**USAGE, "total_cost": 0}), "llm_output": {}}),
    "of several texts": (
        TEXTS.read(TEXTS.body),
        {"text": "Done.", "generation_info": {"finish_reason": "length"}, "llm_output": {"token_usage": _RAW}},
    ),
    "added up": (CHAT.read(CHAT.body), {"message": _message(), "added_up": True}),
}


def _call(body: dict[str, Any]) -> Any:
    asked = read_call(body.get("written"), [HumanMessage("hi")], body.get("metadata") or {}, body.get("params") or {})
    return asked.request._replace(prompt=asked.call.prompt, unknown=(str(asked.call.agent), *asked.request.unknown))


_PARAMS: dict[str, Any] = {
    "max_tokens": 100,
    "n": 2,
    "tools": [FUNCTION],
    "response_format": {"type": "json_schema", "json_schema": {}},
    "service_tier": "flex",
    "stream": True,
    "extra_body": {"seed": 1, "plugins": []},
    "model_kwargs": {"top_k": 3},
    "stop": ["x"],
    "previous_response_id": None,
}
_CALLS: Mapping[str, dict[str, Any]] = {
    kind: {
        "written": {"name": name, "kwargs": {"use_responses_api": None, **kwargs}},
        "metadata": {"ls_provider": "x", "ls_model_name": "y", "lc_agent_name": "Named", "langgraph_node": "model"},
        "params": {"_type": kind, "model": model, **_PARAMS, **more},
    }
    for kind, name, model, kwargs, more in (
        ("openai-chat", "ChatOpenAI", "gpt-4o", {"openai_api_base": "https://api.openai.com/v1"}, {}),
        (
            "azure-openai-chat",
            "AzureChatOpenAI",
            "prod",
            {"azure_endpoint": "https://me.openai.azure.com", "openai_api_version": "2024-10-21"},
            {"azure_deployment": "prod"},
        ),
        (
            "anthropic-chat",
            "ChatAnthropic",
            "claude-sonnet-4-5",
            {"inference_geo": "us", "mcp_servers": []},
            {"speed": "fast", "extra_body": {"inference_geo": "eu"}},
        ),
        (
            "chat-google-generative-ai",
            "ChatGoogleGenerativeAI",
            "gemini-2.5-flash",
            {"cached_content": ""},
            {"response_modalities": ["IMAGE"], "generation_config": {"topK": 1}, "max_output_tokens": 80},
        ),
        (
            "amazon_bedrock_converse_chat",
            "ChatBedrockConverse",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {"region_name": "us-east-1", "max_tokens": 100},
            {"inferenceConfig": {"maxTokens": 70}, "guardrails": {}, "performance_config": {"latency": "optimized"}},
        ),
        ("some-chat", "ChatNobodyKnows", "m", {"base_url": "https://llm.example"}, {"num_predict": 40, "plugins": []}),
    )
}
_BASES: Mapping[str, _Base] = {f"reply {name}": (_answer(to), body) for name, (to, body) in _REPLIES.items()} | {
    f"call {kind}": (_call, body) for kind, body in _CALLS.items()
}
NAMES = (*_BASES, *TABLES)
"""All that is read."""


def lines_of(name: str) -> Iterator[str]:
    """What is read of that call or answer, and of each change what is read in another way; or the lines of a table."""
    if name in TABLES:
        yield from (f"{name}: {line}" for line in TABLES[name]())
        return
    yield from changes(name, *_BASES[name])
