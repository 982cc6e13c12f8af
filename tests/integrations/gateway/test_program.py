"""The gateway of one program: whatever its requests say, they are one run, with its key, and each is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from budget_guard import Budget, ForeignRun, Session
from budget_guard.integrations.gateway import (
    Coverage,
    GatewaySettings,
    Principal,
    ProgramGateway,
    ProgramProxy,
    Upstream,
)
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.gateway.support import PRICES, WIRES, asked

TOKEN = "sk-of-the-run"
OURS = {"authorization": f"Bearer {TOKEN}"}
ME = Principal("program", user="me")


class Program:
    """What a program has: the proxy's address, and a client."""

    def __init__(self, gateway: ProgramGateway, session: Session, http: httpx.Client) -> None:
        self.gateway = gateway
        self.session = session
        self.http = http

    @property
    def coverage(self) -> Coverage:
        return self.gateway.coverage

    def ask(self, wire: str = "chat", prefix: str = "/openai", headers: Any = OURS, **fields: Any) -> httpx.Response:
        path, body = asked(wire, **fields)
        return self.http.post(f"{prefix}{path}", json=body, headers=headers)

    def said(self) -> str:
        return str(self.coverage)


@contextmanager
def program(
    provider: LocalProvider,
    budget: str = "$1.00",
    *,
    who: Principal = ME,
    run_id: str = "r1",
    left: tuple[str, ...] = (),
    **settings: Any,
) -> Iterator[Program]:
    """A program whose key for three providers is one; there is none for Groq."""
    named = [Upstream(name=name, url=provider.root_url, key="real") for name in ("openai", "anthropic", "google")]
    gateway = ProgramGateway(
        GatewaySettings(
            run_budget=Budget(budget), upstreams=named, per_million=PRICES, port=0, **{"grace_s": 5, **settings}
        ),
        token=TOKEN,
        who=who,
        run_id=run_id,
        absent={"groq": "No key for groq was found."},
        left=left,
    )
    proxy = ProgramProxy(gateway)
    session = proxy.start()
    try:
        with httpx.Client(base_url=proxy.url, timeout=20) as http:
            yield Program(gateway, session, http)
    finally:
        proxy.stop()
        assert proxy.join(20)


def test_all_its_requests_are_one_run_whatever_run_they_name(provider: LocalProvider) -> None:
    with program(provider) as started:
        statuses = [started.ask(headers={**OURS, "x-run-id": f"mine-{n}"}).status_code for n in range(12)]
        assert statuses == [200] * 10 + [402] * 2
        assert started.coverage.stopped == 2
        assert started.coverage.stop.startswith("The run's limit of $1.00 has $0.00 left")
    assert provider.bill_usd == 1
    report = started.gateway.report
    assert report is not None and report.total_spent == 1
    assert started.said() == (
        "covered: 10 requests to openai; refused: 2 requests over the budget; not covered: none seen"
    )


def test_a_refusal_is_the_gateways_problem_and_is_not_tried_again(provider: LocalProvider) -> None:
    with program(provider, "$0.05") as started:
        answer = started.ask()
    assert (answer.status_code, answer.headers["x-should-retry"]) == (402, "false")
    assert answer.json()["error"]["type"] == "budget_exceeded"
    assert answer.json()["code"] == "run_ceiling_reached"
    assert provider.bill_usd == 0


@pytest.mark.parametrize(
    "headers", [OURS, {"x-api-key": TOKEN}, {"x-goog-api-key": TOKEN}, {"api-key": TOKEN}], ids=lambda each: str(*each)
)
@pytest.mark.parametrize("wire", WIRES)
def test_its_key_is_taken_in_every_header_and_the_providers_is_sent(
    wire: str, headers: dict[str, str], provider: LocalProvider
) -> None:
    prefix = {"messages": "/anthropic", "google": "/google"}.get(wire, "/openai")
    with program(provider) as started:
        assert started.ask(wire, prefix, headers).status_code == 200
    (call,) = provider.calls
    sent = [value for name, value in call.headers.items() if TOKEN in value or "real" in value]
    assert len(sent) == 1 and TOKEN not in sent[0]
    assert started.said().startswith(f"covered: 1 request to {prefix[1:]}; refused: none")


def test_googles_key_in_the_address_is_taken_too_and_goes_no_further(provider: LocalProvider) -> None:
    with program(provider) as started:
        path, body = asked("google", stream=True)
        answer = started.http.post(f"/google{path}&key={TOKEN}", json=body)
        assert answer.status_code == 200
    (call,) = provider.calls
    assert call.stream and TOKEN not in str(call.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-proj-mine"},
        {"x-api-key": "sk-ant-mine"},
        {"authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20261129/us-east-1/bedrock/aws4_request"},
    ],
    ids=["bearer", "x-api-key", "signed"],
)
def test_a_key_of_its_own_is_refused_and_said_to_be_seen(headers: dict[str, str], provider: LocalProvider) -> None:
    with program(provider) as started:
        answer = started.ask(headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["x-should-retry"] == "false"
    assert provider.calls == []
    assert not started.coverage.is_complete
    assert started.said().endswith("not covered: what it sends with the key that 1 request to openai had")


def test_what_cannot_be_held_is_refused_by_name_and_not_sent(provider: LocalProvider) -> None:
    with program(provider) as started:
        for _ in range(2):
            assert started.http.post("/openai/v1/images/generations", json={}, headers=OURS).status_code == 501
        assert started.http.get("/openai/v1/realtime?model=gpt-realtime", headers=OURS).status_code == 501
        assert started.ask(model="unheard-of").status_code == 422
        assert started.ask(headers={}).status_code == 401
        assert started.http.head("/openai/v1", headers=OURS).status_code == 501  # which no model answers to
        assert started.http.get("/openai/v1/models", headers=OURS).status_code != 501  # which costs nothing
    assert started.said() == (
        "covered: no requests; refused: POST /v1/images/generations (2 times), GET /v1/realtime, POST "
        "/v1/chat/completions (unknown price), POST /v1/chat/completions (unauthorized); not covered: none seen"
    )
    assert started.coverage.refusal.startswith("POST /v1/images/generations is not held")
    assert not started.coverage.is_complete and not started.coverage.stopped
    assert provider.bill_usd == 0


def test_a_provider_without_a_key_is_told_where_to_put_one(provider: LocalProvider) -> None:
    with program(provider) as started:
        answer = started.http.post("/groq/openai/v1/chat/completions", json=asked("chat")[1], headers=OURS)
        assert (answer.status_code, answer.json()["detail"]) == (401, "No key for groq was found.")
    assert "refused: POST /openai/v1/chat/completions (no key for groq);" in started.said()
    assert provider.calls == []


@pytest.mark.parametrize("path", ["/budget/decisions/019abc", "/budget/reservations", "/budget/openapi.json"])
def test_it_is_not_told_what_was_decided_nor_can_it_change_that(path: str, provider: LocalProvider) -> None:
    with program(provider) as started:
        assert started.http.post(path, json={}, headers=OURS).status_code == 404
        assert started.http.get(path, headers=OURS).status_code == 404


def test_a_program_that_asks_for_anything_and_everything_takes_no_more_memory(provider: LocalProvider) -> None:
    with program(provider) as started:
        for n in range(60):
            started.http.post(f"/openai/v1/images/{n}", json={}, headers=OURS)
    assert len(started.coverage.refused) == 21
    assert "POST /v1/images/19, other requests (40 times); not covered" in started.said()


def test_a_stream_that_is_broken_off_stops_the_program_too(provider: LocalProvider) -> None:
    with program(provider) as started, ThreadPoolExecutor(1) as pool:
        with provider.paused():
            asking = pool.submit(started.ask, stream=True)
            provider.wait_for_calls(1)
            started.session.revoke("enough")
        answer = asking.result()
        assert answer.status_code == 200 and "event: error" in answer.text
    assert (started.coverage.stopped, dict(started.coverage.covered)) == (1, {"openai": 1})
    assert started.coverage.stop == "The run was cut off: enough"


def test_who_waits_for_the_stop_is_told_once_and_not_of_refusals_that_pass() -> None:
    coverage = Coverage()
    told: list[str] = []
    coverage.when_stopped(lambda: told.append("one"))
    coverage.note_stop("others hold it", for_good=False)
    assert (told, coverage.stopped, coverage.stop) == ([], 1, "others hold it")
    coverage.note_stop("it is spent", for_good=True)
    coverage.note_stop("it is spent", for_good=True)
    assert (told, coverage.stopped, coverage.stop) == (["one"], 3, "others hold it")
    coverage.when_stopped(lambda: told.append("late"))
    assert told == ["one", "late"]


def test_an_answer_that_does_not_come_was_covered(provider: LocalProvider) -> None:
    provider.reset(Reply(drop_after=0))
    with program(provider) as started:
        assert started.ask().status_code == 502
    assert started.said().startswith("covered: 1 request to openai; refused: none")
    assert started.coverage.is_complete


def test_what_it_was_left_is_not_covered(provider: LocalProvider) -> None:
    with program(provider, left=("GROQ_API_KEY",)) as started:
        pass
    assert started.said() == "covered: no requests; refused: none; not covered: what it sends with GROQ_API_KEY"
    assert started.coverage.is_complete  # as was said it should be


def test_a_run_goes_on_in_the_next_program_for_its_own_user_alone(provider: LocalProvider, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path / 'budget.db'}"
    with program(provider, "$0.30", ledger=ledger) as started:
        assert [started.ask().status_code for _ in range(2)] == [200, 200]
    with program(provider, "$0.30", ledger=ledger) as started:
        assert [started.ask().status_code for _ in range(2)] == [200, 402]
    report = started.gateway.report
    assert report is not None and report.total_spent == Decimal("0.3")
    with pytest.raises(ForeignRun), program(provider, ledger=ledger, who=Principal("program", user="other")):
        pass


def test_a_ceiling_holds_all_programs_together(provider: LocalProvider, tmp_path: Path) -> None:
    settings: Any = {"ledger": f"sqlite:///{tmp_path / 'budget.db'}", "ceilings": {"user": Budget("$0.30")}}
    with program(provider, run_id="r1", **settings) as started:
        assert [started.ask().status_code for _ in range(2)] == [200, 200]
    with program(provider, run_id="r2", **settings) as started:
        answers = [started.ask() for _ in range(2)]
        assert [each.status_code for each in answers] == [200, 402]
        assert answers[1].json()["code"] == "user_ceiling_reached"
    assert provider.bill_usd == Decimal("0.3")


def test_a_ceiling_that_would_not_hold_it_is_refused(provider: LocalProvider) -> None:
    with pytest.raises(ValueError, match="under none of the ceilings: give it a team"):
        with program(provider, ceilings={"team": Budget("$1")}):
            pass


async def test_calls_that_are_cancelled_at_the_end_are_booked_as_they_are_held(provider: LocalProvider) -> None:
    named = [Upstream(name="openai", url=provider.root_url, key="real")]
    settings = GatewaySettings(run_budget=Budget("$1"), upstreams=named, per_million=PRICES, port=0, grace_s=30)
    gateway = ProgramGateway(settings, token=TOKEN, who=ME, run_id="r1", absent={})
    proxy = ProgramProxy(gateway)
    await asyncio.to_thread(proxy.start)
    path, body = asked("chat")
    with provider.paused():
        async with httpx.AsyncClient(base_url=proxy.url, timeout=20) as http:
            asking = asyncio.ensure_future(http.post(path, json=body, headers=OURS))
            await provider.await_calls(1)
            proxy.stop()
            assert not await asyncio.to_thread(proxy.join, 0.05)
            proxy.cancel()
            assert await asyncio.to_thread(proxy.join, 20)
            answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    report = gateway.report
    assert report is not None and (report.total_spent, report.reserved) == (Decimal("0.1"), Decimal(0))
