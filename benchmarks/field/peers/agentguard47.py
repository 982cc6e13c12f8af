"""agentguard47: `patch_openai` with a `BudgetGuard`, which looks at what was recorded before each call."""

from collections.abc import Iterator
from contextlib import contextmanager

from agentguard import BudgetExceeded, BudgetGuard, JsonlFileSink, Tracer, patch_openai, patch_openai_async
from scenarios import Call, Guard, Place

STOPS = (BudgetExceeded,)


def guard_of(cap: float) -> BudgetGuard:
    return BudgetGuard(max_cost_usd=cap)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    client, client_async = place.openai(), place.async_openai()
    create = type(client.chat.completions).create  # as it is without the patch
    guard = guard_of(cap)
    tracer = Tracer(service="field", sink=JsonlFileSink("traces.jsonl"))
    patch_openai(tracer, budget_guard=guard)
    patch_openai_async(tracer, budget_guard=guard)

    def ask(call: Call) -> str:
        return client.chat.completions.create(**call.arguments).choices[0].message.content

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
        spent=lambda: guard.state.cost_used,
        plain=lambda call: create(client.chat.completions, **call.arguments),
    )
