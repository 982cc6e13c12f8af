"""Made-up runs come to what they came to when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.session.reference.make``.
"""

from __future__ import annotations

import pytest

from tests.session.reference.make import KINDS, kept


@pytest.mark.parametrize(("kind", "group"), [(kind, group) for kind, (_, n) in KINDS.items() for group in range(n)])
def test_every_step_comes_to_what_it_came_to(kind: str, group: int) -> None:
    before = kept(kind)[group]
    assert len(before) > 300
    assert list(KINDS[kind][0](group)) == before
