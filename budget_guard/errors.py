"""Every error of the library, under one root.

::

    BudgetError
    ├── BudgetExceeded          a limit would be, or was, passed
    ├── BudgetRevoked           a run, user or key was cut off
    ├── LoopDetected            the run repeats itself
    ├── UnknownPriceError       the price of a model, a tier or a billed unit is not known
    ├── UnboundedCallError      nothing bounds what the call may cost
    ├── InvalidDowngradeError   the cheaper model cannot stand in for the one asked for
    ├── ReservationError        a hold was used in a way that its history forbids
    │   ├── ReservationConflict     the same id with other parameters
    │   ├── StaleReservation        an id that is older than what the ledger remembers
    │   └── UnknownReservation      an id that the ledger never saw
    ├── ForeignRun              a run's id is another principal's
    └── LedgerUnavailable       the counters cannot be reached
        └── LedgerAmbiguous         they may have been reached, and it is not known

An adapter raises a subclass that derives from its framework's own base as well, made by `BudgetError.recast`, so
``except BudgetExceeded`` works everywhere. Errors carry fields, are picklable, and say what to do. Names from outside
are escaped in what they say.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from budget_guard.units.money import cost_nano, format_usd
from budget_guard.units.printable import escaped

if TYPE_CHECKING:
    from budget_guard.reporting.report import BudgetReport

E = TypeVar("E", bound="BudgetError")


_LATER = ("partial_output", "value", "resets_at", "retry_after_s", "user_message", "waiting_helps", "reserved")
"""The fields that are set on an error after it was made, where they make sense."""


class BudgetError(Exception):
    """Root of every error that this library raises on purpose."""

    _fields: ClassVar[tuple[str, ...]] = ()
    http_status: ClassVar[int] = 402
    """The HTTP status that a service may answer with: 402, payment required; 503 where only the ledger is missing."""
    decision_id: str | None = None
    """The id of the decision in the session's log; None where there was none."""
    partial_output: str | None = None
    """What the model had answered until then; None where nothing came, or nothing was asked."""
    value: Any = None
    """What the work that is charged has brought, where the stop came after it; None where there is nothing."""
    resets_at: datetime | None = None
    """When the limit begins anew (UTC); None where it never does, or that is not known."""
    retry_after_s: float | None = None
    """Seconds after which it makes sense to try again; None where waiting does not help, or that is not known."""
    user_message: str = "This cannot be answered just now."
    """What may be said to an end user: no amount, no name. `str` of the error is for developers."""
    waiting_helps: bool | None = None
    """Whether the same call may fit once the other calls in flight are over; None where that makes no sense."""
    reserved: Decimal | int | None = None
    """The part of what stands against a limit that is only held for calls in flight, in its unit; None where that is
    not known. The rest is spent."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(escaped(each) if isinstance(each, str) else each for each in args))

    def fields(self) -> dict[str, Any]:
        """The keyword arguments that make an equal error, and what was set on it later. See `rebuilt`."""
        later = {name: value for name, value in vars(self).items() if name in _LATER and value is not None}
        return {name: getattr(self, name) for name in self._fields} | later

    def recast(self, cls: type[E]) -> E:
        """The same error as *cls*, a subclass of this error's type."""
        error = rebuilt(cls, self.fields())
        error.__cause__ = self.__cause__
        return error

    def __reduce__(self) -> Any:
        if not self._fields:
            return super().__reduce__()
        return rebuilt, (type(self), picklable(self.fields()))


def rebuilt(cls: type[E], fields: Mapping[str, Any]) -> E:
    """The error whose `BudgetError.fields` are *fields*, as *cls*."""
    error = cls(**{name: value for name, value in fields.items() if name not in _LATER})
    for name in _LATER:
        if name in fields:
            setattr(error, name, fields[name])
    return error


def picklable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """*fields* without a ``value`` that cannot be pickled: it is whatever a tool returned."""
    try:
        pickle.dumps(fields.get("value"))
    except Exception:
        return {name: value for name, value in fields.items() if name != "value"}
    return dict(fields)


class BudgetExceeded(BudgetError):
    """A limit would be passed by the next call, or was passed by money already spent."""

    user_message = "The budget for this is used up."
    _fields = ("dimension", "limit", "actual", "scope", "estimate", "decision_id", "report", "detail", "remedy")

    def __init__(
        self,
        *,
        dimension: str,
        limit: Decimal | float,
        actual: Decimal | float,
        scope: str,
        estimate: Decimal | float | None = None,
        decision_id: str | None = None,
        report: BudgetReport | None = None,
        detail: str = "",
        remedy: str = "",
    ) -> None:
        self.dimension = dimension
        """The name of the `Budget` field whose limit it is, for example ``"max_cost_usd"``."""
        self.limit = limit
        """The limit: dollars as Decimal, seconds as float, everything else as int."""
        self.actual = actual
        """What is committed and held against the limit already, in the limit's unit."""
        self.scope = scope
        """The scope whose limit it is, as ``kind:id``, for example ``"user:u1"``."""
        self.estimate = estimate
        """What the refused call might have added, in the limit's unit; None where nothing was asked for."""
        self.decision_id = decision_id
        self.report = report
        """The run's report at that moment, with the partial work's spend."""
        self.detail = detail
        """What happened, where it is not what the figures say."""
        self.remedy = remedy
        """What to do about it."""
        passed = "is passed" if estimate is None and not detail else "" if detail else "would be passed"
        asked = "" if estimate is None else f", and this call may take up to {_words(estimate)}"
        what = detail or f"{_words(actual)} is spent or held{asked}"
        super().__init__(
            f"{dimension}={_words(limit)} of {scope}{' ' if passed else ''}{passed}: {what}."
            + (f" {remedy}" if remedy else "")
        )


def _words(quantity: Decimal | float) -> str:
    return format_usd(cost_nano(quantity)) if isinstance(quantity, Decimal) else str(quantity)


class BudgetRevoked(BudgetError):
    """A run, user or key was cut off with `revoke`."""

    user_message = "This was stopped by whoever runs it."
    _fields = ("scope", "reason", "at", "decision_id", "report")

    def __init__(
        self,
        *,
        scope: str,
        reason: str,
        at: datetime,
        decision_id: str | None = None,
        report: BudgetReport | None = None,
    ) -> None:
        self.scope = scope
        """The scope that was cut off, as ``kind:id``."""
        self.reason = reason
        """The reason given to `revoke`."""
        self.at = at
        """When it was cut off (UTC)."""
        self.decision_id = decision_id
        self.report = report
        super().__init__(f"{scope} was revoked at {at.isoformat(timespec='seconds')}: {reason}")


class LoopDetected(BudgetError):
    """A run repeats itself: the same tools with the same arguments and the same results, again and again."""

    user_message = "This was stopped because it went round in circles."
    _fields = ("tool", "repeats", "period", "scope", "agent", "decision_id", "report")

    def __init__(
        self,
        *,
        tool: str,
        repeats: int,
        period: int,
        scope: str,
        agent: str | None = None,
        decision_id: str | None = None,
        report: BudgetReport | None = None,
    ) -> None:
        self.tool = tool
        """The tool that was to be called once more. It was not."""
        self.repeats = repeats
        """How often the loop was gone through."""
        self.period = period
        """How many calls it has: 1 for one call over and over; 0 where other calls come in between."""
        self.scope = scope
        """The run, as ``kind:id``."""
        self.agent = agent
        """The agent that called it; None where that is not known."""
        self.decision_id = decision_id
        self.report = report
        """The run's report at that moment."""
        who = f" by {agent!r}" if agent else ""
        if period > 1:
            what = f"the same {period} tool calls, {tool!r} among them, were made{who} {repeats} times in a row"
        else:
            where = "in a row" if period else "between other calls"
            what = f"{tool!r} was called{who} with the same arguments {repeats} times {where}"
        super().__init__(
            f"{scope} is in a loop: {what}, with the same results. Where that is right, as for a tool that waits for a "
            f"job, exempt it with LoopPolicy(exempt=({tool!r},)), or only be warned with LoopPolicy(on_loop='warn')."
        )


class UnknownPriceError(BudgetError):
    """A price is not known, so the call is refused: an unknown price is never $0.

    The nearest names, and with them the remedy and the text, are worked out when they are read: a search through all
    names takes milliseconds, and most refusals are caught and never shown.
    """

    _fields = ("model", "provider", "missing", "suggestions", "remedy", "decision_id")

    def __init__(
        self,
        *,
        model: str,
        provider: str | None = None,
        missing: str = "model",
        suggestions: Sequence[str] | Callable[[], Sequence[str]] = (),
        remedy: str | Callable[[], str] = "",
        decision_id: str | None = None,
    ) -> None:
        self.model = model
        """The model as it was asked for."""
        self.provider = provider
        """The provider as it was given, None if it was not."""
        self.missing = missing
        """What has no price: ``"model"``, or a billed unit or service tier such as ``"web_search"``."""
        self._suggestions = suggestions
        self._remedy = remedy
        self.decision_id = decision_id
        super().__init__()

    @property
    def suggestions(self) -> tuple[str, ...]:
        """The nearest known names, best first."""
        near = self._suggestions
        self._suggestions = found = tuple(near() if callable(near) else near)
        return found

    @property
    def remedy(self) -> str:
        """What to do about it."""
        given = self._remedy
        self._remedy = told = (given() if callable(given) else given) or (
            f"give its price, dollars per token: pricing={{{json.dumps(self.model)}: (2.5e-6, 10e-6)}}"
        )
        return told

    def recast(self, cls: type[E]) -> E:
        """The same error as *cls*, a subclass of this error's type. Nothing is worked out for it."""
        lazy = {"suggestions": self._suggestions, "remedy": self._remedy}
        known = {name: getattr(self, name) for name in self._fields if name not in lazy}
        later = {name: value for name, value in vars(self).items() if name in _LATER and value is not None}
        error = rebuilt(cls, known | lazy | later)
        error.__cause__ = self.__cause__
        return error

    def __str__(self) -> str:
        where = f" at {self.provider}" if self.provider else ""
        what = f"model {self.model!r}{where}"
        if self.missing != "model":
            what = f"{self.missing} of {what}"
        near = f" Nearest known: {', '.join(self.suggestions)}." if self.suggestions else ""
        return escaped(f"No price is known for {what}.{near} To allow it, {self.remedy}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class UnboundedCallError(BudgetError):
    """Nothing bounds what the call may cost, so a hard gate cannot admit it."""

    _fields = ("model", "reason", "remedy", "decision_id")

    def __init__(self, *, model: str, reason: str, remedy: str, decision_id: str | None = None) -> None:
        self.model = model
        self.reason = reason
        """What has no bound, for example ``"an image"``."""
        self.remedy = remedy
        self.decision_id = decision_id
        super().__init__(f"Nothing bounds the cost of a call to {model!r}: {reason}. {remedy}")


class InvalidDowngradeError(BudgetError, ValueError):
    """A downgrade target is unknown, dearer than the model it replaces, or lacks a capability that is needed."""

    _fields = ("model", "target", "reason", "remedy", "decision_id")

    def __init__(self, *, model: str, target: str, reason: str, remedy: str, decision_id: str | None = None) -> None:
        self.model = model
        """The model that was to be replaced; ``"*"`` for any."""
        self.target = target
        """The model that cannot replace it."""
        self.reason = reason
        self.remedy = remedy
        self.decision_id = decision_id
        what = f"to {target!r}" if model == "*" else f"{model!r} to {target!r}"
        super().__init__(f"Cannot downgrade {what}: {reason}. {remedy}")


class ReservationError(BudgetError):
    """A hold was used in a way that its history forbids."""

    _fields = ("reservation_id", "detail", "decision_id")

    def __init__(self, *, reservation_id: str, detail: str, decision_id: str | None = None) -> None:
        self.decision_id = decision_id
        self.reservation_id = reservation_id
        self.detail = detail
        super().__init__(f"Reservation {reservation_id!r}: {detail}")


class ReservationConflict(ReservationError):
    """The same reservation id came again with other parameters. Nothing was changed."""


class StaleReservation(ReservationError):
    """The id is older than what the ledger remembers, so it may have been settled. Nothing was changed."""


class UnknownReservation(ReservationError):
    """No hold of that id was ever made. Nothing was changed."""


class ForeignRun(BudgetError):
    """The run belongs to another principal. Nothing was changed."""

    _fields = ("scope", "decision_id")

    def __init__(self, *, scope: str, decision_id: str | None = None) -> None:
        self.scope = scope
        """The run, as ``kind:id``."""
        self.decision_id = decision_id
        super().__init__(f"{scope} was opened by another principal: use a run_id of your own, or none")


class LedgerUnavailable(BudgetError):
    """The counters cannot be reached. Nothing was changed, and the same may be tried again."""

    _fields = ("detail", "decision_id")
    http_status: ClassVar[int] = 503

    def __init__(self, *, detail: str, decision_id: str | None = None) -> None:
        self.detail = detail
        """What is wrong, in words."""
        self.decision_id = decision_id
        super().__init__(f"The ledger is not available: {detail}")


class LedgerAmbiguous(LedgerUnavailable):
    """No answer came, so what was asked may have been done or not. Asking the same again with the same id is safe."""
