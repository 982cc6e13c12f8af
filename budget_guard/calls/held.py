"""The record of a held call: what it asked for, on which terms, and what is booked for it."""

from __future__ import annotations

from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.enclosing import OpenHold
from budget_guard.calls.plan import Plan
from budget_guard.reporting.posting import Posting


class HeldCall(OpenHold):
    """A call with a hold in the ledger, or with a charge."""

    __slots__ = ("call", "cost_left", "id", "posting", "terms")

    def __init__(self, hold_id: str, call: ModelCall | ToolCall, plan: Plan) -> None:
        self.id = hold_id
        """The decision's id, which is the hold's idempotency key."""
        self.call = call
        self.terms, self.amounts = plan
        """How it is made, and what is held for it."""
        self.settled = False
        """Whether it was committed or released."""
        self.posting: Posting | None = None
        """What is recorded for it."""
        self.cost_left: int | None = None
        """Nano-dollars that were left when it was booked, as of `Settled.cost_left`."""
