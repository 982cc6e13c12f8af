"""Budgets, policies, money and windows are told as they were when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.policy.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.policy.reference.make import FILE
from tests.policy.reference.tables import TABLES, lines_of
from tests.reference_text import kept_of


@pytest.mark.parametrize("name", TABLES)
def test_what_is_made_of_values_is_as_it_was(name: str) -> None:
    assert list(lines_of(name)) == kept_of(name, FILE)
