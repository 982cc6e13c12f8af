"""What takes too long for the tests: run it by hand, and read what it prints.

``python -m tests.integrations.gateway.heavy kills [200]`` | ``workers`` | ``stop`` | ``slow`` | ``idle`` | ``all``
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timezone
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import httpx

from budget_guard import BudgetAuthority, open_ledger
from budget_guard.ledger import reconcile
from budget_guard.ledger.sqlite import SqliteLedger
from budget_guard.testing import FakeClock, LocalProvider, Reply
from tests.integrations.gateway.support import RATES, TOKEN, WIRES, asked, serving
from tests.integrations.gateway.test_processes import served

_REPLY = Reply(text="x " * 16, input_tokens=5, output_tokens=16, chunks=4)
_LATER_S = 7_200


def main(arguments: list[str]) -> None:
    """Run one check, or all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000) if hard > 0 else 20_000, hard))
    name = arguments[0] if arguments else "all"
    for each, check in CHECKS.items():
        if name in (each, "all"):
            check(*map(int, arguments[1:] if name == each else ()))


def _say(name: str, holds: bool, words: str) -> None:
    print(f"{'holds' if holds else 'MISSES'}  {name}: {words}", flush=True)


# kill -9


def kills(count: int = 200) -> None:
    """Kill a gateway between hold and settle, again and again, on one ledger."""
    draw = random.Random(19)
    with tempfile.TemporaryDirectory() as folder, LocalProvider(lambda _: _REPLY, prices=RATES) as provider:
        file = Path(folder) / "budget.db"
        held_at_a_kill, answered, worst = 0, 0, Decimal(0)
        for turn in range(count):
            before = len(provider.calls)
            options = ("--run-budget", "$1000")
            with served(provider, f"sqlite:///{file}", *options) as (process, url):
                done: list[int] = []
                loading = threading.Thread(target=lambda to=url, into=done: into.append(asyncio.run(_load(to))))
                loading.start()
                with suppress(TimeoutError, AssertionError):
                    provider.wait_for_calls(before + 1 + draw.randrange(30))
                if turn % 2:  # half of them with calls that are all between hold and settle
                    provider.pause()
                time.sleep(draw.random() * 0.05)
                process.kill()
                loading.join(30)
                answered += done[0]
            provider.resume()
            provider.wait_until_idle()
            with closing(open_ledger(f"sqlite:///{file}")) as ledger:
                found = BudgetAuthority(ledger).snapshot("run", "r1")
                counted = found.spent_usd + found.reserved_usd
                worst = max(worst, provider.bill_usd - counted)
                held_at_a_kill += found.reserved_usd > 0
        clock = FakeClock()
        with closing(SqliteLedger(str(file), clock=clock)) as later:
            clock.advance((datetime.now(timezone.utc) - clock.now()).total_seconds() + _LATER_S)
            reconciled = len(reconcile.reconcile(later, most=1_000_000))
            found = BudgetAuthority(later).snapshot("run", "r1")
            booked, audit = found.spent_usd, later.audit()
        holds = worst <= 0 and booked >= provider.bill_usd and found.reserved_usd == 0 and not audit
        _say(
            f"kill -9, {count} times",
            holds,
            f"{len(provider.calls)} calls billed ${provider.bill_usd}, {answered} of them answered; booked ${booked}; "
            f"after {held_at_a_kill} kills something was held; {reconciled} holds reconciled; never below the bill: "
            f"{worst <= 0}; audit: {list(audit) or 'clean'}",
        )


async def _load(url: str) -> int:
    """Ask by eight until the gateway is gone; returns how many were answered."""
    answered = 0

    async def ask_on(http: aiohttp.ClientSession, stream: bool) -> None:
        nonlocal answered
        path, body = asked("chat", stream=stream)
        with suppress(aiohttp.ClientError, asyncio.TimeoutError):
            while True:
                async with http.post(url + path, json=body, headers={**TOKEN, "x-run-id": "r1"}) as answer:
                    await answer.read()
                    answered += answer.status == 200

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http:
        await asyncio.gather(*(ask_on(http, bool(i % 2)) for i in range(8)))
    return answered


# 100 at once


def workers() -> None:
    """100 at once, a dime each, on a dollar: by every dialect, one gateway or two."""
    with tempfile.TemporaryDirectory() as folder, _redis() as redis:
        ledgers = {"SQLite": f"sqlite:///{folder}/budget.db", "Redis": redis}
        for (name, ledger), many, wire, stream in product(ledgers.items(), (1, 2, 4), WIRES, (False, True)):
            for gateways in (1, 2) if many == 1 else (1,):
                with LocalProvider(lambda _: _REPLY, prices=RATES) as provider, ExitStack() as stack:
                    options = ["--workers", str(many)]
                    for other in ("anthropic", "google"):
                        options += ["--upstream", f"{other}={provider.root_url}"]
                    urls = [stack.enter_context(served(provider, ledger, *options))[1] for _ in range(gateways)]
                    run = f"w{many}{gateways}{wire}{stream:d}"
                    statuses = Counter(asyncio.run(_at_once(urls, 100, run, wire, stream)))
                spent = BudgetAuthority(ledger).snapshot("run", run).spent_usd
                what = "SSE" if stream else "JSON"
                _say(
                    f"100 at once, {name}, {gateways} x {many} workers, {wire}, {what}",
                    statuses == {200: 10, 402: 90} and provider.bill_usd == spent == 1,
                    f"{dict(statuses)}; the bill ${provider.bill_usd}, booked ${spent}",
                )


async def _at_once(urls: list[str], count: int, run: str, wire: str = "chat", stream: bool = False) -> list[int]:
    path, body = asked(wire, stream=stream)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask(url: str) -> int:
            try:
                async with http.post(url + path, json=body, headers={**TOKEN, "x-run-id": run}) as answer:
                    await answer.read()
                    return answer.status
            except aiohttp.ClientError:
                return 0

        return await asyncio.gather(*(ask(urls[i % len(urls)]) for i in range(count)))


@contextmanager
def _redis() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["redis-server", "--port", str(port), "--save", ""], stdout=subprocess.DEVNULL)
    try:
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


# SIGTERM


def stop() -> None:
    """SIGTERM with 100 calls under way, half of them streams; then a restart."""
    with tempfile.TemporaryDirectory() as folder, LocalProvider(lambda _: _REPLY, prices=RATES) as provider:
        ledger, options = f"sqlite:///{folder}/budget.db", ("--run-budget", "$20", "--grace", "10")
        for many in ("1", "2"):
            provider.reset(lambda _: _REPLY)
            provider.pause()
            with served(provider, ledger, *options, "--workers", many) as (process, url):
                found: list[list[int]] = []
                run = f"stop{many}"
                asking = threading.Thread(
                    target=lambda to=url, of=run, into=found: into.append(asyncio.run(_at_once([to], 50, of)))
                )
                streaming = threading.Thread(
                    target=lambda to=url, of=run, into=found: into.append(
                        asyncio.run(_at_once([to], 50, of, stream=True))
                    )
                )
                asking.start()
                streaming.start()
                provider.wait_for_calls(100, 30)
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                time.sleep(0.5)
                provider.resume()
                code = process.wait(30)
                took = time.monotonic() - began
                asking.join(30)
                streaming.join(30)
            statuses = Counter(status for each in found for status in each)
            spent = BudgetAuthority(ledger).snapshot("run", run).spent_usd
            with served(provider, ledger, *options) as (_, url):
                path, body = asked("chat")
                left = httpx.post(url + path, json=body, headers={**TOKEN, "x-run-id": run}).headers
            holds = statuses == {200: 100} and spent == 10 and code == 0 and took < 10
            holds = holds and left["x-budget-remaining-usd"] == "9.9"
            _say(
                f"SIGTERM with 100 under way, {many} workers",
                holds,
                f"{dict(statuses)} in {took:.1f} s of 10 s of grace, exit code {code}; booked ${spent}; after a "
                f"restart ${left['x-budget-remaining-usd']} of $20 are left once one more call is booked",
            )


# Memory


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1_024
    return 0.0


_EVENT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'


@contextmanager
def _in_front_of(app: Any, *options: str) -> Iterator[tuple[int, str]]:
    """A gateway in front of an ASGI application: its process id, and its address."""
    with serving(app, lifespan="off") as server:
        with served(Mock(root_url=server.url), "memory://", "--run-budget", "$100000", *options) as (process, url):
            yield process.pid, url


async def _flood(scope: Any, receive: Any, send: Any) -> None:
    """100 MB in events of 10 kB."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    event = _EVENT % (b"w" * 10_000)
    for _ in range(10_000 if b"include_usage" in body else 1):
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def slow() -> None:
    """A stream of 100 MB with a reader who takes 1 MB, rests, and takes the next."""
    with _in_front_of(_flood) as (pid, url):
        asyncio.run(_at_once([url], 20, "warm"))  # whose streams are over after one event
        before, most, read = _rss_mb(pid), 0.0, 0
        host, _, port = url.removeprefix("http://").partition(":")
        path, body = asked("chat", stream=True, stream_options={"include_usage": True}, max_tokens=2_000_000)
        data = json.dumps(body).encode()
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer k\r\ncontent-length: {len(data)}\r\n"
            connection.sendall(f"{head}connection: close\r\n\r\n".encode() + data)
            while part := connection.recv(262_144):
                read += len(part)
                if read % 1_000_000 < len(part):
                    time.sleep(0.02)
                    most = max(most, _rss_mb(pid))
        _say(
            "100 MB to a slow reader",
            read > 100_000_000 and most - before < 20,
            f"{read / 1e6:.0f} MB read; the gateway took {before:.1f} MB before, {most:.1f} MB at most",
        )


class _Idle:
    """Begins streams, and says nothing more."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": _EVENT % b"a", "more_body": True})
        self.open += 1
        await receive()


def idle(count: int = 1_000) -> None:
    """Streams that are open, and say nothing."""
    upstream = _Idle()
    with _in_front_of(upstream, "--max-concurrency", str(count + 10)) as (pid, url):
        asyncio.run(_begun(url, 5, lambda: None))
        before = _rss_mb(pid)
        grown: list[float] = []
        asyncio.run(_begun(url, count, lambda: grown.append(_rss_mb(pid))))
        more = grown[0] - before
        _say(
            f"{count} idle streams",
            more < 100,
            f"{more:.1f} MB more than the {before:.1f} MB without them, {more / count * 1_024:.0f} kB each",
        )


async def _begun(url: str, count: int, then: Callable[[], None]) -> None:
    path, body = asked("chat", stream=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        answers = await asyncio.gather(
            *(http.post(url + path, json=body, headers={**TOKEN, "x-run-id": f"i{i}"}) for i in range(count))
        )
        for answer in answers:
            assert answer.status == 200, await answer.text()
            await answer.content.readany()
        then()
        for answer in answers:
            answer.close()


CHECKS: dict[str, Callable[..., None]] = {"workers": workers, "stop": stop, "slow": slow, "idle": idle, "kills": kills}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main(sys.argv[1:])
