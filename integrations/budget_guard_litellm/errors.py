"""The core's errors in LiteLLM's own terms: each also derives from the base of its clients' errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai import OpenAIError

import budget_guard
from budget_guard.adapter import stops_for


class BudgetStop(OpenAIError):
    """The base of all stops of guarded calls of LiteLLM.

    Its root is the one that LiteLLM's own exceptions have. LiteLLM's router neither retries it nor cools a deployment
    down for it; where it has fallbacks, it asks for those.
    """

    status_code: int = 402


stops = stops_for(BudgetStop)
"""The classes below, and how to make one of an error of the core's."""

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
