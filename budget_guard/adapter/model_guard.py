"""The guard of one model of a framework: what all adapters share that stand in for a model and its methods.

::

    class GuardedModel(FrameworkModel):
        def __init__(self, model, guard):
            self.guard = ModelGuard(guard, stops, owner='GuardedModel(model, Budget("$5.00"))')

        async def ask(self, request):
            held = await self.guard.ahold(model_call(request))
            async with self.guard.amaking(held):
                answer = await self.model.ask({**request, "model": held.name})
            await self.guard.asettle(held, Answered(usage_of(answer.usage), text=answer.text))
            return answer

        def stream(self, request): ...  # as well, and then `self.guard.astream(held, pieces, read, answered)`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakSet, WeakValueDictionary

from budget_guard.adapter.attempts import begin_counting, counted_by, counting_nothing, end_counting
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard.adapter.handle import SessionHandle
from budget_guard.adapter.stops import Stop, StopLatch, Stops
from budget_guard.calls.call import ModelCall
from budget_guard.errors import BudgetError, BudgetExceeded, BudgetRevoked, InvalidDowngradeError
from budget_guard.session.budget import Budget
from budget_guard.session.session import Session
from budget_guard.units.usage import Usage
from budget_guard.wire.reader import LONGEST_TOKEN

T = TypeVar("T")

_MOST_CAUSES = 16
_MOST_LOOKS = 16


class Answered(NamedTuple):
    """What a framework says of an answer."""

    usage: Usage | None
    """What it used; None where that is not known."""
    cut_off: bool = False
    """Whether the provider says that an output cap ended it."""
    text: str | None = None
    """What it said, for a stop to carry."""


class SessionLatch(StopLatch):
    """Remembers what stopped a session, in whichever adapter and thread that was.

    A limit that begins anew by itself is asked of the ledger each time, and so is what stops one call alone, such as a
    price that is not known.
    """

    def set(self, stop: Stop) -> None:
        """Remember *stop*, here and in the latches of all runs that this one is inside of."""
        if not isinstance(stop.error, (BudgetExceeded, BudgetRevoked)) or stop.error.resets_at is not None:
            return
        for latch in {self, *_around.get()}:
            StopLatch.set(latch, stop)


_latches: WeakValueDictionary[int, SessionLatch] = WeakValueDictionary()
_around: ContextVar[tuple[SessionLatch, ...]] = ContextVar("budget_guard_around", default=())


def latch_of(session: Session) -> SessionLatch:
    """The latch of *session*: the same one for all that hold it, as long as one of them has it."""
    latch = _latches.get(id(session))
    if latch is None:
        latch = _latches[id(session)] = SessionLatch()
    return latch


class _AnyLatch(StopLatch):
    """The latches of several sessions that pay for the same calls, of which any stops them."""

    def __init__(self, latches: Iterable[SessionLatch]) -> None:
        super().__init__()
        self._latches = tuple(latches)

    def set(self, stop: Stop) -> None:
        latch_of(stop.session).set(stop)

    def get(self) -> Stop | None:
        return next((stop for latch in self._latches if (stop := latch.get()) is not None), None)


_refused_below: WeakSet[BaseException] = WeakSet()
"""Stops of guards below a call that was being made, by which it was not sent."""


class _Unsent(Exception):
    """Why a call that is held is not sent after all."""

    def __init__(self, error: BudgetError) -> None:
        super().__init__(error)
        self.error = error


class ModelGuard(SessionHandle):
    """The budget that the calls of one model are held in, and the framework's terms for its stops.

    Args:
        guard: A budget, which becomes a session of its own, or the session to spend from.
        stops: The stops in the framework's terms.
        owner: How a user makes it, for errors: ``BudgetModel(model, Budget("$5.00"))``.
        agent: Whom to attribute the calls to, unless *inner* says.
        inner: The guard that the model has already. Its sessions pay as well, each once.

    Raises:
        TypeError: If *guard* is neither.
    """

    def __init__(
        self,
        guard: Budget | Session,
        stops: Stops,
        *,
        owner: str,
        agent: str | None = None,
        inner: ModelGuard | None = None,
    ) -> None:
        session = session_of(guard, owner)
        before = [] if inner is None else list(inner.sessions)
        self.sessions: tuple[Session, ...] = tuple(before if session in before else [session, *before])
        """Those that pay, the outermost first."""
        self.session = self.sessions[0]
        self.stops = stops
        self.agent: str | None = agent if inner is None or inner.agent is None else inner.agent
        self.latches = tuple(latch_of(each) for each in self.sessions)
        self.latch = self.latches[0]
        self._any_latch = self.latch if len(self.latches) == 1 else _AnyLatch(self.latches)
        self._looks: dict[int, tuple[object, object, object]] = {}

    # Before the call

    def hold(self, call: ModelCall) -> GuardedCall:
        """Hold the worst case of *call*, unless a layer above has held it in the same session.

        It may wait for room, but never blocks an event loop.

        Raises:
            BudgetError: In the framework's terms, if it may not be made. Nothing is held then.
        """
        held = self._unheld()
        return self._admitted(held, held.hold(call, may_wait=not on_event_loop()))

    async def ahold(self, call: ModelCall) -> GuardedCall:
        """As `hold`, and waits without blocking."""
        held = self._unheld()
        return self._admitted(held, await held.ahold(call))

    def _unheld(self) -> GuardedCall:
        return GuardedCall([each for each in self.sessions if not is_counted(each)], latch=self._any_latch)

    def _admitted(self, held: GuardedCall, stop: Stop | None) -> GuardedCall:
        if stop is not None:
            error = self.stopped(stop)
            if counted_by().calls:
                _refused_below.add(error)
            raise error
        return held

    def stopped(self, stop: Stop) -> BudgetError:
        """*stop* as the error to raise, latched."""
        latch_of(stop.session).set(stop)
        return self.stops.recast(stop.error)

    def cannot_be_changed(self, call: ModelCall, held: GuardedCall, model: object) -> Exception:
        """What to raise inside of `making` where *model* cannot be asked under the cheaper name that *held* has."""
        return _Unsent(
            InvalidDowngradeError(
                model=call.model,
                target=held.name or "",
                reason=f"{type(model).__name__} has no name that could be changed",
                remedy="Leave out the downgrade for it, or use a model whose name can be changed.",
            )
        )

    # While it is made

    @contextmanager
    def making(self, held: GuardedCall) -> Generator[None]:
        """While the block sends the call, what is below is told that it is held. If the block raises, it is settled.

        Leave it before the user's code runs.

        Raises:
            BudgetError: In the framework's terms, in place of the error that a layer below has refused it with.
        """
        try:
            with _counting(held):
                yield
        except BaseException as error:
            stop = self.failed(held, error)
            if stop is not None:
                raise stop from stop.__cause__
            raise

    @asynccontextmanager
    async def amaking(self, held: GuardedCall) -> AsyncGenerator[None]:
        """As `making`."""
        try:
            with _counting(held):
                yield
        except BaseException as error:
            stop = await self.afailed(held, error)
            if stop is not None:
                raise stop from stop.__cause__
            raise

    def stream(
        self,
        held: GuardedCall,
        pieces: Iterable[T],
        read: Callable[[T], int],
        answered: Callable[[], Answered],
    ) -> Generator[T]:
        """The *pieces* of a streamed answer, as they come. It is settled when it ends, however that is.

        Args:
            held: Its call.
            pieces: What the model makes of it.
            read: Takes note of a piece. Returns how many bytes of output have come so far.
            answered: What all of it says, once it has ended.
        """
        iterator = iter(pieces)
        try:
            while True:
                with _counting(held):  # one step: whoever reads runs between the steps
                    piece = next(iterator, None)
                if piece is None:
                    break
                self._check_piece(held, read(piece))
                yield piece
            answer = answered()
        except BaseException as error:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            stop = self.failed(held, error)
            if stop is not None:
                raise stop from stop.__cause__
            raise
        self.settle(held, answer)

    async def astream(
        self,
        held: GuardedCall,
        pieces: AsyncIterable[T],
        read: Callable[[T], int],
        answered: Callable[[], Awaitable[Answered]],
    ) -> AsyncGenerator[T]:
        """As `stream`."""
        iterator = aiter(pieces)
        try:
            while True:
                with _counting(held):
                    piece = await anext(iterator, None)
                if piece is None:
                    break
                self._check_piece(held, read(piece))
                yield piece
            answer = await answered()
        except BaseException as error:
            close = getattr(iterator, "aclose", None) or getattr(iterator, "close", None)
            if close is not None:
                await close()
            stop = await self.afailed(held, error)
            if stop is not None:
                raise stop from stop.__cause__
            raise
        await self.asettle(held, answer)

    def looked_at(self, client: T, model: str) -> T:
        """*client*, with a look at what it really sends: its own retries are held, and raw answers are booked.

        Args:
            client: A provider's client. One that cannot be looked at is given back as it is.
            model: The name under which it calls its model, which is taken for the model where nothing is known of
                its address.

        Raises:
            ValueError: If its SDK is too old.
        """
        http = getattr(client, "_client", None)  # a framework may renew it
        known = self._looks.get(id(client))
        if known is not None and known[0] is client and known[1] is http:
            return cast(T, known[2])
        looked_at: Any = client
        for session in reversed(self.sessions):
            try:
                looked_at = session.guard(looked_at, agent=self.agent)
            except TypeError:
                return client
            except ValueError:
                looked_at = session.guard(looked_at, agent=self.agent, models={model: model})
        if len(self._looks) >= _MOST_LOOKS:
            self._looks.clear()
        self._looks[id(client)] = (client, http, looked_at)
        return cast(T, looked_at)

    def _check_piece(self, held: GuardedCall, written: int) -> None:
        """Stop a stream of which *written* bytes have come, if the run was revoked, or a limit is passed."""
        stop = held.interruption(-(-written // LONGEST_TOKEN))
        if stop is not None:
            raise self.stopped(stop)

    # After it

    def settle(self, held: GuardedCall, answer: Answered) -> None:
        """Book what the answer used.

        Raises:
            BudgetExceeded: In the framework's terms, if the budget's own output cap cut it off.
        """
        held.commit(answer.usage)
        self._check_cut(held, answer)

    async def asettle(self, held: GuardedCall, answer: Answered) -> None:
        """As `settle`."""
        await held.acommit(answer.usage)
        self._check_cut(held, answer)

    def _check_cut(self, held: GuardedCall, answer: Answered) -> None:
        usage, cut_off, text = answer
        if held.answer is not None:  # what the wire said
            usage, cut_off = held.answer.usage, held.answer.cut_off
        stop = held.cut_short(usage, known=cut_off)
        if stop is not None:
            stop.error.partial_output = text
            raise self.stopped(stop)

    def failed(self, held: GuardedCall, error: BaseException) -> BudgetError | None:
        """Settle a call that ended in *error*.

        Returns:
            The stop to raise in its place, where a layer below has refused it; None to raise *error* as it is.
        """
        refusal = self.refusal_below(error)
        if refusal is None and error not in _refused_below:
            held.fail(error)
        else:
            held.release("it was not sent")  # what was sent before, if anything, is settled below
        return refusal

    async def afailed(self, held: GuardedCall, error: BaseException) -> BudgetError | None:
        """As `failed`."""
        refusal = self.refusal_below(error)
        if refusal is None and error not in _refused_below:
            await held.afail(error)
        else:
            await held.arelease("it was not sent")
        return refusal

    def refusal_below(self, error: BaseException) -> BudgetError | None:
        """The stop to raise for the refusal of a guarded client below, latched; None where *error* has none.

        A stop in the framework's own terms, of a run inside or of a guard below, is raised as it is.
        """
        if isinstance(error, _Unsent):
            return self.stops.recast(error.error)
        refusal = refusal_in(error)
        if refusal is None or type(refusal) in self.stops.classes.values():
            return None
        stop = self.stopped(Stop(self.session, refusal))
        stop.__cause__ = error
        return stop

    # What runs inside

    @contextmanager
    def around(self) -> Generator[None]:
        """Around an agent's run, or a tool that may run other agents: what stops these stops this one's next call.

        What is called inside is not a part of a call that is being made.
        """
        with inside_of(self.latches):
            yield


@contextmanager
def inside_of(latches: Iterable[SessionLatch]) -> Generator[None]:
    """As `ModelGuard.around`, for a run whose calls several latches stop: what stops inside is latched in all."""
    token = _around.set((*_around.get(), *latches))
    try:
        with counting_nothing():
            yield
    finally:
        try:
            _around.reset(token)
        except ValueError:  # left in another context, which has its own
            pass


def session_of(guard: object, owner: str) -> Session:
    """The session that *guard* is, or a new one of the budget that it is.

    Args:
        guard: What was given as one.
        owner: How a user makes what it was given to.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(guard, Session):
        return guard
    if isinstance(guard, Budget):
        return guard.session()
    raise TypeError(f"guard={guard!r} is neither a Budget nor a Session: write {owner}")


@contextmanager
def _counting(held: GuardedCall) -> Generator[None]:
    """While the block sends the call, what is below is told that *held* is held."""
    if not held.sessions:
        yield
        return
    token = begin_counting(held)
    try:
        yield
    finally:
        end_counting(token)


def on_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_counted(session: Session) -> bool:
    """Whether a layer above has held the call that is being made in *session*."""
    return any(
        session in call.sessions and all(isinstance(hold.call, ModelCall) for hold in call.holds)
        for call in counted_by().calls
    )


def refusal_in(error: BaseException) -> BudgetError | None:
    """The error of ours that *error* is, or was raised from."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None or isinstance(cause, BudgetError):
            return cause
        cause = cause.__cause__
    return None
