"""The SDK's values in the core's terms, and the core's decisions in the SDK's. No policy, no arithmetic but sums."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, cast

from agents import (
    AgentOutputSchemaBase,
    FunctionTool,
    Handoff,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Tool,
    TResponseInputItem,
)
from agents import Usage as AgentsUsage
from agents.models.default_models import get_default_model_settings
from agents.models.interface import Model
from openai.types.responses import ResponseUsage

from budget_guard import ModelCall, Usage, weigh
from budget_guard.adapter.provider_words import BILLED_ITEMS, OUTPUT_CAPS, opaque_parts
from budget_guard.pricing.model_names import provider_at
from budget_guard_openai_agents.errors import as_items

_HOSTED_TOOLS = {
    "WebSearchTool": "web_search",
    "FileSearchTool": "file_search",
    "CodeInterpreterTool": "code_interpreter",
    "ImageGenerationTool": "image_generation",
    "HostedMCPTool": "hosted_mcp",
}
"""Tools that the provider runs, by the SDK's class, as `budget_guard.Usage` names them."""

_PLAIN = (str, int, float, dict, list)


def model_call(
    *,
    model: Model | None,
    name: str,
    agent: str | None,
    system_instructions: str | None,
    input: str | list[TResponseInputItem],
    settings: ModelSettings,
    tools: Sequence[Tool],
    output_schema: AgentOutputSchemaBase | None,
    handoffs: Sequence[Handoff[Any, Any]],
    previous_response_id: str | None = None,
    conversation_id: str | None = None,
    prompt: object = None,
    can_cap: bool = True,
    final: bool = False,
) -> ModelCall:
    """What the core needs to know of one call."""
    kept = bool(previous_response_id or conversation_id)
    hosted = tuple([kind for tool in tools if (kind := _hosted(type(tool).__mro__)) is not None])
    opaque: Sequence[str] = ()
    if kept or hosted or prompt is not None:
        opaque = opaque_parts({"conversation_id": kept, "prompt": prompt is not None}, hosted)
    schema = None if output_schema is None or output_schema.is_plain_text() else output_schema.json_schema()
    weighed = weigh(
        system=system_instructions,
        messages=cast("str | Sequence[dict[str, Any]]", input),
        tools=[*map(_tool_as_sent, tools), *map(_handoff_as_sent, handoffs)],
        schema=schema,
        opaque=opaque,
    )
    needs = weighed.needs(tools=bool(tools or handoffs), schema=schema is not None, reasoning=kept and _reasons(name))
    return ModelCall(
        name,
        weighed,
        provider_of(model),
        output_cap(settings),
        can_cap,
        needs,
        _setting(settings, "service_tier"),
        hosted_tools=hosted,
        agent=agent,
        final=final,
    )


def provider_of(model: Model | None) -> str | None:
    """The provider behind an OpenAI client, by its address; None where that does not say."""
    client = getattr(model, "_client", None)
    return provider_at(str(getattr(client, "base_url", "")))


def output_cap(settings: ModelSettings) -> int | None:
    """The output cap that the caller set, by whichever name."""
    caps = [settings.max_tokens]
    if settings.extra_args or settings.extra_body:
        caps += [_setting(settings, name) for name in OUTPUT_CAPS]
    return min([cap for cap in caps if isinstance(cap, int)], default=None)


def _setting(settings: ModelSettings, name: str) -> Any:
    """A request parameter that `ModelSettings` has no field for."""
    for extra in (settings.extra_args, settings.extra_body):
        if isinstance(extra, dict) and name in extra:
            return cast("dict[str, Any]", extra)[name]
    return None


@functools.cache
def _hosted(classes: tuple[type, ...]) -> str | None:
    return next((_HOSTED_TOOLS[c.__name__] for c in classes if c.__name__ in _HOSTED_TOOLS), None)


def _tool_as_sent(tool: Tool) -> Any:
    if isinstance(tool, FunctionTool):
        return (tool.name, tool.description, tool.params_json_schema)
    return (tool.name, {name: value for name, value in vars(tool).items() if isinstance(value, _PLAIN)})


def _handoff_as_sent(handoff: Handoff[Any, Any]) -> Any:
    return (handoff.tool_name, handoff.tool_description, handoff.input_json_schema)


def usage_of(usage: AgentsUsage | ResponseUsage | None, output: Iterable[Any]) -> Usage | None:
    """What the provider billed, in disjoint buckets; None where it did not say, which the SDK shows as zeros."""
    if usage is None or not usage.total_tokens:
        return None
    details_in, details_out = usage.input_tokens_details, usage.output_tokens_details
    cached = getattr(details_in, "cached_tokens", 0) or 0
    written = getattr(details_in, "cache_write_tokens", 0) or 0
    reasoning = getattr(details_out, "reasoning_tokens", 0) or 0
    uses: dict[str, int] = {}
    for item in output:
        kind = BILLED_ITEMS.get(getattr(item, "type", ""))
        if kind is not None:
            uses[kind] = uses.get(kind, 0) + 1
    return Usage(
        input=max(0, usage.input_tokens - cached - written),
        cache_read=cached,
        cache_write_5m=written,
        output=max(0, usage.output_tokens - reasoning),
        reasoning=reasoning,
        web_search=uses.pop("web_search", 0),
        other=tuple(uses.items()),
    )


def settings_for(
    model: Model,
    settings: ModelSettings,
    *,
    asked: str,
    called: str,
    cap: int | None,
    stream: bool,
    final: bool,
) -> ModelSettings:
    """The settings to send: with *cap*, with usage asked for, and with what the model that is called understands."""
    changes: dict[str, Any] = {}
    if called != asked:
        changes |= _without_foreign(settings, asked, called)
    if cap is not None and (cap != output_cap(settings) or called != asked):
        extra_args = {name: value for name, value in (settings.extra_args or {}).items() if name not in OUTPUT_CAPS}
        body: Any = settings.extra_body
        if isinstance(body, dict):
            body = cast("dict[str, Any]", body)
            changes["extra_body"] = {name: value for name, value in body.items() if name not in OUTPUT_CAPS} or None
        if isinstance(model, OpenAIChatCompletionsModel) and _reasons(called):
            # These models refuse Chat Completions' older name for it, which is the one that the SDK sends.
            extra_args["max_completion_tokens"] = cap
            changes["max_tokens"] = None
        else:
            changes["max_tokens"] = cap
        changes["extra_args"] = extra_args or None
    if stream and settings.include_usage is None:
        changes["include_usage"] = True
    if final:
        changes["tool_choice"] = "none"
    return dataclasses.replace(settings, **changes) if changes else settings


def _without_foreign(settings: ModelSettings, model: str, target: str) -> dict[str, Any]:
    """What to change where *target* takes the place of *model*.

    The SDK fills in settings for the model that the agent names, and those are not the target's.
    """
    was, now = get_default_model_settings(model), get_default_model_settings(target)
    changes: dict[str, Any] = {}
    for field in ("reasoning", "verbosity"):
        value = getattr(settings, field)
        if value == getattr(was, field):
            changes[field] = getattr(now, field)
        elif not _reasons(target):
            changes[field] = None
    if _reasons(target) and not _reasons(model):
        changes |= dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"))
    return changes


def _reasons(model: str) -> bool:
    """Whether *model* is of OpenAI's reasoning families, which take other parameters."""
    name = model.rsplit("/", 1)[-1]
    return name.startswith(("gpt-5", "gpt-6", "o1", "o3", "o4")) and "chat-latest" not in name


def input_for(
    input: str | list[TResponseInputItem], *, downgraded: bool, note: str | None
) -> str | list[TResponseInputItem]:
    """The input to send: without reasoning that another model cannot read, with *note* at its end."""
    items = input
    if downgraded and not isinstance(items, str):
        # A model refuses another's reasoning items, and the ids of what followed them.
        kept = [cast("dict[str, Any]", item) for item in items if item.get("type") != "reasoning"]
        if len(kept) < len(items):
            items = cast(
                "list[TResponseInputItem]",
                [{key: value for key, value in item.items() if key != "id"} for item in kept],
            )
    if note is not None:
        items = [*as_items(items), cast(TResponseInputItem, {"role": "system", "content": note})]
    return items
