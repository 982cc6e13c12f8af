"""A verb that somebody waits for, and its answer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from budget_guard.ledger.sqlite.verbs import SqliteVerbs

Answer: TypeAlias = tuple[Any, Exception | None]


class Request(NamedTuple):
    """A verb, left by a thread or by a task of some event loop."""

    verb: Callable[..., Any]
    """A method of `SqliteVerbs`."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    future: Future[Answer] | asyncio.Future[Answer]


def perform(request: Request, books: SqliteVerbs) -> Answer:
    """Perform the verb.

    Raises:
        sqlite3.Error: If the file fails, and with it all that the transaction does.
    """
    try:
        return request.verb(books, *request.args, **request.kwargs), None
    except (sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:  # an argument of a type that cannot be stored
        return None, ValueError(f"{request.verb.__name__}{request.args}: {error}")
    except sqlite3.Error:
        raise
    except Exception as error:
        return None, error


def deliver(requests: Sequence[Request], answers: Sequence[Answer]) -> None:
    """Hand each request its answer, and wake each event loop once."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Answer], Answer]]] = defaultdict(list)
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(request.future, asyncio.Future):
            loops[request.future.get_loop()].append((request.future, answer))
        else:
            request.future.set_result(answer)
    for loop, answered in loops.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(_resolve, answered)


def result(answer: Answer) -> Any:
    """What the verb returned.

    Raises:
        Exception: What it raised.
    """
    value, error = answer
    if error is not None:
        raise error
    return value


def _resolve(answered: Sequence[tuple[asyncio.Future[Answer], Answer]]) -> None:
    for future, answer in answered:
        if not future.done():
            future.set_result(answer)
