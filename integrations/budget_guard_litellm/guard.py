"""`BudgetGuard`: calls of LiteLLM's SDK under a budget, each attempt held before it is sent.

LiteLLM's own callbacks cannot do this: where a call blocks, none of them can refuse it, and none is told of a stream's
end. So the calls are made here, and LiteLLM is asked for one attempt at a time.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import litellm
import openai
from litellm.exceptions import ContextWindowExceededError
from litellm.router import Router  # pyright: ignore[reportMissingTypeStubs]  # it has few types
from litellm.types.utils import TextCompletionResponse  # pyright: ignore[reportMissingTypeStubs]  # it has few types

from budget_guard import Budget, BudgetError, Session, current_session
from budget_guard.adapter import AddField, Attempts, SessionHandle, ToolCost, session_of
from budget_guard.adapter.attempts import ADD_FIELDS
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.wire.values import fields
from budget_guard_litellm.router import guarded_router
from budget_guard_litellm.sdk_attempt import SdkAttempt

_OWNER = 'BudgetGuard(Budget("$5.00"))'
_LONGEST_WAIT_S = 10.0
"""Seconds between two attempts, at most: LiteLLM's own limit."""
_OF_ATTEMPTS = ("num_retries", "max_retries", "fallbacks", "context_window_fallback_dict", "retry_policy")
"""What would have LiteLLM make further attempts by itself."""


class BudgetGuard(SessionHandle):
    """Calls of LiteLLM's SDK that spend from one budget.

    ::

        guard = BudgetGuard(Budget("$1.00"))
        answer = guard.completion(model="gpt-4o", messages=[...], num_retries=2, fallbacks=["gpt-4o-mini"])
        router = guard.router(model_list=[...])

    Retries and fallbacks are each held by themselves. A stop is not retried; where it comes before a fallback, that is
    tried: the list is a ladder of models, of which the first that fits answers.

    Args:
        guard: The budget, or the session to spend from.
        agent: Whom to attribute the calls to.
        models: The models behind names of one's own: ``{"azure/prod-chat": "gpt-4o"}``.
        add_fields: What may be added to a request.
        tool_costs: What one use of a tool costs that the provider runs.
        clock: How it is waited between two attempts.

    Raises:
        TypeError: If *guard* is no budget and no session.
        ValueError: If *add_fields* or *tool_costs* makes no sense.
    """

    def __init__(
        self,
        guard: Budget | Session,
        *,
        agent: str | None = None,
        models: Mapping[str, str] | None = None,
        add_fields: Sequence[AddField] = ADD_FIELDS,
        tool_costs: Mapping[str, ToolCost] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.session = session_of(guard, _OWNER)
        self._attempts = Attempts(
            [self.session], models=models, agent=agent, add_fields=add_fields, tool_costs=tool_costs
        )
        self._clock = clock

    if TYPE_CHECKING:
        completion = staticmethod(litellm.completion)
        acompletion = staticmethod(litellm.acompletion)
        embedding = staticmethod(litellm.embedding)
        aembedding = staticmethod(litellm.aembedding)

        def text_completion(self, *args: Any, **kwargs: Any) -> TextCompletionResponse: ...
        async def atext_completion(self, *args: Any, **kwargs: Any) -> TextCompletionResponse: ...
    else:

        def completion(self, *args: Any, **kwargs: Any) -> Any:
            """As `litellm.completion`."""
            return self._call("completion", args, kwargs)

        async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
            """As `litellm.acompletion`."""
            return await self._acall("acompletion", args, kwargs)

        def embedding(self, *args: Any, **kwargs: Any) -> Any:
            """As `litellm.embedding`."""
            return self._call("embedding", args, kwargs)

        async def aembedding(self, *args: Any, **kwargs: Any) -> Any:
            """As `litellm.aembedding`."""
            return await self._acall("aembedding", args, kwargs)

        def text_completion(self, *args: Any, **kwargs: Any) -> Any:
            """As `litellm.text_completion`, but for streams."""
            return self._call("text_completion", args, kwargs)

        async def atext_completion(self, *args: Any, **kwargs: Any) -> Any:
            """As `litellm.atext_completion`, but for streams."""
            return await self._acall("atext_completion", args, kwargs)

    def router(self, *args: Any, **kwargs: Any) -> Router:
        """A router that spends from this budget: as `litellm.Router`, with each attempt held by itself."""
        return guarded_router(self._attempts, *args, **kwargs)

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plan = AttemptPlan(name, args, kwargs)
        for arguments in plan:
            try:
                held = SdkAttempt(self._attempts, name, arguments)
                held.hold()
                try:
                    with held.attempt.counting():
                        answer: Any = plan.function(**arguments)
                except BaseException as error:
                    held.fail(error)
                    raise
            except Exception as error:
                wait_s = plan.failed(error)
            else:
                return held.answered(answer)
            if wait_s:
                waiting = threading.Condition()
                with waiting:
                    self._clock.wait(waiting, _never, wait_s)
        raise plan.error

    async def _acall(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plan = AttemptPlan(name, args, kwargs)
        for arguments in plan:
            try:
                held = SdkAttempt(self._attempts, name, arguments)
                await held.ahold()
                try:
                    with held.attempt.counting():
                        answer: Any = await plan.function(**arguments)
                except BaseException as error:
                    await held.afail(error)
                    raise
            except Exception as error:
                wait_s = plan.failed(error)
            else:
                return await held.aanswered(answer)
            if wait_s:
                await self._clock.wait_async(asyncio.get_running_loop().create_future(), wait_s)
        raise plan.error


class AttemptPlan:
    """The attempts of one call: what to call LiteLLM with next, as long as there is something to try.

    Args:
        name: The function of LiteLLM.
        args: Its arguments by position.
        kwargs: Those by name.

    Raises:
        TypeError: If it takes no such arguments.
        ValueError: If what is asked for cannot be held.
    """

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.function: Any = getattr(litellm, name)
        given = _by_name(name, args, kwargs)
        if name.endswith("text_completion") and given.get("stream"):
            raise ValueError(f"stream=True: streams of {name} are not held to a budget: use completion")
        of_attempts = {each: given.pop(each, None) for each in _OF_ATTEMPTS}
        if of_attempts["retry_policy"] is not None:
            raise ValueError("retry_policy= is not known here: use num_retries=")
        self._retries = int(of_attempts["num_retries"] or of_attempts["max_retries"] or litellm.num_retries or 0)
        self._longer: Mapping[str, Any] = fields(of_attempts["context_window_fallback_dict"])
        self._rungs = [_rung(given, each) for each in [None, *(of_attempts["fallbacks"] or ())]]
        self._left = self._retries
        self.error: BaseException = RuntimeError("no attempt was made")
        """What the first attempt of the last rung failed with; a provider's error before a stop of ours."""

    def __iter__(self) -> Iterator[MutableMapping[str, Any]]:
        while self._rungs:
            yield dict(self._rungs[0])

    def failed(self, error: Exception) -> float:
        """Note that an attempt failed. Returns how many seconds to wait before the next one."""
        self.error = error
        if isinstance(error, BudgetError) or not _may_pass(error):
            self._next(error)
            return 0.0
        if not self._left:
            self._next(error)
            return 0.0
        self._left -= 1
        if not isinstance(error, openai.RateLimitError):
            return 0.0
        return min(_LONGEST_WAIT_S, 2.0 ** (self._retries - self._left - 1))

    def _next(self, error: Exception) -> None:
        """Go on with the next model, if there is one."""
        rung = self._rungs.pop(0)
        self._left = self._retries
        longer = self._longer.get(str(rung.get("model")))
        if isinstance(error, ContextWindowExceededError) and longer is not None:
            self._rungs.insert(0, _rung(rung, longer))


def _never() -> bool:
    return False


def _may_pass(error: Exception) -> bool:
    """Whether the same call may be answered if it is sent again."""
    if isinstance(error, openai.APIConnectionError):  # a timeout is one as well
        return True
    status = getattr(error, "status_code", None)
    return (
        isinstance(error, openai.APIError) and isinstance(status, int) and (status in (408, 409, 429) or status >= 500)
    )


def _rung(given: Mapping[str, Any], fallback: Any) -> dict[str, Any]:
    """What LiteLLM is called with on one model, as one attempt alone.

    Args:
        given: What the caller gave.
        fallback: The model in place of the caller's, or arguments in place of the caller's; None for the caller's own.
    """
    if fallback is None:
        changed: Mapping[str, Any] = {}
    else:
        changed = {"model": fallback} if isinstance(fallback, str) else cast("Mapping[str, Any]", fallback)
    arguments = {**given, **changed}
    aliases: Mapping[str, str] = litellm.model_alias_map
    arguments["model"] = aliases.get(arguments.get("model", ""), arguments.get("model"))
    # By its group LiteLLM knows a call of a router, whose retries are not its own.
    arguments["metadata"] = {"model_group": arguments["model"], **fields(arguments.get("metadata"))}
    arguments["num_retries"] = 0
    return arguments


def _by_name(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments by name, those that **kwargs take among them."""
    if not args:
        return dict(kwargs)
    signature, rest = _signature(name)
    bound = dict(signature.bind_partial(*args, **kwargs).arguments)
    more: dict[str, Any] = bound.pop(rest, {}) if rest is not None else {}
    return {**bound, **more}


@cache
def _signature(name: str) -> tuple[inspect.Signature, str | None]:
    signature = inspect.signature(getattr(litellm, name))
    rest = [each.name for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD]
    return signature, rest[0] if rest else None


if TYPE_CHECKING:
    completion = litellm.completion  # in the current session, or in the one that is given as guard=
    acompletion = litellm.acompletion
    del current_session
else:

    def completion(*args: Any, guard: Budget | Session | None = None, **kwargs: Any) -> Any:
        """As `litellm.completion`, in the current session, or in the one that *guard* is."""
        held = BudgetGuard(current_session() if guard is None else guard)
        return held.completion(*args, **kwargs)

    async def acompletion(*args: Any, guard: Budget | Session | None = None, **kwargs: Any) -> Any:
        """As `litellm.acompletion`, in the current session, or in the one that *guard* is."""
        held = BudgetGuard(current_session() if guard is None else guard)
        return await held.acompletion(*args, **kwargs)
