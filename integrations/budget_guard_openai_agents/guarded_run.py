"""Which guarded run the current task belongs to."""

from __future__ import annotations

import contextvars
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agents.models.interface import Model, ModelProvider

from budget_guard import BudgetError
from budget_guard_openai_agents.tools import ToolHolds

if TYPE_CHECKING:
    from budget_guard_openai_agents.guard import BudgetGuard


_NOTED = 64
"""How many of the latest calls' agents and models are remembered: more than run in parallel, few enough to keep."""


class GuardedRun:
    """One guarded run: its guards, and what was found out on the way.

    A run started inside another one (a sub-agent, a guardrail, a tool that calls ``Runner.run``) has that one as its
    parent, and spends from the parent's guards as well as from its own.
    """

    def __init__(self, guards: Sequence[BudgetGuard], parent: GuardedRun | None, *, ambient: bool = False) -> None:
        inherited: tuple[BudgetGuard, ...] = parent.guards if parent is not None else ()
        self.parent = parent
        self.guards: tuple[BudgetGuard, ...] = tuple(dict.fromkeys((*inherited, *guards)))
        """Outermost first. A call is made only if all of them allow it."""
        self.ambient = ambient
        """Whether this is no run but a ``with guard:`` block, in which any number of runs may start."""
        self.hooks: object = None
        self.config: object = None
        """What the inner runner is given, to know the run by when it passes through two of our runners."""
        self._stops: dict[BudgetGuard, tuple[BudgetError, int]] = {}
        self._tools: dict[BudgetGuard, ToolHolds] = {}
        self._final: set[BudgetGuard] = set()
        self._agents: dict[int, tuple[object, str]] = {}
        self._resolved: dict[int, tuple[Model, str, ModelProvider]] = {}

    def stop(self, guard: BudgetGuard, error: BudgetError) -> None:
        """Remember that *guard* stopped this run, and all of the run that it guards from the top.

        The SDK turns an error in a tool into text for the model, also where the tool is a sub-agent that was stopped.
        """
        top = self._top(guard)
        if not top.ambient:  # other runs in the block may still have calls that fit
            top._stops[guard] = (error, guard.times_raised)

    def stopped_itself(self) -> tuple[BudgetGuard, BudgetError] | None:
        """The stop that was meant for this very run, not for one that it is a part of."""
        for guard, (error, times_raised) in self._stops.items():
            if guard.times_raised == times_raised:
                return guard, error
        return None

    def stopped(self) -> tuple[BudgetGuard, BudgetError] | None:
        """The stop that holds for this run, unless the guard's limits were raised since."""
        run: GuardedRun | None = self
        while run is not None:
            stopped = run.stopped_itself()
            if stopped is not None:
                return stopped
            run = run.parent
        return None

    def may_finalize(self, guard: BudgetGuard) -> bool:
        """Whether this run may still make the one final answer that *guard* keeps money for."""
        return guard.on_exceeded == "finalize" and self._top(guard) is self and guard not in self._final

    def finalize(self, guard: BudgetGuard) -> None:
        """Note that the final answer is being made."""
        self._final.add(guard)

    def finalized(self, guard: BudgetGuard) -> bool:
        """Whether the final answer that *guard* keeps money for was asked for in this run."""
        return guard in self._final

    def _top(self, guard: BudgetGuard) -> GuardedRun:
        run = self
        while run.parent is not None and guard in run.parent.guards and not run.parent.ambient:
            run = run.parent
        return run

    def note_agent(self, items: object, agent: str) -> None:
        """Remember whose call it is: the hook and the model are given the very same list of input items."""
        self._agents[id(items)] = (items, agent)
        _keep_latest(self._agents)

    def agent_of(self, items: object) -> str | None:
        """The agent that the call with *items* is for, at every attempt of it."""
        noted, agent = self._agents.get(id(items), (None, None))
        return agent if noted is items else None

    def note_resolved(self, model: Model, name: str, provider: ModelProvider) -> None:
        """Remember under which name a provider gave *model* out."""
        self._resolved[id(model)] = (model, name, provider)
        _keep_latest(self._resolved)

    def name_of(self, model: Model) -> str:
        """The name to price *model* by: what it sends to the provider, else what it was asked for by."""
        name = getattr(model, "model", None)
        if isinstance(name, str) and name:
            return name
        return self._resolved[id(model)][1] if id(model) in self._resolved else type(model).__name__

    def provider_of(self, model: Model) -> ModelProvider | None:
        """The provider that gave *model* out in this run; None for one that an agent brought along."""
        return self._resolved[id(model)][2] if id(model) in self._resolved else None

    def end(self) -> None:
        """Book what is still open, and tell the guards that a run of theirs is over."""
        for tools in self._tools.values():
            tools.settle()
        if self.parent is None or self.parent.ambient:
            for guard in self.guards:
                guard.tool_costs.warn_of_unseen()

    def tools_of(self, guard: BudgetGuard) -> ToolHolds:
        """The tool calls that *guard* holds in this run."""
        return self._tools.setdefault(guard, ToolHolds())


def _keep_latest(noted: dict[int, Any]) -> None:
    while len(noted) > _NOTED:
        del noted[next(iter(noted))]


_current: contextvars.ContextVar[GuardedRun | None] = contextvars.ContextVar("budget_guard_run", default=None)
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("budget_guard_inside_call", default=False)


def current_run() -> GuardedRun | None:
    """The guarded run that the current task belongs to."""
    return _current.get()


@contextmanager
def activate(run: GuardedRun | None) -> Generator[None]:
    """Make *run* the current one for the ``with`` block and every task started in it."""
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)


def enter(run: GuardedRun) -> None:
    """Make *run* the current one until it is left."""
    _current.set(run)


def leave() -> None:
    """Go back to the run that was current before `enter`."""
    run = _current.get()
    _current.set(None if run is None else run.parent)


def guarded_already() -> bool:
    """Whether an outer model is accounting for the call: two guarded models that see one call count it once."""
    return _inside.get()


class accounting:
    """Marks that the call made in its block is accounted for."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _inside.set(True)

    def __exit__(self, *_: object) -> None:
        _inside.reset(self._token)
