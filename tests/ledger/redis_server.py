"""A redis-server of one's own, in a folder of its own, on a free port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis_server = pytest.mark.skipif(
    BINARY is None, reason="no redis-server or valkey-server is installed: apt-get install redis-server"
)
_PATIENCE_S = 20


class RedisServer:
    """One server. Its files stay in *folder* when it ends, and it finds them when it is started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._options = options
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Any:  # redis-py's answers have no useful types
        return redis.Redis(port=self.port)

    def start(self) -> RedisServer:
        assert BINARY is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [BINARY, "--port", str(self.port), "--dir", str(self.folder), "--save", "", *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ends = time.monotonic() + _PATIENCE_S
        while True:
            client = self.client()
            try:
                if client.ping():
                    return self
            except redis.ConnectionError:
                assert time.monotonic() < ends and self._process.poll() is None, "the server does not come up"
                time.sleep(0.01)  # another process: nothing tells when it is there
            finally:
                client.close()

    def kill(self) -> None:
        """As a crash does: nothing is written, nothing is said."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE_S)
            self._process = None

    stop = kill


def _free_port() -> int:
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if port < 50_000:  # a cluster listens 10,000 above it as well
            return port
