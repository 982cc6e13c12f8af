"""Which holds a call is made inside of, as a plain list tells it, and how many links are kept for that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextvars import Context
from typing import Any

import pytest

from budget_guard.calls import enclosing
from budget_guard.calls.enclosing import OpenHold, enter, holds_around, total_in
from budget_guard.units.amounts import NOTHING, Amounts
from budget_guard.units.scope import Scope

RUN, USER = Scope("run", "r"), Scope("user", "u1")


class Hold(OpenHold):
    """A hold that is told when it is settled."""

    def __init__(
        self, amounts: Amounts = NOTHING, scopes: Sequence[Scope] = (), outer: Sequence[OpenHold] = ()
    ) -> None:
        self.amounts = amounts
        self.settled = False
        self._scopes = scopes
        self._outer = outer

    @property
    def scopes(self) -> Sequence[Scope]:
        return self._scopes

    @property
    def outer(self) -> Sequence[OpenHold]:
        return self._outer


def links() -> list[Any]:
    """The links that are kept here."""
    found, link = [], enclosing._inside.get()
    while link is not None:
        found.append(link)
        link = link[1]
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_call_is_inside_of_what_was_entered_and_is_open_yet(seed: int) -> None:
    Context().run(_story, random.Random(seed), 0.35 + 0.07 * seed)


def _story(chance: random.Random, settles: float) -> None:
    entered: list[Hold] = []
    most = 0
    for _ in range(1_500):
        if chance.random() >= settles or not entered:
            entered.append(Hold())
            enter(entered[-1])
            found = links()
            assert [link[2] for link in found] == list(range(len(found), 0, -1))
            assert len(found) <= max(enclosing._FEW, 2 * most) + 1
        else:
            place = -1 if chance.random() < 0.5 else chance.randrange(len(entered))
            ended = entered.pop(place)
            ended.settled = chance.random() < 0.8
            del ended  # it was settled, or nobody knows it any more
        most = max(most, len(entered))
        assert holds_around(()) == entered[::-1]


def test_what_is_settled_deep_inside_takes_no_room_for_ever() -> None:
    def story() -> None:
        outermost = Hold()
        enter(outermost)
        innermost = Hold()
        for _ in range(1_000):
            innermost = Hold()
            enter(innermost)
            between = Hold()
            enter(between)
            innermost.settled = True  # before what it is around of
            assert len(links()) <= 1_003
            del between
        assert holds_around(()) == [outermost]
        last = Hold()
        enter(last)
        assert len(links()) == 2

    Context().run(story)


class Counted(Hold):
    """A hold that counts how often it is asked whether it is settled, and is settled after so many times."""

    asked = 0
    after = 10**9

    @property
    def settled(self) -> bool:
        type(self).asked += 1
        self.looks += 1
        return self.is_settled or self.looks > self.after

    @settled.setter
    def settled(self, settled: bool) -> None:
        self.is_settled = settled
        self.looks = 0


def test_open_holds_are_looked_through_ever_more_seldom() -> None:
    def story() -> None:
        entered: list[Counted] = []
        for _ in range(2_000):
            entered.append(Counted())
            enter(entered[-1])
        assert Counted.asked < 8 * 2_000
        for each in entered[1_000:]:
            each.settled = True
        before = Counted.asked
        for _ in range(3_000):
            entered.append(Counted())
            enter(entered[-1])
        assert len(links()) < 4_500 and Counted.asked - before < 8 * 4_000
        assert len(holds_around(())) == 4_000

    Counted.asked = 0
    Context().run(story)


def test_holds_that_are_all_settled_while_they_are_looked_through_leave_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def story() -> None:
        last = Counted()
        last.after = 1  # another thread settles it after the first look
        enter(last)
        enter(Hold())
        assert [link[2] for link in links()] == [1]

    monkeypatch.setattr(enclosing, "_FEW", 1)
    Context().run(story)


def test_a_hold_brings_those_that_its_session_is_inside_of_each_once() -> None:
    def story() -> None:
        parents, over = Hold(), Hold()
        over.settled = True
        first, second = Hold(outer=(parents, over)), Hold(outer=(parents,))
        enter(first)
        enter(second)
        of_session = Hold()
        assert holds_around((of_session, over, parents)) == [second, parents, first, of_session]

    Context().run(story)


def test_what_is_held_in_a_scope_is_the_sum_of_those_in_it() -> None:
    holds = [Hold(Amounts(cost=1), (RUN, USER)), Hold(Amounts(cost=20), (USER,)), Hold(Amounts(cost=300), ())]
    assert total_in(USER, holds) == Amounts(cost=21) and total_in(RUN, holds) == Amounts(cost=1)
    assert total_in(Scope("team", "t"), holds) == NOTHING
