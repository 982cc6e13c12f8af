"""Advice on caps: the rule that was measured, runs that a cap stopped, and forecasts."""

from __future__ import annotations

import json
import random
import statistics
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_guard.reporting import Outcome, RunLog, RunRecord, advise, forecast

CENT = 10_000_000
START = datetime(2026, 11, 1, tzinfo=timezone.utc)


def run(cost: int, number: int = 0, outcome: Outcome = "ok", **fields: Any) -> RunRecord:
    started = START + timedelta(hours=number)
    return RunRecord(id=f"r{number}", started_at=started, outcome=outcome, cost=cost, **fields)


def runs(*cents: int, **fields: Any) -> list[RunRecord]:
    return [run(each * CENT, number, **fields) for number, each in enumerate(cents)]


def stopped(limit: int, number: int = 0) -> RunRecord:
    return run(limit - 1, number, "stopped", limit=limit, terminated_by="max_cost_usd")


def test_without_runs_there_is_no_number() -> None:
    advice = advise([])

    assert (advice.suggested_cap, advice.suggested_cap_usd, advice.is_guess) == (None, None, False)
    assert str(advice) == "0 runs, none of which tells what one takes: no advice."
    assert advise([run(0)]).suggested_cap is None, "free runs tell nothing"


def test_fewer_than_five_runs_give_a_guess_of_three_medians() -> None:
    advice = advise(runs(1, 2, 4, 8))

    assert (advice.suggested_cap_usd, advice.is_guess) == (Decimal("0.09"), True)
    assert "a guess from 4 runs" in str(advice)
    assert not advise(runs(1, 2, 4, 8, 1)).is_guess


@pytest.mark.parametrize(
    ("cents", "cap"),
    [
        ((10,) * 10, 20),  # at least twice the median
        ((10,) * 9 + (100,), 50),  # at most five times
        ((10, 10, 10, 10, 10, 20, 20, 20, 20, 20), 30),  # 1.5 times the 95th percentile for few
        ((10,) * 12 + (20,) * 12, 30),  # twice the median of 15
        ((10,) * 22 + (20,) * 2 + (24,) * 4, 30),  # 1.25 times it for 20 and more
    ],
)
def test_the_cap_is_a_percentile_between_multiples_of_the_median(cents: tuple[int, ...], cap: int) -> None:
    assert advise(runs(*cents)).suggested_cap == cap * CENT


def test_runs_that_the_cap_stopped_count_as_at_least_the_cap() -> None:
    good = runs(*([10] * 19), limit=30 * CENT)
    without, with_one = advise(good), advise([*good, stopped(30 * CENT, 30)])

    assert without.suggested_cap == 20 * CENT
    assert with_one.highest == 30 * CENT
    assert with_one.stopped == 1 and with_one.share_stopped == 0.05
    assert with_one.suggested_cap == 20 * CENT, "one of twenty is what a cap is for"


def test_a_cap_that_stops_many_is_raised_by_half_but_never_beyond_eight_medians() -> None:
    good = runs(*([10] * 8), limit=CENT)
    assert advise([*good, *(stopped(30 * CENT, 30 + n) for n in range(2))]).suggested_cap == 45 * CENT
    assert advise([*good, *(stopped(70 * CENT, 30 + n) for n in range(2))]).suggested_cap == 80 * CENT


def test_stops_under_an_earlier_cap_do_not_raise_the_present_one() -> None:
    earlier = [stopped(15 * CENT, n) for n in range(3)]
    since = [run(10 * CENT, 10 + n, limit=40 * CENT) for n in range(20)]

    assert "which stopped" not in advise([*earlier, *since]).rule


def test_other_stops_are_failures() -> None:
    advice = advise([*runs(10, 10, 10, 10, 10), run(CENT, 9, "stopped", terminated_by="max_requests")])

    assert (advice.stopped, advice.failures, advice.successes) == (0, 1, 5)
    assert (advice.cost_per_success, advice.cost_per_failure) == (10 * CENT + CENT // 5, CENT)


def test_advice_tells_what_it_is_known_by_and_no_more() -> None:
    same, mixed = str(advise(runs(10, 10, 10, 10, 10))), str(advise(runs(10, 20, 30, 40, 50)))
    assert "highest $0.10, variation 0%. Cost per success $0.10." in same
    assert "highest $0.50, variation 53%. Cost per success $0.30." in mixed
    assert str(advise(runs(10))).endswith("highest $0.10. Cost per success $0.10.")
    assert str(advise([stopped(10 * CENT, number) for number in range(6)])).endswith("highest $0.10.")


def test_two_kinds_of_work_under_one_name_are_told() -> None:
    assert "name them apart" in str(advise(runs(*([10] * 9), 90)))
    assert "name them apart" not in str(advise(runs(*([10] * 9), 30)))


def test_the_dearest_runs_are_named_and_tasks_kept_apart() -> None:
    mixed = [*runs(1, 9, 3, 7, 5, 8, task="a"), *runs(100, task="b")]

    assert advise(mixed, task="a").dearest == ("r1", "r5", "r3", "r4", "r2")
    assert advise(mixed, task="a").runs == 6
    assert "Several tasks" in str(advise(mixed)) and "Several tasks" not in str(advise(mixed, task="a"))


def test_twelve_rounds_of_advice_do_not_ratchet_down() -> None:
    draw = random.Random(5)
    last: list[float] = []
    for _ in range(60):
        cap = 30 * CENT
        for _ in range(12):
            costs = [int(10 * CENT * draw.lognormvariate(0, 0.6)) for _ in range(20)]
            records = [run(cost, n, limit=cap) if cost <= cap else stopped(cap, n) for n, cost in enumerate(costs)]
            cap = advise(records).suggested_cap or 0
        last.append(cap / (10 * CENT))
    assert statistics.mean(last) > 2.7


@given(
    st.lists(st.builds(run, st.integers(0, 2**62), st.integers(0, 9), st.sampled_from(["ok", "failed"])), max_size=9)
)
def test_any_costs_give_advice_that_can_be_read(records: list[RunRecord]) -> None:
    advice = advise(records)

    assert str(advice)
    assert advice.suggested_cap is None or advice.suggested_cap > 0
    assert advice.successes + advice.failures + advice.stopped == advice.runs


def test_a_forecast_scales_what_was_seen_and_says_how_sure_it_is() -> None:
    seen = [run(CENT, number) for number in range(240)]  # one an hour, ten days
    told = forecast(seen, until=START + timedelta(days=10))

    assert told is not None
    assert (told.runs, told.mean, told.days_seen) == (720, 720 * CENT, 10)
    assert 0 < told.low < told.mean < told.high
    few = forecast(seen[:24], until=START + timedelta(days=1))
    assert few is not None and few.high - few.low > told.high - told.low, "a shorter time is less sure"
    assert forecast([], until=START) is None
    assert "about 720 runs, from 10.0 days" in str(told)


def test_a_forecast_covers_what_comes_nine_times_of_ten() -> None:
    draw = random.Random(3)

    def month(days: int) -> list[RunRecord]:
        at, made = 0.0, []
        while (at := at + draw.expovariate(4)) < days:
            cost = int(CENT * draw.lognormvariate(0, 1))
            made.append(RunRecord(id="r", started_at=START + timedelta(days=at), outcome="ok", cost=cost))
        return made

    hits = 0
    for _ in range(100):
        told = forecast(month(30), until=START + timedelta(days=30))
        assert told is not None
        hits += told.low <= sum(each.cost for each in month(30)) <= told.high
    assert 80 <= hits <= 98


def test_senseless_questions_are_errors() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        forecast([], until=START.replace(tzinfo=None))
    with pytest.raises(ValueError, match="days=0"):
        forecast([], until=START, days=0)


def test_records_that_cannot_be_true_are_left_out_and_told_of(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.jsonl")
    for cost in (1, 2, 3, 4, 5):
        log.add(RunRecord(id="r", started_at=datetime.now(timezone.utc), outcome="ok", cost=cost * 10**8))
    with (tmp_path / "runs.jsonl").open("a") as file:
        line = json.loads((tmp_path / "runs.jsonl").read_text().splitlines()[0])
        file.write(json.dumps({**line, "cost": -(10**12)}) + "\n{torn\n")
    advice = advise(log)
    assert (advice.runs, advice.highest, log.skipped) == (5, 5 * 10**8, 2)
    assert "2 records were left out: they cannot be true, or cannot be read." in str(advice)
    assert "left out" not in str(advise(list(log)))
