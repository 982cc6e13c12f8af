"""A request at a price that the user names is held once in each budget, and booked as its outcome says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from budget_guard import Allowance, Budget, Session
from budget_guard.adapter import PricedRequest, priced_request
from budget_guard.wire.hosts import endpoint
from tests.adapter.conftest import Both
from tests.builders import ZERO, session

PATH = "/images/generations"
WHERE = endpoint("POST", "api.openai.com", f"/v1{PATH}")
COST = Decimal("0.04")


def paying(cost: str = "0.04", budget: str = "$1", **more: str) -> Session:
    return session(Budget(budget, allowance=Allowance(requests={PATH: cost, **more})))


def request(*sessions: Session, agent: str | None = None) -> PricedRequest:
    made = priced_request(sessions, WHERE, agent)
    assert made is not None
    return made


def figures(*sessions: Session) -> list[tuple[Decimal, Decimal]]:
    return [(each.spent_usd, each.reserved_usd) for each in sessions]


def of_another_budget() -> BaseException:
    stop = request(paying(budget="$0.01")).hold()
    assert stop is not None
    return stop.error


ENDS: dict[str, tuple[str, Callable[[], tuple[Any, ...]], Decimal]] = {
    "answered": ("answered", lambda: (), COST),
    "refused": ("refuse", lambda: (429, {}, b"{}"), ZERO),
    "a fault of the server": ("refuse", lambda: (500, {}, b"{}"), COST),
    "not connected": ("fail", lambda: (ConnectionRefusedError(),), ZERO),
    "not heard": ("fail", lambda: (TimeoutError(),), COST),
    "another budget": ("fail", lambda: (of_another_budget(),), ZERO),
}
"""Verbs, what they are given, and what is booked then."""


@pytest.mark.parametrize("end", ENDS)
def test_it_is_held_before_it_is_sent_and_booked_as_its_end_says(perform: Both, end: str) -> None:
    paid = paying()
    made = request(paid, agent="painter")
    assert perform(made, "hold") is None
    assert figures(paid) == [(ZERO, COST)]
    settle, given, booked = ENDS[end]
    perform(made, settle, *given())
    assert figures(paid) == [(booked, ZERO)]
    assert ("painter" in paid.report().by_agent) is (booked > 0)


def test_what_does_not_fit_is_stopped_and_nothing_is_held() -> None:
    rich, poor = paying(), paying(budget="$0.03")
    for stop in (request(rich, poor).hold(), asyncio.run(request(rich, poor).ahold())):
        assert stop is not None and stop.session is poor
    assert figures(rich, poor) == [(ZERO, ZERO)] * 2


def test_the_highest_price_that_is_named_counts_and_every_budget_must_name_one() -> None:
    low, high = paying("0.02"), paying("0.05", **{"/images/{kind}": "0.03"})
    for order in ((low, high), (high, low)):
        made = request(*order)
        assert made.hold() is None
        assert figures(low, high) == [(ZERO, Decimal("0.05"))] * 2
        made.refuse(429, {}, b"{}")
    assert priced_request((low, session()), WHERE, None) is None
    assert priced_request((), WHERE, None) is None
    elsewhere = endpoint("POST", "api.openai.com", "/v1/audio/speech")
    assert priced_request((low,), elsewhere, None) is None


def test_a_client_over_a_client_pays_once_in_each_budget_for_what_both_send() -> None:
    shared, inner = paying(), paying()
    above = request(shared)
    assert above.hold() is None
    with above.sending():
        below = request(shared, inner)
        other = PricedRequest([shared], endpoint("POST", "api.openai.com", "/v1/images/edits"), "edit", 1, None)
        assert below.hold() is None and other.hold() is None
    assert figures(shared, inner) == [(ZERO, COST + Decimal("0.000000001")), (ZERO, COST)]
    after = request(shared)
    assert after.hold() is None
    assert shared.reserved_usd == 2 * COST + Decimal("0.000000001")
