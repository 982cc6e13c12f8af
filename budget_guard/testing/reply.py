"""Replies of the local provider: what the model does, what the wire says of it, and what it costs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, TypeAlias

from budget_guard.testing.rates import Price

UsageMode: TypeAlias = Literal["on", "off", "late", "missing"]
FinishReason: TypeAlias = Literal["stop", "tool_calls", "length", "content_filter"]
RawUsage: TypeAlias = "Mapping[str, Any] | Sequence[Any] | int | float | bool | Callable[[dict[str, Any]], Any] | None"
Bill: TypeAlias = "Price | Callable[[Mapping[str, Any]], Price]"

_USAGE_MODES = ("on", "off", "late", "missing")
_COUNTS = (
    "cached_tokens",
    "cached_audio_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "web_searches",
)
_OPTIONAL_COUNTS = ("input_tokens", "output_tokens", "drop_after", "drop_bytes", "error_after")
_PAID_EVENTS = frozenset({"web_search", "file_search", "code_interpreter"})
_NANO_PER_DOLLAR = 1_000_000_000


def _nothing() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model asks for: ``ToolCall("search", {"q": "budget"})``."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=_nothing)
    """The arguments, or their JSON, which is sent as it is and so may be broken on purpose."""
    id: str | None = None
    """The call's id on the wire; None for a fresh one."""

    @property
    def arguments_json(self) -> str:
        """The arguments as they go over the wire."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True, slots=True)
class HostedCall:
    """A tool of the provider's own that it ran: ``HostedCall("web_search", action="open_page")``.

    Responses shows it as an item, Messages as a block and its result, Google's wire as grounding metadata
    (``web_search``) or executed code (``code_execution``). The other wires show nothing.
    """

    kind: str
    """For example "web_search", "file_search", "code_interpreter", "image_generation", "mcp", "web_fetch"."""
    action: str | None = None
    """What a web search did; None for "search". A visit to a page ("open_page", "find_in_page") is free."""
    status: str = "completed"
    """Any other is free."""
    fields: Mapping[str, Any] = field(default_factory=_nothing)
    """More fields of the item, over those that the wire makes up: ``{"quality": "high", "size": "1024x1024"}``."""
    billed: bool | None = None
    """Whether it costs a fee; None for what real providers do: a search of the web or of files that was completed
    does, and a code interpreter once for each container (``fields={"container_id": ...}``)."""

    @property
    def is_billed(self) -> bool:
        """Whether it costs a fee."""
        if self.billed is not None:
            return self.billed
        return self.kind in _PAID_EVENTS and self.status == "completed" and self.action in (None, "search")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer of the provider.

    Token counts are the truth, and are billed. They are totals, as OpenAI gives them: input includes what was cached,
    output includes reasoning. Each wire format reports them its own way, unless the reply says otherwise.
    Counts that are not given are worked out by `budget_guard.testing.tokens`.
    """

    # What the model does.
    text: str | None = None
    """What the model says; the error message where `status` refuses the call. None for "ok", or for nothing beside
    tool calls."""
    tool_calls: Sequence[ToolCall] = ()
    ignore_tool_choice: bool = False
    """Call tools even where the request says ``tool_choice="none"``; a real model obeys: it says `text`."""
    hosted: Sequence[HostedCall] = ()
    """Tools of the provider's own that it ran, billed or not."""
    finish_reason: FinishReason | str | None = None
    """Why the model stopped; None for what follows from the rest. A word that is not neutral is sent as it is, for
    example "pause_turn" or "SAFETY". On Responses, "failed", "cancelled", "queued" and "in_progress" are the status."""

    # What it used: the truth.
    input_tokens: int | None = None
    output_tokens: int | None = None
    """Tokens that the model would generate without a cap. The request's cap is obeyed, and cuts the text."""
    cached_tokens: int = 0
    cached_audio_tokens: int = 0
    """Those of `cached_tokens` that are sound."""
    cache_write_tokens: int = 0
    """Written to a cache with the provider's default lifetime."""
    cache_write_1h_tokens: int = 0
    """Written to a one-hour cache, beside those above. OpenAI has none."""
    input_audio_tokens: int = 0
    """Input tokens of sound that were not cached."""
    input_image_tokens: int = 0
    """Input tokens of pictures that are billed apart from text, and were not cached."""
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    web_searches: int = 0
    """Searches by the provider's own tool: so many ``HostedCall("web_search")`` more."""
    iterations: Sequence[Mapping[str, Any]] = ()
    """``usage.iterations`` of Messages. Those of another type than "message" are billed on top of the counts above."""

    # What it costs.
    bill: Bill | None = None
    """Dollars that the call costs, or a function of the request's body that gives them; in place of the cost by
    rates, whatever became of the call. None for the cost by rates of what was really used."""
    generated: bool | None = None
    """Whether the model did the work, so that it is billed by rates: True for an error that came after it. None
    for no if the call is refused, else yes."""

    # What the wire says of it.
    usage: UsageMode | RawUsage = "on"
    """How usage is reported; the bill is the same whatever it is.

    ``on``: as the real provider does, so a Chat stream has it only if asked to. ``off``: never. ``missing``:
    null although it is due. ``late``: on, but in a stream the last event, which carries it, is held back
    while the provider is paused, and with `gate_chunks` needs one `LocalProvider.release_chunk` more.
    Any other JSON is sent as it is, None as null, in place of the true one. A function is given the true one,
    in the words of the wire, and returns what is sent: ``usage=lambda true: dict.fromkeys(true, 0)``.
    """
    usage_extra: Mapping[str, Any] = field(default_factory=_nothing)
    """More fields of the usage object, for example ``{"cost": 0.01}``, ``{"cost_in_usd_ticks": 10}``, ``{"speed":
    "fast"}``; over the true ones."""
    opening_usage: Mapping[str, Any] | None = None
    """What ``message_start`` of a Messages stream says of usage; None for what follows from `usage`."""
    stream_usage: Literal["last", "finish", "every"] = "last"
    """Where a stream tells usage. ``last``: where the real provider does. ``finish``: in the chunk with the finish
    reason (Chat and Completions), as Mistral and DeepSeek do, asked for or not. ``every``: in every chunk, as far as
    it has come (Chat, Completions, Messages), asked for or not."""
    model: str | None = None
    """The model that the answer names, and that is billed, for example a dated snapshot; None for the one
    asked for. ``extra={"model": ...}`` names another one than is billed."""
    service_tier: str | None = None
    """The tier that served the call, and that is billed; None for the one asked for, or "default"."""
    id: str | None = None
    """The answer's id on the wire; None for a fresh one."""
    extra: Mapping[str, Any] = field(default_factory=_nothing)
    """More top-level fields of the answer (of every chunk on Chat, Completions and Google's wire, of the response or
    message object in streams of Responses and Messages, of the metadata of Converse), over those that the wire
    makes up: ``{"citations": [...]}``."""
    omit: Sequence[str] = ()
    """Top-level fields that are left out: ``("model", "service_tier")``."""
    message_extra: Mapping[str, Any] = field(default_factory=_nothing)
    """More fields of the message (Chat, Responses, Cohere, Converse) or of the candidate (Google's wire):
    ``{"annotations": [...]}``, ``{"groundingMetadata": {...}}``. A stream of Chat, Responses or Google's wire has them
    where it ends, the others never."""
    body: Mapping[str, Any] | Sequence[Any] | str | bytes | None = None
    """The whole body, of an error or of an answer, streamed or not, as it is: JSON, HTML, text or bytes. With
    `error_after`, the error object in the stream. None for what the wire makes up."""
    events: Sequence[Any] | None = None
    """What a stream says, event by event, in place of what the wire makes up: JSON, or text such as "[DONE]". Each
    counts as one chunk. No matter where the request does not stream."""
    headers: Mapping[str, str | None] = field(default_factory=_nothing)
    """HTTP headers, over those that the wire makes up; None leaves one out."""

    # What goes wrong.
    status: int = 200
    """The HTTP status. Any but 200 refuses the call before anything is generated, and is not billed, unless
    `generated` or `bill` says so. 307 and 308 lead to the same address once more, unless `headers` name another."""
    retry_after_s: float = 1
    """What a 429 or 503 says in its Retry-After header, in seconds."""
    error_after: int | None = None
    """Tell the error (of `status`, or 500) after so many chunks of a stream, whose HTTP status is 200, and end it. A
    reply that is not streamed is that error, with HTTP status 200. Billed as far as it was generated."""
    drop_after: int | None = None
    """Cut the connection after so many chunks of a stream, without an end; 0 for before any byte of the body.
    A reply that is not streamed is cut before its body, whatever the number. None for never."""
    drop_bytes: int | None = None
    """Cut the connection after so many bytes of the body, streamed or not. None for never."""

    # How it is sent.
    delay_s: float = 0
    """Real seconds to wait before answering. `LocalProvider.pause` is the better way to make a call hang."""
    chunks: int = 4
    """Into how many pieces a stream cuts the text, at most. Every tool call is one more chunk."""
    gate_chunks: bool = False
    """Send each chunk of a stream only when `LocalProvider.release_chunk` lets it go."""
    encoding: Literal["gzip", "deflate"] | None = None
    """How the body is compressed, whether the client accepts it or not."""
    chunk_bytes: int | None = None
    """Send the body in pieces of so many bytes, wherever that cuts events, lines, characters. None for whole ones."""
    newline: Literal["\n", "\r\n", "\r"] | None = None
    """How lines of server-sent events end; None for as the real provider ends them."""
    comment: str | None = None
    """A comment line before each chunk of a stream, as some providers send to keep the connection open."""

    def __post_init__(self) -> None:
        given = [name for name in _OPTIONAL_COUNTS if getattr(self, name) is not None]
        for name in (*_COUNTS, *given, "delay_s", "retry_after_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} is negative")
        for name in ("chunks", "chunk_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value!r}: a reply has at least one chunk, and a chunk one byte")
        if self.status not in (200, 307, 308) and not 400 <= self.status < 600:
            raise ValueError(f"status={self.status!r} is neither 200 nor an error (400 to 599) nor 307 or 308")
        if isinstance(self.usage, str) and self.usage not in _USAGE_MODES:
            raise ValueError(f"usage={self.usage!r} is none of {_USAGE_MODES}; raw usage is JSON but no string")
        if self.output_tokens is not None and self.output_tokens < self.known_output_tokens:
            raise ValueError(f"output_tokens={self.output_tokens!r} has to include reasoning_tokens, audio and images")
        if self.input_tokens is not None and self.input_tokens < self.known_input_tokens:
            raise ValueError(f"input_tokens={self.input_tokens!r} has to include what is cached, audio and images")
        if self.cached_tokens < self.cached_audio_tokens:
            raise ValueError(f"cached_tokens={self.cached_tokens!r} has to include cached_audio_tokens")
        if self.bill is not None and not callable(self.bill):
            to_nano(self.bill)

    @property
    def total_cached_tokens(self) -> int:
        """Input tokens that are read from a cache or written to one."""
        return self.cached_tokens + self.cache_write_tokens + self.cache_write_1h_tokens

    @property
    def known_input_tokens(self) -> int:
        """Input tokens whose kind is given: cached, sound, pictures."""
        return self.total_cached_tokens + self.input_audio_tokens + self.input_image_tokens

    @property
    def known_output_tokens(self) -> int:
        """Output tokens whose kind is given: reasoning, sound, pictures."""
        return self.reasoning_tokens + self.output_audio_tokens + self.output_image_tokens

    @property
    def refuses(self) -> bool:
        """Whether the HTTP status is that of an error or a redirect."""
        return self.status != 200 and self.error_after is None

    @property
    def works(self) -> bool:
        """Whether the model does any work, so that there is an answer to bill."""
        return not self.refuses if self.generated is None else self.generated

    def bill_nano(self, body: Mapping[str, Any]) -> int | None:
        """The bill that was told, in nano-dollars; None if none was.

        Raises:
            ValueError: If it is no amount of dollars.
        """
        bill = self.bill(body) if callable(self.bill) else self.bill
        return None if bill is None else to_nano(bill)


def to_nano(dollars: Price) -> int:
    """*dollars* in nano-dollars, rounded up.

    Raises:
        ValueError: If they are negative or no number.
    """
    try:
        exact = Fraction(str(dollars))
    except ValueError:
        exact = Fraction(-1)
    if exact < 0:
        raise ValueError(f'bill={dollars!r} is no amount of dollars: use "0.01", 10 or 0')
    return math.ceil(exact * _NANO_PER_DOLLAR)
