"""The audit of a ledger in Redis: its scopes recounted from the records of their holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from budget_guard.ledger.history import total
from budget_guard.ledger.redis.codec import HoldRecord, amounts_of, by_dimension, counted, quantities_of
from budget_guard.ledger.redis.keys import scopes_of
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope

_OPEN = frozenset((b"reserved", b"forwarded", b"suspended"))


class _Counts(NamedTuple):
    reserved: Amounts
    committed: Amounts
    open_holds: int


def differences(scopes: Sequence[Scope], counted: Sequence[Any], holds: Sequence[Any]) -> list[str]:
    """Every counter of *scopes* that is not what *holds* make it, in words."""
    periods: dict[Scope, bytes | None] = {}
    now: dict[Scope, _Counts] = {}
    real: dict[Scope, _Counts] = {}
    for scope, (period, open_holds, *counts) in zip(scopes, counted, strict=True):
        limits, committed, available, archived = by_dimension(counts)
        periods[scope] = period
        now[scope] = _Counts(limits.minus(committed).minus(available), committed, int(open_holds or 0))
        real[scope] = _Counts(NOTHING, archived, 0)
    for hold in map(HoldRecord._make, holds):
        if hold.scopes is None or hold.periods is None or hold.amounts is None:  # forgotten since it was listed
            continue
        for scope, period in zip(scopes_of(hold.scopes), hold.periods.split(b","), strict=True):
            if periods[scope] == period:
                reserved, committed, open_holds = real[scope]
                if hold.state in _OPEN:
                    reserved, open_holds = reserved.plus(amounts_of(hold.amounts)), open_holds + 1
                if hold.charged is not None:
                    committed = committed.plus(amounts_of(hold.charged))
                real[scope] = _Counts(reserved, committed, open_holds)
    gone = [f"{scope}: its counters are gone" for scope, period in periods.items() if period is None]
    return gone + [
        f"{scope}: {name} is {value} and its holds make it {recounted}"
        for scope in scopes
        for name, value, recounted in zip(_Counts._fields, now[scope], real[scope], strict=True)
        if value != recounted
    ]


def history_differences(scopes: Sequence[Scope], answers: Sequence[Any]) -> list[str]:
    """Every scope whose usage history is not what is committed there, in words."""
    wrong: list[str] = []
    for scope, (told, committed) in zip(scopes, answers, strict=True):
        if told is not None:
            has, is_now = total((quantities_of(told),)), counted(committed)
            if has != is_now:
                wrong.append(f"{scope}: its history has {has}, and {is_now} is committed")
    return wrong
