"""A cheaper model stands in once enough is spent, and one that cannot is found out early."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetExceeded, DowngradePolicy, InvalidDowngradeError, Session, Usage
from budget_guard.events import ModelDowngraded
from tests.builders import ZERO, Way, call, session

LADDER = {"large": "small", "small": "tiny"}


def spend(way: Way, run: Session, dimes: int) -> None:
    for _ in range(dimes):
        way.pay(run, call())


@pytest.mark.parametrize("policy", ["small", {"large": "small"}, DowngradePolicy(to="small"), LADDER])
def test_the_model_is_replaced_from_the_threshold_on_and_not_before(way: Way, policy: Any) -> None:
    run = session(Budget("$1.00", downgrade={"dime": "penny", **policy} if isinstance(policy, dict) else policy))
    asked = call("large", cap=10)
    for spent in range(80, 0, -10):
        assert way.authorize(run, asked).name == "large", f"{100 - spent} %"
        way.charge(run, "tool", "$0.10")
    decision = way.authorize(run, asked)
    assert (decision.action, decision.name, decision.requested) == ("downgrade", "small", "large")
    assert decision.estimate.cost == 100 * 100 + 10 * 1_000


def test_a_downgrade_is_told_and_booked_under_the_model_that_was_called(way: Way) -> None:
    run = session(Budget("$1.00", downgrade="small"))
    way.charge(run, "tool", "$0.80")
    decision = way.authorize(run, call("large", cap=10))
    told = [event for event in run.events() if isinstance(event, ModelDowngraded)]
    assert [(t.decision_id, t.model, t.target) for t in told] == [(decision.id, "large", "small")]
    assert told[0].reason and told[0].reason == decision.reason
    assert run.decisions(action="downgrade") == [decision]
    way.commit(decision.require(), Usage(input=100, output=10))
    assert set(run.report().breakdown.llm.by_model) == {"small"}


def test_the_threshold_is_the_policys(way: Way) -> None:
    run = session(Budget("$1.00", downgrade=DowngradePolicy(to="small", at=0.25)))
    assert way.authorize(run, call("large", cap=10)).action == "allow"
    way.charge(run, "tool", "$0.25")
    assert way.authorize(run, call("large", cap=10)).action == "downgrade"


@pytest.mark.parametrize("downgrade", [None, "tiny"])
def test_a_callers_own_policy_comes_before_the_budgets(way: Way, downgrade: str | None) -> None:
    run = session(Budget("$1.00", downgrade=downgrade))
    steered = call("large", cap=10, downgrade=DowngradePolicy(to="small", at=0.5))
    assert way.authorize(run, steered).action == "allow"
    way.charge(run, "tool", "$0.80")
    assert way.authorize(run, steered).name == "small"
    assert way.authorize(run, call("large", cap=10)).name == (downgrade or "large")


def test_token_limits_count_for_the_threshold_and_requests_do_not(way: Way) -> None:
    run = session(Budget(max_requests=2, max_output_tokens=1_000, downgrade=DowngradePolicy(to="small", at=0.5)))
    way.pay(run, call("large", cap=10), Usage(output=10))
    assert way.authorize(run, call("large", cap=10)).action == "allow"
    run = session(Budget(max_output_tokens=1_000, downgrade=DowngradePolicy(to="small", at=0.5)))
    way.pay(run, call("large", cap=600), Usage(output=500))
    assert way.authorize(run, call("large", cap=10)).action == "downgrade"


def test_held_money_is_not_spent_money(way: Way) -> None:
    run = session(Budget("$1.00", downgrade=DowngradePolicy(to="tiny", at=0.1)))
    way.authorize(run, call("large", cap=9_000))
    assert way.authorize(run, call("large", cap=10)).action == "allow"


@pytest.mark.parametrize(("cap", "name"), [(10, "large"), (2_000, "small"), (10_000, "small")])
def test_a_call_that_does_not_fit_goes_down_before_the_threshold(way: Way, cap: int, name: str) -> None:
    run = session(Budget("$0.0101", downgrade="small"))
    assert way.authorize(run, call("large", cap=cap)).name == name


def test_the_ladder_is_gone_down_only_as_far_as_needed(way: Way) -> None:
    run = session(Budget("$1.00", downgrade=LADDER))
    way.charge(run, "tool", "$0.99")
    assert way.authorize(run, call("large", cap=1_000)).name == "small"
    assert way.authorize(run, call("large", cap=9_000)).name == "tiny"
    assert way.authorize(run, call("small", cap=500)).name == "tiny"
    assert way.authorize(run, call("tiny", cap=500)).action == "allow"


def test_a_call_that_fits_on_no_rung_is_refused_for_its_own_model(way: Way) -> None:
    run = session(Budget("$0.0001", downgrade=LADDER))
    error = way.authorize(run, call("large", cap=10_000)).error
    assert isinstance(error, BudgetExceeded)
    assert error.estimate == Decimal("0.1001")


def test_a_cheaper_model_is_no_help_against_another_limit(way: Way) -> None:
    run = session(Budget("$1.00", max_requests=1, downgrade=LADDER))
    way.pay(run, call("large", cap=10))
    error = way.authorize(run, call("large", cap=10)).error
    assert isinstance(error, BudgetExceeded) and error.dimension == "max_requests"


# --- targets that cannot stand in


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("gpt-4o-mini-foo", "'gpt-4o-mini-foo': no price is known"),
        ({"large": "gpt-9"}, "'gpt-9': no price is known"),
        ({"small": "large"}, "'large' is dearer than 'small'"),
        ({"large": "small", "small": "dime"}, "'dime' is dearer than 'small'"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_the_session_is_made(policy: Any, words: str) -> None:
    with pytest.raises(InvalidDowngradeError, match=words) as caught:
        session(Budget("$1", downgrade=policy))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (call("tiny", cap=10), "'small' is dearer than 'tiny'"),
        (call("large", cap=10, needs=frozenset({"vision"})), "lacks vision, which this call needs"),
        (call("large", cap=10, needs=frozenset({"tools", "audio", "vision"})), "lacks audio, vision"),
    ],
)
def test_a_target_that_cannot_stand_in_is_refused_at_the_first_call_not_at_the_threshold(
    way: Way, asked: Any, words: str
) -> None:
    run = session(Budget("$1.00", downgrade="small"))
    decision = way.authorize(run, asked)
    assert isinstance(decision.error, InvalidDowngradeError)
    assert words in str(decision.error) and decision.error.decision_id == decision.id
    assert (run.reserved_usd, run.terminated_by) == (ZERO, "downgrade")


def test_a_target_whose_capabilities_are_not_known_is_trusted(way: Way) -> None:
    run = session(Budget("$1.00", downgrade="penny"))
    assert way.authorize(run, call("dime", needs=frozenset({"vision"}))).action == "allow"


def test_a_rung_that_lacks_a_capability_is_stepped_over(way: Way) -> None:
    run = session(Budget("$1.00", downgrade=DowngradePolicy(to=LADDER, at=0.1)))
    way.charge(run, "tool", "$0.995")
    decision = way.authorize(run, call("large", cap=9_000, needs=frozenset({"tools"})))
    assert decision.action == "block", "tiny would fit, but has no tools"
    assert way.authorize(run, call("large", cap=9_000)).name == "tiny"


def test_what_a_call_needs_is_looked_at_for_each_call(way: Way) -> None:
    run = session(Budget("$1.00", downgrade=DowngradePolicy(to={"large": "small"}, at=0.1)))
    way.charge(run, "tool", "$0.50")
    assert way.authorize(run, call("large", cap=10)).name == "small"
    picture = way.authorize(run, call("large", cap=10, needs=frozenset({"vision"})))
    assert picture.action == "block" and "lacks vision" in str(picture.error)
    tools = way.authorize(run, call("large", cap=10, needs=frozenset({"tools"})))
    assert (tools.action, tools.name) == ("downgrade", "small")


@pytest.mark.parametrize("needs", ["vision", "json_schema", "audio", "tools"])
def test_each_capability_that_is_needed_keeps_a_model_out_that_lacks_it(way: Way, needs: str) -> None:
    has = {"vision", "json_schema", "audio", "tools"}
    prices = {
        "able": {"input": 1e-6, "output": 1e-5, "max_output": 100, "capabilities": sorted(has)},
        "lacking": {"input": 1e-7, "output": 1e-6, "max_output": 100, "capabilities": sorted(has - {needs})},
    }
    run = Session(Budget("$1.00", downgrade="lacking"), pricing=prices)
    assert way.authorize(run, call("able", needs=frozenset(has - {needs}))).action == "allow"
    assert isinstance(way.authorize(run, call("able", needs=frozenset({needs}))).error, InvalidDowngradeError)


def test_a_target_may_be_another_providers(way: Way) -> None:
    run = Session(Budget("$1.00", downgrade=DowngradePolicy(to="claude-3-5-haiku-20241022", at=0.5)))
    asked = call("gpt-4o", cap=10, provider="openai")
    assert way.authorize(run, asked).name == "gpt-4o"
    way.charge(run, "tool", "$0.60")
    decision = way.authorize(run, asked)
    assert (decision.action, decision.name) == ("downgrade", "claude-3-5-haiku-20241022")
    way.commit(decision.require(), Usage(input=1_000, output=10))
    booked = run.report().breakdown.llm.by_model["claude-3-5-haiku-20241022"]
    assert booked.total == Decimal("0.00084")  # $0.80 and $4.00 a million tokens
