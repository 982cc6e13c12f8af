"""Rules of holding: the predicate, in all scopes or in none."""

from __future__ import annotations

import pytest

from budget_guard.ledger.base import HELD, Ledger, Refused
from budget_guard.testing.ledger_contract.fixtures import (
    BOTH,
    OTHER,
    RUN,
    USER,
    Ids,
    LedgerFixtures,
    balance_of,
    cost,
    only,
    spend,
)
from budget_guard.units.amounts import DIMENSIONS, MOST, NOTHING, Amounts, Limits
from budget_guard.units.scope import Scope


class HoldingRules(LedgerFixtures):
    """Rule 1."""

    def test_a_hold_is_counted_in_every_scope_and_in_no_other(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.reserve(ids("h"), BOTH, cost(40), cost(40)) == HELD
        run, user, other = ledger.balances((RUN, USER, OTHER))
        assert run.reserved == user.reserved == cost(40)
        assert run.committed == user.committed == other.reserved == NOTHING
        assert (run.open_holds, user.open_holds, other.open_holds) == (1, 1, 0)

    @pytest.mark.parametrize("dimension", range(len(DIMENSIONS)), ids=DIMENSIONS)
    @pytest.mark.parametrize("amount", [1, 7, MOST])
    def test_the_limit_itself_still_fits_and_one_more_does_not(
        self, ledger: Ledger, ids: Ids, dimension: int, amount: int
    ) -> None:
        scope = Scope("team", "boundary")
        ledger.set_limits(scope, Limits(**{Amounts._fields[dimension]: amount}))
        exactly, one = only(dimension, amount), only(dimension, 1)
        assert ledger.reserve(ids("exactly"), (scope,), exactly, exactly) == HELD
        refused = ledger.reserve(ids("one"), (scope,), one, one)
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.dimension, refused.limit) == (scope, dimension, amount)
        assert (refused.committed, refused.reserved) == (0, amount)
        assert ledger.reserve(ids("nothing"), (scope,), NOTHING, NOTHING) == HELD

    def test_what_is_committed_counts_as_much_as_what_is_held(self, ledger: Ledger, ids: Ids) -> None:
        spend(ledger, ids, "spent", 60)
        assert isinstance(ledger.reserve(ids("over"), BOTH, cost(41), cost(41)), Refused)
        assert ledger.reserve(ids("fits"), BOTH, cost(40), cost(40)) == HELD

    def test_a_limit_in_one_scope_refuses_the_hold_in_all_of_them(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(USER, Limits(cost=30))
        refused = ledger.reserve(ids("h"), BOTH, cost(40), cost(40))
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.limit) == (USER, 30)
        for balance in ledger.balances(BOTH):
            assert (balance.reserved, balance.open_holds) == (NOTHING, 0)

    def test_a_refused_id_may_try_again_with_other_amounts(self, ledger: Ledger, ids: Ids) -> None:
        assert isinstance(ledger.reserve(ids("h"), BOTH, cost(101), cost(101)), Refused)
        assert ledger.reserve(ids("h"), BOTH, cost(100), cost(100)) == HELD

    def test_the_room_asked_for_may_differ_from_the_hold(self, ledger: Ledger, ids: Ids) -> None:
        assert isinstance(ledger.reserve(ids("kept"), BOTH, cost(60), cost(101)), Refused)
        assert ledger.reserve(ids("soft"), BOTH, cost(150), cost(1)) == HELD
        assert balance_of(ledger, RUN).reserved == cost(150)

    def test_a_room_below_nothing_lets_the_limit_be_passed_by_that_much(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(USER, Limits(cost=1_000))
        assert ledger.reserve(ids("first"), BOTH, cost(60), cost(60 - 25)) == HELD
        assert ledger.reserve(ids("over"), BOTH, cost(60), cost(60 - 25)) == HELD
        refused = ledger.reserve(ids("more"), BOTH, cost(6), cost(6 - 25))
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.limit, refused.reserved, refused.left.cost) == (RUN, 100, 120, -20)
        assert ledger.reserve(ids("last"), BOTH, cost(5), cost(5 - 25)) == HELD
        assert isinstance(ledger.reserve(ids("none"), BOTH, cost(0), cost(-24)), Refused)
        assert ledger.reserve(ids("widest"), BOTH, cost(0), cost(-MOST)) == HELD
        assert balance_of(ledger, RUN).reserved == cost(125)

    @pytest.mark.parametrize("room", [cost(-MOST - 1), only(1, -1), only(5, -1)], ids=["cost", "tokens", "calls"])
    def test_no_other_room_is_below_nothing_and_none_beyond_reckoning(
        self, ledger: Ledger, ids: Ids, room: Amounts
    ) -> None:
        with pytest.raises(ValueError, match="whole numbers"):
            ledger.reserve(ids("h"), BOTH, cost(1), room)
        assert balance_of(ledger, RUN).open_holds == 0

    def test_a_hold_without_a_question_is_never_refused(self, ledger: Ledger, ids: Ids) -> None:
        assert ledger.reserve(ids("h"), BOTH, cost(5_000), None) == HELD
        assert balance_of(ledger, RUN).reserved == cost(5_000)

    def test_a_scope_without_limits_only_counts(self, ledger: Ledger, ids: Ids) -> None:
        free = Scope("feature", "f")
        ledger.set_limits(free, Limits())
        huge = Amounts(*[MOST] * len(DIMENSIONS))
        assert ledger.reserve(ids("h"), (free,), huge, huge) == HELD
        assert balance_of(ledger, free).reserved == huge

    def test_a_limit_of_zero_takes_nothing(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(RUN, Limits(tool_calls=0))
        one = Amounts(tool_calls=1)
        assert isinstance(ledger.reserve(ids("h"), (RUN,), one, one), Refused)

    def test_a_scope_that_was_never_opened_is_an_error_and_holds_nothing(self, ledger: Ledger, ids: Ids) -> None:
        unknown = Scope("user", "nobody")
        with pytest.raises(KeyError):
            ledger.reserve(ids("h"), (RUN, unknown), cost(1), cost(1))
        with pytest.raises(KeyError):
            ledger.balances((unknown,))
        assert balance_of(ledger, RUN).reserved == NOTHING

    def test_a_refusal_tells_what_is_left_in_the_scope_that_has_least_of_it(self, ledger: Ledger, ids: Ids) -> None:
        ledger.set_limits(RUN, Limits(cost=100, output_tokens=50, requests=5))
        ledger.set_limits(USER, Limits(cost=70, output_tokens=80, tool_calls=0))
        held, spent = Amounts(cost=20, output_tokens=10, requests=1), Amounts(cost=5, output_tokens=10, requests=1)
        ledger.reserve(ids("open"), BOTH, held, held)
        ledger.charge(ids("spent"), (RUN,), spent)
        refused = ledger.reserve(ids("h"), BOTH, cost(51), cost(51))
        assert isinstance(refused, Refused)
        assert refused.left == Limits(cost=50, output_tokens=30, requests=3, tool_calls=0)
        ledger.charge(ids("over"), (USER,), cost(60))
        refused = ledger.reserve(ids("h"), BOTH, NOTHING, NOTHING)
        assert isinstance(refused, Refused)
        assert refused.left.cost == -10
