"""Middleware that is written once for sync and async agents.

Its logic is a generator that yields the requests to make, and is sent the responses, or thrown what was raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


def drive(steps: Generator[Any, Any, T], handler: Callable[[Any], Any]) -> T:
    """Have *handler* answer what *steps* ask for."""
    try:
        asked = next(steps)
        while True:
            try:
                answer = handler(asked)
            except BaseException as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(answer)
    except StopIteration as done:
        return cast(T, done.value)


async def adrive(steps: Generator[Any, Any, T], handler: Callable[[Any], Awaitable[Any]]) -> T:
    """As `drive`."""
    try:
        asked = next(steps)
        while True:
            try:
                answer = await handler(asked)
            except BaseException as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(answer)
    except StopIteration as done:
        return cast(T, done.value)
