"""What LiteLLM answers, as the bytes that its own clients would read, and whether it made up the usage in them.

LiteLLM counts tokens itself where a provider tells none: a stream ends with its own count, and an answer that is no
stream has zeros. Neither is a bill.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import litellm

from budget_guard.wire.values import fields, items

CACHED = "LiteLLM answered out of its cache"
"""Why nothing is booked then."""
_INNER = ("completion_stream", "litellm_custom_stream_wrapper", "stream", "response")
"""Attributes in which one stream of LiteLLM holds the stream that it is made of."""
_DEEPEST = 6
_TOTALS = ("prompt_tokens", "completion_tokens")


def answer_bytes(answer: object, *, told: bool = True) -> bytes:
    """An answer that is no stream, in JSON.

    Args:
        answer: What LiteLLM returns.
        told: Whether the usage in it is the provider's.
    """
    if told and (dump := getattr(answer, "model_dump_json", None)) is not None:
        return cast("Callable[[], str]", dump)().encode("utf-8", "surrogatepass")
    value = plain(answer)
    if not told:
        value = {**value, "usage": None}
    return json.dumps(value, default=str).encode("utf-8", "surrogatepass")


def whole_answer(answer: object) -> object:
    """An answer itself, where LiteLLM gives the last event of its stream for it."""
    inner = getattr(answer, "response", None)
    kind = getattr(answer, "type", "")
    return answer if inner is None or not str(getattr(kind, "value", kind)).startswith("response.") else inner


def plain(value: object) -> dict[str, Any]:
    """The fields of an answer, or of a piece of one."""
    dump = getattr(value, "model_dump", None)
    return dict(fields(cast("Callable[[], object]", dump)() if callable(dump) else value))


def from_cache(answer: object) -> bool:
    """Whether LiteLLM answered out of its own cache, so that no provider was asked."""
    given: Any = answer
    hidden: Any = fields(given).get("_hidden_params") or getattr(given, "_hidden_params", None)
    found: object = fields(hidden).get("cache_hit") or getattr(hidden, "cache_hit", None)
    return found is True or getattr(given, "custom_llm_provider", None) == "cached_response"


def is_cache_hit(data: Mapping[str, Any]) -> bool:
    """Whether LiteLLM notes in the *data* of a request that its cache has answered it: not all answers tell."""
    return fields(getattr(data.get("litellm_logging_obj"), "caching_details", None)).get("cache_hit") is True


def is_made_up(answer: object) -> bool:
    """Whether the usage of an answer of Responses that was streamed is LiteLLM's own count.

    Such a count has the totals alone. OpenAI, Azure and xAI tell what was cached, and what was reasoning.
    """
    usage = fields(plain(answer).get("usage"))
    return "input_tokens" in usage and not any(usage.get(name) for name in _DETAILS)


_DETAILS = ("input_tokens_details", "output_tokens_details", "cache_read_input_tokens", "cache_creation_input_tokens")


class StreamedPieces:
    """The pieces of one streamed answer, as events.

    Args:
        stream: What LiteLLM returns.
        told: Whether the usage in it is the provider's, if it is nobody else's: False where the provider is known to
            tell none.
    """

    def __init__(self, stream: object, *, told: bool = True) -> None:
        self._stream = stream
        self._told = told
        self._usage = False

    def event(self, piece: object) -> bytes:
        """*piece* as the bytes of its event."""
        if isinstance(piece, bytes):
            return piece
        if isinstance(piece, str):
            return piece.encode("utf-8", "surrogatepass")
        if getattr(piece, "usage", None) is not None:
            self._usage = self.is_told
            if not self._usage:
                return _event({**plain(piece), "usage": None})
        last = whole_answer(piece)
        if last is not piece and not self._is_told_in(last):
            return _event({**plain(piece), "response": {**plain(last), "usage": None}})
        dump = getattr(piece, "model_dump_json", None)
        if dump is not None:
            text: str = dump(exclude_none=True)
        else:
            text = json.dumps(plain(piece), default=str)
        return b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"

    @property
    def is_told(self) -> bool:
        """Whether the provider told what it used, as far as LiteLLM's own record of the stream says."""
        if not self._told:
            return False
        kept = kept_pieces(self._stream)
        return kept is None or _is_told(kept)

    def _is_told_in(self, last: object) -> bool:
        """Whether the provider told the usage in the *last* event's answer."""
        if kept_pieces(self._stream) is None:  # it is the provider's own event, not made of other pieces
            return self._told and not is_made_up(last)
        return self.is_told

    def end(self) -> bytes:
        """What is still to be read at its end: the usage that LiteLLM kept back, because nobody asked for it."""
        kept = kept_pieces(self._stream)
        if self._usage or not self._told or not kept or not _is_told(kept):
            return b""
        usage: object = None
        build: Any = getattr(litellm, "stream_chunk_builder")  # noqa: B009  # it has few types
        with suppress(Exception):  # it then stays unknown
            usage = getattr(build(chunks=list(kept)), "usage", None)
        if usage is None:
            return b""
        return _event({"choices": [], "usage": plain(usage)})


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, default=str).encode() + b"\n\n"


def kept_pieces(stream: object) -> Sequence[object] | None:
    """The pieces as the provider sent them, as far as LiteLLM keeps them; None where it keeps none."""
    found: object = stream
    for _ in range(_DEEPEST):
        kept = getattr(found, "chunks", None)
        if isinstance(kept, list):
            return cast("list[object]", kept)
        inner = next((each for name in _INNER if (each := getattr(found, name, None)) is not None), None)
        if inner is None:
            return None
        found = inner
    return None


def _is_told(kept: Sequence[object]) -> bool:
    """Whether a provider's own usage is among the pieces that it sent."""
    seen = dict.fromkeys(_TOTALS, False)
    for piece in reversed(kept):
        usage = getattr(piece, "usage", None)
        if usage is None:
            continue
        for name in _TOTALS:
            count = getattr(usage, name, None)
            seen[name] = seen[name] or (isinstance(count, int) and count > 0)
        if all(seen.values()):
            return True
    return False


def is_usage_alone(piece: object) -> bool:
    """Whether *piece* of a chat stream tells the usage, and nothing else."""
    if getattr(piece, "usage", None) is None:
        return False
    for choice in items(plain(piece).get("choices")):
        given = fields(choice)
        if given.get("finish_reason") or any(fields(given.get("delta")).get(name) for name in _SAID):
            return False
    return True


_SAID = ("content", "tool_calls", "function_call", "refusal", "reasoning_content", "annotations", "audio")
