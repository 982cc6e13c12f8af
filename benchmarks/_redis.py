"""A redis-server of a benchmark's own, with an append-only file."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Redis(NamedTuple):
    """A server that answers."""

    port: int
    client: Any
    """redis-py's client of it, which waits for it to start. Its answers have no useful types."""

    @property
    def url(self) -> str:
        """The URL of a ledger in it."""
        return f"redis://127.0.0.1:{self.port}"


@contextmanager
def redis_server() -> Iterator[Redis | None]:
    """Start a server on a free port, and stop it in the end; None where none is installed, which is printed."""
    import redis

    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        print("redis    left out: no redis-server is installed")
        yield None
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        free.close()
        server = subprocess.Popen(
            [binary, "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "yes"],
            stdout=subprocess.DEVNULL,
        )
        try:
            client = redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50))
            client.ping()
            yield Redis(port, client)
            client.close()
        finally:
            server.terminate()
            server.wait()
