"""The stops of a framework: the core's errors, each also an exception of the framework's own kind.

Frameworks retry, replace or turn into text for the model what a tool or a model raises, and let only their own fatal
exceptions through. So an adapter raises the core's errors as those, and keeps a `StopLatch` for where even these are
swallowed.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerUnavailable,
    LoopDetected,
    UnboundedCallError,
    UnknownPriceError,
    picklable,
    rebuilt,
)
from budget_guard.session.session import Session

E = TypeVar("E", bound=BudgetError)

_STOPS: tuple[type[BudgetError], ...] = (
    BudgetExceeded,
    BudgetRevoked,
    LoopDetected,
    UnknownPriceError,
    UnboundedCallError,
    InvalidDowngradeError,
    ForeignRun,
    LedgerUnavailable,
)
"""The errors that stop a run."""
STOP_NAMES = tuple(error.__name__ for error in _STOPS)
"""Their names, which are those of every framework's classes of them."""


class Stop(NamedTuple):
    """Why a call may not be made, or must not go on."""

    session: Session
    """The session whose budget says so."""
    error: BudgetError
    """The core's error, for the adapter to raise as one of its framework's `Stops`."""


class Stops:
    """The classes in which one framework's adapter raises the core's errors. Made by `stops_for`."""

    def __init__(self, base: type[Exception]) -> None:
        self.classes: dict[str, type[BudgetError]] = {core.__name__: _stop_class(core, base) for core in _STOPS}
        """The classes by name. Each derives from the core's error of that name, and from the framework's base."""
        self._of_core = {core: self.classes[core.__name__] for core in _STOPS}

    def of(self, core: type[E]) -> type[E]:
        """The class in which errors of type *core* are raised.

        Raises:
            KeyError: If such errors stop no run.
        """
        return cast("type[E]", self._of_core[core])

    def recast(self, error: BudgetError) -> BudgetError:
        """A new error in the framework's terms, to be raised once: frameworks write into what they raise."""
        for core in type(error).__mro__:
            if core in self._of_core:
                return error.recast(self._of_core[core])
        return error

    @contextmanager
    def recasting(self) -> Generator[None]:
        """Raise the core's errors out of the block in the framework's terms."""
        try:
            yield
        except BudgetError as error:
            raise self.recast(error) from error.__cause__


_MADE: dict[type[Exception], Stops] = {}


def stops_for(base: type[Exception]) -> Stops:
    """The stops of the framework whose adapter gives them *base* as a base class; the same ones each time.

    Args:
        base: A class that can be imported by its name, for the stops to be picklable. Derive it from the exception
            that the framework neither retries nor turns into text.
    """
    return _MADE.get(base) or _MADE.setdefault(base, Stops(base))


def _stop_class(core: type[BudgetError], base: type[Exception]) -> type[BudgetError]:
    def reduce(self: BudgetError) -> Any:
        return _unpickled, (base, core.__name__, picklable(self.fields()))

    return type(
        core.__name__,
        (core, base),
        {
            "__doc__": f"As `budget_guard.{core.__name__}`, out of a run.",
            "__module__": base.__module__,
            "__reduce__": reduce,
        },
    )


def _unpickled(base: type[Exception], name: str, fields: dict[str, Any]) -> BudgetError:
    return rebuilt(stops_for(base).classes[name], fields)


class StopLatch:
    """Remembers the stops of one run, so that its next call is stopped again where the framework swallowed them.

    A stop no longer holds once the limits of its session were raised.
    """

    def __init__(self) -> None:
        self._stops: dict[Session, tuple[BudgetError, int]] = {}

    def set(self, stop: Stop) -> None:
        """Remember *stop*."""
        self._stops[stop.session] = (stop.error, stop.session.times_raised)

    def get(self) -> Stop | None:
        """The first stop that still holds."""
        for session, (error, times_raised) in self._stops.items():
            if session.times_raised == times_raised:
                return Stop(session, error)
        return None
