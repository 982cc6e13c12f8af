"""The handler that a user passes among the callbacks."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast
from uuid import UUID

from typing_extensions import Self

from budget_guard import Budget, BudgetAuthority, BudgetError, BudgetExceeded, ModelCall, Prompt, Session, ToolCall
from budget_guard.adapter.handle import (
    OnCutOff,
    SessionHandle,
    SessionSettings,
    check_budget,
    check_choice,
    check_principals,
    forked,
    opened,
)
from budget_guard.adapter.stops import Stop
from budget_guard.adapter.tool_costs import ToolCost, ToolCosts
from budget_guard.calls.call_estimate import CallEstimate
from budget_guard.calls.seen import OnCancel
from budget_guard.ledger.base import Ledger
from budget_guard.pricing.table import PriceLike
from budget_guard.session.told import OnThreshold
from budget_guard.wire.values import fields
from budget_guard_langchain.calls import Call, Calls, withdraw
from budget_guard_langchain.ceilings import SessionsById, ThreadHandle
from budget_guard_langchain.fallbacks import Fallbacks
from budget_guard_langchain.inline import RunsInline
from budget_guard_langchain.quiet import quieten
from budget_guard_langchain.request import call_to_be_made, read_call, requests_of_texts, tool_names
from budget_guard_langchain.response import Reply
from budget_guard_langchain.runs import RunsByTree
from budget_guard_langchain.scope import StaysInForce, extra_sessions, installed, register
from budget_guard_langchain.steering import LaterHold, steering_of
from budget_guard_langchain.trails import Trails, started_by

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from budget_guard.reporting.records import RunStore

HandlerScope: TypeAlias = Literal["run", "thread"]
OnExceeded: TypeAlias = Literal["raise", "interrupt"]

_log = logging.getLogger("budget_guard")
_LEFT_TO_CHILDREN = 4_096
"""Calls of children that are remembered, for handlers that are told of them as well."""


class _NoHandler(TypeError, AttributeError):
    """Raised where a class stands in the place of a handler. What looks through its attributes passes over it."""


class _OfHandler:
    """Whether LangChain is to leave a kind of event out: never. Read of the class, which is no handler, it raises.

    LangChain reads it of whatever is among the callbacks, and a class there would see no call.
    """

    def __get__(self, instance: object, owner: type) -> bool:
        if instance is None:
            raise _NoHandler(
                f"{owner.__name__} itself is among the callbacks, and it sees no call: "
                f'write {owner.__name__}(Budget("$1.00"))'
            )
        return False


class BudgetCallbackHandler(SessionHandle, StaysInForce):
    """Holds a budget for every run that it is given to.

    ::

        handler = BudgetCallbackHandler(Budget("$1.00"))
        agent.invoke({"messages": [("user", "...")]}, config={"callbacks": [handler]})
        print(handler.report())

    One handler is one budget: all runs that it is given to spend from it together, in any number of threads and tasks.
    `fork` makes a fresh one. A callback can refuse a call, and neither change its model nor cap its output: see
    `BudgetDowngrade`, `BudgetMiddleware` and `budgeted_model`.

    Args:
        budget: What the runs may spend.
        scope: ``run`` for one budget in all; ``thread`` gives each LangGraph thread, by its ``thread_id``, the whole of
            it (calls without one share the handler's own). See `for_thread`.
        on_exceeded: ``raise`` stops the run with `BudgetExceeded`; ``interrupt`` pauses the graph for a human, who
            raises the limits and resumes, or declines. Outside a graph with a checkpointer it raises as well.
        downgrade_to: A cheaper model to switch to, or a mapping of models; short for ``Budget(downgrade=...)``.
        downgrade_at: The fraction of the budget at which to switch.
        pricing: Prices that win over the bundled ones, dollars per token: ``{"my-model": (2.5e-6, 10e-6)}``.
        per_million: The same in dollars per million tokens: ``{"my-model": (2.5, 10)}``.
        tool_costs: What tools cost a call, by name: dollars, or a function of the tool's result.
        authority: Where the ceilings live that the runs share with others; none by default.
        user: The user whose ceiling holds as well, or, without an authority, whom to name in the report.
        key: The API key's name, likewise. Not the secret: it is logged.
        team: The team, likewise.
        feature: What to attribute the runs to, in the report.
        agent: The handle of one agent, such as "research-agent-42", whose ceiling holds as well: a name that you give
            it, and not the one that it shows. `Budget(agents=...)` caps agents by that.
        run_id: A name for the budget's scope; made up by default.
        ledger: Where the counters live, or its URL such as ``"sqlite:///budget.db"``: with a *run_id* the budget goes
            on where it stopped, also in another process. In memory by default, or where the authority has them.
        on_cancel: What to book for an answer that its caller gives up, say a stream whose reader closed the tab:
            ``bound``, all that was held, or ``seen``, the input and what was seen of the answer, and a margin, where
            that can be known.
        on_cut_off: What becomes of an answer that the budget's own output cap cuts off, which `BudgetMiddleware` and
            `budgeted_model` send: ``raise`` stops the run, with what came as ``partial_output``; ``keep`` takes it as
            the answer.
        run_log: Where a record of each run goes, such as `budget_guard.reporting.RunLog`: of what that run took, and
            how it ended. A run that another one starts is a part of that.
        on_soft_limit: A function of the report, plain or async, that is called once for each limit that is nearly used
            up. What it raises is logged, and disturbs no run.
        on_hard_limit: The same for each limit that has refused a call.
        on_loop_detected: The same for each loop that is noticed, and when it is stopped.
        on_downgrade: The same for each model that another one stands in for.
        **principals: The principals of further kinds that the authority has ceilings for, by kind: ``org="acme"``.

    Raises:
        BudgetExceeded: If the authority limits how many runs may be live, and so many are. `close` frees a place.
        ForeignRun: If *run_id* is another principal's.
        LedgerUnavailable: If the authority's ledger cannot be reached.
        TypeError: If *budget* is no `Budget`.
        ValueError: If the arguments contradict each other, or a cost or price makes no sense.
        InvalidDowngradeError: If a downgrade target is unknown, or dearer than what it replaces.
    """

    raise_error = True
    """A refusal must reach the caller: LangChain logs what other handlers raise, and makes the call."""
    run_inline: Any = RunsInline()
    """In async code too it runs before the call and in its context, and not beside it in a thread."""

    def __init__(
        self,
        budget: Budget,
        *,
        scope: HandlerScope = "run",
        on_exceeded: OnExceeded = "raise",
        downgrade_to: str | Mapping[str, str] | None = None,
        downgrade_at: float = 0.8,
        pricing: Mapping[str, PriceLike] | None = None,
        per_million: Mapping[str, PriceLike] | None = None,
        tool_costs: Mapping[str, ToolCost] | None = None,
        authority: BudgetAuthority | None = None,
        user: str | None = None,
        key: str | None = None,
        team: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        run_id: str | None = None,
        ledger: Ledger | str | None = None,
        on_cancel: OnCancel = "bound",
        on_cut_off: OnCutOff = "raise",
        run_log: RunStore | None = None,
        on_soft_limit: OnThreshold | None = None,
        on_hard_limit: OnThreshold | None = None,
        on_loop_detected: OnThreshold | None = None,
        on_downgrade: OnThreshold | None = None,
        **principals: str | None,
    ) -> None:
        check_budget(budget, "BudgetCallbackHandler")
        check_principals(principals, authority, BudgetCallbackHandler)
        given, budget = budget, budget.with_downgrade(downgrade_to, downgrade_at)
        check_choice("scope", scope, HandlerScope)
        check_choice("on_exceeded", on_exceeded, OnExceeded)
        check_choice("on_cancel", on_cancel, OnCancel)
        check_choice("on_cut_off", on_cut_off, OnCutOff)
        self._initial_budget = given
        quieten()
        self._settings = SessionSettings(
            authority=authority,
            user=user,
            key=key,
            team=team,
            feature=feature,
            agent=agent,
            pricing=pricing,
            per_million=per_million,
            ledger=ledger,
            on_cancel=on_cancel,
            run_log=run_log,
            on_soft_limit=on_soft_limit,
            on_hard_limit=on_hard_limit,
            on_loop_detected=on_loop_detected,
            on_downgrade=on_downgrade,
            principals=principals,
        )
        self._own_settings: dict[str, Any] = {
            "downgrade_to": downgrade_to,
            "downgrade_at": downgrade_at,
            "scope": scope,
            "on_exceeded": on_exceeded,
            "tool_costs": tool_costs,
            "on_cut_off": on_cut_off,
        }
        self._tools = ToolCosts(tool_costs)
        self._stops_cut = on_cut_off == "raise"
        self._asks_human = on_exceeded == "interrupt"
        self._calls = Calls()
        self._parent: BudgetCallbackHandler | None = None
        self._of_children: dict[UUID, None] = {}
        self._fallbacks = Fallbacks()
        self._trails = Trails()
        self._session = self.open_session(budget, run_id, shared=True)
        self.runs = None if run_log is None else RunsByTree(self._session.record_runs(run_log))
        of_thread = functools.partial(self._open_thread, budget)
        self._threads = SessionsById(of_thread) if scope == "thread" else None

    def open_session(self, budget: Budget, run_id: str | None = None, *, shared: bool = False) -> Session:
        """A session of *budget* with this handler's prices and tags.

        Args:
            budget: What it may spend.
            run_id: A name for it; made up by default.
            shared: Whether it spends from the ceilings of the authority as well: one session of each call does.
        """
        try:
            return self._settings.open(budget, run_id, shared=shared)
        except BudgetError as error:
            raise _recast(error) from error.__cause__

    def _open_thread(self, budget: Budget, run_id: str) -> Session:
        session = self.open_session(budget, run_id, shared=True)
        if self.runs is not None:
            session.subscribe(self.runs.records)
        return session

    @property
    def session(self) -> Session:  # type: ignore[override]  # never replaced
        """The core's session: decisions, events and the ledger's counters."""
        self._calls.sweep()
        return self._session

    def close(self) -> None:
        super().close()
        if self.runs is not None and self._parent is None:
            self.runs.records.end_all()

    async def aclose(self) -> None:
        await super().aclose()
        if self.runs is not None and self._parent is None:
            self.runs.records.end_all()

    def estimate(self, model: Any, messages: Any) -> CallEstimate:
        """What would be held for a call, whether it would be made, and what such runs took.

        Nothing is sent, held, or logged as a decision. Such runs are those in `run_log` whose task is the budget's.

        Args:
            model: The chat model, also with tools or arguments that are bound to it.
            messages: What it would be given, as its ``invoke`` takes it.

        Raises:
            TypeError: If it is no chat model.
        """
        return self._session.estimate(call_to_be_made(model, messages), records=self._settings.past_runs())

    async def aestimate(self, model: Any, messages: Any) -> CallEstimate:
        """As `estimate`."""
        call = call_to_be_made(model, messages)
        return await self._session.aestimate(call, records=self._settings.past_runs())

    def for_thread(self, thread_id: str) -> SessionHandle:
        """The budget of one thread, where each has its own.

        Raises:
            ValueError: If they share one.
        """
        if self._threads is None:
            raise ValueError(f'thread_id={thread_id!r} has no budget of its own: use scope="thread"')
        return ThreadHandle(self._threads.get(thread_id))

    @classmethod
    async def open(cls, budget: Budget, **settings: Any) -> Self:
        """As ``BudgetCallbackHandler(budget, ...)``, without blocking an event loop where a ledger has to be asked."""
        return await opened(cls, budget, **settings)

    def fork(self, **changes: Any) -> BudgetCallbackHandler:
        """A handler with the same settings and a fresh budget; of a child, another child.

        Args:
            **changes: Other settings, under the names that the class takes: ``fork(budget=Budget("$1"), user="u2")``.

        Raises:
            TypeError: If a name is not known.
        """
        if self._parent is not None and changes.keys() <= {"budget", "run_id"}:
            return self._parent.child(changes.get("budget", self._initial_budget), changes.get("run_id"))
        return BudgetCallbackHandler(
            **forked(self._initial_budget, self._settings, self._own_settings, changes, self.fork)
        )

    def child(self, budget: Budget, run_id: str | None = None) -> BudgetCallbackHandler:
        """A handler that spends from a part of this one's budget, to be given to runs of its own.

        ::

            with closing(handler.child(Budget("$0.20"))) as part:
                researcher.invoke(task, config={"callbacks": [part]})

        All that *budget* allows is held here while the child is open. `close` books what it spent and gives the rest
        back. As `Session.child`.

        Args:
            budget: What it may spend. Every limit that holds here must be set in it, too.
            run_id: Its own name, never used before; made up by default.

        Raises:
            BudgetExceeded: If that much is not left.
            ValueError: If the budget leaves out a limit that holds here.
        """
        check_budget(budget, "handler.child")
        try:
            return self._parent_of(self._session.child(budget, run_id))
        except BudgetError as error:
            raise _recast(error) from error.__cause__

    async def achild(self, budget: Budget, run_id: str | None = None) -> BudgetCallbackHandler:
        """As `child`."""
        check_budget(budget, "handler.child")
        try:
            return self._parent_of(await self._session.achild(budget, run_id))
        except BudgetError as error:
            raise _recast(error) from error.__cause__

    def _parent_of(self, session: Session) -> BudgetCallbackHandler:
        child = copy.copy(self)
        child._parent = self
        child._initial_budget = cast("Budget", session.budget)
        child._session = session
        child._threads = None
        child._calls, child._fallbacks = Calls(), Fallbacks()
        child._of_children = {}
        return child

    def _ancestors(self) -> Iterator[BudgetCallbackHandler]:
        above = self._parent
        while above is not None:
            yield above
            above = above._parent

    def _is_left_to_a_child(self, run_id: UUID) -> bool:
        """Whether a child of this handler holds the call: out of money that is held here already."""
        if run_id in self._of_children:
            return True
        scopes: Any = installed.get()
        return scopes is not None and any(
            isinstance(handler, BudgetCallbackHandler) and any(above is self for above in handler._ancestors())
            for handler in getattr(scopes, "handlers", (scopes,))
        )

    def _take_from_ancestors(self, run_id: UUID, told: tuple[object, ...]) -> None:
        for above in self._ancestors():
            above._of_children[run_id] = None
            while len(above._of_children) > _LEFT_TO_CHILDREN:
                del above._of_children[next(iter(above._of_children))]
            call = above._calls.find(run_id, told)
            if call is not None:
                above._calls.withdraw(call, "a child of this budget pays for it")

    def session_of(self, thread_id: str | None) -> Session:
        """The session that the calls of a thread spend from."""
        if self._threads is None or thread_id is None:
            return self._session
        return self._threads.get(thread_id)

    def _sessions(self, metadata: Mapping[str, Any]) -> tuple[Session, ...]:
        if self._threads is None and not extra_sessions.get():
            return (self._session,)
        thread_id = metadata.get("thread_id")
        return (self.session_of(None if thread_id is None else str(thread_id)), *self._extra_sessions())

    def _extra_sessions(self) -> list[Session]:
        return [session for handler, session in extra_sessions.get() if handler is self]

    # Models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        told = (messages[0], metadata)
        self._start(serialized, messages[0], run_id, parent_run_id, metadata or {}, kwargs, told, in_its_task=True)

    def on_llm_start(
        self,
        serialized: dict[str, Any] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # Text models start their calls in tasks of their own.
        told = (prompts[0], metadata)
        self._start(serialized, prompts[0], run_id, parent_run_id, metadata or {}, kwargs, told, in_its_task=False)

    def _start(
        self,
        serialized: dict[str, Any] | None,
        prompt: Sequence[BaseMessage] | str,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
        kwargs: dict[str, Any],
        told: tuple[object, ...],
        *,
        in_its_task: bool,
    ) -> None:
        if self._calls.find(run_id, told) is not None or self._is_left_to_a_child(run_id):
            return
        if self._parent is not None:
            self._take_from_ancestors(run_id, told)
        self._calls.sweep()
        if self.runs is not None:
            self.runs.begin(run_id, parent_run_id)
        params: Any = kwargs.get("invocation_params") or {}
        if self._tools.unseen:
            self._tools.saw(tool_names(params))
        called, request = read_call(serialized, prompt, metadata, params)
        above = started_by.get()
        if above:
            called = called._replace(started_by=above)
        requests = 1 if in_its_task else requests_of_texts(serialized, params, kwargs.get("batch_size"))
        asked = called
        steering = steering_of(params)
        if steering is None and self._fallbacks.expected:
            asked = self._fallbacks.asked_for(parent_run_id, called)
        call = Call(
            self._sessions(metadata),
            run_id,
            parent_run_id,
            called=called.model,
            steering=steering,
            human=self._asks_human,
            batch=cast(object, params) if (kwargs.get("batch_size") or 1) > 1 else None,
            request=request,
            requests=requests,
            told=told,
        )
        self._begin(call, asked, in_its_task, kwargs.get("options"))

    def _begin(self, call: Call, asked: ModelCall | ToolCall, in_its_task: bool, options: object = None) -> None:
        """Hold *call*, or refuse it for all handlers.

        Args:
            call: The call.
            asked: What its budgets are asked for.
            in_its_task: Whether it is over when the current task is.
            options: What LangChain keeps while it makes the call.

        Raises:
            BudgetError: In LangChain's terms, if it is refused.
            BudgetDowngrade: If a cheaper model is to make it, and it cannot be switched.
        """
        loop = _running_loop()
        task = asyncio.current_task(loop) if loop is not None and in_its_task else None
        steering = call.steering
        if steering is None or not steering.awaits or call.batch is not None:
            self._hold(call, asked, loop, task, options)
            return
        steering.hold_later(
            LaterHold(
                self,
                lambda: self._hold(call, asked, _running_loop(), task, options),
                lambda: self._ahold(call, asked, loop, task, options),
            )
        )

    def _hold(
        self,
        call: Call,
        asked: ModelCall | ToolCall,
        loop: asyncio.AbstractEventLoop | None,
        task: asyncio.Task[Any] | None,
        options: object,
    ) -> None:
        try:
            with self._of_run(call.run_id):
                _raise(call.hold(asked, may_wait=loop is None))  # a loop must not be blocked
        except BaseException as error:
            self._withdraw(call, asked, error)
            raise
        self._calls.begin(call, loop, task, options)

    async def _ahold(
        self,
        call: Call,
        asked: ModelCall | ToolCall,
        loop: asyncio.AbstractEventLoop | None,
        task: asyncio.Task[Any] | None,
        options: object,
    ) -> None:
        try:
            with self._of_run(call.run_id):
                _raise(await call.ahold(asked))
        except BaseException as error:
            self._withdraw(call, asked, error)
            raise
        self._calls.begin(call, loop, task, options)

    def _of_run(self, run_id: UUID) -> AbstractContextManager[None]:
        """A block in which what is held belongs to that run, for its record."""
        return _NO_RUN if self.runs is None else self.runs.within(run_id)

    def _withdraw(self, call: Call, asked: ModelCall | ToolCall, error: BaseException) -> None:
        """Give back what else is held for a call that is refused with *error*."""
        from budget_guard_langchain.errors import BudgetDowngrade

        withdraw(call)
        self._trails.end(call.run_id)
        if self.runs is not None:
            self.runs.end(call.run_id, error)
        if call.batch is not None:  # which is started as a whole before any of it is sent
            self._calls.release_batch(call.batch, "another call of the same batch was refused")
        if isinstance(error, BudgetDowngrade) and isinstance(asked, ModelCall):
            self._fallbacks.expect(error.target, call.parent_run_id, asked)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._calls.end(run_id)
        try:
            reply = Reply(response, run_id)
            if call is not None:
                self._settle(call, reply)
            elif self._calls.is_new(run_id) and not reply.was_cached and not self._is_left_to_a_child(run_id):
                self._charge(reply)
        except Exception:  # the answer is paid for: nothing here may keep it from the caller
            _log.exception("budget_guard %s: could not book the call of run %s", self._session.id, run_id)
            if call is not None and not all(hold.settled for hold in call.holds):
                call.estimate("its usage made no sense")
        if self.runs is not None:
            self.runs.end(run_id)

    def _settle(self, call: Call, reply: Reply) -> None:
        if not call.has_streamed and reply.was_cached:
            call.release("the answer came out of a cache")
            return
        if call.batch is not None and reply.says_no_usage_of_its_own and self._calls.is_paid(call.batch):
            call.release("it was billed with another call of its batch")
            return
        answer = reply.read(call.request, added_up=call.adds_up)
        if answer.cost == 0:  # a free variant of the model that is named in the answer
            answer = answer._replace(model=None)
        if call.batch is not None and answer.usage is not None:
            self._calls.note_paid(call.batch)
        call.commit_answer(answer)
        if call.steering is not None:
            stop = call.cut_short_by(reply, answer)
            if stop is not None and self._stops_cut:
                call.steering.cut = stop

    def _charge(self, reply: Reply) -> None:
        """Book a call whose start this handler was not told of."""
        answer = reply.read()
        call = ModelCall(answer.model or "unknown", _NO_PROMPT, service_tier=answer.tier, region=answer.region)
        for session in (self._session, *self._extra_sessions()):
            with suppress(BudgetExceeded):  # which the next call is told
                session.charge_call(call, answer.usage)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._calls.end(run_id)
        if call is not None:
            call.fail(error)
        if self.runs is not None:
            self.runs.end(run_id, error)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **kwargs: Any) -> None:
        call = self._calls.get(run_id)
        if call is not None:
            usage = getattr(getattr(chunk, "message", None), "usage_metadata", None)
            call.note_chunk(chunk, token, usage, is_text=True)
            self._go_on(call)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if event.get("event") == "content-block-delta":
            call = self._calls.get(run_id)
            if call is not None:
                delta = fields(event.get("delta"))
                written = next((delta[name] for name in _WRITTEN if name in delta), "")
                call.note_chunk(event, written, is_text="text" in delta)
                self._go_on(call)

    def _go_on(self, call: Call) -> None:
        """Stop a stream that must not go on. Whoever reads it may make other calls between its pieces."""
        call.stop_counting()
        stop = call.interruption(call.output_floor)
        if stop is not None:
            error = _recast(stop.error)
            error.partial_output = call.text or None
            raise error

    # Runs

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        register()  # what is started inside may be given callbacks of its own
        if self._session.looks_for_loops:
            self._trails.begin(run_id, parent_run_id)
        if self.runs is not None:
            self.runs.begin(run_id, parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self._calls.end_of_run(run_id)
        self._trails.end(run_id)
        if parent_run_id is None and self._tools.seen_any:
            self._tools.warn_of_unseen()
        if self.runs is not None:
            self.runs.end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._calls.end_of_run(run_id)
        self._trails.end(run_id)
        if self.runs is not None:
            self.runs.end(run_id, error)

    # Tools

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        register()
        told = (metadata, inputs, input_str)
        if self._calls.find(run_id, told) is not None or self._is_left_to_a_child(run_id):
            return
        if self._parent is not None:
            self._take_from_ancestors(run_id, told)
        self._calls.sweep()
        if self.runs is not None:
            self.runs.begin(run_id, parent_run_id)
        metadata = metadata or {}
        name = (serialized or {}).get("name") or kwargs.get("name") or "tool"
        if self._tools.unseen:
            self._tools.saw((name,))
        call = Call(self._sessions(metadata), run_id, parent_run_id, called=name, human=self._asks_human, told=told)
        agent, above = metadata.get("lc_agent_name"), started_by.get()
        asked = self._tools.call(name, agent)
        if above:
            asked = asked._replace(started_by=above)
        if self._session.looks_for_loops:
            trail = self._trails.of_tool(run_id, parent_run_id)
            asked = self._session.with_trail(asked, input_str if inputs is None else inputs, trail)
        self._begin(call, asked, in_its_task=True)
        if agent is not None and (not above or above[0] != agent):
            call.started_by = (agent, *above), above
            started_by.set(call.started_by[0])

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._calls.end_of_run(run_id)
        self._trails.end(run_id)
        call = self._calls.end(run_id)
        _leave(call)
        if call is not None:
            from langchain_core.messages import ToolMessage

            call.commit_result(self._tools, output.content if isinstance(output, ToolMessage) else output)
        if self.runs is not None:
            self.runs.end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._calls.end_of_run(run_id)
        self._trails.end(run_id)
        call = self._calls.end(run_id)
        _leave(call)
        if call is not None:
            if not isinstance(error, BudgetError):
                call.note_result(error)
            call.commit_cost()
        if self.runs is not None:
            self.runs.end(run_id, error)


for _kind in ("llm", "chat_model", "chain", "agent"):
    setattr(BudgetCallbackHandler, f"ignore_{_kind}", _OfHandler())


def _leave(tool: Call | None) -> None:
    """Note that what follows here is not started by a *tool* of an agent any more."""
    if tool is not None and tool.started_by is not None:
        inside, outside = tool.started_by
        if started_by.get() is inside:
            started_by.set(outside)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _raise(stop: Stop | None) -> None:
    if stop is not None:
        raise _recast(stop.error) from stop.error.__cause__


def _recast(error: BudgetError) -> BudgetError:
    from budget_guard_langchain.errors import recast

    return recast(error)


_NO_PROMPT = Prompt(0, 0, (), 0)
_NO_RUN: AbstractContextManager[None] = nullcontext()
_WRITTEN = ("text", "reasoning", "args")
"""Fields of a block's delta whose values the model writes."""
