"""A budget is checked when it is made, and never changes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Allowance, Budget, DowngradePolicy, InvalidDowngradeError
from budget_guard.units.amounts import Amounts, Limits

COUNTS = ["max_total_tokens", "max_input_tokens", "max_output_tokens", "max_requests", "call_max_output_tokens"]
FRACTIONS = ["soft_limit", "hold_share"]
CHOICES = ["mode", "unpriced", "unbounded", "clamp_output", "server_errors"]
NOT_NUMBERS: list[Any] = [True, False, "five dollars", float("nan"), float("inf"), -1, -0.5, 1j, [1], {}]

BAD: list[tuple[str, Any]] = [
    *((name, bad) for name in ("max_cost_usd", "finalization_reserve") for bad in [*NOT_NUMBERS, 0, "0.0", 1e300]),
    *((name, bad) for name in COUNTS for bad in [*NOT_NUMBERS, 0, 1.5, "7", 2**53]),
    *(("max_tool_calls", bad) for bad in [*NOT_NUMBERS, 1.5, "7", 2**53]),
    *(("max_duration_s", bad) for bad in [*NOT_NUMBERS, 0, "60", 10**400]),
    *(("max_wait_s", bad) for bad in [*NOT_NUMBERS, None, "1"]),
    *((name, bad) for name in FRACTIONS for bad in [*NOT_NUMBERS, 0, 1.01, 90, "0.9"]),
    ("hold_share", None),
    *((name, bad) for name in CHOICES for bad in ["", "sometimes", None, 1, True, ["deny"]]),
    *(("downgrade", bad) for bad in [5, True, ["a", "b"]]),
    *(("task", bad) for bad in ["", "  ", 5, True, ["a"]]),
    *(("agents", bad) for bad in [{}, 5, "Researcher"]),
    *(("allowance", bad) for bad in [5, True, {"input_tokens": 5}, "lots"]),
]


@pytest.mark.parametrize(("field", "bad"), BAD, ids=[f"{field}={bad!r}"[:50] for field, bad in BAD])
def test_a_senseless_value_is_refused_naming_field_value_and_remedy(field: str, bad: Any) -> None:
    limits = {} if field == "max_cost_usd" else {"max_cost_usd": "$5"}
    with pytest.raises(ValueError) as caught:
        Budget(**{**limits, field: bad})
    message = str(caught.value)
    assert field in message
    assert repr(bad)[:20] in message
    assert len(message) > len(f"{field}={bad!r}"[:100]) + 15, "says what to do"


@pytest.mark.parametrize("options", [{}, {"mode": "soft_gate"}, {"call_max_output_tokens": 5}, {"soft_limit": 0.5}])
def test_a_budget_without_any_limit_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'no limit at all.*Budget\("\$5.00"\)'):
        Budget(**options)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_cost_usd", "0.000000001"), ("max_tool_calls", 0), ("max_duration_s", 0.1), *((f, 1) for f in COUNTS[:4])],
)
def test_any_one_limit_is_enough(field: str, value: Any) -> None:
    budget = Budget(**{field: value})
    assert getattr(budget, field) == (Decimal(value) if field == "max_cost_usd" else value)


def test_the_limits_of_a_ledger_are_those_of_the_budget_and_cost_rounds_down() -> None:
    budget = Budget("1.9999999999", max_total_tokens=5, max_input_tokens=3, max_output_tokens=2, max_requests=7)
    assert budget.limits == Limits(1_999_999_999, 3, 2, 5, 7, None)


def test_the_largest_values_are_taken() -> None:
    assert Budget(max_total_tokens=2**53 - 1).max_total_tokens == 2**53 - 1


# --- the finalization reserve


@pytest.mark.parametrize(
    "options",
    [
        {"max_cost_usd": "$1", "finalization_reserve": "$1"},
        {"max_cost_usd": "$1", "finalization_reserve": "$2"},
        {"max_requests": 5, "finalization_reserve": "$0.10"},
    ],
)
def test_a_finalization_reserve_must_be_a_part_of_the_dollar_limit(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"finalization_reserve=.*max_cost_usd"):
        Budget(**options)


def test_a_reserve_beyond_what_one_call_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finalization_reserve=.*more than a ledger can hold"):
        Budget("$20,000,000", finalization_reserve="$10,000,000")


def test_a_reserve_of_nothing_is_not_said_to_refuse_every_call() -> None:
    with pytest.raises(ValueError, match="finalization_reserve") as caught:
        Budget("$1", finalization_reserve=0)
    assert "every call" not in str(caught.value)


def test_the_reserve_keeps_back_its_dollars_rounded_up_and_one_request() -> None:
    assert Budget("$1", finalization_reserve="0.0000000015").kept_back == Amounts(cost=2, requests=1)
    assert Budget("$1").kept_back == Amounts()


# --- copies


def test_a_copy_has_the_changes_and_everything_else() -> None:
    budget = Budget("$1", max_requests=5, mode="soft_gate", downgrade={"a": "b"}, allowance=Allowance(input_tokens=9))
    changed = budget.replace(max_requests=6)
    for field in dataclasses.fields(Budget):
        expected = 6 if field.name == "max_requests" else getattr(budget, field.name)
        assert getattr(changed, field.name) == expected
    assert budget.max_requests == 5


def test_a_copy_is_checked_like_a_new_budget() -> None:
    with pytest.raises(ValueError, match="max_requests=0"):
        Budget("$1").replace(max_requests=0)
    with pytest.raises(ValueError, match="no limit"):
        Budget("$1").replace(max_cost_usd=None)


@pytest.mark.parametrize(
    ("raise_to", "expected"),
    [({"max_cost_usd": "$2"}, 2), ({"max_cost_usd": 1}, 1), ({"max_cost_usd": None}, None), ({}, 1)],
)
def test_limits_are_raised_or_removed(raise_to: dict[str, Any], expected: int | None) -> None:
    budget = Budget("$1", max_requests=5)
    assert budget.raised(**raise_to).max_cost_usd == expected
    assert budget.max_cost_usd == 1


@pytest.mark.parametrize(
    ("raise_to", "words"),
    [
        ({"max_cost_usd": "$0.50"}, "max_cost_usd='\\$0.50' is lower"),
        ({"max_requests": 4}, "max_requests=4 is lower"),
        ({"max_tool_calls": 3}, "max_tool_calls=3"),  # there was no limit: any is lower
        ({"soft_limit": 1.0}, "soft_limit=1.0 is not a limit: use one of max_cost_usd"),
        ({"max_cots": 1}, "max_cots=1 is not a limit"),
        ({"max_requests": float("nan")}, "max_requests=nan"),
        ({"max_cost_usd": None, "max_requests": None}, "no limit"),
    ],
)
def test_limits_cannot_be_lowered_or_made_up(raise_to: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget("$1", max_requests=5).raised(**raise_to)


# --- immutability


def test_a_budget_cannot_be_changed() -> None:
    budget = Budget("$1")
    for field in dataclasses.fields(Budget):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(budget, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        budget.something_else = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrap", [lambda mapping: mapping, lambda mapping: DowngradePolicy(to=mapping)])
def test_a_mapping_that_is_changed_later_changes_no_policy(wrap: Any) -> None:
    mapping = {"a": "b"}
    budget = Budget("$1", downgrade=wrap(mapping))
    mapping["a"] = "c"
    assert budget.downgrade is not None
    assert budget.downgrade.ladder("a") == ("b",)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_equal_budgets_are_equal_and_travel(duplicate: Any) -> None:
    budget = Budget("$1.50", max_requests=5, downgrade={"a": "b"}, finalization_reserve="$0.10")
    assert duplicate(budget) == budget == Budget(1.5, max_requests=5, downgrade={"a": "b"}, finalization_reserve=0.1)
    assert budget != Budget("$1.50")


# --- policies


@pytest.mark.parametrize("at", [0, -0.1, 1.01, float("nan"), True, "0.8", None])
def test_a_downgrade_threshold_is_a_fraction(at: Any) -> None:
    with pytest.raises(ValueError, match=r"downgrade\.at=.*fraction"):
        DowngradePolicy(to="gpt-4o-mini", at=at)


@pytest.mark.parametrize("to", ["", {}, None])
def test_a_downgrade_names_a_model(to: Any) -> None:
    with pytest.raises(ValueError, match=r"downgrade\.to=.*names no model"):
        DowngradePolicy(to=to)


@pytest.mark.parametrize(
    ("circle", "again"), [({"a": "a"}, "a"), ({"a": "b", "b": "a"}, "a"), ({"a": "b", "b": "c", "c": "b"}, "b")]
)
def test_a_ladder_that_goes_round_is_refused(circle: dict[str, str], again: str) -> None:
    with pytest.raises(InvalidDowngradeError, match="circle") as caught:
        DowngradePolicy(to=circle)
    assert caught.value.target == again


def test_a_single_model_is_written_as_it_is() -> None:
    assert Budget("$1", downgrade="gpt-4o-mini").downgrade == DowngradePolicy(to="gpt-4o-mini")


def test_a_ladder_is_followed_from_each_of_its_rungs() -> None:
    policy = DowngradePolicy(to={"a": "b", "b": "c"})
    assert [policy.ladder(model) for model in "abcd"] == [("b", "c"), ("c",), (), ()]
    assert DowngradePolicy(to="c").ladder("a") == ("c",)


def test_a_policy_without_some_models_goes_to_the_next_of_the_others() -> None:
    policy = DowngradePolicy(to={"a": "b", "b": "c", "d": "b"}, at=0.5)
    assert policy.only(lambda model: model != "b") == DowngradePolicy(to={"a": "c", "b": "c", "d": "c"}, at=0.5)
    assert policy.only(lambda model: model == "b") == DowngradePolicy(to={"a": "b", "d": "b"}, at=0.5)
    assert policy.only(lambda model: model == "a") is None
    assert DowngradePolicy(to="b").only(lambda model: model == "b") == DowngradePolicy(to="b")
    assert DowngradePolicy(to="b").only(lambda model: model == "a") is None
    assert DowngradePolicy(to="c").ladder("c") == ()


@pytest.mark.parametrize("field", ["input_tokens", "hosted_tool_calls"])
@pytest.mark.parametrize("bad", [-1, 1.5, True, None, "5"])
def test_an_allowance_is_a_whole_number(field: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=f"allowance.{field}="):
        Allowance(**{field: bad})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"requests": "/images"}, r"allowance\.requests='/images' is no mapping"),
        ({"requests": {"images": "0.04"}}, r"'images', which is no path.*base URL"),
        ({"requests": {"https://api.openai.com/v1/images": "0.04"}}, "which is no path"),
        ({"requests": {"/images?n=1": "0.04"}}, "which is no path"),
        ({"requests": {5: "0.04"}}, "has 5, which is no path"),
        ({"requests": {"/images": "dear"}}, r"allowance\.requests\['/images'\]"),
        ({"requests": {"/images": -1}}, r"allowance\.requests\['/images'\]"),
        ({"requests": {"/images": True}}, r"allowance\.requests\['/images'\]"),
        ({"requests": {"/images": float("nan")}}, r"allowance\.requests\['/images'\]"),
        ({"parameters": "x"}, r'allowance\.parameters=\'x\' must be names.*parameters=\("x",\)'),
        ({"parameters": ("x", 5)}, r"allowance\.parameters="),
        ({"parameters": ("",)}, r"allowance\.parameters="),
        ({"parameters": None}, r"allowance\.parameters=None"),
    ],
)
def test_an_allowance_names_what_is_wrong_with_it(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Allowance(**bad)


def test_an_allowance_is_a_value() -> None:
    prices: dict[str, Any] = {"/images": "0.04"}
    allowance = Allowance(requests=prices, parameters=["x"])  # type: ignore[arg-type]
    prices["/videos"] = "1"
    assert allowance == Allowance(requests={"/images": "0.04"}, parameters=("x",))
    assert pickle.loads(pickle.dumps(allowance)) == allowance
    assert hash(allowance) == hash(Allowance(requests={}, parameters=("x",)))


def test_a_metered_budget_stays_one_and_no_other_becomes_one() -> None:
    metered = Budget.metered(task="a")
    assert metered.replace(task="b") == Budget.metered(task="b")
    assert repr(metered).startswith("Budget.metered(")
    limited = Budget(max_requests=5)
    assert metered.replace(max_requests=5, task=None) == limited
    assert not repr(limited).startswith("Budget.metered(")
    with pytest.raises(ValueError, match="no limit at all"):
        limited.replace(max_requests=None)
