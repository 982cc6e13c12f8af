"""The spend in the last row of the terminal, below whatever a program prints.

The program has the terminal to itself, so that nothing can be put between its lines. What it prints scrolls in the rows
above: the terminal is told to scroll those alone. Where a program draws a screen of its own, it sets the terminal to
another mode, and the row gives way.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from types import ModuleType

from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.live import Piece, SpendLine

termios: ModuleType | None
try:
    import termios
except ImportError:  # on Windows
    termios = None

_COLORS = {"dim": "90", "switch": "35", "ok": "32", "warn": "33", "stop": "1;31"}
_LEAST_S = 0.15
"""The least time between two pictures."""
_AGAIN_S = 1.0
"""Seconds after which it is drawn again, as a program may have cleared the screen."""
_FEWEST_ROWS = 5


class StatusRow:
    """Draws a line of spend for the ``with`` block, where standard error is a terminal, once a model is called.

    Args:
        line: The line.
        shown: Whether to draw it at all.
    """

    def __init__(self, line: SpendLine, *, shown: bool) -> None:
        self._line = line
        self._file = sys.stderr.fileno() if shown and _is_terminal() else None
        self._rows = 0  # of the terminal while the last one is ours, else 0
        self._changed = threading.Condition()
        self._is_changed = False
        self._has_begun = False
        self._ended = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._draw_again, name="budget-guard-row", daemon=True)
        self._colors = "NO_COLOR" not in os.environ

    def __enter__(self) -> StatusRow:
        if self._file is not None:
            self._line.changed = self._note
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.unsubscribe()
        if self._file is None:
            return
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()
        self.clear()

    def draw(self) -> None:
        """Draw it now, if there is something to show."""
        if self._has_begun:
            with self._lock, suppress(OSError, ValueError):
                self._draw()

    def clear(self) -> None:
        """Take it away, until it is drawn again."""
        with self._lock, suppress(OSError, ValueError):
            self._clear()

    def _note(self) -> None:
        with self._changed:
            self._is_changed = self._has_begun = True
            self._changed.notify()

    def _draw_again(self) -> None:
        while True:
            with self._changed:
                SYSTEM_CLOCK.wait(self._changed, lambda: self._is_changed or self._ended, _AGAIN_S)
                self._is_changed = False
                if self._ended:
                    return
            self.draw()
            with self._changed:
                SYSTEM_CLOCK.wait(self._changed, lambda: self._ended, _LEAST_S)

    def _draw(self) -> None:
        if self._file is None:
            return
        if not self._is_ours():
            self._clear()
            return
        columns, rows = os.get_terminal_size(self._file)
        if rows < _FEWEST_ROWS:
            self._clear()
            return
        if rows != self._rows:
            self._clear()
            # One row down and up again, so that there is a last row; then those above scroll alone.
            self._write(f"\033D\0337\033[1;{rows - 1}r\0338\033[1A")
            self._rows = rows
        (pieces,) = self._line.lines(columns - 1)
        text = "".join(map(self._colored, pieces))
        self._write(f"\0337\033[{rows};1H\033[2K{text}\0338")

    def _clear(self) -> None:
        if self._rows:
            self._write(f"\0337\033[r\033[{self._rows};1H\033[2K\0338")
            self._rows = 0

    def _colored(self, piece: Piece) -> str:
        color = _COLORS.get(piece.style) if self._colors else None
        return piece.text if color is None else f"\033[{color}m{piece.text}\033[0m"

    def _is_ours(self) -> bool:
        """Whether the terminal is in the mode of programs that print lines, with this one in its foreground."""
        if self._file is None or termios is None or os.tcgetpgrp(self._file) != os.getpgrp():
            return False
        flags: int = termios.tcgetattr(self._file)[3]
        return bool(flags & termios.ICANON and flags & termios.ECHO)

    def _write(self, text: str) -> None:
        if self._file is not None:
            os.write(self._file, text.encode(sys.stderr.encoding or "utf-8", "replace"))


def _is_terminal() -> bool:
    return (
        termios is not None
        and sys.stderr is not None
        and sys.stderr.isatty()
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
    )
