"""The core's errors in pydantic-ai's own terms: each also derives from its `UsageLimitExceeded`.

Nothing in pydantic-ai retries or replaces that, or turns it into text for the model: it leaves the run, out of agents
that are called in tools as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_ai.exceptions import UsageLimitExceeded

import budget_guard
from budget_guard.adapter import stops_for


class BudgetStop(UsageLimitExceeded):
    """The base of all stops of a guarded model."""

    def __init__(self, *args: object) -> None:
        RuntimeError.__init__(self, *args)  # pydantic-ai's own adds a hint on its own limits

    def __str__(self) -> str:
        return RuntimeError.__str__(self)

    @property
    def message(self) -> str:
        """What it says. Some of the core's errors make it when they are asked."""
        return str(self)

    @message.setter
    def message(self, said: str) -> None:
        self.args = (said,)


stops = stops_for(BudgetStop)
"""The classes below, and how to make one of an error of the core's."""

if TYPE_CHECKING:

    class BudgetExceeded(budget_guard.BudgetExceeded, BudgetStop): ...

    class BudgetRevoked(budget_guard.BudgetRevoked, BudgetStop): ...

    class UnknownPriceError(budget_guard.UnknownPriceError, BudgetStop): ...

    class UnboundedCallError(budget_guard.UnboundedCallError, BudgetStop): ...

    class InvalidDowngradeError(budget_guard.InvalidDowngradeError, BudgetStop): ...

    class ForeignRun(budget_guard.ForeignRun, BudgetStop): ...

    class LoopDetected(budget_guard.LoopDetected, BudgetStop): ...

    class LedgerUnavailable(budget_guard.LedgerUnavailable, BudgetStop): ...

else:
    globals().update(stops.classes)
