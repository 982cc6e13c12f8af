"""The cheaper models that could take a call which was refused."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget_guard import Alternative, Budget, BudgetAuthority, Decision, DowngradePolicy, MemoryLedger, ToolCall, Usage
from budget_guard.calls.alternatives import MOST_ALTERNATIVES
from budget_guard.session.session import Session
from budget_guard.testing import FakeClock
from tests.builders import PRICES, Way, apart, call, session

MODELS = ("dime", "penny", "large", "small", "tiny", "brief", "endless", "searcher", "nobody-knows")
CHEAPER = ("small", "tiny")


def names(found: list[Alternative]) -> list[str]:
    return [each.model for each in found]


def refused(run: Session, *args: Any, **options: Any) -> Decision:
    decision = run.authorize(call(*args, **options), may_wait=False)
    assert decision.action == "block"
    return decision


# --- which, and at which price


def test_a_refused_call_has_the_cheaper_models_of_the_ladder_and_of_the_list() -> None:
    run = session(Budget("$0.0105", downgrade={"large": "small"}))
    run.charge("search", "0.01")
    decision = refused(run, "large", tokens=1_000, cap=1_000)
    events = run.events()
    assert run.alternatives(decision, models=("tiny", "small", "large")) == [
        Alternative(
            model="small",
            estimate=1_100_000,
            fits_budget=False,
            supports_tools=True,
            supports_json_schema=False,
            context_window_tokens=None,
        ),
        Alternative(
            model="tiny",
            estimate=110_000,
            fits_budget=True,
            supports_tools=False,
            supports_json_schema=False,
            context_window_tokens=None,
        ),
    ]
    assert run.alternatives(decision)[0].estimate_usd == Decimal("0.0011")
    assert run.reserved_usd == 0 and len(run.decisions()) == 1 and run.events() == events


def test_the_price_table_says_what_a_model_can_do() -> None:
    run = Session(Budget("$0.01"))
    found = run.alternatives(refused(run, "gpt-5", tokens=100, cap=5_000), models=("gpt-5-mini", "gpt-4o-mini"))
    assert [
        (each.model, each.supports_tools, each.supports_json_schema, each.context_window_tokens) for each in found
    ] == [
        ("gpt-5-mini", True, True, 400_000),
        ("gpt-4o-mini", True, True, 128_000),
    ]


@pytest.mark.parametrize(
    ("needs", "offered"),
    [((), ["small", "tiny"]), (("tools",), ["small"]), (("vision",), []), (("json_schema",), [])],
)
def test_none_that_lacks_what_the_call_needs_is_offered(needs: tuple[str, ...], offered: list[str]) -> None:
    run = session("$0.001")
    decision = refused(run, "large", cap=1_000, needs=frozenset(needs))
    assert names(run.alternatives(decision, models=CHEAPER)) == offered


def test_what_is_not_known_of_a_model_it_does_not_have() -> None:
    run = session("$0.01")
    assert names(run.alternatives(refused(run, needs=frozenset(("tools",))), models=("penny",))) == []
    assert names(run.alternatives(refused(run), models=("penny",))) == ["penny"]


@pytest.mark.parametrize("model", ["large", "brief", "endless", "nobody-knows", "dime"])
def test_none_that_is_dearer_as_dear_or_unpriced_is_offered(model: str) -> None:
    run = session("$0.001")
    assert run.alternatives(refused(run, "large", cap=1_000), models=(model,)) == []


def test_of_another_provider_than_the_call_names_none_is_offered() -> None:
    run = Session(Budget("$0.001"))
    decision = refused(run, "gpt-4o", cap=5_000, provider="openai")
    assert names(run.alternatives(decision, models=("claude-haiku-4-5", "gpt-4o-mini"))) == ["gpt-4o-mini"]


def test_a_call_whose_provider_may_choose_the_model_has_none() -> None:
    run = session("$0.001")
    decision = refused(run, "large", cap=1_000, alternatives=("small",))
    assert run.alternatives(decision, models=("tiny",)) == []


def test_one_that_is_dearer_to_read_or_to_write_is_not_cheaper() -> None:
    pricing = PRICES | {
        "reader": {"input": 2e-6, "output": 1e-6, "max_output": 10_000},
        "writer": {"input": 1e-8, "output": 11e-6, "max_output": 10_000},
    }
    run = Session(Budget("$0.001"), pricing=pricing)
    assert names(run.alternatives(refused(run, "large", cap=1_000), models=("reader", "writer", "tiny"))) == ["tiny"]


def test_one_that_the_budget_would_replace_by_a_dearer_one_is_none() -> None:
    run = session(Budget("$0.001", downgrade="small"))
    assert names(run.alternatives(refused(run, "large", cap=1_000), models=("tiny",))) == ["small"]


def test_no_more_are_looked_at_than_a_refusal_has_time_for() -> None:
    run = session("$0.001")
    decision = refused(run, "large", cap=1_000)
    many = [f"no-{i}" for i in range(MOST_ALTERNATIVES - 1)]
    assert names(run.alternatives(decision, models=[*many, "tiny", "small"])) == ["tiny"]


# --- for which refusals


@pytest.mark.parametrize(
    "limits", [{"max_requests": 1}, {"max_total_tokens": 50}, {"max_output_tokens": 50}, {"max_duration_s": 1}]
)
def test_where_money_is_not_in_the_way_no_cheaper_model_helps(limits: dict[str, Any]) -> None:
    clock = FakeClock()
    run = session(Budget(**limits), clock=clock)
    if "max_total_tokens" not in limits and "max_output_tokens" not in limits:
        run.authorize(call("large", cap=100))
    clock.advance(2)
    assert run.alternatives(refused(run, "large", cap=100), models=CHEAPER) == []


def test_who_is_cut_off_is_offered_nothing_nor_is_a_tool_or_what_was_admitted() -> None:
    run = session("$0.005")
    admitted = run.authorize(call("large", cap=100))
    tool = run.authorize(ToolCall("search", cost=10**9))
    run.revoke("leaked")
    for decision in (admitted, tool, refused(run, "large", cap=100)):
        assert run.alternatives(decision, models=CHEAPER) == []


def test_money_that_only_others_hold_is_in_the_way_too() -> None:
    run = session("$0.0102")
    apart(run.authorize, call("large", cap=900))
    decision = apart(refused, run, "large", cap=1_000)
    assert decision.error is not None and decision.error.waiting_helps
    assert [each.fits_budget for each in run.alternatives(decision, models=CHEAPER)] == [True, True]


def test_a_brake_on_the_rate_of_spend_counts() -> None:
    clock = FakeClock()
    run = session(Budget("$1", max_usd_per_minute="0.0105"), clock=clock)
    run.authorize(call("tiny", tokens=0, cap=1)).require().commit(Usage(output=1))
    clock.advance(11)
    run.authorize(call("large", tokens=0, cap=1_000)).require().commit(Usage(output=1_000))
    decision = refused(run, "large", tokens=0, cap=1_000)
    assert decision.error is not None and decision.error.retry_after_s is not None
    found = run.alternatives(decision, models=CHEAPER)
    assert [(each.model, each.fits_budget) for each in found] == [("small", False), ("tiny", True)]
    assert run.authorize(call("tiny", tokens=0, cap=1_000)).action == "allow"


def test_every_scope_above_counts(way: Way) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$0.002")}, pricing=PRICES)
    run = authority.session(Budget("$5"), user="u1")
    decision = refused(run, "large", tokens=0, cap=1_000)
    found = (
        asyncio.run(run.aalternatives(decision, models=CHEAPER))
        if way._awaits
        else run.alternatives(decision, models=CHEAPER)
    )
    assert [(each.model, each.fits_budget) for each in found] == [("small", True), ("tiny", True)]
    run.charge("search", "0.0015")
    assert [each.fits_budget for each in run.alternatives(decision, models=CHEAPER)] == [False, True]


def test_they_are_found_with_one_look_at_the_counters() -> None:
    looks: list[Any] = []

    class Counting(MemoryLedger):
        def balances(self, scopes: Any) -> Any:
            looks.append(scopes)
            return super().balances(scopes)

    run = Session(Budget("$0.001", downgrade={"large": "small"}), ledger=Counting(), pricing=PRICES)
    decision = refused(run, "large", cap=1_000)
    looks.clear()
    assert len(run.alternatives(decision, models=CHEAPER)) == 2 and len(looks) == 1
    assert run.alternatives(decision, models=("nobody-knows",)) and len(looks) == 2
    other = session(Budget(max_requests=1))
    other.authorize(call())
    assert other.alternatives(refused(other), models=CHEAPER) == []


# --- what is named passes

STATES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(("dime", "large", "small", "brief", "endless", "searcher")),
        "tokens": st.integers(0, 3_000),
        "cap": st.none() | st.integers(1, 4_000),
        "needs": st.sets(st.sampled_from(("tools", "vision")), max_size=1),
        "final": st.booleans(),
        "choices": st.integers(1, 2),
    }
)
BUDGETS = st.fixed_dictionaries(
    {
        "max_cost_usd": st.integers(2, 400).map(lambda n: n / 10_000),
        "max_total_tokens": st.none() | st.integers(500, 20_000),
        "max_requests": st.none() | st.integers(2, 6),
        "finalization_reserve": st.none() | st.just(0.0001),
        "hold_share": st.sampled_from((0.1, 0.5, 1.0)),
        "max_wait_s": st.sampled_from((0, 30)),
        "call_max_output_tokens": st.none() | st.integers(50, 2_000),
        "clamp_output": st.sampled_from(("when_unset", "always", "never")),
        "mode": st.sampled_from(("hard_gate", "hard_gate", "soft_gate")),
        "max_usd_per_minute": st.none() | st.integers(1, 50).map(lambda n: n / 1_000),
        "downgrade": st.sampled_from(
            (None, DowngradePolicy("tiny", 0.5), {"large": "small", "small": "tiny"}, {"dime": "penny"})
        ),
    }
)


@settings(max_examples=400, deadline=None)
@given(
    budget=BUDGETS,
    ceiling=st.none() | st.integers(1, 300).map(lambda n: n / 10_000),
    before=st.lists(st.tuples(STATES, st.sampled_from(("held", "spent", "waits"))), max_size=5),
    asked=STATES,
)
def test_each_that_is_said_to_fit_passes_if_it_is_asked_for_next_and_none_is_dearer(
    budget: dict[str, Any], ceiling: float | None, before: list[Any], asked: dict[str, Any]
) -> None:
    clock = FakeClock()
    authority = BudgetAuthority(
        ceilings={} if ceiling is None else {"user": Budget(ceiling)}, pricing=PRICES, clock=clock, require=()
    )
    run = authority.session(Budget(**budget), user="u1")

    def made(state: dict[str, Any]) -> Any:
        return call(**{**state, "needs": frozenset(state["needs"])})

    for state, then in before:
        decision = apart(run.authorize, made(state), may_wait=False)
        if then == "spent" and decision.reservation is not None:
            decision.reservation.commit(Usage(input=10, output=10))
        clock.advance(4)
    decision = apart(run.authorize, made(asked), may_wait=False)
    if decision.action != "block":
        return
    counted = run.committed, run.reserved_usd
    found = apart(run.alternatives, decision, models=MODELS)
    assert (run.committed, run.reserved_usd) == counted
    itself = decision.call._replace(downgrade=DowngradePolicy(decision.requested))  # type: ignore[call-arg]
    for each in found:
        assert each.estimate < run.estimate(itself).held.cost
        if each.fits_budget:
            again = apart(run.authorize, replace_model(decision, each.model), may_wait=False)
            assert again.action in ("allow", "downgrade"), again
            assert again.held.cost == each.estimate
            again.require().release("only tried")


def replace_model(decision: Decision, model: str) -> Any:
    return decision.call._replace(model=model)  # type: ignore[call-arg]
