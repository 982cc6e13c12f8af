"""The codec between the values of the library and the bytes that the Lua scripts take and answer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, NamedTuple

from budget_guard.errors import (
    LedgerUnavailable,
    ReservationConflict,
    StaleReservation,
    UnknownReservation,
)
from budget_guard.ledger.base import Balance, Refused, Revoked, ScopeSpend
from budget_guard.ledger.checks import check_ttl
from budget_guard.ledger.counters import first_refusal
from budget_guard.ledger.history import By, Labels, Quantities, UsageLine, as_row, quantities
from budget_guard.ledger.hold_id import made_ms
from budget_guard.ledger.redis.keys import decode, scopes_of
from budget_guard.units.amounts import DIMENSIONS, MOST, Amounts, Limits, Sums
from budget_guard.units.scope import Scope

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class HoldRecord(NamedTuple):
    """The record of a hold as scripts answer it; nothing but None where there is none any more."""

    state: bytes | None
    scopes: bytes | None
    amounts: bytes | None
    periods: bytes | None
    charged: bytes | None


def problem(
    status: bytes,
    rest: Sequence[Any],
    hold_id: str = "",
    scopes: Sequence[Scope] = (),
    amounts: bytes = b"",
    named: bytes = b"",
) -> Exception:
    """The error that an answer means.

    Args:
        status: Why the verb was not carried out.
        rest: What else the script told.
        hold_id: The id that the verb was about.
        scopes: The scopes that it was about.
        amounts: What was to be booked, as it was sent.
        named: The names of *scopes*, as they were sent.
    """
    told, *_ = *rest, None
    if status == b"missing":
        return KeyError(scopes[int(told) - 1])
    if status == b"unknown":
        return UnknownReservation(reservation_id=hold_id, detail="was never made; nothing was changed")
    if status == b"stale":
        return StaleReservation(
            reservation_id=hold_id, detail="is older than what the ledger remembers; nothing was changed"
        )
    if status in (b"late", b"early"):
        ahead = made_ms(hold_id) / 1e3 - int(told) / 1e6
        side = f"{ahead:.0f} s after" if ahead > 0 else f"{-ahead:.0f} s before"
        return StaleReservation(
            reservation_id=hold_id,
            detail=f"was made {side} the ledger's own time; nothing was changed: check this machine's clock",
        )
    if status == b"fenced":
        return LedgerUnavailable(
            detail="fenced: Redis lost what it had confirmed (a failover, an older file, an empty store). Compare "
            "its balances with what was really spent, adjust them, and call reopen()"
        )
    if status == b"lost":
        return LedgerUnavailable(
            detail=f"fenced: Redis lost the counters of {scopes[int(rest[0]) - 1]}, or the list that it is in: a key "
            "is gone. Find out what was spent, adjust the balances, and call reopen()"
        )
    if status == b"damaged":
        return LedgerUnavailable(
            detail=f"the counters of {scopes[int(told) - 1]} are damaged, or beyond 64 bits; nothing was changed"
        )
    if status == b"another":
        return another(hold_id, told)
    if status == b"over":
        return ReservationConflict(
            reservation_id=hold_id,
            detail=f"is {told.decode()}: its call must not be sent, reserve it anew",
        )
    if status == b"elsewhere":
        return elsewhere(hold_id, told, scopes)
    if status == b"conflict":
        its_scopes, before = rest
        if its_scopes != named:
            return elsewhere(hold_id, its_scopes, scopes)
        return ReservationConflict(
            reservation_id=hold_id,
            detail=f"is booked with {amounts_of(before)} and cannot take {amounts_of(amounts)}",
        )
    if status == b"below":
        then = counted(told).plus(amounts_of(amounts))
        return ValueError(
            f"change={amounts_of(amounts)} would leave less than nothing committed in {scopes[0]}: {then}"
        )
    raise AssertionError(status)


def listed(numbers: Sequence[int]) -> bytes:
    """Amounts or limits as a script takes them."""
    return b"%d,%d,%d,%d,%d,%d" % tuple(numbers)


def amounts_of(listed: bytes) -> Amounts:
    """The amounts that were sent as *listed*."""
    return Amounts._make(map(int, listed.split(b",")))


def counted(fields: Sequence[bytes | None]) -> Amounts:
    """The amounts in six fields, each of which may be missing."""
    return Amounts._make([int(field or 0) for field in fields])


def lines_text(lines: Sequence[UsageLine]) -> bytes:
    """The lines of a booking as a script takes them: labels as JSON, a tab, quantities, a line's end."""
    return b"".join(
        b"%b\t%b\n" % (labels_text(line.labels), b"%d,%d,%d,%d,%d,%d,%d,%d,%d,%d" % quantities(line)) for line in lines
    )


@lru_cache(maxsize=4_096)
def labels_text(labels: Labels) -> bytes:
    """*labels* as JSON: the same for the same ones."""
    return json.dumps(labels, separators=(",", ":")).encode()


def usage_row(fields: Sequence[Any], by: Sequence[By]) -> tuple[int, Labels, Quantities]:
    """The hour, the labels that are asked for, and the quantities of a sum that a script tells."""
    hour, names, row = fields
    asked = [name for name in Labels._fields if name in by]
    labels = Labels(**dict(zip(asked, map(decode, names), strict=True)))
    return int(hour or 0), labels, quantities_of(row)


def quantities_of(listed: bytes) -> Quantities:
    """The quantities of a row."""
    return as_row(map(int, listed.split(b",")))


def ttl_of(seconds: float) -> bytes:
    """A time to live in microseconds.

    Raises:
        ValueError: If it is none.
    """
    check_ttl(seconds)
    return b"%d" % min(math.ceil(seconds * 1_000_000), MOST // 2)


def time_of(microseconds: bytes) -> datetime:
    """The time of a script."""
    return _EPOCH + timedelta(microseconds=int(microseconds))


def revoked_of(scope: Scope, reason: bytes, at: bytes) -> Revoked:
    """A revocation of *scope*."""
    return Revoked(scope, decode(reason), time_of(at))


def balance_of(scope: Scope, fields: Sequence[Any]) -> Balance:
    """The counters of *scope* from all that a script tells about it."""
    limited, window, starts, holds, reason, at, note, *counts = fields
    limits, committed, available = by_dimension(counts)
    return Balance(
        scope,
        _limits(limited, limits),
        committed,
        limits.minus(committed).minus(available),
        int(holds or 0),
        None if reason is None else revoked_of(scope, reason, at),
        window.decode(),
        time_of(starts) if starts else None,
        decode(note or b""),
    )


def spend_of(fields: Sequence[Any]) -> ScopeSpend:
    """What is committed in a scope, and its limits, as a script tells it of a scope above a run."""
    each = len(DIMENSIONS)
    return ScopeSpend(counted(fields[1 + each :]), _limits_told(*fields[: 1 + each]))


@lru_cache(maxsize=4_096)
def _limits_told(limited: bytes, *limits: bytes | None) -> Limits:
    """Limits as a script tells them: the same again and again."""
    return _limits(limited, counted(limits))


def _limits(limited: bytes, limits: Amounts) -> Limits:
    return Limits._make(limit if given == ord("1") else None for limit, given in zip(limits, limited, strict=True))


def by_dimension(fields: Sequence[bytes | None]) -> list[Amounts]:
    """Quantities in fields that follow each other, one for each dimension."""
    each = len(DIMENSIONS)
    return [counted(fields[first : first + each]) for first in range(0, len(fields), each)]


def elsewhere(hold_id: str, its_scopes: bytes, scopes: Sequence[Scope]) -> ReservationConflict:
    """The error for a hold that was made in other scopes."""
    held, asked = (", ".join(map(str, each)) for each in (scopes_of(its_scopes), scopes))
    return ReservationConflict(reservation_id=hold_id, detail=f"was made in {held}, not in {asked}")


def another(hold_id: str, origin: bytes) -> ReservationConflict:
    """The error for an id that came with another verb."""
    return ReservationConflict(
        reservation_id=hold_id, detail=f"came with {origin.decode()} before: not for another verb"
    )


def refused_of(scopes: Sequence[Scope], version: bytes, fields: Sequence[Sequence[Any]], room: Sums) -> Refused | None:
    """The first limit that *room* would pass; None if it fits."""
    return first_refusal(list(map(balance_of, scopes, fields)), room, int(version))
