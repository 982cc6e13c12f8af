"""A call that the garbage collection ends is settled, also where that happens within a ledger's lock."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from budget_guard import Session
from budget_guard.adapter import GuardedCall
from budget_guard.calls.collected import is_collecting
from budget_guard.ledger import memory
from budget_guard.ledger.hold import Hold
from tests.builders import ZERO, call, session


class Never:
    """Something that never comes."""

    def __await__(self) -> Any:
        yield


async def given_up(run: Session, awaits: bool) -> None:
    """A call of an adapter whose answer never comes."""
    guarded = GuardedCall((run,))
    guarded.hold(call())
    try:
        await Never()
    except BaseException as error:
        if awaits:
            await guarded.afail(error)
        else:
            guarded.fail(error)
        raise


def forget(run: Session, awaits: bool) -> None:
    """Begin such a call, and drop it so that only the garbage collection finds it."""
    coroutine: Any = given_up(run, awaits)
    coroutine.send(None)
    circle: list[Any] = [coroutine]
    circle.append(circle)


def in_time(work: Callable[[], object]) -> bool:
    """Whether *work* ends, on a thread of its own."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "awaited"])
def test_a_call_that_is_collected_is_settled(awaits: bool) -> None:
    run = session()
    forget(run, awaits)
    assert run.reserved_usd > ZERO
    gc.collect()
    assert run.reserved_usd == ZERO < run.spent_usd


@pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "awaited"])
def test_a_call_that_is_collected_within_the_ledgers_lock_is_settled_after_it(
    monkeypatch: pytest.MonkeyPatch, awaits: bool
) -> None:
    run = session("$5")
    forget(run, awaits)
    settled = threading.Event()
    commit = memory.MemoryLedger.commit

    def noted(ledger: Any, *arguments: Any) -> Any:
        try:
            return commit(ledger, *arguments)
        finally:
            settled.set()

    class Collects(Hold):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            gc.collect()  # as it may be at any allocation

    monkeypatch.setattr(memory, "Hold", Collects)
    monkeypatch.setattr(memory.MemoryLedger, "commit", noted)
    assert in_time(lambda: run.authorize(call()))
    assert settled.wait(20)
    run.ledger.balances(run._run.scopes)  # after what the other thread is doing
    assert run.spent_usd == run.reserved_usd > ZERO, "the one is booked as held, the other under way"


def test_it_is_known_who_collects() -> None:
    seen: list[bool] = []

    class Ends:
        def __init__(self) -> None:
            self.myself = self

        def __del__(self) -> None:
            seen.append(is_collecting())
            thread = threading.Thread(target=lambda: seen.append(is_collecting()))
            thread.start()
            thread.join()

    Ends()
    gc.collect()
    assert seen == [True, False] and not is_collecting()
