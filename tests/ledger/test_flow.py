"""A ledger that fails is heard of, and leaves nothing half done: no hold leaks, nothing is booked twice or never."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Literal, cast

import pytest

from budget_guard import Budget, Scope, Session, ToolCall, Usage
from budget_guard.ledger import AsyncLedger, MemoryLedger, Settled
from budget_guard.ledger.history import UsageLine
from budget_guard.units.amounts import Amounts
from tests.builders import ZERO, Way, call, session

When = Literal["before", "after"]


class Down(Exception):
    """The ledger cannot be reached."""


class FailingLedger(MemoryLedger):
    """A ledger that fails once where it is told to: before a verb takes effect, or after it (a lost reply)."""

    def __init__(self) -> None:
        super().__init__()
        self._fail: tuple[str, When, BaseException] | None = None
        self.aio = cast(AsyncLedger, _Awaited(self))

    def fail(self, verb: str, when: When, error: BaseException) -> None:
        self._fail = (verb, when, error)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return found if name.startswith("_") or not callable(found) else partial(self._perform, name, found)

    def _perform(self, name: str, verb: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        fail = self._fail if self._fail is not None and self._fail[0] == name else None
        if fail is not None:
            self._fail = None
            if fail[1] == "before":
                raise fail[2]
        result = verb(*arguments, **named)
        if fail is not None:
            raise fail[2]
        return result


class _Awaited:
    def __init__(self, ledger: FailingLedger) -> None:
        self._ledger = ledger

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        async def perform(*arguments: Any) -> Any:
            return getattr(self._ledger, verb)(*arguments)

        return perform


ERRORS = [Down("no route to host"), asyncio.CancelledError()]
every_failure = pytest.mark.parametrize("error", ERRORS, ids=["down", "cancelled"])
around_the_effect = pytest.mark.parametrize("when", ["before", "after"])


@pytest.fixture
def ledger() -> FailingLedger:
    return FailingLedger()


@pytest.fixture
def run(ledger: FailingLedger) -> Session:
    return session("$1.00", ledger=ledger)


def assert_paid_once(run: Session, usd: str) -> None:
    report = run.report()
    assert (report.total_spent, report.reserved) == (Decimal(usd), ZERO)
    assert report.breakdown.llm.total + report.breakdown.tools.total == Decimal(usd)
    assert report.breakdown.llm.calls + report.breakdown.tools.calls == 1


@every_failure
@around_the_effect
@pytest.mark.parametrize(
    ("asked", "verb"),
    [
        (call("endless"), "balances"),
        (call(), "reserve"),
        (ToolCall("search", 10_000_000), "reserve"),
    ],
    ids=["model-balances", "model-reserve", "tool-reserve"],
)
def test_a_call_that_could_not_be_authorised_raises_and_holds_nothing(
    way: Way, run: Session, ledger: FailingLedger, asked: Any, verb: str, when: When, error: BaseException
) -> None:
    ledger.fail(verb, when, error)
    with pytest.raises(type(error)):
        way.authorize(run, asked)
    report = run.report()
    assert (report.reserved, report.total_spent, run.decisions()) == (ZERO, ZERO, [])
    assert way.authorize(run, asked).action == "allow"


@every_failure
@around_the_effect
def test_a_commit_that_failed_can_be_tried_again_and_is_booked_once(
    way: Way, run: Session, ledger: FailingLedger, when: When, error: BaseException
) -> None:
    reservation = way.reserve(run, call())
    ledger.fail("commit", when, error)
    with pytest.raises(type(error)):
        way.commit(reservation, Usage())
    assert not reservation.settled
    for _ in range(2):
        assert way.commit(reservation, Usage()) == 100_000_000
    assert reservation.settled
    assert_paid_once(run, "0.10")


@around_the_effect
def test_an_estimate_that_failed_can_be_tried_again_and_replaced(
    way: Way, run: Session, ledger: FailingLedger, when: When
) -> None:
    reservation = way.reserve(run, call("large", cap=50))
    ledger.fail("commit", when, Down())
    with pytest.raises(Down):
        way.commit_estimate(reservation)
    way.commit_estimate(reservation)
    assert run.report().uncertain == run.spent_usd == Decimal("0.0006")
    ledger.fail("commit", when, Down())
    with pytest.raises(Down):
        way.commit(reservation, Usage(input=10))
    way.commit(reservation, Usage(input=10))
    assert_paid_once(run, "0.00001")
    assert run.report().uncertain == 0


@around_the_effect
def test_a_tool_whose_commit_failed_can_be_tried_again(
    way: Way, run: Session, ledger: FailingLedger, when: When
) -> None:
    reservation = way.reserve(run, ToolCall("search", 20_000_000))
    ledger.fail("commit", when, Down())
    with pytest.raises(Down):
        way.commit_cost(reservation, "$0.01")
    way.commit_cost(reservation, "$0.01")
    assert_paid_once(run, "0.01")


@every_failure
@around_the_effect
def test_a_release_that_failed_can_be_tried_again(
    way: Way, run: Session, ledger: FailingLedger, when: When, error: BaseException
) -> None:
    reservation = way.reserve(run, call())
    ledger.fail("release", when, error)
    with pytest.raises(type(error)):
        way.release(reservation)
    way.release(reservation)
    assert (run.reserved_usd, run.spent_usd, reservation.settled) == (ZERO, ZERO, True)


@around_the_effect
def test_a_forward_that_failed_changes_nothing(way: Way, run: Session, ledger: FailingLedger, when: When) -> None:
    reservation = way.reserve(run, call())
    ledger.fail("forward", when, Down())
    with pytest.raises(Down):
        way.forward(reservation)
    way.release(reservation)
    assert run.reserved_usd == 0


def test_a_charge_that_failed_is_heard_of_and_not_in_the_report(way: Way, run: Session, ledger: FailingLedger) -> None:
    ledger.fail("charge", "before", Down())
    with pytest.raises(Down):
        way.charge(run, "search", "$0.10")
    way.charge(run, "search", "$0.10")
    assert_paid_once(run, "0.10")


def test_a_wait_that_failed_is_heard_of_and_holds_nothing(way: Way, ledger: FailingLedger) -> None:
    run = session(Budget("$0.15", max_wait_s=60), ledger=ledger)
    reservation = way.reserve(run, call())
    ledger.fail("await_room", "before", Down())
    with pytest.raises(Down):
        way.authorize(run, call())
    way.release(reservation)
    assert run.reserved_usd == 0


def test_limits_that_could_not_be_raised_are_as_they_were(run: Session, ledger: FailingLedger) -> None:
    ledger.fail("set_limits", "before", Down())
    with pytest.raises(Down):
        run.raise_limits(max_cost_usd="$2")
    assert (run.budget.max_cost_usd, run.times_raised, run.remaining_usd) == (Decimal(1), 0, Decimal(1))


def test_an_answer_that_comes_late_does_not_put_the_estimate_back(run: Session, ledger: FailingLedger) -> None:
    reservation = run.authorize(call("large", cap=50)).require()
    commit = ledger.commit

    def overtaken(
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Settled:
        settled = commit(hold_id, scopes, amounts, uncertain, lines)
        if uncertain:
            reservation.commit(Usage(input=10))  # another thread has the actual usage, and is faster
        return settled

    ledger.commit = overtaken  # type: ignore[method-assign]
    reservation.commit_estimate("timed out")
    assert_paid_once(run, "0.00001")
    assert run.report().uncertain == 0


def test_an_interrupted_thread_holds_nothing(run: Session, ledger: FailingLedger) -> None:
    ledger.fail("reserve", "after", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run.authorize(call())
    assert run.reserved_usd == 0


async def test_a_task_cancelled_while_the_ledger_answers_holds_nothing() -> None:
    class Slow(FailingLedger):
        def __init__(self) -> None:
            super().__init__()
            self.aio = self._Slow(self)
            self.reached = asyncio.Event()

        class _Slow(_Awaited):
            async def reserve(self, *arguments: Any) -> Any:
                outcome = self._ledger.reserve(*arguments)
                self._ledger.reached.set()
                await asyncio.Event().wait()
                return outcome

    ledger = Slow()
    run = session("$1.00", ledger=ledger)
    task = asyncio.create_task(run.aauthorize(call()))
    await ledger.reached.wait()
    assert run.reserved_usd == Decimal("0.10")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.reserved_usd == 0
