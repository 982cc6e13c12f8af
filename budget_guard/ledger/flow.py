"""Flows: logic written once for blocking and for awaiting callers, and the drivers that perform it.

Logic over a ledger is a generator that yields verbs as ``(name, arguments)`` and gets their results back. A driver
performs them: `drive` on a ledger that blocks, `adrive` on one to await. `run` and `arun` do the same over an object of
any other kind, such as the connections of a ledger.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, TypeAlias, TypeVar

from budget_guard.ledger.base import AsyncLedger, Ledger

T = TypeVar("T")

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
    "usage",
    "names",
    "revoke",
    "restore",
    "swap",
    "sweep",
    "suspended",
    "audit",
    "close",
]
"""The name of a verb of `Ledger`."""
Flow: TypeAlias = Generator[tuple[Verb, tuple[Any, ...]], Any, T]
"""Logic over a ledger: yields verbs and their arguments, and returns a T."""
Steps: TypeAlias = Generator[tuple[str, tuple[Any, ...]], Any, T]
"""As `Flow`, over an object of any other kind: yields the names of its methods and their arguments."""


def drive(flow: Flow[T], ledger: Ledger) -> T:
    """Perform *flow* on a ledger that blocks."""
    return run(flow, ledger)


async def adrive(flow: Flow[T], ledger: AsyncLedger) -> T:
    """Perform *flow* on a ledger to await."""
    return await arun(flow, ledger)


def run(steps: Steps[T], target: object) -> T:
    """Perform *steps* with the methods of *target*, which block; what these return or raise goes back to the steps."""
    try:
        name, arguments = steps.send(None)
        while True:
            try:
                result = getattr(target, name)(*arguments)
            except BaseException as error:  # the steps decide, a cancellation included
                name, arguments = steps.throw(error)
            else:
                name, arguments = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def arun(steps: Steps[T], target: object) -> T:
    """As `run`, with methods to await."""
    try:
        name, arguments = steps.send(None)
        while True:
            try:
                result = await getattr(target, name)(*arguments)
            except BaseException as error:  # the steps decide, a cancellation included
                name, arguments = steps.throw(error)
            else:
                name, arguments = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
