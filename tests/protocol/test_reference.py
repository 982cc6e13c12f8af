"""Refusals and decisions are told what was told of them when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.protocol.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.protocol.reference.make import FILE
from tests.protocol.reference.told import NAMES, lines_of
from tests.reference_text import kept_of


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_refusals_and_decisions_is_as_it_was(name: str) -> None:
    assert list(lines_of(name)) == kept_of(name, FILE)
