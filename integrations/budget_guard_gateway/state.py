"""What all requests of one gateway share: its settings, keys, prices, runs and connections."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp

from budget_guard import BudgetAuthority, open_ledger
from budget_guard.calls.ladder import check_policy
from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.ledger.leased import LeasedLedger
from budget_guard.ledger.memory import MemoryLedger
from budget_guard.pricing import PriceTable
from budget_guard_gateway.decisions import Decisions, open_store
from budget_guard_gateway.direct_request import DirectRequests, direct_requests, head_limits
from budget_guard_gateway.hosts import OwnNames
from budget_guard_gateway.keys import AnyToken, Keys, OneKey
from budget_guard_gateway.metrics import Metrics
from budget_guard_gateway.routes import Router
from budget_guard_gateway.runs import Runs, check_principals
from budget_guard_gateway.settings import GatewaySettings

_log = logging.getLogger("budget_guard")


def keys_of(settings: GatewaySettings, clock: Clock = SYSTEM_CLOCK) -> Keys | AnyToken:
    """Who may ask, checked.

    Raises:
        ValueError: If the file of keys makes no sense, or a key is under no ceiling.
        OSError: If the file cannot be read.
    """
    kinds = settings.ceiled_kinds
    if settings.keys is None:
        if kinds and kinds.isdisjoint(("user", "key")):
            raise ValueError(
                f"a ceiling of {' or '.join(sorted(kinds))} alone holds nobody here: without a file of keys each "
                "token is a user and a key, and nothing else: give such a file, or a ceiling to user or key"
            )
        return AnyToken()
    keys = Keys(settings.keys, clock=clock, check=lambda who: check_principals([who], kinds))
    check_principals(keys.all(), kinds)
    return keys


def prices_of(settings: GatewaySettings) -> PriceTable:
    """The prices that calls are held at, which the budget's cheaper models and the named alternatives have one of.

    Raises:
        BudgetError: If they have none, or the budget's are dearer.
        ValueError: If a price makes no sense.
    """
    prices = PriceTable.bundled()
    if settings.pricing or settings.per_million:
        prices = prices.overlaid(settings.pricing, per_million=settings.per_million)
    if settings.run_budget.downgrade is not None:
        check_policy(settings.run_budget.downgrade, prices)
    for name in settings.alternatives:
        prices.find(settings.models.get(name, name))
    return prices


class GatewayState:
    """What all requests of one gateway share.

    Args:
        settings: What it is started with.
        clock: Where time comes from.
        keys: Who may ask, in place of a file's.

    Raises:
        ValueError, OSError: As `keys_of`.
        BudgetError: As `prices_of`.
    """

    def __init__(self, settings: GatewaySettings, *, clock: Clock = SYSTEM_CLOCK, keys: OneKey | None = None) -> None:
        self.settings = settings
        self.keys = keys_of(settings, clock) if keys is None else keys
        if keys is not None:
            check_principals(keys.all(), settings.ceiled_kinds)
        prices = prices_of(settings)
        self.keeps_credentials = isinstance(self.keys, AnyToken)
        """Whether callers' own keys are passed on to a provider for which the gateway has none."""
        self.authority = BudgetAuthority(
            LeasedLedger(open_ledger(settings.ledger), clock=clock) if settings.leases else settings.ledger,
            settings.ceilings,
            plans=settings.plans,
            pricing=settings.pricing,
            per_million=settings.per_million,
            clock=clock,
            max_live_runs=settings.max_live_runs,
            run_ttl_s=settings.run_ttl_s,
            outbox=settings.outbox,
            on_ledger_error=settings.on_ledger_error,
            require=(),
        )
        if isinstance(self.authority.ledger, MemoryLedger):
            self.authority.ledger.tells_cost_left = True  # every answer has it among its headers
        self.prices = prices.basis
        """Version and hash of the price table."""
        self.router = Router(settings.upstreams, settings.passthrough)
        self.runs = Runs(self.authority, settings, clock)
        mode = settings.run_budget.mode
        self.under_way: set[asyncio.Task[Any]] = set()
        """Requests that are served now."""
        self.metrics = Metrics(mode, self.under_way)
        """The numbers of this process."""
        store = open_store(settings.ledger, settings.decisions_kept_days, clock)
        self.decisions = Decisions(store, mode, self.metrics.note)
        """The records of what was decided."""
        self.clock = clock
        self.connections: aiohttp.ClientSession | None = None
        """Those to the providers, once there are some."""
        self.direct: DirectRequests | None = None
        """The fast way to send requests over them, where there is one."""
        self._names = OwnNames(settings.host, settings.allowed_hosts)
        if not settings.ceiled_kinds and keys is None:
            _log.warning(
                "budget_guard: there is no ceiling, so requests without X-Run-Id, each a run of its own, are held to "
                "nothing together"
            )

    @property
    def http(self) -> aiohttp.ClientSession:
        """The connections to the providers."""
        if self.connections is None:
            settings = self.settings
            self.connections = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                **head_limits(aiohttp.ClientSession.__init__),
            )
            self.direct = direct_requests(self.connections)
        return self.connections

    def serves_host(self, host: bytes) -> bool:
        """Whether it is asked by a name of its own."""
        return self._names.has(host)
