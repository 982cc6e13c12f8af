"""The core's errors in the SDK's own terms: each also derives from `agents.AgentsException`.

As an `AgentsException` a stop keeps its ``run_data``, passes through the SDK's tool hooks unchanged, and lets a slow
consumer of a stream read what was paid for before it is raised.
"""

from __future__ import annotations

from typing import Any, cast

from agents import Agent, AgentsException, RunErrorDetails, TResponseInputItem

import budget_guard


def as_items(input: str | list[TResponseInputItem]) -> list[TResponseInputItem]:
    """*input* in the form of a new list."""
    return [cast(TResponseInputItem, {"role": "user", "content": input})] if isinstance(input, str) else list(input)


class BudgetStop(AgentsException):
    """What every stop of a guarded run has in common: the partial work, and how to go on from it."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        # Read by the SDK from 0.15.2 on: deliver the stream events that are queued, then raise.
        self._agents_drain_queued_stream_events = True

    def resume_input(self) -> list[TResponseInputItem]:
        """The conversation up to the stop, tool results included, as the input of a run that goes on from it.

        ::

            except BudgetExceeded as stop:
                guard.raise_limits(max_cost_usd="3.00")
                await Runner.run(stop.last_agent, stop.resume_input(), hooks=guard)

        Raises:
            RuntimeError: If the run had not started, so that there is nothing to resume.
        """
        details = self._details()
        return as_items(details.input) + [item.to_input_item() for item in details.new_items]

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


class BudgetExceeded(budget_guard.BudgetExceeded, BudgetStop):
    """As `budget_guard.BudgetExceeded`, out of a run."""


class BudgetRevoked(budget_guard.BudgetRevoked, BudgetStop):
    """As `budget_guard.BudgetRevoked`, out of a run."""


class UnknownPriceError(budget_guard.UnknownPriceError, BudgetStop):
    """As `budget_guard.UnknownPriceError`, out of a run."""


class UnboundedCallError(budget_guard.UnboundedCallError, BudgetStop):
    """As `budget_guard.UnboundedCallError`, out of a run."""


class InvalidDowngradeError(budget_guard.InvalidDowngradeError, BudgetStop):
    """As `budget_guard.InvalidDowngradeError`, out of a run."""


class ForeignRun(budget_guard.ForeignRun, BudgetStop):
    """As `budget_guard.ForeignRun`, out of a run."""


class LedgerUnavailable(budget_guard.LedgerUnavailable, BudgetStop):
    """As `budget_guard.LedgerUnavailable`, out of a run."""


_RECAST: dict[type[budget_guard.BudgetError], type[budget_guard.BudgetError]] = {
    budget_guard.BudgetExceeded: BudgetExceeded,
    budget_guard.BudgetRevoked: BudgetRevoked,
    budget_guard.UnknownPriceError: UnknownPriceError,
    budget_guard.UnboundedCallError: UnboundedCallError,
    budget_guard.InvalidDowngradeError: InvalidDowngradeError,
    budget_guard.ForeignRun: ForeignRun,
    budget_guard.LedgerUnavailable: LedgerUnavailable,
}


def recast(error: budget_guard.BudgetError) -> budget_guard.BudgetError:
    """A new error in the SDK's terms, to be raised once: the SDK writes ``run_data`` into what it raises."""
    for core in type(error).__mro__:
        if core in _RECAST:
            return error.recast(_RECAST[core])
    return error
