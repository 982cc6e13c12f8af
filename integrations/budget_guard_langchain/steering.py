"""What passes between one call of a steered model and the handlers that decide on it.

A callback can refuse a call, but can neither change its model nor cap its output. A *steered* model does both for it:
it lays a `Steering` into the arguments of each call, the handler finds that in ``on_chat_model_start``, asks the
session in its terms and leaves the decision in it, and the model then calls what was decided. So a call is decided on
once, by its hold.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult

from budget_guard import BudgetError, Decision, DowngradePolicy, ModelCall
from budget_guard_langchain.output_cap import with_cap, with_usage

if TYPE_CHECKING:
    _Base = BaseChatModel
else:
    _Base = object  # mixed into models of any class: with fields of its own it would replace theirs

_KEY = "budget_guard_steering"


class Steering:
    """One call: what its caller leaves to the budget, and what the budget's handlers decided."""

    __slots__ = (
        "_can_cap",
        "_cap_set",
        "_downgrade",
        "_final",
        "_stands_for",
        "_takes",
        "cap",
        "cut",
        "decided",
        "model",
    )

    def __init__(
        self,
        *,
        can_cap: bool,
        cap_set: int | None,
        downgrade: DowngradePolicy | None = None,
        takes: frozenset[str] = frozenset(),
        stands_for: tuple[str, bool] | None = None,
        final: bool = False,
    ) -> None:
        """
        Args:
            can_cap: Whether an output cap can be sent.
            cap_set: The output cap that the caller set.
            downgrade: Which model to switch to, and when.
            takes: The models to which the call can be switched.
            stands_for: The model in whose place it is called already, and whether that is the same provider's.
            final: Whether it is the final answer that ``Budget.finalization_reserve`` is kept for.
        """
        self._can_cap, self._cap_set = can_cap, cap_set
        self._downgrade, self._takes, self._stands_for, self._final = downgrade, takes, stands_for, final
        self.decided = False
        """Whether any budget decided on it."""
        self.model: str | None = None
        """The model that was decided on, where it is not the one asked for."""
        self.cap: int | None = None
        """The output cap that was decided on."""
        self.cut: BudgetError | None = None
        """The stop that the answer is, where that cap has cut it off."""

    def ask(self, call: ModelCall) -> ModelCall:
        """*call* in the terms of whoever steers it."""
        model, provider = call.model, call.provider
        if self.model is not None:  # another handler has switched already
            model = self.model
        elif self._stands_for is not None:
            model, same_provider = self._stands_for
            provider = provider if same_provider else None
        return call._replace(
            model=model,
            provider=provider,
            max_output_tokens=self._cap_set,
            can_cap=self._can_cap,
            downgrade=self._downgrade,
            final=self._final,
        )

    def raise_if_cut(self) -> None:
        """Stop where the answer was cut off by a budget's own cap. Half a final answer is better than none.

        Raises:
            BudgetExceeded: In LangChain's terms. What the answer cost is booked.
        """
        if self.cut is not None and not self._final:
            raise self.cut

    def takes(self, model: str) -> bool:
        """Whether the call can be switched to *model*."""
        return model in self._takes

    def answer(self, decision: Decision) -> None:
        """Note what a handler decided. Where several do, the cheaper model and the lower cap hold for the call."""
        self.decided = True
        if decision.name != decision.requested:
            self.model = decision.name
        cap = decision.output_cap
        if cap is not None and (self.cap is None or cap < self.cap):
            self.cap = cap


class _Params(dict[str, Any]):
    """The invocation parameters of a steered call, as callbacks see them."""

    def __init__(self, params: dict[str, Any], steering: Steering) -> None:
        super().__init__(params)
        self.steering = steering


def steering_of(invocation_params: object) -> Steering | None:
    """The steering of the call with *invocation_params*; None for a call that nobody steers."""
    return invocation_params.steering if isinstance(invocation_params, _Params) else None


class SteeredModel(_Base):
    """Mixed into a chat model, so that its calls are made the way they were decided on.

    It stands below the callbacks: a call has one start and one end, whichever model makes it.
    """

    def _steer(self, kwargs: dict[str, Any]) -> Steering:
        """The steering of a new call with *kwargs*."""
        raise NotImplementedError  # abstract

    def _inner(self, steering: Steering | None, kwargs: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        """The model that makes a call, and its arguments; without *steering*, those that are asked for."""
        raise NotImplementedError  # abstract

    def _decided(self, kwargs: dict[str, Any], *, stream: bool = False) -> tuple[BaseChatModel, dict[str, Any]]:
        steering: Steering | None = kwargs.pop(_KEY, None)
        model, kwargs = self._inner(steering, kwargs)
        if steering is None or not steering.decided:
            return model, kwargs
        if steering.cap is not None:
            model, kwargs = with_cap(model, kwargs, steering.cap)
        return model, with_usage(model, kwargs) if stream else kwargs

    def _steered(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**kwargs, _KEY: self._steer(kwargs)}

    # Every way into a chat model passes one of these six, and each hands its arguments to all that follow.

    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        kwargs = self._steered(kwargs)
        result = super().generate(*args, **kwargs)
        kwargs[_KEY].raise_if_cut()
        return result

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        kwargs = self._steered(kwargs)
        result = await super().agenerate(*args, **kwargs)
        kwargs[_KEY].raise_if_cut()
        return result

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        kwargs = self._steered(kwargs)
        yield from super().stream(*args, **kwargs)
        kwargs[_KEY].raise_if_cut()

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        kwargs = self._steered(kwargs)
        pieces: Any = super().astream(*args, **kwargs)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
        kwargs[_KEY].raise_if_cut()

    def stream_events(self, *args: Any, **kwargs: Any) -> Any:
        return super().stream_events(*args, **self._steered_v3(kwargs))

    def astream_events(self, *args: Any, **kwargs: Any) -> Any:
        return super().astream_events(*args, **self._steered_v3(kwargs))

    def _steered_v3(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return self._steered(kwargs) if kwargs.get("version") == "v3" else kwargs  # the others pass `astream`

    # What callbacks are told, and what caches look for.

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        steering: Steering | None = kwargs.pop(_KEY, None)
        model, kwargs = self._inner(None, kwargs)
        params = model._get_invocation_params(stop=stop, **kwargs)
        return params if steering is None else _Params(params, steering)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        kwargs.pop(_KEY, None)
        model, kwargs = self._inner(None, kwargs)
        return model._get_ls_params(stop=stop, **kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        kwargs.pop(_KEY, None)
        model, kwargs = self._inner(None, kwargs)
        return model._get_llm_string(stop=stop, **kwargs)

    # The call itself.

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        model, kwargs = self._decided(kwargs)
        return model._generate(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        model, kwargs = self._decided(kwargs)
        return await model._agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        model, kwargs = self._decided(kwargs, stream=True)
        yield from model._stream(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        model, kwargs = self._decided(kwargs, stream=True)
        async for chunk in model._astream(messages, stop=stop, run_manager=run_manager, **kwargs):
            yield chunk


def name_of(model: BaseChatModel) -> str:
    """The name that a budget prices *model* by."""
    params_of: Any = getattr(model, "_get_ls_params", dict)  # LangChain's own way to ask, and no public one
    name = params_of().get("ls_model_name")
    return name if isinstance(name, str) and name else type(model).__name__
