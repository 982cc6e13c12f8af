"""LangChain's requests in the core's terms: what its clients really send, read by the provider's dialect."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from budget_guard import ModelCall, weigh
from budget_guard.adapter.provider_words import KEPT_BY_PROVIDER, OUTPUT_CAPS
from budget_guard.estimate.prompt import with_messages
from budget_guard.wire import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    CONVERSE,
    GENERATE_CONTENT,
    MESSAGES,
    RESPONSES,
    Dialect,
    Endpoint,
    Request,
    endpoint_of_url,
)
from budget_guard.wire.values import fields, items, text, whole
from budget_guard_langchain.messages import as_sent, plain, without_kept

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage  # takes long to import, and is imported where there are messages

Fields: TypeAlias = Mapping[str, Any]

_CAPS = (*OUTPUT_CAPS, "max_tokens_to_sample", "num_predict", "max_new_tokens", "maxTokens")
"""The names of the output cap in the requests of all providers that LangChain calls."""
_SCHEMAS = ("response_format", "text_format", "response_schema", "json_schema", "output_config", "output_format")
"""The names of the output schema in providers' requests."""
ADDRESSES = ("openai_api_base", "azure_endpoint", "base_url", "api_base", "anthropic_api_url", "endpoint_url")

_DIALECTS: Mapping[str, Dialect] = {
    "openai-chat": CHAT_COMPLETIONS,
    "azure-openai-chat": CHAT_COMPLETIONS,
    "chat-deepseek": CHAT_COMPLETIONS,
    "xai-chat": CHAT_COMPLETIONS,
    "anthropic-chat": MESSAGES,
    "anthropic-chat-vertexai": MESSAGES,
    "anthropic-bedrock-chat": MESSAGES,
    "chat-google-generative-ai": GENERATE_CONTENT,
    "vertexai": GENERATE_CONTENT,
    "amazon_bedrock_converse_chat": CONVERSE,
}
"""The dialects of LangChain's classes, by the type that each tells of itself: their arguments are the request."""
_CLIENTS = {"openai-chat": "openai", "azure-openai-chat": "azure", "anthropic-chat": "anthropic"}
"""Who is called by a class's own client, where it is not told another address."""

_OF_CLIENT = frozenset(
    "_type model_name stop extra_body extra_headers extra_query timeout request_timeout default_request_timeout "
    "max_retries streaming stream_usage stream_chunk_timeout ls_structured_output_format azure_deployment "
    "model_kwargs disabled_params stop_sequences strict betas".split()
)
"""Arguments of LangChain's clients that are no fields of a request, or tell nothing of its cost."""
_OF_ANY = (
    *("n", "best_of", "tools", "functions", "service_tier", "speed", "modalities", "audio", "web_search_options"),
    *("plugins", "models", "mcp_servers", "search_parameters", "data_sources", "prediction", "cache_control"),
)
"""Arguments that cost where a class that nobody knows takes them, too."""
_RESPONSES_ONLY = frozenset(
    {"context_management", "include", "previous_response_id", "reasoning", "text", "truncation"}
)
"""Arguments with which `ChatOpenAI` calls the Responses API."""
_KEPT_BY_CLIENT = ("inference_geo", "context_management", "mcp_servers", "container")
"""Settings of `ChatAnthropic` that it sends and does not tell callbacks of, but for their serialized form."""


class Asked(NamedTuple):
    """One call: what the core has to know of it, and what its request was read as."""

    call: ModelCall
    request: Request


def read_call(
    serialized: Fields | None,
    prompt: Sequence[BaseMessage] | str,
    metadata: Fields,
    params: Fields,
) -> Asked:
    """What one call asks for.

    Args:
        serialized: The model, as LangChain writes it down.
        prompt: The messages, or the text.
        metadata: The run's metadata, with the standard parameters of tracing in it.
        params: The arguments of the call.
    """
    written = fields(serialized)
    constructor = fields(written.get("kwargs"))
    where = _endpoint(written, constructor, metadata, params)
    name = _model_name(written, metadata, params)
    texts = None if isinstance(prompt, str) or constructor.get("use_previous_response_id") else plain(prompt)
    if texts is not None and params.get("_type") not in _OWN_MESSAGES:
        key: Any = (where, name, metadata.get("ls_max_tokens"), *map(constructor.get, _OF_DIALECT), *params.items())
        try:
            known = _known.get(key)
        except TypeError:  # an argument is more than a plain value
            return _read(constructor, prompt, metadata, params, where, name)
        if known is None:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            known = _known[key] = _read(constructor, (), metadata, params, where, name)
        call, request = known
        if request.prompt.base_key != _NO_TOOLS:  # tools or a schema, which a plain value can name
            return _read(constructor, prompt, metadata, params, where, name)
        weighed, _ = with_messages(request.prompt, texts)
        return Asked(call.with_prompt(weighed, _agent(metadata)), request.with_prompt(weighed))
    return _read(constructor, prompt, metadata, params, where, name)


def call_to_be_made(model: Any, messages: Any) -> ModelCall:
    """What a chat *model* would ask for if it were called with *messages* now, as callbacks would be told it.

    Raises:
        TypeError: If it is no chat model.
    """
    from langchain_core.language_models import BaseChatModel
    from langchain_core.load import dumpd
    from langchain_core.runnables import RunnableBinding

    given: Any = model
    bound: dict[str, Any] = {}
    binding: Any = RunnableBinding
    while isinstance(given, binding):
        given, bound = given.bound, {**given.kwargs, **bound}
    if not isinstance(given, BaseChatModel):
        raise TypeError(f"model={model!r} is no chat model: give one such as ChatOpenAI, or one with tools bound to it")
    stop = bound.pop("stop", None)
    bound.pop("ls_structured_output_format", None)
    internals: Any = given  # what its own ``invoke`` makes of them, and tells callbacks
    params = internals._get_invocation_params(stop=stop, **bound)
    metadata = internals._get_ls_params(stop=stop, **bound)
    prompt = internals._convert_input(messages).to_messages()
    return read_call(dumpd(given), prompt, metadata, params).call


_OWN_MESSAGES = frozenset(kind for kind, dialect in _DIALECTS.items() if dialect is not CHAT_COMPLETIONS)
_OF_DIALECT = ("use_responses_api", "output_version")
_NAMES_OF_MODEL = ("model", "model_name", "model_id", "azure_deployment")
_NO_TOOLS = weigh().base_key
_MOST_KNOWN = 1_024
_known: dict[Any, Asked] = {}
"""What calls with the same plain arguments ask for, but for their messages: an agent sends the same ones every time."""


def _read(
    constructor: Fields,
    prompt: Sequence[BaseMessage] | str,
    metadata: Fields,
    params: Fields,
    where: Endpoint,
    name: str,
) -> Asked:
    """As `read_call`, of a call to *where* by that *name*."""
    kind: Any = params.get("_type")
    dialect = _DIALECTS.get(kind)
    if isinstance(prompt, str):
        dialect = COMPLETIONS
        body = _body_of_any(params, metadata, name)
        body["prompt"] = prompt
    elif dialect is None:
        dialect = CHAT_COMPLETIONS
        body = _body_of_any(params, metadata, name)
        body["messages"] = as_sent(prompt, dialect.name)
    elif dialect is CHAT_COMPLETIONS:
        dialect, body = _openai(prompt, params, constructor, name)
    elif dialect is MESSAGES:
        body = _anthropic(prompt, params, constructor, name)
    elif dialect is GENERATE_CONTENT:
        body = _google(prompt, params, constructor, name)
    else:
        body = _converse(prompt, params, constructor, name)
    request = dialect.read_request(where, body, {})
    if dialect is not RESPONSES and not KEPT_BY_PROVIDER.keys().isdisjoint(params):
        kept = [words for field, words in KEPT_BY_PROVIDER.items() if params.get(field)]
        request = _with_opaque(request, *[words for words in kept if words not in request.prompt.opaque])
    call = request.call(model=request.model or name, can_cap=False, agent=_agent(metadata))
    cap = call.max_output_tokens
    if cap is not None and dialect is MESSAGES and kind == "anthropic-chat" and cap == filled_in_cap(call.model):
        call = call._replace(max_output_tokens=None)
    return Asked(call, request)


def _with_opaque(request: Request, *words: str) -> Request:
    prompt = request.prompt
    return (
        request._replace(prompt=prompt._replace(opaque=(*prompt.opaque, *words), conversation=0)) if words else request
    )


def _model_name(serialized: Fields, metadata: Fields, params: Fields) -> str:
    """The model that is sent. Metadata is its user's as well, and counts only where the arguments name none."""
    for name in (*map(params.get, _NAMES_OF_MODEL), metadata.get("ls_model_name"), serialized.get("name")):
        if isinstance(name, str) and name:
            return name
    return "unknown"


def _endpoint(serialized: Fields, constructor: Fields, metadata: Fields, params: Fields) -> Endpoint:
    """Where a call goes to: the client's address where that is known, else the class's own provider."""
    address = next(filter(None, map(constructor.get, ADDRESSES)), None)
    region = constructor.get("region_name")
    if address is None and isinstance(region, str):
        address = f"https://bedrock-runtime.{region}.amazonaws.com"
    kind = params.get("_type")
    own: object = metadata.get("ls_provider")
    if kind in _CLIENTS and serialized.get("name") in ("ChatOpenAI", "AzureChatOpenAI", "ChatAnthropic"):
        own = _CLIENTS[kind]
    version = constructor.get("openai_api_version")
    return endpoint_at(
        address if isinstance(address, str) else None,
        own if isinstance(own, str) else None,
        version if isinstance(version, str) else "",
    )


@functools.lru_cache(maxsize=1_024)
def endpoint_at(address: str | None, own: str | None, version: str) -> Endpoint:
    """The endpoint at an address.

    Args:
        address: The client's base address; None for that of its own provider.
        own: The provider that the client is made for.
        version: Azure's version of the API; empty where there is none.
    """
    if address is None:
        return Endpoint("POST", "", "/", (), own)
    where = endpoint_of_url(f"{address}?api-version={version}" if version and "?" not in address else address)
    if where.provider is None and own not in ("openai", "anthropic"):
        # Others speak these two's language: behind an address of their own, the model's name has to say who it is.
        where = where._replace(provider=own)
    return where


# The body of a request, by dialect


def _openai(
    messages: Sequence[BaseMessage], params: Fields, constructor: Fields, name: str
) -> tuple[Dialect, dict[str, Any]]:
    body = {field: value for field, value in params.items() if value is not None and field not in _OF_CLIENT}
    body["model"] = name
    schema = _schema(params, "response_format", "text_format")
    body.pop("text_format", None)
    extra = params.get("extra_body")
    if not is_responses(params, constructor):
        if schema is not None:
            body["response_format"] = schema
        if isinstance(extra, Mapping):
            body |= extra
        if "messages" not in body:
            body["messages"] = as_sent(messages, CHAT_COMPLETIONS.name)
        return CHAT_COMPLETIONS, body
    body.pop("response_format", None)
    if schema is not None:
        body["text"] = {**fields(body.get("text")), "format": {"type": "json_schema", "schema": schema}}
    caps = [cap for each in OUTPUT_CAPS if (cap := whole(body.pop(each, None))) is not None]
    if caps:
        body["max_output_tokens"] = max(caps)
    if constructor.get("use_previous_response_id"):
        messages, ident = without_kept(messages)
        if ident is not None:
            body["previous_response_id"] = ident
    if isinstance(extra, Mapping):
        body |= extra
    if "input" not in body:
        body["input"] = as_sent(messages, RESPONSES.name)
    return RESPONSES, body


def is_responses(params: Fields, constructor: Fields) -> bool:
    """Whether `ChatOpenAI` calls the Responses API, by the rules of its own."""
    told = constructor.get("use_responses_api")
    if isinstance(told, bool):
        return told
    if constructor.get("output_version") == "responses/v1" or constructor.get("use_previous_response_id"):
        return True
    if any(params.get(name) is not None for name in _RESPONSES_ONLY):
        return True
    if any(fields(tool).get("type", "function") != "function" for tool in params.get("tools") or ()):
        return True
    openai: Any = sys.modules.get("langchain_openai.chat_models.base")
    prefers: Any = getattr(openai, "_model_prefers_responses_api", None)
    try:
        return bool(prefers is not None and prefers(params.get("model_name")))
    except Exception:  # not a public one: where it is another, the two dialects differ little
        return False


def _anthropic(messages: Sequence[BaseMessage], params: Fields, constructor: Fields, name: str) -> dict[str, Any]:
    kept = {field: constructor[field] for field in _KEPT_BY_CLIENT if constructor.get(field)}
    more = fields(params.get("model_kwargs"))
    body = {**kept, **more, **{f: value for f, value in params.items() if value is not None and f not in _OF_CLIENT}}
    if "inference_geo" in kept:
        body["inference_geo"] = kept["inference_geo"]
    cap, other = whole(params.get("max_tokens")), whole(more.get("max_tokens"))
    if cap is not None and other is not None:
        body["max_tokens"] = max(cap, other)
    body["model"] = name
    body.pop("response_format", None)
    schema = _schema(params, "response_format")
    if schema is not None:  # which the client sends under the provider's own name
        body["output_config"] = {**fields(body.get("output_config")), "format": schema}
    sent = as_sent(messages, MESSAGES.name)
    body["system"] = [part for message in sent if message["role"] == "system" for part in _parts(message["content"])]
    body["messages"] = [message for message in sent if message["role"] != "system"]
    if isinstance(extra := params.get("extra_body"), Mapping):
        body |= extra
    return body


def _parts(content: Any) -> Sequence[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _google(messages: Sequence[BaseMessage], params: Fields, constructor: Fields, name: str) -> dict[str, Any]:
    config = {
        **fields(params.get("generation_config")),
        "candidateCount": params.get("n") or params.get("candidate_count"),
        "maxOutputTokens": _largest_cap(params),
        "responseModalities": [getattr(each, "name", each) for each in params.get("response_modalities") or ()],
        "responseSchema": _schema(params, *_SCHEMAS, "response_json_schema"),
    }
    return {
        "model": name,
        "generationConfig": config,
        "tools": [_google_tool(tool) for tool in params.get("tools") or ()],
        "cachedContent": params.get("cached_content") or constructor.get("cached_content"),
        "serviceTier": params.get("service_tier"),
        "contents": as_sent(messages, GENERATE_CONTENT.name),
        **fields(params.get("extra_body")),
    }


def _google_tool(tool: Any) -> Any:
    to_json = getattr(tool, "model_dump", None)
    if to_json is not None:
        tool = {field: value for field, value in to_json().items() if value}
    given = fields(tool)
    if given.get("type") == "function" or "name" in given or not given:
        return {"functionDeclarations": [tool]}
    return tool


def _converse(messages: Sequence[BaseMessage], params: Fields, constructor: Fields, name: str) -> dict[str, Any]:
    def given(snake: str, camel: str) -> Any:
        return next((found[key] for found in (params, constructor) for key in (camel, snake) if found.get(key)), None)

    extra = {**fields(given("additional_model_request_fields", "additionalModelRequestFields"))}
    cap = _largest_cap({**params, **fields(params.get("inferenceConfig"))})
    return {
        "modelId": name,
        # the class tells its arguments of a call alone, and sends its own cap where they name none
        "inferenceConfig": {"maxTokens": _largest_cap(constructor) if cap is None else cap},
        "toolConfig": {"tools": [_converse_tool(tool) for tool in _tools_of_converse(params)]},
        "guardrailConfig": given("guardrail_config", "guardrailConfig") or given("guardrails", "guardrails"),
        "additionalModelRequestFields": extra,
        "performanceConfig": given("performance_config", "performanceConfig"),
        "serviceTier": given("service_tier", "serviceTier"),
        "messages": as_sent(messages, CONVERSE.name),
    }


def _tools_of_converse(params: Fields) -> Sequence[Any]:
    return items(params.get("tools")) or items(fields(params.get("toolConfig")).get("tools"))


def _converse_tool(tool: Any) -> Any:
    given = fields(tool)
    return {"toolSpec": tool} if not given or "name" in given or given.get("type") == "function" else tool


def _body_of_any(params: Fields, metadata: Fields, name: str) -> dict[str, Any]:
    """The body of a class that nobody knows: its arguments are settings of its own as well."""
    body: dict[str, Any] = {"model": name}
    for field in _OF_ANY:
        value = params.get(field)
        if value:
            body[field] = value
    cap = _largest_cap(params, metadata.get("ls_max_tokens"))
    if cap is not None:
        body["max_tokens"] = cap
    schema = _schema(params, *_SCHEMAS)
    if schema is not None:
        body["response_format"] = schema
    for field in ("model_kwargs", "extra_body"):
        more = fields(params.get(field))
        body |= {name: value for name, value in more.items() if name not in _OF_CLIENT}
    return body


def _largest_cap(params: Fields, *more: object) -> int | None:
    """The output cap that the caller set; the largest where several names disagree, because any may be sent."""
    caps = [whole(value) for value in (*more, *map(params.get, _CAPS))]
    return max([cap for cap in caps if cap is not None], default=None)


def _schema(params: Fields, *names: str) -> Any:
    schema = next(filter(None, map(params.get, names)), None)
    to_json = None if schema is None else getattr(schema, "model_json_schema", None)  # of a class of pydantic's
    return schema if to_json is None else to_json()


@functools.lru_cache(maxsize=256)
def filled_in_cap(model: str) -> int | None:
    """The cap that LangChain sends for a Claude *model* whose caller set none, because Anthropic wants one."""
    anthropic: Any = sys.modules.get("langchain_anthropic")  # it is loaded where one is called
    cap: object = None if anthropic is None else anthropic.ChatAnthropic(model_name=model, api_key="none").max_tokens
    return cap if isinstance(cap, int) else None


def _agent(metadata: Fields) -> str | None:
    return text(metadata.get("lc_agent_name")) or text(metadata.get("langgraph_node"))


def requests_of_texts(serialized: Fields | None, params: Fields, texts: object) -> int:
    """In how many requests a text model sends so many *texts*, at most."""
    if not isinstance(texts, int) or texts <= 1:
        return 1
    if params.get("_type") not in ("openai", "azure"):
        return texts
    size = fields(fields(serialized).get("kwargs")).get("batch_size")
    return -(-texts // (size if isinstance(size, int) and size > 0 else 20))


def tool_names(params: Fields) -> Iterator[str]:
    """The names of the tools that a model is offered."""
    for tool in map(fields, params.get("tools") or ()):
        name = tool.get("name") or fields(tool.get("function")).get("name")
        if isinstance(name, str):
            yield name
