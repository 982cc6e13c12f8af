"""One engine for blocking and awaiting callers.

Engine logic is a generator that yields ledger verbs as ``(name, arguments)`` and gets their results back. A driver
performs them: `drive` on a ledger that blocks, `adrive` on one to await. So no rule is written twice.
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
    "revoke",
    "restore",
    "sweep",
    "suspended",
    "audit",
    "close",
]
Flow: TypeAlias = Generator[tuple[Verb, tuple[Any, ...]], Any, T]


def drive(flow: Flow[T], ledger: Ledger) -> T:
    """Perform *flow* on a ledger that blocks."""
    try:
        verb, arguments = flow.send(None)
        while True:
            try:
                result = getattr(ledger, verb)(*arguments)
            except BaseException as error:  # the flow decides, a cancellation included
                verb, arguments = flow.throw(error)
            else:
                verb, arguments = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def adrive(flow: Flow[T], ledger: AsyncLedger) -> T:
    """Perform *flow* on a ledger to await."""
    try:
        verb, arguments = flow.send(None)
        while True:
            try:
                result = await getattr(ledger, verb)(*arguments)
            except BaseException as error:  # the flow decides, a cancellation included
                verb, arguments = flow.throw(error)
            else:
                verb, arguments = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
