"""The core's errors as stops of Google ADK, which lets through what a model raises.

An agent that is called in a tool raises it through the tool as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import budget_guard
from budget_guard.adapter import stops_for


class BudgetStop(Exception):
    """The base of all stops of a guarded model."""


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
