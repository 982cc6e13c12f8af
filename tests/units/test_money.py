"""Money is exact: a ceiling never grows, a cost never shrinks, nonsense is refused by name."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_guard.units.money import (
    MAX_NANO,
    NANO_PER_USD,
    cost_nano,
    format_usd,
    limit_nano,
    nano_of,
    parse_usd,
    to_usd,
    usd_text,
)

AMOUNTS = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("written", "nano"),
    [
        ("$5.00", 5 * 10**9),
        ("5", 5 * 10**9),
        (" $1,234.50 ", 1_234_500_000_000),
        ("1,234,567", 1_234_567 * 10**9),
        (5, 5 * 10**9),
        (1.5, 1_500_000_000),
        (0.1, 100_000_000),
        (Decimal("0.000000001"), 1),
        ("1e-3", 1_000_000),
        (0, 0),
    ],
)
def test_dollars_are_read_as_people_write_them(written: Any, nano: int) -> None:
    assert limit_nano(parse_usd(written, "cost")) == nano


@pytest.mark.parametrize(
    "hostile",
    [
        *["five dollars", "", "$", "$$5", "5$", "1,5", "$5,00", "1,23,456", "0x10", "-1", "$-5", -0.01, -1],
        *["NaN", "sNaN", float("nan"), Decimal("sNaN"), "inf", "-Infinity", float("inf"), Decimal("-Infinity")],
        *[True, False, None, b"5", [5], {"usd": 5}, 1j, ...],
        *["1e999999", Decimal("1e99999"), 1e300, MAX_NANO, "4611686018.427387905"],
        *[
            "1e-999999999",
            Decimal("1e-999999999"),
            Decimal("0e-999999999"),
            "0." + "1" * 2_000,
        ],  # endless
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_amount_of_money_is_refused_by_name(hostile: Any) -> None:
    with pytest.raises(ValueError, match="max_cost_usd"):
        parse_usd(hostile, "max_cost_usd")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0." + "1" * 1_098, None),  # 1,100 characters
        ("0." + "1" * 1_099, "more places"),
        (Decimal("0." + "1" * 1_098), None),
        (Decimal("0." + "1" * 1_099), "more places"),
        (Decimal("1e-1100"), None),
        (Decimal("1e-1101"), "more places"),
        (5e-324, None),
        (to_usd(MAX_NANO), None),
        (to_usd(MAX_NANO + 1), r"more than a ledger can hold \(\$4,611,686,018\)"),
        (4_611_686_018, None),
        (4_611_686_019, "more than a ledger"),
        (10**11, "more than a ledger"),
        (Decimal("-0"), None),
        (-5e-324, "negative"),
        ("-0.0", None),
        (float("-inf"), "not a finite"),
        (float("nan"), "not a finite"),
        ("sNaN", "not an? "),
        ("five", "not an amount"),
        (True, "not an amount"),
        (10**1_000, "=1" + "0" * 79 + r"\.\.\. is more"),
        (10**1_000 + 1, "=a number of thousands of digits is more"),
        (Decimal("1" + "0" * 68), r"00'\) is more"),
        (Decimal("1" + "0" * 70), r"00\.\.\. is more"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_an_amount_at_the_edge_of_what_is_taken_is_taken_or_refused_for_its_own_reason(value: Any, reason: str) -> None:
    if reason is None:
        assert parse_usd(value, "x") == Decimal(value if isinstance(value, (str, Decimal, int)) else repr(value))
    else:
        with pytest.raises(ValueError, match=reason):
            parse_usd(value, "x")


def test_a_number_too_long_to_write_down_is_refused_by_name_too() -> None:
    with pytest.raises(ValueError, match="max_cost_usd"):
        parse_usd(10**5_000, "max_cost_usd")


@pytest.mark.parametrize("hostile", ["five dollars", float("nan"), -1, True])
def test_a_refusal_shows_the_value_and_how_to_write_it(hostile: Any) -> None:
    with pytest.raises(ValueError) as caught:
        nano_of(hostile, "cost")
    assert repr(hostile) in str(caught.value)
    assert '"$5.00"' in str(caught.value)


def test_the_largest_amount_is_taken() -> None:
    assert limit_nano(parse_usd(to_usd(MAX_NANO), "x")) == MAX_NANO


def test_a_thousand_dimes_are_a_hundred_dollars_exactly() -> None:
    assert sum(nano_of(0.1, "cost") for _ in range(1_000)) == limit_nano(Decimal(100))
    assert to_usd(sum(nano_of(0.1, "cost") for _ in range(1_000))) == 100


@given(AMOUNTS)
def test_a_limit_rounds_down_and_a_cost_rounds_up_by_less_than_a_nano_dollar(amount: Decimal) -> None:
    exact = Fraction(amount) * NANO_PER_USD
    assert exact - 1 < limit_nano(amount) <= exact <= cost_nano(amount) < exact + 1


@given(AMOUNTS, st.integers(1, 40))
def test_the_callers_decimal_context_changes_nothing(amount: Decimal, precision: int) -> None:
    nano = cost_nano(amount)
    expected = limit_nano(amount), nano, to_usd(nano), format_usd(nano), parse_usd(amount, "x")
    with localcontext() as context:
        context.prec = precision
        assert (limit_nano(amount), cost_nano(amount), to_usd(nano), format_usd(nano), parse_usd(amount, "x")) == (
            expected
        )


@pytest.mark.parametrize("digits", [30, 60])
def test_no_digit_is_lost_however_many_there_are(digits: int) -> None:
    assert limit_nano(Decimal("0." + "9" * digits)) == NANO_PER_USD - 1
    assert cost_nano(Decimal("1." + "0" * digits + "1")) == NANO_PER_USD + 1


@given(st.integers(0, MAX_NANO))
def test_dollars_and_nano_dollars_convert_both_ways_without_loss(nano: int) -> None:
    assert limit_nano(to_usd(nano)) == cost_nano(to_usd(nano)) == nano


@given(st.floats(0, 10**6, allow_nan=False))
def test_a_float_is_read_by_its_shortest_form(dollars: float) -> None:
    assert parse_usd(dollars, "x") == Decimal(repr(dollars))


@pytest.mark.parametrize(
    ("nano", "words"),
    [
        (3_420_000_000, "$3.42"),
        (300_000_000, "$0.30"),
        (14_900_000, "$0.0149"),
        (1_350, "$0.00000135"),
        (1, "$0.000000001"),
        (-50_000_000, "-$0.05"),
        (0, "$0.00"),
        (1_234_567_890_000_000, "$1,234,567.89"),
        (10_000_000, "$0.01"),
    ],
)
def test_amounts_are_shown_with_as_many_digits_as_they_need(nano: int, words: str) -> None:
    assert format_usd(nano) == words


@given(st.integers(-MAX_NANO, MAX_NANO))
def test_an_amount_shown_is_near_the_amount_and_never_zero_for_something(nano: int) -> None:
    shown = Decimal(format_usd(nano).replace("$", "").replace(",", ""))
    assert abs(shown - to_usd(nano)) <= max(Decimal("0.00005"), Decimal("0.005") if abs(nano) > 10**9 else Decimal(0))
    assert (shown == 0) == (nano == 0)


@given(st.integers(min_value=-(2**63), max_value=2**63))
def test_plain_text_is_the_exact_amount_without_an_exponent(nano: int) -> None:
    assert usd_text(nano) == f"{to_usd(nano):f}"


def test_an_amount_that_makes_no_sense_is_named_unless_it_is_endless() -> None:
    with pytest.raises(ValueError, match="-5"):
        parse_usd(-5, "max_cost_usd")
    with pytest.raises(ValueError, match="a number of thousands of digits"):
        parse_usd(10**5_000, "max_cost_usd")
