"""Which version of Claude a name means."""

from __future__ import annotations

import re

_VERSION = re.compile(r"claude-(?:[a-z]+-)?v?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
"""The version stands before or after the family: claude-3-5-sonnet, claude-sonnet-4-5. A day has more digits."""


def claude_version(model: str) -> tuple[int, int] | None:
    """The version in the name of a Claude model, as ``(4, 5)``; None where there is none."""
    found = _VERSION.search(model.lower())
    return None if found is None else (int(found[1]), int(found[2] or 0))
