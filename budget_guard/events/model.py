"""Events of a session: immutable values, named in the past tense, that a subscriber may keep."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from budget_guard.reporting.posting import Source
from budget_guard.units.money import to_usd

# Named tuples, not frozen dataclasses: two are made for every call, and a named tuple is made five times as fast.
# `at_s` is always seconds since the session started.


class CallAdmitted(NamedTuple):
    """A call was given its hold."""

    at_s: float
    decision_id: str
    kind: Literal["model", "tool"]
    name: str
    """The model, or the tool."""
    held: int
    """Its worst case, in nano-dollars."""

    @property
    def held_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.held)


class CallCommitted(NamedTuple):
    """A call was paid for."""

    at_s: float
    decision_id: str
    kind: Literal["model", "tool"]
    name: str
    cost: int
    """Nano-dollars."""
    uncertain: bool
    """Whether the cost is the estimate, because the actual usage is not known."""
    source: Source = "price"
    """Where the cost comes from: usage at a known price, the provider's own figure, or an estimate."""

    @property
    def cost_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.cost)


class CallReleased(NamedTuple):
    """A call was not billed, and its hold was given back."""

    at_s: float
    decision_id: str
    name: str
    reason: str


class CallBlocked(NamedTuple):
    """A call was refused before it was made."""

    at_s: float
    decision_id: str
    name: str
    reason: str


class ModelDowngraded(NamedTuple):
    """A cheaper model stood in for the one asked for."""

    at_s: float
    decision_id: str
    model: str
    """The model asked for."""
    target: str
    """The model that was called."""
    reason: str


class SoftLimitReached(NamedTuple):
    """A limit is nearly used up. Sent once per limit."""

    at_s: float
    scope: str
    dimension: str
    fraction: float
    """How much of the limit is spent, 1.0 for all of it."""


class BoundViolated(NamedTuple):
    """A call used more than its estimate said it could at most. The model's bound is widened from then on."""

    at_s: float
    decision_id: str
    model: str
    bound_tokens: int
    actual_tokens: int


class OverrunCharged(NamedTuple):
    """A call cost more than was held for it. It was charged in full."""

    at_s: float
    decision_id: str
    name: str
    overrun: int
    """Nano-dollars."""

    @property
    def overrun_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.overrun)


class LoopNoticed(NamedTuple):
    """A run repeats itself. Sent once for each loop as a warning, and again when it is stopped."""

    at_s: float
    tool: str
    """The tool that is called once more."""
    repeats: int
    """How often the loop was gone through."""
    period: int
    """How many calls it has; 0 where other calls come in between."""
    stopped: bool
    """Whether the run was stopped."""


class LimitsRaised(NamedTuple):
    """The limits were raised while the session ran."""

    at_s: float
    limits: tuple[str, ...]
    """The names of the limits."""


class SessionRevoked(NamedTuple):
    """The run was cut off."""

    at_s: float
    reason: str


class ChildOpened(NamedTuple):
    """A child session was given its part of the budget."""

    at_s: float
    child_id: str
    held: int
    """Nano-dollars."""

    @property
    def held_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.held)


class ChildClosed(NamedTuple):
    """A child session was closed: what it spent is booked, and the rest of its part was given back."""

    at_s: float
    child_id: str
    cost: int
    """Nano-dollars."""
    uncertain: bool
    """Whether calls of it were still in flight, whose estimates are in the cost."""

    @property
    def cost_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.cost)


Event: TypeAlias = (
    CallAdmitted
    | CallCommitted
    | CallReleased
    | CallBlocked
    | ModelDowngraded
    | SoftLimitReached
    | BoundViolated
    | OverrunCharged
    | LoopNoticed
    | LimitsRaised
    | SessionRevoked
    | ChildOpened
    | ChildClosed
)
Subscriber: TypeAlias = Callable[[Event], None]
