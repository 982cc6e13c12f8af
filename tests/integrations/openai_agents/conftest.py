"""A lab for each test, and a check that it leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integrations.openai_agents.support import Lab


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Trace nothing, give the default runner back, and find no run still current."""
    pytest.importorskip("agents")
    from agents import set_tracing_disabled
    from agents.run import get_default_agent_runner, set_default_agent_runner

    from budget_guard_openai_agents.guarded_run import current_run, guarded_already

    set_tracing_disabled(True)
    runner = get_default_agent_runner()
    yield
    set_default_agent_runner(runner)
    assert current_run() is None
    assert not guarded_already()


@pytest.fixture
async def new_lab() -> AsyncIterator[Callable[..., Any]]:
    """Start labs; afterwards no task may be pending."""
    from budget_guard.testing import LocalProvider, Reply
    from tests.integrations.openai_agents.support import Lab, client_of

    async with AsyncExitStack() as stack:

        async def start(script: Any = None, *, client_options: Any = None, **options: Any) -> Lab:
            provider = stack.enter_context(LocalProvider(Reply() if script is None else script, **options))
            client = await stack.enter_async_context(client_of(provider, **(client_options or {})))
            return Lab(provider, client)

        yield start
    ending = asyncio.all_tasks() - {asyncio.current_task()}
    if ending:  # done-callbacks, and generators that the SDK leaves to the garbage collector
        _, pending = await asyncio.wait(ending, timeout=5)
        assert not pending


@pytest.fixture
async def lab(new_lab: Callable[..., Any]) -> Any:
    """One lab."""
    return await new_lab()
