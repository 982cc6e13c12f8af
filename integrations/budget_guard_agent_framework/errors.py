"""The core's errors in Agent Framework's own terms: each also derives from its `MiddlewareFailure`.

That is the one exception which is never made a tool's result: it leaves an agent that is a tool of another one, and
that one as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_framework import MiddlewareFailure

import budget_guard
from budget_guard.adapter import stops_for


class BudgetStop(MiddlewareFailure):
    """The base of all stops of a guarded agent."""

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)  # the framework's own logs it


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
