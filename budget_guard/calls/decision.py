"""Decisions: whether and how a call may be made, and the log of the latest ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from budget_guard.calls.call import ModelCall, ToolCall
from budget_guard.calls.plan import Terms
from budget_guard.calls.reservation import Reservation
from budget_guard.errors import BudgetError
from budget_guard.events.model import CallAdmitted
from budget_guard.events.timeline import KEPT
from budget_guard.units.amounts import Amounts
from budget_guard.units.money import format_usd, to_usd

Action: TypeAlias = Literal["allow", "downgrade", "advisory_warn", "block"]


class Estimate(NamedTuple):
    """The most that a call may take."""

    input_tokens: int
    output_tokens: int
    cost: int
    """Nano-dollars."""

    @property
    def cost_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.cost)


class Basis(NamedTuple):
    """The scopes and prices that all decisions of a session rest on."""

    scopes: tuple[str, ...]
    """The scopes that its calls are held in, as ``kind:id``."""
    prices: str
    """Version and hash of the price table."""


class Decision(NamedTuple):
    """The decision on one call: whether and how it may be made, with everything that it was decided on."""

    id: str
    at_s: float
    """Seconds since the session started."""
    action: Action
    call: ModelCall | ToolCall
    """What was asked for."""
    requested: str
    """The model asked for, or the tool."""
    name: str
    """The model to call, or the tool; what was asked for where the call is refused."""
    terms: Terms | None
    """How it is made; None where it was refused before that was worked out."""
    held: Amounts
    """What is held for it, or was to be held."""
    basis: Basis
    reason: str
    error: BudgetError | None
    """Why it is refused, to be raised by the adapter; None unless *action* is ``block``."""
    reservation: Reservation | None
    """The hold to settle; None where nothing is held."""

    def __repr__(self) -> str:
        why = f", {self.reason!r}" if self.reason else ""
        return f"Decision({self.action} {self.name!r}, holds {format_usd(self.held.cost)}{why}, id={self.id!r})"

    @property
    def kind(self) -> Literal["model", "tool"]:
        """The kind of call."""
        return "model" if isinstance(self.call, ModelCall) else "tool"

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that the call is held in, as ``kind:id``."""
        return self.basis.scopes

    @property
    def prices(self) -> str:
        """Version and hash of the price table."""
        return self.basis.prices

    @property
    def estimate(self) -> Estimate:
        """The most that it may take."""
        return Estimate(self.held.input_tokens, self.held.output_tokens, self.held.cost)

    @property
    def output_cap(self) -> int | None:
        """The output cap that the adapter must send; None to send none."""
        return None if self.terms is None else self.terms.output_cap

    @property
    def output_clamped(self) -> bool:
        """Whether the session chose a lower cap than the caller and the model would have had."""
        return self.terms is not None and self.terms.clamped

    @property
    def bounded(self) -> bool:
        """Whether the estimate is a bound. False only where the adapter cannot send a cap, or the mode gives none."""
        return self.terms is not None and self.terms.bounded

    def require(self) -> Reservation:
        """The reservation, or the error.

        Raises:
            BudgetError: If the call is refused.
        """
        if self.reservation is None:
            raise self.error or BudgetError(f"{self.requested} was refused")
        return self.reservation

    def event(self) -> CallAdmitted:
        """The event of an admitted call."""
        return CallAdmitted(self.at_s, self.id, self.kind, self.name, self.held.cost)


class DecisionLog:
    """The latest 1,000 decisions of one session or of many together, oldest first. Safe to use from any thread.

    Args:
        shared: A log that takes the same decisions as well.
    """

    __slots__ = ("_decisions", "_shared", "add")

    def __init__(self, shared: DecisionLog | None = None) -> None:
        self._decisions: deque[Decision] = deque(maxlen=KEPT)
        self._shared = shared
        self.add: Callable[[Decision], None] = self._decisions.append if shared is None else self._add_to_both
        """Logs one decision."""

    def latest(self) -> list[Decision]:
        """The decisions, oldest first."""
        return list(self._decisions)

    def _add_to_both(self, decision: Decision) -> None:
        self._decisions.append(decision)
        if self._shared is not None:
            self._shared.add(decision)
