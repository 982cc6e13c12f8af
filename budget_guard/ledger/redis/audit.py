"""Recounting the scopes from the records of their holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budget_guard.ledger.redis.keys import scopes_of
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope

_OPEN = frozenset((b"reserved", b"forwarded", b"suspended"))


def differences(scopes: Sequence[Scope], counted: Sequence[Any], holds: Sequence[Any]) -> list[str]:
    """Every counter of *scopes* that is not what *holds* make it, in words."""
    periods = {scope: fields[0] for scope, fields in zip(scopes, counted, strict=True)}
    sums = {scope: (NOTHING, _numbers(fields[20:]), 0) for scope, fields in zip(scopes, counted, strict=True)}
    for state, its_scopes, amounts, its_periods, charged in holds:
        if state is None:  # forgotten since it was listed
            continue
        for scope, period in zip(scopes_of(its_scopes), its_periods.split(b","), strict=True):
            if periods[scope] == period:
                reserved, committed, open_holds = sums[scope]
                if state in _OPEN:
                    reserved, open_holds = reserved.plus(_numbers(amounts.split(b","))), open_holds + 1
                if charged is not None:
                    committed = committed.plus(_numbers(charged.split(b",")))
                sums[scope] = (reserved, committed, open_holds)
    wrong: list[str] = []
    for scope, fields in zip(scopes, counted, strict=True):
        if fields[0] is None:
            wrong.append(f"{scope}: its counters are gone")
        limits, committed, available = (_numbers(fields[first : first + 6]) for first in (2, 8, 14))
        reserved = limits.minus(committed).minus(available)
        for name, value, real in zip(
            ("reserved", "committed", "open_holds"),
            (reserved, committed, int(fields[1] or 0)),
            sums[scope],
            strict=True,
        ):
            if value != real:
                wrong.append(f"{scope}: {name} is {value} and its holds make it {real}")
    return wrong


def _numbers(fields: Sequence[bytes | None]) -> Amounts:
    return Amounts._make(int(field or 0) for field in fields)
