"""The models that may take a call are those that it was when somebody looked last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.pricing.reference.ladders``.
"""

from __future__ import annotations

from tests.pricing.reference import ladders
from tests.reference_text import kept


def test_models_for_made_up_calls_and_what_answers_teach_are_as_they_were() -> None:
    assert list(ladders.lines()) == kept(ladders.FILE)
