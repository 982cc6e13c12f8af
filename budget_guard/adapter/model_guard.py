"""The guard of one model of a framework: what all adapters share that stand in for a model and its methods.

::

    class GuardedModel(FrameworkModel):
        def __init__(self, model, guard):
            self.guard = ModelGuard(guard, stops, owner='GuardedModel(model, Budget("$5.00"))')

        async def ask(self, request):
            held = await self.guard.ahold(model_call(request))
            try:
                with self.guard.making(held):
                    answer = await self.model.ask({**request, "model": held.name or request["model"]})
            except BaseException as error:
                raise await self.guard.afailed(held, error) or error
            await self.guard.asettle(held, usage_of(answer), text=answer.text)
            return answer
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast
from weakref import WeakValueDictionary

from budget_guard.adapter.attempts import begin_counting, counted_by, counting_nothing, end_counting
from budget_guard.adapter.guarded_call import GuardedCall
from budget_guard.adapter.handle import SessionHandle
from budget_guard.adapter.stops import Stop, StopLatch, Stops
from budget_guard.calls.call import ModelCall
from budget_guard.errors import BudgetError, BudgetExceeded, BudgetRevoked
from budget_guard.session.budget import Budget
from budget_guard.session.session import Session
from budget_guard.units.usage import Usage
from budget_guard.wire.reader import LONGEST_TOKEN

T = TypeVar("T")

_MOST_CAUSES = 16
_MOST_LOOKS = 16


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


class ModelGuard(SessionHandle):
    """The budget that the calls of one model are held in, and the framework's terms for its stops.

    Args:
        guard: A budget, which becomes a session of its own, or the session to spend from.
        stops: The stops in the framework's terms.
        owner: How a user makes it, for errors: ``BudgetModel(model, Budget("$5.00"))``.
        agent: Whom to attribute the calls to.

    Raises:
        TypeError: If *guard* is neither.
    """

    def __init__(self, guard: Budget | Session, stops: Stops, *, owner: str, agent: str | None = None) -> None:
        self.session = session_of(guard, owner)
        self.stops = stops
        self.agent = agent
        self.latch = latch_of(self.session)
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
        return GuardedCall([] if is_counted(self.session) else [self.session], latch=self.latch)

    def _admitted(self, held: GuardedCall, stop: Stop | None) -> GuardedCall:
        if stop is not None:
            raise self.stopped(stop)
        return held

    def stopped(self, stop: Stop) -> BudgetError:
        """*stop* as the error to raise, latched."""
        self.latch.set(stop)
        return self.stops.recast(stop.error)

    # While it is made

    @contextmanager
    def making(self, held: GuardedCall) -> Generator[None]:
        """Say to what is below that *held* is held, while the block sends it. Leave it before the user's code runs."""
        if not held.sessions:
            yield
            return
        token = begin_counting(held)
        try:
            yield
        finally:
            end_counting(token)

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
        try:
            looked_at = self.session.guard(client, agent=self.agent)
        except TypeError:
            return client
        except ValueError:
            looked_at = self.session.guard(client, agent=self.agent, models={model: model})
        if len(self._looks) >= _MOST_LOOKS:
            self._looks.clear()
        self._looks[id(client)] = (client, http, looked_at)
        return looked_at

    def check_piece(self, held: GuardedCall, written: int) -> None:
        """Stop a stream that must not go on.

        Args:
            held: Its call.
            written: Bytes of output that have come so far.

        Raises:
            BudgetError: In the framework's terms, if the run was revoked, or a limit is passed.
        """
        stop = held.interruption(-(-written // LONGEST_TOKEN))
        if stop is not None:
            raise self.stopped(stop)

    # After it

    def settle(self, held: GuardedCall, usage: Usage | None, *, cut_off: bool = False, text: str | None = None) -> None:
        """Book what the answer used.

        Args:
            held: Its call.
            usage: What it used; None where that is not known.
            cut_off: Whether an output cap ended it.
            text: What it said, for the stop to carry.

        Raises:
            BudgetExceeded: In the framework's terms, if the budget's own output cap cut it off.
        """
        held.commit(usage)
        self._check_cut(held, usage, cut_off, text)

    async def asettle(
        self, held: GuardedCall, usage: Usage | None, *, cut_off: bool = False, text: str | None = None
    ) -> None:
        """As `settle`."""
        await held.acommit(usage)
        self._check_cut(held, usage, cut_off, text)

    def _check_cut(self, held: GuardedCall, usage: Usage | None, cut_off: bool, text: str | None) -> None:
        booked = held.answer
        if booked is not None:
            usage, cut_off = booked.usage, booked.cut_off
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
        if refusal is None:
            held.fail(error)
            return None
        held.release("it was not sent")  # what was sent before, if anything, is settled below
        return self._translated(refusal, error)

    async def afailed(self, held: GuardedCall, error: BaseException) -> BudgetError | None:
        """As `failed`."""
        refusal = self.refusal_below(error)
        if refusal is None:
            await held.afail(error)
            return None
        await held.arelease("it was not sent")
        return self._translated(refusal, error)

    def refusal_below(self, error: BaseException) -> BudgetError | None:
        """The stop of a guarded client below. One in the framework's own terms has come from a run inside."""
        refusal = refusal_in(error)
        return None if refusal is None or type(refusal) in self.stops.classes.values() else refusal

    def _translated(self, refusal: BudgetError, error: BaseException) -> BudgetError:
        found = self.stopped(Stop(self.session, refusal))
        found.__cause__ = error
        return found

    # What runs inside

    @contextmanager
    def around(self) -> Generator[None]:
        """Around an agent's run, or a tool that may run other agents: what stops these stops this one's next call.

        What is called inside is not a part of a call that is being made.
        """
        with inside_of((self.latch,)):
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
