"""Refusals and decisions of all kinds, and what a service says of each: problems, headers and records.

`python -m tests.protocol.reference.make` writes them down in `told.txt.gz`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from budget_guard import BudgetError, BudgetExceeded, BudgetRevoked, Decision, ForeignRun, LedgerUnavailable
from budget_guard.calls.alternatives import Alternative
from budget_guard.errors import (
    InvalidDowngradeError,
    LoopDetected,
    ReservationConflict,
    UnboundedCallError,
    UnknownPriceError,
    UnknownReservation,
)
from budget_guard.protocol import Problem, budget_headers, decision_record, problem_of
from budget_guard.protocol.words import quantity, usd
from budget_guard.units.scope import AGENT_IN_RUN
from tests.reference_text import lines_under
from tests.session.reference.accounts import Account
from tests.session.reference.stories import steps_of

ACCOUNTS = 70
_NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
_SCOPES = ("run:r1", "user:u1", f"{AGENT_IN_RUN}:r1/writer", "key:k:1", "org:", "agent:a1")
_DOLLARS = ("max_cost_usd", "max_usd_per_minute")
_COUNTS = ("max_total_tokens", "max_input_tokens", "max_output_tokens", "max_requests", "max_tool_calls")
_OTHERS = ("max_live_runs", "max_runs", "call_max_output_tokens", "max_something")
_NAMES = ("gpt-9", "", "a\r\nb\ud800", "g" * 200, "g" * 201, "modèle €")


def _exceeded(chance: random.Random, dimension: str, scope: str) -> BudgetExceeded:
    amounts: list[Any]
    if dimension in _DOLLARS:
        amounts = [Decimal(each) for each in ("0", "1", "1.0", "0.95", "3E+1", "1E-9", "0.123456789012", "1234567.8")]
    elif dimension == "max_duration_s":
        amounts = [0.0, 0.5, 12.3456789, 1e6, 90.0]
    else:
        amounts = [0, 1, 49, 50, 999_999, 1_000_000, 12_345_678]
    limit, actual, estimate = chance.choices(amounts, k=3)
    error = BudgetExceeded(
        dimension=dimension,
        limit=limit,
        actual=actual,
        scope=scope,
        estimate=chance.choice([None, estimate]) if dimension != "call_max_output_tokens" else estimate,
        decision_id=chance.choice([None, "decided-before"]),
    )
    error.reserved = chance.choice([None, amounts[0], amounts[1]])
    error.waiting_helps = chance.choice([None, None, True, False])
    error.resets_at = chance.choice([None, _NOW])
    error.retry_after_s = chance.choice([None, 0.0, 0.2, 61.2, 3_600.0])
    return error


def _refusals() -> Iterator[BudgetError]:
    chance = random.Random(1)
    for dimension in (*_DOLLARS, *_COUNTS, "max_duration_s", *_OTHERS):
        for scope in _SCOPES:
            for _ in range(6):
                yield _exceeded(chance, dimension, scope)
    for name in _NAMES:
        for scope in _SCOPES[:3]:
            yield BudgetRevoked(scope=scope, reason=name, at=_NOW)
        yield UnknownPriceError(model=name)
        yield UnknownPriceError(model=name, missing="region", suggestions=["one", "other"], decision_id="d1")
        yield UnknownPriceError(model="m", missing=name, suggestions=lambda: ["found"])
        yield UnboundedCallError(model=name, reason=name, remedy=name)
        yield InvalidDowngradeError(model=name, target="n", reason=name, remedy=".")
        for period in (0, 1, 3):
            yield LoopDetected(tool=name, repeats=6, period=period, scope="run:r1", agent="a")
    for scope in _SCOPES:
        yield ForeignRun(scope=scope)
    for after_s in (None, 0.0, 0.5, 30.0):
        down = LedgerUnavailable(detail="redis://secret.internal is down")
        down.retry_after_s = after_s
        yield down
    yield ReservationConflict(reservation_id="i", detail="other")
    yield UnknownReservation(reservation_id="i", detail="none", decision_id="d2")
    yield BudgetError("anything else")


def _alternatives(chance: random.Random) -> list[Alternative]:
    def known(*values: Any) -> Any:
        return chance.choice([None, *values])

    return [
        Alternative(
            model=chance.choice(_NAMES),
            estimate=chance.choice([0, 1, 10_000_000, 123_456_789_012]),
            fits_budget=chance.random() < 0.5,
            supports_tools=known(True, False),
            supports_json_schema=known(True, False),
            context_window_tokens=known(128_000),
        )
        for _ in range(chance.choice([0, 0, 1, 2]))
    ]


def _problem(found: Problem) -> str:
    document = json.loads(found.body)
    assert document == json.loads(json.dumps(found.document))
    return f"{found.status} {found.code} {found.headers} {json.dumps(document)}"


def _of_errors() -> Iterator[str]:
    chance = random.Random(2)
    for error in _refusals():
        options: dict[str, Any] = {
            "run_id": chance.choice([None, "r1"]),
            "exceeded_status": chance.choice([402, 402, 429]),
            "alternatives": _alternatives(chance),
        }
        yield f"{type(error).__name__} {_problem(problem_of(error, **options))}"
        headers = budget_headers(
            mode=chance.choice(["hard_gate", "soft_gate"]),
            run_id=chance.choice([None, "r1", "r\n€"]),
            error=error,
            remaining_usd=chance.choice([None, Decimal(0), Decimal("-0.5"), Decimal("0.1234567891")]),
            prices=chance.choice([None, "v1"]),
        )
        yield f"  {headers}"
    for refused in (False, True):
        yield f"refused={refused} {budget_headers(mode='hard_gate', run_id=None, refused=refused)}"


def _of_a_decision(decision: Decision, chance: random.Random) -> Iterator[str]:
    mode = chance.choice(["hard_gate", "advisory_estimate"])
    headers = budget_headers(
        mode=mode,
        run_id=chance.choice([None, "r1"]),
        decision=decision,
        remaining_usd=chance.choice([None, Decimal("0.30")]),
        prices="of nobody",
        refused=chance.random() < 0.1,
    )
    yield f"{headers}"
    yield f"  {json.dumps(decision_record(decision, mode=mode, feature=chance.choice([None, 'search'])))}"
    if decision.error is not None:
        found = problem_of(decision.error, decision=decision, run_id="r1", alternatives=_alternatives(chance))
        yield f"  {_problem(found)}"


def _of_account(number: int) -> Iterator[str]:
    chance = random.Random(number)
    account = Account(number)
    for _ in account.steps():
        pass
    for decision in account.decisions:
        for line in _of_a_decision(decision, chance):
            yield line.replace(decision.prices, "PRICES")


def _of_decisions() -> Iterator[str]:
    return steps_of("account", _of_account, range(1_000, 1_000 + ACCOUNTS))


def _of_words() -> Iterator[str]:
    for text in (
        "0",
        "-0",
        "-0.0",
        "0.000",
        "1.10",
        "1E+3",
        "1.5E-7",
        "0.1234567894",
        "0.1234567895",
        "-2.50",
        "1E-10",
    ):
        yield f"{text} {usd(Decimal(text))} {quantity(Decimal(text))}"
    yield f"{quantity(5)} {quantity(0.25)}"


_PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "errors": _of_errors,
    "decisions": _of_decisions,
    "words": _of_words,
}
NAMES = tuple(_PARTS)


def lines_of(name: str) -> Iterator[str]:
    """All lines of one part."""
    return lines_under(name, _PARTS[name]())
