"""What a call must be before it is let through, and what is held for it."""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Allowance,
    Budget,
    BudgetExceeded,
    Session,
    ToolCall,
    UnboundedCallError,
    UnknownPriceError,
    Usage,
    weigh,
)
from tests.builders import ZERO, Way, call, session

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


# --- the output cap


@pytest.mark.parametrize(
    ("budget", "asked", "cap"),
    [
        ({}, 500, 500),
        ({"call_max_output_tokens": 300}, 500, 300),
        ({"call_max_output_tokens": 700}, 500, 500),
        ({"call_max_output_tokens": 700}, None, 700),
        ({}, 20_000, 10_000),
    ],
)
def test_the_cap_is_the_least_of_the_clients_the_budgets_and_the_models(
    way: Way, budget: dict[str, Any], asked: int | None, cap: int
) -> None:
    decision = way.authorize(session(Budget("$10", **budget)), call("large", cap=asked))
    assert decision.output_cap == cap
    assert decision.estimate.output_tokens == cap
    assert not decision.output_clamped


def test_a_cap_that_the_model_has_of_itself_is_held_and_not_sent(way: Way) -> None:
    decision = way.authorize(session("$10"), call("large"))
    assert (decision.output_cap, decision.estimate.output_tokens) == (None, 10_000)
    assert decision.bounded and not decision.output_clamped


@pytest.mark.parametrize(
    ("clamp", "asked", "cap", "clamped"),
    [
        # $0.0401 less 100 input tokens leaves a share of a quarter, $0.01, for output at 10,000 nano-dollars
        ("when_unset", None, 1_002, True),
        ("when_unset", 4_000, 4_000, False),
        ("always", 4_000, 1_002, True),
        ("always", 500, 500, False),
        ("always", None, 1_002, True),
    ],
)
def test_the_guard_sends_a_cap_worth_a_share_of_what_remains(
    way: Way, clamp: Any, asked: int | None, cap: int, clamped: bool
) -> None:
    run = session(Budget("$0.0401", clamp_output=clamp))
    decision = way.authorize(run, call("large", cap=asked))
    assert (decision.action, decision.output_cap, decision.output_clamped) == ("allow", cap, clamped)


def test_a_guard_that_never_clamps_holds_the_models_maximum_or_refuses(way: Way) -> None:
    run = session(Budget("$0.15", clamp_output="never"))
    assert way.authorize(run, call("large")).estimate.output_tokens == 10_000
    assert way.authorize(run, call("large")).action == "block"


def test_a_client_with_a_cap_that_does_not_fit_is_refused_not_clamped(way: Way) -> None:
    assert way.authorize(session("$0.01"), call("large", cap=2_000)).action == "block"


@pytest.mark.parametrize(("share", "cap"), [(0.5, 2_005), (1.0, 4_000), (0.25, 1_002)])
def test_the_share_is_the_budgets(way: Way, share: float, cap: int) -> None:
    run = session(Budget("$0.0401", hold_share=share))
    assert way.authorize(run, call("large")).output_cap == cap


def test_the_guards_cap_never_falls_below_a_floor_and_then_it_refuses(way: Way) -> None:
    run = session("$0.004")
    decision = way.authorize(run, call("large"))
    assert (decision.output_cap, decision.output_clamped) == (256, True)
    assert way.authorize(run, call("large")).action == "block"


def test_the_floor_rises_to_a_quarter_more_than_the_model_lately_wrote(way: Way) -> None:
    run = session("$0.025")
    way.pay(run, call("large", cap=900), Usage(input=10, output=900))
    assert way.authorize(run, call("large")).output_cap == 1_125


def test_the_floor_rises_no_further_than_is_reasonable(way: Way) -> None:
    run = session("$0.15")
    way.pay(run, call("large", cap=9_000), Usage(input=10, output=9_000))
    assert way.authorize(run, call("large")).output_cap == 2_048


def test_a_model_with_a_maximum_below_the_floor_keeps_it(way: Way) -> None:
    decision = way.authorize(session("$0.15"), call("dime"))
    assert decision.estimate.output_tokens == 100


@pytest.mark.parametrize(
    ("limits", "cap"),
    [({"max_output_tokens": 4_000}, 1_000), ({"max_total_tokens": 4_000}, 1_000), ({"max_requests": 3}, None)],
)
def test_token_limits_clamp_too(way: Way, limits: dict[str, Any], cap: int | None) -> None:
    assert way.authorize(session(Budget(**limits)), call("large", tokens=100)).output_cap == cap


def test_several_answers_share_the_cap_and_are_all_held(way: Way) -> None:
    run = session("$0.0401")
    decision = way.authorize(run, call("large", choices=2))
    assert decision.output_cap == 501
    assert decision.estimate.output_tokens == 1_002


# --- callers that cannot send a cap


def test_a_call_that_cannot_be_capped_is_held_like_one_that_can_and_warned_of_once(way: Way) -> None:
    run = session("$0.0401")
    with pytest.warns(RuntimeWarning, match=r'maximum output.*can send a cap.*unbounded="deny"') as caught:
        decision = way.authorize(run, call("large", can_cap=False))
        way.authorize(run, call("large", can_cap=False))
    assert len(caught) == 1
    assert (decision.action, decision.bounded, decision.output_cap) == ("allow", False, None)
    assert decision.estimate.output_tokens == 1_002


def test_a_budget_may_deny_calls_that_cannot_be_capped(way: Way) -> None:
    run = session(Budget("$0.0401", unbounded="deny"))
    decision = way.authorize(run, call("large", can_cap=False))
    assert isinstance(decision.error, UnboundedCallError)
    assert "maximum output tokens" in str(decision.error)
    assert (run.terminated_by, run.reserved_usd) == ("unbounded", ZERO)


@pytest.mark.parametrize("unbounded", ["allow", "deny"])
@pytest.mark.parametrize("asked", [500, None])
def test_a_cap_of_the_clients_or_the_models_own_bounds_it_all_the_same(
    way: Way, unbounded: Any, asked: int | None
) -> None:
    run = session(Budget("$10", unbounded=unbounded))
    decision = way.authorize(run, call("large", cap=asked, can_cap=False))
    assert (decision.action, decision.bounded) == ("allow", True)
    assert decision.estimate.output_tokens == (asked or 10_000)


@pytest.mark.parametrize("budget", [{"call_max_output_tokens": 100}, {"clamp_output": "always"}])
def test_a_lower_cap_that_cannot_be_sent_lowers_no_hold(way: Way, budget: dict[str, Any]) -> None:
    run = session(Budget("$0.04", **budget))
    decision = way.authorize(run, call("large", cap=3_000, can_cap=False))
    assert decision.bounded
    assert decision.estimate.output_tokens == 3_000


def test_a_model_without_any_cap_is_refused_unless_the_budget_gives_one(way: Way) -> None:
    refused = way.authorize(session(Budget("$1", clamp_output="never")), call("endless"))
    assert isinstance(refused.error, UnboundedCallError)
    assert "output has no cap" in str(refused.error)
    for cap in (700, None):
        decision = way.authorize(session(Budget("$1", call_max_output_tokens=cap)), call("endless"))
        assert decision.output_cap is not None and decision.bounded
    assert way.authorize(session(Budget(max_requests=3, clamp_output="never")), call("endless")).action == "allow"


# --- what cannot be weighed


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (weigh(messages=[IMAGE]), "an image"),
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


def test_an_unknown_tier_or_provider_is_refused_too(way: Way) -> None:
    run = Session(Budget("$1"))
    for stranger in (call("gpt-4o", service_tier="golden"), call("gpt-4o", provider="nobody")):
        assert isinstance(way.authorize(run, stranger).error, UnknownPriceError)


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


def test_a_request_is_kept_for_the_final_call_as_well(way: Way) -> None:
    run = session(Budget("$9", max_requests=2, finalization_reserve="$0.50"))
    way.pay(run, call())
    assert way.authorize(run, call()).action == "block"
    assert way.authorize(run, call(final=True)).action == "allow"


def test_the_final_call_is_capped_at_all_that_is_left(way: Way) -> None:
    run = session(Budget("$0.0201", finalization_reserve="$0.0101"))
    normal = way.authorize(run, call("large"))
    assert (normal.output_cap, normal.output_clamped) == (256, True)
    way.release(normal.require())
    final = way.authorize(run, call("large", final=True))
    assert (final.output_cap, final.estimate.cost) == (2_000, 20_100_000)


def test_nothing_is_warned_of_in_an_ordinary_call(way: Way) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        way.pay(session("$1"), call("large"))
