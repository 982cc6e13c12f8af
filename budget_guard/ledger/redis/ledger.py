"""The ledger in Redis: shared by any number of processes and machines.

Needs ``pip install "budget-guard-py[redis]"``, and Redis 7 or later, or Valkey.

Each verb is one Lua script over all scopes. What it promises when something fails is written in ``docs/ledgers.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger.base import Ledger
from budget_guard.ledger.flow import arun, run
from budget_guard.ledger.history import KEPT, Kept
from budget_guard.ledger.redis.async_connection import AsyncConnections
from budget_guard.ledger.redis.connection import Connections, Server
from budget_guard.ledger.redis.keys import Keys
from budget_guard.ledger.redis.script_runner import ScriptRunner
from budget_guard.ledger.redis.verbs import RedisVerbs
from budget_guard.ledger.verbs import AwaitableVerbs, BlockingVerbs
from budget_guard.ledger.waiters import Waiters

if TYPE_CHECKING:
    import redis

P = ParamSpec("P")
R = TypeVar("R")


class RedisLedger(BlockingVerbs):
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
        history: For how long to keep what the usage history has. The same for all clients of a tenant.

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
        history: Kept = KEPT,
    ) -> None:
        for name, value, least in (
            ("hold_ttl_s", hold_ttl_s, 0.001),
            ("retain", retain, 1),
            ("wait_replicas", wait_replicas, 0),
            ("timeout_s", timeout_s, 0.001),
        ):
            if not least <= value:
                raise ValueError(f"{name}={value!r} must be at least {least}")
        keys, server = Keys(tenant), Server(client_or_url, timeout_s)
        waiters = Waiters(clock)
        self._connections = Connections(server, waiters)
        self._runner = ScriptRunner(server, keys.tenant, wait_replicas, waiters)
        self._verbs = RedisVerbs(keys, self._runner, waiters, hold_ttl_s, retain, history.check())
        self.aio = AsyncRedisLedger(self._verbs, AsyncConnections(server, waiters), self._connections)

    def _perform(self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        result: R = run(getattr(self._verbs, verb.__name__)(*arguments), self._connections)
        return result

    def reopen(self) -> None:
        """Admit holds again after the store lost what it had confirmed. For an operator, once for all clients.

        Before that, compare the balances with what was really spent (the sessions' reports, the provider's usage) and
        `adjust` them: what the store lost is not counted.
        """
        run(self._verbs.reopen(), self._connections)

    def close(self) -> None:
        self._connections.close()


class AsyncRedisLedger(AwaitableVerbs):
    """The verbs of `RedisLedger`, to await. A cancelled verb may still be carried out."""

    def __init__(self, verbs: RedisVerbs, connections: AsyncConnections, blocking: Connections) -> None:
        self._verbs = verbs
        self._connections = connections
        self._blocking = blocking

    def _perform(
        self, verb: Callable[Concatenate[Ledger, P], R], *arguments: P.args, **named: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        return arun(getattr(self._verbs, verb.__name__)(*arguments), self._connections)

    async def reopen(self) -> None:
        """As `RedisLedger.reopen`."""
        await arun(self._verbs.reopen(), self._connections)

    async def close(self) -> None:
        await self._connections.close()
        self._blocking.close()
