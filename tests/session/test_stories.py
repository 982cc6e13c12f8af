"""Made-up runs come to what they came to when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.session.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.session.reference.make import kept
from tests.session.reference.stories import GROUPS, lines_of


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_step_comes_to_what_it_came_to(group: int) -> None:
    before = kept()[group]
    assert len(before) > 300
    assert list(lines_of(group)) == before
