"""Numbers for Prometheus: counted by each process for itself, and summed up where they are asked for.

A request pays for next to nothing of it: decisions are noted as they are, and looked at twice a second. Runs, users and
keys are no labels, for there is no end of them.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import NamedTuple

from budget_guard import BudgetError, BudgetExceeded, Decision, LedgerUnavailable, ModelCall
from budget_guard.events.sinks.metering import Names
from budget_guard.protocol import problem_of
from budget_guard.protocol.words import scope_kind, usd
from budget_guard.units.money import to_usd

BUCKETS_S = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0),
)
"""The upper bounds of the buckets, in seconds."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""https://prometheus.io/docs/instrumenting/exposition_formats/"""
FRESH_S = 10.0
"""Seconds after which a process that writes nothing more counts as ended: what it had under way is no more."""
_MOST_NOTED = 100_000
"""Decisions that wait to be looked at, and calls that are under way."""
_OUTAGE = str(LedgerUnavailable(detail=""))
"""How the reason of a call begins that passes because the ledger cannot be reached."""


class _Family(NamedTuple):
    """One metric."""

    name: str
    kind: str
    words: str
    labels: tuple[str, ...] = ()
    is_money: bool = False
    """Whether it is counted in nano-dollars, and told in dollars."""


_COUNTERS = {
    each.name: each
    for each in (
        _Family(
            *("budget_guard_decisions_total", "counter", "Decisions on calls."),
            labels=("action", "scope", "dimension", "mode"),
        ),
        _Family(
            *("budget_guard_cost_usd_total", "counter", "Dollars booked."), labels=("model", "provider"), is_money=True
        ),
        _Family(
            *(
                "budget_guard_uncertain_usd_total",
                "counter",
                "Dollars booked as an estimate, for the usage never came.",
            ),
            is_money=True,
        ),
        _Family("budget_guard_overrun_usd_total", "counter", "Dollars booked above what was held.", is_money=True),
        _Family("budget_guard_ledger_errors_total", "counter", "Calls for which the ledger could not be reached."),
        _Family("budget_guard_client_gone_total", "counter", "Requests whose client went before the end."),
        _Family("budget_guard_unmetered_requests_total", "counter", "Requests passed on without being held."),
    )
}
_GAUGES = {
    each.name: each
    for each in (
        _Family("budget_guard_reserved_usd", "gauge", "Dollars held for calls under way.", is_money=True),
        _Family("budget_guard_open_calls", "gauge", "Requests under way."),
        _Family("budget_guard_processes", "gauge", "Processes that serve."),
    )
}
_TIMES = {
    "upstream": ("budget_guard_upstream_seconds", "From the sending of a request to the end of its answer."),
    "guard": ("budget_guard_guard_seconds", "Deciding on a call, waiting for room, and booking."),
}


class Times:
    """How long something took, each time: counted by buckets."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def took(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class Snapshot(NamedTuple):
    """The numbers of one process at one moment."""

    counts: Sequence[tuple[str, Sequence[str], int]]
    """Of each counter, with its labels."""
    gauges: Mapping[str, int]
    times: Mapping[str, tuple[Sequence[int], float]]


class Metrics:
    """The numbers of one process. Not thread-safe: they are those of its event loop.

    Args:
        mode: The mode of the runs' budgets.
        under_way: The requests that are served now.
    """

    def __init__(self, mode: str, under_way: Sized) -> None:
        self._mode = mode
        self._under_way = under_way
        self._counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._models = Names()
        self._providers = Names()  # which callers of the decision service name as they like
        self._noted: deque[Decision] = deque(maxlen=_MOST_NOTED)
        self._open: deque[Decision] = deque(maxlen=_MOST_NOTED)
        self.note = self._noted.append
        """Takes notice of a decision."""
        self.upstream = Times()
        """From the sending of a request to the end of its answer."""
        self.guard = Times()
        """What a request waited for the guard."""

    def refused(self, error: BudgetError) -> None:
        """Count a call that was refused before there was a decision on it."""
        self._decided("block", error)

    def decided(self, decision: Decision) -> None:
        """Count a decision on a call that its caller settles by itself, in whatever process."""
        self._decided(decision.action, decision.error)

    def client_gone(self) -> None:
        """Count a request whose client went before the end."""
        self._add("budget_guard_client_gone_total")

    def unmetered(self) -> None:
        """Count a request that was passed on without being held."""
        self._add("budget_guard_unmetered_requests_total")

    def snapshot(self) -> Snapshot:
        """The numbers as they are now."""
        while self._noted:
            decision = self._noted.popleft()
            self._decided(decision.action, decision.error)
            if decision.action == "advisory_warn" and decision.reason.startswith(_OUTAGE):
                self._add("budget_guard_ledger_errors_total")
            if decision.reservation is not None:
                self._open.append(decision)
        self._open = deque((each for each in self._open if not self.settled(each)), maxlen=_MOST_NOTED)
        gauges = {
            "budget_guard_reserved_usd": sum(each.held.cost for each in self._open),
            "budget_guard_open_calls": len(self._under_way),
            "budget_guard_processes": 1,
        }
        times = {name: (times.counts, times.total_s) for name, times in self._times}
        return Snapshot([(name, labels, count) for (name, labels), count in self._counts.items()], gauges, times)

    @property
    def _times(self) -> Iterable[tuple[str, Times]]:
        return (("upstream", self.upstream), ("guard", self.guard))

    def settled(self, decision: Decision) -> bool:
        """Count what was booked for a call; return whether it is settled."""
        held = decision.reservation
        if held is None or not held.settled:
            return False
        posting = held.posting
        if posting is not None:
            labels = (self._models.bounded(posting.name), self._providers.bounded(_provider_of(decision)))
            self._add("budget_guard_cost_usd_total", posting.amounts.cost, labels)
            if posting.uncertain:
                self._add("budget_guard_uncertain_usd_total", posting.amounts.cost)
            if posting.overrun:
                self._add("budget_guard_overrun_usd_total", posting.overrun)
        return True

    def _decided(self, action: str, error: BudgetError | None) -> None:
        dimension = ""
        if isinstance(error, BudgetExceeded):
            dimension = error.dimension
        elif error is not None:
            dimension = problem_of(error).type.name
        scope = "" if error is None else scope_kind(error) or ""
        self._add("budget_guard_decisions_total", 1, (action, scope, dimension, self._mode))
        if isinstance(error, LedgerUnavailable):
            self._add("budget_guard_ledger_errors_total")

    def _add(self, name: str, count: int = 1, labels: tuple[str, ...] = ()) -> None:
        self._counts[name, labels] += count


def _provider_of(decision: Decision) -> str:
    """Who is paid: as the price table names it, else as the request says; empty where neither does."""
    price = None if decision.terms is None else decision.terms.rung.price
    asked = decision.call.provider if isinstance(decision.call, ModelCall) else None
    return (None if price is None else price.provider) or asked or ""


# Of several processes


class SharedNumbers:
    """The numbers of all processes, in files of one folder: each writes its own, and whoever is asked sums them up.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, snapshot: Snapshot) -> None:
        """Write the numbers of this process.

        Raises:
            OSError: If they cannot be written.
        """
        own = self._folder / f"{os.getpid()}.json"
        made = own.with_suffix(".made")
        made.write_text(json.dumps(snapshot), "utf-8")
        made.replace(own)

    def read(self) -> list[Snapshot]:
        """The numbers of all: of those that have ended, what they had counted.

        Raises:
            OSError: If they cannot be read.
        """
        found: list[Snapshot] = []
        for path in sorted(self._folder.glob("*.json")):
            counts, gauges, times = json.loads(path.read_text("utf-8"))
            is_there = time.time() - path.stat().st_mtime < FRESH_S  # by the clock of files, and not the gateway's
            found.append(Snapshot(counts, gauges if is_there else {}, times))
        return found


# As text


def exposition(snapshots: Sequence[Snapshot]) -> str:
    """The sum of all *snapshots* in the format of Prometheus."""
    return "".join(f"{line}\n" for line in _lines(snapshots))


def _lines(snapshots: Sequence[Snapshot]) -> Iterator[str]:
    sums: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in (*_COUNTERS, *_GAUGES)}
    for snapshot in snapshots:
        for name, labels, count in snapshot.counts:
            sums[name][tuple(labels)] += count
        for name, value in snapshot.gauges.items():
            sums[name][()] += value
    for name, family in (*_COUNTERS.items(), *_GAUGES.items()):
        yield from _head(name, family.kind, family.words)
        if not family.labels:
            sums[name][()] += 0  # what never happened is 0, and not unknown
        for labels, value in sorted(sums[name].items()):
            yield f"{name}{_labels(zip(family.labels, labels, strict=True))} {_figure(value, family.is_money)}"
    for which, (name, words) in _TIMES.items():
        yield from _head(name, "histogram", words)
        yield from _histogram(name, [snapshot.times[which] for snapshot in snapshots])


def _histogram(name: str, times: Sequence[tuple[Sequence[int], float]]) -> Iterator[str]:
    counts = [sum(each) for each in zip(*(counts for counts, _ in times), strict=True)] or [0] * (len(BUCKETS_S) + 1)
    passed = 0
    for bound, count in zip((*BUCKETS_S, None), counts, strict=True):
        passed += count
        yield f'{name}_bucket{{le="{"+Inf" if bound is None else f"{bound:g}"}"}} {passed}'
    yield f"{name}_sum {sum(total_s for _, total_s in times):.6f}"
    yield f"{name}_count {passed}"


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"


def _labels(named: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in named)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _figure(value: int, is_money: bool) -> str:
    return usd(to_usd(value)) if is_money else str(value)
