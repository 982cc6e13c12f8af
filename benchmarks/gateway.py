"""What the gateway adds to a request: CPU beside the same server that only passes bytes through, and time over none.

A provider, the bare server and the gateway each run in a process of their own; one client asks them in turn, one
request after the other. CPU is that of the server's process; rounds of both are compared in pairs, so that a change of
the machine meets both. Two starts of the same server differ by a tenth and more, by how its memory happens to lie: so
both are started anew several times, and the start in the middle counts. JSON is answered at once. Events of a stream
come a millisecond apart, as from a model that writes them; and all at once, which shows the most that reading them can
add: with less than that between them, how many come together is left to chance, in each process anew. ``python
benchmarks/gateway.py``; needs the extra ``gateway``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import uvicorn

from budget_guard import Budget
from budget_guard.integrations.gateway import GatewaySettings, Upstream, serve

STARTS = 7
ROUNDS = 12
EVENTS = 100
PACE_S = 0.001
MESSAGES = [{"role": "user", "content": "Why is the sky blue? " * 45}]  # about 1 kB
USAGE = {"prompt_tokens": 250, "completion_tokens": 100, "total_tokens": 350}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 100}}],
        "usage": USAGE,
    }
).encode()


def event(**fields: Any) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


STREAM = [
    *[event(choices=[{"index": 0, "delta": {"content": "word "}, "finish_reason": None}], usage=None)] * EVENTS,
    event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=None),
    event(choices=[], usage=USAGE),
    b"data: [DONE]\n\n",
]


async def provider(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once; the events of a stream `PACE_S` apart where the request says so."""
    if scope["type"] != "http":
        return
    body = (await receive()).get("body", b"")
    streams = b'"stream":true' in body.replace(b" ", b"")
    paced = (b"x-paced", b"1") in scope["headers"]
    kind = b"text/event-stream" if streams else b"application/json"
    headers = [(b"content-type", kind), *([] if streams else [(b"content-length", b"%d" % len(ANSWER))])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in STREAM if paced else [b"".join(STREAM)] if streams else [ANSWER]:
        await send({"type": "http.response.body", "body": part, "more_body": streams})
        if paced:
            await asyncio.sleep(PACE_S)
    if streams:
        await send({"type": "http.response.body", "body": b""})


class Bare:
    """Passes bytes through, over the same libraries as the gateway and as these have it: no budget, no key, nothing is
    read."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.http: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self.http is None:
            self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = (await receive()).get("body", b"")
        sent = [(name.decode(), value.decode()) for name, value in scope["headers"] if name != b"host"]
        async with self.http.request("POST", self.origin + scope["path"], data=body, headers=sent) as answer:
            drop = (b"transfer-encoding",)
            headers = [(n.lower(), value) for n, value in answer.raw_headers if n.lower() not in drop]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            async for data in answer.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def run(role: str, port: int, origin: str) -> None:
    """Serve in this process."""
    if role == "gateway":
        upstream = Upstream(name="openai", url=origin, key="sk-1")
        serve(GatewaySettings(run_budget=Budget("$1000000"), upstreams=[upstream], port=port))
        return
    app: Any = Bare(origin) if role == "bare" else provider
    quiet: Any = {"log_level": "error", "access_log": False, "server_header": False, "date_header": False}
    uvicorn.run(app, port=port, proxy_headers=False, **quiet)


def started(role: str, origin: str = "") -> tuple[subprocess.Popen[bytes], str]:
    """A server in a process of its own, and its address."""
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, role, str(port), origin])
    return process, answering(process, port)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def answering(process: subprocess.Popen[bytes], port: int) -> str:
    """The address of a server, once it answers."""
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"{process.args!r} does not start")


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds that a process has taken."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def body(*, streams: bool) -> bytes:
    """A request of about 1 kB."""
    more = {"stream": True, "stream_options": {"include_usage": True}} if streams else {"stream": False}
    return json.dumps({"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 200, **more}).encode()


class Asked(NamedTuple):
    """A kind of request, and how often a round has it."""

    name: str
    calls: int
    streams: bool = False
    paced: bool = False


ASKED = (
    Asked("JSON", 80),
    Asked(f"{EVENTS} events, a millisecond apart", 2, streams=True, paced=True),
    Asked(f"{EVENTS} events, all at once", 30, streams=True),
)


async def ask(http: aiohttp.ClientSession, url: str, asked: Asked, count: int) -> list[float]:
    """The seconds that each of *count* requests takes."""
    data = body(streams=asked.streams)
    headers = {"content-type": "application/json", "authorization": "Bearer x", "x-run-id": "bench"}
    if asked.paced:
        headers["x-paced"] = "1"
    times: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        async with http.post(f"{url}/v1/chat/completions", data=data, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            async for _ in answer.content.iter_any():
                pass
        times.append(time.perf_counter() - start)
    return times


class Taken(NamedTuple):
    """The cost of one kind of request in one start of the servers, in microseconds: the least of its rounds."""

    ratio: float
    """CPU of the gateway beside the bare server's, in the middle of the rounds."""
    bare: float
    gateway: float
    over: float
    """Time over none, by the medians of rounds."""


async def measured(upstream: str) -> list[Taken]:
    """Start both servers, and ask them for each kind of request in turn."""
    bare, bare_url = started("bare", upstream)
    gateway, gateway_url = started("gateway", upstream)
    found: list[Taken] = []
    try:
        async with aiohttp.ClientSession() as http:
            for asked in ASKED:
                cpu: dict[str, list[float]] = {"bare": [], "gateway": []}
                took: dict[str, list[float]] = {"direct": [], "bare": [], "gateway": []}
                for turn in range(ROUNDS + 1):
                    direct = await ask(http, upstream, asked, max(1, asked.calls // 4))
                    for role, process, url in (("bare", bare, bare_url), ("gateway", gateway, gateway_url)):
                        before = cpu_s(process)
                        times = await ask(http, url, asked, asked.calls)
                        if turn:  # the first one warms up
                            cpu[role].append((cpu_s(process) - before) / asked.calls * 1e6)
                            took[role].append(statistics.median(times) * 1e6)
                    took["direct"].append(statistics.median(direct) * 1e6)
                ratio = statistics.median(
                    ours / theirs for ours, theirs in zip(cpu["gateway"], cpu["bare"], strict=True)
                )
                over = min(took["gateway"]) - min(took["direct"])
                found.append(Taken(ratio, min(cpu["bare"]), min(cpu["gateway"]), over))
    finally:
        for process in (gateway, bare):
            process.terminate()
            process.wait()
    return found


async def main() -> None:
    upstream, origin = started("provider")
    try:
        starts = [await measured(origin) for _ in range(STARTS)]
    finally:
        upstream.terminate()
        upstream.wait()
    for asked, taken in zip(ASKED, zip(*starts, strict=True), strict=True):
        ratios = sorted(each.ratio for each in taken)
        bare, gateway, over = (statistics.median(column) for column in list(zip(*taken, strict=True))[1:])
        print(
            f"{asked.name:34s} CPU: {statistics.median(ratios):.2f} x (goal 1.6; {ratios[0]:.2f} to {ratios[-1]:.2f} "
            f"in {STARTS} starts): bare {bare:.0f} us, gateway {gateway:.0f} us; over direct {over:+.0f} us"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        asyncio.run(main())
