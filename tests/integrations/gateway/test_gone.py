"""Clients that go, gateways that stop, ledgers that are not there: what is held is settled all the same."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from budget_guard import Budget, LedgerUnavailable
from budget_guard.integrations.gateway import Upstream
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.gateway.support import TOKEN, Asking, asked, gateway, serving
from tests.ledger.redis_server import RedisServer, needs_redis_server

pytest.importorskip("aiohttp")


def send(asking: Asking, wire: str = "chat", **fields: Any) -> socket.socket:
    """A connection on which a request was sent, and nothing was read."""
    path, body = asked(wire, **fields)
    host, _, port = asking.url.removeprefix("http://").partition(":")
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"host: {host}:{port}", "authorization: Bearer anybody", "x-run-id: r1"]
    connection = socket.create_connection((host, int(port)))
    head = "\r\n".join([*lines, f"content-length: {len(data)}", "", ""])
    connection.sendall(head.encode() + data)
    return connection


def test_headers_that_a_caller_leaves_out_are_not_made_up() -> None:
    heads: list[set[str]] = []

    async def upstream(scope: Any, receive: Any, sending: Any) -> None:
        heads.append({name.decode() for name, _ in scope["headers"]})
        await receive()
        await sending({"type": "http.response.start", "status": 429, "headers": []})
        await sending({"type": "http.response.body", "body": b""})

    with serving(upstream, lifespan="off") as server:
        with gateway(None, upstreams=[Upstream(name="openai", url=server.url)]) as asking:
            with send(asking) as connection:
                assert b" 429 " in connection.recv(65_536)
            asking.ask()  # as httpx sends it
    assert heads[0] == {"host", "authorization", "accept-encoding", "content-length"}
    assert heads[1] - heads[0] == {"accept", "content-type", "user-agent"}


def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    done = threading.Event()
    for _ in range(1_000):
        if is_so():
            return
        done.wait(0.01)
    raise AssertionError("it never came to that")


def gated(_: object) -> Reply:
    return Reply(text="g " * 16, output_tokens=16, chunks=8, gate_chunks=True)


def test_a_client_that_goes_in_a_stream_ends_it_at_the_provider_and_the_bound_is_booked(
    provider: LocalProvider,
) -> None:
    provider.reset(gated)
    with gateway(provider) as asking:
        connection = send(asking, stream=True)
        provider.wait_for_calls(1)
        provider.release_chunk(2)
        while b"data:" not in connection.recv(4_096):
            pass
        connection.close()
        provider.wait_until_idle()
        until(lambda: asking.booked() == ("0.1", "0"))
        (call,) = provider.calls
        assert call.outcome == "aborted" and call.usage.output < 16
        decision = asking.gateway.authority.decisions()[-1]
        assert decision.reservation is not None and decision.reservation.posting is not None
        assert decision.reservation.posting.uncertain


def test_a_client_that_goes_can_be_booked_for_what_it_saw(provider: LocalProvider) -> None:
    provider.reset(gated)
    pricing: Any = {"dime": {"input": 0, "output": "0.00625", "capabilities": []}}  # it thinks nothing out of sight
    with gateway(provider, on_cancel="seen", pricing=pricing, per_million=None) as asking:
        connection = send(asking, stream=True, max_tokens=150)
        provider.wait_for_calls(1)
        provider.release_chunk(2)
        while b"data:" not in connection.recv(4_096):
            pass
        connection.close()
        provider.wait_until_idle()
        until(lambda: asking.booked()[1] == "0")
        assert Decimal(0) < Decimal(asking.booked()[0]) < Decimal("0.5")  # of 0.9375 that were held


@pytest.mark.parametrize(("policy", "outcome"), [("finish", "completed"), ("abort", "aborted")])
def test_a_client_that_goes_before_the_answer_waits_for_it_or_aborts_it(
    provider: LocalProvider, policy: str, outcome: str
) -> None:
    provider.reset(lambda _: Reply(output_tokens=8))
    provider.pause()
    with gateway(provider, on_disconnect=policy) as asking:
        send(asking).close()
        provider.wait_for_calls(1)
        if policy == "finish":
            assert asking.booked() == ("0", "0.1")
            provider.resume()
        provider.wait_until_idle()
        until(lambda: asking.booked() == (("0.05", "0") if policy == "finish" else ("0.1", "0")))
        assert [call.outcome for call in provider.calls] == [outcome]
    provider.resume()


def test_a_client_that_goes_while_it_waits_for_room_leaves_nothing_held(provider: LocalProvider) -> None:
    provider.pause()
    with gateway(provider, Budget("$0.15", max_wait_s=30)) as asking:
        first = send(asking)
        provider.wait_for_calls(1)
        send(asking).close()
        until(lambda: len(asking.gateway.runs.all()) == 1 and asking.gateway.runs.all()[0].calls == 1)
        provider.resume()
        assert b"200 OK" in first.recv(4_096)
        first.close()
        until(lambda: asking.booked() == ("0.1", "0"))
        assert len(provider.calls) == 1


class Flood:
    """A provider that streams 64 MB, as fast as they are read."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        event = b": %b\n\n" % (b"w" * 65_536)
        for _ in range(1_000):
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self.sent += len(event)


def test_a_slow_reader_slows_the_provider_down_so_that_nothing_piles_up() -> None:
    flood = Flood()
    with serving(flood, lifespan="off") as server:
        with gateway(None, upstreams=[Upstream(name="openai", url=server.url)]) as asking:
            connection = send(asking, stream=True)
            sent = [-1, 0]
            until(lambda: flood.sent > 0)
            while sent[-1] != sent[-2]:
                threading.Event().wait(0.1)
                sent.append(flood.sent)
            assert flood.sent < 40_000_000
            assert b"200 OK" in connection.recv(65_536)
            connection.close()
            until(lambda: asking.booked() == ("0.1", "0"))


def test_stopping_waits_for_calls_under_way(provider: LocalProvider) -> None:
    provider.pause()
    served = gateway(provider)
    asking = served.__enter__()
    connection = send(asking)
    provider.wait_for_calls(1)
    stopping = threading.Thread(target=served.__exit__, args=(None, None, None))
    stopping.start()
    until(lambda: asking.server.should_exit)
    provider.resume()
    stopping.join(20)
    assert b"200 OK" in connection.recv(65_536)
    connection.close()
    assert asking.booked() == ("0.1", "0")


def test_a_run_goes_on_with_what_it_has_spent_after_a_restart(provider: LocalProvider, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    for left in ("0.9", "0.8"):
        with gateway(provider, ledger=ledger) as asking:
            assert asking.ask().headers["x-budget-remaining-usd"] == left


def test_with_leases_no_more_is_admitted_than_fits_and_what_was_leased_goes_back(
    provider: LocalProvider, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"ledger": f"sqlite:///{tmp_path / 'budget.db'}", "leases": True}
    with gateway(provider, Budget("$1", max_wait_s=0), **settings) as one:
        with gateway(provider, Budget("$1", max_wait_s=0), **settings) as other:
            answers = [each.ask().status_code for each in (one, other) * 10]
            assert answers[0] == 200 and set(answers) == {200, 402} and provider.bill_usd <= 1
    with gateway(provider, ledger=settings["ledger"]) as later:  # both have closed
        assert later.booked() == (f"{provider.bill_usd:f}", "0")
        left = int(10 - provider.bill_usd * 10)
        assert [later.ask().status_code for _ in range(left + 1)] == [200] * left + [402]


def test_runs_that_are_put_away_go_on_where_they_stopped(provider: LocalProvider) -> None:
    with gateway(provider, max_runs=2) as asking:
        for run in ("a", "b", "c", "a"):
            answer = asking.ask(run=run)
            until(lambda: not any(each.calls for each in asking.gateway.runs.all()))
        assert answer.headers["x-budget-remaining-usd"] == "0.8"
        assert [run.session.id for run in asking.gateway.runs.all()] == ["c", "a"]


def test_many_first_calls_of_a_run_at_once_open_it_once(provider: LocalProvider) -> None:
    with gateway(provider, max_live_runs={"key": 1}) as asking:

        async def ask_all() -> list[int]:
            async with httpx.AsyncClient(base_url=asking.url, timeout=20) as http:
                path, body = asked("chat")
                headers = {**TOKEN, "x-run-id": "r1"}
                found = await asyncio.gather(*(http.post(path, json=body, headers=headers) for _ in range(8)))
                return [answer.status_code for answer in found]

        assert asyncio.run(ask_all()) == [200] * 8
        refused = asking.ask(run="r2")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_runs")
        assert "retry-after" in refused.headers and "x-should-retry" not in refused.headers


@pytest.mark.parametrize("mode", ["hard_gate", "advisory_estimate"])
def test_without_its_ledger_calls_are_refused_or_pass_and_it_is_back_without_a_restart(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, mode: Any, tmp_path: Path
) -> None:
    with gateway(provider, Budget("$1", mode=mode), ledger=f"sqlite:///{tmp_path / 'b.db'}") as asking:
        assert asking.ask().status_code == 200
        aio = type(asking.gateway.authority.ledger.aio)
        with monkeypatch.context() as patch:

            async def down(*_: object, **__: object) -> Any:
                raise LedgerUnavailable(detail=str(sqlite3.OperationalError("disk I/O error")))

            for verb in ("reserve", "commit", "balances", "set_limits", "release"):
                patch.setattr(aio, verb, down)
            ready = asking.http.get("/health/ready").status_code
            answers = [asking.ask(), asking.ask(run="new")]
        assert ready == 503 and asking.http.get("/health/live").status_code == 200
        if mode == "hard_gate":
            for answer in answers:
                assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
                assert answer.headers["retry-after"] == "1" and "x-should-retry" not in answer.headers
                assert "disk" not in answer.text
        else:
            assert [answer.status_code for answer in answers] == [200, 200]
            assert {answer.headers["x-budget-decision"] for answer in answers} == {"advisory_warn"}
        assert asking.ask().status_code == 200
        until(lambda: asking.booked() == (("0.2", "0") if mode == "hard_gate" else ("0.3", "0")))
        assert asking.http.get("/health/ready").status_code == 200


@needs_redis_server
def test_a_redis_that_is_killed_in_a_stream_costs_no_answer_and_nothing_is_forgotten(
    provider: LocalProvider, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always").start()
    try:
        with gateway(provider, ledger=server.url) as asking:
            provider.reset(gated)
            connection = send(asking, stream=True)
            provider.wait_for_calls(1)
            provider.release_chunk(2)
            answer = connection.recv(4_096)
            server.kill()
            provider.release_chunk(100)
            while not answer.endswith(b"0\r\n\r\n"):
                more = connection.recv(65_536)
                assert more, answer
                answer += more
            connection.close()
            assert b"[DONE]" in answer  # it is paid for
            provider.reset(lambda _: Reply(output_tokens=16))
            refused = asking.ask()
            assert (refused.status_code, refused.json()["code"]) == (503, "ledger_unavailable")
            assert provider.calls == []

            server.start()

            assert asking.ask().status_code == 200
            assert asking.booked() == ("0.2", "0")
    finally:
        server.kill()


def test_an_advisory_gateway_refuses_nothing_and_says_what_it_would_have_refused(provider: LocalProvider) -> None:
    with gateway(provider, Budget("$0.15", mode="advisory_estimate")) as asking:
        decisions = [asking.ask().headers["x-budget-decision"] for _ in range(3)]
        assert decisions == ["allow", "advisory_warn", "advisory_warn"]
        assert asking.ask().headers["x-budget-enforcement-mode"] == "advisory_estimate"
        assert asking.booked() == ("0.4", "0")
