"""Every number, text, pattern and table that a module sets, and every default that is one: what somebody decided.

``python -m tests.constants`` writes them down in `constants.txt`. A line that differs is no fault by itself; but
limits, timeouts and what is looked for on the wire stand there, so that none of them becomes another one unseen.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import hashlib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import budget_guard

FILE = Path(__file__).with_name("constants.txt")
_PACKAGES = ("budget_guard", "budget_guard_gateway", "budget_guard_langchain", "budget_guard_openai_agents")
_LEFT_OUT = ("budget_guard.testing.", "budget_guard.integrations.")
"""What is made for tests, and the faces of adapters."""
_FEW = 4
"""A table of more has a line for each."""
_LONG = 1_000
"""Characters of a text that is written down; of a longer one, say a program, its hash is."""
_PLAIN = (bool, int, float, str, bytes, Decimal, timedelta, date, time, type(None))


def lines() -> list[str]:
    """What is set, as it is now, in the modules that can be imported here."""
    return [*(line for module in _modules() for line in _of_module(module)), *_of_scripts()]


def _of_scripts() -> Iterator[str]:
    """The constants of the Lua scripts, a line each."""
    for script in sorted(Path(budget_guard.__file__).parent.rglob("*.lua")):
        for line in script.read_text("utf-8").splitlines():
            if re.match("local [A-Z]", line):
                yield f"{script.name}: {line.partition(' -- ')[0]}"


def written() -> list[str]:
    """What was set when somebody looked, in the same modules."""
    missing = [name for name in (*_PACKAGES, *_modules()) if _imported(name) is None]
    elsewhere = tuple(f"{name}." for name in missing)
    return [line for line in FILE.read_text("utf-8").splitlines() if not line.startswith(elsewhere)]


@cache
def _modules() -> Sequence[str]:
    """The names of all modules that are installed here."""
    found: list[str] = []
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            names = [path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.py"))]
            found += [f"{package}.{name}".replace("/", ".").removesuffix(".__init__") for name in names]
    return [name for name in found if not f"{name}.".startswith(_LEFT_OUT) and not name.endswith(".__main__")]


def _imported(name: str) -> ModuleType | None:
    """The module of that name; None where it needs what is not installed here."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _of_module(name: str) -> Iterator[str]:
    module = _imported(name)
    if module is not None:
        tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
        yield from _of_body(name, tree.body, module, _changed_later(tree))


def _changed_later(tree: ast.Module) -> frozenset[str]:
    """The names that something in a module sets anew as it runs."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found.update(node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return frozenset(found)


def _of_body(place: str, body: Sequence[ast.stmt], owner: object, changed: AbstractSet[str]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _defaults(f"{place}.{statement.name}", vars(owner).get(statement.name))
        elif isinstance(statement, ast.ClassDef):
            made: Any = vars(owner).get(statement.name)
            if inspect.isclass(made):
                yield from _fields(f"{place}.{made.__name__}", made)
                yield from _of_body(f"{place}.{made.__name__}", statement.body, made, changed)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                name = target.id if isinstance(target, ast.Name) else "__"
                if name in vars(owner) and name not in changed and not name.startswith("__"):
                    yield from _value(f"{place}.{name}", vars(owner)[name])


def _fields(place: str, made: Any) -> Iterator[str]:
    """What a class of fields is, and their defaults."""
    if dataclasses.is_dataclass(made):
        options = vars(made)["__dataclass_params__"]
        slots = ", with slots" if "__slots__" in vars(made) else ""
        yield f"{place} is {'frozen' if options.frozen else 'changed'}{slots}"
        for field in dataclasses.fields(made):
            defaults = [each for each in (field.default, field.default_factory) if each is not dataclasses.MISSING]
            by_name = ", by name" if field.kw_only else ""
            yield f"{place}: {field.name}{''.join(f'={_said(each)}' for each in defaults)}{by_name}"
        return
    named = cast("Mapping[str, object]", getattr(cast(object, made), "_field_defaults", {}))  # of a NamedTuple
    for name, default in named.items():
        yield f"{place}: {name}={_said(default)}"


def _defaults(place: str, function: object) -> Iterator[str]:
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        return
    for each in inspect.signature(function).parameters.values():
        if each.default is not each.empty and (said := _said(each.default)) is not None:
            yield f"{place}: {each.name}={said}"


def _value(place: str, value: object) -> Iterator[str]:
    said, kind = _said(value), type(value)
    if said is None or said in ("()", "{}"):  # what is empty may be filled as it runs
        return
    entries: list[str] = []
    if issubclass(kind, Mapping):
        entries = [f"[{_said(key)}] = {_said(each)}" for key, each in _pairs(value)]
    elif issubclass(kind, (tuple, list)) and not hasattr(value, "_fields"):
        entries = [f"[{number}] = {_said(each)}" for number, each in enumerate(_all_of(value))]
    elif issubclass(kind, AbstractSet):
        entries = sorted(f" has {_said(each)}" for each in _all_of(value))
    if len(entries) <= _FEW:
        entries = [f" = {said}"]
    for entry in entries:
        yield f"{place}{entry}"


def _all_of(value: object) -> list[Any]:
    return list(cast("Iterable[Any]", value))


def _pairs(value: object) -> list[tuple[Any, Any]]:
    return list(cast("Mapping[Any, Any]", value).items())


def _said(value: object) -> str | None:
    """*value* as a text that is the same in every process; None where there is no such text."""
    kind = type(value)  # not `isinstance`: a type checker knows less of a value then
    if isinstance(value, enum.Enum):
        return value.name
    if issubclass(kind, _PLAIN):
        said = repr(value)
        return said if len(said) <= _LONG else f"{len(said)} characters, {hashlib.sha256(said.encode()).hexdigest()}"
    if issubclass(kind, re.Pattern):
        pattern = cast("re.Pattern[Any]", value)
        return f"{pattern.pattern!r} {pattern.flags}"
    if issubclass(kind, (tuple, list)):
        return _joined([_said(each) for each in _all_of(value)], "()")
    if issubclass(kind, AbstractSet):
        parts = [_said(each) for each in _all_of(value)]
        return None if None in parts else _joined(sorted(map(str, parts)), "{}")
    if issubclass(kind, Mapping):
        both = [(_said(key), _said(each)) for key, each in _pairs(value)]
        return _joined([None if None in each else f"{each[0]}: {each[1]}" for each in both], "{}")
    return value.__name__ if inspect.isclass(value) or inspect.isfunction(value) else None


def _joined(parts: Sequence[str | None], around: str) -> str | None:
    return None if None in parts else around[0] + ", ".join(map(str, parts)) + around[1]


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", "utf-8")
