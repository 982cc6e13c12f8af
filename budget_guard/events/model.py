"""Events of a session: immutable values, named in the past tense, that a subscriber may keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from budget_guard.reporting.posting import Source
from budget_guard.units.money import to_usd, usd_text

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
    agent: str | None = None
    """Whom it is attributed to."""
    input_tokens: int = 0
    """Cached ones included."""
    cached_tokens: int = 0
    output_tokens: int = 0
    """Reasoning included."""
    reasoning_tokens: int = 0
    unpriced: bool = False
    """Whether the price, or a part of it, is not known."""

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
    limit: str = ""
    """What refused it, as `BudgetReport.terminated_by` says it: the name of a limit, or ``revoked`` and the like."""


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


class AnswerCutOff(NamedTuple):
    """The output cap that the guard had sent ended an answer early. What came of it is in the stop or the result."""

    at_s: float
    decision_id: str
    model: str
    output_cap: int
    """Tokens."""


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
    before: tuple[str, ...] = ()
    """What each was before: dollars, tokens, calls or seconds."""


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


class Tokens(NamedTuple):
    """Tokens by kind. Totals include their parts: input the cached ones, output the reasoning."""

    input: int = 0
    cached: int = 0
    """Read from the provider's cache."""
    cache_written: int = 0
    output: int = 0
    reasoning: int = 0


class UsageEvent(NamedTuple):
    """The usage and the cost of one booked call, for meters and bills elsewhere. Subscribers are told: it is not kept.

    A call whose estimate is replaced by what it really used is told of twice, with the same `decision_id` and another
    `id`: sum up `cost - cost_before`, or keep the last event of each decision.
    """

    at_s: float
    id: str
    """Equal for the same booking alone."""
    at: datetime
    """When it was booked, with a time zone."""
    run_id: str
    principals: Mapping[str, str]
    """Whom the run is attributed to, by kind: user, key, team, feature and kinds of one's own."""
    agent: str | None
    task: str | None
    kind: Literal["model", "tool"]
    name: str
    """The model that was called, or the tool."""
    asked: str
    """The model that was asked for, or the tool."""
    tokens: Tokens
    cost: int
    """Nano-dollars that are booked for the call now."""
    source: Source
    """Where the cost comes from: usage at a known price, the provider's own figure, or an estimate."""
    uncertain: bool
    """Whether it is an estimate, which may be replaced."""
    unpriced: bool
    """Whether the price, or a part of it, is not known."""
    decision_id: str
    cost_before: int = 0
    """Nano-dollars that were booked for the same call before."""
    tokens_before: Tokens = Tokens()
    """Tokens that were booked for the same call before."""

    @property
    def cost_usd(self) -> Decimal:
        """Dollars that are booked for the call now."""
        return to_usd(self.cost)

    @property
    def added(self) -> int:
        """Nano-dollars that this booking added; negative where an estimate was too high."""
        return self.cost - self.cost_before

    @property
    def is_correction(self) -> bool:
        """Whether the call was booked before."""
        return self.id != self.decision_id

    def tokens_added(self) -> dict[str, int]:
        """Tokens that this booking added, by kind."""
        pairs = zip(Tokens._fields, self.tokens, self.tokens_before, strict=True)
        return {kind: now - before for kind, now, before in pairs}

    def as_plain(self) -> dict[str, Any]:
        """The event in JSON's own types, dollars as text."""
        plain: dict[str, Any] = self._asdict()
        plain.pop("tokens_before")
        plain.update(
            at=self.at.isoformat(),
            principals=dict(self.principals),
            tokens={f"{kind}_tokens": count for kind, count in self.tokens._asdict().items()},
            cost_usd=usd_text(plain.pop("cost")),
            cost_before_usd=usd_text(plain.pop("cost_before")),
        )
        return plain


Event: TypeAlias = (
    CallAdmitted
    | CallCommitted
    | CallReleased
    | CallBlocked
    | ModelDowngraded
    | SoftLimitReached
    | BoundViolated
    | OverrunCharged
    | AnswerCutOff
    | LoopNoticed
    | LimitsRaised
    | SessionRevoked
    | ChildOpened
    | ChildClosed
    | UsageEvent
)
Subscriber: TypeAlias = Callable[[Event], None]
