"""The local provider fails as real ones do, bills what real ones bill, and lets a test choose the moment."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from budget_guard.testing import LocalProvider, ProviderRequest, Reply, Script

Serve: TypeAlias = Callable[..., tuple[LocalProvider, OpenAI]]
HI: Any = [{"role": "user", "content": "hi"}]

INPUT_NANO, OUTPUT_NANO = 2_500, 10_000  # a token of gpt-4o
STREAMED = Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=40)


@pytest.fixture(params=["chat", "responses"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls one of the two endpoints."""

    def chat(client: OpenAI | AsyncOpenAI, **body: Any) -> Any:
        return client.chat.completions.create(model="gpt-4o", messages=HI, **body)

    def responses(client: OpenAI | AsyncOpenAI, **body: Any) -> Any:
        return client.responses.create(model="gpt-4o", input="hi", **body)

    return chat if request.param == "chat" else responses


def text_in(event: Any) -> str:
    """The piece of text that an event of either endpoint carries."""
    if hasattr(event, "choices"):
        return event.choices[0].delta.content or "" if event.choices else ""
    return event.delta if event.type == "response.output_text.delta" else ""


def deltas(stream: Any) -> Iterator[str]:
    """The pieces of text of a stream, as they come."""
    return filter(None, map(text_in, stream))


def client_of(provider: LocalProvider) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_call_raises_the_clients_own_error_and_costs_nothing(
    serve: Serve, call: Callable[..., Any], status: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    provider, client = serve(Reply(status=status, text="not now", retry_after_s=7))
    with pytest.raises(error, match="not now") as raised:
        call(client, stream=stream)
    assert raised.value.response.headers.get("retry-after") == ("7" if status in (429, 503) else None)
    (served,) = provider.calls
    assert (served.status, served.outcome, served.cost_nano) == (status, "refused", 0)
    assert served.usage.total_tokens == 0
    assert provider.bill_nano == 0


def test_each_retry_of_the_client_is_a_call(serve: Serve) -> None:
    provider, client = serve([Reply(status=429, retry_after_s=0.001), Reply(input_tokens=1, output_tokens=1)])
    client.with_options(max_retries=1).responses.create(model="gpt-4o", input="hi")
    assert [served.outcome for served in provider.calls] == ["refused", "completed"]
    assert provider.bill_nano == INPUT_NANO + OUTPUT_NANO


def test_a_cap_below_the_minimum_of_its_endpoint_is_refused(serve: Serve) -> None:
    provider, client = serve()
    with pytest.raises(openai.BadRequestError, match="expected >= 16, got 15"):
        client.responses.create(model="gpt-4o", input="hi", max_output_tokens=15)
    with pytest.raises(openai.BadRequestError, match="expected >= 1, got 0"):
        client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=0)
    client.responses.create(model="gpt-4o", input="hi", max_output_tokens=16)
    assert [served.outcome for served in provider.calls] == ["refused", "refused", "completed"]


def test_a_body_that_is_no_request_is_a_bad_request_and_no_call(serve: Serve) -> None:
    provider, client = serve()
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.post("/chat/completions", body={"model": "gpt-4o"}, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        body: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": "many"}
        client.post("/chat/completions", body=body, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="JSON object"):
        client.post("/responses", body=[1], cast_to=object)
    assert provider.calls == []


def test_a_reply_cut_before_its_body_is_billed_whole(serve: Serve, call: Callable[..., Any]) -> None:
    provider, client = serve(Reply(drop_after=0, input_tokens=100, output_tokens=40))
    with pytest.raises(openai.APIConnectionError):
        call(client)
    assert provider.calls[0].outcome == "dropped"
    assert provider.bill_nano == 100 * INPUT_NANO + 40 * OUTPUT_NANO


@pytest.mark.parametrize(("chunks", "output"), [(0, 0), (1, 10), (3, 30), (9, 40)])
def test_a_stream_cut_after_some_chunks_is_billed_for_those(
    serve: Serve, call: Callable[..., Any], chunks: int, output: int
) -> None:
    provider, client = serve(Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=40, drop_after=chunks))
    received: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        received.extend(deltas(call(client, stream=True)))
    assert provider.calls[0].outcome == "dropped"
    assert provider.calls[0].usage.output_tokens == output
    assert provider.bill_nano == 100 * INPUT_NANO + output * OUTPUT_NANO


def test_what_was_sent_before_the_cut_arrives(serve: Serve, call: Callable[..., Any]) -> None:
    _, client = serve(Reply(text="abcdefgh", chunks=4, drop_after=2))
    received: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        for piece in deltas(call(client, stream=True)):
            received.append(piece)
    assert received == ["ab", "cd"]


def test_a_stream_that_the_client_closes_is_billed_for_the_chunks_it_let_come(
    serve: Serve, call: Callable[..., Any]
) -> None:
    provider, client = serve(Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=40, gate_chunks=True))
    stream = call(client, stream=True)
    provider.release_chunk(2)
    pieces = deltas(stream)
    assert [next(pieces), next(pieces)] == ["ab", "cd"]
    assert [under_way.index for under_way in provider.open_calls] == [0]
    stream.close()
    provider.wait_until_idle()
    assert provider.calls[0].outcome == "aborted"
    assert provider.bill_nano == 100 * INPUT_NANO + 20 * OUTPUT_NANO


async def test_a_cancelled_task_aborts_its_stream_after_exactly_the_released_chunks(
    call: Callable[..., Any],
) -> None:
    reply = Reply(text="abcdefgh", chunks=4, input_tokens=100, output_tokens=43, reasoning_tokens=3, gate_chunks=True)
    with LocalProvider(reply) as provider:
        async with client_of(provider) as client:
            received = asyncio.Event()

            async def read() -> None:
                async for event in await call(client, stream=True):
                    if text_in(event):
                        received.set()

            task = asyncio.create_task(read())
            await provider.await_calls(1)
            provider.release_chunk()
            await received.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await provider.await_idle()
        (served,) = provider.calls
        assert served.outcome == "aborted"
        assert (served.usage.reasoning, served.usage.output) == (3, 8)  # a quarter of 43, rounded up
        assert provider.bill_nano == 100 * INPUT_NANO + 11 * OUTPUT_NANO


@pytest.mark.parametrize(("stream", "output"), [(False, 40), (True, 0)])
async def test_a_call_given_up_before_its_answer_is_billed_whole_unless_it_streams(
    call: Callable[..., Any], stream: bool, output: int
) -> None:
    with LocalProvider(STREAMED) as provider, provider.paused():
        async with client_of(provider) as client:
            task = asyncio.create_task(call(client, stream=stream))
            await provider.await_calls(1)
            task.cancel()
            await asyncio.wait({task})
            await provider.await_idle()
        assert provider.calls[0].outcome == "aborted"
        assert provider.bill_nano == 100 * INPUT_NANO + output * OUTPUT_NANO


def test_late_usage_is_held_back_until_one_more_release(serve: Serve, call: Callable[..., Any]) -> None:
    provider, client = serve(
        Reply(text="abcd", chunks=2, input_tokens=100, output_tokens=40, usage="late", gate_chunks=True)
    )
    stream = call(client, stream=True)
    provider.release_chunk(2)
    pieces = deltas(stream)
    assert next(pieces) + next(pieces) == "abcd"
    assert len(provider.open_calls) == 1
    provider.release_chunk()
    assert list(pieces) == []
    assert provider.calls[0].outcome == "completed"


def test_late_usage_is_held_back_while_paused_and_billed_although_never_read(
    serve: Serve, call: Callable[..., Any]
) -> None:
    provider, client = serve(
        Reply(text="abcd", chunks=1, input_tokens=100, output_tokens=40, usage="late", gate_chunks=True)
    )
    stream = call(client, stream=True)
    with provider.paused():
        provider.release_chunk(2)
        assert next(deltas(stream)) == "abcd"
        assert len(provider.open_calls) == 1
        stream.close()
        provider.wait_until_idle()
    assert provider.calls[0].outcome == "aborted"
    assert provider.bill_nano == 100 * INPUT_NANO + 40 * OUTPUT_NANO


async def test_two_hundred_calls_are_served_at_once() -> None:
    with LocalProvider(Reply(input_tokens=10, output_tokens=2)) as provider:
        async with client_of(provider) as client:
            with provider.paused():
                ask = client.responses.create
                tasks = [asyncio.create_task(ask(model="gpt-4o", input="hi")) for _ in range(200)]
                await provider.await_calls(200)
                assert (len(provider.open_calls), provider.calls) == (200, [])
            await asyncio.gather(*tasks)
        assert provider.peak_concurrency == 200
        assert [served.index for served in provider.calls] == list(range(200))
        assert all(served.started < 200 <= served.finished for served in provider.calls)
        assert provider.bill_nano == 200 * (10 * INPUT_NANO + 2 * OUTPUT_NANO)


def test_threads_may_call_while_another_thread_looks_on(serve: Serve) -> None:
    provider, client = serve(lambda request: Reply(text=str(request.index)))
    provider.pause()
    with ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(client.responses.create, model="gpt-4o", input="hi") for _ in range(8)]
        provider.wait_for_calls(8)
        provider.resume()
        said = {reply.result().output_text for reply in replies}
    assert said == set("01234567")


def test_a_delay_is_waited_for_before_the_answer(serve: Serve) -> None:
    provider, client = serve(Reply(delay_s=0.02))
    assert client.responses.create(model="gpt-4o", input="hi").output_text == "ok"
    assert provider.calls[0].outcome == "completed"


def test_waiting_for_calls_that_do_not_come_says_how_many_came(serve: Serve) -> None:
    provider, _ = serve()
    with pytest.raises(TimeoutError, match="0 of 1 calls arrived"):
        provider.wait_for_calls(1, timeout=0)
    with pytest.raises(TimeoutError, match="0 of 1 calls arrived"):
        asyncio.run(provider.await_calls(1, timeout=0))


def test_waiting_for_calls_that_do_not_end_says_how_many_are_left() -> None:
    async def check(provider: LocalProvider) -> None:
        async with client_of(provider) as client:
            task = asyncio.create_task(client.responses.create(model="gpt-4o", input="hi"))
            await provider.await_calls(1)
            with pytest.raises(TimeoutError, match="1 calls were still under way"):
                await provider.await_idle(timeout=0)
            provider.resume()
            await task

    with LocalProvider() as provider:
        provider.pause()
        asyncio.run(check(provider))


def test_a_chunk_cannot_be_released_for_nobody(serve: Serve) -> None:
    provider, _ = serve()
    with pytest.raises(RuntimeError, match="no call is under way"):
        provider.release_chunk()


def test_a_failing_script_is_a_server_error_and_comes_out_of_the_with_block(openai_client: OpenAI) -> None:
    def script(request: ProviderRequest) -> Script:
        raise KeyError("forgotten")

    with pytest.raises(RuntimeError, match="forgotten") as raised, LocalProvider(script) as provider:
        client = openai_client.with_options(base_url=provider.base_url)
        with pytest.raises(openai.InternalServerError, match="forgotten"):
            client.responses.create(model="gpt-4o", input="hi")
        assert provider.bill_nano == 0
    assert isinstance(raised.value.__cause__, KeyError)


def test_a_reply_that_contradicts_its_request_is_a_failing_script(openai_client: OpenAI) -> None:
    with (
        pytest.raises(RuntimeError, match="give input_tokens"),
        LocalProvider(Reply(cached_tokens=9)) as provider,
    ):
        client = openai_client.with_options(base_url=provider.base_url)
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model="gpt-4o", input="hi")


def test_stopping_cuts_the_calls_under_way_and_books_them(openai_client: OpenAI) -> None:
    with LocalProvider(STREAMED) as provider, ThreadPoolExecutor(1) as pool:
        provider.pause()
        client = openai_client.with_options(base_url=provider.base_url)
        reply = pool.submit(client.responses.create, model="gpt-4o", input="hi")
        provider.wait_for_calls(1)
        provider.stop()
        assert isinstance(reply.exception(), openai.APIConnectionError)
    assert provider.calls[0].outcome == "dropped"
    assert provider.bill_nano == 100 * INPUT_NANO + 40 * OUTPUT_NANO


def test_calls_forgotten_by_a_reset_leave_no_trace(serve: Serve) -> None:
    provider, client = serve(Reply(gate_chunks=True))
    stream = client.responses.create(model="gpt-4o", input="hi", stream=True)
    provider.reset()
    stream.close()
    assert (provider.open_calls, provider.calls) == ([], [])


def test_a_stopped_provider_leaves_no_thread_and_may_start_again(openai_client: OpenAI) -> None:
    before = set(threading.enumerate())
    provider = LocalProvider()
    for _ in range(2):
        with provider:
            client = openai_client.with_options(base_url=provider.base_url)
            client.responses.create(model="gpt-4o", input="hi")
            with pytest.raises(RuntimeError, match="runs already"):
                provider.start()
        assert set(threading.enumerate()) == before
    assert len(provider.calls) == 2
    provider.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = provider.base_url


def test_without_the_extra_everything_imports_and_starting_names_the_pip_line() -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(("starlette", "uvicorn")))
from budget_guard.testing import *
try:
    LocalProvider().start()
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "budget-guard-py[testing]"' in run.stdout


def test_a_connection_that_is_made_while_it_stops_is_closed() -> None:
    for _ in range(100):
        provider = LocalProvider()
        provider.start()
        port = urlsplit(provider.base_url).port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            provider.stop()
            with suppress(ConnectionError):
                assert client.recv(1) == b""


def test_a_provider_listens_on_the_port_that_it_is_given_or_says_that_it_is_taken() -> None:
    with LocalProvider() as first:
        port = int(first.root_url.rpartition(":")[2])
        with pytest.raises(OSError), LocalProvider(port=port):
            pass
    with LocalProvider(port=port) as second:
        assert second.root_url == f"http://127.0.0.1:{port}"
