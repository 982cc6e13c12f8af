"""The command answers, and its parts make of many values, what they did when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run ``python -m tests.cli.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.cli.reference.answers import NAMES, lines_of
from tests.cli.reference.make import FILE
from tests.reference_text import kept_of


@pytest.mark.parametrize("name", NAMES)
def test_what_is_answered_is_as_it_was(name: str) -> None:
    assert list(lines_of(name)) == kept_of(name, FILE)
