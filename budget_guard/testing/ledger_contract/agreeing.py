"""Rule 10: texts that processes agree on beside the counters."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from budget_guard.ledger.base import Ledger
from budget_guard.ledger.hold_id import MOST_LENGTH
from budget_guard.testing.clock import FakeClock
from budget_guard.testing.ledger_contract.fixtures import LedgerFixtures, race

ODD = 'a "quoted" text\n\x00 \u2603 \U0001f600'


class AgreeingRules(LedgerFixtures):
    """The verb `swap`."""

    def test_a_text_is_kept_where_there_was_none(self, ledger: Ledger) -> None:
        assert ledger.swap("place", None, None, 60) is None
        assert ledger.swap("place", None, "mine", 60) == "mine"
        assert ledger.swap("place", None, None, 60) == "mine"
        assert ledger.swap("elsewhere", None, None, 60) is None

    def test_a_text_is_replaced_by_who_knows_it_and_by_nobody_else(self, ledger: Ledger) -> None:
        ledger.swap("place", None, "first", 60)
        for expected in (None, "", "other", "first "):
            assert ledger.swap("place", expected, "second", 60) == "first"
        assert ledger.swap("place", "first", "second", 60) == "second"
        assert ledger.swap("place", "first", "third", 60) == "second"

    def test_nothing_is_not_the_empty_text(self, ledger: Ledger) -> None:
        assert ledger.swap("place", None, "", 60) == ""
        assert ledger.swap("place", None, "more", 60) == ""
        assert ledger.swap("place", "", "more", 60) == "more"

    def test_a_text_is_taken_away_by_who_knows_it(self, ledger: Ledger) -> None:
        ledger.swap("place", None, "mine", 60)
        assert ledger.swap("place", "other", None, 60) == "mine"
        assert ledger.swap("place", "mine", None, 60) is None
        assert ledger.swap("place", None, "next", 60) == "next"

    def test_a_text_is_gone_when_its_time_is_up(self, ledger: Ledger, clock: FakeClock) -> None:
        ledger.swap("place", None, "short", 10)
        ledger.swap("stays", None, "long", 100)
        clock.advance(9)
        assert ledger.swap("place", None, None, 60) == "short"
        clock.advance(2)
        assert ledger.swap("place", "short", "late", 60) is None
        assert ledger.swap("place", None, "new", 60) == "new"
        assert ledger.swap("stays", None, None, 60) == "long"

    def test_what_replaces_a_text_has_its_own_time(self, ledger: Ledger, clock: FakeClock) -> None:
        ledger.swap("place", None, "short", 10)
        ledger.swap("place", "short", "long", 100)
        clock.advance(50)
        assert ledger.swap("place", None, None, 60) == "long"

    def test_the_same_text_again_is_kept_for_as_long_again(self, ledger: Ledger, clock: FakeClock) -> None:
        ledger.swap("place", None, "mine", 10)
        clock.advance(9)
        assert ledger.swap("place", "mine", "mine", 10) == "mine"
        clock.advance(9)
        assert ledger.swap("place", None, None, 10) == "mine"

    def test_a_text_comes_back_as_it_was(self, ledger: Ledger) -> None:
        for text in (ODD, "x" * 20_000):
            assert ledger.swap(text[:40], None, text, 60) == text
            assert ledger.swap(text[:40], None, None, 60) == text

    def test_of_many_that_expect_the_same_one_gets_through(self, ledger: Ledger) -> None:
        found = race([partial(ledger.swap, "place", None, f"text {n}", 60) for n in range(self.workers)])
        assert len(set(found)) == 1
        assert ledger.swap("place", None, None, 60) == found[0]

    def test_it_can_be_awaited(self, ledger: Ledger) -> None:
        async def all_at_once() -> list[str | None]:
            return await asyncio.gather(*(ledger.aio.swap("place", None, f"text {n}", 60) for n in range(10)))

        assert len(set(asyncio.run(all_at_once()))) == 1

    @pytest.mark.parametrize(
        ("name", "ttl_s"),
        [("", 60), ("x" * (MOST_LENGTH + 1), 60), ("place", 0), ("place", -1), ("place", float("nan"))],
    )
    def test_a_place_without_a_name_and_a_time_that_is_none_are_refused(
        self, ledger: Ledger, name: str, ttl_s: float
    ) -> None:
        with pytest.raises(ValueError):
            ledger.swap(name, None, "text", ttl_s)

    def test_texts_are_no_part_of_the_books(self, ledger: Ledger) -> None:
        ledger.swap("place", None, "mine", 60)
        assert list(ledger.audit()) == []
        assert ledger.sweep() == 0
