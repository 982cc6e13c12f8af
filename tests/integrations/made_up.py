"""Made-up budgets, answers of a provider, and all that a guard tells of a run: for references of both adapters."""

from __future__ import annotations

import difflib
import gc
import hashlib
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from budget_guard import Budget, DowngradePolicy, LoopPolicy
from budget_guard.adapter import attempts
from budget_guard.estimate import tokens
from budget_guard.testing import HostedCall, LocalProvider, ProviderRequest, Reply, ToolCall
from tests.reference_text import kept, plain, without_ids

BIG, SMALL = "gpt-4o", "gpt-4o-mini"
GROUPS = 10
"""So many tests run all of an adapter's runs."""
_TIMES = frozenset({"at_s", "duration_seconds", "seconds", "started_at", "over_time", "at", "retry_after_s"})
_OF_SERVED = ("model", "status", "stream", "max_output_tokens", "tools", "tool_choice")


def budget_of(chance: random.Random, *, final: bool = False) -> Budget:
    """A budget for a run of a few calls, which some of them do not fit into."""
    while True:
        try:
            return _any_budget(chance, final)
        except ValueError:  # its limits contradict each other
            continue


def _any_budget(chance: random.Random, final: bool) -> Budget:
    def maybe(likely: float, value: Any) -> Any:
        return value if chance.random() < likely else None

    dollars = chance.choice(["0.0005", "0.004", "0.02", "0.05", "1", "1", "5"])
    return Budget(
        max_cost_usd=dollars if final else maybe(0.85, dollars),
        max_total_tokens=maybe(0.15, chance.choice([400, 3_000, 90_000])),
        max_output_tokens=maybe(0.1, chance.choice([60, 2_000])),
        max_requests=maybe(0.25, chance.choice([1, 2, 4])) or 40,
        max_tool_calls=maybe(0.3, chance.choice([0, 1, 3])),
        soft_limit=chance.choice([None, 0.5, 0.9]),
        downgrade=maybe(0.3, DowngradePolicy(to={BIG: SMALL}, at=chance.choice([0.0001, 0.1, 0.5]))),
        mode="hard_gate"
        if chance.random() < 0.7
        else chance.choice(["soft_gate", "advisory_estimate", "actuals_only"]),
        unpriced=chance.choice(["deny", "allow"]),
        call_max_output_tokens=maybe(0.2, chance.choice([20, 700])),
        max_wait_s=0,
        finalization_reserve="0.0002" if final else None,
        loop=maybe(0.25, LoopPolicy(max_repeats=2, on_loop=chance.choice(["raise", "warn"]))),
        agents=maybe(0.15, {"Worker": Budget("0.003")}),
        task=maybe(0.3, "summarise"),
    )


def replies_of(chance: random.Random, tools: Sequence[str], *, parallel: bool) -> list[Reply]:
    """What a model answers, call by call; the last one again and again.

    Args:
        chance: What they are made up by.
        tools: The names of the tools that it may ask for.
        parallel: Whether it may ask for two at once: only where they come in one order.
    """
    found = [_reply(chance, tools, parallel) for _ in range(chance.randint(1, 5))]
    return [*found, Reply(text="the end", output_tokens=9)]


def _reply(chance: random.Random, tools: Sequence[str], parallel: bool) -> Reply:
    kind = chance.random()
    counts: dict[str, Any] = {
        "output_tokens": chance.choice([30, 80, 900, 6_000]),
        "reasoning_tokens": chance.choice([0, 0, 20]),
    }
    if kind < 0.5:
        tool = chance.choice(tools)
        asked = ToolCall(tool, {"input": "x"} if tool == "ask_helper" else {"key": chance.choice(["a", "a", "b"])})
        times = chance.choice([1, 1, 2]) if parallel and tool != "ask_helper" else 1
        return Reply(text=chance.choice([None, "let me see"]), tool_calls=[asked] * times, **counts)
    if kind < 0.6:
        return Reply(status=chance.choice([400, 401, 429, 500, 503]))
    if kind < 0.65:
        return Reply(text="x" * 400, drop_after=chance.choice([0, 2]))
    if kind < 0.7:
        return Reply(text="y" * 200, usage=chance.choice(["missing", "off"]), **counts)
    if kind < 0.75:
        return Reply(text="found it", hosted=[HostedCall("web_search")], **counts)
    if kind < 0.8:
        return Reply(text="z" * 300, error_after=chance.choice([1, 3]), **counts)
    if kind < 0.85:
        return Reply(text="done", model=chance.choice([SMALL, "gpt-4o-2024-08-06", "gpt-9"]), **counts)
    return Reply(text="w" * chance.choice([10, 3_000]), cached_tokens=chance.choice([0, 1]), **counts)


def one_after_the_other(replies: Sequence[Reply]) -> Callable[[ProviderRequest], Reply]:
    """A script that gives one of *replies* to each request, and the last one from then on."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


class Heard:
    """What is told while a run is on."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, record: Any) -> None:
        """Take a run's record."""
        self.lines.append(f"  {_plain(record)}")

    def thresholds(self) -> dict[str, Any]:
        """The functions for each threshold."""
        names = ("on_soft_limit", "on_hard_limit", "on_loop_detected", "on_downgrade")
        return {name: lambda report, name=name: self.lines.append(f"  {name} {report.total_spent}") for name in names}


def _plain(value: Any) -> str:
    return plain(value, without=_TIMES)


def accounts_of(guard: Any, provider: LocalProvider) -> Iterator[str]:
    """All that *guard* and *provider* have on a run that is over."""
    provider.wait_until_idle()
    for call in provider.calls:
        yield "  served " + " ".join(f"{name}={getattr(call, name, None)}" for name in _OF_SERVED)
    report = guard.report()
    yield f"  spent {guard.spent_usd} held {guard.reserved_usd} left {guard.remaining_usd}"
    for event in report.events:
        yield f"  {_plain(event)}"
    yield f"  {_plain(report)}"


@contextmanager
def overheard(lines: list[str]) -> Iterator[None]:
    """Have *lines* take what is logged and warned of."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"  log {record.levelname}")

    log, keep = logging.getLogger("budget_guard"), Keep()
    log.addHandler(keep)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
        ours = [each for each in warned if "udget" in str(each.message)]
        lines.extend(f"  warned {each.category.__name__} {Path(each.filename).name}" for each in ours)
    finally:
        log.removeHandler(keep)


class Reference:
    """The lines of many runs as they were made last, by exactly the packages that are named first in the file.

    Args:
        file: Where they are.
        packages: The packages whose versions decide how requests are worded, and so what is held for them.
        lines_of: What a run comes to.
        runs: How many there are.
    """

    def __init__(
        self, file: Path, packages: Sequence[str], lines_of: Callable[[int], Iterator[str]], runs: int
    ) -> None:
        self.file = file
        self.made_by = " ".join(f"{name} {version(name)}" for name in packages)
        self._lines_of = lines_of
        self.runs = runs

    def lines(self, number: int) -> list[str]:
        """What run *number* comes to now."""
        numbers = count()

        def token_hex(size: int = 32) -> str:  # ids are a part of the next request, and are weighed with it
            return hashlib.sha512(b"%d" % next(numbers)).hexdigest()[: 2 * size]

        with (
            mock.patch("secrets.token_hex", token_hex),
            mock.patch.dict(tokens._counts, clear=True),  # texts that were counted before are known at once
            mock.patch.object(tokens, "_counter", lambda encoding: None),
            mock.patch.object(attempts, "_told_of", set()),  # as if nothing had been warned of
        ):
            return [f"== {number}", *map(without_ids, self._lines_of(number))]

    def kept(self) -> tuple[str, list[list[str]]]:
        """What made the file, and the lines of each run in it."""
        made_by, *lines = kept(self.file)
        runs: list[list[str]] = []
        for line in lines:
            if line.startswith("== "):
                runs.append([])
            runs[-1].append(line)
        return made_by, runs

    def make(self) -> list[str]:
        """The lines of the whole file."""
        return [self.made_by, *(line for number in range(self.runs) for line in self.lines(number))]

    def check(self, group: int) -> None:
        """Check that each tenth run comes to what it came to, where the same packages have made the file."""
        made_by, before = self.kept()
        if made_by != self.made_by:
            pytest.skip(f"it was made by {made_by}: other versions word their requests in other ways")
        for number in range(group, self.runs, GROUPS):
            differs = difflib.unified_diff(before[number], self.lines(number), "before", "now", lineterm="", n=0)
            assert not (lines := list(differs)), "\n".join(lines)
        gc.collect()  # coroutines that a framework never awaits are found here, and not in another test
