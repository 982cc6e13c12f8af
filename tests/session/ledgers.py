"""Each of the ledgers, as a fixture: in memory, SQLite, Redis, and one that leases from another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budget_guard import Ledger, open_ledger
from budget_guard.ledger.leased import LeasedLedger

LEDGERS = ("memory", "sqlite", "redis", "leased")


def opened(kind: str, folder: Path) -> Iterator[Ledger]:
    """The ledger of a *kind*, whose books are in order at the end."""
    server: Any = None
    url = "memory://" if kind == "memory" else f"sqlite:///{folder / 'budget.db'}"
    if kind == "redis":
        servers = pytest.importorskip("tests.ledger.redis_server", exc_type=ImportError)
        if servers.BINARY is None:
            pytest.skip("no redis-server or valkey-server is installed: apt-get install redis-server")
        server = servers.RedisServer(folder / "redis").start()
        url = server.url
    ledger = open_ledger(url)
    if kind == "leased":
        ledger = LeasedLedger(ledger)
    try:
        yield ledger
        assert ledger.audit() == []
    finally:
        ledger.close()
        if server is not None:
            server.stop()
