"""The four modes: how hard the gate is."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    LoopPolicy,
    MemoryLedger,
    ToolCall,
    Usage,
)
from budget_guard.testing import FakeClock
from tests.builders import PRICES, Way, call, session


def test_a_hard_gate_admits_no_call_that_might_not_fit(way: Way) -> None:
    run = session(Budget("$0.25", mode="hard_gate"))
    actions = [way.authorize(run, call()).action for _ in range(3)]
    assert actions == ["allow", "allow", "block"]


def test_a_soft_gate_admits_calls_as_long_as_anything_is_left(way: Way) -> None:
    run = session(Budget("$0.25", mode="soft_gate"))
    for _ in range(3):
        way.pay(run, call())
    assert run.spent_usd == Decimal("0.30")
    error = way.authorize(run, call()).error
    assert isinstance(error, BudgetExceeded) and error.dimension == "max_cost_usd"


def test_a_soft_gate_counts_what_is_held(way: Way) -> None:
    run = session(Budget("$0.25", mode="soft_gate"))
    assert [way.authorize(run, call()).action for _ in range(4)] == ["allow", "allow", "allow", "block"]


@pytest.mark.parametrize(
    ("limit", "used", "one_more"),
    [
        ("max_cost_usd", "0.0006", "0.000600001"),
        ("max_input_tokens", 100, 101),
        ("max_output_tokens", 50, 51),
        ("max_total_tokens", 150, 151),
        ("max_requests", 1, 2),
    ],
)
def test_a_soft_gate_is_open_as_long_as_one_is_left_of_each_limit(
    way: Way, limit: str, used: Any, one_more: Any
) -> None:
    for most, dimension in ((used, limit), (one_more, None)):
        limits: Any = {limit: most}
        run = session(Budget(**limits, mode="soft_gate"))
        way.pay(run, call("large", tokens=100, cap=50), Usage(input=100, output=50))
        error = way.authorize(run, call("large", tokens=100, cap=50)).error
        assert (error.dimension if isinstance(error, BudgetExceeded) else error) == dimension


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"max_cost_usd": "$0.05"}, call()),
        ({"max_total_tokens": 50}, call("large", cap=50)),
        ({"max_requests": 1}, call()),
    ],
)
def test_an_advisory_budget_lets_everything_through_and_says_what_it_would_have_refused(
    way: Way, limits: dict[str, Any], asked: Any
) -> None:
    run = session(Budget(**limits, mode="advisory_estimate"))
    decisions = [way.authorize(run, asked) for _ in range(2)]
    last = decisions[-1]
    assert (last.action, last.error) == ("advisory_warn", None)
    assert next(iter(limits)) in last.reason
    before = run.spent_usd
    way.commit(last.require(), Usage(input=100, output=50))
    assert run.spent_usd > before or "max_cost_usd" not in limits
    assert run.terminated_by is None


def test_an_advisory_budget_allows_without_a_word_what_fits(way: Way) -> None:
    decision = way.authorize(session(Budget("$1", mode="advisory_estimate")), call())
    assert (decision.action, decision.reason) == ("allow", "")


def test_an_advisory_budget_does_not_refuse_late_calls_either(way: Way) -> None:
    clock = FakeClock()
    run = session(Budget(max_duration_s=5, mode="advisory_estimate"), clock=clock)
    way.pay(run, call())
    clock.advance(6)
    decision = way.authorize(run, call())
    assert decision.action == "advisory_warn" and "max_duration_s" in decision.reason
    way.commit(decision.require(), Usage())
    assert run.report().breakdown.llm.calls == 2


def test_an_advisory_budget_counts_what_it_has_no_price_for(way: Way) -> None:
    run = session(Budget("$1", mode="advisory_estimate"))
    decision = way.authorize(run, call("nobody-knows", cap=50))
    assert decision.action in ("allow", "advisory_warn")
    way.commit(decision.require(), Usage(input=50, output=5))
    assert run.report().unpriced_calls == 1


@pytest.mark.parametrize(("mode", "cap"), [("hard_gate", 4_000), ("soft_gate", None), ("advisory_estimate", None)])
def test_only_a_hard_gate_caps_answers_of_its_own_accord(way: Way, mode: Any, cap: int | None) -> None:
    decision = way.authorize(session(Budget("$0.0401", mode=mode)), call("large"))
    assert (decision.output_cap, decision.output_clamped, decision.bounded) == (cap, cap is not None, cap is not None)
    assert decision.estimate.output_tokens == 4_000


def test_actuals_only_holds_nothing_and_refuses_once_a_limit_is_reached(way: Way) -> None:
    run = session(Budget("$0.25", mode="actuals_only"))
    for _ in range(3):
        reservation = way.reserve(run, call())
        assert run.reserved_usd == 0
        way.commit(reservation, Usage())
    assert run.spent_usd == Decimal("0.30")
    assert way.authorize(run, call()).action == "block"


def test_actuals_only_keeps_the_clients_cap_and_claims_no_bound(way: Way) -> None:
    run = session(Budget("$0.01", mode="actuals_only"))
    for cap in (None, 700):
        decision = way.authorize(run, call("large", cap=cap))
        assert (decision.output_cap, decision.bounded, decision.output_clamped) == (cap, False, False)


def test_actuals_only_never_hides_a_call_whose_usage_is_missing(way: Way) -> None:
    run = session(Budget("$1", mode="actuals_only"))
    way.commit(way.reserve(run, call("large")), None)
    report = run.report()
    assert report.breakdown.llm.calls == 1
    assert report.unpriced_calls == 1 or report.uncertain > 0


def test_requests_are_counted_while_they_are_in_flight_even_in_actuals_only(way: Way) -> None:
    run = session(Budget(max_requests=2, mode="actuals_only"))
    assert [way.authorize(run, call()).action for _ in range(3)] == ["allow", "allow", "block"]


@pytest.mark.parametrize("mode", ["hard_gate", "soft_gate", "advisory_estimate", "actuals_only"])
def test_every_mode_books_what_was_spent_and_obeys_a_revocation(way: Way, mode: Any) -> None:
    run = session(Budget("$1", mode=mode))
    way.pay(run, call())
    assert run.spent_usd == Decimal("0.10")
    run.revoke("stop")
    decision = way.authorize(run, call())
    assert isinstance(decision.error, BudgetRevoked)
    assert run.reserved_usd == 0


# --- several things at once that are ignored

_IGNORED = ("late", "loop", "cap", "limit", "ceiling", "fast")
"""What a call may do that an advisory budget tells of: of several, the last one here is told."""
_TOLD = {
    "late": "max_duration_s",
    "loop": "is in a loop",
    "cap": "call_max_output_tokens",
    "fast": "max_usd_per_minute",
    "ceiling": "user:u1",
    "limit": "run:r1",
}
"""The words by which each is known."""


@pytest.mark.parametrize("kind", ["model", "tool"])
def test_of_several_things_that_an_advisory_budget_ignores_the_nearest_to_the_money_is_told(
    way: Way, kind: str
) -> None:
    left_out = {"loop" if kind == "model" else "cap"}
    may = [each for each in _IGNORED if each not in left_out]
    for wrong in (frozenset(some) for size in range(6) for some in itertools.combinations(may, size)):
        clock = FakeClock(datetime.now(timezone.utc))
        ceilings = {"user": Budget("$0.05" if "ceiling" in wrong else "$9", mode="advisory_estimate")}
        run = BudgetAuthority(MemoryLedger(clock=clock), ceilings, clock=clock, pricing=PRICES).session(
            Budget(
                max_cost_usd="0.05" if "limit" in wrong else None,
                max_requests=90,
                mode="advisory_estimate",
                max_duration_s=10 if "late" in wrong else 99,
                loop=LoopPolicy(max_repeats=2) if "loop" in wrong else None,
                clamp_output="reject",
                call_max_output_tokens=50 if "cap" in wrong else None,
                max_usd_per_minute="0.05" if "fast" in wrong else "9",
            ),
            user="u1",
            run_id="r1",
        )
        asked = call(cap=60) if kind == "model" else run.with_trail(ToolCall("search", 10**8), "a")
        way.release(way.reserve(run, ToolCall("first")))
        clock.advance(20)
        if "fast" in wrong:
            way.charge(run, "spent", "0.05")
        for _ in range(7 if "loop" in wrong else 1):
            decision = way.authorize(run, asked)
            hold = decision.require()
            hold.note_result("same")
            way.release(hold)
        told = max(wrong, key=_IGNORED.index, default=None)
        assert (decision.action, decision.error) == ("allow" if told is None else "advisory_warn", None), wrong
        found = next((name for name, words in _TOLD.items() if words in decision.reason), None)
        assert found == told, (sorted(wrong), decision.reason)
