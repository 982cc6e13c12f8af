"""The core's errors as stops of LlamaIndex, which has no exception of its own that ends an agent.

What a tool raises becomes text for the model there. So a stop is latched, and raised again at the agent's next call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import budget_guard
from budget_guard.adapter import stops_for


class BudgetStop(Exception):
    """The base of all stops of a guarded LLM."""


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
