"""Made-up runs of agents come to what they came to when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.integrations.openai_agents.reference.make``.
"""

from __future__ import annotations

import pytest

pytest.importorskip("agents")

from tests.integrations.made_up import GROUPS
from tests.integrations.openai_agents.reference.runs import REFERENCE


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_run_comes_to_what_it_came_to(group: int) -> None:
    REFERENCE.check(group)
