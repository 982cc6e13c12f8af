"""``budget-guard watch``: a live board of what runs, users and teams have spent, by their ledger."""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from budget_guard.cli.answer import WRONG_USE, Answer, Failure
from budget_guard.cli.ledgers import opened
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.ledger.base import Balance, Ledger
from budget_guard.live import Piece, Standing, board_lines, shown
from budget_guard.units.amounts import NOTHING, Limits
from budget_guard.units.money import usd_text
from budget_guard.units.printable import printable
from budget_guard.units.scope import Scope

_SOFT_LIMIT = 0.9


def add_to(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command."""
    watch = command("watch", _watch, "a live board of what runs, users and teams have spent")
    watch.add_argument("url", metavar="URL", help="a ledger, such as sqlite:///budget.db or redis://host:6379/0")
    watch.add_argument("scopes", nargs="+", metavar="KIND:ID", help="whom to show, such as user:alice run:nightly")
    watch.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="how often to look (1)")
    watch.add_argument("--once", action="store_true", help="look once and end, as where the output is no terminal")


def _watch(given: argparse.Namespace) -> Answer:
    if not 0.1 <= given.every <= 3600:
        raise Failure(f"--every {given.every} must be from 0.1 to 3600 seconds", WRONG_USE)
    scopes = [_scope(text) for text in given.scopes]
    with opened(given.url) as ledger:
        board = Board(ledger, scopes)
        if given.once or given.json or not sys.stdout.isatty():
            data = board.look()
            return Answer(data, board.text())
        _show(board, given.every)
    return Answer(None)


def _scope(text: str) -> Scope:
    kind, colon, id_ = text.partition(":")
    if not colon or not kind or not id_:
        raise Failure(f"{text!r} is nobody: write a kind and an id, such as user:alice", WRONG_USE)
    return Scope(kind, id_)


class Board:
    """What was spent by whom, at the latest look, and how fast."""

    def __init__(self, ledger: Ledger, scopes: Sequence[Scope]) -> None:
        self._ledger = ledger
        self._scopes = scopes
        self._seen: dict[Scope, list[tuple[float, int]]] = {}
        self._standings: list[tuple[str, Standing]] = []
        self.changed: Callable[[], None] = lambda: None

    def look(self) -> list[dict[str, Any]]:
        """Ask the ledger; return what it says in JSON's own types."""
        now = SYSTEM_CLOCK.monotonic()
        found = [(scope, self._balance(scope)) for scope in self._scopes]
        self._standings = [(printable(scope), self._standing(scope, balance, now)) for scope, balance in found]
        return [_plain(scope, balance) for scope, balance in found]

    def _balance(self, scope: Scope) -> Balance | None:
        try:
            return self._ledger.balances((scope,))[0]
        except KeyError:
            return None  # nobody has heard of it yet

    def _standing(self, scope: Scope, balance: Balance | None, now: float) -> Standing:
        if balance is None:
            return Standing(NOTHING, NOTHING, Limits(), model="not known yet")
        seen = self._seen.setdefault(scope, [])
        seen.append((now, balance.committed.cost))
        while len(seen) > 2 and seen[0][0] < now - 60:
            del seen[0]
        (then, before), (_, cost) = seen[0], seen[-1]
        rate = None if now - then < 5 else max(0, round((cost - before) * 60 / (now - then)))
        stop = "" if balance.revoked is None else f"revoked, {balance.revoked.reason}"
        calls = balance.committed.requests
        return Standing(balance.committed, balance.reserved, balance.limits, _SOFT_LIMIT, None, calls, rate, stop=stop)

    def lines(self, width: int | None) -> list[list[Piece]]:
        """The board as lines of pieces, on a screen of *width* columns."""
        one_kind = len({scope.kind for scope in self._scopes}) == 1  # a user's spend has that of its runs in it
        return board_lines(self._standings, width, with_sum=one_kind)

    def unsubscribe(self) -> None:
        """Nothing tells it anything: it looks by itself."""

    def text(self) -> str:
        """The board as text."""
        width = shutil.get_terminal_size().columns
        return "\n".join("".join(piece.text for piece in line).rstrip() for line in self.lines(width))


def _plain(scope: Scope, balance: Balance | None) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": scope.kind, "id": scope.id, "known": balance is not None}
    if balance is not None:
        limit = balance.limits.cost
        data |= {
            "spent_usd": usd_text(balance.committed.cost),
            "held_usd": usd_text(balance.reserved.cost),
            "limit_usd": None if limit is None else usd_text(limit),
            "calls": balance.committed.requests,
            "tokens": balance.committed.total_tokens,
            "revoked": balance.revoked is not None,
        }
    return data


def _show(board: Board, every: float) -> None:
    """Draw the board again and again, until it is interrupted."""
    nobody = threading.Condition()
    board.look()
    with suppress(KeyboardInterrupt), shown(board, leave=True), nobody:
        while True:
            SYSTEM_CLOCK.wait(nobody, lambda: False, every)
            board.look()
            board.changed()
