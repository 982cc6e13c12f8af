"""`guard_crew`: a CrewAI crew under a budget. `guard_llm`: one LLM, for agents and flows without a crew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, TypeVar, cast

from crewai import Crew
from crewai.llms.base_llm import BaseLLM
from crewai.utilities.llm_utils import create_llm
from pydantic import PrivateAttr

from budget_guard import Budget, Session
from budget_guard.adapter import Answered, GuardedCall, ModelGuard, check_instance, named_like, with_prefix_of
from budget_guard.adapter import session_of as session_of_guard
from budget_guard_crewai.errors import stops
from budget_guard_crewai.request import CAPS, model_call, usage_of

C = TypeVar("C", bound=Crew)
L = TypeVar("L", bound=BaseLLM)

_LLMS_OF_CREW = ("manager_llm", "function_calling_llm", "planning_llm", "chat_llm")
_LLMS_OF_AGENT = ("llm", "function_calling_llm")
_CLIENTS = {"_client": "_get_sync_client", "_async_client": "_get_async_client"}
_OWNER = 'guard_crew(crew, Budget("$5.00"))'


def guard_crew(crew: C, guard: Budget | Session) -> C:
    """Hold every call of a crew's LLMs in a budget before it is sent: its agents', its manager's and its planner's.

    ::

        crew = guard_crew(Crew(agents=[...], tasks=[...]), Budget("$1.00"))
        crew.kickoff()

    The LLMs themselves are not changed: the crew's agents are given guarded copies.

    Args:
        crew: The crew.
        guard: The budget, or the session to spend from. The session of a budget is `session_of(crew)`.

    Returns:
        The same crew.

    Raises:
        TypeError: If *crew* is no crew, or *guard* is no budget and no session, or an LLM cannot be guarded.
        ValueError: If the SDK of a client is too old.
    """
    check_instance("crew", crew, Crew, "Crew", _OWNER)
    session = session_of_guard(guard, _OWNER)
    agents = [*crew.agents, *([] if crew.manager_agent is None else [crew.manager_agent])]
    given = [(crew, name) for name in _LLMS_OF_CREW] + [(agent, name) for agent in agents for name in _LLMS_OF_AGENT]
    guarded: dict[int, BaseLLM] = {}
    for holder, name in given:
        llm: Any = getattr(holder, name, None)
        if llm is None:
            continue
        made = llm if isinstance(llm, BaseLLM) else create_llm(llm)
        if made is None:
            raise TypeError(f"{name}={llm!r} of {type(holder).__name__} is no LLM that can be guarded")
        if id(llm) not in guarded:
            guarded[id(llm)] = guard_llm(made, session)
        setattr(holder, name, guarded[id(llm)])
    if not hasattr(crew, "_budget_guard"):
        object.__setattr__(crew, "__class__", _guarded_crew(type(crew)))
    _private(crew)["_budget_guard"] = ModelGuard(session, stops, owner=_OWNER)
    return crew


def guard_llm(llm: L, guard: Budget | Session) -> L:
    """A copy of *llm*, of the same type, whose every call is held in a budget before it is sent.

    Args:
        llm: The LLM: ``LLM(model="gpt-4o")``.
        guard: The budget, or the session to spend from.

    Raises:
        TypeError: If *llm* is no LLM, or *guard* is no budget and no session.
        ValueError: If the SDK of its client is too old.
    """
    owner = 'guard_llm(LLM(model="gpt-4o"), Budget("$5.00"))'
    check_instance("llm", llm, BaseLLM, "LLM of CrewAI", owner)
    inner = _guard_of(llm)
    clone = llm.model_copy()
    if inner is None:
        object.__setattr__(clone, "__class__", _guarded_llm(type(llm)))
    guarded = ModelGuard(guard, stops, owner=owner, inner=inner)
    object.__setattr__(clone, "__pydantic_private__", {**_private(clone), "_budget_guard": guarded})
    _look_at(clone, guarded)  # a client that is too old says so now
    return clone


def session_of(guarded: Crew | BaseLLM) -> Session:
    """The session that a guarded crew or LLM spends from.

    Raises:
        TypeError: If it is not guarded.
    """
    guard = _guard_of(guarded)
    if guard is None:
        raise TypeError(f"{type(guarded).__name__} is not guarded: write {_OWNER}")
    return guard.session


def _guard_of(guarded: Crew | BaseLLM) -> ModelGuard | None:
    return cast("ModelGuard | None", getattr(guarded, "_budget_guard", None))


def _private(model: Any) -> dict[str, Any]:
    if model.__pydantic_private__ is None:
        object.__setattr__(model, "__pydantic_private__", {})
    return cast("dict[str, Any]", model.__pydantic_private__)


# One call


class _Attempt:
    """One attempt of a call, on a copy of the LLM: its counters are of this attempt alone."""

    def __init__(self, llm: BaseLLM, guard: ModelGuard, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.llm = llm
        self.guard = guard
        self.clone = llm.model_copy()
        private = dict(_private(self.clone))
        private["_token_usage"] = dict.fromkeys(private.get("_token_usage") or {}, 0)
        object.__setattr__(self.clone, "__pydantic_private__", private)
        looked_at = _look_at(self.clone, guard)
        self._with_clients = dict(private)
        functions = options.get("available_functions")
        if functions:  # the LLM's own method runs them, in the middle of the call
            options["available_functions"] = {name: self._apart(function) for name, function in functions.items()}
        messages = arguments[0] if arguments else options.get("messages", "")
        self.call = model_call(self.clone, messages, options, looked_at=looked_at)

    def _apart(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.guard.around():
                return function(*args, **kwargs)

        return run

    def steered(self, held: GuardedCall) -> BaseLLM:
        """The copy, as a budget has decided."""
        if held.name is not None and held.name != self.call.model:
            self.clone.__dict__["model"] = with_prefix_of(self.call.model, held.name)
        if held.output_cap is not None and held.output_cap != self.call.max_output_tokens:
            named = [name for name in CAPS if self.clone.__dict__.get(name)] or ["max_tokens"]
            self.clone.__dict__[named[0]] = held.output_cap
        return self.clone

    def answered(self, answer: Any) -> Answered:
        """What the *answer* says, and what was counted for it."""
        return Answered(usage_of(self._counted), text=answer if isinstance(answer, str) else None)

    @property
    def _counted(self) -> Mapping[str, int]:
        return cast("Mapping[str, int]", _private(self.clone)["_token_usage"])

    def keep(self) -> None:
        """Add up the counters, and keep what the LLM has learnt."""
        own, made = _private(self.llm), _private(self.clone)
        totals = own.get("_token_usage") or {}
        for name, count in self._counted.items():
            totals[name] = totals.get(name, 0) + count
        for name, value in made.items():
            if name != "_token_usage" and value is not self._with_clients.get(name):
                own[name] = value


def _look_at(llm: BaseLLM, guard: ModelGuard) -> bool:
    """Give *llm* clients that are looked at. Returns whether it has any."""
    private, done = _private(llm), False
    for name, make in _CLIENTS.items():
        client = private.get(name)
        if client is None:
            try:
                client = getattr(type(llm).__mro__[1], make)(llm)
            except (AttributeError, ValueError):  # another provider's, or there is no key yet
                continue
        private[name] = guard.looked_at(client, llm.model)
        done = done or private[name] is not client
    return done


def _bare(method: Any) -> Any:
    """*method* without CrewAI's retries, which it has wrapped around the guarded one as well."""
    return method.__wrapped__ if getattr(method, "_crewai_rate_limit_wrapped", False) else method


@cache
def _guarded_llm(cls: type[BaseLLM]) -> type[BaseLLM]:
    """*cls*, whose calls are held. CrewAI wraps its own retries around them: each is an attempt by itself."""
    base: Any = cls

    class Guarded(base):  # type: ignore[misc]  # its base is known only when it runs
        _budget_guard: Any = PrivateAttr(default=None)

        def call(self, *args: Any, **kwargs: Any) -> Any:
            guard: ModelGuard = self._budget_guard
            attempt = _Attempt(self, guard, args, kwargs)
            held = guard.hold(attempt.call)
            try:
                with guard.making(held):
                    answer = _bare(base.call)(attempt.steered(held), *args, **kwargs)
            finally:
                attempt.keep()
            guard.settle(held, attempt.answered(answer))
            return answer

        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            guard: ModelGuard = self._budget_guard
            attempt = _Attempt(self, guard, args, kwargs)
            held = await guard.ahold(attempt.call)
            try:
                async with guard.amaking(held):
                    answer = await _bare(base.acall)(attempt.steered(held), *args, **kwargs)
            finally:
                attempt.keep()
            await guard.asettle(held, attempt.answered(answer))
            return answer

    return named_like(cls, Guarded)


@cache
def _guarded_crew(cls: type[Crew]) -> type[Crew]:
    """*cls*, in whose runs a stop of a crew in a tool is latched as well."""
    base: Any = cls

    class Guarded(base):  # type: ignore[misc]  # its base is known only when it runs
        _budget_guard: Any = PrivateAttr(default=None)

        def kickoff(self, *args: Any, **kwargs: Any) -> Any:
            with self._budget_guard.around():
                return super().kickoff(*args, **kwargs)

        async def kickoff_async(self, *args: Any, **kwargs: Any) -> Any:
            with self._budget_guard.around():
                return await super().kickoff_async(*args, **kwargs)

        async def akickoff(self, *args: Any, **kwargs: Any) -> Any:
            with self._budget_guard.around():
                return await super().akickoff(*args, **kwargs)

    return named_like(cls, Guarded)
