"""A stream is passed on as it comes, and settled on every way out of it."""

from __future__ import annotations

import asyncio
import gc
import json
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")
pytest.importorskip("httpx2")

import anthropic
import httpx2
import openai

from budget_guard import Budget, BudgetRevoked, Session
from budget_guard.testing import LocalProvider, Reply
from tests.garbage import left_to_the_collector
from tests.integrations.clients.support import (
    CLAUDE,
    GPT,
    MESSAGES,
    agree,
    ask,
    ask_claude,
    async_open_ai,
    claude,
    drained,
    open_ai,
)

GATED = Reply(text="one two three four", input_tokens=20, output_tokens=40, gate_chunks=True)
LONG = Reply(text="one two three four", input_tokens=20, output_tokens=40)


def new() -> Session:
    return Budget("$1").session()


def test_the_chunk_that_carries_usage_is_hidden_from_who_did_not_ask_for_it(provider: LocalProvider) -> None:
    session = new()
    chunks = drained(ask(session.guard(open_ai(provider)), stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    agree(provider, session)


def test_who_asked_for_it_gets_it(provider: LocalProvider) -> None:
    session = new()
    chunks = drained(ask(session.guard(open_ai(provider)), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens == 30
    agree(provider, session)


def test_without_asking_for_usage_the_bound_is_booked(provider: LocalProvider) -> None:
    session = new()
    drained(ask(session.guard(open_ai(provider), add_fields=()), stream=True, max_tokens=100))
    assert "stream_options" not in provider.calls[0].body
    assert session.spent_usd > provider.bill_usd and session.reserved_usd == 0


@pytest.mark.parametrize(
    "shape",
    [
        {"encoding": "gzip"},
        {"encoding": "deflate"},
        {"chunk_bytes": 7},
        {"chunk_bytes": 7, "encoding": "gzip"},
        {"newline": "\r\n"},
        {"newline": "\r", "chunk_bytes": 5},
        {"comment": "keep-alive"},
        {"text": "süße 水 🎈"},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_however_it_is_sent_it_is_read(shape: dict[str, Any], stream: bool) -> None:
    reply = Reply(**{"text": "Hello there", "input_tokens": 20, "output_tokens": 10, **shape})
    with LocalProvider(reply) as provider:
        session = new()
        found = ask(session.guard(open_ai(provider)), stream=stream)
        if stream:
            said = "".join(chunk.choices[0].delta.content or "" for chunk in found)
        else:
            said = found.choices[0].message.content
        assert said == reply.text
        agree(provider, session)


def test_a_stream_that_is_closed_is_settled_at_once() -> None:
    with LocalProvider(LONG) as provider:
        session = new()
        stream = ask(session.guard(open_ai(provider)), stream=True, max_tokens=100)
        next(iter(stream))
        stream.close()
        assert session.reserved_usd == 0 and session.spent_usd >= Decimal("0.001")
        with ask(session.guard(open_ai(provider)), stream=True, max_tokens=100) as another:
            for _ in another:
                break
        assert session.reserved_usd == 0
        provider.wait_until_idle()
        assert session.spent_usd >= provider.bill_usd


def test_a_stream_that_is_collected_is_settled_at_once() -> None:
    with LocalProvider(GATED) as provider:
        session = new()
        client = session.guard(open_ai(provider))
        stream: Any = ask(client, stream=True, max_tokens=100)
        provider.release_chunk(2)
        for _ in stream:
            break
        assert session.reserved_usd > 0
        del stream
        gc.collect()
        assert session.reserved_usd == 0 and session.spent_usd >= Decimal("0.001")
        never_read: Any = ask(client, stream=True, max_tokens=100)
        assert session.reserved_usd > 0
        del never_read
        gc.collect()
        assert session.reserved_usd == 0


async def test_an_async_stream_given_up_is_settled() -> None:
    with LocalProvider(GATED) as provider:
        session = new()
        async with session.guard(async_open_ai(provider)) as client:
            stream: Any = await client.chat.completions.create(
                model=GPT, messages=MESSAGES, stream=True, max_tokens=100
            )
            provider.release_chunk(2)
            await anext(aiter(stream))
            await stream.close()
            assert session.reserved_usd == 0
            stream = await client.chat.completions.create(model=GPT, messages=MESSAGES, stream=True, max_tokens=100)
            del stream
            gc.collect()
            assert session.reserved_usd == 0


async def test_a_cancelled_call_is_settled() -> None:
    with LocalProvider(Reply(input_tokens=20, output_tokens=10)) as provider:
        session = new()
        async with session.guard(async_open_ai(provider)) as client:
            with provider.paused():
                calls = [
                    asyncio.ensure_future(
                        client.chat.completions.create(model=GPT, messages=MESSAGES, max_tokens=100, stream=stream)
                    )
                    for stream in (False, True)
                ]
                await provider.await_calls(2)
                for call in calls:
                    call.cancel()
                assert all(
                    isinstance(each, asyncio.CancelledError)
                    for each in await asyncio.gather(*calls, return_exceptions=True)
                )
            assert session.reserved_usd == 0
            assert session.report().breakdown.llm.calls == 2
            await provider.await_idle()
            assert session.spent_usd >= provider.bill_usd


async def test_a_stream_cancelled_in_the_middle_is_settled() -> None:
    with LocalProvider(GATED) as provider:
        session = new()
        async with session.guard(async_open_ai(provider)) as client:
            begun = asyncio.Event()

            async def read() -> None:
                stream = await client.chat.completions.create(model=GPT, messages=MESSAGES, stream=True, max_tokens=100)
                async for _ in stream:
                    begun.set()

            task = asyncio.ensure_future(read())
            await provider.await_calls(1)
            provider.release_chunk(2)
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert session.reserved_usd == 0 and session.spent_usd >= Decimal("0.001")


@pytest.mark.parametrize("shape", [{"drop_after": 2}, {"error_after": 2, "status": 500}, {"drop_bytes": 40}])
def test_a_stream_that_breaks_is_booked_as_held(shape: dict[str, Any]) -> None:
    with LocalProvider(Reply(text="one two three four", input_tokens=20, output_tokens=40, **shape)) as provider:
        session = new()
        with pytest.raises((openai.OpenAIError, httpx2.HTTPError)):
            drained(ask(session.guard(open_ai(provider)), stream=True, max_tokens=100))
        assert session.reserved_usd == 0
        with pytest.raises((anthropic.AnthropicError, httpx2.HTTPError)):
            drained(ask_claude(session.guard(claude(provider)), stream=True, max_tokens=100))
        assert session.reserved_usd == 0
        provider.wait_until_idle()
        assert session.spent_usd >= provider.bill_usd > 0


@pytest.mark.parametrize(
    "shape", [{"drop_after": 0}, {"usage": "missing"}, {"usage": None}, {"body": "<html>"}, {"body": ""}]
)
def test_an_answer_that_tells_nothing_is_never_free(shape: dict[str, Any]) -> None:
    with LocalProvider(Reply(text="Hello", input_tokens=20, output_tokens=10, **shape)) as provider:
        session = new()
        try:
            ask(session.guard(open_ai(provider)), max_tokens=100)
        except (openai.OpenAIError, ValueError):
            pass
        assert session.reserved_usd == 0 and session.spent_usd >= Decimal("0.001")


def test_a_stream_that_must_not_go_on_is_stopped() -> None:
    with LocalProvider(GATED) as provider:
        session = new()
        stream = ask(session.guard(open_ai(provider)), stream=True, max_tokens=100)
        chunks = iter(stream)
        provider.release_chunk(2)
        next(chunks)
        session.revoke("compromised")
        provider.release_chunk(2)
        with pytest.raises(BudgetRevoked) as stop:
            drained(chunks)
        assert isinstance(stop.value, openai.OpenAIError)
        assert session.reserved_usd == 0
        provider.release_chunk(9) if provider.open_calls else None


def test_done_missing_is_no_reason_to_lose_the_usage() -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    piece = {"id": "1", "model": GPT, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    events = [piece, {"id": "1", "model": GPT, "choices": [], "usage": usage}]
    with LocalProvider(Reply(input_tokens=20, output_tokens=10, events=events)) as provider:
        session = new()
        drained(ask(session.guard(open_ai(provider)), stream=True))
        assert session.spent_usd == Decimal("0.00015")


# Answers that were read already


def test_an_answer_that_comes_already_read_is_booked() -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    answer = {"id": "1", "object": "chat.completion", "model": GPT, "choices": [], "usage": usage}
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    pieces = ({**answer, "choices": [choice], "usage": None}, answer)
    events = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in pieces)

    def handler(request: httpx2.Request) -> httpx2.Response:
        if json.loads(request.content).get("stream"):
            return httpx2.Response(200, content=events, headers={"content-type": "text/event-stream"})
        return httpx2.Response(200, json=answer)

    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    session = new()
    client = session.guard(openai.OpenAI(api_key="x", http_client=http))
    ask(client)
    assert session.spent_usd == Decimal("0.00015") and session.reserved_usd == 0
    drained(ask(client, stream=True))
    assert session.spent_usd == Decimal("0.0003") and session.reserved_usd == 0


def test_anthropic_streams_are_booked_as_billed(provider: LocalProvider) -> None:
    session = new()
    with session.guard(claude(provider)).messages.stream(model=CLAUDE, messages=MESSAGES, max_tokens=100) as stream:
        assert "".join(stream.text_stream) == "Hello there"
    agree(provider, session)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cache_that_has_read_its_answer_from_a_socket_serves_it_again(provider: LocalProvider, stream: bool) -> None:
    class Cache(httpx2.HTTPTransport):
        kept: Any = None

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if self.kept is None:
                self.kept = super().handle_request(request)
                self.kept.read()
            response: httpx2.Response = self.kept
            return response

    session = new()
    with httpx2.Client(transport=Cache()) as http:
        client = session.guard(open_ai(provider, http_client=http))
        for _ in range(2):
            said = ask(client, stream=stream)
            text = "".join(drained(said, lambda c: c.choices[0].delta.content or "")) if stream else None
            assert (text if stream else said.choices[0].message.content) == "Hello there"
    provider.wait_until_idle()
    assert session.spent_usd == 2 * provider.bill_usd and session.reserved_usd == 0


async def test_a_stream_that_is_over_leaves_nothing_of_a_call_to_the_garbage_collector(provider: LocalProvider) -> None:
    """A response of httpx refers to itself, so what it refers to besides is there until that comes round."""
    session = Budget("$1000").session()
    guarded = session.guard(open_ai(provider))
    awaited: Any = session.guard(async_open_ai(provider))

    async def calls(*, to_the_end: bool) -> None:
        with ask(guarded, stream=True) as stream:
            for _ in stream:
                if not to_the_end:
                    break
        async with await ask(awaited, stream=True) as stream:
            async for _ in stream:
                if not to_the_end:
                    break

    for to_the_end in (True, False):
        await calls(to_the_end=to_the_end)  # connections are made, and modules imported
        with left_to_the_collector() as left:
            await calls(to_the_end=to_the_end)
        assert left <= {"GuardedStream", "AsyncGuardedStream", "Plain"}
