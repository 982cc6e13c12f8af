"""`guard_llm`: a LlamaIndex LLM under a budget."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from functools import cache
from typing import Any, TypeVar, cast

from llama_index.core.llms import LLM
from pydantic import PrivateAttr

from budget_guard import Budget, InvalidDowngradeError, Session
from budget_guard.adapter import GuardedCall, ModelGuard
from budget_guard_llama_index.errors import stops
from budget_guard_llama_index.request import (
    cap_field,
    cap_of,
    model_call,
    name_of,
    text_of,
    usage_of,
)
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
    if isinstance(llm, type):
        raise TypeError(f"llm={llm.__name__} is a class: give an instance, {llm.__name__}(...)")
    if not isinstance(llm, LLM):
        raise TypeError(f"llm={llm!r} is no LLM of LlamaIndex: write {_OWNER}")
    outer = ModelGuard(guard, stops, owner=_OWNER, agent=agent)
    before = _state_of(llm)
    inner = () if before is None else before.guards
    guards = inner if any(each.session is outer.session for each in inner) else (outer, *inner)
    clone = llm.model_copy()
    if before is None:
        object.__setattr__(clone, "__class__", _guarded_class(type(llm)))
    private = dict(clone.__pydantic_private__ or {})
    private["_budget_guard"] = _State(guards, llm if before is None else before.owner)
    object.__setattr__(clone, "__pydantic_private__", private)
    _look_at_clients(clone)
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
    return state.guards[0].session


class _State:
    """What a guarded LLM knows. Copies of the LLM share it."""

    def __init__(self, guards: tuple[ModelGuard, ...], owner: LLM) -> None:
        self.guards = guards
        """The outermost first."""
        self.owner = owner
        """The LLM as it was given: the clients are its own."""
        self.is_looked_at = False

    def __deepcopy__(self, _: object) -> _State:
        return self


def _state_of(llm: LLM) -> _State | None:
    return cast("_State | None", getattr(llm, "_budget_guard", None))


class _Call:
    """One call of a guarded LLM under one of its guards."""

    def __init__(self, llm: LLM, guard: ModelGuard, asked: Any, kwargs: dict[str, Any], looked_at: bool) -> None:
        self.llm = llm
        self.guard = guard
        self.call = model_call(llm, asked, kwargs, agent=guard.agent, looked_at=looked_at)
        self.cap = cap_of(llm, kwargs)
        self.held: GuardedCall
        self.last: Any = None
        self.written = 0
        note_call(guard.latch)

    def sent(self, held: GuardedCall) -> LLM:
        """The LLM to ask: with the model and the output cap that the budget decided on."""
        self.held = held
        changes: dict[str, Any] = {}
        if held.name is not None and held.name != self.call.model:
            if "model" not in type(self.llm).model_fields:
                held.release("the cheaper model could not be made")
                raise stops.recast(
                    InvalidDowngradeError(
                        model=self.call.model,
                        target=held.name,
                        reason=f"{type(self.llm).__name__} has no `model` that could be changed",
                        remedy="Leave out the downgrade for it.",
                    )
                )
            changes["model"] = held.name
        field = cap_field(self.llm)
        if field is not None and held.output_cap is not None and held.output_cap != self.cap:
            changes[field] = held.output_cap
        return self.llm.model_copy(update=changes) if changes else self.llm

    def piece(self, piece: Any) -> Any:
        """Note a *piece* of a stream, which may have to end here."""
        if usage_of(piece) is not None or self.last is None or usage_of(self.last) is None:
            self.last = piece
        self.written += len(getattr(piece, "delta", None) or "")
        self.guard.check_piece(self.held, self.written)
        return piece

    def settle(self, answer: Any) -> None:
        self.guard.settle(self.held, usage_of(answer), text=text_of(answer))

    async def asettle(self, answer: Any) -> None:
        await self.guard.asettle(self.held, usage_of(answer), text=text_of(answer))

    def fail(self, error: BaseException) -> None:
        """Settle a call that ended in *error*, and raise the stop that it is, if it is one."""
        stop = self.guard.failed(self.held, error)
        if stop is not None:
            raise stop from error

    async def afail(self, error: BaseException) -> None:
        stop = await self.guard.afailed(self.held, error)
        if stop is not None:
            raise stop from error


def _ask(cls: Any, method: str, llm: LLM, guards: tuple[ModelGuard, ...], asked: Any, kwargs: dict[str, Any]) -> Any:
    if not guards:
        return getattr(cls, method)(llm, asked, **kwargs)
    call = _Call(llm, guards[0], asked, kwargs, _is_looked_at(llm))
    sent = call.sent(guards[0].hold(call.call))
    try:
        with guards[0].making(call.held):
            answer = _ask(cls, method, sent, guards[1:], asked, kwargs)
    except BaseException as error:
        call.fail(error)
        raise
    call.settle(answer)
    return answer


async def _aask(
    cls: Any, method: str, llm: LLM, guards: tuple[ModelGuard, ...], asked: Any, kwargs: dict[str, Any]
) -> Any:
    if not guards:
        return await getattr(cls, method)(llm, asked, **kwargs)
    call = _Call(llm, guards[0], asked, kwargs, _is_looked_at(llm))
    sent = call.sent(await guards[0].ahold(call.call))
    try:
        with guards[0].making(call.held):
            answer = await _aask(cls, method, sent, guards[1:], asked, kwargs)
    except BaseException as error:
        await call.afail(error)
        raise
    await call.asettle(answer)
    return answer


def _stream(
    cls: Any, method: str, llm: LLM, guards: tuple[ModelGuard, ...], asked: Any, kwargs: dict[str, Any]
) -> Generator[Any]:
    # held when it is first read: a stream that nobody reads would never be settled
    if not guards:
        yield from getattr(cls, method)(llm, asked, **kwargs)
        return
    call = _Call(llm, guards[0], asked, kwargs, _is_looked_at(llm))
    sent = call.sent(guards[0].hold(call.call))
    pieces = _stream(cls, method, sent, guards[1:], asked, kwargs)
    try:
        while True:
            with guards[0].making(call.held):  # one step: the reader runs between the steps
                piece = next(pieces, None)
            if piece is None:
                break
            yield call.piece(piece)
    except BaseException as error:
        pieces.close()
        call.fail(error)
        raise
    call.settle(call.last)


async def _astream(
    cls: Any, method: str, llm: LLM, guards: tuple[ModelGuard, ...], asked: Any, kwargs: dict[str, Any]
) -> AsyncGenerator[Any]:
    if not guards:
        source = await getattr(cls, method)(llm, asked, **kwargs)
        try:
            async for piece in source:
                yield piece
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
        return
    call = _Call(llm, guards[0], asked, kwargs, _is_looked_at(llm))
    sent = call.sent(await guards[0].ahold(call.call))
    pieces = _astream(cls, method, sent, guards[1:], asked, kwargs)
    try:
        while True:
            with guards[0].making(call.held):
                piece = await anext(pieces, None)
            if piece is None:
                break
            yield call.piece(piece)
    except BaseException as error:
        await pieces.aclose()
        await call.afail(error)
        raise
    await call.asettle(call.last)


@cache
def _guarded_class(cls: type[LLM]) -> type[LLM]:
    """*cls*, whose methods hold what they ask for."""
    base: Any = cls

    class Guarded(base):  # type: ignore[misc]  # its base is known only when it runs
        _budget_guard: Any = PrivateAttr(default=None)

        def chat(self, messages: Any, **kwargs: Any) -> Any:
            return _ask(cls, "chat", self, _guards_of(self), messages, kwargs)

        def complete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return _ask(cls, "complete", self, _guards_of(self), prompt, _with_formatted(args, kwargs))

        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            return _stream(cls, "stream_chat", self, _guards_of(self), messages, kwargs)

        def stream_complete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return _stream(cls, "stream_complete", self, _guards_of(self), prompt, _with_formatted(args, kwargs))

        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            return await _aask(cls, "achat", self, _guards_of(self), messages, kwargs)

        async def acomplete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return await _aask(cls, "acomplete", self, _guards_of(self), prompt, _with_formatted(args, kwargs))

        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            return _astream(cls, "astream_chat", self, _guards_of(self), messages, kwargs)

        async def astream_complete(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            return _astream(cls, "astream_complete", self, _guards_of(self), prompt, _with_formatted(args, kwargs))

        if hasattr(base, "_get_client"):

            def _get_client(self) -> Any:
                return _client_of(self, "_get_client")

        if hasattr(base, "_get_aclient"):

            def _get_aclient(self) -> Any:
                return _client_of(self, "_get_aclient")

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Guarded, name, getattr(cls, name))
    return cast("type[LLM]", Guarded)


def _guards_of(llm: LLM) -> tuple[ModelGuard, ...]:
    state = _state_of(llm)
    return () if state is None else state.guards


def _with_formatted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"formatted": args[0], **kwargs} if args else kwargs


def _client_of(llm: LLM, method: str) -> Any:
    """The client of the LLM as it was given, which keeps it, looked at in every session."""
    state = _state_of(llm)
    if state is None:
        return getattr(super(type(llm), llm), method)()
    client = getattr(state.owner, method)()
    for guard in reversed(state.guards):
        client = guard.looked_at(client, name_of(llm))
    return client


def _is_looked_at(llm: LLM) -> bool:
    state = _state_of(llm)
    return state is not None and state.is_looked_at


def _look_at_clients(llm: LLM) -> None:
    """Look at what *llm* sends, where its clients can be; they may be made at the first call."""
    state = _state_of(llm)
    if state is None:
        return
    owner: Any = state.owner
    if hasattr(type(llm), "_get_client") and hasattr(type(llm), "_get_aclient"):
        state.is_looked_at = _client_of(llm, "_get_client") is not owner._get_client()
        return
    private: dict[str, Any] = llm.__pydantic_private__ or {}
    for name in ("_client", "_aclient"):
        client = getattr(owner, name, None)
        looked_at = client
        for guard in reversed(state.guards):
            looked_at = None if looked_at is None else guard.looked_at(looked_at, name_of(llm))
        if looked_at is not client and name in private:
            private[name] = looked_at
            state.is_looked_at = True
