"""Guards whose ceilings are shared: by their runs, by other processes, and with a ledger that may be out of reach."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from agents import Agent, Runner
from agents.exceptions import AgentsException

from budget_guard import Budget, BudgetAuthority, LedgerUnavailable, MemoryLedger
from budget_guard.integrations import openai_agents as adapter
from budget_guard.integrations.openai_agents import BudgetExceeded, BudgetGuard, BudgetRevoked
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.testing import Reply
from tests.builders import note_holds

from .support import Lab


class Network(LedgerWrapper):
    """The way to a ledger, on which a verb does not get through where it is told to."""

    def __init__(self) -> None:
        self.memory = MemoryLedger()
        super().__init__(self.memory)
        self.stops: set[Verb] = set()

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if verb in self.stops:
            raise LedgerUnavailable(detail="no route to host")
        return super().flow(verb, arguments)


def agent(lab: Lab) -> Agent[Any]:
    return Agent(name="A", model=lab.responses())


async def test_guards_of_one_user_share_its_ceiling(lab: Lab) -> None:
    lab.script(lambda request: Reply(text="hi", input_tokens=100, output_tokens=50))
    authority = BudgetAuthority(ceilings={"user": Budget(max_requests=2)})
    first = BudgetGuard(Budget("$1"), authority=authority, user="u1", key="k1", team="t1", feature="f")
    second = first.fork()
    assert first.report().tags == second.report().tags == {"user": "u1", "key": "k1", "team": "t1", "feature": "f"}
    for guard in (first, second):
        await Runner.run(agent(lab), "go", hooks=guard)
    with pytest.raises(BudgetExceeded, match="user:u1"):
        await Runner.run(agent(lab), "go", hooks=first)
    assert len(lab.calls) == 2
    assert authority.snapshot("user", "u1").spent_usd == lab.provider.bill_usd
    assert [d.action for d in authority.decisions("team", "t1")] == ["allow", "allow", "block"]


async def test_a_revoked_user_is_stopped_at_the_next_call(lab: Lab) -> None:
    lab.script(lambda request: Reply(text="hi"))
    ledger = MemoryLedger()
    here, there = BudgetAuthority(ledger), BudgetAuthority(ledger)
    guard = BudgetGuard(Budget("$1"), authority=here, user="u1")
    await Runner.run(agent(lab), "go", hooks=guard)
    there.revoke("user", "u1", reason="compromised")
    with pytest.raises(BudgetRevoked, match="compromised") as caught:
        await Runner.run(agent(lab), "go", hooks=guard)
    assert isinstance(caught.value, AgentsException)
    assert len(lab.calls) == 1


def test_a_guard_takes_a_place_among_the_live_runs_and_gives_it_back() -> None:
    authority = BudgetAuthority(max_live_runs={"user": 1})
    guard = BudgetGuard(Budget("$1"), authority=authority, user="u1")
    with pytest.raises(BudgetExceeded, match="max_live_runs") as caught:
        guard.fork()
    assert isinstance(caught.value, AgentsException)
    guard.close()
    with guard.fork():
        assert authority.snapshot("user", "u1").live_runs == 1
    assert authority.snapshot("user", "u1").live_runs == 0


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_without_its_ledger_a_call_is_not_sent(lab: Lab, mode: str) -> None:
    lab.script(lambda request: Reply(text="hi", input_tokens=100, output_tokens=50))
    network = Network()
    authority = BudgetAuthority(network)
    guard = BudgetGuard(Budget("$1"), authority=authority, user="u1")
    network.stops = {"reserve"}
    with pytest.raises(adapter.LedgerUnavailable, match="no route") as caught:
        await lab.run(mode, agent(lab), hooks=guard)
    assert isinstance(caught.value, AgentsException)
    assert lab.calls == []
    network.stops = set()
    assert (guard.spent_usd, guard.reserved_usd) == (Decimal(0), Decimal(0))
    await lab.run(mode, agent(lab), hooks=guard)
    assert guard.spent_usd == lab.provider.bill_usd > 0


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_a_call_is_held_as_one_that_is_sent(lab: Lab, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = note_holds(monkeypatch, lambda: len(lab.calls))
    lab.script(lambda request: Reply(text="hi"))
    for _ in range(2):
        await lab.run(mode, agent(lab), hooks=BudgetGuard(Budget("$1")))
    assert held == [(0, True, True), (1, True, True)]


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_an_answer_that_could_not_be_booked_is_booked_later(lab: Lab, mode: str) -> None:
    lab.script(lambda request: Reply(text="hi", input_tokens=100, output_tokens=50))
    network = Network()
    guard = BudgetGuard(Budget("$1"), authority=BudgetAuthority(network), user="u1")
    network.stops = {"commit"}
    result = await lab.run(mode, agent(lab), hooks=guard)
    assert result.final_output == "hi"
    assert network.inner.balances((guard.session.scope,))[0].committed.cost == 0
    network.stops = set()
    assert guard.spent_usd == lab.provider.bill_usd > 0
