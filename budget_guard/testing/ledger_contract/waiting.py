"""Waiting for room that others give back."""

from __future__ import annotations

import asyncio

import pytest

from budget_guard.ledger.base import Ledger, Refused
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import (
    BOTH,
    PATIENCE_S,
    RUN,
    USER,
    Ids,
    LedgerFixtures,
    LiveClock,
    balance_of,
    cost,
    race,
)
from budget_guard.units.amounts import Limits

TTL_S = 30
"""The time to live of the hold that fills the run."""


class WaitingRules(LedgerFixtures):
    """The verb `await_room`."""

    def test_a_refusal_says_whether_waiting_can_help(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("open"), BOTH, cost(60), cost(60))
        fits, never = (ledger.reserve(ids(f"h{n}"), BOTH, cost(n), cost(n)) for n in (100, 101))
        assert isinstance(fits, Refused) and fits.waiting_helps
        assert isinstance(never, Refused) and not never.waiting_helps
        ledger.set_limits(USER, Limits(cost=70))
        elsewhere = ledger.reserve(ids("h"), BOTH, cost(80), cost(80))
        assert isinstance(elsewhere, Refused) and not elsewhere.waiting_helps

    def test_a_wait_that_nothing_ends_takes_its_time_and_says_so(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        version = full(ledger, ids)
        assert ledger.await_room(version, 7.5) is False
        assert clock.monotonic() == 7.5

    def test_an_async_wait_that_nothing_ends_takes_its_time_too(
        self, ledger: Ledger, ids: Ids, clock: FakeClock
    ) -> None:
        version = full(ledger, ids)
        assert asyncio.run(_wait(ledger, version, 7.5)) is False
        assert clock.monotonic() == 7.5

    @pytest.mark.parametrize("awaits", [False, True], ids=["blocking", "async"])
    @pytest.mark.parametrize("event", ["release", "commit", "raise", "revoke", "correct", "expire"])
    def test_what_made_room_before_the_wait_began_is_not_missed(
        self, ledger: Ledger, ids: Ids, clock: FakeClock, event: str, awaits: bool
    ) -> None:
        version = full(ledger, ids)
        make_room(ledger, ids, event, clock)
        if awaits:
            assert asyncio.run(_wait(ledger, version, 60)) is True
        else:
            assert ledger.await_room(version, 60) is True
        assert clock.monotonic() == (TTL_S if event == "expire" else 0)

    @pytest.mark.parametrize("event", ["release", "commit", "raise", "revoke"])
    def test_whoever_waits_is_woken(
        self, live_ledger: Ledger, live_ids: Ids, live_clock: LiveClock, event: str
    ) -> None:
        version = full(live_ledger, live_ids)

        def wait() -> bool:
            return live_ledger.await_room(version, PATIENCE_S)

        def give_back() -> bool:
            begun = [live_clock.waits.acquire(timeout=PATIENCE_S) for _ in range(2)]
            make_room(live_ledger, live_ids, event)
            return all(begun)

        assert all(race([wait, wait, give_back]))

    @pytest.mark.parametrize("event", ["release", "commit", "raise", "revoke"])
    def test_whoever_awaits_is_woken(self, live_ledger: Ledger, live_ids: Ids, event: str) -> None:
        version = full(live_ledger, live_ids)

        async def waiters() -> list[bool]:
            waiting = [asyncio.create_task(_wait(live_ledger, version, PATIENCE_S)) for _ in range(3)]
            await asyncio.sleep(0)  # let them begin
            await asyncio.to_thread(make_room, live_ledger, live_ids, event)
            return await asyncio.gather(*waiting)

        assert asyncio.run(waiters()) == [True, True, True]

    def test_a_cancelled_wait_leaves_nothing_behind(self, live_ledger: Ledger, live_ids: Ids) -> None:
        version = full(live_ledger, live_ids)

        async def cancel_one_of_two() -> bool:
            first, second = (asyncio.create_task(_wait(live_ledger, version, PATIENCE_S)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            make_room(live_ledger, live_ids, "release")
            return await second

        assert asyncio.run(cancel_one_of_two()) is True
        assert balance_of(live_ledger, RUN).open_holds == 0


def full(ledger: Ledger, ids: Ids) -> int:
    """Fill the run with the hold "full"; return the version to wait from."""
    ledger.reserve(ids("full"), BOTH, cost(100), cost(100), TTL_S)
    refused = ledger.reserve(ids("next"), BOTH, cost(1), cost(1))
    assert isinstance(refused, Refused)
    return refused.version


def make_room(ledger: Ledger, ids: Ids, event: str, clock: FakeClock | None = None) -> None:
    """Let *event* make room in the run."""
    if event == "release":
        ledger.release(ids("full"), BOTH)
    elif event == "commit":
        ledger.commit(ids("full"), BOTH, cost(10))
    elif event == "correct":
        ledger.commit(ids("full"), BOTH, cost(100), uncertain=True)
        ledger.commit(ids("full"), BOTH, cost(10))
    elif event == "expire" and clock is not None:
        clock.advance(TTL_S)
        ledger.sweep()
    elif event == "raise":
        ledger.set_limits(RUN, Limits(cost=200))
    else:
        ledger.revoke(RUN, "stop")


async def _wait(ledger: Ledger, version: int, timeout: float) -> bool:
    return await ledger.aio.await_room(version, timeout)
