"""What `import budget_guard` gives, and what it leaves alone.

Where a name, an argument or a default is meant to be another one now, write `public_names.txt` anew:
``python -m tests.public_names``; and `constants.txt` where a number, a pattern or a table is: ``python -m
tests.constants``.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import budget_guard
from tests import constants
from tests.public_names import FILE, lines

FOREIGN = [
    *["agents", "anthropic", "google.genai", "langchain", "langchain_core", "langgraph", "litellm", "openai"],
    *["redis", "sqlite3", "starlette", "uvicorn", "fastapi", "rich", "httpx", "requests", "genai_prices"],
]


@pytest.mark.parametrize("name", ["budget_guard", "budget_guard.ledger"])
def test_all_is_every_public_name(name: str) -> None:
    module = importlib.import_module(name)
    public = {
        key
        for key in dir(module)
        if not key.startswith("_") and not (isinstance(getattr(module, key), ModuleType)) and key != "annotations"
    }
    assert sorted(module.__all__) == sorted(public)  # ruff keeps it in order


def test_names_arguments_and_defaults_are_those_that_users_rely_on() -> None:
    assert set(FILE.read_text("utf-8").splitlines()) - set(lines()) == set()  # what is new breaks nobody


def test_constants_and_defaults_are_those_that_somebody_decided_on() -> None:
    assert set(constants.written()) - set(constants.lines()) == set()  # what is new hides no change


def test_every_public_name_is_documented() -> None:
    assert [name for name in budget_guard.__all__ if not getattr(budget_guard, name).__doc__] == []


def test_the_core_imports_no_framework_no_database_and_no_web_server() -> None:
    program = f"import budget_guard, sys; print([m for m in {FOREIGN!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_whole_call_imports_none_either() -> None:
    program = (
        "import sys; from budget_guard import Budget, ModelCall, Usage, weigh\n"
        "with Budget('$1').session() as session:\n"
        "    session.authorize(ModelCall('gpt-4o', weigh(messages='hi'))).require().commit(Usage(input=9, output=9))\n"
        f"str(session.report()); print([m for m in {FOREIGN!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_who_never_awaits_does_not_pay_for_asyncio() -> None:
    program = (
        "import sys; from pydantic import BaseModel; had = 'asyncio' in sys.modules\n"
        "from budget_guard import Budget, ModelCall, Usage, weigh\n"
        "with Budget('$1').session() as session:\n"
        "    session.authorize(ModelCall('gpt-4o', weigh(messages='hi'))).require().commit(Usage(input=9, output=9))\n"
        "print(had or 'asyncio' not in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True"
