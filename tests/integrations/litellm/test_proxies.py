"""Proxies that are set up otherwise: more workers, another ledger, ceilings, a cache, an inside that has changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from budget_guard import Budget
from budget_guard.ledger.redis import RedisLedger
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.gateway import support as gateways
from tests.integrations.litellm.support import (
    ALICE,
    BOB,
    RATES,
    TOKEN,
    Guarded,
    deployment,
    guarded,
    proxy,
)
from tests.ledger.redis_server import BINARY, RedisServer, needs_redis_server

OTHERWISE = "import budget_guard_litellm.middleware as edge; edge.put_around = lambda application, guard: False"
"""What makes of the proxy's application one that cannot be stood around."""


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("sqlite", 2), id="sqlite, 2 workers"),
        pytest.param(("redis", 2), id="redis, 2 workers", marks=needs_redis_server),
        pytest.param(("redis", 1), id="redis, 1 worker", marks=needs_redis_server),
    ],
)
def workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    ledger, count = request.param
    more: dict[str, Any] = {}
    if ledger == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        more = {"environment": {"BUDGET_GUARD_LEDGER": f"{server.url.removesuffix('/0')}/{count}"}}
    with guarded(tmp_path_factory.mktemp("workers"), workers=count, **more) as running:
        yield running


@pytest.mark.parametrize(
    ("route", "stream"), [("chat", False), ("chat", True), ("messages", False), ("responses", True)]
)
def test_of_a_hundred_dimes_at_once_ten_are_spent_whichever_worker_is_asked(
    workers: Guarded, route: str, stream: bool
) -> None:
    run = f"hundred-{route}-{stream}"
    workers.asked_of_provider()

    statuses = workers.proxy.all_at_once(100, route, run, stream=stream)

    assert statuses == Counter({200: 10, 402: 90})
    assert workers.asked_of_provider() == ["dime"] * 10
    assert workers.booked(run) == ("1", "0")


@needs_redis_server
def test_a_ledger_that_is_gone_is_no_reason_to_retry_nothing_is_sent_and_it_goes_on_when_that_is_back(
    tmp_path: Path,
) -> None:
    assert BINARY is not None
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always").start()
    try:
        with guarded(tmp_path, environment={"BUDGET_GUARD_LEDGER": server.url}) as running:
            assert running.proxy.post("chat", run="r").status_code == 200
            server.kill()
            running.asked_of_provider()

            answer = running.proxy.post("chat", run="r", num_retries=3)

            assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert running.asked_of_provider() == []
            assert running.proxy.log.count("the call is not made") <= 2  # said once by each layer that logs it

            server.start()
            answer = running.proxy.post("chat", run="r")

            assert answer.status_code == 200, answer.text
            assert running.asked_of_provider() == ["dime"]
            assert running.booked("r") == ("0.2", "0")

            server.client().flushall()  # as a failover to an empty store: what was spent is not known any more

            assert running.proxy.post("chat", run="other", num_retries=3).status_code == 503
            assert running.asked_of_provider() == []
            RedisLedger(server.url).reopen()  # its operator has looked
            assert running.proxy.post("chat", run="other").status_code == 200
            assert running.asked_of_provider() == ["dime"]
    finally:
        server.kill()


@pytest.fixture(scope="module")
def ceiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A proxy with ceilings, a cheaper model near the end of a run, and LiteLLM's own cache."""
    environment = {
        "BUDGET_GUARD_CEILING": "user=$1.25; team=$100/month",
        "BUDGET_GUARD_DOWNGRADE": "dime=cheap",
        "BUDGET_GUARD_ALTERNATIVE": "cheap;embed",
    }
    settings = {
        "cache": True,
        "cache_params": {
            "type": "local",
            "mode": "default_off",
            "supported_call_types": ["acompletion", "anthropic_messages"],
        },
    }
    with guarded(tmp_path_factory.mktemp("ceiled"), environment=environment, settings=settings) as running:
        yield running


def test_a_users_ceiling_holds_over_all_runs_and_tells_no_amounts_of_others(ceiled: Guarded) -> None:
    claude: dict[str, Any] = {"headers": ALICE, "model": "claude"}  # which has no cheaper one to go on with
    spent = [ceiled.proxy.post("chat", run=f"a{i % 2}", **claude).status_code for i in range(12)]

    refused = ceiled.proxy.post("chat", run="a3", **claude)

    assert spent == [200] * 12
    assert (refused.status_code, refused.json().get("code")) == (402, "user_ceiling_reached"), refused.text
    assert refused.headers["x-budget-blocking-scope"] == "user"
    assert "alice" not in refused.text and "limit_usd" not in refused.json()["budget"]
    assert [each["model"] for each in refused.json()["alternatives"]] == ["cheap"]
    assert ceiled.proxy.post("chat", run="a3", headers=ALICE, model="cheap").status_code == 200
    assert ceiled.proxy.post("chat", run="b1", headers=BOB).status_code == 200


def test_near_the_end_of_a_run_a_cheaper_model_is_called_and_the_headers_say_so(ceiled: Guarded) -> None:
    ceiled.asked_of_provider()

    answers = [ceiled.proxy.post("chat", run="down", headers=BOB) for i in range(9)]

    assert ceiled.asked_of_provider() == ["dime"] * 8 + ["cheap"]
    last = answers[-1].headers
    assert (last["x-budget-decision"], last["x-budget-selected-model"]) == ("downgrade", "cheap")
    assert last["x-budget-requested-model"] == "dime"
    assert ceiled.booked("down") == ("0.81", "0")


def test_what_comes_out_of_litellms_cache_costs_nothing(ceiled: Guarded) -> None:
    asking: dict[str, Any] = {"run": "cached", "model": "cheap", "headers": TOKEN, "cache": {"use-cache": True}}
    ceiled.asked_of_provider()

    answers = [ceiled.proxy.post("chat", **asking) for _ in range(3)]
    streams = [ceiled.proxy.post("chat", stream=True, **asking) for _ in range(2)]

    assert [answer.status_code for answer in (*answers, *streams)] == [200] * 5
    assert ceiled.asked_of_provider() == ["cheap", "cheap"]  # a stream is another entry of the cache
    assert ceiled.booked("cached") == ("0.02", "0")


@pytest.mark.parametrize("model", ["claude", "cheap"])
def test_what_comes_out_of_the_cache_on_messages_costs_nothing_though_it_does_not_say_so(
    ceiled: Guarded, model: str
) -> None:
    asking: dict[str, Any] = {"run": f"told-{model}", "model": model, "headers": TOKEN, "system": "s"}
    ceiled.asked_of_provider()

    answers = [ceiled.proxy.post("messages", cache={"use-cache": True}, **asking) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(ceiled.asked_of_provider()) == 1
    assert ceiled.booked(f"told-{model}") == ("0.1" if model == "claude" else "0.01", "0")


@pytest.fixture(scope="module")
def otherwise(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("otherwise"), before=OTHERWISE) as running:
        yield running


class TestWhereTheInsideHasChanged:
    """What holds where the guard cannot stand around the proxy's application."""

    def test_it_says_so_when_it_starts(self, otherwise: Guarded) -> None:
        assert "no stack of middlewares that is known" in otherwise.proxy.log

    @pytest.mark.parametrize("route", ["chat", "messages", "responses"])
    @pytest.mark.parametrize("stream", [False, True])
    def test_what_is_held_is_the_same(self, otherwise: Guarded, route: str, stream: bool) -> None:
        run = f"otherwise-{route}-{stream}"
        otherwise.asked_of_provider()

        statuses = otherwise.proxy.all_at_once(30, route, run, stream=stream)

        assert statuses == Counter({200: 10, 402: 20})
        assert otherwise.asked_of_provider() == ["dime"] * 10
        assert otherwise.settled(run) == ("1", "0")

    def test_a_refusal_is_readable_in_litellms_own_form(self, otherwise: Guarded) -> None:
        otherwise.proxy.all_at_once(10, "chat", "full")

        answer = otherwise.proxy.post("chat", run="full")

        assert answer.status_code == 402
        said = answer.json()["error"]
        assert "has $0.00 left" in said["message"]
        assert said["type"].endswith("#ceiling_reached")

    @pytest.mark.parametrize(("model", "booked"), [("shaky", "0.11"), ("limited", "0"), ("silent", "0.1")])
    def test_failures_are_settled_as_well(self, otherwise: Guarded, model: str, booked: str) -> None:
        otherwise.proxy.post("chat", run=f"fails-{model}", model=model)

        assert otherwise.settled(f"fails-{model}") == (booked, "0")

    def test_what_is_not_held_is_refused_where_it_comes_to_a_hook(self, otherwise: Guarded) -> None:
        body = {"model": "dime", "prompt": "x"}
        answer = httpx.post(f"{otherwise.proxy.url}/v1/images/generations", headers=TOKEN, json=body)

        assert answer.status_code == 501
        assert "images/generations" in answer.text


def test_refusals_are_the_gateways_byte_for_byte(tmp_path: Path) -> None:
    told = ";".join(f"{name}={given},{made}" for name, (given, made) in gateways.PRICES.items())
    environment = {"BUDGET_GUARD_PRICE": told, "BUDGET_GUARD_LEDGER": "memory://"}
    with LocalProvider(lambda _: Reply(text="x " * 16, output_tokens=16), prices=RATES) as provider:
        models = [deployment(name, provider) for name in ("dime", "cheap", "nobody")]
        with (
            proxy(tmp_path, models, environment=environment) as running,
            gateways.gateway(provider, Budget("$1.00", max_wait_s=0)) as asking,
        ):
            for route in ("chat", "messages", "responses"):
                for stream in (False, True):
                    run = f"r-{route}-{stream}"
                    for _ in range(10):
                        assert running.post(route, run=run).status_code == 200
                        assert asking.ask(route, run=run, token="anybody").status_code == 200
                    _same(running.post(route, run=run, stream=stream), asking.ask(route, run=run, stream=stream))
            fields: dict[str, Any] = {"model": "nobody"}
            _same(running.post("chat", run="x", **fields), asking.ask("chat", run="x", **fields))
            _same(running.post("chat", run="../x"), asking.ask("chat", run="../x"))


def _same(one: httpx.Response, other: httpx.Response) -> None:
    """That two refusals are the same, but for the ids of the decisions, and what servers add."""
    assert one.status_code == other.status_code >= 400
    ours = [(name, value) for name, value in one.headers.items() if name not in ("date", "server")]
    assert [_told(f"{name}: {value}") for name, value in ours] == [
        _told(f"{name}: {value}") for name, value in other.headers.items() if name not in ("date", "server")
    ]
    assert _told(one.text) == _told(other.text)


def _told(text: str) -> str:
    return re.sub(r"[0-9a-f]{12}-[0-9a-f]{12}-\d+", "ID", text)
