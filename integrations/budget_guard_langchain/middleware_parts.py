"""The parts that `BudgetMiddleware` has only on demand: LangChain builds an agent by the methods that a class has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple, TypeAlias

from langchain.agents import AgentState
from langchain.agents.middleware.types import PrivateStateAttr, ResponseT, ToolCallRequest
from langchain_core.messages import ToolMessage
from langgraph.types import Command
from typing_extensions import NotRequired

from budget_guard import BudgetExceeded, BudgetRevoked, Session
from budget_guard.ledger.flow import Steps, arun, run
from budget_guard_langchain.ceilings import AgentCeiling, Spent
from budget_guard_langchain.guarded_tools import refused
from budget_guard_langchain.handler import BudgetCallbackHandler
from budget_guard_langchain.scope import extra_sessions, installing

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

    @contextmanager
    def _active(self, ceilings: Sequence[Session]) -> Generator[None]:
        """Install the handler in the block, and have it hold each call in *ceilings* as well."""
        token = extra_sessions.set((*extra_sessions.get(), *((self.handler, session) for session in ceilings)))
        try:
            with installing(self.handler):
                yield
        finally:
            extra_sessions.reset(token)


class BudgetState(AgentState[ResponseT]):
    """State schema of `BudgetMiddleware`.

    Both are tracked, so that they survive a pause and a restart. They are a copy: the sessions count, and a copy is
    lost where a node fails after its model was paid.
    """

    budget_run: NotRequired[Annotated[Spent, PrivateStateAttr]]
    budget_thread: NotRequired[Annotated[Spent, PrivateStateAttr]]


class KeepsSpent(HasCeilings):
    """Keeps what runs and threads spent in the agent's state: a node, and a checkpoint, for each call of the agent."""

    state_schema: Any = BudgetState

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return {key: value for ceiling in self._ceilings for key, value in ceiling.begin(state).items()} or None

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return self.before_agent(state, runtime)


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
        with self._active([ceiling.session(request.state, thread_id) for ceiling in self._ceilings]):
            try:
                result: _Result = yield "call", (request,)
                return result
            except (BudgetExceeded, BudgetRevoked) as stop:
                return refused(stop, request.tool_call)
