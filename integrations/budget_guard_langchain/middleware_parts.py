"""The parts that `BudgetMiddleware` has only on demand: LangChain builds an agent by the methods that a class has."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any, NamedTuple, TypeAlias
from uuid import UUID

from langchain.agents import AgentState
from langchain.agents.middleware.types import PrivateStateAttr, ResponseT, ToolCallRequest
from langchain_core.messages import ToolMessage
from langgraph.config import get_config
from langgraph.types import Command
from typing_extensions import NotRequired

from budget_guard import BudgetExceeded, BudgetRevoked, Session
from budget_guard.ledger.flow import Steps, arun, run
from budget_guard.session.run_records import RunTally, within
from budget_guard.session.told import is_given_up
from budget_guard_langchain.ceilings import AgentCeiling, Spent
from budget_guard_langchain.guarded_tools import refused
from budget_guard_langchain.handler import BudgetCallbackHandler
from budget_guard_langchain.runs import RunsByTree, is_pause
from budget_guard_langchain.scope import extra_sessions, installing

_MOST_TALLIES = 10_000
_Result: TypeAlias = "ToolMessage | Command[Any]"


class Caller(NamedTuple):
    """Makes the calls that a flow of the middleware yields."""

    call: Callable[[Any], Any]


def thread_of(runtime: Any) -> str | None:
    """The id of the thread that an agent runs in; None where it has none."""
    thread_id = getattr(getattr(runtime, "execution_info", None), "thread_id", None)
    return None if thread_id is None else str(thread_id)


class HasCeilings:
    """What the parts of `BudgetMiddleware` know of it: the handler that counts, and the agent's own ceilings."""

    handler: BudgetCallbackHandler
    _ceilings: Sequence[AgentCeiling]
    _tallies: dict[str, RunTally]
    """The calls of the agent that are under way, where a record is kept of each, by the id that their state has."""

    @contextmanager
    def _active(self, ceilings: Sequence[Session], state: Mapping[str, Any]) -> Generator[None]:
        """Install the handler in the block, and have it hold each call in *ceilings* as well."""
        token = extra_sessions.set((*extra_sessions.get(), *((self.handler, session) for session in ceilings)))
        try:
            with installing(self.handler), self._recorded(state):
                yield
        finally:
            extra_sessions.reset(token)

    def _recorded(self, state: Mapping[str, Any]) -> AbstractContextManager[None]:
        """A block in which calls belong to the record of the run with that state, where one is kept."""
        return nullcontext()


class BudgetState(AgentState[ResponseT]):
    """State schema of `BudgetMiddleware`.

    They are tracked, so that they survive a pause and a restart. They are a copy: the sessions count, and a copy is
    lost where a node fails after its model was paid.
    """

    budget_run: NotRequired[Annotated[Spent, PrivateStateAttr]]
    budget_thread: NotRequired[Annotated[Spent, PrivateStateAttr]]
    budget_record: NotRequired[Annotated[str, PrivateStateAttr]]


class KeepsSpent(HasCeilings):
    """Keeps what runs and threads spent in the agent's state: a node, and a checkpoint, for each call of the agent."""

    state_schema: Any = BudgetState

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return {key: value for ceiling in self._ceilings for key, value in ceiling.begin(state).items()} or None

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return self.before_agent(state, runtime)


class RecordsRuns(HasCeilings):
    """Keeps a record of each call of the agent, by its state: a node where it begins, and one where it ends."""

    state_schema: Any = BudgetState

    @property
    def _runs(self) -> RunsByTree:
        runs = self.handler.runs
        assert runs is not None  # only middleware with a log has this part, and its handler has the log as well
        return runs

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        of_ceilings: Any = super()
        update: dict[str, Any] = of_ceilings.before_agent(state, runtime) or {}
        runs = self._runs
        if not runs.knows(_run_around()):  # else the handler is told of the whole run
            runs.records.end_failed()
            update["budget_record"] = uuid.uuid4().hex
            self._tally_of(update)
        return update or None

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return self.before_agent(state, runtime)

    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        tally = self._tally_of(state)
        if tally is not None:
            self._tallies.pop(state["budget_record"], None)
            self._runs.records.end(tally)
        return None

    async def aafter_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return self.after_agent(state, runtime)

    @contextmanager
    def _recorded(self, state: Mapping[str, Any]) -> Generator[None]:
        tally, records = self._tally_of(state), self._runs.records
        if tally is None:
            yield
            return
        with within(records, tally):
            try:
                yield
            except BaseException as error:  # it may be tried again: only if nothing more is heard was it the end
                if isinstance(error, (BudgetExceeded, BudgetRevoked)) or is_given_up(error):
                    records.end(tally, error)
                elif not is_pause(error):
                    tally.error = error
                raise

    def _tally_of(self, state: Mapping[str, Any]) -> RunTally | None:
        id = state.get("budget_record")
        if id is None:
            return None
        tally = self._tallies.get(id)
        if tally is None or tally.over:  # it has begun in another process, or went on after a pause
            tally = self._tallies[id] = self._runs.records.begin()
        if len(self._tallies) > _MOST_TALLIES:
            del self._tallies[next(iter(self._tallies))]
        return tally


def _run_around() -> UUID | None:
    """The run that the node is a part of, as callbacks are told of it; None where that is not known."""
    try:
        callbacks = get_config().get("callbacks")
    except RuntimeError:  # async code on Python 3.10
        return None
    return getattr(callbacks, "parent_run_id", None)


class GuardsTools(HasCeilings):
    """Holds what tools spend: a node for tools in any agent, which takes those that it was not made with."""

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], _Result]) -> _Result:
        return run(self._tool_call(request), Caller(handler))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[_Result]]
    ) -> _Result:
        return await arun(self._tool_call(request), Caller(handler))

    def _tool_call(self, request: ToolCallRequest) -> Steps[_Result]:
        thread_id = thread_of(getattr(request, "runtime", None))
        with self._active([each.session(request.state, thread_id) for each in self._ceilings], request.state):
            try:
                result: _Result = yield "call", (request,)
                return result
            except (BudgetExceeded, BudgetRevoked) as stop:
                return refused(stop, request.tool_call)
