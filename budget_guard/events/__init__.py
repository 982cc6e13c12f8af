"""Events of a session: immutable values, named in the past tense."""

from budget_guard.events.model import (
    BoundViolated,
    CallAdmitted,
    CallBlocked,
    CallCommitted,
    CallReleased,
    ChildClosed,
    ChildOpened,
    Event,
    LimitsRaised,
    LoopNoticed,
    ModelDowngraded,
    OverrunCharged,
    SessionRevoked,
    SoftLimitReached,
    Subscriber,
    Tokens,
    UsageEvent,
)
from budget_guard.events.origin import Origin, Sink

__all__ = [
    "BoundViolated",
    "CallAdmitted",
    "CallBlocked",
    "CallCommitted",
    "CallReleased",
    "ChildClosed",
    "ChildOpened",
    "Event",
    "LimitsRaised",
    "LoopNoticed",
    "ModelDowngraded",
    "Origin",
    "OverrunCharged",
    "SessionRevoked",
    "Sink",
    "SoftLimitReached",
    "Subscriber",
    "Tokens",
    "UsageEvent",
]
