"""Answers of the local provider: what it generates for one request, and what of it is billed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.script import FinishReason, Reply, ToolCall, UsageMode
from budget_guard.testing.tokens import byte_length, count_tokens, cut
from budget_guard.units.usage import Usage

Piece: TypeAlias = "str | ToolCall"
"""One chunk of a stream: some text, or a whole tool call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply fitted to its request. The cap is obeyed, every id is set, every count is known."""

    id: str
    """Unique for ever: the wire formats make their ids of it."""
    model: str
    service_tier: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    chunks: tuple[Piece, ...]
    """Text and tool calls in the order they are streamed; at least one."""
    choices: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    """Of all choices together."""
    reasoning_tokens: int
    """Of all choices together."""
    web_searches: int
    usage_mode: UsageMode
    finish_reason: FinishReason

    def usage(self, chunks: int | None = None) -> Usage:
        """Usage once *chunks* were generated; None for all of them.

        Input and searches come first, so they are used up whole; output grows evenly, reasoning first.
        """
        done = len(self.chunks) if chunks is None else chunks
        generated = -(-self.output_tokens * done // len(self.chunks))
        reasoning = min(self.reasoning_tokens, generated)
        return Usage(
            input=self.input_tokens - self.cached_tokens - self.cache_write_tokens - self.cache_write_1h_tokens,
            cache_read=self.cached_tokens,
            cache_write_5m=self.cache_write_tokens,
            cache_write_1h=self.cache_write_1h_tokens,
            output=generated - reasoning,
            reasoning=reasoning,
            web_search=self.web_searches,
        )


def compose(request: ProviderRequest, reply: Reply, history_tokens: int = 0) -> Answer:
    """Fit *reply* to *request*, as a model would: no more than the cap, no tools where they are forbidden.

    Args:
        request: What was asked.
        reply: What the script says.
        history_tokens: Tokens of the earlier conversation that the provider remembers.

    Raises:
        ValueError: If the reply reads more from the cache than the request weighs.
    """
    input_tokens = request.input_tokens + history_tokens if reply.input_tokens is None else reply.input_tokens
    if input_tokens < reply.total_cached_tokens:
        raise ValueError(
            f"cached_tokens={reply.cached_tokens}, cache_write_tokens={reply.cache_write_tokens} and "
            f"cache_write_1h_tokens={reply.cache_write_1h_tokens} are more than the {input_tokens} tokens "
            "of the request: give input_tokens"
        )
    calls = () if request.tool_choice == "none" and not reply.ignore_tool_choice else tuple(reply.tool_calls)
    text = reply.text if reply.text is not None else "" if calls else "ok"
    visible = max(1, count_tokens(text, *map(_wire_text, calls)))
    wanted = reply.reasoning_tokens + visible if reply.output_tokens is None else reply.output_tokens
    cap = request.max_output_tokens
    output, reasoning = wanted, reply.reasoning_tokens
    finish: FinishReason = "tool_calls" if calls else "stop"
    if cap is not None and wanted > cap:
        output, reasoning, finish = cap, min(reply.reasoning_tokens, cap), "length"
        text, calls = _shorten(text, calls, cap - reasoning, wanted - reply.reasoning_tokens)
    calls = tuple(replace(call, id=call.id or f"call_{secrets.token_hex(12)}") for call in calls)
    return Answer(
        id=secrets.token_hex(16),
        model=reply.model or request.model,
        service_tier=reply.service_tier or _tier(request.service_tier),
        text=text,
        tool_calls=calls,
        chunks=_split(text, reply.chunks, calls),
        choices=request.choices,
        input_tokens=input_tokens,
        cached_tokens=reply.cached_tokens,
        cache_write_tokens=reply.cache_write_tokens,
        cache_write_1h_tokens=reply.cache_write_1h_tokens,
        output_tokens=output * request.choices,
        reasoning_tokens=reasoning * request.choices,
        web_searches=reply.web_searches,
        usage_mode=reply.usage,
        finish_reason=reply.finish_reason or finish,
    )


def _wire_text(call: ToolCall) -> str:
    return call.name + call.arguments_json


def _tier(asked: str | None) -> str:
    return "default" if asked in (None, "auto") else asked


def _shorten(text: str, calls: tuple[ToolCall, ...], kept: int, of: int) -> tuple[str, tuple[ToolCall, ...]]:
    """The first *kept* of *of* tokens. A tool call that does not fit whole is not made, nor any after it."""
    sizes = [byte_length(_wire_text(call)) for call in calls]
    # `of` may be a count that the reply gave, so the text is cut in proportion to it, not by its own weight.
    room = (byte_length(text) + sum(sizes)) * kept // of if of else 0
    shortened = cut(text, room)
    room -= byte_length(text)
    fitting: list[ToolCall] = []
    for call, size in zip(calls, sizes, strict=True):
        room -= size
        if room < 0:
            break
        fitting.append(call)
    return shortened, tuple(fitting)


def _split(text: str, chunks: int, calls: tuple[ToolCall, ...]) -> tuple[Piece, ...]:
    parts = min(chunks, len(text))
    edges = [len(text) * part // parts for part in range(parts + 1)] if parts else []
    pieces = [text[start:end] for start, end in pairwise(edges)]
    return (*pieces, *calls) or ("",)
