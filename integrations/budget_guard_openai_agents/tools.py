"""Holds of tool calls, from ``on_tool_start`` to ``on_tool_end``."""

from __future__ import annotations

from typing import Any

from budget_guard import Reservation


class ToolHolds:
    """The tool calls that one guard holds in one run."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], list[Reservation]] = {}

    def has(self, context: Any, tool: str) -> bool:
        """Whether this very tool call is held: the same guard may be among the hooks twice."""
        return hasattr(context, "tool_call_id") and _key(context, tool) in self._open

    def start(self, context: Any, tool: str, hold: Reservation) -> None:
        """Remember the hold of a tool call until the tool ends."""
        self._open.setdefault(_key(context, tool), []).append(hold)

    def end(self, context: Any, tool: str) -> Reservation | None:
        """The hold of the tool call that ended; None if there is none."""
        holds = self._open.get(_key(context, tool), [])
        hold = holds.pop() if holds else None
        if not holds:
            self._open.pop(_key(context, tool), None)
        return hold

    def settle(self) -> None:
        """Book the tools whose end nobody heard of: they were cancelled, or they raised."""
        for holds in self._open.values():
            for hold in holds:
                hold.commit_cost()
        self._open.clear()


def _key(context: Any, tool: str) -> tuple[int, str]:
    # its id where there is one, else the context that both hooks are given
    return hash(getattr(context, "tool_call_id", None) or id(context)), tool
