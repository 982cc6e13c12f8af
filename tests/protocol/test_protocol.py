"""What a service says of decisions and refusals: statuses, headers and documents, against the published schemas."""

from __future__ import annotations

import asyncio
import json
import re
from contextvars import Context
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budget_guard import (
    Budget,
    BudgetAuthority,
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    DowngradePolicy,
    ForeignRun,
    LedgerUnavailable,
    UnknownPriceError,
    Usage,
)
from budget_guard.errors import (
    InvalidDowngradeError,
    LoopDetected,
    ReservationConflict,
    UnboundedCallError,
    UnknownReservation,
)
from budget_guard.protocol import (
    PROBLEM_TYPES,
    PROTOCOL_HEADERS,
    Problem,
    budget_headers,
    decision_record,
    decision_schema,
    problem,
    problem_of,
    problem_schema,
)
from tests.builders import PRICES, call, session

jsonschema = pytest.importorskip("jsonschema")

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
AMOUNT = re.compile(r"-?\d+(\.\d{1,9})?")


def check(schema: dict[str, Any], document: Any) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    validator.validate(json.loads(json.dumps(document)))


def told(error: BudgetError, **options: Any) -> tuple[int, str, dict[str, str], dict[str, Any]]:
    found = problem_of(error, run_id="r1", **options)
    document = json.loads(found.body)
    check(problem_schema(), document)
    assert document["status"] == found.status and document["code"] == document["error"]["code"] == found.code
    assert document["error"]["message"] == document["detail"]
    return found.status, found.code, dict(found.headers), document


def exceeded(scope: str = "run:r1", dimension: str = "max_cost_usd", **later: Any) -> BudgetExceeded:
    dollars = dimension == "max_cost_usd"
    error = BudgetExceeded(
        dimension=dimension,
        limit=Decimal("1") if dollars else 50,
        actual=Decimal("0.95") if dollars else 50,
        scope=scope,
        estimate=Decimal("0.10") if dollars else 1,
    )
    error.reserved = Decimal("0.2") if dollars else 3
    for name, value in later.items():
        setattr(error, name, value)
    return error


# Problems


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after", "retries"),
    [
        (exceeded(), 402, "run_ceiling_reached", None, False),
        (exceeded("user:u1"), 402, "user_ceiling_reached", None, False),
        (exceeded("key:k1"), 402, "key_ceiling_reached", None, False),
        (exceeded("team:t1", resets_at=NOW, retry_after_s=61.2), 402, "team_ceiling_reached", "62", False),
        (exceeded(dimension="max_requests"), 402, "run_max_requests_reached", None, False),
        (exceeded(waiting_helps=True), 402, "run_reserved", "1", True),
        (exceeded(dimension="call_max_output_tokens"), 422, "output_cap_too_high", None, False),
        (exceeded("user:u1", "max_runs"), 429, "too_many_runs", None, False),
        (exceeded("user:u1", "max_runs", resets_at=NOW, retry_after_s=3_600.0), 429, "too_many_runs", "3600", False),
        (exceeded("user:u1", "max_live_runs"), 429, "too_many_runs", "1", True),
        (BudgetRevoked(scope="user:u1", reason="leaked", at=NOW), 403, "revoked", None, False),
        (ForeignRun(scope="run:theirs"), 403, "foreign_run", None, False),
        (UnknownPriceError(model="nope-9"), 422, "unknown_price", None, False),
        (UnboundedCallError(model="m", reason="an image", remedy="Say more."), 422, "unbounded_call", None, False),
        (
            InvalidDowngradeError(model="m", target="n", reason="dearer", remedy="."),
            422,
            "invalid_downgrade",
            None,
            False,
        ),
        (LoopDetected(tool="t", repeats=6, period=1, scope="run:r1"), 402, "loop_detected", None, False),
        (LedgerUnavailable(detail="redis://secret.internal is down"), 503, "ledger_unavailable", "1", True),
        (ReservationConflict(reservation_id="i", detail="other"), 409, "conflict", None, False),
        (UnknownReservation(reservation_id="i", detail="none"), 404, "unknown_reservation", None, False),
        (BudgetError("anything else"), 500, "internal", None, False),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_refusal_has_its_status_its_code_and_its_word_on_retries(
    error: BudgetError, status: int, code: str, retry_after: str | None, retries: bool
) -> None:
    found, name, headers, _ = told(error)
    assert (found, name) == (status, code)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers.get("Retry-After") == retry_after
    assert ("x-should-retry" not in headers) is retries
    assert headers.get("x-should-retry", "false") == "false"


def test_the_amounts_of_the_callers_own_run_add_up() -> None:
    _, _, _, document = told(exceeded())
    budget = document["budget"]
    assert budget["scope"] == "run" and budget["run_id"] == "r1" and budget["dimension"] == "max_cost_usd"
    assert (budget["limit_usd"], budget["committed_usd"], budget["reserved_usd"]) == ("1", "0.75", "0.2")
    assert (budget["remaining_usd"], budget["estimate_usd"]) == ("0.05", "0.1")
    assert document["alternatives"] == [] and document["waiting_helps"] is False
    assert document["detail"] == "The run's limit of $1.00 has $0.05 left, and this call may take up to $0.10."

    _, _, _, document = told(exceeded(dimension="max_requests"))
    budget = document["budget"]
    assert (budget["limit"], budget["committed"], budget["reserved"], budget["remaining"]) == (50, 47, 3, 0)


@pytest.mark.parametrize(
    ("dimension", "limit", "words"),
    [
        ("max_total_tokens", 12_345_678, "The run's limit of 12,345,678 tokens has 12,345,678 left"),
        ("max_requests", 100, "The run's limit of 100 requests has 100 left"),
        ("max_duration_s", 90.5, "The run's limit of 90.5 seconds has 90.5 left"),
        ("max_duration_s", 3_600_000.0, "The run's limit of 3,600,000 seconds has 3,600,000 left"),
    ],
)
def test_quantities_are_written_out(dimension: str, limit: float, words: str) -> None:
    error = BudgetExceeded(dimension=dimension, limit=limit, actual=0, scope="run:r1")
    assert told(error)[3]["detail"] == f"{words}."


def test_a_limit_that_begins_anew_says_when() -> None:
    _, _, _, document = told(exceeded("team:t1", resets_at=NOW, retry_after_s=61.2))
    assert document["detail"].endswith(" and this call may take up to $0.10. It begins anew at 2026-03-01 12:00 UTC.")


@pytest.mark.parametrize("kind", ["user", "key", "team", "org"])
def test_of_a_scope_that_others_share_only_its_kind_and_what_is_left_are_told(kind: str) -> None:
    error = exceeded(f"{kind}:somebody-else", resets_at=NOW)
    _, _, headers, document = told(error)
    text = json.dumps(document) + str(headers) + str(budget_headers(mode="hard_gate", run_id="r1", error=error))
    assert "somebody-else" not in text
    assert document["budget"] == {
        "scope": kind,
        "run_id": "r1",
        "dimension": "max_cost_usd",
        "remaining_usd": "0.05",
        "estimate_usd": "0.1",
    }
    assert not re.search(r"0\.95|0\.75|1\.00", text)


def test_names_of_others_and_of_the_ledgers_place_are_in_no_problem() -> None:
    secrets = {
        ForeignRun(scope="run:theirs"): "theirs",
        LedgerUnavailable(detail="redis://secret.internal is down"): "secret",
        BudgetRevoked(scope="team:theirs", reason="moved", at=NOW): "theirs",
    }
    for error, secret in secrets.items():
        assert secret not in json.dumps(told(error)[3])


def test_money_is_written_without_an_exponent_and_with_nine_places_at_most() -> None:
    error = exceeded()
    error.limit, error.actual, error.reserved = Decimal("3E+1"), Decimal("29.999999999"), Decimal("1E-9")
    error.estimate = Decimal("0.3") * 3
    budget = told(error)[3]["budget"]
    amounts = [value for name, value in budget.items() if name.endswith("_usd")]
    assert len(amounts) == 5 and all(AMOUNT.fullmatch(value) for value in amounts)
    assert (budget["limit_usd"], budget["reserved_usd"], budget["remaining_usd"]) == (
        "30",
        "0.000000001",
        "0.000000001",
    )


def test_the_status_of_a_reached_limit_can_be_another_one() -> None:
    assert told(exceeded(), exceeded_status=429)[0] == 429
    assert told(ForeignRun(scope="run:x"), exceeded_status=429)[0] == 403


def test_an_unknown_model_is_told_what_may_be_meant_and_a_huge_name_costs_nothing() -> None:
    asked: list[str] = []

    def near() -> list[str]:
        asked.append("asked")
        return ["gpt-4o"]

    assert told(UnknownPriceError(model="gpt-4oo", suggestions=near))[3]["suggestions"] == ["gpt-4o"]
    assert told(UnknownPriceError(model="g" * 100_000, suggestions=near))[3]["suggestions"] == []
    assert asked == ["asked"]


def test_what_comes_from_outside_is_escaped() -> None:
    _, _, _, document = told(UnknownPriceError(model="a\r\nb\ud800"))
    assert "\r" not in document["detail"] and "\\r\\n" in document["detail"]
    headers = budget_headers(mode="hard_gate", run_id="r\r\n\u20ac")
    assert dict(headers)["X-Run-Id"] == "r\\r\\n\\u20ac"


def test_every_type_has_a_description_at_its_address() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
    described = set(re.findall(r"^### (\S+)$", page, re.MULTILINE))
    assert described == {kind.uri.partition("#")[2] for kind in PROBLEM_TYPES.values()}


@pytest.mark.parametrize("name", sorted(PROBLEM_TYPES))
def test_a_problem_of_a_service_is_a_document_as_well(name: str) -> None:
    found: Problem = problem(name, "What is wrong.", extra=[1])
    check(problem_schema(), found.document)
    assert found.code == name and found.document["extra"] == [1]
    assert found.document["type"].startswith("https://") and found.document["type"].endswith(f"#{name}")


# Real decisions


def test_a_refusal_of_a_session_says_all_of_it() -> None:
    run = session("$0.15")
    Context().run(run.authorize, call(cap=9), sent=True)  # another task's: nobody waits for a hold of his own
    decision = run.authorize(call(cap=7), may_wait=False)
    assert decision.error is not None
    status, code, _, document = told(decision.error, decision=decision)
    assert (status, code) == (402, "run_reserved")
    assert document["instance"] == f"/budget/decisions/{decision.id}" and document["decision_id"] == decision.id
    budget = document["budget"]
    assert (budget["committed_usd"], budget["reserved_usd"], budget["remaining_usd"]) == ("0", "0.1", "0.05")
    assert budget["client_requested_max_output_tokens"] == 7
    assert budget["price_table_version"] == decision.prices


def test_a_refusal_tells_dollars_whatever_limit_it_is_for_unless_it_came_before_any_price() -> None:
    for budget, asked, dollars in (
        (Budget("$0.05"), call(), "0.1"),
        (Budget(max_total_tokens=50), call("large", cap=50), "0.0006"),
        (Budget("$1"), call("nobody-knows"), None),
    ):
        decision = session(budget).authorize(asked)
        assert decision.error is not None
        document = told(decision.error, decision=decision)[3]
        assert document["budget"].get("estimate_usd") == dollars


async def test_the_amounts_add_up_in_every_document_of_a_hundred_calls_at_once() -> None:
    run = session(Budget("$1.00", max_wait_s=0))
    decisions = await asyncio.gather(*(run.aauthorize(call(), sent=True) for _ in range(100)))
    refused = [each for each in decisions if each.error is not None]
    assert len(refused) == 90
    for each in refused:
        assert each.error is not None
        budget = told(each.error, decision=each)[3]["budget"]
        parts = [Decimal(budget[f"{name}_usd"]) for name in ("committed", "reserved", "remaining")]
        assert sum(parts) == Decimal(budget["limit_usd"])


def test_an_admitted_call_has_its_headers_and_its_record() -> None:
    run = session("$1.00")
    decision = run.authorize(call("large", tokens=10, cap=100), sent=True)
    left = run.least_remaining_usd()
    headers = budget_headers(mode="hard_gate", run_id=run.id, decision=decision, remaining_usd=left)
    assert [name for name, _ in headers] == [name for name in PROTOCOL_HEADERS if name in dict(headers)]
    named = dict(headers)
    assert named["X-Budget-Decision"] == "allow" and named["X-Run-Id"] == run.id
    assert named["X-Budget-Decision-Id"] == named["X-Budget-Reservation-Id"] == decision.id
    assert named["X-Budget-Remaining-USD"] == "0.99899"
    assert "X-Budget-Requested-Model" not in named and "X-Budget-Output-Clamped" not in named

    record = decision_record(decision, mode="hard_gate", feature="f")
    check(decision_schema(), record)
    assert record["state"] == "reserved" and record["cost_usd"] is None
    assert record["estimate"] == {"input_tokens": 10, "output_tokens": 100, "cost_usd": "0.00101"}
    assert (record["price"]["input_usd"], record["price"]["output_usd"]) == ("0.000001", "0.00001")
    assert datetime.fromisoformat(record["time"]) - datetime.now(timezone.utc) < timedelta(minutes=1)

    decision.require().commit(Usage(input=10, output=5))
    record = decision_record(decision, mode="hard_gate")
    check(decision_schema(), record)
    assert (record["state"], record["cost_usd"], record["uncertain"]) == ("committed", "0.00006", False)


def test_a_released_and_a_refused_call_have_records_too() -> None:
    run = session("$0.15")
    decision = run.authorize(call(), sent=True)
    decision.require().release("refused")
    assert decision_record(decision, mode="hard_gate")["state"] == "released"
    run.authorize(call()).require().commit(Usage(input=1, output=1))
    record = decision_record(run.authorize(call()), mode="hard_gate")
    check(decision_schema(), record)
    assert (record["decision"], record["code"], record["selected"]) == ("block", "run_ceiling_reached", None)
    assert record["reason"] == "The run's limit of $0.15 has $0.05 left, and this call may take up to $0.10."


def test_a_downgrade_names_both_models_and_a_clamp_shows() -> None:
    run = session(Budget("$0.05", downgrade=DowngradePolicy(to="small", at=0.5)))
    run.charge("tool", "0.03")
    decision = run.authorize(call("large", tokens=10))
    named = dict(budget_headers(mode="hard_gate", run_id=run.id, decision=decision))
    assert (named["X-Budget-Decision"], named["X-Budget-Requested-Model"]) == ("downgrade", "large")
    assert named["X-Budget-Selected-Model"] == "small"
    record = decision_record(decision, mode="hard_gate")
    check(decision_schema(), record)
    assert (record["requested"], record["selected"]) == ("large", "small") and "50%" in record["reason"]

    clamped = session("$0.05").authorize(call("large", tokens=10))
    assert dict(budget_headers(mode="hard_gate", run_id="r", decision=clamped))["X-Budget-Output-Clamped"] == "true"


def test_what_is_left_is_that_of_the_tightest_scope() -> None:
    authority = BudgetAuthority(ceilings={"user": Budget("$0.50")}, pricing=PRICES)
    first = authority.session(Budget("$5"), user="u1")
    other = authority.session(Budget("$5"), user="u1")
    other.authorize(call(), sent=True)
    assert (first.remaining_usd, first.least_remaining_usd()) == (Decimal(5), Decimal("0.4"))
    assert asyncio.run(first.aleast_remaining_usd()) == Decimal("0.4")
    record = decision_record(first.authorize(call()), mode="hard_gate")
    assert record["principals"] == {"user": "u1"} and record["run_id"] == first.id
    assert Budget.metered().session().least_remaining_usd() is None
