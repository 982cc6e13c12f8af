"""A steered call in the provider's own parameters: the output cap that was decided on, and a wish for usage."""

from __future__ import annotations

import logging
from typing import Any

from langchain_core.language_models import BaseChatModel

from budget_guard.adapter.provider_words import OUTPUT_CAPS
from budget_guard.wire import Endpoint, explain_refusal
from budget_guard.wire.values import fields
from budget_guard_langchain.request import ADDRESSES, endpoint_at, filled_in_cap

_log = logging.getLogger("budget_guard")

_THINKING_AT_LEAST = 1_024
"""The smallest thinking budget that Anthropic takes."""


_FIELDS = {
    "langchain_openai.BaseChatOpenAI": "max_tokens",  # OpenAI, Azure, DeepSeek, xAI and the like
    "langchain_anthropic.ChatAnthropic": "max_tokens",
    "langchain_google_genai.ChatGoogleGenerativeAI": "max_output_tokens",
}
"""The model's own field of the output cap, by package and class; the class that is nearest in its descent counts."""


def can_cap(model: BaseChatModel) -> bool:
    """Whether an output cap can be sent with the calls of *model*."""
    return _field(model) is not None and not _named(getattr(model, "extra_body", None))


def cap_set(model: BaseChatModel, kwargs: dict[str, Any]) -> int | None:
    """The output cap that the caller set, in a call's *kwargs* or in the *model*; None where it set none."""
    set_here = (
        _named(kwargs) or _named(getattr(model, "extra_body", None)) or _named(getattr(model, "model_kwargs", None))
    )
    if set_here:
        return set_here
    set_in_model = getattr(model, _field(model) or "max_tokens", None)
    if not isinstance(set_in_model, int) or set_in_model == _filled_in(model):
        return None
    return set_in_model


def with_cap(model: BaseChatModel, kwargs: dict[str, Any], cap: int) -> tuple[BaseChatModel, dict[str, Any]]:
    """The model and the arguments of a call that is capped at *cap* output tokens. Neither is changed.

    A lower cap that the caller set stays. A thinking budget that does not fit under the cap is cut down with it.
    """
    field = _field(model)
    if field is None:
        return model, kwargs
    own = cap_set(model, kwargs)
    cap = cap if own is None else min(cap, own)
    name, in_body = _name_of_cap(model, kwargs, field)
    kwargs = {name: value for name, value in kwargs.items() if name not in OUTPUT_CAPS}
    if in_body:
        extra = kwargs.get("extra_body", getattr(model, "extra_body", None))
        kwargs["extra_body"] = {**fields(extra), name: cap}
        if getattr(model, field, None) is not None:  # it would be sent as well, under its other name
            model = model.model_copy(update={field: None})
    else:
        kwargs[name] = cap
    thinking = _thinking_under(cap, kwargs.get("thinking"))
    if thinking is not None:
        kwargs["thinking"] = thinking
    thinking = _thinking_under(cap, getattr(model, "thinking", None))
    if thinking is not None:  # the constructor's wins over a call's
        model = model.model_copy(update={"thinking": thinking})
    return model, kwargs


def with_usage(model: BaseChatModel, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call that asks for its usage, unless the caller said something about that, or the
    endpoint does not take it.

    With an address of its own `ChatOpenAI` does not ask, so that each call would be booked as high as it was held.
    """
    given = {**fields(getattr(model, "model_kwargs", None)), **kwargs}
    uses_responses: Any = getattr(model, "_use_responses_api", None)  # which always sends it
    if uses_responses is None or getattr(model, "stream_usage", False) is not None:
        return kwargs
    if "stream_usage" in given or "stream_options" in given or uses_responses(given):
        return kwargs
    return {**kwargs, "stream_usage": True} if _endpoint_of(model).takes_usage_option else kwargs


def added_by(asked: dict[str, Any], sent: dict[str, Any]) -> tuple[str, ...]:
    """The fields of a request that are in the arguments *sent*, and were not in those that were *asked* for."""
    more = {**fields(sent.get("extra_body")), **sent}
    before = {**fields(asked.get("extra_body")), **asked}
    names = [name for name in OUTPUT_CAPS if name in more and name not in before]
    if names and "max_completion_tokens" not in names:
        names.append("max_completion_tokens")  # the name that LangChain's client may make of it
    if "stream_usage" in more and "stream_usage" not in before:
        names.append("stream_options.include_usage")
    return tuple(names)


def explain(error: BaseException, added: tuple[str, ...]) -> None:
    """Note in *error*, where an endpoint refuses a field that was added, who added it and how to leave it out."""
    if not added:
        return
    status: object = getattr(error, "status_code", None)
    body: object = getattr(error, "body", None) or getattr(getattr(error, "response", None), "text", "")
    words = explain_refusal(added, status, body)
    if words is not None:
        if hasattr(error, "add_note"):
            error.add_note(words)
        _log.warning("%s", words)


def _name_of_cap(model: BaseChatModel, kwargs: dict[str, Any], field: str) -> tuple[str, bool]:
    """The name of the output cap that the endpoint takes, and whether it has to go into the body as it is."""
    uses_responses: Any = getattr(model, "_use_responses_api", None)
    if uses_responses is None:
        return field, False
    if uses_responses({**fields(getattr(model, "model_kwargs", None)), **kwargs}):
        # The class renames this one itself, while a call's "max_tokens" would lose against the constructor's.
        return "max_completion_tokens", False
    name = getattr(model, "deployment_name", None) or kwargs.get("model") or getattr(model, "model_name", None)
    where = _endpoint_of(model)
    cap = where.name_of_cap(name if isinstance(name, str) else "")
    renames = any(cls.__name__ in ("ChatOpenAI", "AzureChatOpenAI") for cls in type(model).__mro__)
    if renames and where.provider is None:
        return "max_completion_tokens", False  # what the class sends by itself, to a server that nobody knows
    return cap, renames and cap == "max_tokens"


def _endpoint_of(model: BaseChatModel) -> Endpoint:
    """Where the requests of an OpenAI client of LangChain's go to."""
    address = next(filter(None, (getattr(model, name, None) for name in ADDRESSES)), None)
    azure = any(cls.__name__ == "AzureChatOpenAI" for cls in type(model).__mro__)
    version: object = getattr(model, "openai_api_version", None)
    return endpoint_at(
        address if isinstance(address, str) else None,
        "azure" if azure else None,
        version if isinstance(version, str) else "",
    )


def _field(model: BaseChatModel) -> str | None:
    for cls in type(model).__mro__:
        field = _FIELDS.get(f"{cls.__module__.partition('.')[0]}.{cls.__name__}")
        if field is not None:
            return field
    return None


def _named(settings: Any) -> int | None:
    given = fields(settings)
    return min((given[name] for name in OUTPUT_CAPS if isinstance(given.get(name), int)), default=None)


def _filled_in(model: BaseChatModel) -> int | None:
    """The cap that the class set by itself where the caller set none."""
    is_claude = any(cls.__name__ == "ChatAnthropic" for cls in type(model).__mro__)
    return filled_in_cap(getattr(model, "model", "")) if is_claude else None


def _thinking_under(cap: int, thinking: Any) -> dict[str, Any] | None:
    """The thinking to ask for instead of *thinking*, whose budget Anthropic wants below the cap; None if it is."""
    asked = fields(thinking)
    if asked.get("budget_tokens", 0) < cap:
        return None
    budget = cap // 2
    return {**asked, "budget_tokens": budget} if budget >= _THINKING_AT_LEAST else {"type": "disabled"}
