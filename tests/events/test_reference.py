"""Sinks tell of events what they told when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.events.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.events.reference.make import FILE
from tests.events.reference.told import NAMES, lines_of
from tests.reference_text import kept_of


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_is_as_it_was(name: str) -> None:
    assert list(lines_of(name)) == kept_of(name, FILE)
