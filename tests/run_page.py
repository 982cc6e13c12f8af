"""Run every Python block of a Markdown page, in order, against a local provider: ``python run_page.py README.md``.

The setup that the pages do not show: the clients of OpenAI and Anthropic send to the provider, whose model calls the
first tool that it is offered until it has three results, and then answers. A block may use ``await``, and whatever
the blocks above it on the page have defined. Functions named ``test_...`` are called.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def answer(request: ProviderRequest) -> Reply:
    """A model that looks three things up and then answers."""
    items = [item for item in request.messages if isinstance(item, dict)]
    results = sum(item.get("type") == "function_call_output" or item.get("role") == "tool" for item in items)
    tools: list[dict[str, Any]] = request.body.get("tools") or []
    if tools and results < 3:
        tool = tools[0].get("function") or tools[0]
        arguments = dict.fromkeys(tool["parameters"]["properties"], "the sky")
        return Reply(tool_calls=[ToolCall(tool["name"], arguments)])
    return Reply(text="Because the air scatters blue light.", output_tokens=500)


def blocks(page: Path) -> list[CodeType]:
    """The page's blocks, compiled so that an error shows the page's own line."""
    text = page.read_text(encoding="utf-8")
    compiled: list[CodeType] = []
    for found in _BLOCK.finditer(text):
        tree = ast.parse(found[1], str(page))
        ast.increment_lineno(tree, text.count("\n", 0, found.start(1)))
        compiled.append(compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    return compiled


def run(code: CodeType, names: dict[str, Any]) -> None:
    """Run one block, and the tests that it defines."""
    if code.co_flags & inspect.CO_COROUTINE:

        async def block() -> None:
            await eval(code, names)

        asyncio.run(block())
    else:
        exec(code, names)
    for name in [name for name in names if name.startswith("test_")]:
        names.pop(name)()


def main(page: Path) -> None:
    names: dict[str, Any] = {}
    agents = import_module("agents") if find_spec("agents") else None  # other frameworks are tested without it
    if agents is not None:
        agents.set_tracing_disabled(True)
    with LocalProvider(answer) as of_page:  # for LangChain's models, which live for several blocks
        os.environ |= {"OPENAI_BASE_URL": of_page.base_url, "OPENAI_API_KEY": "none"}
        os.environ |= {"OPENAI_API_BASE": of_page.base_url, "GOOGLE_API_KEY": "none"}
        os.environ |= {"ANTHROPIC_BASE_URL": of_page.anthropic_base_url, "ANTHROPIC_API_KEY": "none"}
        for code in blocks(page):
            with LocalProvider(answer) as of_block:  # for a client that belongs to one event loop
                if agents is not None:
                    client = import_module("openai").AsyncOpenAI(base_url=of_block.base_url, max_retries=0)
                    agents.set_default_openai_client(client, use_for_tracing=False)
                run(code, names)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
