"""The middleware alone counts what the tools of an agent spend, and changes nothing else of the agent."""

from __future__ import annotations

import asyncio
import copy
import pickle
from contextlib import closing, nullcontext
from decimal import Decimal
from typing import Any, ClassVar

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver

from budget_guard import Budget
from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetExceeded,
    BudgetMiddleware,
    budget_scope,
)
from budget_guard.testing import ProviderRequest, Reply
from budget_guard_langchain import guarded_tools
from tests.integrations.langchain.agents import DIME, Lab, caller_of, configured, lookup, outputs_in

GO: dict[str, Any] = {"messages": [("user", "go")]}
ways = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def run(agent: Any, config: Any = None, *, asynchronous: bool = False) -> Any:
    config = {"recursion_limit": 200, **(config or {})}
    given: Any = "go" if isinstance(agent, BaseChatModel) else GO
    return asyncio.run(agent.ainvoke(given, config)) if asynchronous else agent.invoke(given, config)


def dimes(limit: Any = "$1.00") -> BudgetCallbackHandler:
    return BudgetCallbackHandler(limit if isinstance(limit, Budget) else Budget(limit), pricing=DIME)


def counted(lab: Lab, handler: BudgetCallbackHandler) -> bool:
    """Whether every call was counted once, and nothing is held."""
    return handler.reserved_usd == 0 and handler.report().breakdown.llm.calls == len(lab.calls)


def thinker(lab: Lab) -> Any:
    inner = lab.chat("dime")

    @tool
    def think() -> str:
        """Ask another model."""
        return inner.invoke("think").text

    return think


def loop(request: ProviderRequest) -> Reply:
    return caller_of("think") if request.body.get("tools") else Reply(text="thought")


@ways
@pytest.mark.parametrize("both", [False, True], ids=["alone", "with_callback"])
def test_models_that_tools_call_are_counted_without_being_asked_for(lab: Lab, asynchronous: bool, both: bool) -> None:
    lab.script(loop)
    handler = dimes(Budget(max_requests=9))
    agent = create_agent(lab.chat("dime"), [thinker(lab)], middleware=[BudgetMiddleware(handler)])
    done = run(agent, configured(handler) if both else None, asynchronous=asynchronous)
    assert len(lab.calls) == 9
    assert done["messages"][-1].content.startswith("Budget exceeded")
    assert counted(lab, handler)


@ways
def test_agents_that_are_tools_are_counted(lab: Lab, asynchronous: bool) -> None:
    inner: Any = create_agent(lab.chat("dime"), [lookup], name="inner")

    @tool
    def think() -> str:
        """Ask another agent."""
        return str(inner.invoke(GO)["messages"][-1].content)

    def script(request: ProviderRequest) -> Reply:
        if any(each["function"]["name"] == "lookup" for each in request.body.get("tools", [])):
            return Reply(text="found") if outputs_in(request) else caller_of("lookup")
        return caller_of("think")

    lab.script(script)
    handler = dimes(Budget(max_requests=7, max_tool_calls=99))
    agent = create_agent(lab.chat("dime"), [think], middleware=[BudgetMiddleware(handler)])
    run(agent, asynchronous=asynchronous)
    assert len(lab.calls) == 7
    tools = handler.report().breakdown.tools.by_tool
    assert {name: spend.calls for name, spend in tools.items()} == {"think": 3, "lookup": 2}
    assert counted(lab, handler)


@ways
@pytest.mark.parametrize("awaits", [False, True], ids=["a function", "a coroutine"])
def test_a_tool_whose_call_does_not_fit_answers_so(lab: Lab, asynchronous: bool, awaits: bool) -> None:
    lab.script(loop)
    handler = dimes(Budget(max_requests=1))
    think = thinker(lab)
    if awaits:
        inner = lab.chat("dime")

        async def ask() -> str:
            return str((await inner.ainvoke("hi")).text)

        think.coroutine = ask
    agent = create_agent(lab.chat("dime"), [think], middleware=[BudgetMiddleware(handler)])
    messages = run(agent, asynchronous=asynchronous)["messages"]
    answers = [message for message in messages if isinstance(message, ToolMessage)]
    assert [(answer.status, answer.name) for answer in answers] == [("error", "think")]
    assert len(lab.calls) == 1


def test_the_agent_is_built_as_without_it_and_unknown_tools_are_still_refused(lab: Lab) -> None:
    plain = create_agent(lab.chat(), middleware=[BudgetMiddleware(Budget("$1.00"))])
    assert "tools" not in plain.get_graph().nodes

    @tool
    def other() -> str:
        """Another tool."""
        return ""

    class Offering(BudgetMiddleware[Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return super().wrap_model_call(request.override(tools=[*request.tools, other]), handler)

    agent = create_agent(lab.chat(), [lookup], middleware=[Offering(Budget("$1.00"))])
    with pytest.raises(ValueError, match=r"(?i)unknown tool.*other|other"):
        run(agent)


def test_a_tool_is_what_it_was_to_everybody_else(lab: Lab) -> None:
    lab.script(loop)
    think = thinker(lab)
    guarded = create_agent(lab.chat("dime"), [think], middleware=[BudgetMiddleware(dimes(Budget(max_requests=2)))])
    run(guarded)
    assert isinstance(think, StructuredTool)
    assert type(think).__name__ == "StructuredTool"
    assert think.invoke({}) == "thought"
    lab.script(lambda request: Reply(text="done") if outputs_in(request) else loop(request))
    free = create_agent(lab.chat("dime"), [think])  # another agent, with no budget
    assert run(free)["messages"][-1].content == "done"
    assert len(lab.calls) == 3


class Pickled(BaseTool):
    """A tool that can be pickled."""

    name: str = "pickled"
    description: str = "Does nothing."

    def _run(self) -> str:
        return "ran"


def test_a_guarded_tool_can_be_copied_and_pickled_as_before(lab: Lab) -> None:
    mine = Pickled()
    lab.script(Reply(text="done"))
    run(create_agent(lab.chat(), [mine], middleware=[BudgetMiddleware(Budget("$1.00"))]))
    assert type(mine) is not Pickled
    for twin in (copy.copy(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), mine.model_copy()):
        assert isinstance(twin, Pickled)
        assert twin.invoke({}) == "ran"


class Remade(Pickled):
    """A tool that says how it is made anew."""

    def __reduce__(self) -> Any:
        return remade, (self.description,)


def remade(description: str) -> Remade:
    return Remade(description=description)


class Only(Pickled):
    """A tool of which there is one, known by its name."""

    def __reduce__(self) -> Any:
        return "ONLY"


ONLY = Only()


class Made(Pickled):
    """A tool that is made with something before it gets its fields."""

    made_with: ClassVar[list[tuple[Any, ...]]] = []

    def __new__(cls, *arguments: Any, **_: Any) -> Made:
        cls.made_with.append(arguments)
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[str]:
        return (self.name,)


def test_a_guarded_tool_that_says_how_it_is_pickled_is_pickled_so(lab: Lab) -> None:
    Made.made_with.clear()
    mine, made = Remade(description="Mine."), Made()
    lab.script(Reply(text="done"))
    for each in (mine, ONLY, made):
        run(create_agent(lab.chat(), [each], middleware=[BudgetMiddleware(Budget("$1.00"))]))
        assert type(each) not in (Remade, Only, Made)
    twin = pickle.loads(pickle.dumps(mine))
    assert type(twin) is Remade and twin.description == "Mine."
    assert pickle.loads(pickle.dumps(ONLY)) is ONLY
    assert type(pickle.loads(pickle.dumps(made))) is Made and Made.made_with == [(), ("pickled",)]


def test_a_tool_that_cannot_be_guarded_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guarded_tools, "_guarded_class", lambda cls: int)
    monkeypatch.setattr(guarded_tools, "_told", set())
    mine = Pickled()
    for _ in range(2):
        guarded_tools.guard_tools([mine])
    assert caplog.text.count("the class of 'pickled' does not let its calls be seen") == 1
    assert "BudgetMiddleware(..., guard_tools=True)" in caplog.text and type(mine) is Pickled


def test_calls_that_no_tool_can_find_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_tools, "_asked", {})
    asked = [("lookup", None), ("unknown", "c1"), ("lookup", "c2")]
    answer = AIMessage("", tool_calls=[{"name": name, "args": {}, "id": call_id} for name, call_id in asked])
    guarded_tools.note_calls([lookup], [answer], None, nullcontext)
    assert [(key.tool, key.call_id) for key in guarded_tools._asked] == [(id(lookup), "c2")]


def test_two_budgets_of_one_agent_hold_its_tools_both(lab: Lab) -> None:
    lab.script(lambda request: Reply(text="done") if outputs_in(request) == 2 else loop(request))
    first, second = dimes(), dimes()
    both: Any = [BudgetMiddleware(first), _Another(second)]
    run(create_agent(lab.chat("dime"), [thinker(lab)], middleware=both))
    assert counted(lab, first)
    assert counted(lab, second)
    assert len(lab.calls) == 5


class _Another(BudgetMiddleware[Any, Any]):
    """LangChain takes no two of one class."""


@pytest.mark.parametrize("threads", [1, 2])
def test_the_limit_of_a_thread_holds_its_tools(lab: Lab, threads: int) -> None:
    lab.script(loop)
    handler = dimes("$9.00")
    middleware: Any = BudgetMiddleware(handler, thread_limit="$0.50")
    agent = create_agent(lab.chat("dime"), [thinker(lab)], middleware=[middleware], checkpointer=InMemorySaver())
    for thread in range(threads):
        run(agent, {"configurable": {"thread_id": str(thread)}})
    assert len(lab.calls) == 5 * threads
    assert counted(lab, handler)


# Handlers that are made of others


@ways
def test_a_child_handler_holds_a_part_and_books_what_it_spent(lab: Lab, asynchronous: bool) -> None:
    lab.script(loop)
    handler = dimes("$1.00")
    with closing(handler.child(Budget("$0.30"))) as child:
        assert handler.reserved_usd == Decimal("0.30")
        agent = create_agent(lab.chat("dime"), [thinker(lab)])
        with pytest.raises(BudgetExceeded) as stop:
            run(agent, configured(child), asynchronous=asynchronous)
        assert stop.value.scope == str(child.session.scope)
    assert counted(lab, handler)
    assert len(lab.calls) == 3


@pytest.mark.parametrize("how", ["list", "list reversed", "scopes", "scope in config"])
def test_a_child_beside_its_parent_counts_once(lab: Lab, how: str) -> None:
    lab.script(loop)
    handler = dimes("$1.00")
    with closing(handler.child(Budget("$0.90"))) as child:
        agent = create_agent(lab.chat("dime"), [lookup])
        lab.script(lambda request: Reply(text="done") if outputs_in(request) else caller_of("lookup"))
        if how == "scopes":
            with budget_scope(handler), budget_scope(child):
                run(agent)
        elif how == "scope in config":
            with budget_scope(child):
                run(agent, configured(handler))
        else:
            run(agent, configured(*([handler, child] if how == "list" else [child, handler])))
        assert child.spent_usd == Decimal("0.20")
        assert handler.spent_usd == 0
    assert counted(lab, handler)
    assert handler.report().breakdown.tools.calls == 1


async def test_a_handler_is_forked_with_changes_and_opened_in_async_code() -> None:
    handler = await BudgetCallbackHandler.open(Budget("$1"), user="u1", scope="thread", downgrade_to="gpt-4o-mini")
    fork = handler.fork(budget=Budget("$2"), user="u2")
    assert fork.report().tags == {"user": "u2"}
    assert fork.budget.max_cost_usd == 2
    assert fork.budget.downgrade is not None
    assert fork.for_thread("t").spent_usd == 0
    with pytest.raises(TypeError, match="takes no usr="):
        handler.fork(usr="x")
    child = await handler.achild(Budget("$0.50"))
    assert child.fork().budget.max_cost_usd == Decimal("0.50")
    with pytest.raises(BudgetExceeded):
        child.fork()


# What others hear


async def test_in_async_code_other_handlers_hear_of_the_start_of_a_text_model() -> None:
    from langchain_core.callbacks import AsyncCallbackHandler
    from langchain_core.language_models.fake import FakeListLLM
    from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

    class Mine(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        async def on_llm_start(self, *_: Any, **__: Any) -> None:
            self.heard.append("start")

        async def on_llm_end(self, *_: Any, **__: Any) -> None:
            self.heard.append("end")

    for scoped in (False, True):
        handler = BudgetCallbackHandler(Budget(max_requests=3))
        mine, collector = Mine(), RunCollectorCallbackHandler()
        given: list[Any] = [mine, collector] if scoped else [handler, mine, collector]
        model = FakeListLLM(responses=["a"])
        with budget_scope(handler) if scoped else nullcontext():
            await model.ainvoke("x", config={"callbacks": given})
            events = [
                event["event"] async for event in model.astream_events("x", config={"callbacks": given}, version="v2")
            ]
        assert mine.heard == ["start", "end"] * 2
        assert len(collector.traced_runs) == 2
        assert events == ["on_llm_start", "on_llm_end"]
        assert handler.report().breakdown.llm.calls == 2
        assert handler.reserved_usd == 0
        await model.ainvoke("x", config={"callbacks": [handler, mine]})
        with pytest.raises(BudgetExceeded):
            await model.ainvoke("x", config={"callbacks": [handler, mine]})


@ways
def test_langchain_logs_no_error_for_a_stop_that_is_meant_and_still_does_for_others(
    lab: Lab, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(BaseCallbackHandler):
        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("mine")

    lab.script(Reply(text="x"))
    model = lab.chat("dime")
    handler = dimes(Budget(max_requests=1))
    run(model, configured(handler))
    for callbacks in ([handler], [handler, Broken()], [Broken(), handler]):
        with pytest.raises(BudgetExceeded):
            run(model, configured(*callbacks), asynchronous=asynchronous)
    with budget_scope(handler), budget_scope(dimes()), pytest.raises(BudgetExceeded):
        run(model, asynchronous=asynchronous)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("langchain_core")]
    assert all("Broken" in message for message in told)
    assert told or asynchronous  # in async code a handler of ours comes first, and Broken is not called at all
