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


_runs: ContextVar[tuple[tuple[object, object], ...]] = ContextVar("budget_guard_runs", default=())


def begin_run(session: object) -> object:
    """Note that what follows is a run of its own of *session*; returns what it is known by."""
    run = object()
    _runs.set((*_runs.get(), (session, run)))
    return run


def end_run(run: object) -> None:
    """Undo `begin_run`."""
    _runs.set(tuple(each for each in _runs.get() if each[1] is not run))


def run_of(session: object) -> object:
    """What the run is known by that is under way here: the latest one of *session*, or the session as a whole."""
    for owner, run in reversed(_runs.get()):
        if owner is session:
            return run
    return session
