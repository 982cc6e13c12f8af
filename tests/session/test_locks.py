"""Whatever a session and its ledgers share between threads is torn apart where no lock guards it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from budget_guard import Budget, BudgetAuthority, MemoryLedger, Session, Usage
from budget_guard.calls import recorder
from budget_guard.events import timeline
from budget_guard.ledger import waiters
from budget_guard.ledger.hold_id import hold_id
from budget_guard.ledger.leased import pool
from budget_guard.ledger.leased.ledger import LeasedLedger
from budget_guard.ledger.outbox import store
from budget_guard.ledger.outbox.ledger import replay
from budget_guard.ledger.outbox.store import Outbox, new_entry
from budget_guard.reporting import totals
from budget_guard.session import session as session_module
from budget_guard.testing.ledger_contract import race
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope
from tests.builders import PRICES, call

WORKERS = 6
DIME = 100_000_000
USER = Scope("user", "u1")


@pytest.fixture
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let another thread run before every line of the modules that the test names."""
    modules: tuple[ModuleType, ...] = request.param
    files = {module.__file__ for module in modules}

    def let_others_run(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        time.sleep(0)
        return let_others_run

    before = threading.gettrace()
    threading.settrace(let_others_run)
    yield
    threading.settrace(before)


def over(*modules: ModuleType) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("switching", [modules], indirect=True, ids=[""])


@over(recorder, totals)
@pytest.mark.usefixtures("switching")
def test_everything_that_is_booked_is_in_the_report() -> None:
    run = Session(Budget("$100"), pricing=PRICES)

    def work() -> None:
        for _ in range(8):
            hold = run.authorize(call()).require()
            hold.commit_estimate("timed out")
            hold.commit(Usage())  # in the place of the estimate
            run.charge("serp", "0.01")

    race([work] * WORKERS)
    report = run.report()
    calls = 8 * WORKERS
    assert report.breakdown.llm.calls == calls and report.breakdown.llm.total == calls * Decimal("0.10")
    assert report.breakdown.tools.calls == calls
    assert report.total_spent == report.breakdown.llm.total + report.breakdown.tools.total
    assert report.uncertain == 0


@over(recorder)
@pytest.mark.usefixtures("switching")
def test_a_soft_limit_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        run = Session(Budget("$1", soft_limit=0.1), pricing=PRICES)
        caplog.clear()
        race([lambda run=run: run.charge("serp", "0.15")] * WORKERS)  # type: ignore[misc]
        assert caplog.text.count("% spent") == 1


@over(timeline)
@pytest.mark.usefixtures("switching")
def test_subscribers_that_come_and_go_at_once_are_all_heard() -> None:
    run = Session(Budget("$1"), pricing=PRICES)
    heard: list[int] = []

    def come(number: int) -> None:
        gone = run.subscribe(lambda event: heard.append(-1))
        run.subscribe(lambda event: heard.append(number))
        gone()

    race([lambda number=number: come(number) for number in range(WORKERS)])  # type: ignore[misc]
    heard.clear()
    run.charge("serp", "0.01")
    assert sorted(heard) == sorted([*range(WORKERS), *range(WORKERS)]), "that it was booked, and what was used"


@over(session_module)
@pytest.mark.usefixtures("switching")
def test_raises_at_once_are_all_counted() -> None:
    run = Session(Budget("$1", max_requests=1, max_tool_calls=1, max_total_tokens=1))
    race(
        [
            lambda: run.raise_limits(max_requests=5),
            lambda: run.raise_limits(max_tool_calls=6),
            lambda: run.raise_limits(max_total_tokens=7),
            lambda: run.raise_limits(max_cost_usd="$8"),
        ]
    )
    budget = run.budget
    assert (budget.max_requests, budget.max_tool_calls, budget.max_total_tokens) == (5, 6, 7)
    assert budget.max_cost_usd == 8
    assert run.times_raised == 4
    assert run.ledger.balances((run.scope,))[0].limits == budget.limits


@pytest.mark.parametrize("in_a_file", [False, True])
@over(store)
@pytest.mark.usefixtures("switching")
def test_what_is_kept_and_delivered_at_once_is_booked_once(in_a_file: bool, tmp_path: Path) -> None:
    ledger = MemoryLedger()
    ledger.set_limits(USER, Limits())
    outbox = Outbox(tmp_path / "outbox.jsonl" if in_a_file else None)

    def work(number: int) -> None:
        for each in range(6):
            outbox.add(new_entry("charge", hold_id(each, f"w{number}-{each}"), (USER,), Amounts(cost=1)))
            if each % 2:
                replay(outbox, ledger)

    race([lambda number=number: work(number) for number in range(WORKERS)])  # type: ignore[misc]
    replay(outbox, ledger)
    assert ledger.balances((USER,))[0].committed.cost == 6 * WORKERS
    assert outbox.entries() == [] and not outbox.rejected


@over(pool)
@pytest.mark.usefixtures("switching")
def test_leases_lose_nothing() -> None:
    shared = MemoryLedger()
    leased = LeasedLedger(shared)
    authority = BudgetAuthority(leased, {"user": Budget("$3")}, pricing=PRICES)
    run = authority.session(Budget("$5"), user="u1")
    paid: list[int] = []

    def work(number: int) -> None:
        for each in range(6):
            hold = run.authorize(call()).reservation
            if hold is not None:
                if (number + each) % 5 == 0:
                    hold.release("refused connection")
                else:
                    paid.append(hold.commit(Usage()))
            if each % 2:
                run.charge("serp", "0.001")
                paid.append(1_000_000)

    race([lambda number=number: work(number) for number in range(WORKERS)])  # type: ignore[misc]
    leased.settle()
    balance = shared.balances((USER,))[0]
    assert (balance.committed.cost, balance.reserved.cost) == (sum(paid), 0)
    assert sum(paid) <= 3 * 10**9 + WORKERS * 3 * 1_000_000
    assert shared.audit() == []


@over(waiters)
@pytest.mark.usefixtures("switching")
def test_no_wait_misses_the_room_that_is_given() -> None:
    ledger = MemoryLedger()
    ledger.set_limits(USER, Limits(cost=1))
    one = Amounts(cost=1)

    def work(number: int) -> bool:
        for each in range(10):
            mine = hold_id(number, f"h{each}")
            while True:
                outcome = ledger.reserve(mine, (USER,), one, one)
                version = getattr(outcome, "version", None)
                if version is None:
                    break
                if not ledger.await_room(version, 20):
                    return False
            ledger.release(mine, (USER,))
        return True

    assert all(race([lambda number=number: work(number) for number in range(WORKERS)]))  # type: ignore[misc]
