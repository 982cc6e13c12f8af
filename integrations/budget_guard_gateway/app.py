"""The gateway as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.errors import BudgetError
from budget_guard.ledger.outbox.ledger import areplay
from budget_guard.protocol import problem
from budget_guard_gateway.decisions import WRITTEN_AFTER_S
from budget_guard_gateway.exchange import Exchange
from budget_guard_gateway.keys import OneKey
from budget_guard_gateway.messages import DIRECT_ANSWER, Client, ClientGone, Receive, Scope, Send
from budget_guard_gateway.metrics import SharedNumbers
from budget_guard_gateway.runs import LOOKED_AFTER_S
from budget_guard_gateway.settings import GatewaySettings
from budget_guard_gateway.state import GatewayState

_log = logging.getLogger("budget_guard")

_MOST_LEFT_S = 10.0
"""Seconds that calls have to settle in once they are cancelled."""


class Gateway(GatewayState):
    """Passes requests on to model providers, each held in its run's budget and its principals' ceilings.

    An ASGI application, for uvicorn or another server of that kind. One is made in each process; all of them go by the
    same ledger.

    Args:
        settings: What it is started with.
        clock: Where time comes from.
        keys: Who may ask, in place of a file's.
        shared: Where its numbers for Prometheus are summed up with those of other processes.

    Raises:
        ValueError, OSError, BudgetError: As `GatewayState`.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        clock: Clock = SYSTEM_CLOCK,
        keys: OneKey | None = None,
        shared: SharedNumbers | None = None,
    ) -> None:
        super().__init__(settings, clock=clock, keys=keys)
        self._shared = shared
        self._timers: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        # taken out: it refers to what has the scope, and such a circle is left to the garbage collector
        client = Client(receive, send, scope.get("extensions", {}).pop(DIRECT_ANSWER, None))
        path: str = scope["path"]
        if path.startswith("/health/"):
            await self._health(path, client)
            return
        if len(self.under_way) >= self.settings.max_concurrency:
            await client.refuse(problem("busy", "As many requests are under way as are taken.", retry_after_s=1))
            return
        task: Any = asyncio.current_task()
        self.under_way.add(task)
        try:
            await Exchange(self, scope, client, task).serve()
        except ClientGone:
            return
        finally:
            self.under_way.discard(task)

    async def _health(self, path: str, client: Client) -> None:
        if path == "/health/live":
            await client.answer(200, [(b"content-type", b"text/plain")], b"live\n")
        elif path == "/health/ready":
            ready = await self._is_ready()
            words = b"ready\n" if ready else b"the ledger cannot be reached\n"
            await client.answer(200 if ready else 503, [(b"content-type", b"text/plain")], words)
        else:
            await client.refuse(problem("not_found", "There is /health/live, and /health/ready."))

    async def _is_ready(self) -> bool:
        """Whether the ledger answers within a second."""
        asked = asyncio.ensure_future(self._ask_the_ledger())
        await self.clock.wait_async(asked, 1.0)
        if not asked.done():
            asked.cancel()
            return False
        return asked.exception() is None

    async def _ask_the_ledger(self) -> None:
        await self.authority.asnapshot("key", "health")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._timers = [asyncio.ensure_future(each) for each in (self._look_after(), self._write_down())]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def close(self) -> None:
        """Settle what is under way, and let go of connections and of the ledger."""
        for timer in self._timers:
            timer.cancel()
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=_MOST_LEFT_S)
        await self.runs.close()
        with suppress(BudgetError):
            await areplay(self.authority.outbox, self.authority.ledger)
        self._count()
        await self.decisions.close()
        if self.connections is not None:
            await self.connections.close()
        await self.authority.ledger.aio.close()

    async def _write_down(self) -> None:
        """Write the records of what was decided, and the numbers, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await self.clock.wait_async(loop.create_future(), WRITTEN_AFTER_S)
            await self.decisions.flush()
            self._count()

    def _count(self) -> None:
        """Look at what was decided, for the numbers, and write them where others read them."""
        snapshot = self.metrics.snapshot()
        if self._shared is not None:
            try:
                self._shared.write(snapshot)
            except OSError as error:
                _log.error("budget_guard: the numbers for Prometheus cannot be written: %s", error)

    async def _look_after(self) -> None:
        """Look after what was left behind, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await self.clock.wait_async(loop.create_future(), LOOKED_AFTER_S)
            await self.runs.look_after()
