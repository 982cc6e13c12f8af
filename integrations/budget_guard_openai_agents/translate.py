"""The core's decisions in the SDK's terms: the settings and the input to send."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from agents import ModelSettings, OpenAIResponsesModel, TResponseInputItem
from agents.models.default_models import get_default_model_settings
from agents.models.interface import Model

from budget_guard.adapter.provider_words import OUTPUT_CAPS
from budget_guard.wire.values import fields
from budget_guard_openai_agents.errors import as_items
from budget_guard_openai_agents.request import Asked, reasons


def settings_for(
    model: Model,
    settings: ModelSettings,
    *,
    asked: Asked,
    called: str,
    cap: int | None,
    ask_for_usage: bool,
    final: bool,
) -> tuple[ModelSettings, tuple[str, ...]]:
    """The settings to send, with what the model that is called understands, and the fields that were added.

    Args:
        model: The model to call.
        settings: The settings as the SDK gives them.
        asked: What they ask for.
        called: The name of the model to call, where another one may take the place of the one asked for.
        cap: The output cap to send; None to send none of ours.
        ask_for_usage: Whether to ask a stream for its usage.
        final: Whether it is the final answer, which calls no tools.
    """
    request = asked.request
    if called == request.model and cap in (None, request.max_output_tokens) and not (ask_for_usage or final):
        return settings, ()
    changes: dict[str, Any] = {}
    added: list[str] = []
    extra_args, given_body = dict(fields(settings.extra_args)), fields(settings.extra_body)
    extra_body = dict(given_body)
    replaced: tuple[str, ...] = ()
    if called != request.model:
        changes |= _without_foreign(settings, request.model, called)
        replaced = ("model",)
    if cap is not None and (cap != request.max_output_tokens or called != request.model):
        replaced += OUTPUT_CAPS
        name = "max_tokens"
        if not isinstance(model, OpenAIResponsesModel):
            given = [each for each in request.caps if each in extra_args or each in extra_body]
            name = given[0] if given else asked.endpoint.name_of_cap(called)
        changes["max_tokens"] = cap if name == "max_tokens" else None
        if request.max_output_tokens is None:
            added.append("max_output_tokens" if isinstance(model, OpenAIResponsesModel) else name)
        if name != "max_tokens":
            extra_args[name] = cap
            replaced = tuple(each for each in replaced if each != name)
            extra_body.pop(name, None)
    if changes or replaced:
        changes["extra_args"] = {name: value for name, value in extra_args.items() if name not in replaced} or None
        if given_body:
            changes["extra_body"] = {name: value for name, value in extra_body.items() if name not in replaced} or None
    if ask_for_usage and settings.include_usage is None:
        changes["include_usage"] = True
        added.append("stream_options.include_usage")
    if final:
        changes["tool_choice"] = "none"
    return (dataclasses.replace(settings, **changes) if changes else settings), tuple(added)


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
        elif not reasons(target):
            changes[field] = None
    if reasons(target) and not reasons(model):
        changes |= dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"))
    return changes


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
