"""A TCP proxy in front of a server that does to the answers of scripts what networks do."""

from __future__ import annotations

import asyncio
import threading
from typing import Literal, TypeAlias

Fault: TypeAlias = Literal["lose", "reset", "delay"]


class FaultProxy:
    """Forwards to *upstream*, a port of this machine.

    Faults are put into `faults` and used up one after another, each by the answer to one script: ``lose`` swallows it,
    ``reset`` closes the connection in its place, ``delay`` lets `delayed` pass first. The server has carried the script
    out by then. With `down` every connection is closed at once; with `split` all answers come byte by byte.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.delayed_s = 0.0
        self.down = False
        self.split = False
        self.scripts = 0
        """How many requests with scripts went through."""
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        if self.down:
            client_out.close()
            return
        server_in, server_out = await asyncio.open_connection("127.0.0.1", self.upstream)
        fault: list[Fault] = []

        async def requests() -> None:
            while data := await client_in.read(65_536):
                if b"EVAL" in data:
                    self.scripts += 1
                    if self.faults:
                        fault.append(self.faults.pop(0))
                server_out.write(data)
                await server_out.drain()

        async def answers() -> None:
            while data := await server_in.read(65_536):
                what = fault.pop() if fault else None
                if what == "lose":
                    continue
                if what == "reset" or self.down:
                    return
                if what == "delay":
                    await asyncio.sleep(self.delayed_s)
                for piece in [data[i : i + 1] for i in range(len(data))] if self.split else [data]:
                    client_out.write(piece)
                    await client_out.drain()

        both = [asyncio.create_task(requests()), asyncio.create_task(answers())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the proxy ends; the server's own callback would complain of a cancelled one
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for writer in (client_out, server_out):
                writer.close()
