"""LangChain's line "Error in ... callback", which is not for stops that are meant."""

from __future__ import annotations

import logging

from budget_guard.adapter.stops import STOP_NAMES

_STOPS = tuple(f"{name}(" for name in (*STOP_NAMES, "BudgetDowngrade", "GraphInterrupt"))
"""How the stops begin where they are logged; the last is how a graph is paused for a human."""


class _Meant(logging.Filter):
    """Drops what LangChain logs where a handler of ours stops a call. The caller is raised the stop itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.msg, str) or not record.msg.startswith("Error in ") or not record.args:
            return True
        error = record.args[-1] if isinstance(record.args, tuple) else ""
        return not str(error).startswith(_STOPS)


_meant = _Meant()


def quieten() -> None:
    """Leave the line out for our stops, once."""
    logging.getLogger("langchain_core.callbacks.manager").addFilter(_meant)  # which adds it only once
