"""An answer that its caller gives up is booked as high as it was held, or by what was seen of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")
pytest.importorskip("httpx2")

from budget_guard import Budget, Usage
from budget_guard.estimate import tokens
from budget_guard.estimate.tokens import is_installed
from budget_guard.testing import LocalProvider, Reply
from tests.integrations.clients.support import ask, ask_claude, async_open_ai, claude, open_ai

STORY = Reply(text="The sky is blue because the air scatters short waves of light. " * 64, chunks=256, gate_chunks=True)
QUESTION: list[Any] = [{"role": "user", "content": "Why is the sky blue? Tell me all of it, at great length."}]
SEEN_CHUNKS = 40
ANSWER_OF_ONE = Reply(text="word " * 400, gate_chunks=True)
counted = pytest.mark.skipif(not is_installed(), reason="no tokenizer is installed")


@pytest.fixture
def _tokenizer() -> Iterator[None]:
    """A tokenizer in its own right, which warns of how it reads its vocabulary: in other tests that is an error."""
    tokens._counter.cache_clear()
    yield
    tokens._counter.cache_clear()


async def closed_tabs(provider: LocalProvider, session: Any, tabs: int) -> None:
    """Ask, read a part of the answer, and close the stream."""
    client = session.guard(async_open_ai(provider))
    for _ in range(tabs):
        stream = await client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True)
        provider.release_chunk()
        read = 0
        async for chunk in stream:
            read += bool(chunk.choices and chunk.choices[0].delta.content)
            if read == SEEN_CHUNKS:
                break
            provider.release_chunk()
        await stream.close()
    await provider.await_idle()


@counted
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("_tokenizer")
async def test_twenty_closed_tabs_are_booked_near_the_bill_and_not_below_what_was_streamed() -> None:
    with LocalProvider(STORY) as provider:
        session = Budget("$5.00").session(on_cancel="seen")
        await closed_tabs(provider, session, 20)
        report = session.report()
        streamed = sum(call.usage.output_tokens for call in provider.calls)
        assert provider.bill_usd <= session.spent_usd <= provider.bill_usd * Decimal("1.2")
        assert report.breakdown.llm.by_model["gpt-4o"].output_tokens >= streamed > 0
        assert report.uncertain == session.spent_usd
        assert session.reserved_usd == 0


async def test_by_default_all_that_was_held_is_booked() -> None:
    with LocalProvider(STORY) as provider:
        session = Budget("$5.00").session()
        await closed_tabs(provider, session, 2)
        held = sum(decision.held.cost for decision in session.decisions())
        assert session.spent_usd == Decimal(held) / 10**9 > 50 * provider.bill_usd
        assert session.report().uncertain == session.spent_usd


@pytest.mark.parametrize("model", ["o3", "gpt-5"])
async def test_what_a_model_may_have_thought_out_of_sight_is_booked_as_held(model: str) -> None:
    with LocalProvider(STORY) as provider:
        session = Budget("$5.00").session(on_cancel="seen")
        stream = await session.guard(async_open_ai(provider)).chat.completions.create(
            model=model, messages=QUESTION, stream=True
        )
        for _ in range(3):
            provider.release_chunk()
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()
        await provider.await_idle()
        assert session.spent_usd == Decimal(session.decisions()[0].held.cost) / 10**9


def test_a_blocking_stream_that_is_collected_is_booked_by_what_was_seen() -> None:
    with LocalProvider(ANSWER_OF_ONE) as provider:
        session = Budget("$5.00").session(on_cancel="seen")
        stream = ask(session.guard(open_ai(provider)), stream=True)
        provider.release_chunk()
        provider.release_chunk()
        next(iter(stream))
        held = session.reserved_usd
        del stream
        gc.collect()
        assert Decimal(0) < session.spent_usd < held / 2
        assert session.reserved_usd == 0


def test_claude_tells_its_input_at_the_start_and_its_text_is_bounded_by_its_bytes() -> None:
    with LocalProvider(ANSWER_OF_ONE) as provider:
        session = Budget("$5.00").session(on_cancel="seen")
        stream = ask_claude(session.guard(claude(provider)), stream=True, max_tokens=8_000)
        for _ in range(2):
            provider.release_chunk()
        text = ""
        for event in stream:
            if event.type == "content_block_delta":
                text += event.delta.text
                break
        stream.close()
        provider.wait_until_idle()
        used = session.report().breakdown.llm.by_model["claude-haiku-4-5"]
        assert used.input_tokens == provider.calls[0].usage.input_tokens
        assert len(text) < used.output_tokens < 8_000
        assert provider.bill_usd <= session.spent_usd


def test_a_stream_that_the_provider_breaks_is_booked_as_held() -> None:
    with LocalProvider(Reply(text="word " * 400, drop_after=2)) as provider:
        session = Budget("$5.00").session(on_cancel="seen")
        with pytest.raises(Exception, match=r"(?i)peer|closed|incomplete|connection"):
            for _ in ask(session.guard(open_ai(provider)), stream=True):
                pass
        assert session.spent_usd == Decimal(session.decisions()[0].held.cost) / 10**9


async def test_a_cancelled_stream_is_booked_by_what_was_seen_and_a_late_bill_replaces_it() -> None:
    with LocalProvider(STORY) as provider:
        session = Budget("$5.00").session(on_cancel="seen")
        begun = asyncio.Event()

        async def read() -> None:
            stream = await session.guard(async_open_ai(provider)).chat.completions.create(
                model="gpt-4o", messages=QUESTION, stream=True
            )
            async for _ in stream:
                begun.set()

        task = asyncio.create_task(read())
        await provider.await_calls(1)
        for _ in range(3):
            provider.release_chunk()
        await begun.wait()
        held = session.reserved_usd
        task.cancel()
        await asyncio.wait([task])
        gc.collect()
        await provider.await_idle()
        assert Decimal(0) < session.spent_usd < held / 10
        hold = session.decisions()[0].require()
        hold.commit(Usage(input=20, output=30))
        assert session.spent_usd == Decimal("0.00035")
        assert session.report().uncertain == 0


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="on_cancel='half'"):
        Budget("$1").session(on_cancel="half")  # type: ignore[arg-type]  # on purpose
