"""shekel: ``with budget(max_usd=...)`` around the calls.

It lives in a context variable, which a new thread does not have; each thread here is given the context, so that its
calls are seen at all. (Its documentation asks for a budget for each thread, and so for no shared one.)
"""

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager

from scenarios import Call, Guard, Place
from shekel import BudgetExceededError, budget

STOPS = (BudgetExceededError,)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    client, client_async = place.openai(), place.async_openai()
    create = type(client.chat.completions).create  # as it is without the budget, which patches it
    with budget(max_usd=cap) as spending:
        context = contextvars.copy_context()

        def ask(call: Call) -> str:
            answer = context.copy().run(client.chat.completions.create, **call.arguments)
            return answer.choices[0].message.content

        async def aask(call: Call) -> str:
            return (await client_async.chat.completions.create(**call.arguments)).choices[0].message.content

        def stream(call: Call) -> str:
            text = ""
            for chunk in client.chat.completions.create(**call.arguments, stream=True):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
            return text

        yield Guard(
            ask,
            aask,
            stream,
            spent=lambda: spending.spent,
            plain=lambda call: create(client.chat.completions, **call.arguments),
        )
