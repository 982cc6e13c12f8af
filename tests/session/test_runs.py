"""Sessions without a framework: one for each call of a function, several runs in one, and how each ended."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncGenerator, Generator
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetExceeded,
    BudgetRevoked,
    Session,
    Usage,
    budgeted,
    current_session,
)
from budget_guard.session import entered
from tests.builders import PRICES, call, session

# --- @budgeted


def test_each_call_has_a_session_of_its_own_that_is_closed_at_its_end() -> None:
    seen: list[Session] = []

    @budgeted(Budget("$0.02"), user="u1", feature="answers")
    def answer(question: str, *, loud: bool = False) -> str:
        """Answer it."""
        run = current_session()
        seen.append(run)
        run.track(1, cost="0.02")
        return question.upper() if loud else question

    assert [answer("a"), answer("b", loud=True)] == ["a", "B"]
    assert answer.__doc__ == "Answer it."
    assert [run.spent_usd for run in seen] == [Decimal("0.02")] * 2
    assert seen[0].id != seen[1].id
    assert [run.outcome for run in seen] == ["ok", "ok"]
    assert seen[0].report().tags == {"user": "u1", "feature": "answers"}
    with pytest.raises(TypeError, match="no session is open"):
        current_session()


async def test_async_calls_at_once_do_not_share_a_budget() -> None:
    @budgeted(Budget("$0.02"))
    async def answer(cost: str) -> Session:
        await asyncio.sleep(0)
        current_session().track(1, cost=cost)
        return current_session()

    runs = await asyncio.gather(*(answer("0.02") for _ in range(5)))
    assert len({run.id for run in runs}) == 5
    with pytest.raises(BudgetExceeded):
        await answer("0.03")


@pytest.mark.parametrize("awaits", [False, True])
def test_the_calls_share_the_ceilings_of_an_authority(awaits: bool) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$0.05")})

    @budgeted(Budget("$1.00"), authority=authority, user="u1")
    def plain() -> int:
        return current_session().track_tool(cost="0.02")(lambda: 1)()

    @budgeted(Budget("$1.00"), authority=authority, user="u1")
    async def later() -> int:
        return plain()

    def once() -> int:
        return asyncio.run(later()) if awaits else plain()

    assert [once(), once()] == [1, 1]
    with pytest.raises(BudgetExceeded, match="user:u1"):
        once()
    authority.revoke("user", "u1", reason="compromised")
    with pytest.raises(BudgetRevoked):
        once()


def test_a_ledger_by_its_url_is_opened_once_for_all_calls(tmp_path: Any) -> None:
    seen: list[Session] = []

    @budgeted(Budget("$1.00"), ledger=f"sqlite:///{tmp_path}/b.db")
    def once() -> None:
        seen.append(current_session())

    once(), once()
    assert seen[0].ledger is not None
    assert type(seen[0].ledger).__name__ == "OutboxLedger"
    inner = [getattr(run.ledger, "_inner", getattr(run.ledger, "inner", None)) for run in seen]
    assert inner[0] is inner[1]


def test_what_cannot_have_a_budget_is_refused_at_decoration() -> None:
    def generator() -> Generator[int]:
        yield 1

    async def async_generator() -> AsyncGenerator[int]:
        yield 1

    for wrong in (generator, async_generator):
        with pytest.raises(TypeError, match="generator"):
            budgeted(Budget("$1"))(wrong)
    for no_budget in ("$2.00", 2, generator):
        with pytest.raises(TypeError, match="is not a Budget"):
            budgeted(no_budget)  # type: ignore[arg-type]


# --- Budget.metered


def test_a_metered_budget_counts_and_limits_nothing() -> None:
    run = session(Budget.metered())
    for _ in range(50):
        run.authorize(call("large", cap=1_000)).require().commit(Usage(input=1_000_000, output=500))
    run.track(1, cost="1000")
    report = run.report()
    assert report.total_spent == Decimal("1000") + 50 * (Decimal("1.0") + Decimal("0.005"))
    assert (report.remaining, report.terminated_by, run.remaining_usd) == (None, None, None)
    assert report.breakdown.llm.calls == 50


def test_a_metered_budget_does_not_ask_for_a_price() -> None:
    run = Budget.metered().session()
    run.authorize(call("unheard-of", cap=10)).require().commit(Usage(input=1, output=1))
    assert run.report().unpriced_calls == 1
    assert run.wrap({"object": "chat.completion", "id": "c", "choices": []})


def test_a_metered_budget_is_a_value_like_any_other() -> None:
    budget = Budget.metered(soft_limit=None)
    assert repr(budget) == "Budget.metered(soft_limit=None)"
    assert repr(Budget.metered()) == "Budget.metered()"
    assert budget == budget.replace() == copy.copy(budget) == pickle.loads(pickle.dumps(budget))
    assert budget.replace(max_requests=3) == Budget(max_requests=3, soft_limit=None)
    assert budget != Budget(max_requests=1, soft_limit=None)
    with pytest.raises(ValueError, match="is a limit"):
        Budget.metered(max_cost_usd="1")
    with pytest.raises(ValueError, match="no limit at all"):
        Budget()


def test_a_metered_session_is_under_the_ceilings_of_its_authority() -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$0.15")}, pricing=PRICES)
    run = authority.session(Budget.metered(max_wait_s=0), user="u1")
    run.authorize(call()).require().commit(Usage())
    assert isinstance(run.authorize(call()).error, BudgetExceeded)


# --- outcome


def ended(error: BaseException | None, *, said: Any = None, awaits: bool = False) -> str | None:
    run = session("$0.05")

    def inside() -> None:
        if said is not None:
            run.outcome = said
        if error is not None:
            raise error

    async def later() -> None:
        async with run:
            inside()

    try:
        if awaits:
            asyncio.run(later())
        else:
            with run:
                inside()
    except BaseException as raised:
        assert raised is error
    return run.outcome


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (ValueError("x"), "failed"),
        (BudgetExceeded(dimension="max_requests", limit=1, actual=1, scope="run:r"), "stopped"),
        (GeneratorExit(), "abandoned"),
    ],
    ids=str,
)
def test_how_the_block_ends_is_the_outcome_unless_it_is_said(
    error: BaseException | None, outcome: str, awaits: bool
) -> None:
    assert ended(error, awaits=awaits) == outcome
    assert ended(error, said="failed", awaits=awaits) == "failed"
    assert ended(error, said="ok", awaits=awaits) == "ok"


async def test_a_cancelled_block_is_abandoned() -> None:
    run = session()

    async def wait() -> None:
        async with run:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert run.outcome is None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.outcome == "abandoned"


def test_a_stop_that_was_caught_inside_is_a_stopped_run_unless_it_went_on() -> None:
    with session("$0.15") as stopped:
        stopped.authorize(call()).require().commit(Usage())
        assert stopped.authorize(call()).error is not None
    assert stopped.outcome == "stopped"

    with session("$0.15") as went_on:
        went_on.authorize(call()).require().commit(Usage())
        assert went_on.authorize(call()).error is not None
        went_on.authorize(call("penny")).require().commit(Usage())
    assert went_on.outcome == "ok"


def test_an_outcome_that_is_none_is_refused() -> None:
    run = session()
    with pytest.raises(ValueError, match="outcome='good' is not known"):
        run.outcome = "good"  # type: ignore[assignment]
    assert run.outcome is None


# --- runs within a session


def test_each_block_is_a_run_of_its_own_and_the_session_is_one_without() -> None:
    run, other = session(), session()
    assert entered.run_of(run) is run
    with run.run() as first:
        assert first is run is current_session()
        one = entered.run_of(run)
        assert entered.run_of(other) is other
        with other.run(), run.run():
            inner = entered.run_of(run)
            assert inner is not one
            assert entered.run_of(other) is not other
        assert entered.run_of(run) is one
    assert entered.run_of(run) is run
    assert one is not run
    with pytest.raises(TypeError):
        current_session()


async def test_blocks_of_tasks_do_not_mix() -> None:
    run = session()

    async def one() -> object:
        with run.run():
            before = entered.run_of(run)
            await asyncio.sleep(0)
            assert entered.run_of(run) is before
            return before

    assert len(set(map(id, await asyncio.gather(one(), one(), one())))) == 3
