"""Made-up histories of what LangChain tells a handler, in odd orders too, and what the handler makes of each."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import Iterator
from contextvars import Context
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult

from budget_guard import Budget, BudgetError, DowngradePolicy, LoopPolicy
from budget_guard.integrations.langchain import BudgetCallbackHandler, budget_scope
from budget_guard_langchain.steering import SteeredParams, Steering
from tests.builders import PRICES
from tests.reference_text import plain, without_ids

HISTORIES = 140
_TIMES = frozenset({"at_s", "at", "seconds", "started_at", "retry_after_s"})
_AGENTS = (None, None, "Worker", "Helper")


class GraphBubbleUp(Exception):
    """As LangGraph's, by which a graph is paused. Its name tells."""


class _History:
    """A handler, perhaps a child of it, and what they are told."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.told: list[str] = []
        self.runs: list[tuple[str, UUID]] = []
        self.next = number * 1_000
        self.batch: dict[str, Any] | None = None

    def handler(self) -> BudgetCallbackHandler:
        chance = self.chance
        budget = Budget(
            max_cost_usd=chance.choice(["0.03", "0.2", "5", "5"]),
            max_requests=chance.choice([None, None, 3]),
            max_tool_calls=chance.choice([None, None, 2]),
            soft_limit=chance.choice([None, 0.5]),
            downgrade=chance.choice([None, None, DowngradePolicy(to={"large": "small"}, at=0.1)]),
            mode=chance.choice(["hard_gate", "hard_gate", "soft_gate"]),
            unpriced=chance.choice(["deny", "allow"]),
            max_wait_s=0,
            loop=chance.choice([None, None, LoopPolicy(max_repeats=2, on_loop="warn")]),
        )
        options: dict[str, Any] = {
            "tool_costs": chance.choice(
                [None, {"lookup": "0.01", "measured": lambda result: len(str(result)) / 1_000}]
            ),
            "on_cut_off": chance.choice(["raise", "keep"]),
            "scope": chance.choice(["run", "run", "run", "thread"]),
            "on_cancel": chance.choice(["bound", "seen"]),
        }
        if chance.random() < 0.4:
            options["run_log"] = self
        made = BudgetCallbackHandler(budget, pricing=PRICES, run_id="r1", **options)
        made.subscribe(lambda event: self.told.append(plain(event, _TIMES)))
        return made

    def add(self, record: Any) -> None:
        """Take the record of a run."""
        self.told.append(f"record {plain(record, _TIMES)}")

    # What it is told

    def run_id(self) -> UUID:
        self.next += 1
        return UUID(int=self.next)

    def parent(self) -> UUID | None:
        chains = [run for kind, run in self.runs if kind != "model"]
        return self.chance.choice([None, *chains[-2:]])

    def open(self, *kinds: str) -> UUID:
        """One that is open, most often; else one that nobody knows, or that is over."""
        found = [run for kind, run in self.runs if kind in kinds]
        if found and self.chance.random() < 0.9:
            run = self.chance.choice(found[-3:])
            self.runs = [each for each in self.runs if each[1] != run or self.chance.random() < 0.1]
            return run
        return self.run_id()

    def metadata(self) -> dict[str, Any] | None:
        chance = self.chance
        given = {"lc_agent_name": chance.choice(_AGENTS), "thread_id": chance.choice([None, "t1", "t2", 3])}
        return chance.choice([None, {name: value for name, value in given.items() if value is not None}])

    def params(self) -> Any:
        chance = self.chance
        params: dict[str, Any] = {
            "_type": "some-chat",
            "model": chance.choice(["large", "large", "small", "unheard-of"]),
        }
        if chance.random() < 0.6:
            params["max_tokens"] = chance.choice([20, 900])
        if chance.random() < 0.3:
            params["tools"] = [{"type": "function", "function": {"name": "lookup"}}]
        if chance.random() < 0.2:
            takes = frozenset({"small"})
            steering = Steering(can_cap=True, cap_set=params.get("max_tokens"), takes=takes)
            steering.awaits = False
            return SteeredParams(params, steering)
        return params

    def step(self, handler: BudgetCallbackHandler) -> str:
        chance = self.chance
        what = chance.choice(
            [
                "model",
                "model",
                "text",
                "chain",
                "tool",
                "tool",
                "end",
                "end",
                "end",
                "end",
                "error",
                "token",
                "over",
                "over",
            ]
        )
        serialized: Any = chance.choice([None, {"name": "ChatNobodyKnows", "kwargs": {}}])
        if what in ("model", "text"):
            run = self.run_id()
            more: dict[str, Any] = {"run_id": run, "parent_run_id": self.parent(), "metadata": self.metadata()}
            more["invocation_params"] = self.params()
            if what == "text" or chance.random() < 0.2:
                more["batch_size"] = chance.choice([1, 2, 2, 3])
                if self.batch is not None and chance.random() < 0.5:
                    more["invocation_params"] = self.batch
                self.batch = more["invocation_params"]
            self.runs.append(("model", run))
            if what == "text":
                handler.on_llm_start(serialized, ["Hi"], **more)
            else:
                handler.on_chat_model_start(serialized, [[HumanMessage("Hi " * chance.choice([1, 90]))]], **more)
            if chance.random() < 0.1:
                handler.on_llm_start(serialized, ["Hi"], **more)
        elif what == "chain":
            run = self.run_id()
            handler.on_chain_start(serialized, {}, run_id=run, parent_run_id=self.parent())
            self.runs.append(("chain", run))
        elif what == "tool":
            self.tool(handler, serialized)
        elif what == "end":
            handler.on_llm_end(self.result(), run_id=self.open("model"))
        elif what == "error":
            error = chance.choice([ValueError("odd"), TimeoutError("late"), asyncio.CancelledError(), GraphBubbleUp()])
            kind = chance.choice(["llm", "chain", "tool"])
            run = self.open({"llm": "model"}.get(kind, kind))
            getattr(handler, f"on_{kind}_error")(error, run_id=run)
            what = f"{kind} {what} {type(error).__name__}"
        elif what == "token":
            self.token(handler)
        elif chance.random() < 0.5:
            handler.on_chain_end({}, run_id=self.open("chain"), parent_run_id=chance.choice([None, UUID(int=1)]))
        else:
            output = chance.choice(["four", ToolMessage("value", tool_call_id="c"), {"a": 1}])
            handler.on_tool_end(output, run_id=self.open("tool"))
        return what

    def tool(self, handler: BudgetCallbackHandler, serialized: Any) -> None:
        chance = self.chance
        run, name = self.run_id(), chance.choice(["lookup", "measured", "other"])
        named: Any = chance.choice([{"name": name}, None])
        inputs = chance.choice([None, {"key": "a"}, {"key": "b"}])
        more: dict[str, Any] = {"name": name} if named is None and chance.random() < 0.8 else {}
        self.runs.append(("tool", run))
        handler.on_tool_start(
            named, "a", run_id=run, parent_run_id=self.parent(), metadata=self.metadata(), inputs=inputs, **more
        )

    def token(self, handler: BudgetCallbackHandler) -> None:
        chance = self.chance
        found = [run for kind, run in self.runs if kind == "model"]
        run = chance.choice(found[-2:]) if found else self.run_id()
        text = chance.choice(["Hello", "x" * 6_000, ""])
        if chance.random() < 0.5:
            usage: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
            message = AIMessageChunk(content=text, usage_metadata=chance.choice([None, None, usage]))
            handler.on_llm_new_token(text, run_id=run, chunk=ChatGenerationChunk(message=message))
        else:
            delta = {chance.choice(["text", "reasoning", "args", "odd"]): text}
            handler.on_stream_event({"event": chance.choice(["content-block-delta", "x"]), "delta": delta}, run_id=run)

    def result(self) -> LLMResult:
        chance = self.chance
        read, written = chance.choice([0, 10, 90, 9_000]), chance.choice([0, 5, 20, 900])
        usage: Any = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
        said = {
            "finish_reason": chance.choice(["stop", "length"]),
            "model_name": chance.choice(["large", "small", "x"]),
        }
        cached: Any = {**usage, "total_cost": 0}
        output: Any = chance.choice(
            [None, None, {"token_usage": {}}, {"token_usage": {"prompt_tokens": 7, "completion_tokens": 2}}]
        )
        if chance.random() < 0.15:
            return LLMResult(generations=[[Generation(text="Done.")]], llm_output=output)
        if chance.random() < 0.05:
            return LLMResult(generations=[], llm_output=None)
        message = AIMessage(
            "Done.",
            usage_metadata=chance.choice([usage, usage, usage, None, cached]),
            response_metadata=chance.choice([said, {}]),
            id=chance.choice([None, "m1"]),
        )
        return LLMResult(generations=[[ChatGeneration(message=message)]], llm_output=output)

    # What comes of it

    def lines(self) -> Iterator[str]:
        chance = self.chance
        handler = self.handler()
        told: list[BudgetCallbackHandler] = [handler]
        for _ in range(chance.choice([4, 8, 14])):
            if len(told) == 1 and chance.random() < 0.06:
                try:
                    part = handler.child(Budget("$0.02", max_requests=2, max_tool_calls=1), "part")
                    told = [handler, part] if chance.random() < 0.5 else [part, handler]
                    yield f"child of {part.budget.max_cost_usd}"
                except (BudgetError, ValueError) as error:
                    yield f"no child: {type(error).__name__}"
            state, step = chance.getstate(), "none"
            runs, after = list(self.runs), self.next
            for each in told:  # the very same to each
                chance.setstate(state)
                self.runs, self.next = list(runs), after
                try:
                    if chance.random() < 0.2:
                        with budget_scope(each):
                            step = self.step(each)
                    else:
                        step = self.step(each)
                    yield step
                except Exception as error:
                    partial = str(getattr(error, "partial_output", None))[:60]
                    yield f"{type(error).__name__} {plain(error, _TIMES)} {partial}"
                yield from (f"  {line}" for line in self.told)
                self.told.clear()
        for each in told:
            found = each.report().breakdown
            yield f"{each.spent_usd} {each.reserved_usd} {found.llm.calls} {found.tools.calls}"
        for each in reversed(told):
            each.close()
        yield from (f"  {line}" for line in self.told)
        yield f"{handler.spent_usd} {handler.reserved_usd} {plain(handler.report().breakdown)}"


def _of(number: int) -> list[str]:
    history = _History(number)
    if number % 3:
        return list(history.lines())

    async def main() -> list[str]:
        return list(history.lines())

    return asyncio.run(main())


def histories() -> Iterator[str]:
    """What a handler makes of each."""
    for number in range(HISTORIES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for line in Context().run(_of, number):
                yield f"{number}: {without_ids(line)}"
