"""What the README and docs/ show is true: their code runs, their output is as shown, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import run_page
from tests.forked import run_function

pytest.importorskip("agents")
pytest.importorskip("langchain_openai")
pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NEEDS = {"gateway.md": "aiohttp", "litellm.md": "litellm"}
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
MAIN = "https://github.com/budget-guard/budget-guard/blob/main/"  # this checkout, as the README and the others name it


def run(page: Path) -> str:
    """Run the page's Python blocks in a process of their own; return what they print."""
    done = run_function(run_page.main, page)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_block_runs_and_prints_what_the_page_says(page: Path) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    printed = run(page)

    for promised in re.findall(r"^ *print\(.*\)(?:  # |\n# (?=Total ))(.+)$", page.read_text("utf-8"), re.MULTILINE):
        assert promised in printed.splitlines()


def test_links_between_the_pages_lead_somewhere() -> None:
    more = [*(ROOT / "docs" / "frameworks").glob("*.md"), ROOT / "examples" / "README.md"]
    for page in [*ROOT.glob("*.md"), *PAGES[1:], *more]:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
        for path in re.findall(rf"{MAIN}([^)#\s]+)", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_first_screen_is_short() -> None:
    text = README.read_text(encoding="utf-8")

    assert len(text.splitlines()) < 120
    first = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert first is not None and len([line for line in first[1].splitlines() if line and line[0] != "#"]) <= 11
