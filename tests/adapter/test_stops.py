"""The stops of a framework are the core's errors and its own exceptions, once, and get through copies and pickles."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timezone
from decimal import Decimal

import pytest

import budget_guard
from budget_guard import BudgetError, LedgerAmbiguous, ReservationConflict
from budget_guard.adapter import Stop, StopLatch, stops_for
from tests.builders import session


class Fatal(Exception):
    """What a framework neither retries nor turns into text."""


ERRORS: list[BudgetError] = [
    budget_guard.BudgetExceeded(
        dimension="max_cost_usd", limit=Decimal(1), actual=Decimal("0.9"), scope="run:r", estimate=Decimal("0.2")
    ),
    budget_guard.BudgetRevoked(scope="run:r", reason="leaked", at=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    budget_guard.LoopDetected(tool="search", repeats=6, period=1, scope="run:r"),
    budget_guard.UnknownPriceError(model="m", suggestions=("n",)),
    budget_guard.UnboundedCallError(model="m", reason="an image", remedy="Send none."),
    budget_guard.InvalidDowngradeError(model="m", target="n", reason="dearer", remedy="Name another."),
    budget_guard.ForeignRun(scope="run:r"),
    budget_guard.LedgerUnavailable(detail="no route"),
]
each = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


@each
def test_a_stop_is_both_and_says_the_same(error: BudgetError) -> None:
    stop = stops_for(Fatal).recast(error)
    assert isinstance(stop, (type(error),))
    assert isinstance(stop, Fatal)
    assert type(stop) is stops_for(Fatal).of(type(error))
    assert (str(stop), stop.fields()) == (str(error), error.fields())
    assert stop is not error
    assert type(stop).__doc__ == f"As `budget_guard.{type(error).__name__}`, out of a run."


@each
def test_a_stop_can_be_pickled_and_copied(error: BudgetError) -> None:
    stop = stops_for(Fatal).recast(error)
    for again in (pickle.loads(pickle.dumps(stop)), copy.copy(stop)):
        assert type(again) is type(stop)
        assert (str(again), again.fields()) == (str(stop), stop.fields())


def test_the_classes_are_made_once_for_a_framework() -> None:
    class Other(Exception):
        pass

    assert stops_for(Fatal) is stops_for(Fatal)
    assert stops_for(Other).classes["BudgetExceeded"] is not stops_for(Fatal).classes["BudgetExceeded"]


def test_every_error_that_stops_a_run_has_a_class_of_its_name() -> None:
    assert sorted(stops_for(Fatal).classes) == sorted(type(error).__name__ for error in ERRORS)


def test_a_more_precise_error_is_recast_as_the_stop_that_it_is() -> None:
    stop = stops_for(Fatal).recast(LedgerAmbiguous(detail="no answer"))
    assert type(stop) is stops_for(Fatal).of(budget_guard.LedgerUnavailable)


def test_an_error_that_stops_no_run_stays_what_it_is() -> None:
    error = ReservationConflict(reservation_id="r", detail="other amounts")
    assert stops_for(Fatal).recast(error) is error
    with pytest.raises(KeyError):
        stops_for(Fatal).of(ReservationConflict)


def test_the_cause_stays() -> None:
    cause = OSError("down")
    stops = stops_for(Fatal)
    with pytest.raises(stops.of(budget_guard.LedgerUnavailable)) as caught, stops.recasting():
        raise budget_guard.LedgerUnavailable(detail="no route") from cause
    assert caught.value.__cause__ is cause


def test_without_a_cause_the_cores_error_is_not_shown_as_one() -> None:
    with pytest.raises(Fatal) as caught, stops_for(Fatal).recasting():
        raise budget_guard.ForeignRun(scope="run:r")
    assert caught.value.__suppress_context__


def test_a_latch_remembers_the_first_stop_that_still_holds() -> None:
    latch, outer, inner = StopLatch(), session(), session()
    assert latch.get() is None
    latch.set(Stop(outer, ERRORS[0]))
    latch.set(Stop(inner, ERRORS[0]))
    assert latch.get() == Stop(outer, ERRORS[0])
    outer.raise_limits(max_cost_usd=2)
    assert latch.get() == Stop(inner, ERRORS[0])
    inner.raise_limits(max_cost_usd=2)
    assert latch.get() is None
    latch.set(Stop(outer, ERRORS[1]))
    assert latch.get() == Stop(outer, ERRORS[1])
