"""A gateway in a thread of this process, in front of a local provider."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from budget_guard import Budget
from budget_guard.integrations.gateway import Gateway, GatewaySettings, Upstream
from budget_guard.testing import LocalProvider, Rates
from budget_guard_gateway.admin.app import Admin

DIME = Rates(input="0", output="6250")
"""16 tokens of output cost $0.10: no request of Responses may be capped below 16."""
PRICES: Any = {"dime": (0, 6_250), "cheap": (0, 625)}
"""The same in dollars per million tokens."""
RATES = {"dime": DIME, "cheap": Rates(input="0", output="625")}
MESSAGES = [{"role": "user", "content": "hi"}]
TOKEN = {"authorization": "Bearer anybody"}

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "dime", "messages": MESSAGES, "max_tokens": 16}),
    "responses": ("/v1/responses", {"model": "dime", "input": "hi", "max_output_tokens": 16}),
    "messages": ("/v1/messages", {"model": "dime", "messages": MESSAGES, "max_tokens": 16}),
    "google": (
        "/v1beta/models/dime:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 16}},
    ),
}
"""A request in each dialect that costs $0.10, as is held for it."""
WIRES = list(BODIES)


def asked(wire: str, *, stream: bool = False, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The path and the body of a request that costs a dime."""
    path, body = BODIES[wire]
    if stream and wire == "google":
        return path.replace(":generateContent", ":streamGenerateContent") + "?alt=sse", {**body, **fields}
    return path, {**body, **({"stream": True} if stream else {}), **fields}


class Server(uvicorn.Server):
    """Says when it has started, and stops without a look each tenth of a second."""

    def __init__(self, app: Any, **options: Any) -> None:
        from budget_guard_gateway.serving import http_protocol

        self.up = threading.Event()
        plain = {"ws": "none", "lifespan": "on", "log_config": None, "access_log": False, "loop": "asyncio"}
        quiet = {"server_header": False, "date_header": False, "http": http_protocol(), "port": 0}
        super().__init__(uvicorn.Config(app, **{**plain, **quiet, **options}))

    async def startup(self, sockets: Any = None) -> None:
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        await self.stopping.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        await super().shutdown(sockets)
        while self.server_state.connections:  # of calls that did not end in time
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        for _ in range(3):  # a transport lets go of its socket a turn after it was closed
            await asyncio.sleep(0)

    def stop(self) -> None:
        self.should_exit = True
        self.loop.call_soon_threadsafe(self.stopping.set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[Server]:
    """Serves *app* in a thread."""
    server = Server(app, **options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert server.up.wait(10)
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


class Asking:
    """A gateway that is served, and a client of it."""

    def __init__(self, gateway: Gateway, server: Server, http: httpx.Client) -> None:
        self.gateway = gateway
        self.url = server.url
        self.server = server
        self.loop = server.loop
        self.http = http

    def ask(
        self, wire: str = "chat", *, run: str | None = "r1", token: str = "anybody", **fields: Any
    ) -> httpx.Response:
        path, body = asked(wire, **fields)
        headers = {"authorization": f"Bearer {token}", **({} if run is None else {"x-run-id": run})}
        return self.http.post(path, json=body, headers=headers)

    def run(self, run: str = "r1") -> Any:
        """The counters of a run."""
        return self.gateway.authority.snapshot("run", run)

    def booked(self, run: str = "r1") -> tuple[str, str]:
        """What a run has spent, and what is held in it."""
        found = self.run(run)
        return f"{found.spent_usd:f}", f"{found.reserved_usd:f}"


Ask = Callable[..., Asking]


@contextmanager
def gateway(provider: LocalProvider | None, budget: Any = "$1.00", **settings: Any) -> Iterator[Asking]:
    """A gateway in front of *provider*, for all dialects, or in front of the ``upstreams`` that are given."""
    if provider is not None:
        named = [Upstream(name=name, url=provider.root_url) for name in ("openai", "anthropic", "google")]
        settings.setdefault("upstreams", named)
    settings.setdefault("per_million", PRICES)
    options = {"timeout_graceful_shutdown": settings.pop("grace", 5)}
    run_budget = budget if isinstance(budget, Budget) else Budget(budget)
    made = Gateway(GatewaySettings(run_budget=run_budget, **settings))
    with (
        serving(made, **options) as server,
        httpx.Client(base_url=server.url, timeout=20, limits=httpx.Limits(max_connections=200)) as http,
    ):
        yield Asking(made, server, http)


@contextmanager
def administered(asking: Asking) -> Iterator[httpx.Client]:
    """A client of the gateway's admin port, which is served on the gateway's own event loop, as `serve` does."""
    server = Server(Admin(asking.gateway))
    served = asyncio.run_coroutine_threadsafe(server.serve(), asking.loop)
    assert server.up.wait(10)
    try:
        with httpx.Client(base_url=server.url, timeout=20) as http:
            yield http
    finally:
        server.stop()
        served.result(20)
