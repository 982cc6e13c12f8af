"""A provider's answer as LangChain tells it: which model gave it, and what it billed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from budget_guard import Usage
from budget_guard.adapter.provider_words import BILLED_ITEMS
from budget_guard_langchain.request import Fields, fields

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult


class Answer:
    """One answer to one call. Of several choices each carries the usage of all, so the first one is read."""

    __slots__ = ("_message", "_output", "_said", "_usage")

    def __init__(self, result: LLMResult) -> None:
        choices: Sequence[Any] = result.generations[0] if result.generations else ()
        self._output = result.llm_output
        self._message: Any = getattr(choices[0], "message", None) if choices else None
        """None of a text model."""
        self._usage: Fields = getattr(self._message, "usage_metadata", None) or {}
        self._said: Fields = getattr(self._message, "response_metadata", None) or {}

    @property
    def was_cached(self) -> bool:
        """Whether it came out of LangChain's cache, so that no provider was asked."""
        return self._usage.get("total_cost") == 0

    @property
    def says_no_usage_of_its_own(self) -> bool:
        """Whether the usage of several texts, which a text model sends in one request, is told with the first alone."""
        output = self._output
        return self._message is None and output is not None and output.get("token_usage") == {}

    @property
    def model(self) -> str | None:
        """The model that answered."""
        for found in (self._said, fields(self._output)):
            for key in ("model_name", "model", "model_id"):
                name = found.get(key)
                if isinstance(name, str) and name:
                    return name
        return None

    @property
    def service_tier(self) -> str | None:
        """The price tier that served the call; None where that is not said."""
        tier = self._said.get("service_tier")
        return tier if isinstance(tier, str) else None

    def usage(self, *, hour_cache: bool = False) -> Usage | None:
        """What the provider billed, in disjoint buckets; None where it did not say.

        Args:
            hour_cache: Whether input may have been cached for an hour. A stream does not say for how long it was.
        """
        found = self._usage
        if not found:
            return _usage_of_text(fields(self._output))
        details_in, details_out = (
            _details(found.get("input_token_details")),
            _details(found.get("output_token_details")),
        )
        read = details_in.get("cache_read", 0)
        write_5m = details_in.get("ephemeral_5m_input_tokens", 0)
        write_1h = details_in.get("ephemeral_1h_input_tokens", 0)
        if not write_5m and not write_1h:  # how long it is kept is not said, or not told of here
            written = details_in.get("cache_creation", 0)
            write_5m, write_1h = (0, written) if hour_cache else (written, 0)
        audio_in, audio_out = details_in.get("audio", 0), details_out.get("audio", 0)
        reasoning = details_out.get("reasoning", 0)
        uses = self._uses()
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

    def _uses(self) -> dict[str, int]:
        """How often the provider ran each of the tools that it bills by use."""
        if "usage" in self._said:  # Anthropic's, which counts them itself
            searches = fields(fields(self._said["usage"]).get("server_tool_use")).get("web_search_requests")
            if searches:
                return {"web_search": searches}
        message = self._message
        uses: dict[str, int] = {}
        content = () if isinstance(message.content, str) else message.content
        for block in (*content, *message.additional_kwargs.get("tool_outputs", ())):
            kind = fields(block).get("type")
            if kind == "server_tool_call":  # LangChain's own word for all of them
                kind = f"{fields(block).get('name')}_call"
            name = BILLED_ITEMS.get(str(kind))
            if name is not None:
                uses[name] = uses.get(name, 0) + 1
        return uses


def _details(details: object) -> dict[str, int]:
    """The counts by name, without the service tier that is put before the name at OpenAI."""
    counts: dict[str, int] = {}
    for name, count in cast("dict[str, object]", details).items() if isinstance(details, dict) else ():
        if type(count) is int:
            name = name.removeprefix("flex_").removeprefix("priority_")
            counts[name] = counts.get(name, 0) + count
    return counts


def _usage_of_text(output: Fields) -> Usage | None:
    """The usage of a text model, in the provider's own words."""
    usage = fields(output.get("token_usage") or output.get("usage"))
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    cached = fields(usage.get("prompt_tokens_details")).get("cached_tokens") or 0
    reasoning = fields(usage.get("completion_tokens_details")).get("reasoning_tokens") or 0
    return Usage(input=prompt - cached, cache_read=cached, output=completion - reasoning, reasoning=reasoning)
