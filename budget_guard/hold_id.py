"""Ids of holds: idempotency keys that sort by the time at which they were made.

Twelve hexadecimal digits of milliseconds since 1970, a hyphen, and whatever makes the id unique. So a ledger that has
forgotten a hold can still tell that its id is an old one.
"""

from __future__ import annotations

import re

_ID = re.compile(r"([0-9a-f]{12})-.", re.DOTALL)
MOST_LENGTH = 200
"""The longest id that a ledger takes, in characters."""
TOLERANCE_MS = 300_000
"""How far the clock that makes an id may be from that of a shared ledger, and how old an id is always taken for a new
one, in milliseconds."""


def hold_id(made_ms: int, unique: str) -> str:
    """The id of a hold made *made_ms* milliseconds after 1970 began."""
    return f"{made_ms.to_bytes(6, 'big').hex()}-{unique}"  # twice as fast as a format with zeros in front


def made_ms(hold_id: str) -> int:
    """When the hold was made, in milliseconds since 1970.

    Raises:
        ValueError: If *hold_id* is none of `hold_id`, or longer than `MOST_LENGTH`.
    """
    match = _ID.match(hold_id)
    if match is None or len(hold_id) > MOST_LENGTH:
        raise ValueError(
            f"hold_id={hold_id[:40]!r} must be 12 hex digits of milliseconds, '-', and at most "
            f"{MOST_LENGTH - 13} characters more: make it with budget_guard.hold_id.hold_id(...)"
        )
    return int(match[1], 16)
