"""A soft gate with a margin: a call passes that exceeds what is left by no more than that, over every ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, BudgetExceeded, Ledger, ToolCall, Usage
from tests.builders import PRICES, ZERO, Way, apart, call, session
from tests.session.ledgers import LEDGERS, opened

CENT = 10_000_000
SOFT: Any = {"mode": "soft_gate", "max_wait_s": 0}


def margin(limit: str, margin: Any, **more: Any) -> Budget:
    return Budget(limit, soft_margin_usd=margin, **SOFT, **more)


# --- which calls pass


@pytest.mark.parametrize(
    ("allowed", "passes"), [(None, 3), ("0", 2), ("0.04", 2), ("0.05", 3), ("0.149", 3), ("0.15", 4), ("5", 52)]
)
def test_a_call_passes_that_exceeds_what_is_left_by_no_more_than_the_margin(
    way: Way, allowed: str | None, passes: int
) -> None:
    run = session(margin("$0.25", allowed))
    for _ in range(passes):
        way.pay(run, call())
    error = way.authorize(run, call()).error
    assert isinstance(error, BudgetExceeded) and (error.dimension, error.estimate) == ("max_cost_usd", Decimal("0.10"))
    assert run.spent_usd == Decimal("0.10") * passes


def test_what_is_held_counts_as_what_is_spent(way: Way) -> None:
    run = session(margin("$0.25", "0.05"))
    assert [way.authorize(run, call()).action for _ in range(4)] == ["allow", "allow", "allow", "block"]


def test_a_tool_whose_price_is_known_passes_within_it_too(way: Way) -> None:
    run = session(margin("$0.05", "0.05"))
    assert way.authorize(run, ToolCall("search", cost=11 * CENT)).action == "block"
    assert way.authorize(run, ToolCall("search", cost=10 * CENT)).action == "allow"


def test_other_limits_than_dollars_are_as_without_it(way: Way) -> None:
    run = session(margin("$5", "0.05", max_requests=2, max_total_tokens=250))
    assert [way.authorize(run, call()).action for _ in range(3)] == ["allow", "allow", "block"]


def test_an_answer_that_nothing_caps_is_estimated_by_what_is_usual_and_not_by_what_is_left(way: Way) -> None:
    # 4,096 tokens of output at 10,000 nano-dollars, and 100 of input
    assert way.authorize(session(margin("$0.01", "0.03105")), call("large")).action == "block"
    decision = way.authorize(session(margin("$0.01", "0.03106")), call("large"))
    assert (decision.action, decision.estimate.output_tokens, decision.output_cap) == ("allow", 4_096, None)


def test_a_cheaper_model_that_fits_with_the_margin_takes_the_call(way: Way) -> None:
    run = session(margin("$0.005", "0.001", downgrade={"large": "small"}))
    assert way.authorize(run, call("large", tokens=0, cap=600)).name == "large"
    assert way.authorize(run, call("large", tokens=0, cap=600)).action == "block"


def test_the_margin_is_of_a_soft_gate_alone_and_no_less_than_nothing() -> None:
    for mode in ("hard_gate", "advisory_estimate", "actuals_only"):
        with pytest.raises(ValueError, match=r"soft_margin_usd='0\.05' has no effect with mode="):
            Budget("$1", soft_margin_usd="0.05", mode=mode)
    for wrong in ("-1", float("nan"), "lots"):
        with pytest.raises(ValueError, match="soft_margin_usd"):
            margin("$1", wrong)
    assert margin("$1", 0.05) == margin("$1", "0.05") != margin("$1", None)
    assert repr(margin("$1", "0.05")).count("soft_margin_usd='$0.05'") == 1
    assert margin("$1", 10**9).soft_margin == 2**53 - 1


# --- at once, over every ledger


@pytest.fixture(params=LEDGERS)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    yield from opened(request.param, tmp_path)


@pytest.mark.parametrize("scope", ["run", "user"])
def test_of_many_at_once_exactly_those_pass_that_the_margin_lets_pass(ledger: Ledger, scope: str) -> None:
    limits: Any = {"run": ("$1.00", "$50"), "user": ("$50", "$1.00")}[scope]
    authority = BudgetAuthority(ledger, ceilings={"user": Budget(limits[1])}, pricing=PRICES)
    runs = [authority.session(margin(limits[0], "0.25"), user="u1", run_id="r") for _ in range(2)]

    def ask(n: int) -> Any:
        return apart(runs[n % 2].authorize, call(), sent=True)

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(runs[n % 2].aauthorize(call(), sent=True) for n in range(30)))

    with ThreadPoolExecutor(8) as threads:
        decisions = list(threads.map(ask, range(30)))
    decisions += asyncio.run(ask_all())
    admitted = [decision for decision in decisions if decision.action == "allow"]
    assert len(admitted) == 12  # $1.20 of $1.00 and $0.25
    for decision in admitted:
        decision.require().commit(Usage())
    kind, name = {"run": ("run", "r"), "user": ("user", "u1")}[scope]
    found = authority.snapshot(kind, name)
    assert (found.spent_usd, found.reserved_usd) == (Decimal("1.20"), ZERO)
