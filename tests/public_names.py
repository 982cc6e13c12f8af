"""Every public name and each of its arguments, with its place and its default: what users rely on.

``python -m tests.public_names`` writes them down in `public_names.txt`. What is gone or changed there is for the
CHANGELOG; what is new breaks nobody.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

FILE = Path(__file__).with_name("public_names.txt")
MODULES = (
    *("budget_guard", "budget_guard.adapter", "budget_guard.clock", "budget_guard.errors", "budget_guard.events"),
    *("budget_guard.events.sinks.files", "budget_guard.events.sinks.webhook"),
    *("budget_guard.ledger", "budget_guard.ledger.base", "budget_guard.ledger.history", "budget_guard.ledger.hold_id"),
    *("budget_guard.ledger.leased", "budget_guard.ledger.outbox", "budget_guard.ledger.redis"),
    *("budget_guard.ledger.reconcile", "budget_guard.ledger.sqlite", "budget_guard.live", "budget_guard.pricing"),
    *("budget_guard.protocol", "budget_guard.reporting", "budget_guard.testing"),
)
_ALWAYS_THERE = {*dir(tuple), *dir(Exception), *dir(enum.Enum)}


def lines() -> list[str]:
    """What users rely on, as it is now."""
    return [line for module in MODULES for line in _of_module(module)]


def _of_module(module: str) -> Iterator[str]:
    found = importlib.import_module(module)
    for name in sorted(getattr(found, "__all__", [each for each in dir(found) if not each.startswith("_")])):
        value = getattr(found, name)
        if not getattr(value, "__module__", "").startswith("budget_guard"):
            continue
        place = f"{module}.{name}"
        yield from _arguments(place, value)
        if not inspect.isclass(value):
            continue
        if dataclasses.is_dataclass(value):
            frozen: Any = value
            yield f"{place} {'is frozen' if frozen.__dataclass_params__.frozen else 'may change'}"
        elif issubclass(value, BaseModel):
            yield f"{place} is {dict(value.model_config)}"
        if value.__module__ == module or value.__module__.startswith(f"{module}."):
            for each in sorted(dir(value)):
                member = inspect.getattr_static(value, each)
                if not each.startswith("_") and each not in _ALWAYS_THERE and _is_ours(member):
                    yield from _arguments(f"{place}.{each}", getattr(value, each))


def _is_ours(member: Any) -> bool:
    function = getattr(member, "__func__", member)
    return inspect.isfunction(function) and function.__module__.startswith("budget_guard")


def _arguments(place: str, value: Callable[..., Any]) -> Iterator[str]:
    yield place
    try:
        given = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return
    for number, each in enumerate(given):
        by_name: dict[Any, str] = {
            each.KEYWORD_ONLY: "by name",
            each.VAR_POSITIONAL: "any",
            each.VAR_KEYWORD: "any by name",
        }
        default = "" if each.default is each.empty else f"={_default(each.default)}"
        yield f"{place}: {each.name}{default} {by_name.get(each.kind, number)}"


def _default(value: object) -> str:
    said = repr(value)
    return "..." if " at 0x" in said or "<factory>" in said else said


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", "utf-8")
