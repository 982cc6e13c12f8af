"""``budget-guard doctor``: which adapters are here, and whether each of them really holds."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, distributions, version
from typing import Any, NamedTuple

import budget_guard
from budget_guard.adapter.versions import require
from budget_guard.cli.answer import BAD_NEWS, Answer, Failure
from budget_guard.cli.prices import old_prices
from budget_guard.pricing.table import PriceTable
from budget_guard.units.money import cost_nano, format_usd
from budget_guard.units.printable import printable

_OURS = "budget-guard-py"
_LIMIT = Decimal("0.05")
_SECONDS = 180


class _Adapter(NamedTuple):
    name: str
    """As `drives.DRIVES` has it."""
    distribution: str
    floor: str
    """The oldest version that it works with."""
    module: str
    """The face, or the client itself."""
    extra: str | None = None
    """What installs it; None of a client, which is installed by itself."""
    also: str = ""
    """What has to be there beside it to try it."""

    @property
    def remedy(self) -> str:
        wanted = f"{self.distribution}>={self.floor}" if self.extra is None else f"{_OURS}[{self.extra}]"
        return f'pip install "{wanted}"'


ADAPTERS = (
    _Adapter("openai", "openai", "2.26", "openai"),
    _Adapter("anthropic", "anthropic", "0.120", "anthropic"),
    _Adapter("httpx", "httpx", "0.27", "httpx"),
    _Adapter("openai-agents", "openai-agents", "0.12", "budget_guard.integrations.openai_agents", "openai-agents"),
    _Adapter(
        *("langchain", "langchain-core", "1.6", "budget_guard.integrations.langchain", "langchain"),
        also="langchain-openai",
    ),
    _Adapter("mcp", "mcp", "1.9", "budget_guard.integrations.mcp", "mcp", also="mcp>=2"),
    _Adapter(
        *("pydantic-ai", "pydantic-ai-slim", "2.66", "budget_guard.integrations.pydantic_ai", "pydantic-ai"),
        also="openai",
    ),
    _Adapter(
        *("llama-index", "llama-index-core", "0.14.22", "budget_guard.integrations.llama_index", "llama-index"),
        also="llama-index-llms-openai",
    ),
    _Adapter("google-adk", "google-adk", "2.10", "budget_guard.integrations.google_adk", "google-adk"),
    _Adapter("crewai", "crewai", "1.15.25", "budget_guard.integrations.crewai", "crewai"),
    _Adapter(
        *("agent-framework", "agent-framework-core", "1.23", "budget_guard.integrations.agent_framework"),
        *("agent-framework", "agent-framework-openai"),
    ),
)


class Finding(NamedTuple):
    """What is to be said of one thing."""

    name: str
    version: str
    state: str
    """``holds``, ``not installed``, ``not tried``, ``too old``, ``broken``, ``DOES NOT HOLD``; of others ``ok``."""
    words: str
    """What was seen, or the remedy."""

    @property
    def is_bad(self) -> bool:
        return self.state in ("too old", "broken", "DOES NOT HOLD")


def add_to(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command."""
    doctor = command("doctor", _doctor, "which adapters are here, and whether each of them really holds")
    names = [adapter.name for adapter in ADAPTERS]
    doctor.add_argument("names", nargs="*", metavar="ADAPTER", help=f"only these: {', '.join(names)}")


def _doctor(given: argparse.Namespace) -> Answer:
    known = {adapter.name: adapter for adapter in ADAPTERS}
    for name in given.names:
        if name not in known:
            raise Failure(f"{name!r} is no adapter: name one of {', '.join(known)}", 2)
    chosen = [known[name] for name in given.names] or list(ADAPTERS)
    found = [_own(), *_others(), *_prices()]
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    with ThreadPoolExecutor(2) as pool:
        found += pool.map(functools.partial(look_at, can_try=not missing), chosen)
    bad = any(each.is_bad for each in found)
    rows = [[each.name, each.version, each.state, each.words] for each in found]
    width = max(60, shutil.get_terminal_size().columns)
    text = "\n".join(_line(row, rows, width) for row in rows)
    return Answer([each._asdict() for each in found], text, BAD_NEWS if bad else 0)


def _line(row: list[str], rows: list[list[str]], width: int) -> str:
    """One line for a finding, or two where the remedy does not fit: it is to be copied whole."""
    widths = [max(len(each[i]) for each in rows) for i in range(3)]
    head = "  ".join(printable(cell).ljust(size) for cell, size in zip(row, widths, strict=False))
    words = printable(row[3])
    return f"{head}  {words}".rstrip() if len(head) + 2 + len(words) <= width else f"{head.rstrip()}\n    {words}"


def _own() -> Finding:
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding("budget_guard", budget_guard.__version__, "ok", f"Python {python}")


def _others() -> list[Finding]:
    """Other distributions that install something under our import name: whichever came last is what runs."""
    found: list[Finding] = []
    for each in distributions():
        name = str(each.metadata["Name"] or "")
        tops = (each.read_text("top_level.txt") or "").split()
        files = [str(path) for path in (each.files or ())]
        ours = "budget_guard" in tops or any(path.startswith("budget_guard/") for path in files)
        if ours and re.sub(r"[-_.]+", "-", name).lower() != _OURS:
            remedy = f"pip uninstall {name} && pip install --force-reinstall --no-deps {_OURS}"
            found.append(Finding(name, each.version, "broken", f"it installs the same import name: {remedy}"))
    return found


def _prices() -> list[Finding]:
    table = PriceTable.bundled()
    old = old_prices(table)
    return [Finding("prices", str(table.as_of), "too old" if old else "ok", old[0] if old else "")]


def look_at(adapter: _Adapter, *, can_try: bool = True) -> Finding:
    """What is to be said of *adapter*."""
    try:
        found = version(adapter.distribution)
    except PackageNotFoundError:
        return Finding(adapter.name, "", "not installed", adapter.remedy)
    try:
        require(adapter.distribution, adapter.floor)
    except ImportError:
        remedy = f'pip install --upgrade "{adapter.distribution}>={adapter.floor}"'
        return Finding(adapter.name, found, "too old", remedy)
    if not can_try:
        return Finding(adapter.name, found, "not tried", f'to try it: pip install "{_OURS}[testing]"')
    try:
        seen = _driven(adapter.name)
    except subprocess.TimeoutExpired:
        return Finding(adapter.name, found, "broken", f"it did not end within {_SECONDS} seconds")
    return Finding(adapter.name, found, *judged(adapter, seen))


def judged(adapter: _Adapter, seen: Mapping[str, Any]) -> tuple[str, str]:
    """The state of an adapter and the words to it, by what was *seen* of a drive."""
    if "crashed" in seen:
        return "broken", f"{seen['crashed']}; try: pip install --force-reinstall {adapter.distribution}"
    if "missing" in seen:
        also = adapter.also or adapter.distribution
        state = "not tried" if adapter.also else "broken"
        return state, f"{seen['missing']} is missing: pip install {also}"
    spent, bill = Decimal(seen["spent_usd"]), Decimal(seen["bill_usd"])
    if bill > _LIMIT or (spent < bill and seen["stopped_by"]):
        was = f"the provider billed {_usd(bill)}, {_usd(spent)} was counted, of {_usd(_LIMIT)}"
        return "DOES NOT HOLD", f"{was}: please report it with this version"
    if seen["stopped_by"] != "max_cost_usd" or not seen["calls"] or not spent:
        return "broken", f"{seen['error'] or 'it was not stopped'}; try: pip install --upgrade {adapter.distribution}"
    return "holds", f"stopped at {_usd(spent)} of {_usd(_LIMIT)}"


def _usd(amount: Decimal) -> str:
    return format_usd(cost_nano(amount))


def _driven(name: str) -> dict[str, Any]:
    """What came of a drive, in a process of its own, without any key or proxy of this one."""
    hidden = re.compile(r"_API_KEY$|_PROXY$|_BASE_URL$|^BUDGET_GUARD_", re.IGNORECASE)
    environment = {key: value for key, value in os.environ.items() if not hidden.search(key)}
    done = subprocess.run(
        [sys.executable, "-m", "budget_guard.cli.drives", name],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SECONDS,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode == 0 and last.startswith("{"):
        seen: dict[str, Any] = json.loads(last)
        return seen
    error = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
    return {"crashed": error[:300]}
