"""What is typed for a setting, read: ``user=$20/day``, ``gpt-4o=2.5,10``.

Each function raises ValueError, naming the option, where a text makes no sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from budget_guard import Budget
from budget_guard.units.scope import Window

_COUNTS = ("max_runs", "max_requests", "max_total_tokens", "max_tool_calls")
"""What a ceiling may limit beside dollars."""


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
        found.setdefault(kind, []).append(_ceiling(f"{option} {kind}={text}", text))
    return {kind: each[0] if len(each) == 1 else each for kind, each in found.items()}


def _ceiling(option: str, text: str) -> Budget:
    """The ceiling in *text*: ``$20/day``, ``$20/day,max_runs=100,mode=advisory_estimate`` or ``max_runs=100/day``."""
    first, *more = text.split(",")
    first, slash, window = first.partition("/")
    if slash and window not in get_args(Window):
        windows = ", ".join(get_args(Window))
        raise ValueError(f"{option}: the window {window!r} is not known: use one of {windows}")
    fields: dict[str, Any] = {"window": window or "none"}
    if "=" in first:
        more.insert(0, first)
    else:
        fields["max_cost_usd"] = first
    for name, value in pairs(option, more):
        if name not in (*_COUNTS, "mode"):
            raise ValueError(f"{option}: {name!r} is not known: use {', '.join((*_COUNTS, 'mode'))}")
        fields[name] = whole(f"{option}: {name}", value) if name in _COUNTS else value
    return Budget(**fields)


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
