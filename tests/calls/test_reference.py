"""What is held for a call is what was held for it when somebody looked last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.calls.reference.make``.
"""

from __future__ import annotations

from tests.calls.reference.make import FILE
from tests.calls.reference.plans import lines
from tests.reference_text import kept


def test_what_is_held_for_made_up_calls_is_as_it_was() -> None:
    assert list(lines()) == kept(FILE)
