"""A steered call in the provider's own parameters: the output cap that was decided on, and a wish for usage."""

from __future__ import annotations

from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel

from budget_guard.adapter.provider_words import OUTPUT_CAPS
from budget_guard.wire.values import fields
from budget_guard_langchain.request import filled_in_cap

_THINKING_AT_LEAST = 1_024
"""The smallest thinking budget that Anthropic takes."""


class _Parameter(NamedTuple):
    """How one integration names the output cap."""

    sent: str
    """The name in the arguments of a call."""
    field: str
    """The name of the model's own field."""


_PARAMETERS = {
    # OpenAI's reasoning models refuse the older name; for the Responses API the class renames this one itself, while
    # a call's "max_tokens" would lose against the constructor's.
    "langchain_openai.ChatOpenAI": _Parameter("max_completion_tokens", "max_tokens"),
    "langchain_openai.AzureChatOpenAI": _Parameter("max_completion_tokens", "max_tokens"),
    "langchain_openai.BaseChatOpenAI": _Parameter("max_tokens", "max_tokens"),  # DeepSeek, xAI and the like
    "langchain_anthropic.ChatAnthropic": _Parameter("max_tokens", "max_tokens"),
    "langchain_google_genai.ChatGoogleGenerativeAI": _Parameter("max_output_tokens", "max_output_tokens"),
}
"""By package and class; the class that is nearest in a model's line of descent counts."""


def can_cap(model: BaseChatModel) -> bool:
    """Whether an output cap can be sent with the calls of *model*."""
    return _parameter(model) is not None and not _named(getattr(model, "extra_body", None))


def cap_set(model: BaseChatModel, kwargs: dict[str, Any]) -> int | None:
    """The output cap that the caller set, in a call's *kwargs* or in the *model*; None where it set none."""
    set_here = (
        _named(kwargs) or _named(getattr(model, "extra_body", None)) or _named(getattr(model, "model_kwargs", None))
    )
    if set_here:
        return set_here
    parameter = _parameter(model)
    set_in_model = getattr(model, parameter.field if parameter else "max_tokens", None)
    if not isinstance(set_in_model, int) or set_in_model == _filled_in(model):
        return None
    return set_in_model


def with_cap(model: BaseChatModel, kwargs: dict[str, Any], cap: int) -> tuple[BaseChatModel, dict[str, Any]]:
    """The model and the arguments of a call that is capped at *cap* output tokens. Neither is changed.

    A lower cap that the caller set stays. A thinking budget that does not fit under the cap is cut down with it.
    """
    parameter = _parameter(model)
    if parameter is None:
        return model, kwargs
    own = cap_set(model, kwargs)
    cap = cap if own is None else min(cap, own)
    kwargs = {name: value for name, value in kwargs.items() if name not in OUTPUT_CAPS}
    kwargs[parameter.sent] = cap
    thinking = _thinking_under(cap, kwargs.get("thinking"))
    if thinking is not None:
        kwargs["thinking"] = thinking
    thinking = _thinking_under(cap, getattr(model, "thinking", None))
    if thinking is not None:  # the constructor's wins over a call's
        model = model.model_copy(update={"thinking": thinking})
    return model, kwargs


def with_usage(model: BaseChatModel, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call that asks for its usage, unless the caller said something about that.

    With an address of its own `ChatOpenAI` does not ask, so that each call would be booked as high as it was held.
    """
    given = {**fields(getattr(model, "model_kwargs", None)), **kwargs}
    uses_responses: Any = getattr(model, "_use_responses_api", None)  # which always sends it
    if uses_responses is None or getattr(model, "stream_usage", False) is not None:
        return kwargs
    if "stream_usage" in given or "stream_options" in given or uses_responses(given):
        return kwargs
    return {**kwargs, "stream_usage": True}


def _parameter(model: BaseChatModel) -> _Parameter | None:
    for cls in type(model).__mro__:
        parameter = _PARAMETERS.get(f"{cls.__module__.partition('.')[0]}.{cls.__name__}")
        if parameter is not None:
            return parameter
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
