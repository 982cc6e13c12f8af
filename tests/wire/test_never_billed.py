"""Money is given back only on proof that nothing was billed."""

from __future__ import annotations

import pytest

from budget_guard.errors import LedgerUnavailable, ReservationConflict
from budget_guard.wire import never_billed


class ConnectError(Exception):
    """As the HTTP transports name it."""


class Refused(Exception):
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


def wrapped(cause: BaseException) -> BaseException:
    error = RuntimeError("the framework's own words")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("field", ["status_code", "code"])
@pytest.mark.parametrize(
    ("status", "proof"),
    [(400, True), (401, True), (404, True), (429, True), (503, False), (408, False), (500, False), (502, False)],
)
def test_a_refusal_proves_it_and_a_failure_does_not(field: str, status: int, proof: bool) -> None:
    error = Refused(**{field: status})
    assert never_billed(error) is proof
    assert never_billed(wrapped(wrapped(error))) is proof


def test_a_connection_that_never_was_proves_it_however_deep_it_is_wrapped() -> None:
    assert never_billed(wrapped(wrapped(ConnectError())))


@pytest.mark.parametrize(
    "error",
    [LedgerUnavailable(detail="no answer"), ReservationConflict(reservation_id="h", detail="its hold expired")],
    ids=repr,
)
def test_a_call_that_the_ledger_stopped_was_never_sent(error: BaseException) -> None:
    assert never_billed(error)
    assert never_billed(wrapped(error))


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), ConnectionError("reset"), KeyboardInterrupt(), GeneratorExit(), Refused(code="rate_limited")],
    ids=repr,
)
def test_anything_else_proves_nothing(error: BaseException) -> None:
    assert not never_billed(error)
    assert not never_billed(wrapped(error))
