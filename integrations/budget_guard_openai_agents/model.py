"""Models that hold the budget of each of their calls, once for each attempt, after the SDK has resolved them.

Hooks alone cannot hold a budget. The SDK resolves the model before ``on_llm_start``, repeats no hook for a retry, and
calls no hooks for sub-agents and guardrail agents. A model sees every call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import warnings
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from agents import ModelResponse
from agents.items import TResponseStreamEvent
from agents.models.default_models import get_default_model
from agents.models.interface import Model, ModelProvider
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest, ModelRetryNormalizedError

from budget_guard import BudgetError, Session
from budget_guard_openai_agents.answer import answer_of, text_of, text_only
from budget_guard_openai_agents.call import Arguments, Attempt
from budget_guard_openai_agents.guarded_run import (
    GuardedRun,
    RunGuard,
    accounting,
    current_run,
    may_be_lost,
    open_calls,
    outer_call,
)
from budget_guard_openai_agents.look import look_at, look_of, sees_all_of
from budget_guard_openai_agents.stream import guarded_stream


class _Guarded(Model):
    """Mixed into a model's own class. Passes through where no guard is active, or where one is counting already.

    Both methods take the SDK's own `Arguments`.
    """

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        run = _run_to_charge(self)
        response: ModelResponse
        if run is None:
            response = await _below(self).get_response(*args, **kwargs)
            return response
        attempt = Attempt(run, self, Arguments(*args, **kwargs), stream=False)
        await attempt.admit()
        try:
            with accounting(attempt):
                response = await _below(attempt.model).get_response(**attempt.arguments._asdict())
            answer = await attempt.aanswered(attempt.raw_answer or answer_of(response, attempt.asked.request))
        except BaseException as error:
            stop = await attempt.afailed(error)
            if stop is None:
                raise
            kept = attempt.kept(stop)
            if kept is not None:
                return kept
            raise attempt.stopped(stop, attempt.partial_output) from error
        stop = attempt.cut_short_by(answer)
        if stop is not None and not (attempt.keeps(stop) and text_only(response.output)):
            raise attempt.stopped(stop, text_of(response.output))
        return response

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        run = _run_to_charge(self)
        if run is None:
            events: AsyncIterator[TResponseStreamEvent] = _below(self).stream_response(*args, **kwargs)
            return events
        return guarded_stream(Attempt(run, self, Arguments(*args, **kwargs), stream=True), _below)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Pickled and copied as what it was: the class that guards it can be found by no name.
        reduced = super().__reduce_ex__(protocol)
        if not isinstance(reduced, tuple) or type(self) not in reduced[1]:
            return reduced
        was = type(self).__mro__[2]
        _, *arguments = reduced[1]
        return (was.__new__, (was, *arguments), *reduced[2:])

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        if isinstance(request.error, BudgetError):
            # Our own stop is not a failure of the provider: it is not to be tried again.
            return ModelRetryAdvice(suggested=False, normalized=ModelRetryNormalizedError(is_abort=True))
        return super().get_retry_advice(request)


def _run_to_charge(model: Model) -> GuardedRun | None:
    """The run whose guards a call of *model* spends from; None where it is accounted for already.

    A model of one's own may hand its call over to another guarded model, or call several: the first one inside is the
    call itself, and each further one is a call of its own. What is all looked at is told apart below, by what is sent.
    """
    outer = outer_call()
    if outer is not None:
        outer.inner += 1
        if outer.inner == 1 or sees_all_of(model):
            return None
    run = current_run()
    if run is None:
        _warn_if_lost()
    return run


_told: weakref.WeakSet[Session] = weakref.WeakSet()
"""The sessions that were told of calls that their tools may have made."""


def _warn_if_lost() -> None:
    """Warn once of a call outside of every run that a tool may have made in a thread or task which lost its run."""
    if not may_be_lost():
        return
    for tool in open_calls.tools():
        for session in tool.sessions:
            if session not in _told:
                _told.add(session)
                warnings.warn(
                    f"A model was called outside of every guarded run while the tool {tool.name!r} of {session.scope} "
                    "was running. If that tool made the call, it is not covered: a thread, pool or worker of your own "
                    "loses the run. Start it with contextvars.copy_context().run(...) or asyncio.to_thread(...).",
                    RuntimeWarning,
                    stacklevel=4,
                )


def _below(model: Model) -> Any:
    """*model* as its own class has it: what it accounts for need not pass through it twice."""
    return super(_Guarded, model) if isinstance(model, _Guarded) else model


@functools.cache
def _guarded_class(cls: type[Model]) -> type[Model]:
    # __slots__ keeps the layout, which a change of an object's class requires.
    as_before = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (_Guarded, cls), {"__slots__": (), **as_before})


def discover_models() -> None:
    """Have every model account for its calls from the first one on that it makes in a guarded run.

    The runner hands over the models of agents and providers. Those that are called by hand, in a ``with guard:`` block
    or by another model, are found when they are called: the methods of the model classes that there are look for a
    run. So do those of classes that are made later. Where there is no run, they do what they did.
    """
    if "__init_subclass__" not in Model.__dict__:
        Model.__init_subclass__ = classmethod(_discover_later)  # type: ignore[assignment]
    classes: list[type[Any]] = Model.__subclasses__()
    for cls in classes:
        classes += cls.__subclasses__()
        _discover(cls)


def _discover_later(cls: type[Model], /, **kwargs: Any) -> None:
    next_in_line: Any = super(Model, cls)
    next_in_line.__init_subclass__(**kwargs)
    _discover(cls)


def _discover(cls: type[Any]) -> None:
    """Have the methods of a model class look for a run."""
    if _Guarded in cls.__mro__:
        return
    for name, finding in (("get_response", _finding), ("stream_response", _finding_stream)):
        method: Any = cls.__dict__.get(name)
        if inspect.isfunction(method) and not hasattr(method, _FINDS):
            with suppress(AttributeError, TypeError):  # a class that does not let itself be changed
                setattr(cls, name, finding(method))


_FINDS = "__budget_guard_finds__"


def _finding(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def get_response(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_found(self):
            return await self.get_response(*args, **kwargs)
        return await method(self, *args, **kwargs)

    setattr(get_response, _FINDS, True)
    return get_response


def _finding_stream(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def stream_response(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_found(self):
            return self.stream_response(*args, **kwargs)
        return method(self, *args, **kwargs)

    setattr(stream_response, _FINDS, True)
    return stream_response


def _is_found(model: Any) -> bool:
    """Whether *model* accounts for its calls only now."""
    if isinstance(model, _Guarded):
        return False
    if current_run() is None:
        if look_of(model) is not None or open_calls.are_of_other_loops():
            _warn_if_lost()
        return False
    try:
        guard_model(model)
    except TypeError:
        return False
    return True


def guard_model(model: Model) -> Model:
    """Make *model* account for its calls, wherever a guard is active; returns the same object.

    The object's class is replaced by a subclass of it, so that agents, clones of agents and the caller keep the model
    they have, of the type they know. Done once; without an active guard the model behaves as before.

    Raises:
        TypeError: If the object does not allow it, as only types written in C do.
    """
    look_at(model)
    if not isinstance(model, _Guarded):
        try:
            object.__setattr__(model, "__class__", _guarded_class(type(model)))  # frozen classes allow it, too
        except TypeError as error:
            raise TypeError(
                f"{type(model).__name__} does not let its calls be accounted for: wrap it in a Model class of your own"
            ) from error
    return model


class GuardedProvider(ModelProvider):
    """A provider whose models account for their calls. Everything else is the inner provider's.

    Args:
        inner: The provider that makes the models.
        guard: The guard of every run that is given this provider.
    """

    def __init__(self, inner: ModelProvider, guard: RunGuard | None = None) -> None:
        self._inner = inner
        outer = inner.guards if isinstance(inner, GuardedProvider) else ()
        self.guards: tuple[RunGuard, ...] = outer if guard is None else (*outer, guard)
        """The guards of every run that is given this provider."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that its models were last asked for on."""

    def get_model(self, model_name: str | None) -> Model:
        with suppress(RuntimeError):
            self.loop = asyncio.get_running_loop()
        model = self._inner.get_model(model_name)
        name = model_name or get_default_model()
        run = current_run()
        if run is not None:
            run.note_resolved(model, name, self._inner)
        return guard_model(model)

    async def aclose(self) -> None:
        aclose = getattr(self._inner, "aclose", None)  # newer than the oldest SDK that is supported
        if aclose is not None:
            await aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)
