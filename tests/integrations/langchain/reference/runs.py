"""Made-up runs of models, chains and agents under a handler, the same ones each time, and all that is told of them.

Run ``python -m tests.integrations.langchain.reference.make`` to write them down in `runs.txt.gz`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

from budget_guard.integrations.langchain import (
    BudgetCallbackHandler,
    BudgetMiddleware,
    budget_scope,
    budgeted_model,
)
from budget_guard.testing import LocalProvider
from budget_guard_langchain import guarded_tools
from tests.integrations.langchain.agents import BIG, CLAUDE, MODEL_SURFACES, SMALL, SURFACES, Lab
from tests.integrations.made_up import (
    Heard,
    Reference,
    accounts_of,
    budget_of,
    one_after_the_other,
    overheard,
    replies_of,
)
from tests.reference_text import plain

RUNS = 150
TOOLS = ("lookup", "slow", "broken")


@tool
def lookup(key: str = "a") -> str:
    """Look something up."""
    return f"value of {key}"


@tool
def slow(key: str = "a") -> str:
    """Look a lot up."""
    return f"value of {key}" * 40


@tool
def broken(key: str = "a") -> str:
    """Fail."""
    raise ValueError(key)


class Run:
    """One handler, and what it is given to."""

    def __init__(self, number: int, lab: Lab) -> None:
        self.chance = random.Random(number)
        self.lab = lab
        self.heard = Heard()

    def _maybe(self, likely: float, value: Any) -> Any:
        return value if self.chance.random() < likely else None

    def handler(self) -> BudgetCallbackHandler:
        chance = self.chance
        options: dict[str, Any] = {
            "tool_costs": self._maybe(0.4, {"lookup": "0.0003", "slow": lambda result: len(result) / 1e6}),
            "on_cut_off": chance.choice(["raise", "keep"]),
            "on_exceeded": chance.choice(["raise", "raise", "interrupt"]),
            "scope": chance.choice(["run", "run", "run", "thread"]),
            "user": self._maybe(0.3, "u1"),
            "feature": self._maybe(0.3, "search"),
            "run_log": self._maybe(0.6, self.heard),
            "run_id": "r1",
        }
        if chance.random() < 0.5:
            options |= self.heard.thresholds()
        return BudgetCallbackHandler(budget_of(chance, final=chance.random() < 0.2), **options)

    def model(self) -> Any:
        chance, lab = self.chance, self.lab
        options = {} if chance.random() < 0.6 else {"max_tokens": self._maybe(0.5, 40)}
        kind = chance.choice(["chat", "responses", "claude"])
        if kind == "claude":
            return lab.claude(CLAUDE, max_tokens=chance.choice([40, 500]))
        name = BIG if chance.random() < 0.8 else SMALL
        return lab.chat(name, **options) if kind == "chat" else lab.responses(name, **options)

    def middleware(self, handler: BudgetCallbackHandler) -> BudgetMiddleware:
        chance = self.chance
        options: dict[str, Any] = {
            "downgrade_to": None if handler.budget.downgrade else self._maybe(0.3, self.lab.chat(SMALL)),
            "downgrade_at": chance.choice([0.0001, 0.5]),
            "exit_behavior": chance.choice(["end", "error"]),
            "wrap_up_at": self._maybe(0.3, chance.choice([0.001, 0.5])),
            "guard_tools": chance.random() < 0.4,
            "run_limit": self._maybe(0.3, chance.choice(["0.001", "0.01"])),
            "thread_limit": self._maybe(0.2, "0.01"),
            "add_fields": chance.choice([("output_cap", "usage"), ("usage",), ()]),
            "on_cut_off": chance.choice(["raise", "keep"]),
        }
        return BudgetMiddleware(handler, **options)

    def runnable(self, handler: BudgetCallbackHandler) -> tuple[Any, Any, str]:
        """What is called, with which input, and what it is."""
        chance = self.chance
        kind = chance.choice(["model", "chain", "fallbacks", "budgeted", "agent", "agent", "middleware", "middleware"])
        model = self.model()
        if kind == "chain":
            return ChatPromptTemplate.from_messages([("user", "{q}")]) | model, {"q": "go"}, kind
        if kind == "fallbacks":
            return model.with_fallbacks([self.model()]), "go", kind
        if kind == "budgeted":
            at = chance.choice([0.0001, 0.5])
            keep: Any = chance.choice(["raise", "keep"])
            model = self.lab.claude() if chance.random() < 0.3 else self.lab.chat()
            return budgeted_model(model, self.lab.chat(SMALL), downgrade_at=at, on_cut_off=keep), "go", kind
        if kind == "model":
            return (model.bind_tools([lookup]) if chance.random() < 0.3 else model), "go", kind
        given = {"messages": [("user", "go")]}
        tools = [lookup, slow, broken]
        name = self._maybe(0.5, "Worker")
        if kind == "agent":
            return create_agent(model, tools, name=name), given, kind
        return create_agent(model, tools, name=name, middleware=[self.middleware(handler)]), given, kind

    def lines(self) -> list[str]:
        """What becomes of it."""
        chance, lines = self.chance, self.heard.lines
        with overheard(lines):
            handler = self.handler()
            runnable, given, kind = self.runnable(handler)
            self.lab.script(one_after_the_other(replies_of(chance, TOOLS, parallel=False)))
            for _ in range(chance.choice([1, 1, 2])):
                self._call(handler, runnable, given, kind)
                if chance.random() < 0.2 and handler.budget.max_cost_usd is not None:
                    handler.raise_limits(max_cost_usd="9")
        return [*lines, *accounts_of(handler, self.lab.provider)]

    def _call(self, handler: BudgetCallbackHandler, runnable: Any, given: Any, kind: str) -> None:
        chance, lines = self.chance, self.heard.lines
        surfaces = MODEL_SURFACES if kind in ("budgeted",) else SURFACES
        surface = chance.choice(sorted(surfaces))
        scoped = chance.random() < 0.2
        config: dict[str, Any] = {
            "callbacks": [] if scoped or kind == "middleware" else [handler],
            "recursion_limit": 30,
        }
        if chance.random() < 0.5:
            config["configurable"] = {"thread_id": chance.choice(["t1", "t2"])}
        lines.append(f"{kind} by {surface}{' in a scope' if scoped else ''}")
        try:
            if scoped:
                with budget_scope(handler):
                    result = surfaces[surface](runnable, given, config)
            else:
                result = surfaces[surface](runnable, given, config)
            lines.append(f"  says {said(result)}")
        except Exception as error:
            lines.append(f"  raises {plain(error) if hasattr(error, 'fields') else type(error).__name__}")


def said(result: Any) -> str:
    """What kind of answer it is, and how much there is to it."""
    if isinstance(result, (list, tuple)):
        return f"{len(result)} of {sorted({type(each).__name__ for each in result})}"
    if isinstance(result, dict):
        return " ".join(f"{type(each).__name__} {len(str(each.content))}" for each in result.get("messages", ()))
    return f"{type(result).__name__} {len(str(getattr(result, 'content', '')))}"


def lines_of(number: int) -> Iterator[str]:
    """All that is told of a run."""
    with LocalProvider() as provider, mock.patch.object(guarded_tools, "_told", set()):
        lab = Lab(provider)
        yield from Run(number, lab).lines()
        lab.close()


PACKAGES = ("langchain-core", "langchain", "langgraph", "langchain-openai", "langchain-anthropic")
REFERENCE = Reference(Path(__file__).with_name("runs.txt.gz"), PACKAGES, lines_of, RUNS)
