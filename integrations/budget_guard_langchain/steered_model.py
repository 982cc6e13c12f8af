"""Chat models whose calls are made the way a budget decides: a mixin, and copies of any model with it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult

from budget_guard import DowngradePolicy
from budget_guard.adapter.attempts import ADD_FIELDS
from budget_guard_langchain.output_cap import added_by, can_cap, cap_set, explain, with_cap, with_usage
from budget_guard_langchain.steering import SteeredParams, Steering

if TYPE_CHECKING:
    _Base = BaseChatModel
else:
    _Base = object  # mixed into models of any class: with fields of its own it would replace theirs

_KEY = "budget_guard_steering"
_HOW = "budget_guard_how"


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

    def _not_decided(self) -> None:
        """Called where no budget decided on a call."""

    def _decided(
        self, kwargs: dict[str, Any], *, stream: bool = False
    ) -> tuple[BaseChatModel, dict[str, Any], tuple[str, ...]]:
        """The model that makes a call, its arguments, and the fields that are added to its request."""
        steering: Steering | None = kwargs.pop(_KEY, None)
        if steering is not None:
            steering.hold()
        model, asked = self._inner(steering, kwargs)
        if steering is None or not steering.decided:
            if steering is not None:
                self._not_decided()
            return model, asked, ()
        kwargs = asked
        if steering.cap is not None:
            model, kwargs = with_cap(model, kwargs, steering.cap)
        if stream and steering.asks_for_usage:
            kwargs = with_usage(model, kwargs)
        return model, kwargs, added_by(asked, kwargs)

    async def _adecided(
        self, kwargs: dict[str, Any], *, stream: bool = False
    ) -> tuple[BaseChatModel, dict[str, Any], tuple[str, ...]]:
        """As `_decided`, in async code, where it may wait for room."""
        steering: Steering | None = kwargs.get(_KEY)
        if steering is not None:
            await steering.ahold()
        return self._decided(kwargs, stream=stream)

    def _steered(self, kwargs: dict[str, Any], *, awaits: bool = False) -> dict[str, Any]:
        steering = self._steer(kwargs)
        steering.awaits = awaits
        return {**kwargs, _KEY: steering}

    # Every way into a chat model passes one of these six, and each hands its arguments to all that follow.

    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        kwargs = self._steered(kwargs)
        result = super().generate(*args, **kwargs)
        kwargs[_KEY].raise_if_cut()
        return result

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        kwargs = self._steered(kwargs, awaits=True)
        result = await super().agenerate(*args, **kwargs)
        kwargs[_KEY].raise_if_cut()
        return result

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        kwargs = self._steered(kwargs)
        yield from super().stream(*args, **kwargs)
        kwargs[_KEY].raise_if_cut()

    async def astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        kwargs = self._steered(kwargs, awaits=True)
        pieces: Any = super().astream(*args, **kwargs)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
        kwargs[_KEY].raise_if_cut()

    def stream_events(self, *args: Any, **kwargs: Any) -> Any:
        return super().stream_events(*args, **self._steered_v3(kwargs))

    def astream_events(self, *args: Any, **kwargs: Any) -> Any:
        return super().astream_events(*args, **self._steered_v3(kwargs, awaits=True))

    def _steered_v3(self, kwargs: dict[str, Any], *, awaits: bool = False) -> dict[str, Any]:
        # the other versions pass `astream`
        return self._steered(kwargs, awaits=awaits) if kwargs.get("version") == "v3" else kwargs

    # What callbacks are told, and what caches look for.

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        steering: Steering | None = kwargs.pop(_KEY, None)
        model, kwargs = self._inner(None, kwargs)
        params = model._get_invocation_params(stop=stop, **kwargs)
        return params if steering is None else SteeredParams(params, steering)

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
        model, kwargs, added = self._decided(kwargs)
        with _explained(added):
            return model._generate(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        model, kwargs, added = await self._adecided(kwargs)
        with _explained(added):
            return await model._agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        model, kwargs, added = self._decided(kwargs, stream=True)
        with _explained(added):
            yield from model._stream(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        model, kwargs, added = await self._adecided(kwargs, stream=True)
        with _explained(added):
            async for chunk in model._astream(messages, stop=stop, run_manager=run_manager, **kwargs):
                yield chunk


@contextmanager
def _explained(added: tuple[str, ...]) -> Generator[None]:
    """Explain an error in the block that is about a field which was *added*."""
    try:
        yield
    except Exception as error:
        explain(error, added)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How the calls of a steered copy are steered."""

    downgrade: DowngradePolicy | None = None
    stands_for: tuple[str, bool] | None = None
    """The dearer model in whose place it is called, and whether that is the same provider's."""
    add_fields: frozenset[str] = frozenset(ADD_FIELDS)
    """What may be added to a request."""
    final: bool = False
    """Whether it makes the final answer that ``Budget.finalization_reserve`` is kept for."""
    keeps_cut: bool = False
    """Whether an answer that a budget's own cap cuts off is kept as it is."""


class _Copy(SteeredModel):
    """What a copy adds to its model's class."""

    def _steer(self, kwargs: dict[str, Any]) -> Steering:
        model, how = vars(self)[_HOW]
        return Steering(
            can_cap="output_cap" in how.add_fields and can_cap(model),
            asks_for_usage="usage" in how.add_fields,
            cap_set=cap_set(model, kwargs),
            downgrade=how.downgrade,
            stands_for=how.stands_for,
            final=how.final,
            keeps_cut=how.keeps_cut,
        )

    def _inner(self, steering: Steering | None, kwargs: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        return vars(self)[_HOW][0], kwargs


def steered(model: BaseChatModel, how: How) -> BaseChatModel:
    """A copy of *model* whose calls are steered. It is of the model's own class for all who ask for that.

    Other middleware looks at the class, to find out what a provider can do. What is steered already stays as it is,
    and so does what is no chat model: one with fallbacks, or one that is bound to something.
    """
    if not isinstance(model, BaseChatModel) or isinstance(model, SteeredModel):
        return model
    copy = model.model_copy()
    vars(copy)[_HOW] = (model, how)
    object.__setattr__(copy, "__class__", _class_of_copies(type(model)))
    return copy


@functools.cache
def _class_of_copies(cls: type[BaseChatModel]) -> type[BaseChatModel]:
    as_before = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    metaclass: Any = type(cls)
    copies: type[BaseChatModel] = metaclass(cls.__name__, (_Copy, cls), as_before)
    for streams in ("_stream", "_astream"):  # LangChain asks the class whether it can
        if getattr(cls, streams) is getattr(BaseChatModel, streams):
            setattr(copies, streams, getattr(BaseChatModel, streams))
    for of_its_own in ("_stream_chat_model_events", "_astream_chat_model_events"):
        setattr(copies, of_its_own, None)  # it would be given our argument; LangChain makes the stream of `_stream`
    return copies


def name_of(model: BaseChatModel) -> str:
    """The name that a budget prices *model* by."""
    params_of: Any = getattr(model, "_get_ls_params", dict)  # LangChain's own way to ask, and no public one
    name = params_of().get("ls_model_name")
    return name if isinstance(name, str) and name else type(model).__name__
