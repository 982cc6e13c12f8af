"""The guarded run that the current task belongs to: its guards, its stops, and what it holds for tools."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from agents import RunHooks
from agents.models.interface import Model, ModelProvider

from budget_guard import BudgetError, Session, ToolCall
from budget_guard.adapter.attempts import AddField, allowed_by_all, begin_counting, end_counting
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard.adapter.handle import OnCutOff, SessionHandle
from budget_guard.adapter.stops import Stop, StopLatch
from budget_guard.adapter.tool_costs import ToolCosts
from budget_guard.calls.refusals import is_of_one_agent
from budget_guard.session.run_records import RunRecords

OnExceeded: TypeAlias = Literal["raise", "finalize"]

_NOTED = 64
"""How many of the latest calls' agents and models are remembered: more than run in parallel, few enough to keep."""


_KNOWN_REASONING = 10_000
"""How many ids of reasoning are remembered of each guard."""


class OpenCalls:
    """The calls that are held now, by the event loop that makes them: one that is closed never ends its calls.

    Takes no lock: a call may end wherever the garbage is collected.
    """

    def __init__(self) -> None:
        # by references, not a WeakKeyDictionary: to go through one takes five times as long, and each call does
        self._of_loop: dict[weakref.ref[asyncio.AbstractEventLoop], dict[GuardedCall, None]] = {}

    def begin(self, call: GuardedCall) -> None:
        """Note that *call* is held, and made by the running loop."""
        self._of_loop.setdefault(weakref.ref(asyncio.get_running_loop()), {})[call] = None

    def end(self, call: GuardedCall) -> None:
        """Note that *call* is being settled."""
        for calls in list(self._of_loop.values()):
            calls.pop(call, None)

    def tools(self) -> list[GuardedCall]:
        """The tool calls that are held now."""
        every = [call for calls in list(self._of_loop.values()) for call in list(calls)]
        return [call for call in every if _is_tool(call)]

    def are_of_other_loops(self) -> bool:
        """Whether tools are held now, and the running event loop calls none of them: a thread of theirs may run it."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return False
        own = self._of_loop.get(weakref.ref(running), {})
        return bool(self.tools()) and not any(_is_tool(call) for call in list(own))

    def settle_lost(self) -> None:
        """Book the calls whose loop was closed over them."""
        for reference, calls in list(self._of_loop.items()):
            loop = reference()
            if loop is None:
                self._of_loop.pop(reference, None)
            while calls and (loop is None or loop.is_closed()):
                call, _ = calls.popitem()
                call.estimate("its event loop was closed")


def _is_tool(call: GuardedCall) -> bool:
    return bool(call.holds) and isinstance(call.holds[0].call, ToolCall)


open_calls = OpenCalls()
"""The calls of all guarded runs."""

_has_no_guard = contextvars.ContextVar("budget_guard_has_no_guard", default=False)


@contextmanager
def without_guard() -> Generator[None]:
    """Around a run that has no guard. One that begins while no tool is running was started by none of them."""
    token = _has_no_guard.set(_has_no_guard.get() or not open_calls.tools())
    try:
        yield
    finally:
        _has_no_guard.reset(token)


def may_be_lost() -> bool:
    """Whether a call outside of every guarded run may have been made by a tool of one."""
    return not _has_no_guard.get()


class RunGuard(SessionHandle, RunHooks[Any]):
    """What a run and its calls read of a `BudgetGuard`."""

    _session: Session
    parent: RunGuard | None = None
    """The guard that this one's money is a part of."""
    tool_costs: ToolCosts
    """What the tools cost."""
    on_exceeded: OnExceeded
    on_cut_off: OnCutOff
    add_fields: frozenset[AddField]
    """What may be added to requests."""
    records: RunRecords | None = None
    """Keeps a record of each run; None where nobody asked for that."""
    known_reasoning: dict[str, None]
    """The ids of the reasoning that the runs have seen made, the latest last."""

    @property
    def session(self) -> Session:  # type: ignore[override]  # never replaced
        """The core's session: decisions, events and the ledger's counters."""
        open_calls.settle_lost()
        return self._session

    async def hand_over(self, items: object) -> None:
        """Leave the call of these input *items* to its model, where hooks hold it already."""

    @property
    def above(self) -> list[RunGuard]:
        """The guards that this one's money is a part of, and that hold it already, the nearest first."""
        above: list[RunGuard] = []
        guard = self.parent
        while guard is not None:
            above.append(guard)
            guard = guard.parent
        return above


class ToolHolds:
    """The tool calls that one guard holds in one run, from ``on_tool_start`` to ``on_tool_end``."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], list[GuardedCall]] = {}

    def has(self, context: Any, tool: str) -> bool:
        """Whether this very tool call is held: the same guard may be among the hooks twice."""
        return hasattr(context, "tool_call_id") and _key(context, tool) in self._open

    def start(self, context: Any, tool: str, call: GuardedCall) -> None:
        """Remember a tool call until the tool ends."""
        open_calls.begin(call)
        self._open.setdefault(_key(context, tool), []).append(call)

    def end(self, context: Any, tool: str) -> GuardedCall | None:
        """The tool call that ended; None if it is not held."""
        key = _key(context, tool)
        calls = self._open.get(key)
        if not calls:
            return None
        call = calls.pop()
        if not calls:
            del self._open[key]
        open_calls.end(call)
        return call

    def settle(self) -> None:
        """Book the tools whose end no hook told of: they were cancelled, or they raised."""
        for calls in self._open.values():
            for call in calls:
                open_calls.end(call)
                call.commit_cost()
        self._open.clear()


def _key(context: Any, tool: str) -> tuple[int, str]:
    # its id where there is one, else the context that both hooks are given
    return hash(getattr(context, "tool_call_id", None) or id(context)), tool


class GuardedRun:
    """One guarded run: its guards, and what was found out on the way.

    A run started inside another one (a sub-agent, a guardrail, a tool that calls ``Runner.run``) has that one as its
    parent, and spends from the parent's guards as well as from its own.
    """

    def __init__(self, guards: Sequence[RunGuard], parent: GuardedRun | None, *, ambient: bool = False) -> None:
        inherited: tuple[RunGuard, ...] = parent.guards if parent is not None else ()
        self.parent = parent
        every = tuple(dict.fromkeys((*inherited, *guards)))
        stood_for = {above for guard in every for above in guard.above}
        self.guards: tuple[RunGuard, ...] = tuple([guard for guard in every if guard not in stood_for])
        """Outermost first. A call is made only if all of them allow it. A child stands for the guard that it is of."""
        self.sessions = tuple([guard.session for guard in self.guards])
        """The guards' sessions, in the same order."""
        self.add_fields = allowed_by_all([guard.add_fields for guard in self.guards])
        """The fields that every guard allows to be added to requests."""
        self.ambient = ambient
        """Whether this is no run but a ``with guard:`` block, in which any number of runs may start."""
        self.started_by: tuple[str, ...] = ()
        """The agents that have started it, the nearest first."""
        if parent is not None and not parent.ambient:
            self.started_by = parent.started_by if parent.agent is None else (parent.agent, *parent.started_by)
        self.agent: str | None = None
        """The agent whose turn it is."""
        self.trail = object()
        """What its tool calls are known by as those of one run."""
        self.hooks: object = None
        self.config: object = None
        """What the inner runner is given, to know the run by when it passes through two of our runners."""
        self._latch: StopLatch | None = None
        self._tools: defaultdict[RunGuard, ToolHolds] = defaultdict(ToolHolds)
        self._final: set[Session] = set()
        self._agents: dict[int, tuple[object, str]] = {}
        self._resolved: dict[int, tuple[Model, str, ModelProvider]] = {}

    def covers(self, guard: RunGuard) -> bool:
        """Whether what the run spends is spent from *guard*."""
        return guard in self.guards or any(guard in each.above for each in self.guards)

    def guard_of(self, session: Session) -> RunGuard:
        """The guard whose session it is."""
        return self.guards[self.sessions.index(session)]

    def stop(self, stop: Stop) -> None:
        """Remember that a guard stopped this run, and all of the run that it guards from the top.

        The SDK turns an error in a tool into text for the model, also where the tool is a sub-agent that was stopped.
        """
        if is_of_one_agent(stop.error):
            return  # the others go on
        top = self._top(stop.session)
        if not top.ambient:  # other runs in the block may still have calls that fit
            top._latch = top._latch or StopLatch()
            top._latch.set(stop)

    def stopped_itself(self) -> Stop | None:
        """The stop that was meant for this very run, not for one that it is a part of."""
        return None if self._latch is None else self._latch.get()

    def stopped(self) -> Stop | None:
        """The stop that holds for this run, unless the guard's limits were raised since."""
        run: GuardedRun | None = self
        while run is not None:
            if run._latch is not None and (stop := run._latch.get()) is not None:
                return stop
            run = run.parent
        return None

    def may_finalize(self, session: Session) -> bool:
        """Whether this run may still make the one final answer that the guard of *session* keeps money for."""
        finalizes = self.guard_of(session).on_exceeded == "finalize"
        return finalizes and self._top(session) is self and session not in self._final

    def finalize(self, session: Session) -> None:
        """Note that the final answer is being made."""
        self._final.add(session)

    def finalized(self, session: Session) -> bool:
        """Whether the final answer that the guard of *session* keeps money for was asked for in this run."""
        return session in self._final

    def unknown_reasoning(self, session: Session, ids: Sequence[str]) -> bool:
        """Whether any of the *ids* of reasoning is of an answer that the guard of *session* has not seen."""
        known = self.guard_of(session).known_reasoning
        return any(each not in known for each in ids)

    def note_reasoning(self, ids: Sequence[str]) -> None:
        """Remember that the guards have seen reasoning made."""
        for guard in self.guards if ids else ():
            known = guard.known_reasoning
            known.update(dict.fromkeys(ids))
            while len(known) > _KNOWN_REASONING:
                del known[next(iter(known))]

    def _top(self, session: Session) -> GuardedRun:
        run = self
        while run.parent is not None and session in run.parent.sessions and not run.parent.ambient:
            run = run.parent
        return run

    def note_agent(self, items: object, agent: str) -> None:
        """Remember the agent of a call: the hook and the model are given the very same list of input items."""
        self.agent = agent
        self._agents[id(items)] = (items, agent)
        if len(self._agents) > _NOTED:
            del self._agents[next(iter(self._agents))]

    def agent_of(self, items: object) -> str | None:
        """The agent that the call with *items* is for, at every attempt of it."""
        noted, agent = self._agents.get(id(items), (None, None))
        return agent if noted is items else None

    def note_resolved(self, model: Model, name: str, provider: ModelProvider) -> None:
        """Remember under which name a provider gave *model* out."""
        self._resolved[id(model)] = (model, name, provider)
        if len(self._resolved) > _NOTED:
            del self._resolved[next(iter(self._resolved))]

    def name_of(self, model: Model) -> str:
        """The name to price *model* by: what it sends to the provider, else what it was asked for by."""
        name = getattr(model, "model", None)
        if isinstance(name, str) and name:
            return name
        _, asked_for, _ = self._resolved.get(id(model), (model, type(model).__name__, None))
        return asked_for

    def provider_of(self, model: Model) -> ModelProvider | None:
        """The provider that gave *model* out in this run; None for one that an agent brought along."""
        _, _, provider = self._resolved.get(id(model), (model, "", None))
        return provider

    def end(self) -> None:
        """Book what is still open, and tell the guards that a run of theirs is over."""
        for tools in self._tools.values():
            tools.settle()
        if self.parent is None or self.parent.ambient:
            for guard in self.guards:
                if guard.tool_costs.unseen and guard.tool_costs.looked:
                    guard.tool_costs.warn_of_unseen()

    def tools_of(self, guard: RunGuard) -> ToolHolds:
        """The tool calls that *guard* holds in this run."""
        return self._tools[guard]


_current: contextvars.ContextVar[GuardedRun | None] = contextvars.ContextVar("budget_guard_run", default=None)
_compacting: contextvars.ContextVar[Compaction | None] = contextvars.ContextVar("budget_guard_compacting", default=None)
_inside: contextvars.ContextVar[GuardedCall | None] = contextvars.ContextVar("budget_guard_inside_call", default=None)


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


class Compaction:
    """A compaction of a session that is under way."""

    def __init__(self, run: GuardedRun) -> None:
        self.run = run
        """The run that pays for it."""
        self.refusal: BudgetError | None = None
        """Why a request of it was not sent: what the client raises then may hide it."""


def compaction() -> Compaction | None:
    """The compaction that the current task makes; None where it makes none."""
    return _compacting.get()


@contextmanager
def compacting(run: GuardedRun) -> Generator[Compaction]:
    """Say that *run* pays for the compaction that the block makes."""
    made = Compaction(run)
    token = _compacting.set(made)
    try:
        yield made
    finally:
        _compacting.reset(token)


def outer_call() -> Any:
    """The call of an outer model that is accounting for what the current task does; None where there is none."""
    call = _inside.get()
    return None if call is None or call.over else call


def guarded_already() -> bool:
    """Whether an outer model is accounting for the call."""
    return outer_call() is not None


class accounting:
    """Marks that what its block sends is accounted for by a call."""

    __slots__ = ("_call", "_counted", "_token")

    def __init__(self, call: GuardedCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._token = _inside.set(self._call)
        self._counted = begin_counting(self._call)

    def __exit__(self, *_: object) -> None:
        end_counting(self._counted)
        _inside.reset(self._token)
