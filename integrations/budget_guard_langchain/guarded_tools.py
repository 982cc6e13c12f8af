"""Tools whose calls spend from the budgets of the model call that asked for them.

LangChain has one way for middleware to be around tools, and an agent with it gets a node for tools in any case, and no
longer checks for unknown ones. So the tools of an agent carry the budgets themselves: the middleware notes which calls
a model asked for, and the tool finds its call by the id.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool

from budget_guard import BudgetExceeded, BudgetRevoked
from budget_guard.wire.values import fields
from budget_guard_langchain.final_answer import NO_MORE, words

if TYPE_CHECKING:
    _Base = BaseTool
else:
    _Base = object  # mixed into tools of any class

_log = logging.getLogger("budget_guard")
_KEPT = 4_096
"""Tool calls that are remembered, the latest ones: they may be tried again."""

Active = Callable[[], AbstractContextManager[None]]
"""Installs the budgets of one call of an agent in a block."""


class _Key(NamedTuple):
    """A call of a tool, as far as both sides can tell. Ids alone are as unique as a provider makes them."""

    tool: int
    call_id: str
    thread_id: str | None


class _Asked(NamedTuple):
    """A call that a model has asked for."""

    tool: BaseTool
    call: object
    """The very object in the model's answer: each middleware of the agent is shown the same."""
    budgets: list[Active]
    """The innermost middleware's first."""


_lock = threading.Lock()
_asked: dict[_Key, _Asked] = {}


class _Guarded(_Base):
    """Mixed into a tool's own class. Passes through where no guarded agent has asked for the call."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        active = _budgets_of(self, input, config)
        if active is None:
            return super().invoke(input, config, **kwargs)
        try:
            with active():
                return super().invoke(input, config, **kwargs)
        except (BudgetExceeded, BudgetRevoked) as stop:
            return refused(stop, input)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        active = _budgets_of(self, input, config)
        if active is None:
            return await super().ainvoke(input, config, **kwargs)
        try:
            with active():
                return await super().ainvoke(input, config, **kwargs)
        except (BudgetExceeded, BudgetRevoked) as stop:
            return refused(stop, input)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Pickled and copied as what it was: the class that guards it can be found by no name.
        reduced = super().__reduce_ex__(protocol)
        if not isinstance(reduced, tuple) or type(self) not in reduced[1]:
            return reduced
        was: Any = type(self).__mro__[2]
        _, *arguments = reduced[1]
        return (was.__new__, (was, *arguments), *reduced[2:])


def refused(stop: BudgetExceeded | BudgetRevoked, call: Mapping[str, Any]) -> ToolMessage:
    """The answer of a tool whose *call* did not fit: the model reads it, and the next model call ends the run."""
    return ToolMessage(f"{words(stop)} {NO_MORE}", tool_call_id=call["id"], name=call["name"], status="error")


def guard_tools(tools: Iterable[Any]) -> None:
    """Have *tools* spend from the budgets of the calls that ask for them. Each stays the object that it is."""
    for tool in tools:
        if isinstance(tool, BaseTool) and not isinstance(tool, _Guarded):
            try:
                object.__setattr__(tool, "__class__", _guarded_class(type(tool)))
            except TypeError:
                _warn_once(f"the class of {tool.name!r} does not let its calls be seen")


def note_calls(tools: Sequence[Any], messages: Sequence[BaseMessage], thread_id: str | None, active: Active) -> None:
    """Note the tool calls that a model has asked for in *messages*.

    Args:
        tools: The tools that it was offered.
        messages: Its answer.
        thread_id: The thread of the agent, if it has one.
        active: What installs the agent's budgets.
    """
    by_name = {tool.name: tool for tool in tools if isinstance(tool, BaseTool)}
    for message in messages:
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            tool = by_name.get(call["name"])
            call_id = call["id"]
            if tool is None or call_id is None:
                continue
            with _lock:
                key = _Key(id(tool), call_id, thread_id)
                before = _asked.pop(key, None)
                again = before is not None and before.call is call
                _asked[key] = before if before is not None and again else _Asked(tool, call, [])
                _asked[key].budgets.append(active)
                while len(_asked) > _KEPT:
                    del _asked[next(iter(_asked))]


def _budgets_of(tool: Any, input: Any, config: Any) -> Active | None:
    """What installs the budgets of the agent that has asked for a call; None where none has."""

    @contextmanager
    def every() -> Generator[None]:
        with ExitStack() as stack:
            for active in reversed(budgets):
                stack.enter_context(active())
            yield

    call = fields(input)
    if call.get("type") != "tool_call":
        return None
    thread_id = ensure_config(config).get("configurable", {}).get("thread_id")
    found = _asked.get(_Key(id(tool), str(call.get("id")), None if thread_id is None else str(thread_id)))
    if found is None:
        return None
    budgets = found.budgets
    return budgets[0] if len(budgets) == 1 else every


_told: set[str] = set()


def _warn_once(what: str) -> None:
    if what not in _told:
        _told.add(what)
        _log.warning(
            "budget_guard: %s, so what it spends is not held: use BudgetMiddleware(..., guard_tools=True)", what
        )


@functools.cache
def _guarded_class(cls: type[BaseTool]) -> type[BaseTool]:
    as_before = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    metaclass: Any = type(cls)
    made: type[BaseTool] = metaclass(cls.__name__, (_Guarded, cls), as_before)
    return made
