"""The timeline of a session: its clock, a bounded log of events, and their subscribers."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast, get_args, get_origin, get_type_hints

from budget_guard.clock import Clock
from budget_guard.events.model import (
    CallAdmitted,
    CallBlocked,
    CallCommitted,
    Event,
    LimitsRaised,
    ModelDowngraded,
    Subscriber,
)
from budget_guard.reporting.posting import Posting
from budget_guard.units.amounts import unchecked
from budget_guard.units.money import usd_text

_log = logging.getLogger("budget_guard")

KEPT = 1_000
"""How many of the latest events, and of the latest decisions, are kept."""


_MOST_MARKS = 200


class MakesEvent(Protocol):
    """A record of which an event is made only if it is asked for."""

    def event(self) -> Event:
        """The event that says what happened."""
        ...


Noted: TypeAlias = Event | Posting | MakesEvent
"""An event, or a record that one can be made of: there are two for every call, and few ask for the events."""

_EVENTS: tuple[type, ...] = get_args(Event)
_MONEY_FIELDS = {"held", "cost", "overrun"}


class Timeline:
    """When a session began and what happened since. Safe to use from any thread."""

    __slots__ = ("_events", "_lock", "_marked", "_marks", "_monotonic", "_subscribers", "emit", "ended_s", "started_s")

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()
        self.started_s: float | None = None
        """When the first call came, on the clock's own scale."""
        self.ended_s: float | None = None
        self._events: deque[Noted] = deque(maxlen=KEPT)
        self._marks: list[Event] = []
        self._marked: set[tuple[object, ...]] = set()
        """What came already of that which comes again and again."""
        self.emit: Callable[[Noted], None] = self._events.append
        """Notes what happened, and tells the subscribers. Never raises for a subscriber that does."""

    def start(self) -> float:
        """Start the run's time, once; return the seconds since."""
        monotonic, started_s = self._monotonic, self.started_s
        now = monotonic()
        if started_s is None:
            with self._lock:
                started_s = self.started_s
                if started_s is None:
                    started_s = self.started_s = now
        return now - started_s

    def end(self) -> None:
        """Stop the run's time."""
        self.ended_s = self._monotonic()

    def at(self) -> float:
        """Seconds since the start; 0 before it."""
        monotonic, started_s = self._monotonic, self.started_s
        return 0.0 if started_s is None else monotonic() - started_s

    def duration(self) -> float:
        """Seconds from the start to the end, or to now."""
        if self.started_s is None:
            return 0.0
        return (self._monotonic() if self.ended_s is None else self.ended_s) - self.started_s

    def mark(self, event: Event) -> None:
        """As `emit`, for an event that a picture of the run shows: it is kept for good, if it is one of the first."""
        self.emit(event)
        which = _mark_of(event)
        if which in self._marked:
            return
        with self._lock:
            if len(self._marks) < _MOST_MARKS:
                self._marks.append(event)
            if isinstance(event, LimitsRaised):
                self._marked.clear()  # from here on, a switch or a stop is another one
            elif which is not None:
                self._marked.add(which)

    def marks(self) -> list[Event]:
        """The events that a picture of the run shows, oldest first."""
        with self._lock:
            return list(self._marks)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call *subscriber* with every event from now on; returns how to stop."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
            self.emit = self._note_and_tell

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)
                self.emit = self._note_and_tell if self._subscribers else self._events.append

        return unsubscribe

    @property
    def is_watched(self) -> bool:
        """Whether anybody subscribes."""
        return bool(self._subscribers)

    def tell(self, event: Event) -> None:
        """Tell the subscribers of *event*, and keep it nowhere."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                _log.exception("a budget_guard subscriber failed on %r", event)

    def events(self, most: int = KEPT) -> list[Event]:
        """The latest events, at most so many, oldest first."""
        return [_event_of(event) for event in list(self._events)[-most:]]

    def described(self, most: int = KEPT) -> list[dict[str, Any]]:
        """As `events`, each as `describe` has it."""
        return [
            _describe_committed(noted) if isinstance(noted, Posting) else describe(_event_of(noted))
            for noted in list(self._events)[-most:]
        ]

    def _note_and_tell(self, noted: Noted) -> None:
        self._events.append(noted)
        self.tell(_event_of(noted))


def _event_of(noted: Noted) -> Event:
    if isinstance(noted, Posting):
        at_s, id_, name, amounts, _, uncertain, unpriced, _, source, agent, usage = noted
        cost, read, written, _, requests, _ = amounts
        kind = "model" if requests else "tool"
        cached, reasoning = (0, 0) if usage is None else (usage.cached, usage.reasoning)
        fields = (at_s, id_, kind, name, cost, uncertain, source, agent, read, cached, written, reasoning, unpriced)
        return unchecked(CallCommitted, fields)
    return cast("Event", noted) if isinstance(noted, _EVENTS) else cast("MakesEvent", noted).event()


def _mark_of(event: Event) -> tuple[object, ...] | None:
    """What *event* has in common with those that tell the same again; None where each one counts."""
    if isinstance(event, ModelDowngraded):
        return ModelDowngraded, event.model, event.target
    return (CallBlocked, event.limit) if isinstance(event, CallBlocked) else None


def _describe_committed(posting: Posting) -> dict[str, Any]:
    """`describe` of the event that *posting* stands for, in a third of the time: every other event is one."""
    at_s, id_, name, amounts, _, uncertain, unpriced, _, source, agent, usage = posting
    cost, read, written, _, requests, _ = amounts
    return {
        "event": "CallCommitted",
        "at_s": at_s,
        "decision_id": id_,
        "kind": "model" if requests else "tool",
        "name": name,
        "cost_usd": usd_text(cost),
        "uncertain": uncertain,
        "source": source,
        "agent": agent,
        "input_tokens": read,
        "cached_tokens": 0 if usage is None else usage.cached,
        "output_tokens": written,
        "reasoning_tokens": 0 if usage is None else usage.reasoning,
        "unpriced": unpriced,
    }


def describe(event: Event) -> dict[str, Any]:
    """*event* as plain values, money in dollars."""
    if isinstance(event, CallAdmitted):  # nearly every other one
        at_s, id_, admitted_kind, name, held = event
        return {
            "event": "CallAdmitted",
            "at_s": at_s,
            "decision_id": id_,
            "kind": admitted_kind,
            "name": name,
            "held_usd": usd_text(held),
        }
    kind, names, money, lists = _described(cast(Any, type(event)))
    plain: dict[str, Any] = dict(zip(names, (kind, *event)))  # noqa: B905 (a check would take a third of the time)
    for name in money:
        plain[name] = usd_text(plain[name])
    for name in lists:
        plain[name] = list(plain[name])
    return plain


@functools.cache
def _described(event: Any) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """An event's kind, the names of it and of its fields, and which of them are money, or lists."""
    names = ("event", *(f"{name}_usd" if name in _MONEY_FIELDS else name for name in event._fields))
    money = tuple(f"{name}_usd" for name in event._fields if name in _MONEY_FIELDS)
    lists = tuple(name for name, kind in get_type_hints(event).items() if get_origin(kind) is tuple)
    return event.__name__, names, money, lists
