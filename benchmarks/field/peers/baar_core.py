"""baar-core: `BAARRouter.chat`, with one model in both tiers, and its routing model, which says how long answers are.

A caller cannot cap an answer through the router. Where a caller here knows a cap, the routing model (whose part the
local provider plays) says exactly how long the answer will be; where nobody does, it says baar's own default, 500.
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import litellm
from baar import BAARRouter, BudgetExceeded, BudgetExhausted
from scenarios import Call, Guard, Instant, Place

STOPS = (BudgetExceeded, BudgetExhausted)


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    routers: list[BAARRouter] = []
    making = threading.Lock()
    if isinstance(place, Instant):  # without the routing model, whose call would be measured as well
        litellm.completion = functools.partial(litellm.completion, client=place.openai())
    else:
        litellm.api_base = place.base_url

    def router(call: Call) -> BAARRouter:
        with making:  # one for all threads
            if not routers:
                name = f"openai/{call.model}"
                routers.append(
                    BAARRouter(
                        budget=cap,
                        small_model=name,
                        big_model=name,
                        use_llm_router=not isinstance(place, Instant),
                        expected_output_tokens=500 if call.cap is None else call.output_tokens,
                    )
                )
        return routers[0]

    def ask(call: Call) -> str:
        return router(call).chat(call.prompt)

    async def aask(call: Call) -> str:
        return await router(call).achat(call.prompt)

    def stream(call: Call) -> str:
        return "".join(router(call).stream_chat(call.prompt))

    yield Guard(
        ask,
        aask,
        stream,
        spent=lambda: routers[0].spent,
        plain=lambda call: litellm.completion(model=f"openai/{call.model}", messages=call.messages),
    )
