"""What the ledgers in front of a shared one ask of it is what it was when somebody looked at it last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.ledger.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.ledger.reference.make import FILE
from tests.ledger.reference.traces import FRONTS, lines_of
from tests.reference_text import kept


@pytest.mark.parametrize("name", FRONTS)
def test_a_ledger_asks_the_one_below_it_what_it_asked(name: str) -> None:
    before = kept(FILE)
    begins = before.index(f"{name} 0")
    others = [before.index(f"{each} 0") for each in FRONTS]
    ends = min((each for each in others if each > begins), default=len(before))
    assert ends - begins > 2_000
    assert list(lines_of(name)) == before[begins:ends]
