"""How good the advice on caps is, on costs that are made up: the share of good runs that the advised cap stops, and the
cap as a multiple of the true median, by how many runs it was made from. Two simpler rules stand beside it.

Then twelve rounds of twenty runs each, in which the cap is always the last advice: runs that it stopped are counted as
"at least the cap", and beside that left out. ``python benchmarks/advice.py``
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from budget_guard.reporting import Outcome, RunRecord, advise

CENT = 10_000_000
SAMPLES = 400
NUMBERS = (3, 10, 30, 100)
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def lognormal(draw: random.Random, sigma: float) -> float:
    """One cost, as a multiple of the median."""
    return draw.lognormvariate(0, sigma)


def two_kinds(draw: random.Random) -> float:
    """One cost, of two kinds of work under one name: three of ten cost four times as much."""
    return draw.lognormvariate(0, 0.3) * (4 if draw.random() < 0.3 else 1)


SHAPES: dict[str, Callable[[random.Random], float]] = {
    "steady, sigma 0.3": lambda draw: lognormal(draw, 0.3),
    "usual, sigma 0.6": lambda draw: lognormal(draw, 0.6),
    "wild, sigma 1.0": lambda draw: lognormal(draw, 1.0),
    "two kinds": two_kinds,
}


def advised(costs: Sequence[float], cap: float | None = None) -> float:
    """The advised cap, as a multiple of the true median. Costs above *cap* were stopped by it."""
    records: list[RunRecord] = []
    for cost in costs:
        was_stopped = cap is not None and cost > cap
        outcome: Outcome = "stopped" if was_stopped else "ok"
        records.append(
            RunRecord(
                id="r",
                started_at=START,
                outcome=outcome,
                cost=round(min(cost, cap or cost) * CENT),
                limit=None if cap is None else round(cap * CENT),
                terminated_by="max_cost_usd" if was_stopped else None,
            )
        )
    return (advise(records).suggested_cap or 0) / CENT


RULES: dict[str, Callable[[Sequence[float]], float]] = {
    "2 x median": lambda costs: 2 * statistics.median(costs),
    "3 x median": lambda costs: 3 * statistics.median(costs),
    "advise()": advised,
}


def rules() -> None:
    """Print the first table."""
    draw = random.Random(3)
    for shape, cost in SHAPES.items():
        median = statistics.median(cost(draw) for _ in range(20_000))
        print(f"{shape:20}" + "".join(f"{f'n={number}':>16}" for number in NUMBERS))
        for name, rule in RULES.items():
            cells: list[str] = []
            for number in NUMBERS:
                caps = [rule([cost(draw) for _ in range(number)]) for _ in range(SAMPLES)]
                stopped = statistics.mean(cost(draw) > cap for cap in caps for _ in range(50))
                cells.append(f"{stopped:5.0%} / {statistics.mean(caps) / median:4.1f} x")
            print(f"  {name:18}" + "".join(f"{cell:>16}" for cell in cells))


def rounds() -> None:
    """Print the second table."""
    for sigma in (0.6, 1.0):
        for name, counts_stopped in (("successes alone", False), ("stopped as at least the cap", True)):
            draw = random.Random(5)
            caps: list[list[float]] = [[] for _ in range(12)]
            shares: list[list[float]] = [[] for _ in range(12)]
            for _ in range(SAMPLES // 4):
                cap = 3.0
                for n in range(12):
                    costs = [lognormal(draw, sigma) for _ in range(20)]
                    caps[n].append(cap)
                    shares[n].append(sum(cost > cap for cost in costs) / 20)
                    good = [cost for cost in costs if cost <= cap]
                    cap = advised(costs, cap) if counts_stopped else advised(good)
            told = (f"{statistics.mean(caps[n]):.1f} x ({statistics.mean(shares[n]):.0%})" for n in (0, 3, 7, 11))
            print(f"sigma {sigma}  {name:28}  rounds 1, 4, 8, 12:  " + "   ".join(told))


if __name__ == "__main__":
    rules()
    rounds()
