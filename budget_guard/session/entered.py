"""The sessions that the running task or thread is inside of, by ``with``, and the run of each that it is in.

Kept in context variables: tasks inherit them, and so do threads that copy the context, as `asyncio.to_thread` does.
"""

from __future__ import annotations

from contextvars import ContextVar

_entered: ContextVar[tuple[object, ...]] = ContextVar("budget_guard_entered", default=())


def enter(session: object) -> None:
    """Note that what follows is inside *session*."""
    _entered.set((*_entered.get(), session))


def leave(session: object) -> None:
    """Undo the latest `enter` of *session*. Does nothing in a context that it was not entered in."""
    entered = _entered.get()
    for i in range(len(entered) - 1, -1, -1):
        if entered[i] is session:
            _entered.set(entered[:i] + entered[i + 1 :])
            return


def innermost() -> object | None:
    """The session that was entered last and is not left yet."""
    entered = _entered.get()
    return entered[-1] if entered else None
