"""Fields that stand twice in one JSON object: which of them counts is each server's own business.

Ours take the last one, as most do. Who sends two, a small one last, would be held for that one, and billed for the
other by a server that takes the first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from budget_guard.wire.values import Json, fields

_PRICED = {
    name: b'"%b"' % name.encode()
    for name in (
        "model messages input prompt contents system instructions tools functions n best_of max_tokens "
        "max_completion_tokens max_output_tokens service_tier serviceTier speed stream models fallbacks background "
        "generationConfig generation_config maxOutputTokens candidateCount inferenceConfig maxTokens "
        "additionalModelRequestFields web_search_options plugins thinking"
    ).split()
}
"""Fields that set what a call costs, and how their names are written."""
_CONFIGS = frozenset(("generationConfig", "generation_config", "inferenceConfig", "additionalModelRequestFields"))
"""Fields that hold more of them."""
_LETTER_ESCAPED = re.compile(rb"\\u00(?:3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])")
"""A letter, digit or underscore that is written as an escape, as no library does it: a name may hide in it."""


class _Twice(Exception):
    pass


def repeated_field(raw: bytes, body: Json) -> str | None:
    """The name of a field that is there with two values; None where none of those is that set the price.

    Args:
        raw: The body as it is sent.
        body: The same, read.
    """
    if _may_be_there_twice(raw, body) or (raw.rfind(b"\\u00") >= 0 and _LETTER_ESCAPED.search(raw) is not None):
        return _looked_for(raw)
    for config in _CONFIGS.intersection(body):
        if _may_be_there_twice(raw, fields(body[config])):
            return _looked_for(raw)
    return None


def _may_be_there_twice(raw: bytes, given: Json) -> bool:
    """True where the name of a field that is *given*, and sets the price, is anywhere in the body twice.

    Every request is looked through: from its end, which takes a third of the time.
    """
    for name in given:
        quoted = _PRICED.get(name)
        if quoted is not None and raw.rfind(quoted, 0, raw.rfind(quoted)) >= 0:
            return True
    return False


def _looked_for(raw: bytes) -> str | None:
    """As `repeated_field`, of any field, in ten times the time."""
    try:
        json.loads(raw, object_pairs_hook=_once)
    except _Twice as twice:
        return str(twice)
    except (ValueError, RecursionError):  # nothing that counts here, for it was read
        return None
    return None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if found[name] != value:
                raise _Twice(name if name in _PRICED else "a field")
    return found
