"""Whose money it is."""

from __future__ import annotations

from typing import NamedTuple


class Scope(NamedTuple):
    """One holder of a ceiling: a run, a user, a key, a team."""

    kind: str
    """``run``, ``user``, ``key`` or ``team``; a `BudgetAuthority` has kinds of its own for what it keeps track of."""
    id: str
    """Any text; unique within its kind."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"
