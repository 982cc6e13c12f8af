"""How fast is money spent: what a minute has taken, and how long until there is room, as a plain list tells it."""

from __future__ import annotations

import random

import pytest

from budget_guard.calls.spend_rate import MINUTE_S, WARM_UP_S, SpendRate

LIMIT = 100


class Naive:
    """Keeps every booking, and looks through all of them."""

    def __init__(self) -> None:
        self.booked: list[tuple[int, int]] = []
        self.held: dict[str, int] = {}

    def add(self, cost: int, at_s: float) -> None:
        last = max((second for second, _ in self.lately(at_s)), default=0)
        self.booked.append((max(int(at_s), last), cost))

    def lately(self, at_s: float) -> list[tuple[int, int]]:
        self.booked = [each for each in self.booked if each[0] + MINUTE_S >= at_s]
        return self.booked

    def look(self, cost: int, at_s: float, hard: bool) -> tuple[int, float] | None:
        lately = self.lately(at_s)
        taken = sum(booked for _, booked in lately) + sum(self.held.values())
        room = max(LIMIT - cost if hard else LIMIT - 1, 0)
        if at_s < WARM_UP_S or taken == 0 or taken <= (LIMIT - cost if hard else LIMIT - 1):
            return None
        for second in sorted({second for second, _ in lately}):
            if taken - sum(booked for each, booked in lately if each <= second) <= room:
                return taken, max(0.0, second + MINUTE_S - at_s)
        return taken, float(MINUTE_S)


@pytest.mark.parametrize("seed", range(12))
def test_a_minute_has_taken_what_was_booked_in_it_and_what_is_held(seed: int) -> None:
    chance = random.Random(seed)
    rate, naive, at_s = SpendRate(), Naive(), 0.0
    answers = set[bool]()
    for number in range(120):
        at_s = max(0.0, at_s + chance.choice([0, 0.25, 0.75, 1, 7, 30, 60, 61, -2]))
        cost, hard = chance.choice([0, 1, 30, 60, 99, 100, 101, 150]), chance.random() < 0.6
        what = chance.choice(["take", "take", "take", "look", "settle", "settle", "settle", "add"])
        if what in ("take", "look"):
            expected = naive.look(cost, at_s, hard)
            answers.add(expected is None)
            if what == "look":
                assert rate.look(cost, LIMIT, at_s, hard=hard) == expected
                continue
            assert rate.take(f"h{number}", cost, LIMIT, at_s, hard=hard) == expected
            if expected is None:
                naive.held[f"h{number}"] = cost if hard else 0
        elif what == "settle":
            hold = chance.choice([*naive.held, "unheard of"])
            rate.settle(hold, cost, at_s)
            if naive.held.pop(hold, None) is not None:
                naive.add(cost, at_s)
        else:
            rate.add(cost, at_s)
            naive.add(cost, at_s)
    assert answers == {True, False}
