"""Records of decisions: looked up by whom they belong to, in every process, for as long as they are kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("jsonschema")

import jsonschema
from redis import Redis

from budget_guard import Budget
from budget_guard.protocol import decision_schema
from budget_guard.testing import FakeClock, LocalProvider
from budget_guard_gateway import app
from budget_guard_gateway.decisions import Row, Store, open_store
from tests.integrations.gateway.support import Asking, gateway
from tests.ledger.redis_server import BINARY, RedisServer


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if BINARY is None:
        pytest.skip("no redis-server is installed: apt-get install redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server.url
    server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return f"{request.getfixturevalue('redis')}?tenant={tmp_path.name}"
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'budget.db'}"


def look_up(asking: Asking, decision_id: str, token: str = "anybody") -> Any:
    return asking.http.get(f"/budget/decisions/{decision_id}", headers={"authorization": f"Bearer {token}"})


def test_a_decision_is_looked_up_by_its_principal_also_after_a_restart(provider: LocalProvider, ledger: str) -> None:
    with gateway(provider, ledger=ledger) as asking:
        admitted, refused = asking.ask(), asking.ask(max_tokens=999)
        ids = [answer.headers["x-budget-decision-id"] for answer in (admitted, refused)]
        assert refused.json()["instance"] == f"/budget/decisions/{ids[1]}"
        first = [look_up(asking, each) for each in ids]
        assert look_up(asking, ids[0], "somebody else").status_code == 404
        assert look_up(asking, "01a228e4ba66-ddcf2e1b497f-1").json()["code"] == "not_found"
        assert asking.http.get(f"/budget/decisions/{ids[0]}").status_code == 401
        assert (
            asking.http.post(f"/budget/decisions/{ids[0]}", headers={"authorization": "Bearer anybody"}).status_code
            == 405
        )
        for odd in ("..", "../../x", "x" * 200, "a%00b"):
            assert look_up(asking, odd).status_code in (404, 501)
    for answer in first:
        assert answer.headers["content-type"] == "application/json"
        jsonschema.validate(answer.json(), decision_schema())
    told, why = first[0].json(), first[1].json()
    assert (told["decision"], told["state"], told["cost_usd"], told["run_id"]) == ("allow", "committed", "0.1", "r1")
    assert (why["decision"], why["code"], why["state"]) == ("block", "run_ceiling_reached", None)
    if ledger != "memory://":
        with gateway(provider, ledger=ledger) as again:
            assert [look_up(again, each).json() for each in ids] == [told, why]
            assert look_up(again, ids[0], "somebody else").status_code == 404


def test_a_call_asks_redis_twice(
    provider: LocalProvider, redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To hold it, and to book it: what is left comes with that. What streams is looked at once more as it begins."""

    def scripts() -> int:
        with Redis.from_url(redis) as client:
            told: Any = client.info("commandstats")
        return sum(told[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in told)

    monkeypatch.setattr(app, "LOOKED_AFTER_S", 3_600.0)  # which asks for what was left behind
    ceilings = {"user": Budget("$20"), "key": Budget("$0.90")}
    with gateway(provider, "$10", ledger=f"{redis}?tenant={tmp_path.name}", ceilings=ceilings) as asking:
        for stream in (False, True):  # from then on Redis knows the scripts
            assert asking.ask(stream=stream).status_code == 200
        before = scripts()
        assert [asking.ask().headers["x-budget-remaining-usd"] for _ in range(3)] == ["0.6", "0.5", "0.4"]  # the key's
        assert scripts() - before == 6
        assert asking.ask(stream=True).headers["x-budget-remaining-usd"] == "0.3"  # held
        assert scripts() - before == 9


def test_a_call_under_way_is_reserved(provider: LocalProvider) -> None:
    from tests.integrations.gateway.test_gone import send

    with gateway(provider) as asking:
        provider.pause()
        connection = send(asking)
        provider.wait_for_calls(1)
        (decision,) = asking.gateway.authority.decisions()
        asyncio.run_coroutine_threadsafe(asking.gateway.decisions.flush(), asking.loop).result(5)
        assert look_up(asking, decision.id).json()["state"] == "reserved"
        provider.resume()
        assert b"200 OK" in connection.recv(4_096)
        connection.close()
        assert look_up(asking, decision.id).json()["state"] == "committed"


def test_records_are_kept_for_so_many_days(tmp_path: Path) -> None:
    for url in ("memory://", f"sqlite:///{tmp_path / 'budget.db'}"):
        clock = FakeClock()

        async def keep(store: Store, clock: FakeClock) -> None:
            row = Row(f"{clock.now_ms():012x}-a", "user:u1", json.dumps({"x": 1}))
            await store.put([row])
            assert await store.get(row.id) == row
            clock.advance(86_400 * 29)
            later = row._replace(id=f"{clock.now_ms():012x}-b")
            await store.put([later, later])
            assert await store.get(row.id) == row
            clock.advance(86_400 * 2)
            assert await store.get(row.id) is None and await store.get(later.id) == later
            await store.close()

        asyncio.run(keep(open_store(url, 30, clock), clock))


def test_a_store_that_cannot_be_reached_holds_up_no_call(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway(provider) as asking:

        async def down(rows: object) -> None:
            raise OSError("disk full")

        store = asking.gateway.decisions._store
        with monkeypatch.context() as patch:
            patch.setattr(store, "put", down)
            answer = asking.ask()
            asyncio.run_coroutine_threadsafe(asking.gateway.decisions.flush(), asking.loop).result(5)
        assert answer.status_code == 200
        assert look_up(asking, answer.headers["x-budget-decision-id"]).status_code == 200


def test_a_record_that_is_no_unicode_is_kept_and_keeps_no_other_waiting(provider: LocalProvider) -> None:
    with gateway(provider) as asking:
        asking.gateway.authority.revoke("run", "r1", reason="half a pair: \ud800")
        ids = [asking.ask(run=run).headers["x-budget-decision-id"] for run in ("r1", "r2")]
        asyncio.run_coroutine_threadsafe(asking.gateway.decisions.flush(), asking.loop).result(10)
        kept = asyncio.run_coroutine_threadsafe(asking.gateway.decisions.record(ids[1]), asking.loop).result(10)
        assert kept is not None
        assert [look_up(asking, each).json()["decision"] for each in ids] == ["block", "allow"]
