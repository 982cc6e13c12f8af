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
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from budget_guard.events import CallAdmitted, Event, ModelDowngraded
from budget_guard.money import cost_nano, format_usd
from budget_guard.session import Session, SessionHandle

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["spend_line"]

_log = logging.getLogger("budget_guard")
_BAR_WIDTH = 24


@contextmanager
def spend_line(guard: SessionHandle | Session) -> Generator[None, None, None]:
    """Show the spend of *guard* for the ``with`` block, then clear the line. Never raises into the block.

    Args:
        guard: A guard, a handler or a session.
    """
    session = guard if isinstance(guard, Session) else guard.session
    line = _SpendLine(session)
    unsubscribe = session.subscribe(line.on_event)
    live = _start(line)
    try:
        yield
    finally:
        unsubscribe()
        if live is not None:
            try:
                live.stop()
            except Exception:
                _log.debug("the line of spend could not be ended", exc_info=True)


def _start(line: _SpendLine) -> Live | None:
    try:
        if not (sys.stdout.isatty() and sys.stderr.isatty()):
            return None
        from rich.live import Live

        if _console().is_dumb_terminal:
            return None
        live = Live(console=_console(), get_renderable=line.render, transient=True, refresh_per_second=8)
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
        self._name = ""
        self._model = ""

    def on_event(self, event: Event) -> None:
        if isinstance(event, CallAdmitted):
            self._name = event.name
        elif isinstance(event, ModelDowngraded):
            self._model = event.target

    def render(self) -> Text:
        from rich.text import Text

        try:
            return self._text()
        except Exception:  # drawn in rich's thread: an error here would be printed over the run's own output
            _log.debug("the line of spend could not be drawn", exc_info=True)
            return Text("")

    def _text(self) -> Text:
        from rich.text import Text

        budget, report = self._session.budget, self._session.report()
        llm = report.breakdown.llm
        if self._name in llm.by_model or not self._model:
            self._model = self._name  # events name models and tools alike; only models have an entry here
        line = Text(_usd(report.total_spent), style="bold", no_wrap=True, overflow="ellipsis")
        if budget.max_cost_usd is not None:
            share = float(report.total_spent / budget.max_cost_usd)
            style = "red" if share >= 1 else "yellow" if share >= (budget.soft_limit or 1) else "green"
            filled = min(_BAR_WIDTH, int(share * _BAR_WIDTH))
            line.append(f" of {_usd(budget.max_cost_usd)} ", style="default")
            line.append("━" * filled, style=style).append("━" * (_BAR_WIDTH - filled), style="bright_black")
            line.append(f" {share:.0%}", style=style)
        calls = f"{llm.calls}" if budget.max_requests is None else f"{llm.calls} of {budget.max_requests}"
        parts = [f"held {_usd(report.reserved)}", f"{calls} calls", self._model]
        return line.append("  " + " · ".join(filter(None, parts)), style="default")


def _usd(amount: Decimal) -> str:
    return format_usd(cost_nano(amount))
