"""What gateways hold together: CPU of a gateway and of Redis per call, 1, 2 and 4 gateways, with and without leases.

Each gateway is a process of its own, as is the provider, which answers at once. Clients ask all of them at the same
time, each with runs of its own. CPU per call is what can be trusted on a busy machine of few cores; what these come to
where each process has a core is simulated: calls come by chance, a gateway and a Redis do one thing at a time, and the
99th of 100 calls may wait 20 ms for both. ``python benchmarks/gateway_capacity.py [simulate]``; the first needs the
extras ``gateway`` and ``redis``, and a redis-server, the second nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import gateway as one_gateway
from _redis import redis_server

from budget_guard import Budget
from budget_guard.integrations.gateway import GatewaySettings, Upstream, serve

GATEWAYS = (1, 2, 4)
ROUNDS, CALLS, TASKS, RUNS = 4, 1_500, 16, 8
TOKENS = 4


def run(port: int, origin: str, ledger: str, leases: bool) -> None:
    """Serve a gateway in this process: runs below a ceiling for each user and one for each key."""
    serve(
        GatewaySettings(
            run_budget=Budget("$100000"),
            ceilings={"user": Budget("$1000000", window="day"), "key": Budget("$1000000")},
            upstreams=[Upstream(name="openai", url=origin, key="sk-1")],
            port=port,
            ledger=ledger,
            leases=leases,
        )
    )


def started(ledger: str, origin: str, leases: bool) -> tuple[subprocess.Popen[bytes], str]:
    """A gateway in a process of its own, and its address."""
    port = one_gateway.free_port()
    arguments = ["gateway", str(port), origin, ledger, str(int(leases))]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return process, one_gateway.answering(process, port)


async def ask(url: str, count: int, name: int) -> None:
    """*count* calls of several runs, by several tasks."""
    body = one_gateway.body(streams=False)
    left = iter(range(count))

    async def ask_on(http: aiohttp.ClientSession) -> None:
        for i in left:
            headers = {
                "content-type": "application/json",
                "authorization": f"Bearer {name}-{i % TOKENS}",
                "x-run-id": f"{name}-{i % RUNS}",
            }
            async with http.post(f"{url}/v1/chat/completions", data=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(ask_on(http) for _ in range(TASKS)))


async def ask_all(urls: list[str], count: int) -> None:
    await asyncio.gather(*(ask(url, count // len(urls), i) for i, url in enumerate(urls)))


def measured(ledger: str, origin: str, many: int, leases: bool, client: Any) -> None:
    """Print a line of the table."""
    found = [started(ledger, origin, leases) for _ in range(many)]
    try:
        urls = [url for _, url in found]
        asyncio.run(ask_all(urls, 400 * many))  # opens the runs
        gateways, redis, trips, rates = [], [], [], []
        for _ in range(ROUNDS):
            cpu = [one_gateway.cpu_s(process) for process, _ in found]
            before = _redis_state(client)
            began = time.perf_counter()
            asyncio.run(ask_all(urls, CALLS))
            rates.append(CALLS / (time.perf_counter() - began))
            after = _redis_state(client)
            spent = sum(one_gateway.cpu_s(process) for process, _ in found) - sum(cpu)
            gateways.append(spent / CALLS * 1e6)
            redis.append((after[0] - before[0]) / CALLS * 1e6)
            trips.append((after[1] - before[1]) / CALLS)
        of_gateway, of_redis = min(gateways), min(redis)
        most = f"{1e6 / of_redis:,.0f}" if of_redis else "-"
        kind = "memory" if client is None else "Redis, leases" if leases else "Redis"
        if client is None and ledger.startswith("sqlite"):
            kind = "SQLite"
        print(
            f"| {kind} | {many} | {of_gateway:.0f} us | {1e6 / of_gateway:,.0f} | "
            f"{of_redis:.0f} us | {most} | {min(trips):.2f} | {max(rates):,.0f} |",
            flush=True,
        )
    finally:
        for process, _ in found:
            process.terminate()
        for process, _ in found:
            process.wait()


def _redis_state(client: Any) -> tuple[float, int]:
    """CPU seconds that Redis has taken, and verbs that it has performed for gateways."""
    if client is None:
        return 0.0, 0
    cpu = client.info("cpu")
    verbs = client.info("commandstats")
    calls = sum(each["calls"] for name, each in verbs.items() if name.startswith(("cmdstat_evalsha", "cmdstat_fcall")))
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]), calls


# What is measured is taken further

MEASURED_US: dict[str, tuple[float, float, float]] = {
    "memory": (411, 0, 0),
    "SQLite": (602, 0, 0),
    "Redis": (695, 330, 3),
    "Redis, leases": (484, 31, 0.1),
}
"""CPU of a gateway and of Redis for a call, and scripts in Redis, as they were measured here."""
MOST_WAIT_S, SIMULATED_S = 0.02, 0.5
_LEAST_SIMULATED = 6_000


def p99_s(rate: float, gateways: int, kind: str, redises: int = 1) -> float:
    """The wait of the 99th of 100 calls, beyond the work itself, at *rate* calls a second."""
    work, of_redis, scripts = MEASURED_US[kind]
    draw = random.Random(1)
    free = [0.0] * gateways
    redis_free = [0.0] * redises
    waits: list[float] = []
    now = 0.0
    count = max(_LEAST_SIMULATED, int(rate * SIMULATED_S))
    for call in range(count):
        now += draw.expovariate(rate)
        gateway, redis = call % gateways, draw.randrange(redises)
        at = max(now, free[gateway])
        waited = at - now
        free[gateway] = at + work / 1e6
        if scripts and draw.random() < scripts:  # all scripts of a call at once: the queue is as long
            begins = max(at, redis_free[redis])
            waited += begins - at
            redis_free[redis] = begins + of_redis / 1e6 / min(1.0, scripts)
        waits.append(waited)
    waits = sorted(waits[count // 5 :])
    return waits[int(len(waits) * 0.99)]


def most_a_second(gateways: int, kind: str, redises: int = 1) -> int:
    """The highest rate at which calls do not wait too long."""
    least, most = 1.0, gateways * 1e6 / MEASURED_US[kind][0]
    while most - least > least * 0.01:
        rate = (least + most) / 2
        if p99_s(rate, gateways, kind, redises) <= MOST_WAIT_S:
            least = rate
        else:
            most = rate
    return int(least)


def simulate() -> None:
    """Print what the measured numbers come to."""
    print("| gateways | nodes of Redis | every call by itself | with leases |")
    print("|---|---|---|---|")
    for gateways, redises in ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (32, 1), (32, 4), (64, 16)):
        alone, leased = (most_a_second(gateways, kind, redises) for kind in ("Redis", "Redis, leases"))
        print(f"| {gateways} | {redises} | {alone:,} | {leased:,} |")
    for kind in ("memory", "SQLite"):
        print(f"{kind}, 1 gateway: {most_a_second(1, kind):,} calls a second")


def main() -> None:
    upstream, origin = one_gateway.started("provider")
    try:
        print("| ledger | gateways | CPU of a gateway for a call | calls a second of one core |", end="")
        print(" CPU of Redis | calls a second of one core of Redis | scripts a call | seen here, all on this machine |")
        print("|---|---|---|---|---|---|---|---|")
        measured("memory://", origin, 1, False, None)
        with tempfile.TemporaryDirectory() as folder:
            measured(f"sqlite:///{Path(folder) / 'budget.db'}", origin, 1, False, None)
        with redis_server() as redis:
            if redis is not None:
                for leases in (False, True):
                    for many in GATEWAYS:
                        redis.client.flushall()
                        measured(redis.url, origin, many, leases, redis.client)
    finally:
        upstream.terminate()
        upstream.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["simulate"]:
        simulate()
    elif len(sys.argv) > 1:
        run(int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5] == "1")
    else:
        main()
