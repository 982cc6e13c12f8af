"""Answers of the local provider: what it generates for one request, and what of it is billed."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias, cast

from budget_guard.testing.reply import HostedCall, Reply, ToolCall
from budget_guard.testing.request import ProviderRequest
from budget_guard.testing.tokens import byte_length, count_tokens, cut
from budget_guard.units.usage import Usage

Piece: TypeAlias = "str | ToolCall"
"""One chunk of a stream: some text, or a whole tool call."""

_CONTAINER = "cntr_0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply fitted to its request. The cap is obeyed, every id is set, every count is known."""

    reply: Reply
    """How the script wants it told: its raw usage, extra fields and so on."""
    id: str
    """Unique for ever: the wire formats make their ids of it."""
    model: str
    service_tier: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    hosted: tuple[HostedCall, ...]
    """Tools of the provider's own that were run, in order."""
    chunks: tuple[Piece, ...]
    """Text and tool calls in the order they are streamed; at least one."""
    choices: int
    input_tokens: int
    output_tokens: int
    """Of all choices together."""
    reasoning_tokens: int
    """Of all choices together."""
    output_audio_tokens: int
    """Of all choices together."""
    output_image_tokens: int
    """Of all choices together."""
    finish_reason: str
    """A `budget_guard.testing.reply.FinishReason`, or a provider's own word."""

    def wire_id(self, prefix: str) -> str:
        """The answer's id on the wire."""
        return self.reply.id or prefix + self.id

    @property
    def web_searches(self) -> int:
        """Searches of the web that are billed."""
        return sum(call.kind == "web_search" and call.is_billed for call in self.hosted)

    def usage(self, chunks: int | None = None) -> Usage:
        """Usage once *chunks* were generated, as the provider counts it; None for all of them.

        Input and hosted tools come first, so they are used up whole; output grows evenly, reasoning first.
        """
        reply = self.reply
        done = len(self.chunks) if chunks is None else min(chunks, len(self.chunks))
        generated = -(-self.output_tokens * done // len(self.chunks))
        reasoning = min(self.reasoning_tokens, generated)
        audio = min(self.output_audio_tokens, generated - reasoning)
        image = min(self.output_image_tokens, generated - reasoning - audio)
        return Usage(
            input=self.input_tokens - reply.known_input_tokens,
            cache_read=reply.cached_tokens - reply.cached_audio_tokens,
            cache_write_5m=reply.cache_write_tokens,
            cache_write_1h=reply.cache_write_1h_tokens,
            input_audio=reply.input_audio_tokens,
            cache_audio=reply.cached_audio_tokens,
            input_image=reply.input_image_tokens,
            output=generated - reasoning - audio - image,
            reasoning=reasoning,
            output_audio=audio,
            output_image=image,
            web_search=self.web_searches,
            other=_events(self.hosted),
        )

    def billed(self, chunks: int | None = None) -> Usage:
        """`usage`, and the iterations that the provider's totals leave out."""
        usage = self.usage(chunks)
        for iteration in self.reply.iterations:
            if iteration.get("type") != "message":
                usage = _plus(usage, iteration)
        return usage


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
    if input_tokens < reply.known_input_tokens:
        raise ValueError(
            f"cached_tokens={reply.cached_tokens}, cache_write_tokens={reply.cache_write_tokens}, "
            f"cache_write_1h_tokens={reply.cache_write_1h_tokens}, audio and images are more than the {input_tokens} "
            "tokens of the request: give input_tokens"
        )
    calls = () if request.tool_choice == "none" and not reply.ignore_tool_choice else tuple(reply.tool_calls)
    text = reply.text if reply.text is not None and not reply.refuses else "" if calls else "ok"
    visible = max(1, count_tokens(text, *map(_wire_text, calls)))
    wanted = reply.known_output_tokens + visible if reply.output_tokens is None else reply.output_tokens
    cap = request.max_output_tokens
    output, reasoning = wanted, reply.reasoning_tokens
    finish = "tool_calls" if calls else "stop"
    if cap is not None and wanted > cap:
        output, reasoning, finish = cap, min(reply.reasoning_tokens, cap), "length"
        text, calls = _shorten(text, calls, cap - reasoning, wanted - reply.reasoning_tokens)
    audio = min(reply.output_audio_tokens, output - reasoning)
    image = min(reply.output_image_tokens, output - reasoning - audio)
    calls = tuple(replace(call, id=call.id or f"call_{secrets.token_hex(12)}") for call in calls)
    samples = request.choices if request.samples is None else request.samples
    scripted = reply.events is not None and request.stream
    return Answer(
        reply=reply,
        id=secrets.token_hex(16),
        model=reply.model or request.model,
        service_tier=reply.service_tier or _tier(request.service_tier),
        text=text,
        tool_calls=calls,
        hosted=(*(HostedCall("web_search") for _ in range(reply.web_searches)), *reply.hosted),
        chunks=("",) * max(1, len(reply.events or ())) if scripted else _split(text, reply.chunks, calls),
        choices=request.choices,
        input_tokens=input_tokens,
        output_tokens=output * samples,
        reasoning_tokens=reasoning * samples,
        output_audio_tokens=audio * samples,
        output_image_tokens=image * samples,
        finish_reason=reply.finish_reason or finish,
    )


def _events(hosted: tuple[HostedCall, ...]) -> tuple[tuple[str, int], ...]:
    """Billed events but searches of the web, counted by kind. A code interpreter is billed once for each container."""
    containers = {
        call.fields.get("container_id", _CONTAINER)
        for call in hosted
        if call.kind == "code_interpreter" and call.is_billed
    }
    others = ("web_search", "code_interpreter")
    counts = Counter(call.kind for call in hosted if call.is_billed and call.kind not in others)
    counts["code_interpreter"] = len(containers)
    return tuple(sorted((+counts).items()))


def _plus(usage: Usage, iteration: Mapping[str, Any]) -> Usage:
    """*usage* and that of one iteration, in the words of Messages."""
    written = cast("Mapping[str, Any]", iteration.get("cache_creation") or {})
    hour = written.get("ephemeral_1h_input_tokens") or 0
    return usage._replace(
        input=usage.input + (iteration.get("input_tokens") or 0),
        cache_read=usage.cache_read + (iteration.get("cache_read_input_tokens") or 0),
        cache_write_5m=usage.cache_write_5m + (iteration.get("cache_creation_input_tokens") or 0) - hour,
        cache_write_1h=usage.cache_write_1h + hour,
        output=usage.output + (iteration.get("output_tokens") or 0),
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
