"""References, which are compared with what was looked at last: their files, and any value as one line of plain text."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from budget_guard import BudgetError

_ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]{12}-\d+|[0-9a-f]{20,32}|[0-9a-f]{12}-\S{3,60}")
_FIGURE = re.compile(r"\$?\d[\d,.]*%?")
_LEFT_OUT = frozenset(
    {"report", "id", "hold_id", "decision_id", "child_id", "events", "budget", "price_version", "prices"}
)
"""Ids are made up anew each time, the report of an error is a long one, and budgets and prices are what was given."""


@functools.cache
def kept(file: Path) -> list[str]:
    """The lines of a reference as they were made last. They are read once."""
    return gzip.decompress(file.read_bytes()).decode().split("\n") if file.exists() else []


def kept_of(name: str, file: Path) -> list[str]:
    """The lines of one part of a reference as they were made last."""
    before = [line for line in kept(file) if line.startswith(f"{name}:")]
    assert len(before) > 10
    return before


def lines_under(name: str, lines: Iterable[str]) -> Iterator[str]:
    """*lines* with the name of their part of a reference in front of each."""
    for line in lines:
        yield from (f"{name}: {part}" for part in line.split("\n"))


def keep(lines: list[str], file: Path) -> None:
    """Write the *lines* of a reference, and print those that differ."""
    for line in difflib.unified_diff(kept(file), lines, lineterm="", n=0):
        print(line[:300])
    file.write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))


def without_ids(line: str) -> str:
    """*line* with the ids in it left out, which are made up anew each time."""
    return _ID.sub("ID", line)


def figures_of(words: str) -> str:
    """The figures that a sentence names: words may be put better at any time, what they say may not change."""
    return " ".join(each.rstrip(".,") for each in _FIGURE.findall(without_ids(words)))


def plain(value: Any, without: frozenset[str] = frozenset()) -> str:
    """*value* with all that it holds, without what is empty or not set, and of sentences the figures alone.

    Args:
        value: Anything.
        without: The names of fields to leave out, in all that it holds.
    """
    if isinstance(value, str):
        return f"<{figures_of(value)}>" if " " in value else value
    if value is None or isinstance(value, (bool, int, Decimal)):
        return str(value)
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseException):
        fields = value.fields() if isinstance(value, BudgetError) else {}
        return f"{type(value).__name__}{_fields(fields, without)}<{figures_of(str(value))}>"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{type(value).__name__}{_fields(value._asdict(), without)}"  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return f"{type(value).__name__}{_fields({name: getattr(value, name) for name in names}, without)}"
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return f"{type(value).__name__}{_fields(fields, without)}"
    if isinstance(value, Mapping):
        return _fields(value, without)
    if isinstance(value, Set):
        return "{" + " ".join(sorted(plain(each, without) for each in value)) + "}"
    if isinstance(value, Sequence):
        return "[" + " ".join(plain(each, without) for each in value) + "]"
    return type(value).__name__


def _fields(fields: Mapping[Any, Any], without: frozenset[str]) -> str:
    out = _LEFT_OUT | without
    kept = {name: each for name, each in fields.items() if name not in out and not _is_empty(each)}
    return "(" + " ".join(f"{name}={plain(each, without)}" for name, each in kept.items()) + ")"


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, (str, tuple, list, dict, frozenset)) and not value)
