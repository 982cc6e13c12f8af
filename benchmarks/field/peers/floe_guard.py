"""floe-guard: what a call may cost is reserved where its cap is known, else its adapter's `guarded_completion`.

The adapter alone predicts the next call from the last one, and takes no streams: for those there is `StreamGuard`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from floe_guard import BudgetGuard, FloeGuardError, StreamGuard
from floe_guard.integrations.openai import guarded_acompletion, guarded_completion
from scenarios import Call, Guard, Place

STOPS = (FloeGuardError,)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    client, client_async = place.openai(), place.async_openai()
    guard = BudgetGuard(limit_usd=cap, on_block=lambda spent, limit: None)

    def reserve(call: Call) -> Any:
        return guard.reserve(guard.estimate_call(call.model, call.input_tokens, call.cap or 0))

    def settle(call: Call, response: Any, reserved: Any) -> str:
        usage = response.usage
        cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
        guard.settle(
            response.model,
            usage.prompt_tokens - cached,
            usage.completion_tokens,
            reserved=reserved,
            cache_read_input_tokens=cached,
        )
        return response.choices[0].message.content

    def ask(call: Call) -> str:
        if call.cap is None:
            return guarded_completion(guard, client, **call.arguments).choices[0].message.content
        reserved = reserve(call)
        try:
            response = client.chat.completions.create(**call.arguments)
        except BaseException:
            guard.release(reserved)
            raise
        return settle(call, response, reserved)

    async def aask(call: Call) -> str:
        if call.cap is None:
            return (await guarded_acompletion(guard, client_async, **call.arguments)).choices[0].message.content
        reserved = reserve(call)
        try:
            response = await client_async.chat.completions.create(**call.arguments)
        except BaseException:
            guard.release(reserved)
            raise
        return settle(call, response, reserved)

    def stream(call: Call) -> str:
        text = ""
        with StreamGuard(guard, call.model, prompt_tokens=call.input_tokens, reserved=reserve(call)) as metered:
            options = {"include_usage": True}
            for chunk in client.chat.completions.create(**call.arguments, stream=True, stream_options=options):
                for choice in chunk.choices:
                    metered.feed_text(choice.delta.content or "")
                    text += choice.delta.content or ""
                if chunk.usage is not None:
                    metered.finish(
                        prompt_tokens=chunk.usage.prompt_tokens, completion_tokens=chunk.usage.completion_tokens
                    )
        return text

    yield Guard(
        ask,
        aask,
        stream,
        spent=lambda: guard.spent_usd,
        plain=lambda call: client.chat.completions.create(**call.arguments),
    )
