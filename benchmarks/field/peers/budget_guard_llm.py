"""budget-guard-llm: its guarded client and a daily total; an unpriced model is refused, which is not its default.

Its table has newer models only, so it is told the prices of gpt-4o.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from scenarios import MODEL, Call, Guard, Place

from budget_guard import BudgetError, BudgetGuard, Limits, UnknownModelError, default_pricing, guard

STOPS = (BudgetError, UnknownModelError)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    client = place.openai()
    default_pricing().set("openai", MODEL, {"input": "2.50", "cache_read": "1.25", "output": "10.00"})
    budget = BudgetGuard(limits=Limits(daily_total=cap), on_unknown_model="raise")
    guarded = guard(place.openai(), budget=budget)
    guarded_async = guard(place.async_openai(), budget=budget)

    def ask(call: Call) -> str:
        return guarded.chat.completions.create(**call.arguments).choices[0].message.content

    async def aask(call: Call) -> str:
        return (await guarded_async.chat.completions.create(**call.arguments)).choices[0].message.content

    def stream(call: Call) -> str:
        with guarded.chat.completions.create(**call.arguments, stream=True) as chunks:
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    yield Guard(
        ask,
        aask,
        stream,
        spent=lambda: float(budget.spent()),
        plain=lambda call: client.chat.completions.create(**call.arguments),
    )
