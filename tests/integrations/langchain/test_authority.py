"""Handlers whose ceilings are shared: by their runs, by other processes, and with a ledger that may be out of reach."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")

from langchain.agents import create_agent

from budget_guard import Budget, BudgetAuthority, MemoryLedger
from budget_guard.errors import LedgerUnavailable
from budget_guard.integrations import langchain as adapter
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    BudgetRevoked,
    BudgetStop,
    ForeignRun,
)
from budget_guard.ledger.flow import Flow, Verb
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.testing import Reply
from tests.integrations.langchain.agents import Lab, configured


class Network(LedgerWrapper):
    """The way to a ledger, on which a verb does not get through where it is told to."""

    def __init__(self) -> None:
        super().__init__(MemoryLedger())
        self.stops: set[Verb] = set()

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        if verb in self.stops:
            raise LedgerUnavailable(detail="no route to host")
        return super().flow(verb, arguments)


def test_handlers_of_one_user_share_its_ceiling(lab: Lab) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget(max_requests=2)})
    first = BudgetCallbackHandler(Budget("$1"), authority=authority, user="u1", key="k1", team="t1", feature="f")
    second = first.fork()
    assert first.report().tags == second.report().tags == {"user": "u1", "key": "k1", "team": "t1", "feature": "f"}
    for handler in (first, second):
        lab.chat().invoke("go", configured(handler))
    with pytest.raises(BudgetExceeded, match="user:u1"):
        lab.chat().invoke("go", configured(first))
    assert len(lab.calls) == 2
    assert authority.snapshot("user", "u1").spent_usd == lab.provider.bill_usd
    assert [d.action for d in authority.decisions("team", "t1")] == ["allow", "allow", "block"]


async def test_a_revoked_user_is_stopped_at_the_next_call(lab: Lab) -> None:
    ledger = MemoryLedger()
    here, there = BudgetAuthority(ledger), BudgetAuthority(ledger)
    handler = BudgetCallbackHandler(Budget("$1"), authority=here, user="u1")
    await lab.chat().ainvoke("go", configured(handler))
    there.revoke("user", "u1", reason="compromised")
    with pytest.raises(BudgetRevoked, match="compromised") as caught:
        await lab.chat().ainvoke("go", configured(handler))
    assert isinstance(caught.value, BudgetStop)
    assert len(lab.calls) == 1
    await lab.quiet()


def test_a_run_of_another_principal_is_refused_in_langchains_terms() -> None:
    authority = BudgetAuthority()
    BudgetCallbackHandler(Budget("$1"), authority=authority, user="u1", run_id="r")
    with pytest.raises(ForeignRun) as caught:
        BudgetCallbackHandler(Budget("$1"), authority=authority, user="u2", run_id="r")
    assert isinstance(caught.value, BudgetStop)


def test_the_ceilings_of_a_middleware_count_once_for_the_user(lab: Lab) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$5")})
    handler = BudgetCallbackHandler(Budget("$1"), authority=authority, user="u1")
    lab.script(Reply(text="done"))
    agent: Any = create_agent(lab.chat(), [], middleware=[BudgetMiddleware(handler, run_limit="$0.50")])
    agent.invoke({"messages": [("user", "go")]})
    assert len(lab.calls) == 1
    assert authority.snapshot("user", "u1").spent_usd == handler.spent_usd == lab.provider.bill_usd


def test_each_thread_of_a_user_has_its_budget_and_all_share_the_ceiling(lab: Lab) -> None:
    authority = BudgetAuthority(ceilings={"user": Budget(max_requests=3)})
    handler = BudgetCallbackHandler(Budget(max_requests=2), scope="thread", authority=authority, user="u1")
    lab.script(Reply(text="done"))
    agent: Any = create_agent(lab.chat(), [])
    scopes = []
    for thread in ("a", "a", "a", "b", "b"):
        try:
            agent.invoke({"messages": [("user", "go")]}, configured(handler, thread_id=thread))
        except BudgetExceeded as stop:
            scopes.append(stop.scope)
    assert scopes == ["run:a", "user:u1"]
    assert len(lab.calls) == authority.snapshot("user", "u1").committed["max_requests"] == 3


def test_without_its_ledger_a_call_is_not_sent(lab: Lab) -> None:
    network = Network()
    handler = BudgetCallbackHandler(Budget("$1"), authority=BudgetAuthority(network), user="u1")
    network.stops.add("reserve")
    with pytest.raises(adapter.LedgerUnavailable, match="no route to host") as caught:
        lab.chat().invoke("go", configured(handler))
    assert isinstance(caught.value, BudgetStop)
    assert lab.calls == []
    network.stops.clear()
    lab.chat().invoke("go", configured(handler))
    assert (handler.spent_usd, handler.reserved_usd) == (lab.provider.bill_usd, Decimal(0))


def test_an_answer_that_could_not_be_booked_is_booked_later(lab: Lab) -> None:
    network = Network()
    handler = BudgetCallbackHandler(Budget("$1"), authority=BudgetAuthority(network), user="u1")
    network.stops.add("commit")
    lab.chat().invoke("go", configured(handler))
    network.stops.clear()
    lab.chat().invoke("go", configured(handler))
    assert len(lab.calls) == 2
    assert (handler.spent_usd, handler.reserved_usd) == (lab.provider.bill_usd, Decimal(0))
