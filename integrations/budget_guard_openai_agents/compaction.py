"""Sessions that compact their history: they ask OpenAI's API for it by themselves, and that is billed.

Such a call is held in the guards of the run that it is made in, below, where the client sends it. One that does not fit
is left out: the run goes on with the history as it is.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from budget_guard.errors import BudgetError
from budget_guard_openai_agents.errors import recast
from budget_guard_openai_agents.guarded_run import compacting, current_run
from budget_guard_openai_agents.look import look_at_client

try:
    from agents.memory import OpenAIResponsesCompactionSession
except ImportError:  # older SDKs do not have it
    OpenAIResponsesCompactionSession = None  # type: ignore[assignment,misc]  # which is asked for

_log = logging.getLogger("budget_guard")
_COMPACT = ("run_compaction", "_run_compaction")
"""What compacts: for runs, and for sessions of the SDK that are around this one."""
_DEPTH = 8
"""How many sessions may be wrapped in one another."""


async def _paid_for(session: Any, compact: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    run = current_run()
    if run is None:
        await compact(*args, **kwargs)
        return
    look_at_client(session.client)
    with compacting(run) as compaction:
        try:
            await compact(*args, **kwargs)
        except Exception as error:
            refusal = error if isinstance(error, BudgetError) else compaction.refusal
            if refusal is None:
                raise
            if run.ambient:  # somebody asked for just this
                raise recast(refusal) from refusal.__cause__
            _log.warning("budget_guard %s: the session is not compacted: %s", run.guards[-1].session.scope, refusal)


def guard_compactions(session: object, depth: int = _DEPTH) -> None:
    """Have *session*, and those that it wraps, account for their compactions in guarded runs."""
    if OpenAIResponsesCompactionSession is None or session is None or not depth:
        return
    if isinstance(session, OpenAIResponsesCompactionSession):
        if type(session) not in _guarded_classes:
            object.__setattr__(session, "__class__", _guarded_class(type(session)))
        return
    for inner in list(getattr(session, "__dict__", {}).values()):
        if hasattr(inner, "get_items"):
            guard_compactions(inner, depth - 1)


_guarded_classes: set[type[Any]] = set()


@functools.cache
def _guarded_class(cls: type[Any]) -> type[Any]:
    """A subclass of *cls* whose compactions are paid for by the run that makes them; without one, nothing differs."""
    methods = {name: _guarded(getattr(cls, name)) for name in _COMPACT if hasattr(cls, name)}
    as_before = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__slots__": ()}
    made = type(cls.__name__, (cls,), {**methods, **as_before})
    _guarded_classes.add(made)
    return made


def _guarded(compact: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(compact)
    async def paid_for(session: Any, *args: Any, **kwargs: Any) -> None:
        await _paid_for(session, functools.partial(compact, session), args, kwargs)

    return paid_for
