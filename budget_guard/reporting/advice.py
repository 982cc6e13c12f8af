"""Advice: what cap to give a kind of work, and what a month of it will cost, from the records of its runs.

The rule for a cap was chosen by simulation over costs that vary little, much and wildly, and over two kinds of work
under one name; ``benchmarks/advice.py`` prints the table. Runs that a cap stopped are counted as "at least the cap":
advice from the others alone would go down with every round of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from budget_guard.reporting.records import RunRecord
from budget_guard.units.money import format_usd, to_usd

FEWEST = 5
"""Runs below which a cap is a guess: three times the median."""
_FEW = 20
"""Runs below which the highest costs are not well known, and get more room."""
_MANY_STOPPED = 0.05
"""The share of runs stopped by the cap above which it is too low."""
_TWO_GROUPS = 4
"""How many times the median the 95th percentile is where two kinds of work share a name."""
_MOST_MEDIANS = 8
"""A cap is never more times the median: runs that never end are stopped by any."""
_DEAREST = 5
_LOW_AND_HIGH = 1.645
"""Standard deviations between the mean and the ends of the middle 90% of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What the runs of one kind of work took, and the cap to give the next one. Money is in nano-dollars."""

    runs: int
    """Runs that were looked at."""
    successes: int
    failures: int
    """Runs that ended without a result: failed, abandoned, or stopped by anything but the dollar limit."""
    stopped: int
    """Runs that their dollar limit stopped."""
    median: int | None
    """Of the costs of successes and of stopped runs; None without any, as the next two."""
    p95: int | None
    highest: int | None
    variation: float | None
    """The standard deviation of the successes' costs over their mean; None for fewer than two."""
    cost_per_success: int | None
    """All that was spent, over the successes."""
    cost_per_failure: int | None
    """What failures and stopped runs spent, over their number."""
    suggested_cap: int | None
    """None where there is nothing to go by."""
    rule: str
    """How the cap was found, in words."""
    is_guess: bool
    """Whether there are too few runs to go by."""
    notes: tuple[str, ...]
    """What to look at, in words."""
    dearest: tuple[str, ...]
    """The ids of the dearest runs, dearest first."""

    @property
    def suggested_cap_usd(self) -> Decimal | None:
        """Dollars; None where there is nothing to go by."""
        return None if self.suggested_cap is None else to_usd(self.suggested_cap)

    @property
    def share_stopped(self) -> float:
        """The fraction of all runs that their dollar limit stopped."""
        return self.stopped / self.runs if self.runs else 0.0

    def __str__(self) -> str:
        if self.suggested_cap is None or self.median is None or self.p95 is None or self.highest is None:
            return " ".join((f"{self.runs} runs, none of which tells what one takes: no advice.", *self.notes))
        spread = "" if self.variation is None else f", variation {self.variation:.0%}"
        per = "" if self.cost_per_success is None else f"Cost per success {format_usd(self.cost_per_success)}. "
        return " ".join(
            (
                f"Suggested cap: {format_usd(self.suggested_cap)} ({self.rule}; "
                f"{self.successes} successes, {self.stopped} stopped, {self.failures} failed).",
                f"Median {format_usd(self.median)}, 95% below {format_usd(self.p95)}, "
                f"highest {format_usd(self.highest)}{spread}. {per}".strip(),
                *self.notes,
            )
        )


def advise(records: Iterable[RunRecord], *, task: str | None = None) -> Advice:
    """The cap to give the next run of a kind of work.

    Args:
        records: Records of its runs, such as a `RunLog`.
        task: The kind of work, where *records* has several.
    """
    runs = [record for record in records if task is None or record.task == task]
    good = [run for run in runs if run.outcome == "ok"]
    stopped = [run for run in runs if _hit_its_cap(run)]
    bad = [run for run in runs if run.outcome != "ok"]
    costs = sorted([run.cost for run in good] + [max(run.cost, run.limit or 0) for run in stopped])
    cap, rule, notes = _cap(costs, runs)
    if task is None and len({run.task for run in runs}) > 1:
        notes.append("Several tasks are taken together: ask for one of them with task=.")
    left_out: object = getattr(records, "skipped", 0)
    if isinstance(left_out, int) and left_out:
        notes.append(f"{left_out} records were left out: they cannot be true, or cannot be read.")
    highest_first = sorted(runs, key=lambda run: -run.cost)
    successes = [run.cost for run in good]
    varied = len(successes) > 1 and any(successes)
    return Advice(
        runs=len(runs),
        successes=len(good),
        failures=len(bad) - len(stopped),
        stopped=len(stopped),
        median=round(statistics.median(costs)) if costs else None,
        p95=round(_p95(costs)) if costs else None,
        highest=costs[-1] if costs else None,
        variation=statistics.stdev(successes) / statistics.mean(successes) if varied else None,
        cost_per_success=_mean(runs, len(good)),
        cost_per_failure=_mean(bad, len(bad)),
        suggested_cap=cap,
        rule=rule,
        is_guess=0 < len(costs) < FEWEST,
        notes=tuple(notes),
        dearest=tuple(run.id for run in highest_first[:_DEAREST]),
    )


def _hit_its_cap(run: RunRecord) -> bool:
    return run.outcome == "stopped" and run.terminated_by == "max_cost_usd"


def _mean(runs: Iterable[RunRecord], over: int) -> int | None:
    """What *runs* cost over their number *over*, rounded up; None for none."""
    return -(-sum(run.cost for run in runs) // over) if over else None


def _cap(costs: Sequence[int], runs: Sequence[RunRecord]) -> tuple[int | None, str, list[str]]:
    """The cap for *costs*, how it was found, and what to look at."""
    if not costs or not costs[-1]:
        return None, "nothing to go by", []
    median, p95 = statistics.median(costs), _p95(costs)
    if len(costs) < FEWEST:
        return math.ceil(3 * median) or costs[-1], f"a guess from {len(costs)} runs: 3 times the median", []
    factor = 1.5 if len(costs) < _FEW else 1.25
    cap = min(5 * median, max(2 * median, factor * p95)) or float(costs[-1])
    rule = f"{factor:g} times the 95th percentile, between 2 and 5 times the median, of {len(costs)} runs"
    notes: list[str] = []
    limits = [run.limit for run in sorted(runs, key=lambda run: run.started_at) if run.limit is not None]
    if limits:
        last = limits[-1]
        under = [run for run in runs if run.limit == last]
        stops = sum(_hit_its_cap(run) for run in under)
        share = stops / len(under)
        raised = min(1.5 * last, _MOST_MEDIANS * median)
        if stops > 1 and share > _MANY_STOPPED and raised > cap:
            cap = raised
            rule = f"1.5 times the present cap of {format_usd(last)}, which stopped {share:.0%} of {len(under)} runs"
    if median and p95 / median > _TWO_GROUPS:
        notes.append("There seem to be two kinds of work under one name: name them apart with Budget(task=).")
    return math.ceil(cap), rule, notes


def _p95(costs: Sequence[int]) -> float:
    """The 95th percentile, between its two neighbours; of one cost, that cost."""
    return statistics.quantiles(costs, n=20, method="inclusive")[-1] if len(costs) > 1 else float(costs[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a time to come will cost if it goes on as it did. Money is in nano-dollars."""

    runs: int
    """How many runs it will be."""
    mean: int
    low: int
    """In one of twenty such times it will be less."""
    high: int
    """In one of twenty such times it will be more."""
    days_seen: float
    """How long the records tell of."""

    def __str__(self) -> str:
        return (
            f"{format_usd(self.mean)} (between {format_usd(self.low)} and {format_usd(self.high)}), "
            f"about {self.runs:,} runs, from {self.days_seen:.1f} days"
        )


def forecast(records: Iterable[RunRecord], *, until: datetime, days: float = 30) -> Forecast | None:
    """What the *days* after *until* will cost, if runs come as often and cost as much as in *records*.

    Runs are taken to come independently of each other. Low and high allow for their chance, for that of their costs,
    and for how short a time was seen; not for growth.

    Args:
        records: Records of runs, such as a `RunLog`.
        until: The end of the time that they tell of, with a time zone: now, as a rule.
        days: How long to look ahead.

    Returns:
        None without a record.

    Raises:
        ValueError: If *until* has no time zone, or *days* is not above 0.
    """
    if until.tzinfo is None:
        raise ValueError(f"until={until!r} has no time zone: write datetime.now(timezone.utc)")
    if not days > 0 or math.isinf(days):
        raise ValueError(f"days={days!r} must be above 0")
    runs = [record for record in records if record.started_at <= until]
    if not runs:
        return None
    seen = max((until - min(run.started_at for run in runs)) / timedelta(days=1), 1 / 24)
    ratio = days / seen
    mean = ratio * sum(run.cost for run in runs)
    # the variance of a compound Poisson sum is the number of runs times the mean of the squares; that of what was seen,
    # scaled, comes on top
    spread = _LOW_AND_HIGH * math.sqrt((ratio + ratio**2) * sum(run.cost**2 for run in runs))
    return Forecast(
        runs=round(ratio * len(runs)),
        mean=math.ceil(mean),
        low=max(0, math.floor(mean - spread)),
        high=math.ceil(mean + spread),
        days_seen=seen,
    )
