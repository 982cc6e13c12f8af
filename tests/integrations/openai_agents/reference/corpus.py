"""What the SDK gives to models and gets from them, with all that costs in it, and each with one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

from agents import ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel
from openai import AsyncOpenAI

from budget_guard.wire import Request
from budget_guard_openai_agents.answer import answer_of, answer_of_stream
from budget_guard_openai_agents.request import read_request
from tests.integrations.openai_agents.reference.tables import TABLES
from tests.wire.reference.corpus import ANSWERS, CHAT, CHAT_MORE, RESPONSE, XAI
from tests.wire.reference.readings import changes

_Base: TypeAlias = "tuple[Callable[[Any], Any], dict[str, Any]]"
_OPENAI = AsyncOpenAI(api_key="none", base_url="https://api.openai.com/v1")
_CHAT, _RESPONSES = OpenAIChatCompletionsModel("gpt-4o", _OPENAI), OpenAIResponsesModel("gpt-4o", _OPENAI)


def _asked(model: Any) -> Callable[[Any], Any]:
    def read(body: dict[str, Any]) -> Any:
        asked = read_request(
            model=model,
            name="gpt-4o",
            system_instructions=body.get("system"),
            input=body.get("input") or [],
            settings=ModelSettings(
                max_tokens=body.get("max_tokens"), extra_body=body.get("extra_body"), extra_args=body.get("extra_args")
            ),
            tools=[],
            output_schema=None,
            handoffs=[],
            previous_response_id=body.get("previous_response_id"),
            conversation_id=body.get("conversation_id"),
            prompt=body.get("prompt"),
        )
        call = asked.call(agent="Named", can_cap=True, final=False)
        told = (asked.dialect.name, asked.keeps_reasoning, sorted(call.needs), call.model)
        return asked.request._replace(unknown=(*asked.request.unknown, *map(str, told)))

    return read


_REQUESTS: Mapping[str, dict[str, Any]] = {
    "plain": {
        "system": "Be brief.",
        "input": RESPONSE.body["input"],
        "max_tokens": 90,
        "previous_response_id": "",
        "conversation_id": None,
        "prompt": None,
        "extra_args": {"service_tier": "flex", "user": "u"},
        "extra_body": {"seed": 1},
    },
    "with much in the extra body": {
        "system": "Be brief.",
        "input": "hi",
        "max_tokens": 90,
        "extra_args": {"n": 2},
        "extra_body": {
            name: CHAT.body[name]
            for name in ("messages", "tools", "response_format", "max_completion_tokens", "models")
        }
        | {name: CHAT_MORE.body[name] for name in ("web_search_options", "audio", "vendor", "cache_control")},
    },
    "kept by the provider": {
        "input": [{"role": "user", "content": "go on"}],
        "previous_response_id": "resp_1",
        "extra_body": {"model": "o3", "input": "else", "instructions": "else", "text": {}, "reasoning": {}},
    },
}


def _answer(request: Request, stream: Any = None) -> Callable[[Any], Any]:
    def read(body: dict[str, Any]) -> Any:
        usage = body.get("usage")
        if isinstance(usage, dict):
            usage = SimpleNamespace(
                **{
                    name: SimpleNamespace(**value) if isinstance(value, dict) else value
                    for name, value in usage.items()
                }
            )
        more = {name: body.get(name) for name in ("model", "service_tier", "id")}
        output = body.get("output") or []
        if stream is None:
            told: Any = SimpleNamespace(usage=usage, raw_usage=body.get("raw"), output=output)
            return answer_of(told, request)
        details = SimpleNamespace(reason=body.get("reason"))
        told = SimpleNamespace(usage=usage, output=output, incomplete_details=details, **more)
        told._agents_sdk_raw_usage = body.get("raw")
        return answer_of_stream(told, stream, request)

    return read


_BY_NAME = {each.name: each for each in ANSWERS}
_OUTPUT = _BY_NAME["responses"].body["output"]
_REPLY: dict[str, Any] = {"usage": _BY_NAME["responses"].body["usage"], "output": _OUTPUT}
_BASES: Mapping[str, _Base] = {
    **{f"request to chat, {name}": (_asked(_CHAT), body) for name, body in _REQUESTS.items()},
    **{f"request to responses, {name}": (_asked(_RESPONSES), body) for name, body in _REQUESTS.items()},
    **{f"request to a model of one's own, {name}": (_asked(None), body) for name, body in _REQUESTS.items()},
    "answer": (_answer(RESPONSE.read(RESPONSE.body)), _REPLY),
    "answer of xai": (_answer(XAI.read(XAI.body)), _REPLY),
    "answer with raw usage": (
        _answer(CHAT.read(CHAT.body)),
        {**_REPLY, "raw": _BY_NAME["chat"].body["usage"], "usage": None},
    ),
    "answer with raw usage of responses": (_answer(RESPONSE.read(RESPONSE.body)), {**_REPLY, "raw": _REPLY["usage"]}),
    "stream": (
        _answer(RESPONSE.read(RESPONSE.body), _RESPONSES),
        {**_REPLY, "model": "gpt-4o-2024-08-06", "service_tier": "flex", "id": "r1", "reason": "max_output_tokens"},
    ),
    "stream of another": (_answer(CHAT.read(CHAT.body), _CHAT), {**_REPLY, "reason": "max_output_tokens"}),
}
NAMES = (*_BASES, *TABLES)
"""All that is read."""


def lines_of(name: str) -> Iterator[str]:
    """What is read of that request or answer, and of each change what is read otherwise; or the lines of a table."""
    if name in TABLES:
        yield from (f"{name}: {line}" for line in TABLES[name]())
        return
    yield from changes(name, *_BASES[name])
