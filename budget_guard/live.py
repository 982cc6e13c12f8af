"""One line of spend on the terminal while a long run goes on.

::

    with spend_line(guard):
        result = Runner.run_sync(agent, "...", hooks=guard)

It shows what is spent, the limit, what is held, how many calls were paid for and the model in use. It is drawn on
standard error, and only if that and standard output are a terminal and the extra ``live`` is installed.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING

from budget_guard.adapter.handle import SessionHandle
from budget_guard.events.model import CallAdmitted, CallCommitted, CallReleased, Event
from budget_guard.session.session import Session
from budget_guard.units.money import cost_nano, format_usd
from budget_guard.units.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["spend_line"]

_log = logging.getLogger("budget_guard")
_BAR = 24
"""The width of the bar."""


@contextmanager
def spend_line(guard: SessionHandle | Session) -> Generator[None, None, None]:
    """Show the spend of *guard* for the ``with`` block, then clear the line. Never raises into the block.

    Args:
        guard: A guard, a handler or a session.
    """
    line = _SpendLine(guard if isinstance(guard, Session) else guard.session)
    live = _start(line)
    try:
        yield
    finally:
        line.unsubscribe()
        if live is not None:
            with suppress(Exception):  # the terminal may be gone
                live.stop()


def _start(line: _SpendLine) -> Live | None:
    try:
        if not (sys.stdout.isatty() and sys.stderr.isatty()) or _console().is_dumb_terminal:
            return None
        from rich.live import Live

        live = Live(console=_console(), get_renderable=line.draw, transient=True)
        live.start(refresh=True)
    except Exception:  # rich is missing, or something else has the terminal
        _log.debug("no line of spend", exc_info=True)
        return None
    return live


@functools.cache
def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)  # one for all, so that rich knows of every line that is shown


class _SpendLine:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._calls = session.report().breakdown.llm.calls
        self._open: set[str] = set()
        self._model = ""
        self.unsubscribe = session.subscribe(self._note)

    def _note(self, event: Event) -> None:
        if isinstance(event, CallAdmitted) and event.kind == "model":
            self._open.add(event.decision_id)
            self._model = event.name
        elif isinstance(event, (CallCommitted, CallReleased)) and event.decision_id in self._open:
            self._open.discard(event.decision_id)  # an estimate may be followed by the actual: counted once
            self._calls += isinstance(event, CallCommitted)

    def draw(self) -> Text:
        from rich.text import Text

        budget, spent = self._session.budget, self._session.spent_usd
        line = Text(_usd(spent), no_wrap=True, overflow="ellipsis")
        if budget.max_cost_usd is not None:
            share = cost_nano(spent) / cost_nano(budget.max_cost_usd)
            style = "red" if share >= 1 else "yellow" if share >= (budget.soft_limit or 1) else "green"
            full, empty = ("━", "─") if _console().encoding.startswith("utf") else ("#", "-")
            filled = min(_BAR, int(share * _BAR))
            line.append(f" of {_usd(budget.max_cost_usd)} ").append(full * filled, style)
            line.append(empty * (_BAR - filled), "bright_black").append(f" {share:.0%}", style)
        most = "" if budget.max_requests is None else f" of {budget.max_requests}"
        line.append(f" | held {_usd(self._session.reserved_usd)} | calls {self._calls}{most}")
        return line.append(f" | {printable(self._model)}" if self._model else "")


def _usd(amount: Decimal) -> str:
    return format_usd(cost_nano(amount))
