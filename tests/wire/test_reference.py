"""Requests and answers with one thing changed are read as they were when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.wire.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.reference_text import kept_of
from tests.wire.reference.make import FILE
from tests.wire.reference.readings import NAMES, lines_of


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_as_it_was(name: str) -> None:
    assert list(lines_of(name)) == kept_of(name, FILE)
