"""Made-up runs of models, chains and agents come to what they came to when somebody looked at them last.

A line that differs is no fault by itself: look at it, and where it is right run
``python -m tests.integrations.langchain.reference.make``.
"""

from __future__ import annotations

import pytest

pytest.importorskip("langchain")
pytest.importorskip("langgraph")

from tests.integrations.langchain.reference.runs import REFERENCE
from tests.integrations.made_up import GROUPS


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_run_comes_to_what_it_came_to(group: int) -> None:
    REFERENCE.check(group)
