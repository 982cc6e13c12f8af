"""What a command answers, and how it fails: as values, which `main` prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from budget_guard.reporting.text import cells, cut, fill
from budget_guard.units.printable import printable

FINE = 0
"""It was done, and all is well."""
BAD_NEWS = 1
"""It was done, and the answer is bad news: an audit found a difference, an adapter does not hold."""
WRONG_USE = 2
"""The command line makes no sense."""
NOT_THERE = 3
"""What it is about is not there, or cannot be reached."""


class Answer(NamedTuple):
    """The answer of a command."""

    data: Any
    """For ``--json``, in JSON's own types."""
    text: str = ""
    """For people."""
    status: int = FINE
    notes: tuple[str, ...] = ()
    """Warnings, which go to standard error."""


Run: TypeAlias = Callable[[argparse.Namespace], Answer]


class Failure(Exception):
    """A command cannot do what it is asked to. The message is one line, with the remedy."""

    def __init__(self, message: str, status: int = NOT_THERE) -> None:
        super().__init__(message)
        self.status = status


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, names: int = 1) -> str:
    """A table of *rows*, the first *names* columns to the left and the others to the right.

    It is *width* columns wide at most: what is left of the last column's text is put on lines of its own where there is
    no room, so that no figure is cut.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(cells(row[i]) for row in (list(heads), *shown)) for i in range(len(heads))]
    over = sum(widths) + 2 * (len(widths) - 1) - width
    for i in sorted(range(names), key=lambda i: -widths[i]):
        least = min(widths[i], 10)
        taken = min(max(over, 0), widths[i] - least)
        widths[i] -= taken
        over -= taken
    if over > 0:
        return "\n".join(_stacked(heads, row) for row in shown)

    def line(row: Sequence[str]) -> str:
        parts = [fill(cut(row[i], widths[i]), widths[i], right=i >= names) for i in range(len(heads))]
        return "  ".join(parts).rstrip()

    return "\n".join([line(heads), *map(line, shown)])


def _stacked(heads: Sequence[str], row: Sequence[str]) -> str:
    """A row as lines: its name, then each figure with its heading."""
    first, *rest = row
    return "\n".join([first, *(f"  {head}: {cell}" for head, cell in zip(heads[1:], rest, strict=True) if cell)])
