"""The decision service: callers who send by themselves ask first, and say afterwards what it took."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("jsonschema")

import httpx
import jsonschema

from budget_guard import Budget, LedgerUnavailable
from budget_guard.calls import idempotency
from budget_guard.testing import LocalProvider
from budget_guard_gateway.decision_service import operations
from budget_guard_gateway.decision_service.openapi import openapi
from budget_guard_gateway.decision_service.operations import OPERATIONS
from budget_guard_gateway.keys import add_key
from budget_guard_gateway.settings import Upstream
from tests.integrations.gateway.support import MESSAGES, Asking, gateway
from tests.integrations.gateway.test_gone import until
from tests.ledger.redis_server import BINARY, RedisServer

DIME: dict[str, Any] = {"run_id": "r1", "model": "dime", "messages": MESSAGES, "max_output_tokens": 16}
"""A call that takes $0.10."""
USED = {"usage": {"input": 5, "output": 16}}
NOWHERE = [Upstream(name="openai", url="http://127.0.0.1:9")]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if BINARY is None:
        pytest.skip("no redis-server is installed: apt-get install redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server.url
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return f"{request.getfixturevalue('redis')}?tenant={tmp_path.name}"
    return f"sqlite:///{tmp_path / 'budget.db'}"


class Service:
    """A client of the decision service, which looks at each answer with the service's own description."""

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.called: set[tuple[str, str]] = set()

    def __call__(
        self, method: str, path: str, body: Any = None, *, token: str = "anybody", **headers: str
    ) -> httpx.Response:
        sent = {"authorization": f"Bearer {token}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.asking.http.request(method, path, json=body, headers=sent)
        self._check(method, path, answer)
        return answer

    def decide(self, body: Any = DIME, **headers: str) -> httpx.Response:
        return self("POST", "/budget/decisions", body, **headers)

    def settle(self, id: str, verb: str, body: Any = None, **headers: str) -> httpx.Response:
        return self("POST", f"/budget/reservations/{id}/{verb}", body, **headers)

    def _check(self, method: str, path: str, answer: httpx.Response) -> None:
        """Check the answer by what the description says of this address."""
        for pattern, methods in openapi()["paths"].items():
            told = methods.get(method.lower())
            if told is None or not re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path):
                continue
            self.called.add((method, pattern))
            said = told["responses"].get(str(answer.status_code)) or openapi()["components"]["responses"]["Problem"]
            ((kind, content),) = said["content"].items()
            assert answer.headers["content-type"] == kind
            valid(content["schema"], answer.json())
            return


def valid(schema: Any, document: Any) -> None:
    """Check *document* by a schema of the description."""
    jsonschema.Draft202012Validator({**schema, "components": openapi()["components"]}).validate(document)


@contextmanager
def serving(**settings: Any) -> Iterator[Service]:
    budget = Budget("$1.00", max_wait_s=0)
    with gateway(None, budget, upstreams=NOWHERE, **settings) as asking:
        yield Service(asking)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as made:
        yield made


def test_a_call_is_decided_on_sent_by_its_caller_and_booked(service: Service) -> None:
    decided = service.decide()
    record, id = decided.json(), decided.headers["x-budget-decision-id"]
    assert decided.status_code == 200
    assert (record["decision"], record["state"], record["estimate"]["cost_usd"]) == ("allow", "reserved", "0.1")
    assert record["decision_id"] == decided.headers["x-budget-reservation-id"] == id
    assert decided.headers["x-budget-remaining-usd"] == "0.9"
    assert service.settle(id, "forward").json()["state"] == "forwarded"
    booked = service.settle(id, "commit", {"usage": {"input": 5, "output": 8}})
    assert booked.json() == {"reservation_id": id, "state": "committed", "cost_usd": "0.05", "uncertain": False}
    assert booked.headers["x-budget-remaining-usd"] == "0.95"
    found = service("GET", f"/budget/decisions/{id}")
    assert (found.json()["state"], found.json()["cost_usd"]) == ("committed", "0.05")
    assert found.headers["x-budget-decision-id"] == id
    assert service.asking.booked() == ("0.05", "0")


def test_settling_twice_is_settling_once(service: Service) -> None:
    id = service.decide().json()["decision_id"]
    first, again = (service.settle(id, "commit", USED) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200) and first.json() == again.json()
    other = service.settle(id, "commit", {"usage": {"input": 5, "output": 15}})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    late = service.settle(id, "release")
    assert (late.status_code, late.json()["state"]) == (200, "committed")
    assert service.asking.booked() == ("0.1", "0")


def test_a_release_gives_the_hold_back_and_a_late_commit_is_charged_all_the_same(service: Service) -> None:
    id = service.decide().json()["decision_id"]
    assert [service.settle(id, "release").json()["state"] for _ in range(2)] == ["released"] * 2
    assert service.asking.booked() == ("0", "0")
    assert service.settle(id, "forward").json()["state"] == "released"
    assert service.settle(id, "commit", USED).json()["cost_usd"] == "0.1"
    assert service.asking.booked() == ("0.1", "0")


def test_a_caller_who_does_not_know_what_it_took_pays_the_bound_until_it_does(service: Service) -> None:
    id = service.decide().json()["decision_id"]
    assert service.settle(id, "commit").json()["uncertain"] is True
    assert service.asking.booked() == ("0.1", "0")
    assert service.settle(id, "commit", {"usage": {"input": 5, "output": 8}}).json()["uncertain"] is False
    assert service.asking.booked() == ("0.05", "0")


def test_a_refusal_is_a_problem_or_a_record_as_its_caller_prefers(service: Service) -> None:
    big = {**DIME, "max_output_tokens": 999}
    refused = service.decide(big)
    assert (refused.status_code, refused.json()["code"]) == (402, "run_ceiling_reached")
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json()["alternatives"] == []
    preferred = service.decide(big, prefer="decision, wait=5")
    assert preferred.status_code == 200
    assert (preferred.json()["decision"], preferred.json()["code"]) == ("block", "run_ceiling_reached")
    assert preferred.headers["x-budget-decision"] == "block"
    for answer in (refused, preferred):
        found = service("GET", f"/budget/decisions/{answer.headers['x-budget-decision-id']}")
        assert found.json()["decision"] == found.headers["x-budget-decision"] == "block"
    assert service.asking.booked() == ("0", "0")


def test_a_tool_is_held_by_what_it_costs(service: Service) -> None:
    decided = service.decide({"run_id": "r1", "tool": "search", "cost_usd": 0.25})
    assert (decided.json()["kind"], decided.json()["estimate"]["cost_usd"]) == ("tool", "0.25")
    id = decided.json()["decision_id"]
    assert service.settle(id, "commit", {"usage": {"input": 5}}).status_code == 400
    assert service.settle(id, "commit", {"cost_usd": "0.2"}).json()["cost_usd"] == "0.2"
    assert service.asking.booked() == ("0.2", "0")


@pytest.mark.parametrize(
    "given", [{"input": "hi"}, {"input": MESSAGES}, {"input_tokens": 40}, {"messages": MESSAGES, "tools": [{"n": 1.5}]}]
)
def test_what_is_to_be_read_is_weighed_or_told(service: Service, given: dict[str, Any]) -> None:
    body = {name: value for name, value in DIME.items() if name != "messages"}
    decided = service.decide({**body, **given})
    assert decided.json()["decision"] == "allow"
    if "input_tokens" in given:
        assert decided.json()["estimate"]["input_tokens"] == 40


def test_a_dry_run_says_what_would_be_and_holds_nothing(service: Service) -> None:
    told = service.decide({**DIME, "dry_run": True}).json()
    assert (told["decision"], told["estimate_usd"], told["effective_max_output_tokens"]) == ("allow", "0.1", 16)
    refused = service.decide({**DIME, "max_output_tokens": 999, "dry_run": True})
    assert (refused.status_code, refused.json()["code"]) == (200, "run_ceiling_reached")
    assert refused.headers["x-budget-decision"] == "block"
    assert service.asking.booked() == ("0", "0")


def test_dry_runs_do_not_use_up_runs_where_these_are_counted() -> None:
    body = {name: value for name, value in DIME.items() if name != "run_id"}
    with serving(ceilings={"user": Budget("$20.00", window="day", max_runs=2)}) as service:
        for _ in range(5):
            assert service.decide({**body, "dry_run": True}).json()["decision"] == "allow"
        assert service.decide(body).status_code == 200


@pytest.mark.parametrize("amount", ["1_0", "\N{ARABIC-INDIC DIGIT ONE}", "1e3", "$1", "1.0000000001", "-1", ""])
def test_an_amount_is_read_as_it_is_published(service: Service, amount: str) -> None:
    id = service.decide().json()["decision_id"]
    refused = service.settle(id, "commit", {"cost_usd": amount})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert "cost_usd" in refused.json()["detail"]
    assert service.settle(id, "commit", {"cost_usd": "0.05"}).json()["cost_usd"] == "0.05"


def test_the_same_key_gets_the_same_decision(service: Service) -> None:
    body = {name: value for name, value in DIME.items() if name != "run_id"}
    first, again = (service.decide(body, idempotency_key="k") for _ in range(2))
    assert first.json() == again.json()
    assert first.headers["x-run-id"] == again.headers["x-run-id"]
    run = first.headers["x-run-id"]
    assert service.asking.booked(run) == ("0", "0.1")
    service.settle(first.json()["decision_id"], "commit", USED)
    late = service.decide(body, idempotency_key="k").json()
    assert (late["decision_id"], late["state"], late["cost_usd"]) == (first.json()["decision_id"], "committed", "0.1")
    found = service("GET", f"/budget/decisions/{late['decision_id']}").json()
    assert (found["state"], found["cost_usd"]) == ("committed", "0.1")
    for other in ({**body, "max_output_tokens": 15}, {**body, "messages": [{"role": "user", "content": "ho"}]}, DIME):
        conflict = service.decide(other, idempotency_key="k")
        assert (conflict.status_code, conflict.json()["code"]) == (409, "conflict")
    assert service.asking.booked(run) == ("0.1", "0")
    assert service.decide(body, idempotency_key="k", token="somebody").json()["decision_id"] != late["decision_id"]


def test_a_hundred_with_one_key_hold_once_through_two_gateways(ledger: str) -> None:
    with serving(ledger=ledger) as one, serving(ledger=ledger) as two, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: (one, two)[n % 2].decide(idempotency_key="k"), range(100)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["decision_id"] for answer in answers}) == 1
        assert one.asking.booked() == ("0", "0.1")


def test_what_one_process_has_held_another_one_settles_also_after_a_restart(ledger: str) -> None:
    with serving(ledger=ledger) as first:
        ids = [first.decide(idempotency_key=key).json()["decision_id"] for key in ("a", "b")]
    with serving(ledger=ledger) as one, serving(ledger=ledger) as two:
        assert one.decide(idempotency_key="a").json()["decision_id"] == ids[0]
        assert one.settle(ids[0], "forward").status_code == 200
        assert two.settle(ids[0], "commit", USED).json()["cost_usd"] == "0.1"
        assert one.settle(ids[0], "commit", USED).json()["cost_usd"] == "0.1"
        assert one.settle(ids[0], "commit", {"usage": {"input": 5, "output": 1}}).status_code == 409
        assert two.settle(ids[1], "release").json()["state"] == "released"
        assert one("GET", f"/budget/decisions/{ids[0]}").json()["state"] == "committed"
        assert one.asking.booked() == two.asking.booked() == ("0.1", "0")


def test_what_is_decided_is_held_for_all_processes_also_where_they_lease_the_ledger(ledger: str) -> None:
    with serving(ledger=ledger, leases=True) as one, serving(ledger=ledger, leases=True) as two:
        for key in ({}, {"idempotency_key": "k"}):
            id = one.decide(**key).json()["decision_id"]
            assert two.settle(id, "commit", {"usage": {"input": 5, "output": 8}}).json()["cost_usd"] == "0.05"
        released = one.decide().json()["decision_id"]
        assert two.settle(released, "release").json()["state"] == "released"
        assert one.asking.booked() == two.asking.booked() == ("0.1", "0")


def test_no_more_is_held_than_the_budget_allows(ledger: str) -> None:
    with serving(ledger=ledger) as one, serving(ledger=ledger) as two, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: (one, two)[n % 2].decide({**DIME, "run_id": "r1"}), range(40)))
        assert sorted(answer.status_code for answer in answers) == [200] * 10 + [402] * 30
        assert one.asking.booked() == ("0", "1")


def test_what_is_anothers_is_not_there(service: Service) -> None:
    id = service.decide().json()["decision_id"]
    for verb in ("forward", "commit", "release"):
        refused = service.settle(id, verb, token="somebody")
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_reservation")
        assert service.settle("01a228e4ba66-ddcf2e1b497f-1", verb).status_code == 404
    assert service("GET", f"/budget/decisions/{id}", token="somebody").status_code == 404
    assert service("GET", "/budget/runs/r1", token="somebody").status_code == 404
    assert service("DELETE", "/budget/runs/r1", token="somebody").status_code == 404
    assert service("GET", "/budget/runs/never").status_code == 404
    assert service("GET", "/budget/runs/..%2f..%2fx").status_code == 404
    foreign = service.decide(token="somebody")
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_run")
    assert service.asking.booked() == ("0", "0.1")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "dime"}, "messages input or input_tokens must be given"),
        ({}, "model or tool must be given"),
        ({**DIME, "max_output_tokens": -5}, "max_output_tokens=-5 should be greater than or equal to 1"),
        ({**DIME, "max_output_tokens": 1.5}, 'max_output_tokens="1.5" should be a valid integer'),
        ({**DIME, "max_outpt": 5}, "max_outpt is not known here: use some of run_id, model"),
        ({**DIME, "run_id": "../../x"}, 'run_id="../../x" should be letters'),
        ({**DIME, "input_tokens": 5}, "messages input or input_tokens must be given, one of the three"),
        ({**DIME, "tool": "x"}, "model or tool must be given, one of the two"),
        ({**DIME, "cost_usd": "1"}, "cost_usd is of a tool's call"),
        ({"tool": "x", "needs": ["tools"]}, "needs is of a model's call"),
        ({"tool": "x", "cost_usd": "-1"}, "cost_usd="),
        ({"tool": "x", "cost_usd": True}, "cost_usd=true should be dollars such as '0.25'"),
        ({**DIME, "__proto__": 1}, "__proto__ is not known here: use some of run_id, model"),
        ({**DIME, "needs": ["magic"]}, "needs"),
        ({**DIME, "messages": "hi"}, 'messages="hi" should be a valid list'),
        ([1], "no JSON object"),
    ],
)
def test_a_body_that_makes_no_sense_is_told_what_would(service: Service, body: Any, words: str) -> None:
    refused = service.decide(body)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert words in refused.json()["detail"]
    assert service.asking.gateway.authority.list("run") == []


@pytest.mark.parametrize("number", ["1e-999999999", "NaN", "0." + "1" * 2_000])
def test_a_number_that_is_no_amount_of_money_is_told_at_once(service: Service, number: str) -> None:
    sent = {"authorization": "Bearer anybody", "content-type": "application/json"}
    body = f'{{"tool": "x", "cost_usd": {number}}}'
    refused = service.asking.http.post("/budget/decisions", content=body, headers=sent)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert refused.json()["detail"].startswith("cost_usd=")


def test_a_commit_by_a_tier_without_a_price_books_no_less_than_was_held(service: Service) -> None:
    id = service.decide().json()["decision_id"]
    settled = service.settle(id, "commit", {"usage": {"output": 8}, "service_tier": "no-such-tier"}).json()
    assert settled["cost_usd"] == "0.05"  # a price of one's own is for all tiers
    held = service.decide({**DIME, "model": "gpt-5", "max_output_tokens": 100}).json()
    told = {"usage": {"output": 1}, "service_tier": "no-such-tier"}
    settled = service.settle(held["decision_id"], "commit", told).json()
    assert settled["cost_usd"] == held["estimate"]["cost_usd"]
    assert service("GET", "/budget/runs/r1").json()["unpriced_calls"] == 1


def test_a_model_that_is_unknown_or_not_allowed_is_refused(service: Service) -> None:
    unknown = service.decide({**DIME, "model": "nobody-knows"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_price")
    assert service.decide(idempotency_key="x" * 256).status_code == 400
    assert service.decide(x_run_id="other").status_code == 400
    assert service("PUT", "/budget/runs").headers["allow"] == "POST"
    assert service("GET", "/budget/nothing").status_code == 404
    assert service.asking.http.get("/budget/runs/r1").status_code == 401


def test_a_run_has_limits_of_its_own_in_every_process(ledger: str) -> None:
    with serving(ledger=ledger) as one, serving(ledger=ledger) as two:
        opened = one("POST", "/budget/runs", {"run_id": "r1", "budget": {"max_cost_usd": "0.15", "max_requests": 5}})
        assert (opened.status_code, opened.json()["remaining_usd"]) == (201, "0.15")
        assert opened.json()["limits"] == {"max_cost_usd": "0.15", "max_requests": 5}
        assert two.decide().status_code == 200
        assert two.decide().json()["code"] == "run_reserved"
        assert two("GET", "/budget/runs/r1").json()["budget"]["max_cost_usd"] == "0.15"
        made_up = one("POST", "/budget/runs")
        assert made_up.json()["limits"] == {"max_cost_usd": "1"}
        more = one("POST", "/budget/runs", {"budget": {"max_cost_usd": "1.01"}})
        assert (more.status_code, "ask for 1.00 at most" in more.json()["detail"]) == (400, True)
    with serving(ledger=ledger) as after:
        assert after.decide().status_code == 402


def test_a_run_is_reported_and_ended_by_its_owner(service: Service) -> None:
    id = service.decide().json()["decision_id"]
    service.settle(id, "commit", USED)
    report = service("GET", "/budget/runs/r1").json()
    assert (report["session_id"], report["total_spent"]) == ("r1", "0.1")
    open_id = service.decide().json()["decision_id"]
    for _ in range(2):
        assert service("DELETE", "/budget/runs/r1").json()["total_spent"] == "0.1"
    refused = service.decide()
    assert (refused.status_code, refused.json()["code"]) == (403, "revoked")
    assert service.settle(open_id, "commit", USED).json()["cost_usd"] == "0.1"


def test_a_reservation_in_memory_that_nobody_settles_expires(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_HOLD_TTL_S", 1e-6)
    for _ in range(12):  # on a budget for ten
        assert service.decide().status_code == 200


def test_what_has_expired_is_not_told_to_be_held(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    held = service.decide(idempotency_key="held").json()
    again = service.decide(idempotency_key="held").json()
    assert (again["decision_id"], again["state"]) == (held["decision_id"], "reserved")
    monkeypatch.setattr(operations, "_HOLD_TTL_S", 1e-6)
    monkeypatch.setattr(idempotency, "HOLD_TTL_S", 1e-6)
    expired = service.decide(idempotency_key="k").json()["decision_id"], service.decide().json()["decision_id"]
    service.asking.gateway.authority.ledger.sweep()
    for refused in (service.decide(idempotency_key="k"), *(service.settle(id, "forward") for id in expired)):
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "Nothing is held any more" in refused.json()["detail"]
    assert [service.settle(id, "commit", USED).status_code for id in expired] == [200, 200]  # it was made all the same
    assert service.decide(idempotency_key="k").json()["state"] == "committed"
    assert service.asking.booked() == ("0.2", "0.1")


def test_amounts_that_are_the_same_are_the_same_with_a_key_and_when_they_are_committed(service: Service) -> None:
    ids: set[str] = set()
    for amount in ('"0.10"', "0.10", "0.1", "1e-1", '"0.100000000"'):
        body = b'{"run_id": "r1", "tool": "search", "cost_usd": %b}' % amount.encode()
        sent = {"authorization": "Bearer anybody", "idempotency-key": "k"}
        decided = service.asking.http.post("/budget/decisions", content=body, headers=sent)
        ids.add(decided.json()["decision_id"])
        (only,) = ids
        done = service.settle(only, "commit", {"cost_usd": json.loads(amount)})
        assert (done.status_code, done.json()["cost_usd"]) == (200, "0.1")
    assert service.asking.booked() == ("0.1", "0")


def test_who_goes_while_a_decision_waits_for_room_takes_none() -> None:
    with gateway(None, Budget("$0.10"), upstreams=NOWHERE) as asking:
        service = Service(asking)
        id = service.decide().json()["decision_id"]
        host, _, port = asking.url.removeprefix("http://").partition(":")
        data = json.dumps(DIME).encode()
        head = "POST /budget/decisions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer anybody\r\n"
        with socket.create_connection((host, int(port))) as waiting:
            waiting.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
            until(lambda: asking.gateway.under_way)
        until(lambda: not asking.gateway.under_way)  # long before its 30 seconds are over
        assert service.settle(id, "release").status_code == 200
        assert asking.booked() == ("0", "0")


def test_a_ledger_that_is_down_is_a_503_and_holds_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    id = service.decide().json()["decision_id"]
    ledger = service.asking.gateway.authority.ledger

    def down(*_: Any) -> Any:
        raise LedgerUnavailable(detail="down")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "swap", down)
        for refused in (service.decide(), service.decide(idempotency_key="k"), service.settle(id, "commit", USED)):
            assert (refused.status_code, refused.json()["code"]) == (503, "ledger_unavailable")
            assert "x-should-retry" not in refused.headers
    assert service.asking.booked() == ("0", "0.1")


def test_a_key_of_a_call_that_is_passed_on_is_the_providers_and_merges_no_holds(provider: LocalProvider) -> None:
    with gateway(provider) as asking:
        path = "/v1/chat/completions"
        body = {"model": "dime", "messages": MESSAGES, "max_tokens": 16}
        headers = {"authorization": "Bearer anybody", "x-run-id": "r1", "idempotency-key": "k"}
        answers = [asking.http.post(path, json=body, headers=headers) for _ in range(2)]
        assert len({answer.headers["x-budget-decision-id"] for answer in answers}) == 2
        assert asking.booked() == ("0.2", "0")
        assert [call.headers.get("idempotency-key") for call in provider.calls] == ["k", "k"]


def test_what_is_decided_and_booked_is_counted_once(service: Service) -> None:
    first = service.decide(idempotency_key="k")
    service.decide(idempotency_key="k")
    service.decide({**DIME, "max_output_tokens": 999})
    service.decide({**DIME, "dry_run": True})
    service.decide(token="somebody")
    id = first.json()["decision_id"]
    for _ in range(2):
        service.settle(id, "commit", {"usage": {"input": 5, "output": 8}})
    counted = {(name, *labels): count for name, labels, count in service.asking.gateway.metrics.snapshot().counts}
    assert counted == {
        ("budget_guard_decisions_total", "allow", "", "", "hard_gate"): 1,
        ("budget_guard_decisions_total", "block", "run", "max_cost_usd", "hard_gate"): 1,
        ("budget_guard_decisions_total", "block", "run", "foreign_run", "hard_gate"): 1,
        ("budget_guard_cost_usd_total", "dime", ""): 50_000_000,
    }


def test_the_description_is_one_and_every_route_in_it_is_called(service: Service) -> None:
    told = service("GET", "/budget/openapi.json").json()
    assert told == json.loads(json.dumps(openapi()))
    text = json.dumps(told)
    for reference in set(re.findall(r'"#/([^"]+)"', text)):
        found: Any = told
        for part in reference.split("/"):
            found = found[part]
    for schema in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    id = service.decide().json()["decision_id"]
    service.settle(id, "forward")
    service.settle(id, "commit", USED)
    service.settle(id, "release", {"reason": "late"})
    service("GET", f"/budget/decisions/{id}")
    service("POST", "/budget/runs", {})
    service("GET", "/budget/runs/r1")
    service("DELETE", "/budget/runs/r1")
    assert service.called == {(each.method, each.path) for each in OPERATIONS}
    assert {(method.upper(), path) for path, each in told["paths"].items() for method in each} == service.called


def test_the_description_is_valid_openapi() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.OpenAPIV31SpecValidator(json.loads(json.dumps(openapi()))).validate()


@pytest.mark.parametrize("limits", [{"max_cost_usd": "0"}, {"max_cost_usd": "0.0000000000001"}, {"max_requests": 0}])
def test_a_limit_of_nothing_is_told_and_opens_no_run(service: Service, limits: dict[str, Any]) -> None:
    refused = service("POST", "/budget/runs", {"run_id": "r1", "budget": limits})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert f"budget.{next(iter(limits))}=" in refused.json()["detail"]
    assert service("GET", "/budget/runs/r1").status_code == 404


def test_a_usage_that_no_ledger_can_hold_is_told_and_the_call_stays_held(service: Service) -> None:
    id = service.decide().json()["decision_id"]
    refused = service.settle(id, "commit", {"usage": {"output": 2**40, "reasoning": 2**40}})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert service.asking.booked() == ("0", "0.1")
    assert service.settle(id, "commit", USED).json()["cost_usd"] == "0.1"


def test_a_report_tells_nothing_of_what_others_spend(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    alice, bob = (add_key(keys, name, user=f"u-{name}", team="crew") for name in ("alice", "bob"))
    ceilings = {"team": Budget("$0.35"), "user": Budget("$7.77")}
    with serving(keys=str(keys), ceilings=ceilings, host="127.0.0.1") as service:
        for run in ("a1", "a2"):
            id = service.decide({**DIME, "run_id": run}, token=alice).json()["decision_id"]
            service.settle(id, "commit", USED, token=alice)
        answers = [service.decide({**DIME, "run_id": "b1"}, token=bob).status_code for _ in range(2)]
        assert answers == [200, 402]
        for method in ("GET", "DELETE"):
            report = service(method, "/budget/runs/b1", token=bob).json()
            assert [each["scope"] for each in report["limits"]] == ["run:b1"]
            assert {"held": "0.1", "limit": "1"}.items() <= report["limits"][0].items()
            assert "the team" in str(report["events"])
            told = json.dumps({**report, "tags": {}})
            assert not [word for word in ("crew", "0.35", "0.20", "0.30", "7.77", "alice") if word in told]


def test_a_key_may_use_what_is_behind_a_name_as_on_calls_that_are_passed_on(
    provider: LocalProvider, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    tokens = {name: add_key(keys, name, models=[name]) for name in ("dime", "prod")}
    with gateway(provider, keys=str(keys), models={"prod": "dime"}) as asking:
        service = Service(asking)
        for name, status in (("dime", 200), ("prod", 403)):
            decided = service.decide({**DIME, "run_id": name, "model": "prod"}, token=tokens[name])
            passed = asking.ask(run=name, token=tokens[name], model="prod")
            assert (decided.status_code, passed.status_code) == (status, status)
