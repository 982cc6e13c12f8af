"""The way from blocking verbs to verbs to await, for a ledger whose verbs never wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from budget_guard.ledger.base import Balance, Refused, ReserveOutcome, Settled, Suspended
from budget_guard.units.amounts import Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

if TYPE_CHECKING:
    from budget_guard.ledger.base import Ledger


class InlineLedger:
    """An `AsyncLedger` that runs each verb of *ledger* where it is called, and waits with *await_room*."""

    __slots__ = ("_await_room", "_ledger")

    def __init__(self, ledger: Ledger, await_room: Callable[[int, float], Awaitable[bool]]) -> None:
        self._ledger = ledger
        self._await_room = await_room

    async def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        self._ledger.set_limits(scope, limits, window, owner)

    async def reserve(
        self,
        hold_id: str,
        scopes: Sequence[Scope],
        amounts: Amounts,
        room: Sums | None,
        ttl_s: float | None = None,
        suspend: bool = True,
        sent: bool = False,
    ) -> ReserveOutcome:
        return self._ledger.reserve(hold_id, scopes, amounts, room, ttl_s, suspend, sent)

    async def forward(self, hold_id: str) -> None:
        self._ledger.forward(hold_id)

    async def extend(self, hold_id: str, ttl_s: float) -> bool:
        return self._ledger.extend(hold_id, ttl_s)

    async def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        return self._ledger.commit(hold_id, scopes, amounts, uncertain)

    async def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return self._ledger.release(hold_id, scopes)

    async def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return self._ledger.charge(charge_id, scopes, amounts)

    async def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return self._ledger.adjust(adjust_id, scope, change, reason)

    async def await_room(self, version: int, timeout: float) -> bool:
        return await self._await_room(version, timeout)

    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return self._ledger.balances(scopes)

    async def revoke(self, scope: Scope, reason: str) -> None:
        self._ledger.revoke(scope, reason)

    async def restore(self, scope: Scope) -> bool:
        return self._ledger.restore(scope)

    async def sweep(self, most: int = 1_000) -> int:
        return self._ledger.sweep(most)

    async def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return self._ledger.suspended(most)

    async def audit(self) -> Sequence[str]:
        return self._ledger.audit()

    async def close(self) -> None:
        self._ledger.close()
