"""Made-up requests under budgets and layers above come to what they did when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.adapter.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.adapter.reference.histories import NAMES, lines_of
from tests.adapter.reference.make import FILE
from tests.reference_text import kept_of


@pytest.mark.parametrize("name", NAMES)
def test_what_becomes_of_a_request_is_as_it_was(name: str) -> None:
    assert list(lines_of(name)) == kept_of(name, FILE)
