"""What a guarded client adds to a call: its own work, the whole of a raw client's call, and a chunk of a stream.

The provider is a transport that answers at once, so that nothing but the clients is measured; CPU time of this process,
the median of batches, guarded and plain in turn. ``python benchmarks/guarded_client.py``.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai

from budget_guard import Budget
from budget_guard.adapter import Attempts

BATCHES, CALLS = 31, 40
MESSAGES: Any = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Why is the sky blue?"}]
BODY = json.dumps({"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 100}).encode()
USAGE = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It scatters."}}
ANSWER = json.dumps(
    {"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [CHOICE], "usage": USAGE}
).encode()
CHUNKS = 1_000


def chunk(**fields: Any) -> bytes:
    return (
        b"data: "
        + json.dumps({"id": "1", "object": "chat.completion.chunk", "model": "gpt-4o", **fields}).encode()
        + b"\n\n"
    )


PIECES = [chunk(choices=[{"index": 0, "delta": {"content": "word "}, "finish_reason": None}], usage=None)] * CHUNKS
END = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]) + chunk(choices=[], usage=USAGE)


class Answers(httpx2.BaseTransport):
    """Answers at once."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if b'"stream"' not in request.read():
            return httpx2.Response(200, headers={"content-type": "application/json"}, stream=Body([ANSWER]))
        pieces = [*PIECES, END, b"data: [DONE]\n\n"]
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(pieces))


class Body(httpx2.SyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces


def micros(call: Callable[[], object], count: int) -> float:
    """Microseconds of CPU time of one of *count* calls."""
    start = time.process_time_ns()
    for _ in range(count):
        call()
    return (time.process_time_ns() - start) / 1_000 / count


def compared(plain: Callable[[], object], guarded: Callable[[], object], count: int) -> tuple[float, float]:
    """The medians of both, measured in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(BATCHES):
        times[0].append(micros(plain, count))
        times[1].append(micros(guarded, count))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    session = Budget("$1000000").session()
    attempts = Attempts([session])
    headers: dict[str, str] = {}
    path = "/v1/chat/completions"

    def own_work() -> None:
        dialect = attempts.dialect_of("POST", "api.openai.com", path)
        assert dialect is not None
        attempt = attempts.begin(dialect, "POST", "api.openai.com", path, headers, BODY)
        assert attempt.hold() is None
        with attempt.counting():
            pass
        attempt.answered(200, "application/json")
        attempt.feed(ANSWER)
        attempt.end()

    client = openai.OpenAI(api_key="x", http_client=httpx2.Client(transport=Answers()))
    guarded = session.guard(client)

    def ask(of: openai.OpenAI) -> Callable[[], object]:
        return lambda: of.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=100)

    def stream(of: Any) -> Callable[[], object]:
        http = of._client
        body = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 100, "stream": True}

        def read() -> None:
            with http.stream("POST", "https://api.openai.com" + path, json=body) as response:
                for _ in response.iter_raw():
                    pass

        return read

    for warm in (own_work, ask(client), ask(guarded), stream(client), stream(guarded)):
        for _ in range(5):
            warm()
    gc.collect()
    gc.freeze()
    work = statistics.median(micros(own_work, CALLS) for _ in range(BATCHES))
    print(f"own work of a guarded call: {work:.1f} us (goal: 20)")
    plain, with_guard = compared(ask(client), ask(guarded), CALLS)
    print(f"a raw client call: {plain:.0f} us, guarded {with_guard:.0f} us: {with_guard - plain:+.0f} us (goal: 130)")
    plain, with_guard = compared(stream(client), stream(guarded), 3)
    print(f"a chunk of a stream of {CHUNKS:,}: {(with_guard - plain) / CHUNKS:+.1f} us (goal: 5)")


if __name__ == "__main__":
    main()
