"""A hundred calls at once never pass the cap: threads and tasks, plain and streamed, in every kind of ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")
pytest.importorskip("httpx2")

import anthropic
import httpx2
import openai

from budget_guard import Budget, BudgetExceeded, MemoryLedger, Session, open_ledger
from budget_guard.ledger import Ledger
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.clients.support import CLAUDE, GPT, MESSAGES

COUNT = 100
TOKENS = {GPT: 10_000, CLAUDE: 20_000}
"""Output tokens of ten cents."""


@pytest.fixture(params=["memory", "sqlite", "redis"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    if request.param == "sqlite":
        found = open_ledger(f"sqlite:///{tmp_path / 'budget.db'}")
        yield found
        found.close()
        return
    servers = pytest.importorskip("tests.ledger.redis_server", exc_type=ImportError)
    if servers.BINARY is None:
        pytest.skip("no redis-server or valkey-server is installed: apt-get install redis-server")
    server = servers.RedisServer(tmp_path / "redis").start()
    found = open_ledger(server.url)
    yield found
    found.close()
    server.stop()


def proved(provider: LocalProvider, session: Session, results: list[Any]) -> None:
    provider.wait_until_idle()
    stops = [result for result in results if isinstance(result, BudgetExceeded)]
    assert [each for each in results if isinstance(each, BaseException) and each not in stops] == []
    assert len(provider.calls) + len(stops) == COUNT
    assert Decimal("0.75") <= provider.bill_usd <= 1
    assert session.spent_usd == provider.bill_usd
    assert session.reserved_usd == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("model", [GPT, CLAUDE])
def test_a_hundred_threads(ledger: Ledger, model: str, stream: bool) -> None:
    session = Session(Budget("$1.00"), ledger=ledger)
    limits = httpx2.Limits(max_connections=COUNT)
    with LocalProvider(Reply(input_tokens=20, output_tokens=TOKENS[model])) as provider:
        http = httpx2.Client(limits=limits)
        sdk: Any = openai.OpenAI if model == GPT else anthropic.Anthropic
        url = provider.base_url if model == GPT else provider.root_url
        with http, sdk(base_url=url, api_key="x", max_retries=0, http_client=http) as plain:
            client = session.guard(plain)

            def one(_: int) -> Any:
                try:
                    create = client.chat.completions.create if model == GPT else client.messages.create
                    answer = create(model=model, messages=MESSAGES, max_tokens=TOKENS[model], stream=stream)
                    return list(answer) if stream else answer
                except Exception as error:
                    return error

            with ThreadPoolExecutor(COUNT) as pool:
                results = list(pool.map(one, range(COUNT)))
        proved(provider, session, results)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("model", [GPT, CLAUDE])
async def test_a_hundred_tasks(ledger: Ledger, model: str, stream: bool) -> None:
    session = Session(Budget("$1.00"), ledger=ledger)
    with LocalProvider(Reply(input_tokens=20, output_tokens=TOKENS[model])) as provider:
        sdk: Any = openai.AsyncOpenAI if model == GPT else anthropic.AsyncAnthropic
        url = provider.base_url if model == GPT else provider.root_url
        async with session.guard(sdk(base_url=url, api_key="x", max_retries=0)) as client:

            async def one() -> Any:
                create = client.chat.completions.create if model == GPT else client.messages.create
                answer = await create(model=model, messages=MESSAGES, max_tokens=TOKENS[model], stream=stream)
                return [chunk async for chunk in answer] if stream else answer

            results = await asyncio.gather(*(one() for _ in range(COUNT)), return_exceptions=True)
        proved(provider, session, results)
