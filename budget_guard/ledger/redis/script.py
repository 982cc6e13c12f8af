"""The Lua scripts: one for each verb, loaded by its name."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import NamedTuple

_SETTLING = ("adjust", "charge", "commit", "release")


class Script(NamedTuple):
    """A script, and what a server calls it once it has seen it."""

    text: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """The script of the verb *name*, with what it begins with."""
    parts = ("common", "settle", name) if name in _SETTLING else ("common", name)
    folder = resources.files("budget_guard.ledger.redis") / "lua"
    text = b"\n".join((folder / f"{part}.lua").read_bytes() for part in parts)
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())
