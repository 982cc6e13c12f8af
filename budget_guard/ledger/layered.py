"""A ledger on top of another one: its verbs are flows over the inner ledger's, written once for both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from budget_guard.ledger.base import AsyncLedger, Balance, Ledger, Refused, ReserveOutcome, Settled, Suspended
from budget_guard.ledger.flow import Flow, Verb, adrive, drive
from budget_guard.units.amounts import Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window


class LedgerWrapper:
    """A `Ledger` that passes every verb on. A subclass says in `flow` what it does otherwise.

    Args:
        inner: The ledger below.
    """

    def __init__(self, inner: Ledger) -> None:
        self.inner = inner
        """The ledger below."""
        self.aio: AsyncLedger = _Awaited(self)

    def flow(self, verb: Verb, arguments: tuple[Any, ...]) -> Flow[Any]:
        """How *verb* is performed on the inner ledger."""
        return (yield verb, arguments)

    def _perform(self, verb: Verb, *arguments: Any) -> Any:
        return drive(self.flow(verb, arguments), self.inner)

    def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        self._perform("set_limits", scope, limits, window, owner)

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
        return cast("ReserveOutcome", self._perform("reserve", hold_id, scopes, amounts, room, ttl_s, suspend, sent))

    def forward(self, hold_id: str) -> None:
        self._perform("forward", hold_id)

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        return cast("bool", self._perform("extend", hold_id, ttl_s))

    def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        return cast("Settled", self._perform("commit", hold_id, scopes, amounts, uncertain))

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return cast("bool", self._perform("release", hold_id, scopes))

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return cast("Refused | None", self._perform("charge", charge_id, scopes, amounts))

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return cast("Amounts", self._perform("adjust", adjust_id, scope, change, reason))

    def await_room(self, version: int, timeout: float) -> bool:
        return cast("bool", self._perform("await_room", version, timeout))

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return cast("Sequence[Balance]", self._perform("balances", scopes))

    def revoke(self, scope: Scope, reason: str) -> None:
        self._perform("revoke", scope, reason)

    def restore(self, scope: Scope) -> bool:
        return cast("bool", self._perform("restore", scope))

    def sweep(self, most: int = 1_000) -> int:
        return cast("int", self._perform("sweep", most))

    def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return cast("Sequence[Suspended]", self._perform("suspended", most))

    def audit(self) -> Sequence[str]:
        return cast("Sequence[str]", self._perform("audit"))

    def close(self) -> None:
        self._perform("close")


class _Awaited:
    """The verbs of a `LedgerWrapper`, to await."""

    def __init__(self, ledger: LedgerWrapper) -> None:
        self._ledger = ledger

    async def _perform(self, verb: Verb, *arguments: Any) -> Any:
        return await adrive(self._ledger.flow(verb, arguments), self._ledger.inner.aio)

    async def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        await self._perform("set_limits", scope, limits, window, owner)

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
        return cast(
            "ReserveOutcome", await self._perform("reserve", hold_id, scopes, amounts, room, ttl_s, suspend, sent)
        )

    async def forward(self, hold_id: str) -> None:
        await self._perform("forward", hold_id)

    async def extend(self, hold_id: str, ttl_s: float) -> bool:
        return cast("bool", await self._perform("extend", hold_id, ttl_s))

    async def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        return cast("Settled", await self._perform("commit", hold_id, scopes, amounts, uncertain))

    async def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return cast("bool", await self._perform("release", hold_id, scopes))

    async def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return cast("Refused | None", await self._perform("charge", charge_id, scopes, amounts))

    async def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return cast("Amounts", await self._perform("adjust", adjust_id, scope, change, reason))

    async def await_room(self, version: int, timeout: float) -> bool:
        return cast("bool", await self._perform("await_room", version, timeout))

    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return cast("Sequence[Balance]", await self._perform("balances", scopes))

    async def revoke(self, scope: Scope, reason: str) -> None:
        await self._perform("revoke", scope, reason)

    async def restore(self, scope: Scope) -> bool:
        return cast("bool", await self._perform("restore", scope))

    async def sweep(self, most: int = 1_000) -> int:
        return cast("int", await self._perform("sweep", most))

    async def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return cast("Sequence[Suspended]", await self._perform("suspended", most))

    async def audit(self) -> Sequence[str]:
        return cast("Sequence[str]", await self._perform("audit"))

    async def close(self) -> None:
        await self._perform("close")
