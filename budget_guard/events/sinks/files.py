"""Sinks that write what calls used to a file: one JSON object, or one row, for each."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from budget_guard.events.model import Event, Subscriber, UsageEvent
from budget_guard.events.origin import Origin
from budget_guard.units.printable import no_formula

COLUMNS = (
    *("id", "at", "run_id", "user", "key", "team", "feature", "agent", "task", "kind", "name", "asked"),
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_usd", "cost_before_usd"),
    *("source", "uncertain", "decision_id"),
)
"""The columns of a `CsvSink`."""


class _File:
    """A file that lines are added to, each in one go, so that those of several processes do not mix."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.fspath(path)).absolute()
        if not os.fspath(path) or self.path.is_dir() or not self.path.parent.is_dir():
            raise ValueError(f"path={os.fspath(path)!r} must name a file in a folder that is there")

    def add(self, line: str, heading: str = "") -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            new = heading and os.fstat(file).st_size == 0
            os.write(file, f"{heading if new else ''}{line}".encode())
        finally:
            os.close(file)


class JsonlSink:
    """Adds each `UsageEvent` to a text file, as one JSON object a line.

    Args:
        path: The file, made if it is not there, and readable by its owner alone.

    Raises:
        ValueError: If *path* cannot be a file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = _File(path)

    def of_run(self, origin: Origin) -> Subscriber:
        """A function that takes the events of one run."""
        return self._take

    def _take(self, event: Event) -> None:
        if isinstance(event, UsageEvent):
            self._file.add(json.dumps(event.as_plain(), separators=(",", ":")) + "\n")


class CsvSink:
    """Adds each `UsageEvent` to a file of comma-separated values, below a heading.

    Args:
        path: The file, made if it is not there, and readable by its owner alone.
        kinds: Kinds of principals of one's own, each a column at the end.

    Raises:
        ValueError: If *path* cannot be a file.
    """

    def __init__(self, path: str | os.PathLike[str], *, kinds: Sequence[str] = ()) -> None:
        self._file = _File(path)
        self._columns = (*COLUMNS, *kinds)

    def of_run(self, origin: Origin) -> Subscriber:
        """A function that takes the events of one run."""
        return self._take

    def _take(self, event: Event) -> None:
        if isinstance(event, UsageEvent):
            plain = event.as_plain()
            values = {**plain, **plain["tokens"], **plain["principals"]}
            row = [_harmless(values.get(column)) for column in self._columns]
            self._file.add(_row(row), heading=_row(self._columns))


def _row(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _harmless(value: object) -> object:
    """*value* so that no spreadsheet takes a name from outside for a formula."""
    return no_formula(value) if isinstance(value, str) else "" if value is None else value
