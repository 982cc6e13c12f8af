"""The recipes of docs/frameworks/recipes.md, each where its framework is installed."""

from __future__ import annotations

import re
import runpy
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from budget_guard import BudgetExceeded, Session
from budget_guard.testing import LocalProvider
from tests.integrations.frameworks import DEAR, QUIET, ROOT, page, provider, session_of

__all__ = ["provider"]

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
RECIPES = (ROOT / "docs" / "frameworks" / "recipes.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", RECIPES, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def recipe(title: str, session: Session, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the recipe defines, in *session*, against *provider*, without its last lines, which run it."""
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    (code,) = re.findall(r"^```python\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    code = code.replace('Budget("$1.00").session()', "given_session")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.py"  # smolagents reads the source of tools
        path.write_text(code[: code.index("\nagent = ")], encoding="utf-8")
        return runpy.run_path(str(path), {"given_session": session})


@pytest.mark.parametrize(
    ("title", "module"), [("AG2", "ag2"), ("AutoGen", "autogen_ext"), ("smolagents", "smolagents")]
)
def test_the_recipe_runs(tmp_path: Path, title: str, module: str) -> None:
    """1 the recipe itself"""
    pytest.importorskip(module)
    path = tmp_path / "recipe.md"
    path.write_text(section(title), encoding="utf-8")
    page(str(path))


async def test_ag2_stops(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 AG2: a stuck agent, and one in a tool of another"""
    pytest.importorskip("ag2")
    from ag2 import Agent
    from ag2.middleware import Middleware

    session = session_of("$0.35")
    names = recipe("AG2", session, provider, monkeypatch)
    config = names["OpenAIConfig"](DEAR, max_tokens=10, http_client=names["config"].http_client)
    more: dict[str, Any] = {"config": config, "middleware": [Middleware(names["Latched"])]}

    def search(q: str) -> str:
        """Search."""
        return "nothing"

    inner = Agent("inner", "p", tools=[search], **more)

    async def ask(q: str) -> str:
        """Ask another agent."""
        try:
            return str(await inner.ask(q))
        except Exception:
            return "no answer"

    with pytest.raises(BudgetExceeded):
        await Agent("outer", "p", tools=[ask], **more).ask("go")
    await provider.await_idle()
    assert len(provider.calls) == 3
    assert session.spent_usd == provider.bill_usd and session.reserved_usd == 0


async def test_autogen_stops(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 AutoGen: a stuck agent, and one in a tool of another"""
    pytest.importorskip("autogen_ext")
    from autogen_agentchat.agents import AssistantAgent

    session = session_of("$0.35")
    names = recipe("AutoGen", session, provider, monkeypatch)
    client = names["GuardedClient"](model=DEAR, max_tokens=10, max_retries=0)

    async def search(q: str) -> str:
        """Search."""
        return "nothing"

    inner = AssistantAgent("inner", client, tools=[search], max_tool_iterations=50)

    async def ask(q: str) -> str:
        """Ask another agent."""
        return str(await inner.run(task=q))

    with pytest.raises(BudgetExceeded):
        await AssistantAgent("outer", client, tools=[ask], max_tool_iterations=50).run(task="go")
    await provider.await_idle()
    assert len(provider.calls) == 3
    assert session.spent_usd == provider.bill_usd and session.reserved_usd == 0


def test_smolagents_stops(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 smolagents: a stuck agent, and one in a tool of another"""
    pytest.importorskip("smolagents")
    from smolagents import ToolCallingAgent, tool

    session = session_of("$0.35")
    names = recipe("smolagents", session, provider, monkeypatch)
    model = names["GuardedModel"](DEAR, max_tokens=10, client_kwargs={"max_retries": 0})

    @tool
    def search(q: str) -> str:
        """Search.

        Args:
            q: What for.
        """
        return "nothing"

    inner = ToolCallingAgent([search], model, max_steps=50, verbosity_level=0)

    @tool
    def ask(q: str) -> str:
        """Ask another agent.

        Args:
            q: What.
        """
        return str(inner.run(q))

    with pytest.raises(BudgetExceeded):
        names["run"](ToolCallingAgent([ask], model, max_steps=50, verbosity_level=0), "go")
    provider.wait_until_idle()
    assert len(provider.calls) == 3
    assert session.spent_usd == provider.bill_usd and session.reserved_usd == 0
