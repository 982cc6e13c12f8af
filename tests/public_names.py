"""Every public name with its arguments and their defaults, one a line: what users rely on.

``python -m tests.public_names`` writes them down in `public_names.txt`. What changes there is for the CHANGELOG.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("public_names.txt")
MODULES = (
    *("budget_guard", "budget_guard.clock", "budget_guard.errors", "budget_guard.events"),
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
        if not inspect.isclass(value):
            yield f"{place}{_arguments(value)}"
            continue
        yield f"{place}{_arguments(value)}{_kind(value)}"
        if module == value.__module__ or value.__module__.startswith(f"{module}."):
            for each in sorted(dir(value)):
                member = inspect.getattr_static(value, each)
                if not each.startswith("_") and each not in _ALWAYS_THERE and _is_ours(member):
                    yield f"  {name}.{each}{_arguments(getattr(value, each))}"


def _is_ours(member: Any) -> bool:
    function = getattr(member, "__func__", member)
    return inspect.isfunction(function) and function.__module__.startswith("budget_guard")


def _kind(cls: type) -> str:
    if not dataclasses.is_dataclass(cls):
        return ""
    return " frozen" if cls.__dataclass_params__.frozen else " may change"  # type: ignore[attr-defined]


def _arguments(value: Callable[..., Any]) -> str:
    try:
        given = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    plain = [each.replace(annotation=each.empty, default=_default(each)) for each in given.parameters.values()]
    return str(given.replace(parameters=plain, return_annotation=given.empty))


def _default(each: inspect.Parameter) -> Any:
    return Ellipsis if " at 0x" in repr(each.default) or "<factory>" in repr(each.default) else each.default


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", "utf-8")
