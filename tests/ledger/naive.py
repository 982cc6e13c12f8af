"""A ledger as simple as it can be: a list of records that every question sums up anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budget_guard.dimension import NOTHING, Amounts, Limits
from budget_guard.scope import Scope


class Conflict(Exception):
    """The same id with other parameters."""


@dataclass
class Record:
    scopes: tuple[Scope, ...]
    held: Amounts
    open: bool = True
    charged: Amounts | None = None
    certain: bool = False


class NaiveLedger:
    def __init__(self) -> None:
        self.limits: dict[Scope, Limits] = {}
        self.revoked: set[Scope] = set()
        self.records: dict[str, Record] = {}

    def committed(self, scope: Scope) -> Amounts:
        return _sum([r.charged for r in self.records.values() if scope in r.scopes and r.charged is not None])

    def reserved(self, scope: Scope) -> Amounts:
        return _sum([r.held for r in self.records.values() if scope in r.scopes and r.open])

    def open_holds(self, scope: Scope) -> int:
        return sum(scope in r.scopes and r.open for r in self.records.values())

    def fits(self, scopes: Sequence[Scope], room: Amounts) -> bool:
        return all(
            limit is None or committed + reserved + amount <= limit
            for scope in scopes
            for committed, reserved, amount, limit in zip(
                self.committed(scope), self.reserved(scope), room, self.limits[scope], strict=True
            )
        )

    def reserve(self, hold_id: str, scopes: tuple[Scope, ...], amounts: Amounts, room: Amounts | None) -> str:
        known = self.records.get(hold_id)
        if known is not None:
            if (known.scopes, known.held) != (scopes, amounts):
                raise Conflict
            return "held"
        if self.revoked & set(scopes):
            return "revoked"
        if room is not None and not self.fits(scopes, room):
            return "refused"
        self.records[hold_id] = Record(scopes, amounts)
        return "held"

    def commit(self, hold_id: str, scopes: tuple[Scope, ...], amounts: Amounts, uncertain: bool) -> None:
        record = self._find(hold_id, scopes, amounts)
        if record.charged is not None and uncertain:
            return
        if record.certain and record.charged != amounts:
            raise Conflict
        record.open, record.charged, record.certain = False, amounts, not uncertain

    def release(self, hold_id: str, scopes: tuple[Scope, ...]) -> bool:
        record = self._find(hold_id, scopes, NOTHING)
        was_open, record.open = record.open, False
        return was_open

    def charge(self, charge_id: str, scopes: tuple[Scope, ...], amounts: Amounts) -> bool:
        """Book it; return whether every limit still holds."""
        known = self.records.setdefault(charge_id, Record(scopes, amounts, False, amounts, True))
        if (known.scopes, known.held) != (scopes, amounts):
            raise Conflict
        return self.fits(scopes, NOTHING)

    def _find(self, hold_id: str, scopes: tuple[Scope, ...], amounts: Amounts) -> Record:
        record = self.records.setdefault(hold_id, Record(scopes, amounts, open=False))
        if record.scopes != scopes:
            raise Conflict
        return record


def _sum(amounts: Sequence[Amounts]) -> Amounts:
    return Amounts(*map(sum, zip(*amounts, strict=True))) if amounts else NOTHING
