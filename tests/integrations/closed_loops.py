"""A loop that is closed over what it is doing, without the sockets that it would leave open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def closed(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Close *loop* over all that it is doing; after the block close the sockets that are open, as a program's end does.

    Nothing of the loop is told: its transports have lost their way to it.
    """
    transports: list[Any] = list(loop._transports.values())  # type: ignore[attr-defined]
    loop.close()
    yield
    for transport in transports:
        sock = getattr(transport, "_sock", None)
        if sock is not None:
            transport._sock = None
            sock.close()
