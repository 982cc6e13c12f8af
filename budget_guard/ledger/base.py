"""The contract of a ledger: where the counters live, and the verbs that move them.

A ledger keeps, for every scope, what is *committed* (spent) and what is *reserved* (held for calls in flight). It
answers one question atomically over all scopes of a call: may this much be held? The rules, which every ledger keeps:

1. All scopes or none. ``committed + reserved + amount <= limit`` holds in every scope and dimension right after a
   hold is admitted; a refused one leaves no trace.
2. Every verb is idempotent by the hold's id. The same id with the same parameters gets the same answer; with other
   parameters it is a `ReservationConflict`, and nothing changes.
3. A hold goes ``reserved -> forwarded -> committed | released``. What was spent is charged in full: above the hold,
   and after a release too. A release after a commit does nothing.
4. An estimate booked with ``uncertain=True`` is replaced, once, by the actual amounts when they come.
5. Amounts are non-negative integers; anything else is a `ValueError` before any effect. Time is the ledger's own.

`Ledger` has blocking verbs, `AsyncLedger` the same ones to await. `Ledger.aio` is the way from the first to the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias

from budget_guard.dimension import Amounts, Limits
from budget_guard.scope import Scope


class Held(NamedTuple):
    """The amounts are held in every scope."""

    hold_id: str


class Refused(NamedTuple):
    """A limit stands in the way. Nothing was held."""

    scope: Scope
    dimension: int
    """The index of the limit, in the order of `DIMENSIONS`."""
    limit: int
    committed: int
    reserved: int
    waiting_helps: bool
    """Whether it would fit everywhere if the other open holds were given back."""
    version: int
    """What `await_room` needs to know to miss no refund."""


class Revoked(NamedTuple):
    """A scope was cut off. Nothing was held."""

    scope: Scope
    reason: str
    at: datetime


ReserveOutcome: TypeAlias = Held | Refused | Revoked


class Settled(NamedTuple):
    """What a commit did."""

    committed: Amounts
    """What is committed in the first scope now."""
    charged: Amounts
    """What is booked for the hold now: not what was asked where that was an estimate after the actual amounts."""
    uncertain: bool
    """Whether that is an estimate."""


class Balance(NamedTuple):
    """The counters of one scope at one moment."""

    scope: Scope
    limits: Limits
    committed: Amounts
    reserved: Amounts
    open_holds: int
    revoked: Revoked | None


class Ledger(Protocol):
    """Counters with blocking verbs, safe to call from any thread."""

    @property
    def aio(self) -> AsyncLedger:
        """The same counters with verbs to await."""
        ...

    def set_limits(self, scope: Scope, limits: Limits) -> None:
        """Set the ceilings of *scope*, and open it if it is new."""
        ...

    def reserve(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, room: Amounts | None) -> ReserveOutcome:
        """Hold *amounts* in every scope if *room* fits into every limit.

        Args:
            hold_id: The idempotency key, unique for ever.
            scopes: The scopes, the run's own first. Each was opened with `set_limits`.
            amounts: What to hold.
            room: What must fit: the amounts themselves for a hard gate, more where something is kept back, less
                where only the start is gated. None holds without asking.

        Raises:
            ReservationConflict: If *hold_id* was used with other parameters.
        """
        ...

    def forward(self, hold_id: str) -> None:
        """Note that the call was sent: from now on only a proof that it was not billed may release the hold.

        Raises:
            UnknownReservation: If no such hold is known.
        """
        ...

    def commit(self, hold_id: str, amounts: Amounts, uncertain: bool = False) -> Settled:
        """Book *amounts* as spent and give the rest of the hold back.

        Args:
            hold_id: The hold.
            amounts: What was spent, also where it is more than was held.
            uncertain: Whether this is an estimate that a later commit may replace.

        Raises:
            UnknownReservation: If no such hold is known.
            ReservationConflict: If other amounts were committed before, and were certain.
        """
        ...

    def release(self, hold_id: str) -> bool:
        """Give the whole hold back, unspent; return whether this call did it.

        Raises:
            UnknownReservation: If no such hold is known.
        """
        ...

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        """Book what was spent without a hold, always; return the first limit that is passed now."""
        ...

    def await_room(self, version: int, timeout: float) -> bool:
        """Wait until something was given back since *version*, or *timeout* seconds; return whether it was."""
        ...

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        """The counters of each of *scopes*, all of the same moment.

        Raises:
            KeyError: If a scope was never opened.
        """
        ...

    def remaining(self, scopes: Sequence[Scope]) -> Limits:
        """What is left in every dimension, in the scope that has least of it; None where nothing limits it.

        limit - committed - reserved, and so negative after an overrun.

        Raises:
            KeyError: If a scope was never opened.
        """
        ...

    def revoke(self, scope: Scope, reason: str) -> None:
        """Refuse every further hold in *scope*, and in none but that. Holds in flight settle as usual."""
        ...


class AsyncLedger(Protocol):
    """The verbs of `Ledger` that a call needs, to await."""

    async def reserve(
        self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, room: Amounts | None
    ) -> ReserveOutcome: ...
    async def forward(self, hold_id: str) -> None: ...
    async def commit(self, hold_id: str, amounts: Amounts, uncertain: bool = False) -> Settled: ...
    async def release(self, hold_id: str) -> bool: ...
    async def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None: ...
    async def await_room(self, version: int, timeout: float) -> bool: ...
    async def remaining(self, scopes: Sequence[Scope]) -> Limits: ...
    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]: ...
