"""Ledgers that several processes share: a file of this host, or a server."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from pathlib import Path

import pytest

from budget_guard import Ledger, open_ledger


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str, None, None]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/budget.db"
        return
    if importlib.util.find_spec("redis") is None:
        pytest.skip("redis is not installed")
    from tests.ledger.redis_server import BINARY, RedisServer

    if BINARY is None:
        pytest.skip("no redis-server or valkey-server is installed")
    server = RedisServer(tmp_path / "redis").start()
    yield f"{server.url}?tenant=acme"
    server.kill()


@pytest.fixture
def ledger(url: str) -> Generator[Ledger, None, None]:
    opened = open_ledger(url)
    yield opened
    opened.close()
