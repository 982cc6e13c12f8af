"""The way of one warm call: how many functions of ours run, in how many files, and how often it changes file.

A function counts each time that it is entered: a coroutine again when it goes on after a wait, and, up to Python 3.11,
each comprehension. `budget_guard.testing` does not count. Counts are exact, so any machine will do:
``python benchmarks/call_path.py``, ``-f`` for how many are in each file, and ``-v`` for the functions one by one.

The models are scripted, and do what decides on the way: that of the OpenAI Agents SDK is found by name and waits four
times, as its real client does for one answer; that of LangChain says which service tier served it, as OpenAI's does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from agents import Agent, ModelResponse, RunConfig, Runner, Usage, set_tracing_disabled
from agents.items import TResponseStreamEvent
from agents.models.interface import Model, ModelProvider
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

import budget_guard
import budget_guard_langchain
import budget_guard_openai_agents
from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler
from budget_guard.integrations.openai_agents import BudgetGuard

WARM_UP = 3
WAITS = 4
OURS = [
    Path(str(package.__file__)).parent for package in (budget_guard, budget_guard_langchain, budget_guard_openai_agents)
]
LEFT_OUT = OURS[0] / "testing"


class Step(NamedTuple):
    """A function that was entered."""

    file: str
    function: str
    line: int


class Scripted(Model):
    """Answers without a network."""

    model = "gpt-4o"

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        for _wait in range(WAITS):
            await asyncio.sleep(0)
        text = ResponseOutputText(type="output_text", text="Air.", annotations=[])
        message = ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])
        return ModelResponse([message], Usage(requests=1, input_tokens=100, output_tokens=20, total_tokens=120), None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError  # this benchmark does not stream


class Provider(ModelProvider):
    """Gives a scripted model for any name."""

    def get_model(self, model_name: str | None) -> Model:
        return Scripted()


class ScriptedChat(BaseChatModel):
    """The same for LangChain."""

    model: str = "gpt-4o"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="openai", ls_model_name=self.model, ls_model_type="chat", ls_max_tokens=200)

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        message = AIMessage(
            "Air.",
            usage_metadata=UsageMetadata(input_tokens=100, output_tokens=20, total_tokens=120),
            response_metadata={"model_name": self.model, "service_tier": "default"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def shown(path: Path) -> str | None:
    """*path* as it is shown, or None if it is not one of ours."""
    if path.is_relative_to(LEFT_OUT):
        return None
    return next((str(path.relative_to(folder.parent)) for folder in OURS if path.is_relative_to(folder)), None)


@contextmanager
def watched(steps: list[Step]) -> Iterator[None]:
    """Note every function of ours that is entered in the block."""
    names: dict[str, str | None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename not in names:
            names[code.co_filename] = shown(Path(code.co_filename))
        if (file := names[code.co_filename]) is not None:
            steps.append(Step(file, getattr(code, "co_qualname", code.co_name), code.co_firstlineno))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


async def of_openai_agents(guard: BudgetGuard) -> list[Step]:
    """The steps of one `Runner.run` with a single turn."""
    agent = Agent(name="Researcher", instructions="Be brief.", model="gpt-4o")
    config = RunConfig(model_provider=Provider())
    steps: list[Step] = []
    for _ in range(WARM_UP):
        await Runner.run(agent, "Why is the sky blue?", hooks=guard, run_config=config)
    with watched(steps):
        await Runner.run(agent, "Why is the sky blue?", hooks=guard, run_config=config)
    return steps


def of_langchain(handler: BudgetCallbackHandler) -> list[Step]:
    """The steps of one `model.invoke`."""
    model, steps = ScriptedChat(), list[Step]()
    for _ in range(WARM_UP):
        model.invoke("Why is the sky blue?", config={"callbacks": [handler]})
    with watched(steps):
        model.invoke("Why is the sky blue?", config={"callbacks": [handler]})
    return steps


def show(title: str, steps: list[Step], goal: str, by_file: bool, verbose: bool) -> None:
    """Print one line, and how many functions run in each file, or every step."""
    files = {step.file for step in steps}
    changes = sum(one.file != next_one.file for one, next_one in itertools.pairwise(steps))
    print(f"{title:<40} {len(steps):4} functions {len(files):4} files {changes:5} changes of file   goal {goal}")
    if by_file:
        for file, count in Counter(step.file for step in steps).most_common():
            names = ", ".join(dict.fromkeys(step.function.rpartition(".")[2] for step in steps if step.file == file))
            print(f"    {count:4} {file:<52} {names}")
    if verbose:
        last = ""
        for step in steps:
            place = "" if step.file == last else step.file
            print(f"    {place:<58} {step.function}:{step.line}")
            last = step.file


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="every function, in order")
    parser.add_argument("-f", "--files", action="store_true", help="how many functions run in each file")
    chosen = parser.parse_args()
    how = bool(chosen.files), bool(chosen.verbose)
    set_tracing_disabled(True)
    downgrading = BudgetGuard(Budget("$1.00"), downgrade_to="gpt-4o-mini")
    show("OpenAI Agents, Runner.run, downgrade_to=", asyncio.run(of_openai_agents(downgrading)), "100/22/60", *how)
    plain = BudgetGuard(Budget("$1.00"))
    show("OpenAI Agents, Runner.run", asyncio.run(of_openai_agents(plain)), "90/20/50", *how)
    handler = BudgetCallbackHandler(Budget("$1.00"))
    show("LangChain, model.invoke, a handler", of_langchain(handler), "85/20/45", *how)


if __name__ == "__main__":
    main()
