"""The output cap: the client's is kept, the guard's own has room for a whole answer, and none is a risk."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from unittest.mock import patch

import pytest

from budget_guard import Allowance, Budget, BudgetAuthority, BudgetExceeded, Session, UnboundedCallError, Usage
from tests.builders import PRICES, ZERO, Way, call, session


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
        # half of $0.1601 less 100 input tokens is worth 8,005 tokens of output at 10,000 nano-dollars
        ("when_unset", None, 8_005, True),
        ("when_unset", 9_000, 9_000, False),
        ("always", 9_000, 8_005, True),
        ("always", 500, 500, False),
        ("always", None, 8_005, True),
    ],
)
def test_before_any_answer_is_known_the_guard_sends_a_cap_worth_a_share_of_what_remains(
    way: Way, clamp: Any, asked: int | None, cap: int, clamped: bool
) -> None:
    run = session(Budget("$0.1601", clamp_output=clamp))
    decision = way.authorize(run, call("large", cap=asked))
    assert (decision.action, decision.output_cap, decision.output_clamped) == ("allow", cap, clamped)


def test_a_guard_that_never_clamps_holds_the_models_maximum_or_refuses(way: Way) -> None:
    run = session(Budget("$0.15", clamp_output="never"))
    assert way.authorize(run, call("large")).estimate.output_tokens == 10_000
    assert way.authorize(run, call("large")).action == "block"


def test_a_client_with_a_cap_that_does_not_fit_is_refused_not_clamped(way: Way) -> None:
    assert way.authorize(session("$0.01"), call("large", cap=2_000)).action == "block"


@pytest.mark.parametrize(("share", "cap"), [(0.4, 6_404), (0.5, 8_005), (0.25, 4_096), (0.1, 4_096)])
def test_the_share_is_the_budgets_and_never_worth_less_than_an_ordinary_answer(
    way: Way, share: float, cap: int
) -> None:
    run = session(Budget("$0.1601", hold_share=share))
    assert way.authorize(run, call("large")).output_cap == cap


@pytest.mark.parametrize(
    ("answers", "cap"),
    [
        ([300], 4_096),  # short ones may be followed by an ordinary one
        ([1_500], 6_000),
        ([1_500, 10, 10], 1_215 * 4),  # what was long is forgotten by and by
        ([2_600], None),  # the model's own maximum holds without being sent
    ],
)
def test_the_guard_wants_four_times_what_recent_answers_took(way: Way, answers: list[int], cap: int | None) -> None:
    run = session("$0.19")
    for tokens in answers:
        way.pay(run, call("large", cap=tokens), Usage(output=tokens))
    decision = way.authorize(run, call("large"))
    assert (decision.output_cap, decision.estimate.output_tokens) == (cap, cap or 10_000)


def test_where_much_is_left_the_guard_wants_more_than_recent_answers_tell(way: Way) -> None:
    for model, dollars, cap in [("large", "$0.21", None), ("larger", "$0.40003", 5_000)]:  # an eighth of it
        run = Session(Budget(dollars), pricing={**PRICES, "larger": {**PRICES["large"], "max_output": 100_000}})
        way.pay(run, call(model, tokens=0, cap=3), Usage(output=3))
        assert way.authorize(run, call(model, tokens=0)).output_cap == cap


def test_a_call_that_is_alone_gets_all_that_is_left(way: Way) -> None:
    run = session("$0.0301")
    assert way.authorize(run, call("large")).output_cap == 3_000


def test_a_call_waits_until_its_want_fits(way: Way) -> None:
    run = session(Budget("$0.10"))
    held = [way.reserve(run, call("large", tokens=0, cap=cap)) for cap in (4_000, 3_000)]
    ledger, waited = run.ledger, list[str]()
    await_room = ledger.await_room

    def others_end(version: int, timeout: float) -> bool:
        waited.append(str(run.remaining_usd))
        way.commit(held.pop(), Usage(output=1_000))
        return await_room(version, timeout)

    with patch.object(ledger, "await_room", others_end):
        decision = run.authorize(call("large", tokens=0))
    assert waited == ["0.03"]
    assert decision.output_cap == 5_000 - 904  # four times 1,000 is less than an ordinary answer


def test_a_call_that_waits_takes_what_is_left_once_it_is_alone(way: Way) -> None:
    run = session(Budget("$0.05"))
    held = [way.reserve(run, call("large", tokens=0, cap=1_500)) for _ in range(2)]
    ledger = run.ledger
    await_room = ledger.await_room

    def others_end(version: int, timeout: float) -> bool:
        way.commit(held.pop(), Usage(output=1_500))
        return await_room(version, timeout)

    with patch.object(ledger, "await_room", others_end):
        assert run.authorize(call("large", tokens=0)).output_cap == 2_000
    assert not held


@pytest.mark.parametrize(
    ("written", "action"),
    [(1_999, "allow"), (2_001, "block"), (None, "block")],  # nobody knows: an ordinary answer would not fit
)
def test_a_call_that_cannot_wait_takes_what_is_left_if_that_is_likely_to_be_enough(
    way: Way, written: int | None, action: str
) -> None:
    run = session("$0.05")
    if written is not None:
        way.pay(run, call("large", tokens=0, cap=written), Usage(output=written))
    way.reserve(run, call("large", tokens=0, cap=3_000 - (written or 0)))
    decision = run.authorize(call("large", tokens=0), may_wait=False)
    assert decision.action == action
    if action == "allow":
        assert decision.output_cap == 2_000
    else:
        assert "try again when they are over" in str(decision.error)


def test_a_refusal_that_waiting_cannot_help_does_not_say_so(way: Way) -> None:
    run = session("$0.05")
    way.pay(run, call("large", tokens=0, cap=4_900), Usage(output=4_900))
    error = run.authorize(call("large", tokens=0), may_wait=False).error
    assert error is not None and "try again" not in str(error)


def test_the_guards_cap_never_falls_below_a_floor_and_then_it_refuses(way: Way) -> None:
    run = session("$0.0026")
    assert way.authorize(run, call("large")).action == "block"
    run.raise_limits(max_cost_usd="$0.00266")
    decision = way.authorize(run, call("large"))
    assert (decision.output_cap, decision.output_clamped) == (256, True)


@pytest.mark.parametrize(("written", "floor"), [(900, 900), (4_096, 4_096), (9_000, 4_096)])
def test_the_floor_rises_to_what_the_model_lately_wrote_but_not_above_an_ordinary_answer(
    way: Way, written: int, floor: int
) -> None:
    for missing, action in [(1, "block"), (0, "allow")]:
        tokens = written + floor - missing
        run = session(Budget(f"${tokens * 10_000 / 10**9:.5f}"))
        way.pay(run, call("large", tokens=0, cap=written), Usage(output=written))
        assert way.authorize(run, call("large", tokens=0)).action == action


def test_a_floor_never_lifts_a_lower_cap(way: Way) -> None:
    small = Budget("$0.0012", clamp_output="always")
    assert way.authorize(session(small), call("brief")).estimate.output_tokens == 100
    assert way.authorize(session(small), call("large", cap=50)).output_cap == 50


@pytest.mark.parametrize(
    ("limits", "cap"),
    [({"max_output_tokens": 12_000}, 6_000), ({"max_total_tokens": 12_000}, 6_000), ({"max_requests": 3}, None)],
)
def test_token_limits_clamp_too(way: Way, limits: dict[str, Any], cap: int | None) -> None:
    assert way.authorize(session(Budget(**limits)), call("large", tokens=100)).output_cap == cap


def test_several_answers_share_the_cap_and_are_all_held(way: Way) -> None:
    run = session("$0.3201")
    decision = way.authorize(run, call("large", choices=2))
    assert decision.output_cap == 8_002
    assert decision.estimate.output_tokens == 16_004


def test_the_guards_cap_leaves_room_for_the_fees_of_hosted_tools(way: Way) -> None:
    run = session(Budget("$0.0351", hold_share=1.0, allowance=Allowance(hosted_tool_calls=3)))
    decision = way.authorize(run, call("searcher", tokens=100, hosted_tools=("web_search",)))
    assert (decision.action, decision.output_cap, run.remaining_usd) == ("allow", 500, ZERO)


def test_the_fee_of_a_hosted_tool_is_no_second_request(way: Way) -> None:
    prices: Any = {"searcher": {"input": 0, "output": 0, "requests": "0.05", "web_search": "0.01", "max_output": 9}}
    run = Session(Budget("$1.00", allowance=Allowance(hosted_tool_calls=3)), pricing=prices)
    decision = way.authorize(run, call("searcher", hosted_tools=("web_search",)))
    assert decision.estimate.cost_usd == Decimal("0.08")


def test_the_final_call_is_capped_at_all_that_is_left(way: Way) -> None:
    run = session(Budget("$0.0201", finalization_reserve="$0.0101"))
    normal = way.authorize(run, call("large"))
    assert (normal.output_cap, normal.output_clamped) == (990, True)
    way.release(normal.require())
    final = way.authorize(run, call("large", final=True))
    assert (final.output_cap, final.estimate.cost) == (2_000, 20_100_000)


# --- callers that cannot send a cap


def test_a_call_that_cannot_be_capped_holds_the_models_own_maximum(way: Way) -> None:
    run = session("$0.15")
    decision = way.authorize(run, call("large", can_cap=False))
    assert (decision.bounded, decision.output_cap, decision.estimate.output_tokens) == (True, None, 10_000)
    second = run.authorize(call("large", can_cap=False), may_wait=False)
    assert "try again when they are over" in str(second.error)


def test_where_that_does_not_fit_it_goes_alone_with_all_that_is_left_and_is_warned_of_once(way: Way) -> None:
    run = session("$0.0401")
    with pytest.warns(RuntimeWarning, match=r'maximum output.*can send a cap.*unbounded="deny"') as caught:
        decision = way.authorize(run, call("large", can_cap=False))
        assert way.authorize(run, call("large", can_cap=False)).action == "block"
        way.commit(decision.require(), Usage(output=1_000))
        way.authorize(run, call("large", can_cap=False))
    assert len(caught) == 1
    assert (decision.action, decision.bounded, decision.output_cap) == ("allow", False, None)
    assert decision.estimate.output_tokens == 4_000


@pytest.mark.filterwarnings("ignore:Nothing caps the output")
def test_a_cap_that_could_not_be_sent_has_cut_no_answer_off(way: Way) -> None:
    run = session("$0.0401")
    hold = way.reserve(run, call("large", can_cap=False))  # an answer may end at a cap of the provider's all the same
    assert hold.terms.clamped and hold.cut_short() is None
    assert run.terminated_by is None
    way.commit(hold, Usage(input=100, output=1_000))
    capped = way.reserve(run, call("large"))
    stop = capped.cut_short()
    assert isinstance(stop, BudgetExceeded) and f"cap of {capped.terms.output_cap} output tokens" in str(stop)


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
        assert decision.output_cap == (cap or 8_192) and decision.bounded
    assert way.authorize(session(Budget(max_requests=3, clamp_output="never")), call("endless")).action == "allow"


def test_where_no_maximum_is_known_that_is_told_once(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    run = session("$1")
    for _ in range(2):
        way.pay(run, call("endless"), Usage(output=7_000))
    told = [record.getMessage() for record in caplog.records if "capped at 8192 tokens" in record.getMessage()]
    assert len(told) == 1 and "'endless'" in told[0] and "max_output" in told[0]


# --- answers that pass the cap, or are cut off by it


@pytest.mark.parametrize(
    ("came", "mode", "stops"), [(500, "hard_gate", False), (501, "hard_gate", True), (501, "soft_gate", False)]
)
def test_a_stream_that_passes_its_cap_is_stopped_by_a_hard_gate(way: Way, came: int, mode: Any, stops: bool) -> None:
    run = session(Budget("$1", mode=mode))
    reservation = way.reserve(run, call("large", cap=500))
    error = reservation.interruption(came)
    assert (error is not None) == stops
    if isinstance(error, BudgetExceeded):
        assert (error.dimension, error.limit, error.actual) == ("call_max_output_tokens", 500, 501)
        assert (error.decision_id, error.scope) == (reservation.id, f"run:{run.id}")
        assert "does not keep to the output cap" in str(error)


@pytest.mark.parametrize(
    ("budget", "dimension", "limit"),
    [
        (Budget("$0.0401"), "max_cost_usd", Decimal("0.0401")),
        (Budget(max_output_tokens=4_000), "max_output_tokens", 4_000),
        (Budget(max_total_tokens=4_000), "max_total_tokens", 4_000),
    ],
)
def test_an_answer_that_the_guards_own_cap_cut_off_is_an_error_with_the_way_out(
    way: Way, budget: Budget, dimension: str, limit: Any
) -> None:
    run = session(budget)
    reservation = way.reserve(run, call("large"))
    way.commit(reservation, Usage(input=100, output=1_000))
    error = reservation.cut_short()
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.limit, error.decision_id) == (dimension, limit, reservation.id)
    assert error.report is not None and error.report.breakdown.llm.calls == 1
    for words in (f"cap of {reservation.terms.output_cap} output tokens cut the answer off", "is left"):
        assert words in str(error)
    assert f"raise_limits({dimension}=...)" in str(error)


@pytest.mark.parametrize("kind", ["run", "user"])
@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"max_cost_usd": "$0.05"}, "$0.01"),
        ({"max_output_tokens": 5_000}, "1000 tokens"),
        ({"max_total_tokens": 5_000}, "1000 tokens"),
    ],
)
def test_a_cut_off_names_the_limit_that_bound_its_scope_the_cap_and_what_is_left(
    way: Way, limits: dict[str, Any], left: str, kind: str
) -> None:
    wide = {"max_cost_usd": "$1.00", "max_output_tokens": 50_000, "max_total_tokens": 90_000}
    own, user = ({**wide, **limits}, wide) if kind == "run" else (wide, {**wide, **limits})
    authority = BudgetAuthority(ceilings={"user": Budget(**user)}, pricing=PRICES)
    run = authority.session(Budget(**own), user="u1")
    reservation = way.reserve(run, call("large", tokens=0))
    way.commit(reservation, Usage(output=4_000))
    error = reservation.cut_short()
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.scope) == (next(iter(limits)), f"{kind}:{run.id if kind == 'run' else 'u1'}")
    assert f"{left} of it is left" in str(error)
    assert f"cap of {reservation.terms.output_cap} output tokens" in str(error)


def test_a_cut_off_by_a_limit_that_is_gone_since_names_the_cap(way: Way) -> None:
    run = session(Budget("$0.05", max_requests=9))
    reservation = way.reserve(run, call("large"))
    run.raise_limits(max_cost_usd=None)
    error = reservation.cut_short()
    cap = reservation.terms.output_cap
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.limit, error.actual) == ("call_max_output_tokens", cap, cap)
    assert (error.scope, error.decision_id) == (f"run:{run.id}", reservation.id)
    assert str(error) == (
        f"call_max_output_tokens={cap} of run:{run.id}: the guard's cap of {cap} output tokens cut the answer off, and "
        "the limit that it was for is there no more. Ask again, or go on from it: the next answer may be longer."
    )
    assert error.user_message == "The budget for this did not last to the end of the answer."


def test_a_cut_off_stops_the_run_until_it_goes_on(way: Way) -> None:
    run = session("$0.10")
    reservation = way.reserve(run, call("large"))
    way.commit(reservation, Usage(output=100))
    assert reservation.cut_short() is not None
    assert run.terminated_by == run.report().terminated_by == "output_cap"
    way.pay(run, call("large", final=True), Usage(output=9))
    assert run.terminated_by == "output_cap"  # the final answer comes after the stop
    way.pay(run, call("large"), Usage(output=9))
    assert run.terminated_by is None


def test_an_answer_that_the_clients_own_cap_cut_off_is_none_of_our_business(way: Way) -> None:
    assert way.reserve(session("$1"), call("large", cap=500)).cut_short() is None


@pytest.mark.parametrize(("hourly", "per_token"), [(True, 4_000), (False, 2_500)])
@pytest.mark.parametrize("cap", [50, None])
def test_an_hour_in_a_cache_is_held_only_where_it_may_be_asked_for(
    way: Way, hourly: bool, per_token: int, cap: int | None
) -> None:
    prices: Any = {"claude": {"input": 2e-6, "output": 10e-6, "cache_write_5m": 2.5e-6, "cache_write_1h": 4e-6}}
    run = Session(Budget("$1.00"), pricing=prices)
    decision = way.authorize(run, call("claude", tokens=100, cap=cap, hour_cache=hourly))
    output = decision.estimate.output_tokens
    assert decision.estimate.cost == 100 * per_token + output * 10_000
    if cap is None:  # nobody knows how much it may write
        assert output == 8_192


@pytest.mark.parametrize("hourly", [True, False])
def test_the_share_of_an_answer_is_what_is_left_of_it_beside_the_input(way: Way, hourly: bool) -> None:
    prices: Any = {"claude": {"input": 2e-6, "output": 10e-6, "cache_write_5m": 2.5e-6, "cache_write_1h": 4e-6}}
    run = Session(Budget("$0.12", hold_share=0.5), pricing=prices)
    decision = way.authorize(run, call("claude", tokens=1_000, hour_cache=hourly))
    assert decision.output_cap == 6_000


# --- refused in place of lowered


@pytest.mark.parametrize(
    ("budget", "asked", "most", "words"),
    [
        ({"call_max_output_tokens": 700}, 701, 700, "which is above that"),
        ({"call_max_output_tokens": 700}, 700, None, ""),
        ({"call_max_output_tokens": 700}, None, None, ""),
        ({}, 10_001, 10_000, "'large' writes no more than that"),
        ({"call_max_output_tokens": 20_000}, 10_001, 10_000, "'large' writes no more than that"),
        ({}, 10_000, None, ""),
    ],
)
@pytest.mark.parametrize("mode", ["hard_gate", "soft_gate", "actuals_only"])
def test_a_budget_may_refuse_a_cap_in_place_of_lowering_it(
    way: Way, budget: dict[str, Any], asked: int | None, most: int | None, words: str, mode: Any
) -> None:
    run = session(Budget("$10", clamp_output="reject", mode=mode, **budget), run_id="r1")
    decision = way.authorize(run, call("large", cap=asked))
    if most is None:
        assert decision.action == "allow" and (asked is None or decision.output_cap == asked)
        return
    error = decision.error
    assert isinstance(error, BudgetExceeded)
    assert (error.dimension, error.limit, error.estimate) == ("call_max_output_tokens", most, asked)
    for said in (words, f"max_output_tokens={asked}", f"at most {most}", 'clamp_output="when_unset"', "run:r1"):
        assert said in str(error)
    assert (run.reserved_usd, run.terminated_by) == (ZERO, "call_max_output_tokens")


def test_where_a_budget_refuses_caps_it_sends_none_of_its_own(way: Way) -> None:
    run = session(Budget("$0.05", clamp_output="reject"))
    assert way.authorize(run, call("large")).action == "block"
    capped = session(Budget("$0.05", clamp_output="reject", call_max_output_tokens=500))
    assert way.authorize(capped, call("large")).output_cap == 500


def test_a_cap_that_cannot_be_lowered_is_refused_too(way: Way) -> None:
    run = session(Budget("$10", clamp_output="reject", call_max_output_tokens=700))
    assert way.authorize(run, call("large", cap=900, can_cap=False)).action == "block"


def test_an_advisory_budget_marks_a_cap_that_is_too_high_and_leaves_it(way: Way) -> None:
    run = session(Budget("$10", clamp_output="reject", call_max_output_tokens=700, mode="advisory_estimate"))
    assert run.estimate(call("large", cap=900)).action == "advisory_warn"
    decision = way.authorize(run, call("large", cap=900))
    assert (decision.action, decision.output_cap) == ("advisory_warn", 900)
    assert "call_max_output_tokens" in decision.reason and decision.estimate.output_tokens == 900
    assert way.authorize(run, call("large", cap=700)).action == "allow"


def test_a_cheaper_model_that_writes_less_takes_the_call_with_what_it_writes(way: Way) -> None:
    run = session(Budget("$0.01", clamp_output="reject", downgrade={"large": "brief"}))
    run.charge("search", "0.0085")
    decision = way.authorize(run, call("large", cap=200))
    assert (decision.action, decision.name, decision.output_cap) == ("downgrade", "brief", 100)
