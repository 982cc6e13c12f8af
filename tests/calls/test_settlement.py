"""Every call that was admitted is settled once, in full, and money that was spent is never booked as nothing."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Allowance, Budget, BudgetExceeded, ReservationConflict, Scope, Session, ToolCall, Usage
from budget_guard.calls import settlement
from budget_guard.calls.seen import Seen
from budget_guard.events import BoundViolated, CallCommitted, CallReleased, OverrunCharged
from budget_guard.ledger.base import Balance
from budget_guard.pricing.table import PriceTable
from budget_guard.units.amounts import Amounts, Limits
from tests.builders import PRICES, ZERO, Way, call, session

USED = Usage(input=60, cache_read=20, output=8, reasoning=2)
USED_COST = 80 * 1_000 + 10 * 10_000
HELD_COST = 100 * 1_000 + 50 * 10_000


def ask(**options: Any) -> Any:
    return call("large", tokens=100, cap=50, **options)


def sums(run: Session) -> tuple[Decimal | int, Decimal | int, Decimal | int, int]:
    """What every sum of the report says was spent, and how many calls, after a look whether they agree."""
    report = run.report()
    llm, tools = report.breakdown.llm, report.breakdown.tools
    assert llm.total == sum(m.total for m in llm.by_model.values())
    assert llm.calls == sum(m.calls for m in llm.by_model.values())
    assert report.total_spent == run.spent_usd == llm.total + tools.total
    assert all(m.total >= 0 and m.calls >= 0 and m.input_tokens >= 0 for m in llm.by_model.values())
    return report.total_spent, report.reserved, report.uncertain, llm.calls


def usd(nano: int) -> Decimal:
    return Decimal(nano) / 10**9


def test_a_commit_books_the_actual_cost_and_gives_the_rest_back(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    assert run.reserved_usd == usd(HELD_COST)
    way.forward(reservation)
    assert way.commit(reservation, USED) == USED_COST
    assert reservation.settled
    assert sums(run) == (usd(USED_COST), 0, 0, 1)
    assert run.remaining_usd == 1 - usd(USED_COST)
    spend = run.report().breakdown.llm.by_model["large"]
    assert (spend.input_tokens, spend.output_tokens, spend.calls) == (80, 10, 1)


@pytest.mark.parametrize(
    ("usage", "booked"),
    [
        (Usage(input=60, output=5), (60_000 + 50_000, 60, 5)),
        (Usage(input=0, output=49), (490_000, 0, 49)),
        (Usage(input=0, output=50), (HELD_COST, 100, 50)),  # as long as it could become
        (Usage(input=549, output=5), (599_000, 549, 5)),
        (Usage(input=550, output=5), (HELD_COST, 100, 50)),  # as dear as it could become
        (Usage(input=700, output=5), (HELD_COST, 100, 50)),
    ],
)
def test_what_was_seen_of_an_answer_given_up_is_booked_where_it_is_less_than_all(
    usage: Usage, booked: tuple[int, int, int]
) -> None:
    reservation = session(on_cancel="seen").authorize(ask()).require()
    reservation.commit_estimate("gone", Seen("", usage, thinks=False))
    assert reservation.posting is not None
    assert reservation.posting.amounts[:3] == booked


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        (Usage(input=0, output=0), "reports nothing for a call that it answered"),
        (Usage(input=201, output=101), "reports far more than such a call can take"),
        (None, "sent no usage"),
        (Usage(input=200, output=101), ""),  # twice as much of one of them is far, but may be
        (Usage(input=201, output=100), ""),
        (Usage(input=1), ""),
        (Usage(output=1), ""),
    ],
)
def test_a_report_that_makes_no_sense_is_told_with_what_is_wrong_with_it(
    way: Way, usage: Usage | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = session()
    way.commit(way.reserve(run, ask()), usage)
    told = [each.getMessage() for each in caplog.records if "booked an estimate" in each.getMessage()]
    assert [why in each for each in told] == [True] * bool(why)
    assert (run.report().uncertain == usd(HELD_COST)) is bool(why)


def test_a_commit_again_changes_nothing(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    for _ in range(3):
        assert way.commit(reservation, USED) == USED_COST
    assert sums(run) == (usd(USED_COST), 0, 0, 1)
    assert len([e for e in run.events() if isinstance(e, CallCommitted)]) == 1


def test_a_commit_of_other_usage_is_a_conflict_that_changes_nothing(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    way.commit(reservation, USED)
    with pytest.raises(ReservationConflict):
        way.commit(reservation, USED._replace(output=9))
    assert sums(run) == (usd(USED_COST), 0, 0, 1)


def test_a_released_call_costs_nothing_and_is_no_call(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    way.release(reservation, "connection refused")
    way.release(reservation, "again")
    assert reservation.settled
    assert sums(run) == (0, 0, 0, 0)
    released = [e for e in run.events() if isinstance(e, CallReleased)]
    assert [(e.decision_id, e.name, e.reason) for e in released] == [(reservation.id, "large", "connection refused")]


def test_a_release_after_the_commit_gives_nothing_back(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    way.commit(reservation, USED)
    way.release(reservation)
    assert sums(run) == (usd(USED_COST), 0, 0, 1)


def test_a_commit_after_the_release_is_charged(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    way.release(reservation)
    way.commit(reservation, USED)
    assert sums(run) == (usd(USED_COST), 0, 0, 1)


# --- what nobody knows


@pytest.mark.parametrize("say", ["no usage", "estimate"])
def test_a_call_of_unknown_usage_is_booked_as_its_estimate(way: Way, say: str) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    cost = way.commit(reservation, None) if say == "no usage" else way.commit_estimate(reservation, "timed out")
    assert cost == HELD_COST
    assert sums(run) == (usd(HELD_COST), 0, usd(HELD_COST), 1)
    assert re.search(r"Uncertain: \$0\.0006", str(run.report()))


@pytest.mark.parametrize("usage", [USED, Usage(input=100, output=50), Usage(input=500, output=50)])
def test_a_late_actual_replaces_the_estimate_once_in_every_sum(way: Way, usage: Usage) -> None:
    run = session()
    reservation = way.reserve(run, ask(agent="researcher"))
    way.commit_estimate(reservation)
    way.commit_estimate(reservation)
    for _ in range(2):
        cost = way.commit(reservation, usage)
    assert sums(run) == (usd(cost), 0, 0, 1)
    report = run.report()
    assert report.by_agent["researcher"].total == usd(cost)
    assert report.by_agent["researcher"].calls == 1
    spend = report.breakdown.llm.by_model["large"]
    assert (spend.input_tokens, spend.output_tokens) == (usage.input_tokens, usage.output_tokens)
    assert report.overrun == usd(max(0, cost - HELD_COST))
    assert report.bound_violations == (usage.input > 100)


def test_an_estimate_after_the_actual_changes_nothing(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    way.commit(reservation, USED)
    assert way.commit_estimate(reservation, "cancelled") == USED_COST
    assert sums(run) == (usd(USED_COST), 0, 0, 1)


def test_a_late_actual_of_another_model_moves_the_money_there(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    way.commit_estimate(reservation)
    cost = way.commit(reservation, USED, model="small")
    assert cost == 80 * 100 + 10 * 1_000
    assert sums(run) == (usd(cost), 0, 0, 1)
    by_model = run.report().breakdown.llm.by_model
    assert by_model["small"].calls == 1
    assert "large" not in by_model or (by_model["large"].total, by_model["large"].calls) == (ZERO, 0)


def test_the_model_that_was_called_in_the_end_sets_the_price(way: Way) -> None:
    run = session()
    assert way.commit(way.reserve(run, ask()), USED, model="small") == USED_COST // 10
    assert set(run.report().breakdown.llm.by_model) == {"small"}


def test_the_service_tier_that_served_the_call_sets_the_price() -> None:
    def paid(asked: str | None, served: str | None, model: str = "gpt-5") -> Decimal:
        run = session("$100")
        run.authorize(call(model, service_tier=asked)).require().commit(Usage(input=1_000_000), service_tier=served)
        return run.spent_usd

    assert paid(None, "priority") == paid("priority", None) == paid("priority", "priority") > paid(None, None)
    assert paid("flex", "default") == paid(None, "default") == paid(None, None) > paid("flex", None)
    assert paid(None, "no-such-tier") > paid(None, None)  # what was held: a tier without a price may be a dearer one
    assert paid(None, "priority", "large") == paid(None, None, "large")  # a price of the user's own is for all tiers


def test_a_model_without_a_price_that_was_called_in_the_end_is_booked_at_the_planned_ones(way: Way) -> None:
    run = session()
    assert way.commit(way.reserve(run, ask()), USED, model="nobody-knows") == USED_COST
    assert set(run.report().breakdown.llm.by_model) == {"nobody-knows"}


# --- what has no price


@pytest.mark.parametrize(
    "usage", [USED._replace(web_search=1), USED._replace(other=(("code_runs", 2),)), USED._replace(output_audio=7)]
)
def test_a_unit_without_a_price_is_never_booked_as_nothing(way: Way, usage: Usage) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    for _ in range(2):
        assert way.commit(reservation, usage) == HELD_COST
    assert run.report().unpriced_calls == 1


def test_the_priced_part_is_charged_in_full_where_it_is_more_than_was_held(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    assert way.commit(reservation, Usage(input=100_000, web_search=1, other=(("x", 1),))) == 100_000 * 1_000
    assert run.report().unpriced_calls == 1


@pytest.mark.parametrize(
    ("searches", "other", "fees"),
    [
        (2, (), 2 * 70_000),
        (0, (("scan", 3),), 3 * 9_000),
        (4, (("scan", 3), ("scan", 1)), 4 * 70_000 + 4 * 9_000),
        (0, (), 0),
    ],
)
def test_uses_of_tools_whose_fee_the_caller_named_are_booked_at_it(
    way: Way, searches: int, other: Any, fees: int
) -> None:
    run = session(Budget("$1.00", allowance=Allowance(hosted_tool_calls=9)))
    named = (("web_search", 70_000), ("scan", 9_000))
    reservation = way.reserve(run, ask(tool_fees=named, hosted_tools=("web_search", "scan")))
    usage = USED._replace(web_search=searches, other=other)
    assert way.commit(reservation, usage) == USED_COST + fees
    assert run.report().unpriced_calls == 0


def test_a_late_actual_with_a_unit_without_a_price_is_reported(way: Way) -> None:
    run = session()
    reservation = way.reserve(run, ask())
    way.commit_estimate(reservation)
    for _ in range(2):
        way.commit(reservation, USED._replace(web_search=1))
    report = run.report()
    assert (report.unpriced_calls, report.uncertain) == (1, ZERO)
    assert sums(run)[3] == 1


# --- what was more than was held


def test_a_call_that_costs_more_than_was_held_is_charged_and_told(way: Way) -> None:
    run = session("$0.001")
    reservation = way.reserve(run, ask())
    cost = way.commit(reservation, Usage(input=100, output=200))
    assert cost == 2_100_000
    report = run.report()
    assert (report.overrun, report.bound_violations) == (usd(cost - HELD_COST), 1)
    assert report.remaining == Decimal("-0.0011")
    told = {type(e): e for e in run.events()}
    assert told[OverrunCharged].overrun == cost - HELD_COST  # type: ignore[union-attr]  # its key is its type
    violated = told[BoundViolated]
    assert isinstance(violated, BoundViolated)
    assert (violated.decision_id, violated.model) == (reservation.id, "large")
    assert (violated.bound_tokens, violated.actual_tokens) == (150, 300)
    assert "Overrun: $0.0015" in str(report)
    assert way.authorize(run, ask()).action == "block"


@pytest.mark.parametrize("usage", [Usage(input=100, output=50), Usage(input=0, output=0)])
def test_a_call_within_its_bound_violates_nothing(way: Way, usage: Usage) -> None:
    run = session()
    way.pay(run, ask(), usage)
    assert (run.report().overrun, run.report().bound_violations) == (ZERO, 0)


def test_a_cheaper_call_of_more_tokens_than_held_is_a_violation_too(way: Way) -> None:
    run = session()
    way.pay(run, ask(), Usage(input=101))
    assert (run.report().overrun, run.report().bound_violations) == (ZERO, 1)


def test_retried_requests_are_all_counted(way: Way) -> None:
    run = session(Budget("$1", max_requests=3))
    way.pay(run, ask(), USED._replace(requests=3))
    assert way.authorize(run, ask()).action == "block"


@pytest.mark.parametrize("price", ["large", "nobody-knows"])
@pytest.mark.parametrize("bad", [{"input": -5}, {"output": -1}, {"requests": -1}, {"input": 0.5}, {"reasoning": 2**60}])
def test_a_quantity_that_cannot_be_is_refused_and_books_nothing(way: Way, price: str, bad: dict[str, Any]) -> None:
    run = session(Budget("$1", unpriced="allow"))
    reservation = way.reserve(run, call(price, cap=5))
    with pytest.raises(ValueError, match=r"-|whole numbers"):
        way.commit(reservation, Usage()._replace(**bad))
    assert not reservation.settled
    assert sums(run)[0] == 0
    way.commit(reservation, Usage(input=5))
    assert reservation.settled


# --- settling a call in the wrong way


@pytest.mark.parametrize("verb", ["usage", "cost"])
def test_a_model_is_not_settled_like_a_tool_nor_a_tool_like_a_model(way: Way, verb: str) -> None:
    run = session()
    if verb == "usage":
        reservation = way.reserve(run, ToolCall("search", 5))
        with pytest.raises(TypeError, match="commit_cost"):
            way.commit(reservation, USED)
    else:
        reservation = way.reserve(run, ask())
        with pytest.raises(TypeError, match=r"commit"):
            way.commit_cost(reservation, "$0.01")
    assert (run.spent_usd, reservation.settled) == (ZERO, False)


@pytest.mark.parametrize("unit", ["web_search", "requests", "other", "code_runs"])
def test_a_unit_without_a_price_is_booked_by_whatever_name_it_comes(way: Way, unit: str) -> None:
    run = session()
    hold = way.reserve(run, ask())
    way.commit(hold, USED._replace(other=((unit, 2),)))
    assert sums(run) == (usd(HELD_COST), 0, 0, 1)
    assert run.report().unpriced_calls == 1


def test_a_call_made_without_asking_is_booked_and_raises_past_the_limit(way: Way) -> None:
    run = session(Budget(usd(USED_COST), soft_limit=None), run_id="r1")
    way.charge_call(run, ask(agent="a"), USED)
    assert sums(run) == (usd(USED_COST), 0, 0, 1)
    assert run.report().overrun == 0
    with pytest.raises(BudgetExceeded) as stop:
        way.charge_call(run, ask(agent="a"), USED)
    assert (stop.value.dimension, stop.value.actual) == ("max_cost_usd", usd(2 * USED_COST))
    assert sums(run) == (usd(2 * USED_COST), 0, 0, 2)
    assert run.report().by_agent["a"].calls == 2
    assert way.authorize(run, ask()).action == "block"


@pytest.mark.parametrize(("model", "usage"), [("large", None), ("no-such-model", USED)])
def test_a_call_made_without_asking_of_unknown_cost_is_reported_as_unpriced(
    way: Way, model: str, usage: Usage | None
) -> None:
    run = session()
    way.charge_call(run, call(model), usage)
    report = run.report()
    assert (report.unpriced_calls, report.breakdown.llm.calls, report.total_spent) == (1, 1, ZERO)
    assert report.breakdown.llm.by_model[model].input_tokens == (0 if usage is None else USED.input_tokens)


def test_a_call_that_was_made_elsewhere_is_one_request_whatever_it_says(way: Way) -> None:
    run = session(Budget("$5", max_requests=9))
    way.charge_call(run, call(), None)
    assert run.committed.requests == 1
    way.charge_call(run, call(), Usage(requests=3))
    assert run.committed.requests == 4


@pytest.mark.parametrize(
    ("limits", "i", "model", "left"),
    [
        (Limits(cost=1_000_000), 0, "large", 70),  # at 10,000 an output token, and nothing for an input that is read
        (Limits(cost=1_000_000), 0, "dime", -1),  # not even one request
        (Limits(cost=300_000), 0, "large", 0),
        (Limits(cost=299_999), 0, "large", -1),
        (Limits(cost=1_000_000), 0, None, math.inf),  # what has no price costs nothing
        (Limits(), 0, "large", math.inf),
        (Limits(output_tokens=90), 2, "large", 60),
        (Limits(output_tokens=90), 2, None, 60),
        (Limits(total_tokens=90), 3, "large", 80),
        (Limits(), 3, None, math.inf),
    ],
)
def test_how_much_more_could_be_written_is_told_to_the_token(
    limits: Limits, i: int, model: str | None, left: float
) -> None:
    spent, held = Amounts(200_000, 1, 20, 5, 1, 0), Amounts(100_000, 1, 10, 5, 1, 0)
    balance = Balance(Scope("run", "r"), limits, spent, held, 1, None)
    price = None if model is None else PriceTable.bundled().overlaid(PRICES).find(model)
    assert settlement._output_left(balance, i, price) == left
