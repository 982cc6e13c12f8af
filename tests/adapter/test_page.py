"""docs/adapters.md shows a whole adapter that is short. tests/test_readme.py runs it."""

from __future__ import annotations

import re
from pathlib import Path

import budget_guard.adapter

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"


def test_the_adapter_of_a_plain_loop_takes_at_most_sixty_lines() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (adapter,) = [block for block in blocks if "class BudgetGuard(" in block]
    assert len(adapter.splitlines()) <= 60


def test_the_page_names_everything_that_the_kit_exports() -> None:
    text = PAGE.read_text(encoding="utf-8")
    unnamed = {name for name in budget_guard.adapter.__all__ if not re.search(rf"`[^`]*\b{name}\b[^`]*`", text)}
    assert unnamed <= {"KEPT_BY_PROVIDER", "Stops", "ToolCost", "check_budget", "check_choice"}
