"""Spend on the screen while a long run goes on: a line for one guard, a board for many.

::

    with spend_line(guard):
        result = Runner.run_sync(agent, "...", hooks=guard)

    with spend_board([one, another]):
        ...

A line shows what is spent of the limit, with marks where the soft limit and the switch to a cheaper model are, the
calls that were paid for, tokens where they are limited, the rate, the time that is left at it, and the model in use. It
is drawn on standard error if that and standard output are a terminal, in a notebook below the cell, and else nowhere.
The extra ``live`` (rich) draws it in colour and keeps it below what a program prints; without it, it is a plain line.
"""

from __future__ import annotations

import builtins
import functools
import html
import logging
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from budget_guard.adapter.handle import SessionHandle
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.events.model import (
    CallAdmitted,
    CallBlocked,
    CallCommitted,
    CallReleased,
    Event,
    ModelDowngraded,
    UsageEvent,
)
from budget_guard.ledger.base import Balance
from budget_guard.session.session import Session
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.money import format_usd
from budget_guard.units.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

__all__ = ["spend_board", "spend_line"]

_log = logging.getLogger("budget_guard")
_BAR = 24
"""The width of the bar, where there is room."""
_NARROW_BAR = 8
_RATE_S = 60.0
"""The rate is that of so many latest seconds."""
_RATE_FROM_S = 5.0
"""No rate is known before."""
_REDRAW_S = 0.2
"""The least time between two pictures, where nothing else sets it."""
_MOST_ROWS = 30
_MOST_NAME = 24
_STYLES = {"dim": "bright_black", "switch": "magenta", "ok": "green", "warn": "yellow", "stop": "bold red", "": ""}
_COLORS = {"dim": "#8a8a84", "switch": "#8a5fd0", "ok": "#2e9b62", "warn": "#c98a1b", "stop": "#d8483e", "": "inherit"}


@contextmanager
def spend_line(guard: SessionHandle | Session, *, leave: bool = False) -> Generator[None, None, None]:
    """Show the spend of *guard* for the ``with`` block. Never raises into the block.

    Args:
        guard: A guard, a handler or a session.
        leave: Whether the line stays at the end, as it is then; else it is cleared.
    """
    line = SpendLine(_session_of(guard))
    with shown(line, leave=leave):
        yield


@contextmanager
def spend_board(
    guards: Iterable[SessionHandle | Session] | Mapping[str, SessionHandle | Session], *, leave: bool = False
) -> Generator[None, None, None]:
    """Show the spend of many guards for the ``with`` block, a line each, and their sum. Never raises into the block.

    Args:
        guards: Guards, handlers or sessions; or a mapping of names of yours to them. Without names, they are shown by
            whom they belong to, and by the run's id.
        leave: Whether the board stays at the end, as it is then; else it is cleared.
    """
    if isinstance(guards, Mapping):
        given = cast("Mapping[str, SessionHandle | Session]", guards)
        named = [(name, _session_of(guard)) for name, guard in given.items()]
    else:
        sessions = [_session_of(guard) for guard in guards]
        named = [(" ".join([*session.report().tags.values(), session.id]), session) for session in sessions]
    board = _SpendBoard([(name, SpendLine(session)) for name, session in named])
    with shown(board, leave=leave):
        yield


def _session_of(guard: SessionHandle | Session) -> Session:
    return guard if isinstance(guard, Session) else guard.session


# --- what is shown


class Piece(NamedTuple):
    """A piece of a line."""

    text: str
    style: str = ""
    """Its colour: ``dim``, ``switch``, ``ok``, ``warn``, ``stop``."""


class Part(NamedTuple):
    """Pieces that are shown together, or not at all."""

    pieces: tuple[Piece, ...]
    weight: int
    """Where there is little room, what weighs most is shown first."""
    short: tuple[Piece, ...] = ()
    """What to show in its place where there is no room for it."""


class Standing(NamedTuple):
    """How a run stands at one moment."""

    committed: Amounts
    reserved: Amounts
    limits: Limits
    soft_limit: float | None = None
    """The fraction of the limits at which there is a warning."""
    downgrade_at: float | None = None
    """The fraction at which a cheaper model takes over."""
    calls: int = 0
    per_minute: int | None = None
    """Nano-dollars in the last minute; None where no rate is known yet."""
    asked: str = ""
    """The model that was asked for, where another one is called."""
    model: str = ""
    stop: str = ""
    """What has refused the latest call."""

    @property
    def shown(self) -> int | None:
        """The index of the limit that has a bar: dollars, else tokens; None without either."""
        return next((i for i in (0, 3, 1, 2) if self.limits[i]), None)

    @property
    def share(self) -> float:
        """The part of that limit that is spent."""
        i = self.shown
        return 0.0 if i is None else self.committed[i] / (self.limits[i] or 1)

    @property
    def left_s(self) -> float | None:
        """Seconds until the dollars are spent at the rate of the last minute; None where that is not known."""
        if self.limits.cost is None or not self.per_minute:
            return None
        return max(0.0, (self.limits.cost - self.committed.cost) * 60 / self.per_minute)

    @property
    def style(self) -> str:
        """The colour of the bar."""
        if self.share >= 1 or self.stop:
            return "stop"
        return "warn" if self.share >= (self.soft_limit or 1) else "ok"


def parts_of(standing: Standing, bar: int, first: int = 0) -> list[Part]:
    """What a line says of *standing*, with a bar of so many columns, and what is spent in the *first* ones at least."""
    committed, limits, i = standing.committed, standing.limits, standing.shown
    parts: list[Part] = []
    parts.append(_part(_spent(standing).ljust(first), weight=9))
    if i is not None:
        parts.append(Part((Piece(" "), *_bar(standing, bar), Piece(f" {standing.share:.0%}", standing.style)), 8))
    if standing.stop:
        parts.append(_part(f"stopped: {printable(standing.stop)}", "stop", weight=7))
    held = standing.reserved[i or 0]
    parts.append(_part(f"held {_count(held) if i else format_usd(held)}", weight=2 if held else 1))
    most = "" if limits.requests is None else f" of {limits.requests:,}"
    parts.append(_part(f"calls {standing.calls:,}{most}", weight=6))
    for of, words in ((3, "tokens"), (1, "input"), (2, "output")):
        if limits[of] and of != i:
            used = f"{_count(committed[of])} of {_count(limits[of] or 0)}"
            parts.append(_part(f"{words} {used}", weight=4))
    if i not in (0, None):
        parts.append(_part(format_usd(committed.cost), weight=4))
    if standing.per_minute:
        parts.append(_part(f"{format_usd(standing.per_minute)}/min", weight=3))
    left_s = standing.left_s
    if left_s is not None and not standing.stop:
        parts.append(_part(f"{_duration(left_s)} left", "warn" if left_s < 120 else "", weight=5))
    if standing.model:
        model = [Piece(" | "), Piece(printable(standing.model), "switch" if standing.asked else "")]
        if standing.asked:
            model.insert(1, Piece(f"{printable(standing.asked)} {'→' if _takes_unicode() else '->'} ", "dim"))
        parts.append(Part(tuple(model), 6, () if not standing.asked else (Piece(" | "), *model[2:])))
    return parts


def fitted(parts: Callable[[int], Sequence[Part]], width: int | None) -> list[Piece]:
    """The pieces of a line of at most *width* columns: the bar gets short first, then the least is left out.

    Args:
        parts: Makes the parts with a bar of so many columns.
        width: None for as much as there is.
    """
    shown = {n: part.pieces for n, part in enumerate(parts(_BAR))}
    over = 0 if width is None else _width(shown.values()) - width
    if width is not None and over > 0:
        given = list(parts(max(_NARROW_BAR, _BAR - over)))
        shown = dict[int, tuple[Piece, ...]]()
        for n in sorted(range(len(given)), key=lambda n: -given[n].weight):
            for pieces in (given[n].pieces, given[n].short):
                if pieces and _width([*shown.values(), pieces]) <= width:
                    shown[n] = pieces
                    break
        if not shown:  # not even what is spent
            return [Piece("".join(piece.text for piece in given[0].pieces)[:width])]
    return [piece for n in sorted(shown) for piece in shown[n]]


def _width(shown: Iterable[Sequence[Piece]]) -> int:
    return sum(len(piece.text) for pieces in shown for piece in pieces)


def _part(text: str, style: str = "", *, weight: int) -> Part:
    return Part((Piece(text, style),) if weight == 9 else (Piece(" | "), Piece(text, style)), weight)


def _bar(standing: Standing, width: int) -> list[Piece]:
    full, empty, mark = ("━", "─", "┆") if _takes_unicode() else ("#", "-", ":")
    filled = min(width, int(standing.share * width))
    marks = {
        min(width - 1, int(fraction * width)): style
        for fraction, style in ((standing.downgrade_at, "switch"), (standing.soft_limit, "warn"))
        if fraction is not None and fraction < 1
    }
    pieces: list[Piece] = [Piece(full * filled, standing.style)]
    start = filled
    for at in sorted(marks):
        if at >= filled:
            pieces += [Piece(empty * (at - start), "dim"), Piece(mark, marks[at])]
            start = at + 1
    pieces.append(Piece(empty * (width - start), "dim"))
    return [piece for piece in pieces if piece.text]


def _spent(standing: Standing) -> str:
    """What is spent, and of how much."""
    i = standing.shown
    if i is None:
        return format_usd(standing.committed.cost)
    used = format_usd(standing.committed.cost) if i == 0 else _count(standing.committed[i])
    return f"{used} of {_amount(i, standing.limits[i] or 0)}"


def _amount(dimension: int, quantity: int) -> str:
    return format_usd(quantity) if dimension == 0 else f"{_count(quantity)} tokens"


def _count(count: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size * 10:
            return f"{count / size:{'.3g' if count < size * 999 else ',.0f'}}{letter}"
    return f"{count:,}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{hours} h" if hours < 48 else f"{round(seconds / 86400)} d"


class SpendLine:
    """How one session stands, as a line."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._calls = session.report().breakdown.llm.calls
        self._open: set[str] = set()
        self._asked = self._model = self._stop = ""
        self._lock = threading.Lock()
        self._spent: deque[tuple[float, int]] = deque()
        """What was booked in the last minute, and when."""
        self._started_s = SYSTEM_CLOCK.monotonic()
        self._latest = Standing(Amounts(), Amounts(), session.budget.limits)
        self.changed: Callable[[], None] = lambda: None
        """Called when there is something new to show."""
        self._unsubscribe = session.subscribe(self._note)

    def unsubscribe(self) -> None:
        """Change no more."""
        self._unsubscribe()

    def _note(self, event: Event) -> None:
        if isinstance(event, CallAdmitted) and event.kind == "model":
            self._open.add(event.decision_id)
            self._asked, self._model, self._stop = "", event.name, ""
        elif isinstance(event, ModelDowngraded):
            self._asked = event.model
        elif isinstance(event, CallBlocked):
            self._stop = event.limit or "refused"
        elif isinstance(event, (CallCommitted, CallReleased)) and event.decision_id in self._open:
            self._open.discard(event.decision_id)  # an estimate may be followed by the actual: counted once
            self._calls += isinstance(event, CallCommitted)
        elif isinstance(event, UsageEvent):
            with self._lock:
                self._spent.append((SYSTEM_CLOCK.monotonic(), event.added))
                self._forget()
        self.changed()

    def _forget(self) -> float:
        now = SYSTEM_CLOCK.monotonic()
        while self._spent and self._spent[0][0] < now - _RATE_S:
            self._spent.popleft()
        return now

    def _per_minute(self) -> int | None:
        with self._lock:
            now = self._forget()
            seconds = min(_RATE_S, now - self._started_s)
            if seconds < _RATE_FROM_S:
                return None
            return max(0, round(sum(cost for _, cost in self._spent) * 60 / seconds))

    def standing(self, balance: Balance | None = None) -> Standing:
        """How it stands now, by *balance* or by the ledger; as it stood before, where that cannot be asked."""
        budget = self.session.budget
        try:
            if balance is None:
                balance = self.session.ledger.balances((self.session.scope,))[0]
            committed, reserved = balance.committed, balance.reserved
        except Exception:
            committed, reserved = self._latest.committed, self._latest.reserved
        self._latest = Standing(
            committed,
            reserved,
            budget.limits,
            budget.soft_limit,
            None if budget.downgrade is None else budget.downgrade.at,
            self._calls,
            self._per_minute(),
            self._asked,
            self._model,
            self._stop,
        )
        return self._latest

    def lines(self, width: int | None) -> list[list[Piece]]:
        """The line, on a screen of *width* columns."""
        standing = self.standing()
        return [fitted(lambda bar: parts_of(standing, bar), width)]

    def draw(self, width: int | None = None) -> Text:
        return _text(self.lines(width))


class _SpendBoard:
    def __init__(self, named: Sequence[tuple[str, SpendLine]]) -> None:
        self._named = [(printable(name), line) for name, line in named]
        self.changed: Callable[[], None] = lambda: None
        for _, line in self._named:
            line.changed = lambda: self.changed()

    def unsubscribe(self) -> None:
        for _, line in self._named:
            line.unsubscribe()

    def lines(self, width: int | None) -> list[list[Piece]]:
        """A line for each guard, and one for all of them."""
        standings = self._standings()
        names = [name for name, _ in self._named]
        return board_lines(list(zip(names, standings, strict=True)), width)

    def _standings(self) -> list[Standing]:
        """How each one stands, with one question to each ledger."""
        ledgers = {id(line.session.ledger): line.session.ledger for _, line in self._named}
        found: dict[tuple[int, str], Balance] = {}
        for key, ledger in ledgers.items():
            scopes = [line.session.scope for _, line in self._named if line.session.ledger is ledger]
            with suppress(Exception):  # each line is shown as it stood before, then
                found |= {(key, balance.scope.id): balance for balance in ledger.balances(scopes)}
        return [line.standing(found.get((id(line.session.ledger), line.session.id))) for _, line in self._named]


def board_lines(
    named: Sequence[tuple[str, Standing]], width: int | None, *, with_sum: bool = True
) -> list[list[Piece]]:
    """A board of runs, each with its name, and their sum below.

    Args:
        named: The runs.
        width: Of the screen, in columns; None for as much as there is.
        with_sum: Whether they add up: none of them is a part of another one.
    """
    room = max([len("all"), *(min(_MOST_NAME, len(name)) for name, _ in named)], default=3)
    if width is not None:
        room = min(room, max(6, width // 4))
    rest = None if width is None else max(1, width - room - 2)
    lines: list[list[Piece]] = []
    first = max((len(_spent(standing)) for _, standing in named[:_MOST_ROWS]), default=0)
    for name, standing in named[:_MOST_ROWS]:
        shown = name if len(name) <= room else f"{name[: room - 1]}{'…' if _takes_unicode() else '~'}"
        lines.append([Piece(f"{shown:<{room}}  "), *fitted(functools.partial(parts_of, standing, first=first), rest)])
    if len(named) > _MOST_ROWS:
        lines.append([Piece(f"and {len(named) - _MOST_ROWS:,} more", "dim")])
    if len(named) > 1 and with_sum:
        spent = sum(standing.committed.cost for _, standing in named)
        held = sum(standing.reserved.cost for _, standing in named)
        rates = [standing.per_minute for _, standing in named if standing.per_minute is not None]
        parts = [
            _part(format_usd(spent), weight=9),
            _part(f"held {format_usd(held)}", weight=2),
            _part(f"calls {sum(standing.calls for _, standing in named):,}", weight=6),
        ]
        if any(rates):
            parts.append(_part(f"{format_usd(sum(rates))}/min", weight=3))
        lines.append([Piece(f"{'all':<{room}}  ", "dim"), *fitted(lambda _: parts, rest)])
    return lines


# --- where it is shown


class Drawn(Protocol):
    """Something that is drawn as lines, again and again."""

    changed: Callable[[], None]
    """Called when there is something new to draw."""

    def lines(self, width: int | None) -> list[list[Piece]]: ...
    def unsubscribe(self) -> None: ...


class _Screen(Protocol):
    def stop(self, *, leave: bool) -> None: ...


@contextmanager
def shown(drawn: Drawn, *, leave: bool) -> Generator[None, None, None]:
    """Draw *drawn* for the ``with`` block, where there is a terminal or a notebook.

    Args:
        drawn: What to draw.
        leave: Whether it stays at the end.
    """
    screen = _start(drawn, leave)
    try:
        yield
    finally:
        drawn.unsubscribe()
        if screen is not None:
            with suppress(Exception):  # the terminal may be gone
                screen.stop(leave=leave)


def _start(drawn: Drawn, leave: bool) -> _Screen | None:
    try:
        if _notebook():
            return _NotebookScreen(drawn)
        if not (sys.stdout.isatty() and sys.stderr.isatty()):
            return None
        try:
            if _console().is_dumb_terminal:
                return None
        except ImportError:
            return _PlainScreen(drawn)
        return _RichScreen(drawn, leave)
    except Exception:  # something else has the terminal
        _log.debug("no line of spend", exc_info=True)
        return None


class _RichScreen:
    """Lines below what a program prints, drawn by rich."""

    def __init__(self, drawn: Drawn, leave: bool) -> None:
        from rich.live import Live

        self._live = Live(_Rich(drawn), console=_console(), transient=not leave)
        self._live.start(refresh=True)

    def stop(self, *, leave: bool) -> None:
        self._live.stop()


class _Rich:
    def __init__(self, drawn: Drawn) -> None:
        self._drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _text(self._drawn.lines(options.max_width))


class _Redrawn:
    """Draws when something has changed, but not too often."""

    def __init__(self, drawn: Drawn) -> None:
        self._drawn = drawn
        self._lock = threading.Lock()
        self._drawn_s = SYSTEM_CLOCK.monotonic()
        drawn.changed = self._changed

    def _changed(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        if now - self._drawn_s < _REDRAW_S or not self._lock.acquire(blocking=False):
            return
        try:
            self._drawn_s = now
            self.draw()
        except Exception:
            _log.debug("the line of spend cannot be drawn", exc_info=True)
        finally:
            self._lock.release()

    def draw(self) -> None:
        raise NotImplementedError  # each kind of screen does


class _PlainScreen(_Redrawn):
    """One line that is written over again and again; of many lines, the last one, which is their sum."""

    def __init__(self, drawn: Drawn) -> None:
        super().__init__(drawn)
        self._stream = sys.stderr
        self._written = 0
        _hint(self._stream.write)
        self.draw()

    def draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = "".join(piece.text for piece in self._drawn.lines(width)[-1])
        self._write(f"\r{line.ljust(self._written)}")
        self._written = len(line)

    def stop(self, *, leave: bool) -> None:
        if leave:
            self._write("\r" + " " * self._written + "\r")
            for line in self._drawn.lines(shutil.get_terminal_size().columns - 1):
                self._write("".join(piece.text for piece in line) + "\n")
        else:
            self._write("\r" + " " * self._written + "\r")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


_hinted = False


def _hint(write: Callable[[str], object]) -> None:
    """Say once what draws better lines."""
    global _hinted
    if not _hinted:
        _hinted = True
        write('budget_guard: in colour with pip install "budget-guard-py[live]"\n')


class _NotebookScreen(_Redrawn):
    """A line, or a board, below the cell of a notebook."""

    def __init__(self, drawn: Drawn) -> None:
        super().__init__(drawn)
        display: Any = import_module("IPython.display")
        self._handle: Any = display.display(self._picture(), display_id=True)

    def draw(self) -> None:
        self._handle.update(self._picture())

    def stop(self, *, leave: bool) -> None:
        self._handle.update(self._picture() if leave else _Picture(""))

    def _picture(self) -> _Picture:
        return _Picture(as_html(self._drawn.lines(None)))


class _Picture:
    """What a notebook shows."""

    def __init__(self, markup: str) -> None:
        self._markup = markup

    def _repr_html_(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return ""


def as_html(lines: Sequence[Sequence[Piece]]) -> str:
    """*lines* for a notebook, in either of its themes."""
    rows = [
        "".join(
            f'<span style="color:{_COLORS[piece.style]}">{html.escape(piece.text)}</span>'
            if piece.style
            else html.escape(piece.text)
            for piece in line
        )
        for line in lines
    ]
    return (
        '<pre style="margin:0;line-height:1.5;font-size:13px;white-space:pre;overflow-x:auto;background:none">'
        f"{'<br>'.join(rows)}</pre>"
    )


def _notebook() -> bool:
    """Whether this runs in a notebook's kernel, which shows HTML."""
    get_ipython: Callable[[], object] | None = getattr(builtins, "get_ipython", None)  # where a cell is executed
    return get_ipython is not None and hasattr(get_ipython(), "kernel")


@functools.cache
def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)  # one for all, so that rich knows of every line that is shown


def _takes_unicode() -> bool:
    if _notebook():
        return True
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")


def _text(lines: Sequence[Sequence[Piece]]) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    for number, line in enumerate(lines):
        if number:
            text.append("\n")
        for piece in line:
            text.append(piece.text, _STYLES[piece.style])
    return text
