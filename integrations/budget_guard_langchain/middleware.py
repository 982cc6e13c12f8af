"""The middleware that steers an agent within its budget. It never counts: the handler that it installs does."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

try:
    from langchain.agents.middleware import AgentMiddleware
except ImportError as error:
    raise ImportError("BudgetMiddleware needs LangChain's agents: pip install 'langchain>=1.4'") from error
from langchain.agents.middleware.types import (
    AgentState,
    ContextT,
    ExtendedModelResponse,
    ModelCallResult,
    ModelRequest,
    ModelResponse,
    ResponseT,
)
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langgraph.types import Command
from typing_extensions import Self

from budget_guard import Budget, BudgetExceeded, BudgetRevoked, DowngradePolicy, Session
from budget_guard.adapter.attempts import ADD_FIELDS, AddField, check_add_fields
from budget_guard.adapter.handle import OnCutOff, SessionHandle, check_choice
from budget_guard.ledger.flow import Steps, arun, run
from budget_guard.policy.misspelt import refuses_unknown_keywords
from budget_guard.session.told import OnThreshold, Told
from budget_guard.units.money import UsdLike, parse_usd
from budget_guard_langchain.approval import ask_human
from budget_guard_langchain.ceilings import AgentCeiling, CeilingKind
from budget_guard_langchain.errors import BudgetDowngrade
from budget_guard_langchain.final_answer import farewell, wrapped_up
from budget_guard_langchain.guarded_tools import guard_tools, note_calls
from budget_guard_langchain.handler import BudgetCallbackHandler
from budget_guard_langchain.middleware_parts import (
    Caller,
    GuardsTools,
    HasCeilings,
    KeepsSpent,
    RecordsRuns,
    thread_of,
)
from budget_guard_langchain.steered_model import How, name_of, steered

if TYPE_CHECKING:
    from budget_guard.reporting.records import RunStore

ExitBehavior: TypeAlias = Literal["end", "error", "interrupt"]
"""What to do with an agent whose budget is used up."""


class BudgetMiddleware(HasCeilings, SessionHandle, AgentMiddleware[AgentState[ResponseT], ContextT, ResponseT]):
    """Keeps an agent within a budget, and lets it end well.

    ::

        agent = create_agent(model, tools, middleware=[BudgetMiddleware(Budget("$1.00"), downgrade_to=cheaper)])

    Every call is held before it is made, and sent with the output cap that the budget chooses. It can be combined
    with the handler among the callbacks: each call counts once. One middleware is one budget, for all runs of the
    agent together; `run_limit` and `thread_limit` limit each of them.

    What the agent's tools spend counts as well, the models and agents that they call included. A tool whose call does
    not fit answers with an error message. Tools that the agent was not made with need *guard_tools*.

    Args:
        budget: What the agent may spend, or the handler that holds it.
        downgrade_to: A cheaper model to switch to: a chat model, or a name as `init_chat_model` takes it. By default,
            the one that the budget's own policy names.
        downgrade_at: The fraction of a limit at which to switch: above 0, at most 1.
        exit_behavior: What to do once a call does not fit any more. ``end`` ends the run with a message that says so;
            ``error`` raises `BudgetExceeded`; ``interrupt`` pauses the run for a human, who raises limits with
            ``Command(resume={"max_cost_usd": "2.00"})``, or declines with ``Command(resume=False)``, which ends it, as
            it does where nothing can pause: without a checkpointer, and in async code on Python 3.10.
        wrap_up_at: The fraction of a limit at which to ask for a final answer without tools; None never does. A call
            that does not fit is then tried as a final answer, too, out of ``Budget.finalization_reserve`` if there is
            one.
        guard_tools: Whether to be around all tools, also those that the agent was not made with, and those that a
            new process goes on with after a pause. An agent with it has a node for tools in any case, and leaves it
            to its middleware to know all tools.
        thread_limit: What each thread may spend: dollars, or a budget. Kept in the agent's state, so that it
            survives a restart.
        run_limit: What each call of the agent may spend, its pauses and restarts included.
        add_fields: What may be added to the requests: ``output_cap``, the cap that the budget chooses, and ``usage``,
            the asking for usage in streams. Leave out what an endpoint refuses.
        on_cut_off: What becomes of an answer that the budget's own output cap cuts off: ``raise`` makes it a stop, to
            which *exit_behavior* applies, with what came as ``partial_output``; ``keep`` takes it as the answer.
        run_log: Where a record of each call of the agent goes, such as `budget_guard.reporting.RunLog`. An agent with
            it has two nodes more. As the other four, it is the handler's where *budget* is one.
        on_soft_limit: A function of the report, plain or async, that is called once for each limit that is nearly used
            up. What it raises is logged, and disturbs no run.
        on_hard_limit: The same for each limit that has refused a call.
        on_loop_detected: The same for each loop that is noticed, and when it is stopped.
        on_downgrade: The same for each model that another one stands in for.

    Raises:
        TypeError: If *budget* is neither a budget nor a handler.
        ValueError: If the arguments contradict each other, or a value makes no sense.
    """

    def __new__(
        cls,
        *args: Any,
        guard_tools: bool = False,
        thread_limit: Any = None,
        run_limit: Any = None,
        run_log: Any = None,
        **kwargs: Any,
    ) -> Self:
        # LangChain reads off the class, and not off the instance, which methods a middleware has, and an agent pays
        # for each: a node for tools even without any and no check of unknown ones, a node before each run. So who asks
        # for neither gets a class without them, and there is no way to say it later than here.
        parts: tuple[Any, ...] = (GuardsTools,) if guard_tools else ()
        if run_log is not None:
            parts = (*parts, RecordsRuns)
        if thread_limit is not None or run_limit is not None:
            parts = (*parts, KeepsSpent)
        asked: Any = cls
        made: type[Self] = _with(asked, parts) if parts else cls
        return super().__new__(made)

    @refuses_unknown_keywords("BudgetMiddleware")
    def __init__(
        self,
        budget: Budget | BudgetCallbackHandler,
        *,
        downgrade_to: str | BaseChatModel | None = None,
        downgrade_at: float = 0.8,
        exit_behavior: ExitBehavior = "end",
        wrap_up_at: float | None = None,
        guard_tools: bool = False,
        thread_limit: UsdLike | Budget | None = None,
        run_limit: UsdLike | Budget | None = None,
        add_fields: Sequence[AddField] = ADD_FIELDS,
        on_cut_off: OnCutOff = "raise",
        run_log: RunStore | None = None,
        on_soft_limit: OnThreshold | None = None,
        on_hard_limit: OnThreshold | None = None,
        on_loop_detected: OnThreshold | None = None,
        on_downgrade: OnThreshold | None = None,
    ) -> None:
        super().__init__()
        told = Told(run_log, on_soft_limit, on_hard_limit, on_loop_detected, on_downgrade)._asdict()
        handler = BudgetCallbackHandler(budget, **told) if isinstance(budget, Budget) else budget
        given = [name for name, value in told.items() if value is not None]
        if given and handler is budget:
            raise ValueError(
                f"{given[0]}= is set, and a handler is given too: write BudgetCallbackHandler(..., {given[0]}=...)"
            )
        if not isinstance(handler, BudgetCallbackHandler):
            raise TypeError(
                f'budget={budget!r} is neither a budget nor a handler: write BudgetMiddleware(Budget("$5.00"))'
            )
        if downgrade_to is not None and handler.budget.downgrade is not None:
            raise ValueError(f"downgrade_to={downgrade_to!r} is set, and Budget.downgrade too: set one of them")
        check_choice("exit_behavior", exit_behavior, ExitBehavior)
        check_choice("on_cut_off", on_cut_off, OnCutOff)
        if wrap_up_at is not None and not 0 < wrap_up_at <= 1:
            raise ValueError(f"wrap_up_at={wrap_up_at!r} must be a fraction above 0 and at most 1, for example 0.9")
        self.handler = handler
        """The handler that counts."""
        self._tallies = {}
        self._models: dict[str, BaseChatModel] = {}
        self._policy = handler.budget.downgrade
        if downgrade_to is not None:
            model = init_chat_model(downgrade_to) if isinstance(downgrade_to, str) else downgrade_to
            self._policy = DowngradePolicy(to=name_of(model), at=downgrade_at)
            self._models[name_of(model)] = model
        self._exit_behavior: ExitBehavior = exit_behavior
        self._wrap_up_at = wrap_up_at
        self._keeps_cut = on_cut_off == "keep"
        self._add_fields = check_add_fields(add_fields)
        limits: list[tuple[CeilingKind, UsdLike | Budget | None]] = [("run", run_limit), ("thread", thread_limit)]
        self._ceilings = [
            AgentCeiling(kind, _as_budget(f"{kind}_limit", limit), handler.open_session)
            for kind, limit in limits
            if limit is not None
        ]

    @property
    def session(self) -> Session:  # type: ignore[override]  # the handler's
        """The core's session of the handler."""
        return self.handler.session

    def wrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], ModelResponse[ResponseT]],
    ) -> ModelCallResult[ResponseT]:
        return run(self._call(request), Caller(handler))

    async def awrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Awaitable[ModelResponse[ResponseT]]],
    ) -> ModelCallResult[ResponseT]:
        return await arun(self._call(request), Caller(handler))

    def _call(self, request: ModelRequest[Any]) -> Steps[ModelCallResult[Any]]:
        thread_id = thread_of(request.runtime)
        ceilings = [ceiling.session(request.state, thread_id) for ceiling in self._ceilings]
        own = self.handler.session_of(thread_id)
        tools = () if isinstance(self, GuardsTools) else request.tools
        guard_tools(tools)
        with self._active(ceilings, request.state):
            while True:
                try:
                    response = yield from self._within((own, *ceilings), request)
                    if tools:
                        note_calls(
                            tools, response.result, thread_id, functools.partial(self._active, ceilings, request.state)
                        )
                    return self._noted(request, response, {})
                except (BudgetExceeded, BudgetRevoked) as error:
                    stop = error
                if self._exit_behavior == "error":
                    raise stop
                if self._exit_behavior == "end" or not self._asked((own, *ceilings), stop):
                    return self._noted(request, ModelResponse(farewell(stop)), {"jump_to": "end"})

    def _within(self, sessions: Sequence[Session], request: ModelRequest[Any]) -> Steps[ModelResponse[Any]]:
        """Make the call on the model and in the form that the budget leaves room for."""
        target: str | None = None
        final = False
        if self._policy is not None or self._wrap_up_at is not None:
            spent = max(session.spent_fraction for session in sessions)
            final = self._wrap_up_at is not None and spent >= self._wrap_up_at
            switches_itself = not isinstance(request.model, BaseChatModel)  # one with fallbacks
            if self._policy is not None and spent >= self._policy.at and not switches_itself:
                target = next(iter(self._policy.ladder(name_of(request.model))), None)
        tried = {target}
        while True:
            try:
                response: ModelResponse[Any] = yield "call", (self._steered(request, target, final),)
                return response
            except BudgetDowngrade as signal:  # the handler knows better: it decides with the hold
                target = signal.target
                if target in tried:
                    raise
                tried.add(target)
            except BudgetExceeded:
                if final or self._wrap_up_at is None:
                    raise
                final = True

    def _steered(self, request: ModelRequest[Any], target: str | None, final: bool) -> ModelRequest[Any]:
        asked = request.model
        how = How(downgrade=self._policy, add_fields=self._add_fields, final=final, keeps_cut=self._keeps_cut)
        if target is not None:
            model = self._model(target)
            how = replace(how, stands_for=(name_of(asked), type(model) is type(asked)))
            request = request.override(model=model)
        if final:
            request = wrapped_up(request)
        return request.override(model=steered(request.model, how))

    def _model(self, name: str) -> BaseChatModel:
        if name not in self._models:
            self._models[name] = init_chat_model(name)
        return self._models[name]

    def _asked(self, sessions: Sequence[Session], stop: BudgetExceeded | BudgetRevoked) -> bool:
        """Whether a human has raised the limit that stands in the way."""
        if isinstance(stop, BudgetRevoked):
            return False
        refused = [session for session in sessions if stop.scope == f"run:{session.id}"]
        return bool(refused) and ask_human(refused[0], stop)  # another's limits are not ours to raise

    def _noted(
        self, request: ModelRequest[Any], response: ModelResponse[Any], update: dict[str, Any]
    ) -> ModelCallResult[Any]:
        for ceiling in self._ceilings:
            update |= ceiling.snapshot(request.state, thread_of(request.runtime))
        command: Command[Any] = Command(update=update)
        return ExtendedModelResponse(response, command) if update else response


@functools.cache
def _with(cls: Any, parts: tuple[Any, ...]) -> Any:
    """The class of those that have *parts* besides what *cls* has: made once, whatever the number of its instances."""
    return type(cls.__name__, (*parts, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def _as_budget(field: str, limit: UsdLike | Budget) -> Budget:
    return limit if isinstance(limit, Budget) else Budget(parse_usd(limit, field))
