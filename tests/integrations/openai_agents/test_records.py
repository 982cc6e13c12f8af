"""A guard keeps a record of each run, and calls back at thresholds; neither breaks a run, nor hides a stop."""

from __future__ import annotations

import asyncio
import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, WebSearchTool, function_tool, handoff
from agents.exceptions import MaxTurnsExceeded

from budget_guard import Allowance, Budget, BudgetAuthority, BudgetReport
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard
from budget_guard.reporting import RunLog, RunRecord
from budget_guard.testing import ProviderRequest, Reply, ToolCall

from .support import Lab, client_of, run_anyhow, run_in

MODES = pytest.mark.parametrize("mode", ["run", "run_streamed"])
HI = Reply(text="hi", input_tokens=100, output_tokens=50)


class Broken:
    """A log on a disk that is full."""

    def add(self, record: RunRecord) -> None:
        raise OSError("no space left on device")


@function_tool
def look(where: str) -> str:
    return "nothing"


def looping(request: ProviderRequest) -> Reply:
    return Reply(tool_calls=[ToolCall("look", {"where": "here"})], input_tokens=100, output_tokens=10)


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path / "runs.jsonl")


def agent(lab: Lab, **options: Any) -> Agent[Any]:
    return Agent(name="A", model=lab.responses(), **options)


@MODES
async def test_each_run_of_a_guard_leaves_a_record_of_what_it_took_itself(lab: Lab, log: RunLog, mode: str) -> None:
    lab.script(lambda request: HI)
    guard = BudgetGuard(Budget("$1", task="greet"), run_log=log, run_id="g")
    for _ in range(3):
        await run_in(mode, agent(lab), "go", hooks=guard)
    await lab.quiet()
    records = list(log)
    assert [(each.id, each.task, each.outcome, each.calls) for each in records] == [
        ("g", "greet", "ok", 1),
        ("g#2", "greet", "ok", 1),
        ("g#3", "greet", "ok", 1),
    ]
    assert sum(each.cost for each in records) == guard.spent_usd * 10**9 == lab.provider.bill_usd * 10**9
    assert {(each.input_tokens, each.output_tokens, each.uncertain) for each in records} == {(100, 50, 0)}
    assert [each.limit_usd for each in records] == [Decimal(1) - i * records[0].cost_usd for i in range(3)]
    assert records[0].by_model == {"gpt-4o": records[0].cost} and records[0].price_version


async def test_runs_at_once_are_told_apart(lab: Lab, log: RunLog) -> None:
    lab.script(lambda request: HI)
    guard = BudgetGuard(Budget("$1"), run_log=log)
    await asyncio.gather(*(Runner.run(agent(lab), "go", hooks=guard) for _ in range(8)))
    assert [each.calls for each in log] == [1] * 8
    assert sum(each.cost for each in log) == guard.spent_usd * 10**9
    assert len({each.id for each in log}) == 8


@MODES
async def test_a_run_that_another_one_starts_is_a_part_of_that(lab: Lab, log: RunLog, mode: str) -> None:
    helper = agent(lab)

    @function_tool
    async def ask_helper() -> str:
        return str((await Runner.run(helper, "help")).final_output)

    replies = iter([Reply(tool_calls=[ToolCall("ask_helper", {})]), HI, HI])
    lab.script(lambda request: next(replies))
    guard = BudgetGuard(Budget("$1"), run_log=log)
    with guard:  # a block in which any run is covered
        await run_in(mode, agent(lab, tools=[ask_helper]), "go")
    await lab.quiet()
    (record,) = log
    assert (record.calls, record.cost_usd) == (3, guard.spent_usd)


async def test_a_child_guard_within_a_run_is_a_part_of_it_and_by_itself_a_run(lab: Lab, log: RunLog) -> None:
    lab.script(lambda request: HI)
    guard = BudgetGuard(Budget("$1"), run_log=log)
    with guard.child(Budget("$0.20")) as part:
        await Runner.run(agent(lab), "go", hooks=part)
    (record,) = log
    assert (record.calls, record.cost_usd) == (1, guard.spent_usd)


@MODES
async def test_a_record_says_how_the_run_ended(lab: Lab, log: RunLog, mode: str) -> None:
    lab.script(looping)
    tools = {"tools": [look]}
    with pytest.raises(BudgetExceeded):
        await run_in(mode, agent(lab, **tools), "go", hooks=BudgetGuard(Budget(max_requests=2), run_log=log))
    with pytest.raises(MaxTurnsExceeded):
        await run_in(mode, agent(lab, **tools), "go", hooks=BudgetGuard(Budget("$1"), run_log=log), max_turns=2)
    lab.script(lambda request: Reply(status=400))
    with pytest.raises(Exception, match="400"):
        await run_in(mode, agent(lab), "go", hooks=BudgetGuard(Budget("$1"), run_log=log))
    await lab.quiet()
    assert [(each.outcome, each.terminated_by, each.calls) for each in log] == [
        ("stopped", "max_requests", 2),
        ("failed", None, 2),
        ("failed", None, 0),
    ]


async def test_a_run_that_is_cancelled_was_abandoned(lab: Lab, log: RunLog) -> None:
    started = asyncio.Event()

    @function_tool
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    lab.script(lambda request: Reply(tool_calls=[ToolCall("wait", {})]))
    guard = BudgetGuard(Budget("$1"), run_log=log)
    task = asyncio.create_task(Runner.run(agent(lab, tools=[wait]), "go", hooks=guard))
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (record,) = log
    assert (record.outcome, record.calls, record.cost_usd) == ("abandoned", 1, guard.spent_usd)


def test_a_synchronous_run_leaves_a_record(lab: Lab, log: RunLog) -> None:

    lab.script(lambda request: HI)
    guard = BudgetGuard(Budget("$1"), run_log=log)

    def work(client: Any) -> Any:
        return Agent(name="A", model=OpenAIResponsesModel("gpt-4o", openai_client=client)), RunConfig()

    run_anyhow("run_sync", work, client_of(lab.provider), hooks=guard)
    (record,) = log
    assert (record.outcome, record.calls) == ("ok", 1)


async def test_a_log_that_fails_breaks_no_run_and_hides_no_stop(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.script(lambda request: HI)
    guard = BudgetGuard(Budget(max_requests=1), run_log=Broken())
    assert (await Runner.run(agent(lab), "go", hooks=guard)).final_output == "hi"
    with pytest.raises(BudgetExceeded):
        await Runner.run(agent(lab), "go", hooks=guard)
    assert "no space left on device" in caplog.text


@MODES
async def test_callbacks_are_called_once_a_threshold_and_break_no_run(
    lab: Lab, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    lab.script(lambda request: HI)
    heard: list[tuple[str, BudgetReport]] = []

    def soft(report: BudgetReport) -> None:
        heard.append(("soft", report))
        raise ValueError("no mail today")

    guard = BudgetGuard(
        Budget(max_requests=2),
        on_soft_limit=soft,
        on_hard_limit=lambda report: heard.append(("hard", report)),
    )
    for _ in range(2):
        await run_in(mode, agent(lab), "go", hooks=guard)
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            await run_in(mode, agent(lab), "go", hooks=guard)
    assert [name for name, _ in heard] == ["soft", "hard"]
    assert heard[1][1].terminated_by == "max_requests"
    assert "no mail today" in caplog.text
    assert guard.fork().session is not guard.session


def test_what_cannot_be_told_or_kept_is_refused() -> None:
    for name in ("run_log", "on_soft_limit", "on_hard_limit", "on_loop_detected", "on_downgrade"):
        wrong: dict[str, Any] = {name: 5}
        with pytest.raises(TypeError, match=f"{name}=5 cannot be told anything: give"):
            BudgetGuard(Budget("$1"), **wrong)


async def test_a_guard_takes_principals_of_the_kinds_that_its_authority_has(lab: Lab) -> None:
    lab.script(lambda request: HI)
    authority = BudgetAuthority(ceilings={"org": [Budget(max_requests=1, window="day"), Budget("$9", window="month")]})
    guard = BudgetGuard(Budget("$1"), authority=authority, org="acme")
    await Runner.run(agent(lab), "go", hooks=guard)
    with pytest.raises(BudgetExceeded) as caught:
        await Runner.run(agent(lab), "go", hooks=guard.fork())
    assert (caught.value.scope, caught.value.resets_at is not None) == ("org:acme", True)
    other = guard.fork(org="other")
    await Runner.run(agent(lab), "go", hooks=other)
    assert other.report().tags == {"org": "other"}


def test_a_keyword_that_nobody_knows_is_refused_with_the_one_that_was_meant() -> None:
    wrong: dict[str, Any] = {"usr": "u1"}
    with pytest.raises(TypeError, match=r"BudgetGuard\(\) takes no usr=: did you mean user\?"):
        BudgetGuard(Budget("$1"), **wrong)
    with pytest.raises(TypeError, match=r"BudgetGuard\(\) takes no org=: .*a kind of your own needs authority="):
        BudgetGuard(Budget("$1"), org="acme")
    with pytest.raises(TypeError, match=r"takes no orgs=: did you mean org\?"):
        BudgetGuard(Budget("$1"), authority=BudgetAuthority(kinds=("org",)), orgs="acme")
    with pytest.raises(TypeError, match=r"fork\(\) takes no org="):
        BudgetGuard(Budget("$1")).fork(org="acme")


# Estimates


async def test_a_guard_says_what_a_run_would_hold_before_anything_is_sent(lab: Lab, log: RunLog) -> None:
    lab.script(lambda request: HI)
    guard = BudgetGuard(Budget("$1", task="greet"), run_log=log)
    asker = agent(lab, tools=[look], instructions="Be brief.", output_type=bool)
    seen, awaited = guard.estimate(asker, "go"), await guard.aestimate(asker, "go")
    assert seen == awaited
    assert (seen.action, seen.name) == ("allow", "gpt-4o")
    assert lab.calls == [] and guard.session.decisions() == [] and guard.spent_usd == guard.reserved_usd == 0

    asker = agent(lab, tools=[look], instructions="Be brief.")
    seen = guard.estimate(asker, "go")
    await Runner.run(asker, "go", hooks=guard)
    (decision,) = guard.session.decisions()
    assert seen.held == decision.held and seen.output_cap == decision.output_cap
    past = guard.estimate(asker, "go").past
    assert past is not None and (past.runs, past.median_usd) == (1, guard.spent_usd)


async def test_a_guard_says_which_model_a_run_would_begin_with_or_what_refuses_it(lab: Lab) -> None:
    guard = BudgetGuard(Budget("$0.000001"))
    seen = guard.estimate(agent(lab), "go", run_config=lab.config(model="gpt-4o-mini"))
    assert (seen.action, seen.requested) == ("block", "gpt-4o-mini")
    assert "max_cost_usd" in str(seen)
    cheaper = BudgetGuard(Budget("$0.05", max_wait_s=0, clamp_output="never"), downgrade_to="gpt-4o-mini")
    assert cheaper.estimate(agent(lab), "go").name == "gpt-4o-mini"


async def test_what_a_run_would_hold_counts_its_handoffs_however_they_are_given(lab: Lab) -> None:
    guard, other = BudgetGuard(Budget("$1")), agent(lab)
    alone, by_agent, by_handoff = (
        guard.estimate(agent(lab, handoffs=each), "go").held for each in ([], [other], [handoff(other)])
    )
    assert alone.input_tokens < by_agent.input_tokens == by_handoff.input_tokens


async def test_what_a_run_would_hold_cannot_be_told_where_a_tool_has_to_be_asked_whether_it_is_there(lab: Lab) -> None:
    asked = dataclasses.replace(look, is_enabled=lambda context, agent: True)
    guard = BudgetGuard(Budget("$1"))
    with pytest.raises(TypeError, match=r"write await guard\.aestimate"):
        guard.estimate(agent(lab, tools=[look, asked]), "go")
    with pytest.raises(TypeError, match=r"write await guard\.aestimate"):
        guard.estimate(agent(lab, tools=[dataclasses.replace(look, is_enabled=False)]), "go")
    hosted = BudgetGuard(Budget("$1", allowance=Allowance(input_tokens=100, hosted_tool_calls=1)))
    assert hosted.estimate(agent(lab, tools=[look, WebSearchTool()]), "go").admitted
    assert (await guard.aestimate(agent(lab, tools=[look, asked]), "go")).admitted


async def test_what_has_to_be_awaited_is_awaited(lab: Lab) -> None:
    async def instructions(context: Any, agent: Any) -> str:
        await asyncio.sleep(0)
        return "Be brief."

    guard = BudgetGuard(Budget("$1"))
    with pytest.raises(TypeError, match=r"'A' asks for has to be awaited: write await guard\.aestimate"):
        guard.estimate(agent(lab, instructions=instructions), "go")
    assert (await guard.aestimate(agent(lab, instructions=instructions), "go")).admitted
