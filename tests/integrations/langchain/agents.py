"""Models, agents and ways to call them that the tests of the LangChain adapter share."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from decimal import Decimal
from typing import Any, TypeAlias

import httpx
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from budget_guard import Session
from budget_guard.integrations.langchain import BudgetCallbackHandler, budget_scope
from budget_guard.testing import LocalProvider, ProviderRequest, Reply, Script, ServedCall, ToolCall
from tests.builders import ZERO

BIG, SMALL, CLAUDE = "gpt-4o", "gpt-4o-mini", "claude-sonnet-5"
_TLS = ssl.create_default_context()  # made once: it takes longer than most tests

DIME: Mapping[str, Any] = {"dime": {"input": 0, "output": 0, "requests": "0.10", "max_output": 100}}
"""A model that costs $0.10 a call, whatever it says."""


class Lab:
    """A provider, and short ways to make models that ask it."""

    def __init__(self, provider: LocalProvider) -> None:
        self.provider = provider
        # Each call has a connection of its own: they would outlive the event loops that made them.
        http: dict[str, Any] = {"verify": _TLS, "timeout": 30, "limits": httpx.Limits(max_keepalive_connections=0)}
        self._http, self._async_http = httpx.Client(**http), httpx.AsyncClient(**http)

    def close(self) -> None:
        """Close the clients."""
        self._http.close()
        asyncio.run(self._async_http.aclose())

    def clients_guarded_in(self, session: Session) -> dict[str, Any]:
        """Options that have an OpenAI model send over HTTP clients that are guarded in *session*."""
        return {"http_client": session.guard(self._http), "http_async_client": session.guard(self._async_http)}

    async def quiet(self) -> None:
        """Let everything that was left to the collector come to its end, here and at the provider."""
        gc.collect()
        await asyncio.sleep(0)  # the event loop makes tasks of the streams that were found
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await self.provider.await_idle()
        await self._async_http.aclose()

    def script(self, script: Script) -> None:
        """Start over with an empty ledger and *script*."""
        self.provider.reset(script)

    def chat(self, model: str = BIG, **options: Any) -> ChatOpenAI:
        """An OpenAI model over Chat Completions."""
        return self._openai(model, {"stream_usage": True, "use_responses_api": False, **options})

    def responses(self, model: str = BIG, **options: Any) -> ChatOpenAI:
        """An OpenAI model over Responses."""
        return self._openai(model, {"use_responses_api": True, **options})

    def _openai(self, model: str, options: dict[str, Any]) -> ChatOpenAI:
        given: dict[str, Any] = {
            "base_url": self.provider.base_url,
            "api_key": "none",
            "max_retries": 0,
            "max_tokens": 500,
            "http_client": self._http,
            "http_async_client": self._async_http,
        }
        return ChatOpenAI(model=model, **{**given, **options})

    def claude(self, model: str = CLAUDE, **options: Any) -> ChatAnthropic:
        """A Claude model over Messages."""
        given: dict[str, Any] = {
            "base_url": self.provider.anthropic_base_url,
            "api_key": "none",
            "max_retries": 0,
            "max_tokens": 500,
            "default_headers": {"Connection": "close"},
        }
        return ChatAnthropic(model_name=model, **{**given, **options})

    @property
    def calls(self) -> list[ServedCall]:
        return self.provider.calls

    @property
    def models(self) -> list[str]:
        """The models that were asked, in order."""
        return [call.model for call in self.provider.calls]


MODELS: Mapping[str, Callable[..., BaseChatModel]] = {
    "chat": Lab.chat,
    "responses": Lab.responses,
    "claude": Lab.claude,
}
"""A model of each wire format, of a lab."""


def configured(*handlers: Any, **configurable: Any) -> Any:
    """A config with *handlers* among the callbacks."""
    return {"callbacks": list(handlers)} | ({"configurable": configurable} if configurable else {})


Way: TypeAlias = Callable[[Any, Any, Any], Any]


def _async(way: Way) -> Way:
    """The *way* that is awaited, in an event loop of its own."""

    async def main(runnable: Any, input: Any, config: Any) -> Any:
        with ExitStack() as scopes:
            if sys.version_info < (3, 11):  # on which the callbacks of a config get lost in async code
                for handler in config.get("callbacks") or ():
                    scopes.enter_context(budget_scope(handler))
            return await way(runnable, input, config)

    return lambda runnable, input, config: asyncio.run(main(runnable, input, config))


async def _drain(stream: Any) -> list[Any]:
    return [piece async for piece in stream]


async def _drain_v3(runnable: Any, input: Any, config: Any) -> list[Any]:
    return await _drain(await runnable.astream_events(input, config, version="v3"))


SURFACES: dict[str, Way] = {
    "invoke": lambda runnable, input, config: runnable.invoke(input, config),
    "stream": lambda runnable, input, config: list(runnable.stream(input, config)),
    "batch": lambda runnable, input, config: runnable.batch([input], config),
    "batch_as_completed": lambda runnable, input, config: list(runnable.batch_as_completed([input], config)),
    "ainvoke": _async(lambda runnable, input, config: runnable.ainvoke(input, config)),
    "astream": _async(lambda runnable, input, config: _drain(runnable.astream(input, config))),
    "abatch": _async(lambda runnable, input, config: runnable.abatch([input], config)),
    "astream_events": _async(
        lambda runnable, input, config: _drain(runnable.astream_events(input, config, version="v2"))
    ),
}
"""Every way to call a model, a chain, an agent or a graph."""
if hasattr(BaseChatModel, "_chat_model_stream_v3"):  # newer than the oldest langchain-core that is supported
    SURFACES["stream_events"] = lambda runnable, input, config: list(
        runnable.stream_events(input, config, version="v3")
    )
    SURFACES["astream_events_v3"] = _async(_drain_v3)

MODEL_SURFACES: Mapping[str, Way] = {
    **SURFACES,
    "generate": lambda model, input, config: model.generate([[HumanMessage(input)]], callbacks=config["callbacks"]),
    "agenerate": _async(
        lambda model, input, config: model.agenerate([[HumanMessage(input)]], callbacks=config["callbacks"])
    ),
}
"""Every way to call a chat model."""


@tool
def lookup(key: str = "a") -> str:
    """Look something up."""
    return f"value of {key}"


def caller_of(tool: str, *, times: int = 1, **arguments: Any) -> Reply:
    """A reply that calls *tool*."""
    return Reply(tool_calls=[ToolCall(tool, arguments)] * times)


def outputs_in(request: ProviderRequest) -> int:
    """How many tool results the model was shown."""
    kinds = ("function_call_output", "tool_result")
    return sum(
        message.get("role") == "tool"
        or message.get("type") in kinds
        or (isinstance(message.get("content"), list) and any(b.get("type") in kinds for b in message["content"]))
        for message in request.messages
    )


def agree(lab: Lab, handler: BudgetCallbackHandler) -> None:
    """Compare the two ledgers to the nano-dollar, and see that nothing is held any more."""
    lab.provider.wait_until_idle()
    report = handler.report()
    served = [call for call in lab.calls if call.cost_nano]
    assert handler.reserved_usd == 0
    assert handler.spent_usd == report.breakdown.llm.total == lab.provider.bill_usd
    assert report.breakdown.llm.calls == len(served)
    by_model = report.breakdown.llm.by_model.values()
    assert sum(spend.input_tokens for spend in by_model) == sum(call.usage.input_tokens for call in served)
    assert sum(spend.output_tokens for spend in by_model) == sum(call.usage.output_tokens for call in served)
    assert (report.bound_violations, report.overrun, report.uncertain) == (0, ZERO, ZERO)


def never_below(lab: Lab, handler: BudgetCallbackHandler) -> Decimal:
    """Where a call was cut off nobody knows its bill: the guard may say more, and never less; by how much it does."""
    lab.provider.wait_until_idle()
    assert handler.reserved_usd == 0
    assert handler.spent_usd >= lab.provider.bill_usd
    return handler.spent_usd - lab.provider.bill_usd
