"""The core's errors in CrewAI's own terms: each also derives from its `HookAborted`.

That is the one exception which CrewAI neither retries nor turns into text for the model, where an agent's own call
raises it. What a crew in a tool raises becomes text all the same: the latch stops the crew around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crewai.hooks.dispatch import HookAborted

import budget_guard
from budget_guard.adapter import stops_for


class BudgetStop(HookAborted):
    """The base of all stops of a guarded crew."""

    reason: str = "its budget is used up"
    """Where the core's error has no reason of its own."""
    source: str = "budget_guard"

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)


stops = stops_for(BudgetStop)
"""The classes below, and how to make one of an error of the core's."""

if TYPE_CHECKING:

    class BudgetExceeded(budget_guard.BudgetExceeded, BudgetStop): ...

    class BudgetRevoked(budget_guard.BudgetRevoked, BudgetStop): ...

    class UnknownPriceError(budget_guard.UnknownPriceError, BudgetStop): ...

    class UnboundedCallError(budget_guard.UnboundedCallError, BudgetStop): ...

    class InvalidDowngradeError(budget_guard.InvalidDowngradeError, BudgetStop): ...

    class ForeignRun(budget_guard.ForeignRun, BudgetStop): ...

    class LedgerUnavailable(budget_guard.LedgerUnavailable, BudgetStop): ...

else:
    globals().update(stops.classes)
