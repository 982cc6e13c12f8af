"""One hold: its states, and what each verb makes of it.

::

    reserved ──forward──► forwarded ───commit───► committed
        │ │                   │ │                     ▲
        │ └──────release──────┼─┴──► released ────────┤  (late: what was spent is charged all the same)
        └────time is up───┐   │                       │
                          ▼   └─time is up─► suspended ┤  (still counted: it may be billed)
                       expired ────────────────────────┘

Each verb changes the record in one step, by which the rest can be put right should a signal tear the verb: ``charged``
for a commit, ``state`` for all else.

A committed hold stays committed. An uncertain one takes the actual amounts once, when they come. A suspended one that
is extended is forwarded again; the call of one that is released or expired must not be sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from budget_guard.errors import ReservationConflict
from budget_guard.ledger.counters import Counters
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope

Origin: TypeAlias = Literal["reserve", "commit", "release", "charge", "adjust"]
"""The verb by which a ledger first heard of an id."""
State: TypeAlias = Literal["reserved", "forwarded", "committed", "released", "suspended", "expired"]
_OPEN = frozenset(("reserved", "forwarded", "suspended"))


class Hold:
    """The record of one hold, or of one charge or adjustment, which hold nothing."""

    __slots__ = (
        "amounts",
        "charged",
        "counters",
        "expires",
        "id",
        "open",
        "origin",
        "periods",
        "scopes",
        "state",
        "suspend",
        "suspended_at",
        "uncertain",
    )

    def __init__(
        self,
        hold_id: str,
        scopes: tuple[Scope, ...],
        counters: Sequence[Counters],
        amounts: Amounts,
        origin: Origin,
        state: State = "released",
    ) -> None:
        self.id = hold_id
        self.origin: Origin = origin
        self.scopes = scopes
        self.counters = counters
        self.amounts = amounts
        self.open = state in _OPEN
        """Whether the amounts are still held: reserved, forwarded or suspended."""
        self.state: State = state
        self.charged: Amounts | None = None
        self.uncertain = False
        self.periods: tuple[int, ...] = ()
        """The window of each scope that it belongs to; empty where no scope has had another one."""
        self.expires: float | None = None
        """When its time is up, on the ledger's own scale; None where that never is."""
        self.suspend = True
        """Whether it stays counted then if its call was sent."""
        self.suspended_at: datetime | None = None

    def must_match(self, origin: Origin, scopes: Sequence[Scope], amounts: Amounts) -> None:
        """Check that the verb that it came with is repeated with the same parameters.

        Raises:
            ReservationConflict: If it is not.
        """
        if self.origin != origin:
            raise ReservationConflict(
                reservation_id=self.id, detail=f"came with {self.origin} before: not for {origin}"
            )
        self._must_be_in(scopes)
        if self.amounts != amounts:
            raise ReservationConflict(
                reservation_id=self.id, detail=f"holds {self.amounts} and was asked to hold {amounts}"
            )

    def must_be_hold(self, scopes: Sequence[Scope] | None = None) -> None:
        """Check that it is a hold, and where *scopes* are given, that they are its own.

        Raises:
            ReservationConflict: If it is not, or they are not.
        """
        if self.origin in ("charge", "adjust"):
            raise ReservationConflict(reservation_id=self.id, detail=f"came with {self.origin} before: it is no hold")
        if scopes is not None:
            self._must_be_in(scopes)

    def _must_be_in(self, scopes: Sequence[Scope]) -> None:
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
            self.uncertain = uncertain
            self.charged = amounts
            for counters in self.counters if not self.periods else self.counted_in():
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
            self.charged = amounts
            self.uncertain = uncertain
            for counters in self.counted_in():
                counters.book(amounts, replaced or NOTHING)
        self.state = "committed"
        return True

    def forward(self) -> None:
        """Note that the call was sent.

        Raises:
            ReservationConflict: If nothing is held for it any more.
        """
        if self.state == "reserved":
            self.state = "forwarded"
        elif self.state in ("expired", "released"):
            raise ReservationConflict(
                reservation_id=self.id, detail=f"is {self.state}: its call must not be sent, reserve it anew"
            )

    def counted_in(self) -> Sequence[Counters]:
        """The scopes in whose present window it is counted."""
        if not self.periods:
            return self.counters
        return [each for each, period in zip(self.counters, self.periods, strict=True) if each.period == period]

    def free(self, state: State) -> None:
        """Give an open hold back, unspent."""
        self.state = state
        for counters in self.counted_in():
            counters.settle(self.amounts, NOTHING)
        self.open = False

    def mend(self) -> None:
        """Finish what a verb that was torn has begun, so that no money is lost by it."""
        if self.charged is None and self.origin in ("commit", "charge", "adjust"):
            self.charged, self.uncertain = self.amounts, self.origin == "commit"  # by the verb that it was made for
        if self.charged is not None:
            self.state = "committed"
        else:
            self.uncertain = False
        self.open = self.state in _OPEN


def differences(counted: Collection[Counters], holds: Iterable[Hold]) -> list[str]:
    """Recount *counted* from all the holds there are; every difference, in words."""
    recounts = {each.scope: each.recount() for each in counted}
    for hold in holds:
        for counters in hold.counted_in():
            if hold.open:
                recounts[counters.scope].hold(hold.amounts)
            recounts[counters.scope].book(hold.charged or NOTHING)
    wrong: list[str] = []
    for each in counted:
        for name in ("committed", "reserved", "open_holds"):
            is_now, real = getattr(each, name), getattr(recounts[each.scope], name)
            if is_now != real:
                wrong.append(f"{each.scope}: {name} is {is_now}, and its holds make it {real}")
    return wrong
