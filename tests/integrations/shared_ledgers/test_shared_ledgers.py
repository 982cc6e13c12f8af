"""One ceiling for every run of a user, in SQLite and in Redis: the adapters hold it in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from budget_guard import Budget, BudgetAuthority, BudgetRevoked, ToolCall, open_ledger
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.shared_ledgers import worker

_ROOT = Path(__file__).parents[3]
_PATIENCE_S = 120
PROCESSES, RUNS = 2, 50


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a ledger is that processes can share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'budget.db'}"
        return
    servers = pytest.importorskip("tests.ledger.redis_server", exc_type=ImportError)
    if servers.BINARY is None:
        pytest.skip("no redis-server or valkey-server is installed: apt-get install redis-server")
    server = servers.RedisServer(tmp_path / "redis").start()
    yield server.url
    server.stop()


@pytest.fixture(params=["openai_agents", "langchain"])
def adapter(request: pytest.FixtureRequest) -> str:
    """Each of the adapters."""
    name: str = request.param
    pytest.importorskip({"openai_agents": "agents", "langchain": "langchain_openai"}[name])
    return name


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    """A provider that charges ten cents for every call."""
    with LocalProvider(Reply(input_tokens=10, output_tokens=worker.OUTPUT)) as provider:
        yield provider


def must_agree(url: str, provider: LocalProvider, *, least: str) -> None:
    """The ceiling held, what was spent is what the provider served, and nothing is held any more."""
    provider.wait_until_idle()
    ledger = open_ledger(url)
    user = BudgetAuthority(ledger).snapshot("user", "u1")
    assert Decimal(least) <= provider.bill_usd <= Decimal("1.00")
    assert (user.spent_usd, user.reserved_usd, user.open_holds) == (provider.bill_usd, Decimal(0), 0)
    assert ledger.audit() == []
    ledger.close()


async def test_a_hundred_runs_at_once_never_pass_the_ceiling(url: str, adapter: str, provider: LocalProvider) -> None:
    ledger = open_ledger(url)
    authority = BudgetAuthority(ledger, ceilings={"user": worker.CEILING})
    refused = await worker.refused(adapter, authority, provider.base_url, 100)
    assert refused + len(provider.calls) == 100
    must_agree(url, provider, least="0.90")
    ledger.close()


def test_processes_share_the_ceiling(url: str, adapter: str, provider: LocalProvider) -> None:
    command = [sys.executable, worker.__file__, adapter, url, provider.base_url, str(RUNS)]
    paths = os.pathsep.join([str(_ROOT), str(_ROOT / "integrations"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "default"}
    fleet = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    ended = [(process, *process.communicate(timeout=_PATIENCE_S)) for process in fleet]
    for process, _, errors in ended:
        assert process.returncode == 0, errors
    refused = sum(int(output) for _, output, _ in ended)
    assert refused + len(provider.calls) == PROCESSES * RUNS
    must_agree(url, provider, least="0.80")  # a call may be refused beside one that is just under way elsewhere


def test_a_user_that_is_revoked_elsewhere_is_stopped_at_the_next_call(url: str) -> None:
    here, there = open_ledger(url), open_ledger(url)
    session = BudgetAuthority(here).session(Budget("$5"), user="u1")
    other = BudgetAuthority(here).session(Budget("$5"), user="u2")
    session.charge("search", "0.01")
    BudgetAuthority(there).revoke("user", "u1", reason="compromised")
    decision = session.authorize(ToolCall("search", 1_000))
    assert isinstance(decision.error, BudgetRevoked)
    assert (decision.error.scope, decision.error.reason) == ("user:u1", "compromised")
    assert decision.error.at.tzinfo is not None
    assert session.decisions(action="block") == [decision]
    assert other.authorize(ToolCall("search", 1_000)).error is None
    here.close()
    there.close()
