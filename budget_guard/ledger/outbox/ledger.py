"""The ledger with an outbox: what is spent while the inner one is out of reach is kept, and booked when it can be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import (
    LedgerAmbiguous,
    LedgerUnavailable,
    ReservationConflict,
    ReservationError,
    StaleReservation,
)
from budget_guard.ledger.base import Balance, Held, Ledger, Refused, ReserveOutcome, Settled
from budget_guard.ledger.flow import Flow, adrive, drive
from budget_guard.ledger.history import UsageLine
from budget_guard.ledger.outbox.store import Claim, Entry, Outbox, new_entry
from budget_guard.ledger.verbs import LedgerWrapper
from budget_guard.units.amounts import NOTHING, Amounts, Limits, Sums
from budget_guard.units.scope import Scope

_log = logging.getLogger("budget_guard")

_AT_ONCE = 64
"""Entries that are marked on the disk together."""
_MOST_HELD = 100_000


def replay(outbox: Outbox, ledger: Ledger, *, clock: Clock = SYSTEM_CLOCK) -> int:
    """Deliver what *outbox* holds to *ledger*; return how many entries were booked.

    Sessions do that by themselves, before their next call. This is for a program that has none.

    Raises:
        LedgerUnavailable: If the ledger still cannot be reached. What was booked until then is done with.
    """
    return drive(_replay(outbox, clock), ledger)


async def areplay(outbox: Outbox, ledger: Ledger, *, clock: Clock = SYSTEM_CLOCK) -> int:
    """As `replay`."""
    return await adrive(_replay(outbox, clock), ledger.aio)


class OutboxLedger(LedgerWrapper):
    """Passes verbs on. What was spent is never lost: a commit or a charge always succeeds, now or later.

    Args:
        inner: The ledger that may be out of reach.
        outbox: Where to keep what it did not acknowledge.
        clock: Where the ids of late charges get their time.
        forgiving: Whether a call goes on where its hold cannot be marked as sent.
        owner: The owner of the session's run, should its scope have to be opened.
    """

    def __init__(self, inner: Ledger, outbox: Outbox, *, clock: Clock, forgiving: bool, owner: str) -> None:
        super().__init__(inner)
        self._outbox = outbox
        self._clock = clock
        self._forgiving = forgiving
        self._owner = owner
        self._held: dict[str, None] = {}
        """The holds in flight that the ledger has acknowledged."""
        self.flows = {
            "reserve": self._reserve,
            "forward": self._forward,
            "commit": self._commit,
            "release": self._release,
            "charge": self._charge,
            "balances": self._balances,
        }

    def _reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> Flow[ReserveOutcome]:
        yield from self._deliver()
        try:
            outcome: ReserveOutcome = yield "reserve", (hold_id, scopes, amounts, room, ttl_s, suspend, sent)
        except LedgerAmbiguous:
            self._release_later(hold_id, scopes)
            raise
        if isinstance(outcome, Held) and len(self._held) < _MOST_HELD:  # holds that are never settled stay in it
            self._held[hold_id] = None
        return outcome

    def _balances(self, scopes: Sequence[Scope]) -> Flow[Sequence[Balance]]:
        yield from self._deliver()
        found: Sequence[Balance] = yield "balances", (scopes,)
        return found

    def _forward(self, hold_id: str) -> Flow[None]:
        if self._forgiving and hold_id not in self._held:
            return  # it was let pass without a hold
        try:
            yield "forward", (hold_id,)
        except (LedgerUnavailable, ReservationError) as error:
            if not self._forgiving:
                raise
            _log.error("budget_guard: a call is sent whose hold could not be marked: %s", error)

    def _commit(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool = False,
        lines: Sequence[UsageLine] = (),
    ) -> Flow[Settled]:
        fresh = hold_id not in self._held
        self._held.pop(hold_id, None)
        settled: Settled | None = yield from self._book("commit", hold_id, scopes, amounts, uncertain, fresh, lines)
        return Settled(NOTHING, amounts, uncertain) if settled is None else settled

    def _charge(
        self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts, lines: Sequence[UsageLine] = ()
    ) -> Flow[Refused | None]:
        passed: Refused | None = yield from self._book("charge", charge_id, scopes, amounts, False, True, lines)
        return passed

    def _book(
        self,
        verb: Literal["commit", "charge"],
        id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        uncertain: bool,
        fresh: bool,
        lines: Sequence[UsageLine],
    ) -> Flow[Any]:
        """Book money that was spent, or keep it to be booked later: then the answer is None."""
        entry = new_entry(verb, id, scopes, amounts, uncertain=uncertain, owner=self._owner, fresh=fresh, lines=lines)
        try:
            yield from self._deliver()
        except LedgerUnavailable as error:  # not tried at all: there is time enough for that
            self._keep(entry, error)
            return None
        try:
            return (yield from _send(entry))
        except LedgerUnavailable as error:
            self._keep(entry._replace(ambiguous=isinstance(error, LedgerAmbiguous)), error)
            return None
        except Exception:
            raise
        except BaseException as error:  # cancelled in the middle of it: it is spent all the same
            self._keep(entry._replace(ambiguous=True), error)
            raise

    def _keep(self, entry: Entry, error: BaseException) -> None:
        _log.error("budget_guard: the %s of %s is kept to be booked later: %r", entry.verb, entry.id, error)
        self._outbox.add(entry)

    def _release(self, hold_id: str, scopes: Sequence[Scope]) -> Flow[bool]:
        self._held.pop(hold_id, None)
        try:
            released: bool = yield "release", (hold_id, scopes)
        except LedgerUnavailable as error:
            _log.warning("budget_guard: the hold %s is given back later: %s", hold_id, error)
            self._release_later(hold_id, scopes)
            return True
        except KeyError:
            return False  # its scopes could not be opened, so nothing is held in them
        return released

    def _release_later(self, hold_id: str, scopes: Sequence[Scope]) -> None:
        self._outbox.releases.append((hold_id, tuple(scopes)))
        self._outbox.pending = True

    def _deliver(self) -> Flow[None]:
        if self._outbox.pending:
            delivered = yield from _replay(self._outbox, self._clock)
            if delivered:
                _log.warning("budget_guard: booked %s entries of the outbox", delivered)


def _replay(outbox: Outbox, clock: Clock) -> Flow[int]:
    with outbox.claim() as claim:
        if claim is None:
            return 0
        # The first one alone: while the ledger is out of reach, no more than that is noted again and again.
        delivered = yield from _replay_some(claim, claim.entries[:1], clock)
        for i in range(1, len(claim.entries), _AT_ONCE):
            delivered += yield from _replay_some(claim, claim.entries[i : i + _AT_ONCE], clock)
        while outbox.releases:
            hold_id, scopes = outbox.releases[0]
            try:
                yield "release", (hold_id, scopes)
            except LedgerUnavailable:
                raise
            except Exception as error:
                _log.info("budget_guard: the hold %s was not given back: %s", hold_id, error)
            outbox.releases.popleft()
        return delivered


def _replay_some(claim: Claim, entries: Sequence[Entry], clock: Clock) -> Flow[int]:
    claim.tried(entries)
    done: list[Entry] = []
    try:
        for i, entry in enumerate(entries):
            try:
                yield from _deliver_one(claim, entry, clock)
            except (ReservationConflict, StaleReservation, ValueError) as error:
                claim.rejected(entry, error)
                continue
            except BaseException as error:
                untouched = isinstance(error, LedgerUnavailable) and not isinstance(error, LedgerAmbiguous)
                claim.unsent(each for each in entries[i if untouched else i + 1 :] if not each.ambiguous)
                raise
            done.append(entry)
    finally:
        claim.done(done)
    return len(done)


def _deliver_one(claim: Claim, entry: Entry, clock: Clock) -> Flow[None]:
    try:
        yield from _send(entry)
    except (StaleReservation, ValueError):
        # Too old an id, after a long outage. Where the ledger cannot have heard of it, it is booked under a new one.
        if not entry.fresh or entry.ambiguous:
            raise
        yield from _send(claim.instead(entry, clock.now_ms()))


def _send(entry: Entry) -> Flow[Any]:
    try:
        return (yield from _send_once(entry))
    except KeyError:  # its scopes could not be opened yet; their ceilings come with the next call or session
        for scope in entry.scopes:
            try:
                yield "balances", ((scope,),)
            except KeyError:
                yield "set_limits", (scope, Limits(), "none", entry.owner if scope.kind == "run" else "")
        return (yield from _send_once(entry))


def _send_once(entry: Entry) -> Flow[Any]:
    if entry.verb == "charge":
        return (yield "charge", (entry.id, entry.scopes, entry.amounts, entry.lines))
    return (yield "commit", (entry.id, entry.scopes, entry.amounts, entry.uncertain, entry.lines))
