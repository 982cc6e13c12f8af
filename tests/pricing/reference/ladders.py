"""Which models may take made-up calls, at which prices, and what answers teach of that.

By `table.json`, a table that stays as it is. ``python -m tests.pricing.reference.ladders`` writes them down in
``ladders.txt.gz``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from budget_guard import Budget, BudgetError, DowngradePolicy, ModelCall, PriceTable
from budget_guard.calls.ladder import Ladder, check_policy, is_reached, spent_fraction
from budget_guard.calls.plan import Rung
from budget_guard.estimate.prompt import Prompt
from budget_guard.ledger.base import Balance
from budget_guard.pricing.model_price import ModelPrice
from budget_guard.testing import FakeClock
from budget_guard.units.amounts import Amounts, Limits
from budget_guard.units.scope import Scope
from tests.builders import PRICES
from tests.reference_text import keep, plain

FILE = Path(__file__).with_suffix(".txt.gz")
LADDERS = 900
_MODELS = (
    *("large", "small", "tiny", "dime", "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "gpt-5.4", "gpt-5.6", "o3"),
    *("claude-opus-4-6", "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5", "gemini-2.5-pro", "chat-latest"),
    *("gemini-2.5-flash", "perplexity/sonar-deep-research", "gpt-4o-mini-realtime-preview", "nobody-knows"),
)
_TIERS = (None, None, None, "auto", "flex", "priority", "batch", "fast", "standard", "default")
_PROVIDERS = (None, None, None, "openai", "anthropic", "aws", "google", "openrouter", "azure")


def _price(price: ModelPrice | None) -> str:
    if price is None:
        return "no price"
    return f"{price.provider} {price.worst(1_000, 1_000)} {price.worst(0, 1_000)} {price.max_output}"


def _rung(rung: Rung) -> str:
    return f"[{rung.model} {_price(rung.price)} exact={rung.exact} {rung.why!r}]"


class _Ladder:
    """One ladder that is asked and taught in turn, by chance."""

    def __init__(self, number: int, prices: PriceTable) -> None:
        self.chance = random.Random(number)
        self.prices = prices
        self.ladder = Ladder(prices, FakeClock(), self.chance.choice([None, None, "flex", "priority"]))
        self.models = self.chance.sample(_MODELS, 3)

    def call(self) -> ModelCall:
        chance = self.chance
        model = chance.choice(self.models)
        if chance.random() < 0.6:
            return ModelCall(model, Prompt(10, 1, (), 0))
        return ModelCall(
            model,
            Prompt(10, 1, (), 0),
            provider=chance.choice(_PROVIDERS),
            needs=frozenset(chance.sample(["tools", "vision", "json_schema"], chance.choice([0, 0, 1, 2]))),
            service_tier=chance.choice(_TIERS),
            region=chance.choice([None, None, None, "us", "eu"]),
            alternatives=tuple(chance.sample(_MODELS, chance.choice([0, 0, 0, 0, 1, 2]))),
            search_context=chance.choice([None, None, "high"]),
        )

    def policy(self) -> DowngradePolicy:
        chance = self.chance
        to: Any = chance.choice(self.models)
        if chance.random() < 0.5:
            names = chance.sample(self.models, chance.choice([2, 3]))
            to = dict(itertools.pairwise(names))
        return DowngradePolicy(to=to, at=chance.choice([0.1, 0.5, 0.8, 1.0]))

    def balances(self) -> list[Balance]:
        chance = self.chance

        def limits() -> Limits:
            return Limits._make(chance.choice([None, None, 0, 10, 1_000]) for _ in range(6))

        def spent() -> Amounts:
            return Amounts._make(chance.choice([0, 1, 5, 8, 9, 800, 1_000]) for _ in range(6))

        return [
            Balance(Scope("run", "r"), limits(), spent(), Amounts(), 0, None) for _ in range(chance.choice([0, 1, 2]))
        ]

    def asked(self) -> str:
        budget = Budget("$1", unpriced=self.chance.choice(["allow", "deny"]))
        return _rung(self.ladder.asked(budget, self.call(), Limits(self.chance.choice([None, 5]))))

    def rungs(self) -> str:
        call, balances = self.call(), self.balances()
        mode: Any = self.chance.choice(["hard_gate", "advisory_estimate"])
        asked = self.ladder.asked(Budget("$1", unpriced="allow"), call, Limits())
        rungs = self.ladder.rungs(Budget("$1", mode=mode), self.policy(), call, asked, balances)
        return " ".join(map(_rung, rungs))

    def cheaper_price(self) -> str:
        return _price(self.ladder.cheaper_price(self.call(), self.chance.choice(self.models)))

    def _served(self) -> tuple[ModelCall, Rung, Any, Any, Any]:
        call, chance = self.call(), self.chance
        rung = self.ladder.asked(Budget("$1", unpriced="allow"), call, Limits())
        served = (
            chance.choice([call.model, chance.choice(self.models)]),
            chance.choice([None, None, "priority", "priority", "default", "flex", "fast"]),
            chance.choice([None, None, "us", "eu"]),
        )
        return (call, rung, *served)

    def note_served(self) -> str:
        return str(self.ladder.note_served(*self._served()))

    def price_served(self) -> str:
        call, rung, model, tier, region = self._served()
        model = self.chance.choice([None, model])
        price, note = self.ladder.price_served(call, rung, model, tier, region)
        return f"{_price(price)} {note}"

    def price_called(self) -> str:
        call, rung, model, *_ = self._served()
        return _price(self.ladder.price_called(call, model, self.chance.choice([None, rung.price])))

    def check(self) -> str:
        check_policy(self.policy(), self.prices)
        return "fine"

    def reached(self) -> str:
        balances = self.balances()
        return f"{is_reached(self.policy(), balances)} {spent_fraction(balances):.6g}"

    def steps(self) -> Iterator[str]:
        for _ in range(11):
            name = self.chance.choice(
                ["asked", "rungs", "rungs", "cheaper_price", "price_served", "price_called", "check", "reached"]
                + ["note_served"] * 3
            )
            try:
                said = getattr(self, name)()
            except (BudgetError, ValueError) as error:
                said = f"raises {plain(error)}"
            yield f"{name}: {said}"


def lines() -> Iterator[str]:
    """All that they say."""
    prices = PriceTable.load(FILE.with_name("table.json")).overlaid(PRICES)
    for number in range(LADDERS):
        yield f"ladder {number}"
        yield from _Ladder(number, prices).steps()


if __name__ == "__main__":
    keep(list(lines()), FILE)
