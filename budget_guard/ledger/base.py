"""The contract of a ledger: the counters that it keeps, and the verbs that move them.

A ledger keeps, for every scope, what is *committed* (spent) and what is *reserved* (held for calls in flight). It
answers one question atomically over all scopes of a call: may this much be held? The rules, which every ledger keeps:

1. All scopes or none. ``committed + reserved + amount <= limit`` holds in every scope and dimension right after a
   hold is admitted; a refused one leaves no trace.
2. Every verb is idempotent by the hold's id. The same id with the same parameters gets the same answer; with other
   parameters it is a `ReservationConflict`, and nothing changes. So it is where the id of a hold, of a charge or of an
   adjustment is used for another of the three, and where a hold's first reserve comes after its commit or release.
3. What was spent is charged in full, whatever became of the hold: above it, after its release, after it expired, and
   where the ledger never heard of it. A release after a commit does nothing, and one that arrives before its own
   reserve keeps that from holding anything.
4. An estimate booked with ``uncertain=True`` is replaced, once, by the actual amounts when they come.
5. A hold whose time is up is freed if its call was never sent. If it was, it is *suspended*: still counted, because
   the provider may bill it, until it is committed or released. A hold made with ``suspend=False`` is freed then as
   well.
6. Settled holds are remembered for a while, and forgotten oldest first. An id that is older than the youngest
   forgotten one and not known is a `StaleReservation`: it is never taken for a new one. A ledger that clients with
   clocks of their own share forgets none whose id is younger than `hold_id.TOLERANCE_MS` by its own time: so a clock
   that is off by no more than that makes no id stale.
7. A scope with a window counts from nothing again when the next window begins, and never goes back to an earlier one,
   whatever the clock does. A hold belongs to the window in which it was made, and is settled there.
8. What is committed is in the usage history as well, in the same step: `budget_guard.ledger.history` says how. What
   replaces an estimate replaces it there.
9. Amounts and rooms are integers from 0 to `MOST`, limits from 0 to `MOST_LIMIT`, times to live are above 0; anything
   else is a `ValueError` before any effect. The cost of a room may be as far below 0: what is asked then is whether
   the limit is passed by no more than that. Time is the ledger's own.

10. A text that is kept with `swap` is replaced in one step, by whoever knows what is there: of many that expect the
   same, one gets through. It is gone when its time is up, and nothing else comes of it.

Ids come from `budget_guard.ledger.hold_id`: they begin with the time at which they were made, and so sort by it.

`Ledger` has blocking verbs, `AsyncLedger` the same ones to await. `Ledger.aio` is the way from the first to the second.
A ledger of your own inherits the tests of every rule from `budget_guard.testing.ledger_contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias

from budget_guard.ledger.history import UsageLine, UsageQuery, UsageSum
from budget_guard.units.amounts import Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window, window_end

MOST_LIMIT = 2**62
"""The largest limit."""


class Held(NamedTuple):
    """The amounts are held in every scope."""


HELD = Held()


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
    left: Limits
    """limit - committed - reserved in every dimension, in the scope that has least of it; None where nothing limits
    it. Negative after an overrun."""
    resets_at: datetime | None = None
    """When the window of *scope* ends (UTC); None where it has none."""


class Revoked(NamedTuple):
    """A scope was cut off. Nothing was held."""

    scope: Scope
    reason: str
    at: datetime


ReserveOutcome: TypeAlias = Held | Refused | Revoked


class ScopeSpend(NamedTuple):
    """What is committed in one scope, and its ceilings."""

    committed: Sums
    limits: Limits


class Settled(NamedTuple):
    """What a commit did."""

    committed: Sums
    """What is committed in the first scope now."""
    charged: Amounts
    """What is booked for the hold now: not what was asked where that was an estimate after the actual amounts."""
    uncertain: bool
    """Whether that is an estimate."""
    above: tuple[ScopeSpend, ...] = ()
    """The scopes after the first, as they are now, in their order; empty where that is not known."""
    cost_left: int | None = None
    """Nano-dollars that are left now in the scope that has least of them; None where nothing limits them, or the ledger
    does not say. One that has to be asked over a network or a file says it, so that nobody has to ask again."""


class Balance(NamedTuple):
    """The counters of one scope at one moment."""

    scope: Scope
    limits: Limits
    committed: Amounts
    reserved: Amounts
    open_holds: int
    revoked: Revoked | None
    window: Window = "none"
    since: datetime | None = None
    """When the window began (UTC); None for a scope without one."""
    note: str = ""
    """The text that was set with the limits."""

    @property
    def limited(self) -> tuple[tuple[int, int], ...]:
        """The dimensions that have a limit, by index, each with it."""
        return tuple((i, limit) for i, limit in enumerate(self.limits) if limit is not None)

    @property
    def ends(self) -> datetime | None:
        """When the window ends (UTC); None for a scope without one."""
        return None if self.since is None else window_end(self.window, self.since)


class Suspended(NamedTuple):
    """A hold whose time was up after its call was sent: what that cost is not known yet."""

    hold_id: str
    scopes: tuple[Scope, ...]
    amounts: Amounts
    since: datetime


class Ledger(Protocol):
    """Counters with blocking verbs, safe to call from any thread.

    Every verb may raise `LedgerUnavailable` where the counters live elsewhere: it changed nothing, or, as a
    `LedgerAmbiguous`, it may have changed everything that it was asked to. The same verb may be called again.
    """

    @property
    def aio(self) -> AsyncLedger:
        """The same counters with verbs to await."""
        ...

    def set_limits(
        self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "", note: str = ""
    ) -> None:
        """Set the ceilings of *scope*, and open it if it is new.

        Args:
            scope: The scope.
            limits: Its ceilings.
            window: When its counters begin anew. Where it was another one before, what is counted so far is counted
                on, until the new window ends.
            owner: Who may open it again: a run belongs to the principal that made it.
            note: A text to keep with it, such as the name of a plan. It is replaced like the limits.

        Raises:
            ForeignRun: If another owner opened it. Nothing is changed then.
            ValueError: If a limit is out of range.
        """
        ...

    def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        """Hold *amounts* in every scope if *room* fits into every limit.

        Args:
            hold_id: The idempotency key, from `budget_guard.ledger.hold_id`.
            scopes: The scopes, the run's own first. Each was opened with `set_limits`.
            amounts: What to hold.
            room: What must fit: the amounts themselves for a hard gate, more where something is kept back, less
                where only the start is gated. None holds without asking.
            ttl_s: Seconds after which the hold expires, unless `extend` is called; None for the ledger's own default.
            suspend: Whether an expired hold whose call was sent stays counted until it is settled.
            sent: Whether the call is sent as soon as it is held: as if `forward` came right after.

        Raises:
            ReservationConflict: If *hold_id* was used with other parameters, or was released before it arrived.
            StaleReservation: If *hold_id* is older than what the ledger remembers.
            KeyError: If a scope was never opened.
            ValueError: If an amount or *ttl_s* is out of range.
        """
        ...

    def forward(self, hold_id: str) -> None:
        """Note that the call is being sent: from now on only a proof that it was not billed may release the hold.

        Raises:
            ReservationConflict: If the hold has expired or was released: the call must not be sent.
            StaleReservation: If the hold is not known, and older than what the ledger remembers.
            UnknownReservation: If no such hold was ever made.
        """
        ...

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        """Let an open hold expire *ttl_s* seconds from now; return whether it is still open.

        A suspended hold is in flight again then.

        Raises:
            StaleReservation: If the hold is not known, and older than what the ledger remembers.
            UnknownReservation: If no such hold was ever made.
            ValueError: If *ttl_s* is out of range.
        """
        ...

    def commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Settled:
        """Book *amounts* as spent and give the rest of the hold back.

        A hold that the ledger does not know, because it lost it, is charged all the same.

        Args:
            hold_id: The hold.
            scopes: The scopes that it was made in.
            amounts: What was spent, also where it is more than was held.
            uncertain: Whether this is an estimate that a later commit may replace.
            lines: What it was spent for, for the usage history. What they leave out of *amounts* has no labels there.

        Raises:
            StaleReservation: If the hold was settled so long ago that it is forgotten. It is not charged again.
            ReservationConflict: If other amounts were committed before, and were certain; or if the hold was made in
                other scopes.
            KeyError: If a scope was never opened.
        """
        ...

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        """Give the whole hold back, unspent; return whether this call did it.

        Raises:
            ReservationConflict: If the hold was made in other scopes.
            StaleReservation: If the hold is not known, and older than what the ledger remembers.
            KeyError: If the hold is not known, and a scope was never opened.
        """
        ...

    def charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine] = ()
    ) -> Refused | None:
        """Book what was spent without a hold, always; return the first limit that is passed now.

        Raises:
            ReservationConflict: If *charge_id* was used with other parameters.
            StaleReservation: If *charge_id* is older than what the ledger remembers.
            KeyError: If a scope was never opened.
        """
        ...

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        """Correct what is committed in *scope* by *change*, which may be negative; return what is committed then.

        The only verb that lowers it, for a provider's credit note or an operator's correction; but for an estimate
        that is replaced by less. Never below nothing: only where such an estimate was counted on, it may end there.

        Raises:
            ValueError: If less than nothing would be committed. Nothing is changed then.
            ReservationConflict: If *adjust_id* was used with other parameters.
            StaleReservation: If *adjust_id* is older than what the ledger remembers.
            KeyError: If *scope* was never opened.
        """
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

    def usage(self, query: UsageQuery) -> Sequence[UsageSum]:
        """Sums of the usage history; those of nothing are left out.

        Rows that are older than some days are those of whole days: each counts by the hour at which it begins.

        Raises:
            ValueError: If *query* asks for what no history has, or if this ledger keeps none.
        """
        ...

    def names(self, kind: str, prefix: str = "") -> Sequence[str]:
        """The ids of all scopes of a kind that begin with *prefix*, sorted."""
        ...

    def revoke(self, scope: Scope, reason: str) -> None:
        """Refuse every further hold in *scope*, and in none but that. Holds in flight settle as usual.

        A scope that is new is opened by it. The first reason stands.
        """
        ...

    def restore(self, scope: Scope) -> bool:
        """Take a `revoke` back; return whether there was one."""
        ...

    def swap(self, name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None:
        """Keep *text* under *name* in the place of *expected*; return what is kept there then.

        For what processes have to agree on beside the counters, such as which of them decides on a call that came
        twice. Where anything but *expected* is kept, nothing changes. None is nothing: so None for None only looks.
        The same text again is kept for as long again.

        Args:
            name: The place, at most `hold_id.MOST_LENGTH` characters.
            expected: What is there.
            text: What shall be.
            ttl_s: Seconds after which it is gone. A ledger in memory keeps the latest ten thousand in any case, and
                no more.

        Raises:
            ValueError: If *name* is too long, or *ttl_s* out of range.
        """
        ...

    def sweep(self, most: int = 1_000) -> int:
        """Expire at most *most* holds whose time is up; return how many were. `reserve` does a few by itself."""
        ...

    def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        """At most *most* suspended holds, oldest first, to be reconciled with `commit` or `release`."""
        ...

    def audit(self) -> Sequence[str]:
        """Recount every scope from the records of its holds, and from its usage history.

        Returns:
            Every difference, in words: none if all is well.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections. The ledger is of no use afterwards."""
        ...


class AsyncLedger(Protocol):
    """The verbs of `Ledger`, to await."""

    async def set_limits(
        self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "", note: str = ""
    ) -> None: ...
    async def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome: ...
    async def forward(self, hold_id: str) -> None: ...
    async def extend(self, hold_id: str, ttl_s: float) -> bool: ...
    async def commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Settled: ...
    async def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool: ...
    async def charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine] = ()
    ) -> Refused | None: ...
    async def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts: ...
    async def await_room(self, version: int, timeout: float) -> bool: ...
    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]: ...
    async def usage(self, query: UsageQuery) -> Sequence[UsageSum]: ...
    async def names(self, kind: str, prefix: str = "") -> Sequence[str]: ...
    async def revoke(self, scope: Scope, reason: str) -> None: ...
    async def restore(self, scope: Scope) -> bool: ...
    async def swap(self, name: str, expected: str | None, text: str | None, ttl_s: float) -> str | None: ...
    async def sweep(self, most: int = 1_000) -> int: ...
    async def suspended(self, most: int = 1_000) -> Sequence[Suspended]: ...
    async def audit(self) -> Sequence[str]: ...
    async def close(self) -> None: ...
