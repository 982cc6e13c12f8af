"""Reports and the answers of the command look as they did when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.reporting.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.reference_text import kept_of
from tests.reporting.reference.make import FILE
from tests.reporting.reference.views import NAMES, lines_of


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_as_it_was(name: str) -> None:
    assert "\n".join(lines_of(name)).split("\n") == kept_of(name, FILE)
