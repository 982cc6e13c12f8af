"""Whatever the adapters remember has an end as well: runs, agents and tools have none."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from budget_guard import Budget, ModelCall, Session
from tests.builders import PRICES, call, session
from tests.test_bounded_memories import FED, MOST, Memory

pytest.importorskip("langchain.agents")
pytest.importorskip("agents")

from agents import Model, ModelProvider
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from budget_guard.integrations.langchain import BudgetCallbackHandler, BudgetMiddleware
from budget_guard.integrations.openai_agents import BudgetGuard
from budget_guard_langchain import guarded_tools
from budget_guard_langchain.calls import Calls
from budget_guard_langchain.ceilings import SessionsById
from budget_guard_langchain.fallbacks import Fallbacks
from budget_guard_langchain.runs import RunsByTree
from budget_guard_langchain.trails import Trails
from budget_guard_openai_agents.guarded_run import GuardedRun
from budget_guard_openai_agents.hooks_only import HooksOnly


class Log:
    """Takes records, and keeps none."""

    def add(self, record: Any) -> None:
        pass


@tool
def lookup() -> str:
    """Look it up."""
    return ""


def ended_calls() -> Memory:
    calls = Calls()
    return Memory(lambda n: calls.is_new(UUID(int=n)), lambda: calls._over, lambda n: UUID(int=n) in calls._over)


def fallbacks() -> Memory:
    expected = Fallbacks()

    def asked(n: int) -> ModelCall:
        return expected.asked_for(UUID(int=n), call("small"))

    return Memory(
        lambda n: expected.expect("small", UUID(int=n), call("large")),
        lambda: expected.expected,
        lambda n: asked(n).model == "large",
    )


def tool_calls() -> Memory:
    guarded_tools._asked.clear()

    def feed(n: int) -> None:
        answer = AIMessage("", tool_calls=[{"name": "lookup", "args": {}, "id": f"c{n}"}])
        guarded_tools.note_calls([lookup], [answer], None, lambda: None)  # type: ignore[arg-type,return-value]

    return Memory(
        feed, lambda: guarded_tools._asked, lambda n: any(key.call_id == f"c{n}" for key in guarded_tools._asked)
    )


def calls_of_children() -> Memory:
    handler = BudgetCallbackHandler(Budget("$1.00"))
    child = handler.child(Budget("$0.50"))
    return Memory(
        lambda n: child._take_from_ancestors(UUID(int=n), ()),
        lambda: handler._of_children,
        lambda n: UUID(int=n) in handler._of_children,
    )


def agents_that_are_recorded() -> Memory:
    middleware: Any = BudgetMiddleware(Budget("$1.00"), run_log=Log())
    return Memory(
        lambda n: middleware._tally_of({"budget_record": f"r{n}"}),
        lambda: middleware._tallies,
        lambda n: f"r{n}" in middleware._tallies,
    )


def runs_of_langchain() -> Memory:
    spending = Session(Budget("$1.00"), pricing=PRICES)
    runs = RunsByTree(spending.record_runs(Log()))
    return Memory(lambda n: runs.begin(UUID(int=n), None), lambda: runs._tallies, lambda n: runs.knows(UUID(int=n)))


def trails() -> Memory:
    trails = Trails()
    return Memory(
        lambda n: trails.begin(UUID(int=n), None), lambda: trails._roots, lambda n: UUID(int=n) in trails._roots
    )


def threads() -> Memory:
    sessions = SessionsById(lambda id: session())
    return Memory(lambda n: sessions.get(f"t{n}"), lambda: sessions._sessions, lambda n: f"t{n}" in sessions._sessions)


def run_of_agents() -> GuardedRun:
    return GuardedRun((BudgetGuard(Budget("$1.00")),), None)


def reasoning() -> Memory:
    run = run_of_agents()
    (guard,) = run.guards
    return Memory(
        lambda n: run.note_reasoning([f"rs_{n}"]),
        lambda: guard.known_reasoning,
        lambda n: not run.unknown_reasoning(guard.session, [f"rs_{n}"]),
    )


def agents_of_calls() -> Memory:
    run, items = run_of_agents(), [[n] for n in range(FED)]
    return Memory(
        lambda n: run.note_agent(items[n], f"a{n}"), lambda: run._agents, lambda n: run.agent_of(items[n]) == f"a{n}"
    )


class Named(Model):
    """A model without a name."""

    async def get_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class Shelf(ModelProvider):
    def get_model(self, model_name: str | None) -> Model:
        raise NotImplementedError


def models_given_out() -> Memory:
    run, shelf, models = run_of_agents(), Shelf(), [Named() for _ in range(FED)]

    def has(n: int) -> bool:
        found = run.name_of(models[n]) == f"m{n}"
        assert found is (run.provider_of(models[n]) is shelf)
        return found

    return Memory(lambda n: run.note_resolved(models[n], f"m{n}", shelf), lambda: run._resolved, has)


def runs_of_hooks() -> Memory:
    hooks: Any = HooksOnly(session())
    contexts, made = [SimpleNamespace(usage=object()) for _ in range(FED)], dict[int, object]()

    def feed(n: int) -> None:
        made[n] = hooks.trail_of(contexts[n])
        assert hooks.trail_of(contexts[n]) is made[n]

    return Memory(feed, lambda: hooks._trails, lambda n: id(contexts[n].usage) in hooks._trails)


MEMORIES: dict[str, tuple[str, Callable[[], Memory]]] = {
    "calls that are over": ("langchain.calls._REMEMBERED", ended_calls),
    "calls given up for a cheaper model": ("langchain.fallbacks._KEPT", fallbacks),
    "tool calls asked for": ("langchain.guarded_tools._KEPT", tool_calls),
    "calls of children": ("langchain.handler._LEFT_TO_CHILDREN", calls_of_children),
    "agents that are recorded": ("langchain.middleware_parts._MOST_TALLIES", agents_that_are_recorded),
    "runs": ("langchain.runs._MOST_RUNS", runs_of_langchain),
    "trails of runs": ("langchain.trails._MOST_RUNS", trails),
    "budgets of threads": ("langchain.ceilings._KEPT", threads),
    "reasoning": ("openai_agents.guarded_run._KNOWN_REASONING", reasoning),
    "agents of calls": ("openai_agents.guarded_run._NOTED", agents_of_calls),
    "models that were given out": ("openai_agents.guarded_run._NOTED", models_given_out),
    "runs that hooks alone see": ("openai_agents.hooks_only._MOST_RUNS", runs_of_hooks),
}


@pytest.mark.parametrize("name", MEMORIES)
def test_what_an_adapter_remembers_has_an_end_and_the_latest_is_in_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant, make = MEMORIES[name]
    monkeypatch.setattr(f"budget_guard_{constant}", MOST)
    memory = make()
    for n in range(FED):
        memory.feed(n)
        assert [each for each in range(n + 1) if memory.has(each)] == list(range(max(0, n + 1 - MOST), n + 1))
        assert len(memory.inside()) == min(n + 1, MOST)
