"""Every error carries its fields wherever it goes, and says what to do."""

from __future__ import annotations

import inspect
import pickle
import re
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Budget, Session, errors
from budget_guard.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetRevoked,
    ForeignRun,
    InvalidDowngradeError,
    LedgerAmbiguous,
    LoopDetected,
    ReservationConflict,
    StaleReservation,
    UnboundedCallError,
    UnknownPriceError,
    UnknownReservation,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)

SAMPLES: list[BudgetError] = [
    BudgetExceeded(
        dimension="max_cost_usd",
        limit=Decimal("1.00"),
        actual=Decimal("0.95"),
        scope="run:r1",
        estimate=Decimal("0.10"),
        decision_id="r1-7",
        report=Budget("$1.00").session(run_id="r1").report(),
        remedy="Raise it.",
    ),
    BudgetRevoked(scope="user:u1", reason="compromised", at=NOON, decision_id="r1-7"),
    UnknownPriceError(model="gpt-9", provider="openai", missing="web_search", suggestions=["gpt-5"], decision_id="d"),
    UnboundedCallError(model="gpt-4o", reason="it carries an image", remedy="Say what to reserve.", decision_id="d"),
    InvalidDowngradeError(model="a", target="b", reason="'b' is dearer", remedy="Name another.", decision_id="d"),
    ReservationConflict(reservation_id="r1-7", detail="holds 5 and was asked to hold 6"),
    StaleReservation(reservation_id="r1-7", detail="is older than what the ledger remembers"),
    UnknownReservation(reservation_id="r1-7", detail="was never made"),
    ForeignRun(scope="run:r1", decision_id="r1-7"),
    LedgerAmbiguous(detail="no answer in 0.5 s", decision_id="r1-7"),
    LoopDetected(tool="search", repeats=6, period=1, scope="run:r1", agent="Researcher", decision_id="r1-7"),
    LoopDetected(tool="search", repeats=6, period=2, scope="run:r1"),
    LoopDetected(tool="search", repeats=9, period=0, scope="run:r1"),
]
each = pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)


def public(error: BudgetError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}


def classes() -> dict[str, type[BaseException]]:
    return {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, BudgetError)}


@each
def test_an_error_survives_pickling_with_its_fields_and_words(error: BudgetError) -> None:
    travelled = pickle.loads(pickle.dumps(error))
    assert type(travelled) is type(error)
    assert str(travelled) == str(error)
    assert public(travelled) == public(error)


@each
def test_an_error_becomes_an_adapters_own_with_the_same_fields_words_and_cause(error: BudgetError) -> None:
    class FrameworkStop(RuntimeError):
        pass

    own = type("Own", (type(error), FrameworkStop), {})
    cause = KeyError("price")
    error.__cause__ = cause
    recast: BudgetError = error.recast(own)
    assert isinstance(recast, FrameworkStop) and isinstance(recast, type(error))
    assert (str(recast), public(recast), recast.__cause__) == (str(error), public(error), cause)
    error.__cause__ = None


@each
def test_a_decision_id_given_later_travels_too(error: BudgetError) -> None:
    late = error.recast(type(error))
    late.decision_id = "r1-8"
    assert pickle.loads(pickle.dumps(late)).decision_id == "r1-8"


def test_an_error_without_fields_survives_pickling_as_well() -> None:
    again = pickle.loads(pickle.dumps(BudgetError("no more")))
    assert type(again) is BudgetError and again.args == ("no more",)


def test_every_error_has_a_sample_here() -> None:
    leaves = {c for c in classes().values() if not any(issubclass(o, c) and o is not c for o in classes().values())}
    assert leaves == {type(error) for error in SAMPLES}


def test_the_tree_is_as_it_is_drawn() -> None:
    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([ │├└─]*)([A-Z]\w+)\b", line)
        if found is None or found.group(2) not in classes():
            continue
        depth = len(found.group(1))
        path = [(d, name) for d, name in path if d < depth]
        if path:
            drawn[found.group(2)] = path[-1][1]
        path.append((depth, found.group(2)))
    actual = {
        name: next(base.__name__ for base in cls.__bases__ if issubclass(base, BudgetError))
        for name, cls in classes().items()
        if cls is not BudgetError
    }
    assert drawn == actual


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SAMPLES[0], ["max_cost_usd", "$1.00", "run:r1", "$0.95", "$0.10", "Raise it."]),
        (SAMPLES[1], ["user:u1", "2026-03-01T12:00:00", "compromised"]),
        (SAMPLES[2], ["web_search", "'gpt-9'", "openai", "gpt-5", "pricing={"]),
        (SAMPLES[3], ["'gpt-4o'", "an image", "Say what to reserve."]),
        (SAMPLES[4], ["'a'", "'b'", "dearer", "Name another."]),
        (SAMPLES[5], ["'r1-7'", "holds 5", "6"]),
        (SAMPLES[6], ["'r1-7'", "older"]),
        (SAMPLES[7], ["'r1-7'", "never made"]),
        (SAMPLES[8], ["run:r1", "another principal", "run_id of your own"]),
        (SAMPLES[9], ["not available", "no answer in 0.5 s"]),
        (SAMPLES[10], ["run:r1", "'search'", "by 'Researcher'", "6 times in a row", "exempt=('search',)"]),
        (SAMPLES[11], ["the same 2 tool calls", "6 times in a row"]),
        (SAMPLES[12], ["9 times between other calls"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_names_what_it_is_about_and_what_to_do(error: BudgetError, words: list[str]) -> None:
    for word in words:
        assert word in str(error)


def test_an_unknown_model_is_allowed_by_the_line_that_its_error_shows() -> None:
    error = UnknownPriceError(model="my-model")
    shown = re.search(r"pricing=(\{.*\})", str(error))
    assert shown is not None
    Session(Budget("$1"), pricing=eval(shown.group(1)))


def test_an_invalid_downgrade_is_a_value_error_too() -> None:
    assert issubclass(InvalidDowngradeError, ValueError)


def _exceeded(**more: Any) -> BudgetExceeded:
    given: dict[str, Any] = {"dimension": "max_requests", "limit": 5, "actual": 4, "scope": "run:r"}
    return BudgetExceeded(**given | more)


LOOP = (
    "with the same results. Where that is right, as for a tool that waits for a job, exempt it with "
    "LoopPolicy(exempt=('t',)), or only be warned with LoopPolicy(on_loop='warn')."
)
WORDS: list[tuple[BudgetError, str]] = [
    (_exceeded(), "max_requests=5 of run:r is passed: 4 is spent or held."),
    (
        _exceeded(estimate=2, remedy="Raise it."),
        "max_requests=5 of run:r would be passed: 4 is spent or held, and this call may take up to 2. Raise it.",
    ),
    (_exceeded(detail="it was cut off"), "max_requests=5 of run:r: it was cut off."),
    (_exceeded(detail="it was cut off", estimate=2), "max_requests=5 of run:r: it was cut off."),
    (
        _exceeded(dimension="max_cost_usd", limit=Decimal("1"), actual=Decimal("0.9"), estimate=Decimal("0.25")),
        "max_cost_usd=$1.00 of run:r would be passed: $0.90 is spent or held, and this call may take up to $0.25.",
    ),
    (
        _exceeded(dimension="max_duration_s", limit=60.0, actual=61.5),
        "max_duration_s=60.0 of run:r is passed: 61.5 is spent or held.",
    ),
    (
        BudgetRevoked(scope="user:u", reason="stolen", at=NOON),
        "user:u was revoked at 2026-03-01T12:00:00+00:00: stolen",
    ),
    (
        LoopDetected(tool="t", repeats=6, period=1, scope="run:r"),
        f"run:r is in a loop: 't' was called with the same arguments 6 times in a row, {LOOP}",
    ),
    (
        LoopDetected(tool="t", repeats=6, period=0, scope="run:r", agent="A"),
        f"run:r is in a loop: 't' was called by 'A' with the same arguments 6 times between other calls, {LOOP}",
    ),
    (
        LoopDetected(tool="t", repeats=6, period=2, scope="run:r"),
        f"run:r is in a loop: the same 2 tool calls, 't' among them, were made 6 times in a row, {LOOP}",
    ),
    (
        LoopDetected(tool="t", repeats=6, period=3, scope="run:r", agent="A"),
        f"run:r is in a loop: the same 3 tool calls, 't' among them, were made by 'A' 6 times in a row, {LOOP}",
    ),
    (
        UnknownPriceError(model="m"),
        """No price is known for model 'm'. To allow it, give its price, dollars per token: """
        """pricing={"m": (2.5e-6, 10e-6)}.""",
    ),
    (
        UnknownPriceError(model="m", provider="p", missing="web_search", suggestions=["n", "o"], remedy="say so"),
        "No price is known for web_search of model 'm' at p. Nearest known: n, o. To allow it, say so.",
    ),
    (
        UnknownPriceError(model="m", suggestions=lambda: ["n"], remedy=lambda: "say so"),
        "No price is known for model 'm'. Nearest known: n. To allow it, say so.",
    ),
    (
        UnboundedCallError(model="m", reason="an image", remedy="Say what."),
        "Nothing bounds the cost of a call to 'm': an image. Say what.",
    ),
    (
        InvalidDowngradeError(model="m", target="n", reason="'n' is dearer", remedy="Name another."),
        "Cannot downgrade 'm' to 'n': 'n' is dearer. Name another.",
    ),
    (
        InvalidDowngradeError(model="*", target="n", reason="it is unknown", remedy="Name another."),
        "Cannot downgrade to 'n': it is unknown. Name another.",
    ),
    (ReservationConflict(reservation_id="i", detail="holds 5"), "Reservation 'i': holds 5"),
    (ForeignRun(scope="run:r"), "run:r was opened by another principal: use a run_id of your own, or none"),
    (LedgerAmbiguous(detail="no answer"), "The ledger is not available: no answer"),
]


@pytest.mark.parametrize(("error", "words"), WORDS)
def test_an_error_says_what_it_is_in_these_words(error: BudgetError, words: str) -> None:
    assert str(error) == words
    assert str(pickle.loads(pickle.dumps(error))) == words
    assert str(error.recast(type(error))) == words
