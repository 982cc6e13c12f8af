"""The life of one hold.

::

    reserved ──forward──► forwarded ──commit──► committed
        │                     │                     ▲
        └──────release────────┴────────► released ──┘  (late: what was spent is charged all the same)

A committed hold stays committed. An uncertain one takes the actual amounts once, when they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from budget_guard.dimension import Amounts
from budget_guard.errors import ReservationConflict
from budget_guard.scope import Scope


class State(Enum):
    """Where a hold is in its life."""

    RESERVED = "reserved"
    """The amounts are held; the call is not known to be sent."""
    FORWARDED = "forwarded"
    """The call was sent; only a proof that it was not billed may release the hold."""
    COMMITTED = "committed"
    """The spent amounts are booked; the hold is gone."""
    RELEASED = "released"
    """The hold was given back."""


class Hold:
    """One hold as a ledger remembers it. The transitions say what the counters must do."""

    __slots__ = ("amounts", "charged", "id", "open", "scopes", "state", "uncertain")

    def __init__(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts) -> None:
        self.id = hold_id
        self.scopes = scopes
        self.amounts = amounts
        self.state = State.RESERVED
        self.open = True
        """Whether the amounts are still held: reserved or forwarded."""
        self.charged: Amounts | None = None
        self.uncertain = False

    def must_match(self, scopes: Sequence[Scope], amounts: Amounts) -> None:
        """Check that a repeated reserve asks for the same.

        Raises:
            ReservationConflict: If it does not.
        """
        if self.amounts != amounts or tuple(self.scopes) != tuple(scopes):
            raise ReservationConflict(
                reservation_id=self.id, detail=f"holds {self.amounts} and was asked to hold {amounts}"
            )

    def forward(self) -> None:
        """Note that the call was sent. A settled hold stays settled."""
        if self.state is State.RESERVED:
            self.state = State.FORWARDED

    def commit(self, amounts: Amounts, uncertain: bool) -> bool:
        """Book *amounts*; return whether that changed anything.

        Raises:
            ReservationConflict: If other amounts were booked for certain.
        """
        if self.charged is not None and uncertain:
            return False  # an estimate never replaces what was booked before it
        if self.charged is not None and not self.uncertain:
            if self.charged != amounts:
                raise ReservationConflict(
                    reservation_id=self.id, detail=f"is committed with {self.charged} and cannot take {amounts}"
                )
            return False
        self.state = State.COMMITTED
        self.open = False
        self.charged = amounts
        self.uncertain = uncertain
        return True

    def release(self) -> bool:
        """Give the hold back; return whether it was open."""
        if not self.open:
            return False
        self.state = State.RELEASED
        self.open = False
        return True
