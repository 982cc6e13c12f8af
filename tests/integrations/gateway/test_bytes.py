"""Clients get from the gateway what they get from the provider, byte for byte, and a refusal once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from budget_guard import Budget
from budget_guard.integrations.gateway import Upstream
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.gateway.odd_answers import Seen, odd_upstream, relay
from tests.integrations.gateway.support import MESSAGES, RATES, Asking, gateway, serving

pytest.importorskip("httptools")

NODE = Path(__file__).parent / "node" / "clients.cjs"
needs_node = pytest.mark.skipif(
    "NODE_MODULES" not in os.environ, reason="NODE_MODULES names no folder with openai and @anthropic-ai/sdk"
)
Ask = Callable[[str], Any]
"""Asks at an address, and returns all that the client gave."""


@pytest.fixture(scope="module")
def ways() -> Iterator[tuple[str, Asking]]:
    """The address of a provider, and a gateway in front of it."""
    with serving(odd_upstream, lifespan="off", server_header=True, date_header=True) as server:
        named = [Upstream(name=name, url=server.url) for name in ("openai", "anthropic")]
        with gateway(None, Budget("$1000"), upstreams=named) as asking:
            yield server.url, asking


def dumped(value: Any) -> Any:
    """What a client gave, as plain values."""
    if hasattr(value, "model_dump"):
        return value.model_dump(warnings=False)
    return [dumped(each) for each in value] if isinstance(value, (list, tuple)) else value


def seen_of(ask: Ask, url: str) -> tuple[Any, list[Seen]]:
    with relay(url) as (address, seen):
        return dumped(ask(address)), seen


def same(ways: tuple[str, Asking], ask: Ask, count: int = 1) -> None:
    """Check that *ask* gives, and is sent, the same by both ways."""
    direct, from_provider = seen_of(ask, ways[0])
    guarded, from_gateway = seen_of(ask, ways[1].url)
    assert guarded == direct and direct
    assert [each.of_the_provider() for each in from_gateway] == [each.of_the_provider() for each in from_provider]
    assert len(from_gateway) == count and all(each.status == 200 and each.body for each in from_gateway)
    assert all(b"x-budget-decision-id" in dict(each.headers) for each in from_gateway)


def openai_asks(kind: str, **options: Any) -> Ask:
    def ask(url: str) -> Any:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            if kind == "chat":
                answer = client.chat.completions.create(model="dime", messages=MESSAGES, max_tokens=16, **options)  # type: ignore[arg-type]
            else:
                answer = client.responses.create(model="dime", input="hi", max_output_tokens=16, **options)
            return list(answer) if options.get("stream") else answer

    return ask


@pytest.mark.parametrize("kind", ["chat", "responses"])
@pytest.mark.parametrize("options", [{}, {"stream": True}])
def test_openais_client(ways: tuple[str, Asking], kind: str, options: Any) -> None:
    same(ways, openai_asks(kind, **options))


def test_openais_client_with_all_that_can_be_asked_for(ways: tuple[str, Asking]) -> None:
    same(ways, openai_asks("chat", n=2, logprobs=True, stream=True, stream_options={"include_usage": True}))

    async def ask(url: str) -> Any:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            manager = client.chat.completions.stream(model="dime", messages=MESSAGES, max_tokens=16, n=2)  # type: ignore[arg-type]
            async with manager as stream:
                return [event.type async for event in stream]

    same(ways, lambda url: asyncio.run(ask(url)))


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_client(ways: tuple[str, Asking], stream: bool) -> None:
    def ask(url: str) -> Any:
        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
            answer = client.messages.create(model="dime", max_tokens=16, messages=MESSAGES, stream=stream)  # type: ignore[arg-type]
            return list(answer) if stream else answer

    same(ways, ask)


def test_langchain(ways: tuple[str, Asking]) -> None:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI

    def ask(url: str) -> Any:
        model = chat(base_url=f"{url}/v1", api_key="k", model="dime", max_tokens=16, max_retries=0)
        answers = [model.invoke("hi"), *model.stream("hi")]
        return [{**answer.model_dump(), "id": None} for answer in answers]  # which LangChain makes up

    same(ways, ask, 2)


@pytest.mark.parametrize("stream", [False, True])
def test_openais_agents(ways: tuple[str, Asking], stream: bool) -> None:
    agents = pytest.importorskip("agents")

    async def ask(url: str) -> Any:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            model = agents.OpenAIChatCompletionsModel(model="cheap", openai_client=client)
            agent = agents.Agent(name="A", model=model, model_settings=agents.ModelSettings(max_tokens=16))
            config = agents.RunConfig(tracing_disabled=True)
            if not stream:
                return (await agents.Runner.run(agent, "hi", run_config=config)).final_output
            running = agents.Runner.run_streamed(agent, "hi", run_config=config)
            said = [
                e.data.delta
                async for e in running.stream_events()
                if getattr(e, "data", None) and hasattr(e.data, "delta")
            ]
            return [running.final_output, *said]

    same(ways, lambda url: asyncio.run(ask(url)))


def test_what_does_not_fit_is_raised_once_by_clients_that_are_made_of_these() -> None:
    """LangChain and the Agents SDK ask through OpenAI's client, which may retry: it does not."""
    chat, agents = pytest.importorskip("langchain_openai").ChatOpenAI, pytest.importorskip("agents")
    with LocalProvider(lambda _: Reply(output_tokens=16), prices=RATES) as provider:
        with gateway(provider, alternatives=["cheap"]) as asking:
            for attempt in ("langchain", "agents"):

                async def ask(url: str, attempt: str = attempt) -> None:
                    if attempt == "langchain":
                        await chat(base_url=f"{url}/v1", api_key="k", model="dime", max_tokens=999).ainvoke("hi")
                        return
                    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
                        model = agents.OpenAIChatCompletionsModel(model="dime", openai_client=client)
                        settings = agents.ModelSettings(max_tokens=999)
                        agent = agents.Agent(name="A", model=model, model_settings=settings)
                        await agents.Runner.run(agent, "hi", run_config=agents.RunConfig(tracing_disabled=True))

                with relay(asking.url) as (url, seen), pytest.raises(openai.APIStatusError) as caught:
                    asyncio.run(ask(url))
                problem: Any = caught.value.response.json()
                assert caught.value.code == problem["code"] == "run_ceiling_reached"
                assert [each["model"] for each in problem["alternatives"]] == ["cheap"]
                assert [each.status for each in seen] == [402]
            assert provider.calls == []


# JavaScript


def node(url: str, *arguments: str) -> Any:
    """What the clients for JavaScript give."""
    command = shutil.which("node")
    assert command is not None, "NODE_MODULES is set, and there is no node: apt-get install nodejs"
    environment = {**os.environ, "NODE_PATH": os.environ["NODE_MODULES"]}
    done = subprocess.run(
        [command, NODE, url, *arguments], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@needs_node
def test_the_clients_for_javascript(ways: tuple[str, Asking]) -> None:
    direct, from_provider = seen_of(node, ways[0])
    guarded, from_gateway = seen_of(node, ways[1].url)
    assert guarded == direct and len(direct) == 7
    assert [name for name, found in direct.items() if not {"answer", "events"} & set(found)] == []
    assert [each.of_the_provider() for each in from_gateway] == [each.of_the_provider() for each in from_provider]
    assert len(from_gateway) == 7


@needs_node
def test_a_refusal_is_raised_once_by_the_clients_for_javascript_and_can_be_read() -> None:
    with LocalProvider(lambda _: Reply(output_tokens=16), prices=RATES) as provider:
        with gateway(provider, alternatives=["cheap"]) as asking:
            found = node(asking.url, "refused")
            assert len(found) == 7 and provider.calls == []
            for each in found.values():
                assert (each["status"], each["code"], each["requests"]) == (402, "run_ceiling_reached", 1)
                assert each["alternatives"] == ["cheap"] and each["run"] == "node"
                assert "budget" in each["message"] or "run" in each["message"]


# Plain HTTP


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_bytes_of_every_dialect(ways: tuple[str, Asking], path: str, stream: bool) -> None:
    body = {"model": "dime", "messages": MESSAGES, "input": "hi", "max_tokens": 16, "max_output_tokens": 16}
    body = {
        name: value
        for name, value in body.items()
        if (name in ("input", "max_output_tokens")) is ("resp" in path) or name == "model"
    }

    def ask(url: str) -> Any:
        return httpx.post(url + path, json={**body, "stream": stream}, headers={"authorization": "Bearer k"}).content

    same(ways, ask)
