"""The ways in which a trace is gone through: each tells at which call it was warned of, and at which it was stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

from budget_guard import Budget, LoopDetected, LoopPolicy, Session
from budget_guard.events import LoopNoticed
from tests.loops.traces import Step, Trace, as_text


class Seen(NamedTuple):
    """What was seen in a trace: numbers of calls, from 1 on; None for nothing."""

    warned: int | None
    stopped: int | None


class Watch:
    """Counts the calls of a trace, and notes what a session says of them."""

    def __init__(self, session: Session) -> None:
        self.calls = 0
        self.warned: int | None = None
        self.stopped: int | None = None
        session.subscribe(self._event)

    def _event(self, event: object) -> None:
        if isinstance(event, LoopNoticed) and not event.stopped and self.warned is None:
            self.warned = self.calls

    def next(self) -> None:
        self.calls += 1

    def stop(self) -> None:
        self.stopped = self.stopped or self.calls

    @property
    def seen(self) -> Seen:
        return Seen(self.warned, self.stopped)


def budget(policy: LoopPolicy | None = None) -> Budget:
    return Budget(max_tool_calls=100_000, max_requests=100_000, loop=policy or LoopPolicy())


def runs_of(trace: Trace) -> list[tuple[str, Trace]]:
    """The steps of each run."""
    runs: dict[str, Trace] = {}
    for step in trace:
        runs.setdefault(step.run, []).append(step)
    return list(runs.items())


def in_any_code(trace: Trace, policy: LoopPolicy | None = None) -> Seen:
    """As tracked functions, each run in a block of its own, one after the other."""
    session = budget(policy).session()
    watch = Watch(session)
    for _, steps in runs_of(trace):
        with session.run():
            for step in steps:
                watch.next()
                tool = session.track_tool(tool=step.tool)(lambda result=step.result, **_: result)
                try:
                    tool(**step.arguments)
                except LoopDetected:
                    watch.stop()
                    break
    return watch.seen


def in_langchain(trace: Trace, policy: LoopPolicy | None = None) -> Seen:
    """As LangChain's tools, called in a chain for each run, under one handler."""
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tools import StructuredTool

    from budget_guard.integrations.langchain import BudgetCallbackHandler

    handler = BudgetCallbackHandler(budget(policy))
    watch = Watch(handler.session)
    results: list[Any] = []
    tools = {
        name: StructuredTool.from_function(
            lambda **_: results.pop(), name=name, description=name, args_schema={"type": "object", "properties": {}}
        )
        for name in {step.tool for step in trace}
    }

    def one_run(steps: Trace, config: Any) -> None:
        for step in steps:
            watch.next()
            results[:] = [step.result]
            tools[step.tool].invoke(step.arguments, config)

    for _, steps in runs_of(trace):
        try:
            RunnableLambda(one_run).invoke(steps, {"callbacks": [handler]})
        except LoopDetected:
            watch.stop()
    return watch.seen


def at_once_in_langchain(trace: Trace) -> Seen:
    """As `in_langchain`, all runs at once in threads under the one handler."""
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tools import StructuredTool

    from budget_guard.integrations.langchain import BudgetCallbackHandler

    handler = BudgetCallbackHandler(budget())
    watch = Watch(handler.session)
    schema: Any = {"type": "object", "properties": {}}
    tool = StructuredTool.from_function(lambda **_: "same", name="tool", description="tool", args_schema=schema)

    def one_run(steps: Trace, config: Any) -> None:
        for step in steps:
            tool.invoke(step.arguments, config)

    config: Any = {"callbacks": [handler], "max_concurrency": 8}
    ended = RunnableLambda(one_run).batch([steps for _, steps in runs_of(trace)], config, return_exceptions=True)
    if any(isinstance(each, LoopDetected) for each in ended):
        watch.calls = 1
        watch.stop()
    assert not [each for each in ended if isinstance(each, BaseException) and not isinstance(each, LoopDetected)]
    return watch.seen


def in_agents_sdk(trace: Trace, policy: LoopPolicy | None = None) -> Seen:
    """As tools of an agent of the OpenAI Agents SDK, whose model calls them, a run each under one guard."""
    with _loop() as loop:
        return loop.run_until_complete(_in_agents_sdk(trace, policy))


async def _in_agents_sdk(trace: Trace, policy: LoopPolicy | None, *, at_once: bool = False) -> Seen:
    from agents import Agent, FunctionTool, RunConfig, Runner

    from budget_guard.integrations.openai_agents import BudgetGuard

    guard = BudgetGuard(budget(policy))
    watch = Watch(guard.session)

    async def one_run(steps: Trace) -> None:
        results = {f"call_{i}": as_text(step.result) for i, step in enumerate(steps)}

        async def invoke(context: Any, arguments: str) -> str:
            await asyncio.sleep(0)
            return results[context.tool_call_id]

        tools = [
            FunctionTool(name, name, {"type": "object", "properties": {}}, invoke, strict_json_schema=False)
            for name in {step.tool for step in steps}
        ]
        agent: Any = Agent(name="agent", model=_scripted(steps, watch), tools=[*tools])
        config = RunConfig(tracing_disabled=True)
        try:
            await Runner.run(agent, "go", hooks=guard, run_config=config, max_turns=len(steps) + 1)
        except LoopDetected:
            watch.stop()

    runs = [steps for _, steps in runs_of(trace)]
    if at_once:
        await asyncio.gather(*map(one_run, runs))
    else:
        for steps in runs:
            await one_run(steps)
    return watch.seen


def at_once_in_agents_sdk(trace: Trace) -> Seen:
    """As `in_agents_sdk`, all runs at once on the one guard."""
    with _loop() as loop:
        return loop.run_until_complete(_in_agents_sdk(trace, None, at_once=True))


def _scripted(steps: Trace, watch: Watch) -> Any:
    """A model that calls the tools of *steps*, one after the other, those of one moment at once."""
    from agents import Model, ModelResponse, Usage
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    numbered = list(enumerate(steps))
    turns = [list(turn) for _, turn in groupby(numbered, key=lambda each: each[1].at_s)]

    class Scripted(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            usage = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
            output: list[Any] = []
            for i, step in turns.pop(0) if turns else ():
                watch.next()
                call = ResponseFunctionToolCall(
                    call_id=f"call_{i}",
                    name=step.tool,
                    arguments=json.dumps(step.arguments),
                    type="function_call",
                )
                output.append(call)
            if not output:
                text = ResponseOutputText(text="done", type="output_text", annotations=[])
                message = ResponseOutputMessage(
                    id="m", content=[text], role="assistant", status="completed", type="message"
                )
                output.append(message)
            return ModelResponse(output=output, usage=usage, response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    return Scripted()


def in_a_client(trace: Trace, policy: LoopPolicy | None = None) -> Seen:
    """As the conversations that a guarded client sends: one request after each call."""
    from budget_guard.adapter import Attempts
    from budget_guard.wire import dialect_for

    session = budget(policy).session()
    watch = Watch(session)
    dialect = dialect_for("POST", "api.openai.com", "/v1/chat/completions")
    assert dialect is not None
    for run, steps in runs_of(trace):
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"Go, {run}"}]
        for i, step in enumerate(steps):
            watch.next()
            messages += _exchange(f"call_{i}", step)
            body = json.dumps({"model": "gpt-4o", "max_tokens": 10, "messages": messages}).encode()
            attempt = Attempts([session]).begin(dialect, "POST", "api.openai.com", "/v1/chat/completions", {}, body)
            stop = attempt.hold()
            if stop is not None:
                assert isinstance(stop.error, LoopDetected)
                watch.stop()
                break
            attempt.fail(ConnectionRefusedError())
    return watch.seen


def _exchange(id: str, step: Step) -> list[dict[str, Any]]:
    function = {"name": step.tool, "arguments": json.dumps(step.arguments)}
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": id, "content": as_text(step.result)},
    ]


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


WAYS = {
    "any code": in_any_code,
    "OpenAI Agents SDK": in_agents_sdk,
    "LangChain": in_langchain,
    "a guarded client": in_a_client,
}
