"""What to say where an endpoint refuses a field that the guard put into a request."""

from __future__ import annotations

import json
from collections.abc import Sequence

_SETTING_OF = {"stream_options": "usage"}
"""What `add_fields=` calls a field; everything else that is added is an output cap."""


def explain_refusal(added: Sequence[str], status: object, body: object) -> str | None:
    """Who added the field that an endpoint complains of, and how to leave it out; None where it complains of no other.

    Args:
        added: The fields that were added, as `Rewritten.added` has them.
        status: The HTTP status of the refusal; None where it has none.
        body: Its body: JSON already read, or bytes or text. Nothing of it is repeated.
    """
    if status not in (400, 422) or not added:
        return None
    text = body.decode("utf-8", "replace") if isinstance(body, (bytes, bytearray)) else json.dumps(body, default=str)
    for field in added:
        outer, _, inner = field.partition(".")
        if outer in text or (inner and inner in text):
            setting = _SETTING_OF.get(outer, "output_cap")
            others = tuple(name for name in ("output_cap", "usage") if name != setting)
            return (
                f"budget_guard added {field!r} to this request, and the endpoint does not take it. "
                f"Leave it out with add_fields={others!r}."
            )
    return None
