"""What a provider billed, as LangChain tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.outputs import LLMResult

from budget_guard import Usage
from budget_guard_langchain.translate import Fields, fields

_BILLED_BLOCKS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}
"""Blocks of an answer that the provider bills by use, as `budget_guard.Usage` names them."""


def was_cached(result: LLMResult) -> bool:
    """Whether the answer came out of LangChain's cache, so that no provider was asked."""
    return _usage_metadata(result).get("total_cost") == 0


def says_nothing_of_it(result: LLMResult) -> bool:
    """Whether the usage of several texts, which a text model sends in one request, is told with the first alone."""
    output = result.llm_output
    return _message(result) is None and output is not None and output.get("token_usage") == {}


def model_of(result: LLMResult) -> str | None:
    """The model that answered."""
    for found in (_response_metadata(result), fields(result.llm_output)):
        for key in ("model_name", "model", "model_id"):
            name = found.get(key)
            if isinstance(name, str) and name:
                return name
    return None


def service_tier_of(result: LLMResult) -> str | None:
    """The price tier that served the call; None where that is not said."""
    tier = _response_metadata(result).get("service_tier")
    return tier if isinstance(tier, str) else None


def usage_of(result: LLMResult, *, hour_cache: bool = False) -> Usage | None:
    """What the provider billed, in disjoint buckets; None where it did not say.

    Args:
        result: The answer.
        hour_cache: Whether input may have been cached for an hour. A stream does not say for how long it was.
    """
    found = _usage_metadata(result)
    if not found:
        return _usage_of_text(fields(result.llm_output))
    details_in, details_out = fields(found.get("input_token_details")), fields(found.get("output_token_details"))
    read = _detail(details_in, "cache_read")
    write_5m, write_1h = (_detail(details_in, f"ephemeral_{life}_input_tokens") for life in ("5m", "1h"))
    if not write_5m and not write_1h:  # how long it is kept is not said, or not told of here
        written = _detail(details_in, "cache_creation")
        write_5m, write_1h = (0, written) if hour_cache else (written, 0)
    audio_in, audio_out = _detail(details_in, "audio"), _detail(details_out, "audio")
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
    """A count by its name, before which OpenAI's service tiers are put."""
    if not details:
        return 0
    return (details.get(name) or 0) + (details.get(f"flex_{name}") or 0) + (details.get(f"priority_{name}") or 0)


def _usage_of_text(output: Fields) -> Usage | None:
    """The usage of a text model, in the provider's own words."""
    usage = fields(output.get("token_usage") or output.get("usage"))
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    cached = fields(usage.get("prompt_tokens_details")).get("cached_tokens") or 0
    reasoning = fields(usage.get("completion_tokens_details")).get("reasoning_tokens") or 0
    return Usage(input=prompt - cached, cache_read=cached, output=completion - reasoning, reasoning=reasoning)


def _message(result: LLMResult) -> Any:
    """The first answer's message; None of a text model. Of several answers each carries the usage of all."""
    answers: Sequence[Any] = result.generations[0] if result.generations else ()
    return getattr(answers[0], "message", None) if answers else None


def _usage_metadata(result: LLMResult) -> Fields:
    return fields(getattr(_message(result), "usage_metadata", None))


def _response_metadata(result: LLMResult) -> Fields:
    return fields(getattr(_message(result), "response_metadata", None))


def _uses(result: LLMResult) -> dict[str, int]:
    """How often the provider ran each of the tools that it bills by use."""
    usage = fields(_response_metadata(result).get("usage"))
    searches = fields(usage.get("server_tool_use")).get("web_search_requests")  # Anthropic counts them itself
    if searches:
        return {"web_search": searches}
    message = _message(result)
    uses: dict[str, int] = {}
    content = () if isinstance(message.content, str) else message.content
    for block in (*content, *message.additional_kwargs.get("tool_outputs", ())):
        kind = fields(block).get("type")
        if kind == "server_tool_call":  # LangChain's own word for all of them
            kind = f"{fields(block).get('name')}_call"
        name = _BILLED_BLOCKS.get(str(kind))
        if name is not None:
            uses[name] = uses.get(name, 0) + 1
    return uses
