"""The tool calls in a conversation that are over, with their results, in the words of any dialect.

A request carries the whole conversation: what the model called, and what came of it. Both stand in it under one id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from budget_guard.calls.loops import FinishedCall
from budget_guard.wire.values import Json, fields, fingerprint, items, text

_MOST_READ = 200
"""Entries of a conversation that are looked through, from its end: a loop is found in fewer."""


class _Part(NamedTuple):
    id: str
    """What a call and its result have in common: an id, or the tool's name where there are no ids."""
    tool: str | None = None
    """None of a result."""
    value: object = None
    """The arguments, or the result."""


def finished_calls(body: Json) -> list[FinishedCall]:
    """The tool calls in a request's conversation that have a result, oldest first."""
    called: dict[str, list[_Part]] = {}
    finished: list[FinishedCall] = []
    for part in _parts(body):
        if part.tool is not None:
            called.setdefault(part.id, []).append(part)
        elif waiting := called.get(part.id):
            call = waiting.pop(0)
            finished.append(FinishedCall(call.tool or "", call.value, part.value))
    return finished


def beginning(body: Json) -> str:
    """What the conversation of a request is known by from its first entry on, while it grows."""
    first = next((entries[0] for entries in map(_entries, (body,)) if entries), None)
    system = body.get("system") or body.get("instructions") or body.get("systemInstruction")
    return fingerprint([system, first])


def _entries(body: Json) -> list[Any]:
    """The messages of Chat Completions, Messages, Converse and Cohere, the input of Responses, or Google's contents."""
    for name in ("messages", "input", "contents"):
        found = items(body.get(name))
        if found:
            return list(found)
    return []


def _parts(body: Json) -> Iterator[_Part]:
    for entry in _entries(body)[-_MOST_READ:]:
        given = fields(entry)
        if given.get("role") == "tool":  # Chat Completions, Cohere
            yield _Part(str(given.get("tool_call_id")), value=given.get("content"))
            continue
        for call in items(given.get("tool_calls")):
            function = fields(fields(call).get("function"))
            if name := text(function.get("name")):
                yield _Part(str(fields(call).get("id")), name, function.get("arguments"))
        yield from _of(given)
        for part in (*items(given.get("content")), *items(given.get("parts"))):
            yield from _of(fields(part))


def _of(part: Json) -> Iterator[_Part]:
    """The call or the result that *part* of a conversation is."""
    kind = part.get("type")
    if kind == "function_call" and (name := text(part.get("name"))):  # Responses
        yield _Part(str(part.get("call_id")), name, part.get("arguments"))
    elif kind == "function_call_output":
        yield _Part(str(part.get("call_id")), value=part.get("output"))
    elif kind == "tool_use" and (name := text(part.get("name"))):  # Messages
        yield _Part(str(part.get("id")), name, part.get("input"))
    elif kind == "tool_result":
        yield _Part(str(part.get("tool_use_id")), value=part.get("content"))
    else:
        yield from _without_type(part)


def _without_type(part: Json) -> Iterator[_Part]:
    for name in ("toolUse", "functionCall", "function_call"):  # Converse, Google
        call = fields(part.get(name))
        if tool := text(call.get("name")):
            arguments = call.get("input") if name == "toolUse" else call.get("args")
            yield _Part(str(call.get("toolUseId") or call.get("id") or tool), tool, arguments)
    result = fields(part.get("toolResult"))
    if result:
        yield _Part(str(result.get("toolUseId")), value=result.get("content"))
    for name in ("functionResponse", "function_response"):
        result = fields(part.get(name))
        if tool := text(result.get("name")):
            yield _Part(str(result.get("id") or tool), value=result.get("response"))
