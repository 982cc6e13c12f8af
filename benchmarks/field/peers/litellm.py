"""litellm: its `BudgetManager` round each call, as its page on budgets shows, with the projected cost of the prompt.

(`litellm.max_budget` is set as well. The budgets of its proxy need a database, and are not measured here.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import litellm
from litellm.exceptions import ModelNotMappedError
from scenarios import Call, Guard, Instant, Place

STOPS = (litellm.BudgetExceededError, ModelNotMappedError)
USER = "field"


@contextmanager
def opened(cap: float, place: Place) -> Iterator[Guard]:
    litellm.max_budget = cap
    manager = litellm.BudgetManager(project_name="field")
    manager.create_budget(total_budget=cap, user=USER)
    where: dict[str, Any] = {"api_base": place.base_url, "api_key": "none", "max_retries": 0}
    if isinstance(place, Instant):
        where = {"client": place.openai()}

    def arguments(call: Call) -> dict[str, Any]:
        return {**call.arguments, "model": f"openai/{call.model}", **where}

    def look_ahead(call: Call) -> None:
        projected = manager.projected_cost(f"openai/{call.model}", call.messages, USER)
        if projected > manager.get_total_budget(USER):
            raise litellm.BudgetExceededError(current_cost=manager.get_current_cost(USER), max_budget=cap)

    def booked(answer: Any) -> Any:
        manager.update_cost(completion_obj=answer, user=USER)
        return answer

    def ask(call: Call) -> str:
        look_ahead(call)
        return booked(litellm.completion(**arguments(call))).choices[0].message.content

    async def aask(call: Call) -> str:
        look_ahead(call)
        return booked(await litellm.acompletion(**arguments(call))).choices[0].message.content

    def stream(call: Call) -> str:
        look_ahead(call)
        options = {"include_usage": True}
        chunks = list(litellm.completion(**arguments(call), stream=True, stream_options=options))
        return booked(litellm.stream_chunk_builder(chunks, messages=call.messages)).choices[0].message.content

    yield Guard(
        ask,
        aask,
        stream,
        spent=lambda: manager.get_current_cost(USER),
        plain=lambda call: litellm.completion(**arguments(call)),
    )
