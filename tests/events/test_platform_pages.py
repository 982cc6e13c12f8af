"""The pages on platforms: their code is code, and where the platform's SDK is there, it does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "platforms"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PAGES / page).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", ["datadog.md", "langfuse.md", "langsmith.md"])
def test_there_is_a_page_whose_code_compiles_and_whose_sinks_there_are(page: str) -> None:
    import budget_guard.events.sinks as sinks

    assert blocks(page)
    for code in blocks(page):
        compile(code, page, "exec")
    text = (PAGES / page).read_text("utf-8")
    for name in set(re.findall(r"\b\w+Sink\b", text)):
        assert name in sinks.__all__
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (PAGES / link).exists()
    assert f"platforms/{page}" in (PAGES.parent / "events.md").read_text("utf-8")


def test_langsmith_is_told_what_was_booked_within_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    langsmith = pytest.importorskip("langsmith")
    runs: list[Any] = []
    real = langsmith.get_current_run_tree

    def noting() -> Any:
        runs.append(real())
        return runs[-1]

    monkeypatch.setattr(langsmith, "get_current_run_tree", noting)
    nowhere = langsmith.Client(api_url="http://127.0.0.1:9", api_key="none", auto_batch_tracing=False)
    with langsmith.tracing_context(enabled="local", client=nowhere):
        exec(compile(blocks("langsmith.md")[0], "langsmith.md", "exec"), {"__name__": "page"})
    told = {run.id: run.extra["metadata"]["usage_metadata"] for run in runs if run is not None}
    assert list(told.values()) == [{"total_cost": 0.02}]
