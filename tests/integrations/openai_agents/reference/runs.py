"""Made-up runs of agents under a guard, the same ones each time, and all that is told of them.

Run ``python -m tests.integrations.openai_agents.reference.make`` to write them down in `runs.txt.gz`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents import Agent, ModelSettings, RunHooks, function_tool, set_tracing_disabled

from budget_guard.integrations.openai_agents import BudgetGuard, CompositeRunHooks
from budget_guard.testing import LocalProvider
from tests.integrations.made_up import (
    BIG,
    SMALL,
    Heard,
    Reference,
    accounts_of,
    budget_of,
    one_after_the_other,
    overheard,
    replies_of,
)
from tests.integrations.openai_agents.support import DelegatingModel, Lab, NamelessModel, client_of, run_in
from tests.reference_text import plain

RUNS = 160
TOOLS = ("lookup", "slow", "broken", "ask_helper")


@function_tool
def lookup(key: str = "a") -> str:
    """Look something up."""
    return f"value of {key}"


@function_tool
async def slow(key: str = "a") -> str:
    """Look something up, in its own time."""
    await asyncio.sleep(0)
    return f"value of {key}" * 40


@function_tool
def broken(key: str = "a") -> str:
    """Fail."""
    raise RuntimeError(key)


class Run:
    """One guard, and the runs that it is given to."""

    def __init__(self, number: int, lab: Lab) -> None:
        self.chance = random.Random(number)
        self.lab = lab
        self.heard = Heard()

    def _maybe(self, likely: float, value: Any) -> Any:
        return value if self.chance.random() < likely else None

    def guard(self) -> BudgetGuard:
        chance = self.chance
        final = chance.random() < 0.25
        options: dict[str, Any] = {
            "tool_costs": self._maybe(0.4, {"lookup": "0.0003", "slow": lambda result: len(result) / 1e6}),
            "on_exceeded": "finalize" if final else "raise",
            "on_cut_off": chance.choice(["raise", "keep"]),
            "add_fields": chance.choice([("output_cap", "usage"), ("output_cap", "usage"), ("usage",), ()]),
            "user": self._maybe(0.3, "u1"),
            "feature": self._maybe(0.3, "search"),
            "run_log": self._maybe(0.6, self.heard),
            "run_id": "r1",
            "per_million": {"NamelessModel": (2.5, 10)},
        }
        if chance.random() < 0.5:
            options |= self.heard.thresholds()
        return BudgetGuard(budget_of(chance, final=final), **options)

    def model(self) -> Any:
        chance, lab = self.chance, self.lab
        name = BIG if chance.random() < 0.8 else SMALL
        kind = chance.choice(["name", "name", "responses", "chat", "own", "nameless"])
        if kind == "name":
            return name
        wired = lab.responses(name) if chance.random() < 0.5 else lab.chat(name)
        return {"own": DelegatingModel(wired, name), "nameless": NamelessModel(wired)}.get(kind, wired)

    def agent(self) -> Agent[Any]:
        chance = self.chance
        settings = ModelSettings(max_tokens=self._maybe(0.5, chance.choice([40, 300])))
        few = ModelSettings(max_tokens=50)
        helper = Agent(name="Helper", instructions="Help.", model=self.model(), model_settings=few, tools=[lookup])
        tools: list[Any] = [lookup, slow, broken, helper.as_tool("ask_helper", "Ask a helper.")]
        return Agent(
            name="Worker",
            instructions="Work.",
            model=self.model(),
            model_settings=settings,
            tools=tools,
            handoffs=[helper] if chance.random() < 0.2 else [],
        )

    async def lines(self) -> list[str]:
        """What becomes of it."""
        chance, lines = self.chance, self.heard.lines
        with overheard(lines):
            guard = self.guard()
            agent = self.agent()
            self.lab.script(one_after_the_other(replies_of(chance, TOOLS, parallel=True)))
            for _ in range(chance.choice([1, 1, 2])):
                await self._run(guard, agent)
                if chance.random() < 0.2 and guard.budget.max_cost_usd is not None:
                    await guard.araise_limits(max_cost_usd="9")
            await self.lab.quiet()
        return [*lines, *accounts_of(guard, self.lab.provider)]

    async def _run(self, guard: BudgetGuard, agent: Agent[Any]) -> None:
        chance, lines = self.chance, self.heard.lines
        mode = chance.choice(["run", "run_streamed"])
        way = chance.choice(["hooks", "hooks", "composite", "config", "with"])
        config = self.lab.config(use_responses=chance.random() < 0.5)
        options: dict[str, Any] = {"max_turns": chance.choice([3, 20]), "run_config": config}
        if way == "hooks":
            options["hooks"] = guard
        elif way == "composite":
            options["hooks"] = CompositeRunHooks(guard, RunHooks())
        elif way == "config":
            options["run_config"] = guard.run_config(config)
        lines.append(f"{mode} by {way}")
        try:
            if way == "with":
                async with guard:
                    result = await run_in(mode, agent, "go", **options)
            else:
                result = await run_in(mode, agent, "go", **options)
            lines.append(f"  says {str(result.final_output)[:40]!r} {len(str(result.final_output))}")
        except Exception as error:
            data = getattr(error, "run_data", None)
            done = "" if data is None else f" {[type(each).__name__ for each in data.new_items]}"
            lines.append(f"  raises {plain(error) if hasattr(error, 'fields') else type(error).__name__}{done}")


def lines_of(number: int) -> Iterator[str]:
    """All that is told of a run."""

    async def main() -> list[str]:
        async with client_of(provider) as client:
            return await Run(number, Lab(provider, client)).lines()

    set_tracing_disabled(True)
    with LocalProvider() as provider:
        yield from asyncio.run(main())


REFERENCE = Reference(Path(__file__).with_name("runs.txt.gz"), ("openai-agents", "openai"), lines_of, RUNS)
