"""Sessions that compact their history make calls of their own: they are billed, so they are held."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("agents.memory.openai_responses_compaction_session")

from agents import Agent, ModelSettings, RunConfig, Runner, SQLiteSession
from agents.memory import OpenAIResponsesCompactionSession
from openai import InternalServerError

from budget_guard import Allowance, Budget
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from tests.integrations.openai_agents.on_the_wire import Wire, response, usage_of

COMPACTED = {
    "id": "cmp_1",
    "object": "response.compaction",
    "created_at": 1,
    "output": [{"type": "compaction", "id": "c1", "encrypted_content": "xx"}],
    "usage": usage_of(2_000, 1_000),
}
ANSWER = response(usage_of(100, 10), model="gpt-4.1")
COST_OF_BOTH = "0.01228"  # at $2 and $8 a million
ALLOWANCE = Allowance(input_tokens=1_000)


class WrappingSession:
    """A session of one's own around another one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


def wire_that_compacts() -> Wire:
    wire: Wire = Wire(lambda _: COMPACTED if wire.paths[-1].endswith("/compact") else ANSWER)
    return wire


def session_of(wire: Wire, **options: Any) -> OpenAIResponsesCompactionSession:
    return OpenAIResponsesCompactionSession(
        "s",
        SQLiteSession("s"),
        client=wire.client(**options),
        model="gpt-4.1",
        should_trigger_compaction=lambda _: True,
        compaction_mode="input",
    )


async def run_with(wire: Wire, session: Any, guard: BudgetGuard | None, *, stream: bool = False) -> Any:
    agent = Agent(name="Worker", model=wire.responses("gpt-4.1"), model_settings=ModelSettings(max_tokens=100))
    config = RunConfig(tracing_disabled=True)
    if not stream:
        return await Runner.run(agent, "hello", hooks=guard, session=session, run_config=config)
    result = Runner.run_streamed(agent, "hello", hooks=guard, session=session, run_config=config)
    async for _ in result.stream_events():
        pass
    return result


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_compaction_is_held_and_booked_as_it_was_billed(wrapped: bool) -> None:
    wire = wire_that_compacts()
    session: Any = session_of(wire)
    if wrapped:
        session = WrappingSession(session)
    guard = BudgetGuard(Budget("$1.00", allowance=ALLOWANCE))
    await run_with(wire, session, guard)
    assert [path.rsplit("/", 1)[-1] for path in wire.paths] == ["responses", "compact"]
    report = guard.report()
    assert report.breakdown.llm.calls == 2
    assert str(report.total_spent) == COST_OF_BOTH
    assert guard.reserved_usd == 0


async def test_two_guards_hold_a_compaction_both() -> None:
    wire = wire_that_compacts()
    inner = BudgetGuard(Budget("$1.00", allowance=ALLOWANCE))
    with BudgetGuard(Budget("$1.00", allowance=ALLOWANCE)) as outer:
        await run_with(wire, session_of(wire), inner)
    assert inner.spent_usd == outer.spent_usd > 0
    assert inner.report().breakdown.llm.calls == outer.report().breakdown.llm.calls == 2


async def test_a_compaction_that_does_not_fit_is_left_out_and_the_run_is_not_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = wire_that_compacts()
    session = session_of(wire)
    guard = BudgetGuard(Budget("$1.00", max_requests=1, allowance=ALLOWANCE))
    with caplog.at_level(logging.WARNING, "budget_guard"):
        result = await run_with(wire, session, guard)
    assert result.final_output == "Done."
    assert len(wire.paths) == 1
    assert "not compacted" in caplog.text
    assert len(await session.get_items()) == 2
    assert guard.reserved_usd == 0


@pytest.mark.filterwarnings("ignore:Nothing caps the output")  # a compaction takes no cap
async def test_compactions_never_pass_the_ceiling() -> None:
    wire = wire_that_compacts()
    session = session_of(wire)
    guard = BudgetGuard(Budget("$0.05", allowance=ALLOWANCE))
    for _ in range(10):
        try:
            await run_with(wire, session, guard)
        except BudgetExceeded:
            break
    assert guard.spent_usd <= 0.05
    assert guard.report().breakdown.llm.calls == len(wire.paths)
    assert guard.reserved_usd == 0


async def test_one_that_is_asked_for_by_hand_in_a_block_is_held_and_refused_as_any_call() -> None:
    wire = wire_that_compacts()
    session = session_of(wire)
    await session.add_items([{"role": "user", "content": "hello"}])
    await run_with(wire, session, BudgetGuard(Budget("$1.00", allowance=ALLOWANCE)))  # guarded from now on
    with BudgetGuard(Budget("$1.00", max_requests=1, allowance=ALLOWANCE)) as guard:
        await session.run_compaction({"force": True})
        assert guard.report().breakdown.llm.calls == 1
        with pytest.raises(BudgetExceeded):
            await session.run_compaction({"force": True})


async def test_every_retry_of_a_compaction_is_held_by_itself() -> None:
    asked: list[str] = []

    def answer(_: Any) -> Any:
        if not wire.paths[-1].endswith("/compact"):
            return ANSWER
        asked.append(wire.paths[-1])
        return (500, {"error": {"message": "try again"}}) if len(asked) == 1 else COMPACTED

    wire = Wire(answer)
    guard = BudgetGuard(Budget("$1.00", allowance=ALLOWANCE))
    await run_with(wire, session_of(wire, retries=1), guard)
    report = guard.report()
    assert len(asked) == 2
    assert report.breakdown.llm.calls == 3
    assert report.uncertain > 0  # the one that failed may have been billed


async def test_a_compaction_that_fails_by_itself_fails_as_without_a_guard() -> None:
    def failing(_: Any) -> Any:
        return (500, {"error": {"message": "no"}}) if wire.paths[-1].endswith("/compact") else ANSWER

    wire = Wire(failing)
    guard = BudgetGuard(Budget("$1.00", allowance=ALLOWANCE))
    for each in (None, guard):
        with pytest.raises(InternalServerError):
            await run_with(wire, session_of(wire), each)
    assert guard.reserved_usd == 0


async def test_without_a_guard_a_session_compacts_as_before() -> None:
    wire = wire_that_compacts()
    session = session_of(wire)
    kind = type(session)
    await run_with(wire, session, None)
    assert type(session) is kind
    await run_with(wire, session, BudgetGuard(Budget("$1.00", allowance=ALLOWANCE)))
    assert isinstance(session, kind)
    guarded = type(session)
    await run_with(wire, session, None)
    await run_with(wire, session, BudgetGuard(Budget("$1.00", allowance=ALLOWANCE)))
    assert type(session) is guarded  # once for all runs
    assert len(wire.paths) == 8
