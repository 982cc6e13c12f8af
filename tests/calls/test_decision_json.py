"""What a decision says outlives its process: read again, it settles as the first one would."""

from __future__ import annotations

import json
from typing import Any

import pytest

from budget_guard import Budget, Decision, MemoryLedger, ModelCall, Prompt, Session, ToolCall, Usage
from budget_guard.calls.decision_json import decision_text, prompt_of_tokens, read_call, written_call
from budget_guard.testing import FakeClock
from budget_guard.units.scope import AGENT_IN_RUN, Scope
from tests.builders import PRICES, apart, call

CALLS: dict[str, ModelCall | ToolCall] = {
    "plain": call("large"),
    "capped": call("large", cap=50),
    "with its provider": call("gpt-4o", provider="openai"),
    "that takes no cap": call("large", can_cap=False),
    "that needs something": call("large", needs=frozenset({"vision", "tools"})),
    "of a tier": call("large", service_tier="flex"),
    "of several answers": call("large", cap=50, choices=3),
    "with hosted tools": call("searcher", hosted_tools=("web_search",)),
    "of an agent": call("large", agent="Writer"),
    "without a cache of an hour": call("large", hour_cache=False),
    "of a region": call("large", region="eu"),
    "of text alone": call("large", kinds=frozenset()),
    "with sound": call("large", kinds=frozenset({"input_audio", "input_image"})),
    "that several models may answer": call("large", alternatives=("small", "tiny")),
    "with a context to search": call("large", search_context="high"),
    "with fees": call("large", tool_fees=(("ocr", 3), ("scan", 4))),
    "of a tool": ToolCall("search"),
    "of a tool with its price": ToolCall("search", 7, "Writer", False),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_read_as_it_was_written_but_for_its_text(name: str) -> None:
    written = CALLS[name]
    if isinstance(written, ModelCall):
        written = written._replace(prompt=Prompt(3, 2, (), 40))
    found = read_call(json.loads(json.dumps(written_call(written))))
    if isinstance(written, ModelCall):
        written = written._replace(prompt=prompt_of_tokens(43))
    assert found == written and [type(each) for each in found] == [type(each) for each in written]


def opened(ledger: MemoryLedger, clock: FakeClock, budget: Budget) -> Session:
    return Session(budget, run_id="r", ledger=ledger, clock=clock, pricing=PRICES)


BUDGETS = {
    "enough": Budget("$5"),
    "a cheaper model": Budget("$5", downgrade={"large": "small"}),
    "too little": Budget("$0.00001", max_tool_calls=0),
    "advice alone": Budget("$0.00001", max_tool_calls=0, mode="advisory_estimate"),
    "revoked": Budget("$5"),
    "a part for an agent": Budget("$5", agents={"Writer": Budget("$0.15")}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_decision_says_the_same_and_settles_the_same_in_another_process(name: str) -> None:
    for budget in BUDGETS:
        sums = [_settled(CALLS[name], budget, again) for again in (False, True)]
        assert sums[0] == sums[1], budget


def _settled(asked: ModelCall | ToolCall, budget: str, again: bool) -> Any:
    """What a call comes to whose decision is read *again* before it is settled, or is not."""
    clock = FakeClock()
    ledger = MemoryLedger(clock=clock)
    run = opened(ledger, clock, BUDGETS[budget])
    if budget == "revoked":
        run.revoke("stolen")
    elif budget == "a cheaper model":
        run.charge("search", "4.5")
    decision = apart(run.authorize, asked, may_wait=False)
    found = apart(opened(ledger, clock, BUDGETS[budget]).take_up, decision_text(decision)) if again else decision
    assert found.id == decision.id
    if found.reservation is not None:
        if isinstance(asked, ToolCall):
            apart(found.reservation.commit_cost, "0.01")
        else:
            apart(found.reservation.commit, Usage(input=9, output=4))
    parts = ledger.balances([Scope(AGENT_IN_RUN, name) for name in ledger.names(AGENT_IN_RUN)])
    return _said(found), found.scopes, ledger.balances(run._run.scopes), parts, ledger.audit()


def _said(decision: Decision) -> Any:
    error = decision.error
    without = {"decision_id", "report", "at"}
    fields = None if error is None else {name: each for name, each in error.fields().items() if name not in without}
    return decision.action, decision.requested, decision.name, decision.held, type(error), str(error), fields
