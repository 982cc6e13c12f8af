"""The numbers for Prometheus: what they count, that no label is without an end, and that processes are summed up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from budget_guard import Budget, LedgerUnavailable
from budget_guard.events.sinks import metering
from budget_guard.testing import LocalProvider, Reply
from budget_guard.units.printable import printable
from budget_guard_gateway.metrics import BUCKETS_S, FRESH_S, Metrics, SharedNumbers, Snapshot, Times, exposition
from tests.integrations.gateway.support import MESSAGES, TOKEN, Asking, administered, asked, gateway
from tests.integrations.gateway.test_gone import send, until

ADMIN: dict[str, Any] = {"admin": "127.0.0.1:0"}


def numbers(http: httpx.Client) -> dict[str, dict[tuple[str, ...], float]]:
    """The numbers as a scraper reads them: by name, and by the values of their labels."""
    answer = http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read(answer.text)


def read(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert not set(sample.labels) - {"action", "scope", "dimension", "mode", "model", "provider", "le"}
            found.setdefault(sample.name.removeprefix("budget_guard_"), {})[tuple(sample.labels.values())] = (
                sample.value
            )
    return found


def one(found: Mapping[str, Mapping[tuple[str, ...], float]], name: str) -> float:
    """A number without labels."""
    return found[name][()]


def test_decisions_and_what_they_cost_are_counted() -> None:
    replies = {"dime": Reply(output_tokens=16), "cheap": Reply(status=500)}
    with (
        LocalProvider(replies) as provider,
        gateway(provider, passthrough=["POST /v1/moderations"], **ADMIN) as asking,
        administered(asking) as http,
    ):
        assert one(numbers(http), "client_gone_total") == 0
        codes = [asking.ask(model=model, run=run).status_code for model, run in [("dime", "a")] * 11 + [("cheap", "b")]]
        assert codes == [200] * 10 + [402, 500]
        assert asking.ask(run="a", token="somebody else").status_code == 403
        assert asking.ask(model="nobody knows it", run="b").status_code == 422
        asking.http.post("/v1/moderations", json={}, headers=TOKEN)
        found = numbers(http)
    assert found["decisions_total"] == {
        ("allow", "", "", "hard_gate"): 11,
        ("block", "run", "max_cost_usd", "hard_gate"): 1,
        ("block", "run", "foreign_run", "hard_gate"): 1,
        ("block", "", "unknown_price", "hard_gate"): 1,
    }
    assert found["cost_usd_total"] == {("dime", "openai"): 1, ("cheap", "openai"): 0.01}
    assert one(found, "uncertain_usd_total") == 0.01 and one(found, "overrun_usd_total") == 0
    assert one(found, "unmetered_requests_total") == 1 and one(found, "ledger_errors_total") == 0
    assert one(found, "upstream_seconds_count") == 11  # what was refused was not sent
    assert one(found, "guard_seconds_count") == 14
    assert 0 < one(found, "guard_seconds_sum") < 60 and found["guard_seconds_bucket"][("+Inf",)] == 14


def test_what_is_under_way_and_who_has_gone_is_told(provider: LocalProvider) -> None:
    with gateway(provider, on_disconnect="abort", **ADMIN) as asking, administered(asking) as http:
        provider.pause()
        connection = send(asking)
        provider.wait_for_calls(1)
        found = numbers(http)
        assert one(found, "open_calls") == 1 and one(found, "reserved_usd") == 0.1
        connection.close()
        until(lambda: not asking.gateway.under_way)
        provider.resume()
        found = numbers(http)
        assert one(found, "open_calls") == 0 and one(found, "reserved_usd") == 0
        assert one(found, "client_gone_total") == 1 and found["cost_usd_total"] == {("dime", "openai"): 0.1}


@pytest.mark.parametrize(("mode", "status"), [("hard_gate", 503), ("advisory_estimate", 200)])
def test_a_ledger_that_cannot_be_reached_is_counted(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, mode: Any, status: int
) -> None:
    with gateway(provider, Budget("$1.00", mode=mode), **ADMIN) as asking, administered(asking) as http:
        assert asking.ask().status_code == 200

        def down(*_: object, **__: object) -> Any:
            raise LedgerUnavailable(detail="down")

        with monkeypatch.context() as patch:
            patch.setattr(type(asking.gateway.authority.ledger), "reserve", down)
            assert asking.ask().status_code == status
        assert one(numbers(http), "ledger_errors_total") == 1


def test_the_numbers_of_all_processes_are_summed_up_and_those_under_way_are_of_the_living(tmp_path: Path) -> None:
    shared = SharedNumbers(tmp_path)
    assert read(exposition(shared.read()))["processes"] == {(): 0}
    times = ([1] * (len(BUCKETS_S) + 1), 2.5)
    snapshot = Snapshot(
        [("budget_guard_cost_usd_total", ("m", "p"), 1_500_000_001)],
        {"budget_guard_open_calls": 3, "budget_guard_processes": 1, "budget_guard_reserved_usd": 10**9},
        {"upstream": times, "guard": times},
    )
    shared.write(snapshot)
    other = tmp_path / "1.json"
    (tmp_path / f"{os.getpid()}.json").rename(other)
    shared.write(snapshot)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json"]

    found = read(exposition(shared.read()))
    assert found["cost_usd_total"] == {("m", "p"): 3.000000002}
    assert (one(found, "open_calls"), one(found, "processes"), one(found, "reserved_usd")) == (6, 2, 2)
    assert one(found, "guard_seconds_count") == 2 * (len(BUCKETS_S) + 1) and one(found, "guard_seconds_sum") == 5

    ended = other.stat().st_mtime - FRESH_S - 1
    os.utime(other, (ended, ended))
    found = read(exposition(shared.read()))
    assert found["cost_usd_total"] == {("m", "p"): 3.000000002} and one(found, "open_calls") == 3


def test_times_are_counted_by_buckets() -> None:
    times = Times()
    for seconds in (0.0, 0.00025, 0.0003, 1e9):
        times.took(seconds)
    assert times.counts[:2] == [2, 1] and times.counts[-1] == 1 and sum(times.counts) == 4


def test_names_of_models_are_text_and_have_an_end(asking: Asking) -> None:
    asking.ask()
    (decision,) = asking.gateway.authority.decisions()
    held = decision.reservation
    assert held is not None and held.posting is not None
    metrics = Metrics("hard_gate", ())
    odd = 'a"b\\c\nd\x00e\u2028\ud800'
    for name in (odd, *(f"m{n}" for n in range(300))):
        held.posting = held.posting._replace(name=name)
        metrics.note(decision)
        metrics.snapshot()
    found = read(exposition([metrics.snapshot()]))["cost_usd_total"]
    assert found[printable(odd), "openai"] == 0.1 and len(found) == 201
    assert round(found["(others)", "openai"], 9) == 10.1


def test_names_of_providers_are_text_and_have_an_end(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "_MOST_NAMES", 3)
    body = {"model": "dime", "input_tokens": 5, "max_output_tokens": 16}
    odd = 'a"b\\c\nd\x00e'
    with gateway(provider, **ADMIN) as asking, administered(asking) as http:
        for named in (odd, "p1", "p2", "p3", "p4"):  # as a caller likes
            decided = asking.http.post("/budget/decisions", json={**body, "provider": named}, headers=TOKEN).json()
            used = f"/budget/reservations/{decided['decision_id']}/commit"
            assert asking.http.post(used, json={"usage": {"output": 16}}, headers=TOKEN).status_code == 200
        found = numbers(http)["cost_usd_total"]
    assert found == {("dime", named): 0.1 for named in (printable(odd), "p1", "p2")} | {("dime", "(others)"): 0.2}


def test_a_request_in_many_dialects_is_one_decision(provider: LocalProvider) -> None:
    with gateway(provider, **ADMIN) as asking, administered(asking) as http:
        for wire, stream in (("chat", True), ("responses", False), ("messages", True), ("google", True)):
            path, body = asked(wire, stream=stream)
            assert asking.http.post(path, json=body, headers={**TOKEN, "x-run-id": "r"}).status_code == 200
        found = numbers(http)
        assert found["decisions_total"] == {("allow", "", "", "hard_gate"): 4}
        assert sum(found["cost_usd_total"].values()) == pytest.approx(0.4)
        assert one(found, "upstream_seconds_count") == 4


def test_calls_that_their_callers_send_themselves_are_counted_once_made_and_once_settled(
    provider: LocalProvider,
) -> None:
    call = {"run_id": "r1", "model": "dime", "messages": MESSAGES, "max_output_tokens": 16}
    used = {"usage": {"input": 5, "output": 16}}
    budget = Budget("$1.00", max_wait_s=0)
    with gateway(provider, budget, **ADMIN) as asking, administered(asking) as http:
        made = [asking.http.post("/budget/decisions", json=call, headers=TOKEN) for _ in range(11)]
        assert [answer.status_code for answer in made] == [200] * 10 + [402]
        for answer in made[:3]:
            path = f"/budget/reservations/{answer.json()['decision_id']}"
            assert asking.http.post(f"{path}/commit", json=used, headers=TOKEN).status_code == 200
        asking.http.post(f"/budget/reservations/{made[3].json()['decision_id']}/release", json={}, headers=TOKEN)
        found = numbers(http)
    assert sum(found["decisions_total"].values()) == 11
    assert found["decisions_total"]["allow", "", "", "hard_gate"] == 10
    assert sum(found["cost_usd_total"].values()) == pytest.approx(0.3)
