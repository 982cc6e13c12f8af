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

from budget_guard import Budget, ModelCall, Session, UnboundedCallError
from budget_guard.adapter import GuardedCall, ModelGuard, SessionHandle, check_instance
from budget_guard_pydantic_ai.errors import stops
from budget_guard_pydantic_ai.request import answered, model_call

M = TypeVar("M", bound=Model)

_OWNER = 'BudgetModel(model, Budget("$5.00"))'


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
        if not isinstance(model, str):
            check_instance("model", model, Model, "model of pydantic-ai", _OWNER)
        super().__init__(model)
        leaf = _leaf(self.wrapped)
        if isinstance(leaf, FallbackModel):
            raise TypeError(
                "model is a FallbackModel, which is several models at several prices: guard each of them, "
                "FallbackModel(BudgetModel(first, session), BudgetModel(second, session))"
            )
        self._guard = ModelGuard(guard, stops, owner=_OWNER, agent=agent)
        self.session = self._guard.session
        self._look()  # what cannot be looked at says so now

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        guard = self._guard
        call, looked_at = self._call(messages, model_settings, model_request_parameters)
        held = await guard.ahold(call)
        async with guard.amaking(held):
            model, settings = self._steered(call, held, looked_at, model_settings)
            answer = await model.request(messages, settings, model_request_parameters)
        await guard.asettle(held, answered(answer, answer))
        return answer

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        guard = self._guard
        call, looked_at = self._call(messages, model_settings, model_request_parameters)
        held = await guard.ahold(call)
        async with AsyncExitStack() as stack:
            async with guard.amaking(held):  # not while the stream is read: then the user's code runs as well
                model, settings = self._steered(call, held, looked_at, model_settings)
                stream = await stack.enter_async_context(
                    model.request_stream(messages, settings, model_request_parameters, run_context)
                )
            try:
                yield stream
            except BaseException as error:
                stop = guard.refusal_below(error)
                await stack.aclose()
                await held.aestimate("the stream was broken off")  # whatever was raised, the answer had begun
                if stop is not None:
                    raise stop from error
                raise
        if stream.finish_reason is None:
            await held.aestimate("the stream was not read to its end")
        else:
            await guard.asettle(held, answered(stream, stream.get()))

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

    def _call(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> tuple[ModelCall, Model]:
        """The call that a request is, and the model that is looked at while it is made."""
        looked_at = self._look()
        is_seen = looked_at is not self.wrapped
        call = model_call(self.wrapped, messages, settings, parameters, agent=self._guard.agent, looked_at=is_seen)
        return call, looked_at

    def _steered(
        self, call: ModelCall, held: GuardedCall, model: Model, settings: ModelSettings | None
    ) -> tuple[Model, ModelSettings | None]:
        """The model and the settings to make *call* with, as the budget decided."""
        name = held.name or call.model
        if name != call.model:
            if not isinstance(getattr(_leaf(model), "_model_name", None), str):
                raise self._guard.cannot_be_changed(call, held, _leaf(model))
            model = _changed(model, lambda leaf: _renamed(leaf, name))
        if held.output_cap is not None and held.output_cap != call.max_output_tokens:
            settings = {**(settings or {}), "max_tokens": held.output_cap}
        return model, settings

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
    clone = _copy(leaf)
    clone.__dict__["_model_name"] = name
    clone.__dict__.pop("profile", None)  # what the model can do is worked out from its name
    return clone
