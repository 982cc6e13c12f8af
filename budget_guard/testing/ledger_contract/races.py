"""Threads and tasks that come at once, and tasks that are cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import pytest

from budget_guard.errors import ForeignRun, ReservationConflict, UnknownReservation
from budget_guard.ledger.base import HELD, Held, Ledger, Refused, ReserveOutcome, Revoked, Settled
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import (
    BOTH,
    OTHER,
    RUN,
    USER,
    Ids,
    LedgerFixtures,
    balance_of,
    cost,
    figures,
    own,
    race,
    spend,
)
from budget_guard.units.amounts import NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope

KEY = Scope("key", "k")


class RaceRules(LedgerFixtures):
    """Every verb is one step, whoever calls it from wherever."""

    def test_threads_never_hold_more_than_the_limit_and_lose_nothing(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(RUN, Limits(cost=10))
        ledger.set_limits(USER, Limits())
        most: list[int] = []

        def work(worker: int) -> int:
            spent = 0
            for number in range(self.rounds):
                hold_id = f"{worker}-{number}"
                if isinstance(ledger.reserve(ids(hold_id), BOTH, cost(3), cost(3)), Held):
                    most.append(balance_of(ledger, RUN).reserved.cost)
                    ledger.release(ids(hold_id), BOTH)
                ledger.reserve(ids(f"{hold_id}-user"), (USER,), cost(3), None)
                ledger.commit(ids(f"{hold_id}-user"), (USER,), cost(2))
                spent += 2
            return spent

        spent = race([lambda worker=worker: work(worker) for worker in range(self.workers)])  # type: ignore[misc]  # no type for its default
        run, user = ledger.balances(BOTH)
        assert max(most) <= 10
        assert (run.committed, run.reserved, run.open_holds) == (NOTHING, NOTHING, 0)
        assert user.committed == cost(sum(spent)) == cost(2 * self.rounds * self.workers)
        assert (user.reserved, user.open_holds) == (NOTHING, 0)

    def test_exactly_as_many_threads_pass_as_fit(self, ledger: Ledger, ids: Ids) -> None:
        def hold(worker: int) -> bool:
            return isinstance(ledger.reserve(ids(f"h{worker}"), BOTH, cost(10), cost(10)), Held)

        admitted = race([lambda worker=worker: hold(worker) for worker in range(self.workers)])  # type: ignore[misc]  # no type for its default
        assert sum(admitted) == min(10, self.workers)
        assert balance_of(ledger, RUN).reserved == cost(10 * sum(admitted))

    def test_exactly_as_many_threads_pass_as_fit_with_what_may_be_passed(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(RUN, Limits(cost=20))

        def hold(worker: int) -> bool:
            return isinstance(ledger.reserve(ids(f"h{worker}"), BOTH, cost(10), cost(10 - 25)), Held)

        admitted = race([lambda worker=worker: hold(worker) for worker in range(self.workers)])  # type: ignore[misc]  # no type for its default
        assert sum(admitted) == 4 < self.workers
        assert balance_of(ledger, RUN).reserved == cost(40)

    def test_one_hold_settled_by_many_threads_is_settled_once(self, ledger: Ledger, ids: Ids) -> None:
        ledger.reserve(ids("h"), BOTH, cost(60), cost(60))
        race([lambda: ledger.commit(ids("h"), BOTH, cost(25))] * self.workers)
        assert figures(ledger, RUN) == (25, 0, 0)

    def test_tasks_never_hold_more_than_the_limit_and_lose_nothing(self, ledger: Ledger, ids: Ids) -> None:
        async def call(number: int) -> bool:
            outcome = await ledger.aio.reserve(ids(f"h{number}"), BOTH, cost(10), cost(10))
            if not isinstance(outcome, Held):
                return False
            await asyncio.sleep(0)
            await ledger.aio.forward(ids(f"h{number}"))
            await ledger.aio.commit(ids(f"h{number}"), BOTH, cost(10))
            return True

        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(call(number) for number in range(200)))

        assert sum(asyncio.run(all_at_once())) == 10
        assert figures(ledger, RUN) == (100, 0, 0)

    @pytest.mark.parametrize("verb", ["release", "estimate"])
    def test_a_commit_that_races_is_charged_whoever_comes_first(self, ledger: Ledger, ids: Ids, verb: str) -> None:
        for number in range(self.rounds // 10):
            hold_id = ids(f"h{number}")
            ledger.reserve(hold_id, (USER,), cost(60), cost(60))

            def other(hold_id: str = hold_id) -> object:
                if verb == "release":
                    return ledger.release(hold_id, (USER,))
                return ledger.commit(hold_id, (USER,), cost(60), uncertain=True)

            def commit(hold_id: str = hold_id) -> object:
                return ledger.commit(hold_id, (USER,), cost(1))

            race([other, commit, other, commit])
            assert figures(ledger, USER) == (number + 1, 0, 0)

    def test_limits_that_are_set_while_others_hold_lose_nothing(self, ledger: Ledger, ids: Ids) -> None:
        def work(worker: int) -> None:
            for number in range(self.rounds // 10):
                if worker % 4:
                    spend(ledger, ids, f"{worker}-{number}", 1, (USER,))
                else:
                    ledger.set_limits(USER, Limits(cost=10**6 + number))

        race([partial(work, worker) for worker in range(8)])
        assert figures(ledger, USER) == (6 * (self.rounds // 10), 0, 0)

    def test_the_verbs_to_await_are_the_blocking_ones(self, ledger: Ledger, ids: Ids, clock: FakeClock) -> None:
        async def every_verb() -> None:
            aio = ledger.aio
            assert await aio.reserve(ids("h"), BOTH, cost(60), cost(60)) == HELD
            assert await aio.reserve(ids("h2"), BOTH, cost(30), cost(30)) == HELD
            assert isinstance(await aio.reserve(ids("h3"), BOTH, cost(11), cost(11)), Refused)
            await aio.forward(ids("h"))
            assert own(await aio.commit(ids("h"), BOTH, cost(60), True)) == Settled(cost(60), cost(60), True)
            assert own(await aio.commit(ids("h"), BOTH, cost(25))) == Settled(cost(25), cost(25), False)
            assert await aio.release(ids("h2"), BOTH) is True
            assert await aio.charge(ids("c"), BOTH, cost(5)) is None
            assert await aio.adjust(ids("a"), RUN, Amounts(cost=-10), "credit note") == cost(20)
            assert await aio.reserve(ids("sent"), BOTH, cost(1), cost(1), 60) == HELD
            assert await aio.reserve(ids("freed"), BOTH, cost(1), cost(1), 60, False) == HELD
            assert await aio.extend(ids("sent"), 90) is True
            await aio.forward(ids("sent"))
            clock.advance(90)
            assert await aio.sweep() == 2
            assert list(await aio.suspended()) == list(ledger.suspended())
            assert [each.hold_id for each in await aio.suspended()] == [ids("sent")]
            await aio.set_limits(KEY, Limits(cost=5), "day", "alice")
            with pytest.raises(ForeignRun):
                await aio.set_limits(KEY, Limits(cost=5), "day", "bob")
            await aio.revoke(KEY, "leaked")
            assert isinstance(await aio.reserve(ids("cut off"), (KEY,), cost(1), cost(1)), Revoked)
            assert await aio.restore(KEY) is True
            with pytest.raises(UnknownReservation):
                await aio.forward(ids("ghost"))
            assert list(await aio.balances((RUN, KEY))) == list(ledger.balances((RUN, KEY)))
            assert list(await aio.audit()) == []

        asyncio.run(every_verb())
        assert figures(ledger, RUN) == (20, 1, 1)
        other = balance_of(ledger, KEY)
        assert (other.limits, other.window, other.revoked) == (Limits(cost=5), "day", None)

    def test_a_cancelled_verb_leaves_the_next_one_its_own_answer(self, ledger: Ledger, ids: Ids) -> None:
        async def cancel_and_go_on() -> None:
            for number in range(self.rounds // 2):
                hold_id = ids(f"h{number}")
                task = asyncio.create_task(_held(ledger, hold_id))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                assert (await ledger.aio.balances((OTHER,)))[0].scope == OTHER
                await ledger.aio.release(hold_id, BOTH)
                with suppress(ReservationConflict):  # released before it came
                    await ledger.aio.reserve(hold_id, BOTH, cost(60), cost(60))
                with suppress(asyncio.CancelledError):
                    await asyncio.gather(task, return_exceptions=True)

        asyncio.run(cancel_and_go_on())
        assert figures(ledger, RUN) == figures(ledger, USER) == (0, 0, 0)


async def _held(ledger: Ledger, hold_id: str) -> ReserveOutcome:
    return await ledger.aio.reserve(hold_id, BOTH, cost(60), cost(60))
