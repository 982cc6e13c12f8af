"""agentbudget: `wrap_client`, and `would_exceed` before each call whose cap is known.

Its loop detection counts calls of one model, ten in a minute, and would stop everything here: it is set out of reach.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from agentbudget import AgentBudget, BudgetExhausted, wrap_client
from agentbudget.pricing import calculate_llm_cost
from scenarios import Call, Guard, Place

STOPS = (BudgetExhausted,)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    client = place.openai()
    with AgentBudget(max_spend=cap, max_repeated_calls=10**9).session() as session:
        tracked = wrap_client(place.openai(), session)
        tracked_async = wrap_client(place.async_openai(), session)

        def look_ahead(call: Call) -> None:
            if call.cap is None:
                return
            cost = calculate_llm_cost(call.model, call.input_tokens, call.cap)
            if cost is not None and session.would_exceed(cost):
                raise BudgetExhausted(budget=cap, spent=session.spent)

        def ask(call: Call) -> str:
            look_ahead(call)
            return tracked.chat.completions.create(**call.arguments).choices[0].message.content

        async def aask(call: Call) -> str:
            look_ahead(call)
            return (await tracked_async.chat.completions.create(**call.arguments)).choices[0].message.content

        def stream(call: Call) -> str:
            look_ahead(call)
            text = ""
            for chunk in tracked.chat.completions.create(**call.arguments, stream=True):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
            return text

        yield Guard(
            ask,
            aask,
            stream,
            spent=lambda: session.spent,
            plain=lambda call: client.chat.completions.create(**call.arguments),
        )
