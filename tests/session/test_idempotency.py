"""An idempotency key: the same key from the same principal gets the decision that was made the first time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import (
    Allowance,
    Budget,
    BudgetAuthority,
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    Decision,
    ForeignRun,
    IdempotencyKey,
    InvalidDowngradeError,
    Ledger,
    LedgerUnavailable,
    LoopDetected,
    MemoryLedger,
    ReservationConflict,
    Session,
    ToolCall,
    UnboundedCallError,
    UnknownPriceError,
    Usage,
    open_ledger,
)
from budget_guard.calls import idempotency
from budget_guard.calls.decision_json import read, written
from budget_guard.clock import SYSTEM_CLOCK
from budget_guard.testing import FakeClock
from tests.builders import PRICES, ZERO, apart, call, session

ROOT = Path(__file__).parents[2]


def authority(ledger: Ledger | str, **options: Any) -> BudgetAuthority:
    return BudgetAuthority(ledger, {"user": Budget("$100", window="month")}, pricing=PRICES, **options)


def decide(run: Session, asked: Any = None, key: str | IdempotencyKey = "k", awaits: bool = False) -> Decision:
    asked = call() if asked is None else asked
    if awaits:
        return asyncio.run(run.aauthorize(asked, idempotency_key=key))
    return apart(run.authorize, asked, idempotency_key=key)


@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "awaiting"])
@pytest.mark.parametrize("asked", [call(), ToolCall("search", 5_000_000)], ids=["model", "tool"])
def test_the_same_key_gets_the_same_decision_and_holds_once(awaits: bool, asked: Any) -> None:
    run = session("$1.00")
    first = decide(run, asked, awaits=awaits)
    held = run.reserved_usd
    assert [decide(run, asked, awaits=awaits) for _ in range(3)] == [first] * 3
    assert run.reserved_usd == held
    assert run.decisions() == [first]
    assert decide(run, asked, "another").id != first.id


@pytest.mark.parametrize(
    "other", [call(tokens=101), call("penny"), call(cap=5), call(agent="a"), call(choices=2), ToolCall("search", 5)]
)
def test_another_call_under_the_same_key_is_a_conflict_and_holds_nothing(other: Any) -> None:
    run = session("$1.00")
    first = decide(run)
    conflict = decide(run, other)
    assert isinstance(conflict.error, ReservationConflict)
    assert conflict.action == "block" and conflict.reservation is None
    assert "Use another key" in str(conflict.error)
    assert run.reserved_usd == first.estimate.cost_usd
    assert run.terminated_by is None
    assert decide(run) is first


def test_a_body_tells_calls_apart_that_weigh_the_same() -> None:
    run = session("$1.00")
    first = decide(run, key=IdempotencyKey("k", "digest of a"))
    assert isinstance(decide(run, key=IdempotencyKey("k", "digest of b")).error, ReservationConflict)
    assert decide(run, key=IdempotencyKey("k", "digest of a")) is first


@pytest.mark.parametrize("key", ["", "x" * 256, 5])
def test_a_key_that_is_none_is_refused_by_name(key: Any) -> None:
    with pytest.raises(ValueError, match="idempotency_key="):
        session().authorize(call(), idempotency_key=key)


def test_keys_of_different_principals_are_different_keys() -> None:
    ledger = MemoryLedger()
    ours = authority(ledger)
    first, second = (decide(ours.session(Budget("$1"), user=user)) for user in ("u1", "u2"))
    assert first.error is None and second.error is None
    assert first.id != second.id


def test_a_key_of_the_same_principal_in_another_run_is_a_conflict() -> None:
    ours = authority(MemoryLedger())
    decide(ours.session(Budget("$1"), user="u1"))
    assert isinstance(decide(ours.session(Budget("$1"), user="u1")).error, ReservationConflict)


def test_a_decision_of_another_process_is_one_and_the_same_from_then_on() -> None:
    ledger = MemoryLedger()
    ours, other = (authority(ledger).session(Budget("$1"), "r1", user="u1") for _ in range(2))
    first = decide(ours)
    heard = decide(other)
    assert heard.id == first.id and heard is not first
    assert decide(other) is heard


def test_a_hundred_tasks_and_threads_with_one_key_hold_once() -> None:
    run = authority(MemoryLedger()).session(Budget("$50"), user="u1")

    async def tasks() -> list[Decision]:
        return await asyncio.gather(*(run.aauthorize(call(), idempotency_key="tasks") for _ in range(100)))

    assert len({decision.id for decision in asyncio.run(tasks())}) == 1
    with ThreadPoolExecutor(32) as pool:
        threads = list(pool.map(lambda _: decide(run, key="threads"), range(100)))
    assert len({decision.id for decision in threads}) == 1
    assert run.reserved_usd == Decimal("0.20")


def test_a_hundred_at_once_on_a_shared_ledger_hold_once(url: str, ledger: Ledger) -> None:
    other_ledger = open_ledger(url)
    ours = [authority(each).session(Budget("$50"), "r1", user="u1") for each in (ledger, other_ledger)]

    async def tasks(run: Session) -> set[str]:
        decisions = await asyncio.gather(*(run.aauthorize(call(), idempotency_key="k") for _ in range(50)))
        return {decision.id for decision in decisions}

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda run: asyncio.run(tasks(run)), ours))
    assert len(found[0] | found[1]) == 1
    assert ours[0].reserved_usd == Decimal("0.10")
    other_ledger.close()


def test_another_process_gets_the_same_decision_and_settles_it(url: str, ledger: Ledger) -> None:
    program = (
        "import json, sys\n"
        "from budget_guard import Budget, BudgetAuthority, Usage, open_ledger\n"
        "from tests.builders import PRICES, call\n"
        "ledger = open_ledger(sys.argv[1])\n"
        "run = BudgetAuthority(ledger, {'user': Budget('$100', window='month')}, pricing=PRICES)"
        ".session(Budget('$50'), 'r1', user='u1')\n"
        "made = run.authorize(call(), idempotency_key='k')\n"
        "print(json.dumps([made.id, made.action, made.require().commit(Usage())]))\n"
        "ledger.close()\n"
    )
    run = authority(ledger).session(Budget("$50"), "r1", user="u1")
    first = decide(run)
    told = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert json.loads(told.stdout) == [first.id, "allow", 100_000_000]
    assert first.require().commit(Usage()) == 100_000_000
    assert (run.spent_usd, run.reserved_usd) == (Decimal("0.10"), ZERO)


def test_after_a_restart_the_decision_is_there_and_settles_once(url: str) -> None:
    before = open_ledger(url)
    first = decide(authority(before).session(Budget("$50"), "r1", user="u1"), call("large", cap=50))
    before.close()
    after = open_ledger(url)
    run = authority(after).session(Budget("$50"), "r1", user="u1")
    again = decide(run, call("large", cap=50))
    assert (again.id, again.held, again.action) == (first.id, first.held, first.action)
    assert repr(again.terms) == repr(first.terms)
    assert isinstance(decide(run, call("large", cap=51)).error, ReservationConflict)
    usage = Usage(input=90, output=10)
    assert again.require().commit(usage) == again.require().commit(usage) == 190_000
    third = decide(authority(after).session(Budget("$50"), "r1", user="u1"), call("large", cap=50))
    with pytest.raises(ReservationConflict):
        third.require().commit(Usage(input=90, output=11))
    third.require().release("too late")
    assert run.spent_usd == Decimal("0.00019")
    after.close()


def test_a_downgrade_is_kept_with_its_model_and_cap() -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    ledger = MemoryLedger(clock=clock)
    budget = Budget("$1.00", downgrade={"large": "small"})
    options: dict[str, Any] = {"ledger": ledger, "run_id": "r1", "clock": clock}
    run = session(budget, **options)
    run.charge("search", "0.9")
    first = decide(run, call("large"))
    again = decide(session(budget, **options), call("large"))
    assert first.action == again.action == "downgrade"
    assert (again.id, again.name, again.output_cap, again.reason) == (
        first.id, first.name, first.output_cap, first.reason,
    )  # fmt: skip
    assert repr(again.terms) == repr(first.terms)


def test_a_refusal_is_kept_with_what_it_says() -> None:
    ledger = MemoryLedger()
    run = session("$0.05", ledger=ledger, run_id="r1")
    first = decide(run)
    run.raise_limits(max_cost_usd="5")
    other = session("$5", ledger=ledger, run_id="r1")
    again = decide(other)
    assert isinstance(first.error, BudgetExceeded) and isinstance(again.error, BudgetExceeded)
    assert str(again.error) == str(first.error)
    assert again.error.fields() | {"report": None} == first.error.fields() | {"report": None}
    assert again.id == again.error.decision_id == first.id
    assert decide(other, key="another").error is None


def test_a_refusal_that_says_to_try_again_is_not_kept() -> None:
    run = session(Budget("$0.10", max_wait_s=0))
    held = decide(run, key="first")
    refused = decide(run, key="second")
    assert isinstance(refused.error, BudgetExceeded) and refused.error.waiting_helps
    held.require().release("not sent")
    assert decide(run, key="second").error is None


def test_a_refusal_by_a_window_is_kept_until_that_ends() -> None:
    clock = FakeClock(datetime(2026, 1, 1, 12, 30, tzinfo=timezone.utc))
    ledger = MemoryLedger(clock=clock)
    ours = BudgetAuthority(ledger, {"user": Budget("$0.05", window="hour")}, pricing=PRICES, clock=clock)
    run = ours.session(Budget("$5"), user="u1")
    refused = decide(run)
    ours.set_ceiling("user", "u1", Budget("$9", window="hour"))
    assert decide(run).id == refused.id
    clock.advance(1_801)
    assert decide(run).error is None


def test_the_key_of_a_process_that_died_is_decided_on_when_its_claim_lapses() -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    ledger = MemoryLedger(clock=clock)
    run = session(Budget("$1", max_wait_s=5), ledger=ledger, run_id="r1", clock=clock)
    claimed: list[str] = []
    swap = ledger.swap

    def dies(name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        claimed.append(name)
        if expected is not None:
            raise KeyboardInterrupt
        return swap(name, expected, text, ttl_s)

    ledger.swap = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        decide(run)
    ledger.swap = swap  # type: ignore[method-assign]
    started = clock.monotonic()
    other = session(Budget("$1", max_wait_s=5), ledger=ledger, run_id="r1", clock=clock)
    assert decide(other).error is None
    assert 0 < clock.monotonic() - started <= 36
    assert run.reserved_usd == Decimal("0.10")


@pytest.mark.parametrize("may_wait", [True, False])
def test_what_another_process_decides_on_is_waited_for_where_one_can_wait(may_wait: bool) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    ledger = MemoryLedger(clock=clock)
    run, other = (session(Budget("$1", max_wait_s=5), ledger=ledger, run_id="r1", clock=clock) for _ in range(2))
    swap = ledger.swap

    def dies(name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        if expected is not None:
            raise KeyboardInterrupt
        return swap(name, expected, text, 1_000)  # its claim stands for longer than anybody waits

    ledger.swap = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        decide(run)
    ledger.swap = swap  # type: ignore[method-assign]
    started = clock.monotonic()
    decision = other.authorize(call(), idempotency_key="k", may_wait=may_wait)
    assert isinstance(decision.error, LedgerUnavailable) and "is being decided on: try again" in str(decision.error)
    waited = clock.monotonic() - started
    assert 35 <= waited < 36 if may_wait else waited == 0
    assert other.reserved_usd == 0


def test_a_decider_that_was_too_slow_gives_back_what_it_holds() -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    ledger = MemoryLedger(clock=clock)
    options: dict[str, Any] = {"ledger": ledger, "run_id": "r1", "clock": clock}
    slow, quick = (session(Budget("$1", max_wait_s=0), **options) for _ in range(2))
    reserve = ledger.reserve
    overtaken: list[Decision] = []

    def slowly(*arguments: Any, **named: Any) -> Any:
        ledger.reserve = reserve  # type: ignore[method-assign]
        clock.advance(31)  # its claim has lapsed
        overtaken.append(decide(quick))
        return reserve(*arguments, **named)

    ledger.reserve = slowly  # type: ignore[method-assign]
    decision = decide(slow)
    assert decision.id == overtaken[0].id
    assert slow.reserved_usd == Decimal("0.10")


async def test_a_decider_that_is_cancelled_leaves_nothing_and_keeps_nobody_waiting() -> None:
    ledger = MemoryLedger()
    run = session(Budget("$0.10", max_wait_s=60), ledger=ledger, clock=SYSTEM_CLOCK)
    loop = asyncio.get_running_loop()
    first = await loop.create_task(run.aauthorize(call(), idempotency_key="first"))
    waiting = loop.create_task(run.aauthorize(call(), idempotency_key="second"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await first.require().arelease("not sent")
    second = await run.aauthorize(call(), idempotency_key="second")
    assert second.error is None
    assert run.reserved_usd == Decimal("0.10")


def broken(ledger: MemoryLedger, at: Callable[[str | None, str | None], bool]) -> None:
    """Let *ledger* be out of reach for a swap *at* which that is true."""
    swap = ledger.swap

    def swapping(name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        if at(expected, text):
            raise LedgerUnavailable(detail="down")
        return swap(name, expected, text, ttl_s)

    ledger.swap = swapping  # type: ignore[method-assign]


@pytest.mark.parametrize("when", ["claiming", "writing"])
@pytest.mark.parametrize("mode", ["hard_gate", "advisory_estimate"])
def test_a_key_that_cannot_be_kept_is_refused_or_passed_by_the_mode(when: str, mode: Any) -> None:
    ledger = MemoryLedger()
    broken(ledger, lambda expected, text: (expected is None) is (when == "claiming") and text is not None)
    run = session(Budget("$1", mode=mode), ledger=ledger)
    decision = decide(run)
    if mode == "hard_gate":
        assert isinstance(decision.error, LedgerUnavailable)
    else:
        assert decision.action == "advisory_warn" and decision.error is None
    assert run.reserved_usd == 0


@pytest.mark.parametrize(
    "error",
    [
        BudgetExceeded(dimension="max_cost_usd", limit=Decimal("0.1"), actual=Decimal("0.05"), scope="user:u1",
                       estimate=Decimal("0.000000001"), detail="", remedy="Raise it."),
        BudgetExceeded(dimension="max_duration_s", limit=1.5, actual=2.5, scope="run:r1"),
        BudgetRevoked(scope="user:u1", reason="leaked", at=datetime(2026, 1, 2, tzinfo=timezone.utc)),
        ForeignRun(scope="run:r1"),
        InvalidDowngradeError(model="a", target="b", reason="dearer", remedy="Swap them."),
        LoopDetected(tool="search", repeats=3, period=1, scope="run:r1", agent="a"),
        UnboundedCallError(model="m", reason="an image", remedy="Give an allowance."),
        UnknownPriceError(model="m", suggestions=("n", "o"), remedy="give one"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_every_refusal_can_be_written_and_read(error: BudgetError) -> None:
    run = session()
    authorizer = run._authorizer  # pyright: ignore[reportPrivateUsage]
    error.resets_at = datetime(2026, 2, 1, tzinfo=timezone.utc)
    error.reserved = Decimal("0.5")
    decision = authorizer.refusal("00000000000a-1-1", 0.0, call(), None, error)
    again = read(json.loads(json.dumps(written(decision))), call(), authorizer)
    assert type(again.error) is type(error)
    assert str(again.error) == str(error)
    assert again.error is not None
    assert again.error.fields() | {"decision_id": None} == error.fields() | {"decision_id": None}


def test_a_hold_that_was_read_books_what_the_first_one_would() -> None:
    budget = Budget("$9", allowance=Allowance(hosted_tool_calls=2))
    options: dict[str, Any] = {"ledger": MemoryLedger(), "run_id": "r1"}
    asked = call("searcher", cap=100, hosted_tools=("web_search",))
    first = decide(session(budget, **options), asked)
    other = session(budget, **options)
    again = decide(other, asked)
    assert again is not first and again.id == first.id
    assert again.require().commit(Usage(input=50, output=10, web_search=1)) == 50_000 + 100_000 + 10_000_000
    assert other.report().total_spent == Decimal("0.01015")


def test_what_other_processes_decide_on_takes_no_more_memory_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "_MOST_AT_HAND", 3)
    ledger = MemoryLedger()
    options: dict[str, Any] = {"ledger": ledger, "run_id": "r1"}
    elsewhere, ours = session("$9", **options), session("$9", **options)
    authorizer = ours._authorizer  # pyright: ignore[reportPrivateUsage]
    decisions = idempotency.KeyedDecisions()
    for number in range(9):
        key = IdempotencyKey(f"k{number}")
        made = decide(elsewhere, call("penny"), key)
        steps = decisions.authorize(authorizer, call("penny"), key, True, False)
        verb, arguments = next(steps)
        decided = ledger.swap(*arguments)
        assert verb == "swap" and decided is not None
        undecided = json.dumps({"call": json.loads(decided)["call"], "by": "another"})
        assert steps.send(undecided)[0] == "await_turn"
        assert steps.send(True)[0] == "swap"
        with pytest.raises(StopIteration) as done:
            steps.send(decided)
        assert done.value.value.id == made.id
        assert made.id in decisions._at_hand  # pyright: ignore[reportPrivateUsage]
    held = decisions._awaited, decisions._at_hand  # pyright: ignore[reportPrivateUsage]
    assert all(0 < len(each) <= 3 for each in held)


@pytest.mark.parametrize("sent", [False, True])
async def test_a_hold_that_any_process_may_settle_expires(sent: bool) -> None:
    clock = FakeClock(datetime.now(timezone.utc))
    ledger = MemoryLedger(clock=clock)
    run = session("$1", ledger=ledger, run_id="r1", clock=clock)
    await run.aauthorize(call("penny"), sent=sent, hold_ttl_s=10)
    run.authorize(call("penny"), sent=sent, hold_ttl_s=10)
    await run.aauthorize(call(), sent=sent, idempotency_key="k")
    clock.advance(11)
    ledger.sweep()
    assert len(ledger.suspended()) == (2 if sent else 0)  # the call may have been made
    assert run.reserved_usd == Decimal("0.12" if sent else "0.1")
    clock.advance(900)
    ledger.sweep()
    assert len(ledger.suspended()) == (3 if sent else 0)
    assert run.reserved_usd == Decimal("0.12" if sent else "0")


async def test_a_refusal_and_a_cancellation_are_what_they_are_without_a_time() -> None:
    run = session(Budget("$0.10", max_wait_s=60), clock=SYSTEM_CLOCK)
    loop = asyncio.get_running_loop()
    first = await loop.create_task(run.aauthorize(call(), hold_ttl_s=60))
    waiting = loop.create_task(run.aauthorize(call(), hold_ttl_s=60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await first.require().acommit(Usage())
    refused = await run.aauthorize(call(), hold_ttl_s=60)
    assert isinstance(refused.error, BudgetExceeded)
    assert run.reserved_usd == 0
