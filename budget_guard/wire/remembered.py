"""Requests of plain conversations, read in a third of the time.

An agent sends the same settings and tools with every call; what changes is the conversation. So what a dialect reads of
a request without its messages is remembered by all the rest of the request, and messages that are texts alone are
weighed onto it. Every other request is read by its dialect alone, and both ways read the same: a test compares them.
"""

from __future__ import annotations

import marshal
from typing import Any

from budget_guard.estimate.prompt import Look, with_messages
from budget_guard.wire.dialect import Aliases, Dialect
from budget_guard.wire.hosts import Endpoint
from budget_guard.wire.request import Request
from budget_guard.wire.values import Json

_MOST = 1_000
"""Requests that are remembered."""
_remembered: dict[tuple[object, ...], tuple[Request, Look] | None] = {}


def read_request(dialect: Dialect, where: Endpoint, body: Json, aliases: Aliases) -> Request:
    """What a request asks for, as its *dialect* reads it."""
    plain = dialect.plain
    if plain is None:
        return dialect.read_request(where, body, aliases)
    messages: Any = body.get(plain.field)
    if messages.__class__ is str and plain.takes_text:
        messages = [{"role": "user", "content": messages}]
    elif messages.__class__ is not list:
        return dialect.read_request(where, body, aliases)
    rest = dict(body)
    del rest[plain.field]
    try:  # 2 writes equal values equally; a hash of bytes is as good as they are, and takes no room
        key = (dialect.name, where, hash(marshal.dumps(rest, 2)), *aliases.items())
    except ValueError:  # it holds something that is not plain
        return dialect.read_request(where, body, aliases)
    found = _remembered.get(key, ...)
    if found is ...:
        request = dialect.read_request(where, {**rest, plain.field: []}, aliases)
        # what stands before the messages may be messages as well
        found = None if request.prompt.parts else (request, plain.look_of(where, request.model))
        if len(_remembered) >= _MOST:
            _remembered.clear()
        _remembered[key] = found
    if found is None:
        return dialect.read_request(where, body, aliases)
    request, look = found
    prompt, looked_into = with_messages(request.prompt, messages, look, plain.flat_kinds)
    if looked_into and not all(map(plain.holds, looked_into)):
        return dialect.read_request(where, body, aliases)
    return request.with_prompt(prompt)
