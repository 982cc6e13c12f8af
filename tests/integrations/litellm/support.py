"""The real proxy of LiteLLM, in a process of its own, in front of a local provider."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from budget_guard import BudgetAuthority
from budget_guard.testing import LocalProvider, ProviderRequest, Rates, Reply

ROOT = Path(__file__).parents[3]
DIME = Rates(input="0", output="6250")
"""16 tokens of output cost $0.10: no request of Responses may be capped below 16."""
_DIMES = ("dime", "claude-dime", "gemini-dime", "flaky", "limited", "drops", "silent", "gated")
_READERS = ("embed", "gemini-reads", "claude-reads")
PRICES = {**dict.fromkeys(_DIMES, "0,6250"), "cheap": "0,625", "frugal": "0,625", **dict.fromkeys(_READERS, "1000,0")}
"""The same in dollars per million tokens."""
RATES = {
    **dict.fromkeys(_DIMES, DIME),
    "cheap": Rates(input="0", output="625"),
    **dict.fromkeys(_READERS, Rates(input="1000", output="0")),
}
KEY = "sk-master"
TOKEN = {"authorization": f"Bearer {KEY}"}
MESSAGES = [{"role": "user", "content": "hi"}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "dime", "messages": MESSAGES, "max_tokens": 16}),
    "responses": ("/v1/responses", {"model": "dime", "input": "hi", "max_output_tokens": 16}),
    "messages": ("/v1/messages", {"model": "dime", "messages": MESSAGES, "max_tokens": 16}),
}
"""A request on each route that costs $0.10, as is held for it."""


def asked(route: str, *, stream: bool = False, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The path and the body of a request that costs a dime."""
    path, body = BODIES[route]
    return path, {**body, **({"stream": True} if stream else {}), **fields}


ALICE, BOB = {"authorization": "Bearer sk-alice"}, {"authorization": "Bearer sk-bob"}
AUTHENTICATION = """
from fastapi import HTTPException
from litellm.proxy._types import UserAPIKeyAuth

async def known(request, api_key):
    name = (api_key or "").removeprefix("sk-")
    if name not in ("master", "alice", "bob"):
        raise HTTPException(401, "nobody")
    return UserAPIKeyAuth(api_key=api_key, key_alias=f"key-of-{name}", user_id=name, team_id="team")
"""
"""Who LiteLLM takes its callers for: without a database it knows but one key by itself."""


PATIENT = """
import uvicorn.supervisors.multiprocess as supervisor

supervisor.Process.is_alive = lambda self, timeout=5: self.process.is_alive()
"""
"""On a busy machine a worker that is starting answers no ping in time, and is replaced, again and again."""


class Proxy:
    """A proxy that is running.

    Args:
        url: Its address.
        process: Its process, whose output is read.
        workers: How many processes serve.
    """

    def __init__(self, url: str, process: subprocess.Popen[str], workers: int) -> None:
        self.url = url
        self.process = process
        self._lines: list[str] = []
        self._up = threading.Semaphore(0)
        self._workers = workers
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            if ("Uvicorn running on" if self._workers == 1 else "Application startup complete") in line:
                self._up.release()
        for _ in range(self._workers):
            self._up.release()

    def wait_until_up(self) -> None:
        """Wait until it serves.

        Raises:
            RuntimeError: If it does not.
        """
        started = all(self._up.acquire(timeout=180) for _ in range(self._workers))
        if not started or self.process.poll() is not None:
            raise RuntimeError(self.log[-8_000:])

    def stop(self) -> None:
        """Stop it, and the workers that it has."""
        process = self.process
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        self._reading.join(20)
        assert process.stdout is not None
        process.stdout.close()

    @property
    def log(self) -> str:
        """What it has printed."""
        return "".join(self._lines)

    def post(
        self, route: str, *, run: str | None = None, headers: Mapping[str, str] = {}, **fields: Any
    ) -> httpx.Response:
        path, body = asked(route, **fields)
        named = {} if run is None else {"x-run-id": run}
        return httpx.post(self.url + path, json=body, headers={**TOKEN, **named, **headers}, timeout=60)

    def all_at_once(self, count: int, route: str, run: str, **fields: Any) -> Counter[int]:
        """The statuses of *count* requests at the same time."""
        return asyncio.run(self._all_at_once(count, route, run, **fields))

    async def _all_at_once(self, count: int, route: str, run: str, **fields: Any) -> Counter[int]:
        path, body = asked(route, **fields)
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(timeout=120, limits=limits, verify=False) as client:
            asking = [client.post(self.url + path, json=body, headers={**TOKEN, "x-run-id": run}) for _ in range(count)]
            return Counter(answer.status_code for answer in await asyncio.gather(*asking))


def deployment(name: str, provider: LocalProvider, model: str | None = None, **more: Any) -> dict[str, Any]:
    """An entry of the proxy's list of models."""
    full = model or f"openai/{name}"
    base = provider.base_url.removesuffix("/v1") if full.startswith("anthropic/") else provider.base_url
    return {"model_name": name, "litellm_params": {"model": full, "api_base": base, "api_key": "none", **more}}


@contextmanager
def proxy(
    folder: Path,
    models: list[dict[str, Any]],
    *,
    environment: Mapping[str, str] = {},
    workers: int = 1,
    router: Mapping[str, Any] = {},
    settings: Mapping[str, Any] = {},
    general: Mapping[str, Any] = {},
    guarded: bool = True,
    before: str = "",
) -> Iterator[Proxy]:
    """A proxy in a process of its own, or in several.

    Args:
        folder: Where its files are kept.
        models: Its list of models.
        environment: Variables, such as ``BUDGET_GUARD_RUN_BUDGET``.
        workers: How many processes serve.
        router: Settings of its router.
        settings: Those of LiteLLM.
        general: General ones.
        guarded: Whether the guard is among its callbacks.
        before: A program that is run first in each process.
    """
    named = ["budget_guard.integrations.litellm.proxy_guard"] if guarded else []
    config = {
        "model_list": models,
        "router_settings": {"num_retries": 0, "disable_cooldowns": True, **router},
        "litellm_settings": {"callbacks": named, **settings},
        "general_settings": {"master_key": KEY, **general},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), "utf-8")  # which is YAML
    paths = [str(ROOT), str(ROOT / "integrations")]
    if workers > 1:
        before += PATIENT
    if before:
        (folder / "sitecustomize.py").write_text(before, "utf-8")
        paths.insert(0, str(folder))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
    prices = ";".join(f"{model}={price}" for model, price in PRICES.items())
    ours = {"BUDGET_GUARD_RUN_BUDGET": "$1.00", "BUDGET_GUARD_PRICE": prices, "BUDGET_GUARD_MAX_WAIT": "0"}
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(path), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", str(workers)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **quiet, **ours, **environment},
    )
    running = Proxy(f"http://127.0.0.1:{port}", process, workers)
    try:
        running.wait_until_up()
        yield running
    finally:
        running.stop()


def replies(request: ProviderRequest) -> Reply:
    """What the provider answers, by the name of the model."""
    wrong: dict[str, dict[str, Any]] = {
        "flaky": {"status": 500},
        "limited": {"status": 429},
        "drops": {"drop_after": 2},
        "silent": {"usage": "off", "output_tokens": 3},
        "gated": {"gate_chunks": True},
    }
    return Reply(**{"text": "x " * 16, "output_tokens": 16, **wrong.get(request.model, {})})


MODELS = ("dime", "cheap", "embed", "flaky", "limited", "drops", "silent", "gated")


class Guarded:
    """A proxy, its provider, and the ledger that they are compared by."""

    def __init__(self, provider: LocalProvider, running: Proxy, ledger: str) -> None:
        self.provider = provider
        self.proxy = running
        self._authority = BudgetAuthority(ledger)

    def booked(self, run: str) -> tuple[str, str]:
        """What a run has spent, and what is held in it."""
        found = self._authority.snapshot("run", run)
        return f"{found.spent_usd:f}", f"{found.reserved_usd:f}"

    def settled(self, run: str) -> tuple[str, str]:
        """As `booked`, once nothing is held in it any more: a client that goes does not wait for that."""
        done = threading.Event()
        for _ in range(1_000):
            if self._authority.snapshot("run", run).reserved_usd == 0:
                return self.booked(run)
            done.wait(0.01)
        raise AssertionError(f"{run}: {self.booked(run)}")

    def in_all(self) -> tuple[Decimal, Decimal]:
        """What all runs have spent, and what is held in them."""
        found = [self._authority.snapshot("run", run) for run in self._authority.list("run")]
        return sum((each.spent_usd for each in found), Decimal()), sum((each.reserved_usd for each in found), Decimal())

    def record(self, answer: httpx.Response, headers: Mapping[str, str] = TOKEN) -> Any:
        """The record of the decision on a request."""
        found = httpx.get(
            f"{self.proxy.url}/budget/decisions/{answer.headers['x-budget-decision-id']}", headers=headers
        )
        return found.json()

    def asked_of_provider(self) -> list[str]:
        """The models that were called since this was asked last."""
        models = [call.model for call in self.provider.calls]
        new = models[self._seen :]
        self._seen = len(models)
        return new

    _seen = 0


@contextmanager
def guarded(folder: Path, **options: Any) -> Iterator[Guarded]:
    """A guarded proxy in front of a provider that does what the names of its models say."""
    ledger = f"sqlite:///{folder}/budget.db"
    (folder / "who.py").write_text(AUTHENTICATION, "utf-8")
    environment = {
        "BUDGET_GUARD_LEDGER": ledger,
        "BUDGET_GUARD_MODEL": "prod-cheap=frugal",
        **options.pop("environment", {}),
    }
    general = {"custom_auth": "who.known", **options.pop("general", {})}
    with LocalProvider(replies, prices=RATES) as provider:
        models = [deployment(name, provider) for name in MODELS]
        models += [
            deployment("claude", provider, "anthropic/claude-dime"),
            deployment("down", provider, "openai/dime", api_base="http://127.0.0.1:9/v1"),
            deployment("unpriced", provider),
            deployment("retrying", provider, "openai/flaky", max_retries=2),
            deployment("ladder", provider, "openai/dime"),
            deployment("shaky", provider, "openai/flaky"),
            deployment("prod-cheap", provider, "openai/cheap"),
            deployment("reads", provider, "openai/embed"),
            deployment("claude-reads", provider, "anthropic/claude-reads"),
            deployment("alternates", provider, "openai/dime", ensure_alternating_roles=True),
            deployment("capless", provider, "v0/dime", drop_params=True),
            deployment("one-cap", provider, "hyperbolic/dime", drop_params=True),
            *(
                deployment(name, provider, f"gemini/{name}", api_base=f"{provider.root_url}/v1beta/models/{name}")
                for name in ("gemini-dime", "gemini-reads")
            ),
        ]
        router = {"fallbacks": [{"ladder": ["cheap"]}, {"shaky": ["cheap"]}], **options.pop("router", {})}
        with proxy(folder, models, environment=environment, general=general, router=router, **options) as running:
            yield Guarded(provider, running, environment["BUDGET_GUARD_LEDGER"])
