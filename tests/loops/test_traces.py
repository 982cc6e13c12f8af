"""Loops are seen, work is left alone: traces of both, gone through in any code, in both adapters and in a client."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, BudgetExceeded, LoopDetected, LoopPolicy, Session, ToolCall
from budget_guard.calls.loops import LoopDetector, digest
from budget_guard.events import CallBlocked, LoopNoticed
from budget_guard.testing import FakeClock
from tests.loops.traces import LOOPS, REPORTED_LOOPS, REPORTED_WORK, WORK, Step, Trace
from tests.loops.ways import WAYS, Seen, at_once_in_agents_sdk, at_once_in_langchain, budget, in_any_code

MISSED = {"paraphrased queries (illospace #506)", "a cycle of four"}
"""Loops that nothing but counting names would see, or that are longer than what is looked for."""
FALSE = {
    "a poll, 'running' 20 times, then done (exempt it)": "job_status",
    "12 edits under tests that stay green (exempt them)": "test",
}
"""Work that looks like a loop, with the tool to exempt."""
WARNED_ALONE = {
    "a poll, 'running' 5 times, then done",
    "a poll that tells the time it took, 5 times",
    "a service that is back after 4 errors",
    "the configuration read at each of 8 steps",
    "50 runs with the same 5 polls each",
    "the weather asked for 4 times",
}


@pytest.fixture(params=WAYS)
def go(request: pytest.FixtureRequest) -> Callable[..., Seen]:
    if request.param == "OpenAI Agents SDK":
        pytest.importorskip("agents")
    if request.param == "LangChain":
        pytest.importorskip("langchain_core")
    return WAYS[request.param]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_warned_of_once_and_then_stopped(go: Callable[..., Seen], name: str) -> None:
    seen = go(LOOPS[name])
    assert (seen.stopped is None) == (name in MISSED)
    if seen.stopped is not None:
        assert seen.warned is not None and seen.warned < seen.stopped


@pytest.mark.parametrize("name", WORK)
def test_work_is_not_stopped(go: Callable[..., Seen], name: str) -> None:
    seen = go(WORK[name])
    assert (seen.stopped is not None) == (name in FALSE)
    assert (seen.warned is not None) == (name in FALSE or name in WARNED_ALONE)
    if name in FALSE:
        assert go(WORK[name], LoopPolicy(exempt=(FALSE[name],))) == Seen(None, None)


def test_the_figures_are_those_that_were_measured() -> None:
    """9 of the 10 reported loops, and 1 of the 14 kinds of reported work; warnings in 2 of them."""
    loops = [in_any_code(trace) for trace in REPORTED_LOOPS.values()]
    work = [in_any_code(trace) for trace in REPORTED_WORK.values()]
    assert sum(seen.stopped is not None for seen in loops) == 9
    assert sum(seen.stopped is not None for seen in work) == 1
    assert sum(seen.warned is not None for seen in work) == 2


@pytest.mark.parametrize(
    ("name", "stopped"),
    [("same call, same result", 7), ("ping-pong (openclaw #64500)", 13), ("period 3", 19)],
)
def test_it_is_stopped_before_the_seventh_repetition(name: str, stopped: int) -> None:
    assert in_any_code(LOOPS[name]).stopped == stopped


# --- what the policy says


def search(session: Session, result: Any = "nothing found", **options: Any) -> Callable[..., Any]:
    def found(query: str = "x") -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    return session.track_tool(cost="0.01", tool="search", **options)(found)


def test_off_by_default() -> None:
    session = Budget("$5.00").session()
    tool = search(session)
    for _ in range(50):
        tool()
    assert not session.looks_for_loops


def test_the_call_is_refused_before_it_is_paid_and_the_error_says_all() -> None:
    session = Budget("$5.00", loop=LoopPolicy()).session()
    tool = search(session, agent="Researcher")
    with pytest.raises(LoopDetected) as caught:
        for _ in range(9):
            tool()
    stop = caught.value
    assert (stop.tool, stop.repeats, stop.period, stop.agent) == ("search", 6, 1, "Researcher")
    assert stop.scope == f"run:{session.id}"
    assert stop.report is not None and str(stop.report.total_spent) == "0.06"
    assert "exempt=('search',)" in str(stop) and "by 'Researcher'" in str(stop)
    (blocked,) = session.decisions(action="block")
    assert blocked.id == stop.decision_id
    assert session.terminated_by == "loop_detected"
    told = [(event.stopped, event.repeats) for event in session.events() if isinstance(event, LoopNoticed)]
    assert told == [(False, 3), (True, 6)]
    assert isinstance(session.events()[-1], CallBlocked)
    assert session.reserved_usd == 0
    with pytest.raises(LoopDetected):
        tool()


async def test_in_async_code_it_is_the_same() -> None:
    session = Budget("$5.00", loop=LoopPolicy(max_repeats=2)).session()

    @session.track_tool()
    async def search() -> str:
        return "nothing"

    for _ in range(4):
        await search()
    with pytest.raises(LoopDetected):
        await search()


def test_an_error_is_a_result() -> None:
    session = Budget("$5.00", loop=LoopPolicy()).session()
    tool = search(session, ValueError("no match"))
    for _ in range(6):
        with pytest.raises(ValueError):
            tool()
    with pytest.raises(LoopDetected):
        tool()


def test_warn_never_stops_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    session = budget(LoopPolicy(on_loop="warn")).session()
    tool = search(session)
    for _ in range(100):
        tool()
    assert [event.stopped for event in session.events() if isinstance(event, LoopNoticed)] == [False]
    assert len([record for record in caplog.records if "is in a loop" in record.getMessage()]) == 1
    assert session.terminated_by is None


def test_advisory_mode_never_refuses() -> None:
    session = Budget("$5.00", mode="advisory_estimate", loop=LoopPolicy()).session()
    tool = search(session)
    for _ in range(20):
        tool()
    assert session.decisions()[-1].action == "advisory_warn"
    assert "is in a loop" in session.decisions()[-1].reason


def test_each_further_loop_of_a_run_is_warned_of() -> None:
    session = budget().session()
    tool = search(session)
    for query in ("a", "b"):
        for _ in range(4):
            tool(query)
    assert len([event for event in session.events() if isinstance(event, LoopNoticed)]) == 2


def test_another_result_starts_anew() -> None:
    session = budget().session()
    results = iter(["a"] * 5 + ["b"] + ["a"] * 5 + ["b"])
    tool = session.track_tool(tool="t")(lambda: next(results))
    for _ in range(8):
        tool()


def test_a_window_forgets_slow_calls() -> None:
    clock = FakeClock()
    session = Session(budget(LoopPolicy(window_s=60)), clock=clock)
    tool = search(session)
    for _ in range(20):
        tool()
        clock.advance(30)
    assert [event for event in session.events() if isinstance(event, LoopNoticed)] == []
    for _ in range(4):
        tool()
    assert [event for event in session.events() if isinstance(event, LoopNoticed)]


def test_two_runs_at_once_on_one_session_are_told_apart() -> None:
    session = budget().session()
    tool = search(session)
    detector = session._run.loops
    assert detector is not None
    for i in range(10):  # interleaved: five repetitions in each of two runs
        with session.run():
            pass
        call = session.with_trail(ToolCall("search"), {"q": "x"}, f"run{i % 2}")
        hold = session.authorize(call).require()
        hold.note_result("nothing")
        hold.commit_cost()
    for _ in range(6):
        tool()
    with pytest.raises(LoopDetected):
        tool()


@pytest.mark.parametrize("go_at_once", [at_once_in_agents_sdk, at_once_in_langchain])
def test_runs_at_once_on_one_guard_are_told_apart(go_at_once: Callable[[Trace], Seen]) -> None:
    pytest.importorskip("agents" if go_at_once is at_once_in_agents_sdk else "langchain_core")
    five_each = [Step(i, f"run{i % 10}", "tool", {"q": "x"}, "same") for i in range(50)]
    assert go_at_once(five_each).stopped is None
    seven_each = [Step(i, f"run{i % 10}", "tool", {"q": "x"}, "same") for i in range(70)]
    assert go_at_once(seven_each).stopped is not None


async def test_blocks_of_several_tasks_are_told_apart() -> None:
    session = budget().session()
    tool = search(session)

    async def one() -> None:
        with session.run():
            for _ in range(5):
                tool()
                await asyncio.sleep(0)

    await asyncio.gather(*(one() for _ in range(10)))


def test_parallel_calls_count_once_they_are_done() -> None:
    session = budget().session()
    barrier = threading.Barrier(10)

    @session.track_tool()
    def roll() -> int:
        barrier.wait()
        return 4

    threads = [threading.Thread(target=roll) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.report().breakdown.tools.calls == 10


def test_model_calls_are_no_loop() -> None:
    from tests.builders import call
    from tests.builders import session as priced

    run = priced(Budget("$100", loop=LoopPolicy()))
    for _ in range(50):
        run.authorize(call()).require().release("sampled")


def test_ten_thousand_runs_keep_memory_flat() -> None:
    detector = LoopDetector(LoopPolicy())
    arguments = digest({"q": "x" * 1_000})

    def go(first: int, runs: int) -> None:
        for i in range(first, first + runs):
            for _ in range(3):
                detector.ask(f"run{i}", "search", arguments, 0)
                detector.saw(f"run{i}", "search", arguments, "result " * 100, 0)

    go(0, 1_000)
    gc.collect()
    tracemalloc.start()
    try:
        go(1_000, 9_000)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(detector._trails) == 1_000
    assert grown < 1_500_000  # the thousand that are remembered, made anew


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ('{"a": 1, "b": 2}', {"b": 2, "a": 1}, True),
        ('{"a":1}', '{"a": 1}', True),
        ({"a": 1}, {"a": 2}, False),
        ("{not json", "{not json", True),
        ({1: 2, "a": 3}, {1: 2, "a": 3}, True),
        (object, object, True),
        ("\ud800", "\ud800", True),
    ],
)
def test_arguments_are_equal_whatever_their_order(one: object, other: object, same: bool) -> None:
    assert (digest(one) == digest(other)) is same


def test_values_that_cannot_be_shown_do_no_harm() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    circle: list[Any] = []
    circle.append(circle)
    session = budget().session()
    tool = session.track_tool(tool="t")(lambda *_: Odd())
    for _ in range(3):
        tool(Odd(), circle)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"max_repeats": 1}, "max_repeats"),
        ({"max_repeats": True}, "max_repeats"),
        ({"max_repeats": 3.0}, "max_repeats"),
        ({"window_s": 0}, "window_s"),
        ({"window_s": float("nan")}, "window_s"),
        ({"exempt": "job_status"}, "exempt"),
        ({"exempt": (3,)}, "exempt"),
        ({"on_loop": "stop"}, "on_loop"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"loop.{field}="):
        LoopPolicy(**wrong)


def test_a_budget_takes_no_other_policy_and_a_ceiling_none() -> None:
    from budget_guard import BudgetAuthority

    with pytest.raises(ValueError, match="loop=3 is no policy"):
        Budget("$1", loop=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loop="):
        BudgetAuthority(ceilings={"user": Budget("$1", loop=LoopPolicy())})
    policy = LoopPolicy(exempt=["a"])
    assert policy == LoopPolicy(exempt=("a",)) and hash(policy) == hash(LoopPolicy(exempt=("a",)))
    assert Budget("$1", loop=policy).replace(max_requests=3).loop == policy
    assert Budget("$1", loop=policy).session().report().budget["loop"]["exempt"] == ["a"]


# --- conversations


CALLS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "messages": lambda i: [
        {"role": "assistant", "content": [{"type": "tool_use", "id": f"c{i}", "name": "search", "input": {"q": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"c{i}", "content": "none"}]},
    ],
    "input": lambda i: [
        {"type": "function_call", "call_id": f"c{i}", "name": "search", "arguments": '{"q": 1}'},
        {"type": "function_call_output", "call_id": f"c{i}", "output": "none"},
    ],
    "contents": lambda i: [
        {"role": "model", "parts": [{"functionCall": {"name": "search", "args": {"q": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "search", "response": {"found": 0}}}]},
    ],
    "messages of Converse": lambda i: [
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": f"c{i}", "name": "search", "input": {"q": 1}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": f"c{i}", "content": [{"text": "none"}]}}]},
    ],
}


@pytest.mark.parametrize("kind", CALLS)
def test_calls_and_results_are_read_from_any_conversation(kind: str) -> None:
    from budget_guard.wire.conversation import beginning, finished_calls

    field = kind.partition(" ")[0]
    body = {field: [{"role": "user", "content": "go"}, *(part for i in range(300) for part in CALLS[kind](i))]}
    found = finished_calls(body)
    assert {(each.tool, digest(each.arguments)) for each in found} == {("search", digest({"q": 1}))}
    assert 60 < len(found) <= 100  # a loop is found in fewer
    assert beginning(body) == beginning({field: body[field][:1]}) != beginning({field: [{"role": "user"}]})


def test_a_conversation_without_tools_or_of_odd_parts_is_no_loop() -> None:
    from budget_guard.wire.conversation import beginning, finished_calls

    for body in ({}, {"messages": "x"}, {"messages": [3, None, {"role": "tool"}]}, {"input": "text"}):
        assert finished_calls(body) == []
        assert beginning(body)


def test_the_rate_of_spend_is_limited_after_ten_seconds() -> None:
    clock = FakeClock()
    session = Session(Budget("$100", max_usd_per_minute="0.50"), clock=clock)
    tool = session.track_tool(cost="0.10", tool="t")(lambda: 1)
    for _ in range(8):
        tool()  # no rate is known yet
    clock.advance(11)
    with pytest.raises(BudgetExceeded) as caught:
        tool()
    stop = caught.value
    assert (stop.dimension, str(stop.limit), str(stop.actual)) == ("max_usd_per_minute", "0.50", "0.8")
    assert (stop.estimate, stop.scope) == (Decimal("0.10"), str(session.scope))
    assert stop.retry_after_s is not None and 45 < stop.retry_after_s <= 50
    assert session.terminated_by == "max_usd_per_minute"
    assert session.reserved_usd == 0
    clock.advance(stop.retry_after_s + 1)
    for _ in range(5):
        tool()
    with pytest.raises(BudgetExceeded):
        tool()
    session.raise_limits(max_usd_per_minute=2)
    tool()


def test_what_is_held_counts_towards_the_rate_and_one_call_is_never_too_much() -> None:
    clock = FakeClock()
    session = Session(Budget("$100", max_usd_per_minute="0.50"), clock=clock)
    session.track("warm", cost=0)
    clock.advance(100)
    first = session.authorize(ToolCall("dear", 3_000_000_000)).require()
    assert isinstance(session.authorize(ToolCall("cheap", 1)).error, BudgetExceeded)
    first.release("not billed")
    holds = [session.authorize(ToolCall("t", 100_000_000)) for _ in range(9)]
    assert [hold.action for hold in holds] == ["allow"] * 5 + ["block"] * 4
    for hold in holds[:5]:
        hold.require().commit_cost("0.01")
    assert session.authorize(ToolCall("t", 400_000_000)).action == "allow"


def test_the_rate_alone_is_a_budget_and_makes_sense() -> None:
    assert Budget(max_usd_per_minute=1).max_usd_per_minute == 1
    with pytest.raises(ValueError, match="max_usd_per_minute"):
        Budget(max_usd_per_minute=0)


def test_all_traces_have_a_name_of_their_own() -> None:
    assert len(LOOPS) + len(WORK) >= 44
    assert MISSED <= set(LOOPS) and set(FALSE) <= set(WORK)
    every: list[Trace] = [*LOOPS.values(), *WORK.values()]
    assert all(every)
