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

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from budget_guard.errors import ReservationConflict
from budget_guard.ledger.counters import Counters
from budget_guard.ledger.history import MS_PER_HOUR, UsageLine, completed, keeps_history
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope

Origin: TypeAlias = Literal["reserve", "commit", "release", "charge", "adjust"]
"""The verb by which a ledger first heard of an id."""
State: TypeAlias = Literal["reserved", "forwarded", "committed", "released", "suspended", "expired"]
_OPEN = frozenset(("reserved", "forwarded", "suspended"))


Noted: TypeAlias = tuple[Amounts, bool, Sequence[UsageLine]]
"""What a history has for a hold: what is booked, whether that is an estimate, and the lines that say what for."""


class Hold:
    """The record of one hold, or of one charge or adjustment, which hold nothing."""

    __slots__ = (
        "amounts",
        "charged",
        "counters",
        "expires",
        "id",
        "lines",
        "noted",
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
        self.lines: Sequence[UsageLine] = ()
        """What that was for, as far as the verb that books it says so."""
        self.noted: Noted | None = None
        """What the history has for it."""
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

    @property
    def hour(self) -> int:
        """The hour in which its id was made, since 1970 began."""
        try:
            return int(self.id[:12], 16) // MS_PER_HOUR
        except ValueError:
            return 0  # an id that no other ledger would take

    def is_noted(self) -> bool:
        """Whether the history has what is booked for it."""
        charged, noted = self.charged, self.noted
        return charged is None or (noted is not None and noted[:2] == (charged, self.uncertain))

    def to_note(self) -> tuple[Noted, list[tuple[Counters, int, UsageLine, int]]]:
        """The note of what is booked for it, and the steps by which the history comes to say so.

        Returns:
            The note, and for each scope and line: the counters, the hour to book in, the line, and 1, or -1 to take it
            out.
        """
        charged = self.charged
        assert charged is not None
        lines = completed(charged, self.uncertain, self.lines)
        before = () if self.noted is None else self.noted[2]
        hour, steps = self.hour, list[tuple[Counters, int, UsageLine, int]]()
        for counters in self.counters:
            if keeps_history(counters.scope.kind):
                at = self.hour_in(counters, hour)
                steps += [(counters, at, line, 1) for line in lines]
                steps += [(counters, at, line, -1) for line in before]
        return (charged, self.uncertain, lines), steps

    def hour_in(self, counters: Counters, hour: int) -> int:
        """The hour in which the history of one of its scopes has it, which is *hour* or one of the same window."""
        begins = counters.begins
        if not begins:
            return hour
        in_window = not self.periods or self.periods[self.counters.index(counters)] == counters.period
        return max(hour, begins) if in_window else min(hour, begins - 1)

    def mend(self) -> None:
        """Finish what a verb that was torn has begun, so that no money is lost by it."""
        if self.charged is None and self.origin in ("commit", "charge", "adjust"):
            self.charged, self.uncertain = self.amounts, self.origin == "commit"  # by the verb that it was made for
        if self.charged is not None:
            self.state = "committed"
        else:
            self.uncertain = False
        self.open = self.state in _OPEN


def differences(
    counted: Collection[Counters], holds: Iterable[Hold], in_history: Callable[[Counters], Amounts | None]
) -> list[str]:
    """Recount *counted* from all the holds there are; every difference, in words.

    Args:
        counted: The counters of all scopes.
        holds: All holds.
        in_history: What the usage history has for what is committed now; None where it cannot tell.
    """
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
        has, real = in_history(each), recounts[each.scope].committed
        if has is not None and has != real:
            wrong.append(f"{each.scope}: its history has {has}, and its holds make it {real}")
    return wrong
