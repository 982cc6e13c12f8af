"""`guard_llm`: a LlamaIndex LLM under a budget."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from functools import cache
from typing import Any, TypeVar, cast

from llama_index.core.llms import LLM
from pydantic import PrivateAttr

from budget_guard import Budget, Session
from budget_guard.adapter import Answered, GuardedCall, ModelGuard, check_instance, named_like
from budget_guard_llama_index.errors import stops
from budget_guard_llama_index.request import answered, cap_field, model_call, name_of, usage_of
from budget_guard_llama_index.runs import note_call, watch_runs

L = TypeVar("L", bound=LLM)

_OWNER = 'guard_llm(llm, Budget("$5.00"))'


def guard_llm(llm: L, guard: Budget | Session, *, agent: str | None = None) -> L:
    """A copy of *llm*, of the same type, whose every call is held in a budget before it is sent.

    ::

        session = Budget("$1.00").session()
        agent = FunctionAgent(tools=[search], llm=guard_llm(OpenAI(model="gpt-4o"), session))

    Chat, stream and complete methods, sync and async, and all that goes through them: agents, query engines,
    structured output, ``predict_and_call``. The LLM itself is not changed. Guard it once more in another session, and
    its calls are held in both.

    Args:
        llm: The LLM.
        guard: The budget, or the session to spend from. The session of a budget is `session_of(llm)`.
        agent: Whom to attribute its calls to.

    Raises:
        TypeError: If *llm* is no LLM, or *guard* is no budget and no session.
        ValueError: If the SDK of its client is too old.
    """
    check_instance("llm", llm, LLM, "LLM of LlamaIndex", _OWNER)
    before = _state_of(llm)
    inner = None if before is None else before.guard
    guarded = ModelGuard(guard, stops, owner=_OWNER, agent=agent, inner=inner)
    clone = llm.model_copy()
    if before is None:
        object.__setattr__(clone, "__class__", _guarded_class(type(llm)))
    state = _State(guarded, llm if before is None else before.owner)
    object.__setattr__(clone, "__pydantic_private__", {**(clone.__pydantic_private__ or {}), "_budget_guard": state})
    state.is_looked_at = _look_at_clients(clone, state)
    watch_runs()
    return clone


def session_of(llm: LLM) -> Session:
    """The session that a guarded LLM spends from, the outermost one.

    Raises:
        TypeError: If it is not guarded.
    """
    state = _state_of(llm)
    if state is None:
        raise TypeError(f"llm={type(llm).__name__} is not guarded: write {_OWNER}")
    return state.guard.session


class _State:
    """What a guarded LLM knows. Copies of the LLM share it."""

    def __init__(self, guard: ModelGuard, owner: LLM) -> None:
        self.guard = guard
        self.owner = owner
        """The LLM as it was given: the clients are its own."""
        self.is_looked_at = False

    def __deepcopy__(self, _: object) -> _State:
        return self


def _state_of(llm: LLM) -> _State | None:
    return cast("_State | None", getattr(llm, "_budget_guard", None))


class _Call:
    """One call of a guarded LLM, by one of its methods."""

    def __init__(self, llm: LLM, method: str, asked: Any, kwargs: dict[str, Any]) -> None:
        state = cast(_State, _state_of(llm))
        self.guard = state.guard
        self._llm, self._method, self._asked, self._kwargs = llm, method, asked, kwargs
        self._call = model_call(llm, asked, kwargs, agent=self.guard.agent, looked_at=state.is_looked_at)
        self._last: Any = None
        self._written = 0
        note_call(self.guard.latches)

    def ask(self) -> Any:
        held = self.guard.hold(self._call)
        with self.guard.making(held):
            answer = self._send(held)
        self.guard.settle(held, answered(answer))
        return answer

    async def aask(self) -> Any:
        held = await self.guard.ahold(self._call)
        async with self.guard.amaking(held):
            answer = await self._send(held)
        await self.guard.asettle(held, answered(answer))
        return answer

    # A stream is held when it is first read: one that nobody reads would never be settled.

    def stream(self) -> Generator[Any]:
        held = self.guard.hold(self._call)
        with self.guard.making(held):
            pieces = self._send(held)
        yield from self.guard.stream(held, pieces, self._read, self._answered)

    async def astream(self) -> AsyncGenerator[Any]:
        held = await self.guard.ahold(self._call)
        async with self.guard.amaking(held):
            pieces = await self._send(held)
        async with aclosing(self.guard.astream(held, pieces, self._read, self._aanswered)) as guarded:
            async for piece in guarded:
                yield piece

    def _send(self, held: GuardedCall) -> Any:
        """Call the method of the LLM's own class, with the model and the output cap that the budget decided on."""
        llm, changes = self._llm, dict[str, Any]()
        if held.name is not None and held.name != self._call.model:
            if "model" not in type(llm).model_fields:
                raise self.guard.cannot_be_changed(self._call, held, llm)
            changes["model"] = held.name
        field = cap_field(llm)
        if field is not None and held.output_cap is not None and held.output_cap != self._call.max_output_tokens:
            changes[field] = held.output_cap
        sent = llm.model_copy(update=changes) if changes else llm
        return getattr(super(type(llm), sent), self._method)(self._asked, **self._kwargs)

    def _read(self, piece: Any) -> int:
        """Take note of a *piece* of a stream. Returns how many bytes of text have come."""
        if usage_of(piece) is not None or self._last is None or usage_of(self._last) is None:
            self._last = piece
        self._written += len((getattr(piece, "delta", None) or "").encode("utf-8", "surrogatepass"))
        return self._written

    def _answered(self) -> Answered:
        return answered(self._last)

    async def _aanswered(self) -> Answered:
        return answered(self._last)


@cache
def _guarded_class(cls: type[LLM]) -> type[LLM]:
    """*cls*, whose methods hold what they ask for."""
    base: Any = cls

    class Guarded(base):  # type: ignore[misc]  # its base is known only when it runs
        _budget_guard: Any = PrivateAttr(default=None)

        def chat(self, messages: Any, **kwargs: Any) -> Any:
            return _Call(self, "chat", messages, kwargs).ask()

        def complete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return _Call(self, "complete", prompt, _with_formatted(args, kwargs)).ask()

        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            return _Call(self, "stream_chat", messages, kwargs).stream()

        def stream_complete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return _Call(self, "stream_complete", prompt, _with_formatted(args, kwargs)).stream()

        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            return await _Call(self, "achat", messages, kwargs).aask()

        async def acomplete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return await _Call(self, "acomplete", prompt, _with_formatted(args, kwargs)).aask()

        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            return _Call(self, "astream_chat", messages, kwargs).astream()

        async def astream_complete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return _Call(self, "astream_complete", prompt, _with_formatted(args, kwargs)).astream()

        if hasattr(base, "_get_client"):

            def _get_client(self) -> Any:
                return _client_of(self, "_get_client")

        if hasattr(base, "_get_aclient"):

            def _get_aclient(self) -> Any:
                return _client_of(self, "_get_aclient")

    return named_like(cls, Guarded)


def _with_formatted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"formatted": args[0], **kwargs} if args else kwargs


# What it sends, looked at


def _client_of(llm: LLM, method: str) -> Any:
    """The client of the LLM as it was given, which keeps it, looked at."""
    state = _state_of(llm)
    if state is None:
        return getattr(super(type(llm), llm), method)()
    return state.guard.looked_at(getattr(state.owner, method)(), name_of(llm))


def _look_at_clients(llm: LLM, state: _State) -> bool:
    """Look at what *llm* sends, by clients that may be made at the first call. Returns whether that is possible."""
    owner: Any = state.owner
    if hasattr(type(llm), "_get_client") and hasattr(type(llm), "_get_aclient"):
        return _client_of(llm, "_get_client") is not owner._get_client()
    private: dict[str, Any] = llm.__pydantic_private__ or {}
    found = False
    for name in {"_client", "_aclient"} & private.keys():
        client = getattr(owner, name)
        private[name] = client if client is None else state.guard.looked_at(client, name_of(llm))
        found = found or private[name] is not client
    return found
