"""A ceiling that refuses nothing and marks what it would have refused, beside hard ones, over every ledger."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    Ledger,
    LedgerUnavailable,
    MemoryLedger,
    ToolCall,
    Usage,
)
from budget_guard.calls.advisory import as_meant, is_advisory
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.leased import LeasedLedger
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.testing import FakeClock
from tests.builders import PRICES, ZERO, Way, apart, call
from tests.session.ledgers import LEDGERS, opened

WATCHED: Any = {"mode": "advisory_estimate"}


def authority(ledger: Any = None, /, **ceilings: Budget) -> BudgetAuthority:
    options: Any = {"clock": FakeClock()} if ledger is None else {}
    return BudgetAuthority(ledger, ceilings=ceilings, pricing=PRICES, require=(), **options)


def test_it_refuses_nothing_and_marks_what_it_would_have_refused(way: Way) -> None:
    of = authority(user=Budget("$0.25", **WATCHED))
    run = of.session(Budget("$5"), user="u1")
    decisions = [way.authorize(run, call()) for _ in range(4)]
    assert [decision.action for decision in decisions] == ["allow", "allow", "advisory_warn", "advisory_warn"]
    for words in ("max_cost_usd=$0.25 of user:u1 would be passed", "$0.20 is spent or held", "may take up to $0.10"):
        assert words in decisions[2].reason
    assert decisions[2].error is None and run.terminated_by is None
    for decision in decisions:
        way.commit(decision.require(), Usage())
    assert of.snapshot("user", "u1").spent_usd == run.spent_usd == Decimal("0.40")
    assert way.authorize(run, ToolCall("search")).action == "advisory_warn"  # as a hard one would refuse what is free


@pytest.mark.parametrize("limit", [{"max_requests": 2}, {"max_total_tokens": 450}, {"max_input_tokens": 250}])
def test_every_limit_of_it_marks(way: Way, limit: Any) -> None:
    run = authority(user=Budget(**limit, **WATCHED)).session(Budget("$5"), user="u1")
    actions = [way.authorize(run, call()).action for _ in range(3)]
    assert actions == ["allow", "allow", "advisory_warn"]
    assert next(iter(limit)) in run.decisions()[-1].reason


def test_a_hard_one_beside_it_refuses_and_so_does_the_run(way: Way) -> None:
    ceilings = {"user": Budget("$0.15", **WATCHED), "key": Budget("$0.35")}
    run = authority(**ceilings).session(Budget("$5", max_wait_s=0), user="u1", key="k1")
    actions = [way.authorize(run, call()).action for _ in range(4)]
    assert actions == ["allow", "advisory_warn", "advisory_warn", "block"]
    error = run.decisions()[-1].error
    assert isinstance(error, BudgetExceeded) and error.scope == "key:k1"
    small = authority(**ceilings).session(Budget("$0.25", max_wait_s=0), user="u2", key="k2")
    assert [way.authorize(small, call()).action for _ in range(3)] == ["allow", "advisory_warn", "block"]
    assert small.reserved_usd == Decimal("0.20")


def test_a_hard_ceiling_over_a_run_that_refuses_nothing_refuses_nothing(way: Way) -> None:
    run = authority(user=Budget("$0.15")).session(Budget("$5", mode="advisory_estimate"), user="u1")
    assert [way.authorize(run, call()).action for _ in range(2)] == ["allow", "advisory_warn"]


def test_windows_of_one_kind_may_differ_and_so_may_plans(way: Way) -> None:
    of = BudgetAuthority(
        clock=FakeClock(),
        pricing=PRICES,
        ceilings={"user": [Budget("$0.15", window="day", **WATCHED), Budget("$0.35", window="month")]},
        plans={
            "free": {"user": Budget("$0.05", window="month")},
            "pro": {"user": Budget("$0.05", window="month", **WATCHED)},
        },
    )
    run = of.session(Budget("$5", max_wait_s=0), user="u1")
    assert [way.authorize(run, call()).action for _ in range(4)] == ["allow", "advisory_warn", "advisory_warn", "block"]
    month, day = of.snapshot("user", "u1").windows
    assert (month.mode, day.mode) == (None, "advisory_estimate")
    assert (day.limits["max_cost_usd"], day.remaining["max_cost_usd"]) == (Decimal("0.15"), Decimal("-0.15"))
    assert of.snapshot("user", "u1").remaining_usd == Decimal("0.05")  # of what refuses
    of.assign("user", "u2", "free")
    assert way.authorize(of.session(Budget("$5", max_wait_s=0), user="u2"), call()).action == "block"
    of.assign("user", "u2", "pro")
    assert way.authorize(of.session(Budget("$5", max_wait_s=0), user="u2"), call()).action == "advisory_warn"
    assert of.snapshot("user", "u2").mode == "advisory_estimate"


def test_a_change_of_mode_holds_at_once_also_for_sessions_that_are_open_elsewhere(way: Way) -> None:
    ledger = MemoryLedger()
    here, there = (authority(ledger, user=Budget("$0.15")) for _ in range(2))
    run = here.session(Budget("$5", max_wait_s=0), user="u1")
    way.pay(run, call())
    assert way.authorize(run, call()).action == "block"
    there.set_ceiling("user", "u1", Budget("$0.15", **WATCHED))
    way.pay(run, call())  # once a call of it is over, it knows
    assert way.authorize(run, call()).action == "advisory_warn"
    again = here.session(Budget("$5", max_wait_s=0), user="u1")
    assert way.authorize(again, call()).action == "advisory_warn"
    there.set_ceiling("user", "u1", Budget("$0.15"))
    assert way.authorize(again, call()).action == way.authorize(run, call()).action == "block"
    there.set_ceiling("user", "u1", Budget("$0.15", **WATCHED))
    there.set_ceiling("user", "u1", None)
    assert way.authorize(run, call()).action == "block"
    assert there.snapshot("user", "u1").mode is None


def test_an_estimate_says_so_too_and_what_takes_another_model_is_marked_all_the_same(way: Way) -> None:
    run = authority(user=Budget("$0.15", **WATCHED)).session(Budget("$0.35", downgrade={"dime": "penny"}), user="u1")
    assert run.estimate(call()).action == "allow"
    way.pay(run, call())
    way.pay(run, call())
    seen = run.estimate(call())
    assert (seen.action, seen.admitted) == ("advisory_warn", True) and "user:u1" in str(seen.error)
    assert run.reserved_usd == 0
    way.pay(run, call())
    decision = way.authorize(run, call())
    assert (decision.action, decision.name) == ("advisory_warn", "penny")


def test_who_is_cut_off_is_refused_all_the_same(way: Way) -> None:
    of = authority(user=Budget("$0.15", **WATCHED))
    run = of.session(Budget("$5"), user="u1")
    of.revoke("user", "u1", reason="leaked")
    assert isinstance(way.authorize(run, call()).error, BudgetRevoked)


def test_the_ceiling_of_an_agent_that_is_added_marks_its_calls_alone(way: Way) -> None:
    run = authority(agent=Budget("$0.05", **WATCHED)).session(Budget("$5"), user="u1")
    run.add_agent("helper")
    assert way.authorize(run, call()).action == "allow"
    for _ in range(2):  # its ceiling is looked up with its first call
        decision = way.authorize(run, call(agent="helper"))
    assert decision.action == "advisory_warn" and "agent:helper" in decision.reason


def test_a_ledger_that_fails_after_the_hold_refuses_nothing(way: Way) -> None:
    class Failing(LedgerWrapper):
        down = False

        def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
            if self.down and verb == "balances":
                raise LedgerUnavailable(detail="no route to host")
            return super().flow(verb, arguments)

    ledger = Failing(MemoryLedger())
    run = authority(ledger, user=Budget("$0.05", **WATCHED)).session(Budget("$5"), user="u1")
    ledger.down = True
    decision = way.authorize(run, call())
    assert decision.action == "allow" and decision.reservation is not None
    ledger.down = False
    assert run.reserved_usd == Decimal("0.10")


def test_a_ceiling_has_one_of_two_modes() -> None:
    for mode in ("soft_gate", "actuals_only"):
        with pytest.raises(ValueError, match=f"sets mode='{mode}': a ceiling has 'hard_gate'"):
            authority(user=Budget("$1", mode=mode))
    with pytest.raises(ValueError, match="max_wait_s"):
        authority(user=Budget("$1", max_wait_s=1))


def test_it_is_written_down_so_that_nothing_else_is_taken_for_it() -> None:
    of = authority(user=Budget("$0.15", max_requests=7, **WATCHED), key=Budget("$1"))
    run = of.session(Budget("$5"), user="u1", key="k1")
    own, user, key = of.ledger.balances(run._run.scopes)
    assert [is_advisory(each) for each in (own, user, key)] == [False, True, False]
    assert all(limit is None for limit in user.limits)
    assert (as_meant(user).limits.cost, as_meant(user).limits.requests) == (150_000_000, 7)
    assert as_meant(key) == key


# --- at once, over every ledger


@pytest.fixture(params=LEDGERS)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    yield from opened(request.param, tmp_path)


def test_of_many_at_once_the_hard_ones_hold_and_none_over_the_advisory_one_is_unmarked(ledger: Ledger) -> None:
    ceilings = {"user": Budget("$0.45", **WATCHED), "team": Budget("$1.00")}
    runs = [authority(ledger, **ceilings).session(Budget("$50", max_wait_s=0), user="u1", team="t1") for _ in range(2)]

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(runs[n % 2].aauthorize(call(), sent=True) for n in range(20)))

    with ThreadPoolExecutor(8) as threads:
        decisions = list(threads.map(lambda n: apart(runs[n % 2].authorize, call(), sent=True), range(20)))
    decisions += asyncio.run(ask_all())
    actions = Counter(decision.action for decision in decisions)
    assert actions["allow"] + actions["advisory_warn"] == 10 and actions["block"] == 30
    if not isinstance(ledger, LeasedLedger):  # which goes by what was last seen of others' spending
        assert actions["allow"] <= 4
    for decision in decisions:
        if decision.reservation is not None:
            decision.reservation.commit(Usage())
    for kind, name in (("user", "u1"), ("team", "t1")):
        found = authority(ledger, **ceilings).snapshot(kind, name)
        assert (found.spent_usd, found.reserved_usd) == (Decimal("1.00"), ZERO)


def test_a_limit_that_others_let_pass_is_not_marked_by_it(way: Way) -> None:
    run = authority(user=Budget("$5", **WATCHED)).session(Budget("$0.05", mode="soft_gate"), user="u1")
    assert way.authorize(run, call()).action == "allow"


def test_a_change_of_its_limits_counts_too(way: Way) -> None:
    of = authority(user=Budget("$0.05", **WATCHED))
    run = of.session(Budget("$5"), user="u1")
    assert way.authorize(run, call()).action == "advisory_warn"
    of.set_ceiling("user", "u1", Budget("$1", **WATCHED))
    assert way.authorize(run, call()).action == "allow"
