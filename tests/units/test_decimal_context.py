"""The caller's decimal context never matters: whatever it traps, and however it rounds, every figure is the same."""

from __future__ import annotations

import decimal
import functools
import io
import json
import pickle
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budget_guard import Allowance, Budget, BudgetAuthority, Session, ToolCall, Usage
from budget_guard.adapter.tool_costs import ToolCosts
from budget_guard.testing import FakeClock
from budget_guard.units import money
from tests.builders import PRICES, call

_SIGNALS = [
    decimal.Clamped,
    decimal.DivisionByZero,
    decimal.FloatOperation,
    decimal.Inexact,
    decimal.InvalidOperation,
    decimal.Overflow,
    decimal.Rounded,
    decimal.Subnormal,
    decimal.Underflow,
]
_ROUNDINGS = [
    *(decimal.ROUND_CEILING, decimal.ROUND_DOWN, decimal.ROUND_FLOOR, decimal.ROUND_HALF_DOWN),
    *(decimal.ROUND_HALF_EVEN, decimal.ROUND_HALF_UP, decimal.ROUND_UP, decimal.ROUND_05UP),
]
contexts = st.builds(
    Context,
    prec=st.sampled_from([1, 2, 3, 28, 100]),
    rounding=st.sampled_from(_ROUNDINGS),
    Emin=st.sampled_from([0, -1, -999_999]),
    Emax=st.sampled_from([0, 1, 999_999]),
    capitals=st.sampled_from([0, 1]),
    clamp=st.sampled_from([0, 1]),
    traps=st.one_of(st.just(_SIGNALS), st.just([]), st.lists(st.sampled_from(_SIGNALS), unique=True)),
)
HOSTILE = Context(prec=1, rounding=decimal.ROUND_UP, Emin=0, Emax=0, capitals=0, clamp=1, traps=_SIGNALS)
amounts = st.decimals(min_value="0.000000001", max_value="4000000", places=9).map(str)


def in_context(context: Context, act: Callable[[], list[object]]) -> list[str]:
    with decimal.localcontext(context):
        seen = act()
    return list(map(str, seen))


def money_paths(amount: str) -> list[object]:
    """Everything that users see of money, in text."""
    seen: list[object] = []
    for value in (amount, f"${amount}", Decimal(amount), float(amount)):
        seen.append(money.nano_of(value, "cost"))
    nano = money.nano_of(amount, "cost")
    seen += [money.to_usd(nano), money.format_usd(nano), money.format_usd(-nano), money.usd_text(nano)]
    seen.append(money.limit_nano(Decimal(amount)))
    for bad in ("nonsense", "NaN", "-1", "1e99", Decimal("Infinity"), Decimal("sNaN"), "1,5", True, float("nan")):
        try:
            money.parse_usd(bad, "cost")
        except ValueError as wrong:
            seen.append(str(wrong))
    clock = FakeClock()
    authority = BudgetAuthority(
        ceilings={"user": Budget("$5000000", window="day")},
        pricing={**PRICES, "mine": ("0.0000025", 1e-5)},
        clock=clock,
    )
    budget = Budget("$4500000", finalization_reserve="$0.05", allowance=Allowance(input_tokens=5), max_requests=99)
    seen += [budget, budget.kept_back, budget.limits, pickle.loads(pickle.dumps(budget)) == budget]
    session = authority.session(budget, "r1", user="u1")
    session.charge("search", amount)
    decision = session.authorize(call())
    seen += [decision.estimate.cost_usd, decision.held]
    decision.require().commit(Usage(input=7, output=3))
    seen.append(session.authorize(call()).require().commit(None))
    session.authorize(ToolCall("serp", money.nano_of("0.07", "cost"))).require().commit_cost(Decimal("0.0123456789"))
    session.track([], cost=0.01, tool="serp")
    with session.child(Budget("$0.50", max_requests=3)) as child:
        child.charge("search", "0.125")
    seen += [session.spent_usd, session.reserved_usd, session.remaining_usd, session.spent_fraction]
    session.raise_limits(max_cost_usd=Decimal("4600000.5"))
    report = session.report()
    seen += [str(report), sorted(json.loads(report.model_dump_json())["breakdown"]["tools"]["by_tool"])]
    seen += [report.total_spent, report.remaining, report.breakdown.tools.total, report.breakdown.llm.total]
    small = Session(Budget("$0.01"), pricing=PRICES, run_id="small", clock=clock)
    refused: Any = small.authorize(call()).error
    seen += [str(refused), refused.limit, refused.actual, refused.estimate]
    snapshot = authority.snapshot("user", "u1")
    seen += [snapshot.spent_usd, snapshot.reserved_usd, snapshot.remaining_usd]
    seen.append(ToolCosts({"serp": "$0.005", "other": lambda result: Decimal("0.5")}).of_result("other", None))
    return seen


@pytest.fixture(scope="module")
def usual() -> Context:
    return Context()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(context=contexts, amount=amounts)
def test_no_context_changes_a_figure_or_raises(usual: Context, context: Context, amount: str) -> None:
    expected = in_context(usual, lambda: money_paths(amount))
    assert in_context(context, lambda: money_paths(amount)) == expected


def test_the_most_hostile_one_of_all_neither(usual: Context) -> None:
    for amount in ("0.000000001", "0.10", "19.999999999", "4000000"):
        act = functools.partial(money_paths, amount)
        assert in_context(HOSTILE, act) == in_context(usual, act)


def test_a_default_context_that_traps_everything_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(map(str, money_paths("1.23")))
    for signal in _SIGNALS:
        monkeypatch.setitem(decimal.DefaultContext.traps, signal, True)
    assert in_context(Context(), lambda: money_paths("1.23")) == expected


def test_the_line_of_spend_neither() -> None:
    rich = pytest.importorskip("rich.console")
    from budget_guard.live import SpendLine

    def drawn() -> list[object]:
        session = Session(Budget("$3.00"), run_id="r")
        session.charge("search", "1.005")
        text = io.StringIO()
        rich.Console(file=text, width=200).print(SpendLine(session).draw())
        return [text.getvalue()]

    assert in_context(HOSTILE, drawn) == in_context(Context(), drawn)


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (99_999, "$0.000099999"),
        (100_000, "$0.0001"),
        (149_999, "$0.0001"),
        (150_000, "$0.0002"),
        (250_000, "$0.0002"),
        (10_000_000, "$0.01"),
        (999_950_000, "$1.0000"),
        (1_000_000_000, "$1.00"),
        (1_005_000_000, "$1.00"),
        (1_015_000_000, "$1.02"),
        (1_015_000_001, "$1.02"),
        (1_234_567_890_123_456_789, "$1,234,567,890.12"),
        (-50_000_000, "-$0.05"),
        (1_350, "$0.00000135"),
    ],
)
def test_figures_for_people_are_rounded_half_to_even(nano: int, text: str) -> None:
    assert money.format_usd(nano) == text
