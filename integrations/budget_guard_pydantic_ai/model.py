"""`BudgetModel`: a pydantic-ai model under a budget."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NoReturn, TypeVar

from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import KnownModelName, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from budget_guard import Budget, InvalidDowngradeError, Session, UnboundedCallError
from budget_guard.adapter import GuardedCall, ModelGuard, SessionHandle, Stop
from budget_guard_pydantic_ai.errors import stops
from budget_guard_pydantic_ai.request import cap_of, model_call, text_of, usage_of

M = TypeVar("M", bound=Model)


class BudgetModel(WrapperModel, SessionHandle):
    """A model whose every request is held in a budget before it is sent, streamed or not.

    ::

        agent = Agent(BudgetModel("openai:gpt-4o", Budget("$1.00")))
        result = await agent.run("...")

    Several models spend from one budget if they are given the same session. With several models to fall back on, guard
    each of them: ``FallbackModel(BudgetModel(first, session), BudgetModel(second, session))``.

    Args:
        model: The model, or its name as pydantic-ai knows it.
        guard: The budget, or the session to spend from.
        agent: Whom to attribute its calls to.

    Raises:
        TypeError: If *model* is a class, or several models in one, or *guard* is no budget and no session.
        ValueError: If the SDK of its client is too old.
    """

    def __init__(
        self, model: Model | KnownModelName | str, guard: Budget | Session, *, agent: str | None = None
    ) -> None:
        if isinstance(model, type):
            raise TypeError(f"model={model.__name__} is a class: give an instance, {model.__name__}(...)")
        super().__init__(model)
        leaf = _leaf(self.wrapped)
        if isinstance(leaf, FallbackModel):
            raise TypeError(
                "model is a FallbackModel, which is several models at several prices: guard each of them, "
                "FallbackModel(BudgetModel(first, session), BudgetModel(second, session))"
            )
        self._guard = ModelGuard(guard, stops, owner='BudgetModel(model, Budget("$5.00"))', agent=agent)
        self.session = self._guard.session
        self._is_held_below = any(
            isinstance(each, BudgetModel) and each.session is self.session for each in _chain(self.wrapped)
        )
        self._look()  # what cannot be looked at says so now

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        if self._is_held_below:
            return await self.wrapped.request(messages, model_settings, model_request_parameters)
        guard = self._guard
        held, model, settings = await self._admit(messages, model_settings, model_request_parameters)
        try:
            with guard.making(held):
                answer = await model.request(messages, settings, model_request_parameters)
        except BaseException as error:
            stop = await guard.afailed(held, error)
            if stop is not None:
                raise stop from error
            raise
        await guard.asettle(held, usage_of(answer), cut_off=answer.finish_reason == "length", text=text_of(answer))
        return answer

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        if self._is_held_below:
            async with self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                yield stream
            return
        guard = self._guard
        held, model, settings = await self._admit(messages, model_settings, model_request_parameters)
        async with AsyncExitStack() as stack:
            try:
                with guard.making(held):  # not while the stream is read: then the user's code runs as well
                    stream = await stack.enter_async_context(
                        model.request_stream(messages, settings, model_request_parameters, run_context)
                    )
            except BaseException as error:
                stop = await guard.afailed(held, error)
                if stop is not None:
                    raise stop from error
                raise
            try:
                yield stream
            except BaseException as error:
                # whatever the reader raised, the answer had begun
                refusal = guard.refusal_below(error)
                await stack.aclose()
                await held.aestimate("the stream was broken off")
                if refusal is not None:
                    raise guard.stopped(Stop(self.session, refusal)) from error
                raise
        if stream.finish_reason is None:
            await held.aestimate("the stream was not read to its end")
            return
        answer = stream.get()
        await guard.asettle(held, usage_of(stream), cut_off=stream.finish_reason == "length", text=text_of(answer))

    async def batch_create(self, requests: Sequence[Any]) -> NoReturn:
        """Refused: a batch is answered later, where its usage cannot be seen."""
        raise stops.recast(
            UnboundedCallError(
                model=self.model_name,
                reason="a batch is answered later, where its usage cannot be seen",
                remedy="Send it with the model that is not guarded, and book what it cost with session.charge.",
            )
        )

    async def compact_messages(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: what a compaction costs cannot be held."""
        raise stops.recast(
            UnboundedCallError(
                model=self.model_name,
                reason="what a compaction by the provider costs cannot be held",
                remedy="Summarise the messages with an agent of a guarded model.",
            )
        )

    @asynccontextmanager
    async def _run_scope(self) -> AsyncGenerator[None]:
        """What an agent's run holds around all of it: what stops inside is latched here."""
        async with super()._run_scope():
            with self._guard.around():
                yield

    async def _admit(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> tuple[GuardedCall, Model, ModelSettings | None]:
        """Hold a request. Returns its hold, and the model and the settings to send it with."""
        guard = self._guard
        model = self._look()
        call = model_call(
            self.wrapped, messages, settings, parameters, agent=guard.agent, looked_at=model is not self.wrapped
        )
        held = await guard.ahold(call)
        name = held.name or call.model
        if name != call.model:
            try:
                model = _changed(model, lambda leaf: _renamed(leaf, name))
            except AttributeError as error:
                await held.arelease("the cheaper model could not be made")
                invalid = InvalidDowngradeError(
                    model=call.model,
                    target=name,
                    reason=f"{type(_leaf(self.wrapped)).__name__} has no name that could be changed",
                    remedy="Use a model of pydantic-ai's own, which has.",
                )
                raise stops.recast(invalid) from error
        if held.output_cap is not None and held.output_cap != cap_of(self.wrapped, settings):
            settings = {**(settings or {}), "max_tokens": held.output_cap}
        return held, model, settings

    def _look(self) -> Model:
        """The wrapped model over a client that is looked at; the model itself where its client cannot be.

        Made for each request, because pydantic-ai renews the HTTP client of a provider on another event loop.
        """
        leaf = _leaf(self.wrapped)
        provider: Any = getattr(leaf, "_provider", None)
        client = getattr(provider, "_client", None)
        if client is None:
            return self.wrapped
        looked_at = self._guard.looked_at(client, leaf.model_name)
        if looked_at is client:
            return self.wrapped
        provider = copy.copy(provider)
        provider._client = looked_at
        return _changed(self.wrapped, lambda leaf: _over(leaf, provider))


def _chain(model: Model) -> list[Model]:
    """*model* and all that it wraps, the innermost last."""
    found = [model]
    while isinstance(found[-1], WrapperModel):
        found.append(found[-1].wrapped)
    return found


def _leaf(model: Model) -> Model:
    return _chain(model)[-1]


def _changed(model: Model, change: Callable[[Model], Model]) -> Model:
    """A copy of *model* in whose wrappers the innermost model is changed."""
    if not isinstance(model, WrapperModel):
        return change(model)
    clone = _copy(model)
    clone.wrapped = _changed(model.wrapped, change)
    return clone


def _copy(model: M) -> M:
    clone = object.__new__(type(model))  # `copy` asks wrappers for attributes that they do not have yet
    clone.__dict__.update(model.__dict__)
    return clone


def _over(leaf: Model, provider: Any) -> Model:
    clone = _copy(leaf)
    clone.__dict__["_provider"] = provider
    return clone


def _renamed(leaf: Model, name: str) -> Model:
    if not isinstance(getattr(leaf, "_model_name", None), str):
        raise AttributeError("it has no name")
    clone = _copy(leaf)
    clone.__dict__["_model_name"] = name
    clone.__dict__.pop("profile", None)  # what the model can do is worked out from its name
    return clone
