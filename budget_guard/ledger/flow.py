"""Flows: logic written once for blocking and for awaiting callers, and the drivers that perform it.

Logic over a ledger is a generator that yields verbs as ``(name, arguments)`` and gets their results back. A driver
performs them: `drive` on a ledger that blocks, `adrive` on one to await. `run` and `arun` do the same for steps of any
other kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, TypeAlias, TypeVar

from budget_guard.ledger.base import AsyncLedger, Ledger

T = TypeVar("T")
S = TypeVar("S")

Verb: TypeAlias = Literal[
    "set_limits",
    "reserve",
    "forward",
    "extend",
    "commit",
    "release",
    "charge",
    "adjust",
    "await_room",
    "balances",
    "revoke",
    "restore",
    "sweep",
    "suspended",
    "audit",
    "close",
]
"""The name of a verb of `Ledger`."""
Flow: TypeAlias = Generator[tuple[Verb, tuple[Any, ...]], Any, T]
"""Logic over a ledger: yields verbs and their arguments, and returns a T."""


def drive(flow: Flow[T], ledger: Ledger) -> T:
    """Perform *flow* on a ledger that blocks."""

    def perform(step: tuple[Verb, tuple[Any, ...]]) -> Any:
        verb, arguments = step
        return getattr(ledger, verb)(*arguments)

    return run(flow, perform)


async def adrive(flow: Flow[T], ledger: AsyncLedger) -> T:
    """Perform *flow* on a ledger to await."""

    def perform(step: tuple[Verb, tuple[Any, ...]]) -> Any:
        verb, arguments = step
        return getattr(ledger, verb)(*arguments)

    return await arun(flow, perform)


def run(steps: Generator[S, Any, T], perform: Callable[[S], Any]) -> T:
    """Perform each of *steps*, and hand what it returns or raises back to them; return what they return."""
    try:
        step = steps.send(None)
        while True:
            try:
                result = perform(step)
            except BaseException as error:  # the steps decide, a cancellation included
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def arun(steps: Generator[S, Any, T], perform: Callable[[S], Awaitable[Any]]) -> T:
    """As `run`, for steps to await."""
    try:
        step = steps.send(None)
        while True:
            try:
                result = await perform(step)
            except BaseException as error:  # the steps decide, a cancellation included
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
