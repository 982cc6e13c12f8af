"""budget_guard: ``session.guard(client)``, with the budget's defaults."""

from collections.abc import Iterator
from contextlib import contextmanager

from scenarios import Call, Guard, Place

from budget_guard import Budget, BudgetError

STOPS = (BudgetError,)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    client = place.openai()
    with Budget(cap).session() as session:
        guarded = session.guard(client)
        guarded_async = session.guard(place.async_openai())

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
            spent=lambda: float(session.spent_usd),
            plain=lambda call: client.chat.completions.create(**call.arguments),
        )
