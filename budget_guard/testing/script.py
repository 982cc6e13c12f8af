"""Replies of the local provider, and scripts that choose among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from budget_guard.testing.request import ProviderRequest

UsageMode: TypeAlias = Literal["on", "off", "late", "missing"]
FinishReason: TypeAlias = Literal["stop", "tool_calls", "length", "content_filter"]

_COUNTS = ("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens", "web_searches")
_OPTIONAL_COUNTS = ("input_tokens", "output_tokens", "drop_after")


def _no_arguments() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model asks for: ``ToolCall("search", {"q": "budget"})``."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=_no_arguments)
    """The arguments, or their JSON, which is sent as it is and so may be broken on purpose."""
    id: str | None = None
    """The call's id on the wire; None for a fresh one."""

    @property
    def arguments_json(self) -> str:
        """The arguments as they go over the wire."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer of the provider.

    Token counts are totals, as OpenAI gives them: input includes what was cached, output includes reasoning. Each wire
    format reports them its own way.
    Counts that are not given are worked out by `budget_guard.testing.tokens`.
    """

    text: str | None = None
    """What the model says; the error message where `status` is not 200. None for "ok", or for nothing beside
    tool calls."""
    tool_calls: Sequence[ToolCall] = ()
    ignore_tool_choice: bool = False
    """Call tools even where the request says ``tool_choice="none"``; a real model obeys: it says `text`."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    """Tokens that the model would generate without a cap. The request's cap is obeyed, and cuts the text."""
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    """Written to a cache with the provider's default lifetime."""
    cache_write_1h_tokens: int = 0
    """Written to a one-hour cache, beside those above. OpenAI has none."""
    reasoning_tokens: int = 0
    web_searches: int = 0
    """Searches by the provider's own tool. They are billed on any endpoint and not seen on Chat Completions."""
    usage: UsageMode = "on"
    """How usage is reported; the bill is the same in every mode.

    ``on``: as the real provider does, so a Chat stream has it only if asked to. ``off``: never. ``missing``:
    null although it is due. ``late``: on, but in a stream the last event, which carries it, is held back
    while the provider is paused, and with `gate_chunks` needs one `LocalProvider.release_chunk` more.
    """
    status: int = 200
    """The HTTP status. Any but 200 refuses the call before anything is generated, and is not billed."""
    retry_after_s: float = 1
    """What a 429 or 503 says in its Retry-After header, in seconds."""
    drop_after: int | None = None
    """Cut the connection after so many chunks of a stream, without an end; 0 for before any byte of the body.
    A reply that is not streamed is cut before its body, whatever the number. None for never."""
    delay_s: float = 0
    """Real seconds to wait before answering. `LocalProvider.pause` is the better way to make a call hang."""
    chunks: int = 4
    """Into how many pieces a stream cuts the text, at most. Every tool call is one more chunk."""
    gate_chunks: bool = False
    """Send each chunk of a stream only when `LocalProvider.release_chunk` lets it go."""
    model: str | None = None
    """The model that the answer names, and that is billed, for example a dated snapshot; None for the one
    asked for."""
    service_tier: str | None = None
    """The tier that served the call, and that is billed; None for the one asked for, or "default"."""
    finish_reason: FinishReason | None = None
    """Why the model stopped; None for what follows from the rest."""

    def __post_init__(self) -> None:
        given = [name for name in _OPTIONAL_COUNTS if getattr(self, name) is not None]
        for name in (*_COUNTS, *given, "delay_s", "retry_after_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} is negative")
        if self.chunks < 1:
            raise ValueError(f"chunks={self.chunks!r}: a reply has at least one chunk")
        if self.status != 200 and not 400 <= self.status < 600:
            raise ValueError(f"status={self.status!r} is neither 200 nor an error (400 to 599)")
        if self.output_tokens is not None and self.output_tokens < self.reasoning_tokens:
            raise ValueError(f"output_tokens={self.output_tokens!r} has to include reasoning_tokens")
        if self.input_tokens is not None and self.input_tokens < self.total_cached_tokens:
            raise ValueError(f"input_tokens={self.input_tokens!r} has to include what is cached")

    @property
    def total_cached_tokens(self) -> int:
        """Input tokens that are read from a cache or written to one."""
        return self.cached_tokens + self.cache_write_tokens + self.cache_write_1h_tokens


Script: TypeAlias = "Reply | Sequence[Script] | Mapping[str, Script] | Callable[[ProviderRequest], Script]"
"""How the provider chooses its reply.

A `Reply` answers every call, so ``Reply(tool_calls=[...])`` is an agent that never stops by itself. A
sequence answers one call after the other, in order of arrival, and its last element answers all that follow.
A mapping has a script for each model, and ``"*"`` for all others (else they get status 404); within it,
sequences count the calls of their model. A function looks at the request and returns any of these; it runs in
the provider's thread and must not block.
"""


def choose(script: Script, request: ProviderRequest) -> Reply | None:
    """The reply to *request*, None if *script* has none for its model.

    Raises:
        ValueError: If a sequence is empty.
    """
    position = request.index
    while not isinstance(script, Reply):
        if callable(script):
            script = script(request)
        elif isinstance(script, Mapping):
            position = request.model_index
            found = script.get(request.model, script.get("*"))
            if found is None:
                return None
            script = found
        elif script:
            script = script[min(position, len(script) - 1)]
        else:
            raise ValueError("the script is an empty sequence: give at least one Reply")
    return script
