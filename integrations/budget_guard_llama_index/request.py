"""What a call of a LlamaIndex LLM asks for, and what its answer used, in the core's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM

from budget_guard import ModelCall, Usage, weigh
from budget_guard.adapter import OUTPUT_CAPS, Answered, medium
from budget_guard.wire import Counts, read_counts
from budget_guard.wire.values import fields

CAPS = ("max_tokens", "max_output_tokens")
"""The fields of LLMs that hold their output cap."""
_TEXT_BLOCKS = frozenset({"text", "thinking", "tool_call", "cache", "citable", "citation"})


def model_call(
    llm: LLM, asked: str | Sequence[ChatMessage], kwargs: Mapping[str, Any], *, agent: str | None, looked_at: bool
) -> ModelCall:
    """The call that asking *llm* is.

    Args:
        llm: The LLM.
        asked: A prompt or messages.
        kwargs: The arguments besides.
        agent: Whom to attribute it to.
        looked_at: Whether what is really sent is held below, so that only the text has to be weighed here.
    """
    opaque: list[str] = []
    messages = (
        [{"role": "user", "content": asked}]
        if isinstance(asked, str)
        else [_message(message, opaque) for message in asked]
    )
    tools: Sequence[Any] = kwargs.get("tools") or ()
    schema = kwargs.get("response_format")
    prompt = weigh(
        system=getattr(llm, "system_prompt", None),
        messages=messages,
        tools=[tool if isinstance(tool, Mapping) else str(tool) for tool in tools],
        schema=None if schema is None else str(schema) if isinstance(schema, type) else schema,
        opaque=() if looked_at else tuple(dict.fromkeys(opaque)),
    )
    return ModelCall(
        name_of(llm),
        prompt,
        max_output_tokens=cap_of(llm, kwargs),
        can_cap=cap_field(llm) is not None,
        needs=prompt.needs(tools=bool(tools), schema=schema is not None),
        agent=agent,
    )


def name_of(llm: LLM) -> str:
    """The name of the model that *llm* calls."""
    return str(getattr(llm, "model", None) or llm.metadata.model_name)


def cap_field(llm: LLM) -> str | None:
    """The field of *llm* that holds its output cap; None where it has none."""
    return next((name for name in CAPS if name in type(llm).model_fields), None)


def cap_of(llm: LLM, kwargs: Mapping[str, Any]) -> int | None:
    """The output cap that is set, the largest where there are several."""
    more = fields(getattr(llm, "additional_kwargs", None))
    found = [given.get(name) for given in (kwargs, more) for name in OUTPUT_CAPS]
    found += [getattr(llm, name, None) for name in CAPS]
    return max((cap for cap in found if isinstance(cap, int) and cap > 0), default=None)


def _message(message: ChatMessage, opaque: list[str]) -> dict[str, Any]:
    """*message* as texts. What in it is more is added to *opaque*."""
    parts: list[str] = []
    for block in message.blocks:
        kind = block.block_type
        if kind in _TEXT_BLOCKS:
            parts.append(block.model_dump_json(exclude_none=True))
        else:
            opaque.append(medium(kind))
    return {
        "role": str(message.role),
        "content": parts,
        "more": json.dumps(message.additional_kwargs, default=str) if message.additional_kwargs else "",
    }


def answered(answer: Any) -> Answered:
    """What an *answer* says, whole or the last piece of a stream; where there is none, nothing."""
    message = getattr(answer, "message", None)
    said = message.content if message is not None else getattr(answer, "text", None)
    return Answered(usage_of(answer), text=said or None)


def usage_of(answer: Any) -> Usage | None:
    """What an answer used, in the words of any provider; None where it does not say, or makes no sense.

    Args:
        answer: A response, whole or a piece of a stream.
    """
    raw = getattr(answer, "raw", None)
    said = _plain(_field(raw, "usage") or _field(raw, "usage_metadata"))
    if not said:
        return None
    given = fields(said.get("prompt_tokens_details") or said.get("input_tokens_details"))
    made = fields(said.get("completion_tokens_details") or said.get("output_tokens_details"))
    beside = "cache_read_input_tokens" in said or "cache_creation_input_tokens" in said  # Anthropic's words
    counts = Counts(
        _first(said, "prompt_tokens", "input_tokens", "prompt_token_count"),
        _first(said, "completion_tokens", "output_tokens", "candidates_token_count"),
        _first(said, "total_tokens", "total_token_count"),
        cache_read=_first(said, "cache_read_input_tokens", "cached_content_token_count") or given.get("cached_tokens"),
        cache_write=said.get("cache_creation_input_tokens"),
        reasoning=made.get("reasoning_tokens") or said.get("thoughts_token_count"),
    )
    return read_counts(counts, input_parts="beside" if beside else "unsure").usage


def _first(said: Mapping[str, Any], *names: str) -> Any:
    return next((said[name] for name in names if said.get(name) is not None), None)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _plain(value: Any) -> Mapping[str, Any]:
    dump = getattr(value, "model_dump", None)
    return fields(dump() if dump is not None else value)
