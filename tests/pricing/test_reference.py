"""Names, prices and bills of calls are read as they were when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.pricing.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.pricing.reference.make import FILE
from tests.pricing.reference.prices import NAMES, lines_of
from tests.reference_text import kept_of


@pytest.mark.parametrize("name", NAMES)
def test_what_is_charged_is_as_it_was(name: str) -> None:
    assert list(lines_of(name)) == kept_of(name, FILE)
