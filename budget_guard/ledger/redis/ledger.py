"""The shared ledger: counters in Redis, for any number of processes and machines.

Needs ``pip install "budget-guard-py[redis]"``, and Redis 7 or later, or Valkey.

Each verb is one Lua script over all scopes. What it promises when something fails is written in ``docs/ledgers.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger.base import Balance, Refused, ReserveOutcome, Settled, Suspended
from budget_guard.ledger.redis.async_connection import AsyncRedisLink
from budget_guard.ledger.redis.connection import NoAnswer, NotSent, Place, RedisLink
from budget_guard.ledger.redis.keys import Keys
from budget_guard.ledger.redis.script_runner import Doze, Flow, ScriptRunner
from budget_guard.ledger.redis.verbs import RedisVerbs
from budget_guard.ledger.waiters import Waiters
from budget_guard.units.amounts import Amounts, Limits, Sums
from budget_guard.units.scope import Scope, Window

if TYPE_CHECKING:
    import redis

T = TypeVar("T")


class RedisLedger:
    """Counters in Redis. Safe to use from any thread, event loop, process and machine, and after a fork.

    A verb that gets no answer is sent again, twice at most: then it is a `LedgerUnavailable`, or where it may have been
    carried out a `LedgerAmbiguous`. Time is the server's, so no machine's clock matters but for ids: one that is made
    more than 5 minutes ahead of it, or reserved more than 5 minutes after it was made, is a `StaleReservation`.

    Where the store turns out to have lost what it had confirmed (a failover to a replica that lagged, a restart from an
    older file, an empty store), no hold is admitted any more, by any client, until `reopen` is called.

    Args:
        client_or_url: ``redis://``, ``rediss://`` or ``unix://``, or a `redis.Redis` whose address, password and TLS
            settings are taken over. Of a cluster any node: redirections are followed.
        tenant: Whose ledger it is. Tenants share nothing. All keys of one live in one slot of a cluster.
        hold_ttl_s: Seconds after which a hold expires if its reserve does not say. Longer than any call may take.
        retain: How many settled holds to remember; a tenth of it, or 100, may be more for a while. Those made in the
            last 5 minutes are remembered in any case.
        wait_replicas: How many replicas must have each change before the verb returns (``WAIT``). With one, a failover
            to it loses nothing that was confirmed.
        timeout_s: Seconds to wait for a connection, and for each answer.
        clock: Where waiting happens. It is not asked for the time of day.

    Raises:
        ImportError: If redis-py is not installed.
        TypeError: If *client_or_url* is neither.
        ValueError: If a number makes no sense.
    """

    def __init__(
        self,
        client_or_url: redis.Redis | str,
        *,
        tenant: str = "default",
        hold_ttl_s: float = 900,
        retain: int = 100_000,
        wait_replicas: int = 0,
        timeout_s: float = 0.5,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        for name, value, least in (
            ("hold_ttl_s", hold_ttl_s, 0.001),
            ("retain", retain, 1),
            ("wait_replicas", wait_replicas, 0),
            ("timeout_s", timeout_s, 0.001),
        ):
            if not least <= value:
                raise ValueError(f"{name}={value!r} must be at least {least}")
        keys, place = Keys(tenant), Place(client_or_url, timeout_s)
        self._room = Waiters(clock)
        self._link = RedisLink(place)
        courier = ScriptRunner(place, keys.tenant, wait_replicas, self._now, lambda: self._room.times)
        self._verbs = RedisVerbs(keys, courier, self._room, clock.monotonic, hold_ttl_s, retain)
        self.aio = AsyncRedisLedger(self._verbs, AsyncRedisLink(place), self._room, self._link)

    def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        self._run(self._verbs.set_limits(scope, limits, window, owner))

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
        return self._run(self._verbs.reserve(hold_id, scopes, amounts, room, ttl_s, suspend, sent))

    def forward(self, hold_id: str) -> None:
        self._run(self._verbs.forward(hold_id))

    def extend(self, hold_id: str, ttl_s: float) -> bool:
        return self._run(self._verbs.extend(hold_id, ttl_s))

    def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        return self._run(self._verbs.commit(hold_id, scopes, amounts, uncertain))

    def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return self._run(self._verbs.release(hold_id, scopes))

    def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return self._run(self._verbs.charge(charge_id, scopes, amounts))

    def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return self._run(self._verbs.adjust(adjust_id, scope, change, reason))

    def await_room(self, version: int, timeout: float) -> bool:
        return self._run(self._verbs.await_room(version, timeout))

    def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return self._run(self._verbs.balances(scopes))

    def revoke(self, scope: Scope, reason: str) -> None:
        self._run(self._verbs.revoke(scope, reason))

    def restore(self, scope: Scope) -> bool:
        return self._run(self._verbs.restore(scope))

    def sweep(self, most: int = 1_000) -> int:
        return self._run(self._verbs.sweep(most))

    def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return self._run(self._verbs.suspended(most))

    def audit(self) -> Sequence[str]:
        return self._run(self._verbs.audit())

    def reopen(self) -> None:
        """Admit holds again after the store lost what it had confirmed. For an operator, once for all clients.

        Before that, compare the balances with what was really spent (the sessions' reports, the provider's usage) and
        `adjust` them: what the store lost is not counted.
        """
        self._run(self._verbs.reopen())

    def close(self) -> None:
        self._link.close()

    def _run(self, flow: Flow[T]) -> T:
        outcome: object = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(outcome) if error is None else flow.throw(error)
            except StopIteration as stop:
                value: T = stop.value
                return value
            outcome, error = None, None
            try:
                if isinstance(step, Doze):
                    self._room.wait(step.times, step.seconds)
                else:
                    outcome = self._link.ask(step)
            except (NotSent, NoAnswer) as exc:
                error = exc

    def _now(self) -> bytes:
        """The time in microseconds since 1970 for the server to use; empty for its own. Tests override it."""
        return b""


class AsyncRedisLedger:
    """The verbs of `RedisLedger`, to await. A cancelled verb may still be carried out."""

    def __init__(self, verbs: RedisVerbs, link: AsyncRedisLink, room: Waiters, blocking: RedisLink) -> None:
        self._verbs = verbs
        self._link = link
        self._room = room
        self._blocking = blocking

    async def set_limits(self, scope: Scope, limits: Limits, window: Window = "none", owner: str = "") -> None:
        await self._run(self._verbs.set_limits(scope, limits, window, owner))

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
        return await self._run(self._verbs.reserve(hold_id, scopes, amounts, room, ttl_s, suspend, sent))

    async def forward(self, hold_id: str) -> None:
        await self._run(self._verbs.forward(hold_id))

    async def extend(self, hold_id: str, ttl_s: float) -> bool:
        return await self._run(self._verbs.extend(hold_id, ttl_s))

    async def commit(self, hold_id: str, scopes: Sequence[Scope], amounts: Amounts, uncertain: bool = False) -> Settled:
        return await self._run(self._verbs.commit(hold_id, scopes, amounts, uncertain))

    async def release(self, hold_id: str, scopes: Sequence[Scope]) -> bool:
        return await self._run(self._verbs.release(hold_id, scopes))

    async def charge(self, charge_id: str, scopes: Sequence[Scope], amounts: Amounts) -> Refused | None:
        return await self._run(self._verbs.charge(charge_id, scopes, amounts))

    async def adjust(self, adjust_id: str, scope: Scope, change: Amounts, reason: str) -> Amounts:
        return await self._run(self._verbs.adjust(adjust_id, scope, change, reason))

    async def await_room(self, version: int, timeout: float) -> bool:
        return await self._run(self._verbs.await_room(version, timeout))

    async def balances(self, scopes: Sequence[Scope]) -> Sequence[Balance]:
        return await self._run(self._verbs.balances(scopes))

    async def revoke(self, scope: Scope, reason: str) -> None:
        await self._run(self._verbs.revoke(scope, reason))

    async def restore(self, scope: Scope) -> bool:
        return await self._run(self._verbs.restore(scope))

    async def sweep(self, most: int = 1_000) -> int:
        return await self._run(self._verbs.sweep(most))

    async def suspended(self, most: int = 1_000) -> Sequence[Suspended]:
        return await self._run(self._verbs.suspended(most))

    async def audit(self) -> Sequence[str]:
        return await self._run(self._verbs.audit())

    async def reopen(self) -> None:
        """As `RedisLedger.reopen`."""
        await self._run(self._verbs.reopen())

    async def close(self) -> None:
        await self._link.close()
        self._blocking.close()

    async def _run(self, flow: Flow[T]) -> T:
        outcome: object = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(outcome) if error is None else flow.throw(error)
            except StopIteration as stop:
                value: T = stop.value
                return value
            outcome, error = None, None
            try:
                if isinstance(step, Doze):
                    await self._room.wait_async(step.times, step.seconds)
                else:
                    outcome = await self._link.ask(step)
            except (NotSent, NoAnswer) as exc:
                error = exc
