"""An estimate says what a decision would say, and neither holds nor tells anything."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    LedgerUnavailable,
    LoopPolicy,
    MemoryLedger,
    Prompt,
    Session,
    ToolCall,
    UnboundedCallError,
    UnknownPriceError,
    Usage,
)
from budget_guard.calls.call_estimate import CallEstimate, would_hold
from budget_guard.ledger import HELD
from budget_guard.ledger.base import Balance, Refused, Revoked
from budget_guard.reporting import RunLog, RunRecord
from budget_guard.session.told import Told
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope
from tests.builders import PRICES, apart, call, session


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def awaits(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def estimate(run: Session, asked: Any, awaits: bool = False, **options: Any) -> CallEstimate:
    return asyncio.run(run.aestimate(asked, **options)) if awaits else run.estimate(asked, **options)


@pytest.mark.parametrize("seed", range(60))
def test_an_estimate_is_the_decision_that_follows_it(seed: int) -> None:
    dice = random.Random(seed)
    budget = Budget(
        dice.choice(["$0.05", "$0.30", "$5"]),
        max_requests=dice.choice([None, 2, 4]),
        mode=dice.choice(["hard_gate", "soft_gate", "advisory_estimate", "actuals_only"]),
        downgrade=dice.choice([None, {"large": "tiny"}, {"dime": "penny"}]),
        max_wait_s=0,
        finalization_reserve=dice.choice([None, "$0.02"]),
    )
    ours = BudgetAuthority(
        pricing=PRICES,
        ceilings={"user": [Budget(dice.choice(["$0.20", "$9"]), window="day"), Budget("$0.60", window="month")]},
    )
    run = ours.session(budget, user="u")
    for _ in range(12):
        name = dice.choice(["large", "dime", "penny", "tiny", "who-knows"])
        asked: Any = (
            ToolCall("search", dice.choice([10_000_000, 400_000_000]))
            if dice.random() < 0.2
            else call(name, tokens=dice.choice([10, 5_000]), cap=dice.choice([None, 50]))
        )
        foreseen = estimate(run, asked)
        decision = run.authorize(asked)
        assert (foreseen.action, foreseen.requested, foreseen.name) == (
            decision.action,
            decision.requested,
            decision.name,
        )
        assert foreseen.held == decision.held
        assert foreseen.output_cap == decision.output_cap
        assert foreseen.admitted == (decision.reservation is not None)
        assert type(foreseen.error) is type(decision.error) or decision.action == "advisory_warn"
        if isinstance(decision.error, BudgetExceeded) and isinstance(foreseen.error, BudgetExceeded):
            assert (foreseen.error.dimension, foreseen.error.scope) == (decision.error.dimension, decision.error.scope)
        if decision.reservation is not None and dice.random() < 0.7:
            decision.reservation.commit_estimate("booked as held")


def test_nothing_is_held_logged_or_told(awaits: bool) -> None:
    ledger = MemoryLedger()
    ours = BudgetAuthority(ledger, pricing=PRICES, ceilings={"user": Budget("$0.15")})
    run = ours.session(Budget("$1"), user="u1")
    told: list[object] = []
    run.subscribe(told.append)
    before = (ledger.balances((run.scope,)), ours.snapshot("user", "u1"))
    for asked in (call(), call("who-knows"), call("large", tokens=10**9), ToolCall("search", 10**10)):
        estimate(run, asked, awaits)
    assert (ledger.balances((run.scope,)), ours.snapshot("user", "u1")) == before
    assert run.decisions() == ours.decisions() == told == run.events() == []
    assert (run.terminated_by, run.report().duration_seconds) == (None, 0)


def test_an_estimate_says_what_refuses_a_call(awaits: bool) -> None:
    ours = BudgetAuthority(pricing=PRICES, ceilings={"user": Budget("$0.15", window="day")})
    run = ours.session(Budget("$1", max_wait_s=0), user="u1")
    seen = estimate(run, call(), awaits)
    assert (seen.action, seen.name, seen.held_usd, seen.waits) == ("allow", "dime", Decimal("0.10"), False)
    assert str(seen) == "allow: dime would hold $0.10."
    run.authorize(call()).require().commit(Usage())
    seen = estimate(run, call(), awaits)
    assert isinstance(seen.error, BudgetExceeded)
    assert (seen.admitted, seen.error.scope, seen.error.resets_at is not None) == (False, "user:u1", True)
    assert seen.held_usd == Decimal("0.10") and "user:u1" in str(seen)
    assert isinstance(estimate(run, call("who-knows"), awaits).error, UnknownPriceError)
    ours.revoke("user", "u1", reason="leaked")
    assert isinstance(estimate(run, call("penny"), awaits).error, BudgetRevoked)


def test_a_call_that_others_are_in_the_way_of_would_wait() -> None:
    run = session(Budget("$0.15", max_wait_s=30))
    held = apart(run.authorize, call()).require()
    seen = run.estimate(call())
    assert (seen.admitted, seen.waits) == (False, True)
    assert not run._run.queue.tickets
    held.release("not sent")
    assert run.estimate(call()).admitted


def test_a_cheaper_model_and_the_cap_of_an_agent_are_foreseen() -> None:
    budget = Budget("$1", downgrade={"dime": "penny"}, agents={"Researcher": Budget("$0.05")}, max_wait_s=0)
    run = session(budget)
    asked = call()
    seen = run.estimate(asked._replace(agent="Researcher"))
    assert (seen.action, seen.name, seen.held_usd) == ("downgrade", "penny", Decimal("0.01"))
    assert run.estimate(asked).name == "dime"


def test_what_cannot_be_bounded_is_foreseen_to_be_refused() -> None:
    asked = call("large")._replace(prompt=Prompt(100, 1, (), 0, opaque=("an image",)))
    seen = session("$1").estimate(asked)
    assert isinstance(seen.error, UnboundedCallError) and "an image" in str(seen)


def test_a_ledger_that_is_out_of_reach_refuses_by_the_mode() -> None:
    class Gone(MemoryLedger):
        gone = False

        def balances(self, scopes: Any) -> Any:
            if self.gone:
                raise LedgerUnavailable(detail="no route to host")
            return super().balances(scopes)

        def reserve(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("an estimate holds nothing")

    for mode, action in (("hard_gate", "block"), ("actuals_only", "advisory_warn")):
        ledger = Gone()
        run = Session(Budget("$1", mode=mode), ledger=ledger, pricing=PRICES)  # type: ignore[arg-type]
        ledger.gone = True
        seen = run.estimate(call())
        assert (seen.action, type(seen.error)) == (action, LedgerUnavailable)


def test_loops_are_not_counted_by_an_estimate() -> None:
    run = session(Budget("$1", loop=LoopPolicy(max_repeats=2)))
    for _ in range(9):
        assert run.estimate(run.with_trail(ToolCall("look", 0), {"where": "here"})).admitted
    assert run.authorize(run.with_trail(ToolCall("look", 0), {"where": "here"})).action == "allow"


def records(*dimes: int, task: str | None = "look") -> list[RunRecord]:
    now = datetime(2025, 1, 1, tzinfo=timezone.utc)
    return [
        RunRecord(id=str(i), task=task, started_at=now, outcome="ok", cost=each * 10**8) for i, each in enumerate(dimes)
    ]


def test_what_such_runs_took_is_told_from_records_of_the_same_task(tmp_path: Path, awaits: bool) -> None:
    log = RunLog(tmp_path / "runs.db")
    for each in (*records(1, 2, 3, 4, 20), *records(500, task="other"), *records(500, task=None)):
        log.add(each)
    run = session(Budget("$1", task="look"), told=Told(log))
    seen = estimate(run, call(), awaits)
    assert seen.past is not None
    assert (seen.past.runs, seen.past.median_usd) == (5, Decimal("0.3"))
    assert seen.past.p95_usd is not None and seen.past.p95_usd > Decimal("0.4")
    assert "5 such runs took $0.30 (median)" in str(seen)
    assert estimate(session(Budget("$1")), call(), awaits).past is None
    other = estimate(session(Budget("$1", task="look")), call(), awaits, records=records(7))
    assert other.past is not None and (other.past.runs, other.past.median_usd) == (1, Decimal("0.7"))
    none = estimate(session(Budget("$1", task="new")), call(), awaits, records=log).past
    assert none is not None and (none.runs, none.median_usd, none.p95_usd) == (0, None, None)


def test_records_that_cannot_be_read_keep_no_estimate(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def add(self, record: RunRecord) -> None: ...

        def __iter__(self) -> Any:
            raise OSError("the disk is gone")

    seen = session(told=Told(Broken())).estimate(call())
    assert (seen.admitted, seen.past) == (True, None)
    assert "the disk is gone" in caplog.text


def test_what_asks_for_no_room_would_be_held_unless_it_was_revoked() -> None:
    full = Balance(Scope("run", "r"), Limits(cost=1), Amounts(cost=5), Amounts(), 0, None)
    assert would_hold([full], None) == HELD
    assert isinstance(would_hold([full], (1, 0, 0, 0, 0, 0)), Refused)
    revoked = Revoked(full.scope, "leaked", FakeClock().now())
    assert would_hold([full, full._replace(revoked=revoked)], None) is revoked
