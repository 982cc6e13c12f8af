"""What really serves a call: other models that may answer, and the tier, the region and the model that answers name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, ModelCall, PriceTable, Session, UnknownPriceError, Usage
from budget_guard.pricing.model_price import TEXT_ONLY
from tests.builders import ZERO, Way, call, session

USED = Usage(input=100, output=50)
HELD = Decimal("0.0006")
"""Of "large": 100 tokens in, 50 out."""


def ask(model: str = "large", **options: Any) -> ModelCall:
    return call(model, tokens=100, cap=50, **options)


def pay(run: Session, asked: ModelCall, **served: Any) -> tuple[Decimal, Decimal]:
    """Dollars held for a call, and dollars booked for it."""
    before = run.spent_usd
    reservation = run.authorize(asked).require()
    held = run.reserved_usd
    reservation.commit(USED, **served)
    return held, run.spent_usd - before


# Other models that may answer


def test_the_dearest_of_all_models_that_may_answer_is_held_and_the_one_that_answers_is_paid() -> None:
    run = session()

    assert pay(run, ask("tiny", alternatives=("large", "small")), model="small") == (HELD, HELD / 10)
    assert pay(run, ask("tiny", alternatives=("large", "small")), model="tiny") == (HELD, HELD / 100)
    assert pay(run, ask("tiny"), model="tiny") == (HELD / 100, HELD / 100), "alone it is as cheap as ever"


def test_how_a_call_is_served_makes_each_of_them_dearer() -> None:
    def held(**options: Any) -> Decimal:
        run = session("$100.00")
        run.authorize(ask("claude-opus-4-8", **options)).require()
        return run.reserved_usd

    for served in ({"service_tier": "fast"}, {"region": "us"}):
        assert held(alternatives=("claude-opus-4-6",), **served) >= held(**served) > held()


def test_where_no_answer_says_which_model_it_is_the_dearest_is_booked() -> None:
    assert pay(session(), ask("tiny", alternatives=("large",))) == (HELD, HELD)


def test_a_model_of_unknown_price_among_those_that_may_answer_is_refused() -> None:
    decision = session().authorize(ask("tiny", alternatives=("who-knows",)))

    assert isinstance(decision.error, UnknownPriceError) and decision.error.model == "who-knows"


def test_no_cheaper_model_takes_a_call_that_others_may_answer() -> None:
    run = session(Budget("$1.00", downgrade={"large": "tiny"}))
    run.charge("search", "0.90")

    assert run.authorize(ask()).name == "tiny"
    assert run.authorize(ask(alternatives=("small",))).name == "large"


def test_the_longest_answer_is_that_of_the_longest_writer() -> None:
    run = session("$100.00")
    run.authorize(call("brief", tokens=100, alternatives=("large",))).require()

    assert run.reserved_usd >= Decimal("0.0001") + 10_000 * Decimal("0.00001")


def test_the_dearest_price_is_never_below_any_of_them() -> None:
    table = PriceTable.bundled()
    names = ("gpt-4o", "gpt-5", "claude-opus-4-6", "gemini-2.5-pro", "sonar-pro")
    together = table.find_dearest(names)
    for name in names:
        own = table.find(name)
        for size in ((1, 1), (10**5, 10), (10, 10**5), (3 * 10**5, 10**4)):
            assert together.worst(*size, kinds=TEXT_ONLY) >= own.worst(*size, kinds=TEXT_ONLY)
    assert table.find_dearest(("gpt-4o",)).worst(10, 10) == table.find("gpt-4o").worst(10, 10)


# What was served without being asked for


def priority(run: Session, tier: str | None = "priority", **options: Any) -> tuple[Decimal, Decimal]:
    return pay(run, ask("gpt-4o", **options), service_tier=tier)


def test_a_dearer_tier_that_serves_unasked_is_held_from_then_on() -> None:
    run = Budget("$1.00").session()
    standard, booked = priority(run)
    assert booked > standard, "nobody could know"

    held, booked = priority(run)
    assert held >= booked > standard
    assert priority(run, "default") == (held, standard), "what served is what is booked"
    assert priority(run, "default")[0] == standard, "and what is held for the next"


def test_an_answer_that_names_no_tier_is_booked_as_the_last_one_that_did() -> None:
    run = Budget("$1.00").session()
    priority(run)

    held, booked = priority(run, None)
    assert held == booked == priority(run)[1]


def test_who_asks_for_the_standard_tier_is_held_at_its_price() -> None:
    run = Budget("$1.00").session()
    standard, _ = priority(run)

    assert priority(run, "default", service_tier="default") == (standard, standard)


# The tier of an account


def test_calls_that_ask_for_no_tier_are_held_at_that_of_the_budget(way: Way) -> None:
    standard = way.reserve(Budget("$1.00").session(), ask("gpt-5")).amounts.cost
    for tier, factor in (("flex", Decimal("0.5")), ("priority", Decimal(2)), ("default", Decimal(1))):
        run = Budget("$1.00", service_tier=tier).session()
        for asked in (ask("gpt-5"), ask("gpt-5", service_tier="auto")):
            assert way.reserve(run, asked).amounts.cost == standard * factor
        assert way.reserve(run, ask("gpt-5", service_tier="default")).amounts.cost == standard


def test_a_call_of_the_accounts_tier_is_booked_by_the_tier_that_served_it() -> None:
    standard, _ = pay(Budget("$1.00").session(), ask("gpt-5"), service_tier="default")
    for auto in (None, "auto"):
        run = Budget("$1.00", service_tier="flex").session()
        assert pay(run, ask("gpt-5", service_tier=auto), service_tier="flex") == (standard / 2, standard / 2)
        assert pay(run, ask("gpt-5", service_tier=auto), service_tier=None) == (standard / 2, standard / 2)
        assert pay(run, ask("gpt-5", service_tier=auto), service_tier="default") == (standard / 2, standard)
        assert run.report().overrun == standard / 2
        assert pay(run, ask("gpt-5", service_tier=auto), service_tier="default") == (standard, standard), (
            "held so since"
        )
        assert pay(run, ask("gpt-5", service_tier=auto), service_tier="flex") == (standard, standard / 2)
        assert pay(run, ask("gpt-5", service_tier=auto), service_tier="flex") == (standard / 2, standard / 2)


def test_an_answer_that_was_made_elsewhere_is_booked_at_the_accounts_tier_where_it_names_none() -> None:
    run = Budget("$1.00", service_tier="priority").session()
    run.charge_call(ask("gpt-5"), Usage(input=1_000))
    run.charge_call(ask("gpt-5", service_tier="default"), Usage(input=1_000))
    assert [each.total for each in run.report().breakdown.llm.by_model.values()] == [Decimal("0.00375")]


def test_a_tier_that_a_model_does_not_have_is_refused_and_none_is_a_name_of_one(way: Way) -> None:
    error = way.authorize(Budget("$1.00", service_tier="flexx").session(), ask("gpt-5")).error
    assert isinstance(error, UnknownPriceError) and "flexx" in str(error)
    for wrong in ("", " ", 5):
        with pytest.raises(ValueError, match=r"service_tier=.* is no name of a tier"):
            Budget("$1.00", service_tier=wrong)  # type: ignore[arg-type]
    assert repr(Budget("$1.00", service_tier="flex")) == "Budget('$1.00', service_tier='flex')"
    assert Budget("$1.00", service_tier="flex").raised(max_cost_usd="$2").service_tier == "flex"


def test_a_tier_of_unknown_price_teaches_nothing() -> None:
    run = session()
    assert pay(run, ask(), service_tier="warp") == (HELD, HELD)
    assert pay(run, ask(), service_tier="default") == (HELD, HELD)


def test_a_cheaper_tier_that_serves_unasked_lowers_no_hold() -> None:
    run = Budget("$1.00").session()
    standard, booked = pay(run, ask("gpt-5"), service_tier="flex")

    assert booked < standard == pay(run, ask("gpt-5"), service_tier="flex")[0]


def test_a_dearer_region_that_serves_unasked_is_held_from_then_on() -> None:
    run = Budget("$1.00").session()
    first, booked = pay(run, ask("claude-opus-4-6", hour_cache=False), region="us")
    assert first < booked == Decimal("0.001925")

    held, booked = pay(run, ask("claude-opus-4-6", hour_cache=False), region="us")
    assert held == first * Decimal("1.1") and booked == Decimal("0.001925")


def test_a_dearer_model_that_answers_unasked_is_held_from_then_on() -> None:
    run = session()
    assert pay(run, ask("small"), model="large") == (HELD / 10, HELD)
    assert pay(run, ask("small"), model="large") == (HELD, HELD)
    assert pay(run, ask("small"), model="small") == (HELD, HELD / 10)
    assert pay(run, ask("tiny"), model="tiny")[0] == HELD / 100


def test_a_cheaper_model_that_answers_unasked_lowers_no_hold() -> None:
    run = session()
    assert pay(run, ask(), model="small") == (HELD, HELD / 10)
    assert pay(run, ask(), model="small") == (HELD, HELD / 10)


def test_a_hundred_calls_at_once_on_a_known_dearer_tier_stay_within_the_ceiling() -> None:
    run = Budget("$0.05").session()
    priority(run)
    left = run.remaining_usd
    decisions = [run.authorize(ask("gpt-4o")) for _ in range(100)]
    for decision in decisions:
        if decision.error is None:
            decision.require().commit(USED, service_tier="priority")
    assert left is not None and run.remaining_usd is not None and run.remaining_usd >= ZERO
    assert run.reserved_usd == ZERO
