"""What is typed for a setting, read: ``user=$20/day``, ``gpt-4o=2.5,10``.

Each function raises ValueError, naming the option, where a text makes no sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from budget_guard import Budget
from budget_guard.units.scope import Window


def pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs in *texts*, each ``NAME=VALUE``."""
    found: list[tuple[str, str]] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise ValueError(f"{option} {text!r} must be NAME=VALUE")
        found.append((name, value))
    return found


def ceilings(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """The ceilings by kind; several of one kind, in several windows, as a list."""
    found: dict[str, list[Budget]] = {}
    for kind, text in pairs(option, texts):
        dollars, slash, window = text.partition("/")
        if slash and window not in get_args(Window):
            windows = ", ".join(get_args(Window))
            raise ValueError(f"{option} {kind}={text}: the window {window!r} is not known: use one of {windows}")
        found.setdefault(kind, []).append(Budget(dollars, window=window or "none"))  # type: ignore[arg-type]  # checked
    return {kind: each[0] if len(each) == 1 else each for kind, each in found.items()}


def plans(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """The ceilings by plan and kind, each ``NAME:KIND=DOLLARS[/WINDOW]``."""
    by_name: dict[str, list[str]] = {}
    for text in texts:
        name, colon, ceiling = text.partition(":")
        if not name or not colon:
            raise ValueError(f"{option} {text!r} must be NAME:KIND=DOLLARS[/WINDOW], such as 'pro:user=$50/day'")
        by_name.setdefault(name, []).append(ceiling)
    return {name: ceilings(f"{option} {name}:", each) for name, each in by_name.items()}


def price(option: str, model: str, text: str) -> tuple[float, float]:
    """The price of *model*, ``IN,OUT``."""
    parts = text.split(",")
    try:
        given, made = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"{option} {model}={text} must be MODEL=IN,OUT in dollars per million tokens") from None
    return given, made


def whole(option: str, text: str) -> int:
    """The whole number in *text*."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{option}: {text!r} must be a whole number")
    return int(text)
