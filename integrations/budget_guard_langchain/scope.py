"""A handler for code that passes no config, or one that leaves the handler out.

LangChain asks registered context variables for a handler whenever it configures a run. One is registered
for the whole process: each registration costs every call of every run a look. It also reaches async code on Python
3.10, where callbacks of a config get lost between a run and what it awaits. What is registered finds the handlers of
the run around as well: a config with callbacks of its own, inside of that run, replaces its callbacks and would take
its budget away.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from langchain_core.callbacks import BaseCallbackHandler

from budget_guard import Session
from budget_guard_langchain.inline import RunsInline

H = TypeVar("H", bound=BaseCallbackHandler)

installed: ContextVar[BaseCallbackHandler | None] = ContextVar("budget_guard_langchain", default=None)
"""The handler of every run that is started in this context."""

extra_sessions: ContextVar[tuple[tuple[BaseCallbackHandler, Session], ...]] = ContextVar(
    "budget_guard_langchain_sessions", default=()
)
"""Further budgets of every call that a handler sees in this context, beside its own."""

_registering = threading.Lock()
_registered = False


class StaysInForce(BaseCallbackHandler):
    """The base of handlers that see all that is started inside of their runs, whatever callbacks are given there."""


class _InForce:
    """Stands in for a context variable: the handlers in force, by a scope or by the run around.

    Args:
        config: The variable in which LangChain keeps the config of the run around.
    """

    def __init__(self, config: ContextVar[Any]) -> None:
        self._config = config

    def get(self) -> BaseCallbackHandler | None:
        scoped, around = installed.get(), self._config.get()
        given: Any = None if around is None else around.get("callbacks")
        if given is None:
            return scoped
        told: Sequence[Any] = getattr(given, "inheritable_handlers", given)
        handlers = _handlers_of(scoped)
        for handler in told:
            if isinstance(handler, StaysInForce) and handler not in handlers:
                handlers = (*handlers, handler)
        return _as_one(handlers)


def register() -> None:
    """Have LangChain ask which handlers are in force. Runs and scopes call it: it imports tracers, which take long."""
    global _registered
    if _registered:
        return
    with _registering:
        if not _registered:
            from langchain_core.runnables.config import var_child_runnable_config
            from langchain_core.tracers.context import register_configure_hook

            in_force: Any = _InForce(var_child_runnable_config)
            register_configure_hook(in_force, inheritable=True)
            _registered = True


class _Chain(BaseCallbackHandler):
    """Several handlers in the place of one, for scopes inside of scopes."""

    raise_error = True
    run_inline: Any = RunsInline()

    def __init__(self, handlers: tuple[BaseCallbackHandler, ...]) -> None:
        self.handlers = handlers


def _in_each(event: str) -> Any:
    def tell(self: _Chain, *args: Any, **kwargs: Any) -> None:
        for handler in self.handlers:
            getattr(handler, event)(*args, **kwargs)

    return tell


for _event in (
    *("on_chat_model_start", "on_llm_start", "on_llm_new_token", "on_stream_event", "on_llm_end", "on_llm_error"),
    *("on_chain_start", "on_chain_end", "on_chain_error", "on_tool_start", "on_tool_end", "on_tool_error"),
):
    setattr(_Chain, _event, _in_each(_event))


def _handlers_of(scoped: BaseCallbackHandler | None) -> tuple[BaseCallbackHandler, ...]:
    return scoped.handlers if isinstance(scoped, _Chain) else () if scoped is None else (scoped,)


def _as_one(handlers: tuple[BaseCallbackHandler, ...]) -> BaseCallbackHandler | None:
    if len(handlers) > 1:
        return _Chain(handlers)
    return handlers[0] if handlers else None


@contextmanager
def installing(handler: BaseCallbackHandler) -> Generator[None]:
    """Install *handler* for every run that is started in this context, beside those that are installed."""
    register()
    handlers = _handlers_of(installed.get())
    if handler not in handlers:
        handlers = (*handlers, handler)
    token = installed.set(_as_one(handlers))
    try:
        yield
    finally:
        installed.reset(token)


class budget_scope(Generic[H]):
    """Give *handler* every run that is started in the block, also where no config can be passed.

    ::

        with budget_scope(handler):          # or: async with
            chain_of_another_library()

    It reaches the tasks that are started in the block, and threads that LangChain starts; threads of your own need
    ``contextvars.copy_context().run``. A handler that is among the callbacks as well counts each call once.

    Raises:
        TypeError: If *handler* is no callback handler.
    """

    def __init__(self, handler: H) -> None:
        if not isinstance(handler, BaseCallbackHandler):
            raise TypeError(
                f"budget_scope({handler!r}) is given no handler: write budget_scope(BudgetCallbackHandler(budget))"
            )
        self._handler = handler
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> H:
        entered = installing(self._handler)
        entered.__enter__()
        self._entered.append(entered)
        return self._handler

    def __exit__(self, *error: object) -> None:
        self._entered.pop().__exit__(None, None, None)

    async def __aenter__(self) -> H:
        return self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__()
