"""The core's errors in the SDK's own terms: each also derives from `agents.AgentsException`.

As an `AgentsException` a stop keeps its ``run_data``, passes through the SDK's tool hooks unchanged, and lets a slow
consumer of a stream read what was paid for before it is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from agents import Agent, AgentsException, RunErrorDetails, TResponseInputItem

import budget_guard
from budget_guard import BudgetError
from budget_guard.adapter.stops import stops_for


def as_items(input: str | list[TResponseInputItem]) -> list[TResponseInputItem]:
    """*input* in the form of a new list."""
    return [cast(TResponseInputItem, {"role": "user", "content": input})] if isinstance(input, str) else list(input)


class BudgetStop(AgentsException):
    """The base of all stops of a guarded run: they carry the partial work, and how to go on from it."""

    partial_of: str | None = None
    """The agent whose answer the stop has in ``partial_output``; None where not known."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        # Read by the SDK from 0.15.2 on: deliver the stream events that are queued, then raise.
        self._agents_drain_queued_stream_events = True

    def resume_input(self) -> list[TResponseInputItem]:
        """The conversation up to the stop, as the input of a run that goes on from it.

        With the results of tools, and at its end what had come of an answer that was cut off (``partial_output``).

        ::

            except BudgetExceeded as stop:
                guard.raise_limits(max_cost_usd="3.00")
                await Runner.run(stop.last_agent, stop.resume_input(), hooks=guard)

        Raises:
            RuntimeError: If the run had not started, so that there is nothing to resume.
        """
        details = self._details()
        items = as_items(details.input) + [item.to_input_item() for item in details.new_items]
        partial = cast("BudgetError", self).partial_output
        if partial and self.partial_of in (None, details.last_agent.name):  # and not of an agent that is its tool
            items.append(cast(TResponseInputItem, {"role": "assistant", "content": partial}))
        return items

    @property
    def last_agent(self) -> Agent[Any]:
        """The agent that was stopped.

        Raises:
            RuntimeError: If the run had not started.
        """
        return self._details().last_agent

    def _details(self) -> RunErrorDetails:
        if self.run_data is None:
            raise RuntimeError("This stop carries no run_data, because it was not raised by a run: start a new run.")
        return self.run_data


stops = stops_for(BudgetStop)
"""The classes below, and how to make one of an error of the core's."""
recast = stops.recast

if TYPE_CHECKING:

    class BudgetExceeded(budget_guard.BudgetExceeded, BudgetStop): ...

    class BudgetRevoked(budget_guard.BudgetRevoked, BudgetStop): ...

    class LoopDetected(budget_guard.LoopDetected, BudgetStop): ...

    class UnknownPriceError(budget_guard.UnknownPriceError, BudgetStop): ...

    class UnboundedCallError(budget_guard.UnboundedCallError, BudgetStop): ...

    class InvalidDowngradeError(budget_guard.InvalidDowngradeError, BudgetStop): ...

    class ForeignRun(budget_guard.ForeignRun, BudgetStop): ...

    class LedgerUnavailable(budget_guard.LedgerUnavailable, BudgetStop): ...

else:
    globals().update(stops.classes)
