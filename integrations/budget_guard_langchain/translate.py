"""From LangChain's values to the core's. No policy, and no arithmetic but sums of what LangChain says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.outputs import LLMResult
from pydantic import BaseModel

from budget_guard import ModelCall, PriceTable, Prompt, UnknownPriceError, Usage, weigh
from budget_guard.model_names import provider_at

Fields = Mapping[str, Any]

_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict")
"""The names of the output cap in providers' requests."""
_ADDRESSES = ("openai_api_base", "azure_endpoint", "base_url", "api_base", "anthropic_api_url")

_HOSTED_TOOLS = (
    ("web_search", "web_search"),
    ("google_search", "web_search"),
    ("web_fetch", "web_fetch"),
    ("url_context", "url_context"),
    ("file_search", "file_search"),
    ("code_interpreter", "code_interpreter"),
    ("code_execution", "code_execution"),
    ("image_generation", "image_generation"),
    ("mcp", "hosted_mcp"),
)
"""Tools that the provider runs, by the beginning of their type, and as `budget_guard.Usage` names them."""

_BILLED_BLOCKS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}
"""Blocks of an answer that the provider bills by use."""

_KEPT_BY_PROVIDER = {
    "previous_response_id": "history kept by the provider",
    "conversation": "history kept by the provider",
    "conversation_id": "history kept by the provider",
    "prompt": "a prompt kept by the provider",
    "cached_content": "content kept by the provider",
    "container": "files kept by the provider",
}
"""Arguments of a call that refer to what nobody here can weigh."""

_NOT_SENT = ("parsed", "tool_calls", "refusal")
"""What LangChain notes in a message beside what is sent."""


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
    constructor: Fields = (serialized or {}).get("kwargs") or {}
    name = _model_name(serialized, metadata, params)
    provider = _provider(constructor, metadata)
    tools: list[Any] = [*(params.get("tools") or ()), *(params.get("functions") or ())]
    schema = _schema(params)
    hosted = tuple(kind for kind in map(_hosted, tools) if kind is not None)
    opaque = [what for key, what in _KEPT_BY_PROVIDER.items() if params.get(key)]
    if hosted:
        opaque.append(f"what {', '.join(hosted)} may bring in")
    weighed = _weigh(prompt, tools, schema, opaque)
    return ModelCall(
        name,
        weighed,
        provider,
        _cap(name, provider, metadata, params),
        False,
        _needs(weighed, tools=bool(tools), schema=schema is not None),
        params.get("service_tier"),
        max(_count(params.get("n")), _count(params.get("best_of"))),
        hosted,
        _agent(metadata),
    )


def _model_name(serialized: Fields | None, metadata: Fields, params: Fields) -> str:
    for fields, key in (
        (metadata, "ls_model_name"),
        (params, "model"),
        (params, "model_name"),
        (params, "model_id"),
        (serialized or {}, "name"),
    ):
        name = fields.get(key)
        if isinstance(name, str) and name:
            return name
    return "unknown"


def _provider(constructor: Fields, metadata: Fields) -> str | None:
    """Who is called: the one at the client's address, where it was given one, or the class's own provider."""
    for key in _ADDRESSES:
        address = constructor.get(key)
        if isinstance(address, str) and address:
            return provider_at(address)
    provider = metadata.get("ls_provider")
    return provider if isinstance(provider, str) else None


def _cap(name: str, provider: str | None, metadata: Fields, params: Fields) -> int | None:
    """The output cap that the caller set. Where several names disagree, nobody knows which one is sent."""
    caps = [metadata.get("ls_max_tokens"), *(params.get(key) for key in _CAPS)]
    cap = max((cap for cap in caps if isinstance(cap, int) and cap > 0), default=None)
    if cap is None or metadata.get("ls_provider") != "anthropic":
        return cap
    try:
        # Anthropic wants a cap, so LangChain fills in the model's own: the caller has set none.
        own = PriceTable.bundled().find(name, provider=provider).max_output
    except UnknownPriceError:
        return cap
    return None if own is not None and cap >= own else cap


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 1 else 1


def _agent(metadata: Fields) -> str | None:
    agent = metadata.get("lc_agent_name") or metadata.get("langgraph_node")
    return agent if isinstance(agent, str) else None


def _hosted(tool: object) -> str | None:
    if not isinstance(tool, dict):
        return None
    fields = cast("dict[str, Any]", tool)
    kind = fields.get("type")
    if kind in (None, "function", "custom"):
        # Google's have no type, but a single key of their own
        names = [key for key in fields if key not in ("type", "name", "description", "input_schema", "function")]
        kind = names[0] if len(names) == 1 and len(fields) == 1 else None
    return next((name for start, name in _HOSTED_TOOLS if isinstance(kind, str) and kind.startswith(start)), None)


def _schema(params: Fields) -> Any:
    for key in ("response_format", "text_format", "response_schema", "json_schema", "output_config", "output_format"):
        schema = params.get(key)
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return schema.model_json_schema()
        if schema:
            return schema
    return None


def _needs(weighed: Prompt, *, tools: bool, schema: bool) -> frozenset[str]:
    needs = {"tools"} if tools else set[str]()
    if schema:
        needs.add("json_schema")
    for what, need in (("an image", "vision"), ("audio", "audio")):
        if what in weighed.unweighed.values():
            needs.add(need)
    return frozenset(needs)


def _weigh(prompt: Sequence[BaseMessage] | str, tools: list[Any], schema: Any, opaque: list[str]) -> Prompt:
    if isinstance(prompt, str):
        return weigh(messages=prompt, tools=tools, schema=schema, opaque=opaque)
    system: str | None = None
    messages = list(prompt)
    if messages and isinstance(messages[0], SystemMessage) and isinstance(messages[0].content, str):
        system = messages.pop(0).content  # type: ignore[assignment]  # it is a str
    return weigh(system=system, messages=[_as_sent(m) for m in messages], tools=tools, schema=schema, opaque=opaque)


def _as_sent(message: BaseMessage) -> dict[str, Any]:
    """What of *message* may be sent."""
    content: Any = message.content
    if isinstance(content, list):
        content = [_block(block) for block in cast("list[Any]", content)]
    sent: dict[str, Any] = {"role": message.type, "content": content}
    if isinstance(message, AIMessage) and message.tool_calls:
        sent["tool_calls"] = [(call["name"], call["args"], call["id"]) for call in message.tool_calls]
    for name in ("name", "tool_call_id"):
        value = getattr(message, name, None)
        if value:
            sent[name] = value
    extra = {key: value for key, value in message.additional_kwargs.items() if key not in _NOT_SENT}
    if extra:
        sent["more"] = extra
    return sent


def _block(block: Any) -> Any:
    if isinstance(block, dict) and block.get("type") == "reasoning" and block.get("reasoning"):
        fields = cast("dict[str, Any]", block)
        if not str(fields.get("id") or "").startswith("rs_"):
            return {**fields, "type": "thinking"}  # the thoughts themselves, and not a name for what OpenAI keeps
    return block


# What came back


def was_cached(result: LLMResult) -> bool:
    """Whether the answer came out of LangChain's cache, so that no provider was asked."""
    usage = _usage_metadata(result)
    return usage is not None and usage.get("total_cost") == 0


def model_of(result: LLMResult) -> str | None:
    """The model that answered."""
    metadata: Fields = getattr(_message(result), "response_metadata", None) or {}
    for fields in (metadata, result.llm_output or {}):
        for key in ("model_name", "model", "model_id"):
            name = fields.get(key)
            if isinstance(name, str) and name:
                return name
    return None


def usage_of(result: LLMResult) -> Usage | None:
    """What the provider billed, in disjoint buckets; None where it did not say."""
    found = _usage_metadata(result)
    if found is None:
        return _usage_of_output(result.llm_output or {})
    details_in, details_out = found.get("input_token_details") or {}, found.get("output_token_details") or {}
    read, write_1h = _detail(details_in, "cache_read"), details_in.get("ephemeral_1h_input_tokens") or 0
    write_5m = _detail(details_in, "cache_creation") + (details_in.get("ephemeral_5m_input_tokens") or 0)
    audio_in, audio_out = details_in.get("audio") or 0, details_out.get("audio") or 0
    reasoning = _detail(details_out, "reasoning")
    uses = _uses(result)
    return Usage(
        input=max(0, found["input_tokens"] - read - write_5m - write_1h - audio_in),
        cache_read=read,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        input_audio=audio_in,
        output=max(0, found["output_tokens"] - reasoning - audio_out),
        reasoning=reasoning,
        output_audio=audio_out,
        web_search=uses.pop("web_search", 0),
        other=tuple(uses.items()),
    )


def _detail(details: Fields, name: str) -> int:
    """A count under its name, which OpenAI's service tiers are put before."""
    return sum(details.get(key) or 0 for key in (name, f"flex_{name}", f"priority_{name}"))


def _message(result: LLMResult) -> Any:
    """The first answer's message. With several answers each carries the usage of all."""
    first: Sequence[Any] = result.generations[0] if result.generations else ()
    return getattr(first[0], "message", None) if first else None


def _usage_metadata(result: LLMResult) -> Any:
    usage = getattr(_message(result), "usage_metadata", None)
    return usage or None


def _usage_of_output(output: Fields) -> Usage | None:
    """The usage of a text model, which only OpenAI's way of writing it down says."""
    usage = output.get("token_usage") or output.get("usage") or {}
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    details_in, details_out = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached, reasoning = details_in.get("cached_tokens") or 0, details_out.get("reasoning_tokens") or 0
    return Usage(
        input=max(0, prompt - cached), cache_read=cached, output=max(0, completion - reasoning), reasoning=reasoning
    )


def _uses(result: LLMResult) -> dict[str, int]:
    """How often the provider ran each of its own tools."""
    message = _message(result)
    uses: dict[str, int] = {}
    anthropic: Fields = (getattr(message, "response_metadata", None) or {}).get("usage") or {}
    searches = (anthropic.get("server_tool_use") or {}).get("web_search_requests") or 0
    if searches:
        return {"web_search": searches}
    blocks: list[Any] = list(message.content) if isinstance(getattr(message, "content", None), list) else []
    blocks += message.additional_kwargs.get("tool_outputs") or [] if message is not None else []
    for block in blocks:
        fields = cast("dict[str, Any]", block) if isinstance(block, dict) else {}
        kind = _BILLED_BLOCKS.get(fields.get("type", ""))
        if fields.get("type") == "server_tool_call":  # LangChain's own way of writing all of them
            kind = _BILLED_BLOCKS.get(f"{fields.get('name')}_call")
        if kind is not None:
            uses[kind] = uses.get(kind, 0) + 1
    return uses


def tool_names(params: Fields) -> set[str]:
    """The names of the tools that a model is offered."""
    names: set[str] = set()
    for tool in params.get("tools") or ():
        if isinstance(tool, dict):
            fields = cast("dict[str, Any]", tool)
            name = fields.get("name") or (fields.get("function") or {}).get("name")
            if isinstance(name, str):
                names.add(name)
    return names
