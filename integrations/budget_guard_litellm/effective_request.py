"""The request that LiteLLM really sends: what it makes of a call once it is held.

Some arguments are LiteLLM's own, or of the provider that it translates for: they leave fields out, put text in, name
another model, or set a limit by another name. LiteLLM acts on them after a call is held, so what they change of what
it costs is worked out here before.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from budget_guard import UnboundedCallError
from budget_guard.estimate.prompt import token_bound
from budget_guard.wire.request import Request
from budget_guard.wire.values import fields, items, text, whole

_litellm: Any = import_module("litellm")  # which has no types for most of what is asked here
_common: Any = import_module("litellm.litellm_core_utils.prompt_templates.common_utils")

CHAT = frozenset({"completion", "acompletion"})
"""The types of calls that act on `_WRITES_MORE` and on `deployment_id`."""
INJECTED_CACHE = "cache_control_injection_points"
"""Where LiteLLM marks messages to be cached: by the place, not by the text."""
_CHAT_CAPS = ("max_completion_tokens", "max_tokens")
_CAPS = frozenset(
    "maxOutputTokens maxTokenCount maxTokens max_gen_len max_length max_new_tokens max_output_tokens "
    "max_tokens_to_sample num_predict".split()
)
"""Output caps by their names at other providers, which win over LiteLLM's own."""
_COUNTS = frozenset("best_of candidateCount candidate_count numResults num_generations num_return_sequences".split())
"""How many answers there are, by its names at other providers."""
_COSTS = (
    _CAPS
    | _COUNTS
    | frozenset(
        "functions input instructions max_completion_tokens max_tokens messages model n prompt service_tier speed "
        "system tools".split()
    )
)
"""Fields that a call is held by."""
_KEPT_BY_PROVIDER = frozenset("cachedContent cached_content container".split())
"""Plain values that name what a provider keeps: nobody sees how much that is."""
_WRITTEN_ONCE = ("litellm_system_prompt", "initial_prompt_value", "final_prompt_value")
_WRITTEN_FOR_EACH_MESSAGE = ("roles", "bos_token", "eos_token", "custom_prompt_dict")
_FRAMING = 16
"""Template tokens of one text more."""


def left_out(arguments: Mapping[str, Any], kind: str, name: str, provider: str | None) -> frozenset[str]:
    """The fields that LiteLLM does not send, though they are among its *arguments*.

    Args:
        arguments: What it is called with.
        kind: The type of the call, as LiteLLM names it.
        name: The model without its provider.
        provider: The provider as LiteLLM names it; None where it knows none.

    Raises:
        UnboundedCallError: If it is asked to leave out what a call cannot be read without.
    """
    given = arguments.get("additional_drop_params")
    found = {each for each in items(given) if isinstance(each, str)} - {"model"}
    extra = fields(arguments.get("extra_body"))
    if extra and not found.isdisjoint({"extra_body", *extra}):
        raise UnboundedCallError(
            model=name,
            reason="whether its extra_body is sent is not known, as additional_drop_params names it or a part of it",
            remedy="Leave out one of the two.",
        )
    unsure = sorted(_COSTS.intersection(extra)) if extra and not _sends_extra_body(kind, provider) else ()
    if unsure:
        raise UnboundedCallError(
            model=name,
            reason=f"whether {unsure[0]} of its extra_body is sent to {provider or 'its provider'} is not known",
            remedy=f"Give {unsure[0]} as an argument of its own.",
        )
    if kind in CHAT:
        supported = _supported(name, provider)
        if supported is not None:
            found.update({*_CHAT_CAPS}.difference(supported, items(arguments.get("allowed_openai_params"))))
    return frozenset(found)


def _sends_extra_body(kind: str, provider: str | None) -> bool:
    """Whether LiteLLM puts an extra body into the request itself, over all else, as OpenAI's client does."""
    if kind in ("anthropic_messages", "aanthropic_messages"):
        return False
    return provider in ("openai", "azure", "text-completion-openai") or provider in _litellm.openai_compatible_providers


def cap_of(kind: str) -> str:
    """The name of the output cap of a type of calls, which LiteLLM translates for every provider."""
    return "max_output_tokens" if kind in ("responses", "aresponses") else "max_tokens"


def other_caps(kind: str) -> frozenset[str]:
    """The names under which a provider itself may know it."""
    return _CAPS - {cap_of(kind)}


@lru_cache(maxsize=1_024)
def _supported(name: str, provider: str | None) -> frozenset[str] | None:
    """The parameters that LiteLLM sends to a provider; None where it does not say."""
    if provider is None:
        return None
    try:
        found = _litellm.get_supported_openai_params(model=name, custom_llm_provider=provider)
    except Exception:  # LiteLLM says itself what is wrong with it
        return None
    return frozenset(found) if found else None


def other_model(arguments: Mapping[str, Any], kind: str, model: str) -> str | None:
    """The deployment at Azure that LiteLLM calls in place of *model*, where it is told one.

    Raises:
        UnboundedCallError: If it is told one on a call of which it is not known whether it minds it.
    """
    named = arguments.get("deployment_id")
    if named is None and arguments.get("azure") is not True:
        return None
    if kind not in CHAT:
        raise UnboundedCallError(
            model=model,
            reason="deployment_id or azure=True may name another model than it is asked for",
            remedy="Name the deployment as the model: azure/NAME.",
        )
    return model if named is None else str(named)


def written_messages(arguments: Mapping[str, Any], kind: str) -> list[Any] | None:
    """The messages with those that LiteLLM puts between them; None where it puts none."""
    if kind not in CHAT or not arguments.get("ensure_alternating_roles"):
        return None
    messages: list[Any] = list(items(arguments.get("messages")))
    try:
        return list(
            _common.get_completion_messages(
                messages=messages,
                ensure_alternating_roles=True,
                user_continue_message=arguments.get("user_continue_message"),
                assistant_continue_message=arguments.get("assistant_continue_message"),
            )
        )
    except Exception:  # LiteLLM says itself what is wrong with them
        return None


def effective_request(request: Request, arguments: Mapping[str, Any], sent: Mapping[str, Any], kind: str) -> Request:
    """*request* with what LiteLLM and the provider make of it beside what it says.

    Args:
        request: What was read of the fields that are sent.
        arguments: What LiteLLM is called with.
        sent: The fields that are sent.
        kind: The type of the call, as LiteLLM names it.
    """
    caps = numbers(sent, other_caps(kind))
    if caps and request.max_output_tokens is not None:
        request = request._replace(max_output_tokens=max(*caps, request.max_output_tokens))
    counts = numbers(sent, _COUNTS)
    if counts:
        request = request._replace(choices=max(*counts, request.choices))
    region = text(sent.get("inference_geo"))
    if region is not None:
        request = request._replace(region=region)
    points = [fields(fields(point).get("control")) for point in items(arguments.get(INJECTED_CACHE))]
    if any(point.get("ttl") == "1h" for point in points):
        request = request._replace(hour_cache=True)
    hidden = _KEPT_BY_PROVIDER.intersection(request.unknown)
    if hidden:
        request = request._replace(unknown_structures=(*request.unknown_structures, *sorted(hidden)))
    return _with_text(request, arguments, sent, kind)


def _with_text(request: Request, arguments: Mapping[str, Any], sent: Mapping[str, Any], kind: str) -> Request:
    once = [sent[name] for name in request.unknown if isinstance(sent.get(name), str)]
    most = 0
    if kind in CHAT:
        once += [arguments[name] for name in _WRITTEN_ONCE if arguments.get(name)]
        each = [arguments[name] for name in _WRITTEN_FOR_EACH_MESSAGE if arguments.get(name)]
        most = sum(map(_tokens, each)) * (len(items(sent.get("messages"))) + 1)
    most += sum(map(_tokens, once))
    if not most:
        return request
    prompt = request.prompt
    return request._replace(prompt=prompt._replace(base=prompt.base + most, conversation=0, texts=None))


def _tokens(value: object) -> int:
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return token_bound(written) + _FRAMING


def numbers(sent: Mapping[str, Any], names: Collection[str]) -> list[int]:
    """The whole numbers among the fields of these *names*."""
    found = [whole(sent[name]) for name in names if name in sent]
    return [each for each in found if each is not None]
