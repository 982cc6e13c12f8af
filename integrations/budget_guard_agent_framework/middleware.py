"""`BudgetMiddleware`: Microsoft Agent Framework under a budget, and `BudgetToolMiddleware` for what tools swallow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent_framework import (
    ChatContext,
    ChatMiddleware,
    ChatResponse,
    ChatResponseUpdate,
    FunctionInvocationContext,
    FunctionMiddleware,
    ResponseStream,
)

from budget_guard import Budget, Session
from budget_guard.adapter import Answered, GuardedCall, ModelGuard, SessionHandle
from budget_guard_agent_framework.errors import stops
from budget_guard_agent_framework.request import answered, model_call, options_of

Next = Callable[[], Awaitable[None]]


class BudgetMiddleware(ChatMiddleware, SessionHandle):
    """Holds every chat request of an agent in a budget before it is sent, streamed or not.

    ::

        agent = Agent(client, tools=[search], middleware=[BudgetMiddleware(Budget("$1.00"))])

    It may be given to an agent, to a run, or to a chat client. Put it last, so that it sees what other middleware makes
    of a request.

    Args:
        guard: The budget, or the session to spend from.
        agent: Whom to attribute the calls to.

    Raises:
        TypeError: If *guard* is no budget and no session.
    """

    def __init__(self, guard: Budget | Session, *, agent: str | None = None) -> None:
        self._guard = ModelGuard(guard, stops, owner='BudgetMiddleware(Budget("$5.00"))', agent=agent)
        self.session = self._guard.session

    async def process(self, context: ChatContext, call_next: Next) -> None:
        """Send a request, once its worst case is held."""
        guard = self._guard
        call = model_call(context, agent=guard.agent)
        held = await guard.ahold(call)
        options = options_of(context)
        if held.name is not None and held.name != call.model:
            options["model"] = held.name
        if held.output_cap is not None and held.output_cap != call.max_output_tokens:
            options["max_tokens"] = held.output_cap
        context.options = options
        async with guard.amaking(held):
            await call_next()
        answer: Any = context.result
        if isinstance(answer, ResponseStream):
            context.result = self._stream(held, answer)
        elif isinstance(answer, ChatResponse):
            await guard.asettle(held, answered(answer))
        else:
            await held.aestimate("there was no answer")

    def _stream(
        self, held: GuardedCall, inner: ResponseStream[ChatResponseUpdate, ChatResponse[Any]]
    ) -> ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        """*inner*, settled when it ends, however that is."""
        written = 0

        def read(update: ChatResponseUpdate) -> int:
            nonlocal written
            written += len((update.text or "").encode("utf-8", "surrogatepass"))
            return written

        async def said() -> Answered:
            return answered(await inner.get_final_response())

        async def whole(_: Sequence[ChatResponseUpdate]) -> ChatResponse[Any]:
            return await inner.get_final_response()

        return ResponseStream(self._guard.astream(held, inner, read, said), finalizer=whole)


class BudgetToolMiddleware(FunctionMiddleware):
    """Ends the run of an agent in whose tool another agent's budget has stopped, where the tool swallows that.

    It counts nothing: it stands beside `BudgetMiddleware`, in the same session.

    Args:
        session: The session of the agent.

    Raises:
        TypeError: If it is no session.
    """

    def __init__(self, session: Session) -> None:
        if not isinstance(session, Session):
            raise TypeError(f"session={session!r} is no Session: give the one that BudgetMiddleware has")
        self._guard = ModelGuard(session, stops, owner="BudgetToolMiddleware(session)")

    async def process(self, context: FunctionInvocationContext, call_next: Next) -> None:
        """Run a tool, and raise what has stopped in it."""
        with self._guard.around():
            await call_next()
        stop = self._guard.latch.get()
        if stop is not None:
            raise self._guard.stopped(stop)
