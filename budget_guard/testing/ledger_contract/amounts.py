"""Rules of amounts, limits and names: those that a ledger takes, exactly, and those that it refuses."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from budget_guard.ledger.base import HELD, MOST_LIMIT, Ledger, Refused
from budget_guard.ledger.hold_id import MOST_LENGTH
from budget_guard.testing.ledger_contract.fixtures import (
    BOTH,
    RUN,
    Ids,
    LedgerFixtures,
    balance_of,
    cost,
    figures,
    only,
    spend,
)
from budget_guard.units.amounts import DIMENSIONS, MOST, Amounts, Limits
from budget_guard.units.scope import Scope

HOSTILE = [
    *["a", "A", "ä", "a\u0308", "a}{b", "{a}", "}", "{", "{}", "a:b", ":", "::", "a:b:c", "run:r1", "r1", "u1"],
    *[
        "a\nb",
        "\r\n",
        "\x00",
        "a\x00b",
        "a\x00c",
        " ",
        "a ",
        "a'b",
        'a"b',
        "a\\b",
        "a/b",
        "../a",
        "a*",
        "a?",
        "[a]",
        "%s",
    ],
    *["%00", "${a}", "; DROP TABLE scope; --", "a,b", "a|b", "", "0", "00", "-1", "1e9", "null", "None", "\U0001f4b8"],
    *["x" * 150, "x" * 149 + "y", "x" * 10_000, "x" * 9_999 + "y"],
]
"""Names that have broken keys, queries, patterns and formats."""


class AmountRules(LedgerFixtures):
    """Rule 8, and names of any kind."""

    def test_amounts_beyond_floating_point_are_exact(self, ledger: Ledger, ids: Ids) -> None:
        wide = Scope("team", "wide")
        ledger.set_limits(wide, Limits(cost=MOST_LIMIT))
        for number in range(3):
            spend(ledger, ids, f"h{number}", MOST, (wide,))
        ledger.reserve(ids("one"), (wide,), cost(1), cost(1))
        assert figures(ledger, wide) == (3 * MOST, 1, 1)

    def test_the_limit_is_exact_beyond_floating_point(self, ledger: Ledger, ids: Ids) -> None:
        wide = Scope("team", "wide")
        ledger.set_limits(wide, Limits(cost=3 * MOST + 1))
        for number in range(3):
            ledger.reserve(ids(f"h{number}"), (wide,), cost(MOST), cost(MOST))
        refused = ledger.reserve(ids("two"), (wide,), cost(2), cost(2))
        assert isinstance(refused, Refused)
        assert (refused.limit, refused.reserved, refused.left.cost) == (3 * MOST + 1, 3 * MOST, 1)
        assert ledger.reserve(ids("one"), (wide,), cost(1), cost(1)) == HELD
        assert isinstance(ledger.reserve(ids("more"), (wide,), cost(1), cost(1)), Refused)

    @pytest.mark.parametrize("amount", [0, 1, MOST])
    @pytest.mark.parametrize("dimension", range(len(DIMENSIONS)), ids=DIMENSIONS)
    def test_every_amount_in_range_is_held_and_booked_exactly(
        self, ledger: Ledger, ids: Ids, dimension: int, amount: int
    ) -> None:
        free = Scope("feature", "f")
        ledger.set_limits(free, Limits())
        amounts = only(dimension, amount)
        ledger.reserve(ids("h"), (free,), amounts, amounts)
        assert balance_of(ledger, free).reserved == amounts
        assert ledger.commit(ids("h"), (free,), amounts).committed == amounts
        ledger.charge(ids("c"), (free,), amounts)
        assert ledger.adjust(ids("a"), free, only(dimension, -amount), "credit note") == amounts

    @pytest.mark.parametrize("hostile", [-1, -(2**53), 2**53, 2**63 - 1, 2**63, 2**64, 0.5, math.nan, math.inf, "1"])
    @pytest.mark.parametrize("verb", ["reserve", "room", "commit", "estimate", "charge", "adjust"])
    def test_an_amount_out_of_range_is_refused_before_anything_changes(
        self, ledger: Ledger, ids: Ids, verb: str, hostile: Any
    ) -> None:
        if verb == "adjust" and hostile == -1:
            return  # an adjustment may be negative
        ledger.reserve(ids("open"), BOTH, cost(10), cost(10))
        before = ledger.balances(BOTH)
        amounts = Amounts(cost=1, output_tokens=hostile)
        with pytest.raises(ValueError, match=re.escape(str(hostile))):
            if verb == "reserve":
                ledger.reserve(ids("h"), BOTH, amounts, None)
            elif verb == "room":
                ledger.reserve(ids("h"), BOTH, cost(1), amounts)
            elif verb == "charge":
                ledger.charge(ids("h"), BOTH, amounts)
            elif verb == "adjust":
                ledger.adjust(ids("h"), RUN, amounts, "late bill")
            else:
                ledger.commit(ids("open"), BOTH, amounts, uncertain=verb == "estimate")
        assert ledger.balances(BOTH) == before
        assert ledger.reserve(ids("h"), BOTH, cost(1), cost(1)) == HELD

    @pytest.mark.parametrize("limit", [0, 1, 2**53, MOST_LIMIT])
    def test_every_limit_in_range_is_kept_exactly(self, ledger: Ledger, limit: int) -> None:
        ledger.set_limits(RUN, Limits(cost=limit, tool_calls=limit))
        assert balance_of(ledger, RUN).limits == Limits(cost=limit, tool_calls=limit)

    @pytest.mark.parametrize("hostile", [-1, MOST_LIMIT + 1, 2**63, 0.5, math.nan, math.inf, "1"])
    def test_a_limit_out_of_range_is_refused_before_anything_changes(self, ledger: Ledger, hostile: Any) -> None:
        with pytest.raises(ValueError, match=re.escape(str(hostile))):
            ledger.set_limits(RUN, Limits(cost=50, requests=hostile))
        assert balance_of(ledger, RUN).limits == Limits(cost=100)

    def test_hostile_names_of_scopes_are_exact_and_leave_the_others_alone(self, ledger: Ledger, ids: Ids) -> None:
        scopes = [Scope("user", name) for name in HOSTILE] + [Scope(name, "x") for name in HOSTILE]
        scopes += [Scope("user", "a:b"), Scope("user:a", "b"), Scope("a", "b"), Scope("a:b", ""), Scope("", "a:b")]
        scopes = list(dict.fromkeys(scopes))
        for scope in scopes:
            ledger.set_limits(scope, Limits(cost=1_000_000))
        for number, scope in enumerate(scopes):
            ledger.charge(ids(f"c{number}"), (RUN, scope), cost(number))
            assert ledger.reserve(ids(f"h{number}"), (scope,), cost(number), cost(number), 60) == HELD
        balances = ledger.balances(scopes)
        assert [balance.scope for balance in balances] == scopes
        assert [balance.committed.cost for balance in balances] == list(range(len(scopes)))
        assert [balance.reserved.cost for balance in balances] == list(range(len(scopes)))
        assert balance_of(ledger, RUN).committed.cost == sum(range(len(scopes)))
        ledger.revoke(scopes[3], "a}{b\n\x00'\"")
        revoked = [balance.revoked for balance in ledger.balances(scopes)]
        assert [each and each.reason for each in revoked] == [None] * 3 + ["a}{b\n\x00'\""] + [None] * (len(scopes) - 4)

    def test_hostile_ends_of_ids_are_exact_and_leave_the_others_alone(self, ledger: Ledger, ids: Ids) -> None:
        names = [name for name in HOSTILE if 0 < len(name) <= MOST_LENGTH - 13]
        ledger.set_limits(RUN, Limits())
        for number, name in enumerate(names):
            assert ledger.reserve(ids(name), (RUN,), cost(100 + number), cost(100), 60) == HELD
            ledger.forward(ids(name))
        assert figures(ledger, RUN) == (0, sum(100 + number for number in range(len(names))), len(names))
        for number, name in enumerate(names):
            ledger.commit(ids(name), (RUN,), cost(number))
        assert figures(ledger, RUN) == (sum(range(len(names))), 0, 0)
