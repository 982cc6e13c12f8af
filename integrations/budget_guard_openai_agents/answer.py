"""What the SDK says of an answer, as the wire reads answers, where the raw answer itself was not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from agents import ModelResponse, OpenAIResponsesModel
from agents import Usage as AgentsUsage
from agents.models.interface import Model
from openai.types.responses import ResponseUsage

from budget_guard.wire import CHAT_COMPLETIONS, RESPONSES, Answer, Counts, Request
from budget_guard.wire.counting import read_openai_counts, with_events
from budget_guard.wire.openai_responses import billed_events
from budget_guard.wire.values import Json, fields

_RAW_USAGE = "_agents_sdk_raw_usage"
"""Where the SDK keeps a streamed answer's usage as the provider sent it, if ``preserve_raw_usage`` asks for that."""


def answer_of(response: ModelResponse, request: Request) -> Answer:
    """What a whole answer says was used."""
    return _read(response.usage, getattr(response, "raw_usage", None), response.output, request)


def answer_of_stream(response: Any, model: Model, request: Request) -> Answer:
    """What the last event of a stream says was used.

    Args:
        response: The event's response. A model of one's own may have put anything into it.
        model: The model. Only where it speaks Responses did the provider itself write the response.
        request: What was asked for.
    """
    raw = getattr(response, _RAW_USAGE, None)
    answer = _read(getattr(response, "usage", None), raw, getattr(response, "output", None) or (), request)
    details = getattr(response, "incomplete_details", None)
    cut_off = getattr(details, "reason", None) == "max_output_tokens"
    if not isinstance(model, OpenAIResponsesModel):
        return answer._replace(cut_off=cut_off)
    seen: dict[str, Any] = {
        "model": response.model,
        "service_tier": response.service_tier,
        "usage": {},
        "id": response.id,
    }
    told = RESPONSES.read_answer(seen, request)
    return answer._replace(model=told.model, tier=told.tier, id=told.id, cut_off=cut_off)


def _read(usage: AgentsUsage | ResponseUsage | None, raw: object, output: Iterable[Any], request: Request) -> Answer:
    items = [_as_json(item) for item in output]
    if given := fields(raw):
        # Chat Completions and Responses have other names for the same counts
        if "prompt_tokens" in given or "completion_tokens" in given:
            choices = [{"message": {"content": "x"}}] if items else []
            answer = CHAT_COMPLETIONS.read_answer({"usage": given, "choices": choices}, request)
        else:
            answer = RESPONSES.read_answer({"usage": given, "output": items}, request)
        return answer
    usage_in = getattr(usage, "input_tokens_details", None)
    usage_out = getattr(usage, "output_tokens_details", None)
    counts = Counts(
        getattr(usage, "input_tokens", None),
        getattr(usage, "output_tokens", None),
        # the SDK shows zero where the provider gives no total
        getattr(usage, "total_tokens", None) or None,
        cache_read=getattr(usage_in, "cached_tokens", None) or None,
        cache_write=getattr(usage_in, "cache_write_tokens", None) or None,
        reasoning=getattr(usage_out, "reasoning_tokens", None) or None,
    )
    reading = read_openai_counts(counts, request, answered=bool(items))
    found = reading.usage
    if found is not None and items and (events := billed_events(items)):
        found = with_events(found, events)
    problem = None if reading.problem is None else f"the SDK's usage: {reading.problem}"
    return Answer("agents", found, problem, reasoning_ids=reasoning_ids_in(items))


def usage_of(answer: Answer) -> AgentsUsage:
    """What an answer on the wire used, as the SDK counts it."""
    used = answer.usage
    if used is None:
        return AgentsUsage(requests=1)
    read, written = used.input_tokens, used.output_tokens
    return AgentsUsage(requests=1, input_tokens=read, output_tokens=written, total_tokens=read + written)


def text_of(output: Sequence[Any]) -> str:
    """The text in the *output* of an answer."""
    parts = [part for item in output for part in getattr(item, "content", None) or () if _kind_of(item) == "message"]
    return "".join([str(getattr(part, "text", None) or "") for part in parts])


def text_only(output: Sequence[Any]) -> bool:
    """Whether the *output* of an answer is text, which can be kept where it was cut off, and calls no tool."""
    return all(_kind_of(item) in ("message", "reasoning") for item in output) and bool(text_of(output))


def _kind_of(item: Any) -> object:
    return getattr(item, "type", None) or fields(item).get("type")


_WITHOUT_BILL = frozenset({"message", "function_call", "custom_tool_call"})


def _as_json(item: Any) -> Json:
    """What of an output item may be billed by use."""
    kind = _kind_of(item)
    if kind in _WITHOUT_BILL:
        return {"type": kind}
    if isinstance(item, Mapping):
        return cast(Json, item)
    action = getattr(item, "action", None)
    return {
        "type": kind,
        "id": getattr(item, "id", None),
        "status": getattr(item, "status", None),
        "container_id": getattr(item, "container_id", None),
        "action": {"type": getattr(action, "type", None) or fields(action).get("type")},
    }


def reasoning_ids_in(output: Iterable[Json]) -> tuple[str, ...]:
    """The ids of the reasoning in an answer, which the provider keeps."""
    return tuple([str(item["id"]) for item in output if item.get("type") == "reasoning" and item.get("id")])
