"""LangChain's requests in the core's terms. No policy, and no arithmetic but sums of what LangChain says."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from budget_guard import ModelCall, Prompt, weigh
from budget_guard.adapter.provider_words import KEPT_BY_PROVIDER, OUTPUT_CAPS, hosted_tool, opaque_parts
from budget_guard.pricing.model_names import provider_at

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage  # takes long to import, and is imported where there are messages

Fields: TypeAlias = Mapping[str, Any]

_CAPS = (*OUTPUT_CAPS, "max_tokens_to_sample", "num_predict")
"""The names of the output cap in the requests of all providers that LangChain calls."""
_SCHEMAS = ("response_format", "text_format", "response_schema", "json_schema", "output_config", "output_format")
"""The names of the output schema in providers' requests."""
_ADDRESSES = ("openai_api_base", "azure_endpoint", "base_url", "api_base", "anthropic_api_url")

_NOT_SENT = ("parsed", "tool_calls", "refusal")
"""What LangChain notes in a message beside what is sent."""

_NO_FIELDS: Fields = {}


def fields(value: object) -> Fields:
    """*value* where it is JSON-like fields, else none."""
    if type(value) is dict:  # to ask for the type alone takes a tenth of the time
        return cast(Fields, value)
    return cast(Fields, value) if value is not None and isinstance(value, Mapping) else _NO_FIELDS


def model_call(
    serialized: Fields | None,
    prompt: Sequence[BaseMessage] | str,
    metadata: Fields,
    params: Fields,
) -> ModelCall:
    """What the core needs to know of one call.

    Args:
        serialized: The model, as LangChain writes it down.
        prompt: The messages, or the text.
        metadata: The run's metadata, with the standard parameters of tracing in it.
        params: The arguments of the call.
    """
    serialized = fields(serialized)
    name = _model_name(serialized, metadata, params)
    provider = _provider(fields(serialized.get("kwargs")), metadata)
    tools: list[Any] = [*(params.get("tools") or ()), *(params.get("functions") or ())]
    schema = _schema(params)
    hosted = tuple([kind for kind in map(_hosted, tools) if kind is not None])
    opaque: Sequence[str] = ()
    if hosted or not KEPT_BY_PROVIDER.keys().isdisjoint(params):
        opaque = opaque_parts(params, hosted)
    weighed = _weigh(prompt, tools, schema, opaque)
    needs = weighed.needs(tools=bool(tools), schema=schema is not None)
    return ModelCall(
        name,
        weighed,
        provider,
        _cap(name, metadata, params),
        False,
        needs,
        params.get("service_tier"),
        _choices(params),
        hosted,
        _agent(metadata),
        _caches_for_an_hour(prompt, tools, params),
    )


def _model_name(serialized: Fields, metadata: Fields, params: Fields) -> str:
    for found, key in (
        (metadata, "ls_model_name"),
        (params, "model"),
        (params, "model_name"),
        (params, "model_id"),
        (serialized, "name"),
    ):
        name = found.get(key)
        if isinstance(name, str) and name:
            return name
    return "unknown"


def _provider(constructor: Fields, metadata: Fields) -> str | None:
    """Who is called: the one at the client's address where that is known, else the class's own provider."""
    address = next(filter(None, map(constructor.get, _ADDRESSES)), None)
    at = provider_at(address) if isinstance(address, str) else None
    own = metadata.get("ls_provider")
    if at is not None or not isinstance(own, str):
        return at
    # Others speak these two's language: behind an address of their own, the model's name has to say who it is.
    return None if address is not None and own in ("openai", "anthropic") else own


def _cap(name: str, metadata: Fields, params: Fields) -> int | None:
    """The output cap that the caller set; the largest where several names disagree, because any may be sent."""
    caps = [metadata.get("ls_max_tokens"), *map(params.get, _CAPS)]
    cap = max([cap for cap in caps if isinstance(cap, int) and cap > 0], default=None)
    return None if params.get("_type") == "anthropic-chat" and cap == filled_in_cap(name) else cap


@functools.lru_cache(maxsize=256)
def filled_in_cap(model: str) -> int | None:
    """The cap that LangChain sends for a Claude *model* whose caller set none, because Anthropic wants one."""
    anthropic: Any = sys.modules.get("langchain_anthropic")  # it is loaded where one is called
    cap: object = None if anthropic is None else anthropic.ChatAnthropic(model_name=model, api_key="none").max_tokens
    return cap if isinstance(cap, int) else None


def _choices(params: Fields) -> int:
    """How many answers are asked for."""
    asked = (params.get("n"), params.get("best_of"))
    return max(1, *(count if isinstance(count, int) else 1 for count in asked)) if any(asked) else 1


def _agent(metadata: Fields) -> str | None:
    agent = metadata.get("lc_agent_name") or metadata.get("langgraph_node")
    return agent if isinstance(agent, str) else None


def _hosted(tool: object) -> str | None:
    given = fields(tool)
    kind = given.get("type")
    if kind is None and len(given) == 1:
        kind = next(iter(given))  # Google's have no type, but a single key of their own
    return hosted_tool(kind)


def _caches_for_an_hour(prompt: Sequence[BaseMessage] | str, tools: list[Any], params: Fields) -> bool:
    """Whether the call asks the provider to keep a part of its input for an hour, as Claude can be asked to."""
    parts: list[Any] = [params, *tools]
    for message in () if isinstance(prompt, str) else prompt:
        if message.additional_kwargs:
            parts.append(message.additional_kwargs)
        if not isinstance(message.content, str):
            parts += message.content
    controls = [control for part in parts if (control := fields(part).get("cache_control"))]
    return "1h" in [fields(control).get("ttl") for control in controls]


def _schema(params: Fields) -> Any:
    schema = next(filter(None, map(params.get, _SCHEMAS)), None)
    to_json = None if schema is None else getattr(schema, "model_json_schema", None)  # of a class of pydantic's
    return schema if to_json is None else to_json()


def _weigh(prompt: Sequence[BaseMessage] | str, tools: list[Any], schema: Any, opaque: Sequence[str]) -> Prompt:
    if isinstance(prompt, str):
        return weigh(messages=prompt, tools=tools, schema=schema, opaque=opaque)
    system: str | None = None
    first = prompt[0] if prompt else None
    if first is not None and first.type == "system" and isinstance(first.content, str):
        system, prompt = first.content, prompt[1:]
    return weigh(system=system, messages=list(map(_as_sent, prompt)), tools=tools, schema=schema, opaque=opaque)


def _as_sent(message: BaseMessage) -> dict[str, Any]:
    """What of *message* may be sent."""
    content = message.content
    sent: dict[str, Any] = {
        "role": message.type,
        "content": content if isinstance(content, str) else list(map(_block, content)),
    }
    given = vars(message)
    if given.get("tool_calls"):  # of an answer
        sent["tool_calls"] = [(call["name"], call["args"], call["id"]) for call in given["tool_calls"]]
    elif "tool_call_id" in given:  # of a tool's result
        sent["tool_call_id"] = given["tool_call_id"]
    if message.name:
        sent["name"] = message.name
    if message.additional_kwargs:
        extra = {key: value for key, value in message.additional_kwargs.items() if key not in _NOT_SENT}
        if extra:
            sent["more"] = extra
    return sent


def _block(block: Any) -> Any:
    given = fields(block)
    if given.get("type") == "reasoning" and given.get("reasoning") and not str(given.get("id")).startswith("rs_"):
        return {**given, "type": "thinking"}  # the thoughts themselves, and not the name of what OpenAI keeps
    return block


def tool_names(params: Fields) -> Iterator[str]:
    """The names of the tools that a model is offered."""
    for tool in map(fields, params.get("tools") or ()):
        name = tool.get("name") or fields(tool.get("function")).get("name")
        if isinstance(name, str):
            yield name
