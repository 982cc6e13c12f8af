"""Drives of adapters: a stuck agent of each framework, against a provider on this machine, with five cents.

``python -m budget_guard.cli.drives NAME`` prints what came of it as one line of JSON. `doctor` runs each in a process
of its own: the frameworks do without each other, and some cannot do otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from budget_guard.errors import BudgetError
from budget_guard.session.budget import Budget
from budget_guard.session.session import Session
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, ToolCall

LIMIT = Decimal("0.05")
_MOST = 40
"""Calls after which a drive is given up: nothing has stopped it."""
_TOOL_COST = Decimal("0.02")
_tool_calls: list[str] = []
"""What a server of tools was asked: it sends no bill."""


def _stuck(request: ProviderRequest) -> Reply:
    """It calls the tool that it is offered, for ever; without one, it talks for ever."""
    if request.tools:
        question = f"why, for the {request.index + 1}. time?"
        call = ToolCall(request.tools[0], {"question": question})
        return Reply(tool_calls=[call], input_tokens=1_000, output_tokens=500)
    return Reply(text="Because of the air. " * 20, input_tokens=1_000, output_tokens=500)


def _search(question: str) -> str:
    """Search the web."""
    return "Nothing found."


def _openai(session: Session, provider: LocalProvider) -> None:
    from openai import OpenAI

    client = session.guard(OpenAI(base_url=provider.base_url, api_key="none", max_retries=0))
    for _ in range(_MOST):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Why?"}], max_tokens=1_000)


def _anthropic(session: Session, provider: LocalProvider) -> None:
    from anthropic import Anthropic

    client = session.guard(Anthropic(base_url=provider.anthropic_base_url, api_key="none", max_retries=0))
    for _ in range(_MOST):
        messages: Any = [{"role": "user", "content": "Why?"}]
        client.messages.create(model="claude-sonnet-4-5", messages=messages, max_tokens=600)


def _httpx(session: Session, provider: LocalProvider) -> None:
    import httpx

    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 1_000}
    with httpx.Client() as plain:
        client = session.guard(plain, models={"gpt-4o": "gpt-4o"})
        for _ in range(_MOST):
            client.post(f"{provider.base_url}/chat/completions", json=body).raise_for_status()


def _openai_agents(session: Session, provider: LocalProvider) -> None:
    from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_client, set_tracing_disabled
    from openai import AsyncOpenAI

    from budget_guard.integrations.openai_agents import BudgetGuard

    set_tracing_disabled(True)
    set_default_openai_client(AsyncOpenAI(base_url=provider.base_url, api_key="none"), use_for_tracing=False)
    guard = BudgetGuard(Budget(LIMIT))
    settings = ModelSettings(max_tokens=1_000)
    agent: Any = Agent(name="A", model="gpt-4o", tools=[function_tool(_search)], model_settings=settings)
    _spent_by(session, guard, lambda: Runner.run_sync(agent, "Why?", hooks=guard, max_turns=_MOST))


def _langchain(session: Session, provider: LocalProvider) -> None:
    from langchain_openai import ChatOpenAI

    from budget_guard.integrations.langchain import BudgetCallbackHandler

    settings: dict[str, Any] = {
        "model": "gpt-4o",
        "base_url": provider.base_url,
        "api_key": "none",
        "max_tokens": 1_000,
    }
    handler = BudgetCallbackHandler(Budget(LIMIT))
    model = ChatOpenAI(**settings)

    def ask() -> None:
        for _ in range(_MOST):
            model.invoke("Why?", config={"callbacks": [handler]})

    _spent_by(session, handler, ask)


def _mcp(session: Session, provider: LocalProvider) -> None:
    from mcp import Client
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("tools")

    @server.tool()
    def search(question: str) -> str:
        """Search the web."""
        _tool_calls.append(question)
        return "Nothing found."

    async def ask() -> None:
        async with Client(server) as plain:
            client = session.guard(plain, tool_costs={"search": _TOOL_COST})
            for _ in range(_MOST):
                await client.call_tool("search", {"question": "why?"})

    asyncio.run(ask())


def _pydantic_ai(session: Session, provider: LocalProvider) -> None:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from budget_guard.integrations.pydantic_ai import BudgetModel

    client = AsyncOpenAI(base_url=provider.base_url, api_key="none")
    model: Any = BudgetModel(OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client)), session)
    agent: Any = Agent(model, tools=[_search])
    agent.run_sync("Why?", model_settings={"max_tokens": 1_000})


def _llama_index(session: Session, provider: LocalProvider) -> None:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.llms.openai import OpenAI

    from budget_guard.integrations.llama_index import guard_llm

    llm = guard_llm(OpenAI(model="gpt-4o", api_base=provider.base_url, api_key="none", max_tokens=1_000), session)

    async def ask() -> None:
        await FunctionAgent(tools=[_search], llm=llm).run("Why?", max_iterations=_MOST)

    asyncio.run(ask())


def _google_adk(session: Session, provider: LocalProvider) -> None:
    from google.adk.agents import LlmAgent
    from google.adk.models.google_llm import Gemini
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    from budget_guard.integrations.google_adk import BudgetLlm, BudgetPlugin

    os.environ["GOOGLE_API_KEY"] = "none"

    async def ask() -> None:
        agent = LlmAgent(
            name="researcher",
            model=BudgetLlm(Gemini(model="gemini-2.5-flash", base_url=provider.root_url), session),
            tools=[_search],
            generate_content_config=types.GenerateContentConfig(max_output_tokens=1_000),
        )
        runner = InMemoryRunner(agent=agent, app_name="research", plugins=[BudgetPlugin(session)])
        talk = await runner.session_service.create_session(app_name="research", user_id="ada")
        asked = types.Content(role="user", parts=[types.Part(text="Why?")])
        async for _ in runner.run_async(user_id="ada", session_id=talk.id, new_message=asked):
            pass

    asyncio.run(ask())


def _crewai(session: Session, provider: LocalProvider) -> None:
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import tool

    from budget_guard.integrations.crewai import guard_crew

    os.environ["OPENAI_API_KEY"] = "none"
    llm = LLM(model="openai/gpt-4o", base_url=provider.base_url, max_tokens=1_000)
    tools = [tool("search")(_search)]
    agent = Agent(role="Researcher", goal="Find it", backstory="Stubborn", llm=llm, tools=tools, max_iter=_MOST)
    task = Task(description="Why?", expected_output="One sentence", agent=agent)
    guard_crew(Crew(agents=[agent], tasks=[task], tracing=False), session).kickoff()


def _agent_framework(session: Session, provider: LocalProvider) -> None:
    from agent_framework import Agent
    from agent_framework.openai import OpenAIChatCompletionClient

    from budget_guard.integrations.agent_framework import BudgetMiddleware

    os.environ["OPENAI_API_KEY"] = "none"
    client = OpenAIChatCompletionClient(model="gpt-4o", base_url=provider.base_url)
    agent = Agent(client, name="Researcher", tools=[_search], middleware=[BudgetMiddleware(session)])

    async def ask() -> None:
        for _ in range(_MOST):
            await agent.run("Why?", options={"max_tokens": 1_000})

    asyncio.run(ask())


DRIVES: dict[str, Callable[[Session, LocalProvider], None]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "httpx": _httpx,
    "openai-agents": _openai_agents,
    "langchain": _langchain,
    "mcp": _mcp,
    "pydantic-ai": _pydantic_ai,
    "llama-index": _llama_index,
    "google-adk": _google_adk,
    "crewai": _crewai,
    "agent-framework": _agent_framework,
}
"""By the name of the extra, or of the client's own distribution."""


class _SpentBy(Exception):
    """A guard of its own has spent, in the place of the session that a drive was given."""

    def __init__(self, session: Session, error: BaseException | None) -> None:
        super().__init__()
        self.session = session
        self.error = error


def _spent_by(session: Session, guard: Any, ask: Callable[[], object]) -> None:
    """Run *ask*, whose spend is that of *guard*."""
    try:
        ask()
    except Exception as error:
        raise _SpentBy(guard.session, error) from None
    raise _SpentBy(guard.session, None)


def drive(name: str) -> dict[str, Any]:
    """Drive the adapter *name*; return what it spent, by its own ledger and by the provider's, and what stopped it."""
    session = Budget(LIMIT).session()
    error: BaseException | None = None
    with LocalProvider(_stuck) as provider:
        try:
            DRIVES[name](session, provider)
        except _SpentBy as spent:
            session, error = spent.session, spent.error
        except Exception as raised:
            error = raised
        bill, calls = provider.bill_usd + _TOOL_COST * len(_tool_calls), len(provider.calls) + len(_tool_calls)
    stopped = session.terminated_by
    if stopped is None and isinstance(error, ImportError):
        return {"missing": error.name or "a package that it needs"}
    return {
        "spent_usd": f"{session.spent_usd:f}",
        "bill_usd": f"{bill:f}",
        "calls": calls,
        "stopped_by": stopped,
        "error": None if error is None or isinstance(error, BudgetError) else f"{type(error).__name__}: {error}"[:300],
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}
    sys.stdout.write("\n" + json.dumps(drive(sys.argv[1])) + "\n")
