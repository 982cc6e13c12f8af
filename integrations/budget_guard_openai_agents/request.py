"""The effective request: what the SDK's client will send, as JSON, read by the wire's dialects.

Settings, then extra arguments, then the extra body: the last one wins, as in the client. The SDK gives every model its
items in the shape of Responses, so that is how the conversation is weighed; what belongs to Chat Completions alone is
read by that dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

from agents import (
    AgentOutputSchemaBase,
    FunctionTool,
    Handoff,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Tool,
    TResponseInputItem,
)
from agents.models.interface import Model

from budget_guard.calls.call import ModelCall
from budget_guard.estimate.prompt import Prompt
from budget_guard.wire import CHAT_COMPLETIONS, RESPONSES, Dialect, Endpoint, Request, endpoint_of_url, remembered
from budget_guard.wire.values import fields, text

_OF_THE_PROMPT = frozenset({"tools", "functions", "response_format", "messages", "input", "instructions", "text"})
"""Extra fields that take the place of what the SDK makes of its own arguments."""


class Asked(NamedTuple):
    """One model call as it will be sent."""

    request: Request
    endpoint: Endpoint
    dialect: Dialect
    """The dialect of the endpoint; Chat Completions where the model's class does not say."""
    keeps_reasoning: bool
    """Whether the provider keeps a conversation for it, with reasoning that cannot be taken out."""

    def call(self, *, agent: str | None, can_cap: bool, final: bool) -> ModelCall:
        """The call that the core has to decide on.

        Args:
            agent: Whom to attribute it to.
            can_cap: Whether an output cap can still be put into it.
            final: Whether it is the final answer.
        """
        call = self.request.call(agent=agent, can_cap=can_cap, final=final)
        if self.keeps_reasoning and reasons(call.model):
            return call._replace(needs=call.needs | {"reasoning"})
        return call


def read_request(
    *,
    model: Model | None,
    name: str,
    system_instructions: str | None,
    input: str | list[TResponseInputItem],
    settings: ModelSettings,
    tools: Sequence[Tool],
    output_schema: AgentOutputSchemaBase | None,
    handoffs: Sequence[Handoff[Any, Any]],
    previous_response_id: str | None = None,
    conversation_id: str | None = None,
    prompt: object = None,
) -> Asked:
    """What a model will be asked for.

    Args:
        model: The model; None where only its name is known.
        name: The name that it sends.
        system_instructions: As the SDK gives it to the model, and so are all others.
        input: The conversation.
        settings: The settings.
        tools: The tools.
        output_schema: The schema of the answer.
        handoffs: The handoffs.
        previous_response_id: A response whose history the provider keeps.
        conversation_id: A conversation that the provider keeps.
        prompt: A stored prompt.
    """
    speaks_responses = isinstance(model, OpenAIResponsesModel)
    where = endpoint_for(model, name)
    extra = extra_fields(settings)
    if prompt is not None and speaks_responses and not getattr(model, "_model_is_explicit", True):
        name = text(extra.get("model")) or model_of_prompt(prompt)
    body: dict[str, Any] = {"model": name, "input": input if isinstance(input, str) else _plain(input)}
    if system_instructions:
        body["instructions"] = system_instructions
    if tools or handoffs:
        body["tools"] = [*map(tool_as_sent, tools), *map(_handoff_as_sent, handoffs)]
    if output_schema is not None and not output_schema.is_plain_text():
        form = {"type": "json_schema", "name": "final_output", "schema": output_schema.json_schema()}
        body["text"] = {"format": {**form, "strict": True}}
    if previous_response_id:
        body["previous_response_id"] = previous_response_id
    if conversation_id:
        body["conversation"] = conversation_id
    if prompt is not None:
        body["prompt"] = prompt
    kept = bool(previous_response_id or conversation_id)
    if speaks_responses:
        _put_settings(body, settings)
        body.update(extra)
        request = remembered.read_request(RESPONSES, where, body, _NO_ALIASES)
        unseen = _added_unseen(type(cast(Model, model)))
        if unseen is not None:
            opaque = (*request.prompt.opaque, unseen)
            request = request._replace(prompt=request.prompt._replace(opaque=opaque, conversation=0))
        return Asked(request, where, RESPONSES, kept)
    for field in _OF_THE_PROMPT & extra.keys():
        for own in _REPLACED.get(field, ()):
            body.pop(own, None)
    body.setdefault("input", "")
    items = remembered.read_request(RESPONSES, where, body, _NO_ALIASES)
    if isinstance(model, OpenAIChatCompletionsModel):
        longer = _LONGER_BASE + _LONGER_TOOL * (len(tools) + len(handoffs)) + _LONGER_MESSAGE * len(items.prompt.parts)
        items = items._replace(prompt=items.prompt._replace(base=items.prompt.base + longer))
    cap = settings.max_tokens
    newer = _newer_settings(settings, ("prompt_cache_options",))
    if not extra and not newer:
        chat = _plain_chat(where, name, cap)
    else:
        sent: dict[str, Any] = {"model": name}
        if cap is not None:
            sent["max_tokens"] = cap
        chat = CHAT_COMPLETIONS.read_request(where, {**sent, **newer, **extra}, _NO_ALIASES)
    return Asked(_together(items, chat), where, CHAT_COMPLETIONS, kept)


_LONGER_BASE, _LONGER_TOOL, _LONGER_MESSAGE = 96, 24, 16
"""Characters by which the messages and tools of Chat Completions may be longer than the items that they are made of."""
_NO_ALIASES: Mapping[str, str] = {}
_REPLACED: Mapping[str, tuple[str, ...]] = {
    "messages": ("input", "instructions"),
    "tools": ("tools",),
    "response_format": ("text",),
}


@lru_cache(maxsize=256)
def _plain_chat(where: Endpoint, name: str, cap: int | None) -> Request:
    """The request of Chat Completions of which nothing but the conversation is to be read."""
    return CHAT_COMPLETIONS.read_request(where, {"model": name} | ({} if cap is None else {"max_tokens": cap}), {})


def _together(items: Request, chat: Request) -> Request:
    """The *chat* request with the conversation of *items*."""
    prompt, more = items.prompt, chat.prompt
    if more.parts or more.opaque or more.unweighed:
        prompt = Prompt(
            prompt.base + more.base,
            hash((prompt.base_key, more.base_key)),
            prompt.parts + more.parts,
            prompt.text + more.text,
            {**prompt.unweighed, **more.unweighed},
            prompt.opaque + more.opaque,
            0 if more.opaque or not prompt.conversation else hash((prompt.conversation, more.conversation)),
        )
    return chat._replace(
        prompt=prompt,
        needs=items.needs | chat.needs,
        hosted_tools=tuple(dict.fromkeys((*items.hosted_tools, *chat.hosted_tools))),
        hour_cache=items.hour_cache or chat.hour_cache,
        sound_tokens=_sum(items.sound_tokens, chat.sound_tokens),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _put_settings(body: dict[str, Any], settings: ModelSettings) -> None:
    """Put into *body* what the SDK's settings for Responses may cost."""
    if settings.max_tokens is not None:
        body["max_output_tokens"] = settings.max_tokens
    body.update(_newer_settings(settings, ("context_management", "prompt_cache_options")))


def _newer_settings(settings: ModelSettings, names: Sequence[str]) -> dict[str, Any]:
    """Those of *names* that are set. The oldest SDK that is supported has none of them."""
    return {name: value for name in names if (value := getattr(settings, name, None)) is not None}


def extra_fields(settings: ModelSettings) -> dict[str, Any]:
    """The parameters that `ModelSettings` has no field for, in the client's order of merging."""
    if not settings.extra_args and not settings.extra_body:
        return {}
    given = (*fields(settings.extra_args).items(), *fields(settings.extra_body).items())
    return {name: value for name, value in given if type(value).__name__ not in ("Omit", "NotGiven")}


@cache
def _added_unseen(cls: type) -> str | None:
    """What models of a class put into requests that is read neither here nor where their client sends.

    The SDK's models that open WebSockets fetch their answers in a method of their own. One of them has a provider run
    agents of its own, another class may ask for anything.
    """
    fetches = next((base for base in cls.__mro__ if "_fetch_response" in base.__dict__), OpenAIResponsesModel)
    makes = getattr(cls, "_build_response_create_kwargs", None)
    if fetches is OpenAIResponsesModel or not fetches.__module__.startswith("agents."):
        return None
    if makes is getattr(OpenAIResponsesModel, "_build_response_create_kwargs", None):
        return None
    return f"what {cls.__name__} adds to it"


def model_of_prompt(prompt: object) -> str:
    """The name that stands for the model of a stored prompt, which only the provider knows."""
    return f"prompt:{fields(prompt).get('id', 'unknown')}"


@lru_cache(maxsize=512)
def _endpoint(base_url: str, path: str) -> Endpoint:
    return endpoint_of_url(base_url.rstrip("/") + path)


def endpoint_for(model: Model | None, name: str) -> Endpoint:
    """Where the requests of *model* go to, as far as its client tells."""
    client: Any = getattr(model, "_client", None)
    base_url = str(getattr(client, "base_url", "") or "")
    if isinstance(model, OpenAIResponsesModel):
        return _endpoint(base_url, "/responses")
    version = getattr(client, "_api_version", None)
    if isinstance(version, str) and isinstance(model, OpenAIChatCompletionsModel):  # Azure's client
        deployment = "" if "/deployments/" in base_url else f"/deployments/{name}"
        return _endpoint(base_url, f"{deployment}/chat/completions?api-version={version}")
    return _endpoint(base_url, "/chat/completions")


def reasons(model: str) -> bool:
    """Whether *model* is of OpenAI's reasoning families, which take other parameters."""
    name = model.rsplit("/", 1)[-1]
    return name.startswith(("gpt-5", "gpt-6", "o1", "o3", "o4")) and "chat-latest" not in name


_DICTS = frozenset({dict})


def _plain(items: Sequence[Any]) -> Sequence[Any]:
    """*items* as JSON, where a caller has put objects of the client among them."""
    if _DICTS.issuperset(map(type, items)):
        return items
    return [item if isinstance(item, Mapping) else _dumped(item) for item in items]


def _dumped(item: Any) -> Any:
    dump = getattr(item, "model_dump", None)
    return dump(mode="json", exclude_unset=True) if callable(dump) else {"type": type(item).__name__, "text": str(item)}


# Tools as they are sent


def tool_as_sent(tool: Tool) -> Mapping[str, Any]:
    """The definition of *tool*, at least as long as it is sent, with the type by which providers tell who runs it."""
    if isinstance(tool, FunctionTool):
        return {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.params_json_schema,
            "strict": tool.strict_json_schema,
        }
    return _other_tool(type(tool).__mro__)(tool)


def _handoff_as_sent(handoff: Handoff[Any, Any]) -> Mapping[str, Any]:
    return {
        "type": "function",
        "name": handoff.tool_name,
        "description": handoff.tool_description,
        "parameters": handoff.input_json_schema,
        "strict": handoff.strict_json_schema,
    }


def _of_config(tool: Any) -> Mapping[str, Any]:
    return fields(tool.tool_config) or {"type": type(tool).__name__}


_PLAIN = (str, int, float, dict, list)


def _of_type(kind: str) -> Callable[[Any], Mapping[str, Any]]:
    def made(tool: Any) -> Mapping[str, Any]:
        given: Any = getattr(tool, "__dict__", {})
        return {**{name: value for name, value in given.items() if isinstance(value, _PLAIN)}, "type": kind}

    return made


_TOOLS: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "WebSearchTool": _of_type("web_search"),
    "FileSearchTool": _of_type("file_search"),
    "CodeInterpreterTool": _of_config,
    "ImageGenerationTool": _of_config,
    "HostedMCPTool": _of_config,
    "CustomTool": _of_config,
    "ComputerTool": _of_type("computer"),
    "LocalShellTool": _of_type("local_shell"),
    "ShellTool": _of_type("shell"),
    "ApplyPatchTool": _of_type("apply_patch"),
    "ToolSearchTool": _of_type("tool_search"),
}
"""The SDK's tools by class, and how each is sent. By name, because not every version of the SDK has all of them."""


@cache
def _other_tool(classes: tuple[type, ...]) -> Callable[[Any], Mapping[str, Any]]:
    known = next((_TOOLS[cls.__name__] for cls in classes if cls.__name__ in _TOOLS), None)
    return known or _of_type(classes[0].__name__)  # which no provider is known to have: opaque


__all__ = [
    "Asked",
    "endpoint_for",
    "extra_fields",
    "model_of_prompt",
    "read_request",
    "reasons",
    "tool_as_sent",
]
