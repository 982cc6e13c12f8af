"""What a handler adds to one LangChain call, with a scripted chat model in the place of the network.

Prints CPU time of `invoke` and `ainvoke` without a handler, with one that does nothing, and with a budget, taken in
turn within one run: ``python benchmarks/langchain_invoke.py``.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig

from budget_guard import Budget
from budget_guard.integrations.langchain import BudgetCallbackHandler

CALLS = 50
ROUNDS = 40
MESSAGES: list[BaseMessage] = [HumanMessage("Why is the sky blue? Answer in one sentence, please.")]
USAGE = UsageMetadata(input_tokens=100, output_tokens=20, total_tokens=120)


class Scripted(BaseChatModel):
    """Answers at once."""

    model: str = "gpt-4o"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="openai", ls_model_name=self.model, ls_model_type="chat", ls_max_tokens=200)

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        message = AIMessage("Air.", usage_metadata=USAGE, response_metadata={"model_name": self.model})
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
        return self._generate()


class Nothing(BaseCallbackHandler):
    """A handler that is called like a budget's, and does nothing."""

    raise_error = True
    run_inline = True

    def on_chat_model_start(self, *_: Any, **__: Any) -> None: ...


def ways() -> dict[str, RunnableConfig]:
    """What is compared; each is used for all rounds, as a handler finds its prices at its first call."""
    handlers: dict[str, list[BaseCallbackHandler]] = {
        "no handler": [],
        "one that does nothing": [Nothing()],
        "a budget": [BudgetCallbackHandler(Budget("$1000"))],
    }
    return {name: {"callbacks": given} for name, given in handlers.items()}


def invoke_us(config: RunnableConfig) -> float:
    """CPU microseconds of one `invoke`."""
    model = Scripted()
    start = time.process_time_ns()
    for _ in range(CALLS):
        model.invoke(MESSAGES, config)
    return (time.process_time_ns() - start) / CALLS / 1_000


async def ainvoke_us(config: RunnableConfig) -> float:
    """CPU microseconds of one `ainvoke`."""
    model = Scripted()
    start = time.process_time_ns()
    for _ in range(CALLS):
        await model.ainvoke(MESSAGES, config)
    return (time.process_time_ns() - start) / CALLS / 1_000


def show(verb: str, taken: dict[str, list[float]]) -> None:
    """Print one table."""
    base = statistics.median(taken["no handler"])
    noise = statistics.quantiles(taken["no handler"], n=4)
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"{verb:<8} {name:<22} {median:8.0f} us   {median / base:5.2f} x   {median - base:+7.0f} us")
    print(f"the middle half of the rounds without a handler spreads over {noise[2] - noise[0]:.0f} us")


async def main() -> None:
    """Measure and print."""
    compared = ways()
    blocking: dict[str, list[float]] = {name: [] for name in compared}
    awaited: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(ROUNDS):
        for name, config in compared.items():  # in turn, so that a change of the machine's speed meets them all
            blocking[name].append(invoke_us(config))
            awaited[name].append(await ainvoke_us(config))
    show("invoke", blocking)
    show("ainvoke", awaited)


if __name__ == "__main__":
    asyncio.run(main())
