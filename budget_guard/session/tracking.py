"""Priced tools: a user's own functions, held before they run and booked by what they cost.

One price, and one wrapper for each kind of function. All of them hold, run, and settle by the same rule: what the
function returned is booked at its cost; what it raised is given back only if that proves that nothing was billed, and
is booked as held otherwise, a cancellation included.
"""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from budget_guard.calls.collected import settle_elsewhere
from budget_guard.calls.reservation import Reservation
from budget_guard.units.money import UsdLike, nano_of
from budget_guard.wire.outcome import never_billed

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

ToolPrice: TypeAlias = "UsdLike | Callable[[Any], UsdLike]"
"""What a tool costs a call, in dollars: an amount, or a function of its result."""
ToolEstimate: TypeAlias = "UsdLike | Callable[..., UsdLike]"
"""What a tool costs a call at most, in dollars: an amount, or a function of its arguments."""

_log = logging.getLogger("budget_guard")


class HoldsTools(Protocol):
    """What holds a tool call: a session."""

    def hold_tool(self, tool: str, cost: int, agent: str | None, arguments: object) -> Reservation:
        """Hold *cost* nano-dollars for a call of *tool* with *arguments*.

        Raises:
            BudgetError: If it may not be made.
        """
        ...

    async def ahold_tool(self, tool: str, cost: int, agent: str | None, arguments: object) -> Reservation:
        """As `hold_tool`."""
        ...


class _Tool:
    """One tracked function: its name, its price, and whose money it spends."""

    def __init__(
        self,
        function: object,
        session: Callable[[], HoldsTools],
        cost: ToolPrice | None,
        estimate: ToolEstimate | None,
        name: str | None,
        agent: str | None,
    ) -> None:
        self.name = name or _name_of(function)
        self.agent = agent
        self._session = session
        self._cost = cost
        self._estimate = estimate
        self._warned = False
        self._known = 0
        """What is held for each call where no function says it, in nano-dollars."""
        if cost is not None and not callable(cost):
            self._known = nano_of(cost, f"cost of the tool {self.name!r}")
        if estimate is not None and not callable(estimate):
            self._known = nano_of(estimate, f"estimate of the tool {self.name!r}")

    @property
    def depends_on_result(self) -> bool:
        """Whether only the result tells what a call cost."""
        return callable(self._cost)

    def hold(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reservation:
        """Hold a call with these arguments."""
        return self._session().hold_tool(self.name, self._most(args, kwargs), self.agent, (args, kwargs))

    async def ahold(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reservation:
        """As `hold`."""
        return await self._session().ahold_tool(self.name, self._most(args, kwargs), self.agent, (args, kwargs))

    def _most(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        if callable(self._estimate):
            return nano_of(self._estimate(*args, **kwargs), f"estimate of the tool {self.name!r}")
        return self._known

    def returned(self, hold: Reservation, result: object) -> None:
        """Book a call by its *result*."""
        hold.note_result(result)
        hold.commit_cost(self._cost_of(result))

    async def areturned(self, hold: Reservation, result: object) -> None:
        """As `returned`, to its end even where the task is cancelled."""
        hold.note_result(result)
        await to_the_end(hold.acommit_cost(self._cost_of(result)))

    def failed(self, hold: Reservation, error: BaseException) -> None:
        """Settle a call that raised *error*."""
        hold.note_result(error)
        if never_billed(error):
            hold.release(type(error).__name__)
        else:
            hold.commit_cost()

    async def afailed(self, hold: Reservation, error: BaseException) -> None:
        """As `failed`."""
        hold.note_result(error)
        never = never_billed(error)
        await to_the_end(hold.arelease(type(error).__name__) if never else _dropping(hold.acommit_cost()))

    def given_up(self, hold: Reservation) -> None:
        """Book a call that nobody waits for any more. On another thread: this one may be collecting garbage, within a
        ledger whose lock it holds."""
        if hold.settled:
            return

        def settle() -> None:
            if not hold.settled:
                hold.commit_cost()

        settle_elsewhere(settle)

    def _cost_of(self, result: object) -> UsdLike | None:
        """What a call with *result* cost; None for what was held. The result is paid for, so nothing here raises."""
        if not callable(self._cost):
            return self._cost
        try:
            cost = self._cost(result)
            nano_of(cost, "cost")
        except Exception as error:
            self._warn(error)
            return None
        return cost

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        words = f"The cost of the tool {self.name!r} is not known, so what was held for it is booked: {error!r}"
        try:
            warnings.warn(words, RuntimeWarning, stacklevel=5)
        except RuntimeWarning:  # made an error by a filter, which is no reason to lose the result
            _log.warning("budget_guard: %s", words)


def tracked(
    function: Callable[P, R],
    session: Callable[[], HoldsTools],
    *,
    cost: ToolPrice | None,
    estimate: ToolEstimate | None,
    tool: str | None,
    agent: str | None,
) -> Callable[P, R]:
    """*function*, each call of which is held and booked.

    Args:
        function: The tool: a function, plain, async, or a generator; a bound method, or any other callable.
        session: Tells the session that a call spends from.
        cost: What a call costs; None for nothing, or for what was estimated.
        estimate: What a call costs at most; None for its cost, where that is an amount.
        tool: The tool's name; the function's own by default.
        agent: Whom to attribute the calls to.

    Raises:
        TypeError: If it cannot be called, or is a generator whose cost only a result would tell.
        ValueError: If an amount is none.
    """
    if not callable(cast("object", function)):
        raise TypeError(f"track_tool: {function!r} is no function: put @track_tool(...) nearest to the function")
    price = _Tool(function, session, cost, estimate, tool, agent)
    given: Any = function
    is_object = not inspect.isroutine(function) and not isinstance(function, functools.partial)
    kind: Any = given.__call__ if is_object else given
    if inspect.isasyncgenfunction(kind) or inspect.isgeneratorfunction(kind):
        if price.depends_on_result:
            raise TypeError(
                f"cost of the tool {price.name!r} is a function of its result, and it is a generator, which has none: "
                "give an amount, or an estimate=lambda *args: ... of its arguments"
            )
        made: Any = _async_generator if inspect.isasyncgenfunction(kind) else _generator
    else:
        made = _coroutine if inspect.iscoroutinefunction(kind) else _plain
    return cast("Callable[P, R]", made(function, price))


def _name_of(function: object) -> str:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _plain(function: Callable[..., Any], price: _Tool) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        hold = price.hold(args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            price.failed(hold, error)
            raise
        if inspect.isawaitable(result):
            return _awaited(result, hold, price)
        price.returned(hold, result)
        return result

    return call


def _awaited(result: Awaitable[T], hold: Reservation, price: _Tool) -> Coroutine[Any, Any, T]:
    """The awaitable that a plain function has returned, which settles the call when it is awaited, or given up."""
    later = _until_done(result, hold, price)
    weakref.finalize(later, price.given_up, hold).atexit = False
    return later


async def _until_done(result: Awaitable[T], hold: Reservation, price: _Tool) -> T:
    try:
        value = await result
    except BaseException as error:
        await price.afailed(hold, error)
        raise
    await price.areturned(hold, value)
    return value


def _coroutine(function: Callable[..., Awaitable[Any]], price: _Tool) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        hold = await price.ahold(args, kwargs)
        return await _until_done(function(*args, **kwargs), hold, price)

    return call


def _generator(function: Callable[..., Generator[Any, Any, Any]], price: _Tool) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        hold = price.hold(args, kwargs)
        try:
            result = yield from function(*args, **kwargs)
        except GeneratorExit:
            price.given_up(hold)
            raise
        except BaseException as error:
            price.failed(hold, error)
            raise
        price.returned(hold, result)
        return result

    return call


def _async_generator(function: Callable[..., AsyncGenerator[Any, Any]], price: _Tool) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        hold = await price.ahold(args, kwargs)
        inner = function(*args, **kwargs)
        try:
            step: Awaitable[Any] = inner.__anext__()
            while True:
                try:
                    value = await step
                except StopAsyncIteration:
                    break
                try:
                    sent = yield value
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:
                    step = inner.athrow(error)
                else:
                    step = inner.asend(sent)
        except BaseException as error:
            await price.afailed(hold, error)
            raise
        await price.areturned(hold, None)

    return call


async def to_the_end(settling: Coroutine[Any, Any, T]) -> T:
    """Await *settling*, and keep back a cancellation until it is done: what is spent is booked."""
    import asyncio  # as `SystemClock.wait_async` does

    task = asyncio.ensure_future(settling)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


async def _dropping(settling: Coroutine[Any, Any, object]) -> None:
    await settling
