"""What is held for made-up calls in made-up rooms, and which output cap each is given.

`python -m tests.calls.reference.make` writes them down in `plans.txt.gz`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from budget_guard import Allowance, Budget, BudgetError, ModelCall, PriceTable, ToolCall
from budget_guard.calls.plan import Rung, Space
from budget_guard.calls.worst_case import output_caps, plan_model, plan_tool, rejected_cap, room
from budget_guard.estimate.calibration import Calibration
from budget_guard.estimate.prompt import Prompt
from budget_guard.units.amounts import Limits
from tests.builders import PRICES
from tests.reference_text import plain

PLANS = 6_000
_MODELS = (*["large"] * 5, "small", "dime", "brief", "endless", "endless", "searcher")
_LEFT = (None, 0, 1, 100, 900, 3_000, 16_000, 40_000, 200_000)
_MARGINS = ("0", "0.01", "0.5")


class _Plan:
    """One call, and all that decides what is held for it, by chance."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)

    def maybe(self, likely: float, *values: Any) -> Any:
        return self.chance.choice(values) if self.chance.random() < likely else None

    def budget(self) -> Budget:
        options: dict[str, Any] = {
            "mode": self.maybe(0.2, "soft_gate", "advisory_estimate", "actuals_only"),
            "soft_margin_usd": self.maybe(0.1, *_MARGINS),
            "clamp_output": self.maybe(0.5, "always", "when_unset", "never", "reject"),
            "call_max_output_tokens": self.maybe(0.2, 50, 500, 20_000),
            "unbounded": self.maybe(0.3, "allow", "deny"),
            "allowance": self.maybe(
                0.3,
                Allowance(input_tokens=2_000),
                Allowance(hosted_tool_calls=3),
                Allowance(input_tokens=5, hosted_tool_calls=1),
            ),
            "finalization_reserve": self.maybe(0.2, "0.01", "0.3"),
            "hold_share": self.maybe(0.3, 0.05, 0.5, 1.0),
            "unpriced": self.maybe(0.2, "allow", "deny"),
        }
        return Budget("$1", **{name: value for name, value in options.items() if value is not None})

    def left(self) -> Limits:
        cost = self.maybe(0.8, 0, 1, 999_999, 1_000_000, 10_500_000, 40_000_000, 110_000_000, 1_000_000_000, -5)
        return Limits._make([cost, *(self.maybe(0.3, *_LEFT) for _ in range(3)), None, None])

    def call(self) -> ModelCall:
        tokens = self.chance.choice([0, 1, 100, 100, 3_000, 50_000])
        prompt = Prompt(tokens, self.chance.choice([0, 30]), (), 0)
        if self.chance.random() < 0.05:
            prompt = prompt._replace(opaque=("a file",))
        return ModelCall(
            self.chance.choice(_MODELS),
            prompt,
            max_output_tokens=self.maybe(0.4, 1, 99, 100, 5_000, 30_000),
            can_cap=self.chance.random() < 0.8,
            choices=self.chance.choice([1, 1, 1, 2, 5]),
            hosted_tools=self.chance.choice([*[()] * 9, ("web_search",), ("web_search", "unheard_of")]),
            final=self.chance.random() < 0.15,
            hour_cache=self.chance.random() < 0.5,
            kinds=self.maybe(0.2, frozenset(), frozenset({"input_image"}), frozenset({"output_audio"})),
            tool_fees=self.maybe(0.1, (("unheard_of", 2_000_000),)) or (),
        )


def _of_models() -> Iterator[str]:
    prices = PriceTable.bundled().overlaid(PRICES)
    for number in range(PLANS):
        made = _Plan(number)
        try:
            budget = made.budget()
        except ValueError:  # what contradicts itself
            continue
        call = made.call()
        price = made.maybe(0.95, prices.find(call.model))
        calibration = Calibration()[call.model]
        for tokens in made.chance.choice([[], [], [1], [200], [8_000, 10], [5_000]]):
            calibration.learn(call.prompt, 10, tokens)
        later = made.left() if made.chance.random() < 0.6 else None
        space = Space(made.left(), later, made.chance.random() < 0.5, made.chance.random() < 0.3)
        try:
            told = plain(plan_model(calibration, budget, call, Rung(call.model, price), space))
        except BudgetError as error:
            told = plain(error)
        caps = (output_caps(budget, call, price), rejected_cap(budget, call, price))
        yield f"{number} {told} {caps}"


def _of_tools() -> Iterator[str]:
    for number in range(60):
        made = _Plan(number)
        try:
            budget = made.budget()
        except ValueError:
            continue
        plan, needed = plan_tool(ToolCall("serp", made.chance.choice([0, 1, 70_000_000])), budget)
        rooms = [room(budget, needed, final) for final in (False, True)]
        yield f"tool {number} {plain(plan)} {plain(needed)} {plain(rooms)}"


def lines() -> Iterator[str]:
    """A line for each plan."""
    yield from _of_models()
    yield from _of_tools()
