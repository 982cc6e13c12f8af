"""What a call must be before it is let through, and what is held for it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_guard import (
    Allowance,
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    DowngradePolicy,
    ModelCall,
    Session,
    ToolCall,
    UnboundedCallError,
    UnknownPriceError,
    Usage,
    weigh,
)
from budget_guard.calls.ladder import Ladder
from budget_guard.calls.planner import Planner
from budget_guard.pricing import PriceTable
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import MOST
from tests.builders import PRICES, ZERO, Way, call, session

IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}


# --- decisions


def test_an_admitted_call_has_an_id_a_hold_and_everything_it_was_decided_on(way: Way) -> None:
    run = session("$1.00", run_id="r1")
    decision = way.authorize(run, call("large", tokens=100, cap=50))
    assert (decision.action, decision.name, decision.requested, decision.kind) == ("allow", "large", "large", "model")
    assert (decision.estimate.input_tokens, decision.estimate.output_tokens) == (100, 50)
    assert decision.estimate.cost == 100 * 1_000 + 50 * 10_000
    assert decision.estimate.cost_usd == Decimal("0.0006")
    assert (decision.scopes, decision.bounded, decision.error) == (("run:r1",), True, None)
    assert "overlay:" in decision.prices
    assert decision.require().id == decision.id
    assert run.reserved_usd == Decimal("0.0006")


def test_every_decision_has_an_id_of_its_own(way: Way) -> None:
    run = session("$0.25")
    ids = [way.authorize(run, call()).id for _ in range(5)]
    assert len(set(ids)) == 5
    assert [decision.id for decision in run.decisions()] == ids


def test_a_refused_call_carries_its_error_and_holds_nothing(way: Way) -> None:
    run = session("$0.25", run_id="r1")
    for _ in range(2):
        way.pay(run, call())
    decision = way.authorize(run, call())
    assert (decision.action, decision.reservation) == ("block", None)
    error = decision.error
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.limit, error.actual, error.estimate) == (
        "max_cost_usd",
        Decimal("0.25"),
        Decimal("0.20"),
        Decimal("0.10"),
    )
    assert (error.scope, error.decision_id) == ("run:r1", decision.id)
    assert error.report is not None and error.report.total_spent == Decimal("0.20")
    for words in ("max_cost_usd=$0.25", "$0.20", "$0.10", "raise_limits(max_cost_usd=...)"):
        assert words in decision.reason
    assert (run.reserved_usd, run.terminated_by) == (ZERO, "max_cost_usd")
    with pytest.raises(BudgetExceeded):
        decision.require()


def test_decisions_can_be_asked_for_by_action(way: Way) -> None:
    run = session("$0.10")
    for _ in range(3):
        way.authorize(run, call())
    assert [len(run.decisions(action=action)) for action in ("allow", "block", "downgrade")] == [1, 2, 0]


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"max_input_tokens": 199}, "max_input_tokens"),
        ({"max_output_tokens": 99}, "max_output_tokens"),
        ({"max_total_tokens": 299}, "max_total_tokens"),
        ({"max_requests": 1}, "max_requests"),
        ({"max_cost_usd": "0.0011999"}, "max_cost_usd"),
        ({"max_input_tokens": 200, "max_output_tokens": 100, "max_total_tokens": 300, "max_requests": 2}, None),
        ({"max_cost_usd": "0.0012"}, None),
    ],
)
def test_each_limit_refuses_the_first_call_that_would_pass_it(
    way: Way, limits: dict[str, Any], refused: str | None
) -> None:
    run = session(Budget(**limits))
    way.reserve(run, call("large", tokens=100, cap=50))
    error = way.authorize(run, call("large", tokens=100, cap=50)).error
    assert (error.dimension if isinstance(error, BudgetExceeded) else None) == refused


# --- what cannot be weighed


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (weigh(messages=[IMAGE]), "an image"),
        (weigh(messages=[{"type": "media", "file_uri": "gs://bucket/film.mp4"}]), "a file"),
        (weigh(messages="hi", opaque=["history kept by the provider"]), "history kept by the provider"),
        (weigh(messages=[{"type": "input_audio", "data": "..."}]), "audio"),
        (weigh(messages=[{"type": "reasoning", "id": "rs_1"}]), "reasoning kept by the provider"),
    ],
)
def test_content_that_cannot_be_weighed_is_refused_unless_there_is_an_allowance(
    way: Way, prompt: Any, words: str
) -> None:
    opaque = call("large", cap=100)._replace(prompt=prompt)
    decision = way.authorize(session("$1"), opaque)
    assert isinstance(decision.error, UnboundedCallError)
    assert words in str(decision.error) and "allowance=Allowance(input_tokens=" in str(decision.error)
    allowed = way.authorize(session(Budget("$1", allowance=Allowance(input_tokens=5_000))), opaque)
    assert allowed.estimate.input_tokens == prompt.base + prompt.text + 5_000
    for relaxed in (Budget("$1", mode="soft_gate"), Budget(max_requests=3)):
        assert way.authorize(session(relaxed), opaque).action == "allow"


def test_hosted_tools_are_refused_unless_there_is_an_allowance_for_their_uses(way: Way) -> None:
    searching = call("searcher", tokens=100, cap=10, hosted_tools=("web_search",))
    refused = way.authorize(session("$1"), searching)
    assert isinstance(refused.error, UnboundedCallError)
    assert "web_search" in str(refused.error) and "hosted_tool_calls=" in str(refused.error)
    allowed = way.authorize(session(Budget("$1", allowance=Allowance(hosted_tool_calls=3))), searching)
    assert allowed.estimate.cost == 30_000_000 + 100 * 1_000 + 10 * 10_000


def test_hosted_tools_of_a_model_that_may_be_unpriced_cost_nothing(way: Way) -> None:
    run = session(Budget("$1", unpriced="allow", allowance=Allowance(hosted_tool_calls=3)))
    decision = way.authorize(run, call("nobody-knows-it", cap=10, hosted_tools=("web_search",)))
    assert (decision.action, decision.estimate.cost) == ("allow", 0)


def test_a_hosted_tool_whose_fee_is_not_known_is_refused(way: Way) -> None:
    run = session(Budget("$1", allowance=Allowance(hosted_tool_calls=3)))
    decision = way.authorize(run, call("large", cap=10, hosted_tools=("web_search",)))
    assert isinstance(decision.error, UnknownPriceError)
    assert decision.error.missing == "web_search"


# --- unknown prices


def test_an_unknown_price_is_refused_before_anything_is_held(way: Way) -> None:
    run = session("$1")
    decision = way.authorize(run, call("gpt-4o-mini-foo"))
    assert isinstance(decision.error, UnknownPriceError)
    assert 'pricing={"gpt-4o-mini-foo": (' in str(decision.error)
    assert (run.reserved_usd, run.spent_usd, run.terminated_by) == (ZERO, ZERO, "unknown_price")


def test_an_unknown_tier_is_refused_too(way: Way) -> None:
    run = Session(Budget("$1"))
    assert isinstance(way.authorize(run, call("gpt-4o", service_tier="golden")).error, UnknownPriceError)


def test_an_unknown_provider_takes_the_dearest_price_of_that_very_name(way: Way) -> None:
    run = Session(Budget("$1"))
    known = way.authorize(run, call("gpt-4o", provider="openai")).estimate
    assert way.authorize(run, call("gpt-4o", provider="nobody")).estimate.cost >= known.cost > 0
    assert isinstance(way.authorize(run, call("gpt-4o-foo", provider="nobody")).error, UnknownPriceError)


@pytest.mark.parametrize("cap", [None, 50])
def test_a_budget_may_allow_unknown_prices_and_says_so(way: Way, cap: int | None) -> None:
    run = session(Budget("$1", unpriced="allow"))
    decision = way.authorize(run, call("nobody-knows", cap=cap))
    assert (decision.action, decision.estimate.cost) == ("allow", 0)
    way.commit(decision.require(), Usage(input=90, output=40))
    report = run.report()
    assert (report.total_spent, report.unpriced_calls) == (ZERO, 1)
    assert report.breakdown.llm.by_model["nobody-knows"].input_tokens == 90
    assert "Unpriced calls: 1" in str(report)


def test_unknown_prices_need_no_leave_where_no_dollar_limit_applies(way: Way) -> None:
    run = session(Budget(max_total_tokens=1_000))
    assert way.authorize(run, call("nobody-knows", tokens=100, cap=50)).action == "allow"
    assert way.authorize(run, call("nobody-knows", tokens=901, cap=50)).action == "block"


def test_a_price_that_changes_while_a_run_lasts_is_used_within_the_minute(way: Way) -> None:
    clock = FakeClock(datetime(2026, 10, 10, tzinfo=timezone.utc))
    run, asked = Session(Budget("$100"), clock=clock), call("mistral-large-latest", tokens=1_000_000, cap=1)
    before = way.authorize(run, asked).estimate.cost
    clock.advance(20 * 86_400)  # the price rises on the 20th
    assert way.authorize(run, asked).estimate.cost == 2 * before


def test_calls_that_differ_in_anything_but_their_input_are_planned_apart(way: Way) -> None:
    run = session(Budget("$5", hold_share=1.0))
    caps = [
        way.authorize(run, call("large", cap=cap, choices=n)).estimate.output_tokens for cap in (5, 9) for n in (1, 2)
    ]
    assert caps == [5, 10, 9, 18]
    assert [way.authorize(run, call(model, cap=5)).estimate.cost for model in ("large", "small", "large")] == [
        150_000,
        15_000,
        150_000,
    ]


def test_a_plan_is_by_the_budget_that_it_is_asked_for() -> None:
    planner = Planner(Ladder(PriceTable.bundled(), FakeClock()), alone=True)
    plans = [planner.ample(Budget("$5", call_max_output_tokens=most), call("gpt-4o"), 0.0) for most in (7, 9)]
    assert [None if plan is None else plan[0][1].output_tokens for plan in plans] == [7, 9]


def test_ample_plans_are_kept_in_bounded_memory(way: Way) -> None:
    run = session(Budget("$5", unpriced="allow"))
    for number in range(1_500):
        assert way.authorize(run, call(f"made-up-{number}", cap=5)).action == "allow"
    assert len(run._run.planner._ample) <= 1_000


def test_a_model_whose_text_has_no_price_is_refused(way: Way) -> None:
    for asked in (call("text-embedding-3-small", cap=5), call("tts-1", cap=5)):
        assert isinstance(way.authorize(Session(Budget("$1")), asked).error, UnknownPriceError)


def test_a_strict_budget_refuses_a_cap_that_cannot_be_sent(way: Way) -> None:
    strict = Budget("$1", unbounded="deny", call_max_output_tokens=90)
    assert isinstance(way.authorize(session(strict), call("large", can_cap=False)).error, UnboundedCallError)
    assert way.authorize(session(strict), call("large")).output_cap == 90


def test_prices_of_the_session_win_over_the_bundled_ones(way: Way) -> None:
    run = Session(Budget("$1"), pricing={"gpt-4o": ("0.001", "0.002")})
    assert way.authorize(run, call("gpt-4o", tokens=10, cap=1)).estimate.cost == 12_000_000


# --- the finalization reserve


def test_only_the_final_call_may_touch_what_is_kept_for_it(way: Way) -> None:
    run = session(Budget("$0.50", finalization_reserve="$0.15"))
    for _ in range(3):
        way.pay(run, call())
    assert way.authorize(run, call()).action == "block"
    assert way.authorize(run, ToolCall("search", 60_000_000)).action == "block"
    way.pay(run, call(final=True))
    assert run.spent_usd == Decimal("0.40")
    assert way.authorize(run, call(final=True)).action == "allow"
    assert way.authorize(run, call(final=True)).action == "block"


def test_an_ordinary_call_leaves_the_reserve_alone_also_right_after_a_final_one(way: Way) -> None:
    run = session(Budget("$0.50", finalization_reserve="$0.15"))
    way.release(way.reserve(run, call(final=True)))  # planned while there is plenty, as are the next three
    for _ in range(3):
        way.pay(run, call())
    assert way.authorize(run, call()).action == "block"
    assert way.authorize(run, call(final=True)).action == "allow"


def test_a_final_call_may_take_the_reserve_also_right_after_ordinary_ones(way: Way) -> None:
    run = session(Budget("$0.25", finalization_reserve="$0.15"))
    way.pay(run, call())
    assert way.authorize(run, call(final=True)).action == "allow"


def test_a_request_is_kept_for_the_final_call_as_well(way: Way) -> None:
    run = session(Budget("$9", max_requests=2, finalization_reserve="$0.50"))
    way.pay(run, call())
    assert way.authorize(run, call()).action == "block"
    assert way.authorize(run, call(final=True)).action == "allow"


def test_nothing_is_warned_of_in_an_ordinary_call(way: Way) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        way.pay(session("$1"), call("large"))


BUDGETS = st.builds(
    lambda **options: Budget("$1.00", **options),
    max_output_tokens=st.sampled_from([None, 50, 5_000]),
    max_total_tokens=st.sampled_from([None, 400, 20_000]),
    max_requests=st.sampled_from([None, 3]),
    mode=st.sampled_from(["hard_gate", "soft_gate", "advisory_estimate", "actuals_only"]),
    clamp_output=st.sampled_from(["when_unset", "always", "never"]),
    hold_share=st.sampled_from([0.1, 0.25, 0.3, 1 / 3, 1.0]),
    finalization_reserve=st.sampled_from([None, "$0.30"]),
    unbounded=st.sampled_from(["allow", "deny"]),
    call_max_output_tokens=st.sampled_from([None, 90, 2_000]),
    downgrade=st.sampled_from([None, DowngradePolicy("tiny", at=0.3), DowngradePolicy({"large": "small"}, at=0.6)]),
)
CALLS = st.lists(
    st.builds(
        call,
        st.sampled_from(["dime", "penny", "large", "tiny", "brief", "endless", "nobody"]),
        tokens=st.sampled_from([1, 300, 70_000]),
        cap=st.sampled_from([None, 40, 9_000]),
        can_cap=st.booleans(),
        choices=st.sampled_from([1, 3]),
        final=st.booleans(),
    ),
    max_size=8,
)


def under_a_ceiling(budget: Budget) -> Session:
    """A session whose user has a ceiling that is nearer than some of its own limits, and partly spent."""
    authority = BudgetAuthority(ceilings={"user": Budget("$0.80", max_total_tokens=15_000)}, pricing=PRICES)
    other = authority.session(Budget("$1"), user="u1")
    other.charge("search", "0.20")
    return authority.session(budget, user="u1")


def child_of_another(budget: Budget) -> Session:
    """A child session."""
    return session(Budget("$5", mode=budget.mode)).child(budget)


@pytest.mark.filterwarnings("ignore:Nothing caps the output")
@settings(deadline=None, max_examples=300)
@given(budget=BUDGETS, calls=CALLS, opened=st.sampled_from([session, under_a_ceiling, child_of_another]))
def test_asking_for_ample_room_first_decides_as_asking_what_is_left_does(
    budget: Budget, calls: list[ModelCall], opened: Callable[[Budget], Session]
) -> None:
    quick, exact = opened(budget), opened(budget)
    for number, each in enumerate(calls):
        decided = quick.authorize(each)
        with patch.object(Planner, "ample", return_value=None):
            expected = exact.authorize(each)
        assert (decided.action, type(decided.error)) == (expected.action, type(expected.error))
        assert decided.name == expected.name
        if decided.terms is not None and expected.terms is not None:
            # each session has the price for itself
            assert replace(decided.terms, rung=expected.terms.rung) == expected.terms
            assert decided.held == expected.held
        for decision in (decided, expected):
            if decision.reservation is not None and number % 2:
                decision.reservation.commit(Usage(input=each.prompt.base, output=7))


@pytest.mark.parametrize("base", [-(10**6), 0.5, math.nan])
def test_a_prompt_that_nobody_weighed_holds_nothing(way: Way, base: Any) -> None:
    run = session("$1.00")
    with pytest.raises(ValueError, match="whole numbers"):
        way.authorize(run, ModelCall("large", weigh()._replace(base=base), max_output_tokens=10))
    assert run.reserved_usd == ZERO


@pytest.mark.parametrize("cap", [10**14, 2**62])
def test_a_call_that_may_take_more_than_a_ledger_can_hold_is_refused(way: Way, cap: int) -> None:
    run = session(Budget(max_requests=5))
    decision = way.authorize(run, call("endless", cap=cap))
    assert isinstance(decision.error, UnboundedCallError)
    assert "more than a ledger can hold" in str(decision.error)
    assert run.reserved_usd == ZERO


@pytest.mark.parametrize(
    ("output", "cap"), [(0, MOST - 100), (1, MOST - 100), (2, (MOST - 101) // 2)], ids=["tokens", "both", "dollars"]
)
def test_a_call_may_take_all_that_a_ledger_can_hold_and_not_one_token_more(way: Way, output: int, cap: int) -> None:
    prices = {"odd": {"input": 1e-9 if output else 0, "output": output * 1e-9}}
    run, tokens = Session(Budget(max_requests=5), pricing=prices), 101 if output == 2 else 100
    admitted = way.authorize(run, call("odd", tokens=tokens, cap=cap))
    assert admitted.error is None and MOST in (admitted.held.total_tokens, admitted.held.cost)
    assert isinstance(way.authorize(run, call("odd", tokens=tokens, cap=cap + 1)).error, UnboundedCallError)


@pytest.mark.parametrize("field", ModelCall._fields)
def test_calls_that_differ_in_anything_but_the_input_are_planned_apart(field: str) -> None:
    one = call("large")
    changed: dict[str, Any] = {field: object()}
    other = one._replace(**changed)
    assert (other.kind == one.kind) == (field == "prompt")
