"""The life of one hold.

::

    reserved ──forward──► forwarded ───commit───► committed
        │ │                   │ │                     ▲
        │ └──────release──────┼─┴──► released ────────┤  (late: what was spent is charged all the same)
        └────time is up───┐   │                       │
                          ▼   └─time is up─► suspended ┤  (still counted: it may be billed)
                       expired ────────────────────────┘

A committed hold stays committed. An uncertain one takes the actual amounts once, when they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from budget_guard.dimension import NOTHING, Amounts
from budget_guard.errors import ReservationConflict
from budget_guard.ledger.counters import Counters
from budget_guard.scope import Scope

State: TypeAlias = Literal["reserved", "forwarded", "committed", "released", "suspended", "expired"]


class Term:
    """What few holds have: windows that they belong to, and a time at which they expire."""

    __slots__ = ("expires", "starts", "suspend", "suspended_at")

    def __init__(self) -> None:
        self.starts: tuple[datetime | None, ...] | None = None
        """The window of each scope that the hold belongs to; None where no scope has one."""
        self.expires: float | None = None
        """When its time is up, on the clock's monotonic scale; None for never."""
        self.suspend = True
        """Whether it stays counted then if its call was sent."""
        self.suspended_at: datetime | None = None


class Hold:
    """One hold as the ledger in memory remembers it."""

    __slots__ = ("amounts", "charged", "counters", "id", "open", "scopes", "state", "term", "uncertain")

    def __init__(
        self, hold_id: str, scopes: Sequence[Scope], counters: Sequence[Counters], amounts: Amounts, open: bool
    ) -> None:
        self.id = hold_id
        self.scopes = tuple(scopes)
        self.counters = counters
        self.amounts = amounts
        self.open = open
        """Whether the amounts are still held: reserved, forwarded or suspended."""
        self.state: State = "reserved" if open else "released"
        self.charged: Amounts | None = None
        self.uncertain = False
        self.term: Term | None = None

    def present(self) -> Sequence[Counters]:
        """The counters that the hold counts in: those whose window has not ended since it was made."""
        if self.term is None or self.term.starts is None:
            return self.counters
        return [
            counters for counters, start in zip(self.counters, self.term.starts, strict=True) if counters.start == start
        ]

    def must_match(self, scopes: Sequence[Scope], amounts: Amounts) -> None:
        """Check that a repeated verb names the same hold.

        Raises:
            ReservationConflict: If it does not.
        """
        self.must_be_in(scopes)
        if self.amounts != amounts:
            raise ReservationConflict(
                reservation_id=self.id, detail=f"holds {self.amounts} and was asked to hold {amounts}"
            )

    def must_be_in(self, scopes: Sequence[Scope]) -> None:
        """Check that a verb names the hold's own scopes.

        Raises:
            ReservationConflict: If it does not.
        """
        if self.scopes is not scopes and self.scopes != tuple(scopes):
            held, asked = (", ".join(map(str, each)) for each in (self.scopes, scopes))
            raise ReservationConflict(reservation_id=self.id, detail=f"was made in {held}, not in {asked}")

    def commit(self, amounts: Amounts, uncertain: bool) -> bool:
        """Book *amounts* in every scope; return whether that changed anything.

        Raises:
            ReservationConflict: If other amounts were booked for certain.
        """
        replaced = self.charged
        if self.open:
            for counters in self.counters if self.term is None else self.present():
                counters.settle(self.amounts, amounts)
            self.open = False
        elif replaced is not None and uncertain:
            return False  # an estimate never replaces what was booked before it
        elif replaced is not None and not self.uncertain:
            if replaced != amounts:
                raise ReservationConflict(
                    reservation_id=self.id, detail=f"is committed with {replaced} and cannot take {amounts}"
                )
            return False
        else:
            for counters in self.present():
                counters.book(amounts, replaced or NOTHING)
        self.state = "committed"
        self.charged = amounts
        self.uncertain = uncertain
        return True

    def free(self, state: State) -> None:
        """Give an open hold back, unspent."""
        for counters in self.present():
            counters.settle(self.amounts, NOTHING)
        self.state = state
        self.open = False
